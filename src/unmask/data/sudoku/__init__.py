"""Sudoku puzzles: generate, transform, solve, check and read them.

A board has 81 cells row-major, symbol = digit - 1 (0..8), blank = 9 (the model's mask_id). Functions that
make boards return int64 numpy arrays [n, cells]; functions that take boards accept integer numpy arrays or torch
tensors, [n, cells] or [cells] for one board, and answer in kind. Smaller boards have 16, 36 or 64 cells, 4, 6 or 8
symbols, the next one for a blank, and boxes of 2x2, 2x3 or 2x4: where boards are made say ``cells``.

Generating, solving and `invariant` need numba (``pip install 'unmask[puzzles]'``); everything else runs without it.

Everything random is a function of the seed alone, by splitmix64: board i of a seed is the same for every n.
"""

from unmask.data.readers.boards import BLANK, Puzzles, parse, pretty, read, text
from unmask.data.sudoku.boards import (
    FEWEST_CLUES,
    count_solutions,
    full_grids,
    invariant,
    is_solved,
    is_unique,
    is_valid,
    keeps_clues,
    puzzles,
    solve,
    symmetries,
)

__all__ = [
    "BLANK",
    "FEWEST_CLUES",
    "Puzzles",
    "count_solutions",
    "full_grids",
    "invariant",
    "is_solved",
    "is_unique",
    "is_valid",
    "keeps_clues",
    "parse",
    "pretty",
    "puzzles",
    "read",
    "solve",
    "symmetries",
    "text",
]
