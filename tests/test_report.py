"""One page of results: of what commands write today, of what older ones wrote, and of nothing else."""

from __future__ import annotations

import json
import random
import shutil

import pytest
import torch
from test_pictures import Parsed, data_of

import unmask
from unmask import pictures, plans
from unmask.base.records import SCHEMA, kind_of, stamped
from unmask.codec.inspection import Summary
from unmask.command_line.app import main
from unmask.command_line.commands.report import films, measured, named, reading
from unmask.command_line.commands.report import write as write_page
from unmask.command_line.commands.report.reading import Result, checked
from unmask.command_line.commands.train import curves
from unmask.evaluation.tuning import results as tuning

SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
PUZZLES = f"{'.' * 6}{SOLUTION[6:]}\n{SOLUTION[:75]}......\n"
SMALL = ["--network.width", "16", "--network.depth", "1", "--network.heads", "2", "--network.loops", "1"]
SMALL += ["--batch-size", "8", "--machine.compile", "false", "--data.copies", "1", "--machine.log-every", "1"]
LAW = unmask.laws.Markov([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], 6)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of what commands wrote about a Sudoku model trained for two steps, and an archive of two texts."""
    place = tmp_path_factory.mktemp("results")
    (place / "puzzles.txt").write_text(PUZZLES)
    words = {
        "train": ["train", "sudoku", "--out", place / "run", *SMALL, "--optimiser.steps", "2"],
        "sample": ["sample", place / "run", "--prompt", place / "puzzles.txt", "--trace", "--seed", "1"],
        "greedy": ["sample", place / "run", "--prompt", place / "puzzles.txt", "--greedy", "--plan", "3"],
        "eval": ["eval", place / "run", place / "puzzles.txt", "--samples", "1"],
        "profile": ["profile", place / "run", "-n", "200", "--rounds", "1", "-o", place / "h.json"],
        "plan": ["plan", place / "h.json", "--steps", "8", "-o", place / "plan_8.json"],
        "tune": ["tune", place / "run", "--generate", "60", "-n", "4", "--calls", "2", "-o", place / "tuned"],
    }
    for name, line in words.items():
        write(place / f"{name}.json", *line)
    return place


def write(path, *words):
    """What a command prints with --json."""
    import contextlib
    import io

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main([*map(str, words), "--json", "--quiet"]) == 0
    path.write_text(said.getvalue())


def page_of(tmp_path, *results):
    out = tmp_path / "page.html"
    assert main(["report", *map(str, results), "-o", str(out), "--quiet"]) == 0
    return out.read_text()


ALL = ("train", "sample", "greedy", "eval", "profile", "plan", "tune")


# --- the schema -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_every_result_says_its_schema_and_kind(name, place):
    record = json.loads((place / f"{name}.json").read_text())
    kind = {"greedy": "sample"}.get(name, name)
    assert {k: record[k] for k in ("schema", "result")} == {"schema": SCHEMA, "result": kind}
    assert kind_of({k: v for k, v in record.items() if k not in ("schema", "result")}) == kind


@pytest.mark.parametrize(("name", "kind"), [("h", "profile"), ("plan_8", "plan"), ("tuned/tune", "tune")])
def test_files_say_it_too_and_are_read_as_before(name, kind, place):
    record = json.loads((place / f"{name}.json").read_text())
    assert record | stamped(kind) == record
    older = {k: v for k, v in record.items() if k not in ("schema", "result")}
    assert kind_of(older) == kind
    if kind == "profile":
        assert (
            unmask.Profile.from_json(json.dumps(older)).entropy
            == unmask.Profile.from_json(json.dumps(record)).entropy
        )


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ([], "expected the JSON object"),
        ({"a": 1}, "no command of unmask wrote"),
        ({"schema": "unmask/2", "result": "sample"}, "unmask/2, expected unmask/1"),
        ({"schema": "unmask/1"}, "no command of unmask wrote"),
        ({"schema": "unmask/1", "result": "sample"}, "without samples"),
        ({"command": "tune", "budgets": []}, "without front"),
    ],
)
def test_what_is_no_result_is_refused(record, said):
    with pytest.raises(ValueError, match=said) as error:
        checked("name", record, "place.json")
    assert str(error.value).startswith("place.json: ")


# --- the page ---------------------------------------------------------------------------------------------


def test_a_page_of_all_of_them(place, tmp_path):
    names = [place / f"{name}.json" for name in (*ALL, "h", "plan_8")]
    text = page_of(tmp_path, *names, place / "run", place / "tuned")
    found = Parsed(text)
    assert (found.open, found.wrong) == ([], [])
    headings = [
        "Step by step",
        "Order",
        "Profiles and plans",
        "Orders by calls",
        "Tuning",
        "Training",
        "Numbers",
    ]
    assert found.text_of("h2") == [*headings, "How it was made"]
    assert len(text.encode()) < 300_000
    assert not [a for _, a in found.found if (a.get("src") or a.get("href") or "#")[0] != "#"]


def test_a_film_plays_what_was_sampled(place, tmp_path):
    record = json.loads((place / "sample.json").read_text())
    told = data_of(page_of(tmp_path, place / "sample.json"))
    assert (told["kind"], told["columns"], len(told["items"])) == ("grid", 9, 2)
    for item, sample in zip(told["items"], record["samples"]):
        tokens = list(item["b"])
        for at, symbol in zip(item["p"], item["s"]):
            assert tokens[at] == told["mask"]
            tokens[at] = symbol
        assert "".join(told["texts"][str(t)] for t in tokens) == sample["text"]
        assert item["c"] == [
            round(1000 * p) for s in sample["steps"] for p in torch.tensor(s["log_probs"]).exp().tolist()
        ]
        assert len(item["e"]) == 6


def test_an_older_trace_plays_too(place, tmp_path):
    record = json.loads((place / "sample.json").read_text())
    old = {k: v for k, v in record.items() if k not in ("schema", "result", "look")}
    old["samples"] = [{k: v for k, v in s.items() if k != "start"} for s in record["samples"]]
    (tmp_path / "old.json").write_text(json.dumps(old))
    one, other = (data_of(page_of(tmp_path, p)) for p in (place / "sample.json", tmp_path / "old.json"))
    assert (other["kind"], other["mask"]) == ("grid", one["mask"])
    for a, b in zip(one["items"], other["items"]):
        assert [a[k] for k in "npsce"] == [b[k] for k in "npsce"]
        signs = [
            ["" if t == d["mask"] else d["texts"][str(t)] for t in i["b"]] for d, i in ((one, a), (other, b))
        ]
        assert signs[0] == signs[1]


def test_a_profile_stands_under_the_plans_that_fit_it(place, tmp_path):
    text = page_of(tmp_path, place / "h.json", place / "plan_8.json")
    names = [s.split(":")[0] for s in Parsed(text).text_of("option")]
    assert names[0] == "plan_8"
    assert names[1:] == [f"optimal, {k} calls" for k in (1, 2, 4, 8, 16, 32, 64)]
    profile = unmask.Profile.load(place / "h.json")
    cost = plans.describe(plans.optimal(profile, steps=8), profile).kl
    assert f"optimal, 8 calls: {cost:.2f} [" in text


def test_orders_stand_at_their_calls(place):
    found = [Result(n, "sample", json.loads((place / f"{n}.json").read_text())) for n in ("sample", "greedy")]
    points = [p for r in found for p in measured.points(r)]
    assert [(p.order, p.calls) for p in points] == [("margin, drawn", 6.0), ("margin, arg-max", 2.0)]
    assert len({p.of for p in points}) == 1


def test_an_archive_is_weighed(tmp_path, place):
    record = {"command": "compress", "items": 2, "symbols": 10, "bits_per_symbol": 2.0, "payload_bytes": 30}
    record |= {"other_bytes": 20, "bytes": 50, "source_bytes": 200}
    text = measured.archives([checked("log", record, "log.json")])
    assert [s["style"] for s in Parsed(text).all("span")] == [f"width:{w:.2f}%" for w in (100, 25, 15, 10)]


def test_long_logs_are_averaged_and_keep_their_extremes():
    log = [{"step": k, "loss": float(k % 7)} for k in range(1, 1001)] + [{"step": 1001}]
    found = curves.curve(log)
    assert len(found["loss"]) == 250 <= curves.POINTS
    assert (found["step"][0], found["step"][-1], found["averaged"]) == (4, 1000, 4)
    assert found["loss"][0] == pytest.approx((1 + 2 + 3 + 4) / 4)
    assert (found["low"][1], found["high"][1]) == (0, 6)


def test_a_run_that_goes_on_is_read_and_a_broken_line_left_out(place, tmp_path):
    copy = shutil.copytree(place / "run", tmp_path / "mine")
    with (copy / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    found = reading.read(copy)
    assert (found.name, found.kind, found.record["recipe"]) == ("mine", "train", "sudoku")
    assert found.record["curve"]["step"] == [1, 2]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: p / "gone.json", "no result"),
        (lambda p: p, "holds no tune.json and no log.jsonl"),
        (lambda p: (p / "text.json", (p / "text.json").write_text("hello"))[0], "not JSON"),
        (
            lambda p: (
                p / "s.json",
                (p / "s.json").write_text(
                    '{"command": "sample", "samples": [{"steps": [1]}], "manifest": {}}'
                ),
            )[0],
            "not as expected",
        ),
        (lambda p: (p / "log.jsonl", (p / "log.jsonl").write_text("{}\n"))[0], "no steps with losses"),
    ],
)
def test_what_cannot_be_shown_ends_in_one_line(make, said, tmp_path, capsys):
    assert main(["report", str(make(tmp_path)), "-o", str(tmp_path / "page.html")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "page.html").exists()


def test_the_first_film_alone_is_a_gif(place, tmp_path, capsys):
    pytest.importorskip("PIL")
    out = tmp_path / "film.gif"
    assert main(["report", str(place / "profile.json"), str(place / "sample.json"), "-o", str(out)]) == 0
    assert out.read_bytes()[:6] == b"GIF89a"
    assert "sample 1 of 2 of sample" in capsys.readouterr().out
    assert main(["report", str(place / "profile.json"), "-o", str(tmp_path / "none.gif")]) == 2
    assert (
        "no steps to play; expected a result of: unmask sample .. --json --trace" in capsys.readouterr().err
    )
    assert not (tmp_path / "none.gif").exists()


def spoilt(record, draw):
    """A copy of a record in which one value, somewhere, is something else."""
    copy = json.loads(json.dumps(record))
    place = copy
    while True:
        key = draw.choice([*place] if isinstance(place, dict) else range(len(place)))
        inner = place[key]
        if not (isinstance(inner, dict | list) and inner) or draw.random() < 0.2:
            place[key] = draw.choice([None, "x", -1, 1e999, [], {}, [None], {"a": 1}, True])
            return copy
        place = inner


@pytest.mark.parametrize("name", ["sample", "eval", "plan", "tune", "h", "train"])
def test_a_spoilt_result_makes_a_page_or_an_error_of_one_line(name, place, tmp_path):
    record, draw = json.loads((place / f"{name}.json").read_text()), random.Random(name)
    for _ in range(20):
        bad = spoilt(record, draw)
        page, said = tmp_path / "page.html", ""
        try:
            write_page([checked(name, bad, name)], page)
        except ValueError as error:
            said = str(error)
        found = Parsed(page.read_text() if not said else "")
        assert (said.count("\n"), found.open, found.wrong) == (0, [], [])


def test_alike_names_are_told_apart_by_folders_then_by_numbers(tmp_path):
    results = [Result("profile", "profile", {}) for _ in range(3)]
    places = [
        tmp_path / "a" / "profile.json",
        tmp_path / "b" / "profile.json",
        tmp_path / "b" / "profile.json",
    ]
    assert [r.name for r in named(results, places)] == ["a/profile", "2/b/profile", "3/b/profile"]


# --- notebooks ----------------------------------------------------------------------------------------------


def sampled(**more):
    masked = torch.full((2, 6), LAW.mask_id)
    masked[1, :2] = 0
    order = unmask.selectors.top_k(unmask.scores.confidence, 2)
    return unmask.sample(LAW, masked, order, generator=torch.Generator().manual_seed(0), **more)


def test_a_result_shows_itself():
    found = sampled(entropies=True)
    told = data_of(found._repr_html_())
    assert [i["b"] for i in told["items"]] == [6, [0, 0, -1, -1, -1, -1]]
    for item, tokens in zip(found.items(), found.tokens.tolist()):
        assert item.final() == tokens


def test_a_notebook_shows_the_first_rows_of_many():
    order = unmask.selectors.top_k(unmask.scores.left_to_right, 6)
    many = unmask.sample(LAW, torch.full((40, 6), 2), order, generator=torch.Generator().manual_seed(0))
    assert len(data_of(many._repr_html_())["items"]) == 16
    assert "16 of 40 rows" in many._repr_html_()


def test_profiles_plans_and_archives_show_themselves():
    profile = LAW.profile()
    plan = plans.optimal(profile, steps=2)
    for shown in (profile, plans.describe(plan, profile), Summary(items=1, bytes=50, source_bytes=100)):
        found = Parsed(shown._repr_html_())
        assert (found.open, found.wrong) == ([], [])
        assert found.all("figure")


def test_a_tuning_shows_itself(place):
    record = json.loads((place / "tune.json").read_text())
    found = Parsed(tuning.pictured(record, "exact"))
    assert [s["data-name"] for s in found.all("g") if "data-name" in s] == [
        "tuned",
        "best default of equal steps",
    ]
    assert (found.open, found.wrong) == ([], [])


def test_models_say_how_their_symbols_look():
    for name, kind in {
        "sudoku": "grid",
        "text": "text",
        "molecules": "molecule",
        "digits": "image",
        "records": "text",
    }.items():
        assert unmask.models.verbs.look(unmask.load(name)).kind == kind
    from unmask.models.verbs import _kind

    assert _kind(set("ACDEFGHIKLMNPQRSTVWY") | {"|"}) == "residues"
    assert _kind({"0", "12"}) == "symbols"


def test_what_a_model_samples_looks_as_it_should():
    model = unmask.load("molecules")
    found = model.sample(1, calls=4, seed=1)
    assert found.look == unmask.models.verbs.look(model)
    assert data_of(found._repr_html_())["kind"] == "molecule"
    assert isinstance(films.order_of("o", found.look, found.items()), str)
    assert pictures.Picture
