"""Sudoku boards as text: parse, print, and read collections in the usual formats. Needs no numba."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from unmask.data.files import open_binary, shown

Ints: TypeAlias = NDArray[np.int64]
Bytes: TypeAlias = NDArray[np.uint8]

BLANK = 9
"""The symbol of an empty cell: the mask of a Sudoku model."""

_GRID = np.arange(81).reshape(9, 9)
_BOXES = _GRID.reshape(3, 3, 3, 3).transpose(0, 2, 1, 3).reshape(9, 9)
UNITS = np.concatenate([_GRID, _GRID.T, _BOXES])
"""The cells of each row, column and box, int64 [27, 9]."""

_BAD = 255
_SYMBOLS = np.full(256, _BAD, np.uint8)  # symbol of each byte of text
_SYMBOLS[np.frombuffer(b"123456789", np.uint8)] = np.arange(9)
_SYMBOLS[np.frombuffer(b"0._", np.uint8)] = BLANK

_PUZZLE_NAMES = ("puzzle", "puzzles", "quiz", "quizzes", "question")
_SOLUTION_NAMES = ("solution", "solutions", "answer")
_CHUNK = 20_000  # boards checked at once, which bounds the memory


@dataclass(frozen=True, eq=False)
class Puzzles:
    """Puzzles int64 [n, 81] and their solutions int64 [n, 81], or None where the source has none."""

    puzzles: Ints
    solutions: Ints | None = None


# --- one board ------------------------------------------------------------------------------------


def parse(text: str) -> Ints:
    """A board int64 [81] from 81 digits or blanks (``.``, ``0``, ``_``); white space and ``|+-`` are ignored.

    ValueError on another length, another character, or a digit twice in a row, column or box.
    """
    bare = re.sub(r"[\s|+-]", "", text)
    board: Ints = _boards([bare], lambda _: "board")[0].astype(np.int64)
    return board


def text(board: Ints, blank: str = ".") -> str:
    """A board [81] as 81 characters, row by row."""
    if len(blank) != 1:
        raise ValueError(f"blank={blank!r}; expected one character")
    symbols = [int(s) for s in board]
    if len(symbols) != 81:
        raise ValueError(f"a board of {len(symbols)} cells; expected 81: pass one board at a time")
    if min(symbols) < 0 or max(symbols) > BLANK:
        raise ValueError(
            f"symbols {min(symbols)}..{max(symbols)}; expected 0..8 for digits 1..9, {BLANK} for a blank"
        )
    return "".join(blank if s == BLANK else str(s + 1) for s in symbols)


def pretty(board: Ints) -> str:
    """A board [81] as nine lines of digits with rules between the boxes; `parse` reads it back."""
    flat = text(board)
    rows = [" ".join(flat[9 * r : 9 * r + 9]) for r in range(9)]
    lines = [f"{row[:5]} | {row[6:11]} | {row[12:]}" for row in rows]
    rule = "------+-------+------"
    return "\n".join([*lines[:3], rule, *lines[3:6], rule, *lines[6:]])


# --- checks ---------------------------------------------------------------------------------------


def _boards(texts: list[str], name: Callable[[int], str]) -> Bytes:
    """Boards uint8 [n, 81] from texts; ValueError, beginning with ``name(i)``, for the first bad one."""
    for i, line in enumerate(texts):
        if len(line) != 81:
            raise ValueError(f"{name(i)} has {len(line)} characters; expected 81 digits or blanks")
    joined = "".join(texts).encode("ascii", "replace")  # one byte a character, a bad one as ?
    boards = _SYMBOLS[np.frombuffer(joined, np.uint8)].reshape(-1, 81)
    if (wrong := boards == _BAD).any():
        i, cell = (int(v) for v in np.argwhere(wrong)[0])
        raise ValueError(
            f"{name(i)} has {texts[i][cell]!r} at character {cell + 1}; "
            "expected 1-9, or one of . 0 _ for a blank"
        )
    if (clash := _clashing(boards)).any():
        i = int(np.argmax(clash))
        raise ValueError(f"{name(i)}: {_clash(boards[i])}; expected each digit once")
    return boards


def _clashing(boards: Bytes) -> NDArray[np.bool_]:
    """Which boards [n, 81] hold a digit twice in a unit: the sum of its bits is then not their union."""
    bit_of = np.array([*(1 << d for d in range(9)), 0], np.int16)
    found = np.zeros(len(boards), np.bool_)
    for start in range(0, len(boards), _CHUNK):
        bits = bit_of[boards[start : start + _CHUNK]][:, UNITS]
        twice = bits.sum(-1, dtype=np.int16) != np.bitwise_or.reduce(bits, axis=-1)
        found[start : start + _CHUNK] = twice.any(-1)
    return found


def _clash(board: Bytes) -> str:
    """The first digit that a row, column or box holds twice, in words."""
    for unit, cells in enumerate(UNITS):
        for digit in range(9):
            places = cells[board[cells] == digit] + 0
            if len(places) > 1:
                return f"{_unit(unit)} holds {digit + 1} twice ({_places(unit, *divmod(places[:2], 9))})"
    raise AssertionError("no clash")


def _unit(unit: int) -> str:
    """The name of unit 0..26, counted from 1."""
    return f"{('row', 'column', 'box')[unit // 9]} {unit % 9 + 1}"


def _places(unit: int, rows: Ints, columns: Ints) -> str:
    """Two cells of a unit in words, saying only what the unit leaves open."""
    (r, s), (c, d) = rows + 1, columns + 1
    if unit < 9:
        return f"columns {c} and {d}"
    if unit < 18:
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


def read(source: str | Path | Iterable[str]) -> Puzzles:
    """Puzzles, and solutions if there are any, from a file or from an iterable of lines.

    One puzzle of 81 characters a line (blank ``.``, ``0`` or ``_``), optionally a solution after a comma,
    semicolon, tab or space; or separated values under a header that names the puzzle column (puzzle, quizzes,
    question) and perhaps the solution column (solution, solutions, answer). Empty lines and lines from ``#``
    are skipped. A ValueError names the line of the first bad board: wrong length or character, a digit twice
    in a unit, a solution that is incomplete or contradicts its puzzle, or that is missing where others have
    one. The error names the file, too, where there is one.
    """
    try:
        return _read(source)
    except ValueError as error:
        if not isinstance(source, str | Path):
            raise
        place = shown(Path(source))
        line = str(error).startswith("line ")
        message = f"{place}, {error}" if line else f"{place}: {error}"
        raise ValueError(str(error) if place in str(error) else message) from None


def _read(source: str | Path | Iterable[str]) -> Puzzles:
    records = list(_records(_lines(source)))
    if not records:
        raise ValueError(
            "no puzzles found; expected lines of 81 characters, or a CSV whose header names a puzzle column"
        )
    numbers, quizzes, answers = (list(part) for part in zip(*records))
    puzzles = _boards(quizzes, lambda i: f"line {numbers[i]}: puzzle")
    if not any(answers):
        return Puzzles(puzzles.astype(np.int64))
    if not all(answers):
        raise ValueError(
            f"line {numbers[answers.index('')]}: no solution, where other lines have one; give all or none"
        )
    solutions = _boards(answers, lambda i: f"line {numbers[i]}: solution")
    _check_solutions(puzzles, solutions, numbers)
    return Puzzles(puzzles.astype(np.int64), solutions.astype(np.int64))


def _check_solutions(puzzles: Bytes, solutions: Bytes, numbers: list[int]) -> None:
    """ValueError at the first solution with a blank, or with another digit than a clue."""
    wrong = (solutions == BLANK) | ((puzzles != BLANK) & (puzzles != solutions))
    if not wrong.any():
        return
    i, cell = (int(v) for v in np.argwhere(wrong)[0])
    has = "a blank" if solutions[i, cell] == BLANK else str(solutions[i, cell] + 1)
    asked = "a digit" if puzzles[i, cell] == BLANK else f"the clue {puzzles[i, cell] + 1}"
    place = f"row {cell // 9 + 1} column {cell % 9 + 1}"
    raise ValueError(f"line {numbers[i]}: solution has {has} at {place}; expected {asked}")
