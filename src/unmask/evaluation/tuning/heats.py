"""The heats of a tuning: what needs no measurement first, then plans for the orders that did best, then plans once more."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from unmask.evaluation.tuning import racing
from unmask.evaluation.tuning.bench import Bench
from unmask.evaluation.tuning.candidates import LEVELLED, Candidate, Space, distinct, planned, usual
from unmask.evaluation.tuning.tasks import Items
from unmask.planning import families

Told: TypeAlias = Callable[[str], None]

BEST = 2
"""Orders of a budget that get a plan of their own."""


def first_heat(
    bench: Bench, space: Space, items: Items, budgets: Sequence[int], tell: Told
) -> tuple[tuple[Candidate, ...], racing.Race]:
    """What needs no measurement, raced; rules only if they keep to the largest budget.

    How long it takes is told before: from one timed call, until the first answers, and until the end, where a race takes a
    third of all, costs of steps and judging about as much. Then the defaults run on the first items: a first answer.
    """
    tried = tuple(usual(space, budgets))
    usual_ones = [c for c in tried if c.default]
    calls, pace = np.array([c.calls or budgets[-1] for c in tried]), bench.pace(items)
    first, all_ = (racing.FIRST * pace * n for n in (sum(c.calls for c in usual_ones), calls.sum()))
    tell(
        f"{len(tried)} samplers, first on {racing.FIRST} items: defaults in about {_time(first)}, all in about "
        f"{_time(all_)}; to the end about {_time(pace * calls.sum() * len(items) * SHARE)}"
    )
    if usual_ones:
        _race(bench, usual_ones, items.at(slice(0, racing.FIRST)), budgets, tell)
    rules = [c for c in tried if not c.calls]
    kept = dict(zip((c.name for c in rules), bench.keeping_to(rules, items, 1.5 * budgets[-1])))
    tried = tuple(c for c in tried if kept.get(c.name, True))
    return tried, _race(bench, tried, items, budgets, tell)


SHARE = 0.6
"""Of the calls of all samplers on all items, what a tuning takes in all, about."""


def _time(seconds: float) -> str:
    """Seconds, or minutes."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _race(
    bench: Bench, tried: Sequence[Candidate], items: Items, budgets: Sequence[float], tell: Told
) -> racing.Race:
    """A race that tells who leads after each round."""

    def told(race: racing.Race) -> None:
        each = zip(race.budgets, race.winners)
        tell(
            f"after {race.seen} items: "
            + "; ".join(f"{b:.0f} calls: {_led(race, tried, w)}" for b, w in each)
        )

    return racing.race(
        lambda arm, places: bench.measure(tried[arm], items, places),
        len(tried), len(items), budgets, after=told,
        before=lambda arms, places: bench.measure_all([tried[a] for a in arms], items, places),
    )  # fmt: skip


def _led(race: racing.Race, tried: Sequence[Candidate], winner: int | None) -> str:
    """A leader, and its mean loss so far."""
    return "none" if winner is None else f"{tried[winner].name} ({np.nanmean(race.losses[winner]):.4g})"


def further_heat(
    bench: Bench,
    more: dict[str, Candidate],
    tried: tuple[Candidate, ...],
    race: racing.Race,
    items: Items,
    tell: Told,
) -> tuple[tuple[Candidate, ...], racing.Race]:
    """New samplers against the winners so far; what was tried already under another name is none."""
    more = {c.name: c for c in distinct([*tried, *more.values()])[len(tried) :]}
    if not more:
        return tried, race
    both = [*(tried[w] for w in dict.fromkeys(race.winners) if w is not None), *more.values()]
    return _joined(tried, race, both, _race(bench, both, items, race.budgets, tell))


def plans_of(
    bench: Bench, space: Space, tried: Sequence[Candidate], race: racing.Race, items: Items, tell: Told
) -> dict[str, Candidate]:
    """For each budget the best orders by plans for their own steps, measured along equal ones."""
    found: dict[str, Candidate] = {}
    wanted = [
        (budget, space.steps(int(budget)), name)
        for budget in race.budgets
        if 2 <= space.steps(int(budget)) != space.count
        for name in _best_orders(tried, race, budget, () if space.plain else LEVELLED)
    ]
    for budget, _, name in wanted:
        tell(f"measuring what steps of {name} cost in {budget:.0f} calls")
    equal = [(n, families.uniform(space.count, steps)) for _, steps, n in wanted if n not in LEVELLED]
    costs = dict(zip(equal, bench.costs_of(space, items, equal)))
    for budget, steps, name in wanted:
        if name in LEVELLED:
            best = bench.levels(space, items, LEVELLED[0], steps)
        else:
            best = functools.partial(
                costs[name, families.uniform(space.count, steps)].optimal, count=space.count
            )
        found |= {c.name: c for c in planned(space, int(budget), name, best)}
    return found


def _best_orders(
    tried: Sequence[Candidate], race: racing.Race, budget: float, without: Sequence[str] = LEVELLED
) -> tuple[str, ...]:
    """The orders of the best samplers of a budget on the first items, at most `BEST`, that a plan may help to win."""
    means = {a: _at_first(race, a) for a, c in enumerate(tried) if 0 < c.calls <= budget}
    orders = dict.fromkeys(tried[a].order for a in sorted(means, key=means.__getitem__))
    lead = min(means.values(), default=0.0)
    names = [name for name in orders if name not in without and _may_reach(tried, race, budget, name, lead)]
    return tuple(names[:BEST])


def _may_reach(tried: Sequence[Candidate], race: racing.Race, budget: float, name: str, lead: float) -> bool:
    """Whether an order is as near to the leading loss as the next budget, above or below, moves it: a plan gains less."""

    def best(most: float) -> float:
        arms = [a for a, c in enumerate(tried) if c.order == name and 0 < c.calls <= most]
        return min((_at_first(race, a) for a in arms), default=float("nan"))

    place = race.budgets.index(budget)
    beside = [best(b) for b in race.budgets[max(0, place - 1) : place + 2] if b != budget]
    moves = [abs(best(budget) - other) for other in beside]
    return not moves or best(budget) - max(moves) <= lead


def _at_first(race: racing.Race, arm: int) -> float:
    """An arm's mean loss on the items of the first round, which all were measured on."""
    return float(race.losses[arm, : racing.FIRST].mean())


def once_more(
    bench: Bench, space: Space, tried: Sequence[Candidate], race: racing.Race, items: Items, tell: Told
) -> dict[str, Candidate]:
    """Winners by a plan, once more by the plan for steps measured along their own path."""
    found: dict[str, Candidate] = {}
    both = [
        (budget, tried[winner]) for budget, winner in zip(race.budgets, race.winners) if winner is not None
    ]
    both = [(budget, won) for budget, won in both if won.plan == "planned" and won.order not in LEVELLED]
    for _, won in both:
        tell(f"measuring along the path of {won.name}")
    costs = bench.costs_of(space, items, [(won.order, won.sizes) for _, won in both])
    for (budget, won), along in zip(both, costs):
        best = functools.partial(along.optimal, count=space.count)
        found |= {c.name: c for c in planned(space, int(budget), won.order, best, "planned twice")}
    return found


def _joined(
    tried: tuple[Candidate, ...], race: racing.Race, both: Sequence[Candidate], heat: racing.Race
) -> tuple[tuple[Candidate, ...], racing.Race]:
    """One race of all, whose winners are those of the further heat."""
    names = [c.name for c in tried]
    all_ = (*tried, *(c for c in both if c.name not in names))
    losses, calls = (np.full((len(all_), len(race.losses[0])), np.nan) for _ in range(2))
    losses[: len(tried)], calls[: len(tried)] = race.losses, race.calls
    place = {c.name: i for i, c in enumerate(all_)}
    for row, c in enumerate(both):
        known = ~np.isnan(heat.losses[row])
        losses[place[c.name], known] = heat.losses[row, known]
        calls[place[c.name], known] = heat.calls[row, known]
    winners = tuple(None if w is None else place[both[w].name] for w in heat.winners)
    return all_, racing.Race(race.budgets, losses, calls, winners)


def best_defaults(
    bench: Bench, tried: tuple[Candidate, ...], race: racing.Race, items: Items
) -> tuple[tuple[int | None, ...], racing.Race]:
    """Of what people take in so many calls, orders in equal steps, the best on the choosing half: a race for each budget.

    Also the race with all that these measured.
    """
    found: list[int | None] = []
    for budget in race.budgets:
        most = max((c.calls for c in tried if c.default and c.calls <= budget), default=0)
        arms = [c for c in tried if c.default and c.calls == most]
        heat = _race(bench, arms, items, (most,), lambda _: None) if arms else None
        found.append(None if heat is None or heat.winners[0] is None else tried.index(arms[heat.winners[0]]))
        if heat is not None:
            race = replace(_joined(tried, race, arms, heat)[1], winners=race.winners)
    return tuple(found), race
