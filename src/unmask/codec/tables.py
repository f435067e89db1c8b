"""From log-probabilities to whole-number frequencies, in arithmetic that is the same on every machine.

A log-probability x is rounded to v / 2^grid (`rounded`); from there on everything is whole numbers: weights
w = T[max v - v] with T[k] = round(2^24 exp(-k / 2^grid)), and counts c = 1 + floor(w (2^24 - m) / sum w) of the m possible
symbols, the remainder to the largest (`counts`). The rounding costs about 1e-6 nat a symbol at 2^-8, the floor of
one count m / 2^24. Derived.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

TOTAL = 2**24
"""What the counts of a law add up to."""

LOWEST = -64
"""Log-probabilities below this, in nats, count as this: far below the least count."""

GRIDS = range(4, 13)
"""Grids 2^-grid that a file may have."""

_POINT = 128
"""Bits after the point while a table is made."""


@lru_cache
def weights(grid: int) -> Ints:
    """round(2^24 exp(-k / 2^grid)) for k = 0, 1, .. up to and with the first 0, int64. Made in whole numbers only."""
    if grid not in GRIDS:
        raise ValueError(f"grid {grid}: expected {GRIDS.start}..{GRIDS.stop - 1}")
    ratio, exact, table = _exponential(grid), TOTAL << _POINT, list[int]()
    while not table or table[-1]:
        table.append((exact + (1 << _POINT - 1)) >> _POINT)
        exact = exact * ratio >> _POINT
    return np.array(table, np.int64)


def _exponential(grid: int) -> int:
    """exp(-2^-grid) times 2^128, to a few units, by its power series."""
    term = total = 1 << _POINT
    n = 0
    while term:
        n += 1
        term = -(abs(term) // (n << grid)) if term > 0 else abs(term) // (n << grid)
        total += term
    return total


def checksum(grid: int) -> int:
    """CRC32 of the table as little-endian 32-bit integers: files carry it."""
    return zlib.crc32(weights(grid).astype("<u4").tobytes())


class Rounded(NamedTuple):
    """Whole multiples of the grid as float64 [n, V], -inf where a symbol is impossible, and what lies near a boundary.

    ``floors`` are the next lower multiples; ``near`` int64 are places in the flattened array.
    """

    values: Floats
    floors: Floats
    near: Ints


def rounded(log_probs: Floats, grid: int, guard: float) -> Rounded:
    """log_probs float64 [n, V], nats, in multiples of 2^-grid; near a boundary means at most ``guard`` nats away.

    ValueError on NaN and on plus infinity.
    """
    scaled = np.maximum(log_probs, LOWEST) * 2.0**grid
    if not (scaled <= -LOWEST * 2.0**grid).all():
        raise ValueError(
            "the model returned NaN or infinite log-probabilities; expected numbers: check its weights"
        )
    floors = np.floor(scaled)
    beyond = scaled - floors - 0.5
    values = floors + (beyond >= 0)
    values[log_probs == -np.inf] = -np.inf
    return Rounded(values, floors, np.flatnonzero(np.abs(beyond) <= guard * 2.0**grid))


class Counts(NamedTuple):
    """Frequencies float64 [n, V], whole numbers that add up to 2^24, and how many symbols are possible, int64 [n]."""

    counts: Floats
    possible: Ints


def counts(values: Floats, grid: int) -> Counts:
    """Frequencies of values [n, V] in multiples of 2^-grid, -inf where impossible; at least 1 where possible.

    ValueError when a row has no possible symbol.
    """
    table, able = weights(grid), values > -np.inf
    possible = able.sum(1)
    if not possible.all():
        raise ValueError(
            "the model gives every symbol probability zero; expected at least one possible symbol"
        )
    below = np.where(able, values.max(1, keepdims=True) - values, len(table))
    found = table[np.minimum(below, len(table) - 1).astype(np.int64)]
    whole = found * (TOTAL - possible)[:, None] // found.sum(1, keepdims=True) + able
    each = np.arange(len(whole))
    whole[each, whole.argmax(1)] += TOTAL - whole.sum(1)
    return Counts(whole.astype(np.float64), possible)
