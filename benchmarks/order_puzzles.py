"""What does the order decide on Sudoku? The plain model, one cell a call, symbols drawn or arg-max, four sets of puzzles.

Run: python benchmarks/order_puzzles.py [--model sudoku] [--num 200] [--sets "17 clues" ...] [--write]

Orders are compared where the symbols come from the same source: drawn with drawn, arg-max with arg-max. 17-clue and very
hard puzzles are the published ones of `sudoku_hard.py`, part ``test``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import numpy as np
import record
import sudoku_hard
import torch
from order_lab import ORDERS, SOURCES, interval, sampled, share

import unmask

SETS = ("17 clues", "minimal", "34 clues", "very hard")

NOTES = """
Model `{name}`, weights {hash}. One cell a call. Solved: every cell equals the only solution; Wilson 95 % interval.
Part test.
"margin less random": points on the same puzzles, 95 % interval by Student's t over puzzles.
"""


def main() -> None:
    """Prints, and with --write records, solved shares by set, source and order."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="sudoku")
    parser.add_argument("--num", type=int, default=200)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = unmask.load(options.model)
    tables: dict[str, list[dict[str, Any]]] = {"orders": [], "margin less random": []}
    for name in options.sets:
        for how in SOURCES:
            rows, gap = compared(model, name, how, options.num)
            tables["orders"] += rows
            tables["margin less random"].append(gap)
    notes = NOTES.format(name=options.model, hash=model.hash)
    print("\n".join([notes, *(line for rows in tables.values() for line in ("", *record.table(rows)))]))
    if options.write:
        print(record.write_parts(f"order_puzzles_{options.model}", tables, notes))


def compared(
    model: unmask.Model, name: str, how: str, num: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A row for each order on one set with one source of symbols, and the gap between margin and random."""
    found = dict(outcomes(model, name, how, num))
    what = {"puzzles": name, "symbols": how}
    rows = [what | {"order": order} | share(int(right.sum()), num) for order, right in found.items()]
    points = 100 * (found["margin"].astype(float) - found["random"])
    return rows, what | {"n": num, "points": round(points.mean(), 1), "95 %": interval(points)}


def outcomes(model: unmask.Model, name: str, how: str, num: int) -> Iterator[tuple[str, np.ndarray]]:
    """Which puzzles each order solves, bool [num]."""
    puzzle, truth = (torch.as_tensor(x) for x in sudoku_hard.puzzles(name, "test", num))
    for order, score in ORDERS.items():
        filled = sampled(model, puzzle, score, SOURCES[how])
        yield order, (filled == truth).all(1).numpy()
        print(name, how, order, int((filled == truth).all(1).sum()), flush=True)


if __name__ == "__main__":
    main()
