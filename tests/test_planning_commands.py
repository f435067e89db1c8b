"""``unmask profile`` and ``unmask plan`` end to end, on a tiny model and on exact profiles."""

import json

import pytest
import torch

import unmask
from unmask import laws, models, plans, profiles
from unmask.command_line.app import main
from unmask.command_line.commands import demo
from unmask.command_line.commands import plan as planning

pytest.importorskip("numba")
pytestmark = pytest.mark.global_random  # training seeds torch's generator

TINY = [
    *("--network.width=16", "--network.depth", "1", "--network.loops", "1", "--network.heads", "2"),
    *("--network.hidden", "32", "--batch-size", "8", "--optimiser.steps", "2", "--machine.compile", "false"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert main(["train", "sudoku", "--out", str(folder), *TINY, "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def measured(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "p.json"
    plot = path.with_suffix(".svg")
    assert (
        main(
            [
                "profile",
                str(model),
                "--num",
                "256",
                "--rounds",
                "4",
                "-o",
                str(path),
                "--plot",
                str(plot),
                "--quiet",
            ]
        )
        == 0
    )
    assert plot.read_text().lstrip().startswith("<?xml")
    return path


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    path = tmp_path_factory.mktemp("exact") / "law.json"
    laws.Permutation(64).profile().save(path)
    return path


def run(capsys, *arguments, code=0):
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == code
    return capsys.readouterr()


def test_a_profile_is_measured_on_two_halves_and_carries_the_held_out_one(measured):
    profile = unmask.Profile.load(measured)
    heldout = profiles.heldout_of(profile)
    assert profile.length == heldout.length == 81
    assert heldout.stderr is not None
    assert heldout.counts.sum() == 512
    assert (profile.increments >= 0).all()
    assert profile.provenance["model_hash"] == heldout.provenance["model_hash"]
    assert heldout.provenance["data"] != profile.provenance["data"]


def test_plan_compares_every_family_at_a_number_of_calls(measured, tmp_path, capsys):
    out = tmp_path / "plan.json"
    said = json.loads(run(capsys, "plan", measured, "--steps", "8", "-o", out, "--json").out)
    assert [row["family"] for row in said["families"]] == [*planning.FAMILIES, "optimal"]
    assert all(sum(row["plan"]) == 81 and row["calls"] == 8 for row in said["families"])
    stored = plans.load(out)
    assert list(stored.plan) == said["families"][-1]["plan"]
    assert stored.kl == pytest.approx(profiles.heldout_of(unmask.Profile.load(measured)).kl(stored.plan))


def test_the_optimal_plan_of_an_exact_profile_is_the_cheapest(exact, tmp_path, capsys):
    said = json.loads(run(capsys, "plan", exact, "--steps", "8", "-o", tmp_path / "p.json", "--json").out)
    costs = {row["family"]: row["kl"] for row in said["families"]}
    assert costs["optimal"] == min(costs.values())
    assert all(row["kl"] <= row["certificate"] + 1e-9 for row in said["families"])


def test_a_budget_of_nats_takes_the_fewest_calls(exact, tmp_path, capsys):
    said = json.loads(run(capsys, "plan", exact, "--max-kl", "5", "-o", tmp_path / "p.json", "--json").out)
    rows = {row["family"]: row for row in said["families"]}
    assert all(row["kl"] <= 5 for row in rows.values())
    assert rows["optimal"]["calls"] == min(row["calls"] for row in rows.values())
    profile = laws.Permutation(64).profile()
    assert profile.kl(plans.optimal(profile, steps=rows["optimal"]["calls"] - 1)) > 5


def test_a_plan_for_infilling_covers_the_hidden_positions(exact, measured, tmp_path, capsys):
    for path, length in ((exact, 64), (measured, 81)):
        out = tmp_path / "p.json"
        run(capsys, "plan", path, "--steps", "4", "--visible", "20", "-o", out)
        assert sum(plans.load(out).plan) == length - 20


def test_sample_takes_the_plan(model, measured, tmp_path, capsys):
    out = tmp_path / "plan.json"
    run(capsys, "plan", measured, "--steps", "5", "-o", out)
    said = json.loads(run(capsys, "sample", model, "--order", "random", "--plan", out, "--json").out)
    assert said["samples"][0]["nfe"] == 5


def test_drawing_writes_png_too(exact, tmp_path, capsys):
    picture = tmp_path / "plan.png"
    run(capsys, "plan", exact, "--steps", "4", "-o", tmp_path / "p.json", "--plot", picture)
    assert picture.read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "0"], "steps"),
        (["--steps", "65"], "steps"),
        (["--max-kl", "-1"], "max-kl"),
        ([], "one of the two"),
        (["--steps", "3", "--max-kl", "1"], "one of the two"),
        (["--steps", "3", "--visible", "64"], "visible"),
    ],
)
def test_bad_budgets(exact, tmp_path, capsys, arguments, words):
    told = run(capsys, "plan", exact, *arguments, "-o", tmp_path / "p.json", code=2)
    assert words in told.err
    assert told.err.count("\n") == 1
    assert not (tmp_path / "p.json").exists()


def test_bad_files(model, tmp_path, capsys):
    foreign = tmp_path / "foreign.json"
    foreign.write_text("{}")
    assert "unmask.profile" in run(capsys, "plan", foreign, "--steps", "3", code=2).err
    assert run(capsys, "plan", tmp_path / "none.json", "--steps", "3", code=2).err.startswith("unmask: ")
    blanks = tmp_path / "blanks.txt"
    blanks.write_text("." * 81 + "\n")
    assert "full grids" in run(capsys, "profile", model, blanks, "-o", tmp_path / "p.json", code=2).err
    few = run(capsys, "profile", model, "--num", "8", "--quiet", "-o", tmp_path / "p.json", code=2)
    assert "more sequences" in few.err
    assert not (tmp_path / "p.json").exists()


def test_the_demo_checks_what_plans_cost(model, monkeypatch):
    monkeypatch.setattr(demo, "CALLS", (8,))
    monkeypatch.setattr(demo, "GRIDS", 6)
    loaded = unmask.load(model)
    report = demo.planning(loaded, loaded.denoiser, seed=0, quiet=True)
    assert sum(report["plans"][0]["plan"]) == 81
    assert {"predicted", "realised", "uniform"} <= set(report["plans"][0])


def test_a_shipped_profile_is_used_only_for_its_own_weights(model):
    assert models.measured_profile(unmask.load(model)) is None


def test_realised_cost_of_one_by_one_is_zero():
    law = laws.Permutation(6)
    tokens = law.sample(70, torch.Generator().manual_seed(0))
    alone = planning.in_random_order(law, tokens, plans.one_by_one(6), seed=3)
    assert planning.realised(law, tokens, plans.one_by_one(6), alone, seed=3)["value"] == 0
    halves = planning.realised(law, tokens, (3, 3), alone, seed=3)
    assert halves["value"] == pytest.approx(law.profile().kl((3, 3)))
