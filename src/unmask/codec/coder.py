"""The range coder of one stream: constriction's queue, with its last bytes cut to what the decoder needs.

Source of the coder: constriction (Bamler), 32-bit words, 64-bit state. All symbols of one item at one step are one call.
"""

from __future__ import annotations

from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from unmask.codec.tables import Floats, Ints

_LAWS = constriction.stream.model.Categorical(perfect=False)
_WORD, _STATE = 32, 64


class Damaged(ValueError):
    """A stream that no encoder wrote, or not with these laws."""


class Encoder:
    """Writes symbols under counts, first in, first out."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def push(self, symbols: Ints, counts: Floats) -> None:
        """Appends symbols int64 [n] under counts float64 [n, V], V at least 2."""
        self._coder.encode(symbols.astype(np.int32), _LAWS, np.ascontiguousarray(counts))

    def finish(self) -> bytes:
        """The shortest bytes, big-endian and without zeros at the end, that lie inside the coder's last interval."""
        position, (lower, size) = self._coder.pos()
        words: NDArray[np.uint32] = self._coder.get_compressed()
        point = int.from_bytes(words.astype(">u4").tobytes(), "big")
        bits = _WORD * position + _STATE
        point <<= bits - _WORD * len(words)
        low = (point >> _STATE << _STATE) + lower
        low -= (low > point) << _STATE  # a carry ran into the words before
        number, zeros = _roundest(low, low + size, bits)
        return (number >> zeros).to_bytes((bits - zeros) // 8, "big").rstrip(b"\0")


def _roundest(low: int, high: int, bits: int) -> tuple[int, int]:
    """The number in low..high - 1 with the most whole zero bytes at the end, and how many of ``bits`` those are."""
    zeros = min(((high - low).bit_length() // 8 + 1) * 8, bits)
    while True:
        number = -(-low >> zeros) << zeros
        if number < high:
            return number, zeros
        zeros -= 8


class Decoder:
    """Reads back what an `Encoder` wrote; beyond the end there are zeros."""

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % 4 + 8)
        self._coder: Any = constriction.stream.queue.RangeDecoder(
            np.frombuffer(padded, ">u4").astype(np.uint32)
        )

    def pop(self, counts: Floats) -> Ints:
        """The next symbols int64 [n] under counts float64 [n, V]; `Damaged` when there can be none."""
        try:
            return np.asarray(self._coder.decode(_LAWS, np.ascontiguousarray(counts)), np.int64)
        except AssertionError:
            raise Damaged("the stream does not fit the model's laws") from None


# --- numbers of any size ----------------------------------------------------------------------------


def varint(number: int) -> bytes:
    """A whole number >= 0 as LEB128: seven bits a byte, the lowest first, the top bit set where more follow."""
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def read_varint(data: bytes, start: int) -> tuple[int, int]:
    """The number of `varint` at ``start`` and where it ends; `Damaged` when it does not, or is beyond 63 bits."""
    number = 0
    for place, byte in enumerate(data[start : start + 9]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, start + place + 1
    raise Damaged("a number has no end")
