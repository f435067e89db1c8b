"""Bytes that no model codes: as they are, under zstd, or under zlib where zstd packs more than readers accept."""

from __future__ import annotations

import sys
import zlib

from unmask.codec.container.form import PACKED, RAW, ZLIB, ZSTD

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

WINDOW: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}
"""A zstd block may ask for no more than 8 MiB of memory."""
SMALL: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 19,
    zstd.CompressionParameter.content_size_flag: 0,
}
"""How blocks are packed; the table of entries says how many bytes come back."""


def pack(data: bytes) -> tuple[int, bytes]:
    """Kind and payload of bytes: what is smallest."""
    kind, packed = ZSTD, zstd.compress(data, options=SMALL)
    if len(data) > PACKED * len(packed):
        kind, packed = ZLIB, zlib.compress(data, 9)
    return (kind, packed) if len(packed) < len(data) else (RAW, data)


def unpack(kind: int, payload: bytes, size: int) -> bytes:
    """The bytes of a payload; ValueError unless they are ``size``, as the table says."""
    data = payload
    if kind == ZLIB:
        data = _inflated(payload, size)
    if kind == ZSTD:
        data = _unzstd(payload, size)
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes instead of {size}")
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
