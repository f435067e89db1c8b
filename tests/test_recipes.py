"""Recipes: typed records that command lines may change, and batches that are functions of (run, step)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from tiny import tiny

from unmask.data import sudoku as boards
from unmask.recipes import Machine, Optimiser, Run, all_recipes, sudoku
from unmask.recipes.run import describe, generator, override
from unmask.recipes.sudoku import AXES, SudokuData

every_recipe = pytest.mark.parametrize("name", all_recipes())


# --- records --------------------------------------------------------------------------------------


@every_recipe
def test_a_recipe_describes_itself_in_json(name):
    run = all_recipes()[name]()
    described = describe(run)
    assert json.loads(json.dumps(described)) == described
    assert describe(all_recipes()[name]()) == described
    assert described["name"] == run.name == name
    assert set(described) == {
        "name",
        "order",
        "start",
        "lengths",
        "network",
        "data",
        "vocabulary",
        "batch_size",
        "seed",
        "randomness",
        "optimiser",
        "machine",
    }
    assert described["optimiser"]["steps"] == run.optimiser.steps


def test_descriptions_differ_where_runs_do():
    assert describe(tiny()) != describe(replace(tiny(), seed=1))
    assert describe(tiny()) != describe(tiny(ema=0.5))


def test_override_sets_nested_fields_of_every_type():
    run = override(
        sudoku(),
        {
            "batch_size": "8",
            "seed": "3",
            "optimiser.steps": "200",
            "optimiser.learning_rate": "1e-2",
            "optimiser.weight_decay": "1",
            "machine.compile": "False",
            "machine.bfloat16": "true",
            "machine.device": "cpu:0",
            "network.hidden": "None",
            "network.axes": "[" + json.dumps(list(range(81))) + "]",
            "data.reveal": "2",
        },
    )
    assert (run.batch_size, run.seed) == (8, 3)
    assert (run.optimiser.steps, run.optimiser.learning_rate) == (200, 0.01)
    assert isinstance(run.optimiser.weight_decay, float)
    assert (run.machine.compile, run.machine.bfloat16, run.machine.device) == (False, True, "cpu:0")
    assert run.network.hidden is None
    assert run.network.axes == (tuple(range(81)),)
    assert isinstance(run.data.reveal, float)
    untouched = sudoku()
    assert run.optimiser.warmup == untouched.optimiser.warmup
    assert run.batch is untouched.batch
    assert override(untouched, {}) == untouched


def test_fields_that_must_fit_each_other_change_together():
    for changes in (
        {"network.width": "30", "network.heads": "3"},
        {"network.heads": "3", "network.width": "30"},
    ):
        run = override(sudoku(), changes)
        assert (run.network.width, run.network.heads) == (30, 3)
    with pytest.raises(ValueError, match="width 30 over 4 heads"):
        override(sudoku(), {"network.width": "30"})


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("optimiser.stepz", "optimiser.steps"),
        ("optimizer.steps", "optimiser.steps"),
        ("steps", "optimiser.steps"),
        ("batchsize", "batch_size"),
        ("machine.threds", "machine.threads"),
        ("learning-rate", "optimiser.learning_rate"),
        ("seed.x", "seed"),
        ("objective", None),
        ("build", None),
        ("optimiser", None),
        ("", None),
        ("network.config", None),
    ],
)
def test_unknown_fields_suggest_the_nearest(wrong, near):
    with pytest.raises(ValueError, match=f"unknown field '{wrong}': did you mean '{near or '.*'}'"):
        override(sudoku(), {wrong: "1"})


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("optimiser.steps", "abc", "int"),
        ("optimiser.steps", "2.5", "int"),
        ("optimiser.steps", "true", "int"),
        ("optimiser.steps", "", "int"),
        ("optimiser.learning_rate", "fast", "float"),
        ("optimiser.learning_rate", "true", "float"),
        ("machine.compile", "1", "bool"),
        ("machine.compile", "yes", "bool"),
        ("network.hidden", "wide", "int or None"),
        ("network.axes", "3", "tuple or None"),
        ("seed", "None", "int"),
        ("seed", "[1]", "int"),
    ],
)
def test_wrong_types_are_refused(field, text, expected):
    with pytest.raises(ValueError, match=rf"field '{field}': got '.*'; expected {expected}$"):
        override(sudoku(), {field: text})


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("batch_size", "0"),
        ("seed", "-1"),
        ("seed", str(2**31)),
        ("optimiser.steps", "-1"),
        ("optimiser.learning_rate", "NaN"),
        ("optimiser.decay", "1.5"),
        ("optimiser.ema", "-0.1"),
        ("machine.log_every", "0"),
        ("machine.keep", "-1"),
        ("network.heads", "0"),
        ("data.grids", "1.5"),
        ("data.copies", "0"),
    ],
)
def test_values_out_of_range_are_refused(field, text):
    with pytest.raises(ValueError, match=f"{field.split('.')[-1]} .*expected"):
        override(sudoku(), {field: text})


def test_records_are_frozen_and_typed():
    for record in (sudoku(), Optimiser(), Machine(), SudokuData()):
        with pytest.raises(AttributeError):
            record.name = "x"
    assert isinstance(sudoku(), Run)


def test_generators_differ_by_seed_step_and_stream():
    run = sudoku()
    draws = {
        torch.rand((), generator=generator(replace(run, seed=seed), step, stream)).item()
        for seed in (0, 1, 2**31 - 1)
        for step in (0, 1)
        for stream in (0, 1)
    }
    assert len(draws) == 12


# --- Sudoku ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run():
    return override(sudoku(), {"batch_size": "24", "data.grids": "0.25"})


def test_axes_are_rows_columns_and_boxes():
    grid = torch.as_tensor(boards.full_grids(1, seed=0))[0]
    for axis in AXES:
        for unit in range(9):
            cells = [i for i, coordinate in enumerate(axis) if coordinate == unit]
            assert sorted(grid[cells].tolist()) == list(range(9))
    assert len(set(zip(*AXES))) == 81


def test_a_batch_is_a_function_of_run_and_step(run):
    first, second = run.batch(run, 7), run.batch(run, 7)
    for name in ("tokens", "masked", "weight"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    other, reseeded = run.batch(run, 8), run.batch(replace(run, seed=1), 7)
    for batch in (other, reseeded):
        assert not (batch.tokens[:, None] == first.tokens[None]).all(-1).any()
        assert not torch.equal(batch.masked, first.masked)
        assert not {*boards.invariant(batch.tokens).tolist()} & {*boards.invariant(first.tokens).tolist()}


def test_batches_hold_valid_grids_hidden_within_range(run):
    for step in range(5):
        batch = run.batch(run, step)
        assert batch.tokens.shape == batch.masked.shape == (24, 81)
        assert (batch.tokens.dtype, batch.masked.dtype) == (torch.int64, torch.bool)
        assert boards.is_valid(batch.tokens).all()
        count = batch.masked.sum(1)
        assert count.min() >= 1
        torch.testing.assert_close(
            batch.weight.double() * count, torch.full((24,), 81.0, dtype=torch.float64)
        )


def test_mask_counts_of_grids_are_stratified(run):
    """One of six grids has 1..13 or so cells hidden, one the next, and so on."""
    for step in range(5):
        count = run.batch(run, step).masked[:6].sum(1).sort().values
        assert (count.diff() >= 13).all()


def test_puzzle_rows_hide_blanks_only(run):
    """What is visible of a puzzle row holds all its clues: so the solution stays unique."""
    for step in range(5):
        batch = run.batch(run, step)
        shown = batch.tokens.masked_fill(batch.masked, boards.BLANK)[6:]
        assert boards.is_unique(shown).all()
        assert shown.eq(boards.BLANK).sum(1).max() <= 81 - 17


def test_reveal_sets_how_much_is_shown(run):
    """floor(blanks * u^reveal) of the blanks, but never the last one."""
    posed = run.batch(override(run, {"data.reveal": "1e9"}), 0)
    hidden = posed.masked[6:].sum(1)
    assert hidden.min() > 45  # minimal puzzles
    shown = run.batch(override(run, {"data.reveal": "0"}), 0)
    assert (shown.masked[6:].sum(1) == 1).all()


def test_copies_are_symmetric_and_not_equal(run):
    tokens = run.batch(run, 0).tokens[6:]
    assert len({tuple(board) for board in tokens.tolist()}) == 18
    assert len(set(boards.invariant(tokens).tolist())) == 5  # 18 puzzles, four copies of each


@pytest.mark.parametrize("grids", [0.0, 1.0])
def test_a_batch_may_hold_one_kind_only(run, grids):
    batch = run.batch(override(run, {"data.grids": str(grids)}), 0)
    assert batch.tokens.shape == (24, 81)
    assert boards.is_valid(batch.tokens).all()


def test_the_loss_reads_hidden_cells_only(run):
    """A network that is wrong at every visible cell pays for the hidden ones only."""
    batch = run.batch(run, 0)

    class Fixed(torch.nn.Module):
        mask_id = 9

        def readouts(self, tokens):
            assert torch.equal(tokens, batch.tokens.masked_fill(batch.masked, 9))
            right = torch.nn.functional.one_hot(batch.tokens, 9) * 40.0
            return [torch.where(batch.masked[..., None], z, -right) for z in (right, right * 0)]

    uniform = (batch.weight * batch.masked.sum(1)).mean() / 81 * torch.tensor(9.0).log()
    torch.testing.assert_close(run.objective(Fixed(), batch), (uniform * 0.75).float())
