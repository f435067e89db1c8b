"""`tune`: the best way to generate with a model in so many calls, chosen by one half of the data, judged by the other."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from unmask import engine
from unmask.base.numbers import whole
from unmask.base.statistics import t_quantile
from unmask.base.types import Denoiser
from unmask.evaluation.tuning import costs as stepping
from unmask.evaluation.tuning import racing
from unmask.evaluation.tuning.candidates import ORDERS, Candidate, Space, planned, usual
from unmask.evaluation.tuning.tasks import Items, Metric, halves, moved, nats
from unmask.orders.sources import given
from unmask.planning import families
from unmask.variants import upscale

if TYPE_CHECKING:
    from unmask.models import Model

Array = NDArray[np.float64]

MEASURED = 16
"""Items that costs of steps are measured on."""

BEST = 2
"""Orders of a budget that get a plan of their own."""

MOST = 256
"""Items of each half, unless told otherwise."""


@dataclass(frozen=True)
class Row:
    """A sampler as measured on the half that the choice has not seen.

    ``loss`` is the mean over ``items`` items in the metric's unit, ``interval`` its 95 % interval (Student's t), ``calls``
    the mean network calls of an item in full passes, ``seconds`` the mean time of an item.
    """

    candidate: Candidate
    calls: float
    loss: float
    interval: tuple[float, float]
    items: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Tuned:
    """What `tune` found: for each budget of calls the winner, the best default, and what the choice gains.

    ``gains``: mean loss of the default less that of the winner on the same items, with its 95 % interval. ``front``: all
    that were measured on the judging half by rising calls, where each further one is better. ``race`` is on the choosing
    half; ``measuring`` are the calls that costs of steps took, and ``seconds`` the time of all.
    """

    metric: Metric
    budgets: tuple[int, ...]
    winners: tuple[Row | None, ...]
    defaults: tuple[Row | None, ...]
    gains: tuple[tuple[float, float, float] | None, ...]
    race: racing.Race
    candidates: tuple[Candidate, ...]
    measuring: float
    seconds: float
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def front(self) -> tuple[Row, ...]:
        """Judged samplers by rising calls, each better than all that take fewer."""
        rows = {r.candidate.name: r for r in (*self.winners, *self.defaults) if r is not None}
        found: list[Row] = []
        for row in sorted(rows.values(), key=lambda r: (r.calls, r.loss)):
            if not found or row.loss < found[-1].loss:
                found.append(row)
        return tuple(found)


Told = Callable[[str], None]


def tune(
    model: Model,
    items: Items,
    budgets: Sequence[int],
    *,
    metric: Metric | None = None,
    most: int = MOST,
    seed: int = 0,
    batch_size: int = 64,
    state: Path | None = None,
    tell: Told = lambda _: None,
) -> Tuned:
    """The best sampler of ``model`` on such items for each budget of network calls, as judged on unseen items.

    Half of the items (at most ``most``) choose, by a race; on the others winners and defaults are measured. ``state`` is a
    file that keeps what was measured, so that the same call goes on where it stopped. ``tell`` hears a line now and then.
    """
    began, metric = time.perf_counter(), nats() if metric is None else metric
    budgets = tuple(sorted({whole(b, "calls", 1) for b in budgets}))
    if len(items) < 4 or not budgets:
        raise ValueError(f"{len(items)} items and budgets {budgets}; expected at least 4 items and a budget")
    device = next((p.device for p in model.denoiser.network.parameters()), torch.device("cpu"))
    choosing, judging = (moved(part.at(slice(0, most)), device) for part in halves(items, seed))
    bench = _Bench(model.denoiser, metric, batch_size, _Kept.at(state, model, choosing, judging, metric))
    space = _space(model, choosing)
    tried, race = _first_heat(bench, space, choosing, budgets, tell)
    if metric.law:
        for more in (_planned, _again):
            found = more(bench, space, tried, race, choosing, tell)
            tried, race = _further_heat(bench, found, tried, race, choosing, tell)
    made = {"seed": seed, "model": model.name, "model_hash": model.hash}
    return _judged(bench, tried, race, judging, began, made)


def _space(model: Model, items: Items) -> Space:
    """What there is to plan for these items."""
    stages = upscale.stages_of(model.config["network"])
    values, times = items.counts.unique(return_counts=True)
    count = int(values[times.argmax()]) if len(values) <= 3 else int(items.counts.double().mean().round())
    splits = _splits(model.denoiser, items)
    return Space(count // stages, items.tokens.shape[1], stages, splits)


def _splits(denoiser: Denoiser, items: Items) -> bool:
    """Whether the denoiser runs chosen rows again from a cache."""
    start = torch.where(items.visible, items.tokens, denoiser.mask_id)[:1]
    rows = (~items.visible[:1]).nonzero()[:1, 1][None]
    try:
        with torch.no_grad():
            denoiser.partial(start, rows, denoiser.full(start, rows)[1])
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return False
    return True


def _first_heat(
    bench: _Bench, space: Space, items: Items, budgets: Sequence[int], tell: Told
) -> tuple[tuple[Candidate, ...], racing.Race]:
    """What needs no measurement, raced; rules only if they keep to the largest budget."""
    tried = tuple(c for c in usual(space, budgets) if c.calls or bench.keeps_to(c, items, 1.5 * budgets[-1]))
    row_calls = racing.FIRST * sum(c.calls or budgets[-1] for c in tried)
    tell(f"{len(tried)} samplers, first on {racing.FIRST} items: about {row_calls * bench.pace(items):.0f} s")
    return tried, _race(bench, tried, items, budgets, tell)


def _race(
    bench: _Bench, tried: Sequence[Candidate], items: Items, budgets: Sequence[float], tell: Told
) -> racing.Race:
    def after(race: racing.Race) -> None:
        names = [None if w is None else tried[w].name for w in race.winners]
        seen = int((~np.isnan(race.losses)).any(0).sum())
        tell(f"after {seen} items: " + "; ".join(f"{b:.0f} calls: {n}" for b, n in zip(race.budgets, names)))

    return racing.race(
        lambda arm, places: bench.measure(tried[arm], items, places),
        len(tried), len(items), budgets, after=after,
    )  # fmt: skip


def _further_heat(
    bench: _Bench,
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


def _planned(
    bench: _Bench, space: Space, tried: Sequence[Candidate], race: racing.Race, items: Items, tell: Told
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
    """The orders of the best samplers of a budget on the first items, at most `BEST`."""
    first = slice(0, min(race.losses.shape[1], racing.FIRST))
    means = {a: float(race.losses[a, first].mean()) for a, c in enumerate(tried) if 0 < c.calls <= budget}
    orders = dict.fromkeys(tried[a].order for a in sorted(means, key=means.__getitem__))
    return tuple(orders)[:BEST]


def _again(
    bench: _Bench, space: Space, tried: Sequence[Candidate], race: racing.Race, items: Items, tell: Told
) -> dict[str, Candidate]:
    """Winners by a plan, once more by the plan for steps measured along their own path."""
    found: dict[str, Candidate] = {}
    for budget, winner in zip(race.budgets, race.winners):
        won = None if winner is None else tried[winner]
        if won is not None and won.plan == "planned" and won.sizes:
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


def _judged(
    bench: _Bench,
    tried: tuple[Candidate, ...],
    race: racing.Race,
    items: Items,
    began: float,
    provenance: dict[str, Any],
) -> Tuned:
    """Winners and best defaults on the judging half."""
    rows: dict[int, tuple[Row, Array]] = {}

    def row(arm: int | None) -> tuple[Row, Array] | None:
        if arm is not None and arm not in rows:
            rows[arm] = bench.judge(tried[arm], items)
        return None if arm is None else rows[arm]

    winners = [row(w) for w in race.winners]
    usual = [row(d) for d in _defaults(tried, race)]
    return Tuned(
        bench.metric,
        tuple(int(b) for b in race.budgets),
        tuple(None if r is None else r[0] for r in winners),
        tuple(None if r is None else r[0] for r in usual),
        tuple(None if a is None or b is None else _gain(b[1] - a[1]) for a, b in zip(winners, usual)),
        race,
        tried,
        bench.measuring(),
        time.perf_counter() - began,
        provenance,
    )


def _defaults(tried: Sequence[Candidate], race: racing.Race) -> Iterator[int | None]:
    """The default that was best within each budget, by what the race saw of it: of equal steps in as many calls."""
    for budget in race.budgets:
        arms = [a for a, c in enumerate(tried) if c.default and c.calls <= budget]
        most = max((tried[a].calls for a in arms), default=0)
        arms = [a for a in arms if tried[a].calls == most]
        first = slice(0, min(race.losses.shape[1], racing.FIRST))
        yield min(arms, key=lambda a: float(race.losses[a, first].mean())) if arms else None


def _gain(differences: Array) -> tuple[float, float, float]:
    low, high = _interval(differences)
    return float(differences.mean()), low, high


def _interval(values: Array) -> tuple[float, float]:
    """95 % interval of a mean by Student's t."""
    if len(values) < 2:
        return float("-inf"), float("inf")
    half = t_quantile(0.95, len(values) - 1) * float(values.std(ddof=1)) / len(values) ** 0.5
    return float(values.mean()) - half, float(values.mean()) + half


# --- measuring, and what is kept of it ----------------------------------------------------------------


@dataclass(frozen=True)
class _Bench:
    """Runs samplers on items, and never the same twice."""

    denoiser: Denoiser
    metric: Metric
    batch_size: int
    kept: _Kept

    def measure(self, candidate: Candidate, items: Items, places: NDArray[np.int64]) -> tuple[Array, Array]:
        """Losses and calls of a candidate on some items."""
        key = f"choose|{candidate.name}|{places[0]}|{places[-1]}"
        losses, calls = self.kept.of(key, lambda: self._measured(candidate, items, places))
        return losses, calls

    def _measured(self, candidate: Candidate, items: Items, places: NDArray[np.int64]) -> tuple[Array, Array]:
        found = []
        for some in np.array_split(places, -(-len(places) // self.batch_size)):
            ids = torch.as_tensor(some, device=items.tokens.device)
            found.append(self.metric.of(self.denoiser, items.at(some), candidate.way, ids))
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])

    def keeps_to(self, candidate: Candidate, items: Items, most: float) -> bool:
        """Whether a rule is done with two items in so many steps."""
        start = torch.where(items.visible, items.tokens, self.denoiser.mask_id)[:2]
        ids = torch.arange(len(start), device=start.device)
        state = engine.init(start, self.denoiser.mask_id, ids)
        with torch.no_grad():
            while any(state.left) and state.step < most:
                state, _ = engine.step(state, self.denoiser, candidate.way.selector, given(items.tokens[:2]))
        return not any(state.left)

    def pace(self, items: Items) -> float:
        """Seconds that a call takes for an item."""
        some = items.at(slice(0, racing.FIRST))
        hidden = torch.where(some.visible, some.tokens, self.denoiser.mask_id)
        with torch.no_grad():
            self.denoiser(hidden)
            began = time.perf_counter()
            self.denoiser(hidden)
        return (time.perf_counter() - began) / len(hidden)

    def judge(self, candidate: Candidate, items: Items) -> tuple[Row, Array]:
        """A candidate on all items, with times."""
        losses, calls, seconds = self.kept.of(
            f"judge|{candidate.name}", lambda: self._timed(candidate, items)
        )
        middle, each = _interval(losses), float(seconds[0])
        return Row(candidate, float(calls.mean()), float(losses.mean()), middle, len(losses), each), losses

    def _timed(self, candidate: Candidate, items: Items) -> tuple[Array, Array, Array]:
        began = time.perf_counter()
        losses, calls = self._measured(candidate, items, np.arange(len(items)))
        return losses, calls, np.array([(time.perf_counter() - began) / len(items)])

    def costs(self, space: Space, items: Items, name: str, sizes: tuple[int, ...]) -> stepping.StepCosts:
        """Costs of steps of an order along a plan, on the first items."""
        some, grid = items.at(slice(0, MEASURED)), stepping.Grid(min(stepping.POINTS, space.count))
        key = f"costs|{name}|{sizes}"
        losses, gains, _ = self.kept.of(key, lambda: self._costs(space, some, name, sizes, grid))
        both = (d.reshape(-1, grid.size, grid.size) for d in (losses, gains))
        return stepping.StepCosts.plain(grid, *both, space.count, sizes)

    def _costs(
        self, space: Space, items: Items, name: str, sizes: tuple[int, ...], grid: stepping.Grid
    ) -> tuple[Array, Array, Array]:
        tokens, masked, hidden = items.tokens, ~items.visible, ~items.visible
        if space.block is not None:
            tokens, masked, hidden = stepping.in_blocks(tokens, space.block)
        counted = _Counted(self.denoiser)
        found = stepping.measure(
            counted, tokens, ORDERS[name], space.plan(sizes),
            masked=masked, hidden=hidden, grid=grid, batch_size=self.batch_size,
        )  # fmt: skip
        flat = (d.reshape(len(tokens), -1) for d in (found.losses, found.gains))
        return *flat, np.array([counted.rows])

    def measuring(self) -> float:
        """Calls that costs of steps took."""
        return float(sum(v[2][0] for k, v in self.kept.known.items() if k.startswith("costs|")))


class _Counted:
    """A denoiser that counts the rows of its batches."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.rows = denoiser, 0.0
        self.mask_id, self.vocab_size = denoiser.mask_id, denoiser.vocab_size

    def __call__(self, tokens: torch.Tensor, rows: torch.Tensor | None = None, **more: Any) -> torch.Tensor:
        self.rows += len(tokens)
        return self.denoiser(tokens, rows, **more)


class _Kept:
    """Measurements by key, on disk as lines of JSON where there is a file."""

    def __init__(self, path: Path | None, title: str) -> None:
        self.path, self.known = path, dict[str, list[Array]]()
        if path is None:
            return
        if path.exists():
            first, *lines = path.read_text().splitlines()
            if json.loads(first) != {"of": title}:
                raise ValueError(
                    f"{path} holds measurements of something else; expected another file, or none"
                )
            for line in lines:
                with_key = json.loads(line)
                self.known[with_key["key"]] = [np.array(v) for v in with_key["values"]]
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"of": title}) + "\n")

    @staticmethod
    def at(path: Path | None, model: Model, choosing: Items, judging: Items, metric: Metric) -> _Kept:
        """Those of a model on these items by this metric."""
        if path is None:
            return _Kept(None, "")
        digest = hashlib.sha256(model.hash.encode())
        for part in (choosing, judging):
            digest.update(part.tokens.cpu().numpy().tobytes() + part.visible.cpu().numpy().tobytes())
        return _Kept(path, f"{metric.name} {digest.hexdigest()}")

    def of(self, key: str, make: Callable[[], Sequence[Array]]) -> list[Array]:
        """What is known under a key, or else is measured now and kept."""
        if key not in self.known:
            self.known[key] = list(make())
            if self.path is not None:
                line = json.dumps({"key": key, "values": [v.tolist() for v in self.known[key]]})
                with self.path.open("a") as file:
                    file.write(line + "\n")
        return self.known[key]
