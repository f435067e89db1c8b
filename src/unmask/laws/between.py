"""A smooth function at every whole number, from its values at a few of them: how long profiles stay affordable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from unmask.laws.base import Array

TOLERANCE = 1e-11
"""What interpolation may be off by, in the unit of the values (nats)."""

_SHORT, _DIRECT = 1024, 64
"""Ranges and pieces of at most so many numbers are not interpolated."""

_NODES, _PROBES = 20, 8
_AT_ONCE = 2**17


def at_every(value: Callable[[int], float], first: int, last: int) -> Array:
    """``value`` at first, .., last, float64; for functions that are smooth but for the neighbourhood of ``first``.

    A range of more than 1024 is cut into pieces that double in length. A piece is interpolated through 20 Chebyshev
    points if that meets the values at 8 points in between within 1e-11; otherwise it is cut in half. Pieces of 64 numbers
    are evaluated.
    """
    if last - first < _SHORT:
        return _values(value, first, last)
    known = cache(value)
    return np.concatenate([_piece(known, low, high) for low, high in _doubling(first, last)])


def _values(value: Callable[[int], float], first: int, last: int) -> Array:
    return np.array([value(x) for x in range(first, last + 1)], dtype=np.float64)


def _doubling(first: int, last: int) -> Iterator[tuple[int, int]]:
    low, size = first, _DIRECT
    while low <= last:
        high = min(low + size - 1, last)
        yield low, high
        low, size = high + 1, 2 * size


def _piece(value: Callable[[int], float], low: int, high: int) -> Array:
    if high - low < _DIRECT:
        return _values(value, low, high)
    nodes, probes = _points(low, high, _NODES), _points(low, high, _NODES - 1)[:: _NODES // _PROBES]
    heights = np.array([value(int(x)) for x in nodes])
    wanted = np.array([value(int(x)) for x in probes])
    if np.abs(_interpolated(nodes, heights, probes) - wanted).max() > TOLERANCE:
        middle = (low + high) // 2
        return np.concatenate([_piece(value, low, middle), _piece(value, middle + 1, high)])
    starts = range(low, high + 1, _AT_ONCE)
    return np.concatenate(
        [_interpolated(nodes, heights, np.arange(float(x), min(x + _AT_ONCE, high + 1))) for x in starts]
    )


def _points(low: int, high: int, count: int) -> Array:
    """Distinct whole numbers near the Chebyshev points of a range, ends included."""
    turn = np.cos(np.pi * np.arange(count) / (count - 1))
    return np.unique(np.rint((low + high) / 2 - (high - low) / 2 * turn))


def _interpolated(nodes: Array, heights: Array, places: Array) -> Array:
    """The polynomial through the nodes at places, by the barycentric formula."""
    gaps = (nodes[:, None] - nodes) / (nodes[-1] - nodes[0]) * 4
    np.fill_diagonal(gaps, 1.0)
    weights = 1 / gaps.prod(1)
    away = places[:, None] - nodes
    hit = away == 0
    terms = weights / np.where(hit, 1.0, away)
    values = (terms @ heights) / terms.sum(1)
    met = hit.any(1)
    values[met] = heights[hit[met].argmax(1)]
    return np.asarray(values, dtype=np.float64)
