"""Plans from the continuum limit of a smooth profile: local step sizes proportional to d(i)^(-1/2).

They serve interpolation and comparison. On profiles with few large increments (mixtures of two products,
latent parity) they are far worse than the exact optimum: use `plans.optimal` whenever a profile exists.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmask.base.profile import Profile, Sizes
from unmask.planning.families import lengths, repaired


def square_root(profile: Profile, steps: int) -> Sizes:
    """``steps`` steps whose boundaries divide the sum of sqrt(d(i)), d in nats, evenly; rounded and repaired.

    The limit of large N/K. Derived; the rule is also attributed to Lavenant, Zanella (2510.25544). A flat
    profile gives equal steps.
    """
    length, steps = lengths(profile.length, steps)
    root = np.sqrt(np.maximum(profile.increments, 0))
    reached = np.cumsum([0.0, *(root if root.any() else np.ones_like(root))])
    points = np.interp(np.linspace(0, reached[-1], steps + 1), reached, np.arange(length))
    return repaired(np.floor(points + 0.5), length)


def continuum(profile: Profile, steps: int) -> Sizes:
    """``steps`` steps of local size max(1, lam / sqrt(d(i))), d in nats: continuum rule at bounded N/K.

    Derived. Boundaries stand where the steps per position add up to 1, 2, ..; rounding down puts one right
    before every increment whose local size is 1.
    """
    length, steps = lengths(profile.length, steps)
    reached = np.cumsum([0.0, *step_shares(profile, steps)])
    points = np.interp(np.arange(steps + 1), reached, np.arange(length + 1))
    return repaired(np.floor(points + 1e-9), length)


def predicted_kl(profile: Profile, steps: int) -> float:
    """What `continuum` should cost on a smooth profile, 1/2 sum (s(i) - 1) d(i), nats. Not a bound."""
    d = np.maximum(profile.increments, 0)
    size = 1 / np.where(d > 0, step_shares(profile, steps)[1:], 1.0)
    return float((size - 1) @ d) / 2


def step_shares(profile: Profile, steps: int) -> NDArray[np.float64]:
    """Steps per position 1/s(i) = min(1, sqrt(d(i)) / lam) for i = 0..N-1 (d(0) as d(1)), K in all. Derived.

    Where there are more steps than increments above zero, the rest is spread over the flat part.
    """
    length, steps = lengths(profile.length, steps)
    root = np.sqrt(np.maximum(profile.increments, 0))
    root = np.concatenate([root[:1], root]) if length > 1 else np.zeros(1)
    rising = root > 0
    if rising.sum() <= steps:
        rest = (steps - rising.sum()) / max(1, length - rising.sum())
        return np.where(rising, 1.0, rest)
    return np.minimum(1.0, root / _level(root, steps))


def _level(root: NDArray[np.float64], wanted: int) -> float:
    """lam such that min(1, root / lam) sums to ``wanted``, found through the number of entries held at 1."""
    falling = np.sort(root)[::-1]
    tail = np.cumsum(falling[::-1])[::-1]
    held = np.arange(wanted)
    level = tail[held] / (wanted - held)
    return float(level[np.argmax(falling[held] <= level)])
