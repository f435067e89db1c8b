"""How bulk work is shared out and kept: what the options say, and what is told of work that is not joined here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.command_line.options import Bulk, Cores, Machine, Output, running

if TYPE_CHECKING:
    from unmask.base.progress import Pieces
    from unmask.training.together.bulk import Dealt

STANDARD = Path("-")


@contextmanager
def shared(
    bulk: Bulk,
    machine: Cores,
    output: Output,
    *reads: Path | None,
    beside: Path | None = None,
    everywhere: bool = False,
) -> Iterator[Pieces]:
    """The pieces of a command's work; its block ends where another process, or a later call, joins them.

    ``reads`` is what the command reads, which several processes cannot do from standard input.
    """
    from unmask.base.progress import Partly
    from unmask.training.together import bulk as working

    _check_input(reads)
    device = machine.device if isinstance(machine, Machine) else "cpu"
    beside = None if beside == Path("-.parts") else beside
    with (
        running(machine),
        _kept(bulk.work),
        working.working(bulk.work, bulk.only, device=device, beside=beside, everywhere=everywhere) as pieces,
    ):
        try:
            yield pieces
        except Partly:
            if isinstance(pieces, working.Dealt) and pieces.world.first:
                _tell(bulk, pieces, output)


def _check_input(reads: tuple[Path | None, ...]) -> None:
    """ValueError where several processes would share standard input."""
    if STANDARD in reads and os.environ.get("WORLD_SIZE", "1") != "1":
        raise ValueError(
            "- (standard input) under torchrun; expected the name of a file, which every process reads"
        )


@contextmanager
def _kept(work: Path | None) -> Iterator[None]:
    """What is said when someone interrupts."""
    try:
        yield
    except KeyboardInterrupt as stop:
        if work is None or str(stop):
            raise
        raise KeyboardInterrupt(
            f"finished batches are in {work}; the same command goes on from there"
        ) from None


def _tell(bulk: Bulk, pieces: Dealt, output: Output) -> None:
    """What a call did that joins nothing."""
    from unmask.command_line.output import emit

    emit(
        {
            "part": True,
            "work": str(bulk.work),
            "items": bulk.items,
            "pieces": len(pieces.asked),
            "lacking": pieces.lacking(),
        },
        lambda found, console: console.print(
            f"{found['work']}: {found['pieces'] - found['lacking']} of {found['pieces']} batches are there; "
            + (
                "the same command without --items joins them"
                if not found["lacking"]
                else "the rest are to come"
            )
        ),
        output.json,
        aside=True,
    )
