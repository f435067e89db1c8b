"""Long work: a progress line (a bar on a terminal, plain lines elsewhere), and the pieces that it is done in.

Who does the pieces is up to `Pieces`: here this process, one after another; `training.together.bulk` has several processes
do them, keeps them, and joins them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, TypeAlias

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
        self.step: float = start
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

    def advance(self, step: float, **values: float) -> dict[str, Any]:
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
                f"{self.label} {step:.0f}/{self.total} {note} {left / 60:.1f} min left",
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


# --- pieces ---------------------------------------------------------------------------------------


Piece: TypeAlias = dict[str, Any]
"""What a piece of work gives, by name: tensors, and what JSON holds."""


@dataclass(frozen=True)
class Work:
    """One piece of long work: ``make`` does ``count`` items from global number ``first`` on, whoever calls it.

    ``of`` tells apart input that settings and data of the whole work do not.
    """

    first: int
    count: int
    make: Callable[[], Piece]
    of: str = ""


class Partly(Exception):
    """The whole is not joined here: another process does it, or a later call."""


class Pieces:
    """How pieces are done: in this process, one after another, as they are asked for."""

    shared = False
    """Whether pieces are kept, or done by several processes."""

    speaks = True
    """Whether this process is the one of several that reports to the user."""

    def of(self, **facts: Any) -> None:
        """Says what is computed, by facts that JSON holds, before the first piece: all that results depend on."""

    def each(
        self, name: str, works: Iterable[Work], advance: Callable[[int], object] = lambda _: None
    ) -> Iterator[Piece]:
        """What the pieces of this name give, in order, or `Partly`; ``advance`` hears how many items are done."""
        del name
        done = 0
        for work in works:
            yield work.make()
            done += work.count
            advance(done)

    def every(self, *parts: Callable[[], Any]) -> tuple[Any, ...]:
        """What the parts of a work give that do not need each other: each is done before `Partly` is raised."""
        found, lacking = [], None
        for part in parts:
            try:
                found.append(part())
            except Partly as error:
                lacking = error
        if lacking is not None:
            raise lacking
        return tuple(found)

    def within(self, name: str, first: int = 0, step: int = 1) -> Pieces:
        """These pieces for every ``step``-th item from ``first`` on, under a name of their own."""
        return _Within(self, name, first, step)


@dataclass(frozen=True)
class _Within(Pieces):
    whole: Pieces
    name: str
    first: int
    step: int

    def each(
        self, name: str, works: Iterable[Work], advance: Callable[[int], object] = lambda _: None
    ) -> Iterator[Piece]:
        """Those of the whole, by their numbers there."""
        there = (replace(work, first=self.first + self.step * work.first) for work in works)
        return self.whole.each(f"{name}-{self.name}", there, advance)


IN_TURN = Pieces()
"""One process that keeps nothing."""
