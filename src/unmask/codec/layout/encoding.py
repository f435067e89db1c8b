"""From items to entries, or to bundles: coded by the model, or stored where that fails or is longer."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from unmask.codec import container
from unmask.codec.coder import Batch, Encoded, Stream, decode, encode, varint, write_stream
from unmask.codec.container import CODED, ESCAPED, Bundle, Entry, Member
from unmask.codec.layout.batches import Rows, batches, cut, filled, group_rows, row_sizes
from unmask.codec.layout.coding import Coding, symbols_of
from unmask.codec.subjects import Subject
from unmask.codec.tables import Floats, Ints, Law


@dataclass(frozen=True)
class Attempt:
    """What became of items that share a payload: their streams, None for those that failed, and the bits of each item."""

    streams: list[Stream | None]
    bits: list[float]


def attempts(coding: Coding, found: Sequence[Sequence[Ints]], numbers: tuple[int, int]) -> list[Attempt]:
    """What becomes of the symbols of items, those together that share a payload."""
    sizes = [[len(ids) for ids in items] for items in found]
    groups = [group_rows(coding.subject, each, coding.rows) for each in sizes]
    flat = [rows for each in groups for rows in each]
    done = iter(_streams(coding, flat, cut([ids for items in found for ids in items], flat), numbers))
    tried = []
    for each, own in zip(groups, sizes):
        mine = [next(done) for _ in each]
        tried.append(Attempt([part.stream for part in mine], _bits(coding.subject, mine, own)))
    return tried


def _bits(subject: Subject, done: Sequence[Encoded], sizes: Sequence[int]) -> list[float]:
    """The bits of each item, whose rows follow one another."""
    rows: Floats = np.concatenate([np.empty(0), *(part.bits for part in done)])
    ends = np.cumsum([len(row_sizes(subject, size)) for size in sizes])
    return [float(part.sum()) for part in np.split(rows, ends[:-1])] if sizes else []


def _streams(
    coding: Coding, groups: Sequence[Rows], parts: Sequence[Ints], numbers: tuple[int, int]
) -> list[Encoded]:
    """What becomes of every group of symbols; no stream where decoding does not give them back."""
    found: dict[int, Encoded] = {}
    try:
        for places, batch in batches(coding.subject, groups, coding.batch):
            symbols = filled(batch, [parts[p] for p in places])
            done = encode(coding.law, batch, symbols)
            found |= zip(places, _verified(coding.law, batch, symbols, done) if coding.verify else done)
    except ValueError as error:
        raise ValueError(f"items {numbers[0]} to {numbers[1]}: {error}") from error
    return [found[place] for place in range(len(groups))]


def _verified(law: Law, batch: Batch, symbols: Tensor, done: list[Encoded]) -> list[Encoded]:
    """The same without the streams that do not give their symbols back."""
    tokens, broken = decode(law, batch, [part.stream or Stream(b"") for part in done])
    wrong = set(batch.groups[(tokens != symbols).any(1).numpy()].tolist()) | broken
    return [replace(part, stream=None) if group in wrong else part for group, part in enumerate(done)]


def _joined(streams: Sequence[Stream]) -> tuple[int, bytes]:
    """Kind and bytes of streams: each but the last with its length before it."""
    escaped = any(stream.escapes for stream in streams)
    parts = [write_stream(stream) if escaped else stream.data for stream in streams]
    before = [varint(len(part)) + part for part in parts[:-1]]
    return ESCAPED if escaped else CODED, b"".join([*before, *parts[-1:]])


# --- one by one -------------------------------------------------------------------------------------


def encode_items(
    coding: Coding, items: Sequence[bytes], first: int, names: Sequence[str] = ()
) -> list[Entry]:
    """Entries of items numbered from ``first``."""
    found = [symbols_of(coding.subject, data) for data in items]
    tried = attempts(coding, [[] if ids is None else [ids] for ids in found], (first, first + len(items) - 1))
    entries = []
    for i, (data, ids, attempt) in enumerate(zip(items, found, tried)):
        kind, size, payload = _entry(ids, attempt.streams, data, coding.shorter)
        crc = coding.crc(first + i, payload, [data])
        entries.append(Entry(kind, size, crc, payload, names[i] if names else ""))
    return entries


def _entry(
    ids: Ints | None, streams: Sequence[Stream | None], data: bytes, shorter: bool
) -> tuple[int, int, bytes]:
    """Kind, size and payload of an item: coded if it has all its streams and these are not longer than the fallback."""
    whole = [stream for stream in streams if stream is not None]
    kind, payload = container.stored.pack(data)
    if ids is None or len(whole) < len(streams):
        return kind, len(data), payload
    coded, streamed = _joined(whole)
    if (shorter and len(streamed) > len(payload)) or not container.dense_enough(len(ids), len(streamed)):
        return kind, len(data), payload
    return coded, len(ids), streamed


# --- in bundles -------------------------------------------------------------------------------------


def encode_bundles(
    coding: Coding, items: Sequence[bytes], first: int, names: Sequence[str] = ()
) -> list[Bundle]:
    """Bundles of items numbered from ``first``.

    Items that the model cannot say, or in more bits than they take by themselves, are stored; the others are then coded
    again without them.
    """
    size, numbers = coding.together, (first, first + len(items) - 1)
    parts = [items[start : start + size] for start in range(0, len(items), size)]
    known = [_sayable(coding.subject, part) for part in parts]
    tried = attempts(coding, [list(each.values()) for each in known], numbers)
    kept = [_kept(coding, *each) for each in zip(parts, known, tried)]
    again = [n for n, each in enumerate(kept) if len(each) < len(known[n])]
    for n, attempt in zip(again, attempts(coding, [list(kept[n].values()) for n in again], numbers)):
        tried[n] = attempt
    return [
        _bundle(coding, first + size * n, part, kept[n], tried[n].streams, names[size * n : size * (n + 1)])
        for n, part in enumerate(parts)
    ]


def _sayable(subject: Subject, items: Sequence[bytes]) -> dict[int, Ints]:
    """The symbols of those items that the model can say, by place."""
    found = {place: symbols_of(subject, data) for place, data in enumerate(items)}
    return {place: ids for place, ids in found.items() if ids is not None}


def _kept(
    coding: Coding, items: Sequence[bytes], known: dict[int, Ints], attempt: Attempt
) -> dict[int, Ints]:
    """The symbols of those items that are worth their bits."""

    def worth(place: int, bits: float) -> bool:
        most = 8 * len(container.stored.pack(items[place])[1]) if coding.shorter else sys.float_info.max
        return bits <= most

    return {place: known[place] for place, bits in zip(known, attempt.bits) if worth(place, bits)}


def _bundle(
    coding: Coding,
    first: int,
    items: Sequence[bytes],
    kept: dict[int, Ints],
    streams: Sequence[Stream | None],
    names: Sequence[str],
) -> Bundle:
    """A bundle with the streams of what is kept; all of it stored where one failed, or where that is not longer."""
    whole = [stream for stream in streams if stream is not None]
    plain = _made(coding, first, items, {}, [], names)
    if len(whole) < len(streams):
        return plain
    made = _made(coding, first, items, kept, whole, names)
    size = len(made.coded[1])
    longer = coding.shorter and size + len(made.stored[1]) > len(plain.stored[1])
    dense = container.dense_enough(sum(map(len, kept.values())), size, container.bundles.LEAST)
    return plain if longer or not dense else made


def _made(
    coding: Coding,
    first: int,
    items: Sequence[bytes],
    kept: dict[int, Ints],
    streams: Sequence[Stream],
    names: Sequence[str],
) -> Bundle:
    """The bundle whose items are coded if they are kept, and otherwise stored."""
    coded = _joined(streams)
    stored = container.stored.pack(b"".join(data for place, data in enumerate(items) if place not in kept))
    members = [
        Member(place not in kept, len(kept.get(place, data)), names[place] if names else "")
        for place, data in enumerate(items)
    ]
    return Bundle(tuple(members), coding.crc(first, coded[1] + stored[1], items), coded, stored)
