"""Scores: which masked positions are preferred. Each is ``score(view) -> float [B, L]``, high first, -inf if not masked.

Sighted scores read ``view.log_probs``, the law that symbols are drawn from; wrap one in `on_base` to read the
law before tempering. Blind scores read no probabilities, so the network is run after the choice, at the
chosen rows only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.base import noise
from unmask.base.devices import precise
from unmask.base.numbers import per_step, real, shown, whole
from unmask.base.numbers import seed as checked_seed
from unmask.base.types import PerStep, Score, View
from unmask.orders.described import described


def _sighted(reduce: Callable[[Tensor], Tensor], name: str) -> Score:
    """A score from a function of log_probs [.., V] to [..]."""

    def compute(view: View) -> Tensor:
        if view.log_probs is None:
            raise ValueError(f"{name} reads log-probabilities and there are none: a blind selector called it")
        return spread(view, by_slices(reduce, view.log_probs))

    return Score(compute, name=name)


def by_slices(reduce: Callable[[Tensor], Tensor], log_probs: Tensor) -> Tensor:
    """``reduce`` from [n, V] to [n], applied to log_probs [.., V] a few rows at a time: its temporaries stay small."""
    rows = max(1, 2**18 // log_probs.shape[-1])
    flat = log_probs.reshape(-1, log_probs.shape[-1])
    if len(flat) <= rows:
        return reduce(flat).view(log_probs.shape[:-1])
    return torch.cat([reduce(part) for part in torch.split(flat, rows)]).view(log_probs.shape[:-1])


def spread(view: View, values: Tensor) -> Tensor:
    """Per-row values [B, R] of a view as float64 [B, L], -inf at positions that have no row."""
    values = values.to(precise(values.device))
    if view.rows is None:
        return values
    out = torch.full(view.tokens.shape, -torch.inf, dtype=values.dtype, device=values.device)
    if view.left is not None and min(view.left) == view.rows.shape[1]:  # no padding among the rows
        return out.scatter_(1, view.rows, values)
    place = torch.where(view.rows < 0, view.tokens.shape[1], view.rows)
    return F.pad(out, (0, 1)).scatter_(1, place, values)[:, :-1]


def _margin(log_probs: Tensor) -> Tensor:
    """Difference of the two largest probabilities."""
    best = _two_best(log_probs).exp()
    return best[..., 0] - (best[..., 1] if best.shape[-1] > 1 else 0)


def _two_best(log_probs: Tensor) -> Tensor:
    """The two largest of log_probs [n, V], [n, 2]; [n, 1] when V is 1.

    Among many symbols by way of the largest of each of sqrt(V) parts, three times as fast as `topk` over all.
    """
    size = log_probs.shape[-1]
    if size < 1024:
        return log_probs.topk(min(2, size), dim=-1).values
    width = math.isqrt(size)
    whole, tail = log_probs[:, : width * width], log_probs[:, width * width :]
    parts = whole.reshape(-1, width, width)
    peaks = parts.amax(2)
    first = peaks.argmax(1)
    inside = parts[torch.arange(len(parts), device=first.device), first]
    others = peaks.scatter(1, first[:, None], -torch.inf)
    return torch.cat([inside, others, tail], 1).topk(2).values


def entropy(log_probs: Tensor) -> Tensor:
    """Shannon entropy along the last axis, nats; impossible symbols count 0."""
    finite = log_probs.clamp(min=torch.finfo(log_probs.dtype).min)
    return -(log_probs.exp() * finite).sum(-1)


confidence = _sighted(lambda log_probs: log_probs.amax(-1).exp(), "confidence")
"""Largest probability, in [0, 1]: top probability first (arXiv 2502.06768; MaskGIT's and LLaDA's rule draws first)."""

margin = _sighted(_margin, "margin")
"""Largest minus second largest probability, in [0, 1] (arXiv 2502.06768)."""

negative_entropy = _sighted(lambda log_probs: -entropy(log_probs), "negative_entropy")
"""Minus the entropy, in nats: the most certain position first."""


def _fork(log_probs: Tensor) -> Tensor:
    """The second largest probability less three times the third."""
    best = log_probs.topk(min(3, log_probs.shape[-1]), dim=-1).values.exp()
    second, third = (best[..., n] if best.shape[-1] > n else torch.zeros_like(best[..., 0]) for n in (1, 2))
    return second - 3 * third


fork = _sighted(_fork, "fork")
"""Second largest probability less three times the third, at most 1/2: where two symbols share all of it evenly.

The opposite of `margin`, for searches that go back: one of two ways is wrong, and either tells most about the rest.
Ours; the weight was chosen on Sudoku.
"""


@described
def moment(beta: PerStep, seed: int = 0) -> Score:
    """(log sum_v p(v)^beta + public Gumbel noise) / beta: the order of the moment sampler, from the law before tempering.

    The k best positions are then k draws without replacement with weights sum p^beta. beta = 1 + 1/alpha for
    MaskGIT's choice temperature alpha; 1 is a random order, and above 1001 (alpha below 1e-3) the limit max_v
    log p, without noise, is used. It reads the *base* law, so that this exponent and that of the symbols
    (``tempered(denoiser, 1/beta)`` or `rules.sharpened`) are separate settings. Annealed when ``beta`` is a
    function of the step. Source: arXiv 2510.04525; dividing by beta changes no order and keeps large beta
    stable (derived).
    """

    beta, seed = per_step(beta, "beta"), checked_seed(seed)
    if not callable(beta) and not beta > 0:
        raise ValueError(f"moment: got beta {beta}, expected beta > 0, such as 2")

    def compute(view: View) -> Tensor:
        law, power = (
            view.log_probs if view.base_log_probs is None else view.base_log_probs,
            at_step(beta, view.step),
        )
        if law is None or not power > 0:
            raise ValueError(f"moment({power}): expected beta > 0 and a selector that is not blind")
        if power > 1001:
            return spread(view, law.amax(-1))
        weights = by_slices(lambda log_probs: torch.logsumexp(power * log_probs, -1), law)
        return (spread(view, weights) + public_gumbel(view, seed)) / power

    return Score(compute, name=f"moment({setting(beta)}, {seed})")


@described
def position_prior(background: Tensor, decay: float = 0.25, clip: float = 10.0) -> Score:
    """exp(-decay position) min(clip, -p log f), p the largest probability and f the background frequency of its symbol.

    ``background`` [V] are unigram probabilities of a reference text; common symbols and late positions wait.
    Positions count from the first one masked at the start, inside the block if there are blocks. Source:
    PC-Sampler, arXiv 2508.13021 (decay 0.25, 0 for Sudoku, 0.5 to 1 for Countdown), on the most probable
    symbol instead of a drawn one.
    """
    decay, clip = real(decay, "decay"), real(clip, "clip")
    rarity = -_background(background).log()

    def compute(view: View) -> Tensor:
        if view.log_probs is None:
            raise ValueError(
                "position_prior reads log-probabilities and there are none: a blind selector called it"
            )
        if view.log_probs.shape[-1] != len(rarity):
            raise ValueError(
                f"position_prior: {len(rarity)} frequencies for {view.log_probs.shape[-1]} symbols; expected one of each"
            )
        best = view.log_probs.max(-1)
        content = (best.values.double().exp() * rarity.to(best.indices.device)[best.indices]).clamp(max=clip)
        start = view.masked if view.start is None else view.start
        offset = _positions(view) - (start.cumsum(1) == 0).sum(1, keepdim=True)
        return spread(view, content) * torch.exp(-decay * offset.clamp(min=0))

    return Score(compute, name=f"position_prior({decay}, {clip})")


def _background(values: Tensor) -> Tensor:
    """Frequencies as float64 [V]; ValueError unless they are numbers of at least 0, with a finite sum above 0."""
    found = torch.as_tensor(values) if isinstance(values, Tensor | np.ndarray | list | tuple) else None
    good = found is not None and found.ndim == 1 and not found.is_meta and not found.is_complex()
    if (
        found is None
        or not good
        or not bool((found >= 0).all())
        or not 0 < float(found.double().sum()) < math.inf
    ):
        raise ValueError(f"got background {shown(values)}, expected frequencies [vocab_size], none below 0")
    return found.double()


left_to_right = Score(
    lambda view: -_positions(view).expand(view.tokens.shape), blind=True, name="left_to_right", constant=True
)
"""Minus the position: the order of an autoregressive model."""


def _bisection(view: View) -> Tensor:
    """Minus (level + place in the level), the place in [0, 1), by bit reversal inside every gap."""
    hidden, place = view.masked if view.start is None else view.start, _positions(view).long()
    before = torch.where(hidden, -1, place).cummax(1).values.clamp(min=0)
    length = hidden.shape[1]
    after = torch.where(hidden, length, place).flip(1).cummin(1).values.flip(1)
    offset, bits = place - before, _bit_length(after - before - 1)
    reversed_ = torch.zeros_like(offset)
    for bit in range(max(1, length).bit_length()):
        reversed_ += torch.where(bit < bits, (offset >> bit & 1) << (bits - 1 - bit).clamp(min=0), 0)
    level = _bit_length(reversed_)
    return -(level + reversed_.double() / (1 << level))


def _bit_length(values: Tensor) -> Tensor:
    """Bits of non-negative integers: 0, 1, 2, 2, 3, .. for 0, 1, 2, 3, 4, .."""
    return torch.frexp(values.double()).exponent.long()


bisection = Score(_bisection, blind=True, name="bisection", constant=True)
"""Bit reversal, 0 4 2 6 1 5 3 7 for 8 positions: each position halves what is left of its gap, largest gaps first.

A gap is a run of positions masked at the start; offsets count from the visible position before it, or from
position 0. Level l holds the odd multiples of the l-th half of the gap, and all gaps advance level by level.
Unmasking one level per call (`selectors.all_best` of `bisection_levels`, or ``plans.doubling(N)`` where
nothing is visible) is exact for every first-order Markov chain, in at most 1 + ceil(log2 N) calls, whatever
is visible at the start. Derived; DUS, arXiv 2506.19037, dilates in this way.
"""

bisection_levels = Score(
    lambda view: torch.ceil(_bisection(view)), blind=True, name="bisection_levels", constant=True
)
"""Minus the level of `bisection`: positions of one level tie."""


@described
def halton(height: int, width: int, shift_seed: int | None = None) -> Score:
    """Minus the place of each cell of a row-major grid in the Halton sequence: base 2 for rows, base 3 for columns. Blind.

    Point n = 1, 2, .. falls into cell (floor(u height), floor(v width)); first visits count. With
    ``shift_seed`` every order_id moves the sequence cyclically by its own public offset. Source: Besnier et
    al., ICLR 2025.
    """
    height, width = whole(height, "height"), whole(width, "width")
    shift_seed = None if shift_seed is None else checked_seed(shift_seed, "shift_seed")
    place = _halton_places(height, width)

    def compute(view: View) -> Tensor:
        if view.tokens.shape[1] != height * width:
            raise ValueError(
                f"halton({height}, {width}): expected {height * width} positions, got {view.tokens.shape[1]}"
            )
        return -_shifted(place.to(view.tokens.device), view, shift_seed).double()

    return Score(compute, blind=True, name=f"halton({height}, {width}, {shift_seed})", constant=True)


def _halton_places(height: int, width: int) -> Tensor:
    """int64 [height, width]: when each cell is visited first."""
    if height < 1 or width < 1:
        raise ValueError(f"halton({height}, {width}): expected at least one row and one column")
    visits: dict[tuple[int, int], int] = {}
    n = 0
    while len(visits) < height * width:
        n += 1
        visits.setdefault((_radical_inverse(n, 2, height), _radical_inverse(n, 3, width)), len(visits))
    return torch.tensor([[visits[row, column] for column in range(width)] for row in range(height)])


def _radical_inverse(n: int, base: int, side: int) -> int:
    """floor(side * the digits of n in ``base`` read backwards after the point), in whole numbers."""
    numerator, denominator = 0, 1
    while n:
        n, digit = divmod(n, base)
        numerator, denominator = numerator * base + digit, denominator * base
    return side * numerator // denominator


def _shifted(place: Tensor, view: View, seed: int | None) -> Tensor:
    """Places [B, L] after the cyclic shift of each order_id; [1, L] without a seed."""
    if seed is None:
        return place.view(1, -1).expand(view.tokens.shape)
    height, width = place.shape
    u, v = (
        noise.uniform(seed, noise.ORDER, orders_of(view), torch.zeros_like(orders_of(view)), n)
        for n in (1, 2)
    )
    row, column = torch.arange(height, device=place.device), torch.arange(width, device=place.device)
    rows, columns = (row + (u * height).long()) % height, (column + (v * width).long()) % width
    return place[rows[:, :, None], columns[:, None, :]].flatten(1)


@described
def at_random(seed: int) -> Score:
    """A uniformly random order, a pure function of (seed, order_id, position); values in (0, 1), blind."""
    seed = checked_seed(seed)
    return Score(
        lambda view: public_uniform(view, seed), blind=True, name=f"at_random({seed})", constant=True
    )


@described
def with_noise(score: Score, scale: PerStep, seed: int) -> Score:
    """``score`` plus ``scale`` times public Gumbel noise, a function of (seed, order_id, position, step)."""
    scale, seed = per_step(scale, "scale"), checked_seed(seed)

    def compute(view: View) -> Tensor:
        return score(view) + at_step(scale, view.step) * public_gumbel(view, seed)

    return Score(compute, blind=score.blind, name=f"with_noise({score.name}, {setting(scale)}, {seed})")


@described
def on_base(score: Score) -> Score:
    """The score as it reads the law before tempering and top-p changed it (guidance outside of them counts as the law)."""

    def compute(view: View) -> Tensor:
        base = view.log_probs if view.base_log_probs is None else view.base_log_probs
        return score(replace(view, log_probs=base))

    return Score(compute, blind=score.blind, name=f"on_base({score.name})")


def public_uniform(view: View, seed: int) -> Tensor:
    """Float64 [B, L] uniforms on (0, 1) that depend on (seed, order_id, position) only: constant over the steps."""

    def make(ids: Tensor) -> Tensor:
        place = torch.arange(view.tokens.shape[1], device=view.tokens.device)[None]
        return noise.uniform(seed, noise.ORDER, ids[:, None], place)

    return view.constant(("uniform", seed), make)


def public_gumbel(view: View, seed: int) -> Tensor:
    """Float64 [B, L] standard Gumbel noise that depends on (seed, order_id, position, step): fresh at every step."""
    return noise.gumbel(seed, noise.ORDER, orders_of(view), _positions(view).long(), 1 + view.step)


def at_step(value: PerStep, step: int) -> float:
    """The number that a setting has at a step."""
    return value(step) if callable(value) else value


def setting(value: object) -> str:
    """A setting in the name of a score or selector."""
    return str(getattr(value, "__name__", value))


def _positions(view: View) -> Tensor:
    """0..L-1 as float64 [1, L]."""
    return torch.arange(view.tokens.shape[1], dtype=torch.float64, device=view.tokens.device)[None]


def orders_of(view: View) -> Tensor:
    """order_ids int64 [B, 1], zero when the view has none."""
    return view.tokens.new_zeros(len(view.tokens), 1) if view.order_ids is None else view.order_ids[:, None]
