"""The table of a block whose items stand in bundles: their sizes together, then a CRC and lengths for each bundle."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

from unmask.codec.coder import Damaged, read_varint, varint
from unmask.codec.container import counts, names
from unmask.codec.container.form import BLOCK_ITEMS, ESCAPED, RAW, ZLIB, Bundle, Listed

LEAST = 5
"""The fewest bytes that a bundle takes."""


def write(first: int, bundles: Sequence[Bundle], named: bool) -> tuple[bytes, bytes]:
    """Table and payloads of bundles whose items are numbered from ``first``."""
    members = [member for bundle in bundles for member in bundle.members]
    sizes = counts.write([(member.stored, member.size) for member in members])
    table = bytearray(varint(first) + varint(len(members)) + varint(len(sizes)) + sizes)
    for bundle in bundles:
        table += struct.pack("<I", bundle.crc)
        for stored, (kind, payload) in enumerate((bundle.coded, bundle.stored)):
            if any(member.stored == stored for member in bundle.members):
                table += varint(len(payload) << 3 | kind)
    table += names.pack([member.name for member in members], len(table)) if named else b""
    return bytes(table), b"".join(bundle.coded[1] + bundle.stored[1] for bundle in bundles)


def read(table: bytes, offset: int, payloads: int, named: bool, together: int) -> list[Listed]:
    """The items of a table whose payloads begin at ``offset``, ``together`` of them a bundle; `Damaged` if it is none."""
    first, at = read_varint(table, 0)
    count, at = read_varint(table, at)
    length, at = read_varint(table, at)
    if count > BLOCK_ITEMS or LEAST * -(-count // together) > len(table):
        raise Damaged(
            f"the table announces {count} items; a block has at most {BLOCK_ITEMS}, in bundles of {LEAST} bytes or more"
        )
    sizes = counts.read(table[at : at + length], count)
    at, end, found = at + length, offset + payloads, list[Listed]()
    for start in range(0, count, together):
        part = sizes[start : start + together]
        listed, at, offset = _bundle(table, at, first + start, part, offset)
        found += listed
    known, at = (names.unpack(table, at, count), len(table)) if named else ([""] * count, at)
    if at != len(table) or offset != end:
        raise Damaged("the table of the block contradicts itself")
    return [replace(entry, name=name) for entry, name in zip(found, known)]


def _bundle(
    table: bytes, at: int, first: int, sizes: list[tuple[bool, int]], offset: int
) -> tuple[list[Listed], int, int]:
    """The items of the bundle whose part of the table begins at a place, and where that and their payload end."""
    crc, at = int.from_bytes(table[at : at + 4], "little"), at + 4
    parts: dict[bool, tuple[int, int, int]] = {}
    for stored in sorted({stored for stored, _ in sizes}):
        both, at = read_varint(table, at)
        if not (RAW if stored else 0) <= both & 7 <= (ZLIB if stored else ESCAPED):
            raise Damaged("the table of the block contradicts itself")
        parts[stored] = both & 7, offset, both >> 3
        offset += both >> 3
    listed = []
    for number, (stored, size) in enumerate(sizes, first):
        kind, start, length = parts[stored]
        listed.append(Listed(number, kind, size, crc, start, length, "", first))
    return listed, at, offset
