"""Racing: which of many samplers is best within each budget of calls, with few of the calls that all of them would take.

All arms are measured on the same items, a round of items after another, so differences are paired. After a round an arm is
dropped where it cannot win any more: where for every budget that it may keep to, the leader there is better, or the arm
could gain less than `ZONE` of the standard error that the leader's mean over all items will have anyway. What an arm
could gain is the end of an interval of its mean difference by Student's t. Few items know their spread badly, and of
shares solved often none: so one more difference is counted, as far from the mean as items are spread (of a loss that
takes many values, `GUARD` times as far). Of arms that lost the same on items that differ, the one of fewer calls stays.
Where many arms are as good, a race would take them all to the end: so of those that may win only the best of each budget
go on, as many as a race may take calls (`SHARE`), spread evenly over the rounds that are left. What was dropped so on few
items may yet be the best: where calls are left at the end (`MOST`), who is nearest to a winner, in standard errors of the
difference, is measured on all items, one after another, and all items decide (`last_look`).

Rules that count themselves take more calls for some items than for others. Such an arm may lead a budget, and win it, only
if the 95 % interval of its mean calls is within; it is out only if the interval is above. Derived; how often the winner is
more than a standard error worse than the best is tested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, zip_longest
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from unmask.base.statistics import mean_reach, t_quantile

Array: TypeAlias = NDArray[np.float64]
Measure: TypeAlias = Callable[[int, NDArray[np.int64]], tuple[Array, Array]]
"""(arm, items int64 [m]) -> (loss float64 [m], lower is better; calls float64 [m])."""

SHARE = 0.27
"""Of the calls of all arms on all items, what a race takes at most, but for the first round and `KEPT` arms."""

MOST = 0.33
"""Of the calls of all arms on all items, what races take with a last look."""

NEAR = 1.0
"""Standard errors of the difference from a winner within which an arm that was dropped is looked at again."""

KEPT = 2
"""Arms of each budget that go on whatever they take."""

LEVEL = 0.98
"""Of the interval of a difference, both sides."""

LATE = 0.9
"""The same from half of the items on: what is left can change less, and who is as good need not be run to the end."""

FIRST = 4
"""Items of the first round; rounds double."""

ZONE = 0.9
"""Standard errors of the final mean that a gain must reach to be worth more items."""

SILENT = 32
"""Items that all arms must do alike before they are taken to be alike."""

VALUES = 4
"""Losses of so many values tell arms apart: where two are equal on all, they do the same."""

GUARD = 0.3
"""What is added to the spread of differences, in spreads of items, where a loss takes many values."""


@dataclass(frozen=True, eq=False)
class Race:
    """What was measured: ``losses`` and ``calls`` float64 [arms, items], NaN where an arm was dropped before.

    ``winners`` holds the arm that won each budget, None where no arm keeps to it.
    """

    budgets: tuple[float, ...]
    losses: Array
    calls: Array
    winners: tuple[int | None, ...]

    @property
    def spent(self) -> float:
        """Network calls that the race took."""
        return float(np.nansum(self.calls))

    @property
    def full(self) -> float:
        """Calls that all arms would have taken on all items: each arm's mean calls times the items."""
        return float(np.nanmean(self.calls, axis=1).sum() * self.calls.shape[1])

    @property
    def seen(self) -> int:
        """Items that the arms still in the race were measured on."""
        return _seen(self.losses)

    @property
    def alive(self) -> tuple[int, ...]:
        """Arms that were measured to the end."""
        return tuple(np.flatnonzero(~np.isnan(self.losses[:, self.seen - 1])).tolist())


def rounds(items: int, first: int = FIRST) -> tuple[slice, ...]:
    """The items of each round: ``first``, then as many as there were, until all are done."""
    ends = [0]
    while ends[-1] < items:
        ends.append(min(items, max(first, 2 * ends[-1])))
    return tuple(slice(a, b) for a, b in pairwise(ends))


def race(
    measure: Measure,
    arms: int,
    items: int,
    budgets: Sequence[float],
    *,
    first: int = FIRST,
    level: float = LEVEL,
    before: Callable[[Sequence[int], NDArray[np.int64]], object] = lambda *_: None,
    after: Callable[[Race], None] = lambda _: None,
) -> Race:
    """Races ``arms`` over ``items``. Ends early where every budget has one arm left.

    ``before`` hears the arms and items of each round, all of which are measured next; ``after`` hears of what they gave.
    """
    losses, calls = np.full((arms, items), np.nan), np.full((arms, items), np.nan)
    alive = list(range(arms))
    found = Race(tuple(budgets), losses, calls, (None,) * len(budgets))
    parts = rounds(items, first)
    for left, part in zip(range(len(parts) - 1, -1, -1), parts):
        places = np.arange(part.start, part.stop)
        before(alive, places)
        for arm in alive:
            losses[arm, part], calls[arm, part] = measure(arm, places)
        open_ = contenders(losses, calls, budgets, alive, level)
        found = Race(tuple(budgets), losses, calls, tuple(leaders(calls, budgets, open_)))
        after(found)
        if not left or all(len(names) < 2 for names in open_):
            break
        coming = min(part.stop, items - part.stop)
        alive = affordable(found, open_, (SHARE * found.full - found.spent) / left / coming)
    return found


def affordable(race: Race, open_: Sequence[Sequence[int]], most: float) -> list[int]:
    """The arms that go on: the best of every budget in turn, as long as they take at most ``most`` calls an item."""
    turns = dict.fromkeys(arm for rank in zip_longest(*open_) for arm in rank if arm is not None)
    total = np.cumsum([np.nanmean(race.calls[arm]) for arm in turns])
    return sorted(arm for i, arm in enumerate(turns) if i < KEPT * len(open_) or total[i] <= most)


def contenders(
    losses: Array, calls: Array, budgets: Sequence[float], alive: Sequence[int], level: float = LEVEL
) -> list[list[int]]:
    """For each budget the arms that may still win it by more than `ZONE` errors of the final mean.

    The leader comes first: of those that surely keep to the budget the best, or where none does, of those that may.
    """
    seen = _seen(losses)
    spans = {arm: mean_calls(calls[arm, :seen]) for arm in alive}
    ranks = {arm: (_rounded(losses[arm, :seen].mean()), float(calls[arm, :seen].mean())) for arm in alive}
    usual = math.sqrt(float(losses[list(alive), :seen].var(axis=1, ddof=1).mean())) if seen > 1 else math.inf
    found = []
    for budget in budgets:
        may = [arm for arm in alive if spans[arm][0] <= budget * ROUNDING]
        arms = sorted(may, key=lambda a: (spans[a][1] > budget * ROUNDING, *ranks[a], a))
        open_ = [a for a in arms if a == arms[0] or _may_win(losses, a, arms[0], seen, usual, level)]
        found.append([a for i, a in enumerate(open_) if not _known(losses, a, open_[:i])])
    return found


ROUNDING = 1 + 1e-9


def leaders(calls: Array, budgets: Sequence[float], open_: Sequence[Sequence[int]]) -> Iterator[int | None]:
    """The first arm of each budget, where it surely keeps to it."""
    for budget, names in zip(budgets, open_):
        known = calls[names[0]] if names else np.zeros(0)
        sure = len(known) and mean_calls(known[~np.isnan(known)])[1] <= budget * ROUNDING
        yield names[0] if sure else None


def mean_calls(calls: Array) -> tuple[float, float]:
    """95 % interval of the mean of calls of items (Student's t), within what they took."""
    mean, least, most = float(calls.mean()), float(calls.min()), float(calls.max())
    if len(calls) < 2 or least == most:
        return least, most
    reach = mean_reach(calls)
    return max(least, mean - reach), min(most, mean + reach)


def _rounded(value: float) -> float:
    """A mean without what sums round."""
    return float(f"{value:.9g}")


def _may_win(losses: Array, arm: int, rival: int, seen: int, usual: float, level: float) -> bool:
    """Whether an arm may be better than a rival by more than `ZONE` standard errors of the rival's mean over all items.

    ``usual`` is the spread of items in most arms: two arms that are right everywhere so far need not stay so.
    """
    if seen < 2 or (usual == 0 and seen < SILENT):
        return True
    own, other = losses[arm, :seen], losses[rival, :seen]
    worse, error = _gap(own, other, usual)
    level = level if 2 * seen < losses.shape[1] else min(level, LATE)
    reach = t_quantile(level, seen - 1) * error
    return worse - reach < -ZONE * float(other.std(ddof=1)) / math.sqrt(losses.shape[1])


def _gap(own: Array, other: Array, usual: float) -> tuple[float, float]:
    """The mean difference of losses of two arms on the same items, and its standard error with one difference more."""
    worse, share = own - other, GUARD if len(np.unique(other)) >= VALUES else 1
    noise = share * max(float(other.std(ddof=1)), float(own.std(ddof=1)), usual)
    variance = (float(((worse - worse.mean()) ** 2).sum()) + noise**2) / len(own)
    return float(worse.mean()), math.sqrt(variance / len(own))


def _known(losses: Array, arm: int, others: Collection[int]) -> bool:
    """Whether one of the others lost the same on all items of an arm, which differ."""
    own = losses[arm, : _length(losses[arm])]
    alike = np.isclose(losses[list(others), : len(own)], own, rtol=1e-9, atol=1e-12)
    return bool(alike.all(1).any()) and len(np.unique(own)) >= VALUES


# --- a last look ----------------------------------------------------------------------------------------


def last_look(race: Race, measure: Measure) -> Race:
    """The race with what calls are left, up to `MOST`: arms near a winner measured on all items, which then decide.

    They need not have been in one heat, as long as each was measured on the first items.
    """
    found = replace(race, losses=race.losses.copy(), calls=race.calls.copy())
    while pair := _nearest(found):
        for arm in pair:
            _to_the_end(found, arm, measure)
        found = replace(found, winners=tuple(map(partial(_winner, found), found.budgets, found.winners)))
    return found


def _nearest(race: Race) -> tuple[int, int] | None:
    """Of arms that there are calls for, the one nearest to the winner of a budget, and this, not both measured on all."""
    lengths = [_length(row) for row in race.losses]
    means = np.nanmean(race.calls, axis=1)
    missing = means * (race.losses.shape[1] - np.array(lengths))
    usual = math.sqrt(float(np.nanvar(race.losses, axis=1, ddof=1).mean()))
    done, left = set(np.flatnonzero(missing == 0).tolist()), MOST * race.full - race.spent
    found: dict[tuple[int, int], float] = {}
    pairs = (
        (arm, w) for b, w in zip(race.budgets, race.winners) if w is not None for arm in _keeping(means, b)
    )
    for arm, winner in pairs:
        if arm != winner and 0 < missing[arm] + missing[winner] <= left:
            seen = min(lengths[arm], lengths[winner])
            worse, error = _gap(race.losses[arm, :seen], race.losses[winner, :seen], usual)
            found[arm, winner] = worse / error if error else math.inf
    near = sorted((ratio, pair) for pair, ratio in found.items() if ratio < NEAR)
    others = ((pair, (done | {pair[1]}) - {pair[0]}) for _, pair in near)
    return next((pair for pair, known in others if not _known(race.losses, pair[0], known)), None)


def _keeping(calls: Array, budget: float) -> list[int]:
    """Arms whose calls are within a budget."""
    return [arm for arm, value in enumerate(calls.tolist()) if value <= budget * ROUNDING]


def _to_the_end(race: Race, arm: int, measure: Measure) -> None:
    """Measures an arm on the rounds that it was not in."""
    seen = _length(race.losses[arm])
    for part in rounds(race.losses.shape[1]):
        if part.start >= seen:
            race.losses[arm, part], race.calls[arm, part] = measure(arm, np.arange(part.start, part.stop))


def _winner(race: Race, budget: float, winner: int | None) -> int | None:
    """The best arm on all items that surely keeps to a budget; the winner so far where that was not measured on all."""
    if winner is None or _length(race.losses[winner]) < race.losses.shape[1]:
        return winner
    done = np.flatnonzero(~np.isnan(race.losses).any(1)).tolist()
    within = [arm for arm in done if mean_calls(race.calls[arm])[1] <= budget * ROUNDING]
    rank = lambda a: (_rounded(race.losses[a].mean()), float(race.calls[a].mean()), a)  # noqa: E731
    return min(within, key=rank, default=None)


def _length(row: Array) -> int:
    """Items that an arm was measured on."""
    return int((~np.isnan(row)).sum())


def _seen(losses: Array) -> int:
    """Items that the arms still in the race were measured on."""
    return int((~np.isnan(losses)).any(0).sum())
