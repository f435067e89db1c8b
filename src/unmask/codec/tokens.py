"""The encoder and the decoder of a batch: token sources for the loop that samples and scores (`engine.run`).

Before anything reads a law of the model, `Rounding` puts it on the grid. So selectors, wrappers and the coder see whole
multiples of 2^-grid, the same on both sides. A value that lies within the guard band of a rounding boundary might be
rounded otherwise on another machine: the encoder writes down which way it went (an *escape*), the decoder obeys. A
sighted selector computes in floats from there on: where its choice hangs on their last digits, the group is not coded.

A *group* is some rows of one item that share a stream. Rows of a group advance together, so that a stream does not
depend on the other groups of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unmask import engine
from unmask.base.types import Choice, Denoiser, Request, Selector, View
from unmask.codec import tables
from unmask.codec.coder import Damaged, Decoder, Encoder, read_varint, varint
from unmask.codec.tables import Floats, Ints
from unmask.orders.selectors import is_blind

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
        tables.weights(self.grid)


@dataclass(frozen=True)
class Stream:
    """The code of a group: bytes of the range coder, and escapes as (place, up), in order.

    A place counts the values that were rounded for the group so far; ``up`` says which way the value there went.
    """

    data: bytes
    escapes: tuple[tuple[int, bool], ...] = ()


def write_stream(stream: Stream) -> bytes:
    """A stream with its escapes: their number, then each as 2 (place - place before - 1) + up, then the coder's bytes."""
    parts, before = [varint(len(stream.escapes))], -1
    for place, up in stream.escapes:
        parts.append(varint(place - before - 1 << 1 | up))
        before = place
    return b"".join([*parts, stream.data])


def read_stream(data: bytes) -> Stream:
    """The stream of `write_stream`; `Damaged` when it is none."""
    count, start = read_varint(data, 0)
    if count > len(data) - start:
        raise Damaged(f"{count} escapes are announced in {len(data)} bytes")
    escapes, before = [], -1
    for _ in range(count):
        number, start = read_varint(data, start)
        before += 1 + (number >> 1)
        escapes.append((before, bool(number & 1)))
    if before >= 2**62:
        raise Damaged("an escape lies beyond all values")
    return Stream(data[start:], tuple(escapes))


# --- rounding -------------------------------------------------------------------------------------


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
        self.owner = self.groups
        """The group of each row that was settled last."""
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
        self.owner = self.groups[request.items.cpu().numpy()]
        of = self.owner[request.valid.nonzero()[:, 0].cpu().numpy()]
        log_probs = request.log_probs[request.valid].double().cpu().numpy()
        done = tables.rounded(log_probs, self.law.grid, 2 * self.law.band)
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

    def _escape(self, done: tables.Rounded, of: Ints) -> None:
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


# --- the two token sources --------------------------------------------------------------------------


def _runs(of: Ints) -> Iterator[tuple[int, slice]]:
    """Each group with its stretch of rows; rows of a group stand together."""
    ends = np.flatnonzero(np.diff(of, append=-1)) + 1
    start = 0
    for end in ends.tolist():
        yield int(of[start]), slice(start, end)
        start = end


@dataclass
class Writer:
    """The token source that writes tokens int64 [B, L] to a stream for each group."""

    tokens: Tensor
    rounding: Rounding
    coders: list[Encoder]
    impossible: set[int] = field(default_factory=set)
    """Groups with a symbol that the law gives probability zero."""

    def __call__(self, request: Request) -> Tensor:
        """The symbols of the requested rows."""
        took = self.tokens[request.items].gather(1, request.rows)
        values, of = self.rounding.values(request)
        counts, possible = tables.counts(values, self.rounding.law.grid)
        symbols = took[request.valid].cpu().numpy()
        self.impossible.update(of[counts[np.arange(len(symbols)), symbols] == 0].tolist())
        open_ = possible > 1  # a single possible symbol needs no code
        if not open_.all():
            symbols, counts, of = symbols[open_], counts[open_], of[open_]
        for group, rows in _runs(of):
            if group not in self.impossible:
                self.coders[group].push(symbols[rows], counts[rows])
        return took


@dataclass
class Reader:
    """The token source that reads symbols from the stream of each group."""

    rounding: Rounding
    coders: list[Decoder]
    broken: set[int] = field(default_factory=set)
    """Groups whose stream does not fit the laws; what is returned for them is of no use."""

    def __call__(self, request: Request) -> Tensor:
        """The symbols of the requested rows; 0 at the others."""
        values, of = self.rounding.values(request)
        counts, possible = tables.counts(values, self.rounding.law.grid)
        symbols = counts.argmax(1)
        open_ = np.flatnonzero(possible > 1)
        chosen = counts if len(open_) == len(of) else counts[open_]
        for group, rows in _runs(of[open_]):
            if group not in self.broken:
                symbols[open_[rows]] = self._pop(group, chosen[rows], symbols[open_[rows]])
        took = torch.zeros_like(request.rows)
        took[request.valid] = torch.from_numpy(symbols).to(took.device)
        return took

    def _pop(self, group: int, counts: Floats, likely: Ints) -> Ints:
        """Symbols from a group's stream; from a broken one, ``likely`` symbols."""
        try:
            found = self.coders[group].pop(counts)
        except Damaged:
            self.broken.add(group)
            return likely
        if (counts[np.arange(len(found)), found] == 0).any():
            self.broken.add(group)
            return likely
        return found


# --- choices that hang on a hair ----------------------------------------------------------------------


NUDGE = 2.0**-46
"""Nats by which laws are moved to see whether a choice stays: more than the last digits of a float64, far below 1e-9."""


def steady(selector: Selector, rounding: Rounding, fragile: set[int]) -> Selector:
    """The selector, which adds to ``fragile`` the groups where it chooses otherwise when laws move by their last digits.

    Scores are compared on a grid of 1e-9, so that equal ones tie; another machine's exponential could still move a
    score across a boundary of that grid.
    """
    if is_blind(selector):
        return selector

    def choose(view: View) -> Choice:
        choice = selector(view)
        other = selector(_nudged(view)).rows
        width = max(choice.rows.shape[1], other.shape[1])
        mine, theirs = (F.pad(rows, (0, width - rows.shape[1]), value=-1) for rows in (choice.rows, other))
        fragile.update(rounding.owner[(mine != theirs).any(1).cpu().numpy()].tolist())
        return choice

    return replace(selector, choose=choose)


def _nudged(view: View) -> View:
    """The view with the law at every second row a little lower, so that symbols which tie still tie."""

    def moved(law: Tensor | None) -> Tensor | None:
        return (
            None
            if law is None
            else law - NUDGE * (torch.arange(law.shape[1], device=law.device)[:, None] % 2)
        )

    return replace(view, log_probs=moved(view.log_probs), base_log_probs=moved(view.base_log_probs))


# --- batches --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Rows that go through the loop together: tokens int64 [B, L] with the mask where hidden, and what is to be coded.

    ``masked`` bool [B, L] are the positions to code; ``groups`` int64 [B] rise by 0 or 1 from 0.
    """

    tokens: Tensor
    masked: Tensor
    groups: Ints

    @property
    def count(self) -> int:
        """Number of groups."""
        return int(self.groups[-1]) + 1 if len(self.groups) else 0


def encode(law: Law, batch: Batch, symbols: Tensor) -> list[Stream | None]:
    """The stream of each group for ``symbols`` int64 [B, L].

    None where the law gives a symbol probability zero, or the order is not `steady`.
    """
    rounding, fragile = Rounding(law, batch.groups), set[int]()
    law = replace(law, selector=steady(law.selector, rounding, fragile))
    writer = Writer(symbols, rounding, [Encoder() for _ in range(batch.count)])
    _run(law, batch, writer, rounding)
    return [
        None if group in writer.impossible | fragile else Stream(coder.finish(), rounding.escapes(group))
        for group, coder in enumerate(writer.coders)
    ]


def decode(law: Law, batch: Batch, streams: Sequence[Stream]) -> tuple[Tensor, set[int]]:
    """Symbols int64 [B, L] from the stream of each group, and the groups whose stream does not fit."""
    known = [_arrays(stream.escapes) for stream in streams]
    rounding = Rounding(law, batch.groups, known)
    reader = Reader(rounding, [Decoder(stream.data) for stream in streams])
    return _run(law, batch, reader, rounding), reader.broken


def _arrays(escapes: tuple[tuple[int, bool], ...]) -> Escapes:
    places = np.array([place for place, _ in escapes], np.int64)
    return places, np.array([up for _, up in escapes], np.bool_)


def _run(law: Law, batch: Batch, source: Writer | Reader, rounding: Rounding) -> Tensor:
    """The tokens after all steps."""
    if not batch.masked.any():
        return batch.tokens
    with exact():
        state = engine.init(batch.tokens, law.denoiser.mask_id, masked=batch.masked)
        state, _ = engine.run(
            state, law.denoiser, law.selector, source, substeps=law.substeps, settle=rounding
        )
    return state.tokens


@contextmanager
def exact() -> Iterator[None]:
    """Float64 as the default kind of float, no autocast, no gradients: constants that a network makes are exact too."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        torch.set_default_dtype(before)
