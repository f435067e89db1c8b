"""In which order are the cells of a Sudoku puzzle written? As a solver finds them, or row by row.

Conventions as in `unmask.data.sudoku`; the solver's order needs numba.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unmask.data.readers.boards import symbols_of
from unmask.data.sudoku.boards import _array, _in_kind, keeps_clues, units_of_cells
from unmask.data.sudoku.hard import _loops

Boards = TypeVar("Boards", NDArray[np.int64], Tensor)


class Reason(IntEnum):
    """Why a solver writes a cell when it does."""

    CLUE = 0
    NAKED = 1
    """A naked single: its row, column and box leave one symbol."""
    HIDDEN = 2
    """A hidden single: a unit has no other cell left for its symbol."""
    SEARCHED = 3
    """A guess that held, at a cell with the fewest symbols left."""


def solver_order(puzzles: Boards, solutions: Boards) -> tuple[Boards, Boards]:
    """Cells as a solver writes them and its `Reason` for each, two int64 [n, cells]; clues come first, in cell order.

    At each step the first naked single, else the first hidden single, else the first cell with the fewest symbols left,
    with the solution's symbol: the path on which a depth-first search succeeds. ValueError where a solution does not
    keep the clues.
    """
    asked, given = _array(puzzles, "puzzles"), _array(solutions, "solutions")
    if wrong := np.flatnonzero(
        ~keeps_clues(given, asked) | (given == symbols_of(given.shape[1])).any(1)
    ).tolist():
        raise ValueError(
            f"solution {wrong[0]} has blanks or other clues; expected the solution of puzzle {wrong[0]}"
        )
    order, reasons = np.empty_like(asked), np.empty_like(asked)
    _loops().orders(units_of_cells(asked.shape[1]), asked, given, order, reasons)
    return _in_kind(order, puzzles), _in_kind(reasons, puzzles)


def fixed_order(puzzles: Boards) -> Boards:
    """Cells from 0, int64 [n, cells]: clues first, then blanks, each row by row."""
    asked = _array(puzzles, "puzzles")
    blank = asked == symbols_of(asked.shape[1])
    found: Boards = _in_kind(np.argsort(blank, axis=1, kind="stable"), puzzles)
    return found
