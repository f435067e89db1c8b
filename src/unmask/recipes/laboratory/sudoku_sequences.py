"""Recipes `sudoku_solver` and `sudoku_fixed`: Sudoku as (cell, value) pairs, autoregressive, in one order.

What masked diffusion in an adaptive order is compared with (arXiv 2502.06768; the pairs follow arXiv 2409.10502). A puzzle
is 162 tokens: its clues in cell order, then the blanks in a solver's order or row by row. Puzzles are those of
`sudoku` with the same data, seed and batch size; the loss is on blanks only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from unmask.data import sudoku as boards
from unmask.data.sudoku.ordering import fixed_order, solver_order
from unmask.networks import TransformerConfig
from unmask.recipes import sequences
from unmask.recipes import sudoku as masked
from unmask.recipes.laboratory.cell_network import CELLS, LENGTH, SYMBOLS, CellNetwork, from_config
from unmask.recipes.run import Batch, Machine, Optimiser, Run

Ordering: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Puzzles and solutions int64 [n, 81] to the order in which cells are written, int64 [n, 81], clues first."""


def sudoku_solver() -> Run:
    """Blanks as a solver finds them: naked singles, hidden singles, then search."""
    return _run("sudoku_solver", lambda puzzles, solutions: solver_order(puzzles, solutions)[0])


def sudoku_fixed() -> Run:
    """Blanks row by row."""
    return _run("sudoku_fixed", lambda puzzles, _: fixed_order(puzzles))


def _run(name: str, order: Ordering) -> Run:
    return Run(
        name=name,
        network=TransformerConfig(
            vocab_size=SYMBOLS, length=LENGTH, width=96, depth=3, heads=4, loops=2, hidden=192, causal=True
        ),
        data=masked.SudokuData(grids=0.0, reveal=2.0),
        build=from_config,
        batch=batches(order),
        objective=sequences.causal_loss,
        order="left-to-right",
        encode=lambda _, puzzles: encode(puzzles),
        decode=lambda _, tokens: decode(tokens),
        batch_size=32,
        optimiser=Optimiser(steps=8_000, learning_rate=2e-3, warmup=100, decay=0.25, ema=0.998, muon=True),
        machine=Machine(bfloat16=None),
    )


def batches(order: Ordering) -> Callable[[Run, int], Batch]:
    """The puzzles of one step as sequences in an order; functions of (seed, step) only."""

    def batch(run: Run, step: int) -> Batch:
        posed = masked.batch(run, step)
        puzzles = posed.tokens.masked_fill(posed.masked, boards.BLANK)
        tokens = pairs(posed.tokens, order(puzzles, posed.tokens))
        hidden = torch.arange(LENGTH) >= 2 * (CELLS - posed.masked.sum(1, keepdim=True))
        return Batch(tokens, hidden, torch.ones(len(tokens), dtype=torch.float64))

    return batch


def pairs(grids: Tensor, order: Tensor) -> Tensor:
    """Boards int64 [n, 81] as tokens [n, 162] in an order of cells [n, 81]; what follows the first blank is masked."""
    values = grids.gather(1, order)
    tokens = torch.stack([order, values + CELLS], -1)
    told = (values != boards.BLANK).cumprod(1).bool()
    return torch.where(told[..., None], tokens, SYMBOLS).flatten(1)


def grids(tokens: Tensor) -> Tensor:
    """Tokens int64 [n, 162] as boards [n, 81], blank where no value is written."""
    cells, values = tokens[:, ::2], tokens[:, 1::2] - CELLS
    told = (cells < CELLS) & (values < boards.BLANK)
    found = torch.full((len(tokens), CELLS + 1), boards.BLANK, device=tokens.device)
    return found.scatter(1, torch.where(told, cells, CELLS), torch.where(told, values, boards.BLANK))[
        :, :CELLS
    ]


def encode(puzzles: str | Sequence[str]) -> Tensor:
    """Tokens int64 [n, 162] of a puzzle or several, as `sudoku.encode` reads them: clues, and the rest masked."""
    asked = masked.encode(puzzles)
    return pairs(asked, fixed_order(asked))


def decode(tokens: Tensor) -> list[str]:
    """Each board of tokens int64 [n, 162] as 81 characters, ``.`` for a blank."""
    return masked.decode(grids(tokens))


@torch.inference_mode()
def written(network: CellNetwork, tokens: Tensor) -> Tensor:
    """Tokens int64 [n, 162] written to their end, each the most likely one; one pass over one row a token.

    The same as `unmask.sample` from left to right with arg-max symbols, which runs every row at every token.
    """
    tokens, place = tokens.clone(), (tokens != SYMBOLS).sum(1, keepdim=True)
    _, cache = network.full(tokens)
    while int(place.min()) < LENGTH:
        rows = place.clamp(max=LENGTH - 1)
        best = network.partial(tokens, rows, cache).argmax(-1)
        tokens.scatter_(1, rows, torch.where(place < LENGTH, best, tokens.gather(1, rows)))
        place += 1
    return tokens
