"""Noise out of a measured curve that should never rise: smoothing and monotone projection of plain arrays.

``losses`` float64 [N], nats; ``weights`` float64 [N], inverse variances or counts, 0 where nothing was
measured. `unmask.planning.profiles` wraps these functions for profiles.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]


class Fit(NamedTuple):
    """A smoothed curve [N], nats, and the share of its own observation in each entry, [N]."""

    values: Array
    leverage: Array


def rearranged(values: Array) -> Array:
    """The same values, nats, sorted to fall: no further from a falling truth (Chernozhukov et al., 2009)."""
    return -np.sort(-values)


def smoothed(losses: Array, weights: Array, *, known_noise: bool) -> tuple[Array, float]:
    """The curve, nats, after local linear Gaussian smoothing and sorting; also the bandwidth, in positions.

    The bandwidth is the data's own choice. With ``known_noise`` the weights are inverse variances, and it
    minimises Mallows' Cp, an unbiased estimate of the squared error (0, no smoothing, is open too);
    otherwise generalised cross-validation.
    """
    criterion = _mallows if known_noise else _cross_validation
    options = {width: local_linear(losses, weights, width) for width in _bandwidths(weights)}
    if known_noise or not options:
        options[0.0] = Fit(losses, np.ones_like(losses))
    risks = {width: criterion(losses, weights, fit) for width, fit in options.items()}
    width = min(risks, key=risks.__getitem__)
    return rearranged(options[width].values), width


def local_linear(losses: Array, weights: Array, bandwidth: float) -> Fit:
    """At every position a weighted straight line through the neighbours, Gaussian ``bandwidth`` in positions.

    A line, not a mean: it does not bend the steep ends of a profile. O(N log N).
    """
    reach = min(len(losses) - 1, int(np.ceil(6 * bandwidth)))
    offset = np.arange(-reach, reach + 1.0)
    kernel = np.exp(-0.5 * (offset / bandwidth) ** 2)
    s0, s1, s2 = (_around(weights, kernel * offset**power) for power in range(3))
    t0, t1 = (_around(weights * losses, kernel * offset**power) for power in range(2))
    spread = s0 * s2 - s1**2
    flat = spread <= 1e-6 * s0**2  # a lone observation in reach: no slope can be told
    spread = np.where(flat, 1.0, spread)
    values = np.where(flat, t0 / s0, (s2 * t0 - s1 * t1) / spread)
    return Fit(values, weights * np.where(flat, 1 / s0, s2 / spread))


def falling_steps(losses: Array, weights: Array) -> Array:
    """The closest staircase that never rises, nats (isotonic regression): right for profiles with jumps."""
    from scipy.optimize import isotonic_regression  # here, as it takes a fifth of `load`'s time

    return np.asarray(isotonic_regression(losses, weights=_positive(weights), increasing=False).x)


def falling_lines(losses: Array, weights: Array) -> Array:
    """`falling_steps` with straight lines between the centres of its steps, nats; for smooth profiles."""
    from scipy.optimize import isotonic_regression

    result = isotonic_regression(losses, weights=_positive(weights), increasing=False)
    first, after = result.blocks[:-1], result.blocks[1:]
    return np.asarray(
        np.interp(np.arange(len(losses)), (first + after - 1) / 2, result.x[first]), dtype=np.float64
    )


def _bandwidths(weights: Array) -> list[float]:
    """From half a position, or what bridges the widest gap between observations, to half the sequence."""
    seen = np.flatnonzero(weights)
    gap = np.diff([-1, *seen, len(weights)]).max()
    widths = 0.5 * 1.5 ** np.arange(64)
    return [float(width) for width in widths if gap / 2 <= width <= len(weights) / 2]


def _mallows(losses: Array, weights: Array, fit: Fit) -> float:
    return float(weights @ (losses - fit.values) ** 2 + 2 * fit.leverage[weights > 0].sum())


def _cross_validation(losses: Array, weights: Array, fit: Fit) -> float:
    free = 1 - fit.leverage[weights > 0].mean()
    return float(weights @ (losses - fit.values) ** 2 / max(free, 1e-6) ** 2)


def _around(values: Array, kernel: Array) -> Array:
    """sum over j of kernel[j - i] values[j], for every i."""
    reach = len(kernel) // 2
    from scipy.signal import fftconvolve

    return np.asarray(fftconvolve(values, kernel[::-1], mode="full")[reach : reach + len(values)])


def _positive(weights: Array) -> Array:
    positive: Array = np.maximum(weights, 1e-12 * weights.max())
    return positive
