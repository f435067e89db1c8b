"""Recipes: functions that return a complete typed `Run`, each naming the result that it reproduces."""

from collections.abc import Callable

from unmask.recipes.run import Batch, Machine, Optimiser, Run
from unmask.recipes.sudoku import sudoku

__all__ = ["Batch", "Machine", "Optimiser", "Run", "all_recipes", "sudoku"]


def all_recipes() -> dict[str, Callable[[], Run]]:
    """Every recipe by name."""
    return {"sudoku": sudoku}
