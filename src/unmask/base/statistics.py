"""Small statistics for reports."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from unmask.base.numbers import real, whole

Array: TypeAlias = NDArray[np.float64]

ENOUGH = 32
"""Degrees of freedom that a variance is pooled from, where there are as many."""


def wilson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval (low, high) of a share, dimensionless; inside [0, 1], good near both ends.

    (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), z the normal quantile of ``level``. No trials
    give (0, 1). ValueError unless 0 <= successes <= trials and 0 < level < 1. Source: E. B. Wilson, "Probable
    inference", JASA 22 (1927), pp. 209-212.
    """
    successes, trials, level = whole(successes, "successes"), whole(trials, "trials"), real(level, "level")
    if not 0 <= successes <= trials or not 0 < level < 1:
        raise ValueError(
            f"{successes} of {trials} at level {level}: expected 0 <= successes <= trials, 0 < level < 1"
        )
    if trials == 0:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    share = successes / trials
    middle = share + z2 / (2 * trials)
    spread = (z2 * (share * (1 - share) / trials + z2 / (4 * trials**2))) ** 0.5
    low, high = (max(0.0, min(1.0, (middle + s * spread) / (1 + z2 / trials))) for s in (-1, 1))
    return (0.0 if successes == 0 else low), (1.0 if successes == trials else high)


def paired_difference(
    both: int, first: int, second: int, neither: int, level: float = 0.95
) -> tuple[float, float]:
    """Interval of a difference of two shares of the same trials, the first less the second; dimensionless.

    Of the trials ``both`` succeeded twice, ``first`` and ``second`` in one of them, ``neither`` in none. Wilson intervals
    of the shares, squared and added with their correlation. Source: R. G. Newcombe, "Improved confidence intervals for the
    difference between binomial proportions based on paired data", Stat. Med. 17 (1998), pp. 2635-2650, method 10.
    """
    n, wins = both + first + second + neither, (both + first, both + second)
    (p, q), ((a, b), (c, d)) = (w / n for w in wins), (wilson(w, n, level) for w in wins)
    spread = math.prod(w * (n - w) for w in wins)
    agreed = float(both * neither - first * second)
    agreed = max(agreed - n / 2, 0) if agreed > 0 else agreed
    phi = agreed / math.sqrt(spread) if spread else 0.0
    below = (p - a) ** 2 - 2 * phi * (p - a) * (d - q) + (d - q) ** 2
    above = (b - p) ** 2 - 2 * phi * (b - p) * (q - c) + (q - c) ** 2
    return p - q - math.sqrt(below), p - q + math.sqrt(above)


def sign_test(first: int, second: int) -> float:
    """Two-sided p-value of ``first`` wins against ``second`` if either is equally likely (exact McNemar test)."""
    n, most = first + second, max(first, second)
    return float(min(1.0, 2 * sum(math.comb(n, i) for i in range(most, n + 1)) / 2**n))


def t_quantile(level: float, freedom: float) -> float:
    """Half-width, in standard errors, of a two-sided interval of ``level`` with so many degrees of freedom (or inf)."""
    level = real(level, "level")
    if not 0 < level < 1:
        raise ValueError(f"level {level}: expected 0 < level < 1")
    from scipy.special import stdtrit

    middle = (1 + level) / 2
    return NormalDist().inv_cdf(middle) if np.isinf(freedom) else float(stdtrit(freedom, middle))


def mean_reach(values: Array, level: float = 0.95) -> float:
    """Half-width of the interval of a mean by Student's t, in the unit of ``values`` [n], n at least 2."""
    spread = float(values.std(ddof=1))
    return t_quantile(level, len(values) - 1) * spread / math.sqrt(len(values))


def contrast(weights: Array, stderr: Array, counts: Array) -> tuple[float, float] | None:
    """Standard error of ``weights`` @ means, in their unit, and its degrees of freedom; None when they tell no variance.

    ``stderr`` [N] are the means' own standard errors, ``counts`` [N] the observations behind them; unobserved means lie on
    the line between their neighbours, whose weights take theirs over. Few observations know their variance badly, and of a
    skewed law they know it too low: so v(i) is pooled over neighbours, (K * ss)(i) / (K * free)(i) for sums of squares
    ss(j) = stderr(j)^2 n(j) (n(j) - 1), free(j) = n(j) - 1 and a triangle K as wide as `ENOUGH` needs. Then
    V = sum of w(i)^2 v(i) / n(i), and by Satterthwaite V^2 / sum_j b(j)^2 v(j)^2 free(j) degrees of freedom, b(j) what
    V takes of ss(j). Source: F. E. Satterthwaite, Biometrics Bulletin 2 (1946), pp. 110-114; the pooling is derived.
    """
    free = np.maximum(counts - 1, 0.0)
    if free.sum() < 2:
        return None
    shares = _carried(weights, counts) ** 2 / np.maximum(counts, 1)
    kernel = _triangle(free)
    below = _spread(free, kernel)
    pooled = _spread(stderr**2 * counts * free, kernel) / below
    variance = float(shares @ pooled)
    doubt = float(_spread(shares / below, kernel) ** 2 * pooled**2 @ free)
    return variance**0.5, (variance**2 / doubt if doubt > 0 else np.inf)


def _carried(weights: Array, counts: Array) -> Array:
    """The weights [N] on observed means, where those between them are interpolated linearly."""
    seen, places = np.flatnonzero(counts), np.arange(len(counts))
    if len(seen) == len(counts):
        return weights
    right = np.clip(np.searchsorted(seen, places), 1 if len(seen) > 1 else 0, len(seen) - 1)
    left = np.maximum(right - 1, 0)
    gap = np.maximum(seen[right] - seen[left], 1)
    share = np.clip((places - seen[left]) / gap, 0.0, 1.0)
    carried = np.zeros(len(counts))
    np.add.at(carried, seen[right], weights * share)
    np.add.at(carried, seen[left], weights * (1 - share))
    return carried


def _triangle(free: Array) -> Array:
    """A triangle over two neighbours on either side, or as many as hold `ENOUGH` degrees of freedom, within the array."""
    wanted = int(np.ceil((ENOUGH / free.mean() - 1) / 2))
    reach = min(max(2, wanted), (len(free) - 1) // 2)
    return 1 - np.abs(np.arange(-reach, reach + 1)) / (reach + 1.0)


def _spread(values: Array, kernel: Array) -> Array:
    """Values smoothed with a symmetric kernel, and a trace of all of them where none is near."""
    smooth: Array = np.convolve(values, kernel, mode="same") + 1e-6 * values.sum()
    return smooth
