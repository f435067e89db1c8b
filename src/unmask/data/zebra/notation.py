"""How is a zebra puzzle written? One line of clues, a colon, and the grid: ``A1@2 A1<<B3 : A213 B.13``.

Item "B3" is value 3 of attribute B. The grid says "A213": A1 is in house 2, A2 in house 1, A3 in house 3; ``.`` is masked.
Clues: ``A1@2`` in house 2, ``A1!2`` not there, ``A1=B2`` same house, ``A1#B2`` not the same, ``A1<<B2`` immediately left,
``A1<B2`` left, ``A1|B2`` next to each other, ``A1_B2`` one house between.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from unmask.data.zebra.puzzles import Ints, Kind, Size

SIGNS = ("@", "!", "=", "#", "<<", "<", "|", "_")
"""The sign of each kind."""

SENTENCES = (
    "{x} is in house {y}",
    "{x} is not in house {y}",
    "{x} and {y} are in the same house",
    "{x} and {y} are in different houses",
    "{x} is immediately left of {y}",
    "{x} is somewhere left of {y}",
    "{x} and {y} are next to each other",
    "there is one house between {x} and {y}",
)
"""What each kind says."""

_CLUE = re.compile(r"([A-F][1-6])(@|!|=|#|<<|<|\||_)([A-F]?[1-6])")


def parse(line: str, size: Size) -> tuple[Ints, Ints]:
    """Clues int64 [most, 3] and grid int64 [items] (-1: masked) of a line; without a colon all cells are masked.

    ValueError says what is wrong with which clue or cell.
    """
    told, _, cells = line.partition(":")
    clues = [_clue(word, size) for word in told.split()]
    if len(clues) > size.most:
        raise ValueError(f"{len(clues)} clues: expected at most {size.most}")
    filled = [*clues, *[(-1, -1, -1)] * (size.most - len(clues))]
    return np.array(filled, dtype=np.int64).reshape(-1, 3), _grid(cells.split(), size)


def _clue(word: str, size: Size) -> tuple[int, int, int]:
    found = _CLUE.fullmatch(word)
    if not found or (found[2] in "@!") != found[3].isdigit():
        raise ValueError(
            f"clue {word!r}: expected such as A1@2, A1!2, A1=B2, A1#B2, A1<<B2, A1<B2, A1|B2 or A1_B2"
        )
    kind, x = SIGNS.index(found[2]), _item(found[1], size)
    return kind, x, int(found[3]) - 1 if found[3].isdigit() else _item(found[3], size)


def _item(word: str, size: Size) -> int:
    attribute, value = ord(word[0]) - ord("A"), int(word[1]) - 1
    if not (attribute < size.attributes and value < size.houses):
        last = name(size.items - 1, size)
        raise ValueError(
            f"item {word}: expected A1 to {last}, for {size.attributes} attributes of {size.houses} houses"
        )
    return attribute * size.houses + value


def _grid(rows: list[str], size: Size) -> NDArray[np.int64]:
    letters = "ABCDEF"[: size.attributes]
    rows = rows or [letter + "." * size.houses for letter in letters]
    houses = "".join(map(str, range(1, size.houses + 1)))
    fits = [bool(re.fullmatch(f"{a}[.{houses}]{{{size.houses}}}", row)) for a, row in zip(letters, rows)]
    if len(rows) != size.attributes or not all(fits):
        example = " ".join(letter + houses for letter in letters)
        raise ValueError(f"grid {' '.join(rows)!r}: expected such as {example}, '.' for a masked cell")
    cells = "".join(row[1:] for row in rows)
    return np.array([-1 if cell == "." else int(cell) - 1 for cell in cells], dtype=np.int64)


def name(item: int, size: Size) -> str:
    """An item as a letter and a digit."""
    attribute, value = divmod(int(item), size.houses)
    return f"{'ABCDEF'[attribute]}{value + 1}"


def text(clues: Ints, grid: Ints, size: Size) -> str:
    """The line of clues [most, 3] and a grid [items] in which what is no house is masked."""
    told = [f"{name(x, size)}{SIGNS[kind]}{_second(kind, y, size)}" for kind, x, y in clues if kind >= 0]
    cells = "".join(str(house + 1) if 0 <= house < size.houses else "." for house in grid)
    rows = ["ABCDEF"[i] + cells[i * size.houses : (i + 1) * size.houses] for i in range(size.attributes)]
    return f"{' '.join(told)} : {' '.join(rows)}"


def sentences(clues: Ints, size: Size) -> list[str]:
    """The clues [most, 3] in words."""
    return [
        SENTENCES[kind].format(x=name(x, size), y=_second(kind, y, size)) for kind, x, y in clues if kind >= 0
    ]


def _second(kind: int, y: int, size: Size) -> str:
    return str(y + 1) if kind in (Kind.AT, Kind.NOT_AT) else name(y, size)
