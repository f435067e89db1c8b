"""What `tune` found, as records: samplers as measured on unseen data, winners beside what people take untuned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unmask.base.statistics import t_quantile
from unmask.evaluation.tuning import racing
from unmask.evaluation.tuning.candidates import Candidate
from unmask.evaluation.tuning.tasks import Metric

Array: TypeAlias = NDArray[np.float64]


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


def gain(differences: Array) -> tuple[float, float, float]:
    """A mean difference and its interval."""
    low, high = interval(differences)
    return float(differences.mean()), low, high


def interval(values: Array) -> tuple[float, float]:
    """95 % interval of a mean by Student's t."""
    if len(values) < 2:
        return float("-inf"), float("inf")
    half = t_quantile(0.95, len(values) - 1) * float(values.std(ddof=1)) / len(values) ** 0.5
    return float(values.mean()) - half, float(values.mean()) + half
