"""Sudoku puzzles that take guessing: how much, making them, published ones, and the recipe trained on them."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from test_sudoku_data import PEERS, PUZZLE, SOLUTION, UNITS

import unmask
from unmask.command_line.boards import check_sudoku
from unmask.data import sudoku, tokens
from unmask.data.sources import fetch, packages, puzzle_sets
from unmask.data.sudoku import BLANK
from unmask.data.sudoku import hard as sudoku_hard
from unmask.recipes import Machine
from unmask.recipes import sudoku_hard as recipe_of_it  # the function, not the module
from unmask.recipes.sudoku.hard import SPAN, STAGES, HardData, batch, objective
from unmask.training import train

INKALA = "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4.."
"""A puzzle made to be hard (A. Inkala, 2012)."""


@pytest.fixture(scope="module")
def minimal() -> tuple[np.ndarray, np.ndarray]:
    return sudoku.puzzles(300, seed=11)


@pytest.fixture(scope="module")
def climbed() -> tuple[np.ndarray, np.ndarray]:
    return sudoku_hard.climb(6, seed=12, steps=4, moves=60)


def options(board: np.ndarray, cell: int) -> set[int]:
    return set(range(9)) - {int(board[p]) for p in PEERS[cell]}


def single(board: np.ndarray) -> bool:
    """Whether a naked or hidden single is left, by the rules written out."""
    blanks = {c: options(board, c) for c in range(81) if board[c] == BLANK}
    naked = any(len(o) == 1 for o in blanks.values())
    places = (sum(d in blanks[c] for c in unit if c in blanks) for unit in UNITS for d in range(9))
    return naked or any(count == 1 for count in places)


def is_minimal(puzzle: np.ndarray) -> bool:
    """Whether every clue of a puzzle is needed."""
    less = np.repeat(puzzle[None], (puzzle != BLANK).sum(), 0)
    less[np.arange(len(less)), np.flatnonzero(puzzle != BLANK)] = BLANK
    return not sudoku.is_unique(less).any()


def test_singles_are_filled_rightly_and_to_the_end(minimal) -> None:
    puzzle, solution = minimal
    settled = sudoku_hard.settle(puzzle)
    assert ((settled == solution) | (settled == BLANK)).all()
    assert sudoku.keeps_clues(settled, puzzle).all()
    assert not any(single(board) for board in settled[:100])
    assert 0.2 < (settled == solution).all(1).mean() < 0.7
    assert sudoku.text(sudoku_hard.settle(sudoku.parse(PUZZLE))) == SOLUTION


def test_effort_is_nought_where_singles_are_enough(minimal) -> None:
    puzzle, solution = minimal
    enough = (sudoku_hard.settle(puzzle) == solution).all(1)
    assert np.array_equal(sudoku_hard.effort(puzzle) == 0, enough)
    assert sudoku_hard.effort(sudoku.parse(INKALA)) > np.percentile(sudoku_hard.effort(puzzle), 95)


def test_effort_of_an_empty_board_is_cut_off() -> None:
    assert sudoku_hard.effort(torch.full((1, 81), BLANK)).tolist() == [sudoku_hard.MOST]


def test_the_hardest_are_chosen(minimal) -> None:
    puzzle, solution = sudoku_hard.hardest(20, 3, seed=5)
    made = sudoku.puzzles(60, seed=5)[0]
    assert sudoku.is_solved(solution, puzzle).all()
    chosen = (made[:, None] == puzzle).all(-1).any(1)
    effort = sudoku_hard.effort(made, 5)
    assert chosen.sum() == 20
    assert effort[chosen].min() >= effort[~chosen].max()


def test_climbing_ends_at_hard_minimal_puzzles_of_the_grid(climbed, minimal) -> None:
    puzzle, solution = climbed
    assert sudoku.is_valid(solution).all()
    assert np.array_equal(sudoku.solve(puzzle[:, -1]), solution)
    assert sudoku.is_unique(puzzle.reshape(-1, 81)).all()
    assert all(is_minimal(p) for p in puzzle[:, -1])
    # 240 moves; a minimal puzzle takes 3 guesses on average
    assert sudoku_hard.effort(puzzle[:, -1]).mean() > 2 * sudoku_hard.effort(minimal[0]).mean()
    again = sudoku_hard.climb(2, seed=12, first=1, steps=4, moves=60)
    assert np.array_equal(again[0], puzzle[1:3])


# --- published puzzles ----------------------------------------------------------------------------


def line(puzzle: np.ndarray, solution: np.ndarray) -> str:
    return f"{sudoku.text(puzzle)},{sudoku.text(solution)}"


def test_one_puzzle_of_each_class_is_kept(minimal) -> None:
    own = [line(p, s) for p, s in zip(*(b[:30] for b in minimal))]
    copies = [line(p, s) for p, s in zip(*sudoku.symmetries(minimal[0][:30], minimal[1][:30], seed=3))]
    kept = puzzle_sets.distinct([*own, *copies])
    assert len(kept) == 30
    assert len(set(kept) & set(own)) + len(set(kept) & set(copies)) == 30
    assert puzzle_sets.distinct([*copies, *own]) == kept


def test_a_puzzle_with_two_solutions_is_refused() -> None:
    with pytest.raises(ValueError, match="expected exactly one solution"):
        puzzle_sets.distinct(["." * 81 + "," + SOLUTION])


def test_published_sets_are_fetched_in_two_parts(tmp_path: Path, monkeypatch, minimal) -> None:
    def entry(p: np.ndarray, s: np.ndarray) -> dict[str, str]:
        return {"solution": sudoku.text(s), "mask": "".join("01"[int(c != BLANK)] for c in p)}

    entries = [entry(p, s) for p, s in zip(*(b[:9] for b in minimal))]
    files = {
        "larsdoku/seed_bank_128.json": json.dumps({"banks": {"17": entries}}).encode(),
        "larsdoku/puzzle_collection.json.gz": gzip.compress(json.dumps({"meta": {}, "a": entries}).encode()),
    }
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path))
    monkeypatch.setattr(packages, "bring", lambda _: tmp_path)
    monkeypatch.setattr(packages, "read", lambda _, name: files[name])
    monkeypatch.setattr(fetch.writing, "source", lambda _: {"file": "x"})
    monkeypatch.setattr(fetch, "PUZZLES_VALID", 4)
    for name in ("sudoku_17_clues", "sudoku_very_hard"):
        folder = fetch.fetch(name, quiet=True)
        valid, test = (puzzle_sets.read(tokens.load(folder / part)) for part in ("valid", "test"))
        assert (len(valid.puzzles), len(test.puzzles)) == (4, 5)
        found = np.concatenate([valid.puzzles, test.puzzles])
        assert {p.tobytes() for p in found} == {p.tobytes() for p in minimal[0][:9]}
        assert sudoku.is_solved(np.concatenate([valid.solutions, test.solutions]), found).all()


# --- the recipe -----------------------------------------------------------------------------------


def test_a_hard_puzzle_gives_rise_to_others_of_its_grid(climbed) -> None:
    puzzle, solution = climbed[0][0, -1], climbed[1][0]
    found, cost = sudoku_hard.breed(puzzle, solution, 12, seed=3, least=2)
    again, _ = sudoku_hard.breed(puzzle, solution, 12, seed=3, least=2)
    assert np.array_equal(found, again)
    assert len(found) == len(np.unique(found, axis=0)) == 12
    assert (found[0] == puzzle).all()
    assert (cost[1:] >= 2).all()
    assert (np.where(found == BLANK, solution, found) == solution).all()
    assert sudoku.is_unique(found).all()
    assert all(is_minimal(p) for p in found)
    assert len(sudoku_hard.breed(puzzle, solution, 12, seed=3, least=10_000, tries=50)[0]) == 1


@pytest.fixture
def run(tmp_path: Path, climbed):
    puzzle, solution = climbed
    bank = tmp_path / "bank.csv"
    bank.write_text("\n".join(line(p, s) for p, s in zip(puzzle[:, -1], solution)))
    hard = recipe_of_it()
    network = replace(hard.network, width=16, hidden=32, depth=1, heads=2)
    return replace(hard, network=network, data=HardData(bank=str(bank)))


def test_batches_hold_grids_with_blanks_of_puzzles_hidden(run) -> None:
    made = batch(run, 3)
    assert torch.equal(batch(run, 3).tokens, made.tokens)
    assert not torch.equal(batch(run, 4).tokens, made.tokens)
    assert sudoku.is_valid(made.tokens).all()
    assert made.masked.any(1).all()
    assert torch.allclose(made.weight * made.masked.sum(1), torch.tensor(81.0))
    seen = made.tokens.masked_fill(made.masked, BLANK)
    few = made.masked.sum(1) < 55  # all but full grids with most cells hidden have one solution
    assert sudoku.is_unique(seen[few]).float().mean() > 0.9


def test_what_singles_give_is_seen_unless_that_is_all(run) -> None:
    left = []
    for share in (0.0, 1.0):
        made = batch(replace(run, data=replace(run.data, grids=0.0, settled=share)), 3)
        seen = made.tokens.masked_fill(made.masked, BLANK)
        hard = (sudoku_hard.settle(seen) == BLANK).any(1)
        left.append([single(board) for board in seen[hard].numpy()])
    assert not any(left[1])
    assert np.mean(left[0]) > 0.3


def test_banked_puzzles_come_from_the_bank(run, climbed) -> None:
    only = replace(run, data=replace(run.data, grids=0.0, banked=1.0, settled=0.0, reveal=100.0))
    made = batch(only, 0)
    classes = set(sudoku.invariant(climbed[1]).tolist())
    assert set(sudoku.invariant(made.tokens).tolist()) <= classes
    with pytest.raises(ValueError, match=r"data\.bank"):
        recipe_of_it().prepare(recipe_of_it())


@pytest.mark.global_random
def test_loops_go_on_from_where_they_stopped(run) -> None:
    torch.manual_seed(0)
    network = run.build(run.network)
    torch.nn.init.normal_(network.head.weight)
    seen = batch(run, 0).tokens.masked_fill(batch(run, 0).masked, BLANK)
    whole = network.refine(seen, None, SPAN * STAGES)
    parts = network.refine(seen, network.refine(seen, None, 5)[-1], SPAN * STAGES - 5)
    assert torch.allclose(whole[-1], parts[-1], atol=1e-5)
    assert torch.equal(network.logits(whole[-1], None), network(seen))


@pytest.mark.global_random
@pytest.mark.parametrize("stages", [STAGES, 2])
def test_the_loss_reads_the_last_span_of_each_stage(run, stages) -> None:
    torch.manual_seed(0)
    network, data = run.build(replace(run.network, loops=SPAN * stages)), batch(run, 0)
    torch.nn.init.normal_(network.head.weight)
    seen = data.tokens.masked_fill(data.masked, BLANK)
    streams, costs = network.refine(seen, None, SPAN * stages), []
    for i in range(len(seen)):
        stage = next(s for s in reversed(range(stages)) if i >= len(seen) * s // stages)
        logits = [network.logits(x[i : i + 1], None) for x in streams[stage * SPAN : (stage + 1) * SPAN]]
        truth = data.tokens[i : i + 1, :, None]
        losses = [-(z.log_softmax(-1).gather(2, truth)[0, :, 0][data.masked[i]]).mean() for z in logits]
        costs.append((losses[-1] + torch.stack(losses).mean()) / 2)
    assert objective(network, data).item() == pytest.approx(torch.stack(costs).mean().item(), rel=1e-4)


@pytest.mark.global_random
def test_no_gradient_goes_through_the_spans_before(run) -> None:
    network, data = run.build(run.network), batch(run, 0)
    torch.nn.init.normal_(network.head.weight)
    calls: list[bool] = []
    original = network.blocks[0].project
    network.blocks[0].project = lambda *a: calls.append(torch.is_grad_enabled()) or original(*a)
    objective(network, data).backward()
    assert calls.count(True) == SPAN
    assert calls.count(False) == SPAN * (STAGES - 1) + 1
    assert network.embedding.weight.grad.abs().sum() > 0


def test_a_model_of_it_solves_puzzles(run, tmp_path: Path) -> None:
    short = replace(run, optimiser=replace(run.optimiser, steps=0), machine=Machine(), start="")
    model = unmask.load(train(short, tmp_path / "run", quiet=True))
    check_sudoku(model)
    assert model.sudoku
    assert model.denoiser.network.shape.loops == SPAN * STAGES
    assert model.decode(model.encode([PUZZLE])) == [PUZZLE]
