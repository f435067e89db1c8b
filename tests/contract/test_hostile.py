"""A stranger's file costs no more than its size: every kind of `hostile` ends in one line, code 2 and little memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import hostile
import numpy as np
import pytest

from unmask import codec, laws, plans
from unmask.codec import container
from unmask.command_line.app import main
from unmask.data import tokens

MEMORY = 100e6
"""Bytes beyond those of a loaded model."""


@pytest.fixture(scope="module")
def found():
    """What the command line did with every file, by name; a process of its own, whose memory is measured."""
    script = Path(hostile.__file__)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=True)
    return {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


REFUSED = [
    *(f"archive: {name}" for name in hostile.ARCHIVES),
    *(f"plan: {name}" for name in hostile.PLANS),
    *(f"profile: {name}" for name in hostile.PROFILES),
    *(f"sampler: {name}" for name in hostile.SAMPLERS),
]


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_files_end_in_one_short_line(found, name):
    line = found[name]
    assert line["code"] == 2
    assert line["errors"].startswith("unmask: ")
    assert line["errors"].count("\n") == 1
    assert len(line["errors"]) < 500
    assert not line["left"]
    assert line["calls"] <= 8  # an item of 8 symbols is decoded before its CRC tells


@pytest.mark.parametrize("kind", ["plan", "sampler"])
def test_files_of_an_option_are_refused_for_what_is_in_them(found, kind):
    for name, line in found.items():
        if name.startswith(f"{kind}: "):
            assert line["errors"].startswith(f"unmask: --{kind} "), name


@pytest.mark.parametrize("name", [f"skip: {name}" for name in hostile.LEFT])
def test_skipping_ends_with_what_is_left(found, name):
    line = found[name]
    assert line["code"] in (0, 1)
    assert line["errors"] == ""
    assert line["calls"] <= 150
    if "cut short" in name:
        assert line["left"] == ["ab ba\na\n"]


def test_hostile_files_cost_little_memory(found):
    assert max(line["python"] for line in found.values()) < MEMORY
    assert sum(line["process"] for line in found.values()) < MEMORY


def test_inspection_says_names_as_they_are(found):
    assert "[bold] ()" in found["inspect: a model of another name"]["said"]
    assert (
        "1048576 calls for 1048576 positions" in found["inspect: plans of 2 thousand million steps"]["said"]
    )


def test_files_are_named_as_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a[red]b[bold].umz").write_bytes(hostile.SOUND)
    assert main(["inspect", "a[red]b[bold].umz"]) == 0
    assert "a[red]b[bold].umz" in capsys.readouterr().out


# --- what an archive may hold ---------------------------------------------------------------------------


def test_plans_of_a_header_stay_runs():
    runs = codec.settings.from_record(hostile.method(plan={"1048576": [[1, 2**20]]})["method"]).plan[2**20]
    assert (len(runs), runs.pairs) == (2**20, ((1, 2**20),))
    with_parts = codec.settings.from_record(hostile.method(plan={"12": [[5, 2], [2, 1]]})["method"]).plan[12]
    assert tuple(with_parts) == (5, 5, 2)
    for wrong in ({"012": [[12, 1]]}, {"12": [[12, 1, 1]]}, {"12": [[24, 0.5]]}, {"12": ["34"]}, {"0": []}):
        with pytest.raises(ValueError, match="field plan"):
            codec.settings.from_record(hostile.method(plan=wrong)["method"])


def test_certain_symbols_are_bounded_by_the_file_and_max_symbols_accepts_more():
    sure = codec.of_denoiser(laws.Markov([1.0, 0.0], [[0.0, 1.0], [1.0, 0.0]], 64), 64, "sure")
    items = [np.arange(64 * 16) % 2] * 250
    data = codec.compress(sure, items, plan=64, verify=False)
    kinds = codec.inspect(data).summary.kinds
    assert set(kinds) == {"coded"}
    assert sum(map(len, items)) > 100 * len(data)  # far denser than any text, and accepted
    assert all(np.array_equal(a, b) for a, b in zip(items, codec.decompress(sure, data), strict=True))
    dense = np.arange(64 * 16 * 300) % 2
    stored = codec.inspect(codec.compress(sure, [dense], plan=64, verify=False)).summary
    assert "coded" not in stored.kinds or stored.symbols <= 256 * stored.bytes
    listed = container.Listed(0, container.CODED, 2**15, 0, 0, 0, "")
    with pytest.raises(codec.Damaged, match=r"32768 symbols after 0; .* 25600 in all.*max_symbols"):
        container.Budget(100).take(listed)
    container.Budget(100, 2**15).take(listed)
    budget = container.Budget(2**9)
    for _ in range(4):
        budget.take(listed)
    with pytest.raises(codec.Damaged, match="32768 symbols after 131072"):
        budget.take(listed)
    stored = container.Listed(0, container.ZSTD, 2**26, 0, 0, 0, "")
    with pytest.raises(codec.Damaged, match="67108864 bytes after 0; expected at most 33554432"):
        container.Budget(100).take(stored)
    container.Budget(2**20).take(stored)
    many = hostile.archive(*[container.Entry(container.CODED, 8192, 0, b"")] * 100)
    with pytest.raises(codec.Damaged, match=r"item 31: .*max_symbols"):
        next(codec.decompress(hostile.MODEL, many))


def test_the_command_accepts_max_symbols_as_the_library_does(monkeypatch, tmp_path, capfd):
    """Forty items of 8192 symbols in 600 bytes: too many, unless asked for; then they are decoded."""
    work = import_module("unmask.command_line.commands.archives.decompress")
    monkeypatch.setattr(work, "load", lambda _: hostile.MODEL)

    def decoded(*_):
        raise codec.Damaged("decoding began")

    monkeypatch.setattr(codec.Archive, "_decoded", decoded)
    path = tmp_path / "many.umz"
    path.write_bytes(hostile.archive(*[container.Entry(container.CODED, 8192, 0, b"")] * 40))

    def told(*words):
        assert main(["decompress", str(path), "-o", str(tmp_path / "out"), "--quiet", *words]) == 2
        return capfd.readouterr().err

    assert "item 18: field size: 8192 symbols after 147456" in told()
    assert "(--max-symbols)" in told("--max-symbols", str(39 * 8192))
    assert "decoding began" in told("--max-symbols", str(40 * 8192))
    assert "--max-symbols -1: expected at least 0" in told("--max-symbols", "-1")


def test_lost_items_are_counted_up_to_what_the_file_could_hold():
    header = container.write_header(hostile.HEADER)
    line = container.Entry(container.RAW, 2, container.item_crc(40, b"ab", b"ab"), b"ab")
    left = codec.Archive(hostile.MODEL, header + hostile.block((line,), first=40), errors="skip")
    assert list(left.items()) == [None] * 40 + ["ab"]
    beyond = codec.Archive(hostile.MODEL, header + hostile.block((line,), first=2**40), errors="skip")
    assert len(beyond) == 0


# --- other readers --------------------------------------------------------------------------------------


def written(folder: Path, **changes: object) -> Path:
    """A token folder of three symbols whose only shard has these fields changed."""
    folder.mkdir()
    (folder / "tokens-00000.bin").write_bytes(b"\0\1\0")
    shard = {"file": "tokens-00000.bin", "symbols": 3, "items": 0, "crc32": [0]}
    more = {k: changes.pop(k) for k in ("dtype", "longest") if k in changes}
    record = {"format": tokens.FORMAT, "version": 1, "dtype": "uint8", "longest": 3}
    record |= {"vocabulary": {"kind": "characters", "symbols": "ab"}, "shards": [shard | changes]}
    (folder / "manifest.json").write_text(json.dumps(record | more))
    return folder


def test_shards_stay_in_their_folder(tmp_path):
    assert tokens.load(written(tmp_path / "good")).span(0, 3).tolist() == [0, 1, 0]
    (tmp_path / "secret").write_bytes(b"abc")
    names = [str(tmp_path / "secret"), "../secret", "a/../../secret", "link", "a\0b", 3, ["x"], "x" * 5000]
    for number, name in enumerate(names):
        place = written(tmp_path / str(number), file=name)
        (place / "link").symlink_to(tmp_path / "secret")
        with pytest.raises(ValueError, match="shard") as error:
            tokens.load(place)
        assert "\n" not in str(error.value)
    for number, name in enumerate(names[:4]):
        place = written(tmp_path / f"ends-{number}", ends=name)
        (place / "link").symlink_to(tmp_path / "secret")
        with pytest.raises(ValueError, match="expected a file inside the folder"):
            tokens.load(place)


@pytest.mark.parametrize(
    "changes", [{"symbols": "3"}, {"symbols": -3}, {"symbols": 1.5}, {"items": True}, {"dtype": "O"}]
)
def test_counts_and_kinds_of_a_foreign_manifest_are_numbers(tmp_path, changes):
    with pytest.raises(ValueError, match="expected"):
        tokens.load(written(tmp_path / "t", **changes))


def test_plan_files_come_back(tmp_path):
    plans.save(tmp_path / "p.json", (3, 2, 1))
    assert plans.load(tmp_path / "p.json").plan == (3, 2, 1)


# --- random damage --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fuzz():
    """The script that mutates files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        return import_module("fuzz_codec")


@pytest.mark.parametrize("part", ["archives", "headers", "indices", "plan files", "sampler files"])
def test_random_damage_ends_in_one_line(fuzz, part):
    chance = random.Random(part)
    assert len({fuzz.PARTS[part](chance) for _ in range(150)}) > 1
