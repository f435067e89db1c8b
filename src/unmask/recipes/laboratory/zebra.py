"""Recipe `zebra`: a masked diffusion model that fills in who lives where, given clues (arXiv 2502.06768).

Clues are visible tokens and only the grid is masked. A clue is one symbol, which the network takes apart
(`clue_network`). A transformer of the same tokens learnt much more slowly: with three houses of three attributes it solved
18 % after 3,000 steps with a vector for each symbol, 48 % with one for each part of a clue, where this one solves 97 %
after 500. Puzzles have one solution and are made as they are needed, so that none is seen twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.data import zebra as puzzles
from unmask.masking.corruption import random_subset
from unmask.recipes.laboratory.clue_network import KINDS, ClueConfig, from_config, symbols
from unmask.recipes.run import Batch, Machine, Optimiser, Run, check_ranges, generator
from unmask.recipes.sudoku import PUZZLES, SYMMETRIES, board_seed, objective, puzzle_counts

Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class ZebraData:
    """Puzzles of ``houses`` and ``attributes`` with at most ``most`` clues; each is in a batch ``copies`` times, moved.

    floor(cells * u^reveal) cells are shown, u uniform: high powers dwell on the puzzle as it is posed. ``weights`` say how
    often each kind of clue is tried when puzzles are made, for training from easy to hard with ``start``.
    """

    houses: int = 4
    attributes: int = 4
    most: int = 14
    copies: int = 1
    reveal: float = 1.5
    weights: tuple[int, ...] = (1,) * KINDS

    def __post_init__(self) -> None:
        check_ranges(self, copies=(1, math.inf), reveal=(0, math.inf))
        if len(self.weights) != KINDS or min(self.weights) < 0 or sum(self.weights) == 0:
            raise ValueError(
                f"weights {self.weights}: expected {KINDS} whole numbers of at least 0, not all 0"
            )
        self.size()

    def size(self) -> puzzles.Size:
        """The size of the puzzles."""
        return puzzles.Size(self.houses, self.attributes, self.most)


def zebra() -> Run:
    """Four houses, four attributes; 32 channels for every item and house, six loops with a loss at each."""
    return Run(
        name="zebra",
        network=ClueConfig(width=32, hidden=96, loops=6),
        data=ZebraData(),
        build=from_config,
        prepare=prepare,
        batch=batch,
        objective=objective,
        order="margin",
        encode=encode,
        decode=decode,
        batch_size=64,
        optimiser=Optimiser(steps=2_000, learning_rate=2e-3, warmup=100, decay=0.3, ema=0.998, muon=True),
        machine=Machine(),
    )


def prepare(run: Run) -> Run:
    """The run with the network's sizes, which follow from those of the puzzles."""
    size = run.data.size()
    sizes = {"houses": size.houses, "attributes": size.attributes, "most": size.most}
    length = size.most + size.items
    return replace(run, network=replace(run.network, **sizes, vocab_size=symbols(size), length=length))


def batch(run: Run, step: int) -> Batch:
    """The puzzles of one step and which cells are hidden; a function of (seed, step) only."""
    random, size, data = generator(run, step), run.data.size(), run.data
    fresh = -(-run.batch_size // data.copies)
    made = puzzles.puzzles(fresh, board_seed(run, step, PUZZLES), size, weights=data.weights)
    clues, grids = (np.concatenate([x] * data.copies)[: run.batch_size] for x in made)
    clues, grids = puzzles.symmetries(clues, grids, size, board_seed(run, step, SYMMETRIES))
    tokens = to_tokens(clues, grids, size)
    cells = (torch.arange(tokens.shape[1]) >= size.most).expand_as(tokens)
    masked = random_subset(cells, puzzle_counts(cells, data.reveal, random), random)
    return Batch(tokens, masked, tokens.shape[1] / masked.sum(1))


def to_tokens(clues: Ints, grids: Ints, size: puzzles.Size) -> Tensor:
    """Tokens int64 [n, most + items] of clues and grids; -1 in a grid is masked.

    Symbols are houses, then clues (kind, first, second, the last fastest), and one for where there is no clue.
    """
    kind, x, y = np.moveaxis(clues, -1, 0)
    told = np.where(kind < 0, symbols(size) - 1, ((kind * size.items) + x) * size.items + y + size.houses)
    return torch.as_tensor(np.concatenate([told, np.where(grids < 0, symbols(size), grids)], 1))


def encode(run: Run, lines: str | Sequence[str]) -> Tensor:
    """Tokens of a puzzle or several, a line each as `unmask.data.zebra.parse` reads it; ValueError names the item."""
    size, found = run.data.size(), []
    for number, line in enumerate([lines] if isinstance(lines, str) else lines):
        try:
            found.append(puzzles.parse(line, size))
        except ValueError as error:
            raise ValueError(f"item {number}: {error}") from None
    clues = np.array([c for c, _ in found]).reshape(-1, size.most, 3)
    return to_tokens(clues, np.array([g for _, g in found]).reshape(-1, size.items), size)


def decode(run: Run, tokens: Tensor) -> list[str]:
    """Each puzzle as a line, masked cells as ``..``."""
    size = run.data.size()
    told, grids = tokens[:, : size.most].numpy() - size.houses, tokens[:, size.most :].numpy()
    first, y = np.divmod(told, size.items)
    clues = np.stack([first // size.items, first % size.items, y], -1)
    clues[told == KINDS * size.items**2] = -1
    return [puzzles.text(c, g, size) for c, g in zip(clues, grids)]
