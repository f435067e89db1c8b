"""Character vectors from the lazy-load data base of an R package (``data/Rdata.rdx`` and ``.rdb``).

The index is a gzip file with a serialised list: every variable's offset and length in the data base, where it lies
compressed behind a 4-byte length. Serialisation is R's XDR form, versions 2 and 3 (R Internals, section 1.8).
"""

from __future__ import annotations

import gzip
import struct
import zlib
from typing import Any

import numpy as np

_NULL, _NAMESPACE, _REFERENCE = 254, 249, 255
_SYMBOL, _PAIRS, _CHARACTER, _LOGICAL, _INTEGER, _REAL, _STRINGS, _LIST = 1, 2, 9, 10, 13, 14, 16, 19
_ATTRIBUTES, _TAG = 0x200, 0x400


def variables(index: bytes, base: bytes) -> dict[str, list[str]]:
    """The character vectors of a data base by name; other variables are left out."""
    places = parse(gzip.decompress(index))["variables"]
    found = {name: _variable(base, *place) for name, place in places.items()}
    return {k: v for k, v in found.items() if isinstance(v, list) and all(isinstance(x, str) for x in v)}


def table(index: bytes, base: bytes, name: str) -> dict[str, list[Any]]:
    """The columns of one data frame of a data base by name; ValueError when there is no such frame."""
    places = parse(gzip.decompress(index))["variables"]
    found = _variable(base, *places[name]) if name in places else None
    if not isinstance(found, dict) or not all(isinstance(column, list) for column in found.values()):
        raise ValueError(f"R data with {', '.join(places)[:200]}; expected a data frame {name}")
    return found


def _variable(base: bytes, offset: int, length: int) -> Any:
    """One variable; ValueError where it was compressed otherwise than by zlib."""
    try:
        return parse(zlib.decompress(base[offset + 4 : offset + length]))
    except zlib.error as error:
        raise ValueError(f"R data at byte {offset}: expected zlib compression ({error})") from None


def parse(data: bytes) -> Any:
    """A serialised R value: strings and lists as lists, named lists as dicts, numbers as lists."""
    if data[:2] != b"X\n":
        raise ValueError(f"R data begins with {data[:2]!r}; expected b'X\\n'")
    reader = _Reader(data)
    if reader.integer() == 3:
        reader.at = 14
        reader.take(reader.integer())
    else:
        reader.at = 14
    return reader.value()


class _Reader:
    """A place in serialised bytes."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 2
        self.seen: list[Any] = []

    def take(self, count: int) -> bytes:
        """The next bytes; ValueError past the end."""
        self.at += count
        if self.at > len(self.data):
            raise ValueError(f"R data end at byte {len(self.data)}; expected {self.at}")
        return self.data[self.at - count : self.at]

    def integer(self) -> int:
        """The next 32-bit integer."""
        return int(struct.unpack(">i", self.take(4))[0])

    def value(self) -> Any:
        """The next value."""
        flags = self.integer()
        kind = flags & 255
        if kind == _NULL:
            return None
        if kind == _REFERENCE:
            return self.seen[(flags >> 8) - 1]
        if kind == _SYMBOL:
            self.seen.append(self.value())
            return self.seen[-1]
        if kind == _PAIRS:
            return self.pairs(flags)
        found = self.vector(kind)
        names = (self.value() or {}).get("names") if flags & _ATTRIBUTES and kind != _CHARACTER else None
        return dict(zip(names, found, strict=True)) if names else found

    def pairs(self, flags: int) -> dict[str, Any]:
        """A chain of tagged values, as attributes are kept."""
        if flags & _ATTRIBUTES:
            self.value()
        tag = self.value() if flags & _TAG else ""
        found = {tag: self.value()}
        return found | (self.value() or {})

    def vector(self, kind: int) -> Any:
        """Text, numbers or a list, without attributes."""
        count = self.integer()
        if kind == _CHARACTER:
            return "" if count < 0 else self.take(count).decode("utf-8", "replace")
        if kind in (_STRINGS, _LIST):
            return [self.value() for _ in range(count)]
        if kind in (_LOGICAL, _INTEGER):
            return np.frombuffer(self.take(4 * count), ">i4").tolist()
        if kind == _REAL:
            return np.frombuffer(self.take(8 * count), ">f8").tolist()
        raise ValueError(f"R data of type {kind} at byte {self.at}; expected text, numbers or lists")
