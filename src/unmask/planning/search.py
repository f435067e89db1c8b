"""Exact search for the best plan of a profile: least KL for some steps, or fewest steps for a KL (nats).

A block that unmasks positions i..j-1 after i visible ones costs (j-i) h(i) - sum of h over the block (nats,
order disclosed). For a non-increasing profile that cost is Monge, so V(K), the optimum with K blocks, is
convex in K; then one charge per block finds any V(K), each try being a single O(N) sweep along a lower
envelope of lines. An unsorted profile breaks convexity: a layer per budget, each through a Li Chao tree,
stays exact. Derived; checked against the plain O(K N^2) programme.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]


class Path(NamedTuple):
    """Boundaries 0 .. N of a plan and what it costs in nats (order disclosed)."""

    points: tuple[int, ...]
    cost: float

    @property
    def steps(self) -> int:
        """Number of blocks."""
        return len(self.points) - 1


def non_increasing(entropies: Array) -> bool:
    """True where the fast search applies: h never rises."""
    return bool((np.diff(entropies) <= 0).all())


def cost_between(entropies: Array, points: tuple[int, ...]) -> float:
    """Cost in nats (order disclosed) of the plan with these boundaries."""
    cut = np.asarray(points)
    return float((np.repeat(entropies[cut[:-1]], np.diff(cut)) - entropies).sum())


def best_for_steps(entropies: Array, steps: int) -> Path:
    """The cheapest plan with exactly ``steps`` blocks."""
    if not non_increasing(entropies):
        *_, last = _paths_by_layer(entropies, steps)
        return last
    low, high = _bracket(entropies, lambda path: path.steps >= steps)
    return _joined(entropies, low, high, steps)


def best_for_kl(entropies: Array, max_kl: float) -> Path:
    """The plan with the fewest blocks that costs at most ``max_kl`` nats; the cheapest of those."""
    if not non_increasing(entropies):
        return next(path for path in _paths_by_layer(entropies, len(entropies)) if path.cost <= max_kl)
    low, high = _bracket(entropies, lambda path: path.cost <= max_kl)
    while low.steps - high.steps > 1:
        path = _joined(entropies, low, high, (low.steps + high.steps) // 2)
        low, high = (path, high) if path.cost <= max_kl else (low, path)
    return high if high.cost <= max_kl else low


def costs_for_all(entropies: Array, max_steps: int) -> list[float]:
    """V(1), .., V(max_steps) in nats: the least cost for each number of blocks, one layer of work each."""
    total = math.fsum(entropies)
    return [values[-1] - total for values, _ in _layers(entropies, max_steps)]


def _bracket(entropies: Array, enough: Callable[[Path], bool]) -> tuple[Path, Path]:
    """Two optimal plans, with and without ``enough`` blocks, between which V is a straight line.

    A sweep at the slope of the chord between two points of the convex V either finds a point below the
    chord or proves that there is none. The extra sweep at the middle charge keeps very curved V from taking
    many rounds.
    """
    one = (0, len(entropies))
    low = Path(tuple(range(len(entropies) + 1)), 0.0)
    high = Path(one, cost_between(entropies, one))
    charges = [1e-12 * high.cost, high.cost]
    slack = 1e-14 * float(entropies.sum())
    while low.steps - high.steps > 1 and not enough(high):
        width = low.steps - high.steps
        charge = (high.cost - low.cost) / width
        path = _charged(entropies, charge)
        if path.cost + charge * path.steps >= low.cost + charge * low.steps - slack:
            break
        low, high = _narrowed(low, high, path, charges, charge, enough)
        if low.steps - high.steps > width / 2:
            charge = math.sqrt(charges[0] * charges[1])
            low, high = _narrowed(low, high, _charged(entropies, charge), charges, charge, enough)
    return low, high


def _narrowed(
    low: Path, high: Path, path: Path, charges: list[float], charge: float, enough: Callable[[Path], bool]
) -> tuple[Path, Path]:
    side = 0 if enough(path) else 1
    charges[side] = charge
    if not high.steps < path.steps < low.steps:
        return low, high
    return (path, high) if side == 0 else (low, path)


def _joined(entropies: Array, low: Path, high: Path, steps: int) -> Path:
    """The plan with ``steps`` blocks that follows ``high`` (fewer blocks) up to an edge, then ``low`` (more).

    The two paths cross at some edge for every number of blocks in between; because the cost is Monge, the
    joined path is optimal wherever V is a straight line from one to the other, so any such edge will do.
    """
    for path in (low, high):
        if path.steps == steps:
            return path
    many, few = np.asarray(low.points), np.asarray(high.points)
    u = np.arange(len(few) - 1)
    w = u + low.steps - steps
    u, w = u[w < low.steps], w[w < low.steps]
    fits = np.flatnonzero((few[u] <= many[w]) & (many[w + 1] <= few[u + 1]))
    points = (*high.points[: u[fits[0]] + 1], *low.points[w[fits[0]] + 1 :])
    return Path(points, cost_between(entropies, points))


def _charged(entropies: Array, charge: float) -> Path:
    """The plan that minimises cost + ``charge`` per block: one sweep, which feeds on its own values."""
    values = [0.0] + [math.inf] * len(entropies)
    parents = _sweep(entropies.tolist(), values, values, charge)
    return _path(entropies, repeat(parents))


def _path(entropies: Array, parents: Iterable[Sequence[int]]) -> Path:
    """The path that ends at N, from the parents of the last layer, the one before it, and so on."""
    points = [len(entropies)]
    for layer in parents:
        points.append(layer[points[-1]])
        if points[-1] == 0:
            break
    cut = tuple(reversed(points))
    return Path(cut, cost_between(entropies, cut))


def _paths_by_layer(entropies: Array, steps: int) -> Iterator[Path]:
    """The cheapest path with 1, 2, .., ``steps`` blocks, for any entropies."""
    layers = []
    for _, parents in _layers(entropies, steps):
        layers.append(array("l", parents))
        yield _path(entropies, reversed(layers))


def _layers(entropies: Array, steps: int) -> Iterator[tuple[list[float], list[int]]]:
    """For k = 1..steps: least code length (nats) of k blocks that end at j = 0..N; where the last begins."""
    relax = _sweep if non_increasing(entropies) else _li_chao
    slopes = entropies.tolist()
    values = [0.0] + [math.inf] * len(slopes)
    for _ in range(steps):
        before, values = values, [math.inf] * len(values)
        yield values, relax(slopes, before, values, 0.0)


def _sweep(slopes: list[float], before: list[float], after: list[float], charge: float) -> list[int]:
    """after[j] = charge + min over i < j of before[i] + (j-i) slopes[i], nats; returns the arg-mins. O(N).

    Block i is a line in j with slope h(i). Slopes never rise, so the lower envelope is a stack whose best
    line only moves forwards. ``before`` may be ``after``: each value is read only once it is written.
    """
    parents = [0] * len(before)
    lines: list[tuple[float, float, int]] = []  # height at j = 0, slope and i, along the envelope
    starts: list[float] = []  # the j from which each line is the lowest
    best = 0
    for i, slope in enumerate(slopes):
        if before[i] < math.inf:
            height = before[i] - i * slope
            start = -math.inf
            while lines:
                last, fall, _ = lines[-1]
                if fall > slope:
                    start = (height - last) / (fall - slope)
                else:  # parallel: one of the two is never needed
                    start = math.inf if height >= last else -math.inf
                if start > starts[-1]:
                    break
                del lines[-1], starts[-1]
                start = -math.inf
            if start <= len(slopes):
                lines.append((height, slope, i))
                starts.append(start)
        if lines:
            last_line = len(lines) - 1
            if best > last_line:
                best = last_line
            while best < last_line and starts[best + 1] <= i + 1:
                best += 1
            height, fall, parents[i + 1] = lines[best]
            after[i + 1] = height + (i + 1) * fall + charge
    return parents


def _li_chao(slopes: list[float], before: list[float], after: list[float], charge: float) -> list[int]:
    """As `_sweep` for slopes in any order: the lines live in a Li Chao tree over j = 0..N. O(N log N)."""
    leaves = 1 << len(slopes).bit_length()
    lines = [-1] * (2 * leaves)  # the line (an i) that is best at the middle of each node
    heights = [value - i * slope for i, (value, slope) in enumerate(zip(before, slopes))]
    parents = [0] * len(before)
    for i in range(len(slopes)):
        if before[i] < math.inf:
            _insert(lines, leaves, slopes, heights, i)
        value, line = _lowest(lines, leaves, slopes, heights, i + 1)
        after[i + 1], parents[i + 1] = value + charge, line
    return parents


def _insert(lines: list[int], leaves: int, slopes: list[float], heights: list[float], line: int) -> None:
    node, low, width = 1, 0, leaves
    while True:
        old = lines[node]
        if old < 0:
            lines[node] = line
            return
        width //= 2
        middle = low + width
        if heights[line] + middle * slopes[line] < heights[old] + middle * slopes[old]:
            lines[node], line, old = line, old, line
        if width == 0 or slopes[line] == slopes[old]:
            return
        # A steeper line can only win to the left of the middle, a flatter one to the right.
        node *= 2
        if slopes[line] < slopes[old]:
            node, low = node + 1, middle


def _lowest(
    lines: list[int], leaves: int, slopes: list[float], heights: list[float], j: int
) -> tuple[float, int]:
    node, value, best = leaves + j, math.inf, 0
    while node:
        line = lines[node]
        if line >= 0 and (height := heights[line] + j * slopes[line]) < value:
            value, best = height, line
        node //= 2
    return value, best
