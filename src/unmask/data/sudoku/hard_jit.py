"""Compiled loops about solving Sudoku puzzles: how much guessing one takes, how to find harder ones, what comes after what.

Names and conventions as in `jit`; importing this module needs numba.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from unmask.data.sudoku.jit import (
    BLANK,
    COUNT,
    LOWEST,
    Ints,
    Words,
    below,
    candidates,
    dig,
    fill,
    forced,
    most_constrained,
    search,
    seeded,
    setup,
    shuffle,
    toggle,
)

FADE = 0.997
"""What is left, after each move of a climb, of the guesses that the next puzzle must need."""

CLUE, NAKED, HIDDEN, SEARCHED = 0, 1, 2, 3
"""Why a solver writes a cell when it does."""


@njit(cache=True, nogil=True)
def effort(board: Ints, rng: Words, rounds: int, most: int) -> int:
    """Guesses of a search for all solutions of ``board``, the fewest of ``rounds`` searches, up to ``most`` each.

    The search fills naked and hidden singles and guesses at a cell with the fewest symbols, ties at random: 0
    where singles are enough.
    """
    fewest = most
    for _ in range(rounds):
        fewest = min(fewest, guesses(board, rng, fewest))
        if fewest == 0:
            break
    return fewest


@njit(cache=True, nogil=True)
def guesses(board: Ints, rng: Words, most: int) -> int:
    """Guesses of one search, cut off at ``most``; the board is left as it was."""
    free, cells, rest = np.empty(27, np.int64), np.empty(81, np.int64), np.empty(81, np.int64)
    once, twice = np.empty(27, np.int64), np.empty(27, np.int64)
    blanks = setup(board, free, cells)
    if blanks <= 0:
        return 0
    work, open_ = board.copy(), np.empty(81, np.bool_)
    shuffle(cells[:blanks], rng)
    count, depth = 0, 0
    rest[0] = most_constrained(free, cells, 0, blanks, once, twice)
    open_[0] = COUNT[rest[0]] > 1
    while depth >= 0 and count < most:
        cell = cells[depth]
        if work[cell] != BLANK:
            toggle(free, cell, 1 << work[cell])
            work[cell] = BLANK
        options = rest[depth]
        if options == 0:
            depth -= 1
            continue
        for _ in range(below(rng, COUNT[options])):
            options &= options - 1
        bit = options & -options
        rest[depth] ^= bit
        count += open_[depth]
        if depth + 1 < blanks:
            work[cell] = LOWEST[bit]
            toggle(free, cell, bit)
            depth += 1
            rest[depth] = most_constrained(free, cells, depth, blanks, once, twice)
            open_[depth] = COUNT[rest[depth]] > 1
    return count


@njit(cache=True, nogil=True)
def efforts(boards: Ints, seed: np.uint64, first: int, rounds: int, most: int, out: Ints) -> None:
    """`effort` of each board [n, 81], the searches' random numbers by (seed, ``first`` + i)."""
    for i in range(len(boards)):
        out[i] = effort(boards[i], seeded(seed, first + i), rounds, most)


@njit(cache=True, nogil=True)
def unique(board: Ints) -> bool:
    """Whether a board that has a solution has no other."""
    free, cells, rest = np.empty(27, np.int64), np.empty(81, np.int64), np.empty(81, np.int64)
    blanks = setup(board, free, cells)
    return search(board.copy(), free, cells, blanks, rest, False, 2, np.empty(0, np.uint64)) == 1


@njit(cache=True, nogil=True)
def minimise(puzzle: Ints, solution: Ints, rng: Words) -> None:
    """Take clues from a puzzle with one solution, in random order, until none can be spared."""
    order, shown = np.arange(81), puzzle != BLANK
    shuffle(order, rng)
    # `dig` starts from the full grid: cells that are blank already come first
    first = np.concatenate((order[~shown[order]], order[shown[order]]))
    puzzle[:] = solution
    dig(puzzle, first, 0)


@njit(cache=True, nogil=True)
def neighbour(puzzle: Ints, solution: Ints, away: int, rng: Words) -> bool:
    """Another minimal puzzle of the same grid: ``away`` clues less, others more until one solution remains."""
    order = np.arange(81)
    shuffle(order, rng)
    taken = 0
    for cell in order:
        if puzzle[cell] != BLANK and taken < away:
            puzzle[cell] = BLANK
            taken += 1
    shuffle(order, rng)
    for cell in order[:12]:
        if puzzle[cell] == BLANK:
            puzzle[cell] = solution[cell]
            if unique(puzzle):
                minimise(puzzle, solution, rng)
                return True
    return False


@njit(cache=True, nogil=True)
def settle(boards: Ints) -> None:
    """Fill the cells that naked and hidden singles give, one after another, in boards [n, 81].

    Every order of filling ends at the same board.
    """
    free, cells = np.empty(27, np.int64), np.empty(81, np.int64)
    once, twice = np.empty(27, np.int64), np.empty(27, np.int64)
    for board in boards:
        blanks = setup(board, free, cells)
        for done in range(blanks):
            options = most_constrained(free, cells, done, blanks, once, twice)
            if COUNT[options] != 1:
                break
            board[cells[done]] = LOWEST[options]
            toggle(free, cells[done], options)


@njit(cache=True, nogil=True)
def climb(puzzle: Ints, solution: Ints, gap: int, most: int, rng: Words) -> None:
    """Climb on a random grid from a minimal puzzle: ``puzzle`` [n, 81] is where ``gap``, 2 ``gap``, ... moves lead to.

    A neighbour is taken when one search of it needs no fewer guesses than the last one taken did, less 0.3 % for each
    move since: or else one lucky search would end the climb.
    """
    free, cells, rest = np.empty(27, np.int64), np.empty(81, np.int64), np.empty(81, np.int64)
    fill(solution, free, cells, rest, rng)
    order, now = np.arange(81), solution.copy()
    shuffle(order, rng)
    dig(now, order, 0)
    best = float(guesses(now, rng, most))
    for i in range(len(puzzle)):
        for _ in range(gap):
            other = now.copy()
            best *= FADE
            if neighbour(other, solution, 1 + below(rng, 3), rng):
                cost = guesses(other, rng, most)
                if cost >= best:
                    now[:] = other
                    best = float(cost)
        puzzle[i] = now


@njit(cache=True, nogil=True)
def ordered(puzzle: Ints, solution: Ints, order: Ints, reasons: Ints) -> None:
    """The cells of one puzzle [81] as a solver writes them, and why, after its clues.

    The search's successful path needs no search where the solution is known: which cell comes next hangs on the board only.
    """
    free, cells = np.empty(27, np.int64), np.empty(81, np.int64)
    once, twice = np.empty(27, np.int64), np.empty(27, np.int64)
    blanks = setup(puzzle, free, cells)
    place = 81 - blanks
    order[:place] = np.flatnonzero(puzzle != BLANK)
    reasons[:place] = CLUE
    while blanks > 0:
        k, reasons[place] = following(free, cells, blanks, once, twice)
        order[place] = cells[k]
        toggle(free, cells[k], 1 << solution[cells[k]])
        blanks -= 1
        cells[k:blanks] = cells[k + 1 : blanks + 1].copy()
        place += 1


@njit(cache=True, nogil=True)
def following(free: Ints, cells: Ints, blanks: int, once: Ints, twice: Ints) -> tuple[int, int]:
    """The place in ``cells`` of the cell that a solver writes next, and why; ties go to the first."""
    best, fewest = 0, 10
    for k in range(blanks):
        count = COUNT[candidates(free, cells[k])]
        if count < fewest:
            best, fewest = k, count
            if count == 1:
                return k, NAKED
    k, bit = forced(free, cells, 0, blanks, once, twice)
    return (k, HIDDEN) if bit else (best, SEARCHED)


@njit(cache=True, nogil=True)
def orders(puzzles: Ints, solutions: Ints, order: Ints, reasons: Ints) -> None:
    """`ordered` of each puzzle [n, 81]."""
    for i in range(len(puzzles)):
        ordered(puzzles[i], solutions[i], order[i], reasons[i])
