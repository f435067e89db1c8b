"""The file: a header, blocks of items, and an index at the end. docs/codec.md gives every byte.

All fixed integers are little-endian, *varints* LEB128. A block can be read without the others, the index says where each
begins, and a file whose end is missing can be read from the front.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from unmask.codec.coder import Damaged, read_varint, varint
from unmask.codec.container import names
from unmask.codec.container.names import DENSE

MAGIC = b"\x89UMZ\r\n\x1a\n"
VERSION, PACKED_NAMES, RULES = 1, 2, 3
"""Versions of the format: 3 where a rule says the method, else 2 where names of a block are together under zlib, else 1."""

BLOCK, END, CLOSE = b"UMZB", b"UMZE", b"UMZ.end\n"

CODED, ESCAPED, RAW, ZSTD, ZLIB = range(5)
"""Kinds of items: coded by the model, the same with escapes, stored, zstd, zlib."""
NAMES = ("coded", "coded with escapes", "stored", "zstd", "zlib")

LARGEST_HEADER = 2**21
"""Bytes of JSON that a header may have: what it becomes in memory is up to 30 times as much."""

BLOCK_ITEMS = 256
"""Most items of a block."""

_HEAD = struct.Struct("<8sHI")
_BLOCK = struct.Struct("<4sIQI")
_CLOSE = struct.Struct("<Q8s")
_EMPTY, LEAST_ENTRY = _BLOCK.size + 2, 6
"""Bytes of a block without items, and the fewest that one more takes."""


@dataclass(frozen=True)
class Entry:
    """An item in its block: kind, size (symbols if coded, else bytes), `item_crc`, payload, name."""

    kind: int
    size: int
    crc: int
    payload: bytes
    name: str = ""


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


# --- header -----------------------------------------------------------------------------------------


def write_header(record: dict[str, Any]) -> bytes:
    """Magic, version, length, the record as JSON under zlib, and the CRC32 of all that.

    The version is the least that can say it: see `version_of`.
    """
    text = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    if len(text) > LARGEST_HEADER:
        raise ValueError(
            f"the header has {len(text)} bytes of plans, expected at most {LARGEST_HEADER}: give positions per call, "
            "or items as a list, so that only the plans they need are written"
        )
    body = zlib.compress(text, 9)
    head = _HEAD.pack(MAGIC, version_of(record), len(body)) + body
    return head + struct.pack("<I", zlib.crc32(head))


def version_of(record: dict[str, Any]) -> int:
    """The version of the format that a header with this record has."""
    method = record.get("method")
    if isinstance(method, dict) and "rule" in method:
        return RULES
    return PACKED_NAMES if record.get("names") == "packed" else VERSION


def read_header(file: BinaryIO) -> dict[str, Any]:
    """The record at the file's position, which moves behind it; ValueError says which part is wrong."""
    head = file.read(_HEAD.size)
    if not head.startswith(MAGIC[: len(head)]) or not head:
        raise ValueError(f"field magic: {head[:8]!r}, expected {MAGIC!r}: this is no unmask archive")
    if len(head) < _HEAD.size:
        raise ValueError("the archive ends in its header: it is truncated")
    _, version, size = _HEAD.unpack(head)
    body = file.read(min(size, LARGEST_HEADER))
    stored = file.read(4)
    if not VERSION <= version <= RULES:
        raise ValueError(
            f"field version: {version}, expected {VERSION} to {RULES}: install a newer unmask, "
            "or the archive is damaged"
        )
    if len(body) < size or len(stored) < 4:
        raise ValueError("the archive ends in its header: it is truncated, or field header length is damaged")
    if struct.pack("<I", zlib.crc32(head + body)) != stored:
        raise ValueError("field header CRC does not fit: the header is damaged")
    record = _parsed(body)
    if version_of(record) != version:
        raise ValueError(
            f"field names: {record.get('names')!r}, or a rule, in version {version}; the archive is damaged"
        )
    return record


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        text = zlib.decompressobj().decompress(body, LARGEST_HEADER + 1)
        record = json.loads(text) if len(text) <= LARGEST_HEADER else None
    except (zlib.error, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise ValueError(
            f"field header: no JSON record of at most {LARGEST_HEADER} bytes; the archive is damaged"
        )
    return record


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
    payloads = b"".join(entry.payload for entry in entries)
    head = _BLOCK.pack(BLOCK, len(table), len(payloads), 0)[:-4]
    crc = zlib.crc32(bytes(table), zlib.crc32(head))
    return head + struct.pack("<I", crc) + bytes(table) + payloads


@dataclass(frozen=True)
class Listed:
    """An item's entry in a block's table, and where its payload stands in the file."""

    number: int
    kind: int
    size: int
    crc: int
    offset: int
    length: int
    name: str


def block_length(head: bytes) -> int | None:
    """Bytes of the block that begins so; None where no block does."""
    if len(head) < _BLOCK.size or not head.startswith(BLOCK):
        return None
    _, table, payloads, _ = _BLOCK.unpack(head[: _BLOCK.size])
    return _BLOCK.size + int(table) + int(payloads)


def read_table(file: BinaryIO, offset: int, limit: int, named: int) -> tuple[list[Listed], int]:
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
    return _listed(table, offset + _BLOCK.size + size, payloads, named), offset + length


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
    return head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + body + _CLOSE.pack(start, CLOSE)


def read_index(file: BinaryIO, header_end: int) -> tuple[list[Place], dict[str, Any]]:
    """Where every block stands, and what else the end says; `Damaged` when it is missing or does not fit."""
    size = file.seek(0, 2)
    if size < header_end + 16 + _CLOSE.size:
        raise Damaged("the archive is truncated: its index is missing")
    file.seek(size - _CLOSE.size)
    start, close = _CLOSE.unpack(file.read(_CLOSE.size))
    if close != CLOSE:
        raise Damaged("the archive is truncated, or its last bytes are damaged")
    if not header_end <= start <= size - _CLOSE.size - 16:
        raise Damaged("field index offset points outside: the index is damaged")
    file.seek(start)
    head, body = file.read(12), file.read(size - _CLOSE.size - start - 12)
    crc, body = body[:4], body[4:]
    if (
        head != END + struct.pack("<Q", len(body))
        or struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) != crc
    ):
        raise Damaged("field index CRC does not fit: the index is damaged")
    return _places(body, header_end, start)


def _places(body: bytes, offset: int, end: int) -> tuple[list[Place], dict[str, Any]]:
    count, at = read_varint(body, 0)
    places, first = [], 0
    for _ in range(count if count <= len(body) else 0):
        length, at = read_varint(body, at)
        items, at = read_varint(body, at)
        if items > BLOCK_ITEMS or length < _EMPTY + LEAST_ENTRY * items or offset + length > end:
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


def scan(file: BinaryIO, offset: int, named: int) -> Iterator[Place]:
    """Sound blocks from ``offset`` on, without an index: what is left of a damaged or truncated file.

    Item numbers rise and stay below the bytes of the file, so that nobody counts up to a number that a block claims. What
    looks like a block and is none may cost a few readings of the whole file altogether.
    """
    limit, following = file.seek(0, 2), 0
    wasted = 16 * limit
    while offset < limit and wasted > 0:
        try:
            listed, end = read_table(file, offset, limit, named)
        except Damaged:
            wasted -= file.tell() - offset
            found = _next_block(file, offset + 1, limit)
            if found is None:
                return
            offset = found
            continue
        if listed and following <= listed[0].number < limit:
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


# --- limits -----------------------------------------------------------------------------------------


PACKED = 2**11
"""Bytes of stored items for each byte of a file."""

LONG, LARGE = 2**21, 2**25
"""Symbols that an item may have in a file of any size, and bytes of a stored one."""


@dataclass
class Budget:
    """What the items of one reading may hold, by the bytes of their file and what the caller trusts (``trusted``).

    Symbols that are certain cost nothing, so payloads are no measure: a file of n bytes may hold 256 n symbols, and 2^25 +
    2,048 n bytes of stored items (zlib makes no more than 1,032 of one). A single item, which lies in memory as a whole,
    has at most 2^21 symbols or 2^25 bytes, or 64 n where that is more. Beyond, up to ``trusted``.
    """

    file_bytes: int
    trusted: int = 0
    coded: int = 0
    stored: int = 0

    def take(self, entry: Listed) -> None:
        """Counts an item; `Damaged` when it is too large, or all together are."""
        coded, size = entry.kind in (CODED, ESCAPED), entry.size
        before = self.coded if coded else self.stored
        single, total = self.limits(coded)
        if size > single or before + size > total:
            raise Damaged(
                f"field size: {size} {'symbols' if coded else 'bytes'} after {before}; expected at most {single}, and "
                f"{total} in all, of a file of {self.file_bytes} bytes: if you trust it, give max_symbols (--max-symbols)"
            )
        self.coded, self.stored = self.coded + coded * size, self.stored + (not coded) * size

    def limits(self, coded: bool) -> tuple[int, int]:
        """The most symbols (``coded``) or bytes of one item, and of all."""
        least = LONG if coded else LARGE
        total = DENSE * self.file_bytes if coded else LARGE + PACKED * self.file_bytes
        return max(least, 64 * self.file_bytes, self.trusted), max(total, self.trusted)


def dense_enough(symbols: int, coded: int) -> bool:
    """Whether readers accept so many symbols in so few bytes, whatever else is in the archive: see `Budget`."""
    own = coded + LEAST_ENTRY
    return symbols <= min(DENSE * own, max(LONG, 64 * own))
