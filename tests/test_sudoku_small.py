"""Sudoku boards of 16, 36 and 64 cells: counted grids, puzzles, symmetries, text, orders, and the models of 36."""

import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

import unmask
from unmask import recipes
from unmask.command_line.app import main
from unmask.data import sudoku
from unmask.data.sudoku import hard
from unmask.data.sudoku.ordering import Reason, fixed_order, solver_order
from unmask.recipes.laboratory.sudoku_sequences import grids as grids_of
from unmask.training import train

BOXES = {16: (2, 2), 36: (2, 3), 64: (2, 4)}
SIZES = {16: 4, 36: 6, 64: 8}


def units(cells: int) -> list[list[int]]:
    """Rows, columns and boxes by their definition."""
    size, (rows, columns) = SIZES[cells], BOXES[cells]
    lines = [[r * size + c for c in range(size)] for r in range(size)]
    stood = [[r * size + c for r in range(size)] for c in range(size)]
    boxes = [
        [(r + i) * size + c + j for i in range(rows) for j in range(columns)]
        for r in range(0, size, rows)
        for c in range(0, size, columns)
    ]
    return lines + stood + boxes


def valid(grid: np.ndarray) -> bool:
    """Every symbol once in every unit."""
    return all(sorted(grid[u]) == list(range(len(u))) for u in units(len(grid)))


def singles(board: np.ndarray) -> tuple[dict[int, int], dict[int, int]]:
    """Cells with one candidate, and cells that alone in a unit can hold a symbol."""
    size, every = SIZES[len(board)], units(len(board))
    could = [
        set(range(size)) - {board[c] for u in every if i in u for c in u} if board[i] == size else set()
        for i in range(len(board))
    ]
    naked = {i: next(iter(s)) for i, s in enumerate(could) if len(s) == 1}
    places = [(d, [i for i in u if d in could[i]]) for u in every for d in range(size)]
    return naked, {where[0]: d for d, where in places if len(where) == 1}


@pytest.fixture(scope="module", params=list(SIZES))
def minimal(request) -> tuple[np.ndarray, np.ndarray]:
    return sudoku.puzzles(40, seed=3, cells=request.param)


class TestBoards:
    def test_all_288_grids_of_4x4_are_found_and_none_else(self) -> None:
        grids = sudoku.full_grids(5000, seed=1, cells=16)
        squares = (
            rows
            for rows in itertools.product(itertools.permutations(range(4)), repeat=4)
            if all(len(set(column)) == 4 for column in zip(*rows))
        )
        every = {tuple(itertools.chain(*rows)) for rows in squares if valid(np.concatenate(rows))}
        assert len(every) == 288
        assert {tuple(g) for g in grids.tolist()} == every
        assert int(sudoku.count_solutions(np.full((1, 16), 4), limit=1000)[0]) == 288

    def test_puzzles_have_one_solution_and_no_clue_to_spare(self, minimal) -> None:
        puzzle, solution = minimal
        blank = SIZES[puzzle.shape[1]]
        assert all(valid(g) for g in solution)
        assert ((puzzle == blank) | (puzzle == solution)).all()
        assert sudoku.is_unique(puzzle).all()
        assert np.array_equal(sudoku.solve(puzzle), solution)
        assert sudoku.is_solved(solution, puzzle).all()
        assert not sudoku.is_valid(puzzle).any()
        rows, cells = np.nonzero(puzzle != blank)
        fewer = puzzle[rows]
        fewer[np.arange(len(rows)), cells] = blank
        assert (sudoku.count_solutions(fewer) == 2).all()

    @pytest.mark.parametrize(("cells", "clues"), [(16, 4), (16, 9), (36, 12), (64, 24)])
    def test_clues_as_asked(self, cells: int, clues: int) -> None:
        puzzle, solution = sudoku.puzzles(20, seed=4, clues=clues, cells=cells)
        assert ((puzzle != SIZES[cells]).sum(1) == clues).all()
        assert sudoku.is_unique(puzzle).all()
        assert sudoku.is_solved(solution, puzzle).all()

    def test_symmetries_keep_puzzles_and_reach_every_grid(self, minimal) -> None:
        puzzle, solution = sudoku.symmetries(*minimal, 7)
        assert sudoku.is_solved(solution, puzzle).all()
        assert sudoku.is_unique(puzzle).all()
        assert np.array_equal((puzzle == SIZES[puzzle.shape[1]]).sum(1), (minimal[0] == puzzle.max()).sum(1))
        if puzzle.shape[1] == 16:  # two classes of grids, of 96 and 192
            found = [
                len(np.unique(sudoku.symmetries(np.repeat(g[None], 5000, 0), 1), axis=0)) for g in solution
            ]
            assert set(found) <= {96, 192}

    def test_the_corner_comes_from_every_cell_equally_often(self) -> None:
        board = np.where(np.arange(36) == 0, 0, 6)
        moved = sudoku.symmetries(np.repeat(board[None], 36_000, 0), 5)
        counts = (moved != 6).sum(0)
        assert ((counts - 1000) ** 2 / 1000).sum() == pytest.approx(35, abs=5 * math.sqrt(70))

    def test_text_and_back(self, minimal) -> None:
        puzzle, solution = minimal
        for board in puzzle[:5]:
            assert np.array_equal(sudoku.parse(sudoku.text(board)), board)
            assert np.array_equal(sudoku.parse(sudoku.pretty(board)), board)
        lines = [f"{sudoku.text(p)},{sudoku.text(s)}" for p, s in zip(puzzle, solution)]
        found = sudoku.read(lines)
        assert np.array_equal(found.puzzles, puzzle)
        assert np.array_equal(found.solutions, solution)

    def test_rules_stand_between_boxes(self) -> None:
        board = sudoku.parse("123456456123" + "." * 24)
        assert sudoku.pretty(board).splitlines()[:4] == [
            "1 2 3 | 4 5 6",
            "4 5 6 | 1 2 3",
            "------+------",
            ". . . | . . .",
        ]

    @pytest.mark.parametrize(
        ("lines", "said"),
        [
            (["7" + "." * 35], "'7' at character 1; expected 1-6"),
            (
                ["." * 36, "." * 36, "." * 81],
                "line 3: puzzle has 81 characters; expected 36 digits or blanks",
            ),
            (
                ["." * 64, "." * 81, "." * 81],
                "line 1: puzzle has 64 characters; expected 81 digits or blanks",
            ),
            (["." * 35, "." * 36], "line 1: puzzle has 35 characters; expected 36 digits or blanks"),
            (["." * 35], "line 1: puzzle has 35 characters; expected 81 digits or blanks (16, 36 or 64"),
            (["." * 36 + "," + "1" * 81], "line 1: solution has 81 characters; expected 36"),
            (["1...1" + "." * 31], "row 1 holds 1 twice (columns 1 and 5)"),
            (["1.....1" + "." * 29], "column 1 holds 1 twice (rows 1 and 2)"),
            (["1......1" + "." * 28], "box 1 holds 1 twice (row 1 column 1 and row 2 column 2)"),
        ],
    )
    def test_bad_lines_are_named(self, lines: list[str], said: str) -> None:
        with pytest.raises(ValueError, match=re.escape(said)):
            sudoku.read(lines)

    def test_wrong_sizes_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"cells=25; expected 81 \(16, 36 or 64"):
            sudoku.full_grids(1, 0, cells=25)
        with pytest.raises(ValueError, match=r"clues=7; expected 8\.\.36"):
            sudoku.puzzles(1, 0, clues=7, cells=36)
        grid = sudoku.full_grids(1, 0, cells=36)
        with pytest.raises(ValueError, match="grids of 36 cells; expected 81: hashes"):
            sudoku.invariant(grid)
        with pytest.raises(ValueError, match="grids of 36 cells with puzzles of 81; expected as many"):
            sudoku.keeps_clues(grid, np.full((1, 81), 9))
        with pytest.raises(ValueError, match="puzzles of 36 cells with solutions of 81; expected as many"):
            sudoku.symmetries(grid, np.full((1, 81), 9), 0)
        with pytest.raises(
            ValueError, match=r"line 1: puzzle has 36 characters; expected 81 digits or blanks$"
        ):
            sudoku.read(["." * 36], 81)

    def test_boxes_count(self) -> None:
        latin = (np.arange(6)[:, None] + np.arange(6)) % 6
        assert not sudoku.is_valid(latin.ravel())
        assert sudoku.is_valid(latin[[0, 3, 1, 4, 2, 5]].ravel())

    def test_a_solver_writes_singles_first(self, minimal) -> None:
        puzzle, solution = minimal
        order, reasons = solver_order(puzzle, solution)
        cells = puzzle.shape[1]
        for asked, answer, places, why in zip(puzzle, solution, order, reasons):
            assert sorted(places) == list(range(cells))
            assert [c for c, w in zip(places, why) if w == Reason.CLUE] == np.flatnonzero(
                asked < SIZES[cells]
            ).tolist()
            board = asked.copy()
            for cell, reason in list(zip(places, why))[(why == Reason.CLUE).sum() :]:
                naked, hidden = singles(board)
                assert reason == (Reason.NAKED if naked else Reason.HIDDEN if hidden else Reason.SEARCHED)
                known = naked or hidden or {cell: answer[cell]}
                assert cell == min(known)
                assert known[cell] == answer[cell]
                board[cell] = answer[cell]
            assert np.array_equal(board, answer)
        blanks = [np.flatnonzero(asked == SIZES[cells]).tolist() for asked in puzzle]
        assert [o[-len(b) :].tolist() for o, b in zip(fixed_order(puzzle), blanks)] == blanks

    def test_what_singles_settle_takes_no_guess(self, minimal) -> None:
        settled = hard.settle(minimal[0])
        done = (settled == minimal[1]).all(1)
        assert done.any()
        assert ((hard.effort(minimal[0]) == 0) == done).all()


class TestModels:
    @pytest.mark.parametrize("size", [4, 6])
    @pytest.mark.parametrize("order", ["solver", "fixed"])
    def test_a_batch_has_the_puzzles_of_the_masked_recipe(self, size: int, order: str) -> None:
        run, masked = (recipes.all_recipes()[f"sudoku{size}{kind}"]() for kind in (f"_{order}", ""))
        posed = replace(masked, data=run.data, batch_size=run.batch_size)
        ours, theirs = run.batch(run, 5), posed.batch(posed, 5)
        shown = grids_of(torch.where(ours.masked, size**2 + size, ours.tokens))
        assert torch.equal(grids_of(ours.tokens), theirs.tokens)
        assert torch.equal(shown == size, theirs.masked)
        assert sudoku.is_unique(shown).all()

    @pytest.mark.global_random
    def test_one_position_a_call_is_the_joint_of_pairs(self) -> None:
        run = recipes.sudoku6_solver()
        network = run.build(replace(run.network, width=16, depth=1, hidden=16)).double()
        for p in network.parameters():
            torch.nn.init.normal_(p, std=0.3, generator=torch.Generator().manual_seed(0))
        tokens = run.batch(replace(run, batch_size=2), 0).tokens
        law = network(tokens).log_softmax(-1)
        direct = law.gather(-1, tokens[..., None]).sum((1, 2))
        left = unmask.selectors.top_k(unmask.scores.left_to_right, 1)
        exact = unmask.log_likelihood(unmask.from_logits(network, 42, 42), tokens, left)
        assert torch.allclose(exact, direct.double(), atol=1e-9)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A model of 6x6 after two steps."""
    run = recipes.sudoku6()
    network = replace(run.network, width=16, depth=1, loops=1, hidden=16)
    folder = tmp_path_factory.mktemp("small")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        machine = replace(run.machine, compile=False)
        short = replace(run.optimiser, steps=2)
        train(
            replace(run, network=network, machine=machine, optimiser=short, batch_size=8), folder, quiet=True
        )
    return folder


class TestCommands:
    def test_puzzles_are_filled_and_keep_their_clues(self, small: Path, tmp_path: Path, capsys) -> None:
        puzzle, _ = sudoku.puzzles(3, seed=5, clues=14, cells=36)
        path = tmp_path / "puzzles.txt"
        path.write_text("\n".join(sudoku.text(p) for p in puzzle))
        asked = ["sample", str(small), "--prompt", str(path), "--order", "margin", "--greedy", "--quiet"]
        assert main([*asked, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        found = np.array([[int(c) - 1 for c in s["text"]] for s in report["samples"]])
        assert (((puzzle == 6) | (puzzle == found)) & (found < 6)).all()
        assert main([*asked, "--pretty"]) == 0
        assert capsys.readouterr().out.count("------+------") == 6

    def test_fresh_puzzles_are_of_its_size(self, small: Path, capsys) -> None:
        asked = ["eval", str(small), "--generate", "14", "-n", "4", "--order", "margin", "--json", "--quiet"]
        assert main(asked) == 0
        assert json.loads(capsys.readouterr().out)["data"]["mean_clues"] == 14
        assert main(["eval", str(small), "--generate", "7", "-n", "4"]) == 2
        assert "expected a number of clues 8..36, such as 15, or minimal" in capsys.readouterr().err

    def test_boards_of_another_size_are_refused(self, small: Path, tmp_path: Path, capsys) -> None:
        path = tmp_path / "nine.txt"
        path.write_text("." * 81 + "\n")
        assert main(["sample", str(small), "--prompt", str(path)]) == 2
        assert "line 1: puzzle has 81 characters; expected 36 digits or blanks" in capsys.readouterr().err
        with pytest.raises(ValueError, match="item 0: a board of 81 cells; expected 36, as the model has"):
            unmask.load(small).encode(["." * 81])

    def test_a_profile_is_of_fresh_grids(self, small: Path, tmp_path: Path, capsys) -> None:
        path = tmp_path / "profile.json"
        assert main(["profile", str(small), "-n", "8", "-o", str(path), "--json", "--quiet"]) == 0
        assert json.loads(capsys.readouterr().out)["length"] == 36

    def test_a_tuning_is_of_fresh_puzzles(self, small: Path, tmp_path: Path, capsys) -> None:
        asked = ["tune", str(small), "--generate", "30", "--calls", "1,2", "-n", "4", "--json", "--quiet"]
        assert main([*asked, "-o", str(tmp_path / "t")]) == 0
        assert json.loads(capsys.readouterr().out)["task"] == "solve"

    def test_the_demo_and_other_models_say_what_they_want(self, small: Path, capsys) -> None:
        assert main(["demo", "--model", str(small), "-n", "2"]) == 2
        assert "the demo solves boards of 81 cells; model 'sudoku6' has 36" in capsys.readouterr().err
        assert main(["eval", "text", "--generate", "34", "-n", "2"]) == 2
        assert "model 'text' is not a Sudoku model" in capsys.readouterr().err
