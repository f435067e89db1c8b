"""benchmarks/accelerator.py: what it checks it can also refuse, seconds are shared, and nothing that was found is lost."""

from __future__ import annotations

import json
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import unmask
from unmask.orders import presets

PLACE = Path(__file__).parent.parent / "benchmarks"
if not PLACE.is_dir():
    pytest.skip("needs the benchmarks", allow_module_level=True)
sys.path.insert(0, str(PLACE))
import accelerator  # noqa: E402


def job(tmp_path, seconds=60.0, **changes):
    end = time.monotonic() + seconds
    return replace(accelerator.Job("cpu", True, (), tmp_path, end, end), **changes)


def test_the_core_is_right_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "ORDERS", {"random": presets.random(1)})
    rows = list(accelerator.core(job(tmp_path)))
    assert len(rows) == 5
    assert {row["note"] for row in rows} == {"ok"}


def test_draws_of_another_law_are_found_out(tmp_path):
    denoiser, selector = accelerator.denoiser_on(accelerator.small_network(), "cpu"), presets.random(1)
    every = torch.cartesian_prod(*[torch.arange(3)] * 4)
    log_probs = unmask.log_likelihood(denoiser, every, selector)
    other = unmask.tempered(denoiser, 1.2)
    assert accelerator.surprise(other, selector, log_probs, job(tmp_path)) > 5
    assert accelerator.verdict("x", 6.0, 5.0, "")["note"] == "FAILED"


def test_only_a_gain_beyond_its_interval_counts():
    before = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    gain, interval = accelerator.gained(before, before - 0.1 + torch.tensor([0.01, -0.01, 0.01, -0.01]))
    assert gain == pytest.approx(0.1)
    assert interval == pytest.approx(
        1.96 * 0.01 * (4 / 3) ** 0.5 / 2, rel=1e-5
    )  # of differences, not of values


def test_sections_share_the_seconds_and_every_row_is_on_disk_before_the_next(tmp_path, monkeypatch, capsys):
    def found():
        (path,) = tmp_path.glob("*.json")
        return json.loads(path.read_text())["parts"]

    def first(given):
        yield {"what": "one", "left": given.left(), "note": ""}
        assert [row["what"] for row in found()["First"]] == ["one"]
        yield {"what": "two", "note": ""}

    def failing(given):
        yield {"what": "three", "note": ""}
        raise RuntimeError("out\nof memory")

    def endless(given):
        yield {"what": "four", "left": given.left(), "note": ""}
        while True:
            time.sleep(0.01)

    sections = {
        "First": (first, 0, 0.5),
        "Failing": (failing, 0, 1.0),
        "Long": (first, 1e9, 1.0),
        "End": (endless, 0, 1.0),
    }
    monkeypatch.setattr(accelerator, "SECTIONS", sections | {"Late": (first, 4, 1.0)})
    words = ["accelerator", "--device", "cpu", "--minutes", "0.05", "--small", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    began = time.monotonic()
    assert accelerator.main() == 1
    assert time.monotonic() - began < 15
    parts = found()
    assert 0 < parts["First"][0]["left"] <= 1.5
    assert [row["note"] for row in parts["Failing"]] == ["", "FAILED: out of memory"]
    assert parts["Long"][0]["note"].startswith("skipped: ")
    assert parts["End"][-1]["note"] == "skipped: the minutes are over"
    assert parts["Late"][0]["note"] == "skipped: 0 s are left, 1 are needed"
    (page,) = tmp_path.glob("*.md")
    assert "no accelerator: a run on the CPU" in page.read_text()


def test_a_shipped_model_goes_on_and_is_kept_where_it_is_better(tmp_path, monkeypatch):
    """Values are made up; run, steps and files are real."""
    given = iter([torch.ones(4), torch.full((4,), 0.5) + torch.arange(4) / 100])
    monkeypatch.setattr(accelerator, "values", lambda model, run, batches: next(given).double())
    monkeypatch.setattr(accelerator, "held_out", lambda run, count: [])
    run = accelerator.begun("sudoku", job(tmp_path))
    assert (run.network.width, run.network.loops, Path(run.start).name) == (128, 4, "sudoku")
    run = run.prepare(replace(run, batch_size=1, data=replace(run.data, grids=0)))
    monkeypatch.setattr(accelerator, "step_seconds", lambda run, job: 60.0)
    row, files = accelerator.improved("sudoku", run, job(tmp_path), 1000.0)
    assert 10 <= row["steps"] <= 15
    assert row["gain"] == pytest.approx(0.485)
    (tmp_path / "sudoku.tar").write_bytes(files)
    with tarfile.open(tmp_path / "sudoku.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    model, shipped = unmask.load(tmp_path / "sudoku"), unmask.load("sudoku")
    assert model.config["trained_steps"] == row["steps"]
    assert model.hash != shipped.hash


def test_a_device_that_is_not_there_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["accelerator", "--device", "cuda:77", "--out", str(tmp_path / "out")])
    with pytest.raises(ValueError, match="no device 'cuda:77' here; expected one of cpu"):
        accelerator.main()
    assert not (tmp_path / "out").exists()
