"""Sudoku as pairs of cell and value: the solver's order by plain set logic, and what the autoregressive recipes promise."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import seeded
from torch import Tensor

pytest.importorskip("numba")

from test_sudoku_data import UNITS

import unmask
from unmask import recipes
from unmask.data import sudoku
from unmask.data.sudoku import BLANK
from unmask.data.sudoku.ordering import Reason, fixed_order, solver_order
from unmask.recipes.laboratory.cell_network import CellNetwork
from unmask.recipes.laboratory.sudoku_sequences import decode, encode, grids, pairs, written
from unmask.training import train

FIXED, SOLVER = recipes.sudoku_fixed(), recipes.sudoku_solver()
LENGTH, SYMBOLS = 162, 90
TINY = replace(SOLVER.network, width=16, depth=2, heads=2, hidden=16)


@pytest.fixture(scope="module")
def minimal() -> tuple[np.ndarray, np.ndarray]:
    return sudoku.puzzles(60, seed=21)


@pytest.fixture(scope="module")
def network() -> CellNetwork:
    """A small network in float64, far from where it starts, so that its law is not flat."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = CellNetwork(TINY).double()
        for p in made.parameters():
            torch.nn.init.normal_(p, std=0.3)
    return made


def candidates(board: list[int]) -> list[set[int]]:
    """What each blank cell may still hold."""
    return [
        set(range(9)) - {board[c] for unit in UNITS if i in unit for c in unit}
        if board[i] == BLANK
        else set()
        for i in range(81)
    ]


def singles(board: list[int]) -> tuple[dict[int, int], dict[int, int]]:
    """Cells with one candidate, and cells that alone in a unit can hold a symbol."""
    could = candidates(board)
    naked = {i: next(iter(s)) for i, s in enumerate(could) if len(s) == 1}
    places = [(d, [i for i in unit if d in could[i]]) for unit in UNITS for d in range(9)]
    return naked, {where[0]: d for d, where in places if len(where) == 1}


class TestOrders:
    def test_a_cell_comes_when_what_stands_before_it_gives_it(self, minimal) -> None:
        order, reasons = solver_order(*minimal)
        assert {Reason.NAKED, Reason.HIDDEN, Reason.SEARCHED} <= set(reasons.ravel().tolist())
        for puzzle, solution, cells, why in zip(*minimal, order.tolist(), reasons.tolist()):
            assert sorted(cells) == list(range(81))
            assert [c for c, w in zip(cells, why) if w == Reason.CLUE] == np.flatnonzero(
                puzzle != BLANK
            ).tolist()
            board = puzzle.tolist()
            for cell, reason in list(zip(cells, why))[why.count(Reason.CLUE) :]:
                naked, hidden = singles(board)
                if reason == Reason.NAKED:
                    assert naked[cell] == solution[cell]
                    assert cell == min(naked)
                elif reason == Reason.HIDDEN:
                    assert not naked
                    assert hidden[cell] == solution[cell]
                    assert cell == min(hidden)
                else:
                    assert reason == Reason.SEARCHED
                    assert not naked | hidden
                    sizes = [len(s) or 10 for s in candidates(board)]
                    assert cell == sizes.index(min(sizes))
                board[cell] = int(solution[cell])
            assert board == solution.tolist()

    def test_tensors_get_tensors_and_a_single_board_a_single_order(self, minimal) -> None:
        puzzle, solution = (torch.as_tensor(x) for x in minimal)
        order, reasons = solver_order(puzzle, solution)
        assert torch.equal(order, torch.as_tensor(solver_order(*minimal)[0]))
        assert torch.equal(solver_order(puzzle[3], solution[3])[1], reasons[3])

    def test_the_fixed_order_goes_row_by_row(self, minimal) -> None:
        for puzzle, cells in zip(minimal[0], fixed_order(minimal[0]).tolist()):
            clues = int((puzzle != BLANK).sum())
            assert cells[:clues] == np.flatnonzero(puzzle != BLANK).tolist()
            assert cells[clues:] == np.flatnonzero(puzzle == BLANK).tolist()

    def test_another_puzzles_solution_is_refused(self, minimal) -> None:
        with pytest.raises(ValueError, match=r"solution 0 .*expected the solution of puzzle 0"):
            solver_order(minimal[0], minimal[1][::-1])


class TestSequences:
    def test_a_sequence_is_its_grid_in_any_order(self, minimal) -> None:
        solution = torch.as_tensor(minimal[1])
        order = torch.rand(solution.shape, generator=seeded(0)).argsort(1)
        tokens = pairs(solution, order)
        assert torch.equal(grids(tokens), solution)
        part = tokens.clone()
        part[:, 81:] = SYMBOLS  # the cell of a pair without its value
        assert ((grids(part) != BLANK).sum(1) == 40).all()
        assert ((grids(part) == solution) | (grids(part) == BLANK)).all()

    def test_clues_come_back(self, minimal) -> None:
        texts = [sudoku.text(board) for board in minimal[0]]
        tokens = encode(texts)
        assert decode(tokens) == texts
        clues = (minimal[0] != BLANK).sum(1)
        assert ((tokens != SYMBOLS).sum(1).numpy() == 2 * clues).all()
        with pytest.raises(ValueError, match="item 1: "):
            encode([texts[0], "1" * 81])

    @pytest.mark.parametrize("run", [SOLVER, FIXED], ids=lambda run: run.name)
    def test_a_batch_has_the_puzzles_of_the_masked_recipe(self, run) -> None:
        posed = replace(recipes.sudoku(), data=run.data, batch_size=run.batch_size)
        ours, theirs = run.batch(run, 5), posed.batch(posed, 5)
        assert torch.equal(grids(ours.tokens), theirs.tokens)
        shown = grids(torch.where(ours.masked, SYMBOLS, ours.tokens))
        assert torch.equal(shown == BLANK, theirs.masked)
        assert sudoku.is_unique(shown).all()
        order = {"sudoku_solver": solver_order(shown, theirs.tokens)[0], "sudoku_fixed": fixed_order(shown)}
        assert torch.equal(ours.tokens[:, ::2], order[run.name])


class TestNetwork:
    def test_the_loss_is_the_exact_log_probability_of_the_blanks(self, network) -> None:
        batch = SOLVER.batch(replace(SOLVER, batch_size=4), 0)
        denoiser = unmask.from_logits(network, SYMBOLS, SYMBOLS)
        exact = unmask.log_likelihood(
            denoiser,
            batch.tokens,
            unmask.selectors.top_k(unmask.scores.left_to_right, 1),
            visible=~batch.masked,
        )
        with torch.no_grad():
            loss = SOLVER.objective(network, batch)
        assert float(loss) * LENGTH == pytest.approx(-float(exact.mean()), rel=1e-5)

    def test_nothing_is_known_of_what_comes_later(self, network) -> None:
        tokens = SOLVER.batch(replace(SOLVER, batch_size=4), 0).tokens
        with torch.no_grad():
            before = network(tokens).softmax(-1)
            for at in (60, 61, 100, 161):
                changed = tokens.clone()
                changed[:, at:] = SYMBOLS
                after = network(changed).softmax(-1)
                assert torch.equal(after[:, : at + 1], before[:, : at + 1])
                assert (after[:, at + 1 :] != before[:, at + 1 :]).any() or at == 161

    def test_cells_and_values_keep_to_their_places_and_no_cell_comes_twice(self, network) -> None:
        tokens = SOLVER.batch(replace(SOLVER, batch_size=4), 1).tokens
        with torch.no_grad():
            law = network(tokens).softmax(-1)
        for row, laws in zip(tokens.tolist(), law):
            for k in range(81):
                fresh = sorted(set(range(81)) - set(row[: 2 * k : 2]))
                assert laws[2 * k].nonzero().flatten().tolist() == fresh
                assert laws[2 * k + 1].nonzero().flatten().tolist() == list(range(81, 90))

    def test_writing_with_a_cache_is_greedy_sampling_whatever_the_number_of_clues(
        self, network, minimal
    ) -> None:
        start = encode([sudoku.text(board) for board in minimal[0][:6]])
        assert len(set((start == SYMBOLS).sum(1).tolist())) > 1
        found = written(network, start)
        denoiser = unmask.from_logits(network, SYMBOLS, SYMBOLS)
        selector = unmask.selectors.top_k(unmask.scores.left_to_right, 1)
        slow = unmask.sample(denoiser, start, selector, generator=seeded(0), source=unmask.greedy)
        assert torch.equal(found, slow.tokens)
        assert sudoku.keeps_clues(grids(found), torch.as_tensor(minimal[0][:6])).all()
        assert (found[:, ::2].sort(1).values == torch.arange(81)).all()

    def test_other_shapes_are_refused(self) -> None:
        with pytest.raises(
            ValueError, match="vocab_size, length and causal 90, 162, False: expected 90, 162, True"
        ):
            CellNetwork(replace(TINY, causal=False))


@pytest.mark.global_random
def test_a_trained_folder_loads_and_writes_grids(tmp_path) -> None:
    run = replace(SOLVER, network=TINY, batch_size=4, optimiser=replace(SOLVER.optimiser, steps=2))
    model = unmask.load(train(run, tmp_path, quiet=True))
    puzzle, _ = sudoku.puzzles(2, seed=3, clues=40)
    filled: Tensor = written(model.denoiser.network, model.encode([sudoku.text(b) for b in puzzle]))
    assert sudoku.keeps_clues(grids(filled), torch.as_tensor(puzzle)).all()
    assert all("." not in text for text in model.decode(filled))
