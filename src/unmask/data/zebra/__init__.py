"""Zebra puzzles: who lives where, told by clues that leave one answer; generate, transform, solve, check and write them.

``houses`` stand in a row; each of the ``attributes`` gives every house another of ``houses`` values. Item number
attribute * houses + value is one such value; a grid int64 [attributes * houses] holds the house of each item. A clue is a
kind (`Kind`) and two arguments: two items, or for `AT` and `NOT_AT` an item and a house; clues are int64 [n, most, 3], with
-1 behind the last. Making and solving need numba (``pip install 'unmask[puzzles]'``).

Everything random is a function of the seed alone: puzzle i of a seed is the same for every n.
"""

from unmask.data.zebra.notation import parse, sentences, text
from unmask.data.zebra.puzzles import (
    Kind,
    Size,
    count_solutions,
    is_solved,
    puzzles,
    solve,
    symmetries,
)

__all__ = [
    "Kind",
    "Size",
    "count_solutions",
    "is_solved",
    "parse",
    "puzzles",
    "sentences",
    "solve",
    "symmetries",
    "text",
]
