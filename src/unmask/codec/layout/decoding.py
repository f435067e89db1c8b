"""From payloads back to the bytes of items; nothing is computed for what a file of its size may not hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from unmask.codec import container
from unmask.codec.coder import Batch, Damaged, Stream, decode, read_stream, read_varint
from unmask.codec.container import ESCAPED, Budget, Listed, Unit
from unmask.codec.layout.batches import Rows, batches, cut, emptied, group_rows
from unmask.codec.layout.coding import Coding
from unmask.codec.subjects import Subject
from unmask.codec.tables import Ints


@dataclass
class Found:
    """What is known of a unit: its payload, groups and their streams, symbols, and what is wrong with it."""

    unit: Unit
    payload: bytes
    groups: list[Rows] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    symbols: list[Ints] = field(default_factory=list)
    wrong: Damaged | None = None

    @property
    def whose(self) -> str:
        """Whose payload it is."""
        first, last = self.unit.members[0].number, self.unit.members[-1].number
        return "its" if self.unit.members[0].first is None else f"the bundle of items {first} to {last}: its"


def decode_units(
    coding: Coding, units: Sequence[Unit], payloads: Sequence[bytes], budget: Budget
) -> list[list[bytes] | Damaged]:
    """The bytes of each unit's items, or what is wrong with it; nothing is computed for what exceeds the budget."""
    found = [_opened(coding, unit, payload, budget) for unit, payload in zip(units, payloads)]
    _read(coding, found)
    return [each.wrong or _restored(coding, each) for each in found]


def _opened(coding: Coding, unit: Unit, payload: bytes, budget: Budget) -> Found:
    """A unit with its streams, or with what is wrong."""
    found = Found(unit, payload)
    try:
        budget.take(unit)
        for member in unit.coded:
            _check_size(coding, member)
        sizes = [member.size for member in unit.coded]
        count = -(-sum(-(-size // coding.subject.length) for size in sizes) // coding.rows)
        streams = payload[: unit.lengths[0]]
        if count - 1 > len(streams):
            raise Damaged(f"field size: {sum(sizes)} symbols in {len(streams)} bytes")
        found.streams = _streams(streams, count, any(member.kind == ESCAPED for member in unit.coded))
        found.groups = group_rows(coding.subject, sizes, coding.rows)
    except Damaged as error:
        found.wrong = error
    return found


def _check_size(coding: Coding, entry: Listed) -> None:
    """`Damaged` when a coded item cannot have so many symbols."""
    subject, plan = coding.subject, coding.method.plan
    if (subject.ends and entry.size > subject.length) or (subject.whole and entry.size != subject.length):
        raise Damaged(f"field size: {entry.size} symbols, expected {subject.length} or fewer")
    block = coding.method.block or subject.length
    rows = {min(entry.size, subject.length), entry.size % subject.length} - {0}
    asked = {part for n in rows for part in (min(n, block), n % block)} - {0}
    if not isinstance(plan, int) and not all(n in plan for n in asked):
        raise Damaged(f"field size: {entry.size} symbols, for which the archive has no plan")


def _streams(payload: bytes, count: int, escaped: bool) -> list[Stream]:
    """So many streams, each but the last with its length before it."""
    parts, at = list[bytes](), 0
    for _ in range(count - 1):
        length, at = read_varint(payload, at)
        parts.append(payload[at : at + length])
        at += length
    parts += [payload[at:]] if count else []
    return [read_stream(part) if escaped else Stream(part) for part in parts]


def _read(coding: Coding, found: Sequence[Found]) -> None:
    """Adds the symbols of all groups, and says which units have a stream that does not fit."""
    owner = [each for each in found for _ in each.groups]
    groups = [rows for each in found for rows in each.groups]
    streams = [stream for each in found for stream in each.streams]
    parts: list[Ints] = [np.empty(0, np.int64)] * len(groups)
    for places, batch in batches(coding.subject, groups, coding.batch):
        tokens, broken = _decoded(coding, batch, [streams[place] for place in places])
        for group in broken:
            owner[places[group]].wrong = Damaged(
                f"{owner[places[group]].whose} stream does not fit the model: it is damaged, or this machine computes "
                "too differently"
            )
        for place, ids in zip(places, emptied(batch, tokens, [groups[p] for p in places])):
            parts[place] = ids
    for each, ids in zip(owner, parts):
        each.symbols.append(ids)


def _decoded(coding: Coding, batch: Batch, streams: Sequence[Stream]) -> tuple[Tensor, set[int]]:
    """`decode`; where a rule refuses the rows, because its plan is for others, all groups count as broken."""
    try:
        return decode(coding.law, batch, streams)
    except ValueError:
        if coding.method.rule is None:
            raise
        return batch.tokens, set(range(batch.count))


def _restored(coding: Coding, found: Found) -> list[bytes] | Damaged:
    """The bytes of a unit's items from symbols or stored block, if they have its CRC."""
    unit = found.unit
    try:
        items = _merged(unit, _said(coding.subject, found), _unpacked(unit, found.payload))
    except ValueError as error:
        return Damaged(f"{found.whose} payload is damaged ({error})")
    if coding.crc(unit.members[0].number, found.payload, items) != unit.members[0].crc:
        return Damaged(
            f"field CRC does not fit: {found.whose} payload is damaged, or this machine computes too differently from "
            "the writer's"
        )
    return items


def _said(subject: Subject, found: Found) -> list[bytes]:
    """The bytes of the coded items."""
    sizes: list[Rows] = [(member.size,) for member in found.unit.coded]
    return [subject.data(ids) for ids in cut(found.symbols, sizes)]


def _unpacked(unit: Unit, payload: bytes) -> list[bytes]:
    """The bytes of the stored items."""
    ends = np.cumsum([member.size for member in unit.stored]).tolist()
    if not ends:
        return []
    data = container.stored.unpack(unit.stored[0].kind, payload[unit.lengths[0] :], ends[-1])
    return [data[start:end] for start, end in zip([0, *ends], ends)]


def _merged(unit: Unit, coded: list[bytes], stored: list[bytes]) -> list[bytes]:
    """All items in order."""
    said, kept = iter(coded), iter(stored)
    return [next(said) if member.is_coded else next(kept) for member in unit.members]
