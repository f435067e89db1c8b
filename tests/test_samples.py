"""Webdataset shards and Hugging Face datasets become token folders: what they hold, and what is said of broken ones."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import tarfile
from types import ModuleType

import numpy as np
import pytest

from unmask.command_line.app import main
from unmask.data import tokens, writing
from unmask.data.prepare import of_samples, prepare
from unmask.data.readers.samples import Where

WORDS = ["one fine day", "two", "three\nlines", "four", "Fünf", "six", "seven", "eight"]


def shard(path, samples):
    """A tar file of samples, each a dictionary of fields in bytes, numbered on."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for number, sample in enumerate(samples):
            for ending, content in sample.items():
                info = tarfile.TarInfo(f"data/{path.name[:8]}{number:03}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def worded(words):
    return [
        {"txt": word.encode(), "json": json.dumps({"at": {"text": word[::-1]}}).encode()} for word in words
    ]


@pytest.fixture
def shards(tmp_path):
    """Two shards of four texts each; the words that they hold."""
    place = tmp_path / "shards"
    place.mkdir()
    for number in (0, 1):
        shard(place / f"shard-{number:03}.tar", worded(WORDS[4 * number : 4 * number + 4]))
    return place


def prepared(place, out, *words):
    """The command's token folder, which must come out."""
    assert main(["data", "prepare", str(place), "-o", str(out), "--quiet", *words]) == 0
    return tokens.verify(out)


def refused(capsys, out, *words):
    """What the command says where it fails, which leaves nothing behind."""
    assert main(["data", "prepare", *map(str, words), "-o", str(out), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("unmask: ")
    assert said.count("\n") == 1
    assert not out.exists()
    return said


def texts(data):
    return [data.vocabulary.decode(data.item(i)) for i in range(data.items)]


# --- shards ---------------------------------------------------------------------------------------


def test_a_field_of_every_sample_is_an_item(shards, tmp_path):
    assert texts(prepared(shards, tmp_path / "a", "--as", "lines", "--key", "txt")) == WORDS
    inside = prepared(
        shards / "shard-{000..001}.tar", tmp_path / "b", "--as", "lines", "--key", "json.at.text"
    )
    assert texts(inside) == [word[::-1] for word in WORDS]
    assert [s["file"] for s in inside.manifest["sources"]] == ["shard-000.tar", "shard-001.tar"]


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        ("characters", "".join(f"{word}\n" for word in WORDS)),
        ("text8", " one fine day two three lines four f nf six seven eight"),
    ],
)
def test_texts_become_one_stream_in_which_none_runs_into_the_next(shards, tmp_path, format, expected):
    data = prepared(shards, tmp_path / "a", "--as", format, "--key", "txt")
    assert data.vocabulary.decode(data.span(0, data.symbols)) == expected


def test_pictures_become_pixels_with_their_class(tmp_path):
    image = pytest.importorskip("PIL.Image")
    shown = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    made = []
    for number, pixels in enumerate(shown):
        data = io.BytesIO()
        image.fromarray(pixels).save(data, "PNG")
        made.append({"png": data.getvalue(), "cls": str(7 - number).encode()})
    shard(tmp_path / "shard-000.tar.gz", made)
    words = ("--as", "images", "--key", "png", "--label", "cls")
    data = prepared(tmp_path / "shard-000.tar.gz", tmp_path / "a", *words)
    assert data.manifest["shape"] == [4, 5, 3]
    assert data.labels.tolist() == [7, 6, 5]
    for number, pixels in enumerate(shown):
        np.testing.assert_array_equal(data.item(number), pixels.reshape(-1))


def test_a_stopped_preparation_goes_on_to_the_same_bytes(shards, tmp_path, monkeypatch):
    reading = of_samples("lines", Where("txt"), [shards])
    whole = prepare([shards], tmp_path / "whole", reading, shard=12, quiet=True)[0]
    real, count = writing.shards.write_bytes, 0

    def stopping(path, data):
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(writing.shards, "write_bytes", stopping)
    with pytest.raises(KeyboardInterrupt):
        prepare([shards], tmp_path / "stopped", reading, shard=12, quiet=True)
    assert 0 < len(json.loads((tmp_path / "stopped" / "progress.json").read_text())["shards"]) < 4
    prepare([shards], tmp_path / "stopped", reading, shard=12, quiet=True)
    for path in whole.folder.iterdir():
        assert (tmp_path / "stopped" / path.name).read_bytes() == path.read_bytes(), path.name


def test_samples_without_the_field_are_errors_or_left_out(shards, tmp_path, capsys):
    shard(shards / "shard-002.tar", [{"txt": b"nine"}, {"json": b"{}"}, {"txt": b"\xff"}])
    said = refused(capsys, tmp_path / "a", shards, "--as", "lines", "--key", "txt")
    assert "shard-002.tar, sample data/shard-00001: no 'txt' among json; expected txt" in said
    data = prepared(shards, tmp_path / "b", "--as", "lines", "--key", "txt", "--skip")
    assert texts(data) == [*WORDS, "nine"]
    assert data.manifest["dropped"] == {"unreadable": 2}


@pytest.mark.parametrize("cut", [2100, 2048, 1024, 700])
def test_a_shard_that_is_cut_short_is_refused_wherever_the_cut_is(shards, tmp_path, capsys, cut):
    place = shards / "shard-001.tar"
    place.write_bytes(place.read_bytes()[:cut])
    said = refused(capsys, tmp_path / "a", shards, "--as", "lines", "--key", "txt")
    assert "shard-001.tar is cut short, or no tar file; expected a webdataset shard: get it again" in said


def test_what_does_not_go_together_is_said(shards, tmp_path, capsys):
    out = tmp_path / "a"
    cases = {
        ("--as", "idx", "--key", "txt"): "format 'idx' in a field of samples: expected text8, characters,",
        ("--as", "images"): "no field named; expected --key",
        ("--as", "images", "--key", "txt"): "it is not a readable image",
        ("--as", "lines", "--label", "cls"): "expected --key beside them",
        ("--as", "documents", "--key", "txt"): "expected the file: --tokenizer tokenizer.json",
        ("--as", "lines", "--key", "txt", "--label", "txt"): "invalid literal for int()",
    }
    for words, expected in cases.items():
        assert expected in refused(capsys, out, shards, *words), words


# --- datasets -------------------------------------------------------------------------------------


class Rows:
    """A stand-in for a data set: named columns, and no features."""

    features = None

    def __init__(self, **columns):
        self.columns = columns
        self.column_names = list(columns)

    def select_columns(self, names):
        chosen = [self.columns[name] for name in names]
        return [dict(zip(names, values)) for values in zip(*chosen)]


@pytest.fixture
def hub(monkeypatch):
    """Stand-ins for the packages of the hub: a data set of two columns at revision abc; what was asked for."""
    asked = []

    def load_dataset(name, subset=None, **more):
        asked.append((name, subset, more))
        if name != "some/words":
            raise FileNotFoundError(f"no\ndata set {name}")
        return Rows(text=WORDS, label=list(range(8)))

    package, home = ModuleType("datasets"), ModuleType("huggingface_hub")
    package.load_dataset = load_dataset
    info = ModuleType("info")
    info.sha = "abc"
    home.HfApi = lambda: type("Api", (), {"dataset_info": lambda self, name: info})()
    monkeypatch.setitem(sys.modules, "datasets", package)
    monkeypatch.setitem(sys.modules, "huggingface_hub", home)
    return asked


def test_a_data_set_of_the_hub_is_read_at_one_revision(tmp_path, hub):
    words = (
        "--as",
        "lines",
        "--key",
        "text",
        "--label",
        "label",
        "--part",
        "test",
        "--subset",
        "small",
        "--streaming",
    )
    data = prepared("hf:some/words", tmp_path / "a", *words)
    assert texts(data) == WORDS
    assert data.labels.tolist() == list(range(8))
    assert data.manifest["sources"][0]["file"] == "hf:some/words@abc"
    assert set(map(repr, hub)) == {
        repr(("some/words", "small", {"split": "test", "revision": "abc", "streaming": True}))
    }


def test_what_the_hub_does_not_have_is_said_on_one_line(tmp_path, capsys, hub):
    out = tmp_path / "a"
    said = refused(capsys, out, "hf:some/other", "--as", "lines", "--key", "text")
    assert "hf:some/other@abc, row 0: datasets cannot read it (no data set some/other)" in said
    said = refused(capsys, out, "hf:some/words", "--as", "lines", "--key", "body")
    assert "hf:some/words@abc has no column 'body'; expected one of text, label" in said


def test_without_the_package_it_is_said_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    said = refused(capsys, tmp_path / "a", tmp_path / "x.parquet", "--as", "lines", "--key", "text")
    assert said == "unmask: datasets is not installed: pip install 'unmask[datasets]'\n"


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="needs datasets")
@pytest.mark.parametrize("kind", ["folder", "parquet", "json", "csv"])
def test_local_data_sets_are_read(tmp_path, kind):
    from datasets import Dataset, DatasetDict

    data = Dataset.from_dict(
        {"text": WORDS, "more": [{"n": i} for i in range(8)] if kind != "csv" else WORDS}
    )
    place, more = tmp_path / f"x.{kind}", ()
    if kind == "folder":
        DatasetDict({"valid": data}).save_to_disk(place, num_shards={"valid": 3})
        more = ("--part", "valid")
    else:
        getattr(data, f"to_{kind}")(place)
    found = prepared(place, tmp_path / "a", "--as", "lines", "--key", "text", *more)
    assert texts(found) == WORDS
    if kind != "csv":
        labelled = prepared(
            place, tmp_path / "b", "--as", "lines", "--key", "text", "--label", "more.n", *more
        )
        assert labelled.labels.tolist() == list(range(8))


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="needs datasets")
def test_pictures_of_a_data_set_become_pixels(tmp_path):
    from datasets import Dataset, Features, Image, Value

    image = pytest.importorskip("PIL.Image")
    shown = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    rows = {"image": [image.fromarray(pixels) for pixels in shown], "label": [2, 0, 1]}
    data = Dataset.from_dict(rows, features=Features({"image": Image(), "label": Value("int64")}))
    data.to_parquet(tmp_path / "x.parquet")
    data.save_to_disk(tmp_path / "disk")
    for place in (tmp_path / "x.parquet", tmp_path / "disk"):
        words = ("--as", "images", "--key", "image", "--label", "label")
        found = prepared(place, tmp_path / f"{place.name}.tokens", *words)
        assert found.labels.tolist() == [2, 0, 1]
        np.testing.assert_array_equal(found.item(1).reshape(4, 5), shown[1])
