"""Information profiles: what a law, or a model, loses when several positions are unmasked at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from unmask import smoothing
from unmask.plan_families import check
from unmask.records import read_record, write_text
from unmask.types import Plan

Array: TypeAlias = NDArray[np.float64]

RISE = 1e-9
"""Nats by which an exact profile may rise, or fall below zero, through rounding."""


@dataclass(frozen=True, eq=False, init=False)
class Profile:
    """Entropy profile h(i), nats per position: entropy of a masked position when i random others are visible.

    ``entropies`` has one entry per i = 0..N-1 (list, array or tensor; kept as read-only float64). A bare
    profile is **exact**: the truth about a law, so it never rises (Han). With ``stderr`` (standard errors,
    nats, one per entry) it is **measured** and may rise through noise or because a network is imperfect.
    ``counts`` is the number of observations behind each entry and ``provenance`` any JSON about where they
    came from.

    Raises ValueError for NaN or negative entropies, and for an exact profile that rises by more than 1e-9
    nats.
    """

    entropies: Array
    stderr: Array | None
    counts: Array | None
    provenance: dict[str, Any]
    exact: bool

    def __init__(
        self,
        entropies: ArrayLike | torch.Tensor,
        stderr: ArrayLike | torch.Tensor | None = None,
        counts: ArrayLike | torch.Tensor | None = None,
        provenance: dict[str, Any] | None = None,
        exact: bool = True,
    ) -> None:
        exact = bool(exact) and stderr is None
        values = _entropies(entropies, exact)
        _set(self, "entropies", values)
        _set(self, "stderr", _beside(stderr, "stderr", len(values)))
        _set(self, "counts", _beside(counts, "counts", len(values)))
        _set(self, "provenance", dict(provenance or {}))
        _set(self, "exact", exact)

    @property
    def length(self) -> int:
        """Number of positions N."""
        return len(self.entropies)

    @property
    def information(self) -> Array:
        """f(i) = h(0) - h(i), nats: what i visible positions tell about another one. Shape [N]."""
        drops: Array = self.entropies[0] - self.entropies
        return drops

    @property
    def increments(self) -> Array:
        """d(i) = h(i-1) - h(i), nats, for i = 1..N-1. Shape [N-1]."""
        return -np.diff(self.entropies)

    @property
    def entropy(self) -> float:
        """H(X) = sum of h(i), nats per sequence (chain rule along a random order)."""
        return float(self.entropies.sum())

    @property
    def total_correlation(self) -> float:
        """TC = sum of f(i) = sum of d(i) (N-i), nats: the KL of unmasking everything in one step."""
        return float(self.information.sum())

    @property
    def dual_total_correlation(self) -> float:
        """DTC = N f(N-1) - TC = sum of d(i) i, nats."""
        return float(self.increments @ np.arange(1, self.length))

    @property
    def mixed(self) -> float:
        """M = sum of d(i) i (N-i) / N, nats; at most min(TC, DTC). Derived."""
        i = np.arange(1, self.length)
        return float(self.increments @ (i * (self.length - i))) / self.length

    def kl(self, plan: Plan | Sequence[int]) -> float:
        """KL(data law || sampler) of a plan, nats, **with the order disclosed**, averaged over orders.

        ``plan`` are step sizes that sum to N. This is E_fact = sum_k s_k h(a_{k-1}) - H(X) (Chen-Cong-Li, COLT
        2026). A sampler that draws its order afresh and hides it follows the mixture over orders, whose KL is
        smaller. A measured profile holds cross-entropies: then this is the excess over the model's own code
        length one by one, the error of the model left out, and noise may turn it negative.
        """
        sizes = np.asarray(check(plan, self.length))
        return float((np.repeat(self.entropies[_starts(sizes)], sizes) - self.entropies).sum())

    def code_length(self, plan: Plan | Sequence[int]) -> float:
        """Expected code length sum_k s_k h(a_{k-1}) of a plan, nats per sequence, order shared."""
        sizes = np.asarray(check(plan, self.length))
        return float(sizes @ self.entropies[_starts(sizes)])

    def kl_stderr(self, plan: Plan | Sequence[int]) -> float | None:
        """Standard error of `kl`, nats, for independent entries; 0 if exact, None if unknown."""
        if self.stderr is None:
            return 0.0 if self.exact else None
        sizes = np.asarray(check(plan, self.length))
        weights = np.full(self.length, -1.0)
        weights[_starts(sizes)] += sizes
        return float(np.sqrt((weights**2) @ (self.stderr**2)))

    def to_json(self) -> str:
        """The profile as a JSON text: version, unit, entropies and whatever else is known."""
        record = {"format": "unmask.profile", "version": 1, "unit": "nats", "exact": self.exact}
        arrays = {"entropies": self.entropies, "stderr": self.stderr, "counts": self.counts}
        record |= {name: None if a is None else a.tolist() for name, a in arrays.items()}
        return json.dumps(record | {"provenance": self.provenance}, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """The profile in a JSON text written by `to_json`; ValueError for anything else."""
        record = read_record(text, "unmask.profile")
        fields = ("entropies", "stderr", "counts", "provenance", "exact")
        try:
            return cls(**{name: record[name] for name in fields})
        except KeyError as missing:
            raise ValueError(
                f"the profile has no field {missing}; write it again with Profile.save"
            ) from None

    def save(self, path: str | Path) -> None:
        """Write the profile as JSON; an interrupted write leaves nothing behind."""
        write_text(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a profile written by `save`."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))


def conditioned(profile: Profile, visible: int) -> Profile:
    """The profile for infilling, nats, when ``visible`` uniformly placed positions are given: h(visible) on.

    Entry i becomes h(visible + i), nats; plans for it sum to N - visible. Raises ValueError unless 0 <=
    visible < N.
    """
    if not 0 <= visible < profile.length:
        raise ValueError(
            f"got visible={visible}, expected 0..{profile.length - 1}; leave a position to unmask"
        )
    tail = slice(visible, None)
    return Profile(
        profile.entropies[tail],
        stderr=None if profile.stderr is None else profile.stderr[tail],
        counts=None if profile.counts is None else profile.counts[tail],
        provenance=profile.provenance | {"visible": profile.provenance.get("visible", 0) + visible},
        exact=profile.exact,
    )


Estimator: TypeAlias = Callable[[Profile], Profile]
"""From a measured profile to one without its noise, which never rises."""


def smooth(losses: Profile | ArrayLike, stderr: ArrayLike | None = None) -> Profile:
    """A measured profile (nats) without its noise: local linear smoothing, then sorted to fall. The default.

    ``losses`` is a measured profile, or losses [N] with their ``stderr`` if known; entries with a count of
    0 are bridged. The bandwidth is chosen by Mallows' Cp where standard errors are known, else by
    generalised cross-validation. Good on smooth profiles; take `isotonic` for jumps, or let `choose`
    decide. The result says nothing about what its plans cost: judge them on held-out losses (`Profile.kl`
    of those), never on this curve.
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
    the noise of one loss enters times the size of its block. Report a plan's cost from the held-out half::

        plan = plans.optimal(profiles.choose(train, heldout), steps=16)
        heldout.kl(plan), heldout.kl_stderr(plan)

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
    return estimators[best](train)


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


def _set(profile: Profile, name: str, value: object) -> None:
    object.__setattr__(profile, name, value)


def _starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.cumsum(sizes) - sizes


def _vector(values: Any, name: str) -> Array:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    array = np.array(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(f"got {name} of shape {array.shape}, expected one number per position i = 0..N-1")
    if not np.isfinite(array).all():
        bad = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"got {name}[{bad}] = {array[bad]}, expected finite nats; measure that count again")
    return array


def _entropies(values: Any, exact: bool) -> Array:
    array = _vector(values, "entropies")
    worst = int(array.argmin())
    if array[worst] < -RISE:
        raise ValueError(f"got entropies[{worst}] = {array[worst]:.6g}, expected at least 0 nats")
    array = np.maximum(array, 0.0)
    if exact:
        array = _without_rises(array)
    array.flags.writeable = False
    return array


def _without_rises(array: Array) -> Array:
    falling = np.minimum.accumulate(array)
    at = int((array - falling).argmax())
    if array[at] - falling[at] > RISE:
        raise ValueError(
            f"got an exact profile that rises to {array[at]:.6g} at i={at}, expected it never to rise; "
            "pass stderr= if it is measured"
        )
    return falling


def _beside(values: Any, name: str, length: int) -> Array | None:
    if values is None:
        return None
    array = _vector(values, name)
    if len(array) != length:
        raise ValueError(f"got {len(array)} {name}, expected {length}, one per entropy")
    if array.min() < 0:
        raise ValueError(f"got {name} of {array.min():.6g}, expected none below 0")
    array.flags.writeable = False
    return array
