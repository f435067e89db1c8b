"""Recipes of Sudoku as masked cells: the plain ones of 9x9 and 6x6, and two for puzzles that take guessing."""

from unmask.recipes.sudoku.hard import HardData, sudoku_equivariant, sudoku_hard
from unmask.recipes.sudoku.plain import (
    AXES,
    GRIDS,
    PUZZLES,
    SYMMETRIES,
    SudokuData,
    axes_of,
    batch,
    board_seed,
    boards_of,
    decode,
    encode,
    objective,
    puzzle_counts,
    sudoku,
    sudoku4,
    sudoku6,
)

__all__ = [
    "AXES",
    "GRIDS",
    "PUZZLES",
    "SYMMETRIES",
    "HardData",
    "SudokuData",
    "axes_of",
    "batch",
    "board_seed",
    "boards_of",
    "decode",
    "encode",
    "objective",
    "puzzle_counts",
    "sudoku",
    "sudoku4",
    "sudoku6",
    "sudoku_equivariant",
    "sudoku_hard",
]
