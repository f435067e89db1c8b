"""How many hard Sudoku puzzles does a model solve, a cell at a time or all that are sure?

Run: python benchmarks/sudoku_hard.py [--model sudoku] [--num 500] [--part test] [--sets minimal ...] [--write NAME]

17-clue and very hard puzzles come from the package larsdoku (AGPL, fetched when asked for, never stored here), one of
each symmetry class: part ``valid`` is for choosing between models, part ``test`` for reporting.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import record
import torch
from torch import Tensor

import unmask
from unmask.base.statistics import wilson
from unmask.data import sudoku, tokens
from unmask.data.sources import puzzle_sets
from unmask.data.sources.fetch import fetch
from unmask.data.sudoku import BLANK

SEEDS = {"valid": 20_261_128, "test": 20_261_129}
PUBLISHED = {"17 clues": "sudoku_17_clues", "very hard": "sudoku_very_hard"}
BATCH = 128


def puzzles(name: str, part: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Puzzles of a set and their solutions, int64 [count, 81] each."""
    if name in PUBLISHED:
        found = puzzle_sets.read(tokens.load(fetch(PUBLISHED[name]) / part))
        return found.puzzles[:count], found.solutions[:count]  # type: ignore[index]
    clues = None if name == "minimal" else int(name.split()[0])
    return sudoku.puzzles(count, SEEDS[part] + (clues or 0), clues=clues)


def compiled(network: torch.nn.Module) -> Callable[..., Tensor]:
    """The network compiled once for batches of any size (a single puzzle goes twice); rows are taken from all."""
    whole = torch.compile(network, dynamic=True)

    def run(tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        logits: Tensor = whole(tokens if len(tokens) > 1 else tokens.repeat(2, 1))[: len(tokens)]
        return logits if rows is None else logits.gather(1, rows[..., None].expand(-1, -1, logits.shape[2]))

    return run


@torch.inference_mode()
def solved(
    network: Callable[..., Tensor], puzzle: Tensor, truth: Tensor, tau: float | None
) -> tuple[int, int]:
    """Boards solved and network calls: arg-max symbols, the cell of largest margin first, or all beyond ``tau``.

    A cell stays as it is written, so a board is given up at its first wrong cell: calls count up to there.
    """
    boards, calls = puzzle.clone(), 0
    live = torch.arange(len(boards))
    right = 0
    while len(live):
        x = boards[live]
        blank = x == BLANK
        top = network(x).double().softmax(-1).topk(2)
        margin = (top.values[..., 0] - top.values[..., 1]).masked_fill(~blank, -1).div(1e-9).round()
        take = torch.zeros_like(blank).scatter(1, margin.argmax(1, keepdim=True), True)
        take |= blank & (top.values[..., 0] >= (2 if tau is None else tau))
        boards[live] = torch.where(take, top.indices[..., 0], x)
        calls += len(live)
        wrong = ((boards[live] != BLANK) & (boards[live] != truth[live])).any(1)
        done = (boards[live] != BLANK).all(1) & ~wrong
        right += int(done.sum())
        live = live[~wrong & ~done]
    return right, calls


def measured(
    network: Callable[..., Tensor], name: str, options: argparse.Namespace, tau: float | None
) -> dict[str, Any]:
    """One row: a set in an order."""
    began = time.monotonic()
    puzzle, truth = (torch.as_tensor(b) for b in puzzles(name, options.part, options.num))
    parts = zip(puzzle.split(BATCH), truth.split(BATCH))
    with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
        right, calls = np.sum([solved(network, p, t, tau) for p, t in parts], 0)
    low, high = wilson(int(right), len(puzzle))
    return {
        "puzzles": name,
        "part": options.part,
        "n": len(puzzle),
        "order": "margin" if tau is None else f"threshold {tau}",
        "solved %": round(100 * right / len(puzzle), 1),
        "95 %": f"{100 * low:.1f} to {100 * high:.1f}",
        "calls": round(calls / len(puzzle), 1),
        "seconds": round(time.monotonic() - began),
    }


def main() -> None:
    """Prints, and with --write records, exact match with Wilson intervals."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="sudoku")
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--part", choices=tuple(SEEDS), default="test")
    parser.add_argument("--sets", nargs="+", default=["34 clues", "minimal", *PUBLISHED])
    parser.add_argument("--tau", nargs="+", default=["none"], help="'none' is one cell a call")
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--write", metavar="NAME")
    options = parser.parse_args()
    model = unmask.load(options.model)
    network = model.denoiser.network
    network = compiled(network) if options.compile else network
    rows = []
    for name in options.sets:
        for tau in options.tau:
            rows.append(measured(network, name, options, None if tau == "none" else float(tau)))
            print(json.dumps(rows[-1]), flush=True)
    notes = f"Model `{options.model}`, weights {model.hash}. Exact match; Wilson 95 % interval."
    print("\n".join([notes, *record.table(rows)]))
    if options.write:
        print(record.write(options.write, rows, notes))


if __name__ == "__main__":
    main()
