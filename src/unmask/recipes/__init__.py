"""Recipes: functions that return a complete typed `Run`, each naming the result that it reproduces."""

from collections.abc import Callable

from unmask.recipes import papers
from unmask.recipes.digits import (
    digits,
    digits_autoregressive,
    digits_md4,
    digits_upscale4,
    digits_upscale16,
    emoji,
    pictures,
)
from unmask.recipes.items import lines, molecules, records
from unmask.recipes.laboratory import (
    lo_nae_sat,
    sudoku4_fixed,
    sudoku4_solver,
    sudoku6_fixed,
    sudoku6_solver,
    sudoku_fixed,
    sudoku_solver,
    text_pi,
    zebra,
)
from unmask.recipes.run import Batch, Machine, Optimiser, Run
from unmask.recipes.sudoku import sudoku, sudoku4, sudoku6, sudoku_equivariant, sudoku_hard
from unmask.recipes.text import text, text_autoregressive, text_d3pm, text_genmd4, text_md4

__all__ = [
    "Batch",
    "Machine",
    "Optimiser",
    "Run",
    "all_recipes",
    "digits",
    "digits_autoregressive",
    "digits_md4",
    "digits_upscale4",
    "digits_upscale16",
    "emoji",
    "lines",
    "lo_nae_sat",
    "molecules",
    "papers",
    "pictures",
    "records",
    "sudoku",
    "sudoku4",
    "sudoku4_fixed",
    "sudoku4_solver",
    "sudoku6",
    "sudoku6_fixed",
    "sudoku6_solver",
    "sudoku_equivariant",
    "sudoku_fixed",
    "sudoku_hard",
    "sudoku_solver",
    "text",
    "text_autoregressive",
    "text_d3pm",
    "text_genmd4",
    "text_md4",
    "text_pi",
    "zebra",
]


def all_recipes() -> dict[str, Callable[[], Run]]:
    """Every recipe by name."""
    images = (digits, digits_md4, digits_upscale4, digits_upscale16, digits_autoregressive, emoji, pictures)
    texts = (text, text_md4, text_genmd4, text_d3pm, text_autoregressive, text_pi)
    boards = (sudoku, sudoku_hard, sudoku_equivariant, sudoku_solver, sudoku_fixed)
    smaller = (sudoku4, sudoku4_solver, sudoku4_fixed, sudoku6, sudoku6_solver, sudoku6_fixed)
    puzzles = (lo_nae_sat, zebra, *boards, *smaller)
    ours = {recipe.__name__: recipe for recipe in (*images, molecules, records, lines, *puzzles, *texts)}
    return ours | papers.RECIPES
