"""Sudoku puzzles: generate, transform, solve, check and read them.

A board has 81 cells row-major, symbol = digit - 1 (0..8), blank = 9 (the model's mask_id). Functions that
make boards return int64 numpy arrays [n, 81]; functions that take boards accept integer numpy arrays or torch
tensors, [n, 81] or [81] for one board, and answer in kind. Generating, solving and `invariant` need numba
(``pip install 'unmask[puzzles]'``); everything else runs without it.

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
