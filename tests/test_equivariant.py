"""The equivariant network: renaming symbols and moving rows of a puzzle does the same to its logits, and it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("numba")

import unmask
from unmask.data import sudoku
from unmask.recipes import Machine, sudoku_equivariant
from unmask.recipes.sudoku import AXES, HardData
from unmask.recipes.sudoku.equivariant import EquivariantConfig, EquivariantNetwork, from_config, membership
from unmask.training import train

SHAPE = EquivariantConfig(
    vocab_size=9, length=81, width=8, hidden=12, axes=AXES, kinds=(0, 0, 1), depth=2, loops=3
)


def network(shape: EquivariantConfig = SHAPE) -> EquivariantNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = from_config(shape).double()
        torch.nn.init.normal_(made.head.weight)
    return made


@pytest.fixture(scope="module")
def boards() -> torch.Tensor:
    return torch.as_tensor(sudoku.puzzles(3, seed=5)[0])


def test_digits_are_alike(boards: torch.Tensor) -> None:
    names = torch.tensor([3, 1, 4, 8, 0, 2, 6, 7, 5, 9])
    logits, renamed = network()(boards), network()(names[boards])
    assert logits.std() > 0.01
    assert torch.allclose(renamed[..., names[:9]], logits)


@pytest.mark.parametrize("move", ["rows in a band", "bands", "transposed"])
def test_moves_that_keep_groups_together_move_the_answer(boards: torch.Tensor, move: str) -> None:
    grid = torch.arange(81).view(9, 9)
    moved = {
        "rows in a band": grid[[2, 0, 1, 3, 4, 5, 6, 7, 8]],
        "bands": grid[[6, 7, 8, 0, 1, 2, 3, 4, 5]],
        "transposed": grid.T,
    }[move].flatten()
    assert torch.allclose(network()(boards[:, moved]), network()(boards)[:, moved])


def test_a_move_that_breaks_groups_does_not(boards: torch.Tensor) -> None:
    grid = torch.arange(81).view(9, 9)
    broken = grid[[3, 1, 2, 0, 4, 5, 6, 7, 8]].flatten()  # rows of different bands change places
    assert not torch.allclose(network()(boards[:, broken]), network()(boards)[:, broken])


def test_columns_are_told_from_rows_unless_they_share_weights(boards: torch.Tensor) -> None:
    apart = network(replace(SHAPE, kinds=()))
    turned = torch.arange(81).view(9, 9).T.flatten()
    assert not torch.allclose(apart(boards[:, turned]), apart(boards)[:, turned])


def test_groups_are_those_of_the_axes() -> None:
    axes = ((0, 0, 0, 0, 1, 1), (0, 1, 0, 1, 0, 1))
    assert torch.equal(membership(axes[0]) > 0, torch.tensor([[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]]) > 0)
    assert torch.allclose(
        membership(axes[0]).square().sum(1), torch.ones(2)
    )  # sums of equals keep their size
    shape = EquivariantConfig(vocab_size=3, length=6, width=4, hidden=4, axes=axes)
    tokens = torch.tensor([[0, 1, 3, 3, 2, 3]])
    before = network(shape)(tokens)
    changed = network(shape)(tokens.index_fill(1, torch.tensor([4]), 0))
    far, near = 0, 5  # one block: 0 shares no group with 4 but has its column's; 3 shares none
    assert torch.allclose(before[0, 3], changed[0, 3])
    assert not torch.allclose(before[0, near], changed[0, near])
    assert not torch.allclose(before[0, far], changed[0, far])


def test_rows_and_loops(boards: torch.Tensor) -> None:
    net, rows = network(), torch.tensor([[5, 80], [0, 1], [40, 7]])
    logits = net(boards)
    assert torch.allclose(net(boards, rows), logits.gather(1, rows[..., None].expand(-1, -1, 9)))
    assert torch.allclose(net.readouts(boards)[-1], logits)
    first = net.refine(boards, None, 1)[-1]
    assert torch.allclose(net.logits(net.refine(boards, first, 2)[-1], None), logits)
    assert EquivariantConfig(**net.config) == SHAPE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"axes": ()}, "axes"),
        ({"axes": ((0, 1),)}, "81"),
        ({"axes": ((-1,) * 81,), "kinds": ()}, ">= 0"),
        ({"kinds": (0, 1)}, "kinds"),
        ({"width": 0}, "width"),
    ],
)
def test_shapes_that_do_not_fit(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(SHAPE, **change)


def test_the_recipe_learns_and_its_model_loads(tmp_path: Path) -> None:
    run = sudoku_equivariant()
    run = replace(
        run,
        batch_size=8,
        network=replace(run.network, width=12, hidden=16, loops=12),
        data=HardData(grids=0.0, banked=0.0, copies=1, tries=1),
        optimiser=replace(run.optimiser, steps=30, warmup=5, learning_rate=1e-2, ema=0.9),
        machine=Machine(threads=1),
    )
    model = unmask.load(train(run, tmp_path / "run", quiet=True))
    assert model.config["network"]["kinds"] == [0, 0, 1]
    assert model.sudoku
    puzzle, solution = (torch.as_tensor(b) for b in sudoku.puzzles(20, seed=3, clues=50))
    right = model.denoiser(puzzle).argmax(-1) == solution
    assert right[puzzle == 9].float().mean() > 0.25  # one in nine by chance


def test_the_shipped_model_solves_minimal_puzzles_in_few_calls() -> None:
    model = unmask.load("sudoku_equivariant")
    puzzle, solution = (torch.as_tensor(b) for b in sudoku.puzzles(8, seed=20_270_101))
    selector = unmask.selectors.threshold(unmask.scores.confidence, 0.999)
    found = unmask.sample(
        model.denoiser,
        puzzle,
        selector,
        generator=torch.Generator().manual_seed(0),
        source=unmask.greedy,
    )
    assert (found.tokens == solution).all(1).sum() >= 6
    assert found.nfe.mean() < 8
