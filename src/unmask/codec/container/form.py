"""What stands in a file: kinds of items, items one by one or in bundles, places of blocks, and what they are checked by."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from unmask.codec.coder import varint

CODED, ESCAPED, RAW, ZSTD, ZLIB = range(5)
"""Kinds of items: coded by the model, the same with escapes, stored, zstd, zlib."""
NAMES = ("coded", "coded with escapes", "stored", "zstd", "zlib")

BLOCK_ITEMS = 256
"""Most items of a block."""

DENSE = 2**8
"""Symbols for each byte of a file, and bytes of packed names for each byte of their table."""

PACKED = 2**11
"""Bytes of stored items for each byte of a file."""


@dataclass(frozen=True)
class Entry:
    """An item in its block: kind, size (symbols if coded, else bytes), `item_crc`, payload, name."""

    kind: int
    size: int
    crc: int
    payload: bytes
    name: str = ""


@dataclass(frozen=True)
class Member:
    """An item of a bundle: whether it is stored, size (symbols if coded, else bytes), name."""

    stored: bool
    size: int
    name: str = ""


@dataclass(frozen=True)
class Bundle:
    """Items that share a payload and its `bundle_crc`: coded ones streams, stored ones a packed block.

    ``coded`` and ``stored`` are kind and bytes of the two parts; empty ones where no item needs them.
    """

    members: tuple[Member, ...]
    crc: int
    coded: tuple[int, bytes] = (CODED, b"")
    stored: tuple[int, bytes] = (RAW, b"")


@dataclass(frozen=True)
class Listed:
    """An item's entry in a block's table, and where its payload, or its part of a bundle's, stands in the file.

    ``first`` is the number of the first item of its bundle; None where it stands by itself.
    """

    number: int
    kind: int
    size: int
    crc: int
    offset: int
    length: int
    name: str
    first: int | None = None

    @property
    def is_coded(self) -> bool:
        """Whether the model says it."""
        return self.kind in (CODED, ESCAPED)


@dataclass(frozen=True)
class Unit:
    """Items that are read together, in order: one by itself, or a bundle."""

    members: tuple[Listed, ...]

    @property
    def coded(self) -> list[Listed]:
        """The items that the model says."""
        return [member for member in self.members if member.is_coded]

    @property
    def stored(self) -> list[Listed]:
        """The others."""
        return [member for member in self.members if not member.is_coded]

    @property
    def lengths(self) -> tuple[int, int]:
        """Bytes of the streams, and of the stored items, which follow these."""
        first, second = self.coded[:1], self.stored[:1]
        return sum(member.length for member in first), sum(member.length for member in second)

    @property
    def offset(self) -> int:
        """Where its payload begins."""
        return min(member.offset for member in self.members)


def units(listed: Iterable[Listed]) -> list[Unit]:
    """Entries of a table, those of a bundle together."""
    return [
        Unit(tuple(found))
        for _, found in groupby(listed, lambda entry: entry.number if entry.first is None else entry.first)
    ]


@dataclass(frozen=True)
class Place:
    """Where a block stands: offset and length in bytes, the number of its first item and how many it has."""

    offset: int
    length: int
    first: int
    count: int


def item_crc(number: int, payload: bytes, data: bytes) -> int:
    """CRC32 of an item's number (64 bits), its payload and its bytes: so an item in another's place is noticed, too."""
    return zlib.crc32(data, zlib.crc32(payload, zlib.crc32(struct.pack("<Q", number))))


def bundle_crc(number: int, payload: bytes, items: Sequence[bytes]) -> int:
    """`item_crc` of a bundle: the number of its first item, its payload, each item's bytes with their number before."""
    return item_crc(number, payload, b"".join(varint(len(data)) + data for data in items))
