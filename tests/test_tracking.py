"""Trackers: every logged step once, also after a crash; the first process alone; a failing one never ends a training."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import pytest
from tiny import log_of, often, tiny

from unmask.command_line.app import main
from unmask.training import tracking
from unmask.training.loop import train

NAMES = ("step", "loss", "lr", "per_second", "seconds")


def table(folder):
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def trained(folder, steps, *track):
    """A training that logs every step and saves at its end."""
    train(tiny(often(save_minutes=60), steps=steps, decay=0.0), folder, quiet=True, track=track)


def crashed(folder, *track):
    """A folder as a crash leaves it at step 8, long after the checkpoint of step 5; the losses until then."""
    trained(folder, 5, *track)
    trained(folder, 8, *track)
    shutil.rmtree(folder / "checkpoints" / "00000008")
    shutil.rmtree(folder / "model")
    return [row["loss"] for row in log_of(folder)]


def test_a_table_holds_every_step_once_after_a_crash(tmp_path):
    before = crashed(tmp_path, tracking.csv)
    with (tmp_path / "log.csv").open("a") as file:
        file.write("3,0.5,0.1,9.0,1")  # a line that was cut, yet reads like a whole one
    trained(tmp_path, 9, tracking.csv)
    after = table(tmp_path)
    assert tuple(after[0]) == NAMES
    assert [int(row["step"]) for row in after] == list(range(1, 10))
    assert [float(row["loss"]) for row in after] == [row["loss"] for row in log_of(tmp_path)]
    assert [row["loss"] for row in log_of(tmp_path)][:8] == before


def test_a_tracker_of_ones_own_hears_what_the_log_holds_and_is_closed(tmp_path):
    heard, told = [], []

    @contextmanager
    def own(run, folder, step):
        told.append((run.name, folder, step))
        yield heard.append
        told.append("closed")

    trained(tmp_path, 4, own)
    trained(tmp_path, 6, own)
    assert told == [("tiny", tmp_path, 0), "closed", ("tiny", tmp_path, 4), "closed"]
    assert heard == [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("when", ["row", "end"])
def test_a_tracker_that_fails_is_left_out_and_training_goes_on(tmp_path, when):
    heard = []

    @contextmanager
    def unreliable(run, folder, step):
        yield lambda row: heard.append(row) if when == "end" else 1 / 0
        raise OSError("no connection")

    with pytest.warns(UserWarning, match="unreliable is left out from here on: ") as caught:
        trained(tmp_path, 6, unreliable, tracking.csv)
    assert len(caught) == {"row": 2, "end": 1}[when]  # not once a row
    assert [row["step"] for row in log_of(tmp_path)] == [int(r["step"]) for r in table(tmp_path)]
    assert len(table(tmp_path)) == 6


# --- other people's packages ----------------------------------------------------------------------


class Service(ModuleType):
    """A stand-in for wandb and trackio: what was opened, what it heard by run, and whether it was finished."""

    def __init__(self, name):
        super().__init__(name)
        self.opened, self.heard, self.ends = [], {}, 0

    def init(self, **settings):
        self.opened.append(settings)
        rows = self.heard.setdefault(settings.get("id") or settings["name"], [])

        def finish():
            self.ends += 1

        return SimpleNamespace(log=lambda row, step: rows.append((step, row)), finish=finish)


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_service_is_told_every_step_once_after_a_crash(tmp_path, monkeypatch, name):
    service = Service(name)
    monkeypatch.setitem(sys.modules, name, service)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    tracker = {"wandb": tracking.wandb, "trackio": tracking.trackio}[name]
    crashed(tmp_path, tracker)
    trained(tmp_path, 10, tracker)
    ((_, rows),) = service.heard.items()  # one run there
    assert [step for step, _ in rows] == list(range(1, 11))
    assert set(rows[0][1]) == set(NAMES) - {"step"}
    assert service.ends == 3
    assert service.opened[0]["config"]["optimiser"]["steps"] == 5
    assert [s.get("mode") for s in service.opened] == (["offline"] * 3 if name == "wandb" else [None] * 3)


def test_a_run_that_begins_anew_is_another_one_there(tmp_path, monkeypatch):
    service = Service("wandb")
    monkeypatch.setitem(sys.modules, "wandb", service)
    for _ in range(2):
        trained(tmp_path, 3, tracking.wandb)
        shutil.rmtree(tmp_path / "checkpoints")
    assert [len(rows) for rows in service.heard.values()] == [3, 3]


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
def test_tensorboard_shows_every_step_once_after_a_crash(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    crashed(tmp_path, tracking.tensorboard)
    trained(tmp_path, 9, tracking.tensorboard)
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == set(NAMES) - {"step"}
    assert [event.step for event in found.Scalars("loss")] == list(range(1, 10))


# --- the command ----------------------------------------------------------------------------------

SMALL = [
    "--machine.log_every=1",
    "--batch_size=2",
    "--machine.compile=false",
    "--optimiser.steps=2",
    "--quiet",
]


def test_what_cannot_be_tracked_is_said_on_one_line_before_training(tmp_path, monkeypatch, capsys):
    words = ["train", "lo_nae_sat", "--out", str(tmp_path / "run"), *SMALL, "--track"]
    assert main([*words, "csv", "tensorbord"]) == 2
    assert capsys.readouterr().err == (
        "unmask: --track tensorbord: expected some of csv, tensorboard, wandb, trackio; log.jsonl is written in any case\n"
    )
    for package in ("wandb", "trackio", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, package, None)
    for name in ("wandb", "trackio", "tensorboard"):
        assert main([*words, name]) == 2
        said = capsys.readouterr().err
        assert said == f"unmask: {name} is not installed: pip install 'unmask[track]', or {name} alone\n"
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))


def test_the_command_tracks_by_name(tmp_path):
    assert main(["train", "lo_nae_sat", "--out", str(tmp_path), *SMALL, "--track", "csv", "csv"]) == 0
    assert [row["step"] for row in table(tmp_path)] == ["1", "2"]
