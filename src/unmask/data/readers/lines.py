"""Records as items, their bytes kept: lines, JSON lines, SMILES, FASTA, and Sudoku collections.

What is no record is a ValueError that names its line; with ``skip=True`` it is handed out as a faulty piece instead.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from unmask.data.files import BOM, decoded, open_binary, shown
from unmask.data.readers import boards as sudoku
from unmask.data.readers.pieces import Piece

DIGITS = "123456789"
"""The symbols of Sudoku grids."""


def _sound(pieces: Iterator[Piece], skip: bool) -> Iterator[Piece]:
    """The pieces; without ``skip`` a ValueError at the first faulty one."""
    for piece in pieces:
        if piece.fault is not None and not skip:
            raise ValueError(piece.fault[1])
        yield piece


def lines(path: Path, *, skip: bool = False) -> Iterator[Piece]:  # noqa: ARG001 - no line is faulty
    """Every line of a file without its end (``\\n`` or ``\\r\\n``); blank ones are left out by the writer.

    A byte order mark belongs to no line.
    """
    with open_binary(path) as file:
        for number, line in enumerate(file, 1):
            data = line.removeprefix(BOM) if number == 1 else line
            yield Piece(data.removesuffix(b"\n").removesuffix(b"\r"), shown(path), number)


def jsonl(path: Path, field: str | None = None, *, skip: bool = False) -> Iterator[Piece]:
    """Every line of a JSON lines file, byte for byte; or one text ``field`` of each.

    ValueError names the first line that is not JSON, or has no such text.
    """
    return _sound((_record(piece, field) for piece in lines(path) if piece.data), skip)


def _record(piece: Piece, field: str | None) -> Piece:
    """A line of JSON as it is, or its text field."""
    try:
        record = json.loads(piece.data)  # type: ignore[arg-type]
    except ValueError as error:
        return _faulty(piece, "not JSON", f"not JSON ({error}); expected one JSON value a line")
    if field is None:
        return piece
    value = record.get(field) if isinstance(record, dict) else None
    if not isinstance(value, str):
        shown_value = json.dumps(value)[:40]
        return _faulty(piece, "no text", f"field '{field}' holds {shown_value}; expected text")
    return replace(piece, data=value)


def _faulty(piece: Piece, why: str, message: str) -> Piece:
    """A piece that is no item."""
    return replace(piece, fault=(why, f"{piece.file}, line {piece.line}: {message}"))


def smiles(path: Path, column: str | None = None, *, skip: bool = False) -> Iterator[Piece]:
    """SMILES: the first word of every line, or one ``column`` of a CSV file with a header.

    In a file of lines what follows the SMILES (a name, as many collections have it) is left out.
    """
    if column is not None:
        yield from csv_column(path, column, skip=skip)
        return
    for piece in lines(path):
        word = piece.data.split(maxsplit=1)[:1]  # type: ignore[union-attr]
        yield replace(piece, data=word[0] if word else b"")


def csv_column(path: Path, column: str, *, skip: bool = False) -> Iterator[Piece]:
    """One column of a CSV file with a header.

    ValueError when it is not there, a row is too short, or the file is no CSV in UTF-8.
    """
    with open_binary(path) as file:
        rows = csv.reader(_text_lines(path, file))
        try:
            yield from _sound(_column(path, column, rows), skip)
        except csv.Error as error:
            raise ValueError(
                f"{shown(path)}, line {rows.line_num}: not CSV ({error}); expected ends of lines as \\n and every "
                "quote closed: mend the file"
            ) from None


def _text_lines(path: Path, file: Iterable[bytes]) -> Iterator[str]:
    """The lines of a UTF-8 file as text."""
    for number, line in enumerate(file, 1):
        yield decoded(line.removeprefix(BOM) if number == 1 else line, path, number)


def _column(path: Path, column: str, rows: Any) -> Iterator[Piece]:
    """One column of the rows of a `csv.reader`."""
    names: list[str] = next(rows, [])
    if column not in names:
        raise ValueError(f"{shown(path)} has no column '{column}'; expected one of {', '.join(names)[:200]}")
    place = names.index(column)
    for row in rows:
        piece = Piece(b"", shown(path), rows.line_num)
        if row and len(row) <= place:
            message = f"{len(row)} columns; expected at least {place + 1}"
            yield _faulty(replace(piece, data=",".join(row).encode()), "short row", message)
        else:
            yield replace(piece, data=row[place].encode() if row else b"")


def fasta(path: Path, *, skip: bool = False) -> Iterator[Piece]:
    """The sequences of a FASTA file, upper-case, without headers and white space.

    ValueError for text before the first ``>`` and for a record without a sequence.
    """
    return _sound(_fasta(path), skip)


def _fasta(path: Path) -> Iterator[Piece]:
    header, parts = Piece(b""), list[bytes]()
    for piece in lines(path):
        data: bytes = piece.data.strip()  # type: ignore[assignment, union-attr]
        if data.startswith(b">"):
            if header.line:
                yield _sequence(header, parts)
            header, parts = piece, []
        elif data and not header.line:
            raise ValueError(
                f"{piece.file}, line {piece.line}: {data[:20]!r}; expected a FASTA header that begins with >"
            )
        else:
            parts.append(data)
    if header.line:
        yield _sequence(header, parts)


def _sequence(header: Piece, parts: list[bytes]) -> Piece:
    """One FASTA record, placed where its header is."""
    sequence = b"".join(b"".join(parts).split()).upper()
    if not sequence:
        return _faulty(header, "no sequence", "a header without a sequence; expected one")
    return replace(header, data=sequence)


def grids(path: Path, *, skip: bool = False) -> Iterator[Piece]:
    """Full Sudoku grids as 81 digits: a collection's solutions, or its boards where they are full.

    All formats of `unmask.data.sudoku.read`; ValueError for boards with blanks and no solutions.
    """
    return _sound(_grids(path), skip)


def _grids(path: Path) -> Iterator[Piece]:
    found = sudoku.read(path, 81)
    boards = found.puzzles if found.solutions is None else found.solutions
    for number, board in enumerate(boards, 1):
        piece = Piece(sudoku.text(board).encode(), shown(path), number)
        if found.solutions is None and (board == sudoku.BLANK).any():
            message = "blanks and no solution; expected full grids: solve the puzzles first"
            yield replace(piece, fault=("not full", f"{piece.file}, board {number}: {message}"))
        else:
            yield piece
