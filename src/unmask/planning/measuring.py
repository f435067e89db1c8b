"""What a model loses at each number of visible positions, counted over data: the sums behind a measured profile.

`profiles.measure` is the front; here are the observations. Everything is a function of (seed, round, sequence), so an
interrupted measurement goes on where it stopped, and the size of batches changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.base import noise
from unmask.base.numbers import whole
from unmask.base.progress import IN_TURN, Piece, Pieces, Progress, Work
from unmask.base.records import read_record, write_text
from unmask.base.types import Denoiser
from unmask.denoisers import ask_everywhere, checked_visible, take_symbols
from unmask.masking.corruption import Draws, least

Array = NDArray[np.float64]
Observe = Callable[[Denoiser, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(denoiser, tokens, keys, levels) -> (index int64 [B, M], values float64 [B, M, C]): C numbers a place.

tokens int64 [B, L]; keys float64 [B, L] and levels float64 [B] are uniform on 0..1: which positions, and how many.
"""


@dataclass(frozen=True)
class Sums:
    """Per index i: number of observations, their sums and sums of squares, float64 [N] and [N, C]."""

    counts: Array
    sums: Array
    squares: Array

    @property
    def means(self) -> Array:
        """Means [N, C]; 0 where nothing was observed."""
        return self.sums / np.maximum(self.counts, 1)[:, None]

    @property
    def stderrs(self) -> Array:
        """Standard errors of the means [N, C]. Entries seen fewer than twice borrow the pooled variance."""
        many = np.maximum(self.counts, 1)[:, None]
        excess = np.maximum(self.squares - many * self.means**2, 0.0)
        pooled = excess.sum(0) / max(float(np.maximum(self.counts - 1, 0).sum()), 1.0)
        own = np.where(self.counts[:, None] > 1, excess / np.maximum(many - 1, 1), pooled)
        return np.asarray(np.sqrt(own / many))


@dataclass
class Tally:
    """A measurement under way: the seed, sequences done (all rounds in a row), and what they added up to."""

    length: int
    columns: int
    seed: int
    done: int = 0
    arrays: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {
            "counts": (self.length,),
            "sums": (self.length, self.columns),
            "squares": (self.length, self.columns),
        }
        self.arrays = {
            k: np.asarray(self.arrays.get(k, np.zeros(s)), dtype=np.float64).reshape(s)
            for k, s in shapes.items()
        }

    def add(self, index: Tensor, values: Tensor) -> None:
        """Adds observations: index int64 [B, M], -1 for none, values float64 [B, M, C]."""
        where, what = index.flatten().cpu().numpy(), values.flatten(0, 1).cpu().numpy()
        where, what = where[where >= 0], what[where >= 0]
        np.add.at(self.arrays["counts"], where, 1)
        np.add.at(self.arrays["sums"], where, what)
        np.add.at(self.arrays["squares"], where, what**2)
        self.done += len(index)

    def result(self) -> Sums:
        """The sums so far."""
        return Sums(**self.arrays)


def losses_and_entropies(
    denoiser: Denoiser,
    tokens: Tensor,
    keys: Tensor,
    levels: Tensor,
    end: int | None = None,
    entries: int | None = None,
    visible: Callable[[Tensor], Tensor | None] | None = None,
) -> tuple[Tensor, Tensor]:
    """One number i of visible positions per sequence: [cross-entropy, entropy of the model], mean over masked, nats.

    ``levels`` u float64 [B] on 0..1 say how many: i = floor(u L). The visible set is uniform; index int64 [B, 1], values
    float64 [B, 1, 2]. Positions of the symbol ``end``, and those of ``visible``, are always visible: of n others,
    floor(u n) are. The index is among ``entries`` (default L), and -1 where a sequence has no others.
    """
    maskable = ~checked_visible(None if visible is None else visible(tokens), tokens)
    maskable = maskable if end is None else maskable & (tokens != end)
    size = maskable.sum(1)
    masked = least(maskable, size - torch.floor(size * levels).long(), keys)
    index = torch.floor((entries or tokens.shape[1]) * levels).long().where(size > 0, -1)
    hidden = tokens.masked_fill(masked, denoiser.mask_id)
    log_probs = ask_everywhere(denoiser, hidden, masked).double()
    loss = -take_symbols(log_probs, tokens)
    both = torch.stack([loss, torch.special.entr(log_probs.exp()).sum(-1)], dim=-1)
    return index[:, None], _mean_over(both, masked)[:, None]


def _mean_over(values: Tensor, masked: Tensor) -> Tensor:
    """Mean of values [B, L, C] over masked positions bool [B, L], float64 [B, C]."""
    return torch.where(masked[..., None], values, 0.0).sum(1) / masked.sum(1).clamp(min=1)[:, None]


def nested_gains(edges: tuple[int, ...]) -> Observe:
    """Observes E KL(p(.|B) || p(.|A)) per position for nested sets of sizes edges[j] < edges[j+1], nats.

    Index j, one column: an estimate of f(edges[j+1]) - f(edges[j]) that never is negative (Wainwright, arXiv 2608.13520).
    The model's own conditionals stand for the truth. One random order per sequence, a call per edge.
    """

    def observe(denoiser: Denoiser, tokens: Tensor, keys: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        rank = keys.argsort(1).argsort(1)
        seen = [
            ask_everywhere(
                denoiser, tokens.masked_fill(rank >= edge, denoiser.mask_id), rank >= edge
            ).double()
            for edge in edges
        ]
        gains = [
            _mean_over(_kl(b, a)[..., None], rank >= edge) for a, b, edge in zip(seen, seen[1:], edges[1:])
        ]
        index = torch.arange(len(gains), device=tokens.device).expand(len(tokens), -1)
        return index, torch.stack(gains, dim=1)

    return observe


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) along the last axis of log-probabilities, nats."""
    return torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(-1)


@dataclass(frozen=True)
class Passes:
    """How often and in what pieces the data are gone through.

    ``state`` is a file that keeps what is done after every batch; a measurement that finds it goes on from there, if it is
    the same: of the same data, rounds and ``about`` (what is measured, such as the hash of a model). Its seed is
    that of the file. ``pieces`` says who does the batches.
    """

    rounds: int = 1
    batch_size: int = 64
    state: Path | None = None
    quiet: bool = True
    about: str = ""
    pieces: Pieces = IN_TURN

    def __post_init__(self) -> None:
        for name in ("rounds", "batch_size"):
            object.__setattr__(self, name, whole(getattr(self, name), name, 1))

    def batches(self, count: int, done: int) -> list[tuple[int, slice]]:
        """(round, places) of what is left of all rounds over ``count`` sequences after ``done``."""
        size = self.batch_size
        return [
            (turn, slice(start, min(start + size, count)))
            for turn in range(done // count, self.rounds)
            for start in range(done % count if turn == done // count else 0, count, size)
        ]


def spread_levels(seed: int, turn: int, count: int) -> Tensor:
    """Levels on 0..1 of ``count`` sequences in one round, float64: one in each of ``count`` equal strata, shuffled.

    So a round of N sequences observes each of N numbers of visible positions. The shuffle is of all of them: any pattern
    would meet data with the same one, such as pairs of sequences, whose kinds would then show at other numbers.
    """
    drawn = noise.uniform(seed, noise.LEVEL, torch.arange(count + 1), torch.tensor([turn]))
    return (drawn[0] + drawn[1:].argsort().argsort() / count) % 1


def collect(denoiser: Denoiser, tokens: Tensor, observe: Observe, tally: Tally, passes: Passes) -> Sums:
    """Runs ``observe`` over the data batch by batch and returns the sums, in the order of the batches."""
    state, count, length = passes.state, *tokens.shape
    tally = _resumed(tally, passes, tokens)
    start, items = tally.done, torch.arange(count, device=tokens.device)

    def observed(turn: int, place: slice) -> Piece:
        keys = Draws(tally.seed, items[place]).uniforms(length, turn)
        levels = spread_levels(tally.seed, turn, count)[place].to(tokens.device)
        index, values = observe(denoiser, tokens[place], keys, levels)
        return {"index": index.cpu().contiguous(), "values": values.cpu()}

    works = (
        Work(place.start, place.stop - place.start, partial(observed, turn, place))
        for turn, place in passes.batches(count, start)
    )
    with Progress("profile", passes.rounds * count, start, quiet=passes.quiet) as progress:
        for found in passes.pieces.each("profile", works, lambda done: progress.advance(start + done)):
            tally.add(found["index"], found["values"])
            if state is not None:
                _store(tally, state, tokens, passes)
    if state is not None:
        state.unlink(missing_ok=True)
    return tally.result()


def _which(tally: Tally, passes: Passes, tokens: Tensor) -> dict[str, Any]:
    """What tells a measurement from any other, in words."""
    return {
        "data": fingerprint(tokens),
        "length": tally.length,
        "rounds": passes.rounds,
        "levels": "shuffled",
        "model or settings": passes.about,
    }


def _store(tally: Tally, path: Path, tokens: Tensor, passes: Passes | None = None) -> None:
    """Writes a tally and what it belongs to."""
    known = _which(tally, passes or Passes(), tokens)
    record = {"format": "unmask.tally", "version": 1, **known, "sequences": tally.done, "seed": tally.seed}
    write_text(path, json.dumps(record | {k: v.tolist() for k, v in tally.arrays.items()}))


def _resumed(tally: Tally, passes: Passes, tokens: Tensor) -> Tally:
    """The tally that the file holds, or the fresh one; ValueError when the file belongs to another measurement."""
    path = passes.state
    if path is None or not path.exists():
        return tally
    record = read_record(path.read_text(), "unmask.tally")
    if other := [name for name, known in _which(tally, passes, tokens).items() if record.get(name) != known]:
        raise ValueError(
            f"{path} belongs to another measurement (other {other[0]}); remove it to start afresh"
        )
    arrays = {k: np.array(record[k]) for k in ("counts", "sums", "squares")}
    return Tally(tally.length, tally.columns, int(record["seed"]), int(record["sequences"]), arrays)


def fingerprint(tokens: Tensor) -> str:
    """SHA-256 of tokens, hexadecimal."""
    return hashlib.sha256(tokens.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
