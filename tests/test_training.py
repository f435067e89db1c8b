"""Training: it learns a law, resumes bit for bit after SIGKILL, and never loses what was saved."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import every_sequence, seeded
from tiny import GOLDEN, LAW, batch, first_losses, log_of, often, tiny

import unmask
from unmask.base import checkpoints, progress
from unmask.base.progress import Progress
from unmask.recipes import Optimiser, sudoku
from unmask.recipes.run import override
from unmask.training.loop import learning_rate, train

SELDOM = often(save_minutes=60)


def parts(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint."""
    place = folder / "checkpoints" / f"{step:08d}"
    return {
        f"{p.stem}.{name}": value
        for p in sorted(place.glob("*.safetensors"))
        for name, value in checkpoints.read_tensors(p).items()
    }


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert set(ours) == set(theirs)
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]


def steps_in(folder: Path) -> list[int]:
    return sorted(int(p.name) for p in (folder / "checkpoints").iterdir())


def leftovers(folder: Path) -> list[Path]:
    return [p for p in folder.rglob(".*") if p.name not in (".", "..")]


def trained_denoiser(run: unmask.recipes.Run, folder: Path) -> unmask.Denoiser:
    with torch.random.fork_rng(devices=()):
        network = run.build(run.network)
    path = folder / "model" / "weights.safetensors"
    checkpoints.fill(network.state_dict(), checkpoints.read_tensors(path), path)
    return unmask.from_logits(network, mask_id=LAW.mask_id, vocab_size=LAW.vocab_size)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Twelve steps in one go, every one of them saved."""
    folder = tmp_path_factory.mktemp("whole")
    train(tiny(), folder, quiet=True)
    return folder


# --- learning -------------------------------------------------------------------------------------


def test_the_loop_learns_a_law(tmp_path):
    run = replace(tiny(SELDOM, dropout=0.0, steps=200, warmup=20, ema=0.98), batch_size=64)
    train(run, tmp_path, quiet=True)
    denoiser = trained_denoiser(run, tmp_path)
    tokens = LAW.sample(24, seeded(1)).new_tensor(list(itertools.permutations(range(4))))
    bound = unmask.nelbo(denoiser, tokens, generator=seeded(0), samples=32)
    excess = float(bound.value.mean()) - float(LAW.profile().entropies.sum())
    assert -0.01 < excess < 0.05  # nats; 2.4 before training
    selector = unmask.selectors.top_k(unmask.scores.margin, 1)
    probs = unmask.log_likelihood(denoiser, every_sequence(LAW, 4), selector).exp()
    valid = LAW.log_prob(every_sequence(LAW, 4)) > -torch.inf
    assert float(probs.sum()) == pytest.approx(1, abs=1e-5)
    assert float(probs[valid].sum()) > 0.98


def test_sudoku_loss_falls_on_fixed_boards(tmp_path):
    small = {"network.width": "16", "network.depth": "1", "network.loops": "2", "network.hidden": "32"}
    changes = {"optimiser.steps": "40", "optimiser.warmup": "5", "batch_size": "8", "machine.log_every": "1"}
    plain = {"machine.compile": "false", "machine.bfloat16": "false", "optimiser.learning_rate": "0.01"}
    run = override(sudoku(), {**small, **changes, **plain})
    fixed = run.batch(run, 0)
    train(replace(run, batch=lambda run, step: fixed), tmp_path, quiet=True)
    losses = [record["loss"] for record in log_of(tmp_path)]
    assert losses[0] == pytest.approx(torch.tensor(9.0).log().item(), abs=1e-5)  # logits start at zero
    assert losses[-1] < 0.8 * losses[0]


def test_golden_trace(tmp_path):
    """The reasons for a change, and how to record it, stand in the file."""
    golden = json.loads(GOLDEN.read_text())
    assert first_losses(tmp_path) == pytest.approx(golden["losses"], abs=1e-5), golden["why"]


def test_learning_rate_rises_rests_and_falls():
    o = Optimiser(steps=100, learning_rate=2.0, warmup=10, decay=0.25)
    rates = [learning_rate(o, step) for step in range(101)]
    assert rates[:10] == pytest.approx([0.2 * (s + 1) for s in range(10)])
    assert rates[9:76] == [2.0] * 67
    assert rates[75:] == pytest.approx([2.0 * (100 - s) / 25 for s in range(75, 101)])
    assert [learning_rate(replace(o, warmup=0, decay=0.0), s) for s in (0, 99)] == [2.0, 2.0]


def test_average_is_an_exponential_one(whole):
    run = tiny()
    average = {name: value.double() for name, value in initial_weights(run).items()}
    for step in range(run.optimiser.steps):
        decay = min(run.optimiser.ema, (1 + step) / (10 + step))
        now = parts_named(whole, step + 1, "network")
        average = {name: decay * old + (1 - decay) * now[name] for name, old in average.items()}
    saved = parts_named(whole, run.optimiser.steps, "average")
    for name, value in average.items():
        torch.testing.assert_close(saved[name].double(), value, atol=1e-6, rtol=1e-5)
    weights = checkpoints.read_tensors(whole / "model" / "weights.safetensors")
    assert_same(weights, saved)


def parts_named(folder: Path, step: int, kind: str) -> dict[str, torch.Tensor]:
    return checkpoints.read_tensors(folder / "checkpoints" / f"{step:08d}" / f"{kind}.safetensors")


def initial_weights(run: unmask.recipes.Run) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(run.seed)
        return {k: v.clone() for k, v in run.build(run.network).state_dict().items()}


def test_weight_decay_shrinks_matrices_only(tmp_path):
    run = tiny(SELDOM, steps=1, learning_rate=0.5, weight_decay=0.1, warmup=0, decay=0.0)

    def indifferent(network, data):
        return sum((p * 0).sum() for p in network.parameters())

    run = replace(run, objective=indifferent)
    train(run, tmp_path, quiet=True)
    before, after = initial_weights(run), parts_named(tmp_path, 1, "network")
    matrices = {"qkv.weight", "out.weight", "up.weight", "down.weight", "head.weight"}
    for name, value in before.items():
        factor = 0.95 if any(name.endswith(m) for m in matrices) else 1.0
        torch.testing.assert_close(after[name], factor * value)
    assert {n for n in before if "norm" in n or "positions" in n or n in ("embedding.weight", "head.bias")}


def test_gradients_are_clipped_as_one(tmp_path):
    """After a step, AdamW's first moment is a tenth of the gradient that it was given."""
    train(tiny(SELDOM, steps=1, clip=1e-3), tmp_path, quiet=True)
    moments = [v for k, v in parts_named(tmp_path, 1, "optimiser").items() if k.endswith("exp_avg")]
    norm = torch.cat([m.flatten() for m in moments]).norm().item()
    assert norm == pytest.approx(1e-4, rel=1e-2)


# --- going on -------------------------------------------------------------------------------------


def test_resumes_bit_for_bit_after_sigkill(tmp_path, whole):
    """Killed while it writes a checkpoint, so a torn one is left behind."""
    script, search = Path(__file__).with_name("tiny.py"), os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, script, "train", tmp_path, "40"],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    stopped = max(int(p.name) for p in (tmp_path / "checkpoints").glob("0*"))
    assert 0 < stopped < 12
    assert leftovers(tmp_path)
    assert not (tmp_path / "model").exists()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 9, "loss": 1.')  # and a log line cut short
    train(tiny(), tmp_path, quiet=True)
    assert not leftovers(tmp_path)
    assert_same(parts(tmp_path, 12), parts(whole, 12))
    assert log_of(tmp_path) == log_of(whole)
    assert [record["step"] for record in log_of(tmp_path)] == list(range(1, 13))


@pytest.mark.parametrize(
    ("number", "usual"), [(signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)]
)
def test_ctrl_c_finishes_the_step_and_saves(tmp_path, whole, number, usual):
    def pressing(run, step):
        if step == 6:
            signal.raise_signal(number)
        return batch(run, step)

    previous = signal.signal(number, usual)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(replace(tiny(SELDOM), batch=pressing), tmp_path, quiet=True)
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, previous)
    assert steps_in(tmp_path) == [7]
    assert not (tmp_path / "model").exists()
    train(tiny(), tmp_path, quiet=True)
    assert_same(parts(tmp_path, 12), parts(whole, 12))


def test_a_second_ctrl_c_leaves_at_once(tmp_path):
    def pressing(run, step):
        for _ in range(2 * (step == 6)):
            signal.raise_signal(signal.SIGINT)
        return batch(run, step)

    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(replace(tiny(), batch=pressing), tmp_path, quiet=True)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_error_inside_leaves_whole_checkpoints_only(tmp_path, error):
    def failing(run, step):
        if step == 6:
            raise error
        return batch(run, step)

    with pytest.raises(error):
        train(replace(tiny(), batch=failing), tmp_path, quiet=True)
    assert steps_in(tmp_path) == [1, 2, 3, 4, 5, 6]
    assert not leftovers(tmp_path)


def test_divergence_saves_nothing_broken(tmp_path):
    def broken(run, step):
        good = batch(run, step)
        return replace(good, weight=good.weight * torch.inf) if step == 3 else good

    with pytest.raises(ValueError, match=r"gradient is not finite at step 3: lower optimiser\.learning_rate"):
        train(replace(tiny(), batch=broken), tmp_path, quiet=True)
    assert steps_in(tmp_path) == [1, 2, 3]
    assert all(value.isfinite().all() for value in parts(tmp_path, 3).values())


def test_a_finished_run_stays_as_it_is(tmp_path, whole):
    train(tiny(often(keep=2)), tmp_path, quiet=True)
    written = (tmp_path / "checkpoints" / "00000012").stat().st_ino
    train(tiny(often(keep=2)), tmp_path, quiet=True)
    assert (tmp_path / "checkpoints" / "00000012").stat().st_ino == written
    assert steps_in(tmp_path) == [11, 12]
    assert_same(parts(tmp_path, 12), parts(whole, 12))
    assert log_of(tmp_path) == log_of(whole)
    longer = train(tiny(often(keep=2), steps=14), tmp_path, quiet=True)
    assert json.loads((longer / "config.json").read_text())["trained_steps"] == 14


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    train(tiny(steps=2), tmp_path, quiet=True)
    for run, field in [
        (tiny(steps=2, learning_rate=0.1), "optimiser.learning_rate 0.01, not 0.1"),
        (replace(tiny(steps=2), seed=1), "seed 0, not 1"),
        (replace(tiny(steps=2), network=replace(tiny().network, width=32)), "network.width 16, not 32"),
    ]:
        with pytest.raises(ValueError, match=f"holds a run with {field}; use another folder"):
            train(run, tmp_path, quiet=True)
    assert steps_in(tmp_path) == [1, 2]


# --- damage ---------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def poison(path: Path) -> None:
    tensors = checkpoints.read_tensors(path)
    checkpoints.write_tensors(path, tensors | {"head.bias": tensors["head.bias"] * torch.nan})


def misshape(path: Path) -> None:
    tensors = checkpoints.read_tensors(path)
    checkpoints.write_tensors(path, tensors | {"head.bias": torch.zeros(5)})


def rename(path: Path) -> None:
    tensors = checkpoints.read_tensors(path)
    checkpoints.write_tensors(path, {f"other.{name}": value for name, value in tensors.items()})


@pytest.mark.parametrize(
    ("damage", "file", "words"),
    [
        (cut, "network.safetensors", "is not readable"),
        (cut, "average.safetensors", "is not readable"),
        (cut, "optimiser.safetensors", "is not readable"),
        (cut, "state.json", "is not JSON"),
        (poison, "network.safetensors", "'head.bias' holds NaN"),
        (misshape, "average.safetensors", r"'head.bias' has shape \(5,\), expected \(4,\)"),
        (rename, "average.safetensors", "the file lacks 'embedding.weight'"),
        (Path.unlink, "random.safetensors", "does not exist"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_serves(tmp_path, whole, damage, file, words):
    train(tiny(steps=4), tmp_path, quiet=True)
    place = tmp_path / "checkpoints" / "00000004"
    damage(place / file)
    with pytest.raises(ValueError, match=rf"{file}.*{words}.*; delete .*00000004 to go on from an earlier"):
        train(tiny(), tmp_path, quiet=True)
    assert steps_in(tmp_path) == [1, 2, 3, 4]
    for part in place.iterdir():
        part.unlink()
    place.rmdir()
    train(tiny(steps=4), tmp_path, quiet=True)
    assert 4 in steps_in(tmp_path)


@pytest.mark.parametrize("call", range(8))
def test_a_full_disk_costs_no_checkpoint(tmp_path, monkeypatch, call):
    """The third save fails at each of its files in turn, or on making its folder."""
    train(tiny(steps=2), tmp_path, quiet=True)
    before = parts(tmp_path, 2)
    fill_disk(monkeypatch, call)
    with pytest.raises(OSError, match="No space left"):
        train(tiny(steps=4), tmp_path, quiet=True)
    monkeypatch.undo()
    assert steps_in(tmp_path) == [1, 2]
    assert not leftovers(tmp_path)
    assert_same(parts(tmp_path, 2), before)
    train(tiny(steps=4), tmp_path, quiet=True)
    assert steps_in(tmp_path) == [1, 2, 3, 4]


def fill_disk(monkeypatch, free_calls: int) -> None:
    """Lets ``free_calls`` files be written, then none; call 7 fails on making a folder."""
    full, count = OSError(errno.ENOSPC, "No space left on device"), itertools.count()
    real_sync, real_folder = os.fsync, checkpoints.tempfile.mkdtemp

    def fsync(handle):
        if next(count) >= free_calls:
            raise full
        real_sync(handle)

    def mkdtemp(*rest, **named):
        if free_calls == 7:
            raise full
        return real_folder(*rest, **named)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(checkpoints.tempfile, "mkdtemp", mkdtemp)


# --- progress -------------------------------------------------------------------------------------


def test_plain_lines_when_not_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", -1.0)
    with Progress("train", 200, 100) as shown:
        record = shown.advance(150, loss=0.25)
    assert record["step"] == 150
    assert record["loss"] == 0.25
    assert record["per_second"] > 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("train 150/200 loss 0.25 ")
    assert err.endswith(" min left\n")


def test_lines_are_seldom_and_quiet_is_quiet(capsys, monkeypatch):
    with Progress("train", 10) as shown:
        shown.advance(1)
    monkeypatch.setattr(progress, "PLAIN_SECONDS", -1.0)
    with Progress("train", 10, quiet=True) as shown:
        assert shown.advance(1)["step"] == 1
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("train", 10) as shown:
        shown.advance(3, loss=0.5)
    out, err = capsys.readouterr()
    assert out == ""
    assert "train" in err
    assert "3/10 loss 0.5" in err


def test_a_run_can_start_from_the_weights_of_another(tmp_path):
    first = train(tiny(SELDOM), tmp_path / "first", quiet=True)
    run = replace(tiny(SELDOM, steps=0), start=str(first))
    after = train(run, tmp_path / "second", quiet=True)
    old, new = (checkpoints.read_tensors(p / "weights.safetensors") for p in (first, after))
    assert_same(new, old)
    with pytest.raises(ValueError, match="nowhere"):
        train(replace(run, start=str(tmp_path / "nowhere")), tmp_path / "third", quiet=True)


def test_compiling_without_a_compiler_is_refused_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(ValueError, match="needs a C"):
        train(override(sudoku(), {"machine.compile": "true"}), tmp_path, quiet=True)
    assert not list(tmp_path.glob("checkpoints/*"))


def test_bfloat16_is_left_to_the_device_unless_told(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("unmask.base.devices.has_bfloat16", lambda device: asked.append(device) or False)
    train(replace(tiny(), machine=replace(tiny().machine, bfloat16=None)), tmp_path / "none", quiet=True)
    assert set(asked) == {"cpu"}
    asked.clear()
    train(tiny(), tmp_path / "told", quiet=True)
    assert not asked
    assert_same(parts(tmp_path / "none", 12), parts(tmp_path / "told", 12))
