"""The encoder and the decoder of a batch: token sources for the loop that samples and scores (`engine.run`).

Source of the coder: constriction (Bamler), its queue: 32-bit words, 64-bit state; the last bytes are cut to what the
decoder needs. All symbols of a group at one step are one call. A *group* is some rows, of one item or of a bundle, that
share a stream.
Rows of a group advance together, so that a stream does not depend on the other groups of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import constriction
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask import engine
from unmask.base.types import Request
from unmask.codec import tables
from unmask.codec.tables import Escapes, Floats, Ints, Law, Rounding, steady

_LAWS = constriction.stream.model.Categorical(perfect=False)
_WORD, _STATE = 32, 64


class Damaged(ValueError):
    """A stream that no encoder wrote, or not with these laws."""


class Encoder:
    """Writes symbols under counts, first in, first out."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def push(self, symbols: Ints, counts: Floats) -> None:
        """Appends symbols int64 [n] under counts float64 [n, V], V at least 2."""
        self._coder.encode(symbols.astype(np.int32), _LAWS, np.ascontiguousarray(counts))

    def finish(self) -> bytes:
        """The shortest bytes, big-endian and without zeros at the end, that lie inside the coder's last interval."""
        position, (lower, size) = self._coder.pos()
        words: NDArray[np.uint32] = self._coder.get_compressed()
        point = int.from_bytes(words.astype(">u4").tobytes(), "big")
        bits = _WORD * position + _STATE
        point <<= bits - _WORD * len(words)
        low = (point >> _STATE << _STATE) + lower
        low -= (low > point) << _STATE  # a carry ran into the words before
        number, zeros = _roundest(low, low + size, bits)
        return (number >> zeros).to_bytes((bits - zeros) // 8, "big").rstrip(b"\0")


def _roundest(low: int, high: int, bits: int) -> tuple[int, int]:
    """The number in low..high - 1 with the most whole zero bytes at the end, and how many of ``bits`` those are."""
    zeros = min(((high - low).bit_length() // 8 + 1) * 8, bits)
    while True:
        number = -(-low >> zeros) << zeros
        if number < high:
            return number, zeros
        zeros -= 8


class Decoder:
    """Reads back what an `Encoder` wrote; beyond the end there are zeros."""

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % 4 + 8)
        self._coder: Any = constriction.stream.queue.RangeDecoder(
            np.frombuffer(padded, ">u4").astype(np.uint32)
        )

    def pop(self, counts: Floats) -> Ints:
        """The next symbols int64 [n] under counts float64 [n, V]; `Damaged` when there can be none."""
        try:
            return np.asarray(self._coder.decode(_LAWS, np.ascontiguousarray(counts)), np.int64)
        except AssertionError:
            raise Damaged("the stream does not fit the model's laws") from None


# --- numbers of any size ----------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """A whole number >= 0 as LEB128: seven bits a byte, the lowest first, the top bit set where more follow."""
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def read_varint(data: bytes, start: int) -> tuple[int, int]:
    """The number of `varint` at ``start`` and where it ends; `Damaged` when it does not, or is beyond 63 bits."""
    number = 0
    for place, byte in enumerate(data[start : start + 9]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, start + place + 1
    raise Damaged("a number has no end")


# --- streams ----------------------------------------------------------------------------------------


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

    def __post_init__(self) -> None:
        self.bits: Floats = np.zeros(len(self.tokens))
        """What the symbols of each row cost so far; infinity where one has probability zero."""

    def __call__(self, request: Request) -> Tensor:
        """The symbols of the requested rows."""
        took = self.tokens[request.items].gather(1, request.rows)
        values, of = self.rounding.values(request)
        counts, possible = tables.counts(values, self.rounding.law.grid)
        symbols = took[request.valid].cpu().numpy()
        self.impossible.update(of[counts[np.arange(len(symbols)), symbols] == 0].tolist())
        self._weigh(request, counts[np.arange(len(symbols)), symbols])
        open_ = possible > 1  # a single possible symbol needs no code
        if not open_.all():
            symbols, counts, of = symbols[open_], counts[open_], of[open_]
        for group, rows in _runs(of):
            if group not in self.impossible:
                self.coders[group].push(symbols[rows], counts[rows])
        return took

    def _weigh(self, request: Request, counts: Floats) -> None:
        """Adds the bits of symbols with these counts to their rows."""
        rows = self.rounding.asked[request.valid.nonzero()[:, 0].cpu().numpy()]
        with np.errstate(divide="ignore"):
            self.bits += np.bincount(rows, -np.log2(counts / tables.TOTAL), len(self.bits))


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


# --- batches ----------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class Encoded:
    """What became of a group: its stream, or None, and the bits of each of its rows float64 [rows].

    There is no stream where a row takes infinitely many bits: the law gives a symbol probability zero, or the order is
    not `steady`.
    """

    stream: Stream | None
    bits: Floats


def encode(law: Law, batch: Batch, symbols: Tensor) -> list[Encoded]:
    """What becomes of each group for ``symbols`` int64 [B, L]."""
    rounding, fragile = Rounding(law, batch.groups), set[int]()
    law = replace(law, selector=steady(law.selector, rounding, fragile))
    writer = Writer(symbols, rounding, [Encoder() for _ in range(batch.count)])
    _run(law, batch, writer, rounding)
    writer.bits[list(fragile)] = np.inf
    rows = np.split(writer.bits, np.flatnonzero(np.diff(batch.groups)) + 1)
    return [
        Encoded(Stream(coder.finish(), rounding.escapes(group)) if np.isfinite(bits).all() else None, bits)
        for group, (coder, bits) in enumerate(zip(writer.coders, rows))
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
