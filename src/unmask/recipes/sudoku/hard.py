"""Recipes `sudoku_hard` and `sudoku_equivariant`: networks that are looped more often, for puzzles that take guessing.

The first goes on from the weights of `sudoku`, the second has a network of its own, to which all digits are alike, and
starts from nothing. Three things differ from `sudoku`. Puzzles: half of each batch comes from a bank of puzzles made
hard by hill climbing (`unmask.data.sudoku.hard`), the fresh minimal ones are the harder half of those made. States: the
cells that naked and hidden singles give are filled in every second puzzle, as an order by margin fills them first. Depth:
one part of each batch starts from nothing, one from the network's state after one span of loops, one after two, as many
parts as the loops have spans; the gradient goes through the last span only (as in arXiv 2510.04871).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from unmask.data import sudoku as boards
from unmask.data.sudoku import hard
from unmask.masking.corruption import random_subset
from unmask.recipes.run import Batch, Optimiser, Run, check_ranges, generator
from unmask.recipes.sudoku.equivariant import EquivariantConfig, from_config
from unmask.recipes.sudoku.plain import (
    AXES,
    GRIDS,
    PUZZLES,
    SYMMETRIES,
    board_seed,
    puzzle_counts,
    sudoku,
    supervised,
    uniform_counts,
)

SPAN = 4
"""Loops that the gradient goes through in `sudoku_hard`."""

STAGES = 3
"""Parts of a batch by the number of spans that come before those loops, 0, 1, ..; other loops make other parts."""

LONGER = 6
"""Loops that the gradient goes through in `sudoku_equivariant`."""


@dataclass(frozen=True)
class HardData:
    """Batches: ``grids`` is the share of full grids masked uniformly, ``banked`` that of puzzles from a bank.

    ``bank`` is a file that `unmask.data.sudoku.read` reads, with solutions; the rest are fresh minimal puzzles, the
    hardest of ``tries`` times as many, each in ``copies`` symmetric copies. floor(blanks * u^reveal) blanks are shown; in
    the share ``settled`` of puzzles also what singles then give.
    """

    grids: float = 0.125
    banked: float = 0.5
    bank: str = ""
    copies: int = 4
    tries: int = 2
    reveal: float = 4.0
    settled: float = 0.5

    def __post_init__(self) -> None:
        check_ranges(
            self, grids=(0, 1), banked=(0, 1 - self.grids), copies=(1, math.inf), tries=(1, math.inf)
        )
        check_ranges(self, reveal=(0, math.inf), settled=(0, 1))


def sudoku_hard() -> Run:
    """The shipped model's network with 12 loops, trained on from it."""
    easy = sudoku()
    return replace(
        easy,
        name="sudoku_hard",
        network=replace(easy.network, loops=SPAN * STAGES),
        data=HardData(),
        prepare=prepare,
        batch=batch,
        objective=objective,
        optimiser=Optimiser(steps=6000, learning_rate=7e-4, warmup=100, decay=0.4, ema=0.998),
    )


def sudoku_equivariant() -> Run:
    """A network of 64 channels for every cell and digit, one block run 24 times; from nothing, by Muon."""
    return replace(
        sudoku_hard(),
        name="sudoku_equivariant",
        network=EquivariantConfig(
            vocab_size=9, length=81, width=64, hidden=160, axes=AXES, kinds=(0, 0, 1), loops=4 * LONGER
        ),
        data=HardData(grids=0.05, banked=0.4),
        build=from_config,
        objective=partial(objective, span=LONGER),
        optimiser=Optimiser(steps=8000, learning_rate=2e-3, warmup=100, decay=0.3, ema=0.998, muon=True),
    )


def prepare(run: Run) -> Run:
    """The run, once its bank is known to be there."""
    if run.data.banked and not run.data.bank:
        raise ValueError(
            "field 'data.bank': got none; expected a file of puzzles and solutions, or data.banked 0"
        )
    if run.data.banked:
        _bank(run.data.bank)
    return run


@lru_cache(maxsize=2)
def _bank(path: str) -> tuple[Tensor, Tensor]:
    """Puzzles and solutions of a file, int64 [n, 81] each."""
    found = boards.read(path, 81)
    if found.solutions is None:
        raise ValueError(f"{path} has no solutions; expected puzzle and solution in each line")
    return torch.as_tensor(found.puzzles), torch.as_tensor(found.solutions)


def batch(run: Run, step: int) -> Batch:
    """The boards of one step and what is hidden of them; a function of (seed, step) only."""
    random, data = generator(run, step), run.data
    grids, banked = round(run.batch_size * data.grids), round(run.batch_size * data.banked)
    full = torch.as_tensor(boards.full_grids(grids, seed=board_seed(run, step, GRIDS)))
    counts = uniform_counts(grids, 81, random)
    puzzles, solutions = _puzzles(run, step, banked, random)
    tokens = torch.cat([full, solutions])
    hidden = [
        random_subset(torch.ones_like(full, dtype=torch.bool), counts, random),
        _hidden(run, puzzles, solutions, random),
    ]
    masked = torch.cat(hidden)
    mixed = torch.randperm(len(tokens), generator=random)
    return Batch(tokens[mixed], masked[mixed], (81.0 / masked.sum(1))[mixed])


def _puzzles(run: Run, step: int, banked: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Puzzles and solutions: ``banked`` from the bank, the others fresh; int64 [n, 81] each."""
    data = run.data
    others = run.batch_size - round(run.batch_size * data.grids) - banked
    fresh = -(-others // data.copies)
    made = hard.hardest(fresh, data.tries, seed=board_seed(run, step, PUZZLES))
    pairs = [torch.as_tensor(b).repeat(data.copies, 1)[:others] for b in made]
    if banked:
        bank = _bank(data.bank)
        index = torch.randint(len(bank[0]), (banked,), generator=random)
        pairs = [torch.cat([own, b[index]]) for own, b in zip(pairs, bank)]
    return boards.symmetries(pairs[0], pairs[1], seed=board_seed(run, step, SYMMETRIES))


def _hidden(run: Run, puzzles: Tensor, solutions: Tensor, random: torch.Generator) -> Tensor:
    """Which cells stay hidden, bool [n, 81]: blanks less those shown, less what singles give in some puzzles."""
    blank = puzzles == boards.BLANK
    hidden = random_subset(blank, puzzle_counts(blank, run.data.reveal, random), random)
    settled = hard.settle(solutions.masked_fill(hidden, boards.BLANK)) == boards.BLANK
    takes = (torch.rand(len(blank), generator=random) < run.data.settled) & settled.any(1)
    return torch.where(takes[:, None], settled, hidden)


def objective(network: nn.Module, data: Batch, *, span: int = SPAN) -> Tensor:
    """Weighted masked cross-entropy, nats per cell: half the last loop's, half all loops' mean, of the last ``span``."""
    tokens = data.tokens.masked_fill(data.masked, boards.BLANK)
    loops: int = network.shape.loops  # type: ignore[assignment, union-attr]
    count = max(1, loops // span)
    ahead = _ahead(network, tokens, stages(data, count), count, span)
    streams = network.refine(tokens, ahead, span)  # type: ignore[operator]
    return supervised([network.logits(x, None) for x in streams], data)  # type: ignore[operator]


def stages(data: Batch, count: int) -> Tensor:
    """How many spans of loops come before those that are trained: 0, 1, .. for ``count`` parts of a batch, int64 [B]."""
    number, rows = data.places()[:, :, None].unbind(1)
    part = torch.arange(1, count, device=number.device)
    return (number >= rows * part // count).sum(1)


@torch.no_grad()
def _ahead(network: nn.Module, tokens: Tensor, stage: Tensor, count: int, span: int) -> Tensor:
    """Where each board starts: the state [B, ..] after as many spans of loops as its ``stage`` int64 [B] < count says."""
    first = network.refine(tokens[:1], None, 1)[-1]  # type: ignore[operator]
    stream = torch.zeros_like(first).repeat(len(tokens), *[1] * (first.ndim - 1))
    for number in range(1, count):
        later = stage >= number
        stream[later] = network.refine(tokens[later], stream[later], span)[-1]  # type: ignore[operator]
    return stream
