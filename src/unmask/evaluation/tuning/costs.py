"""Plans for any order: what it costs to unmask k positions at once with i visible, and the plan that costs least.

Along an order, i of N positions are visible. Its ranking there names the next ones, and

    d(i, j) = E[log p(x | first j visible) - log p(x | first i visible)],  x the symbol that the ranking at i puts (j-i)-th,

is what that symbol loses by being asked for at i instead of after the j - i before it (nats). The k next ones at once lose

    c(i, k) = d(i, i) + .. + d(i, i + k - 1),

the exact log-probability of their symbols one at a time less that at once, and a plan costs the sum of its steps: its KL
(order disclosed) where the denoiser is exact, for then no order of taking the same positions changes what they cost. What
is visible at i depends on the plan that led there: costs belong to a path. In a random order d(i, j) = h(i) - h(j) of the
information profile, and paths do not matter. Derived; checked by enumeration.

Between measured numbers of visible positions d is linear in i and in j, and 0 at i = j. Symbols of a few sequences are
noisy, and a search follows noise. So for the search d comes from what the model itself expects to lose, the divergence
KL(p(.|j visible) || p(.|i visible)) at the same position, smoothed, times one number for all that makes the sum that of
the symbols; and c is made monotone in k, as it is of any exact law: each d there is an information given what is visible.
What a plan is said to cost (`StepCosts.of`) is by the symbols alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask import engine
from unmask.base import noise
from unmask.base.numbers import whole
from unmask.base.profile import check
from unmask.base.types import Denoiser, Plan, Selector, State
from unmask.denoisers import ask, take_symbols
from unmask.engine.sampling import check_tokens
from unmask.evaluation.tuning.surface import smoothed
from unmask.orders.sources import given
from unmask.planning import families

Array: TypeAlias = NDArray[np.float64]
Order: TypeAlias = Callable[[Plan], Selector]
"""An order for any plan, as `unmask.orders.presets.margin` is."""

POINTS = 9
"""Numbers of visible positions at which costs are measured, unless told otherwise."""


@dataclass(frozen=True)
class Grid:
    """Where d is measured: at (g / (G - 1))^2 (N - 1) visible of N masked positions, densely where little is visible."""

    size: int

    def points(self, count: int) -> NDArray[np.int64]:
        """Numbers of visible positions, int64 [G], from 0 to count - 1; all of them if there are as many points."""
        shares = np.linspace(0, 1, self.size)
        return np.rint((shares if self.size >= count else shares**2) * (count - 1)).astype(np.int64)

    def weights(self, count: int) -> Array:
        """How each number of visible positions 0..count-1 lies between the points: float64 [count, G], rows sum to 1."""
        points = self.points(count)
        cell = np.clip(np.searchsorted(points, np.arange(count), side="right") - 1, 0, max(self.size - 2, 0))
        found = np.zeros((count, self.size))
        for i, a in enumerate(cell):
            width = points[a + 1] - points[a] if self.size > 1 else 0
            part = (i - points[a]) / width if width else 0.0
            found[i, a] = 1 - part
            if part:
                found[i, a + 1] = part
        return found

    def step(self, count: int, start: int, size: int) -> Array:
        """What a step of ``size`` positions at ``start`` visible ones takes of each d(a, b): float64 [G, G]."""
        weights, points = self.weights(count), self.points(count)
        found = np.zeros((self.size, self.size))
        cell = int(np.clip(np.searchsorted(points, start, side="right") - 1, 0, max(self.size - 2, 0)))
        last = min(start + size, count) if self.size < 2 else min(start + size, int(points[cell + 1]) + 1)
        if self.size > 1 and last > start:  # near the diagonal, where d is 0: it grows with j - i
            width = max(int(points[cell + 1] - points[cell]), 1)
            found[cell, cell + 1] += (np.arange(start, last) - start).sum() / width
        if start + size > last:
            found += np.outer(weights[start], weights[last : start + size].sum(0))
        return found


@dataclass(frozen=True, eq=False)
class StepCosts:
    """Measured d(i, j), nats: ``losses`` float64 [n, G, G] of n rows at the points of ``grid``, 0 below the diagonal.

    ``gains`` [n, G, G] are what the model expects of them, the divergences. ``counts`` int64 [n]: masked positions of each
    row. ``weights`` float64 [n] sum to 1: shares of the rows in means. ``path``: the plan that led to the states, of the
    first row's count.
    """

    grid: Grid
    losses: Array
    gains: Array
    counts: NDArray[np.int64]
    weights: Array
    path: tuple[int, ...] = ()
    whole: bool = False
    """Whether the rows are all that there is, by their weights, and not a sample: then nothing is noise."""

    @classmethod
    def plain(cls, grid: Grid, losses: Array, gains: Array, count: int, path: tuple[int, ...]) -> StepCosts:
        """Costs of rows that all count alike and have ``count`` masked positions."""
        n = len(losses)
        return cls(grid, losses, gains, np.full(n, count), np.full(n, 1 / n), path)

    @property
    def count(self) -> int:
        """The masked positions of most rows."""
        values, times = np.unique(self.counts, return_counts=True)
        return int(values[times.argmax()])

    def of(self, plan: Plan) -> tuple[float, float]:
        """What a plan costs above one position at a time: mean over rows, nats, and its standard error (NaN of one row)."""
        each = self.each(plan)
        mean = float(self.weights @ each)
        return mean, float(np.sqrt((self.weights**2) @ (each - mean) ** 2 * _correction(self.weights)))

    def each(self, plan: Plan) -> Array:
        """The same for every row, float64 [n], nats."""
        shares = {int(n): self._shares(plan, int(n)) for n in np.unique(self.counts)}
        return np.array([np.sum(shares[int(n)] * d) for n, d in zip(self.counts, self.losses)])

    def _shares(self, plan: Plan, count: int) -> Array:
        sizes = check(plan, count)
        starts = np.cumsum([0, *sizes[:-1]])
        parts = (self.grid.step(count, int(i), k) for i, k in zip(starts, sizes))
        return np.sum(np.stack(list(parts)), axis=0) if sizes else np.zeros((self.grid.size,) * 2)

    def table(self, count: int | None = None, monotone: bool = True) -> Array:
        """c(i, k), nats: float64 [N, N + 1], infinite where i + k > N; by default made not to fall in k."""
        count = self.count if count is None else count
        said, expected = (np.einsum("n,nab->ab", self.weights, d) for d in (self.losses, self.gains))
        means = expected if self.whole else smoothed(self.gains)
        means = means * (max(said.sum(), 0.0) / expected.sum() if expected.sum() > 0 else 0.0)
        found = np.full((count, count + 1), np.inf)
        for i in range(count):
            costs = self._row(means, count, i)
            found[i, : count - i + 1] = _rising(costs) if monotone else costs
        return found

    def _row(self, means: Array, count: int, start: int) -> Array:
        """c(start, 0..count - start)."""
        weights, points = self.grid.weights(count), self.grid.points(count)
        cell = int(np.clip(np.searchsorted(points, start, side="right") - 1, 0, max(self.grid.size - 2, 0)))
        gains = weights[start:] @ (weights[start] @ means)
        if self.grid.size > 1:
            near = min(count, int(points[cell + 1]) + 1) - start
            width = max(int(points[cell + 1] - points[cell]), 1)
            gains[:near] = np.arange(near) / width * means[cell, cell + 1]
        return np.concatenate([[0.0], gains.cumsum()])

    def optimal(self, steps: int, count: int | None = None) -> tuple[int, ...]:
        """The plan of ``steps`` steps that costs least, for rows of ``count`` masked positions; exact, O(K N^2)."""
        count = self.count if count is None else whole(count, "count", 1)
        steps = whole(steps, "steps", 1)
        if steps > count:
            raise ValueError(f"steps {steps}: expected at most {count}, one for each masked position")
        return cheapest(self.table(count), steps)

    def for_counts(self, steps: int) -> Callable[[int], tuple[int, ...]]:
        """The best plan for any number of masked positions, at most ``steps`` steps: costs at equal shares visible."""
        known: dict[int, tuple[int, ...]] = {}

        def plan(count: int) -> tuple[int, ...]:
            if count not in known:
                known[count] = self.optimal(min(steps, count), count) if count else ()
            return known[count]

        return plan


def cheapest(costs: Array, steps: int) -> tuple[int, ...]:
    """The sizes of ``steps`` steps of least total cost; costs[i, k] of a step of k at i visible, nats [N, N + 1]."""
    count = len(costs)
    between = np.full((count + 1, count + 1), np.inf)  # from i to j visible
    for i in range(count):
        between[i, i + 1 :] = costs[i, 1 : count - i + 1]
    values, parents = np.full(count + 1, np.inf), []
    values[0] = 0.0
    for _ in range(steps):
        through = values[:, None] + between
        parents.append(through.argmin(0))
        values = through.min(0)
    points = [count]
    for parent in reversed(parents):
        points.append(int(parent[points[-1]]))
    return tuple(int(b - a) for a, b in zip(points[::-1], points[-2::-1]))


def _rising(values: Array) -> Array:
    """The nearest sequence that never falls (isotonic regression)."""
    from scipy.optimize import isotonic_regression  # takes a moment to import

    return np.asarray(isotonic_regression(values).x, dtype=np.float64)


def _correction(weights: Array) -> float:
    """Makes a weighted variance of a mean unbiased where all rows count alike; NaN of one row."""
    effective = float(1 / (weights**2).sum()) if len(weights) else 0.0
    return effective / (effective - 1) if effective > 1 + 1e-9 else math.nan


# --- measuring --------------------------------------------------------------------------------------


def measure(
    denoiser: Denoiser,
    tokens: Tensor,
    order: Order,
    plan: Plan,
    *,
    masked: Tensor | None = None,
    hidden: Tensor | None = None,
    grid: int | Grid = POINTS,
    weights: Tensor | None = None,
    order_ids: Tensor | None = None,
    batch_size: int = 64,
) -> StepCosts:
    """Costs of steps of ``order`` on data, along the path of ``plan``.

    tokens int64 [n, L] hold no mask. ``masked`` bool [n, L] (default: all) are the positions that are planned; ``hidden``
    (default: the same ones) all that is hidden at the start, so that what lies in later blocks stays hidden. Needs about
    steps + G + G^2 / 2 calls a row for G points; G not below the masked count measures every number of visible positions.
    ``weights`` float [n] are probabilities of rows that are all there are. ``order_ids`` default to 0..n-1.
    """
    check_tokens(tokens, denoiser, masks=False)
    masked = torch.ones_like(tokens, dtype=torch.bool) if masked is None else masked
    hidden = masked if hidden is None else hidden
    ids = noise.checked_ids(order_ids, tokens, torch.arange(len(tokens), device=tokens.device))
    counts = masked.sum(1)
    if not len(tokens) or int(counts.min()) < 1:
        raise ValueError(
            "rows without a masked position; expected some in each, for there is nothing to plan"
        )
    grid = _grid(grid, counts)
    found = np.zeros((len(tokens), 2, grid.size, grid.size))
    for count in sorted(set(counts.tolist())):
        for items in torch.split((counts == count).nonzero()[:, 0], batch_size):
            start = torch.where(hidden[items], denoiser.mask_id, tokens[items])
            state = engine.init(start, denoiser.mask_id, ids[items], masked[items])
            found[items.cpu().numpy()] = _losses(denoiser, tokens[items], state, order, plan, grid)
    shares = torch.ones(len(tokens)) if weights is None else weights
    of_all, many = (shares.double() / shares.double().sum()).cpu().numpy(), counts.cpu().numpy()
    path = check(plan, int(many[0]))
    return StepCosts(grid, found[:, 0], found[:, 1], many, of_all, path, weights is not None)


def calls(grid: Grid, steps: int) -> int:
    """Network calls of a row at most: the path, two for each point, one for each pair."""
    return steps + 2 * grid.size + grid.size * (grid.size - 1) // 2


def _grid(grid: int | Grid, counts: Tensor) -> Grid:
    """No more points than the longest row has positions."""
    return grid if isinstance(grid, Grid) else Grid(min(whole(grid, "grid", 2), int(counts.max())))


@torch.no_grad()
def _losses(denoiser: Denoiser, tokens: Tensor, state: State, order: Order, plan: Plan, grid: Grid) -> Array:
    """d at the points by symbols and by divergences, for rows of as many masked positions: float64 [B, 2, G, G]."""
    points = grid.points(state.left[0]).tolist()
    found = np.zeros((len(tokens), 2, grid.size, grid.size))
    for a, (seen, ranking) in enumerate(_states(denoiser, tokens, state, order, plan, points)):
        before = ask(denoiser, seen, ranking).double() if a + 1 < grid.size else None
        for b in range(a + 1, grid.size):
            ahead, end = points[b] - points[a], _window(points, b) - points[a]
            if before is None or not ahead:
                continue
            rows = ranking[:, ahead:end]
            shown = ranking[:, :ahead]
            now = ask(denoiser, seen.scatter(1, shown, tokens.gather(1, shown)), rows).double()
            then, symbols = before[:, ahead:end], tokens.gather(1, rows)
            gap = torch.where(now > -torch.inf, now.exp() * (now - then), 0.0).sum(-1)
            loss = take_symbols(now, symbols) - take_symbols(then, symbols)
            found[:, :, a, b] = torch.stack([loss, gap], 1).mean(-1).cpu().numpy()
    return found


def _window(points: Sequence[int], index: int) -> int:
    """Where the ranks end that stand for a point: half way to the next, for one symbol says little; the last is alone."""
    later = points[index + 1] if index + 1 < len(points) else points[index] + 1
    return points[index] + max(1, (later - points[index]) // 2)


def _states(
    denoiser: Denoiser, tokens: Tensor, state: State, order: Order, plan: Plan, points: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """At each number of visible positions: the tokens, and the ranking of those left, int64 [B, k]."""
    count = state.left[0]
    sizes = check(plan, count)
    source, walk = given(tokens), order(sizes)
    for point in points:
        while state.left[0] and count - state.left[0] + _next(sizes, count - state.left[0]) <= point:
            state, _ = engine.step(state, denoiser, walk, source)
        before = state
        reached = count - state.left[0]
        if reached < point:
            stop = order(_cut(reached, point, count))
            before, _ = engine.step(state, denoiser, stop, source)
        _, info = engine.step(before, denoiser, order(_cut(point, count, count)), source)
        yield before.tokens, info.rows


def _next(sizes: Sequence[int], reached: int) -> int:
    """The size of the step that a plan makes with so many visible."""
    return int(dict(zip(np.cumsum([0, *sizes]).tolist(), sizes))[reached])


def _cut(start: int, end: int, count: int) -> tuple[int, ...]:
    """A plan that goes from ``start`` to ``end`` visible in one step: its other steps are not taken."""
    return tuple(size for size in (start, end - start, count - end) if size)


def in_blocks(tokens: Tensor, block_length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, masked and hidden for `measure` where an order goes block by block: a row for each block of each sequence.

    tokens int64 [n, L] become [n blocks, L]; in each one block is planned, those before it are visible, later ones hidden.
    """
    block_length = whole(block_length, "block_length", 1)
    block = torch.arange(tokens.shape[1], device=tokens.device) // block_length
    blocks = torch.arange(int(block[-1]) + 1, device=tokens.device)[:, None]
    masked, hidden = block == blocks, block >= blocks
    each = tokens.repeat_interleave(len(blocks), 0)
    return each, masked.repeat(len(tokens), 1), hidden.repeat(len(tokens), 1)


def planned(
    denoiser: Denoiser, tokens: Tensor, order: Order, steps: int, *, rounds: int = 2, **settings: Any
) -> StepCosts:
    """Costs along the path of their own best plan of ``steps`` steps, as nearly as ``rounds`` measurements come to it.

    The first path is that of equal steps; each further one that of the best plan for the costs before. Of the plans met,
    the costs of the one that is cheapest along its own path come back; ``path`` is that plan. ``settings`` as in `measure`.
    """
    count = tokens.shape[1] if settings.get("masked") is None else int(settings["masked"].sum(1).max())
    plan: Plan = _at_most(families.uniform, steps)
    best: tuple[float, StepCosts] | None = None
    met: set[tuple[int, ...]] = set()
    for _ in range(whole(rounds, "rounds", 1) + 1):
        sizes = check(plan, count)
        if sizes in met:
            break
        met.add(sizes)
        costs = measure(denoiser, tokens, order, plan, **settings)
        own = costs.of(plan)[0]
        if best is None or own < best[0]:
            best = own, costs
        plan = costs.for_counts(steps)
    assert best is not None
    return best[1]


def _at_most(family: Callable[[int, int], tuple[int, ...]], steps: int) -> Plan:
    """A family's plan of ``steps`` steps, or of one for each position where there are fewer."""
    return lambda count: family(count, min(steps, count))
