"""One training in several processes: the same numbers as in one, and where one stops or fails, all end and say why."""

from __future__ import annotations

import signal
import sys
import weakref
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from helpers import seeded
from ranks import differing, given, killed, losses, small, steps_of, stopped, together, tracked, trained
from test_training import assert_same, leftovers, parts, steps_in
from tiny import log_of, tiny

from unmask.base import checkpoints
from unmask.recipes import Machine
from unmask.training import resuming
from unmask.training.together import batches, world
from unmask.training.together.locks import locked
from unmask.training.together.world import World

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not dist.is_available() or not dist.is_gloo_available(), reason="needs gloo"
)

TWENTY = {"steps": 20}

OBJECTIVES = [
    *(
        "sudoku",
        "sudoku_hard",
        "sudoku_solver",
        "sudoku_equivariant",
        "lo_nae_sat",
        "zebra",
        "text",
        "text_d3pm",
        "text_md4",
        "text_genmd4",
    ),
    *("text_autoregressive", "molecules", "digits", "digits_upscale4"),
]
"""One recipe for every objective and kind of batch."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A folder in which one process has done twenty steps, and their losses."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, losses(str(folder), TWENTY)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Eight steps of two processes in one go, under either strategy."""
    folder = tmp_path_factory.mktemp("whole")
    for strategy in ("ddp", "fsdp"):
        given(together(partial(trained, strategy=strategy), str(folder / strategy)))
    return folder


def joined(folder: Path, step: int) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint but the random states, pieces put together."""
    found: dict[str, list[torch.Tensor]] = {}
    for path in sorted((folder / "checkpoints" / f"{step:08d}").glob("[!r]*.safetensors")):
        for name, value in checkpoints.read_tensors(path).items():
            found.setdefault(f"{path.stem.split('-')[0]}.{name}", []).append(value)
    return {k: v[0] if len(v) == 1 else torch.cat(v) for k, v in found.items()}


def test_only_the_first_process_tells_trackers(tmp_path):
    given(together(tracked, str(tmp_path)))
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", *map(str, range(1, 9))]
    assert (tmp_path / "opened").read_text() == "x"


# --- the same numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize(("strategy", "accumulate"), [("ddp", 1), ("ddp", 4), ("fsdp", 1), ("fsdp", 2)])
def test_two_processes_follow_one(tmp_path, alone, strategy, accumulate):
    """Losses, weights, their average, and the moments, which say how large the gradient was."""
    folder, wanted = alone
    work = partial(losses, strategy=strategy, accumulate=accumulate)
    for found in given(together(work, str(tmp_path), TWENTY)):
        assert found == pytest.approx(wanted, abs=1e-5)
    assert wanted[0] - wanted[-1] > 0.05
    mine, theirs = joined(tmp_path, 20), joined(folder, 20)
    assert set(mine) == set(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, atol=2e-5, rtol=1e-3, msg=name)
    weights = checkpoints.read_tensors(tmp_path / "model" / "weights.safetensors")
    average = {k.removeprefix("average."): v for k, v in mine.items() if k.startswith("average.")}
    assert_same(weights, average)


def test_accumulation_alone_changes_nothing(tmp_path, alone):
    assert losses(str(tmp_path), TWENTY, accumulate=8) == pytest.approx(alone[1], abs=1e-5)


def test_batches_made_ahead_and_activations_made_anew_are_the_same(tmp_path, alone):
    assert losses(str(tmp_path), TWENTY, prefetch=3, recompute=True) == alone[1]


@pytest.mark.global_random
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_of_a_batch_is_the_mean_of_those_of_its_parts(name):
    """What sharing a batch out rests on, dropout left aside: nothing of a row depends on the rows beside it."""
    run = small(name)
    run, random = run.prepare(run), seeded(0)
    network = run.build(run.network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=random), alpha=0.2)
    data = run.batch(run, 3)
    every = [part for rank in range(2) for part in batches.parts(data, World(rank, 2), 3)]
    losses = torch.stack([run.objective(network, part) for part in every])
    assert losses.std() > 0
    assert losses.mean().item() == pytest.approx(run.objective(network, data).item(), rel=1e-5)


def test_the_head_of_masked_positions_alone_is_gathered(tmp_path):
    """The sparse loss reads the head's own matrix, outside of any module's forward pass."""
    wanted = steps_of("digits", str(tmp_path / "one"))
    for found in given(together(partial(steps_of, strategy="fsdp"), "digits", str(tmp_path / "two"))):
        assert found == pytest.approx(wanted, abs=1e-5)


def test_muon_gathers_its_matrices(tmp_path):
    wanted = losses(str(tmp_path / "one"), {"steps": 3, "muon": True})
    work = partial(losses, strategy="fsdp", recompute=True, prefetch=1)
    for found in given(together(work, str(tmp_path / "two"), {"steps": 3, "muon": True})):
        assert found == pytest.approx(wanted, abs=1e-5)


# --- going on -------------------------------------------------------------------------------------


def test_a_process_killed_in_a_checkpoint_loses_nothing(tmp_path, whole):
    """The second one, at the last of its files of the fourth; both go on bit for bit, dropout included."""
    first, second = together(killed, str(tmp_path), "fsdp", 16, alike=False)
    assert second.code == -signal.SIGKILL
    assert "another process of this training ended" in first.error
    assert steps_in(tmp_path) == [1, 2, 3]
    given(together(partial(trained, strategy="fsdp"), str(tmp_path)))
    assert not leftovers(tmp_path)
    assert_same(parts(tmp_path, 8), parts(whole / "fsdp", 8))
    assert log_of(tmp_path) == log_of(whole / "fsdp")


def test_one_process_is_told_to_stop_and_all_stop_at_one_step(tmp_path, whole):
    """The second signal is torchrun's own, of the same wish."""
    for end in together(stopped, str(tmp_path), signal.SIGTERM, alike=False):
        assert end.error.startswith("KeyboardInterrupt")
    assert steps_in(tmp_path) == [5]
    assert not (tmp_path / "model").exists()
    given(together(trained, str(tmp_path)))
    assert_same(parts(tmp_path, 8), parts(whole / "ddp", 8))


def test_fewer_or_more_processes_go_on(tmp_path, alone):
    """Two that share the weights, then one, then two: losses, and the weights at the end, are those of one all the way.

    What is left is far below what three seeds differ by.
    """
    rest = {"decay": 0.0}
    given(together(partial(losses, strategy="fsdp"), str(tmp_path), {"steps": 6} | rest))
    losses(str(tmp_path), {"steps": 9} | rest)
    given(together(losses, str(tmp_path), {"steps": 12} | rest))
    wanted = losses(str(tmp_path / "one"), {"steps": 12} | rest)
    found = [record["loss"] for record in log_of(tmp_path)]
    assert found == pytest.approx(wanted, abs=1e-5)
    ends = [wanted[-1], *(losses(str(tmp_path / f"{n}"), {"steps": 12} | rest, seed=n)[-1] for n in (1, 2))]
    assert abs(found[-1] - wanted[-1]) < 0.01 * (max(ends) - min(ends))
    mine, theirs = joined(tmp_path, 12), joined(tmp_path / "one", 12)
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, atol=2e-5, rtol=1e-3, msg=name)


def test_random_states_of_processes_are_their_own(whole):
    """No two of a thousand processes and a few steps share a state, nor do those of a checkpoint."""
    before, found = torch.get_rng_state(), set()
    for step in (0, 1, 10):
        for rank in range(1000):
            resuming.seed_dropout(tiny(), step, rank)
            found.add(torch.get_rng_state().numpy().tobytes())
    torch.set_rng_state(before)
    assert len(found) == 3000
    for strategy in ("ddp", "fsdp"):
        states = [v for k, v in parts(whole / strategy, 1).items() if k.startswith("random-")]
        assert len(states) == 2
        assert not torch.equal(*states)


def test_a_missing_piece_is_named(tmp_path, whole):
    given(together(partial(trained, steps=2, strategy="fsdp"), str(tmp_path)))
    (tmp_path / "checkpoints" / "00000002" / "average-00002-of-00002.safetensors").unlink()
    first, second = together(partial(trained, strategy="fsdp"), str(tmp_path))
    for end in (first, second):
        assert "average-00002-of-00002.safetensors does not exist" in end.error
        assert "to go on from an earlier checkpoint" in end.error


# --- where one fails ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("seed", "seed is 1 in process 1, and 0 in process 0: give all the same settings"),
        ("rate", "optimiser.learning_rate is 0.5 in process 1"),
        ("steps", "optimiser.steps is 13 in process 1"),
        ("machine", "machine.log_every is 2 in process 1"),
        ("data", "the checksum of a batch is"),
        ("shard", "No such shard"),
        ("first shard", "no such shard"),
        ("disk", "No space left on device"),
        ("memory", "out of memory"),
    ],
)
def test_where_one_fails_all_end_and_the_first_says_why(tmp_path, what, words):
    first, second = together(differing, str(tmp_path), what, alike=False)
    assert words in second.error
    assert words in first.error or (
        what == "memory" and "another process of this training ended" in first.error
    )
    assert first.error.startswith("Elsewhere")
    assert not leftovers(tmp_path)
    assert not (tmp_path / "model").exists()


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path):
    for end in together(partial(losses, accumulate=3), str(tmp_path), TWENTY):
        assert "a batch of 32 rows for 2 processes x 3 parts (machine.accumulate)" in end.error
        assert "a multiple of 6, by --batch_size" in end.error
    with pytest.raises(ValueError, match="1 processes x 5 parts"):
        losses(str(tmp_path / "one"), TWENTY, accumulate=5)


def test_two_runs_in_one_folder(tmp_path):
    with locked(tmp_path):
        first, second = together(losses, str(tmp_path), TWENTY)
    assert first.error.startswith("ValueError")
    assert "is being trained in by process" in first.error
    assert second.error.startswith("Elsewhere")


def test_processes_that_see_other_folders_are_told(tmp_path):
    (tmp_path / "run").mkdir()
    given(together(partial(trained, steps=2), str(tmp_path / "run")))
    for end in together(differing, str(tmp_path / "run"), "folder", alike=False):
        assert "the newest checkpoint is 0 in process 1, and 2 in process 0" in end.error


def test_processes_without_torchrun_are_told(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="RANK is '' where WORLD_SIZE is 4: start by torchrun"):
        losses(str(tmp_path), TWENTY)


def test_what_an_error_holds_is_freed_before_the_group(monkeypatch):
    """Else torch waits at the end of the process, now and then, for what the group has left behind."""

    class Held:
        pass

    seen, alive = [], []

    def failing():
        held = Held()
        seen.append(weakref.ref(held))
        raise ValueError("no")

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: alive.append(seen[0]() is not None))
    with pytest.raises(ValueError, match="no"), world._opened(Machine(), 2):
        failing()
    assert alive == [False]
