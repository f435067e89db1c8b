"""Sizes of a block's items, and which are stored, under a range coder that learns as it goes.

Every number is a path of yes and no: stored or not, how many bits the size has, these bits from the top. Each turn has
the odds of what was met there before, (2 zeros + 1) to (2 ones + 1) (Krichevsky and Trofimov, 1981). Lengths of like
items take little more than their entropy, those of equal ones next to nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from unmask.codec.coder import Decoder, Encoder
from unmask.codec.tables import TOTAL, Floats

Node: TypeAlias = tuple[int, ...]
"""Where a path has come."""

Turn: TypeAlias = Callable[[Node, int], int]
"""The turn taken at a node: a writer takes the one it is given, a reader the one that it reads."""

_WIDTH = 6
"""Bits of the number of bits of a size, which is below 2^63."""


def write(items: Sequence[tuple[bool, int]]) -> bytes:
    """Items as (stored, size)."""
    encoder, odds = Encoder(), _Odds()

    def turn(node: Node, wanted: int) -> int:
        encoder.push(np.array([wanted]), odds.at(node))
        return odds.met(node, wanted)

    for stored, size in items:
        _item(turn, stored, size)
    return encoder.finish()


def read(data: bytes, count: int) -> list[tuple[bool, int]]:
    """So many items of `write`; `Damaged` where there can be none."""
    decoder, odds = Decoder(data), _Odds()

    def turn(node: Node, _: int) -> int:
        return odds.met(node, int(decoder.pop(odds.at(node))[0]))

    return [_item(turn, False, 0) for _ in range(count)]


class _Odds:
    """How often each turn was taken at each node."""

    def __init__(self) -> None:
        self.seen = Counter[tuple[Node, int]]()

    def at(self, node: Node) -> Floats:
        """Counts [1, 2] of the two turns."""
        no, yes = (2 * self.seen[node, turn] + 1 for turn in (0, 1))
        share = TOTAL * no // (no + yes)
        return np.array([[share, TOTAL - share]], np.float64)

    def met(self, node: Node, turn: int) -> int:
        """Counts the turn, and gives it back."""
        self.seen[node, turn] += 1
        return turn


def _item(turn: Turn, stored: bool, size: int) -> tuple[bool, int]:
    """An item, turn by turn."""
    kind = turn((), int(stored))
    width = _number(turn, (kind,), size.bit_length(), _WIDTH)
    top = 1 << width >> 1
    return bool(kind), top + _number(turn, (kind, width), size - top, max(width - 1, 0))


def _number(turn: Turn, node: Node, number: int, width: int) -> int:
    """A number of so many bits, from the top."""
    path = 1
    for place in reversed(range(width)):
        path = 2 * path + turn((*node, path), number >> place & 1)
    return path - (1 << width)
