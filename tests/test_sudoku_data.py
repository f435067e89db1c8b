"""Sudoku boards: generator, symmetries, solver, checks and readers."""

import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from unmask.data import sudoku
from unmask.data.sudoku import BLANK, jit

UNITS = [[9 * i + k for k in range(9)] for i in range(9)]
UNITS += [[9 * k + i for k in range(9)] for i in range(9)]
UNITS += [
    [27 * a + 3 * b + 9 * r + c for r in range(3) for c in range(3)] for a in range(3) for b in range(3)
]
PEERS = [sorted({p for u in UNITS if cell in u for p in u} - {cell}) for cell in range(81)]

PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
IMPOSSIBLE = ".....5.8....6.1.43..........1.5........1.6...3.......553.....61........4........."


def brute_force(board: list[int]) -> int:
    """All solutions of a board, counted by plain recursion."""
    blanks = [c for c in range(81) if board[c] == BLANK]
    if not blanks:
        return 1
    cell, options = min(
        ((c, set(range(9)) - {board[p] for p in PEERS[c]}) for c in blanks), key=lambda x: len(x[1])
    )
    return sum(brute_force([*board[:cell], d, *board[cell + 1 :]]) for d in options)


def valid(grid: np.ndarray) -> bool:
    return all(sorted(grid[u]) == list(range(9)) for u in UNITS)


@pytest.fixture(scope="module")
def grids() -> np.ndarray:
    pytest.importorskip("numba")
    return sudoku.full_grids(3000, seed=1)


@pytest.fixture(scope="module")
def minimal() -> tuple[np.ndarray, np.ndarray]:
    pytest.importorskip("numba")
    return sudoku.puzzles(200, seed=2)


@pytest.fixture(scope="module")
def boards34() -> tuple[np.ndarray, np.ndarray]:
    pytest.importorskip("numba")
    return sudoku.puzzles(200, seed=3, clues=34)


class TestMaking:
    def test_full_grids_are_valid(self, grids: np.ndarray) -> None:
        assert grids.dtype == np.int64
        assert grids.shape == (3000, 81)
        assert all(valid(g) for g in grids[:300])
        assert sudoku.is_valid(grids).all()

    def test_every_cell_holds_every_symbol_equally_often(self, grids: np.ndarray) -> None:
        counts = np.stack([(grids == d).sum(0) for d in range(9)])
        expected = len(grids) / 9
        chi2 = ((counts - expected) ** 2 / expected).sum(0)  # 8 degrees of freedom in each of 81 cells
        assert chi2.mean() == pytest.approx(8, abs=4 * np.sqrt(16 / 81))
        assert chi2.max() < 34

    def test_board_i_depends_on_seed_and_i_only(self) -> None:
        pytest.importorskip("numba")
        many = sudoku.full_grids(70, seed=5)
        assert np.array_equal(sudoku.full_grids(7, seed=5), many[:7])
        assert not (sudoku.full_grids(70, seed=6) == many).all(1).any()
        puzzle, solution = sudoku.puzzles(40, seed=-1, clues=30)
        again, answer = sudoku.puzzles(3, seed=-1, clues=30)
        assert np.array_equal(puzzle[:3], again)
        assert np.array_equal(solution[:3], answer)

    @pytest.mark.parametrize("clues", [81, 60, 34, 24])
    def test_exact_number_of_clues_one_solution(self, clues: int) -> None:
        pytest.importorskip("numba")
        puzzle, solution = sudoku.puzzles(30, seed=4, clues=clues)
        assert ((puzzle != BLANK).sum(1) == clues).all()
        assert sudoku.is_unique(puzzle).all()
        assert sudoku.is_solved(solution, puzzle).all()

    def test_no_clue_of_a_minimal_puzzle_can_be_spared(self, minimal: tuple[np.ndarray, np.ndarray]) -> None:
        puzzle, solution = minimal
        clues = (puzzle != BLANK).sum(1)
        assert clues.mean() == pytest.approx(24.36, abs=4 * 1.12 / np.sqrt(len(clues)))
        assert sudoku.is_unique(puzzle).all()
        assert np.array_equal(sudoku.solve(puzzle), solution)
        rows, cells = np.nonzero(puzzle[:60] != BLANK)
        fewer = puzzle[rows]
        fewer[np.arange(len(rows)), cells] = BLANK
        assert (sudoku.count_solutions(fewer) == 2).all()

    def test_nothing_asked_nothing_made(self) -> None:
        assert sudoku.full_grids(0, seed=0).shape == (0, 81)
        assert [b.shape for b in sudoku.puzzles(0, seed=0)] == [(0, 81), (0, 81)]

    @pytest.mark.parametrize("clues", [0, 16, 82])
    def test_impossible_clues_refused(self, clues: int) -> None:
        with pytest.raises(ValueError, match=rf"clues={clues}; expected 21..81"):
            sudoku.puzzles(1, seed=0, clues=clues)

    def test_negative_n_refused(self) -> None:
        with pytest.raises(ValueError, match="n=-1"):
            sudoku.full_grids(-1, seed=0)

    def test_seeds_keep_their_boards(self) -> None:
        """Change these only with a note to users: their seeds make other boards from then on."""
        pytest.importorskip("numba")
        grids = sudoku.full_grids(3, seed=0)
        made = [grids, *sudoku.puzzles(3, seed=0), sudoku.symmetries(grids, 0)]
        assert [zlib.crc32(b.astype("<i8").tobytes()) for b in made] == [
            0x4F5C52BB,
            0x5E3B318A,
            0x4F5C52BB,
            0x1D7F5820,
        ]


class TestSymmetries:
    def test_validity_and_clue_number_are_kept(self, boards34: tuple[np.ndarray, np.ndarray]) -> None:
        puzzle, solution = sudoku.symmetries(*boards34, 7)
        assert sudoku.is_solved(solution, puzzle).all()
        assert ((puzzle != BLANK).sum(1) == 34).all()
        assert sudoku.is_unique(puzzle).all()
        assert not (solution == boards34[1]).all(1).any()

    def test_a_puzzle_alone_moves_as_in_a_pair(self, boards34: tuple[np.ndarray, np.ndarray]) -> None:
        pair = sudoku.symmetries(*boards34, seed=7)
        assert np.array_equal(sudoku.symmetries(boards34[0], seed=7), pair[0])
        assert np.array_equal(sudoku.symmetries(boards34[0], 7), pair[0])
        assert not np.array_equal(sudoku.symmetries(boards34[0], 8), pair[0])

    @pytest.mark.parametrize(("other", "places"), [(1, 4), (30, 36)])  # in its box and line; in neither band
    def test_boards_move_independently_and_uniformly(self, other: int, places: int) -> None:
        n = 20_000
        board = np.full(81, BLANK)
        board[0], board[other] = 3, 5
        moved = sudoku.symmetries(np.tile(board, (n, 1)), seed=1)
        cells = np.nonzero(moved != BLANK)[1].reshape(n, 2)
        symbols = np.take_along_axis(moved, cells, axis=1)
        _, counts = np.unique(np.concatenate([cells, symbols], axis=1), axis=0, return_counts=True)
        outcomes = 81 * places * 72 // 2  # a cell, another, two symbols; either cell first
        chi2 = (counts**2).sum() * outcomes / n - n
        assert abs(chi2 - outcomes + 1) < 4 * np.sqrt(2 * outcomes)

    def test_rows_do_not_depend_on_the_batch(self, grids: np.ndarray) -> None:
        assert np.array_equal(sudoku.symmetries(grids[:50], 3)[:9], sudoku.symmetries(grids[:9], 3))

    def test_needs_a_seed_and_equal_numbers(self) -> None:
        board = sudoku.parse(PUZZLE)
        with pytest.raises(ValueError, match="seed last"):
            sudoku.symmetries(board, board, board, 3)
        with pytest.raises(ValueError, match="2 puzzles with 1 solutions"):
            sudoku.symmetries(np.stack([board, board]), board, 3)


class TestInvariant:
    def test_symmetries_keep_it(self, grids: np.ndarray) -> None:
        before = sudoku.invariant(grids)
        assert before.dtype == np.uint64
        for seed in range(3):
            assert np.array_equal(sudoku.invariant(sudoku.symmetries(grids, seed)), before)

    def test_different_grids_differ(self, grids: np.ndarray) -> None:
        assert len(np.unique(sudoku.invariant(grids))) == len(grids)

    def test_changes_that_are_no_symmetry_are_seen(self, grids: np.ndarray) -> None:
        """Exchanging rows of different bands keeps rows, columns and all cycle types, but not the bands."""
        cells = np.arange(81).reshape(9, 9)
        cells[[0, 3]] = cells[[3, 0]]
        swapped = grids[:, cells.ravel()]
        before, after = np.empty(50, np.uint64), np.empty(50, np.uint64)
        jit.invariant(grids[:50], before)
        jit.invariant(np.ascontiguousarray(swapped[:50]), after)
        assert not (before == after).any()

    def test_puzzles_are_refused(self, boards34: tuple[np.ndarray, np.ndarray]) -> None:
        with pytest.raises(ValueError, match="grid 1 is not complete"):
            sudoku.invariant(np.stack([boards34[1][0], boards34[0][0]]))


class TestSolving:
    def test_counts_agree_with_brute_force(self, grids: np.ndarray) -> None:
        rng = np.random.default_rng(0)
        boards = grids[:25].copy()
        for board in boards:
            board[rng.permutation(81)[:48]] = BLANK
        exact = [brute_force(b.tolist()) for b in boards]
        assert max(exact) > 10
        assert np.array_equal(sudoku.count_solutions(boards, 10**6), exact)
        for limit in (1, 2, 7):
            assert np.array_equal(sudoku.count_solutions(boards, limit), np.minimum(exact, limit))
        assert np.array_equal(sudoku.is_unique(boards), np.equal(exact, 1))
        assert sudoku.is_solved(sudoku.solve(boards), boards).all()

    def test_known_puzzle(self) -> None:
        pytest.importorskip("numba")
        assert sudoku.text(sudoku.solve(sudoku.parse(PUZZLE))) == SOLUTION
        assert sudoku.count_solutions(sudoku.parse(SOLUTION)) == 1

    def test_unsolvable_boards_come_back(self) -> None:
        pytest.importorskip("numba")
        clash = np.full(81, BLANK)
        clash[[0, 8]] = 4
        boards = np.stack([sudoku.parse(IMPOSSIBLE), clash])
        assert sudoku.count_solutions(boards).tolist() == [0, 0]
        assert np.array_equal(sudoku.solve(boards), boards)

    def test_input_is_left_alone(self) -> None:
        pytest.importorskip("numba")
        board = sudoku.parse(PUZZLE)
        sudoku.solve(board[None])
        assert sudoku.text(board) == PUZZLE

    def test_limit_below_one_refused(self) -> None:
        with pytest.raises(ValueError, match="limit=0"):
            sudoku.count_solutions(sudoku.parse(PUZZLE), 0)


class TestChecking:
    def test_every_clue_must_be_kept(self, boards34: tuple[np.ndarray, np.ndarray]) -> None:
        puzzle, solution = boards34
        assert sudoku.keeps_clues(solution, puzzle).all()
        relabelled = solution.copy()
        relabelled[solution == 0], relabelled[solution == 1] = 1, 0  # valid, and most clues kept
        assert sudoku.is_valid(relabelled).all()
        touched = ((puzzle == 0) | (puzzle == 1)).any(1)
        assert touched.sum() > 190
        assert np.array_equal(sudoku.keeps_clues(relabelled, puzzle), ~touched)
        assert np.array_equal(sudoku.is_solved(relabelled, puzzle), ~touched)

    def test_kept_clues_alone_are_not_solved(self, boards34: tuple[np.ndarray, np.ndarray]) -> None:
        puzzle, _ = boards34
        assert sudoku.keeps_clues(puzzle, puzzle).all()
        assert not sudoku.is_solved(puzzle, puzzle).any()

    def test_each_kind_of_unit_is_checked(self) -> None:
        row, column = np.divmod(np.arange(81), 9)
        boxes_wrong = (row + column) % 9
        rows_wrong = (row + 3 * (row // 3) + 0 * column) % 9
        cells_of_box = row % 3 * 3 + column % 3  # valid boxes only
        assert not sudoku.is_valid(np.stack([boxes_wrong, rows_wrong, cells_of_box, column, row])).any()
        assert sudoku.is_valid((3 * row + row // 3 + column) % 9)

    def test_one_changed_cell_is_seen_anywhere(self, grids: np.ndarray) -> None:
        for change in (lambda s: (s + 1) % 9, lambda s: BLANK):
            boards = np.tile(grids[0], (81, 1))
            boards[np.arange(81), np.arange(81)] = [change(s) for s in grids[0]]
            assert not sudoku.is_valid(boards).any()

    def test_one_puzzle_serves_all_grids(self, boards34: tuple[np.ndarray, np.ndarray]) -> None:
        puzzle, solution = boards34
        assert sudoku.is_solved(solution, puzzle[3]).tolist() == [i == 3 for i in range(len(solution))]
        with pytest.raises(ValueError, match="200 grids with 2 puzzles"):
            sudoku.is_solved(solution, puzzle[:2])

    def test_tensors_in_tensors_out(self, boards34: tuple[np.ndarray, np.ndarray]) -> None:
        puzzle, solution = (torch.from_numpy(b) for b in boards34)
        moved = sudoku.symmetries(puzzle, solution, 3)
        results = [sudoku.solve(puzzle), *moved, sudoku.count_solutions(puzzle)]
        flags = [sudoku.is_unique(puzzle), sudoku.is_solved(solution, puzzle), sudoku.is_valid(solution)]
        assert [r.dtype for r in results] == [torch.int64] * 4
        assert [f.dtype for f in flags] == [torch.bool] * 3
        assert torch.equal(results[0], solution)
        assert np.array_equal(moved[0], sudoku.symmetries(boards34[0], 3))
        assert sudoku.solve(puzzle[0]).shape == (81,)
        assert bool(sudoku.is_solved(solution[0], puzzle[0]))

    @pytest.mark.parametrize(
        ("board", "message"),
        [
            (np.zeros((2, 9, 9), int), r"shape \(2, 9, 9\); expected integers \[n, 81\]"),
            (np.zeros((2, 81)), "dtype float64"),
            (np.full((2, 81), 10), r"symbols 10\.\.10; expected 0\.\.8"),
            (np.full((2, 81), -1), "subtract 1 from digits"),
        ],
    )
    def test_what_is_no_board_is_refused(self, board: np.ndarray, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            sudoku.is_valid(board)


class TestText:
    @pytest.mark.parametrize("blank", [".", "0", "_"])
    def test_round_trip(self, blank: str) -> None:
        written = PUZZLE.replace(".", blank)
        board = sudoku.parse(written)
        assert board.dtype == np.int64
        assert board[:5].tolist() == [4, 2, 9, 9, 6]
        assert sudoku.text(board, blank) == written
        assert np.array_equal(sudoku.parse(sudoku.pretty(board)), board)

    def test_pretty_shows_nine_rows_in_blocks(self) -> None:
        lines = sudoku.pretty(torch.from_numpy(sudoku.parse(PUZZLE))).splitlines()
        assert lines[0] == "5 3 . | . 7 . | . . ."
        assert lines[3] == lines[7] == "------+-------+------"
        assert len(lines) == 11

    @pytest.mark.parametrize("board", [np.zeros(80, int), np.full(81, 10), np.full(81, -1)])
    def test_text_refuses_what_is_no_board(self, board: np.ndarray) -> None:
        with pytest.raises(ValueError, match="expected"):
            sudoku.text(board)


BAD_LINES = [
    (PUZZLE[:80], "line 2: puzzle has 80 characters; expected 81"),
    (PUZZLE.replace("7", "x", 1), "line 2: puzzle has 'x' at character 5"),
    (PUZZLE.replace("7", "é", 1), "line 2: puzzle has 'é' at character 5"),
    ("." * 18 + ".5....5.." + "." * 54, r"line 2: puzzle: row 3 holds 5 twice \(columns 2 and 7\)"),
    ("...8" + "." * 71 + "8" + "." * 5, r"line 2: puzzle: column 4 holds 8 twice \(rows 1 and 9\)"),
    (
        "...8" + "." * 19 + "8" + "." * 57,
        r"line 2: puzzle: box 2 holds 8 twice \(row 1 column 4 and row 3 column 6\)",
    ),
    (f"{PUZZLE},{SOLUTION[:-1]}", "line 2: solution has 80 characters"),
    (f"{PUZZLE},.{SOLUTION[1:]}", "line 2: solution has a blank at row 1 column 1; expected the clue 5"),
    (f"{PUZZLE},53.{SOLUTION[3:]}", "line 2: solution has a blank at row 1 column 3; expected a digit"),
    (f"{PUZZLE} {SOLUTION} 17", "line 2: 3 columns"),
]


class TestReading:
    @pytest.mark.parametrize("separator", [",", "\t", " ", ", ", ";"])
    def test_two_columns(self, separator: str) -> None:
        found = sudoku.read(["# comment", "", f"{PUZZLE}{separator}{SOLUTION}\n", "  \n"])
        assert found.solutions is not None
        assert sudoku.text(found.puzzles[0]) == PUZZLE
        assert sudoku.text(found.solutions[0]) == SOLUTION

    @pytest.mark.parametrize("blank", [".", "0", "_"])
    def test_puzzles_only(self, blank: str) -> None:
        found = sudoku.read([PUZZLE.replace(".", blank), SOLUTION])
        assert found.solutions is None
        assert found.puzzles.dtype == np.int64
        assert [sudoku.text(p) for p in found.puzzles] == [PUZZLE, SOLUTION]

    @pytest.mark.parametrize(
        ("header", "row"),
        [
            ("quizzes,solutions", "{zeros},{solution}"),
            ("id,puzzle,solution,clues,difficulty", "17,{dots},{solution},30,2.2"),
            ("source,question,answer,rating", '"a, b",{dots},{solution},7'),
            ("puzzle,solution", '"{dots}","{solution}"'),
            ('"Solution","Puzzle"', "{solution},{dots}"),
            ("rating\tpuzzle\tsolution", "1.0\t{dots}\t{solution}"),
        ],
    )
    def test_headers(self, tmp_path: Path, header: str, row: str) -> None:
        line = row.format(zeros=PUZZLE.replace(".", "0"), dots=PUZZLE, solution=SOLUTION)
        path = tmp_path / "puzzles.csv"
        path.write_bytes(f"\ufeff{header}\r\n{line}\r\n{line}\r\n".encode())
        for source in (path, str(path)):
            found = sudoku.read(source)
            assert found.solutions is not None
            assert [sudoku.text(b) for b in found.puzzles] == [PUZZLE] * 2
            assert [sudoku.text(b) for b in found.solutions] == [SOLUTION] * 2

    @pytest.mark.parametrize(("line", "message"), BAD_LINES)
    def test_errors_name_line_and_fault(self, line: str, message: str) -> None:
        first = f"{PUZZLE},{SOLUTION}" if "," in line else PUZZLE
        with pytest.raises(ValueError, match=message):
            sudoku.read([first, line])

    def test_contradicting_solution(self) -> None:
        other = SOLUTION.translate(str.maketrans("12", "21"))
        with pytest.raises(ValueError, match="line 3: solution has 2 at row 2 column 4; expected the clue 1"):
            sudoku.read(["puzzle,solution", f"{PUZZLE},{SOLUTION}", f"{PUZZLE},{other}"])

    def test_missing_solution_or_column(self) -> None:
        with pytest.raises(ValueError, match="line 2: no solution"):
            sudoku.read([f"{PUZZLE},{SOLUTION}", PUZZLE])
        with pytest.raises(ValueError, match="line 2: 1 columns; expected the puzzle in column 2"):
            sudoku.read(["id,puzzle", "7"])

    @pytest.mark.parametrize("lines", [[], ["# nothing", ""], ["puzzle,solution"]])
    def test_no_puzzles(self, lines: list[str]) -> None:
        with pytest.raises(ValueError, match="no puzzles found"):
            sudoku.read(lines)

    def test_text_is_not_a_path(self) -> None:
        with pytest.raises(ValueError, match="splitlines"):
            sudoku.read(f"{PUZZLE}\n{PUZZLE}\n")


class TestWithoutNumba:
    @pytest.fixture(autouse=True)
    def _hide(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import unmask.data.sudoku

        monkeypatch.setitem(sys.modules, "numba", None)
        monkeypatch.delitem(sys.modules, "unmask.data.sudoku.jit", raising=False)
        monkeypatch.delattr(unmask.data.sudoku, "jit", raising=False)

    def test_making_says_what_to_install(self) -> None:
        with pytest.raises(ImportError, match=r"pip install 'unmask\[puzzles\]'") as caught:
            sudoku.full_grids(1, seed=0)
        assert "\n" not in str(caught.value)

    def test_reading_moving_and_checking_work(self) -> None:
        found = sudoku.read([f"{PUZZLE},{SOLUTION}"])
        moved = sudoku.symmetries(found.puzzles, found.solutions, seed=3)
        assert sudoku.is_solved(moved[1], moved[0]).all()
