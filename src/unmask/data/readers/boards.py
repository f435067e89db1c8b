"""Sudoku boards as text: parse, print, and read collections in the usual formats. Needs no numba.

Boards are 9x9 (81 cells), or smaller ones of `BOXES`; symbols 0..n-1 are digits 1..n, and n is a blank.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from unmask.data.files import open_binary, shown

Ints: TypeAlias = NDArray[np.int64]
Bytes: TypeAlias = NDArray[np.uint8]

BLANK = 9
"""The symbol of an empty cell of a 9x9 board: the mask of a Sudoku model."""

BOXES = {16: (2, 2), 36: (2, 3), 64: (2, 4), 81: (3, 3)}
"""Rows and columns of a box, by the cells of a board."""


def symbols_of(cells: int) -> int:
    """How many symbols a board of so many cells has; the next one, of this number, is its blank."""
    return math.prod(BOXES[cells])


@lru_cache
def units(cells: int) -> Ints:
    """The cells of each row, column and box of a board, int64 [3n, n]."""
    size, (rows, columns) = symbols_of(cells), BOXES[cells]
    grid = np.arange(cells).reshape(size, size)
    boxes = grid.reshape(columns, rows, rows, columns).transpose(0, 2, 1, 3).reshape(size, size)
    return np.concatenate([grid, grid.T, boxes])


_BAD = 255
_SYMBOLS = np.full(256, _BAD, np.uint8)  # symbol of each byte of text
_SYMBOLS[np.frombuffer(b"123456789", np.uint8)] = np.arange(9)
_SYMBOLS[np.frombuffer(b"0._", np.uint8)] = BLANK

_PUZZLE_NAMES = ("puzzle", "puzzles", "quiz", "quizzes", "question")
_SOLUTION_NAMES = ("solution", "solutions", "answer")
SMALLER = "(16, 36 or 64 for a smaller board)"
"""What errors add where any size would do."""

_CHUNK = 20_000  # boards checked at once, which bounds the memory


@dataclass(frozen=True, eq=False)
class Puzzles:
    """Puzzles int64 [n, cells] and their solutions int64 [n, cells], or None where the source has none."""

    puzzles: Ints
    solutions: Ints | None = None


# --- one board ------------------------------------------------------------------------------------


def parse(text: str) -> Ints:
    """A board int64 [cells] from 81 digits or blanks (``.``, ``0``, ``_``), or 16, 36, 64 of a smaller one.

    White space and ``|+-`` are ignored.

    ValueError on another length, another character, or a digit twice in a row, column or box.
    """
    bare = re.sub(r"[\s|+-]", "", text)
    board: Ints = _boards([bare], lambda _: "board")[0].astype(np.int64)
    return board


def text(board: Ints, blank: str = ".") -> str:
    """A board [cells] as so many characters, row by row."""
    if len(blank) != 1:
        raise ValueError(f"blank={blank!r}; expected one character")
    symbols = [int(s) for s in board]
    if len(symbols) not in BOXES:
        raise ValueError(f"a board of {len(symbols)} cells; expected 81 {SMALLER}: pass one board at a time")
    size = symbols_of(len(symbols))
    if min(symbols) < 0 or max(symbols) > size:
        raise ValueError(
            f"symbols {min(symbols)}..{max(symbols)}; "
            f"expected 0..{size - 1} for digits 1..{size}, {size} for a blank"
        )
    return "".join(blank if s == size else str(s + 1) for s in symbols)


def pretty(board: Ints) -> str:
    """A board [cells] as lines of digits with rules between the boxes; `parse` reads it back."""
    flat = text(board)
    size, (rows, columns) = symbols_of(len(flat)), BOXES[len(flat)]
    boxed = [" ".join(flat[at : at + columns]) for at in range(0, len(flat), columns)]
    lines = [" | ".join(boxed[at : at + rows]) for at in range(0, len(boxed), rows)]
    rule = "+".join("-" * len(part) for part in lines[0].split("|"))
    bands = ["\n".join(lines[at : at + rows]) for at in range(0, size, rows)]
    return f"\n{rule}\n".join(bands)


# --- checks ---------------------------------------------------------------------------------------


def _boards(texts: list[str], name: Callable[[int], str], cells: int | None = None) -> Bytes:
    """Boards uint8 [n, cells] from texts; ValueError, beginning with ``name(i)``, for the first bad one."""
    cells = _cells_of(texts, name, cells)
    size = symbols_of(cells)
    joined = "".join(texts).encode("ascii", "replace")  # one byte a character, a bad one as ?
    boards = _SYMBOLS[np.frombuffer(joined, np.uint8)].reshape(-1, cells)
    if (wrong := (boards >= size) & (boards != BLANK)).any():
        i, cell = (int(v) for v in np.argwhere(wrong)[0])
        raise ValueError(
            f"{name(i)} has {texts[i][cell]!r} at character {cell + 1}; "
            f"expected 1-{size}, or one of . 0 _ for a blank"
        )
    boards = np.minimum(boards, size, dtype=np.uint8)
    if (clash := _clashing(boards)).any():
        i = int(np.argmax(clash))
        raise ValueError(f"{name(i)}: {_clash(boards[i])}; expected each digit once")
    return boards


def _cells_of(texts: list[str], name: Callable[[int], str], cells: int | None) -> int:
    """The cells of every board in texts: those asked for, or else what most have of 81, 64, 36 and 16."""
    lengths = [len(line) for line in texts]
    wanted = cells or max(sorted(BOXES, reverse=True), key=lengths.count)
    for i, length in enumerate(lengths):
        if length != wanted:
            hint = f" {SMALLER}" if cells is None and wanted == 81 else ""
            raise ValueError(f"{name(i)} has {length} characters; expected {wanted} digits or blanks{hint}")
    return wanted


def _clashing(boards: Bytes) -> NDArray[np.bool_]:
    """Which boards [n, cells] hold a digit twice in a unit: the sum of its bits is then not their union."""
    cells_of_units = units(boards.shape[1])
    bit_of = np.array([*(1 << d for d in range(cells_of_units.shape[1])), 0], np.int16)
    found = np.zeros(len(boards), np.bool_)
    for start in range(0, len(boards), _CHUNK):
        bits = bit_of[boards[start : start + _CHUNK]][:, cells_of_units]
        twice = bits.sum(-1, dtype=np.int16) != np.bitwise_or.reduce(bits, axis=-1)
        found[start : start + _CHUNK] = twice.any(-1)
    return found


def _clash(board: Bytes) -> str:
    """The first digit that a row, column or box holds twice, in words."""
    size = symbols_of(len(board))
    for unit, cells in enumerate(units(len(board))):
        kind = ("row", "column", "box")[unit // size]
        for digit in range(size):
            places = cells[board[cells] == digit] + 0
            if len(places) > 1:
                where = _places(kind, *divmod(places[:2], size))
                return f"{kind} {unit % size + 1} holds {digit + 1} twice ({where})"
    raise AssertionError("no clash")


def _places(kind: str, rows: Ints, columns: Ints) -> str:
    """Two cells of a row, column or box in words, saying only what the unit leaves open."""
    (r, s), (c, d) = rows + 1, columns + 1
    if kind == "row":
        return f"columns {c} and {d}"
    if kind == "column":
        return f"rows {r} and {s}"
    return f"row {r} column {c} and row {s} column {d}"


# --- collections ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Columns:
    """Which fields of a line hold puzzle and solution; no ``separator``: commas, semicolons, white space."""

    puzzle: int = 0
    solution: int | None = 1
    separator: str | None = None

    def split(self, line: str) -> list[str]:
        """All fields of a line."""
        if self.separator:
            return next(csv.reader([line], delimiter=self.separator))
        fields = re.split(r"[,;\s]+", line.strip())
        if len(fields) > 2:
            raise ValueError(
                f"{len(fields)} columns; expected puzzle and solution, or a header that names the columns"
            )
        return fields

    def pick(self, line: str) -> tuple[str, str]:
        """The puzzle and the solution ("" if there is none) of a line."""
        fields = self.split(line)
        if self.puzzle >= len(fields):
            raise ValueError(
                f"{len(fields)} columns; expected the puzzle in column {self.puzzle + 1}, as the header says"
            )
        none = self.solution is None or self.solution >= len(fields)
        return fields[self.puzzle].strip(), "" if none else fields[self.solution or 0].strip()


def _header(line: str) -> _Columns | None:
    """The columns that a header line names, or None when the line is not a header."""
    separator = next((s for s in ",\t;" if s in line), ",")
    names = [name.strip(' "\r\n').lower() for name in line.split(separator)]
    puzzle = [i for i, name in enumerate(names) if name in _PUZZLE_NAMES]
    solution = [i for i, name in enumerate(names) if name in _SOLUTION_NAMES]
    return _Columns(puzzle[0], solution[0] if solution else None, separator) if puzzle else None


def _records(lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    """(line number from 1, puzzle, solution or "") of every line that carries a puzzle."""
    columns = None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if columns is None:
            header = _header(line)
            columns = header or _Columns()
            if header:
                continue
        try:
            yield number, *columns.pick(line)
        except (ValueError, csv.Error) as error:
            raise ValueError(f"line {number}: {error}") from None


def _lines(source: str | Path | Iterable[str]) -> Iterator[str]:
    """The lines of a file, or the lines given."""
    if isinstance(source, str) and "\n" in source:
        raise ValueError(
            "got text with line breaks as a path; expected a path or a list of lines: pass .splitlines()"
        )
    if not isinstance(source, str | Path):
        yield from source
        return
    with io.TextIOWrapper(open_binary(Path(source)), "utf-8-sig", "replace") as file:
        yield from file


def read(source: str | Path | Iterable[str], cells: int | None = None) -> Puzzles:
    """Puzzles, and solutions if there are any, from a file or from an iterable of lines.

    One puzzle of 81 characters a line (16, 36 or 64: smaller boards; blank ``.``, ``0`` or ``_``), optionally a
    solution after a comma, semicolon, tab or space; or separated values under a header that names the puzzle column
    (puzzle, quizzes, question) and perhaps the solution column (solution, solutions, answer). Empty lines and lines
    from ``#`` are skipped. Boards are of ``cells`` cells, or of 81, 64, 36 or 16 as most lines are. A ValueError names the
    line of the first bad board: wrong length or character, a digit twice in a unit, a solution that is incomplete or
    contradicts its puzzle, or that is missing where others have one. The error names the file, too, where there is one.
    """
    try:
        return _read(source, cells)
    except ValueError as error:
        if not isinstance(source, str | Path):
            raise
        place = shown(Path(source))
        line = str(error).startswith("line ")
        message = f"{place}, {error}" if line else f"{place}: {error}"
        raise ValueError(str(error) if place in str(error) else message) from None


def _read(source: str | Path | Iterable[str], cells: int | None) -> Puzzles:
    records = list(_records(_lines(source)))
    if not records:
        raise ValueError(
            "no puzzles found; expected lines of 81 characters, or a CSV whose header names a puzzle column"
        )
    numbers, quizzes, answers = (list(part) for part in zip(*records))
    puzzles = _boards(quizzes, lambda i: f"line {numbers[i]}: puzzle", cells)
    if not any(answers):
        return Puzzles(puzzles.astype(np.int64))
    if not all(answers):
        raise ValueError(
            f"line {numbers[answers.index('')]}: no solution, where other lines have one; give all or none"
        )
    solutions = _boards(answers, lambda i: f"line {numbers[i]}: solution", puzzles.shape[1])
    _check_solutions(puzzles, solutions, numbers)
    return Puzzles(puzzles.astype(np.int64), solutions.astype(np.int64))


def _check_solutions(puzzles: Bytes, solutions: Bytes, numbers: list[int]) -> None:
    """ValueError at the first solution with a blank, or with another digit than a clue."""
    blank = symbols_of(puzzles.shape[1])
    wrong = (solutions == blank) | ((puzzles != blank) & (puzzles != solutions))
    if not wrong.any():
        return
    i, cell = (int(v) for v in np.argwhere(wrong)[0])
    has = "a blank" if solutions[i, cell] == blank else str(solutions[i, cell] + 1)
    asked = "a digit" if puzzles[i, cell] == blank else f"the clue {puzzles[i, cell] + 1}"
    place = f"row {cell // blank + 1} column {cell % blank + 1}"
    raise ValueError(f"line {numbers[i]}: solution has {has} at {place}; expected {asked}")
