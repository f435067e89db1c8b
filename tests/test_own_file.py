"""From one's own file to a page: recipes that fit their networks to the data, the walks of the documentation, orders
compared by nats."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import unmask
from unmask.command_line.app import main
from unmask.command_line.commands.report import measured
from unmask.command_line.commands.report.reading import Result
from unmask.data import tokens as folders
from unmask.data.prepare import READINGS, prepare
from unmask.orders import presets
from unmask.planning import plans

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import first_report  # noqa: E402
import own_files  # noqa: E402

FEW = ["--optimiser.steps", "2", "--network.width", "16", "--network.depth", "1", "--network.heads", "2"]
EACH = ["--machine.log_every", "1"]
LINES = "".join(f"{word} number {n}\n" for n in range(30) for word in ("box", "a crate"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a small model of lines, and what was made on the way."""
    place = tmp_path_factory.mktemp("own")
    (place / "lines.txt").write_text(LINES)
    prepare(
        [place / "lines.txt"],
        place / "data",
        READINGS["lines"],
        split={"train": 0.8, "test": 0.2},
        quiet=True,
    )
    line = ["train", "lines", "--data.folder", place / "data", "--out", place / "run", *FEW, "--quiet"]
    assert main([*map(str, line)]) == 0
    return place


def told(capsys, *words):
    """The JSON document that a command prints."""
    assert main([*map(str, words), "--json", "--quiet"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *words):
    """The line with which a command ends that is not right."""
    assert main([*map(str, words)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


# --- recipes --------------------------------------------------------------------------------------------


def test_lines_is_as_long_as_the_longest_of_any_part(tmp_path):
    for part, line in (("train", "abc"), ("test", "abcdefg")):
        (tmp_path / f"{part}.txt").write_text(f"{line}\nab\n")
        prepare([tmp_path / f"{part}.txt"], tmp_path / "data" / part, READINGS["lines"], quiet=True)
    found = prepared("lines", tmp_path / "data")
    assert found.network.length == 7
    assert found.lengths == (0, 0, 1, 1, 0, 0, 0, 0)


def test_a_folder_without_parts_trains_too(place, tmp_path):
    prepare([place / "lines.txt"], tmp_path / "whole", READINGS["lines"], quiet=True)
    found = prepared("lines", tmp_path / "whole")
    assert found.network.length == len("a crate number 29")


@pytest.mark.parametrize(
    ("shape", "patch"), [((6, 4), 2), ((5, 4), 1), ((4, 4, 3), 2)], ids=["even", "odd", "colours"]
)
def test_pictures_takes_its_size_from_the_data(shape, patch, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, *shape), dtype=np.uint8)
    np.save(tmp_path / "some.npy", images)
    (data,) = prepare([tmp_path / "some.npy"], tmp_path / "data", READINGS["npy"], quiet=True)
    assert np.array_equal(data.item(3).reshape(shape), images[3])
    network = prepared("pictures", tmp_path / "data").network
    assert (network.height, network.width, network.channels, network.patch) == (
        *shape[:2],
        (*shape, 1)[2],
        patch,
    )


@pytest.mark.parametrize("array", [np.zeros((2, 3), np.uint8), np.zeros((2, 3, 4))], ids=["flat", "floats"])
def test_arrays_that_are_no_images_are_refused(array, tmp_path, capsys):
    np.save(tmp_path / "some.npy", array)
    line = refused(capsys, "data", "prepare", tmp_path / "some.npy", "-o", tmp_path / "data", "--as", "npy")
    assert "expected images uint8 [n, h, w]" in line


def prepared(name, folder):
    """A recipe as it is trained on a token folder."""
    from dataclasses import replace

    run = unmask.recipes.all_recipes()[name]()
    return run.prepare(replace(run, data=replace(run.data, folder=str(folder))))


def test_a_file_in_the_place_of_a_folder_is_refused_with_what_to_do(place, capsys):
    line = refused(capsys, "train", "lines", "--data.folder", place / "lines.txt", "--out", place / "no")
    assert "unmask data prepare" in line


def test_the_wrong_recipe_names_the_right_one(place, capsys):
    line = refused(capsys, "train", "text", "--data.folder", place / "data", "--out", place / "no")
    assert line.endswith("expects stream; recipe 'lines' takes items")


# --- the walks ---------------------------------------------------------------------------------------------


def test_each_walk_is_of_five_commands_with_the_installation():
    walks = first_report.walks()
    assert list(walks) == ["Lines of text", "FASTA", "Puzzles", "Images", "JSON lines"]
    assert max(len(commands) for commands in walks.values()) + first_report.INSTALLING <= 5


@pytest.mark.global_random
@pytest.mark.parametrize("name", ["Lines of text", "Images"])
def test_a_walk_leads_to_a_page(name, tmp_path, monkeypatch, capsys):
    """As the page has it, but a small network, two steps and two samples."""
    pytest.importorskip("PIL")
    monkeypatch.chdir(tmp_path)
    own_files.make(tmp_path, 0)
    small = {
        "lines": [*FEW, *EACH],
        "pictures": ["--optimiser.steps", "1", "--network.features", "16", *EACH],
    }
    for command in first_report.walks()[name]:
        line, _, out = command.partition(" > ")
        words = shlex.split(line)[1:]
        if words[0] == "train":
            words += small[words[1]]
        if words[0] == "sample":
            words = [
                "2" if before == "-n" else "98" if before == "--plan" else w
                for before, w in zip(["", *words], words)
            ]
        capsys.readouterr()
        assert main([*words, "--quiet"]) == 0
        if out:
            Path(out).write_text(capsys.readouterr().out)
    page = Path("look.html").read_text()
    assert re.findall("<h2>(.*?)</h2>", page)[:3] == ["Step by step", "Order", "Training"]


def test_made_up_files_are_the_same_for_a_seed(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        own_files.make(tmp_path / name, 3)
    files = [p.relative_to(tmp_path / "one") for p in sorted((tmp_path / "one").rglob("*")) if p.is_file()]
    assert len(files) == 64
    assert all((tmp_path / "one" / p).read_bytes() == (tmp_path / "two" / p).read_bytes() for p in files)


# --- orders by calls ----------------------------------------------------------------------------------------


def test_orders_are_compared_by_their_exact_nats(place, capsys):
    found = told(
        capsys, "eval", place / "run", place / "data/test", "--calls", "2,5", "--orders", "random,confidence"
    )
    assert [(r["order"], r["budget"]) for r in found["along"]] == [
        ("random", 2), ("random", 5), ("confidence", 2), ("confidence", 5),
    ]  # fmt: skip
    model = unmask.load(place / "run")
    items = folders.load(place / "data/test")
    tokens = model.encode([items.vocabulary.decode(items.item(k)) for k in range(items.items)])
    order = presets.random(lambda n: plans.rescaled((1,) * 5, n), 0)
    nats = -unmask.log_likelihood(
        model.denoiser, tokens, order, visible=model.visible(tokens), order_ids=torch.arange(len(tokens))
    )
    mean = float((nats + model.length_cost(tokens)).mean())
    row = found["along"][1]
    assert row["nats"]["value"] == pytest.approx(mean, abs=1e-9)
    assert row["nats"]["low"] < mean < row["nats"]["high"]
    assert row["calls"]["value"] <= 5
    assert found["along"][3]["calls"]["value"] == pytest.approx(5)


def test_with_a_call_a_symbol_a_given_order_costs_what_exact_says(place, capsys):
    longest = unmask.load(place / "run").length
    words = ("eval", place / "run", place / "data/test", "--order", "left-to-right")
    (one,) = told(capsys, *words, "--calls", longest)["along"]
    exact = told(capsys, *words, "--exact", 32)["log_likelihood"]["nats"]
    assert one["nats"]["value"] == pytest.approx(exact["value"], rel=1e-9)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--orders", "random"], "--orders without --calls"),
        (["--calls", "x"], "--calls x: expected numbers"),
        (["--calls", "4", "--plan", "2"], "expected no --plan"),
        (["--calls", "4", "--orders", "maskgit"], "order 'maskgit' has no likelihood"),
        (["--calls", "4", "--orders", "sideways"], "sideways"),
    ],
)
def test_what_cannot_be_compared_is_refused(words, said, place, capsys):
    assert said in refused(capsys, "eval", place / "run", place / "data/test", *words)


def test_a_report_shows_them_in_nats():
    def row(order, calls, nats):
        found = {"value": nats, "low": nats - 1, "high": nats + 1, "unit": "nats per sequence"}
        return {"order": order, "budget": calls, "calls": {"value": float(calls)}, "nats": found}

    record = {
        "model": {"name": "m"},
        "data": {"source": "d"},
        "along": [row("random", 4, 9.0), row("random", 2, 12.5)],
    }
    result = Result("e", "eval", record)
    assert [(p.order, p.calls, p.unit) for p in measured.points(result)] == [
        ("random", 4.0, measured.NATS), ("random", 2.0, measured.NATS),
    ]  # fmt: skip
    page = measured.by_calls([result])
    assert "nats per sequence" in page
    assert "random: 4, 9</title>" in page
    assert "11.5 to 13.5" in page


# --- small ones ----------------------------------------------------------------------------------------------


def test_only_the_first_prompts_are_taken(tmp_path, capsys):
    solution = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
    (tmp_path / "p.txt").write_text("".join(f"{'.' * k}{solution[k:]}\n" for k in (3, 2, 1)))
    words = ("sample", "sudoku", "--prompt", tmp_path / "p.txt", "-n", "2")
    found = told(capsys, *words, "--first", "2")["samples"]
    assert [s["prompt"].count(".") for s in found] == [3, 3, 2, 2]
    whole = told(capsys, *words)["samples"]
    assert found == whole[:4]
    assert "--first without --prompt" in refused(capsys, "sample", "sudoku", "--first", "2")


def test_a_report_of_nothing_is_refused(tmp_path, capsys):
    assert "no results" in refused(capsys, "report", "-o", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
