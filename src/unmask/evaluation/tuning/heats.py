"""The heats of a tuning: what needs no measurement first, then plans for the orders that did best, then plans once more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from unmask.evaluation.tuning import racing
from unmask.evaluation.tuning.bench import Bench
from unmask.evaluation.tuning.candidates import UNPLANNED, Candidate, Space, planned, usual
from unmask.evaluation.tuning.tasks import Items
from unmask.planning import families

Told: TypeAlias = Callable[[str], None]

BEST = 2
"""Orders of a budget that get a plan of their own."""


def first_heat(
    bench: Bench, space: Space, items: Items, budgets: Sequence[int], tell: Told
) -> tuple[tuple[Candidate, ...], racing.Race]:
    """What needs no measurement, raced; rules only if they keep to the largest budget."""
    tried = tuple(c for c in usual(space, budgets) if c.calls or bench.keeps_to(c, items, 1.5 * budgets[-1]))
    row_calls = racing.FIRST * sum(c.calls or budgets[-1] for c in tried)
    tell(f"{len(tried)} samplers, first on {racing.FIRST} items: about {row_calls * bench.pace(items):.0f} s")
    return tried, _race(bench, tried, items, budgets, tell)


def _race(
    bench: Bench, tried: Sequence[Candidate], items: Items, budgets: Sequence[float], tell: Told
) -> racing.Race:
    def after(race: racing.Race) -> None:
        names = [None if w is None else tried[w].name for w in race.winners]
        tell(
            f"after {race.seen} items: "
            + "; ".join(f"{b:.0f} calls: {n}" for b, n in zip(race.budgets, names))
        )

    return racing.race(
        lambda arm, places: bench.measure(tried[arm], items, places),
        len(tried), len(items), budgets, after=after,
    )  # fmt: skip


def further_heat(
    bench: Bench,
    more: dict[str, Candidate],
    tried: tuple[Candidate, ...],
    race: racing.Race,
    items: Items,
    tell: Told,
) -> tuple[tuple[Candidate, ...], racing.Race]:
    """New samplers against the winners so far."""
    if not more:
        return tried, race
    both = [*(tried[w] for w in dict.fromkeys(race.winners) if w is not None), *more.values()]
    return _joined(tried, race, both, _race(bench, both, items, race.budgets, tell))


def plans_of(
    bench: Bench, space: Space, tried: Sequence[Candidate], race: racing.Race, items: Items, tell: Told
) -> dict[str, Candidate]:
    """For each budget the best orders by plans for their own steps, measured along equal ones."""
    found: dict[str, Candidate] = {}
    for budget in race.budgets:
        steps = space.steps(int(budget))
        if steps < 2 or steps == space.count:
            continue
        for name in _best_orders(tried, race, budget):
            tell(f"measuring what steps of {name} cost in {budget:.0f} calls")
            costs = bench.costs(space, items, name, families.uniform(space.count, steps))
            found |= {c.name: c for c in planned(space, int(budget), name, costs)}
    return found


def _best_orders(tried: Sequence[Candidate], race: racing.Race, budget: float) -> tuple[str, ...]:
    """The orders of the best samplers of a budget on the first items, at most `BEST`, that a plan may help to win."""
    means = {a: _at_first(race, a) for a, c in enumerate(tried) if 0 < c.calls <= budget}
    orders = dict.fromkeys(tried[a].order for a in sorted(means, key=means.__getitem__))
    lead = min(means.values(), default=0.0)
    names = [name for name in orders if name not in UNPLANNED and _may_reach(tried, race, budget, name, lead)]
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
    for budget, winner in zip(race.budgets, race.winners):
        won = None if winner is None else tried[winner]
        if won is not None and won.plan == "planned":
            tell(f"measuring along the path of {won.name}")
            costs = bench.costs(space, items, won.order, won.sizes)
            found |= {c.name: c for c in planned(space, int(budget), won.order, costs, "planned twice")}
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


def best_default(bench: Bench, tried: Sequence[Candidate], budget: int, items: Items) -> int | None:
    """Of what people take in so many calls, an order in equal steps, the best on the choosing half: a race of its own."""
    most = max((c.calls for c in tried if c.default and c.calls <= budget), default=0)
    arms = [a for a, c in enumerate(tried) if c.default and c.calls == most]
    if not arms:
        return None
    found = racing.race(
        lambda arm, places: bench.measure(tried[arms[arm]], items, places), len(arms), len(items), (most,)
    )
    return None if found.winners[0] is None else arms[found.winners[0]]
