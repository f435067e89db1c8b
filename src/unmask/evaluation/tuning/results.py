"""What `tune` found, as records: samplers as measured on unseen data, winners beside what people take untuned."""

from __future__ import annotations

import importlib.util
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unmask import pictures
from unmask.base.records import stamped, write_bytes, write_text
from unmask.base.statistics import mean_reach, paired_difference, wilson
from unmask.evaluation.tuning import racing
from unmask.evaluation.tuning.candidates import Candidate
from unmask.evaluation.tuning.tasks import Metric
from unmask.orders.samplers import Sampler
from unmask.pictures import Series

Array: TypeAlias = NDArray[np.float64]

FORMAT = "unmask.tuned"


@dataclass(frozen=True)
class Row:
    """A sampler as measured on the half that the choice has not seen.

    ``loss`` is the mean over ``items`` items in the metric's unit, ``interval`` its 95 % interval (Student's t, of shares
    Wilson), ``calls`` the mean network calls of an item in full passes, ``seconds`` the mean time of an item.
    ``calls_interval``: that of the calls, 95 %, Student's t; None where they were not counted one by one.
    """

    candidate: Candidate
    calls: float
    loss: float
    interval: tuple[float, float]
    items: int
    seconds: float
    calls_interval: tuple[float, float] | None = None


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
    def judged(self) -> tuple[Row, ...]:
        """What was measured on the judging half, each once."""
        rows = {r.candidate.name: r for r in (*self.winners, *self.defaults) if r is not None}
        return tuple(rows.values())

    @property
    def front(self) -> tuple[Row, ...]:
        """Judged samplers by rising calls, each better than all that take fewer."""
        found: list[Row] = []
        for row in sorted(self.judged, key=lambda r: (r.calls, r.loss)):
            if not found or row.loss < found[-1].loss:
                found.append(row)
        return tuple(found)

    @property
    def samplers(self) -> dict[int, Sampler]:
        """The winner of each budget, with its calls and what is known of it; a budget that nothing keeps to is left out."""
        return {
            budget: replace(row.candidate.sampler, calls=row.calls, provenance=self._known(budget, row))
            for budget, row in zip(self.budgets, self.winners)
            if row is not None
        }

    def _known(self, budget: int, row: Row) -> dict[str, Any]:
        """Where a sampler comes from, and what it loses."""
        measured = {"loss": _finite(row.loss), "interval": _span(row.interval), "items": row.items}
        return {
            **self.provenance,
            "budget": budget,
            "metric": self.metric.name,
            "unit": self.metric.unit,
            **measured,
        }

    @property
    def needed(self) -> tuple[int | None, ...]:
        """For each budget the smallest one whose winner loses no more, by the means, than this budget's best default.

        None where no winner does, of this budget and those below, or where there is no default.
        """
        return tuple(
            None if usual is None else next(self._as_good(budget, usual), None)
            for budget, usual in zip(self.budgets, self.defaults)
        )

    def _as_good(self, most: int, usual: Row) -> Iterator[int]:
        """Budgets up to ``most`` whose winners lose no more than a default."""
        for budget, row in zip(self.budgets, self.winners):
            if budget <= most and row is not None and row.loss <= usual.loss:
                yield budget

    # --- as text and files --------------------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """All that was found, as JSON; numbers that are not finite are null."""
        kinds = zip(self.budgets, self.winners, self.defaults, self.gains, self.needed, strict=True)
        return stamped("tune") | {
            "format": FORMAT,
            "version": 1,
            "metric": {"name": self.metric.name, "unit": self.metric.unit, "better": "lower"},
            "units": UNITS,
            "provenance": self.provenance,
            "budgets": [
                {
                    "budget": budget,
                    "winner": _told(winner),
                    "default": _told(usual),
                    "gain": None
                    if more is None
                    else {"value": _finite(more[0]), "interval": _span(more[1:])},
                    "needed": needed,
                }
                for budget, winner, usual, more, needed in kinds
            ],
            "front": [_told(row) for row in self.front],
            "candidates": len(self.candidates),
            "calls": {
                "race": self.race.spent,
                "measuring": self.measuring,
                "full": self.race.full,
                "judging": sum(row.calls * row.items for row in self.judged),
            },
            "seconds": self.seconds,
        }

    def save(self, folder: str | Path) -> tuple[Path, ...]:
        """Writes a sampler file for each budget, front.png where there is matplotlib, then tune.json; names them."""
        place, written = Path(folder), list[Path]()
        for budget, sampler in self.samplers.items():
            written.append(place / f"sampler_{budget}.json")
            sampler.save(written[-1])
        if importlib.util.find_spec("matplotlib") is not None:
            written.append(place / "front.png")
            draw(self, written[-1])
        written.append(place / "tune.json")
        write_text(written[-1], json.dumps(self.record(), indent=1, allow_nan=False) + "\n")
        return tuple(written)

    def _repr_html_(self) -> str:
        """The front as a notebook shows it, and the table."""
        return pictures.fragment(pictured(self.record(), self.metric.name))

    def __repr__(self) -> str:
        record = self.record()
        rows = [heading(record), *rows_of(record)]
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        table = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths)).rstrip() for row in rows]
        return "\n".join([*table, *lines_of(record)])


UNITS = {
    "budget": "network calls per item, full forward passes",
    "calls": "mean network calls per item, full forward passes",
    "calls_interval": "the same, 95 %, Student's t over items",
    "loss": "the metric's unit, mean over items that the choice has not seen",
    "gain": "the metric's unit: loss of the best default of equal steps less that of the winner, on the same items",
    "interval": "95 %, Student's t over items; of shares Wilson, and of their paired differences Newcombe",
    "needed": "the smallest budget whose winner loses no more than the default, by the means",
    "seconds": "of a row: per item; of all: of this run, without what was measured before it",
    "calls.race": "calls times items of the race",
    "calls.measuring": "calls times items that costs of steps took, and rules that were tried before the race",
    "calls.judging": "calls times items of the judging half",
    "calls.full": "calls times items, had every candidate of the race been run on every item",
}
"""What the numbers of a record are."""


def _told(row: Row | None) -> dict[str, Any] | None:
    """A row as JSON."""
    return None if row is None else {
        "name": row.candidate.name,
        "calls": _finite(row.calls),
        "calls_interval": None if row.calls_interval is None else _span(row.calls_interval),
        "loss": _finite(row.loss),
        "interval": _span(row.interval),
        "items": row.items,
        "seconds": row.seconds,
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _span(values: Sequence[float]) -> list[float | None]:
    return [_finite(v) for v in values]


def heading(record: dict[str, Any]) -> tuple[str, ...]:
    """The columns of `rows_of`."""
    return ("budget", "sampler", "calls", f"{record['metric']['unit']}, 95 %", "gain, 95 %")


def rows_of(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """The table of a record: for each budget the winner, and below it the best default of equal steps."""
    rows: list[tuple[str, ...]] = []
    for found in record["budgets"]:
        winner, usual = found["winner"], found["default"]
        rows.append(
            (str(found["budget"]), *_cells(winner, "none keeps to it"), _ranged(found["gain"], "value"))
        )
        rows.append(("", *_cells(usual, "no default", "default: "), ""))
    return rows


def lines_of(record: dict[str, Any]) -> list[str]:
    """What a record says below its table."""
    lines = [_need(found) for found in record["budgets"] if found["default"] is not None]
    lines += [_over(found) for found in record["budgets"] if found["winner"] is not None and _exceeds(found)]
    steps = "; ".join(f"{r['calls']:.4g} calls: {_ranged(r, 'loss')} {r['name']}" for r in record["front"])
    race, more, full, judging = (record["calls"][k] for k in ("race", "measuring", "full", "judging"))
    return [
        *lines,
        f"Pareto front: {steps}",
        f"{record['candidates']} samplers tried in {race:.0f} calls, {more:.0f} more to measure what steps cost, instead "
        f"of {full:.0f} for each on every item ({(race + more) / full:.0%}); {judging:.0f} to judge; "
        f"{record['seconds']:.0f} s",
    ]


def _exceeds(found: dict[str, Any]) -> bool:
    """Whether a winner takes more calls on unseen items than its budget has."""
    return bool(found["winner"]["calls"] is not None and found["winner"]["calls"] > found["budget"] + 1e-9)


def _over(found: dict[str, Any]) -> str:
    """What is said of such a winner."""
    taken = _ranged(
        {**found["winner"], "interval": found["winner"]["calls_interval"] or (None, None)}, "calls"
    )
    return f"budget {found['budget']}: its winner takes {taken} calls on unseen items, more than where it was chosen"


def _need(found: dict[str, Any]) -> str:
    """How many calls the tuned choice needs for what a default reaches."""
    usual, needed = found["default"], found["needed"]
    best = f"the loss of the best default in {usual['calls']:.4g} calls"
    return f"no tuned choice reaches {best}" if needed is None else f"{best}: {needed} calls, tuned"


def _cells(row: dict[str, Any] | None, none: str, before: str = "") -> tuple[str, str, str]:
    if row is None:
        return none, "", ""
    return before + row["name"], f"{row['calls']:.2f}", _ranged(row, "loss")


def _ranged(found: dict[str, Any] | None, name: str) -> str:
    """A value as ``4.4 [3.2, 5.6]``, with two digits of the interval's half."""
    if found is None:
        return ""
    low, high = found["interval"]
    half = 0.0 if low is None or high is None else (high - low) / 2
    digits = min(max(1 - math.floor(math.log10(half)), 0), 9) if half > 0 else 3
    value, *ends = ("?" if v is None else f"{v:.{digits}f}" for v in (found[name], low, high))
    return f"{value} [{', '.join(ends)}]"


def pictured(record: dict[str, Any], name: str) -> str:
    """What winners and defaults of a record cost and lose as a picture, with its table and what is said below that."""
    kinds = {"tuned": "winner", "best default of equal steps": "default"}
    series = [_series(label, [b[kind] for b in record["budgets"]]) for label, kind in kinds.items()]
    axes, note = ("network calls per item", f"{record['metric']['unit']}, lower is better"), UNITS["loss"]
    chart = pictures.chart(f"Tuning: {name}", series, *axes, log_x=2.0, note=f"{note}; {UNITS['interval']}.")
    more = "".join(pictures.note(line) for line in lines_of(record))
    return chart + pictures.figure(
        f"Samplers: {name}", pictures.table(heading(record), rows_of(record)) + more
    )


def _series(label: str, rows: Sequence[dict[str, Any] | None]) -> Series:
    """Rows by rising calls."""
    known = sorted((r for r in rows if r is not None and r["calls"] is not None), key=lambda r: r["calls"])
    low, high = ([r["interval"][end] for r in known] for end in (0, 1))
    return Series(label, [r["calls"] for r in known], [r["loss"] for r in known], low, high)


def draw(tuned: Tuned, path: Path) -> None:
    """Draws what winners and defaults cost and lose, with 95 % intervals (PNG, SVG or PDF)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="network calls per item", ylabel=tuned.metric.unit)
    for label, rows, mark in (
        ("tuned", tuned.winners, "o"),
        ("best default of equal steps", tuned.defaults, "s"),
    ):
        known = sorted((r for r in rows if r is not None), key=lambda r: r.calls)
        places, means = [r.calls for r in known], [r.loss for r in known]
        reach = np.abs([r.interval for r in known] - np.array(means)[:, None]).T if known else None
        axes.errorbar(places, means, reach, fmt=f"{mark}-", capsize=3, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(tuned.budgets, [str(b) for b in tuned.budgets])
    axes.legend()
    data = io.BytesIO()
    figure.savefig(data, format=path.suffix[1:])
    write_bytes(path, data.getvalue())


def gain(default: Array, winner: Array, shares: bool = False) -> tuple[float, float, float]:
    """What a winner loses less than a default on the same items, and its 95 % interval."""
    low, high = _paired(default > 0, winner > 0) if shares else interval(default - winner)
    return float((default - winner).mean()), low, high


def _paired(one: Any, other: Any) -> tuple[float, float]:
    """95 % interval of the difference of two shares of the same items, in percent."""
    counts = ((one & other).sum(), (one & ~other).sum(), (~one & other).sum(), (~one & ~other).sum())
    low, high = paired_difference(*map(int, counts))
    return 100 * low, 100 * high


def interval(values: Array, shares: bool = False) -> tuple[float, float]:
    """95 % interval of a mean by Student's t; by Wilson of ``shares``, values of 0 or 100 that may all be the same."""
    if shares:
        low, high = wilson(int((values > 0).sum()), len(values))
        return 100 * low, 100 * high
    if len(values) < 2:
        return float("-inf"), float("inf")
    mean, half = float(values.mean()), mean_reach(values)
    return mean - half, mean + half
