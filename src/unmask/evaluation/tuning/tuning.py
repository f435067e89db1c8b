"""`tune`: the best way to generate with a model in so many calls, chosen by one half of the data, judged by the other."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unmask.base.numbers import whole
from unmask.base.progress import IN_TURN, Pieces
from unmask.base.types import Denoiser
from unmask.denoisers import networks
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


def tune(model: Model, items: Items, budgets: Sequence[int], **settings: Any) -> Tuned:
    """The best sampler of a model on such items for each budget of calls: see `choose`, whose ``settings`` it takes."""
    stages = upscale.stages_of(model.config["network"])
    provenance = {"model": model.name, "model_hash": model.hash}
    return choose(model.denoiser, items, budgets, stages=stages, provenance=provenance, **settings)


def choose(
    denoiser: Denoiser,
    items: Items,
    budgets: Sequence[int],
    *,
    metric: Metric | None = None,
    stages: int = 1,
    most: int = MOST,
    seed: int = 0,
    batch_size: int = 64,
    state: Path | None = None,
    tell: Told = lambda _: None,
    provenance: Mapping[str, Any] | None = None,
    pieces: Pieces = IN_TURN,
) -> Tuned:
    """The best sampler of a denoiser on such items for each budget of network calls, as judged on unseen items.

    Half of the items (at most ``most``) choose, by a race; on the others winners and defaults are measured. ``stages`` are
    equal parts that are unmasked in turn. ``state`` is a file that keeps what was measured, so that the same call goes
    on where it stopped. ``tell`` hears a line now and then. ``provenance`` says what the denoiser is, ``pieces`` who
    measures: one process after another decides by the same numbers.
    """
    began, metric = time.perf_counter(), nats() if metric is None else metric
    budgets = tuple(sorted({whole(b, "calls", 1) for b in budgets}))
    if len(items) < 4 or not budgets:
        raise ValueError(f"{len(items)} items and budgets {budgets}; expected at least 4 items and a budget")
    made = {**(provenance or {}), "seed": seed}
    device = next((p.device for n in networks(denoiser) for p in n.parameters()), items.tokens.device)
    choosing, judging = (moved(part.at(slice(0, most)), device) for part in halves(items, seed))
    kept = Kept.at(state, json.dumps(made), choosing, judging, metric, pieces)
    bench = Bench(denoiser, metric, batch_size, kept)
    space = _space(denoiser, choosing, metric, stages)
    tried, race = heats.first_heat(bench, space, choosing, budgets, tell)
    if metric.law:
        for more in (heats.plans_of, heats.once_more):
            found = more(bench, space, tried, race, choosing, tell)
            tried, race = heats.further_heat(bench, found, tried, race, choosing, tell)
    usual, race = heats.best_defaults(bench, tried, race, choosing)
    race = racing.last_look(race, lambda arm, places: bench.measure(tried[arm], choosing, places))
    return _judged(bench, tried, race, usual, judging, began, made)


def _space(denoiser: Denoiser, items: Items, metric: Metric, stages: int) -> Space:
    """What there is to plan for these items."""
    times = Counter(items.counts.tolist())
    mean = round(float(items.counts.double().mean()))
    count = max(times, key=times.__getitem__) if len(times) <= 3 else mean
    length, splits = items.tokens.shape[1], _splits(denoiser, items)
    return Space(count // stages, length, stages, splits, metric.source, metric.temperatures)


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
    usual: tuple[int | None, ...],
    items: Items,
    began: float,
    provenance: dict[str, Any],
) -> Tuned:
    """Winners and best defaults on the judging half."""
    arms = list(dict.fromkeys(arm for arm in (*race.winners, *usual) if arm is not None))
    rows: dict[int | None, tuple[Row, Array]] = dict(zip(arms, bench.judge([tried[a] for a in arms], items)))
    winners, shares = [rows.get(w) for w in race.winners], bench.metric.shares
    defaults = [rows.get(d) for d in usual]
    return Tuned(
        bench.metric,
        tuple(int(b) for b in race.budgets),
        tuple(None if r is None else r[0] for r in winners),
        tuple(None if r is None else r[0] for r in defaults),
        tuple(
            None if a is None or b is None else gain(b[1], a[1], shares) for a, b in zip(winners, defaults)
        ),
        race,
        tried,
        bench.measuring(),
        time.perf_counter() - began,
        provenance,
    )
