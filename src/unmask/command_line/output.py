"""How commands speak: a JSON document or text on standard output, all else on standard error."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console

from unmask.base.records import kind_of, stamped, write_bytes
from unmask.base.statistics import wilson
from unmask.data.files import STANDARD

Report: TypeAlias = dict[str, Any]
"""What a command found, ready for JSON."""


def emit(
    report: Report, render: Callable[[Report, Console], None], as_json: bool, *, aside: bool = False
) -> None:
    """Prints the report: as one JSON document, or through ``render``; ``aside``: on standard error.

    Names of files and models print as they are: brackets in them are no markup.
    """
    if as_json:
        print(json.dumps(document(report), indent=1, allow_nan=False))
    else:
        render(report, Console(highlight=False, soft_wrap=True, markup=False, stderr=aside))


def document(report: Report) -> Report:
    """A report as JSON has it: under its schema and kind, without NaN; what tells of a part of work has no kind."""
    found: Report = without_nan(report)
    return stamped(kind_of(report)) | found if "command" in report else found


def one_document(out: Path | None, as_json: bool) -> bool:
    """Whether ``out`` is standard output; ValueError where a JSON document goes there, too."""
    if out == STANDARD and as_json:
        raise ValueError("--json and --out - both write to standard output; expected one of them")
    return out == STANDARD


def put(out: Path, data: bytes) -> None:
    """Writes a file whole, or to standard output (``-``)."""
    if out != STANDARD:
        write_bytes(out, data)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def files(out: Path, plot: Path | None) -> Report:
    """What was written, for a report."""
    return {"file": str(out), "plot": None if plot is None else str(plot)}


def wrote(*places: Path | None, quiet: bool) -> None:
    """Names the files that were written, on standard error."""
    for place in places:
        if place not in (None, STANDARD):
            say(f"wrote {place}", quiet)


def say(text: str, quiet: bool = False) -> None:
    """A remark on standard error."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def without_nan(value: Any) -> Any:
    """The value with NaN and infinities as None, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {k: without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: float, unit: str, estimator: str, **more: Any) -> Report:
    """A reported number with its unit and the name of its estimator."""
    return {"value": value, "unit": unit, "estimator": estimator, **more}


def share(successes: int, trials: int, of: str, estimator: str) -> Report:
    """A share with its Wilson 95 % interval."""
    low, high = wilson(successes, trials)
    value = successes / trials if trials else math.nan
    counts = {"count": successes, "of": trials, "low": low, "high": high, "interval": "Wilson 95 %"}
    return number(value, f"share of {of}", estimator, **counts)


def percent(found: Report, digits: int = 1) -> str:
    """A share as ``97.0 % [91.5, 99.0]``."""
    value, low, high = (f"{100 * found[k]:.{digits}f}" for k in ("value", "low", "high"))
    return f"{value} % [{low}, {high}]"
