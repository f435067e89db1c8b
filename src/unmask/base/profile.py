"""The bare information profile: what a law, or a model, loses when several positions are unmasked at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from unmask import pictures
from unmask.base.numbers import listed, shown, whole
from unmask.base.records import read_record, stamped, write_text
from unmask.base.statistics import contrast, t_quantile
from unmask.base.types import Plan

Array: TypeAlias = NDArray[np.float64]

RISE = 1e-9
"""Nats by which an exact profile may rise, or fall below zero, through rounding."""


Sizes: TypeAlias = tuple[int, ...]


def check(plan: Plan | Sequence[int], masked_count: int) -> Sizes:
    """Step sizes of a plan for a row with ``masked_count`` masked positions, as a plain tuple of ints.

    ``plan`` is a sequence of sizes, an int (that many per step) or a function of the masked count. Raises
    ValueError when the sizes do not sum to ``masked_count`` or a step is empty: an empty step would waste a
    network call.
    """
    masked_count = whole(masked_count, "masked_count", 0)
    plan = plain(plan(masked_count) if callable(plan) else plan)
    sizes = _constant(plan, masked_count) if isinstance(plan, int) else plan
    if any(size < 1 for size in sizes):
        at = next(k for k, size in enumerate(sizes) if size < 1)
        raise ValueError(
            f"got a plan whose step {at} unmasks {sizes[at]}, expected at least 1; drop that step"
        )
    if sum(sizes) != masked_count:
        raise ValueError(
            f"got a plan that sums to {sum(sizes)}, expected {masked_count}, the number of masked positions; "
            "make the plan for that length"
        )
    return sizes


def plain(plan: object) -> Sizes | int:
    """A plan that is no function, as an int of at least 1 (that many per step) or as a tuple of ints (the step sizes).

    Lists, arrays and tensors of one dimension are taken for sizes. ValueError for anything else, such as 1.5 or True.
    """
    sizes = listed(plan, "a plan")
    if sizes is not None:
        return tuple(whole(size, "a step size") for size in sizes)
    return whole(plan, "plan", 1)


def accepted(plan: Plan) -> Plan:
    """A plan as selectors keep it: a function as it is, anything else as `plain` makes it."""
    return plan if callable(plan) else plain(plan)


def _constant(size: int, masked_count: int) -> Sizes:
    size = whole(size, "positions per step", 1)
    return (size,) * (masked_count // size) + ((masked_count % size,) if masked_count % size else ())


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
        """Standard error of `kl`, nats; 0 if exact, None if unknown. See `kl_interval`."""
        found = self._kl_error(plan)
        return None if found is None else found[0]

    def kl_interval(self, plan: Plan | Sequence[int], level: float = 0.95) -> tuple[float, float] | None:
        """Where the `kl` of a plan lies, nats (low, high): at ``level`` for a plan made without these data.

        `kl` is sum_i w(i) h(i), w(i) = (size of the step that starts at i, else 0) - 1. The interval is kl -+ t sqrt(V),
        V = sum_i w(i)^2 v(i) / n(i), where v(i) is the variance of an observation, pooled over neighbouring i, n(i) their
        number and t Student's quantile at the degrees of freedom of V (`unmask.base.statistics.contrast`). Entries count as
        independent: a sequence observed at several i moves them together, but the w(i) sum to 0, so that what it moves
        all by cancels. Without ``counts`` V is that of ``stderr`` alone and t the normal quantile. An exact profile gives
        (kl, kl); None means unknown, as for smoothed profiles: judge a plan by the half that it has not seen
        (`unmask.profiles.heldout_of`), on its own half the optimum looks too cheap.
        """
        cost, found = self.kl(plan), self._kl_error(plan)
        half = None if found is None else found[0] * t_quantile(level, found[1])
        return None if half is None else (cost - half, cost + half)

    def _kl_error(self, plan: Plan | Sequence[int]) -> tuple[float, float] | None:
        """Standard error of `kl`, nats, and its degrees of freedom; None if unknown."""
        sizes = np.asarray(check(plan, self.length))
        if self.stderr is None:
            return (0.0, np.inf) if self.exact else None
        weights = np.full(self.length, -1.0)
        weights[_starts(sizes)] += sizes
        if self.counts is not None:
            return contrast(weights, self.stderr, self.counts)
        return float(np.sqrt((weights**2) @ (self.stderr**2))), np.inf

    def to_json(self) -> str:
        """The profile as a JSON text: version, unit, entropies and whatever else is known."""
        known = {"format": "unmask.profile", "version": 1, "unit": "nats", "exact": self.exact}
        record: dict[str, Any] = stamped("profile") | known
        arrays = {"entropies": self.entropies, "stderr": self.stderr, "counts": self.counts}
        record |= {name: None if a is None else a.tolist() for name, a in arrays.items()}
        return json.dumps(record | {"provenance": self.provenance}, indent=1, allow_nan=False)

    def _repr_html_(self) -> str:
        """The profile as a notebook shows it, and what it amounts to."""
        sums = {"H(X)": self.entropy, "TC": self.total_correlation, "DTC": self.dual_total_correlation}
        stderr = None if self.stderr is None else self.stderr.tolist()
        shown = pictures.profile("Information profile", self.entropies.tolist(), (), stderr)
        about = pictures.table(list(sums), [[f"{v:.4f} nats" for v in sums.values()]])
        return pictures.fragment(shown + about + pictures.listed("How it was made", self.provenance))

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """The profile in a JSON text written by `to_json`; ValueError for anything else."""
        record = read_record(text, "unmask.profile")
        for name, good in _FIELDS.items():
            if name not in record:
                raise ValueError(f"the profile has no field '{name}'; write it again with Profile.save")
            if not good(record[name]):
                raise ValueError(
                    f"the profile has field {name} {shown(record[name])}; write it again with Profile.save"
                )
        return cls(**{name: record[name] for name in _FIELDS})

    def save(self, path: str | Path) -> None:
        """Write the profile as JSON; an interrupted write leaves nothing behind."""
        write_text(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Profile:
        """Read a profile written by `save`."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))


def _is_numbers(value: object) -> bool:
    """Whether a value of a JSON text is a list of numbers that a float holds."""
    return isinstance(value, list) and all(
        type(entry) is float or (type(entry) is int and abs(entry) < 2**1023) for entry in value
    )


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "entropies": _is_numbers,
    "stderr": lambda value: value is None or _is_numbers(value),
    "counts": lambda value: value is None or _is_numbers(value),
    "provenance": lambda value: isinstance(value, dict),
    "exact": lambda value: isinstance(value, bool),
}
"""What the fields of a profile in JSON are."""


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
