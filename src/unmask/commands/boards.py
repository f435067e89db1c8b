"""Sudoku at the command line: where puzzles come from, solving them in batches, and what came out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unmask.commands.output import Report, number, share
from unmask.data import sudoku
from unmask.models import Model
from unmask.sampling import sample
from unmask.types import Denoiser, Selector, TokenSource

BATCH = 64
"""Rows per network call: enough to keep two cores busy, few enough for their caches."""

FRESH = 2**62
"""Start of the seeds of test puzzles; training counts up from small seeds, so the two never meet."""


@dataclass(frozen=True)
class Boards:
    """Puzzles int64 [n, 81], their solutions int64 [n, 81] if known, and where they came from."""

    source: str
    puzzles: Tensor
    solutions: Tensor | None = None


@dataclass(frozen=True)
class Solved:
    """Finished grids int64 [n, 81], log-probabilities (nats) and network calls float64 [n], seconds."""

    grids: Tensor
    log_prob: Tensor
    nfe: Tensor
    seconds: float

    def part(self, places: slice) -> Solved:
        """Some of the grids; the seconds stay those of all."""
        return Solved(self.grids[places], self.log_prob[places], self.nfe[places], self.seconds)


def check_sudoku(model: Model) -> None:
    """ValueError unless the model is one of Sudoku grids."""
    if model.name != "sudoku":
        raise ValueError(
            f"model '{model.name}' is not a Sudoku model; puzzles need one trained by recipe 'sudoku'"
        )


def read(path: Path) -> Boards:
    """Puzzles, and solutions if there are any, from a file."""
    found = sudoku.read(path)
    solutions = None if found.solutions is None else torch.as_tensor(found.solutions)
    return Boards(str(path), torch.as_tensor(found.puzzles), solutions)


def generate(clues: str, count: int, seed: int) -> Boards:
    """Fresh puzzles with one solution: ``clues`` is a number of clues, or ``minimal``."""
    if clues != "minimal" and not clues.isdigit():
        raise ValueError(f"clues '{clues}': expected a number such as 34, or 'minimal'")
    if count < 1:
        raise ValueError(f"{count} puzzles: expected at least 1")
    left = None if clues == "minimal" else int(clues)
    puzzles, solutions = sudoku.puzzles(count, FRESH + 128 * seed + (left or 0), clues=left)
    name = "minimal" if left is None else f"{left} clues"
    return Boards(name, torch.as_tensor(puzzles), torch.as_tensor(solutions))


def solve(
    denoiser: Denoiser,
    puzzles: Tensor,
    selector: Selector,
    source: TokenSource,
    *,
    seed: int,
    substeps: int = 1,
    advance: Callable[[int], object] = lambda _: None,
) -> Solved:
    """Unmasks the blanks of puzzles int64 [n, 81], `BATCH` at a time; ``advance`` hears how many are done."""
    generator = torch.Generator().manual_seed(seed)
    began, results = time.monotonic(), []
    for start in range(0, len(puzzles), BATCH):
        rows = torch.arange(start, min(start + BATCH, len(puzzles)))
        results.append(
            sample(
                denoiser,
                puzzles[rows],
                selector,
                generator=generator,
                source=source,
                substeps=substeps,
                order_ids=rows,
            )
        )
        advance(int(rows[-1]) + 1)
    tokens, log_prob, nfe = (
        torch.cat([getattr(r, k) for r in results]) for k in ("tokens", "log_prob", "nfe")
    )
    return Solved(tokens, log_prob, nfe, time.monotonic() - began)


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
    exact = int((solved.grids == boards.solutions).all(1).sum())
    return {"exact_match": share(exact, n, "puzzles", "grid equal to the known solution"), **report}
