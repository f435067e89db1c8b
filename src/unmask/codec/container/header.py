"""The header: magic, version, a JSON record under zlib, a CRC32."""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any, BinaryIO

from unmask.codec.container.plans import IN_PROPORTION

MAGIC = b"\x89UMZ\r\n\x1a\n"
VERSION, PACKED_NAMES, RULES, BUNDLES, SHARES = 1, 2, 3, 4, 5
"""Versions of the format: 5 where all rows take their share of one plan, else 4 where items stand in bundles, else 3 where
a rule says the method, else 2 where names of a block are together under zlib, else 1."""

LARGEST_HEADER = 2**21
"""Bytes of JSON that a header may have: what it becomes in memory is up to 30 times as much."""

HEAD = struct.Struct("<8sHI")


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
    head = HEAD.pack(MAGIC, version_of(record), len(body)) + body
    return head + struct.pack("<I", zlib.crc32(head))


def version_of(record: dict[str, Any]) -> int:
    """The version of the format that a header with this record has."""
    method = record.get("method")
    plan = method.get("plan") if isinstance(method, dict) else None
    if isinstance(plan, dict) and IN_PROPORTION in plan:
        return SHARES
    if "together" in record:
        return BUNDLES
    if isinstance(method, dict) and "rule" in method:
        return RULES
    return PACKED_NAMES if record.get("names") == "packed" else VERSION


def read_header(file: BinaryIO) -> dict[str, Any]:
    """The record at the file's position, which moves behind it; ValueError says which part is wrong."""
    head = file.read(HEAD.size)
    if not head.startswith(MAGIC[: len(head)]) or not head:
        raise ValueError(f"field magic: {head[:8]!r}, expected {MAGIC!r}: this is no unmask archive")
    if len(head) < HEAD.size:
        raise ValueError("the archive ends in its header: it is truncated")
    _, version, size = HEAD.unpack(head)
    body = file.read(min(size, LARGEST_HEADER))
    stored = file.read(4)
    if not VERSION <= version <= SHARES:
        raise ValueError(
            f"field version: {version}, expected {VERSION} to {SHARES}: install a newer unmask, "
            "or the archive is damaged"
        )
    if len(body) < size or len(stored) < 4:
        raise ValueError("the archive ends in its header: it is truncated, or field header length is damaged")
    if struct.pack("<I", zlib.crc32(head + body)) != stored:
        raise ValueError("field header CRC does not fit: the header is damaged")
    record = _parsed(body)
    if version_of(record) != version:
        raise ValueError(
            f"field names: {record.get('names')!r}, or a rule, together or shares of a plan, in version {version}; the "
            "archive is damaged"
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
