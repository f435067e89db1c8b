"""How are Sudoku boards made, moved, solved and checked? Conventions as in `unmask.data.sudoku`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from types import ModuleType
from typing import Any, TypeAlias, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.data.readers.boards import BOXES, SMALLER, symbols_of, units

Ints: TypeAlias = NDArray[np.int64]
Boards = TypeVar("Boards", NDArray[np.int64], Tensor)

FEWEST_CLUES = 21
"""`puzzles` refuses fewer on 9x9: digging hardly ever gets there (17 is the proved minimum, arXiv 1201.0749)."""

FEWEST = {16: 4, 36: 8, 64: 17, 81: FEWEST_CLUES}
"""The fewest clues that `puzzles` tries, by the cells of a board: what digging comes to in seconds."""

_CHUNK = 32  # boards between two moments at which Ctrl-C is heard: compiled loops do not hear it
_TRIES = 100_000  # grids per puzzle before digging gives up


def _jit() -> ModuleType:
    """The compiled loops; ImportError that says what to install when numba is missing."""
    try:
        from unmask.data.sudoku import jit
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] != "numba":
            raise
        raise ImportError(
            "making, solving and hashing Sudoku boards needs numba: pip install 'unmask[puzzles]'"
        ) from None
    return jit


def _word(seed: int) -> np.uint64:
    """Any Python integer as an unsigned 64-bit word."""
    return np.uint64(int(seed) % 2**64)


def _array(boards: Any, what: str = "boards") -> Ints:
    """A checked int64 copy-or-view [n, cells] of an array or tensor."""
    values = boards.detach().cpu().numpy() if isinstance(boards, Tensor) else np.asarray(boards)
    if values.dtype.kind not in "iu" or values.ndim not in (1, 2) or values.shape[-1] not in BOXES:
        raise ValueError(
            f"{what} have dtype {values.dtype} and shape {values.shape}; expected integers [n, 81] or [81] "
            f"{SMALLER}: flatten each board row by row"
        )
    values = np.ascontiguousarray(values.reshape(-1, values.shape[-1]), dtype=np.int64)
    size = symbols_of(values.shape[1])
    if values.size and (values.min() < 0 or values.max() > size):
        raise ValueError(
            f"{what} hold symbols {values.min()}..{values.max()}; "
            f"expected 0..{size - 1} for digits 1..{size} and {size} for a blank: subtract 1 from digits"
        )
    return values


def _same_cells(what: str, boards: Ints, others: str, them: Ints) -> None:
    """ValueError where two kinds of boards differ in size."""
    if boards.shape[1] != them.shape[1]:
        raise ValueError(
            f"{what} of {boards.shape[1]} cells with {others} of {them.shape[1]}; expected as many"
        )


def _in_kind(values: NDArray[Any], like: Any) -> Any:
    """``values`` [n, ...] as an array or tensor, as ``like`` is, without the batch when ``like`` has none."""
    values = values if np.ndim(like) == 2 else values[0]
    return torch.as_tensor(values, device=like.device) if isinstance(like, Tensor) else values


# --- making ---------------------------------------------------------------------------------------


def _number(n: int) -> int:
    """``n``, checked to be a number of boards."""
    if n < 0:
        raise ValueError(f"n={n}; expected a number of boards of 0 or more")
    return int(n)


def _cells(cells: int) -> int:
    """``cells``, checked to be those of a board."""
    if cells not in BOXES:
        raise ValueError(f"cells={cells}; expected 81 {SMALLER}")
    return int(cells)


@lru_cache
def units_of_cells(cells: int) -> Ints:
    """Which row, column and box each cell lies in, int64 [cells, 3], numbered one after another as in `units`."""
    places = np.argsort(units(cells).ravel(), kind="stable").reshape(cells, 3)
    found: Ints = places // symbols_of(cells)
    return found


def _parts(n: int, size: int = _CHUNK) -> Iterator[slice]:
    """0..n-1 in slices of ``size``."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def full_grids(n: int, seed: int, cells: int = 81) -> Ints:
    """Random complete valid grids, int64 [n, cells].

    Randomised depth-first search: the most constrained cell first (ties at random), its symbols in random
    order. The law is not exactly uniform over grids.
    """
    grids = np.empty((_number(n), _cells(cells)), np.int64)
    for part in _parts(n):
        _jit().full_grids(units_of_cells(cells), _word(seed), part.start, grids[part])
    return grids


def puzzles(n: int, seed: int, clues: int | None = None, cells: int = 81) -> tuple[Ints, Ints]:
    """Random puzzles with exactly one solution, and the solutions: two int64 [n, cells].

    Clues are taken from a random full grid in random order while one solution remains, until ``clues`` are
    left; a grid on which that gets stuck is replaced. ``clues=None`` goes on until no clue can be spared
    (minimal puzzles, 24.4 clues on average). Below 24 clues most grids get stuck: every further
    clue less costs five to fifty times as much. ``cells``: 16, 36 and 64 are boards of 4, 6 and 8 symbols with boxes
    of 2x2, 2x3 and 2x4.
    ValueError outside 21..81 (4..16, 8..36 and 17..64 on smaller boards).
    """
    if clues is not None and not FEWEST[_cells(cells)] <= clues <= cells:
        raise ValueError(f"clues={clues}; expected {FEWEST[cells]}..{cells}, or None for minimal puzzles")
    puzzle, solution = np.empty((_number(n), cells), np.int64), np.empty((n, cells), np.int64)
    for part in _parts(n):
        done = _jit().puzzles(
            units_of_cells(cells), _word(seed), part.start, clues or 0, _TRIES, puzzle[part], solution[part]
        )
        if done < len(puzzle[part]):
            raise ValueError(f"no puzzle with clues={clues} in {_TRIES} grids; ask for more clues")
    return puzzle, solution


# --- symmetries -----------------------------------------------------------------------------------


def _random_words(seed: int, shape: tuple[int, int]) -> NDArray[np.uint64]:
    """Words of splitmix64, uint64 ``shape``; row i has its own counter, mixed from (seed, i)."""
    row = _mix(
        np.arange(shape[0], dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + _mix(np.array([_word(seed)]))
    )
    return _mix(row[:, None] + np.arange(1, shape[1] + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of splitmix64, elementwise (arrays wrap silently, as meant)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _permutations(words: NDArray[np.uint64]) -> Ints:
    """Random permutations along the last axis, by sorting random words."""
    return np.argsort(words, axis=-1, kind="stable")


def _line_orders(words: NDArray[np.uint64], height: int) -> Ints:
    """Orders of rows [n, size] that keep bands of ``height`` together, from words [n, size / height + size]."""
    bands = words.shape[1] // (height + 1)
    order = _permutations(words[:, :bands])
    within = _permutations(words[:, bands:].reshape(-1, bands, height))
    return (order[:, :, None] * height + within).reshape(-1, bands * height)


def _transform(boards: Ints, words: NDArray[np.uint64]) -> Ints:
    """Boards [n, cells] under the symmetries that ``words`` [n, m] spell out."""
    n, cells = boards.shape
    size, (height, width) = symbols_of(cells), BOXES[cells]
    symbols = np.full((n, size + 1), size)
    symbols[:, :size] = _permutations(words[:, :size])
    down, across = words[:, size : 2 * size + width], words[:, 2 * size + width : -1]
    rows, columns = _line_orders(down, height), _line_orders(across, width)
    swap = (words[:, -1:] >> np.uint64(63)).astype(bool) & (height == width)
    places = (rows * np.where(swap, 1, size))[:, :, None] + (columns * np.where(swap, size, 1))[:, None, :]
    moved = np.take(boards, places.reshape(n, cells) + np.arange(n)[:, None] * cells)
    found: Ints = np.take(symbols, moved + np.arange(n)[:, None] * (size + 1))
    return found


@overload
def symmetries(boards: Boards, /, seed: int) -> Boards: ...
@overload
def symmetries(puzzle: Boards, solution: Boards, /, seed: int) -> tuple[Boards, Boards]: ...
def symmetries(*boards: Any, seed: int | None = None) -> Any:
    """Boards [n, cells], each under its own random symmetry: ``symmetries(boards, seed)``.

    ``symmetries(puzzle, solution, seed)`` moves both alike and returns both. Uniform over the 9! relabellings
    and the 2 * 6^8 cell maps (rows within bands, columns within stacks, bands, stacks, transposition; on smaller boards
    fewer, without transposition where boxes are not square); blanks stay blank, so the number of clues and of solutions
    is kept. Needs no numba.
    """
    if seed is None:
        *boards, seed = boards  # type: ignore[assignment]
    arrays = [_array(b) for b in boards]
    if not isinstance(seed, int | np.integer) or len(arrays) not in (1, 2):
        raise ValueError(
            "expected symmetries(boards, seed) or symmetries(puzzle, solution, seed), an integer seed last"
        )
    _same_cells("puzzles", arrays[0], "solutions", arrays[-1])
    if len({len(a) for a in arrays}) > 1:
        raise ValueError(
            f"{len(arrays[0])} puzzles with {len(arrays[1])} solutions; expected as many of each"
        )
    cells = arrays[0].shape[1]
    words = _random_words(int(seed), (len(arrays[0]), 3 * symbols_of(cells) + sum(BOXES[cells]) + 1))
    moved = tuple(_in_kind(_transform(a, words), b) for a, b in zip(arrays, boards))
    return moved if len(moved) > 1 else moved[0]


def invariant(grids: Any) -> NDArray[np.uint64]:
    """A hash of each full grid, uint64 numpy [n], equal for all symmetry copies of a grid.

    Built from the cycle types of the permutations between all pairs of rows and of columns, which no
    relabelling or reordering changes, with the band structure kept (derived). Different grids seldom share a
    hash, so refusing equal hashes keeps every copy of a training grid out of a test set. ValueError on grids
    that are not valid.
    """
    array = _array(grids, "grids")
    if array.shape[1] != 81:
        raise ValueError(f"grids of {array.shape[1]} cells; expected 81: hashes are of 9x9 grids only")
    if not (valid := _valid(array)).all():
        raise ValueError(
            f"grid {np.argmin(valid)} is not complete and valid; expected solutions, not puzzles"
        )
    out = np.empty(len(array), np.uint64)
    for part in _parts(len(array)):
        _jit().invariant(array[part], out[part])
    return out


# --- solving --------------------------------------------------------------------------------------


def _searched(boards: Any, limit: int) -> tuple[Ints, Ints]:
    """Boards after the search for ``limit`` solutions, and the number found."""
    array = _array(boards).copy()
    counts = np.zeros(len(array), np.int64)
    for part in _parts(len(array)):
        _jit().solve(units_of_cells(array.shape[1]), array[part], limit, counts[part])
    return array, counts


def count_solutions(boards: Boards, limit: int = 2) -> Boards:
    """Number of solutions of each board, int64 [n], up to ``limit``; 0 where clues clash.

    Depth-first search with naked and hidden singles. Boards with few clues have very many solutions: keep
    ``limit`` small.
    """
    if limit < 1:
        raise ValueError(f"limit={limit}; expected 1 or more")
    found: Boards = _in_kind(_searched(boards, limit)[1], boards)
    return found


def solve(boards: Boards) -> Boards:
    """Solutions, int64 [n, cells]; a board without a solution comes back as it was, blanks and all.

    A board with several solutions gets one of them, always the same; `is_unique` tells.
    """
    solved: Boards = _in_kind(_searched(boards, 1)[0], boards)
    return solved


def is_unique(boards: Boards) -> Any:
    """Which boards have exactly one solution, bool [n]."""
    return count_solutions(boards, 2) == 1


# --- checking -------------------------------------------------------------------------------------


def _valid(grids: Ints) -> NDArray[np.bool_]:
    """`is_valid` of a checked array; the symbols cover a unit only when each is there once."""
    cells_of_units, every = units(grids.shape[1]), (1 << symbols_of(grids.shape[1])) - 1
    valid = np.ones(len(grids), np.bool_)
    for part in _parts(len(grids), 4096):
        bits = (1 << grids[part])[:, cells_of_units]
        valid[part] = (np.bitwise_or.reduce(bits, axis=-1) == every).all(-1)
    return valid


def is_valid(grids: Any) -> Any:
    """Which grids are complete with each digit once in every row, column and box, bool [n]."""
    return _in_kind(_valid(_array(grids, "grids")), grids)


def keeps_clues(grids: Boards, puzzles: Boards) -> Any:
    """Which grids [n, cells] carry every clue of their puzzle, bool [n]; one puzzle [cells] serves all grids.

    All clues, not any: a valid grid that ignores clues solves another puzzle.
    """
    given, asked = _array(grids, "grids"), _array(puzzles, "puzzles")
    _same_cells("grids", given, "puzzles", asked)
    if len(asked) not in (1, len(given)):
        raise ValueError(
            f"{len(given)} grids with {len(asked)} puzzles; expected as many of each, or one puzzle"
        )
    return _in_kind(((asked == symbols_of(asked.shape[1])) | (asked == given)).all(1), grids)


def is_solved(grids: Boards, puzzles: Boards) -> Any:
    """Which grids are valid and keep every clue of their puzzle, bool [n]."""
    return is_valid(grids) & keeps_clues(grids, puzzles)
