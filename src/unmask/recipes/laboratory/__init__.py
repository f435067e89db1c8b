"""Recipes of the order laboratory: data with hard subproblems, where the order of unmasking decides what comes out."""

from unmask.recipes.laboratory.imbalance import text_pi
from unmask.recipes.laboratory.latents import lo_nae_sat
from unmask.recipes.laboratory.sudoku_sequences import (
    sudoku4_fixed,
    sudoku4_solver,
    sudoku6_fixed,
    sudoku6_solver,
    sudoku_fixed,
    sudoku_solver,
)
from unmask.recipes.laboratory.zebra import zebra

__all__ = [
    "lo_nae_sat",
    "sudoku4_fixed",
    "sudoku4_solver",
    "sudoku6_fixed",
    "sudoku6_solver",
    "sudoku_fixed",
    "sudoku_solver",
    "text_pi",
    "zebra",
]
