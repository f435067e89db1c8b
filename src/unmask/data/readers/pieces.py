"""What readers hand to the writer of token folders: a stretch of a text, a record, or an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Data: TypeAlias = str | bytes | NDArray[Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """Text, bytes or image values, with the file and the line that they begin on, and an image's label.

    ``fault``: why this is no item, in a word and in a message that names the place; such a piece is skipped or refused.
    """

    data: Data
    file: str = ""
    line: int = 0
    label: int | None = None
    fault: tuple[str, str] | None = None


def text_of(piece: Piece) -> str:
    """The text of a piece that is one, or of its UTF-8."""
    return piece.data if isinstance(piece.data, str) else bytes(piece.data).decode()


def where(piece: Piece, at: int | None = None) -> str:
    """The place of a piece, or of its character number ``at``, as ``file, line 3, column 7``."""
    if not isinstance(piece.data, str | bytes):
        return f"{piece.file}, image {piece.line}"
    if at is None:
        return f"{piece.file}, line {piece.line}"
    before = piece.data[:at]
    end: Any = "\n" if isinstance(before, str) else b"\n"
    return f"{piece.file}, line {piece.line + before.count(end)}, column {at - before.rfind(end)}"


def size(data: Data) -> int:
    """Characters, bytes or values of a piece's data."""
    return int(data.size) if isinstance(data, np.ndarray) else len(data)
