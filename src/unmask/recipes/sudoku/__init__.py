"""Recipes of 9x9 Sudoku as masked cells: the plain one, and two for puzzles that take guessing."""

from unmask.recipes.sudoku.hard import HardData, sudoku_equivariant, sudoku_hard
from unmask.recipes.sudoku.plain import (
    AXES,
    GRIDS,
    PUZZLES,
    SYMMETRIES,
    SudokuData,
    batch,
    board_seed,
    decode,
    encode,
    objective,
    sudoku,
)

__all__ = [
    "AXES",
    "GRIDS",
    "PUZZLES",
    "SYMMETRIES",
    "HardData",
    "SudokuData",
    "batch",
    "board_seed",
    "decode",
    "encode",
    "objective",
    "sudoku",
    "sudoku_equivariant",
    "sudoku_hard",
]
