"""Recipes `sudoku_solver` and `sudoku_fixed`: Sudoku as (cell, value) pairs, autoregressive, in one order; also small.

What masked diffusion in an adaptive order is compared with (arXiv 2502.06768; the pairs follow arXiv 2409.10502). A puzzle
is 162 tokens (72 of a 6x6 board, 32 of a 4x4 one): its clues in cell order, then the blanks in a solver's order or row by
row. Puzzles are those of `sudoku`, `sudoku6` or `sudoku4`, with the same data, seed and batch size; the loss is on blanks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from unmask.data.readers.boards import symbols_of
from unmask.data.sudoku.ordering import fixed_order, solver_order
from unmask.networks import TransformerConfig
from unmask.recipes import sequences
from unmask.recipes import sudoku as masked
from unmask.recipes.laboratory.cell_network import CellNetwork, from_config, vocab_size
from unmask.recipes.run import Batch, Machine, Optimiser, Run

Ordering: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Puzzles and solutions int64 [n, cells] to the order in which cells are written, int64 [n, cells], clues first."""


def sudoku_solver() -> Run:
    """Blanks as a solver finds them: naked singles, hidden singles, then search."""
    return _run("sudoku_solver", _solver)


def sudoku_fixed() -> Run:
    """Blanks row by row."""
    return _run("sudoku_fixed", _fixed)


def sudoku6_solver() -> Run:
    """Boards of 6x6, blanks as a solver finds them; the size of `sudoku6`."""
    return _run("sudoku6_solver", _solver, cells=36, width=64)


def sudoku6_fixed() -> Run:
    """Boards of 6x6, blanks row by row; the size of `sudoku6`."""
    return _run("sudoku6_fixed", _fixed, cells=36, width=64)


def sudoku4_solver() -> Run:
    """Boards of 4x4, blanks as a solver finds them; the size of `sudoku4`."""
    return _run("sudoku4_solver", _solver, cells=16, width=32)


def sudoku4_fixed() -> Run:
    """Boards of 4x4, blanks row by row; the size of `sudoku4`."""
    return _run("sudoku4_fixed", _fixed, cells=16, width=32)


def _solver(puzzles: Tensor, solutions: Tensor) -> Tensor:
    return solver_order(puzzles, solutions)[0]


def _fixed(puzzles: Tensor, _: Tensor) -> Tensor:
    return fixed_order(puzzles)


def _run(name: str, order: Ordering, cells: int = 81, width: int = 96) -> Run:
    return Run(
        name=name,
        network=TransformerConfig(
            vocab_size=vocab_size(cells),
            length=2 * cells,
            width=width,
            depth=3,
            heads=4,
            loops=2,
            hidden=2 * width,
            causal=True,
        ),
        data=masked.SudokuData(grids=0.0, reveal=2.0),
        build=from_config,
        batch=batches(order),
        objective=sequences.causal_loss,
        order="left-to-right",
        encode=lambda run, puzzles: encode(puzzles, run.network.length // 2),
        decode=lambda _, tokens: decode(tokens),
        batch_size=32,
        optimiser=Optimiser(steps=8_000, learning_rate=2e-3, warmup=100, decay=0.25, ema=0.998, muon=True),
        machine=Machine(bfloat16=None),
    )


def batches(order: Ordering) -> Callable[[Run, int], Batch]:
    """The puzzles of one step as sequences in an order; functions of (seed, step) only."""

    def batch(run: Run, step: int) -> Batch:
        cells = run.network.length // 2
        posed = masked.boards_of(run, step, cells)
        puzzles = posed.tokens.masked_fill(posed.masked, symbols_of(cells))
        tokens = pairs(posed.tokens, order(puzzles, posed.tokens))
        hidden = torch.arange(2 * cells) >= 2 * (cells - posed.masked.sum(1, keepdim=True))
        return Batch(tokens, hidden, torch.ones(len(tokens), dtype=torch.float64))

    return batch


def pairs(grids: Tensor, order: Tensor) -> Tensor:
    """Boards int64 [n, cells] as tokens [n, 2 cells] in an order of cells [n, cells]; masked from the first blank on."""
    cells = grids.shape[1]
    values = grids.gather(1, order)
    tokens = torch.stack([order, values + cells], -1)
    told = (values != symbols_of(cells)).cumprod(1).bool()
    return torch.where(told[..., None], tokens, vocab_size(cells)).flatten(1)


def grids(tokens: Tensor) -> Tensor:
    """Tokens int64 [n, 2 cells] as boards [n, cells], blank where no value is written."""
    count = tokens.shape[1] // 2
    blank = symbols_of(count)
    cells, values = tokens[:, ::2], tokens[:, 1::2] - count
    told = (cells < count) & (values < blank)
    found = torch.full((len(tokens), count + 1), blank, device=tokens.device)
    return found.scatter(1, torch.where(told, cells, count), torch.where(told, values, blank))[:, :count]


def encode(puzzles: str | Sequence[str], cells: int = 81) -> Tensor:
    """Tokens int64 [n, 2 cells] of a puzzle or several, as `sudoku.encode` reads them: clues, and the rest masked."""
    asked = masked.encode(puzzles, cells)
    return pairs(asked, fixed_order(asked))


def decode(tokens: Tensor) -> list[str]:
    """Each board of tokens int64 [n, 2 cells] as characters, ``.`` for a blank."""
    return masked.decode(grids(tokens))


@torch.inference_mode()
def written(network: CellNetwork, tokens: Tensor) -> Tensor:
    """Tokens int64 [n, 2 cells] written to their end, each the most likely one; one pass over one row a token.

    The same as `unmask.sample` from left to right with arg-max symbols, which runs every row at every token.
    """
    tokens, place = tokens.clone(), (tokens != network.mask_id).sum(1, keepdim=True)
    _, cache = network.full(tokens)
    length = tokens.shape[1]
    while int(place.min()) < length:
        rows = place.clamp(max=length - 1)
        best = network.partial(tokens, rows, cache).argmax(-1)
        tokens.scatter_(1, rows, torch.where(place < length, best, tokens.gather(1, rows)))
        place += 1
    return tokens
