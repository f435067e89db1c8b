"""Compiled loops about solving Sudoku puzzles: how much guessing one takes, how to find harder ones, what comes after what.

Names and conventions as in `jit`; importing this module needs numba.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from unmask.data.sudoku.jit import (
    COUNT,
    LOWEST,
    Ints,
    Words,
    below,
    blank_of,
    candidates,
    dig,
    fill,
    forced,
    most_constrained,
    room,
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
def effort(units: Ints, board: Ints, rng: Words, rounds: int, most: int) -> int:
    """Guesses of a search for all solutions of ``board``, the fewest of ``rounds`` searches, up to ``most`` each.

    The search fills naked and hidden singles and guesses at a cell with the fewest symbols, ties at random: 0
    where singles are enough.
    """
    fewest = most
    for _ in range(rounds):
        fewest = min(fewest, guesses(units, board, rng, fewest))
        if fewest == 0:
            break
    return fewest


@njit(cache=True, nogil=True)
def guesses(units: Ints, board: Ints, rng: Words, most: int) -> int:
    """Guesses of one search, cut off at ``most``; the board is left as it was."""
    free, cells, rest = room(units)
    once, twice = np.empty_like(free), np.empty_like(free)
    blanks = setup(units, board, free, cells)
    if blanks <= 0:
        return 0
    work, open_ = board.copy(), np.empty(len(board), np.bool_)
    shuffle(cells[:blanks], rng)
    count, depth, blank = 0, 0, len(free) // 3
    rest[0] = most_constrained(units, free, cells, 0, blanks, once, twice)
    open_[0] = COUNT[rest[0]] > 1
    while depth >= 0 and count < most:
        cell = cells[depth]
        if work[cell] != blank:
            toggle(units, free, cell, 1 << work[cell])
            work[cell] = blank
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
            toggle(units, free, cell, bit)
            depth += 1
            rest[depth] = most_constrained(units, free, cells, depth, blanks, once, twice)
            open_[depth] = COUNT[rest[depth]] > 1
    return count


@njit(cache=True, nogil=True)
def efforts(
    units: Ints, boards: Ints, seed: np.uint64, first: int, rounds: int, most: int, out: Ints
) -> None:
    """`effort` of each board [n, cells], the searches' random numbers by (seed, ``first`` + i)."""
    for i in range(len(boards)):
        out[i] = effort(units, boards[i], seeded(seed, first + i), rounds, most)


@njit(cache=True, nogil=True)
def unique(units: Ints, board: Ints) -> bool:
    """Whether a board that has a solution has no other."""
    free, cells, rest = room(units)
    blanks = setup(units, board, free, cells)
    return search(units, board.copy(), free, cells, blanks, rest, False, 2, np.empty(0, np.uint64)) == 1


@njit(cache=True, nogil=True)
def minimise(units: Ints, puzzle: Ints, solution: Ints, rng: Words) -> None:
    """Take clues from a puzzle with one solution, in random order, until none can be spared."""
    order, shown = np.arange(len(units)), puzzle != blank_of(units)
    shuffle(order, rng)
    # `dig` starts from the full grid: cells that are blank already come first
    first = np.concatenate((order[~shown[order]], order[shown[order]]))
    puzzle[:] = solution
    dig(units, puzzle, first, 0)


@njit(cache=True, nogil=True)
def neighbour(units: Ints, puzzle: Ints, solution: Ints, away: int, rng: Words) -> bool:
    """Another minimal puzzle of the same grid: ``away`` clues less, others more until one solution remains."""
    order, blank = np.arange(len(units)), blank_of(units)
    shuffle(order, rng)
    taken = 0
    for cell in order:
        if puzzle[cell] != blank and taken < away:
            puzzle[cell] = blank
            taken += 1
    shuffle(order, rng)
    for cell in order[:12]:
        if puzzle[cell] == blank:
            puzzle[cell] = solution[cell]
            if unique(units, puzzle):
                minimise(units, puzzle, solution, rng)
                return True
    return False


@njit(cache=True, nogil=True)
def settle(units: Ints, boards: Ints) -> None:
    """Fill the cells that naked and hidden singles give, one after another, in boards [n, cells].

    Every order of filling ends at the same board.
    """
    free, cells, _ = room(units)
    once, twice = np.empty_like(free), np.empty_like(free)
    for board in boards:
        blanks = setup(units, board, free, cells)
        for done in range(blanks):
            options = most_constrained(units, free, cells, done, blanks, once, twice)
            if COUNT[options] != 1:
                break
            board[cells[done]] = LOWEST[options]
            toggle(units, free, cells[done], options)


@njit(cache=True, nogil=True)
def climb(units: Ints, puzzle: Ints, solution: Ints, gap: int, most: int, rng: Words) -> None:
    """Climb on a random grid from a minimal puzzle: ``puzzle`` [n, cells] is where ``gap``, 2 ``gap``, ... moves lead to.

    A neighbour is taken when one search of it needs no fewer guesses than the last one taken did, less 0.3 % for each
    move since: or else one lucky search would end the climb.
    """
    free, cells, rest = room(units)
    fill(units, solution, free, cells, rest, rng)
    order, now = np.arange(len(units)), solution.copy()
    shuffle(order, rng)
    dig(units, now, order, 0)
    best = float(guesses(units, now, rng, most))
    for i in range(len(puzzle)):
        for _ in range(gap):
            other = now.copy()
            best *= FADE
            if neighbour(units, other, solution, 1 + below(rng, 3), rng):
                cost = guesses(units, other, rng, most)
                if cost >= best:
                    now[:] = other
                    best = float(cost)
        puzzle[i] = now


@njit(cache=True, nogil=True)
def ordered(units: Ints, puzzle: Ints, solution: Ints, order: Ints, reasons: Ints) -> None:
    """The cells of one puzzle [cells] as a solver writes them, and why, after its clues.

    The search's successful path needs no search where the solution is known: which cell comes next hangs on the board only.
    """
    free, cells, _ = room(units)
    once, twice = np.empty_like(free), np.empty_like(free)
    blanks = setup(units, puzzle, free, cells)
    place = len(puzzle) - blanks
    order[:place] = np.flatnonzero(puzzle != blank_of(units))
    reasons[:place] = CLUE
    while blanks > 0:
        k, reasons[place] = following(units, free, cells, blanks, once, twice)
        order[place] = cells[k]
        toggle(units, free, cells[k], 1 << solution[cells[k]])
        blanks -= 1
        cells[k:blanks] = cells[k + 1 : blanks + 1].copy()
        place += 1


@njit(cache=True, nogil=True)
def following(units: Ints, free: Ints, cells: Ints, blanks: int, once: Ints, twice: Ints) -> tuple[int, int]:
    """The place in ``cells`` of the cell that a solver writes next, and why; ties go to the first."""
    best, fewest = 0, 10
    for k in range(blanks):
        count = COUNT[candidates(units, free, cells[k])]
        if count < fewest:
            best, fewest = k, count
            if count == 1:
                return k, NAKED
    k, bit = forced(units, free, cells, 0, blanks, once, twice)
    return (k, HIDDEN) if bit else (best, SEARCHED)


@njit(cache=True, nogil=True)
def orders(units: Ints, puzzles: Ints, solutions: Ints, order: Ints, reasons: Ints) -> None:
    """`ordered` of each puzzle [n, cells]."""
    for i in range(len(puzzles)):
        ordered(units, puzzles[i], solutions[i], order[i], reasons[i])
