"""Names of items in the table of a block: each in its entry, or all together under zlib."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from unmask.codec.coder import Damaged, read_varint, varint
from unmask.codec.container.form import DENSE


def write(name: str) -> bytes:
    """A name in UTF-8 with its length before it."""
    data = name.encode("utf-8", "surrogateescape")
    return varint(len(data)) + data


def read(data: bytes, at: int) -> tuple[str, int]:
    """The name with its length that begins at a place, and where it ends."""
    length, at = read_varint(data, at)
    return data[at : at + length].decode("utf-8", "surrogateescape"), at + length


def pack(names: Sequence[str], before: int) -> bytes:
    """Names behind ``before`` bytes of a table: how many bytes they are, then these under zlib.

    They stand as they are where that is not longer, or where `unpack` would take them for a stranger's.
    """
    whole = b"".join(map(write, names))
    packed = zlib.compress(whole, 9)
    small = len(packed) < len(whole) <= DENSE * (before + len(packed))
    return varint(len(whole)) + (packed if small else whole)


def unpack(table: bytes, at: int, count: int) -> list[str]:
    """So many names from a place of a table to its end; `Damaged` where they are others, or too large for the table."""
    size, at = read_varint(table, at)
    whole = table[at:] if size == len(table) - at else _inflated(table[at:], size, DENSE * len(table))
    at, found = 0, list[str]()
    for _ in range(count if whole is not None else 0):
        name, at = read(whole or b"", at)
        found.append(name)
    if whole is None or at != size or len(found) != count:
        raise Damaged(
            f"the names of the block are damaged, or more than {DENSE} bytes for each one of its table"
        )
    return found


def _inflated(packed: bytes, size: int, most: int) -> bytes | None:
    """The bytes under zlib if they are ``size``, at most so many, and nothing follows; None otherwise."""
    inflate = zlib.decompressobj()
    try:
        whole = inflate.decompress(packed, size + 1) if size <= most else b""
    except zlib.error:
        return None
    return whole if len(whole) == size and inflate.eof and not inflate.unused_data else None
