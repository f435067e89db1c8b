"""From measured costs to plans: surfaces that bend as little as the data let them, the cheapest way through costs."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from unmask.planning import families

Array: TypeAlias = NDArray[np.float64]

PENALTIES = (0.0, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""What bending may cost, against a mean squared error: the data choose."""

ENOUGH = 4
"""Rows from which a penalty is chosen."""


def smoothed(values: Array, seed: int = 0) -> Array:
    """The mean of surfaces float64 [n, G, G] over n rows, smoothed: above the diagonal, 0 on and below it.

    Least squares with a penalty on second differences along both axes (Whittaker), the diagonal held at 0. The penalty is
    the one whose surface of one half of the rows is nearest to the mean of the other, over several halvings.
    """
    means: Array = values.mean(0)
    if len(values) < ENOUGH or means.shape[0] < 4:
        return means
    random = np.random.default_rng(seed)
    errors = np.zeros(len(PENALTIES))
    for _ in range(8):
        order = random.permutation(len(values))
        halves = (values[order[::2]].mean(0), values[order[1::2]].mean(0))
        for one, other in (halves, halves[::-1]):
            errors += [float(((bent(one, p) - other) ** 2).sum()) for p in PENALTIES]
    return bent(means, PENALTIES[int(errors.argmin())])


def bent(values: Array, penalty: float) -> Array:
    """The surface float64 [G, G] nearest to values that pays ``penalty`` for its squared second differences."""
    size = len(values)
    places, bends = _bends(size)
    system = np.eye(len(places)) + penalty * bends
    found = np.zeros_like(values)
    rows, columns = np.array(places).T
    found[rows, columns] = np.linalg.solve(system, values[rows, columns])
    return found


@lru_cache
def _bends(size: int) -> tuple[tuple[tuple[int, int], ...], Array]:
    """Places above the diagonal, and the quadratic form of second differences on them."""
    places = tuple((a, b) for a in range(size) for b in range(a + 1, size))
    number = {place: k for k, place in enumerate(places)}
    form = np.zeros((len(places),) * 2)
    for a, b in places:
        for triple in (((a, b - 1), (a, b), (a, b + 1)), ((a - 1, b), (a, b), (a + 1, b))):
            if all(0 <= x <= y < size for x, y in triple):  # on the diagonal it is 0
                row = np.zeros(len(places))
                for place, weight in zip(triple, (1.0, -2.0, 1.0)):
                    if place in number:
                        row[number[place]] += weight
                form += np.outer(row, row)
    return places, form


# --- the cheapest way -------------------------------------------------------------------------------


def cheapest(costs: Array, steps: int) -> tuple[int, ...]:
    """The sizes of ``steps`` steps of least total cost; costs[i, k] of a step of k at i visible, nats [N, N + 1]."""
    count = len(costs)
    between = np.full((count + 1, count + 1), np.inf)  # from i to j visible
    for i in range(count):
        between[i, i + 1 :] = costs[i, 1 : count - i + 1]
    return families.sizes_between(shortest(between, steps))


def shortest(between: Array, steps: int) -> list[int]:
    """The places of the cheapest way of ``steps`` steps from the first to the last; between[a, b] from a to b, [M, M]."""
    values, parents = np.full(len(between), np.inf), []
    values[0] = 0.0
    for _ in range(steps):
        through = values[:, None] + between
        parents.append(through.argmin(0))
        values = through.min(0)
    places = [len(between) - 1]
    for parent in reversed(parents):
        places.append(int(parent[places[-1]]))
    return places[::-1]


def rising(values: Array) -> Array:
    """The nearest sequence that never falls (isotonic regression)."""
    from scipy.optimize import isotonic_regression  # takes a moment to import

    return np.asarray(isotonic_regression(values).x, dtype=np.float64)


def correction(weights: Array) -> float:
    """Makes a weighted variance of a mean unbiased where all rows count alike; NaN of one row."""
    effective = float(1 / (weights**2).sum()) if len(weights) else 0.0
    return effective / (effective - 1) if effective > 1 + 1e-9 else math.nan
