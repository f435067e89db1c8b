"""What was measured: profiles and plans, orders by calls, tunings, trainings, archives, and all numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unmask import pictures
from unmask.base.profile import Profile
from unmask.base.records import FORMATS
from unmask.command_line.commands.plan import cost, predicted
from unmask.command_line.commands.report.reading import Result
from unmask.command_line.output import Report
from unmask.evaluation.tuning import results as tuning
from unmask.pictures import Series, Staircase
from unmask.planning import plans

LOG = 2.0
"""Calls stand on an axis of powers of two."""


# --- profiles and plans -----------------------------------------------------------------------------


def profiles_and_plans(results: Sequence[Result]) -> str:
    """Each profile under the plans that fit it, and what calls cost; plans whose profile is not there as they are."""
    pieces, used = [], set[str]()
    for result in (r for r in results if r.kind == "profile" and "entropies" in r.record):
        profile = profile_of(result.record)
        given = {name: sizes for name, sizes in _plans(results) if sum(sizes) == profile.length}
        used |= {*given}
        pieces.append(under_plans(result.name, profile, given))
    alone = [(name, sizes) for name, sizes in _plans(results) if name not in used]
    bare = [pictures.staircase_alone(f"Plan: {name}", sizes) for name, sizes in alone]
    return "".join([*pieces, *bare, *_families(results)])


def profile_of(record: Report) -> Profile:
    """The profile of a file, or of what `unmask profile --json` printed."""
    if FORMATS.get(str(record.get("format"))) == "profile":
        return Profile.from_json(json.dumps(record))
    return Profile(record["entropies"], provenance=record.get("provenance"), exact=False)


def _plans(results: Sequence[Result]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """All plans by name, from plan files and from comparisons of families."""
    for result in (r for r in results if r.kind == "plan"):
        if "sizes" in result.record:
            yield result.name, tuple(result.record["sizes"])
        for row in result.record.get("families", ()):
            yield f"{result.name}, {row['family']}", tuple(row["plan"])


def budgets(length: int, most: int = 7) -> list[int]:
    """Numbers of calls to look at: powers of two below the length, the largest ones if there are too many."""
    return [2**k for k in range(length.bit_length()) if 2**k < length][-most:]


def under_plans(name: str, profile: Profile, given: Mapping[str, Sequence[int]]) -> str:
    """A profile with given plans and the best ones of several budgets, and what these cost beside equal steps."""
    calls = budgets(profile.length)
    best = {k: plans.optimal(profile, steps=k) for k in calls}
    chosen = dict(given) | {f"optimal, {k} calls": best[k] for k in calls}
    stairs = [Staircase(f"{n}: {cost(predicted(profile, tuple(p)))} nats", p) for n, p in chosen.items()]
    stderr = None if profile.stderr is None else profile.stderr.tolist()
    equal = {k: plans.uniform(profile.length, k) for k in calls}
    series = [
        _costs(profile, label, those) for label, those in (("optimal plan", best), ("equal steps", equal))
    ]
    axes = ("network calls", "nats per sequence")
    note = "Predicted, order disclosed; with 95 % intervals where the profile carries held-out losses."
    first = 0 if given else len(calls) // 2
    shown = pictures.profile(f"Profile: {name}", profile.entropies.tolist(), stairs, stderr, first)
    return shown + pictures.chart(f"What calls cost: {name}", series, *axes, log_x=LOG, zero=True, note=note)


def _costs(profile: Profile, label: str, those: Mapping[int, tuple[int, ...]]) -> Series:
    told = [predicted(profile, plan) for plan in those.values()]
    low, high = ([None if t["interval"] is None else t["interval"][k] for t in told] for k in (0, 1))
    return Series(label, list(those), [t["value"] for t in told], low, high)


def _families(results: Sequence[Result]) -> Iterator[str]:
    """What families of plans cost at the same budget."""
    for result in (r for r in results if r.kind == "plan" and "families" in r.record):
        rows = [
            (
                f"{row['family']}, {row['calls']} calls",
                max(row["kl"], 0.0),
                f"{cost({'value': row['kl'], 'interval': row['interval']}, 3)} nats",
            )
            for row in result.record["families"]
        ]
        yield pictures.bars(
            f"Families of plans: {result.name}", rows, "KL, nats per sequence, order disclosed, 95 %."
        )


# --- orders by calls ----------------------------------------------------------------------------------


SOLVED, NATS = "% solved", "nats per sequence"
"""What orders are compared by: puzzles that come out right, or how probable data are along each."""

NOTES = {
    SOLVED: ("network calls per puzzle", "With Wilson 95 % intervals; equal calls side by side."),
    NATS: (
        "network calls per sequence",
        "Less is better: the same sequences along each order, in equal steps; 95 % intervals are over sequences.",
    ),
}


@dataclass(frozen=True)
class Point:
    """An order as measured: what of (the chart it belongs to), its name, calls, a value in a unit, and its interval."""

    of: str
    order: str
    calls: float
    found: Report
    unit: str = SOLVED


def points(result: Result) -> Iterator[Point]:
    """What a result says of orders."""
    record = result.record
    for row in record["solving"] if result.kind == "demo" else ():
        for name, found in row["sets"].items():
            yield from _point(f"{result.model}, {name}", f"{row['order']}, {row['symbols']}", found)
    if result.kind in ("sample", "eval"):
        data = (record.get("data") or {}).get("source") or record.get("prompt") or "no prompt"
        found = record if result.kind == "eval" else record.get("accuracy") or {}
        yield from _point(f"{result.model}, {data}", f"{record.get('order')}, {record.get('symbols')}", found)
        for row in record.get("along") or ():
            yield Point(f"{result.model}, {data}", row["order"], row["calls"]["value"], row["nats"], NATS)


def _point(of: str, order: str, found: Report) -> Iterator[Point]:
    share = found.get("exact_match") or found.get("solved")
    if share and found.get("calls"):
        yield Point(of, order, found["calls"]["value"], share)


def by_calls(results: Sequence[Result]) -> str:
    """A chart of each set of puzzles or sequences on which orders were run."""
    found = [point for result in results for point in points(result)]
    names = dict.fromkeys((point.of, point.unit) for point in found)
    return "".join(
        _compared(of, unit, [p for p in found if (p.of, p.unit) == (of, unit)]) for of, unit in names
    )


def _compared(of: str, unit: str, found: Sequence[Point]) -> str:
    series, scale = [], 100 if unit == SOLVED else 1
    for order in dict.fromkeys(p.order for p in found):
        own = sorted((p for p in found if p.order == order), key=lambda p: p.calls)
        value, low, high = ([_scaled(p.found[end], scale) for p in own] for end in ("value", "low", "high"))
        series.append(Series(order, [p.calls for p in own], value, low, high))
    calls, note = NOTES[unit]
    return pictures.chart(f"Orders by calls: {of}", series, calls, unit, log_x=LOG, note=note, apart=4.0)


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else scale * value


# --- tunings, trainings, archives ---------------------------------------------------------------------


def tuned(results: Sequence[Result]) -> str:
    """The front of each tuning, and its table."""
    return "".join(tuning.pictured(result.record, result.name) for result in results if result.kind == "tune")


def trainings(results: Sequence[Result]) -> str:
    """The losses of all trainings in one chart, and on its own each that was averaged, with its spread."""
    found = [r for r in results if r.kind == "train" and r.record.get("curve", {}).get("step")]
    series = [_curve(result, spread=len(found) == 1) for result in found]
    note = "Training objective; means of neighbouring logged steps where there are many, with the least and the greatest."
    return pictures.chart("Training", series, "steps", "loss, nats per position", note=note) if series else ""


def _curve(result: Result, spread: bool) -> Series:
    found, recipe = result.record["curve"], result.record.get("recipe")
    name = result.name if recipe in (None, result.name) else f"{result.name} ({recipe})"
    low, high = (found["low"], found["high"]) if spread and found["averaged"] > 1 else (None, None)
    return Series(name, found["step"], found["loss"], low, high, marks=len(found["step"]) <= 40)


def archives(results: Sequence[Result]) -> str:
    """What archives and their sources take."""
    kinds = ("compress", "inspect")
    return "".join(_archive(r) for r in results if r.kind in kinds and "payload_bytes" in r.record)


def _archive(result: Result) -> str:
    record = result.record
    sizes = {"source": record.get("source_bytes"), "archive": record["bytes"]}
    parts = {"of it items": record["payload_bytes"], "of it names, tables, ends": record["other_bytes"]}
    known = {name: size for name, size in (sizes | parts).items() if size is not None}
    rows = [(name, float(size), f"{size} bytes") for name, size in known.items()]
    bits = record.get("bits_per_symbol")
    note = f"{record['items']} items, {record['symbols']} symbols" + (
        f", {bits:.4f} bits per symbol." if bits else "."
    )
    more = record.get("other_plans") or []
    series = [Series("expected", [p["calls"] for p in more], [p["bits_per_item"] for p in more])]
    plan = (
        pictures.chart(f"Other plans: {result.name}", series, "network calls", "bits an item", log_x=LOG)
        if more
        else ""
    )
    return pictures.bars(f"Archive: {result.name}", rows, note) + plan


# --- all numbers, and how they came about ----------------------------------------------------------------


def numbers(results: Sequence[Result]) -> str:
    """Every number with its unit and estimator."""
    pieces = []
    for result in results:
        rows = [
            row for name, value in result.record.items() if name != "samples" for row in _rows(name, value)
        ]
        if rows and result.kind not in ("tune", "demo"):
            table = pictures.table(["", "value", "95 % or standard error", "unit: estimator"], rows)
            pieces.append(pictures.figure(f"{result.name} ({result.kind})", table))
    return "".join(pieces)


def _rows(name: str, value: object) -> Iterator[tuple[object, ...]]:
    """Numbers inside a value, under their names."""
    if not isinstance(value, Mapping):
        return
    if isinstance(value.get("value"), int | float) and "unit" in value:
        yield (
            name.replace("_", " "),
            value["value"],
            _spread(value),
            f"{value['unit']}: {value.get('estimator', '')}",
        )
    for inner, more in value.items():
        yield from _rows(f"{name}, {inner}" if isinstance(more, Mapping) else name, more)


def _spread(value: Mapping[str, Any]) -> str:
    ends = (
        value.get("interval")
        if isinstance(value.get("interval"), list)
        else [value.get("low"), value.get("high")]
    )
    if ends and None not in ends:
        return f"{ends[0]:.4g} to {ends[1]:.4g}"
    return f"± {value['stderr']:.3g}" if value.get("stderr") is not None else ""


LONG = (
    "samples",
    "entropies",
    "stderr",
    "counts",
    "curve",
    "look",
    "front",
    "families",
    "solving",
    "planning",
    "names",
)
"""Fields that have a picture, or are too long to read."""


def manifests(results: Sequence[Result]) -> str:
    """What is needed to make each result again, and what else it says."""
    pieces = []
    for result in results:
        kept = {k: v for k, v in result.record.items() if k not in LONG and not _is_long(v)}
        pieces.append(pictures.listed(f"{result.name} ({result.kind})", kept))
    return "".join(pieces)


def _is_long(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(v, dict | list) for v in value)
