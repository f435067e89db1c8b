"""From items to batches and back: groups of rows that share a stream, fallback blocks, payloads, verification."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unmask import engine
from unmask.codec import container
from unmask.codec.coder import (
    Batch,
    Damaged,
    Stream,
    decode,
    encode,
    exact,
    read_stream,
    read_varint,
    varint,
    write_stream,
)
from unmask.codec.container import CODED, ESCAPED, PACKED, RAW, ZLIB, ZSTD, Budget, Entry, Listed
from unmask.codec.settings import Method
from unmask.codec.subjects import Subject
from unmask.codec.tables import Ints, Law
from unmask.orders.sources import given

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

GROUP = 16
"""Rows of an item that share a stream and advance together."""
WINDOW: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}
"""A zstd block may ask for no more than 8 MiB of memory."""
SMALL: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 19,
    zstd.CompressionParameter.content_size_flag: 0,
}
"""How blocks are packed; the table of entries says how many bytes come back."""


@dataclass(frozen=True)
class Coding:
    """All that turns bytes of items into entries and back; at least ``batch`` rows go through the model at once.

    The file does not depend on ``batch``; ``verify`` decodes every item after encoding. ``shorter`` stores items that
    coding would make longer; tests of escapes, of which wide bands make many, leave them coded.
    """

    subject: Subject
    law: Law
    method: Method
    batch: int = 64
    verify: bool = True
    shorter: bool = True


# --- groups and batches ---------------------------------------------------------------------------


def group_sizes(subject: Subject, size: int) -> list[int]:
    """Symbols in each group of an item of ``size`` symbols."""
    whole = GROUP * subject.length
    return [whole] * (size // whole) + ([size % whole] if size % whole else [])


def row_sizes(subject: Subject, size: int) -> list[int]:
    """Symbols in each row of a group, or of an item."""
    length = subject.length
    return [length] * (size // length) + ([size % length] if size % length else [])


def batches(subject: Subject, sizes: Sequence[int], rows: int) -> Iterator[tuple[list[int], Batch]]:
    """Groups of these sizes in batches of at least ``rows`` rows, like sizes together: their places, and the batch."""
    places, count = [], 0
    for place in sorted(range(len(sizes)), key=lambda g: sizes[g]):
        places.append(place)
        count += len(row_sizes(subject, sizes[place]))
        if count >= rows:
            yield places, _batch(subject, [sizes[p] for p in places])
            places, count = [], 0
    if places:
        yield places, _batch(subject, [sizes[p] for p in places])


def _batch(subject: Subject, sizes: Sequence[int]) -> Batch:
    """The batch of groups of these sizes, all hidden; with ``ends``, what comes after an item is visible."""
    parts = [row_sizes(subject, size) for size in sizes]
    counts = torch.tensor([n for rows in parts for n in rows])
    if subject.frame is not None:
        tokens, masked = _framed(subject, counts)
        return Batch(tokens, masked, np.repeat(np.arange(len(sizes)), [len(rows) for rows in parts]))
    width = min(subject.length, int(counts.max()) + 1) if subject.cut else subject.length
    masked = torch.arange(width) < counts[:, None]
    tokens = torch.full(masked.shape, subject.denoiser.mask_id)
    if subject.ends:
        tokens[~masked] = subject.denoiser.vocab_size - 1
    return Batch(tokens, masked, np.repeat(np.arange(len(sizes)), [len(rows) for rows in parts]))


def _framed(subject: Subject, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens int64 [B, L] of rows with so many masked symbols int64 [B] inside their frame, and where those are."""
    assert subject.frame is not None
    before, after, fill = subject.frame
    place = torch.arange(len(before) + int(counts.max()) + len(after)) - len(before)
    tokens = torch.full((len(counts), len(place)), fill)
    tokens[:, : len(before)] = torch.tensor(before)
    masked = (place >= 0) & (place < counts[:, None])
    tokens[masked] = subject.denoiser.mask_id
    for i, symbol in enumerate(after):
        tokens[place == counts[:, None] + i] = symbol
    return tokens, masked


def _filled(batch: Batch, ids: Sequence[Ints]) -> Tensor:
    """The batch's tokens with the symbols of its groups."""
    tokens = batch.tokens.clone()
    tokens[batch.masked] = torch.from_numpy(np.concatenate(ids))
    return tokens


def _emptied(batch: Batch, tokens: Tensor, sizes: Sequence[int]) -> list[Ints]:
    """The symbols of each group."""
    return np.split(tokens[batch.masked].numpy(), np.cumsum(sizes)[:-1])


# --- encoding -------------------------------------------------------------------------------------


def symbols_of(subject: Subject, data: bytes) -> Ints | None:
    """The symbols of an item's bytes; None where the model cannot say them."""
    try:
        ids = subject.symbols(data)
    except ValueError:
        return None
    top = subject.denoiser.vocab_size - (1 if subject.ends else 0)
    known = (ids >= 0) & (ids < top) & (ids != subject.denoiser.mask_id)
    fits = len(ids) == subject.length if subject.whole else len(ids) <= subject.length or not subject.ends
    return ids if known.all() and fits else None


def encode_items(
    coding: Coding, items: Sequence[bytes], first: int, names: Sequence[str] = ()
) -> list[Entry]:
    """Entries of items numbered from ``first``: coded by the model, or stored where that fails or is longer."""
    found = [symbols_of(coding.subject, data) for data in items]
    sizes, owner, parts = _grouped(coding.subject, found)
    streams = _streams(coding, parts, (first, first + len(items) - 1))
    entries = []
    for i, data in enumerate(items):
        mine = [streams[g] for g, item in enumerate(owner) if item == i] if sizes[i] else []
        kind, size, payload = _entry(found[i], mine, data, coding.shorter)
        name = names[i] if names else ""
        entries.append(Entry(kind, size, container.item_crc(first + i, payload, data), payload, name))
    return entries


def _grouped(subject: Subject, found: Sequence[Ints | None]) -> tuple[list[list[int]], list[int], list[Ints]]:
    """Sizes of each item's groups, the item of every group, and the symbols of every group."""
    sizes = [[] if ids is None else group_sizes(subject, len(ids)) for ids in found]
    owner = [i for i, groups in enumerate(sizes) for _ in groups]
    parts = [
        p
        for ids, groups in zip(found, sizes)
        if ids is not None
        for p in np.split(ids, np.cumsum(groups)[:-1])
        if groups
    ]
    return sizes, owner, parts


def _streams(coding: Coding, parts: Sequence[Ints], numbers: tuple[int, int]) -> list[Stream | None]:
    """The stream of every group of symbols; None where the law forbids a symbol, or decoding does not give it back."""
    streams: list[Stream | None] = [None] * len(parts)
    try:
        for places, batch in batches(coding.subject, [len(p) for p in parts], coding.batch):
            symbols = _filled(batch, [parts[p] for p in places])
            done = encode(coding.law, batch, symbols)
            if coding.verify:
                done = _verified(coding.law, batch, symbols, done)
            for place, stream in zip(places, done):
                streams[place] = stream
    except ValueError as error:
        raise ValueError(f"items {numbers[0]} to {numbers[1]}: {error}") from error
    return streams


def _verified(law: Law, batch: Batch, symbols: Tensor, streams: list[Stream | None]) -> list[Stream | None]:
    """The streams, None for those that do not give their symbols back."""
    tokens, broken = decode(law, batch, [s or Stream(b"") for s in streams])
    wrong = set(batch.groups[(tokens != symbols).any(1).numpy()].tolist()) | broken
    return [None if group in wrong else stream for group, stream in enumerate(streams)]


def _entry(
    ids: Ints | None, streams: list[Stream | None], data: bytes, shorter: bool
) -> tuple[int, int, bytes]:
    """Kind, size and payload of an item: coded if it has all its streams and these are not longer than the fallback."""
    kind, payload = _stored(data)
    if ids is None or None in streams:
        return kind, len(data), payload
    escaped = any(s.escapes for s in streams if s)
    parts = [write_stream(s) if escaped else s.data for s in streams if s]
    coded = b"".join(varint(len(p)) + p for p in parts[:-1]) + (parts[-1] if parts else b"")
    if (shorter and len(coded) > len(payload)) or not container.dense_enough(len(ids), len(coded)):
        return kind, len(data), payload
    return ESCAPED if escaped else CODED, len(ids), coded


def _stored(data: bytes) -> tuple[int, bytes]:
    """Kind and payload of an item that the model does not code; zlib where zstd packs more than readers accept."""
    kind, packed = ZSTD, zstd.compress(data, options=SMALL)
    if len(data) > PACKED * len(packed):
        kind, packed = ZLIB, zlib.compress(data, 9)
    return (kind, packed) if len(packed) < len(data) else (RAW, data)


# --- decoding -------------------------------------------------------------------------------------


def decode_items(
    coding: Coding, listed: Sequence[Listed], payloads: Sequence[bytes], budget: Budget
) -> list[bytes | Damaged]:
    """The bytes of each item, or what is wrong with it; nothing is computed for what exceeds the budget."""
    streams: list[list[Stream]] = []
    sizes: list[list[int]] = []
    wrong: dict[int, Damaged] = {}
    for i, (entry, payload) in enumerate(zip(listed, payloads)):
        try:
            budget.take(entry)
            found = _read_streams(coding, entry, payload) if entry.kind in (CODED, ESCAPED) else []
        except Damaged as error:
            wrong[i], found = error, []
        streams.append(found)
        sizes.append(group_sizes(coding.subject, entry.size) if found else [])
    symbols, broken = _symbols(coding, streams, sizes)
    return [
        wrong.get(i) or _restored(coding.subject, entry, payload, symbols[i], i in broken)
        for i, (entry, payload) in enumerate(zip(listed, payloads))
    ]


def _read_streams(coding: Coding, entry: Listed, payload: bytes) -> list[Stream]:
    """The streams of a coded item's groups; `Damaged` when it cannot have so many symbols."""
    subject, plan = coding.subject, coding.method.plan
    if (subject.ends and entry.size > subject.length) or (subject.whole and entry.size != subject.length):
        raise Damaged(f"field size: {entry.size} symbols, expected {subject.length} or fewer")
    whole = GROUP * subject.length
    count = -(-entry.size // whole)
    if count - 1 > len(payload):
        raise Damaged(f"field size: {entry.size} symbols in {len(payload)} bytes")
    block = coding.method.block or subject.length
    rows = {min(entry.size, subject.length), entry.size % subject.length} - {0}
    asked = {part for n in rows for part in (min(n, block), n % block)} - {0}
    if not isinstance(plan, int) and not all(n in plan for n in asked):
        raise Damaged(f"field size: {entry.size} symbols, for which the archive has no plan")
    parts, at = [], 0
    for _ in range(count - 1):
        length, at = read_varint(payload, at)
        parts.append(payload[at : at + length])
        at += length
    parts += [payload[at:]] if count else []
    return [read_stream(p) if entry.kind == ESCAPED else Stream(p) for p in parts]


def _symbols(
    coding: Coding, streams: Sequence[Sequence[Stream]], sizes: Sequence[Sequence[int]]
) -> tuple[list[Ints], set[int]]:
    """The symbols of each item, and the items with a stream that does not fit."""
    owner = [i for i, groups in enumerate(sizes) for _ in groups]
    each = [n for groups in sizes for n in groups]
    all_streams = [s for item in streams for s in item]
    parts: list[Ints] = [np.empty(0, np.int64)] * len(each)
    broken: set[int] = set()
    for places, batch in batches(coding.subject, each, coding.batch):
        tokens, bad = _decoded(coding, batch, [all_streams[p] for p in places])
        broken.update(owner[places[group]] for group in bad)
        for place, ids in zip(places, _emptied(batch, tokens, [each[p] for p in places])):
            parts[place] = ids
    joined = [[np.empty(0, np.int64)] for _ in sizes]
    for item, ids in zip(owner, parts):
        joined[item].append(ids)
    return [np.concatenate(ids) for ids in joined], broken


def _decoded(coding: Coding, batch: Batch, streams: Sequence[Stream]) -> tuple[Tensor, set[int]]:
    """`decode`; where a rule refuses the rows, because its plan is for others, all groups count as broken."""
    try:
        return decode(coding.law, batch, streams)
    except ValueError:
        if coding.method.rule is None:
            raise
        return batch.tokens, set(range(batch.count))


def _restored(subject: Subject, entry: Listed, payload: bytes, ids: Ints, broken: bool) -> bytes | Damaged:
    """An item's bytes from its symbols or its stored block, if they have its CRC."""
    try:
        if broken:
            return Damaged(
                "its stream does not fit the model: it is damaged, or this machine computes too differently"
            )
        data = subject.data(ids) if entry.kind in (CODED, ESCAPED) else _unpacked(entry, payload)
    except ValueError as error:
        return Damaged(f"its payload is damaged ({error})")
    if container.item_crc(entry.number, payload, data) != entry.crc:
        return Damaged(
            "field CRC does not fit: its payload is damaged, or this machine computes too differently from the writer's"
        )
    return data


def _unpacked(entry: Listed, payload: bytes) -> bytes:
    """The bytes of a stored block; ValueError unless they are as many as the table says."""
    data = payload
    if entry.kind == ZLIB:
        data = _inflated(payload, entry.size)
    if entry.kind == ZSTD:
        data = _unzstd(payload, entry.size)
    if len(data) != entry.size:
        raise ValueError(f"{len(data)} bytes instead of {entry.size}")
    return data


def _inflated(payload: bytes, size: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(payload, size + 1)
    except (zlib.error, OverflowError):
        raise ValueError("no zlib block") from None


def _unzstd(payload: bytes, size: int) -> bytes:
    try:
        return zstd.ZstdDecompressor(options=WINDOW).decompress(payload, size + 1)
    except zstd.ZstdError:
        raise ValueError("no zstd block") from None


# --- likelihood -----------------------------------------------------------------------------------


def log_likelihoods(coding: Coding, items: Sequence[bytes]) -> list[float | None]:
    """Nats of each item under the same law and plan before any rounding; None where the model cannot say it."""
    found = [symbols_of(coding.subject, data) for data in items]
    totals: list[float | None] = [None if ids is None else 0.0 for ids in found]
    _, owner, parts = _grouped(coding.subject, found)
    for places, batch in batches(coding.subject, [len(p) for p in parts], coding.batch):
        for place, nats in zip(
            places, _scores(coding.law, batch, _filled(batch, [parts[p] for p in places]))
        ):
            totals[owner[place]] = (totals[owner[place]] or 0.0) + nats
    return totals


def _scores(law: Law, batch: Batch, symbols: Tensor) -> list[float]:
    """Log-probability of each group, nats."""
    with exact():
        state = engine.init(batch.tokens, law.denoiser.mask_id, masked=batch.masked)
        state, _ = engine.run(state, law.denoiser, law.selector, given(symbols), substeps=law.substeps)
    found: list[float] = np.bincount(batch.groups, state.log_prob.numpy()).tolist()
    return found
