"""Recipes `sudoku`, `sudoku6` and `sudoku4`: masked diffusion models of grids that solve puzzles in an adaptive order.

Reproduces, at small scale, the claim of "Train for the worst, plan for the best" (arXiv 2502.06768): near 0
% of puzzles in random order, nearly all in an adaptive one. Grids and puzzles are made as they are needed;
9x9 ones do not come twice, of 28 million 6x6 grids some do, all 288 of 4x4 do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unmask.data import sudoku as boards
from unmask.data.readers.boards import symbols_of
from unmask.data.sudoku.boards import units_of_cells
from unmask.masking.corruption import low_discrepancy, random_subset
from unmask.masking.objectives import masked_cross_entropy
from unmask.networks import TransformerConfig
from unmask.networks.transformer import from_config
from unmask.recipes.run import Batch, Machine, Optimiser, Run, check_ranges, generator


def axes_of(cells: int) -> tuple[tuple[int, ...], ...]:
    """Row, column and box of each cell of a board of so many."""
    each = units_of_cells(cells) - np.arange(3) * symbols_of(cells)
    return tuple(tuple(axis) for axis in each.T.tolist())


AXES = axes_of(81)
"""Row, column and box of each cell of a 9x9 board."""


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
        encode=lambda run, puzzles: encode(puzzles, run.network.length),
        decode=lambda _, tokens: decode(tokens),
        batch_size=64,
        optimiser=Optimiser(steps=20_000, learning_rate=1.5e-3, warmup=300, decay=0.25, ema=0.999),
        machine=Machine(bfloat16=None, compile=True),
    )


def sudoku6() -> Run:
    """Boards of 6x6, boxes of 2x3: a small model whose training is over in minutes."""
    return _smaller("sudoku6", 36, width=64, steps=8_000)


def sudoku4() -> Run:
    """Boards of 4x4, boxes of 2x2: after a minute of training a model knows all 85,632 minimal puzzles."""
    return _smaller("sudoku4", 16, width=32, steps=2_000)


def _smaller(name: str, cells: int, width: int, steps: int) -> Run:
    network = TransformerConfig(
        vocab_size=symbols_of(cells),
        length=cells,
        width=width,
        depth=3,
        heads=4,
        loops=2,
        hidden=2 * width,
        axes=axes_of(cells),
    )
    optimiser = Optimiser(steps=steps, learning_rate=2e-3, warmup=100, decay=0.25, ema=0.998, muon=True)
    return replace(sudoku(), name=name, network=network, optimiser=optimiser)


def encode(puzzles: str | Sequence[str], cells: int = 81) -> Tensor:
    """Tokens int64 [n, cells] of a puzzle or several, each so many characters, ``.``, ``0`` or ``_`` for a blank."""
    texts = [puzzles] if isinstance(puzzles, str) else puzzles
    rows = [_board(number, text, cells) for number, text in enumerate(texts)]
    return torch.as_tensor(np.stack(rows) if rows else np.empty((0, cells), np.int64))


def _board(number: int, text: str, cells: int) -> NDArray[np.int64]:
    """A board int64 [cells]; ValueError names the item."""
    try:
        board = boards.parse(text)
    except ValueError as error:
        raise ValueError(f"item {number}: {error}") from None
    if len(board) != cells:
        raise ValueError(f"item {number}: a board of {len(board)} cells; expected {cells}, as the model has")
    return board


def decode(tokens: Tensor) -> list[str]:
    """Each board of tokens int64 [n, cells] as so many characters, ``.`` for a blank."""
    return [boards.text(board) for board in tokens]


def batch(run: Run, step: int) -> Batch:
    """The boards of one step and what is hidden of them; a function of (seed, step) only."""
    return boards_of(run, step, run.network.length)


def boards_of(run: Run, step: int, cells: int) -> Batch:
    """`batch` of boards of so many cells, whatever sequence the network makes of one."""
    random = generator(run, step)
    grids = round(run.batch_size * run.data.grids)
    full = boards.full_grids(grids, seed=board_seed(run, step, GRIDS), cells=cells)
    puzzles, solutions = _puzzles(run, step, run.batch_size - grids, cells)
    tokens = torch.cat([torch.as_tensor(full), solutions])
    blank = torch.cat([torch.ones(grids, cells, dtype=torch.bool), puzzles == symbols_of(cells)])
    count = torch.cat(
        [uniform_counts(grids, cells, random), puzzle_counts(blank[grids:], run.data.reveal, random)]
    )
    masked = random_subset(blank, count, random)
    return Batch(tokens, masked, float(cells) / count)


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


def _puzzles(run: Run, step: int, count: int, cells: int) -> tuple[Tensor, Tensor]:
    """``count`` minimal puzzles and their solutions, int64 [count, cells]: fresh ones and symmetry copies."""
    fresh = -(-count // run.data.copies)
    puzzles, solutions = boards.puzzles(fresh, seed=board_seed(run, step, PUZZLES), cells=cells)
    pair = [torch.as_tensor(b).repeat(run.data.copies, 1)[:count] for b in (puzzles, solutions)]
    return boards.symmetries(pair[0], pair[1], seed=board_seed(run, step, SYMMETRIES))


def uniform_counts(size: int, cells: int, random: torch.Generator) -> Tensor:
    """Numbers of hidden cells, uniform on 1..cells and stratified; int64 [size]."""
    return (1 + torch.floor(cells * low_discrepancy(size, random))).long()


def puzzle_counts(blank: Tensor, power: float, random: torch.Generator) -> Tensor:
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
    """Weighted masked cross-entropy of logits [B, cells, V] after each loop: half the last one's, half the mean of all."""
    losses = [masked_cross_entropy(z, data.tokens, data.masked, data.weight) for z in readouts]
    return (losses[-1] + torch.stack(losses).mean()) / 2
