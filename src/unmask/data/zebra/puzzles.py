"""How are zebra puzzles made, moved, solved, checked and written? Conventions as in `unmask.data.zebra`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import ModuleType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]

_CHUNK = 32  # puzzles between two moments at which Ctrl-C is heard: compiled loops do not hear it


class Kind(IntEnum):
    """What a clue says of items x and y, or of item x and house y."""

    AT = 0
    NOT_AT = 1
    SAME = 2
    APART = 3
    JUST_LEFT = 4
    LEFT = 5
    BESIDE = 6
    BETWEEN = 7


@dataclass(frozen=True)
class Size:
    """``houses`` 3 to 6 and ``attributes`` 2 to 6; ``most`` clues, room for a puzzle that needs many."""

    houses: int = 4
    attributes: int = 4
    most: int = 14

    def __post_init__(self) -> None:
        for name, low, high in (("houses", 3, 6), ("attributes", 2, 6), ("most", 4, 256)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} {getattr(self, name)}: expected a whole number in {low}..{high}")
        if self.most < self.items // 2:
            raise ValueError(
                f"most {self.most}: expected at least {self.items // 2} clues for {self.items} items"
            )

    @property
    def items(self) -> int:
        """Number of items, and of cells of a grid."""
        return self.houses * self.attributes


def _jit() -> ModuleType:
    """The compiled loops; ImportError that says what to install when numba is missing."""
    try:
        from unmask.data.zebra import jit
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] != "numba":
            raise
        raise ImportError(
            "making and solving zebra puzzles needs numba: pip install 'unmask[puzzles]'"
        ) from None
    return jit


def puzzles(
    n: int, seed: int, size: Size = Size(), *, weights: Sequence[int] = (1,) * len(Kind)
) -> tuple[Ints, Ints]:
    """Random puzzles with exactly one solution, and the solutions: clues int64 [n, most, 3], grids int64 [n, items].

    Random true clues, each of a kind drawn by ``weights``, are added until one solution is left; then those that can be
    spared are dropped. A puzzle with more than ``most`` clues is made anew.
    """
    clues = np.empty((n, size.most, 3), np.int64)
    grids = np.empty((n, size.items), np.int64)
    kinds, word = np.asarray(weights, np.int64), np.uint64(int(seed) % 2**64)
    for start in range(0, n, _CHUNK):
        part = slice(start, start + _CHUNK)
        _jit().puzzles(word, start, size.houses, kinds, clues[part], grids[part])
    return clues, grids


def solve(clues: Ints, size: Size, limit: int = 2) -> tuple[Ints, Ints]:
    """Number of solutions up to ``limit`` int64 [n], and a solution of each puzzle int64 [n, items] where there is one."""
    counts, grids = np.zeros(len(clues), np.int64), np.zeros((len(clues), size.items), np.int64)
    for start in range(0, len(clues), _CHUNK):
        part = slice(start, start + _CHUNK)
        _jit().solve(np.ascontiguousarray(clues[part]), size.houses, limit, counts[part], grids[part])
    return counts, grids


def count_solutions(clues: Ints, size: Size, limit: int = 2) -> Ints:
    """Number of solutions up to ``limit``, int64 [n]."""
    return solve(clues, size, limit)[0]


def is_solved(clues: Ints, grids: Ints, size: Size) -> NDArray[np.bool_]:
    """Whether each grid has the items of an attribute in different houses and keeps all clues, bool [n]. No numba."""
    rows = np.sort(grids.reshape(-1, size.attributes, size.houses), axis=-1)
    proper = (rows == np.arange(size.houses)).all((1, 2))
    return np.asarray(proper & _kept(clues, grids).all(1))


def _kept(clues: Ints, grids: Ints) -> NDArray[np.bool_]:
    """Which clues are true of grids [n, items]; those behind the last are. bool [n, most]."""
    kind, x, y = np.moveaxis(clues, -1, 0)
    one = np.take_along_axis(grids, np.maximum(x, 0), 1)
    named = (kind == Kind.AT) | (kind == Kind.NOT_AT)
    other = np.where(named, y, np.take_along_axis(grids, np.where(named, 0, np.maximum(y, 0)), 1))
    apart = np.abs(one - other)
    says = [
        one == other,
        one != other,
        one == other,
        one != other,
        one + 1 == other,
        one < other,
        apart == 1,
        apart == 2,
    ]
    return np.asarray(np.choose(np.maximum(kind, 0), says) | (kind < 0))


def symmetries(clues: Ints, grids: Ints, size: Size, seed: int) -> tuple[Ints, Ints]:
    """Each puzzle under a random symmetry: attributes and values renamed, perhaps mirrored, clues in another order."""
    random = np.random.default_rng(np.random.SeedSequence(int(seed) % 2**64))
    n, width = len(clues), size.houses
    attribute = random.random((n, size.attributes)).argsort(1)
    value = random.random((n, size.attributes, width)).argsort(2)
    names = (attribute[..., None] * width + value).reshape(n, -1)
    mirrored = random.random(n) < 0.5
    moved = np.take_along_axis(grids, names.argsort(1), 1)
    moved = np.where(mirrored[:, None], width - 1 - moved, moved)
    order = (random.random(clues.shape[:2]) + (clues[..., 0] < 0)).argsort(1)[..., None]
    return np.take_along_axis(_renamed(clues, names, mirrored, width, random), order, 1), moved


def _renamed(
    clues: Ints, names: Ints, mirrored: NDArray[np.bool_], width: int, random: np.random.Generator
) -> Ints:
    """Clues under new names of items [n, items], mirrored where told; even kinds have their arguments in random order."""
    kind, x, y = np.moveaxis(clues, -1, 0)
    flip = mirrored[:, None]
    named = (kind == Kind.AT) | (kind == Kind.NOT_AT)
    one = np.take_along_axis(names, np.maximum(x, 0), 1)
    house = np.where(flip, width - 1 - y, y)
    other = np.where(named, house, np.take_along_axis(names, np.where(named, 0, np.maximum(y, 0)), 1))
    sided = (kind == Kind.JUST_LEFT) | (kind == Kind.LEFT)
    swap = np.where(sided, flip, random.random(kind.shape) < 0.5) & ~named
    new = np.stack([kind, np.where(swap, other, one), np.where(swap, one, other)], -1)
    return np.where(kind[..., None] < 0, -1, new)
