"""Damaged or foreign models load right or are refused on one line, and so are devices that are not there."""

from __future__ import annotations

import copy as copying
import json
import pickle
import random
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import unmask
from unmask.base import checkpoints, devices
from unmask.models.sizes import Limited
from unmask.recipes import digits, molecules, sudoku
from unmask.recipes.run import override
from unmask.training.loop import train

SMALL = {"network.width": "16", "network.depth": "1", "network.heads": "2", "network.hidden": "16"}
PICTURES = {"height": "4", "width": "4", "features": "16", "blocks": "1", "heads": "2"}


def runs():
    """A network of each kind: position axes; lengths and a vocabulary; images."""
    boards = override(sudoku(), SMALL | {"network.loops": "2"})
    items = replace(override(molecules(), SMALL | {"network.length": "12"}), lengths=tuple(range(13)))
    images = override(digits(), {f"network.{k}": v for k, v in PICTURES.items()})
    return {"sudoku": boards, "molecules": items, "digits": images}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Model folders by name, with random weights."""
    made = {}
    with torch.random.fork_rng(devices=()):
        for name, run in runs().items():
            torch.manual_seed(0)
            weights = run.build(run.network).state_dict()
            weights = {k: v + 0.1 * torch.randn(v.shape) for k, v in weights.items()}
            made[name] = tmp_path_factory.mktemp(name) / "model"
            run.write(run, made[name], weights, 3)
    return made


def works(model: unmask.Model) -> None:
    """The model's law at one sequence is a law, and its lengths are."""
    tokens = model.all_masked(1)
    found = model.denoiser(tokens)
    assert tokens.shape == (1, model.length)
    assert found.shape == (1, model.length, model.denoiser.vocab_size)
    assert not found.isnan().any()
    assert torch.allclose(found.double().logsumexp(-1), torch.zeros(1, model.length).double(), atol=1e-4)
    assert model.length_cost(tokens).isfinite().all()


def refusal(folder: Path, *words: str) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        unmask.load(folder)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 700
    assert not [word for word in words if word not in line], line
    return line


@pytest.mark.parametrize("name", runs())
def test_whole_folders_load(folders, name):
    works(unmask.load(folders[name]))


# --- one fault at a time --------------------------------------------------------------------------


@pytest.fixture
def model(folders, tmp_path):
    """A copy of one model, with its config.json's fields replaced by dotted name (None: removed)."""

    def made(name: str, /, **changes) -> Path:
        folder = shutil.copytree(folders[name], tmp_path / name / "model")
        config = json.loads((folder / "config.json").read_text())
        for path, value in changes.items():
            *groups, last = path.split("__")
            inner = config
            for group in groups:
                inner = inner[group]
            inner.pop(last) if value is ... else inner.__setitem__(last, value)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return made


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("sudoku", {"network": []}, "has no name and network"),
        ("sudoku", {"name": ["sudoku"]}, "has no name and network"),
        ("sudoku", {"order": 3}, "order 3; expected the name of one"),
        ("sudoku", {"vocabulary": {"kind": "bytes"}}, "expected none"),
        ("sudoku", {"network__vocab_size": "9"}, "vocab_size '9': expected a whole number"),
        ("sudoku", {"network__vocab_size": True}, "vocab_size True: expected a whole number"),
        ("sudoku", {"network__vocab_size": -9}, "vocab_size -9: expected a whole number"),
        ("sudoku", {"network__vocab_size": 9.0}, "vocab_size 9.0: expected a whole number"),
        ("sudoku", {"network__width": 10**9}, "no network of these sizes"),
        ("sudoku", {"network__hidden": 10**12}, "no network of these sizes"),
        ("sudoku", {"network__depth": 10**9}, "no network of these sizes"),
        ("sudoku", {"network__loops": 10**9}, "at most 1024 loops"),
        ("sudoku", {"network__rotary": 1}, "'rotary' is 1; expected bool"),
        ("sudoku", {"network__axes": [[0] * 80]}, "expected 81 whole numbers"),
        ("sudoku", {"network__axes": 3}, "field 'axes' is 3; expected"),
        ("sudoku", {"network__axes": [[10**12] * 81]}, "no network of these sizes"),
        ("molecules", {"lengths": ...}, "lengths None; expected 13 whole numbers"),
        ("molecules", {"lengths": [1] * 12}, "expected 13 whole numbers"),
        ("molecules", {"lengths": [-1] * 13}, "expected 13 whole numbers"),
        ("molecules", {"lengths": [0.5] * 13}, "expected 13 whole numbers"),
        ("molecules", {"lengths": "13"}, "expected 13 whole numbers"),
        ("molecules", {"network__length": 10**15, "lengths": []}, "whole numbers"),
        ("molecules", {"vocabulary__symbols": "abc"}, "a vocabulary of 3 symbols, expected 26"),
        ("molecules", {"vocabulary__symbols": list("abcdefghijklmnopqrstuvwxyz")}, "'symbols' is ['a'"),
        ("molecules", {"vocabulary__kind": "runes"}, "expected a kind among"),
        ("molecules", {"vocabulary": 5}, "expected a kind among"),
        ("digits", {"network__length": 5}, "expected length 16"),
        ("digits", {"network__length": ...}, "missing network field 'length'"),
        ("digits", {"network__height": 2**40, "network__width": 2**40}, "expected length"),
        ("digits", {"network__height": 2**40, "network__length": 2**42}, "no network of these sizes"),
        ("digits", {"network__ordinal": 10**10}, "no network of these sizes"),
        ("digits", {"network__blocks": 10**8}, "no network of these sizes"),
        ("digits", {"network__heads": 0.0}, "heads 0.0"),
        ("digits", {"network__outputs": 7}, "another architecture"),
    ],
)
def test_wrong_fields_are_named(model, name, changes, words):
    refusal(model(name, **changes), words)


def set_tensor(name, change):
    def damage(path):
        tensors = checkpoints.read_tensors(path)
        checkpoints.write_tensors(path, tensors | {name: change(tensors[name])})

    return damage


def blocked(path):
    path.unlink()
    path.mkdir()


WEIGHTS = {
    "gone": (Path.unlink, "does not exist"),
    "empty": (lambda p: p.write_bytes(b""), "is not readable"),
    "folder": (blocked, "is no file"),
    "json": (lambda p: p.write_text("{}"), "is not readable"),
    "torch": (lambda p: torch.save({"a": torch.ones(2)}, p), "is a pickle, not safetensors"),
    "pickle": (lambda p: p.write_bytes(pickle.dumps({"a": list(range(50))})), "is a pickle, not safetensors"),
    "extra": (
        lambda p: checkpoints.write_tensors(p, checkpoints.read_tensors(p) | {"x": torch.ones(1)}),
        "no 'x'",
    ),
    "turned": (
        set_tensor("embedding.weight", lambda v: v.T),
        "'embedding.weight' has shape (16, 10), expected (10, 16)",
    ),
    "nan": (set_tensor("head.bias", lambda v: v * torch.nan), "holds NaN or infinite"),
    "ints": (set_tensor("head.bias", lambda v: v.long()), "has dtype torch.int64, expected torch.float32"),
    "complex": (set_tensor("head.bias", lambda v: v + 0j), "has dtype torch.complex64"),
    "overflow": (set_tensor("head.bias", lambda v: v.double() + 1e300), "holds NaN or infinite"),
    "float8": (set_tensor("head.bias", lambda v: v.to(torch.float8_e4m3fn)), "has dtype torch.float8"),
    "loop": (lambda p: (p.unlink(), p.symlink_to(p)), "weights.safetensors"),
}


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.global_random
def test_wrong_weights_are_named(model, kind):
    damage, words = WEIGHTS[kind]
    folder = model("sudoku")
    damage(folder / "weights.safetensors")
    refusal(folder, "weights.safetensors", words)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_other_widths_are_converted(model, dtype):
    folder = model("sudoku")
    path = folder / "weights.safetensors"
    stored = {name: value.to(dtype) for name, value in checkpoints.read_tensors(path).items()}
    checkpoints.write_tensors(path, stored)
    own = unmask.load(folder).denoiser.network.state_dict()
    assert {v.dtype for v in own.values()} == {torch.float32}
    assert all(torch.equal(own[name], value.float()) for name, value in stored.items())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is not JSON"),
        (b"[" * 200_000, "is not JSON"),
        (b'{"name": "sudoku", "network": {"vocab_size": ' + b"9" * 5000 + b"}}", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"NaN", "holds a float"),
    ],
)
def test_what_is_no_config_is_named(model, text, words):
    folder = model("sudoku")
    (folder / "config.json").write_bytes(text)
    refusal(folder, "config.json", words)


def test_a_folder_in_place_of_the_config_is_named(model):
    folder = model("sudoku")
    blocked(folder / "config.json")
    refusal(folder, "config.json is no file")


@pytest.mark.parametrize("file", ["config.json", "weights.safetensors"])
def test_what_may_not_be_read_is_named(model, file, monkeypatch):
    folder, usual = model("sudoku"), Path.stat

    def stat(path, **more):
        if path.name == file:
            raise PermissionError(13, "Permission denied", str(path))
        return usual(path, **more)

    monkeypatch.setattr(Path, "stat", stat)
    refusal(folder, file, "Permission denied")


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 5000, "no\nsuch"])
def test_names_that_are_none_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        unmask.load(name)
    assert "\n" not in str(caught.value).replace(name, "?") if name else True


def test_the_limit_lets_real_networks_pass():
    """Every shipped shape is built well inside it."""
    for name, run in runs().items():
        with torch.random.fork_rng(devices=()):
            weights = run.build(run.network).state_dict()
            limit = Limited(weights)
            whole = limit.elements, limit.tensors
            with limit:
                run.build(run.network)
        assert limit.elements > whole[0] / 2, name
        assert limit.tensors > whole[1] / 2, name


def test_a_refusal_leaves_gradients_as_they_were(model):
    """Initialisers work under `torch.no_grad`, which must be left by the way of any error."""
    for n, field in enumerate(("width", "hidden", "depth")):
        folder = model("sudoku", **{f"network__{field}": 10**9})
        refusal(folder, "no network of these sizes")
        assert torch.is_grad_enabled(), n
        shutil.rmtree(folder.parent)


def test_symbols_that_the_network_does_not_know_are_no_masks(model):
    """A vocabulary may be larger than the network; its other symbols would be the end and the mask."""
    larger = unmask.load(model("molecules", vocabulary__symbols="#()-123456=BCFHNOS[]clnors~!"))
    assert larger.encode("CO").tolist()[0][:3] == [12, 16, 26]
    for symbol, text in ((26, "C~O"), (27, "C!"), (27, "C_!")):
        with pytest.raises(ValueError, match=rf"symbol {symbol} of a vocabulary .* expected 0\.\.25"):
            larger.encode(text)


# --- many at random -------------------------------------------------------------------------------

VALUES = [None, True, False, 0, -1, 1, 2, 3, 7, 10**9, 10**18, 10**30, 1.5, -0.0, float("nan"), float("inf")]
VALUES += [
    "",
    "9",
    "x\ny",
    "random",
    [],
    [1, 2],
    [[0]],
    {},
    {"a": 1},
    [None],
    [[10**9]],
    "sudoku",
    "molecules",
]


def places(value, path=()):
    """Every place in a JSON value; of a long list the first three."""
    if path:
        yield path
    inner = (
        value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    )
    for key, part in inner:
        yield from places(part, (*path, key))


def change_config(folder: Path, draw: random.Random) -> None:
    config = json.loads((folder / "config.json").read_text())
    for _ in range(draw.choice([1, 1, 1, 2])):
        found = [p for p in places(config) if p[0] in ("network", "vocabulary", "lengths", "name", "order")]
        *groups, last = draw.choice(found or [("name",)])
        inner = config
        for group in groups:
            inner = inner[group]
        what = draw.choice(["value", "value", "value", "near", "drop", "rename"])
        if what == "drop":
            inner.pop(last)
        elif what == "rename" and isinstance(inner, dict):
            inner[f"{last}x"] = inner.pop(last)
        elif what == "near" and isinstance(inner[last], int):
            inner[last] += draw.choice([-1, 1, 2, inner[last]])
        else:
            inner[last] = copying.deepcopy(draw.choice(VALUES))
    (folder / "config.json").write_text(json.dumps(config))


def change_bytes(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    at = draw.randrange(min(len(data), 2000) if draw.random() < 0.7 else len(data))
    what = draw.choice(["cut", "flip", "flip", "insert", "remove", "double", "zero"])
    if what == "cut":
        del data[at:]
    elif what == "flip":
        data[at] ^= 1 << draw.randrange(8)
    elif what == "insert":
        data[at:at] = draw.randbytes(draw.randrange(1, 20))
    elif what == "remove":
        del data[at : at + draw.randrange(1, 20)]
    elif what == "double":
        data += bytes(data)
    else:
        data[at : at + 64] = bytes(len(data[at : at + 64]))
    path.write_bytes(data)


def change_tensors(path: Path, draw: random.Random) -> None:
    tensors = checkpoints.read_tensors(path)
    name = draw.choice(sorted(tensors))
    value = tensors.pop(name)
    kinds = [torch.bfloat16, torch.float64, torch.int8, torch.bool, torch.complex64]
    change = {
        "drop": dict,
        "rename": lambda: {f"{name}.x\n": value},
        "kind": lambda: {name: value.to(draw.choice(kinds))},
        "turn": lambda: {name: value.T.contiguous() if value.ndim == 2 else value[None]},
        "flat": lambda: {name: value.flatten()},
        "none": lambda: {name: value.flatten()[:0]},
        "huge": lambda: {name: value * 1e38},
        "nan": lambda: {name: value + float("nan")},
        "more": lambda: {name: value, "more": torch.ones(3)},
    }
    checkpoints.write_tensors(path, tensors | change[draw.choice(sorted(change))]())


def change_something(folder: Path, draw: random.Random) -> None:
    change = draw.choice([change_config, change_config, change_config, change_bytes, change_tensors])
    file = (
        "weights.safetensors"
        if change is change_tensors
        else draw.choice(["config.json", "weights.safetensors"])
    )
    change(folder if change is change_config else folder / file, draw)


def outcome(folder: Path) -> str:
    """What refuses the model, "" when it loads and its law is one."""
    try:
        works(unmask.load(folder))
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", runs())
def test_a_damaged_model_works_or_is_refused_on_one_line(folders, tmp_path, name):
    """A hundred and twenty ways each, and no gigabyte taken."""
    draw, lines = random.Random(name), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(120):
        folder = shutil.copytree(folders[name], tmp_path / "model")
        change_something(folder, draw)
        lines.append(outcome(folder))
        shutil.rmtree(folder)
    assert not [line for line in lines if "\n" in line or len(line) > 900]
    assert 60 < sum(line != "" for line in lines) < 120
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


# --- devices --------------------------------------------------------------------------------------

ABSENT = ["nonsense", "meta", "", "cpu:x", "mps:9"] + (
    [] if torch.cuda.is_available() else ["cuda", "cuda:1"]
)


@pytest.mark.parametrize("device", ABSENT)
def test_a_device_that_is_not_there_is_named_with_those_that_are(folders, tmp_path, device):
    words = rf"no device '{device}' here; expected one of cpu"
    with pytest.raises(ValueError, match=words):
        unmask.load(folders["sudoku"], device=device)
    run = override(sudoku(), SMALL)
    with pytest.raises(ValueError, match=words):
        train(replace(run, machine=replace(run.machine, device=device)), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_existing_devices_can_be_asked_for(monkeypatch):
    assert devices.existing()[0] == "cpu"
    for name in devices.existing():
        devices.check_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.existing()[:4] == ["cpu", "cuda", "cuda:0", "cuda:1"]


@pytest.mark.parametrize("amx", [None, False, True])
@pytest.mark.parametrize("avx512", [None, False, True])
def test_bfloat16_is_fast_on_cpus_with_either_unit(monkeypatch, amx, avx512):
    """None: a version of torch that cannot tell."""
    for name, has in (("_is_amx_tile_supported", amx), ("_is_avx512_bf16_supported", avx512)):
        if has is None:
            monkeypatch.delattr(torch.cpu, name, raising=False)
        else:
            monkeypatch.setattr(torch.cpu, name, lambda has=has: has, raising=False)
    assert devices.has_bfloat16() is bool(amx or avx512)
    assert devices.has_bfloat16("cpu") is bool(amx or avx512)
    assert devices.has_bfloat16("mps") is False


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("units", [False, True])
def test_bfloat16_is_fast_on_gpus_that_do_not_emulate_it(monkeypatch, there, units):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: units)
    assert devices.has_bfloat16("cuda:1") is (there and units)


def test_bfloat16_on_a_device_that_knows_none_is_refused_before_training(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise RuntimeError("Current CUDA Device does not support bfloat16.\nPlease switch dtype.")

    run = override(sudoku(), SMALL | {"machine.compile": "false", "machine.bfloat16": "true"})
    monkeypatch.setattr(torch, "autocast", refuse)
    with pytest.raises(
        ValueError, match=r"device 'cpu' has no bfloat16 .* expected machine.bfloat16 false or None"
    ):
        train(run, tmp_path, quiet=True)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_numbered_devices_are_of_their_kind():
    assert [devices.kind_of(name) for name in ("cpu", "cuda", "cuda:1", "mps")] == [
        "cpu",
        "cuda",
        "cuda",
        "mps",
    ]
