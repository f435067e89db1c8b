"""Information profiles: what a law, or a model, loses when several positions are unmasked at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.base import noise
from unmask.base.numbers import listed, whole
from unmask.base.profile import Profile
from unmask.base.progress import IN_TURN, Pieces
from unmask.base.types import Denoiser
from unmask.denoisers import ask_everywhere, check_tokens, checked_visible
from unmask.planning import measuring

Array: TypeAlias = NDArray[np.float64]


def with_heldout(fitted: Profile, heldout: Profile) -> Profile:
    """The fitted profile with the raw losses of the other half of the data, nats, in its provenance."""
    facts = fitted.provenance | {"heldout": json.loads(heldout.to_json())}
    return Profile(fitted.entropies, fitted.stderr, fitted.counts, facts, fitted.exact)


def carries_heldout(profile: Profile) -> bool:
    """Whether the profile carries the losses of another half of the data than it was fitted to."""
    return profile.provenance.get("heldout") is not None


def heldout_of(profile: Profile) -> Profile:
    """The held-out losses that a profile carries, nats, to judge plans by; the profile itself when it carries none."""
    return (
        Profile.from_json(json.dumps(profile.provenance["heldout"])) if carries_heldout(profile) else profile
    )


def _alone(profile: Profile) -> Profile:
    facts = {name: fact for name, fact in profile.provenance.items() if name != "heldout"}
    return Profile(profile.entropies, profile.stderr, profile.counts, facts, profile.exact)


def conditioned(profile: Profile, visible: int) -> Profile:
    """The profile for infilling, nats, when ``visible`` uniformly placed positions are given: h(visible) on.

    Entry i becomes h(visible + i), nats; plans for it sum to N - visible. So does a held-out half that it carries. Raises
    ValueError unless 0 <= visible < N.
    """
    visible = whole(visible, "visible")
    if not 0 <= visible < profile.length:
        raise ValueError(
            f"got visible={visible}, expected 0..{profile.length - 1}; leave a position to unmask"
        )
    if carries_heldout(profile):
        fitted, heldout = (conditioned(half, visible) for half in (_alone(profile), heldout_of(profile)))
        return with_heldout(fitted, heldout)
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
    if carries_heldout(profile):
        return with_heldout(resampled(_alone(profile), length), resampled(heldout_of(profile), length))
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
    visible: Callable[[torch.Tensor], torch.Tensor | None] | None = None,
    entries: int | None = None,
    pieces: Pieces = IN_TURN,
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
    So it is where ``visible(tokens)`` marks positions bool [n, L] that always are, such as special tokens; then the
    profile has ``entries``, by default as many as there are others at most. ``pieces`` says who does the batches.
    """
    about = json.dumps(provenance or {}, sort_keys=True)
    passes = measuring.Passes(rounds, batch_size, state, quiet, about, pieces)
    end = None if end is None else whole(end, "end", 0)
    _check_data(denoiser, tokens)
    known = None if visible is None else visible(tokens)
    if known is not None and entries is None:
        entries = max(int((~checked_visible(known, tokens)).sum(1).max()), 1)
    tally = _tally(tokens, generator, columns=2, entries=entries)
    given = end is not None or known is not None
    if not given and len(tokens) * passes.rounds < tokens.shape[1]:
        raise ValueError(
            f"got {len(tokens)} sequences in {rounds} rounds for {tokens.shape[1]} counts of visible positions; "
            "expected several at each: use more sequences or rounds"
        )
    sums = measuring.collect(
        denoiser,
        tokens,
        partial(measuring.losses_and_entropies, end=end, entries=entries, visible=visible),
        tally,
        passes,
    )
    if not given:
        check_seen(sums.counts)
    if not sums.counts.any():
        raise ValueError("every position is visible in all sequences; expected some that can be masked")
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
    _check_data(denoiser, tokens)
    tally = _tally(tokens, generator, columns=1, entries=len(points) - 1)
    passes = measuring.Passes(rounds, batch_size)
    sums = measuring.collect(denoiser, tokens, measuring.nested_gains(points), tally, passes)
    hidden = ask_everywhere(denoiser, torch.full_like(tokens[:1], denoiser.mask_id)).double()
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


def _check_data(denoiser: Denoiser, tokens: torch.Tensor) -> None:
    """ValueError unless tokens are int64 [n, L] data symbols, n at least 1."""
    check_tokens(tokens, denoiser, masks=False)
    if not len(tokens):
        raise ValueError("no sequences; expected at least one")


def _tally(
    tokens: torch.Tensor,
    generator: torch.Generator,
    columns: int,
    entries: int | None = None,
) -> measuring.Tally:
    """An empty tally with its seed."""
    seed = noise.drawn_seed(generator)
    return measuring.Tally(tokens.shape[1] if entries is None else entries, columns, seed)
