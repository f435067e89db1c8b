"""A progress line for long work: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

PLAIN_SECONDS = 30.0
"""Time between two plain lines when the output is not a terminal."""


class Progress:
    """Counts steps of a task from ``start`` to ``total`` and shows them on standard error."""

    def __init__(self, label: str, total: int, start: int = 0, *, quiet: bool = False) -> None:
        self.label, self.total, self.start, self.quiet = label, total, start, quiet
        self.began = self.printed = time.monotonic()
        self.step = start
        terminal = sys.stderr.isatty() and not quiet
        self.bar = _bar() if terminal else None
        self.task = self.bar.add_task(label, total=total, completed=start, note="") if self.bar else None

    def __enter__(self) -> Progress:
        """Starts the bar."""
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the bar and leaves it on the screen."""
        if self.bar:
            self.bar.stop()

    def advance(self, step: int, **values: float) -> dict[str, Any]:
        """Shows a step and its values; returns them as a record with rate (steps per second) and seconds."""
        self.step = step
        seconds = time.monotonic() - self.began
        rate = (step - self.start) / max(seconds, 1e-9)
        note = " ".join(f"{k} {v:.4g}" for k, v in values.items()) + f" {rate:.3g}/s"
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=step, note=note)
        elif not self.quiet and time.monotonic() - self.printed > PLAIN_SECONDS:
            self.printed = time.monotonic()
            left = (self.total - step) / max(rate, 1e-9)
            print(
                f"{self.label} {step}/{self.total} {note} {left / 60:.1f} min left",
                file=sys.stderr,
                flush=True,
            )
        return {"step": step, **values, "per_second": round(rate, 4), "seconds": round(seconds, 2)}


def _bar() -> Bar:
    """A bar on standard error."""
    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[note]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
