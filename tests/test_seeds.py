"""Seeds of the command line: to each its own noise, also above 2^32 - 1, of which `manual_seed` keeps 32 bits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from unmask.base import noise
from unmask.command_line import boards
from unmask.command_line.app import main

WORD = 2**32


def state(generator):
    return generator.get_state().view(torch.int64)[3:627].tolist()


@pytest.mark.parametrize("seed", [0, 1, 12345, WORD - 1])
def test_small_seeds_draw_what_they_always_drew(seed):
    assert torch.equal(noise.seeded(seed).get_state(), torch.Generator().manual_seed(seed).get_state())


def test_large_seeds_repeat_nobody():
    seeds = [
        0,
        1,
        5,
        WORD - 1,
        WORD,
        WORD + 1,
        2 * WORD,
        5 * WORD + 5,
        2**62,
        2**63 - 1,
        2**64 - 2,
        2**64 - 1,
    ]
    assert len({tuple(state(noise.seeded(s))) for s in seeds}) == len(seeds)
    assert torch.rand(1, generator=noise.seeded(WORD)) != torch.rand(1, generator=noise.seeded(0))


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_that_no_generator_has_are_one_line(seed):
    with pytest.raises(ValueError, match=r"^seed .*expected a whole number in 0\.\.2\^64 - 1"):
        noise.seeded(seed)


def test_narrowed_seeds_stay_in_their_range_and_apart():
    seeds = [0, 3, WORD - 1, WORD, WORD + 3, 2**57, 2**57 + 3, 2**63 - 1]
    found = [noise.narrowed(s, 54) for s in seeds]
    assert found[:3] == seeds[:3]
    assert all(WORD <= x < 2**54 for x in found[3:])
    assert len(set(found)) == len(seeds)


def test_puzzles_of_large_seeds_are_others(monkeypatch):
    """128 seeds are a step of the boards' seed, a word of 64 bits: 2^57 came back to 0."""
    asked = []

    def puzzles(count, seed, clues, cells):
        asked.append(seed % 2**64)
        return np.zeros((count, 81), np.int64), np.zeros((count, 81), np.int64)

    monkeypatch.setattr(boards.sudoku, "puzzles", puzzles)
    for seed in (0, 3, 3 + 2**57, 2**63 - 1):
        boards.generate("40", 2, seed)
    assert asked[:2] == [boards.FRESH + 40, boards.FRESH + 3 * 128 + 40]
    assert len(set(asked)) == 4
    assert min(asked) >= boards.FRESH  # training counts up from small seeds


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "molecules", "--num", "1", "--order", "random", "--plan", "1,4,9"],
        ["eval", "molecules", "FILE", "--samples", "1"],
    ],
    ids=lambda words: words[0],
)
def test_commands_draw_other_noise_for_seeds_that_differ_by_2_to_the_32(words, tmp_path, capsys):
    (tmp_path / "m.smi").write_text("CCO\nc1ccccc1O\n")
    words = [str(tmp_path / "m.smi") if w == "FILE" else w for w in words]

    def found(seed):
        assert main([*words, "--seed", str(seed), "--json", "--quiet"]) == 0
        report = json.loads(capsys.readouterr().out)
        return (
            [s["text"] for s in report["samples"]]
            if "samples" in report
            else report["nelbo"]["nats"]["value"]
        )

    assert found(7) == found(7)
    assert found(7) != found(7 + WORD)
