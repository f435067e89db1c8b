"""The command line: every command end to end on a tiny model, and one clear line for every bad input."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from scipy.stats import binomtest

import unmask
from unmask.base.statistics import sign_test, wilson
from unmask.command_line import boards
from unmask.command_line.app import main
from unmask.command_line.arguments.parsing import fields_as_options
from unmask.command_line.catalogue import ADAPTIVE, EXACT, ORDERS
from unmask.command_line.choosing import BUILD, Task, read_plan, sampler
from unmask.command_line.commands import demo, doctor
from unmask.command_line.commands import evaluate as evaluation
from unmask.command_line.commands.demo import animation
from unmask.command_line.options import Options
from unmask.data import sudoku
from unmask.training import loop as training

pytest.importorskip("numba")
pytestmark = pytest.mark.global_random  # training seeds torch's generator, networks start from it

SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
NEARLY = "." * 6 + SOLUTION[6:]
TINY = [
    *("--network.width=16", "--network.depth", "1", "--network.loops", "1", "--network.heads", "2"),
    *("--network.hidden", "32", "--batch-size", "8", "--machine.log_every", "1"),
    *("--machine.compile", "false", "--machine.bfloat16", "False"),
]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process: exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def document(run: Run) -> Callable[..., Any]:
    """Runs a command with --json --quiet: the one document on standard output."""

    def call(*arguments: object, code: int = 0) -> Any:
        got, out, err = run(*arguments, "--json")
        assert got == code, err
        return json.loads(out)

    return call


@pytest.fixture
def refusal(run: Run) -> Callable[..., str]:
    """Runs a command that must fail with exit code 2 and one line on standard error."""

    def call(*arguments: object) -> str:
        code, out, err = run(*arguments)
        lines = [line for line in err.splitlines() if line.startswith("unmask: ")]
        assert code == 2
        assert out == ""
        assert len(lines) == 1
        assert "Traceback" not in err
        return lines[0]

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    arguments = ["train", "sudoku", "--out", str(folder), *TINY, "--optimiser.steps", "4", "--quiet"]
    assert main(arguments) == 0
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run that a test may break."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def puzzles(tmp_path: Path) -> Path:
    path = tmp_path / "puzzles.txt"
    path.write_text(f"# two puzzles\n{NEARLY},{SOLUTION}\n{SOLUTION[:75]}{'.' * 6},{SOLUTION}\n")
    return path


def numbers(report: Any) -> Iterator[dict[str, Any]]:
    """All reported numbers of a document."""
    if isinstance(report, dict):
        if "value" in report:
            yield report
        for value in report.values():
            yield from numbers(value)
    elif isinstance(report, list):
        for value in report:
            yield from numbers(value)


class TestStatistics:
    @pytest.mark.parametrize(("successes", "trials"), [(0, 50), (1, 3), (95, 100), (50, 50), (333, 1000)])
    def test_wilson_is_the_interval_of_scipy(self, successes: int, trials: int) -> None:
        want = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
        assert wilson(successes, trials) == pytest.approx((want.low, want.high), abs=1e-12)

    def test_wilson_without_trials_says_nothing(self) -> None:
        assert wilson(0, 0) == (0.0, 1.0)

    @pytest.mark.parametrize("bad", [(-1, 3), (4, 3), (1, 3, 1.0)])
    def test_wilson_refuses(self, bad: tuple[Any, ...]) -> None:
        with pytest.raises(ValueError, match="expected"):
            wilson(*bad)


class TestBoards:
    def test_accuracy_needs_all_clues_and_the_whole_grid(self) -> None:
        posed = boards.generate("30", 40, seed=5)
        grids = posed.solutions.clone()
        grids[1] = grids[0]  # valid, keeps some clues of puzzle 1, not all
        blank = int((posed.puzzles[2] == sudoku.BLANK).nonzero()[0])
        grids[2, blank] = (grids[2, blank] + 1) % 9  # keeps all clues, is not valid
        zeros = torch.zeros(40, dtype=torch.float64)
        found = boards.accuracy(posed, boards.Solved(grids, zeros, zeros, 0.0))
        assert [found[k]["count"] for k in ("valid", "clues_kept", "solved", "exact_match")] == [
            39,
            39,
            38,
            38,
        ]

    def test_fresh_puzzles_share_no_grid_with_training_or_other_difficulties(self) -> None:
        grids = [boards.generate(clues, 8, seed=0).solutions for clues in ("34", "minimal")]
        grids += [torch.as_tensor(sudoku.full_grids(8, seed)) for seed in (0, 1, 2**31)]
        assert len(torch.unique(torch.cat(grids), dim=0)) == 40

    def test_fresh_puzzles_have_their_clues_and_one_solution(self) -> None:
        posed = boards.generate("34", 8, seed=1)
        assert ((posed.puzzles != sudoku.BLANK).sum(1) == 34).all()
        assert sudoku.is_unique(posed.puzzles).all()


class TestTrain:
    def test_leaves_a_model_and_goes_on_from_its_checkpoint(
        self, folder: Path, document: Callable[..., Any]
    ) -> None:
        assert unmask.load(folder).config["trained_steps"] == 4
        report = document("train", "sudoku", "--out", folder, *TINY, "--optimiser.steps", "6", "--quiet")
        assert (report["resumed_from"], report["steps"]) == (4, 6)
        assert report["loss"]["unit"] == "nats per position"
        assert unmask.load(report["model"]).config["trained_steps"] == 6

    def test_prints_the_folder_of_the_model_last(self, folder: Path, run: Run) -> None:
        code, out, err = run("train", "sudoku", "--out", folder, *TINY, "--optimiser.steps", "4")
        assert code == 0
        assert out.splitlines()[-1] == f"model: {folder / 'model'}"
        assert "going on from step 4" in err

    def test_lists_fields(self, document: Callable[..., Any], run: Run) -> None:
        fields = document("train", "sudoku", "--fields")["fields"]
        assert fields["optimiser.steps"] == unmask.recipes.sudoku().optimiser.steps
        assert "--optimiser.steps" in run("train", "sudoku", "--fields")[1]

    def test_dotted_options_become_replacements(self) -> None:
        given = [
            "train",
            "--batch-size",
            "4",
            "sudoku",
            "--a.b-c=x=y",
            "--out",
            "f",
            "--data.z",
            "-1",
            "--json",
        ]
        want = [
            "train",
            "--set",
            "batch_size=4",
            "sudoku",
            "--set",
            "a.b_c=x=y",
            "--out",
            "f",
            "--set",
            "data.z=-1",
        ]
        assert fields_as_options(given) == [*want, "--json"]
        assert fields_as_options(["sample", "--a.b", "1"]) == ["sample", "--a.b", "1"]

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (["sudok"], ["no recipe 'sudok'", "did you mean 'sudoku'"]),
            (["chess"], ["no recipe 'chess'", "recipes: "]),
            (["sudoku", "--optimizer.steps", "3"], ["optimizer.steps", "did you mean 'optimiser.steps'"]),
            (["sudoku", "--optimiser.stesp=3"], ["did you mean 'optimiser.steps'"]),
            (["sudoku", "--optimiser.steps", "few"], ["'few'", "expected int"]),
            (["sudoku", "--optimiser.steps"], ["expected a value after --optimiser.steps"]),
            (["sudoku", "--set", "nothing"], ["'nothing'", "FIELD=VALUE"]),
            (["sudoku", "--batch_size", "0"], ["batch_size 0: expected"]),
            (["sudoku", "--machine.device", "abacus"], ["no device 'abacus'"]),
            (["sudoku", "--network.width", "17"], ["width 17"]),
        ],
    )
    def test_refuses(
        self, arguments: list[str], parts: list[str], refusal: Callable[..., str], tmp_path: Path
    ) -> None:
        message = refusal("train", *arguments, "--out", tmp_path / "run")
        assert all(part in message for part in parts), message
        assert not (tmp_path / "run").exists()

    def test_refuses_a_folder_of_another_run(self, folder: Path, refusal: Callable[..., str]) -> None:
        assert "batch_size 8, not 9" in refusal(
            "train", "sudoku", "--out", folder, *TINY, "--batch_size", "9"
        )

    def test_refuses_a_truncated_checkpoint(self, folder: Path, refusal: Callable[..., str]) -> None:
        path = folder / "checkpoints" / "00000004" / "network.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
        assert "truncated" in refusal(
            "train", "sudoku", "--out", folder, *TINY, "--optimiser.steps", "6", "--quiet"
        )

    def test_a_full_disk_leaves_earlier_work_intact(
        self, folder: Path, refusal: Callable[..., str], run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = {p: p.read_bytes() for p in folder.rglob("*.safetensors")}
        more = ("train", "sudoku", "--out", folder, *TINY, "--optimiser.steps", "6", "--quiet")

        def full(handle: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            assert "No space left on device" in refusal(*more)
        assert {p: p.read_bytes() for p in folder.rglob("*.safetensors")} == before
        assert not list(folder.rglob(".*"))
        assert run(*more)[0] == 0

    def test_ctrl_c_saves_and_says_how_to_go_on(
        self, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        update = training.update

        def pressed(*arguments: Any) -> torch.Tensor:
            signal.raise_signal(signal.SIGINT)
            return update(*arguments)

        monkeypatch.setattr(training, "update", pressed)
        previous = signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # a background shell may ignore it
        try:
            code, out, err = run(
                "train", "sudoku", "--out", folder, *TINY, "--optimiser.steps", "9", "--quiet"
            )
        finally:
            signal.signal(signal.SIGINT, previous)
        assert (code, out) == (130, "")
        assert err.startswith("unmask: stopped: step 5 is saved")
        assert err.count("\n") == 1
        assert (folder / "checkpoints" / "00000005").is_dir()


class TestEval:
    def test_every_number_has_unit_and_estimator(
        self, trained: Path, puzzles: Path, document: Callable[..., Any]
    ) -> None:
        report = document("eval", trained, puzzles, "--samples", 2, "--quiet")
        found = list(numbers(report))
        assert len(found) == 9
        assert all(n["unit"] and n["estimator"] for n in found)
        assert report["calls"]["value"] == 6
        assert report["clues_kept"]["count"] == 2
        assert report["nelbo"]["value"] == pytest.approx(
            81 * 2.1972, rel=0.01
        )  # an untrained model: ln 9 a cell
        assert report["nelbo_given_clues"]["value"] == pytest.approx(6 * 2.1972, rel=0.01)
        assert report["nelbo_given_clues"]["bits_per_cell"]["value"] == pytest.approx(3.17, rel=0.01)

    def test_fresh_puzzles_and_text(self, trained: Path, run: Run) -> None:
        options = (
            "--generate",
            "minimal",
            "--num",
            3,
            "--order",
            "random",
            "--plan",
            20,
            "--greedy",
            "--samples",
            1,
        )
        code, out, _ = run("eval", trained, *options)
        assert code == 0
        assert "3 puzzles (minimal)" in out
        assert "nats per grid" in out

    def test_solutions_are_found_where_they_are_unique(
        self, trained: Path, tmp_path: Path, document: Callable[..., Any]
    ) -> None:
        path = tmp_path / "p.txt"
        path.write_text(PUZZLE)
        options = ("--plan", 30, "--samples", 1, "--quiet")
        assert document("eval", trained, path, *options)["exact_match"]["of"] == 1
        path.write_text(f"{PUZZLE}\n{PUZZLE[:40]}{'.' * 41}")
        report = document("eval", trained, path, *options)
        assert report["exact_match"] is None
        assert report["nelbo"] is None
        assert report["solved"]["of"] == 2

    @pytest.mark.parametrize("data", [[], ["x.txt", "--generate", "34"]])
    def test_wants_one_source_of_puzzles(
        self, data: list[str], trained: Path, refusal: Callable[..., str]
    ) -> None:
        assert "one of the two" in refusal("eval", trained, *data)

    @pytest.mark.parametrize("clues", ["many", "5"])
    def test_refuses_clues(self, clues: str, trained: Path, refusal: Callable[..., str]) -> None:
        assert "expected" in refusal("eval", trained, "--generate", clues)


class TestSample:
    def test_prompt_gives_one_grid_a_line_that_keeps_its_clues(
        self, trained: Path, puzzles: Path, run: Run
    ) -> None:
        code, out, err = run("sample", trained, "--prompt", puzzles, "--order", "margin", "--quiet")
        grids = out.splitlines()
        assert code == 0
        assert [len(g) for g in grids] == [81, 81]
        assert (grids[0][6:], grids[1][:75]) == (SOLUTION[6:], SOLUTION[:75])
        assert err == ""
        assert "equal to the known solution" in run("sample", trained, "--prompt", puzzles)[2]

    @pytest.mark.parametrize("order", ["random", "margin", "threshold"])
    def test_log_probability_is_the_likelihood_along_the_order(
        self, order: str, trained: Path, puzzles: Path, document: Callable[..., Any]
    ) -> None:
        report = document(
            "sample",
            trained,
            "--prompt",
            puzzles,
            "--num",
            2,
            "--order",
            order,
            "--seed",
            3,
            "--temperature",
            0.5,
        )
        model = unmask.load(trained)
        tokens = torch.tensor([[int(c) - 1 for c in s["text"]] for s in report["samples"]])
        want = unmask.log_likelihood(
            unmask.tempered(model.denoiser, 0.5),
            tokens,
            BUILD[order](Options(seed=3), Task(model.denoiser, 81)),
            visible=torch.tensor([[c != "." for c in s["prompt"]] for s in report["samples"]]),
            order_ids=torch.arange(4),
        )
        assert [s["log_prob"] for s in report["samples"]] == pytest.approx(want.tolist(), abs=1e-6)

    def test_without_a_prompt(self, trained: Path, run: Run, document: Callable[..., Any]) -> None:
        _, out, err = run("sample", trained, "--num", 3, "--plan", 27)
        rows = [line.split("\t") for line in out.splitlines()[1:]]
        assert [(len(text), float(calls)) for text, _, calls in rows] == [(81, 3.0)] * 3
        assert all(-180 < float(log_prob) < -170 for _, log_prob, _ in rows)
        assert "valid" in err
        again, other = (
            document("sample", trained, "--num", 3, "--plan", 27, "--seed", s)["samples"] for s in (0, 1)
        )
        assert [s["text"] for s in again] == [text for text, _, _ in rows]
        assert [s["text"] for s in other] != [text for text, _, _ in rows]

    def test_plans(self, trained: Path, tmp_path: Path, document: Callable[..., Any]) -> None:
        unmask.plans.save(tmp_path / "plan.json", (1, 10, 20, 50))
        calls = {
            plan: document("sample", trained, "--order", "random", "--plan", plan)["samples"][0]["nfe"]
            for plan in ("40", "1,80", str(tmp_path / "plan.json"))
        }
        assert list(calls.values()) == [3, 2, 4]
        partial = document("sample", trained, "--plan", "40,41", "--substeps", 2)["samples"][0]["nfe"]
        assert partial == pytest.approx(2 + 40 / 81 + 41 / 81)
        assert read_plan(None) == 1

    @pytest.mark.parametrize("order", ORDERS)
    def test_every_order_solves_easy_puzzles(
        self, order: str, puzzles: Path, document: Callable[..., Any]
    ) -> None:
        known = ORDERS[order]
        options = [w for name in ("steps", "candidates") if name in known.own for w in (f"--{name}", 4)]
        options += ["--greedy"] if "greedy" in known.takes else []
        report = document("sample", "sudoku", "--prompt", puzzles, "--order", order, *options, "--quiet")
        assert report["accuracy"]["exact_match"]["count"] == 2
        assert report["order"] == order
        assert all(1 <= s["nfe"] <= 8 for s in report["samples"])
        assert all((s["log_prob"] is None) != known.kind.likelihood for s in report["samples"])

    @pytest.mark.parametrize("order", [name for name, known in ORDERS.items() if known.kind.likelihood])
    @pytest.mark.parametrize("more", [{}, {"blocks": 5, "substeps": 2, "spacing": 2, "temperature": 0.7}])
    def test_log_probabilities_add_up_to_the_law_that_was_sampled(
        self, order: str, more: dict[str, Any]
    ) -> None:
        law = unmask.laws.Permutation(9)
        options = Options(order, seed=4, **more)
        denoiser = unmask.tempered(law, options.temperature)
        chosen = BUILD[order](options, Task(denoiser, 9))
        assert chosen.blind == ORDERS[order].blind
        if more:
            chosen = unmask.selectors.in_blocks(unmask.orders.rules.spaced(chosen, 2), 5)
        draw_all = sampler(options, law, 9)
        result = draw_all(torch.full((3, 9), law.mask_id), torch.arange(3), torch.Generator().manual_seed(0))
        want = unmask.log_likelihood(
            denoiser,
            result.tokens,
            chosen,
            order_ids=torch.arange(3),
            substeps=more.get("substeps", 1),
        )
        assert result.log_prob.tolist() == pytest.approx(want.tolist(), abs=1e-9)
        for steps in boards.steps_of(result.trace, 3) if more else ():
            batches = [sorted(step["positions"]) for step in steps]
            assert sorted([place for batch in batches for place in batch][:5]) == [0, 1, 2, 3, 4]
            assert all(b - a > 1 for batch in batches for a, b in pairwise(batch))

    @pytest.mark.parametrize(
        "order", [name for name, known in ORDERS.items() if known.group == EXACT and name != "ancestral"]
    )
    def test_orders_called_exact_follow_the_law_one_position_at_a_time(self, order: str) -> None:
        law = unmask.laws.Permutation(4)
        tokens = torch.tensor([[3, 1, 0, 2], [0, 1, 2, 3], [1, 1, 0, 2]])
        one = {"plan": "1"} if "plan" in ORDERS[order].own else {}
        chosen = BUILD[order](Options(order, **one), Task(law, 4))
        told = unmask.log_likelihood(law, tokens, chosen)
        assert told.tolist() == pytest.approx(law.log_prob(tokens).tolist(), abs=1e-9)

    @pytest.mark.parametrize(
        ("settings", "calls"),
        [
            ({"order": "hybrid", "share": 1.0, "plan": "1"}, [0, 4, 2, 6, 1, 5, 3, 7]),
            ({"order": "bisection", "plan": "1"}, [0, 4, 2, 6, 1, 5, 3, 7]),
            ({"order": "pc", "decay": 9.0}, [0, 1, 2, 3, 4, 5, 6, 7]),
            ({"order": "bisection", "plan": "1", "blocks": 4}, [0, 2, 1, 3, 7, 5, 4, 6]),
            ({"order": "low-confidence", "greedy": True}, [7, 6, 5, 4, 3, 2, 1, 0]),
            ({"order": "low-confidence", "blocks": 4, "greedy": True}, [3, 2, 1, 0, 4, 5, 6, 7]),
            ({"order": "halton", "grid": "2x4", "plan": "1"}, [5, 2, 4, 1, 7, 0, 6, 3]),
            ({"order": "left-to-right", "plan": "8", "spacing": 4}, [0, 4, 1, 5, 2, 6, 3, 7]),
        ],
    )
    def test_settings_reach_the_order(self, settings: dict[str, Any], calls: list[int]) -> None:
        law = unmask.laws.Markov([0.5, 0.5], [[0.9, 0.1], [0, 1]], 8)  # the later, the more certain
        run = sampler(Options(**settings), law, 8)
        result = run(torch.full((1, 8), 2), torch.arange(1), torch.Generator().manual_seed(0))
        rows = torch.cat([info.rows for info in result.trace], 1)[0]
        assert rows[rows >= 0].tolist() == calls

    @pytest.mark.parametrize(
        ("settings", "name"),
        [
            ({"order": "moment", "beta": 3.0}, "top_k(moment(3.0, 0), 1)"),
            ({"order": "race", "alpha": 2.0, "plan": "3"}, "race(3, 2.0, 0)"),
            ({"order": "noisy-margin", "alpha": 2.0}, "top_k(with_noise(on_base(margin), 2.0, 0), 1)"),
            ({"order": "factor", "limit": 0.5}, "factor(0.5, on_base(confidence))"),
            ({"order": "klass", "tau": 0.7, "eps": 0.1, "plan": "2"}, "stable(2, 0.7, 0.1, 2, confidence)"),
            ({"order": "eb", "gamma": 0.3}, "entropy_budget(0.3, negative_entropy)"),
            ({"order": "maskgit"}, "maskgit(annealed(4.5, 12), cosine_counts(12))"),
            ({"order": "maskgit", "plan": "2", "alpha": 3.0}, "maskgit(3.0, 2)"),
            (
                {"order": "maskgit", "plan": "2", "steps": 9, "alpha": 1.0},
                "maskgit(annealed(1.0, 9), 2)",
            ),
            ({"order": "psi", "eta": 0.25, "steps": 3}, "3 x remdm(psi(0.75))"),
            ({"order": "remdm-loop", "steps": 3}, "3 x remdm(between(cap(0.02), 0.55, 0.05))"),
            ({"order": "gibbs", "steps": 2}, "2 x remdm(psi(1.0)), 2 x gibbs(1, at random)"),
            ({"order": "p2", "steps": 2, "eta": 0.5}, "2 x p2(2, 0.5)"),
        ],
    )
    def test_settings_are_in_the_name(self, settings: dict[str, Any], name: str) -> None:
        law = unmask.laws.Permutation(4)
        run = sampler(Options(**settings), law, 4)
        result = run(torch.full((1, 4), 4), torch.arange(1), torch.Generator().manual_seed(0))
        assert result.manifest["selector"] == name

    def test_temperature_and_top_p_change_the_law(self) -> None:
        law = unmask.laws.Mixture([1.0], [[0.6, 0.3, 0.1]], 2)
        tokens, generator = torch.full((1, 2), law.mask_id), torch.Generator()
        for options, probability in (
            (Options("random", top_p=0.5, greedy=True), 1.0),
            (
                Options("random", top_p=0.85, temperature=2.0, greedy=True),  # tempered first: all three stay
                0.6**0.5 / (0.6**0.5 + 0.3**0.5 + 0.1**0.5),
            ),
        ):
            found = sampler(options, law, 2)(tokens, torch.arange(1), generator.manual_seed(8))
            assert found.tokens.tolist() == [[0, 0]]
            assert float(found.log_prob.exp()) == pytest.approx(probability**2, abs=1e-9)

    def test_trace_writes_the_steps(
        self, trained: Path, puzzles: Path, document: Callable[..., Any], refusal: Callable[..., str]
    ) -> None:
        options = ("sample", trained, "--prompt", puzzles, "--num", 33, "--order", "random", "--plan", "2,4")
        report = document(*options, "--trace", "--quiet")
        assert len(report["samples"]) == 66  # more than a batch
        for found in report["samples"]:
            assert [len(step["positions"]) for step in found["steps"]] == [2, 4]
            for step in found["steps"]:
                assert [int(found["text"][p]) - 1 for p in step["positions"]] == step["symbols"]
                assert all(0 < h < 2.2 for h in step["entropies"])
            told = sum(sum(step["log_probs"]) for step in found["steps"])
            assert told == pytest.approx(found["log_prob"], abs=1e-9)
        assert "steps" not in document(*options)["samples"][0]
        assert "expected --json" in refusal(*options, "--trace")

    def test_trace_of_an_order_that_hides_again(self, trained: Path, document: Callable[..., Any]) -> None:
        report = document("sample", trained, "--order", "p2", "--steps", 3, "--trace", "--quiet")
        steps = report["samples"][0]["steps"]
        assert any(report["units"]["mask_id"] in step["symbols"] for step in steps)
        assert all(step["entropies"] is None for step in steps)

    @pytest.mark.parametrize("command", ["sample", "eval"])
    def test_the_manifest_repeats_a_run(
        self, command: str, trained: Path, document: Callable[..., Any]
    ) -> None:
        data = (
            ("--generate", "78", "--samples", 1) if command == "eval" else ("--order", "random", "--plan", 27)
        )
        report = document(command, trained, *data, "--num", 65, "--greedy", "--seed", 3, "--quiet")
        record = report["manifest"]
        assert record["seed"] == report["seed"] == 3
        assert len(record["batch_seeds"]) == 2
        assert record["shape"] == [65, 81]
        assert (record["source"], record["dtype"]) == ("greedy", ["torch.float32"])
        assert record["selector"] == report["selector"]
        assert 0 < record["network_seconds"] == report["network_seconds"] < report["seconds"]
        assert record["seconds"] == report["seconds"]

    def test_eval_reads_temperature(self, trained: Path, document: Callable[..., Any]) -> None:
        options = ("eval", trained, "--generate", "60", "--num", 3, "--samples", 1, "--quiet")
        cold, warm = (document(*options, "--temperature", t, "--top-p", 0.9) for t in (0.01, 1))
        assert (cold["temperature"], cold["top_p"]) == (0.01, 0.9)
        assert cold["nelbo"] == warm["nelbo"]
        assert cold["manifest"]["denoiser"] == "nucleus(tempered(NetworkDenoiser, 0.01), 0.9)"

    def test_pretty_boards(self, trained: Path, puzzles: Path, run: Run) -> None:
        out = run("sample", trained, "--prompt", puzzles, "--pretty")[1]
        assert "------+-------+------" in out

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            (["--plan", "40,40"], "sums to 80 but 81 positions are masked"),
            (["--plan", "0"], "at least one position"),
            (["--plan", "nowhere.json"], "no such file"),
            (["--order", "margn"], "did you mean 'margin'"),
            (["--order", "threshold", "--plan", "3"], "does not read --plan; it takes --tau --blocks"),
            (["--order", "maskgit", "--substeps", "2"], "does not read --substeps"),
            (["--order", "remdm", "--greedy"], "does not read --greedy; it takes --steps --eta"),
            (["--order", "margin", "--beta", "2"], "does not read --beta"),
            (["--order", "margin", "--top-p", "0"], "p 0"),
            (["--order", "margin", "--blocks", "0"], "--blocks 0"),
            (["--order", "margin", "--spacing", "0"], "--spacing 0"),
            (["--order", "halton", "--grid", "9"], "grid '9': expected HEIGHTxWIDTH"),
            (["--order", "halton", "--grid", "8x9"], "a grid of 8x9 has no 81 cells"),
            (["--order", "maskgit", "--plan", "0"], "at least one position"),
            (["--order", "p2", "--steps", "0"], "steps 0"),
            (["--order", "hybrid", "--share", "2"], "share 2"),
            (["--order", "ancestral", "--steps", "0"], "steps 0"),
            (["--order", "entropy-budget", "--gamma", "-1"], "gamma"),
            (["--temperature", "0"], "temperature 0"),
            (["--num", "0"], "num 0"),
            (["--substeps", "0"], "substeps 0"),
            (["--prompt", "missing.txt"], "No such file or directory: missing.txt"),
        ],
    )
    def test_refuses(self, options: list[str], part: str, trained: Path, refusal: Callable[..., str]) -> None:
        assert part in refusal("sample", trained, "--quiet", *options)

    @pytest.mark.parametrize(
        ("options", "part"),
        [
            (["--beam", "0"], "--beam 0: expected at least 1"),
            (["--best-of", "0"], "--best-of 0: expected at least 1"),
            (["--beam", "2", "--best-of", "2"], "--beam beside --best-of; expected one of them"),
            (["--beam", "2", "--num", "3"], "--num 3: expected 1..2, the fillings that --beam 2 compares"),
            (["--backtrack", "0"], "--backtrack 0: expected at least 1"),
            (["--beam", "2", "--backtrack", "2"], "--beam beside --backtrack; expected one of them"),
            (["--backtrack", "2", "--top-p", "0.5"], "--top-p beside --backtrack"),
            (
                ["--judge", "8"],
                "--judge without a search; expected --beam, --backtrack or --best-of beside it",
            ),
            (["--beam", "2", "--judge", "0"], "--judge 0: expected at least 1"),
            (["--beam", "2", "--greedy"], "--greedy beside --beam; expected one of them"),
            (["--best-of", "2", "--greedy"], "--greedy beside --best-of; expected one of them"),
            (["--best-of", "2", "--substeps", "2"], "--substeps beside --best-of"),
            (["--beam", "2", "--temperature", "0.5"], "--temperature beside --beam"),
            (["--beam", "2", "--top-p", "0.5"], "--top-p beside --beam"),
            (["--beam", "2", "--trace", "--json"], "--trace beside --beam"),
            (["--beam", "2", "--order", "maskgit"], "order 'maskgit' has no likelihood"),
            (["--best-of", "2", "--order", "p2"], "order 'p2' has no likelihood"),
        ],
    )
    def test_refuses_searches_that_make_no_sense(
        self, options: list[str], part: str, trained: Path, refusal: Callable[..., str]
    ) -> None:
        assert part in refusal("sample", trained, "--quiet", *options)

    @pytest.mark.parametrize(("way", "batch"), [("beam", 1), ("beam", 64), ("backtrack", 64)])
    def test_a_search_tells_the_most_probable_fillings_of_each_puzzle(
        self, way: str, batch: int, trained: Path, puzzles: Path, document: Callable[..., Any], run: Run
    ) -> None:
        options = ("--prompt", puzzles, "--order", "margin", "--num", 2, "--batch", batch)
        report = document("sample", trained, *options, f"--{way}", 5)
        model = unmask.load(trained)
        posed, order = boards.read(puzzles).puzzles, unmask.orders.presets.margin(1)
        if way == "beam":
            found = unmask.search(model.denoiser, posed, order, width=5)
            assert found.nfe.tolist() == [1 + 5 * 5.0] * 2
        else:
            found = unmask.backtrack(model.denoiser, posed, order, count=5)
        samples = report["samples"]
        assert [s["text"] for s in samples] == model.decode(found.tokens[:, :2].flatten(0, 1))
        want = found.log_prob[:, :2].flatten().tolist()
        assert [s["log_prob"] for s in samples] == pytest.approx(want, abs=1e-5)
        assert [s["nfe"] for s in samples] == found.nfe.repeat_interleave(2).tolist()
        assert [s["prompt"] for s in samples] == [text for text in model.decode(posed) for _ in (0, 1)]
        assert report["search"] == {"way": way, "width": 5, "judge": None}
        assert "all fillings" in report["units"]["nfe"]
        assert report["accuracy"]["clues_kept"]["count"] == 4
        again = unmask.replay(model.denoiser, report["manifest"], posed)
        assert model.decode(again.tokens) == [s["text"] for s in samples]
        out = run("sample", trained, *options, f"--{way}", 5)[1]
        assert out.splitlines() == [s["text"] for s in samples]

    def test_the_best_of_draws_are_draws_whatever_the_batch(
        self, trained: Path, puzzles: Path, document: Callable[..., Any]
    ) -> None:
        options = ("sample", trained, "--prompt", puzzles, "--order", "random", "--seed", 7)
        many = document(*options, "--best-of", 3, "--num", 3)
        drawn = document(*options, "--num", 3)  # other orders for the draws of a puzzle
        alone = document(*options, "--best-of", 3, "--batch", 1)
        values = [s["log_prob"] for s in many["samples"]]
        assert values[:3] == sorted(values[:3], reverse=True)
        assert [s["text"] for s in alone["samples"]] == [s["text"] for s in many["samples"][::3]]
        assert [s["nfe"] for s in many["samples"]] == [18.0] * 6
        assert [s["nfe"] for s in drawn["samples"]] == [6.0] * 6
        model = unmask.load(trained)
        again = unmask.replay(model.denoiser, many["manifest"], boards.read(puzzles).puzzles)
        assert model.decode(again.tokens) == [s["text"] for s in many["samples"]]

    def test_draws_of_a_sharper_law_are_judged_by_the_models_own(
        self, trained: Path, puzzles: Path, document: Callable[..., Any]
    ) -> None:
        options = ("sample", trained, "--prompt", puzzles, "--order", "margin", "--best-of", 2)
        report = document(*options, "--temperature", 0.5)
        model = unmask.load(trained)
        posed = boards.read(puzzles).puzzles
        tokens = torch.tensor([[int(c) - 1 for c in s["text"]] for s in report["samples"]])
        want = unmask.log_likelihood(
            model.denoiser, tokens, unmask.orders.presets.margin(1), visible=posed != model.denoiser.mask_id
        )
        assert [s["log_prob"] for s in report["samples"]] == pytest.approx(want.tolist(), abs=1e-6)
        assert [s["nfe"] for s in report["samples"]] == [24.0] * 2
        sharper = unmask.tempered(model.denoiser, 0.5)
        again = unmask.replay(model.denoiser, report["manifest"], posed, proposal=sharper)
        assert model.decode(again.tokens) == [s["text"] for s in report["samples"]]
        with pytest.raises(ValueError, match=r"symbols were drawn from tempered.*expected proposal="):
            unmask.replay(model.denoiser, report["manifest"], posed)

    @pytest.mark.parametrize("way", ["beam", "backtrack", "best-of"])
    def test_what_was_found_is_judged_along_another_order(
        self, way: str, trained: Path, puzzles: Path, document: Callable[..., Any]
    ) -> None:
        options = ("sample", trained, "--prompt", puzzles, "--order", "margin", f"--{way}", 4, "--num", 4)
        plain, report = document(*options), document(*options, "--judge", 3)
        model, posed = unmask.load(trained), boards.read(puzzles).puzzles
        order = unmask.orders.presets.random(
            2, 1
        )  # six cells in three calls, another seed than that of the search
        tokens = torch.tensor([[int(c) - 1 for c in s["text"]] for s in report["samples"]])
        want = unmask.log_likelihood(
            model.denoiser,
            tokens,
            order,
            visible=(posed != model.denoiser.mask_id).repeat_interleave(4, 0),
            order_ids=torch.arange(2).repeat_interleave(4),
        )
        values = [s["log_prob"] for s in report["samples"]]
        assert values == pytest.approx(want.tolist(), abs=1e-6)
        assert values[:4] == sorted(values[:4], reverse=True)
        if way != "backtrack":  # there every way is finished
            assert {s["text"] for s in report["samples"]} == {s["text"] for s in plain["samples"]}
            assert report["samples"][0]["nfe"] == plain["samples"][0]["nfe"] + 4 * 3
        again = unmask.replay(model.denoiser, report["manifest"], posed)
        assert model.decode(again.tokens) == [s["text"] for s in report["samples"]]

    def test_fillings_that_there_are_not_are_left_out(
        self, trained: Path, tmp_path: Path, document: Callable[..., Any], run: Run
    ) -> None:
        (tmp_path / "one.txt").write_text("." + SOLUTION[1:] + "\n")
        options = ("--prompt", tmp_path / "one.txt", "--beam", 20, "--num", 12)
        report = document("sample", trained, *options)
        assert sorted(s["text"][0] for s in report["samples"]) == list("123456789")
        assert report["accuracy"]["solved"]["of"] == 9
        from_nothing = document("sample", trained, "--plan", 27, "--beam", 2, "--num", 2)["samples"]
        assert [s["nfe"] for s in from_nothing] == [5.0, 5.0]

    def test_refuses_a_foreign_plan_file(
        self, trained: Path, tmp_path: Path, refusal: Callable[..., str]
    ) -> None:
        path = tmp_path / "plan.json"
        path.write_text("[1, 2]")
        assert "format" in refusal("sample", trained, "--plan", path)

    @pytest.mark.parametrize(
        ("line", "part"),
        [
            (PUZZLE[:80], "line 1: puzzle has 80 characters; expected 81"),
            ("55" + PUZZLE[2:], "row 1 holds 5 twice"),
            (PUZZLE[:10] + "x" + PUZZLE[11:], "'x' at character 11"),
            ("", "no puzzles found"),
        ],
    )
    @pytest.mark.parametrize("command", [["eval"], ["sample", "--prompt"]])
    def test_refuses_malformed_puzzles(
        self,
        command: list[str],
        line: str,
        part: str,
        trained: Path,
        tmp_path: Path,
        refusal: Callable[..., str],
    ) -> None:
        path = tmp_path / "p.txt"
        path.write_text(line + "\n")
        assert part in refusal(command[0], trained, *command[1:], path)


class TestModels:
    def edit(self, folder: Path, **changes: Any) -> None:
        """Changes the network's record of a model."""
        path = folder / "model" / "config.json"
        config = json.loads(path.read_text())
        config["network"] = {k: v for k, v in (config["network"] | changes).items() if v != "gone"}
        path.write_text(json.dumps(config))

    def weigh(self, folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
        """Changes the weights of a model."""
        path = folder / "model" / "weights.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)

    def test_unknown_name(self, refusal: Callable[..., str]) -> None:
        message = refusal("sample", "sudoko")
        assert "no model 'sudoko'" in message
        assert "shipped models: " in message

    def test_wrong_vocabulary(self, folder: Path, refusal: Callable[..., str]) -> None:
        self.edit(folder, vocab_size=12)
        assert "another architecture" in refusal("sample", folder)

    def test_nan_weights(self, folder: Path, refusal: Callable[..., str]) -> None:
        self.weigh(folder, lambda tensors: next(iter(tensors.values())).view(-1)[0].fill_(torch.nan))
        assert "NaN" in refusal("sample", folder)

    def test_missing_weights(self, folder: Path, refusal: Callable[..., str]) -> None:
        self.weigh(folder, lambda tensors: tensors.popitem())
        assert "the file lacks" in refusal("sample", folder)

    def test_truncated_weights(self, folder: Path, refusal: Callable[..., str]) -> None:
        path = folder / "model" / "weights.safetensors"
        path.write_bytes(path.read_bytes()[:-8])
        assert "truncated" in refusal("eval", folder, "--generate", "34", "--num", 1)

    def test_truncated_config(self, folder: Path, refusal: Callable[..., str]) -> None:
        path = folder / "model" / "config.json"
        path.write_text(path.read_text()[:100])
        assert "is not JSON" in refusal("sample", folder)

    @pytest.mark.parametrize(("field", "value"), [("colour", 3), ("width", "gone"), ("vocab_size", "many")])
    def test_foreign_config(self, field: str, value: Any, folder: Path, refusal: Callable[..., str]) -> None:
        self.edit(folder, **{field: value})
        assert field in refusal("sample", folder)


class TestDemo:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The demo leaves a page where it runs."""
        monkeypatch.chdir(tmp_path)

    def test_report(self, trained: Path, document: Callable[..., Any]) -> None:
        report = document("demo", "--model", trained, "--num", 4, "--seed", 2, "--quiet")
        assert report["puzzles"] == {"34 clues": 2, "minimal": 2}
        rows = {(r["order"], r["symbols"]): r["sets"] for r in report["solving"]}
        assert {
            ("random", "drawn"),
            ("margin", "arg-max"),
            ("threshold 0.9", "arg-max"),
        } <= {*rows}
        assert all(
            s["34 clues"]["calls"]["value"] == 47 for s in rows.values()
        )  # one cell a call: even an untrained model is never sure
        assert all(s["minimal"]["exact_match"]["of"] == 2 for s in rows.values())

    def test_text_ends_with_a_board(self, trained: Path, run: Run) -> None:
        code, out, err = run("demo", "--model", trained, "--num", 2, "--precision", "bfloat16")
        assert code == 0
        assert "wrote unmask-demo.html" in err
        page = Path("unmask-demo.html").read_text()
        assert all(f"<h2>{name}</h2>" in page for name in ("Step by step", "Order", "Orders by calls"))
        assert "margin: sudoku, margin, arg-max" in page
        assert "Wilson" in out
        last = out.splitlines()[-11:]
        assert len(sudoku.pretty(sudoku.parse(SOLUTION)).splitlines()) == len(last)
        assert all(len(line) == 21 for line in last)
        assert "(probability" in out
        assert "(probability" not in run("demo", "--model", trained, "--num", 2, "--no-animation")[1]

    @pytest.mark.parametrize("options", [["--num", "1"], ["--tau", "0"], ["--model", "chess"]])
    def test_refuses(self, options: list[str], trained: Path, refusal: Callable[..., str]) -> None:
        assert "unmask: " in refusal("demo", "--model", trained, *options)

    def test_remembering_changes_nothing_and_runs_each_board_once(self) -> None:
        law, calls = unmask.laws.Permutation(5), []

        class Counting:
            mask_id, vocab_size = law.mask_id, law.vocab_size

            def __call__(self, tokens: torch.Tensor, rows: Any = None, *, time: Any = None) -> torch.Tensor:
                calls.append(len(tokens))
                return law(tokens, rows)

        remembering, masked = demo.Remembering(Counting()), torch.full((7, 5), law.mask_id)
        chosen = unmask.selectors.top_k(unmask.scores.margin, 1)
        for _ in range(2):
            results = [
                unmask.sample(d, masked, chosen, generator=torch.Generator().manual_seed(0))
                for d in (remembering, law)
            ]
            assert torch.equal(results[0].tokens, results[1].tokens)
            assert torch.equal(results[0].log_prob, results[1].log_prob)
            assert torch.equal(results[0].nfe, results[1].nfe)
        assert sum(calls) == len(remembering.known) < 35


class TestAnimation:
    def steps(self, trained: Path) -> tuple[torch.Tensor, list[animation.Move]]:
        model = unmask.load(trained)
        puzzle = model.encode(NEARLY)
        chosen = unmask.selectors.top_k(unmask.scores.margin, 2)
        batch = torch.cat([model.encode(SOLUTION), puzzle])
        result = unmask.sample(model.denoiser, batch, chosen, generator=torch.Generator().manual_seed(0))
        moves = animation.moves(result, row=1)
        assert {m.cell: m.symbol for m in moves} == dict(enumerate(result.tokens[1, :6].tolist()))
        assert [m.call for m in moves] == [1, 1, 2, 2, 3, 3]
        assert all(0 < m.probability < 1 for m in moves)
        return puzzle[0], moves

    def test_a_terminal_gets_colours(self, trained: Path) -> None:
        console = Console(file=StringIO(), force_terminal=True, color_system="truecolor", width=80)
        animation.show(console, *self.steps(trained), seconds=0.0)
        assert "\x1b[" in console.file.getvalue()
        assert "probability" in console.file.getvalue()

    def test_a_file_gets_a_few_lines(self, trained: Path) -> None:
        console = Console(file=StringIO(), width=80)
        animation.show(console, *self.steps(trained))
        text = console.file.getvalue()
        assert "\x1b" not in text
        assert len(text.splitlines()) == 2 * 11 + 6

    def test_colour_follows_probability(self) -> None:
        assert animation._style(0.0) == "rgb(214,69,65)"
        assert animation._style(1.0) == "rgb(46,160,67)"


class TestDoctor:
    def test_is_content(self, document: Callable[..., Any], run: Run) -> None:
        report = document("doctor")
        assert report["ok"]
        assert report["packages"]["torch"] == torch.__version__
        assert report["checks"][0]["name"] == "engine"
        assert "ok" in run("doctor")[1]

    def test_a_broken_model_is_reported(
        self, folder: Path, document: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / "model" / "weights.safetensors").write_bytes(b"nothing")
        monkeypatch.setattr(doctor, "shipped", lambda: [str(folder)])
        report = document("doctor", code=1)
        assert "truncated" in report["checks"][1]["found"]

    def test_a_model_no_better_than_chance_is_reported(
        self, trained: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            doctor, "nelbo", lambda *_, **__: unmask.Estimate(torch.full((16,), 200.0), torch.zeros(16))
        )
        with pytest.raises(ValueError, match="not below chance"):
            doctor.probe(str(trained))


class TestShell:
    def test_orders_are_listed(self, document: Callable[..., Any], run: Run) -> None:
        assert [o["name"] for o in document("orders")["orders"]] == [*ORDERS]
        told = run("orders")[1]
        assert all(known.about in told for known in ORDERS.values())
        assert [line.split()[0] for line in told.splitlines() if line.startswith("  ")] == [*ORDERS]
        assert {known.group for known in ORDERS.values() if known.kind.likelihood} >= {EXACT, ADAPTIVE}

    @pytest.mark.parametrize(
        "arguments", [[], ["frobnicate"], ["doctor", "--frobnicate"], ["demo", "--num", "x"]]
    )
    def test_unknown_commands_and_options_exit_with_2(self, arguments: list[str], run: Run) -> None:
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err

    def test_help_and_version(self, run: Run) -> None:
        assert "doctor" in run("--help")[1]
        assert run("--version") == (0, f"unmask {unmask.__version__}\n", "")

    def test_ctrl_c_exits_with_130(self, trained: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def stop(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(evaluation, "nelbo", stop)
        code, out, err = run("eval", trained, "--generate", "80", "--num", 1, "--quiet")
        assert (code, out, err) == (130, "", "unmask: stopped\n")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_full_disk_behind_standard_output_is_one_line(self) -> None:
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "unmask", "--version"], stdout=full, stderr=subprocess.PIPE
            )
        assert done.returncode == 2
        assert done.stderr.decode().splitlines() == ["unmask: No space left on device"]

    def test_a_closed_pipe_is_quiet(self) -> None:
        read, write = os.pipe()
        os.close(read)  # before it writes
        done = subprocess.run(
            [sys.executable, "-m", "unmask", "--version"], stdout=write, stderr=subprocess.PIPE, check=False
        )
        os.close(write)
        assert (done.stderr, done.returncode) == (b"", 141)


def test_a_sign_test_is_that_of_fair_coins():
    assert sign_test(5, 0) == 2 / 2**5
    assert sign_test(1, 3) == sign_test(3, 1) == 2 * (4 + 1) / 2**4
    assert sign_test(0, 0) == sign_test(2, 2) == 1.0
