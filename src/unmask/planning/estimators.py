"""From a measured profile to one without its noise, from which plans are made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unmask.base.profile import Profile
from unmask.planning import smoothing
from unmask.planning.profiles import with_heldout

Array: TypeAlias = NDArray[np.float64]

Estimator: TypeAlias = Callable[[Profile], Profile]
"""From a measured profile to one without its noise, which never rises."""


def smooth(losses: Profile | ArrayLike, stderr: ArrayLike | None = None) -> Profile:
    """A measured profile (nats) without its noise: local linear smoothing, then sorted to fall. The default.

    ``losses`` is a measured profile, or losses [N] with their ``stderr`` if known; entries with a count of
    0 are bridged. The bandwidth is chosen by Mallows' Cp where standard errors are known, else by
    generalised cross-validation. Good on smooth profiles; take `isotonic` for jumps, or let `choose`
    decide. The result says nothing about what its plans cost, so no error is known of them: judge them on
    held-out losses (`Profile.kl` and `kl_interval` of those), never on this curve.
    """
    measured = _measured(losses, stderr)
    curve, width = smoothing.smoothed(*_weighted(measured), known_noise=measured.stderr is not None)
    return _estimate(measured, curve, {"estimator": "smooth", "bandwidth": width})


def isotonic(losses: Profile | ArrayLike, stderr: ArrayLike | None = None) -> Profile:
    """A measured profile (nats) as the closest staircase that never rises; for profiles with jumps.

    Arguments as `smooth`. Weighted isotonic regression.
    """
    measured = _measured(losses, stderr)
    return _estimate(measured, smoothing.falling_steps(*_weighted(measured)), {"estimator": "isotonic"})


def interpolated(losses: Profile | ArrayLike, stderr: ArrayLike | None = None) -> Profile:
    """A measured profile (nats) as `isotonic`, with straight lines between the centres of the steps.

    Arguments as `smooth`.
    """
    measured = _measured(losses, stderr)
    return _estimate(measured, smoothing.falling_lines(*_weighted(measured)), {"estimator": "interpolated"})


def choose(
    train: Profile, heldout: Profile, estimators: Sequence[Estimator] = (smooth, isotonic, interpolated)
) -> Profile:
    """The estimate of ``train``, nats, by the estimator that errs least across two halves of the data.

    Each half judges the estimates made from the other, by squared error. The first estimator is left only
    for one that is better by more than a standard error. Plan costs themselves are too noisy to judge by:
    the noise of one loss enters times the size of its block. The result carries the held-out half, and
    `plans.describe` judges plans by it::

        profile = profiles.choose(train, heldout)
        plan = plans.optimal(profile, steps=16)
        plans.describe(plan, profile).interval == heldout.kl_interval(plan)

    Raises ValueError when the halves differ in length.
    """
    if train.length != heldout.length:
        raise ValueError(
            f"got halves of {train.length} and {heldout.length} entries, expected the same length"
        )
    halves = ((train, heldout), (heldout, train))
    pairs = [[(_curve(estimate, half), *_judged(other)) for half, other in halves] for estimate in estimators]
    gains = [_gain(pairs[0], pair) for pair in pairs]
    best = max(range(len(gains)), key=lambda k: gains[k][0] if gains[k][0] > gains[k][1] else 0.0)
    return with_heldout(estimators[best](train), heldout)


def _curve(estimate: Estimator, half: Profile) -> Array:
    return estimate(half).entropies


def _judged(half: Profile) -> tuple[Array, Array]:
    losses, weights = _weighted(half)
    return losses, weights if half.stderr is not None else weights / _noise(losses, weights)


def _gain(
    base: list[tuple[Array, Array, Array]], other: list[tuple[Array, Array, Array]]
) -> tuple[float, float]:
    """By how much ``other`` lowers the weighted squared error of ``base``, and the standard error of that."""
    gain = moved = 0.0
    for (first, losses, weights), (second, _, _) in zip(base, other):
        gain += float(weights @ ((losses - first) ** 2 - (losses - second) ** 2))
        moved += float(weights @ (first - second) ** 2)
    return gain, 2 * moved**0.5


def _noise(losses: Array, weights: Array) -> float:
    """Factor by which variances exceed 1/weights, from differences of neighbours (Rice)."""
    seen = weights > 0
    steps = np.diff(losses[seen])
    scale = 1 / weights[seen][1:] + 1 / weights[seen][:-1]
    return max(float(np.mean(steps**2 / scale)), 1e-300) if len(steps) else 1.0


def _measured(losses: Profile | ArrayLike, stderr: ArrayLike | None) -> Profile:
    if not isinstance(losses, Profile):
        return Profile(losses, stderr=stderr, exact=False)
    if stderr is not None:
        raise ValueError("got a Profile and stderr, expected one of them; the profile carries its own")
    return losses


def _weighted(measured: Profile) -> tuple[Array, Array]:
    """Losses, bridged over gaps, and weights: inverse variances if known, else counts, else 1."""
    counts = np.ones(measured.length) if measured.counts is None else measured.counts
    seen = counts > 0
    if not seen.any():
        raise ValueError("got counts that are all 0, expected at least one measured entry")
    i = np.arange(measured.length)
    losses = np.interp(i, i[seen], measured.entropies[seen])
    if measured.stderr is None:
        return losses, counts
    error = measured.stderr
    floor = 0.1 * np.median(error[seen & (error > 0)]) if (error[seen] > 0).any() else 1e-9
    return losses, np.where(seen, np.maximum(error, floor) ** -2.0, 0.0)


def _estimate(measured: Profile, curve: Array, facts: dict[str, Any]) -> Profile:
    falling = np.maximum(curve, 0.0)
    return Profile(falling, counts=measured.counts, provenance=measured.provenance | facts, exact=False)
