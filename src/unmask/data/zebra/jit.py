"""The compiled loops behind `unmask.data.zebra`; importing this module needs numba.

An item is attribute * houses + value; the houses where it may be are the bits of ``where`` int64 [items]. A clue is three
integers, a kind and its two arguments. Every puzzle has its own random counter, as Sudoku boards have.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from unmask.data.sudoku.jit import Ints, Words, below, seeded, shuffle

AT, NOT_AT, SAME, APART, JUST_LEFT, LEFT, BESIDE, BETWEEN = range(8)
KINDS = 8


@njit(cache=True, nogil=True)
def holds(kind: int, one: int, other: int) -> bool:
    """Whether a clue is true of houses ``one`` and ``other`` (of two items, or of an item and the house that is named)."""
    if kind in (AT, SAME):
        return one == other
    if kind in (NOT_AT, APART):
        return one != other
    if kind == JUST_LEFT:
        return one + 1 == other
    if kind == LEFT:
        return one < other
    return abs(one - other) == (1 if kind == BESIDE else 2)


@njit(cache=True, nogil=True)
def single(bits: int) -> bool:
    """Whether one bit is set."""
    return bits & (bits - 1) == 0


@njit(cache=True, nogil=True)
def highest(bits: int) -> int:
    """The highest bit that is set."""
    while bits & (bits - 1):
        bits &= bits - 1
    return bits


@njit(cache=True, nogil=True)
def apply(clue: Ints, where: Ints) -> bool:
    """Take the houses away that a clue rules out; whether there were any."""
    kind, x, y = clue
    if kind in (AT, NOT_AT):
        kept = where[x] & (1 << y) if kind == AT else where[x] & ~(1 << y)
        changed = kept != where[x]
        where[x] = kept
        return bool(changed)
    one, other = where[x], where[y]
    if one == 0 or other == 0:
        return False
    if kind == SAME:
        where[x] = where[y] = one & other
    elif kind == APART:
        if single(one):
            where[y] &= ~one
        if single(other):
            where[x] &= ~other
    elif kind == JUST_LEFT:
        where[x] &= other >> 1
        where[y] &= one << 1
    elif kind == LEFT:
        where[x] &= highest(other) - 1
        where[y] &= ~((one & -one) * 2 - 1)
    else:
        step = 1 if kind == BESIDE else 2
        where[x] &= other << step | other >> step
        where[y] &= one << step | one >> step
    return bool(where[x] != one or where[y] != other)


@njit(cache=True, nogil=True)
def exclude(where: Ints, first: int, houses: int) -> bool:
    """Let each house hold one item of the attribute whose items begin at ``first``; whether that ruled anything out."""
    changed, once, twice = False, 0, 0
    for i in range(first, first + houses):
        twice |= once & where[i]
        once |= where[i]
        if where[i] and single(where[i]):
            for j in range(first, first + houses):
                if j != i and where[j] & where[i]:
                    where[j] &= ~where[i]
                    changed = True
    if once != (1 << houses) - 1:
        where[first] = 0
        return False
    once &= ~twice
    for i in range(first, first + houses):
        needed = where[i] & once
        if needed and needed != where[i]:
            where[i] = needed if single(needed) else 0
            changed = True
    return changed


@njit(cache=True, nogil=True)
def propagate(clues: Ints, where: Ints, houses: int) -> bool:
    """Apply clues and exclusion until nothing changes; False when an item has no house left."""
    changed = True
    while changed:
        changed = False
        for clue in clues:
            changed |= apply(clue, where)
        for first in range(0, where.size, houses):
            changed |= exclude(where, first, houses)
        if where.min() == 0:
            return False
    return True


@njit(cache=True, nogil=True)
def search(clues: Ints, houses: int, items: int, limit: int, out: Ints) -> int:
    """Count the solutions of clues [n, 3] up to ``limit``; the houses of the last one stand in ``out`` [items]."""
    stack = np.empty((items + 1, items), np.int64)
    tried = np.zeros(items + 1, np.int64)
    stack[0] = (1 << houses) - 1
    if not propagate(clues, stack[0], houses):
        return 0
    depth, found = 0, 0
    tried[0] = -1
    rest = np.zeros(items + 1, np.int64)
    while depth >= 0:
        where = stack[depth]
        if tried[depth] < 0:
            least, size = -1, houses + 1
            for i in range(items):
                count, bits = 0, where[i]
                while bits:
                    bits &= bits - 1
                    count += 1
                if 1 < count < size:
                    least, size = i, count
            if least < 0:
                found += 1
                for i in range(items):
                    out[i] = where[i]
                if found == limit:
                    break
                depth -= 1
                continue
            tried[depth] = least
            rest[depth] = where[least]
        if rest[depth] == 0:
            depth -= 1
            continue
        bit = rest[depth] & -rest[depth]
        rest[depth] ^= bit
        stack[depth + 1] = where
        stack[depth + 1, tried[depth]] = bit
        if propagate(clues, stack[depth + 1], houses):
            depth += 1
            tried[depth] = -1
    for i in range(items):
        house = 0
        while out[i] >> house > 1:
            house += 1
        out[i] = house
    return found


@njit(cache=True, nogil=True)
def draw(clue: Ints, place: Ints, houses: int, weights: Ints, rng: Words) -> None:
    """A random true clue of items that are at ``place`` [items]: a kind by its weight, then arguments until it holds."""
    left, kind = below(rng, weights.sum()), 0
    while left >= weights[kind]:
        left -= weights[kind]
        kind += 1
    items = place.size
    while True:
        x, y = below(rng, items), below(rng, houses if kind <= NOT_AT else items)
        if kind > NOT_AT and (x == y or (kind <= APART and x // houses == y // houses)):
            continue
        if holds(kind, place[x], y if kind <= NOT_AT else place[y]):
            break
    clue[0], clue[1], clue[2] = kind, x, y


@njit(cache=True, nogil=True)
def fill(place: Ints, houses: int, rng: Words) -> None:
    """A random house for each item."""
    for first in range(0, place.size, houses):
        part = place[first : first + houses]
        part[:] = np.arange(houses)
        shuffle(part, rng)


@njit(cache=True, nogil=True)
def minimise(clues: Ints, count: int, houses: int, items: int, out: Ints) -> int:
    """Drop clues, the first ones first, while one solution remains; returns how many of clues[:count] are left."""
    i = 0
    while i < count:
        kept = clues[i].copy()
        clues[i : count - 1] = clues[i + 1 : count].copy()
        if search(clues[: count - 1], houses, items, 2, out) == 1:
            count -= 1
            continue
        clues[i + 1 : count] = clues[i : count - 1].copy()
        clues[i] = kept
        i += 1
    return count


@njit(cache=True, nogil=True)
def puzzles(seed: np.uint64, first: int, houses: int, weights: Ints, clues: Ints, place: Ints) -> None:
    """Minimal puzzles number ``first``, ... of the seed into clues [n, most, 3], -1 behind the last; solutions in
    place [n, items]. A puzzle that needs more than ``most`` clues is made anew."""
    items, most = place.shape[1], clues.shape[1]
    work, out = np.empty((4 * most, 3), np.int64), np.empty(items, np.int64)
    for i in range(len(clues)):
        rng = seeded(seed, first + i)
        count = most + 1
        while count > most:
            fill(place[i], houses, rng)
            count = 0
            while count < len(work):
                draw(work[count], place[i], houses, weights, rng)
                count += 1
                if count >= items // 2 and search(work[:count], houses, items, 2, out) == 1:
                    count = minimise(work, count, houses, items, out)
                    break
            if count == len(work):
                count = most + 1
        clues[i] = -1
        clues[i, :count] = work[:count]


@njit(cache=True, nogil=True)
def solve(clues: Ints, houses: int, limit: int, counts: Ints, place: Ints) -> None:
    """Count solutions up to ``limit`` into counts [n]; the houses of the items in the last one into place [n, items]."""
    for i in range(len(clues)):
        count = 0
        while count < clues.shape[1] and clues[i, count, 0] >= 0:
            count += 1
        counts[i] = search(clues[i, :count], houses, place.shape[1], limit, place[i])
