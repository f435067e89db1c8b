"""What commands print does not depend on how a set is cut into batches (64 rows): one batch of all gives the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import unmask
from unmask.command_line.app import main
from unmask.data import sudoku
from unmask.kernels import commit, remask
from unmask.masking import schedules
from unmask.orders import presets

COUNT = 70
"""More than one batch."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def document(capsys):
    def call(*words):
        capsys.readouterr()
        code = main([*map(str, words), "--json", "--quiet"])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    return call


@pytest.fixture(scope="module")
def puzzles(tmp_path_factory):
    """A file of puzzles with a few blanks and their solutions."""
    pytest.importorskip("numba")
    path = tmp_path_factory.mktemp("puzzles") / "p.txt"
    grids = sudoku.full_grids(COUNT, 5)
    posed = grids.copy()
    random = np.random.default_rng(0)
    for row in posed:
        row[random.choice(81, 60, replace=False)] = sudoku.BLANK
    path.write_text("".join(f"{sudoku.text(p)},{sudoku.text(g)}\n" for p, g in zip(posed, grids)))
    return path, torch.as_tensor(posed), torch.as_tensor(grids)


SAMPLERS = {
    "random": lambda model, tokens, ids: unmask.sample(
        model.denoiser, tokens, presets.random(6, 3), generator=seeded(3), order_ids=ids, item_ids=ids
    ),
    "low-confidence": lambda model, tokens, ids: commit.sample(
        model.denoiser, tokens, commit.low_confidence(1.0, 6), generator=seeded(3), item_ids=ids
    ),
    "remdm": lambda model, tokens, ids: remask.sample(
        model.denoiser,
        tokens,
        remask.remdm(schedules.linear().alpha, schedules.uniform_grid(10), remask.cap(0.008)),
        generator=seeded(3),
        item_ids=ids,
    ),
}


@pytest.mark.parametrize("order", SAMPLERS)
def test_drawn_symbols_are_those_of_one_batch(document, puzzles, order):
    path, posed, _ = puzzles
    how = ["--steps", "10"] if order == "remdm" else ["--plan", "6"]
    found = document("sample", "sudoku", "--prompt", path, "--order", order, *how, "--seed", "3")
    model = unmask.load("sudoku")
    told = SAMPLERS[order](model, posed, torch.arange(COUNT))
    same = sum(s["text"] == text for s, text in zip(found["samples"], model.decode(told.tokens)))
    assert same >= COUNT - 1  # the last digits of a network change with the shape


def test_the_bounds_of_puzzles_are_those_of_one_batch(document, puzzles):
    path, posed, grids = puzzles
    report = document(
        "eval", "sudoku", path, "--samples", "2", "--seed", "4", "--order", "random", "--plan", "30"
    )
    denoiser = unmask.load("sudoku").denoiser
    for name, visible in (
        ("nelbo", torch.zeros_like(posed, dtype=torch.bool)),
        ("nelbo_given_clues", posed != sudoku.BLANK),
    ):
        told = unmask.nelbo(denoiser, grids, generator=seeded(4), samples=2, visible=visible).value
        assert report[name]["value"] == pytest.approx(float(told.mean()), rel=1e-5)


@pytest.mark.parametrize("count", [1, 64, COUNT])
def test_the_bound_of_lines_is_that_of_one_batch(document, tmp_path, count):
    lines = (["CCO", "c1ccccc1", "CC(=O)N", "CCN"] * 20)[:count]
    (tmp_path / "m.smi").write_text("\n".join(lines))
    report = document("eval", "molecules", tmp_path / "m.smi", "--samples", "2", "--seed", "4")
    model = unmask.load("molecules")
    told = model.nelbo(model.encode(lines), generator=seeded(4), samples=2, with_length=True).value
    assert report["nelbo"]["nats"]["value"] == pytest.approx(float(told.mean()), rel=1e-5)


def test_the_model_takes_numbers_of_items():
    model = unmask.load("molecules")
    tokens = model.encode(["CCO", "c1ccccc1", "CC(=O)N"])
    whole = model.nelbo(tokens, generator=seeded(1), samples=2).value
    parts = [
        model.nelbo(tokens[ids], generator=seeded(1), samples=2, item_ids=ids).value
        for ids in torch.split(torch.arange(3), 2)
    ]
    assert torch.allclose(torch.cat(parts), whole, rtol=1e-5)
