"""Recipe `sudoku`: a masked diffusion model of 9x9 Sudoku grids that solves puzzles in an adaptive order.

Reproduces, at small scale, the claim of "Train for the worst, plan for the best" (arXiv 2502.06768): near 0
% of puzzles in random order, nearly all in an adaptive one. Grids and puzzles are made as they are needed,
so none is seen twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unmask.data import sudoku as boards
from unmask.masking.corruption import low_discrepancy, random_subset
from unmask.masking.objectives import masked_cross_entropy
from unmask.networks import TransformerConfig
from unmask.networks.transformer import from_config
from unmask.recipes.run import Batch, Machine, Optimiser, Run, check_ranges, generator

AXES = (
    tuple(cell // 9 for cell in range(81)),
    tuple(cell % 9 for cell in range(81)),
    tuple(cell // 27 * 3 + cell % 9 // 3 for cell in range(81)),
)
"""Row, column and box of each cell."""


@dataclass(frozen=True)
class SudokuData:
    """Batches: ``grids`` is the share of full grids masked uniformly, the rest are minimal puzzles.

    Each puzzle appears ``copies`` times under different symmetries, with floor(blanks * u^reveal) of its
    blanks shown, u uniform: high powers dwell on the puzzle as it is posed.
    """

    grids: float = 0.25
    copies: int = 4
    reveal: float = 3.0

    def __post_init__(self) -> None:
        check_ranges(self, grids=(0, 1), copies=(1, math.inf), reveal=(0, math.inf))


def sudoku() -> Run:
    """The shipped model: three blocks run four times, width 128; trained in about two hours on two cores."""
    return Run(
        name="sudoku",
        network=TransformerConfig(
            vocab_size=9, length=81, width=128, depth=3, heads=4, loops=4, hidden=320, axes=AXES
        ),
        data=SudokuData(),
        build=from_config,
        batch=batch,
        objective=objective,
        order="margin",
        encode=lambda _, puzzles: encode(puzzles),
        decode=lambda _, tokens: decode(tokens),
        batch_size=64,
        optimiser=Optimiser(steps=20_000, learning_rate=1.5e-3, warmup=300, decay=0.25, ema=0.999),
        machine=Machine(bfloat16=None, compile=True),
    )


def encode(puzzles: str | Sequence[str]) -> Tensor:
    """Tokens int64 [n, 81] of a puzzle or several, each 81 characters, ``.``, ``0`` or ``_`` for a blank."""
    texts = [puzzles] if isinstance(puzzles, str) else puzzles
    rows = [_board(number, text) for number, text in enumerate(texts)]
    return torch.as_tensor(np.stack(rows) if rows else np.empty((0, 81), np.int64))


def _board(number: int, text: str) -> NDArray[np.int64]:
    """A board int64 [81]; ValueError names the item."""
    try:
        return boards.parse(text)
    except ValueError as error:
        raise ValueError(f"item {number}: {error}") from None


def decode(tokens: Tensor) -> list[str]:
    """Each board of tokens int64 [n, 81] as 81 characters, ``.`` for a blank."""
    return [boards.text(board) for board in tokens]


def batch(run: Run, step: int) -> Batch:
    """The boards of one step and what is hidden of them; a function of (seed, step) only."""
    random = generator(run, step)
    grids = round(run.batch_size * run.data.grids)
    full = boards.full_grids(grids, seed=board_seed(run, step, GRIDS))
    puzzles, solutions = _puzzles(run, step, run.batch_size - grids)
    tokens = torch.cat([torch.as_tensor(full), solutions])
    blank = torch.cat([torch.ones(grids, 81, dtype=torch.bool), puzzles == boards.BLANK])
    count = torch.cat(
        [_uniform_counts(grids, random), _puzzle_counts(blank[grids:], run.data.reveal, random)]
    )
    masked = random_subset(blank, count, random)
    return Batch(tokens, masked, 81.0 / count)


GRIDS, PUZZLES, SYMMETRIES = 0, 1, 2
"""What the boards of a step are made of; each has a seed of its own."""


def board_seed(run: Run, step: int, part: int) -> int:
    """The seed of one part of a step's boards, in 2^63..2^64 - 1: apart from every other, and from those of test boards.

    ValueError for a step outside 0..2^30 - 1. Under randomness 1 grids and symmetries shared one, steps from 2^31 on met
    puzzles of earlier ones, and runs with seeds from 2^29 on could meet test boards.
    """
    if run.randomness == 1:
        return run.seed * 2**32 + step + 2**31 * (part == PUZZLES)
    if not 0 <= step < 2**30:
        raise ValueError(f"step {step}: expected 0..2^30 - 1")
    return 2**63 + (run.seed << 32) + (step << 2) + part


def _puzzles(run: Run, step: int, count: int) -> tuple[Tensor, Tensor]:
    """``count`` minimal puzzles and their solutions, int64 [count, 81]: fresh ones and symmetry copies."""
    fresh = -(-count // run.data.copies)
    puzzles, solutions = boards.puzzles(fresh, seed=board_seed(run, step, PUZZLES))
    pair = [torch.as_tensor(b).repeat(run.data.copies, 1)[:count] for b in (puzzles, solutions)]
    return boards.symmetries(pair[0], pair[1], seed=board_seed(run, step, SYMMETRIES))


def _uniform_counts(size: int, random: torch.Generator) -> Tensor:
    """Numbers of hidden cells, uniform on 1..81 and stratified; int64 [size]."""
    return (1 + torch.floor(81 * low_discrepancy(size, random))).long()


def _puzzle_counts(blank: Tensor, power: float, random: torch.Generator) -> Tensor:
    """Numbers of cells that stay hidden when floor(blanks * u^power) are shown; int64 [B], at least 1."""
    blanks = blank.sum(1)
    shown = torch.floor(blanks * low_discrepancy(len(blank), random) ** power).long()
    return (blanks - shown).clamp(min=1)


def objective(network: nn.Module, data: Batch) -> Tensor:
    """Weighted masked cross-entropy, nats per cell: half the last loop's, half all loops' mean."""
    tokens = data.tokens.masked_fill(data.masked, network.mask_id)  # type: ignore[arg-type]
    readouts: list[Tensor] = network.readouts(tokens)  # type: ignore[operator]
    return supervised(readouts, data)


def supervised(readouts: list[Tensor], data: Batch) -> Tensor:
    """Weighted masked cross-entropy of logits [B, 81, V] after each loop: half the last one's, half the mean of all."""
    losses = [masked_cross_entropy(z, data.tokens, data.masked, data.weight) for z in readouts]
    return (losses[-1] + torch.stack(losses).mean()) / 2
