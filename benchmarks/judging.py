"""Which of several fillings is right? The model's opinions along the order that found them, and along others.

Run: python benchmarks/judging.py [--model sudoku_hard] [--sets minimal] [--num 72] [--write]. About 10 s a puzzle.

Fillings come from `unmask.backtrack` with all ways finished and from draws, along one order: all cells beyond .999
together, or the most certain one. No rule of the puzzle is used.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import order_lab
import record
import searching
import sudoku_hard
import torch
from torch import Tensor

import unmask
from unmask import plans
from unmask.orders import presets

ORDER = unmask.selectors.threshold(unmask.scores.confidence, 0.999)
CALLS = 8
"""Of a random order that judges, and mask sets of the bound."""

Judge = Callable[[unmask.Denoiser, Tensor, Tensor, Tensor], Tensor]
"""(denoiser, fillings int64 [M, 81], clues bool [M, 81], own log-probability [M]) -> [M], higher is better."""

NOTES = """
Model `{model}`, part valid of each set. {ways} ways of backtracking, all finished, and {ways} draws a puzzle; distinct ones
judged. "solved": the filling chosen is the solution; "any": one of them is. Along random orders in {calls} calls; the
bound has {calls} mask sets. Wilson 95 %.
"""


def main() -> None:
    """Prints, and with --write records, a row for each set and criterion."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="sudoku_hard")
    parser.add_argument("--sets", nargs="+", default=["minimal"])
    parser.add_argument("--num", type=int, default=72)
    parser.add_argument("--ways", type=int, default=8)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = searching.cast(unmask.load(options.model).denoiser.network)
    denoiser = unmask.from_logits(network, 9, 9, with_rows=True)
    rows = [row for name in options.sets for row in judged(denoiser, name, options.num, options.ways)]
    notes = NOTES.format(model=options.model, ways=options.ways, calls=CALLS)
    print("\n".join([notes, *record.table(rows)]))
    if options.write:
        print(record.write(f"judging_{options.model}", rows, notes))


def judged(denoiser: unmask.Denoiser, name: str, num: int, ways: int) -> list[dict[str, Any]]:
    """How many puzzles of a set each criterion gets right."""
    puzzles, truths = (torch.as_tensor(x) for x in sudoku_hard.puzzles(name, "valid", num))
    right = dict.fromkeys(["any", *JUDGES], 0)
    for i, (puzzle, truth) in enumerate(zip(puzzles, truths)):
        fillings, own = found(denoiser, puzzle[None], ways, i)
        good = (fillings == truth).all(1)
        right["any"] += int(good.any())
        clues = (puzzle != 9).expand(len(fillings), -1)
        for title, judge in JUDGES.items():
            right[title] += int(good[judge(denoiser, fillings, clues, own).argmax()])
        print(f"{name} {i + 1}", right, flush=True)
    return [
        {"puzzles": name, "chosen by": title} | order_lab.share(count, num) for title, count in right.items()
    ]


def found(denoiser: unmask.Denoiser, puzzle: Tensor, ways: int, seed: int) -> tuple[Tensor, Tensor]:
    """Distinct fillings [M, 81] of a puzzle and their log-probability along the order, nats [M]."""
    random = torch.Generator().manual_seed(seed)
    several = (
        unmask.backtrack(denoiser, puzzle, ORDER, count=ways, finish=True),
        unmask.best_of(denoiser, puzzle, ORDER, count=ways, generator=random),
    )
    tokens, own = (torch.cat([getattr(f, x)[0] for f in several]) for x in ("tokens", "log_prob"))
    some, place = torch.unique(tokens[own > -torch.inf], dim=0, return_inverse=True)
    none = torch.full((len(some),), -torch.inf, dtype=own.dtype)
    return some, none.scatter_reduce(0, place, own[own > -torch.inf], "amax")


def along(orders: int) -> Judge:
    """The mean log-probability along so many random orders."""
    selector = presets.random(lambda n: plans.uniform(n, min(CALLS, n)))

    def judge(denoiser: unmask.Denoiser, fillings: Tensor, clues: Tensor, _: Tensor) -> Tensor:
        each = [
            unmask.log_likelihood(
                denoiser, fillings, selector, visible=clues, order_ids=torch.full((len(fillings),), k)
            )
            for k in range(orders)
        ]
        return torch.stack(each).mean(0)

    return judge


def bound(denoiser: unmask.Denoiser, fillings: Tensor, clues: Tensor, _: Tensor) -> Tensor:
    """Minus the bound over random orders, the same mask sets for all fillings."""
    random, ids = torch.Generator().manual_seed(1), torch.zeros(len(fillings), dtype=torch.long)
    return -unmask.nelbo(
        denoiser, fillings, generator=random, samples=CALLS, visible=clues, item_ids=ids
    ).value


JUDGES: dict[str, Judge] = {
    "the order that found it": lambda _, __, ___, own: own,
    "one random order": along(1),
    "three random orders": along(3),
    "bound over random orders": bound,
    "sum of own order and bound": lambda *args: args[3] + bound(*args),
}

if __name__ == "__main__":
    main()
