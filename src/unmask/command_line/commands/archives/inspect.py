"""``unmask inspect``: what an archive holds, and the summary that `unmask compress` prints."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from unmask import codec
from unmask.base.profile import Profile, check
from unmask.codec import container, inspection
from unmask.codec.container.plans import IN_PROPORTION, Shares
from unmask.codec.inspection import Summary
from unmask.codec.settings import Method, full_passes
from unmask.command_line.commands.archives.decompress import header_of, opened_file
from unmask.command_line.output import Report
from unmask.models import load, measured_profile, shipped
from unmask.planning import plans


def described(summary: Summary) -> Report:
    """A summary as numbers with their units."""
    return {
        "items": summary.items,
        "kinds": dict(summary.kinds),
        "symbols": summary.symbols,
        "bits_per_symbol": summary.bits_per_symbol if summary.symbols else None,
        "payload_bytes": summary.payload_bytes,
        "other_bytes": summary.bytes - summary.payload_bytes,
        "bytes": summary.bytes,
        "source_bytes": summary.source_bytes,
        "units": {"bits_per_symbol": "payload bits of coded items per symbol", "bytes": "of the file"},
    }


def run_inspect(path: Path) -> Report:
    """What an archive holds, and what it would take with other plans where the model's profile is shipped."""
    with opened_file(path) as file:
        header_of(file, path)
        found = codec.inspect(file)
    record, method = found.header.record, found.header.method
    plan: Any = method.plan
    if not isinstance(plan, int):
        calls = {n: len(sizes) for n, sizes in plan.items()}
        plan = {IN_PROPORTION: calls} if isinstance(plan, Shares) else calls
    return {
        "command": "inspect",
        "file": str(path),
        "version": container.version_of(record),
        "library": record["library"],
        "model": record["model"],
        "returns": record["returns"],
        **(
            {"rule": method.rule, "temperature": method.temperature}
            if method.rule is not None
            else {"order": method.order, "seed": method.seed, "plan": plan}
        ),
        "substeps": method.substeps,
        **({"together": found.header.together} if found.header.together > 1 else {}),
        "full_passes": _passes(method),
        "block": method.block,
        "grid": f"2^-{method.grid}",
        "band": method.band,
        "names": found.names[:1000],
        **described(found.summary),
        "other_plans": _other_plans(found),
    }


def _passes(method: Method) -> float | None:
    """Full passes for the longest row (or block) that has a plan; None where its steps are not stored one by one."""
    if isinstance(method.plan, int):
        return None
    return full_passes(method.plan[max(method.plan)], method.substeps) if method.plan else 0


def _other_plans(found: inspection.Inspection) -> list[Report]:
    """Expected payload bits per item under the best plans of other numbers of calls, for items of full length."""
    name, method = str(found.header.record["model"].get("name")), found.header.method
    model = load(name) if name in shipped() else None
    profile = None if model is None else measured_profile(model)
    coded = sum(found.summary.kinds[container.NAMES[k]] for k in (container.CODED, container.ESCAPED))
    whole = profile is not None and found.summary.symbols == coded * profile.length and not method.block
    if profile is None or not coded or not whole or (method.order, method.substeps) != (codec.RANDOM.name, 1):
        return []  # a profile tells what random orders cost
    now = 8 * found.summary.coded_bytes / coded
    alone = now - _cost(profile, method.plan)
    calls = sorted({max(1, profile.length // part) for part in (1, 2, 4, 8, 16)}, reverse=True)
    return [
        {"calls": k, "bits_per_item": alone + _cost(profile, plans.optimal(profile, steps=k))} for k in calls
    ]


def _cost(profile: Profile, plan: int | dict[int, Sequence[int]] | Sequence[int]) -> float:
    """Bits that a plan costs beyond one position per call, by the profile."""
    sizes = plan.get(profile.length, 1) if isinstance(plan, dict) else plan
    return float(profile.kl(check(sizes, profile.length))) / math.log(2)


def render(report: Report, console: Console) -> None:
    """Prints a compression or an inspection, one fact a line."""
    table = Table("", "", box=None, show_header=False)
    for name, value in _facts(report):
        table.add_row(name, value)
    console.print(table)
    for plan in report.get("other_plans", ()):
        console.print(f"  with {plan['calls']} calls: about {plan['bits_per_item']:.1f} bits an item")


FACTS = [
    "file",
    "model",
    "order",
    "seed",
    "plan",
    "rule",
    "temperature",
    "substeps",
    "together",
    "full_passes",
    "grid",
    "band",
]
NUMBERS = [
    "items",
    "kinds",
    "symbols",
    "bits_per_symbol",
    "payload_bytes",
    "other_bytes",
    "bytes",
    "source_bytes",
]


def _facts(report: Report) -> Iterable[tuple[str, str]]:
    """What is printed, in order."""
    known = {name: report[name] for name in [*FACTS, *NUMBERS] if report.get(name) is not None}
    for name, value in known.items():
        text = f"{value:.4f}" if name == "bits_per_symbol" else _short(name, value)
        yield name.replace("_", " "), text


def _short(name: str, value: Any) -> str:
    """A fact in few words: of a plan by masked count, that of the largest."""
    if name == "plan" and isinstance(value, dict):
        shares = value.get(IN_PROPORTION)
        calls = value if shares is None else shares
        largest = max(calls, default=0)
        less = "" if shares is None else ", fewer for fewer in proportion"
        return f"{calls.get(largest, 0)} calls for {largest} positions{less}"
    if name == "model" and isinstance(value, dict):
        return f"{value['name']} ({value['identity'][:12]})"
    if name == "kinds":
        return ", ".join(f"{count} {kind}" for kind, count in value.items())
    if name == "rule":
        text = json.dumps(value)
        return text if len(text) < 300 else f"{text[:297]}..."
    if name == "full_passes":
        return f"{value:g}"
    return f"{value} per call" if name == "plan" else str(value)
