"""The compiled loops behind `unmask.data.sudoku`; importing this module needs numba.

A board is int64 [n^2], symbols 0..n-1, blank n, for n up to 9. ``units`` int64 [n^2, 3] says which row 0..n-1, column
n..2n-1 and box 2n..3n-1 each cell lies in. A set of symbols is an int whose bit d stands for symbol d. ``free`` int64 [3n]
holds the symbols that each unit still lacks.

Random numbers come from splitmix64 (Steele, Lea, Flood 2014): a 64-bit counter that is mixed on the way out.
Every board has its own counter, mixed from (seed, index), so that board i is the same whatever else is asked
for.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

COUNT = np.array([s.bit_count() for s in range(512)], dtype=np.int64)
LOWEST = np.array([max((s & -s).bit_length() - 1, 0) for s in range(512)], dtype=np.int64)
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
SHIFT_1, SHIFT_2, SHIFT_3 = np.uint64(30), np.uint64(27), np.uint64(31)


@njit(cache=True, nogil=True)
def mix(word: np.uint64) -> np.uint64:
    """The output function of splitmix64, a bijection of 64-bit words."""
    word = (word ^ (word >> SHIFT_1)) * MIX_1
    word = (word ^ (word >> SHIFT_2)) * MIX_2
    return word ^ (word >> SHIFT_3)


@njit(cache=True, nogil=True)
def below(rng: Words, bound: int) -> int:
    """A random integer 0..bound-1; the bias of the remainder is under 2^-57 here."""
    rng[0] += GOLDEN
    return int(mix(rng[0]) % np.uint64(bound))


@njit(cache=True, nogil=True)
def seeded(seed: np.uint64, index: int) -> Words:
    """The counter [1] of board ``index``; mixed twice, so that neighbouring seeds share nothing."""
    rng = np.empty(1, np.uint64)
    rng[0] = mix(mix(seed + GOLDEN) + np.uint64(index) * GOLDEN)
    return rng


@njit(cache=True, nogil=True)
def shuffle(items: Ints, rng: Words) -> None:
    """Permute ``items`` in place (Fisher-Yates)."""
    for i in range(items.size - 1, 0, -1):
        j = below(rng, i + 1)
        items[i], items[j] = items[j], items[i]


@njit(cache=True, nogil=True)
def blank_of(units: Ints) -> int:
    """The symbol of an empty cell: how many symbols there are."""
    return int(np.sqrt(len(units)) + 0.5)


@njit(cache=True, nogil=True)
def room(units: Ints) -> tuple[Ints, Ints, Ints]:
    """Room for ``free`` [3n], ``cells`` and ``rest`` [n^2] of a search; what stands in it is anything."""
    free = np.empty(3 * blank_of(units), np.int64)
    return free, np.empty(len(units), np.int64), np.empty(len(units), np.int64)


@njit(cache=True, nogil=True)
def candidates(units: Ints, free: Ints, cell: int) -> int:
    """The set of symbols that row, column and box of ``cell`` all lack."""
    return int(free[units[cell, 0]] & free[units[cell, 1]] & free[units[cell, 2]])


@njit(cache=True, nogil=True)
def toggle(units: Ints, free: Ints, cell: int, bit: int) -> None:
    """Take ``bit`` from, or give it back to, the three units of ``cell``."""
    free[units[cell, 0]] ^= bit
    free[units[cell, 1]] ^= bit
    free[units[cell, 2]] ^= bit


@njit(cache=True, nogil=True)
def setup(units: Ints, board: Ints, free: Ints, cells: Ints) -> int:
    """Fill ``free`` and list the blank cells; returns how many, or -1 when two clues clash."""
    size = len(free) // 3
    free[:] = (1 << size) - 1
    blanks = 0
    for cell in range(len(board)):
        if board[cell] == size:
            cells[blanks] = cell
            blanks += 1
            continue
        bit = 1 << board[cell]
        if candidates(units, free, cell) & bit == 0:
            return -1
        toggle(units, free, cell, bit)
    return blanks


@njit(cache=True, nogil=True)
def forced(
    units: Ints, free: Ints, cells: Ints, depth: int, blanks: int, once: Ints, twice: Ints
) -> tuple[int, int]:
    """A blank cell that alone in a unit can hold some symbol: (place in ``cells``, that symbol's bit).

    (depth, 0) when a unit has no place left for a symbol, (-1, 0) when nothing is forced.
    """
    once[:] = 0
    twice[:] = 0
    for k in range(depth, blanks):
        here = candidates(units, free, cells[k])
        for unit in units[cells[k]]:
            twice[unit] |= once[unit] & here
            once[unit] |= here
    some = 0
    for unit in range(len(free)):
        if once[unit] != free[unit]:
            return depth, 0
        once[unit] &= ~twice[unit]
        some |= once[unit]
    if some:
        for k in range(depth, blanks):
            cell = cells[k]
            row, column, box = units[cell]
            alone = candidates(units, free, cell) & (once[row] | once[column] | once[box])
            if alone:
                return k, alone & -alone
    return -1, 0


@njit(cache=True, nogil=True)
def most_constrained(
    units: Ints, free: Ints, cells: Ints, depth: int, blanks: int, once: Ints, twice: Ints
) -> int:
    """Swap the blank cell with the fewest symbols to try to ``cells[depth]``; returns those symbols."""
    best, fewest, options = depth, 10, 0
    for k in range(depth, blanks):
        here = candidates(units, free, cells[k])
        if COUNT[here] < fewest:
            best, fewest, options = k, COUNT[here], here
            if fewest <= 1:
                break
    if fewest > 1:
        k, bit = forced(units, free, cells, depth, blanks, once, twice)
        if k >= 0:
            best, options = k, bit
    cells[depth], cells[best] = cells[best], cells[depth]
    return options


@njit(cache=True, nogil=True)
def search(
    units: Ints,
    board: Ints,
    free: Ints,
    cells: Ints,
    blanks: int,
    rest: Ints,
    preset: bool,
    limit: int,
    rng: Words,
) -> int:
    """Depth-first search for up to ``limit`` solutions; returns how many were found.

    ``cells[:blanks]`` are the blank cells, the first ``depth`` of them filled; ``rest[depth]`` are the
    symbols still to be tried there. ``preset``: the first cell and its symbols are already chosen. An empty
    ``rng`` tries symbols in order, otherwise at random. On reaching ``limit`` the board holds the last
    solution; otherwise it is restored, as is ``free``.
    """
    found, depth, blank = 0, 0, len(free) // 3
    once, twice = np.empty_like(free), np.empty_like(free)
    if blanks == 0:
        return 1
    if not preset:
        rest[0] = most_constrained(units, free, cells, 0, blanks, once, twice)
    while depth >= 0:
        cell = cells[depth]
        if board[cell] != blank:
            toggle(units, free, cell, 1 << board[cell])
            board[cell] = blank
        options = rest[depth]
        if options == 0:
            depth -= 1
            continue
        if rng.size > 0:
            for _ in range(below(rng, COUNT[options])):
                options &= options - 1
        bit = options & -options
        rest[depth] ^= bit
        board[cell] = LOWEST[bit]
        toggle(units, free, cell, bit)
        if depth + 1 < blanks:
            depth += 1
            rest[depth] = most_constrained(units, free, cells, depth, blanks, once, twice)
            continue
        found += 1
        if found == limit:
            break
    return found


@njit(cache=True, nogil=True)
def fill(units: Ints, board: Ints, free: Ints, cells: Ints, rest: Ints, rng: Words) -> None:
    """Write a random complete grid: cells in random order among the most constrained, symbols at random."""
    size = len(free) // 3
    board[:] = size
    free[:] = (1 << size) - 1
    cells[:] = np.arange(len(board))
    shuffle(cells, rng)
    search(units, board, free, cells, len(board), rest, False, 1, rng)


@njit(cache=True, nogil=True)
def full_grids(units: Ints, seed: np.uint64, first: int, out: Ints) -> None:
    """Random complete grids number ``first``, ``first`` + 1, ... of ``seed`` into ``out`` [n, cells]."""
    free, cells, rest = room(units)
    for i in range(out.shape[0]):
        fill(units, out[i], free, cells, rest, seeded(seed, first + i))


@njit(cache=True, nogil=True)
def dig(units: Ints, puzzle: Ints, order: Ints, clues: int) -> int:
    """Blank cells of a full grid in ``order`` while one solution remains; returns how many clues are left.

    A cell may go when no solution has another symbol there. A cell that must stay must stay for good, since
    fewer clues only add solutions: one pass gives a minimal puzzle.
    """
    free, cells, rest = room(units)
    free[:] = 0
    board, trial, blank_cells = puzzle.copy(), free.copy(), cells.copy()
    nobody = np.empty(0, np.uint64)
    left, blanks, blank = len(puzzle), 0, len(free) // 3
    for cell in order:
        if left <= clues:
            break
        bit = 1 << puzzle[cell]
        toggle(units, free, cell, bit)
        puzzle[cell] = blank
        others = candidates(units, free, cell) & ~bit
        clash = 0
        if others:
            board[:] = puzzle
            trial[:] = free
            cells[0] = cell
            cells[1 : blanks + 1] = blank_cells[:blanks]
            rest[0] = others
            clash = search(units, board, trial, cells, blanks + 1, rest, True, 1, nobody)
        if clash:
            puzzle[cell] = LOWEST[bit]
            toggle(units, free, cell, bit)
        else:
            blank_cells[blanks] = cell
            blanks += 1
            left -= 1
    return left


@njit(cache=True, nogil=True)
def puzzles(
    units: Ints, seed: np.uint64, first: int, clues: int, tries: int, puzzle: Ints, solution: Ints
) -> int:
    """Puzzles with ``clues`` clues (0: minimal) into ``puzzle``, ``solution`` [n, cells].

    Digging that gets stuck above ``clues`` starts again on a new grid, at most ``tries`` times for a puzzle.
    Returns the index of the first puzzle that failed, or n.
    """
    free, cells, rest = room(units)
    order = np.empty(len(units), np.int64)
    for i in range(puzzle.shape[0]):
        rng = seeded(seed, first + i)
        left = len(units) + 1
        for _ in range(tries):
            fill(units, solution[i], free, cells, rest, rng)
            puzzle[i] = solution[i]
            order[:] = np.arange(len(units))
            shuffle(order, rng)
            left = dig(units, puzzle[i], order, clues)
            if left <= clues or clues == 0:
                break
        if left > clues and clues > 0:
            return i
    return len(puzzle)


@njit(cache=True, nogil=True)
def solve(units: Ints, boards: Ints, limit: int, counts: Ints) -> None:
    """Count solutions up to ``limit`` into ``counts`` [n]; boards [n, cells] that reach it hold the last one."""
    free, cells, rest = room(units)
    nobody = np.empty(0, np.uint64)
    for i in range(boards.shape[0]):
        blanks = setup(units, boards[i], free, cells)
        counts[i] = (
            0 if blanks < 0 else search(units, boards[i], free, cells, blanks, rest, False, limit, nobody)
        )


@njit(cache=True, nogil=True)
def cycle_code(one: Ints, other: Ints) -> int:
    """The cycle type of the permutation from line ``one`` to line ``other``, as the sum of squared lengths.

    No symbol stays in place, so 9 is cut into parts of 2 or more; the eight ways have different sums of
    squares.
    """
    follows = np.empty(9, np.int64)
    for i in range(9):
        follows[one[i]] = other[i]
    code, seen = 0, 0
    for start in range(9):
        length, symbol = 0, start
        while not seen >> symbol & 1:
            seen |= 1 << symbol
            symbol = follows[symbol]
            length += 1
        code += length * length
    return code


@njit(cache=True, nogil=True)
def side_hash(lines: Ints) -> np.uint64:
    """A hash of nine lines [9, 9] that ignores symbol names, the order of cells, and line order within bands.

    The lines are the vertices of a graph whose edges carry cycle types; two rounds of colour refinement, with
    sums over what has no order (the lines of a band, the bands), make the hash.
    """
    edges = np.empty((9, 9), np.uint64)
    for i in range(9):
        for k in range(i):
            edges[i, k] = edges[k, i] = np.uint64(cycle_code(lines[i], lines[k]))
    colours, fresh, bands = np.zeros(9, np.uint64), np.zeros(9, np.uint64), np.zeros(3, np.uint64)
    for _ in range(2):
        for i in range(9):
            bands[:] = 0
            for k in range(9):
                if k != i:
                    bands[k // 3] += mix(edges[i, k] * GOLDEN + colours[k])
            own = bands[i // 3]
            across = mix(bands[(i // 3 + 1) % 3]) + mix(bands[(i // 3 + 2) % 3])
            fresh[i] = mix(colours[i] + mix(own) * MIX_1 + across)
        colours[:] = fresh
    bands[:] = 0
    for i in range(9):
        bands[i // 3] += mix(colours[i])
    return mix(bands[0]) + mix(bands[1]) + mix(bands[2])


@njit(cache=True, nogil=True)
def invariant(grids: Ints, out: Words) -> None:
    """A hash of each full 9x9 grid [n, 81] that all its symmetry copies share, into ``out`` [n]."""
    for i in range(out.size):
        rows = grids[i].reshape(9, 9)
        one, other = side_hash(rows), side_hash(rows.T.copy())
        out[i] = mix(min(one, other) * MIX_2 + mix(max(one, other)))
