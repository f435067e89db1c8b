"""The log of a training as a curve."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unmask.command_line.output import Report

LOG = "log.jsonl"
"""What a training wrote of its steps, in its folder."""

POINTS = 300
"""Points of a curve: longer logs are averaged."""


def read(place: Path) -> list[Report]:
    """The records of a log, or of that in a folder; a line that a crash cut short is left out."""
    path = place / LOG if place.is_dir() else place
    return [record for line in path.read_text("utf-8").splitlines() if (record := _record(line))]


def _record(line: str) -> Report:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def curve(log: Sequence[Mapping[str, Any]]) -> Report:
    """The losses of a log, nats per position: means over equally many logged steps, the least and the greatest of them."""
    kept = [(float(line["step"]), float(line["loss"])) for line in log if "step" in line and "loss" in line]
    size = max(1, -(-len(kept) // POINTS))
    parts = [kept[k : k + size] for k in range(0, len(kept), size)]
    losses = [[loss for _, loss in part] for part in parts]
    return {
        "step": [part[-1][0] for part in parts],
        "loss": [sum(part) / len(part) for part in losses],
        "low": [min(part) for part in losses],
        "high": [max(part) for part in losses],
        "averaged": size,
    }
