"""`unmask.tune`: from a model and data as people have them to the best ways to generate, in so many calls, with proof."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from unmask.base.numbers import shown, whole
from unmask.base.progress import IN_TURN, Pieces
from unmask.evaluation.tuning import tasks, tuning
from unmask.evaluation.tuning.heats import Told
from unmask.evaluation.tuning.results import Tuned
from unmask.evaluation.tuning.tasks import Array, Items, Metric
from unmask.models import Model, load, verbs

Scorer: TypeAlias = Callable[[Sequence[Any], Sequence[Any]], Iterable[float]]
"""(samples, the data in their places, both decoded) -> a number for each sample, higher is better."""

NUM = 2 * tuning.MOST
"""Items, unless told otherwise."""

NAMED: dict[str, Callable[[], Metric]] = {"nats": tasks.nats, "exact": tasks.exact}
"""Metrics that have names."""


def tune(
    model: Model | str | Path,
    data: Any = None,
    *,
    calls: int | Sequence[int],
    task: str = "generate",
    share: float | None = None,
    items: Items | None = None,
    metric: str | Metric | Scorer = "nats",
    num: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    state: str | Path | None = None,
    source: str = "",
    tell: Told = lambda _: None,
    pieces: Pieces = IN_TURN,
) -> Tuned:
    """For each budget of ``calls`` (of an item, in full passes) the best sampler, as measured on items that it did not see.

    ``model`` is one, its name, or its folder. ``data`` are tokens int64 [n, L] or what `Model.encode` takes: all is hidden,
    or of each sequence a random ``share`` where the ``task`` is "infill". ``items`` instead of data say what is given of
    each: `Items(tokens, visible)`. At most ``num`` of them are taken (default 512), half to choose by, half to judge by.

    ``metric``: "nats" (minus log-likelihood along the order: proper, so that no sampler looks better than its law),
    "exact" (items that do not come out as they are, by arg-max symbols, %), or a function of two lists, samples and the
    data in their places, decoded, that scores each sample, higher is better; or the name of one as "module:function". By
    a function temperatures are tried too. By a likelihood they are not: another temperature is another law, and which law
    is nearest to the data is a matter of training, not of sampling.

    ``state`` is a file that keeps what was measured: the same call goes on from there. ``source`` says where data come
    from. ``tell`` hears a line now and then. ``pieces`` says who measures (`training.together.bulk`).
    """
    model = model if isinstance(model, Model) else load(model)
    chosen = _metric(model, metric)
    if items is not None and (data is not None or share is not None or task != "generate"):
        raise ValueError("items beside data, task or share; expected items alone: they say what is given")
    if items is None:
        items = tasks.items_of(model, _tokens(model, data), task=task, share=share, seed=seed)
    items = _some(items, num, seed)
    _check_given(model, chosen, items)
    budgets = _budgets(model, calls, items)
    found = tuning.tune(
        model, items, budgets, metric=chosen, most=len(items), seed=seed, batch_size=batch_size,
        state=None if state is None else Path(state), tell=tell, pieces=pieces,
    )  # fmt: skip
    made = {"source": source, "items": len(items), "sha256": hashlib.sha256(items.content).hexdigest()}
    return replace(found, provenance={**found.provenance, "data": made})


def _tokens(model: Model, data: Any) -> Tensor:
    """Data as tokens; ValueError where there is none."""
    if data is None or not len(data):
        raise ValueError("no data; expected tokens [n, L] or what the model encodes, that it has not seen")
    return verbs.tokens_of(model, data)


def _check_given(model: Model, metric: Metric, items: Items) -> None:
    """ValueError for what no sampler can do: to bring back data of which nothing is given."""
    special = model.visible(items.tokens)
    given = items.visible if special is None else items.visible & ~special
    if metric.name == "exact" and not bool(given.any()):
        raise ValueError(
            "metric exact: nothing is given, so nothing comes out as it was; expected infilling, or puzzles to solve"
        )


def _some(items: Items, num: int | None, seed: int) -> Items:
    """All items, or ``num`` at random, in order."""
    most = NUM if num is None else whole(num, "num", 4)
    if len(items) <= most:
        return items
    return items.at(np.sort(np.random.default_rng(seed).choice(len(items), most, replace=False)))


def _budgets(model: Model, calls: int | Sequence[int], items: Items) -> tuple[int, ...]:
    """Budgets that leave a choice; ValueError for others."""
    if model.config["network"].get("causal"):
        raise ValueError(
            f"model '{model.name}' is causal: it reads from left to right, which leaves nothing to choose"
        )
    most = int(items.counts.max()) if len(items) else 0
    if not most:
        raise ValueError(f"{len(items)} items, in which nothing is hidden; expected positions to generate")
    given = calls if isinstance(calls, Sequence) else (calls,)
    if not given or isinstance(given, str):
        raise ValueError(f"calls {shown(calls)}: expected numbers of network calls such as (4, 8, 16)")
    for budget in given:
        if whole(budget, "calls", 1) > most:
            raise ValueError(
                f"calls {budget}: expected 1..{most}, the most positions that are hidden in an item"
            )
    return tuple(given)


# --- metrics ----------------------------------------------------------------------------------------


def _metric(model: Model, metric: str | Metric | Scorer) -> Metric:
    """The metric of a name, or of a function of decoded samples."""
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, str):
        return NAMED[metric]() if metric in NAMED else _scored(model, scorer(metric), metric)
    if not callable(metric):
        raise ValueError(f"metric {shown(metric)}: {EXPECTED}")
    return _scored(
        model, metric, f"{metric.__module__}:{getattr(metric, '__qualname__', type(metric).__name__)}"
    )


EXPECTED = f"expected {', '.join(NAMED)}, or a function as module:function"


def scorer(name: str) -> Scorer:
    """The function called ``module:function``, looked for where modules are, then in the working directory."""
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise ValueError(f"metric '{name}': {EXPECTED}")
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        found = getattr(import_module(module), function, None)
    except ModuleNotFoundError as error:
        raise ValueError(f"metric '{name}': {error}; {EXPECTED}") from None
    finally:
        sys.path.remove(here)
    if not callable(found):
        raise ValueError(f"metric '{name}': module {module} has no function {function}")
    return found  # type: ignore[no-any-return]


def _scored(model: Model, function: Scorer, name: str) -> Metric:
    """The metric of a function of decoded samples and data."""

    def judge(samples: Tensor, truth: Tensor) -> Array:
        found = np.array(list(function(model.decode(samples.cpu()), model.decode(truth.cpu()))), dtype=float)
        if found.shape != (len(samples),) or not np.isfinite(found).all():
            raise ValueError(
                f"metric '{name}' gave {shown(found.tolist())} for {len(samples)} samples; expected a number for each"
            )
        return found

    return tasks.judged(judge, name)
