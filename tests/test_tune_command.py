"""`unmask.tune` and ``unmask tune``: what is written replays, nothing is measured twice, mistakes are lines."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import unmask
from unmask.base import checkpoints
from unmask.base.statistics import paired_difference
from unmask.command_line.app import main
from unmask.evaluation.tuned import Items
from unmask.evaluation.tuning import racing, tasks
from unmask.evaluation.tuning.bench import Bench, Kept
from unmask.evaluation.tuning.candidates import Candidate
from unmask.evaluation.tuning.results import Row, Tuned, gain, interval
from unmask.models import pretrained
from unmask.models.pretrained import pretrained_folder
from unmask.networks import Transformer
from unmask.orders import presets

pytestmark = pytest.mark.global_random  # networks are initialised

SMALL = {"width": 16, "depth": 1, "heads": 2, "hidden": 32, "loops": 1}
LENGTH = 8
SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


def small(folder: Path, name: str, **changes: object) -> Path:
    """The folder of a small random model that is otherwise as a shipped one."""
    config = json.loads((pretrained_folder() / name / "config.json").read_text())
    config["network"] |= SMALL | changes
    torch.manual_seed(0)
    network = Transformer(**config["network"])
    weights = {k: v + torch.randn(v.shape) / 2 for k, v in network.state_dict().items()}
    checkpoints.write_folder(folder, {"weights": weights}, {"config": config})
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small(tmp_path_factory.mktemp("models") / "tiny", "text", length=LENGTH)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "some.txt"
    path.write_text("the quick brown fox jumps over the lazy dog and runs away from it all " * 2)
    return path


@pytest.fixture(scope="module")
def tuning(model: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuning of eight items in two and four calls."""
    out = tmp_path_factory.mktemp("tuned") / "out"
    assert main(words(model, text, out)) == 0
    return out


def words(model: Path, text: Path, out: Path, *more: str) -> list[str]:
    return ["tune", str(model), str(text), "--calls", "2,4", "-n", "8", "--out", str(out), *more]


def record(folder: Path) -> dict[str, object]:
    return json.loads((folder / "tune.json").read_text())


def same(one: Path, other: Path) -> bool:
    """Whether two tunings found the same; times differ."""
    return _timeless(record(one)) == _timeless(record(other))


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k != "seconds"}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


# --- what is written --------------------------------------------------------------------------------


def test_a_tuning_is_a_record_with_units_and_a_sampler_file_for_each_budget(tuning: Path) -> None:
    found = record(tuning)
    assert (found["format"], found["version"]) == ("unmask.tuned", 1)
    assert [b["budget"] for b in found["budgets"]] == [2, 4]
    assert found["metric"]["unit"] == "nats per item"
    for budget in found["budgets"]:
        winner, usual, gain = budget["winner"], budget["default"], budget["gain"]
        assert winner["interval"][0] < winner["loss"] < winner["interval"][1]
        assert winner["calls"] <= budget["budget"]
        assert usual["calls"] == budget["budget"]
        assert "uniform" in usual["name"]
        assert gain["value"] == pytest.approx(usual["loss"] - winner["loss"])
    judged = {row["name"]: row for b in found["budgets"] for row in (b["winner"], b["default"])}
    assert found["calls"]["judging"] == pytest.approx(sum(4 * row["calls"] for row in judged.values()))
    assert 0 < found["calls"]["race"] <= found["calls"]["full"]
    assert found["provenance"]["data"]["items"] == 8
    losses = [row["loss"] for row in found["front"]]
    assert losses == sorted(losses, reverse=True)
    names = {p.name for p in tuning.iterdir()} - {"front.png"}
    assert names == {"tune.json", "sampler_2.json", "sampler_4.json", "parts.jsonl"}


def test_a_sampler_file_loses_on_the_unseen_half_what_it_says(model: Path, text: Path, tuning: Path) -> None:
    loaded = unmask.load(model)
    letters = text.read_text().rstrip()
    rows = [letters[i : i + LENGTH] for i in range(0, len(letters) - LENGTH + 1, LENGTH)]
    places = np.sort(np.random.default_rng(0).choice(len(rows), 8, replace=False))
    tokens = loaded.encode([rows[i] for i in places])
    _, judging = tasks.halves(tasks.items_of(loaded, tokens))
    for budget in (2, 4):
        sampler = unmask.Sampler.load(tuning / f"sampler_{budget}.json")
        found = unmask.log_likelihood(loaded.denoiser, judging.tokens, sampler, order_ids=torch.arange(4))
        assert -float(found.mean()) == pytest.approx(sampler.provenance["loss"], rel=1e-6)
        assert sampler.provenance["model_hash"] == loaded.hash
        assert sampler.provenance["metric"] == "nats"
        assert sampler.provenance["items"] == 4
        assert sampler.calls is not None
        assert sampler.calls <= budget


def test_sampler_files_are_for_sample_and_eval(model: Path, text: Path, tuning: Path, capsys) -> None:
    file = str(tuning / "sampler_4.json")
    capsys.readouterr()
    assert main(["sample", str(model), "-n", "3", "--sampler", file, "--json", "--quiet"]) == 0
    said = json.loads(capsys.readouterr().out)
    wanted = unmask.Sampler.load(file).calls
    assert sum(s["nfe"] for s in said["samples"]) / 3 == pytest.approx(wanted, rel=0.3)
    assert main(["eval", str(model), str(text), "--exact", "4", "--sampler", file, "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["log_likelihood"]["nats"]["value"] > 0


def test_json_is_the_record_and_names_the_files(model: Path, text: Path, tuning: Path, capsys) -> None:
    capsys.readouterr()
    assert main(words(model, text, tuning, "--json", "--quiet")) == 0
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert err == ""
    assert said["command"] == "tune"
    assert said["task"] == "generate"
    assert {Path(f).name for f in said["files"]} >= {"tune.json", "sampler_2.json", "sampler_4.json"}
    assert said["units"]["calls"] == "mean network calls per item, full forward passes"
    assert _timeless(said["budgets"]) == _timeless(record(tuning)["budgets"])


def test_text_names_winner_and_default_of_each_budget(model: Path, text: Path, tuning: Path, capsys) -> None:
    capsys.readouterr()
    assert main(words(model, text, tuning)) == 0
    out, err = capsys.readouterr()
    told = " ".join(out.split())
    assert "nats per item, 95 %" in told
    assert told.count("default: ") == 2
    assert "the loss of the best default in 4 calls" in told
    assert "Pareto front: " in told
    lines = err.splitlines()
    assert "samplers, first on" in lines[0]  # what it will take stands before anything is measured
    assert any(line.startswith("after 4 items: 2 calls: ") for line in lines)
    assert lines[-1].startswith("wrote ")


# --- going on ---------------------------------------------------------------------------------------


def test_an_interrupted_tuning_goes_on_and_measures_nothing_twice(
    model: Path, text: Path, tuning: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    out, made, plain = tmp_path / "out", list[tuple[str, int]](), Bench._measured

    def counted(self, candidate, items, places):
        if len(made) == stop:
            raise KeyboardInterrupt
        made.append((candidate.name, int(items.tokens.sum()), *places.tolist()))
        return plain(self, candidate, items, places)

    monkeypatch.setattr(Bench, "_measured", counted)
    stop = 20
    capsys.readouterr()
    assert main(words(model, text, out, "--quiet")) == 130
    assert f"{out / 'parts.jsonl'}; the same command goes on" in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == ["parts.jsonl"]
    kept = [line for line in (out / "parts.jsonl").read_text().splitlines() if '"keeps|' not in line]
    assert len(kept) == 1 + stop  # beside rules that were tried before the race
    stop = -1
    assert main(words(model, text, out, "--quiet")) == 0
    assert len(made) == len(set(made)) > stop
    assert same(out, tuning)
    del made[:]
    assert main(words(model, text, out, "--quiet")) == 0
    assert made == []


def test_a_folder_goes_on_with_more_budgets(model: Path, text: Path, tmp_path: Path) -> None:
    """What it holds of two calls is as good as measured alone."""
    one, both = tmp_path / "one", tmp_path / "both"
    for out, calls in ((one, "2"), (one, "2,4"), (both, "2,4")):
        assert main(["tune", str(model), str(text), "--calls", calls, "-n", "8", "-o", str(out)]) == 0
    assert _timeless(record(one)["budgets"]) == _timeless(record(both)["budgets"])


def test_samplers_of_one_name_are_measured_each() -> None:
    """Plans that were measured along another path have the same name."""
    law = unmask.laws.Markov([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], LENGTH)
    tokens = law.sample(4, torch.Generator().manual_seed(0))
    bench = Bench(law, tasks.nats(), 4, Kept(None, ""))
    items = Items(tokens, torch.zeros_like(tokens, dtype=torch.bool))
    losses = []
    for plan in ((4, 4), (1, 7)):
        candidate = Candidate(unmask.Sampler(presets.left_to_right(plan), name="planned"), "", "", 2)
        losses.append(bench.measure(candidate, items, np.arange(4))[0])
        assert bench.measure(candidate, items, np.arange(4))[0] is losses[-1]
    assert (losses[0] != losses[1]).all()


def test_a_folder_of_another_tuning_is_refused(model: Path, text: Path, tuning: Path, capsys) -> None:
    before = record(tuning)
    capsys.readouterr()
    assert main(words(model, text, tuning, "--seed", "1")) == 2
    err = capsys.readouterr().err
    assert "parts.jsonl holds measurements of something else" in err
    assert record(tuning) == before


# --- other tasks and metrics ------------------------------------------------------------------------


def test_puzzles_are_solved_and_the_file_is_for_eval(tmp_path: Path, capsys) -> None:
    model, puzzles = small(tmp_path / "tiny", "sudoku"), tmp_path / "puzzles.csv"
    posed = [SOLUTION[: 9 * k] + "." * 6 + SOLUTION[9 * k + 6 :] for k in range(4)]
    puzzles.write_text("puzzle,solution\n" + "".join(f"{p},{SOLUTION}\n" for p in posed))
    capsys.readouterr()
    code = main(
        ["tune", str(model), str(puzzles), "--calls", "2", "-o", str(tmp_path / "o"), "--json", "--quiet"]
    )
    said = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (said["task"], said["metric"]["name"]) == ("solve", "exact")
    assert said["metric"]["unit"] == "% not exactly right"
    assert all(0 <= b["winner"]["interval"][0] <= b["winner"]["interval"][1] <= 100 for b in said["budgets"])
    file = tmp_path / "o" / "sampler_2.json"
    assert unmask.Sampler.load(file).source == "greedy"
    assert main(["eval", str(model), str(puzzles), "--sampler", str(file), "--json", "--quiet"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["calls"]["value"] <= 2
    assert evaluated["data"]["puzzles"] == 4


def vowels(samples: list[str], data: list[str]) -> list[float]:
    """Vowels of each sample beyond those of the data."""
    count = [sum(text.count(c) for c in "aeiou") for text in samples]
    assert all(len(text) == LENGTH for text in [*samples, *data])
    return [n - sum(text.count(c) for c in "aeiou") for n, text in zip(count, data)]


def test_a_function_scores_decoded_samples_and_temperatures_are_tried(model: Path, text: Path) -> None:
    loaded = unmask.load(model)
    rows = [text.read_text()[i : i + LENGTH] for i in range(0, 48, LENGTH)]
    found = unmask.tune(loaded, rows, calls=[2], task="infill", share=0.5, metric=vowels)
    assert any(c.sampler.temperature < 1 for c in found.candidates)
    assert {c.sampler.source for c in found.candidates} == {"draw"}
    assert found.metric.name.endswith(":vowels")
    assert max(c.calls for c in found.candidates) == 2
    sevens = unmask.tune(loaded, rows, calls=[2], metric=lambda samples, _: [7] * len(samples))
    assert set(sevens.race.losses[~np.isnan(sevens.race.losses)]) == {-7}
    by_law = unmask.tune(loaded, rows, calls=[1])
    assert {c.sampler.temperature for c in by_law.candidates} == {1.0}


def test_a_metric_is_found_in_the_working_directory(
    model: Path, text: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    (tmp_path / "mine_own.py").write_text("def short(samples, data):\n    return [0.0]\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    capsys.readouterr()
    code = main(words(model, text, tmp_path / "out", "--metric", "mine_own:short", "--quiet"))
    sys.modules.pop("mine_own")
    assert code == 2
    assert "metric 'mine_own:short' gave [0.0] for 4 samples" in capsys.readouterr().err
    assert sys.path == before


def test_items_say_what_is_given(model: Path) -> None:
    loaded = unmask.load(model)
    tokens = loaded.encode(["the fox ", "the dog ", "the cat ", "the end "])
    visible = torch.zeros(4, LENGTH, dtype=torch.bool)
    visible[:, :4] = True
    found = unmask.tune(loaded, items=Items(tokens, visible), calls=4)
    assert found.winners[0] is not None
    assert found.winners[0].calls <= 4
    assert "gain, 95 %" in repr(found)
    with pytest.raises(ValueError, match=r"calls 5: expected 1..4"):
        unmask.tune(loaded, items=Items(tokens, visible), calls=(2, 5))


def test_stages_are_tuned_one_after_another_and_the_file_is_for_sample(tmp_path: Path, capsys) -> None:
    from unmask import recipes

    run = recipes.all_recipes()["digits_upscale16"]()
    sizes = {"vocab_size": 4, "levels": 16, "height": 2, "width": 2, "features": 16, "blocks": 1, "heads": 2}
    network = replace(run.network, patch=1, ordinal=0, **sizes)
    config = json.loads((pretrained_folder() / "digits" / "config.json").read_text())
    config |= {"name": run.name, "network": vars(network), "vocabulary": {"kind": "levels", "size": 16}}
    checkpoints.write_folder(
        tmp_path / "m", {"weights": dict(run.build(network).state_dict())}, {"config": config}
    )
    model = unmask.load(tmp_path / "m")
    images = np.random.default_rng(0).integers(0, 16, (4, 2, 2), dtype=np.uint8)
    found = unmask.tune(model, model.encode(images), calls=(2, 4))
    assert {w.candidate.sampler.rule["make"] for w in found.winners} == {"selectors.in_blocks"}
    found.samplers[4].save(tmp_path / "s.json")
    capsys.readouterr()
    words = ["sample", str(tmp_path / "m"), "-n", "2", "--sampler", str(tmp_path / "s.json"), "--json"]
    assert main([*words, "--quiet", "--out", str(tmp_path / "x.npy")]) == 0
    assert json.loads(capsys.readouterr().out)["samples"][0]["nfe"] <= 4


# --- what the tuned choice saves --------------------------------------------------------------------


def tuned(winners: list[float | None], usual: list[float | None]) -> Tuned:
    """A result in 2, 4, 8.. calls with these losses."""
    budgets = tuple(2 ** (k + 1) for k in range(len(winners)))

    def row(kind: str, calls: int, loss: float | None) -> Row | None:
        sampler = unmask.Sampler(presets.margin(calls), name=f"{kind} {calls}")
        candidate = Candidate(sampler, "margin", kind, calls)
        return None if loss is None else Row(candidate, calls, loss, (loss - 1, loss + 1), 4, 0.1)

    rows = [[row(kind, b, x) for b, x in zip(budgets, xs)] for kind, xs in (("w", winners), ("d", usual))]
    race = racing.Race(budgets, np.ones((1, 4)), np.ones((1, 4)), (0,) * len(budgets))
    gains = tuple(None if None in pair else (1.0, 0.0, 2.0) for pair in zip(*rows))
    return Tuned(tasks.nats(), budgets, tuple(rows[0]), tuple(rows[1]), gains, race, (), 0.0, 1.0, {})


def test_what_a_default_reaches_needs_the_smallest_budget_whose_winner_is_as_good() -> None:
    assert tuned([9, 7, 5], [10, 9, 6]).needed == (2, 2, 8)
    assert tuned([11, 7, 7], [10, 9, 6]).needed == (None, 4, None)
    assert tuned([5, 7, 4], [None, 5, 4]).needed == (None, 2, 8)


def test_a_winner_that_takes_more_calls_on_unseen_items_says_so() -> None:
    found = tuned([9, 7], [10, 9])
    over = replace(found.winners[1], calls=4.6, calls_interval=(4.2, 5.0))
    said = repr(replace(found, winners=(found.winners[0], over)))
    assert "budget 4: its winner takes 4.60 [4.20, 5.00] calls on unseen items" in said
    assert "budget 2: its winner" not in said


def test_budgets_that_nothing_keeps_to_have_no_sampler() -> None:
    found = tuned([None, 7], [10, 9])
    assert list(found.samplers) == [4]
    assert "none keeps to it" in repr(found)
    assert json.loads(json.dumps(found.record(), allow_nan=False))["budgets"][0]["winner"] is None


def test_a_record_holds_no_number_that_is_not_finite() -> None:
    found = tuned([7.0], [9.0])
    worse = replace(
        found, winners=(replace(found.winners[0], loss=float("inf"), interval=(0, float("nan"))),)
    )
    said = json.loads(json.dumps(worse.record(), allow_nan=False))["budgets"][0]["winner"]
    assert (said["loss"], said["interval"]) == (None, [0, None])
    assert "? [0.000, ?]" in repr(worse)


def test_numbers_have_two_digits_of_their_interval() -> None:
    found = tuned([216.04], [229.0])
    row = replace(found.winners[0], interval=(214.12, 217.96))
    assert "216.0 [214.1, 218.0]" in repr(replace(found, winners=(row,)))
    wide = replace(found, winners=(replace(row, interval=(150.0, 290.0)),))
    assert "216 [150, 290]" in repr(wide)


def test_intervals_of_shares_are_wilsons_and_newcombes() -> None:
    """All right so far is no proof of always right."""
    low, high = interval(np.zeros(128), shares=True)
    assert (low, high) == pytest.approx((0, 2.91), abs=0.01)
    one, other = np.zeros(50), np.zeros(50)
    one[:48], other[:36], other[48:] = 100, 100, 100
    assert gain(one, other, shares=True) == pytest.approx(
        (20, 5.69, 34.04), abs=0.01
    )  # published: (36, 12, 2, 0)
    assert gain(one, one, shares=True)[1] < 0 < gain(one, one, shares=True)[2]


@pytest.mark.parametrize(
    "chances", [(0.3, 0.1, 0.05, 0.55), (0.02, 0.03, 0.01, 0.94), (0.85, 0.05, 0.05, 0.05)]
)
def test_intervals_of_paired_shares_cover(chances: tuple[float, ...]) -> None:
    truth = chances[1] - chances[2]
    draws = np.random.default_rng(0).multinomial(128, chances, size=1500).tolist()
    spans = [paired_difference(*counts) for counts in draws]
    assert 0.935 < np.mean([low <= truth <= high for low, high in spans]) < 0.99
    assert np.mean([high - low for low, high in spans]) < 0.25


# --- mistakes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--metric", "bleu"], "metric 'bleu': expected nats, exact, or a function as module:function"),
        (["--metric", "no_such_module:f"], "metric 'no_such_module:f': No module named"),
        (["--metric", "math:no_such"], "module math has no function no_such"),
        (["--metric", "exact"], "nothing is given"),
        (["--share", "0.5"], "expected a share with infill"),
        (["--task", "infill"], "expected a share with infill"),
        (["--task", "infill", "--share", "1.5"], "--share 1.5: expected"),
        (["--task", "solve"], "--task solve is for Sudoku models"),
        (["--generate", "34"], "--generate makes puzzles"),
        (["--calls", "2,9"], "calls 9: expected 1..8, the most positions that are hidden"),
        (["--calls", "2,x"], "--calls 2,x: expected numbers of network calls such as 4,8,16"),
        (["--calls", "0"], "--calls 0: expected numbers of network calls"),
        (["-n", "3"], "--num 3: expected at least 4"),
    ],
)
def test_mistakes_are_one_line(model: Path, text: Path, tmp_path: Path, capsys, more, told) -> None:
    capsys.readouterr()
    code = main(words(model, text, tmp_path / "out", *more))
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert (code, out, len(lines)) == (2, "", 1), err
    assert told in lines[0]
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_read_are_one_line(model: Path, text: Path, tmp_path: Path, capsys) -> None:
    empty, short = tmp_path / "empty.txt", tmp_path / "short.txt"
    empty.write_text("")
    short.write_text("the quick brown fox")
    cases = {
        (model, empty): "is empty; expected text",
        (model, short): "2 items",
        (model, tmp_path / "none.txt"): "no data",
        (Path("digits"), text): "is not one of text; expected a token folder",
        (Path("no_such_model"), text): "no_such_model",
        (small(tmp_path / "causal", "text", length=LENGTH, causal=True), text): "nothing to choose",
    }
    for (name, data), told in cases.items():
        capsys.readouterr()
        code = main(["tune", str(name), str(data), "--calls", "2"])
        lines = capsys.readouterr().err.splitlines()
        assert (code, len(lines)) == (2, 1), lines
        assert told in lines[0]
    assert main(["tune", str(model), "--calls", "2"]) == 2
    assert "no data for model" in capsys.readouterr().err


def test_in_python_no_data_and_two_kinds_of_data_are_refused(model: Path) -> None:
    with pytest.raises(ValueError, match="no data; expected tokens"):
        unmask.tune(model, [], calls=2)
    tokens = torch.zeros(4, LENGTH, dtype=torch.long)
    items = Items(tokens, torch.zeros_like(tokens, dtype=torch.bool))
    with pytest.raises(ValueError, match="items beside data"):
        unmask.tune(model, tokens, items=items, calls=2)
    with pytest.raises(ValueError, match="expected numbers of network calls such as"):
        unmask.tune(model, tokens, calls="2,4")
    with pytest.raises(ValueError, match="metric 3: expected nats"):
        unmask.tune(model, tokens, calls=2, metric=3)


# --- samplers that come with a model, and searches ---------------------------------------------------


def test_a_sampler_that_comes_with_a_model_is_for_its_weights_only(
    model: Path, tuning: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    loaded = unmask.load(model)
    monkeypatch.setattr(pretrained, "pretrained_folder", lambda: tmp_path)
    kept = tmp_path / loaded.name / "tuned_4.json"
    kept.parent.mkdir()
    kept.write_bytes((tuning / "sampler_4.json").read_bytes())
    assert pretrained.tuned_calls(loaded.name) == (4,)
    assert pretrained.tuned_sampler(loaded, 4) == unmask.Sampler.load(kept)
    words = ["sample", str(model), "-n", "1", "--quiet", "--sampler"]
    capsys.readouterr()
    assert main([*words, "tuned:4"]) == 0
    assert main([*words, "tuned:5"]) == 2
    assert "there is calls 4" in capsys.readouterr().err
    kept.write_text(kept.read_text().replace(loaded.hash, "0" * 64))
    assert main([*words, "tuned:4"]) == 2
    assert "has other weights than those that its sampler was tuned for" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["--beam", "--backtrack", "--best-of"])
def test_a_search_takes_a_sampler_file(way: str, model: Path, tmp_path: Path, capsys) -> None:
    file, warm = tmp_path / "s.json", tmp_path / "w.json"
    unmask.Sampler(presets.margin(2)).save(file)
    unmask.Sampler(presets.margin(2), temperature=0.5, substeps=2).save(warm)
    capsys.readouterr()
    assert main(["sample", str(model), way, "2", "--sampler", str(file), "--json", "--quiet"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["sampler"]["rule"] == unmask.Sampler.load(file).rule
    assert main(["sample", str(model), way, "2", "--sampler", str(warm), "--quiet"]) == 2
    assert "a sampler of 2 sub-steps; expected none" in capsys.readouterr().err


def test_samplers_that_come_with_models_are_for_their_weights_and_calls():
    there = {
        name: pretrained.tuned_calls(name) for name in ("sudoku", "text", "molecules", "digits", "records")
    }
    assert set(there.values()) == {(4, 8, 16)}
    for name, calls in there.items():
        model = unmask.load(name)
        for most in calls:
            sampler = pretrained.tuned_sampler(model, most)
            assert sampler.provenance["budget"] == most
            blank = model.all_masked(1, torch.Generator().manual_seed(0))
            drawn = unmask.sample(model.denoiser, blank, sampler, generator=torch.Generator().manual_seed(0))
            assert (drawn.tokens != model.denoiser.mask_id).all()


def test_samplers_of_fetched_models_are_whole():
    """Their weights are not here; what is written of them is."""
    for name in ("sapiens_vh", "sceptr"):
        for calls in pretrained.tuned_calls(name):
            sampler = unmask.Sampler.load(
                pretrained.pretrained_folder() / name / f"{pretrained.TUNED}{calls}.json"
            )
            assert sampler.selector is not None
            assert (sampler.provenance["model"], sampler.provenance["budget"]) == (name, calls)
    assert pretrained.tuned_calls("sapiens_vh") == pretrained.tuned_calls("sceptr") == (4, 8, 16)
