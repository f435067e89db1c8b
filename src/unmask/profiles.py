"""Information profiles: what a law, or a model, loses when several positions are unmasked at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from unmask import measuring, noise, smoothing
from unmask.numbers import listed, whole
from unmask.plan_families import check
from unmask.records import read_record, write_text
from unmask.types import Denoiser, Plan

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

        ``plan`` are step sizes that sum to N. This is E_fact = sum_k s_k h(a_{k-1}) - H(X) (Chen-Cong-Li,
        COLT 2026). A sampler that draws its order afresh and hides it follows the mixture over orders,
        whose KL is smaller. A measured profile holds cross-entropies: then this is the excess over the
        model's own code length one by one, the error of the model left out, and noise may turn it negative.
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
    visible = whole(visible, "visible")
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


def resampled(profile: Profile, length: int) -> Profile:
    """The profile of sequences of another length, nats: equal at equal shares of visible positions, interpolated.

    For models of sequences of any length, whose profile is measured over shares. ValueError unless length >= 1.
    """
    length = whole(length, "length", 1)
    new, old = (np.arange(n) / n for n in (length, profile.length))
    errors = None if profile.stderr is None else np.interp(new, old, profile.stderr)
    facts = profile.provenance | {"resampled_from": profile.length}
    return Profile(np.interp(new, old, profile.entropies), errors, None, facts, profile.exact)


def measure(
    denoiser: Denoiser,
    tokens: torch.Tensor,
    *,
    generator: torch.Generator,
    rounds: int = 1,
    batch_size: int = 64,
    state: Path | None = None,
    quiet: bool = True,
    provenance: dict[str, Any] | None = None,
    end: int | None = None,
) -> Profile:
    """The loss profile L(i) of a model on data, nats per masked position, with standard errors.

    Each of the ``rounds`` passes over tokens int64 [n, L] (clean, held out) hides a random set per sequence, its size
    stratified, and averages the cross-entropy over all masked positions: estimator (i), model error included. The same
    calls give estimator (ii), the model's own entropies, kept in ``provenance["model_entropies"]``; `calibration` prints
    the difference. The result is raw: `smooth` or `choose` it before planning, and judge plans on other data.
    ValueError when the data are too few to observe every count.

    ``state`` names a file that lets an interrupted measurement go on. Where sequences have lengths of their own, marked by
    the symbol ``end`` that is always visible, entry i stands for the share i/L of each one's symbols: see `resampled`;
    shares that were not observed (their count is 0), at most half of them, lie on the line between their neighbours.
    """
    about = json.dumps(provenance or {}, sort_keys=True)
    passes = measuring.Passes(rounds, batch_size, state, quiet, about)
    end = None if end is None else whole(end, "end", 0)
    tally = _tally(denoiser, tokens, generator, columns=2)
    if end is None and len(tokens) * passes.rounds < tokens.shape[1]:
        raise ValueError(
            f"got {len(tokens)} sequences in {rounds} rounds for {tokens.shape[1]} counts of visible positions; "
            "expected several at each: use more sequences or rounds"
        )
    sums = measuring.collect(
        denoiser, tokens, partial(measuring.losses_and_entropies, end=end), tally, passes
    )
    if end is None:
        check_seen(sums.counts)
    means, errors = (_bridged(values, sums.counts) for values in (sums.means, sums.stderrs))
    facts: dict[str, Any] = {"estimator": "cross-entropy", "sequences": len(tokens), "rounds": passes.rounds}
    facts |= {"data": measuring.fingerprint(tokens)}
    facts |= {
        "model_entropies": means[:, 1].tolist(),
        "model_entropies_stderr": errors[:, 1].tolist(),
    }
    return Profile(means[:, 0], errors[:, 0], sums.counts, facts | (provenance or {}))


def _bridged(values: Array, counts: Array) -> Array:
    """Values [N, C] with straight lines where nothing was observed; ValueError when that is more than half of them."""
    seen, places = np.flatnonzero(counts), np.arange(len(counts))
    if 2 * len(seen) < len(counts):
        check_seen(counts)
    return np.stack([np.interp(places, seen, column[seen]) for column in values.T], axis=1)


def measure_entropies(
    denoiser: Denoiser,
    tokens: torch.Tensor,
    *,
    generator: torch.Generator,
    rounds: int = 1,
    batch_size: int = 64,
) -> Profile:
    """The profile by the model's own predictive entropies on contexts from data, nats: estimator (ii).

    Equal to `measure` where the model is calibrated; lower where it is overconfident.
    """
    losses = measure(denoiser, tokens, generator=generator, rounds=rounds, batch_size=batch_size)
    facts = {"estimator": "model entropies", "data": losses.provenance["data"]}
    known = losses.provenance
    return Profile(known["model_entropies"], known["model_entropies_stderr"], losses.counts, facts)


def measure_gains(
    denoiser: Denoiser,
    tokens: torch.Tensor,
    *,
    generator: torch.Generator,
    edges: Sequence[int],
    rounds: int = 1,
    batch_size: int = 64,
) -> Profile:
    """The profile by KL increments between nested reveals, nats: estimator (iii), which never rises.

    ``edges`` are increasing numbers of visible positions, the first 0 and the last N - 1; between them the profile is
    interpolated. h(0) is the model's entropy with nothing visible. Low variance; the model stands for the truth
    (Wainwright, arXiv 2608.13520). Standard errors count the increments before each entry.
    """
    points = tuple(whole(edge, "an edge") for edge in listed(edges, "edges") or ())
    last = tokens.shape[-1] - 1
    if points[:1] != (0,) or points[-1] != last or any(b <= a for a, b in pairwise(points)):
        raise ValueError(f"got edges {points}, expected increasing numbers from 0 to N-1 = {last}")
    tally = _tally(denoiser, tokens, generator, columns=1, entries=len(points) - 1)
    passes = measuring.Passes(rounds, batch_size)
    sums = measuring.collect(denoiser, tokens, measuring.nested_gains(points), tally, passes)
    hidden = denoiser(torch.full_like(tokens[:1], denoiser.mask_id)).double()
    start = float(torch.special.entr(hidden.exp()).sum(-1).mean())
    falls = np.concatenate([[0.0], np.cumsum(sums.means[:, 0])])
    errors = np.sqrt(np.concatenate([[0.0], np.cumsum(sums.stderrs[:, 0] ** 2)]))
    i = np.arange(tokens.shape[1])
    curve = np.maximum(start - np.interp(i, points, falls), 0.0)
    facts = {"estimator": "KL increments", "edges": list(points)}
    return Profile(curve, np.interp(i, points, errors), provenance=facts)


def calibration(measured: Profile) -> tuple[float, float]:
    """Cross-entropy minus model entropy, mean over i, nats per position, and its standard error (upper bound).

    Near zero for a calibrated model; positive where the model is overconfident. Needs a profile from `measure`.
    """
    known = measured.provenance
    if "model_entropies" not in known or measured.stderr is None:
        raise ValueError("got a profile without model entropies; expected one from profiles.measure")
    gaps = measured.entropies - np.asarray(known["model_entropies"])
    errors = measured.stderr + np.asarray(known["model_entropies_stderr"])
    return float(gaps.mean()), float(np.sqrt((errors**2).sum()) / len(gaps))


def check_seen(counts: Array) -> None:
    """ValueError when some number of visible positions was never observed."""
    missing = int((counts == 0).sum())
    if missing:
        raise ValueError(
            f"got {int(counts.sum())} observations, none at {missing} of {len(counts)} counts; "
            "expected several at each: use more sequences or rounds"
        )


def _tally(
    denoiser: Denoiser,
    tokens: torch.Tensor,
    generator: torch.Generator,
    columns: int,
    entries: int | None = None,
) -> measuring.Tally:
    """An empty tally with its seed, after checking the data."""
    clean = tokens.ndim == 2 and tokens.dtype == torch.int64 and len(tokens) > 0
    if not clean or bool((tokens == denoiser.mask_id).any()):
        raise ValueError(
            f"got tokens of dtype {tokens.dtype} and shape {list(tokens.shape)}, "
            "expected clean int64 [sequences, length] without masks"
        )
    seed = noise.drawn_seed(generator)
    return measuring.Tally(tokens.shape[1] if entries is None else entries, columns, seed)


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
