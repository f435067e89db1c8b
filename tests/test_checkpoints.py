"""Files: written whole or not at all, read with errors that say what is wrong; models load from them."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import seeded
from tiny import often, tiny

import unmask
from unmask.base import checkpoints
from unmask.models import loading, pretrained
from unmask.recipes import sudoku
from unmask.recipes.run import override
from unmask.training.loop import train

SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
PUZZLE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
SMALL = {
    "network.width": "16",
    "network.depth": "1",
    "network.loops": "2",
    "network.hidden": "16",
    "machine.compile": "false",
    "machine.bfloat16": "false",
    "optimiser.steps": "2",
    "batch_size": "4",
}


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --- writing --------------------------------------------------------------------------------------


def test_tensors_and_records_come_back(tmp_path):
    tensors = {"a": torch.randn(3, 4, generator=seeded(0)).T, "b.c": torch.tensor(7), "empty": torch.zeros(0)}
    checkpoints.write_folder(tmp_path / "one" / "two", {"weights": tensors}, {"state": {"step": 3}})
    assert names(tmp_path / "one") == ["two"]
    back = checkpoints.read_tensors(tmp_path / "one" / "two" / "weights.safetensors")
    assert all(torch.equal(back[name], value) for name, value in tensors.items())
    assert checkpoints.read_json(tmp_path / "one" / "two" / "state.json") == {"step": 3}


def test_a_folder_is_replaced_whole(tmp_path):
    checkpoints.write_folder(tmp_path / "model", {"old": {"a": torch.zeros(1)}}, {})
    checkpoints.write_folder(tmp_path / "model", {"new": {"a": torch.ones(1)}}, {})
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["new.safetensors"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_failed_write_changes_nothing(tmp_path, monkeypatch, fails):
    checkpoints.write_json(tmp_path / "a.json", {"old": 1})
    checkpoints.write_folder(tmp_path / "model", {"w": {"a": torch.zeros(1)}}, {})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if fails == "fsync" else (Path, "replace")), full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write_json(tmp_path / "a.json", {"new": 2})
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write_folder(tmp_path / "model", {"w": {"a": torch.ones(1)}}, {"r": {}})
    assert names(tmp_path) == ["a.json", "model"]
    assert checkpoints.read_json(tmp_path / "a.json") == {"old": 1}
    assert checkpoints.read_tensors(tmp_path / "model" / "w.safetensors")["a"].item() == 0


def test_sweep_takes_leftovers_only(tmp_path):
    for name in (".a.json.x1.tmp", "a.json", ".hidden", "b.tmp"):
        (tmp_path / name).write_text("{}")
    checkpoints.write_folder(tmp_path / ".00000003.x2.tmp", {"w": {"a": torch.zeros(1)}}, {})
    checkpoints.sweep(tmp_path)
    assert names(tmp_path) == [".hidden", "a.json", "b.tmp"]
    checkpoints.sweep(tmp_path / "absent")


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ['{"a": 1', "", "[1, 2]", "3", "\x00\x01"])
def test_what_is_no_record_is_refused(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"a\.json (is not JSON|holds a)"):
        checkpoints.read_json(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match="is not JSON"):
        checkpoints.read_json(path)


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_truncated_tensors_are_refused(tmp_path, keep):
    path = tmp_path / "w.safetensors"
    checkpoints.write_tensors(path, {"a": torch.ones(64)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"w\.safetensors is not readable .* truncated or foreign"):
        checkpoints.read_tensors(path)


def test_missing_files_are_named(tmp_path):
    for read in (checkpoints.read_json, checkpoints.read_tensors):
        with pytest.raises(ValueError, match="absent does not exist: expected a folder written by"):
            read(tmp_path / "absent")


def test_fill_copies_all_or_nothing():
    own = {"a": torch.zeros(2), "b": torch.zeros(3)}
    good = {"a": torch.ones(2), "b": torch.ones(3)}
    for wrong, words in [
        ({"a": torch.ones(2)}, "the file lacks 'b'"),
        (good | {"c": torch.ones(1)}, "the network has no 'c'"),
        (good | {"b": torch.ones(4)}, r"'b' has shape \(4,\), expected \(3,\)"),
        (good | {"b": torch.tensor([1, torch.inf, 1])}, "'b' holds NaN or infinite"),
    ]:
        with pytest.raises(ValueError, match=f"file: {words}"):
            checkpoints.fill(own, wrong, Path("file"))
        assert own["a"].sum() == 0
    kept = own["a"]
    checkpoints.fill(own, good, Path("file"))
    assert kept.sum() == 2


# --- models ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Sudoku training of two steps."""
    place = tmp_path_factory.mktemp("run")
    train(override(sudoku(), SMALL), place, quiet=True)
    return place


@pytest.fixture
def copy(folder, tmp_path):
    """Its model, to damage."""
    return shutil.copytree(folder / "model", tmp_path / "model")


def test_a_folder_loads(folder):
    model = unmask.load(folder)
    assert (model.name, model.length) == ("sudoku", 81)
    assert model.config["trained_steps"] == 2
    assert not model.denoiser.network.training
    stored = checkpoints.read_tensors(folder / "model" / "weights.safetensors")
    own = model.denoiser.network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in stored.items())
    assert torch.equal(model.all_masked(2), torch.full((2, 81), 9))
    result = unmask.sample(
        model.denoiser,
        model.encode(PUZZLE),
        unmask.selectors.top_k(unmask.scores.margin, 20),
        generator=seeded(0),
    )
    (text,) = model.decode(result.tokens)
    assert len(text) == 81
    assert all(b in (".", a) for a, b in zip(text, PUZZLE))


def test_boards_come_back(folder):
    model = unmask.load(folder)
    assert model.decode(model.encode([PUZZLE, SOLUTION])) == [PUZZLE, SOLUTION]
    assert torch.equal(model.encode(SOLUTION), model.encode([SOLUTION]))
    assert model.encode(SOLUTION)[0, :3].tolist() == [4, 2, 3]  # symbol = digit - 1
    assert (model.encode(PUZZLE) == model.denoiser.mask_id).sum() == PUZZLE.count(".")


def test_the_hash_belongs_to_the_weights(folder, copy):
    model = unmask.load(folder)
    assert model.hash == unmask.load(copy).hash == unmask.load(str(folder / "model")).hash
    assert len(model.hash) == 64
    path = copy / "weights.safetensors"
    tensors = checkpoints.read_tensors(path)
    tensors["head.bias"][0] += 1e-6
    checkpoints.write_tensors(path, tensors)
    assert unmask.load(copy).hash != model.hash
    model.denoiser.network.bfloat16()
    assert len(model.hash) == 64


def test_unknown_names_list_what_exists(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "shipped", lambda: ["digits", "sudoku"])
    with pytest.raises(
        ValueError, match=r"no model 'sudoko': did you mean 'sudoku'\? .*: digits, sudoku; or"
    ):
        unmask.load("sudoko")
    with pytest.raises(ValueError, match="shipped models: digits, sudoku"):
        unmask.load(tmp_path / "nowhere")


def test_a_shipped_name_wins_over_a_folder(monkeypatch, tmp_path, copy):
    """What a name means does not hang on the working directory."""
    monkeypatch.setattr(pretrained, "pretrained_folder", lambda: tmp_path / "shipped")
    shutil.copytree(copy, tmp_path / "shipped" / "sudoku")
    (tmp_path / "here" / "sudoku").mkdir(parents=True)
    (tmp_path / "here" / "sudoku" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "here")
    assert unmask.load("sudoku").name == "sudoku"
    with pytest.raises(ValueError, match="has no name and network"):
        unmask.load("./sudoku")


def test_an_unfinished_training_is_no_model(tmp_path):
    def stop(run, step):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        train(replace(tiny(often()), batch=stop), tmp_path, quiet=True)
    with pytest.raises(ValueError, match="has not finished"):
        unmask.load(tmp_path)


def edit(copy: Path, **changes) -> Path:
    """The model with fields of its network's configuration replaced ("remove": removed)."""
    path = copy / "config.json"
    config = json.loads(path.read_text())
    network = {k: v for k, v in (config["network"] | changes).items() if v != "remove"}
    path.write_text(json.dumps(config | {"network": network}))
    return copy


def test_foreign_networks_are_refused(copy):
    with pytest.raises(ValueError, match=r"'embedding.weight' has shape \(10, 16\), expected \(8, 16\)"):
        unmask.load(edit(copy, vocab_size=7))
    with pytest.raises(ValueError, match="another architecture"):
        unmask.load(edit(copy, vocab_size=9, depth=2))
    with pytest.raises(ValueError, match="unknown network field 'colour'; this version knows axes, "):
        unmask.load(edit(copy, depth=1, colour="red"))
    with pytest.raises(ValueError, match="missing network field 'width'"):
        unmask.load(edit(copy, colour="remove", width="remove"))
    with pytest.raises(ValueError, match=r"width '16': expected a whole number"):
        unmask.load(edit(copy, width="16"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"name": "sudoku"', "is not JSON"),
        ("[]", "holds a list"),
        ("{}", "has no name and network"),
        ('{"name": "sudoku", "network": 3}', "has no name and network"),
        ('{"name": "chess", "network": {}}', "trained by recipe 'chess'; this version knows digits, "),
    ],
)
def test_foreign_configurations_are_refused(copy, text, words):
    (copy / "config.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        unmask.load(copy)


def test_damaged_weights_are_refused(copy):
    path = copy / "weights.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"weights\.safetensors is not readable"):
        unmask.load(copy)
    path.unlink()
    with pytest.raises(ValueError, match=r"weights\.safetensors does not exist"):
        unmask.load(copy)
    path.write_bytes(data)
    tensors = checkpoints.read_tensors(path)
    checkpoints.write_tensors(path, tensors | {"norm.weight": tensors["norm.weight"] * torch.nan})
    with pytest.raises(ValueError, match=r"'norm\.weight' holds NaN or infinite weights"):
        unmask.load(copy)


def test_shipped_models_load_and_are_small():
    for name in pretrained.shipped():
        model = unmask.load(name)
        files = [p for p in (pretrained.pretrained_folder() / name).rglob("*") if p.is_file()]
        assert model.name == model.config["name"]
        assert sum(p.stat().st_size for p in files) < 8 * 2**20
