"""Records as items, their bytes kept: lines, JSON lines, SMILES, FASTA, and Sudoku collections."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from unmask.data import _sudoku_text as sudoku
from unmask.data.files import open_binary
from unmask.data.pieces import Piece

DIGITS = "123456789"
"""The symbols of Sudoku grids."""


def lines(path: Path) -> Iterator[Piece]:
    """Every line of a file without its end (``\\n`` or ``\\r\\n``); blank ones are left out by the writer."""
    with open_binary(path) as file:
        for number, line in enumerate(file, 1):
            yield Piece(line.rstrip(b"\n").removesuffix(b"\r"), str(path), number)


def jsonl(path: Path, field: str | None = None) -> Iterator[Piece]:
    """Every line of a JSON lines file, byte for byte; or one text ``field`` of each.

    ValueError names the first line that is not JSON, or has no such text.
    """
    for piece in lines(path):
        if not piece.data:
            continue
        try:
            record = json.loads(piece.data)  # type: ignore[arg-type]
        except ValueError as error:
            raise ValueError(
                f"{path}, line {piece.line}: not JSON ({error}); expected one JSON value a line"
            ) from None
        yield piece if field is None else Piece(_text_of(record, field, piece), str(path), piece.line)


def _text_of(record: object, field: str, piece: Piece) -> str:
    """A text field of a record."""
    value = record.get(field) if isinstance(record, dict) else None
    if not isinstance(value, str):
        raise ValueError(
            f"{piece.file}, line {piece.line}: field '{field}' holds {json.dumps(value)[:40]}; expected text"
        )
    return value


def smiles(path: Path, column: str | None = None) -> Iterator[Piece]:
    """SMILES: the first word of every line, or one ``column`` of a CSV file with a header.

    In a file of lines what follows the SMILES (a name, as many collections have it) is left out.
    """
    if column is not None:
        yield from csv_column(path, column)
        return
    for piece in lines(path):
        word = piece.data.split(maxsplit=1)[:1]  # type: ignore[union-attr]
        yield Piece(word[0] if word else b"", str(path), piece.line)


def csv_column(path: Path, column: str) -> Iterator[Piece]:
    """One column of a CSV file with a header.

    ValueError when it is not there, a row is too short, or the file is no CSV in UTF-8.
    """
    with open_binary(path) as file:
        rows = csv.reader(_text_lines(path, file))
        try:
            yield from _column(path, column, rows)
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {rows.line_num}: not CSV ({error}); expected ends of lines as \\n and every quote closed: "
                "mend the file"
            ) from None


def _text_lines(path: Path, file: Iterable[bytes]) -> Iterator[str]:
    """The lines of a UTF-8 file as text."""
    for number, line in enumerate(file, 1):
        try:
            yield line.decode()
        except UnicodeDecodeError:
            raise ValueError(
                f"{path}, line {number}: not UTF-8; expected CSV in UTF-8: convert the file"
            ) from None


def _column(path: Path, column: str, rows: Any) -> Iterator[Piece]:
    """One column of the rows of a `csv.reader`."""
    names: list[str] = next(rows, [])
    if column not in names:
        raise ValueError(f"{path} has no column '{column}'; expected one of {', '.join(names)[:200]}")
    place = names.index(column)
    for row in rows:
        if row and len(row) <= place:
            raise ValueError(
                f"{path}, line {rows.line_num}: {len(row)} columns; expected at least {place + 1}"
            )
        yield Piece(row[place].encode() if row else b"", str(path), rows.line_num)


def fasta(path: Path) -> Iterator[Piece]:
    """The sequences of a FASTA file, upper-case, without headers and white space.

    ValueError for text before the first ``>`` and for a record without a sequence.
    """
    began, parts = 0, list[bytes]()
    for piece in lines(path):
        data: bytes = piece.data.strip()  # type: ignore[assignment, union-attr]
        if data.startswith(b">"):
            if began:
                yield _sequence(path, began, parts)
            began, parts = piece.line, []
        elif data and not began:
            raise ValueError(
                f"{path}, line {piece.line}: {data[:20]!r}; expected a FASTA header that begins with >"
            )
        else:
            parts.append(data)
    if began:
        yield _sequence(path, began, parts)


def _sequence(path: Path, line: int, parts: list[bytes]) -> Piece:
    """One FASTA record."""
    sequence = b"".join(b"".join(parts).split()).upper()
    if not sequence:
        raise ValueError(f"{path}, line {line}: a header without a sequence; expected one")
    return Piece(sequence, str(path), line)


def grids(path: Path) -> Iterator[Piece]:
    """Full Sudoku grids as 81 digits: a collection's solutions, or its boards where they are full.

    All formats of `unmask.data.sudoku.read`; ValueError for boards with blanks and no solutions.
    """
    try:
        found = sudoku.read(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    boards = found.puzzles if found.solutions is None else found.solutions
    for number, board in enumerate(boards, 1):
        if found.solutions is None and (board == sudoku.BLANK).any():
            raise ValueError(
                f"{path}, board {number}: blanks and no solution; expected full grids: solve the puzzles first"
            )
        yield Piece(sudoku.text(board).encode(), str(path), number)
