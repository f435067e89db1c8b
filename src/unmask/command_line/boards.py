"""Sudoku at the command line: where puzzles come from, solving them in batches, and what came out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from unmask.base import noise
from unmask.base.progress import IN_TURN, Piece, Pieces, Work
from unmask.base.types import Info, Result, steps_of
from unmask.command_line.options import MACHINE, Machine, in_range
from unmask.command_line.output import Report, number, share
from unmask.data import sudoku
from unmask.data.readers.boards import symbols_of
from unmask.data.sudoku.boards import FEWEST
from unmask.engine.sampling import checksum
from unmask.models import Model

Sampler: TypeAlias = Callable[[Tensor, Tensor, torch.Generator], Result]
"""Unmasks a batch: (tokens int64 [B, L], numbers of the items int64 [B], generator) -> result, of one row each or more."""

FRESH = 2**62
"""Start of the seeds of test puzzles; training counts up from small seeds, so the two never meet."""


@dataclass(frozen=True)
class Boards:
    """Puzzles int64 [n, cells], their solutions int64 [n, cells] if known, and where they came from."""

    source: str
    puzzles: Tensor
    solutions: Tensor | None = None

    def clues(self) -> Tensor:
        """Which cells are told, bool [n, cells]."""
        return self.puzzles != symbols_of(self.puzzles.shape[1])

    def first(self, count: int | None, each: int = 1) -> Boards:
        """The first ``count`` puzzles, which stand here ``each`` times; all where no number is said."""
        end = None if count is None else count * each
        return Boards(
            self.source, self.puzzles[:end], None if self.solutions is None else self.solutions[:end]
        )


@dataclass(frozen=True)
class Solved:
    """Finished grids int64 [n, cells], log-probabilities (nats, NaN if unknown) and network calls float64 [n], seconds.

    ``manifest`` says how to repeat it, ``steps`` holds the steps of each grid if they were asked for.
    """

    grids: Tensor
    log_prob: Tensor
    nfe: Tensor
    seconds: float
    manifest: Report = field(default_factory=dict)
    steps: tuple[list[Report], ...] = ()

    def part(self, places: slice | Tensor) -> Solved:
        """Some of the grids; seconds and manifest stay those of all. Places int64 [n] know no steps."""
        grids, log_prob, nfe = (values[places] for values in (self.grids, self.log_prob, self.nfe))
        steps = self.steps[places] if isinstance(places, slice) else ()
        return Solved(grids, log_prob, nfe, self.seconds, self.manifest, steps)


def check_sudoku(model: Model) -> None:
    """ValueError unless the model is one of Sudoku grids."""
    if not model.sudoku:
        raise ValueError(
            f"model '{model.name}' is not a Sudoku model; puzzles need one trained by recipe 'sudoku'"
        )


def read(path: Path, cells: int = 81) -> Boards:
    """Puzzles of so many cells, and solutions if there are any, from a file."""
    found = sudoku.read(path, cells)
    solutions = None if found.solutions is None else torch.as_tensor(found.solutions)
    return Boards(str(path), torch.as_tensor(found.puzzles), solutions)


def generate(clues: str, count: int, seed: int, cells: int = 81) -> Boards:
    """Fresh puzzles with one solution: ``clues`` is a number of clues, or ``minimal``."""
    fewest = FEWEST[cells]
    if clues != "minimal" and not (clues.isdigit() and fewest <= int(clues) <= cells):
        such = 34 * cells // 81
        raise ValueError(
            f"--generate {clues}: expected a number of clues {fewest}..{cells}, such as {such}, or minimal"
        )
    in_range("num", count, 1)
    left = None if clues == "minimal" else int(clues)
    puzzles, solutions = sudoku.puzzles(
        count, FRESH + 128 * noise.narrowed(seed, 54) + (left or 0), clues=left, cells=cells
    )
    name = "minimal" if left is None else f"{left} clues"
    return Boards(name, torch.as_tensor(puzzles), torch.as_tensor(solutions))


@dataclass
class Watch:
    """Hears every step of a sampler: tells how many sequences are done, in parts, and shows those of the first batch.

    A sequence that is filled in ``passes`` times, as a search and its judge do, is done after the last of them.
    """

    mask_id: int
    advance: Callable[[float], object] = lambda _: None
    show: Callable[[Info, Tensor], object] | None = None
    passes: int = 1
    before: int = 0
    size: int = 0
    hidden: float = 1.0
    gone: int = 0
    last: float = 0.0

    def begin(self, before: int, tokens: Tensor) -> None:
        """A batch of tokens int64 [B, L] comes after ``before`` sequences."""
        self.before, self.size, self.hidden = before, len(tokens), self._left(tokens) or 1.0
        self.gone, self.last = 0, 0.0

    def each(self, info: Info, tokens: Tensor) -> None:
        """A step was done, which led to ``tokens``; where less is filled than before, another pass has begun."""
        share = max(1 - self._left(tokens) / self.hidden, 0.0)
        self.gone = min(self.gone + (share < self.last), self.passes - 1)
        self.last = share
        self.advance(self.before + self.size * (self.gone + share) / self.passes)
        if self.show is not None and not self.before:
            self.show(info, tokens)

    def _left(self, tokens: Tensor) -> float:
        """Masked positions of a row, the mean."""
        return int((tokens == self.mask_id).sum()) / max(len(tokens), 1)


def solve(
    puzzles: Tensor,
    sampler: Sampler,
    *,
    seed: int,
    trace: bool = False,
    machine: Machine = MACHINE,
    advance: Callable[[int], object] = lambda _: None,
    pieces: Pieces = IN_TURN,
    watch: Watch | None = None,
) -> Solved:
    """Unmasks the blanks of puzzles int64 [n, cells], batch by batch; ``advance`` hears how many are done.

    ``watch``, if any, is what the sampler tells its steps.

    Orders and symbols of a puzzle are functions of the seed and its number, whatever batch it is in.
    """
    began = time.monotonic()

    def solved(rows: Tensor) -> Piece:
        posed, ids = puzzles[rows].to(machine.device), rows.to(machine.device)
        if watch is not None:
            watch.begin(int(rows[0]), posed)
        result = sampler(posed, ids, noise.seeded(seed))
        values = {k: getattr(result, k).cpu() for k in ("tokens", "log_prob", "nfe")}
        steps = steps_of(result.trace, len(rows)) if trace else []
        return values | {"manifest": dict(result.manifest), "steps": steps}

    batches = batched(len(puzzles), machine.batch_size, solved)
    found = list(pieces.each("samples", batches, advance))
    tokens, log_prob, nfe = (torch.cat([f[k] for f in found]) for k in ("tokens", "log_prob", "nfe"))
    seconds = time.monotonic() - began
    record = manifest_of([f["manifest"] for f in found], tokens, seed, machine.batch_size, puzzles)
    steps = tuple(step for f in found for step in f["steps"])
    return Solved(tokens, log_prob, nfe, seconds, record | {"seconds": seconds}, steps)


def batched(count: int, size: int, make: Callable[[Tensor], Piece]) -> Iterator[Work]:
    """Batches of ``size`` items: ``make`` takes their numbers, int64 [<= size]."""
    for rows in torch.split(torch.arange(count), size) if count else ():
        yield Work(int(rows[0]), len(rows), partial(make, rows))


def manifest_of(
    records: Sequence[Report], tokens: Tensor, seed: int, batch_size: int, puzzles: Tensor
) -> Report:
    """The manifest of a run of batches: what they share, ``seed`` of the run, those of the batches, network seconds.

    `unmask.replay` repeats it: as items have their own noise, all of them in one batch.
    """
    spent = math.fsum(r["network_seconds"] for r in records)
    shape = [sum(r["shape"][0] for r in records), tokens.shape[1]]
    own = {"seed": seed, "batch_seeds": [r["seed"] for r in records], "batch": batch_size, "shape": shape}
    ids = {"order_ids": None, "item_ids": None}
    start = None if all(r["start"] is None for r in records) else checksum(puzzles)
    done = {"start": start, "tokens": checksum(tokens)}
    return records[0] | own | ids | done | {"network_seconds": spent}


def exact(boards: Boards, solved: Solved) -> Tensor:
    """Which grids are the known solutions, bool [n]; ValueError where none are known."""
    if boards.solutions is None:
        raise ValueError(f"{boards.source}: no solutions are known; expected puzzles with them")
    return (solved.grids == boards.solutions).all(1)


def accuracy(boards: Boards, solved: Solved) -> Report:
    """Shares of puzzles and network calls per puzzle; exact match only where solutions are known."""
    valid = sudoku.is_valid(solved.grids)
    kept = sudoku.keeps_clues(solved.grids, boards.puzzles)
    n = len(boards.puzzles)
    report = {
        "solved": share(int((valid & kept).sum()), n, "puzzles", "valid grid that keeps every clue"),
        "valid": share(int(valid.sum()), n, "puzzles", "every row, column and box holds each digit once"),
        "clues_kept": share(int(kept.sum()), n, "puzzles", "every clue kept"),
        "calls": number(
            float(solved.nfe.mean()), "network calls per puzzle", "mean nfe, full forward passes"
        ),
    }
    if boards.solutions is None:
        return {"exact_match": None, **report}
    return {
        "exact_match": share(
            int(exact(boards, solved).sum()), n, "puzzles", "grid equal to the known solution"
        ),
        **report,
    }
