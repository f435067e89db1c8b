"""How small do single items become? Archives of real data beside general-purpose compressors, exactness and speed.

Run: python benchmarks/compression.py molecules [--items 5000] [--parts sizes exact speed] [--write], or records, text,
digits. Needs ``unmask data fetch`` of the data and ``pip install zstandard brotli pillow``.
"""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import brotli
import numpy as np
import zstandard
from numpy.typing import NDArray
from PIL import Image

Pack: TypeAlias = Callable[[bytes], bytes]


def general(training: Sequence[bytes]) -> dict[str, Pack]:
    """General-purpose compressors at their strongest, headers as small as they go; the last has a trained dictionary."""
    dictionary = zstandard.train_dictionary(112_640, list(training))
    bare: dict[str, Any] = {"write_checksum": False, "write_content_size": False, "write_dict_id": False}
    lean = zstandard.ZstdCompressionParameters.from_level(22, **bare)
    plain = zstandard.ZstdCompressor(compression_params=lean)
    trained = zstandard.ZstdCompressor(compression_params=lean, dict_data=dictionary)
    raw = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    return {
        "zlib -9 (no header)": lambda data: zlib.compress(data, 9, -15),
        "zstd -22": plain.compress,
        "xz -9e (no header)": lambda data: lzma.compress(data, lzma.FORMAT_RAW, filters=raw),
        "brotli -11": lambda data: brotli.compress(data, quality=11, lgwin=24),
        "zstd -22, trained dictionary": trained.compress,
    }


def pictures(shape: tuple[int, ...]) -> dict[str, Pack]:
    """Lossless image formats, of an image's raw pixels."""

    def saved(data: bytes, kind: str, **how: Any) -> bytes:
        file = io.BytesIO()
        Image.fromarray(np.frombuffer(data, np.uint8).reshape(shape)).save(file, kind, **how)
        return file.getvalue()

    return {
        "PNG, optimised": lambda data: saved(data, "PNG", optimize=True),
        "WebP lossless": lambda data: saved(data, "WEBP", lossless=True, quality=100, method=6),
    }


def together(items: Sequence[bytes], packs: dict[str, Pack], separator: bytes) -> dict[str, int]:
    """Bytes of the whole set as one file."""
    whole = separator.join(items)
    return {name: len(pack(whole)) for name, pack in packs.items() if "dictionary" not in name}


def one_by_one(items: Sequence[bytes], packs: dict[str, Pack]) -> dict[str, NDArray[np.int64]]:
    """Bytes of every item on its own."""
    return {name: np.array([len(pack(item)) for item in items]) for name, pack in packs.items()}
