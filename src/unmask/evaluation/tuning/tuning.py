"""`tune`: the best way to generate with a model in so many calls, chosen by one half of the data, judged by the other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unmask.base.numbers import whole
from unmask.base.types import Denoiser
from unmask.evaluation.tuning import heats, racing
from unmask.evaluation.tuning.bench import Array, Bench, Kept
from unmask.evaluation.tuning.candidates import Candidate, Space
from unmask.evaluation.tuning.heats import Told
from unmask.evaluation.tuning.results import Row, Tuned, gain
from unmask.evaluation.tuning.tasks import Items, Metric, halves, moved, nats
from unmask.variants import upscale

if TYPE_CHECKING:
    from unmask.models import Model

MOST = 256
"""Items of each half, unless told otherwise."""


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
    bench = Bench(model.denoiser, metric, batch_size, Kept.at(state, model, choosing, judging, metric))
    space = _space(model, choosing, metric)
    tried, race = heats.first_heat(bench, space, choosing, budgets, tell)
    if metric.law:
        for more in (heats.plans_of, heats.once_more):
            found = more(bench, space, tried, race, choosing, tell)
            tried, race = heats.further_heat(bench, found, tried, race, choosing, tell)
    made = {"seed": seed, "model": model.name, "model_hash": model.hash}
    return _judged(bench, tried, race, judging, began, made)


def _space(model: Model, items: Items, metric: Metric) -> Space:
    """What there is to plan for these items."""
    stages = upscale.stages_of(model.config["network"])
    times = Counter(items.counts.tolist())
    usual = (
        max(times, key=times.__getitem__) if len(times) <= 3 else round(float(items.counts.double().mean()))
    )
    splits, count = _splits(model.denoiser, items), int(usual)
    return Space(count // stages, items.tokens.shape[1], stages, splits, metric.source, metric.temperatures)


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


def _judged(
    bench: Bench,
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
        tuple(None if a is None or b is None else gain(b[1] - a[1]) for a, b in zip(winners, usual)),
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
