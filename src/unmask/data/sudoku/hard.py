"""Sudoku puzzles that take guessing: how much one takes, and making harder ones.

Conventions as in `unmask.data.sudoku`; everything here needs numba.
"""

from __future__ import annotations

from types import ModuleType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from unmask.data.sudoku import boards
from unmask.data.sudoku.boards import _array, _in_kind, _jit, _number, _word, units_of_cells

Ints = NDArray[np.int64]
Boards = TypeVar("Boards", Ints, Tensor)

ROUNDS = 4
"""Searches of which `effort` takes the shortest."""

MOST = 2000
"""Guesses after which a search is cut off."""


def _loops() -> ModuleType:
    """The compiled loops; ImportError that says what to install when numba is missing."""
    _jit()
    from unmask.data.sudoku import hard_jit

    return hard_jit


def effort(puzzles: Boards, seed: int = 0) -> Boards:
    """Guesses that a search of each puzzle needs to find all its solutions, int64 [n]; 0 where singles are enough.

    The fewest of 4 randomised searches, which fill naked and hidden singles and guess at a cell with the
    fewest symbols; 2000 stands for that many or more.
    """
    array = _array(puzzles, "puzzles")
    out = np.empty(len(array), np.int64)
    _loops().efforts(units_of_cells(array.shape[1]), array, _word(seed), 0, ROUNDS, MOST, out)
    found: Boards = _in_kind(out, puzzles)
    return found


def hardest(n: int, tries: int, seed: int) -> tuple[Ints, Ints]:
    """The ``n`` minimal puzzles of most effort among ``tries`` times as many, and their solutions."""
    puzzles, solutions = boards.puzzles(_number(n) * tries, seed)
    chosen = np.argsort(-effort(puzzles, seed), kind="stable")[:n]
    return puzzles[chosen], solutions[chosen]


def climb(n: int, seed: int, *, first: int = 0, steps: int = 24, moves: int = 250) -> tuple[Ints, Ints]:
    """Hard minimal puzzles, ``steps`` of each of ``n`` grids, and the grids: int64 [n, steps, 81], [n, 81].

    Grids number ``first``, ``first`` + 1, ... of the seed. On each a puzzle is changed at random (one to three clues
    less, others more, then minimal again) and the change is kept when a search needs hardly fewer guesses; every
    ``moves`` tries the puzzle is noted. A few seconds a grid.
    """
    puzzles, solutions = np.empty((_number(n), steps, 81), np.int64), np.empty((n, 81), np.int64)
    for i in range(n):
        _loops().climb(
            units_of_cells(81), puzzles[i], solutions[i], moves, MOST, _jit().seeded(_word(seed), first + i)
        )
    return puzzles, solutions


def breed(
    puzzle: Ints, solution: Ints, n: int, seed: int, *, least: int, tries: int = 100_000
) -> tuple[Ints, Ints]:
    """A puzzle and up to ``n`` - 1 others of its grid, int64 [m, 81], and the guesses that each takes, int64 [m].

    Neighbours of neighbours, mostly of the hardest so far, that take ``least`` guesses or more; all are minimal and no two
    are the same. Fewer come back when ``tries`` neighbours do not give so many.
    """
    loops, random, cells = _loops(), _jit().seeded(_word(seed), 0), units_of_cells(len(puzzle))
    found, seen = [puzzle.copy()], {puzzle.tobytes()}
    costs = [loops.effort(cells, puzzle, random, ROUNDS, MOST)]
    for _ in range(tries):
        if len(found) >= _number(n):
            break
        child = found[_hardest_of(costs, random)].copy()
        if (
            not loops.neighbour(cells, child, solution, 1 + _jit().below(random, 2), random)
            or child.tobytes() in seen
        ):
            continue
        cost = loops.effort(cells, child, random, ROUNDS, MOST)
        if cost >= least:
            found.append(child)
            seen.add(child.tobytes())
            costs.append(cost)
    return np.stack(found), np.array(costs, np.int64)


def _hardest_of(costs: list[int], random: NDArray[np.uint64]) -> int:
    """The place of the hardest of three drawn."""
    drawn: list[int] = [_jit().below(random, len(costs)) for _ in range(3)]
    return max(drawn, key=costs.__getitem__)


def settle(puzzles: Boards) -> Boards:
    """Puzzles with the cells filled that naked and hidden singles give, one after another until none is left."""
    array = _array(puzzles, "puzzles").copy()
    _loops().settle(units_of_cells(array.shape[1]), array)
    settled: Boards = _in_kind(array, puzzles)
    return settled
