"""Resuming never changes a run silently, one process trains in a folder, and the caller's random states stay."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import GOLDEN, batch, log_of, often, tiny

from unmask.base import checkpoints, devices
from unmask.data.prepare import READINGS, prepare
from unmask.recipes import Machine, Optimiser, text
from unmask.recipes.run import field_types, generator, override
from unmask.training import resuming, train
from unmask.training.together.locks import locked

TESTS = Path(__file__).parent.parent
SELDOM = often(save_minutes=60)


def refusal(call, *words: str) -> str:
    """The error of a call: one line with all the words."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        call()
    line = str(caught.value)
    assert "\n" not in line
    assert not [word for word in words if word not in line], line
    return line


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the lock."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "lock"
    }


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """Six steps, saved at the last."""
    folder = tmp_path_factory.mktemp("six")
    train(tiny(SELDOM, steps=6), folder, quiet=True)
    return folder


@pytest.fixture
def copy(six, tmp_path):
    return shutil.copytree(six, tmp_path / "run")


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_fewer_steps_than_done_are_refused(copy, steps):
    before = contents(copy)
    refusal(
        lambda: train(tiny(SELDOM, steps=steps), copy, quiet=True),
        f"has done 6 steps, more than optimiser.steps {steps}",
    )
    assert contents(copy) == before
    train(tiny(SELDOM, steps=6), copy, quiet=True)  # as many are fine
    assert contents(copy) == before


def other_value(value):
    """Another value of the same type, in range."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 2 if value else 1
    if isinstance(value, float):
        return value / 2 if value else 0.5
    if isinstance(value, str):
        return value + "x"
    return {None: ((0, 1, 2, 3),)}[value]


FIXED = [f for f in field_types(tiny()) if not f.startswith("machine.")]
FREE = {"optimiser.steps", "optimiser.decay"}
AGAINST_EACH_OTHER = {
    "network.width": "32",
    "network.hidden": "16",
    "network.heads": "1",
    "randomness": "1",
    "network.causal": "true",
}


@pytest.mark.parametrize("field", [f for f in FIXED if f not in FREE])
def test_every_other_setting_is_fixed(copy, field):
    value = tiny(SELDOM)
    for name in field.split("."):
        value = getattr(value, name)
    text = AGAINST_EACH_OTHER.get(field) or json.dumps(other_value(value))
    run = override(tiny(SELDOM, steps=6), {field: text})
    before = contents(copy)
    refusal(lambda: train(run, copy, quiet=True), f"holds a run with {field} ", "use another folder")
    assert contents(copy) == before


@pytest.mark.parametrize(
    "change", [{"optimiser.steps": "8"}, {"optimiser.decay": "0.5"}, {"machine.keep": "5"}]
)
def test_how_to_compute_and_when_to_stop_may_change(copy, change):
    train(override(tiny(SELDOM, steps=6), change), copy, quiet=True)


def edit(path: Path, **changes) -> None:
    """A JSON file with fields replaced (None: removed), dots as __."""
    record = json.loads(path.read_text())
    for name, value in changes.items():
        *groups, last = name.split("__")
        inner = record
        for group in groups:
            inner = inner[group]
        if value is None:
            inner.pop(last)
        else:
            inner[last] = value
    path.write_text(json.dumps(record))


def everywhere(folder: Path, **changes) -> None:
    for path in folder.rglob("run.json"):
        edit(path, **changes)


def test_a_field_that_an_older_version_lacked_had_its_default(copy):
    everywhere(copy, network__rotary=None, optimiser__clip=None, start=None)
    refusal(
        lambda: train(override(tiny(SELDOM, steps=6), {"optimiser.clip": "2"}), copy, quiet=True),
        "optimiser.clip 1.0, not 2.0",
    )
    train(tiny(SELDOM, steps=6), copy, quiet=True)


def test_a_field_of_a_newer_version_is_refused(copy):
    everywhere(copy, network__colour="red")
    refusal(
        lambda: train(tiny(SELDOM, steps=6), copy, quiet=True),
        "network.colour 'red', which this version does not know",
    )


def test_a_checkpoint_of_another_run_is_refused(copy, tmp_path):
    train(tiny(SELDOM, steps=7, learning_rate=0.02), tmp_path / "other", quiet=True)
    shutil.copytree(tmp_path / "other" / "checkpoints" / "00000007", copy / "checkpoints" / "00000007")
    refusal(lambda: train(tiny(SELDOM), copy, quiet=True), "optimiser.learning_rate 0.02, not 0.01")
    (copy / "run.json").unlink()
    refusal(lambda: train(tiny(SELDOM), copy, quiet=True), "optimiser.learning_rate 0.02, not 0.01")


# --- randomness of old runs -----------------------------------------------------------------------


@pytest.mark.parametrize("records", ["run.json", "all"])
def test_an_old_run_goes_on_with_its_old_batches(tmp_path, records):
    """A folder of the version before, which recorded no randomness: losses as that version had them to the end."""
    golden = json.loads(GOLDEN.read_text())
    old = replace(tiny(SELDOM, dropout=0.0, decay=0.3), randomness=1)

    def stopping(run, step):
        if step == 6:
            raise InterruptedError
        return batch(run, step)

    with pytest.raises(InterruptedError):
        train(replace(old, batch=stopping, machine=often()), tmp_path, quiet=True)
    everywhere(tmp_path, randomness=None)
    if records == "all":
        (tmp_path / "run.json").unlink()  # the checkpoint's own record serves
    train(tiny(SELDOM, dropout=0.0, decay=0.3), tmp_path, quiet=True)
    losses = [record["loss"] for record in log_of(tmp_path)]
    assert losses == pytest.approx(golden["losses_under_randomness_1"], abs=1e-5)
    assert losses[6:] != pytest.approx(golden["losses"][6:], abs=1e-5)
    assert json.loads((tmp_path / "run.json").read_text())["randomness"] == 1
    assert json.loads((tmp_path / "model" / "config.json").read_text())["randomness"] == 1


def test_a_new_run_has_the_new_numbers_and_says_so(six):
    assert json.loads((six / "run.json").read_text())["randomness"] == 2
    assert json.loads((six / "model" / "config.json").read_text())["randomness"] == 2


@pytest.mark.parametrize("unknown", [3, 0, "2", 1.5, [], True])
def test_randomness_of_another_version_is_refused(copy, unknown):
    everywhere(copy, randomness=unknown)
    refusal(lambda: train(tiny(SELDOM), copy, quiet=True), f"randomness {unknown!r}; this version knows 1..2")


# --- data -----------------------------------------------------------------------------------------


def write_data(folder: Path, words: str) -> None:
    shutil.rmtree(folder / "train", ignore_errors=True)
    (folder / "some.txt").write_text(words * 40)
    prepare([folder / "some.txt"], folder / "train", READINGS["text8"])


def small_text(folder: Path, **changes):
    sizes = {"width": "16", "depth": "1", "heads": "2", "hidden": "32", "length": "12"}
    named = {f"network.{k}": v for k, v in sizes.items()} | {"data.folder": str(folder), "batch_size": "4"}
    run = override(text(), named | {"optimiser.steps": "4"} | changes)
    return replace(run, machine=Machine(threads=1, log_every=1))


def test_other_data_of_the_same_name_are_refused(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_data(folder, "the cat sat on the mat ")
    train(small_text(folder), tmp_path / "run", quiet=True)
    write_data(folder, "the dog sat on the log ")  # as many symbols
    refusal(lambda: train(small_text(folder), tmp_path / "run", quiet=True), "data.fingerprint")
    write_data(folder, "the cat sat on the mat ")
    train(small_text(folder), tmp_path / "run", quiet=True)


def test_data_replaced_while_training_are_refused(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_data(folder, "the cat sat on the mat ")
    run = small_text(folder)
    usual = run.batch

    def swapping(run, step):
        if step == 2:
            write_data(folder, "the dog sat on the log ")
        return usual(run, step)

    refusal(
        lambda: train(replace(run, batch=swapping), tmp_path / "run", quiet=True),
        "holds other data than training began with",
    )
    assert not (tmp_path / "run" / "model").exists()


def test_where_a_run_started_from_is_not_read_again(tmp_path):
    first = train(tiny(SELDOM, steps=2), tmp_path / "first", quiet=True)
    run = replace(tiny(SELDOM, steps=4), start=str(first))
    train(run, tmp_path / "second", quiet=True)
    shutil.copytree(tmp_path / "second", tmp_path / "third")
    train(replace(run, optimiser=replace(run.optimiser, steps=6)), tmp_path / "second", quiet=True)
    shutil.rmtree(first)
    train(replace(run, optimiser=replace(run.optimiser, steps=6)), tmp_path / "third", quiet=True)
    ours, theirs = (
        checkpoints.read_tensors(tmp_path / name / "model" / "weights.safetensors")
        for name in ("second", "third")
    )
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


# --- damage ---------------------------------------------------------------------------------------


def tensors(path: Path, change) -> None:
    checkpoints.write_tensors(path, change(checkpoints.read_tensors(path)))


DAMAGE = {
    "step-missing": ("state.json", lambda p: p.write_text("{}"), "step None, expected 6"),
    "step-text": ("state.json", lambda p: p.write_text('{"step": "6"}'), "step '6', expected 6"),
    "step-other": ("state.json", lambda p: p.write_text('{"step": 3}'), "step 3, expected 6"),
    "step-negative": ("state.json", lambda p: p.write_text('{"step": -6}'), "step -6, expected 6"),
    "state-list": ("state.json", lambda p: p.write_text("[6]"), "holds a list"),
    "state-folder": ("state.json", lambda p: (p.unlink(), p.mkdir()), "is no file"),
    "moment-shape": (
        "optimiser.safetensors",
        lambda p: tensors(p, lambda t: t | {"0.exp_avg": torch.zeros(3)}),
        "'0.exp_avg' has shape (3,)",
    ),
    "moment-nan": (
        "optimiser.safetensors",
        lambda p: tensors(p, lambda t: t | {"0.exp_avg_sq": t["0.exp_avg_sq"] * torch.nan}),
        "'0.exp_avg_sq' holds NaN",
    ),
    "moment-gone": (
        "optimiser.safetensors",
        lambda p: tensors(p, lambda t: {k: v for k, v in t.items() if k != "1.exp_avg"}),
        "lacks '1.exp_avg'",
    ),
    "moment-foreign": (
        "optimiser.safetensors",
        lambda p: tensors(p, lambda t: t | {"99.exp_avg": torch.zeros(3)}),
        "has no '99.exp_avg'",
    ),
    "moment-name": (
        "optimiser.safetensors",
        lambda p: tensors(p, lambda t: t | {"momentum": torch.zeros(3)}),
        "has no 'momentum'",
    ),
    "random-missing": (
        "random.safetensors",
        lambda p: checkpoints.write_tensors(p, {"other": torch.zeros(1)}),
        "lacks 'torch'",
    ),
    "random-short": (
        "random.safetensors",
        lambda p: tensors(p, lambda t: {"torch": t["torch"][:-8]}),
        "expected a random state of torch.uint8 [5056]",
    ),
    "random-float": (
        "random.safetensors",
        lambda p: tensors(p, lambda t: {"torch": t["torch"].float()}),
        "expected a random state",
    ),
    "random-nonsense": (
        "random.safetensors",
        lambda p: tensors(p, lambda t: {"torch": torch.full_like(t["torch"], 255)}),
        "no random state of this version of torch",
    ),
    "weights-ints": (
        "network.safetensors",
        lambda p: tensors(p, lambda t: t | {"head.bias": torch.zeros(4, dtype=torch.int64)}),
        "'head.bias' has dtype torch.int64, expected torch.float32",
    ),
    "weights-pickle": ("average.safetensors", lambda p: torch.save({"a": torch.ones(1)}, p), "is a pickle"),
    "weights-empty": ("average.safetensors", lambda p: p.write_bytes(b""), "is not readable"),
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.global_random
def test_a_damaged_checkpoint_is_named(copy, name):
    file, damage, words = DAMAGE[name]
    place = copy / "checkpoints" / "00000006"
    damage(place / file)
    refusal(lambda: train(tiny(SELDOM), copy, quiet=True), file, words, f"delete {place} to go on")


def test_foreign_lines_of_the_log_go(copy):
    path = copy / "log.jsonl"
    whole = path.read_bytes()
    path.write_bytes(
        whole + b'3\n[]\nnull\n"a"\n{"step": "x"}\n{"step": null}\n{"step": 7, "loss": 1}\n\xff\xfe\n'
    )
    train(tiny(SELDOM, steps=6), copy, quiet=True)
    assert path.read_bytes() == whole


# --- one process at a time ------------------------------------------------------------------------


def test_a_second_training_in_the_same_folder_is_refused(tmp_path):
    """From inside the first, from another thread, and from another process; the first goes on."""
    lines, script = [], TESTS / "tiny.py"
    search = os.pathsep.join(p for p in sys.path if p)

    def meddling(run, step):
        if step == 3:
            words = f"process {os.getpid()} on {platform.node()}"
            lines.append(refusal(lambda: train(tiny(), tmp_path, quiet=True), words, "use another folder"))
            thread = threading.Thread(
                target=lambda: lines.append(refusal(lambda: train(tiny(), tmp_path, quiet=True), words))
            )
            thread.start()
            thread.join()
            done = subprocess.run(
                [sys.executable, script, "train", tmp_path],
                env={**os.environ, "PYTHONPATH": search},
                capture_output=True,
                timeout=120,
                text=True,
            )
            assert done.returncode == 1
            lines.append(done.stderr.strip().splitlines()[-1])
        return batch(run, step)

    train(replace(tiny(SELDOM), batch=meddling), tmp_path, quiet=True)
    assert len(lines) == 3
    assert lines[2] == f"ValueError: {lines[0]}"
    train(tiny(SELDOM), tmp_path, quiet=True)  # free again


def test_a_failure_frees_the_folder(tmp_path):
    def failing(run, step):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        train(replace(tiny(), batch=failing), tmp_path, quiet=True)
    with locked(tmp_path):
        refusal(lambda: train(tiny(), tmp_path, quiet=True), "is being trained in")
    train(tiny(SELDOM), tmp_path, quiet=True)


# --- the caller's state ---------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_random_states_and_threads_of_the_caller_stay(tmp_path, fails):
    def disturbing(run, step):
        torch.manual_seed(step)
        np.random.seed(step)  # noqa: NPY002
        if fails and step == 2:
            raise InterruptedError
        return batch(run, step)

    before, threads = torch.get_rng_state(), torch.get_num_threads()
    numpys = np.random.get_state()[1].copy()  # noqa: NPY002
    run = replace(tiny(often(threads=2 if threads != 2 else 1)), batch=disturbing)
    try:
        train(run, tmp_path, quiet=True)
    except InterruptedError:
        assert fails
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpys).all()  # noqa: NPY002
    assert torch.get_num_threads() == threads


class Gpu:
    """Stands for torch.cuda: a random state per device."""

    def __init__(self):
        self.states = {f"cuda:{n}": torch.full((16,), n, dtype=torch.uint8) for n in range(2)}

    def get_rng_state(self, device):
        return self.states[device].clone()

    def set_rng_state(self, state, device):
        self.states[device] = state.clone()


@pytest.fixture
def gpu(monkeypatch):
    fake = Gpu()
    monkeypatch.setattr(torch, "get_device_module", lambda kind: {"cuda": fake}[kind])
    return fake


def test_the_random_state_of_the_device_is_kept_too(gpu):
    def work():
        with devices.random_states_kept("cuda:1"):
            gpu.set_rng_state(torch.zeros(16, dtype=torch.uint8), "cuda:1")
            torch.rand(1)
            raise InterruptedError

    with pytest.raises(InterruptedError):
        work()
    assert gpu.states["cuda:1"].tolist() == [1] * 16
    assert gpu.states["cuda:0"].tolist() == [0] * 16


def test_checkpoints_hold_the_random_state_of_the_device(gpu, tmp_path, monkeypatch):
    run = replace(tiny(), machine=often(device="cuda:1"))
    path = tmp_path / "random.safetensors"
    checkpoints.write_tensors(path, devices.random_states("cuda:1"))
    seeds = []
    monkeypatch.setattr(devices, "seed_random_states", lambda device, seed: seeds.append(seed))
    gpu.states["cuda:1"] = torch.full((16,), 9, dtype=torch.uint8)
    resuming.restore_random(path, run, 6)
    assert gpu.states["cuda:1"].tolist() == [1] * 16
    checkpoints.write_tensors(path, devices.random_states("cpu"))  # trained on the CPU so far: still readable
    gpu.states["cuda:1"] = torch.full((16,), 9, dtype=torch.uint8)
    resuming.restore_random(path, run, 6)
    resuming.restore_random(path, run, 7)
    assert gpu.states["cuda:1"].tolist() == [9] * 16
    assert len(set(seeds[1:])) == 2  # a seed for each step, so no noise comes twice


def test_a_checkpoint_of_a_gpu_is_readable_on_the_cpu(copy):
    path = copy / "checkpoints" / "00000006" / "random.safetensors"
    tensors(path, lambda t: t | {"cuda": torch.zeros(16, dtype=torch.uint8)})
    train(tiny(SELDOM), copy, quiet=True)


def test_resuming_reads_no_generator_but_its_own(six, tmp_path):
    """Whatever was drawn between, the second half is the same."""
    ends = []
    for n in range(2):
        folder = shutil.copytree(six, tmp_path / str(n))
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(n)
            torch.rand(n + 1, generator=generator(tiny(), n))
            train(tiny(SELDOM, steps=9), folder, quiet=True)
        ends.append(checkpoints.read_tensors(folder / "model" / "weights.safetensors"))
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_optimisers_of_no_step_have_no_moments(tmp_path):
    train(tiny(SELDOM, steps=0), tmp_path, quiet=True)
    train(tiny(SELDOM, steps=2), tmp_path, quiet=True)
    assert Optimiser(steps=2).steps == len(log_of(tmp_path))
