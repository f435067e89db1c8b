"""Which symbols is a piece of data? Encoded in batches, what the vocabulary lacks told apart."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unmask.data.readers.pieces import Piece, size, where
from unmask.data.vocabularies import Bytes, Characters, Foreign, Levels, Tokenizer, Vocabulary
from unmask.data.writing.form import Form

Symbols: TypeAlias = NDArray[Any]


BATCH = 2**20
"""Characters or bytes of small pieces that are encoded together, and at most so many symbols wait in memory."""


def batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Pieces in lists of about `BATCH` characters or bytes."""
    batch, total = [], 0
    for piece in pieces:
        batch.append(piece)
        total += size(piece.data) + 64  # blank items take room, too
        if total >= BATCH:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def encoded(form: Form, batch: list[Piece]) -> Iterator[Symbols | Foreign]:
    """The symbols of each piece, or what is wrong with it; small pieces of plain bytes are encoded at once."""
    sound = all(piece.fault is None for piece in batch)
    joined = _joined(form.vocabulary, [piece.data for piece in batch]) if sound else None
    if joined is None:
        yield from (_one(form, piece) for piece in batch)
        return
    ends = np.cumsum([0, *(len(piece.data) for piece in batch)]).tolist()
    symbols = joined.astype(form.dtype)
    yield from (symbols[a:b] for a, b in pairwise(ends))


def _joined(vocabulary: Vocabulary, data: list[Any]) -> Symbols | None:
    """The symbols of many pieces of bytes, where a byte is a symbol and none is foreign."""
    if not isinstance(vocabulary, Bytes | Characters) or not all(isinstance(d, bytes) for d in data):
        return None
    joined = b"".join(data)
    if isinstance(vocabulary, Bytes):
        return vocabulary.encode(joined)
    try:
        return vocabulary.encode(joined.decode("ascii"))
    except (Foreign, UnicodeDecodeError):
        return None


def _one(form: Form, piece: Piece) -> Symbols | Foreign:
    """The symbols of one piece, or what is wrong with it."""
    if piece.fault is not None:
        return np.empty(0, form.dtype)
    try:
        return encode(form.vocabulary, piece).astype(form.dtype)
    except Foreign as error:
        return error


def encode(vocabulary: Vocabulary, piece: Piece) -> Symbols:
    """The symbols of a piece [n]; ValueError (`Foreign` with its place for text) for what the vocabulary lacks."""
    data = piece.data
    if isinstance(vocabulary, Tokenizer) and isinstance(data, np.ndarray):
        return _levels(vocabulary, piece)
    if isinstance(vocabulary, Levels) != isinstance(data, np.ndarray):
        raise ValueError(f"{where(piece)}: images go with levels, text and bytes with other vocabularies")
    if isinstance(vocabulary, Levels):
        return _levels(vocabulary, piece)
    if isinstance(vocabulary, Bytes):
        return vocabulary.encode(data)  # type: ignore[arg-type]
    try:
        return vocabulary.encode(data.decode() if isinstance(data, bytes) else data)  # type: ignore[arg-type]
    except UnicodeDecodeError as error:
        raise Foreign("not UTF-8; expected text in UTF-8, or the vocabulary of bytes", error.start) from None


def _levels(vocabulary: Levels | Tokenizer, piece: Piece) -> Symbols:
    """The values of an image, row by row, or ids as they are."""
    values = np.asarray(piece.data).reshape(-1)
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < vocabulary.size:
        raise ValueError(
            f"{where(piece)}: values {values.min()}..{values.max()}; expected 0..{vocabulary.size - 1}"
        )
    return values


def measured(piece: Piece, ids: Symbols, vocabulary: Vocabulary) -> tuple[int, int]:
    """Characters and bytes of a piece; an image and ids have no characters, and an image's values count as bytes."""
    data = piece.data
    if isinstance(vocabulary, Tokenizer) and isinstance(data, np.ndarray):
        return 0, vocabulary.bytes_of(ids)
    if isinstance(data, str):
        return len(data), len(data) if data.isascii() else len(data.encode("utf-8", "surrogatepass"))
    if isinstance(data, bytes):
        plain = data.isascii()
        return len(data) if plain else sum(byte & 0xC0 != 0x80 for byte in data), len(data)
    return 0, len(ids)
