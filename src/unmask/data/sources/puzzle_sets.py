"""Published Sudoku puzzles, from the package larsdoku (AGPL): one puzzle of every class of symmetry copies.

A record is ``puzzle,solution``, 81 characters each, ``.`` for a blank. Grids that are symmetry copies of each other share
`unmask.data.sudoku.invariant`: of every class one puzzle is kept, so that no part of a set holds a copy of another's grid.
Needs numba.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from unmask.data import sudoku
from unmask.data.sources import packages
from unmask.data.sources.packages import Package
from unmask.data.sudoku import BLANK, Puzzles
from unmask.data.sudoku.boards import Ints
from unmask.data.tokens import Tokens

LARSDOKU = Package(
    tool="pip",
    name="larsdoku",
    version="4.0.0",
    file="larsdoku-4.0.0-py3-none-any.whl",
    sha256="85682fa0edf555f9e943c1cbd27e2eb347e48034a9f476dd8687183fbb5c9469",
)

ALPHABET = ",.123456789"
"""Characters of a record."""


def seventeen() -> list[str]:
    """Puzzles of 17 clues, in no order that matters."""
    banks = json.loads(packages.read(packages.bring(LARSDOKU), "larsdoku/seed_bank_128.json"))
    return distinct(map(record, banks["banks"]["17"]))


def very_hard() -> list[str]:
    """Puzzles that no simple technique solves: 22 to 28 clues, some hundred guesses of a search."""
    packed = packages.read(packages.bring(LARSDOKU), "larsdoku/puzzle_collection.json.gz")
    found = json.loads(gzip.decompress(packed))
    return distinct(record(entry) for name, entries in found.items() if name != "meta" for entry in entries)


def record(entry: dict[str, Any]) -> str:
    """One puzzle of the package, given as its solution and a mask of its clues."""
    shown = (s if m == "1" else "." for s, m in zip(entry["solution"], entry["mask"], strict=True))
    return f"{''.join(shown)},{entry['solution']}"


def distinct(records: Iterable[str]) -> list[str]:
    """One record of every class of symmetry copies: the first in the order of the text, in that order.

    ValueError for a puzzle without exactly one solution.
    """
    ordered = sorted(set(records))
    _, first = np.unique(sudoku.invariant(_boards(ordered, 82)), return_index=True)
    kept = [ordered[i] for i in sorted(first)]
    unique = sudoku.is_unique(_boards(kept, 0))
    if not unique.all():
        raise ValueError(f"puzzle {kept[int(np.argmin(unique))][:81]}: expected exactly one solution")
    return kept


def _boards(records: list[str], start: int) -> Ints:
    """The boards int64 [n, 81] that begin at character ``start`` of each record."""
    text = np.frombuffer("".join(r[start : start + 81] for r in records).encode(), np.uint8)
    digits = text.reshape(-1, 81).astype(np.int64) - ord("1")
    return np.where(digits < 0, BLANK, digits)


def read(part: Tokens) -> Puzzles:
    """The puzzles and solutions of a fetched part."""
    return sudoku.read("".join(ALPHABET[i] for i in part.item(n)) for n in range(part.items))
