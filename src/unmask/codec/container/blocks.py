"""Blocks of items and the index of blocks at the end: a block can be read without the others.

Where ``together`` items share a bundle, a block's table is that of `bundles`.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from unmask.codec.coder import Damaged, read_varint, varint
from unmask.codec.container import bundles, names
from unmask.codec.container.form import BLOCK_ITEMS, ZLIB, Bundle, Entry, Listed, Place
from unmask.codec.container.header import PACKED_NAMES
from unmask.codec.container.limits import LEAST_ENTRY

BLOCK, END, CLOSE = b"UMZB", b"UMZE", b"UMZ.end\n"

_BLOCK = struct.Struct("<4sIQI")
CLOSING = struct.Struct("<Q8s")
_EMPTY = _BLOCK.size + 2
"""Bytes of a block without items."""


# --- blocks -----------------------------------------------------------------------------------------


def write_block(first: int, entries: Sequence[Entry], named: int) -> bytes:
    """A block of items, numbered from ``first``: its lengths and CRC, a table, the payloads.

    ``named`` 1 puts each name into its entry, 2 (`PACKED_NAMES`) all behind the entries, under zlib.
    """
    table = bytearray(varint(first) + varint(len(entries)))
    for entry in entries:
        table += varint(len(entry.payload) << 3 | entry.kind) + varint(entry.size)
        table += struct.pack("<I", entry.crc)
        table += names.write(entry.name) if named and named != PACKED_NAMES else b""
    table += names.pack([entry.name for entry in entries], len(table)) if named == PACKED_NAMES else b""
    return _block(bytes(table), b"".join(entry.payload for entry in entries))


def write_bundles(first: int, found: Sequence[Bundle], named: bool) -> bytes:
    """A block of bundles whose items are numbered from ``first``; names stand behind all else, under zlib."""
    return _block(*bundles.write(first, found, named))


def _block(table: bytes, payloads: bytes) -> bytes:
    head = _BLOCK.pack(BLOCK, len(table), len(payloads), 0)[:-4]
    return head + struct.pack("<I", zlib.crc32(table, zlib.crc32(head))) + table + payloads


def block_length(head: bytes) -> int | None:
    """Bytes of the block that begins so; None where no block does."""
    if len(head) < _BLOCK.size or not head.startswith(BLOCK):
        return None
    _, table, payloads, _ = _BLOCK.unpack(head[: _BLOCK.size])
    return _BLOCK.size + int(table) + int(payloads)


def read_table(
    file: BinaryIO, offset: int, limit: int, named: int, together: int = 1
) -> tuple[list[Listed], int]:
    """The table of the block at ``offset`` and where the block ends; `Damaged` when none ends before ``limit``."""
    file.seek(offset)
    head = file.read(_BLOCK.size)
    length = block_length(head)
    if length is None or offset + length > limit:
        raise Damaged("the head of the block is damaged, or the archive is truncated in it")
    _, size, payloads, crc = _BLOCK.unpack(head)
    table = file.read(size)
    if zlib.crc32(table, zlib.crc32(head[:-4])) != crc:
        raise Damaged("field block CRC does not fit: the table of the block is damaged")
    start = offset + _BLOCK.size + size
    if together > 1:
        return bundles.read(table, start, payloads, bool(named), together), offset + length
    return _listed(table, start, payloads, named), offset + length


def _listed(table: bytes, offset: int, payloads: int, named: int) -> list[Listed]:
    first, at = read_varint(table, 0)
    count, at = read_varint(table, at)
    found, end = [], offset + payloads
    if count > BLOCK_ITEMS:
        raise Damaged(f"the table announces {count} items; a block has at most {BLOCK_ITEMS}")
    for number in range(first, first + count):
        both, at = read_varint(table, at)
        size, at = read_varint(table, at)
        crc = int.from_bytes(table[at : at + 4], "little")
        at, name = at + 4, ""
        if named and named != PACKED_NAMES:
            name, at = names.read(table, at)
        if both & 7 > ZLIB or offset + (both >> 3) > end or at > len(table):
            raise Damaged("the table of the block contradicts itself")
        found.append(Listed(number, both & 7, size, crc, offset, both >> 3, name))
        offset += both >> 3
    if named == PACKED_NAMES:
        known, at = names.unpack(table, at, count), len(table)
        found = [replace(entry, name=name) for entry, name in zip(found, known)]
    if at != len(table) or offset != end:
        raise Damaged("the table of the block contradicts itself")
    return found


# --- index ------------------------------------------------------------------------------------------


def write_index(start: int, places: Sequence[Place], more: dict[str, Any]) -> bytes:
    """The end of a file that is ``start`` bytes long so far: lengths and counts of all blocks, and how to find this."""
    body = varint(len(places)) + b"".join(varint(p.length) + varint(p.count) for p in places)
    text = json.dumps(more, sort_keys=True, separators=(",", ":")).encode()
    body += varint(len(text)) + text
    head = END + struct.pack("<Q", len(body))
    return head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + body + CLOSING.pack(start, CLOSE)


def read_index(file: BinaryIO, header_end: int, together: int = 1) -> tuple[list[Place], dict[str, Any]]:
    """Where every block stands, and what else the end says; `Damaged` when it is missing or does not fit."""
    size = file.seek(0, 2)
    if size < header_end + 16 + CLOSING.size:
        raise Damaged("the archive is truncated: its index is missing")
    file.seek(size - CLOSING.size)
    start, close = CLOSING.unpack(file.read(CLOSING.size))
    if close != CLOSE:
        raise Damaged("the archive is truncated, or its last bytes are damaged")
    if not header_end <= start <= size - CLOSING.size - 16:
        raise Damaged("field index offset points outside: the index is damaged")
    file.seek(start)
    head, body = file.read(12), file.read(size - CLOSING.size - start - 12)
    crc, body = body[:4], body[4:]
    if (
        head != END + struct.pack("<Q", len(body))
        or struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) != crc
    ):
        raise Damaged("field index CRC does not fit: the index is damaged")
    return _places(body, header_end, start, together)


def _least(items: int, together: int) -> int:
    """The fewest bytes of a block of so many items."""
    return _EMPTY + (LEAST_ENTRY * items if together == 1 else 1 + bundles.LEAST * -(-items // together))


def _places(body: bytes, offset: int, end: int, together: int) -> tuple[list[Place], dict[str, Any]]:
    count, at = read_varint(body, 0)
    places, first = [], 0
    for _ in range(count if count <= len(body) else 0):
        length, at = read_varint(body, at)
        items, at = read_varint(body, at)
        if items > BLOCK_ITEMS or length < _least(items, together) or offset + length > end:
            raise Damaged(f"the index announces {items} items in a block of {length} bytes")
        places.append(Place(offset, length, first, items))
        offset, first = offset + length, first + items
    size, at = read_varint(body, at)
    if len(places) != count or offset != end or at + size != len(body):
        raise Damaged("the index contradicts itself")
    try:
        more = json.loads(body[at:])
    except (ValueError, RecursionError):
        more = None
    if not isinstance(more, dict):
        raise Damaged("the index has no JSON record at its end")
    return places, more


def scan(file: BinaryIO, offset: int, named: int, together: int = 1) -> Iterator[Place]:
    """Sound blocks from ``offset`` on, without an index: what is left of a damaged or truncated file.

    Item numbers rise and stay below the bytes of the file (16 times as many in bundles), so that nobody counts up to a
    number that a block claims. What looks like a block and is none may cost a few readings of the whole file altogether.
    """
    limit, following = file.seek(0, 2), 0
    wasted, most = 16 * limit, limit if together == 1 else 16 * limit
    while offset < limit and wasted > 0:
        try:
            listed, end = read_table(file, offset, limit, named, together)
        except Damaged:
            wasted -= file.tell() - offset
            found = _next_block(file, offset + 1, limit)
            if found is None:
                return
            offset = found
            continue
        if listed and following <= listed[0].number < most:
            following = listed[-1].number + 1
            yield Place(offset, end - offset, listed[0].number, len(listed))
        offset = end


def _next_block(file: BinaryIO, offset: int, limit: int) -> int | None:
    """Where the next block's four letters stand; read in pieces that grow, for it may be near."""
    size = 64
    while offset < limit:
        file.seek(offset)
        piece = file.read(size)
        at = piece.find(BLOCK)
        if at >= 0:
            return offset + at
        offset, size = offset + max(1, len(piece) - 3), min(2 * size, 2**20)
    return None
