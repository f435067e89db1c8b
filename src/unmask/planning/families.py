"""Plans that need no profile: tuples of step sizes from a length and a number of steps.

A plan (s_1, .., s_K) unmasks s_k positions in step k; its boundaries are a_0 = 0, a_k = s_1 + .. + s_k, a_K
= N. Formulas of uniform and cosine plans are common property; the others name their source.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TypeAlias

import torch

from unmask.base.numbers import listed, real, shown, whole
from unmask.base.profile import Sizes, plain

Rule: TypeAlias = Callable[[int, float], Sizes]


def boundaries(plan: Sequence[int]) -> Sizes:
    """The running sums 0 = a_0 < a_1 < .. < a_K = N of a plan."""
    total, result = 0, [0]
    for size in _sizes(plan):
        total += size
        result.append(total)
    return tuple(result)


def sizes_between(points: Sequence[int]) -> Sizes:
    """The step sizes between increasing boundaries: the inverse of `boundaries`."""
    places = listed(points, "boundaries") or ()
    return tuple(after - before for before, after in pairwise(whole(place, "a boundary") for place in places))


def one_by_one(length: int) -> Sizes:
    """One position per step: ``length`` calls and no loss at all."""
    return (1,) * _count(length, "length")


def uniform(length: int, steps: int) -> Sizes:
    """``steps`` equal blocks, a_k = round(N k / K). Costs at most (ceil(N/K) - 1) f(N-1) nats (bound B1)."""
    return _rounded(length, steps, lambda share: share)


def cosine(length: int, steps: int) -> Sizes:
    """Small steps first, a_k = round(N (1 - cos(pi k / 2K))). Suits mixtures; no guarantee."""
    return _rounded(length, steps, lambda share: 1 - math.cos(math.pi * share / 2))


def arccos(length: int, steps: int) -> Sizes:
    """Even steps, a large end: a_k = floor(N (1 - (2/pi) arccos(k/K))), at least k (Halton, ICLR 2025)."""
    length, steps = lengths(length, steps)
    cut = [int(length * (1 - 2 / math.pi * math.acos(k / steps)) + 1e-9) for k in range(steps + 1)]
    return repaired(cut, length)


def doubling(length: int) -> Sizes:
    """1, 1, 2, 4, ..: the levels of `scores.bisection`, in 1 + ceil(log2 N) steps when nothing is visible at the start.

    With that order no loss for any first-order Markov chain. N that is no power of two shortens its levels:
    the l-th one holds the odd multiples of 2^(B-l) below N, B = ceil(log2 N). Derived.
    """
    bits = (_count(length, "length") - 1).bit_length()
    strides = [1 << (bits - level) for level in range(1, bits + 1)]
    return (1, *((length - 1 + stride) // (2 * stride) for stride in strides))


def tc_at(length: int, rho: float) -> Sizes:
    """Large steps first: s = 1 + floor(rho (N-a-1)) after a positions. Costs at most rho TC nats. Derived."""
    return _by_rule(length, rho, lambda a: length - a - 1)


def dtc_at(length: int, rho: float) -> Sizes:
    """Small steps first: s = 1 + floor(rho (a+1)) after a positions. Costs at most rho DTC nats. Derived."""
    return _by_rule(length, rho, lambda a: a + 1)


def log_odds_at(length: int, rho: float) -> Sizes:
    """Small at both ends: s = 1 + floor(rho (a+1)(N-a-1)/N) after a positions. Costs at most rho M nats.

    Derived. M <= min(TC, DTC). For rho <= 1 about (2/rho) ln(rho N) + 2/rho steps.
    """
    return _by_rule(length, rho, lambda a: (a + 1) * (length - a - 1) / length)


def tc(length: int, steps: int) -> Sizes:
    """``steps`` steps, large first, at the least guaranteed rho TC nats; rho by `certificates`. Derived."""
    return _with_steps(tc_at, length, steps)


def dtc(length: int, steps: int) -> Sizes:
    """``steps`` steps, small first, at the least guaranteed rho DTC nats; rho by `certificates`. Derived."""
    return _with_steps(dtc_at, length, steps)


def log_odds(length: int, steps: int) -> Sizes:
    """``steps`` steps, small at both ends, at the least guaranteed rho M nats. Derived."""
    return _with_steps(log_odds_at, length, steps)


def random_phase_uniform(
    length: int, steps: int, *, generator: torch.Generator | None = None, offset: int | None = None
) -> Sizes:
    """A first block uniform on 1..s, then blocks of s = ceil((N-1)/(K-1)): at most ``steps`` steps. Derived.

    Costs at most (s-1)/2 f(N-1) nats on average over the phase (bound B3), for every law. Give a
    ``generator``, or ``offset`` in 1..s to fix the first block. Needs two steps or more (one position needs
    one).
    """
    length, steps = lengths(length, steps)
    size = phase_size(length, steps)
    first = whole(offset, "offset") if offset is not None else _draw_int(size, generator)
    if not 1 <= first <= size:
        raise ValueError(f"got offset={first}, expected 1..{size}, the size of the blocks")
    return sizes_between(sorted({0, *range(first, length, size), length}))


def phase_size(length: int, steps: int) -> int:
    """Block size of `random_phase_uniform`: the least s that keeps every phase within ``steps`` steps."""
    length, steps = lengths(length, steps)
    if steps == 1 and length > 1:
        raise ValueError(
            f"got steps=1 for {length} positions, expected at least 2; one step has no phase to draw"
        )
    return max(1, -(-(length - 1) // max(1, steps - 1)))


def random_phase_geometric(
    length: int,
    steps: int,
    *,
    generator: torch.Generator | None = None,
    offset: float | None = None,
    mirrored: bool = False,
) -> Sizes:
    """Boundaries ceil((1+rho)^(j+U)), rho = N^(1/K) - 1, U uniform on (0, 1): about ``steps`` steps.

    Costs about (rho / ln(1+rho) - 1) DTC nats on average over U; mirrored (large steps first) about
    (1 - rho / ((1+rho) ln(1+rho))) TC. Give a ``generator``, or ``offset`` in (0, 1). Derived.
    """
    length, steps = lengths(length, steps)
    u = _draw_unit(generator) if offset is None else real(offset, "offset")
    if not 0 <= u <= 1:
        raise ValueError(f"got offset={u}, expected a number between 0 and 1")
    growth = max(1e-12, math.log(length)) / steps
    cut = {math.ceil(math.exp(growth * (j + u))) for j in range(-1, steps + 1)}
    inner = sorted(point for point in cut if 0 < point < length)
    plan = sizes_between([0, *inner, length])
    return plan[::-1] if mirrored else plan


def chen_cong_li_tc(length: int, ratio: float) -> Sizes:
    """Plan of Chen, Cong, Li (COLT 2026) for an estimate TC^ and a wanted KL eps, ``ratio`` = TC^/eps.

    Costs at most eps nats when TC <= TC^, in at most 2 + (1 + ln N)(1 + ceil(ratio)) steps. Some of the
    rounding is inferred. For comparison: `tc` needs fewer steps for the same promise.
    """
    length = _count(length, "length")
    zeta = 1 + math.ceil(min(_positive(ratio, "ratio"), length))
    if zeta >= length + 1:
        return one_by_one(length)
    rounds = math.floor(math.log(length - zeta + 1) / -math.log1p(-1 / zeta)) + 2
    left, sizes = length, []
    for _ in range(rounds):
        sizes.append(left // zeta)
        left -= sizes[-1]
    return (*(size for size in sizes if size), *(1,) * left)


def chen_cong_li_dtc(length: int, ratio: float) -> Sizes:
    """As `chen_cong_li_tc` with DTC for TC: the same sizes read backwards, small steps first."""
    return chen_cong_li_tc(length, ratio)[::-1]


def repaired(points: Iterable[float], length: int) -> Sizes:
    """Step sizes from K+1 rough boundaries: rounded down, then made strictly increasing from 0 to ``length``.

    Forwards a_k >= a_{k-1} + 1, then backwards a_k <= a_{k+1} - 1, so no step is empty.
    """
    cut = [int(point) for point in points]
    cut[0] = 0
    for k in range(1, len(cut)):
        cut[k] = max(cut[k], cut[k - 1] + 1)
    cut[-1] = length
    for k in range(len(cut) - 2, -1, -1):
        cut[k] = min(cut[k], cut[k + 1] - 1)
    return sizes_between(cut)


def rescaled(plan: Sequence[int], length: int) -> Sizes:
    """The plan for another number of positions: its boundaries at equal shares; fewer steps if there is no room for all."""
    points, length = boundaries(plan), _count(length, "length")
    count, total = len(points) - 1, points[-1]
    steps = min(count, length)
    if not count or not total:
        raise ValueError(f"got a plan of {count} steps for {total} positions, expected at least one of each")
    kept = [points[round(k * count / steps)] for k in range(steps + 1)]
    return repaired((point * length / total for point in kept), length)


def in_proportion(plan: Sequence[int], length: int) -> Sizes:
    """The plan for fewer positions in its share of the steps, ceil(K length / N); no more than K for more positions.

    Boundaries stand at equal shares of the positions, between those of the plan where there are fewer steps, and are
    rounded down in whole numbers, so that files may rely on them (docs/codec.md). Derived.

        >>> in_proportion((1, 1, 2, 4), 4)
        (1, 3)
    """
    points, length = boundaries(plan), _count(length, "length")
    count, total = len(points) - 1, points[-1]
    if not count or any(after <= before for before, after in pairwise(points)):
        raise ValueError(
            f"got steps {shown(tuple(plan))}, expected at least one, of 1 or more positions each"
        )
    steps = min(count, -(-count * length // total))
    parts = (divmod(k * count, steps) for k in range(steps))
    inner = [points[i] * steps + (points[i + 1] - points[i]) * part for i, part in parts]
    return repaired((point * length // (steps * total) for point in (*inner, steps * total)), length)


def split_until(points: Sequence[int], steps: int) -> Sizes:
    """Boundaries with the largest block halved until there are ``steps`` blocks. Never costs more."""
    blocks = [(before - after, before, after) for before, after in pairwise(points)]
    heapq.heapify(blocks)
    while len(blocks) < steps:
        _, before, after = heapq.heappop(blocks)
        middle = (before + after) // 2
        heapq.heappush(blocks, (before - middle, before, middle))
        heapq.heappush(blocks, (middle - after, middle, after))
    return (points[0], *sorted(after for _, _, after in blocks))


def lengths(length: int, steps: int) -> tuple[int, int]:
    """Both numbers as ints; ValueError unless 1 <= steps <= length."""
    length, steps = _count(length, "length"), _count(steps, "steps")
    if steps > length:
        raise ValueError(
            f"got steps={steps} for {length} positions, expected at most {length}; no step may be empty"
        )
    return length, steps


def _rounded(length: int, steps: int, shape: Callable[[float], float]) -> Sizes:
    length, steps = lengths(length, steps)
    # The tiny shift sends exact halves upwards whatever the last bit of the cosine says.
    return repaired([math.floor(length * shape(k / steps) + 0.5 + 1e-9) for k in range(steps + 1)], length)


def _by_rule(length: int, rho: float, weight: Callable[[int], float]) -> Sizes:
    length, rho = _count(length, "length"), _positive(rho, "rho")
    a, sizes = 0, []
    while a < length:
        sizes.append(min(1 + math.floor(min(rho * weight(a), length)), length - a))
        a += sizes[-1]
    return tuple(sizes)


def _with_steps(rule: Rule, length: int, steps: int) -> Sizes:
    length, steps = lengths(length, steps)
    low, high = 0.5 / length, float(length)  # the lower end unmasks one by one
    middle = (low + high) / 2
    while low < middle < high:  # down to neighbouring floats: the least rho, to the last bit
        few = len(rule(length, middle)) <= steps
        low, high = (low, middle) if few else (middle, high)
        middle = (low + high) / 2
    return sizes_between(split_until(boundaries(rule(length, high)), steps))


def _sizes(plan: object) -> Sizes:
    sizes = plain(plan)
    if isinstance(sizes, int):
        raise ValueError(f"got a plan {shown(plan)}, expected the sizes of all steps; list them")
    return sizes


def _count(value: int, name: str) -> int:
    value = whole(value, name)
    if value < 1:
        raise ValueError(f"got {name}={value}, expected at least 1")
    return value


def _positive(value: float, name: str) -> float:
    value = real(value, name)
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"got {name}={value}, expected a finite number, at least 0")
    return value


def _draw_int(high: int, generator: torch.Generator | None) -> int:
    return int(torch.randint(1, high + 1, (), generator=_needed(generator)))


def _draw_unit(generator: torch.Generator | None) -> float:
    return float(torch.rand((), dtype=torch.float64, generator=_needed(generator)))


def _needed(generator: torch.Generator | None) -> torch.Generator:
    if generator is None:
        raise ValueError("got neither generator nor offset, expected one of them; pass a torch.Generator")
    return generator
