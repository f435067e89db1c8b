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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask import engine
from unmask.base import noise
from unmask.base.numbers import whole
from unmask.base.profile import check
from unmask.base.types import Denoiser, Plan, Request, Selector, State, TokenSource
from unmask.denoisers import ask, check_tokens, take_symbols
from unmask.evaluation.tuning.surface import cheapest, correction, rising, shortest, smoothed
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

    def ahead(self, count: int, start: int) -> Array:
        """What d(start, j) takes of each d(a, b), for j = start..count-1: float64 [count - start, G, G]."""
        cell, part, width = _places(self, count)
        rest = np.arange(count - start)
        found = np.zeros((len(rest), self.size, self.size))
        for a, row in ((cell[start], 1 - part[start]), (cell[start] + 1, part[start])):
            found[rest, a, cell[start:]] += row * (1 - part[start:])
            found[rest, a, cell[start:] + 1] += row * part[start:]
        near = (
            rest <= self.points(count)[cell[start] + 1] - start
        )  # by the diagonal, where d is 0, it grows with j - i
        found[near] = 0
        found[near, cell[start], cell[start] + 1] = rest[near] / width[cell[start]]
        return found


@lru_cache
def _places(grid: Grid, count: int) -> tuple[NDArray[np.int64], Array, NDArray[np.int64]]:
    """Between which points each number of visible positions lies, how far on, and how far the points are apart."""
    points, here = grid.points(count), np.arange(count)
    cell = np.clip(np.searchsorted(points, here, side="right") - 1, 0, grid.size - 2)
    width = np.maximum(np.diff(points), 1)
    return cell, (here - points[cell]) / width[cell], width


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
        return mean, float(np.sqrt((self.weights**2) @ (each - mean) ** 2 * correction(self.weights)))

    def each(self, plan: Plan) -> Array:
        """The same for every row, float64 [n], nats."""
        shares = {int(n): self._shares(plan, int(n)) for n in np.unique(self.counts)}
        return np.array([np.sum(shares[int(n)] * d) for n, d in zip(self.counts, self.losses)])

    def _shares(self, plan: Plan, count: int) -> Array:
        """What a plan takes of each d(a, b): float64 [G, G]."""
        points = families.boundaries(check(plan, count))
        parts = [self.grid.ahead(count, i)[: j - i].sum(0) for i, j in pairwise(points)]
        return np.asarray(np.sum(parts, axis=0))

    def table(self, count: int | None = None, monotone: bool = True) -> Array:
        """c(i, k), nats: float64 [N, N + 1], infinite where i + k > N; by default made not to fall in k."""
        count = self.count if count is None else count
        said, expected = (np.einsum("n,nab->ab", self.weights, d) for d in (self.losses, self.gains))
        means = expected if self.whole else smoothed(self.gains)
        means = means * (max(said.sum(), 0.0) / expected.sum() if expected.sum() > 0 else 0.0)
        found = np.full((count, count + 1), np.inf)
        for i in range(count):
            costs = np.concatenate([[0.0], np.tensordot(self.grid.ahead(count, i), means).cumsum()])
            found[i, : count - i + 1] = rising(costs) if monotone else costs
        return found

    def optimal(self, steps: int, count: int | None = None) -> tuple[int, ...]:
        """The plan of ``steps`` steps that costs least, for rows of ``count`` masked positions; exact, O(K N^2)."""
        count = self.count if count is None else whole(count, "count", 1)
        steps = whole(steps, "steps", 1)
        if steps > count:
            raise ValueError(f"steps {steps}: expected at most {count}, one for each masked position")
        return cheapest(self.table(count), steps)

    def for_counts(self, steps: int) -> Callable[[int], tuple[int, ...]]:
        """The best plan for any number of masked positions, at most ``steps`` steps: costs at equal shares visible."""
        return cache(lambda count: self.optimal(min(steps, count), count) if count else ())


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
    """No more points than the longest row has positions, and two at least."""
    return grid if isinstance(grid, Grid) else Grid(max(2, min(whole(grid, "grid", 2), int(counts.max()))))


@torch.no_grad()
def _losses(denoiser: Denoiser, tokens: Tensor, state: State, order: Order, plan: Plan, grid: Grid) -> Array:
    """d at the points by symbols and by divergences, for rows of as many masked positions: float64 [B, 2, G, G]."""
    points = grid.points(state.left[0]).tolist()
    found = np.zeros((len(tokens), 2, grid.size, grid.size))
    for a, (seen, ranking, law) in enumerate(_states(denoiser, tokens, state, order, plan, points)):
        for b in range(a + 1, grid.size):
            ahead, end = points[b] - points[a], _window(points, b) - points[a]
            if ahead:
                rows, shown = ranking[:, ahead:end], ranking[:, :ahead]
                now = ask(denoiser, seen.scatter(1, shown, tokens.gather(1, shown)), rows).double()
                then, symbols = law[:, ahead:end].double(), tokens.gather(1, rows)
                gap = torch.where(now > -torch.inf, now.exp() * (now - then), 0.0).sum(-1)
                loss = take_symbols(now, symbols) - take_symbols(then, symbols)
                found[:, :, a, b] = torch.stack([loss, gap], 1).mean(-1).cpu().numpy()
    return found


@torch.no_grad()
def at_ends(
    denoiser: Denoiser, tokens: Tensor, order: Order, sizes: Sequence[int], *, batch_size: int = 4
) -> Array:
    """Nats that steps of a blind order between ends of ``sizes`` lose, float64 [n, M + 1, M + 1]; all of tokens is planned.

    Entry (a, b) is what the model expects the positions between them to lose by being asked for with the first a visible,
    instead of at the ends between: divergences, measured and not interpolated. For orders whose costs jump, as those of
    bisection do from level to level. Takes two calls a row for each end.
    """
    ends, sizes = families.boundaries(sizes), tuple(sizes)
    lost = np.zeros((len(tokens), len(sizes), len(sizes)))  # of the positions behind an end, asked at another
    for items in torch.split(torch.arange(len(tokens)), batch_size):
        rows, laws = tokens[items], list[Tensor]()
        state = engine.init(torch.full_like(rows, denoiser.mask_id), denoiser.mask_id, items)
        for b, (*_, law) in enumerate(_states(denoiser, rows, state, order, sizes, ends[:-1])):
            now = law[:, : sizes[b]].double()
            for a, then in enumerate(laws):
                gap = now - then[:, ends[b] - ends[a] : ends[b + 1] - ends[a]]
                lost[items.numpy(), a, b] = (
                    torch.where(now > -torch.inf, now.exp() * gap, 0.0).sum((1, 2)).cpu().numpy()
                )
            laws.append(law)
    found = np.full((len(tokens), len(ends), len(ends)), np.inf)
    for a in range(len(sizes)):
        found[:, a, a + 1 :] = lost[:, a, a:].cumsum(1)
    return found


def joined(between: Array, sizes: Sequence[int], steps: int) -> tuple[int, ...]:
    """The plan of ``steps`` steps that is cheapest by the means of `at_ends`."""
    ends = families.boundaries(sizes)
    return families.sizes_between([ends[place] for place in shortest(between.mean(0), steps)])


def parted(sizes: Sequence[int], steps: int) -> tuple[int, ...]:
    """Sizes whose largest are halved until there are ``steps`` more, or no more than one position in each."""
    parts = list(sizes)
    for _ in range(steps):
        largest = max(parts)
        if largest > 1:
            place = parts.index(largest)
            parts[place : place + 1] = [largest // 2, largest - largest // 2]
    return tuple(parts)


def _window(points: Sequence[int], index: int) -> int:
    """Where the ranks end that stand for a point: half way to the next, for one symbol says little; the last is alone."""
    later = points[index + 1] if index + 1 < len(points) else points[index] + 1
    return points[index] + max(1, (later - points[index]) // 2)


def _states(
    denoiser: Denoiser, tokens: Tensor, state: State, order: Order, plan: Plan, points: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """At each number of visible positions: the tokens, the ranking of those left int64 [B, k], and their law [B, k, V]."""
    count, sizes = state.left[0], check(plan, state.left[0])
    source, walk, ends = given(tokens), order(sizes), families.boundaries(sizes)
    for point in points:
        while count - state.left[0] < max(end for end in ends if end <= point):
            state, _ = engine.step(state, denoiser, walk, source)
        before, reached = state, count - state.left[0]
        if reached < point:
            before, _ = engine.step(state, denoiser, order(_cut(reached, point, count)), source)
        asked: list[Request] = []
        engine.step(before, denoiser, order(_cut(point, count, count)), partial(_noted, source, asked))
        yield before.tokens, asked[0].rows, asked[0].log_probs


def _noted(source: TokenSource, asked: list[Request], request: Request) -> Tensor:
    """A source that notes what it is asked."""
    asked.append(request)
    return source(request)


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
    plan: Plan = lambda n: families.uniform(n, min(steps, n))  # noqa: E731
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
