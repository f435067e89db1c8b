"""From log-probabilities to whole-number frequencies, in arithmetic that is the same on every machine.

A log-probability x is rounded to v / 2^grid (`rounded`); from there on everything is whole numbers: weights
w = T[max v - v] with T[k] = round(2^24 exp(-k / 2^grid)), and counts c = 1 + floor(w (2^24 - m) / sum w) of the m possible
symbols, the remainder to the largest (`counts`). The rounding costs about 1e-6 nat a symbol at 2^-8, the floor of
one count m / 2^24. Derived.

Before anything reads a law of the model, `Rounding` puts it on the grid. So selectors, wrappers and the coder see whole
multiples of 2^-grid, the same on both sides. A value that lies within the guard band of a rounding boundary might be
rounded otherwise on another machine: the encoder writes down which way it went (an *escape*), the decoder obeys. A
sighted selector computes in floats from there on: where its choice hangs on their last digits, the item is not coded.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unmask.base.types import Choice, Denoiser, Request, Selector, View
from unmask.orders.selectors import is_blind

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

TOTAL = 2**24
"""What the counts of a law add up to."""

LOWEST = -64
"""Log-probabilities below this, in nats, count as this: far below the least count."""

GRIDS = range(4, 13)
"""Grids 2^-grid that a file may have."""

_POINT = 128
"""Bits after the point while a table is made."""


@lru_cache
def weights(grid: int) -> Ints:
    """round(2^24 exp(-k / 2^grid)) for k = 0, 1, .. up to and with the first 0, int64. Made in whole numbers only."""
    if grid not in GRIDS:
        raise ValueError(f"grid {grid}: expected {GRIDS.start}..{GRIDS.stop - 1}")
    ratio, exact, table = _exponential(grid), TOTAL << _POINT, list[int]()
    while not table or table[-1]:
        table.append((exact + (1 << _POINT - 1)) >> _POINT)
        exact = exact * ratio >> _POINT
    return np.array(table, np.int64)


def _exponential(grid: int) -> int:
    """exp(-2^-grid) times 2^128, to a few units, by its power series."""
    term = total = 1 << _POINT
    n = 0
    while term:
        n += 1
        term = -(abs(term) // (n << grid)) if term > 0 else abs(term) // (n << grid)
        total += term
    return total


def checksum(grid: int) -> int:
    """CRC32 of the table as little-endian 32-bit integers: files carry it."""
    return zlib.crc32(weights(grid).astype("<u4").tobytes())


class Rounded(NamedTuple):
    """Whole multiples of the grid as float64 [n, V], -inf where a symbol is impossible, and what lies near a boundary.

    ``floors`` are the next lower multiples; ``near`` int64 are places in the flattened array.
    """

    values: Floats
    floors: Floats
    near: Ints


def rounded(log_probs: Floats, grid: int, guard: float) -> Rounded:
    """log_probs float64 [n, V], nats, in multiples of 2^-grid; near a boundary means at most ``guard`` nats away.

    ValueError on NaN and on plus infinity.
    """
    scaled = np.maximum(log_probs, LOWEST) * 2.0**grid
    if not (scaled <= -LOWEST * 2.0**grid).all():
        raise ValueError(
            "the model returned NaN or infinite log-probabilities; expected numbers: check its weights"
        )
    floors = np.floor(scaled)
    beyond = scaled - floors - 0.5
    values = floors + (beyond >= 0)
    values[log_probs == -np.inf] = -np.inf
    return Rounded(values, floors, np.flatnonzero(np.abs(beyond) <= guard * 2.0**grid))


class Counts(NamedTuple):
    """Frequencies float64 [n, V], whole numbers that add up to 2^24, and how many symbols are possible, int64 [n]."""

    counts: Floats
    possible: Ints


def counts(values: Floats, grid: int) -> Counts:
    """Frequencies of values [n, V] in multiples of 2^-grid, -inf where impossible; at least 1 where possible.

    ValueError when a row has no possible symbol.
    """
    table, able = weights(grid), values > -np.inf
    possible = able.sum(1)
    if not possible.all():
        raise ValueError(
            "the model gives every symbol probability zero; expected at least one possible symbol"
        )
    below = np.where(able, values.max(1, keepdims=True) - values, len(table))
    found = table[np.minimum(below, len(table) - 1).astype(np.int64)]
    whole = found * (TOTAL - possible)[:, None] // found.sum(1, keepdims=True) + able
    each = np.arange(len(whole))
    whole[each, whole.argmax(1)] += TOTAL - whole.sum(1)
    return Counts(whole.astype(np.float64), possible)


# --- laws -------------------------------------------------------------------------------------------


LEAST_BAND, MOST_BAND = 0.0, 2.0**-12
"""Guard bands, in nats, that a file may have: beyond, a value could lie near two boundaries."""


@dataclass(frozen=True)
class Law:
    """What both sides must agree on: denoiser and selector, sub-steps, the grid 2^-grid and the guard band, in nats.

    ``denoiser`` should compute in float64. Two machines whose log-probabilities are both within ``band`` of the truth
    decode each other's streams.
    """

    denoiser: Denoiser
    selector: Selector
    substeps: int = 1
    grid: int = 8
    band: float = 1e-9

    def __post_init__(self) -> None:
        if not LEAST_BAND <= self.band <= MOST_BAND:
            raise ValueError(f"band {self.band}: expected nats in {LEAST_BAND:g}..{MOST_BAND:g}")
        if not (isinstance(self.substeps, int) and 1 <= self.substeps <= 2**16):
            raise ValueError(f"substeps {self.substeps}: expected 1..{2**16}")
        weights(self.grid)


# --- rounding ---------------------------------------------------------------------------------------


Escapes: TypeAlias = tuple[Ints, NDArray[np.bool_]]
"""Places int64 [n], rising, and which way each value went."""


@dataclass
class Rounding:
    """Puts laws on the grid, and notes (``found``) or obeys (``known``) escapes; one for each batch and direction.

    ``groups`` int64 [B] says which group each row belongs to. Decoders give ``known``, one entry a group.
    """

    law: Law
    groups: Ints
    known: Sequence[Escapes] | None = None
    found: list[tuple[Ints, Ints, NDArray[np.bool_]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.asked: Ints = np.arange(len(self.groups))
        """The place in the batch of each row that was settled last."""
        count = int(self.groups.max(initial=-1)) + 1
        self.passed = np.zeros(count, np.int64)
        self.escaped = self.known is None or any(len(places) for places, _ in self.known)

    def __call__(self, request: Request) -> Tensor:
        """The law of a request with its valid rows on the grid, nats, float64: what `engine.run` calls ``settle``."""
        values, _ = self.values(request)
        out = request.log_probs.double().clone()
        out[request.valid] = torch.from_numpy(values * 2.0**-self.law.grid).to(out.device)
        return out

    def values(self, request: Request) -> tuple[Floats, Ints]:
        """Whole multiples of the grid float64 [n, V] of the valid rows, and the group of each, int64 [n]."""
        self.asked = request.items.cpu().numpy()
        of = self.groups[self.asked[request.valid.nonzero()[:, 0].cpu().numpy()]]
        log_probs = request.log_probs[request.valid].double().cpu().numpy()
        done = rounded(log_probs, self.law.grid, 2 * self.law.band)
        if self.escaped:
            self._escape(done, of)
        self.passed += np.bincount(of, minlength=len(self.passed)) * log_probs.shape[1]
        return done.values, of

    def _places(self, of: Ints, size: int) -> Ints:
        """The place of the first value of each row within its group's values."""
        row = np.arange(len(of))
        first = np.full(len(self.passed), len(of))
        np.minimum.at(first, of, row)
        found: Ints = self.passed[of] + (row - first[of]) * size
        return found

    def _escape(self, done: Rounded, of: Ints) -> None:
        """Notes what lies near a boundary, or overwrites it."""
        size = done.values.shape[1]
        places, flat = self._places(of, size), done.values.reshape(-1)
        if self.known is None:
            row, symbol = np.divmod(done.near, size)
            went_up = flat[done.near] > done.floors.reshape(-1)[done.near]
            if len(row):
                self.found.append((of[row], places[row] + symbol, went_up))
            return
        for group in np.unique(of):
            told, ups = self.known[group]
            mine = np.flatnonzero(of == group)
            low, high = np.searchsorted(told, [places[mine[0]], places[mine[-1]] + size])
            at = mine[0] * size + told[low:high] - places[mine[0]]
            flat[at] = np.where(flat[at] > -np.inf, done.floors.reshape(-1)[at] + ups[low:high], -np.inf)

    def escapes(self, group: int) -> tuple[tuple[int, bool], ...]:
        """What was noted of a group, in order."""
        parts = [(places[of == group], ups[of == group]) for of, places, ups in self.found]
        return tuple((int(p), bool(u)) for places, ups in parts for p, u in zip(places, ups))


# --- choices that hang on a hair --------------------------------------------------------------------


NUDGE = 2.0**-46
"""Nats by which laws are moved to see whether a choice stays: more than the last digits of a float64, far below 1e-9."""


def steady(selector: Selector, rounding: Rounding, fragile: set[int]) -> Selector:
    """The selector, which adds to ``fragile`` the rows where it chooses otherwise when laws move by their last digits.

    Scores are compared on a grid of 1e-9, so that equal ones tie; another machine's exponential could still move a
    score across a boundary of that grid, a probability across a threshold, or a sum of entropies across a budget.
    """
    if is_blind(selector):
        return selector

    def choose(view: View) -> Choice:
        choice = selector(view)
        for parity, nudge in product((0, 1), (NUDGE, -NUDGE)):
            other = selector(_nudged(view, parity, nudge)).rows
            width = max(choice.rows.shape[1], other.shape[1])
            mine, theirs = (
                F.pad(rows, (0, width - rows.shape[1]), value=-1) for rows in (choice.rows, other)
            )
            fragile.update(rounding.asked[(mine != theirs).any(1).cpu().numpy()].tolist())
        return choice

    return replace(selector, choose=choose)


def _nudged(view: View, parity: int, nudge: float) -> View:
    """The view with the law at every second row a little higher, so that symbols which tie still tie."""

    def moved(law: Tensor | None) -> Tensor | None:
        return (
            None
            if law is None
            else law + nudge * (torch.arange(law.shape[1], device=law.device)[:, None] % 2 == parity)
        )

    return replace(view, log_probs=moved(view.log_probs), base_log_probs=moved(view.base_log_probs))
