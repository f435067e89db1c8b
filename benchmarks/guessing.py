"""Where should a search guess? The solution's log-probability along orders that differ only in where they guess.

Run: python benchmarks/guessing.py [--model sudoku_equivariant] [--set "very hard"] [--num 60] [--part valid] [--write]

All cells whose best symbol has probability .999 or more go together; where there are none, one cell is guessed: by the
scores below. A search that always goes on from the most probable partial filling finds the solution within exp(nats) ways.
"""

from __future__ import annotations

import argparse
from typing import Any

import record
import searching
import sudoku_hard
import torch
from torch import Tensor

import unmask
from unmask import Score, scores, selectors
from unmask.orders.scores import spread

SURE = 0.999
WAYS = (16, 64, 256)


def best(view: unmask.View, count: int = 3) -> Tensor:
    """The largest probabilities of each row, float64 [B, R, count]."""
    assert view.log_probs is not None
    return view.log_probs.double().exp().topk(count, dim=-1).values


GUESSES: dict[str, Score] = {
    "least doubt: confidence": scores.confidence,
    "least doubt: margin": scores.margin,
    "most doubt: entropy": Score(lambda view: -scores.negative_entropy(view), name="entropy"),
    "the smallest third probability": Score(lambda view: spread(view, -best(view)[..., 2]), name="third"),
    "second less third probability": Score(
        lambda view: spread(view, best(view)[..., 1] - best(view)[..., 2]), name="second less third"
    ),
    "second less three times the third (fork)": scores.fork,
    "second less ten times the third": Score(
        lambda view: spread(view, best(view)[..., 1] - 10 * best(view)[..., 2]), name="ten"
    ),
    "at random": scores.at_random(1),
}


def row(denoiser: unmask.Denoiser, name: str, puzzles: Tensor, solutions: Tensor) -> dict[str, Any]:
    """Quantiles of the nats, and the share of puzzles whose solution so many ways must find."""
    order = selectors.threshold(scores.confidence, SURE, GUESSES[name])
    visible = puzzles != denoiser.mask_id
    parts = [slice(n, n + searching.BATCH) for n in range(0, len(puzzles), searching.BATCH)]
    nats = -torch.cat(
        [unmask.log_likelihood(denoiser, solutions[p], order, visible=visible[p]) for p in parts]
    )
    low, middle, high = (round(float(nats.quantile(q)), 2) for q in (0.25, 0.5, 0.75))
    within = {f"within {n} ways %": round(100 * float((nats.exp() <= n).double().mean()), 1) for n in WAYS}
    return {
        "guesses where": name,
        "n": len(nats),
        "nats, median": middle,
        "quartiles": f"{low} to {high}",
        **within,
    }


def main() -> None:
    """Prints, and with --write records, a row for each way to guess."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="sudoku_equivariant")
    parser.add_argument("--set", default="very hard")
    parser.add_argument("--num", type=int, default=60)
    parser.add_argument("--part", default="valid")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = searching.cast(sudoku_hard.compiled(unmask.load(options.model).denoiser.network))
    denoiser = unmask.from_logits(network, 9, 9, with_rows=True)
    puzzles, solutions = (
        torch.as_tensor(x) for x in sudoku_hard.puzzles(options.set, options.part, options.num)
    )
    rows = []
    for name in GUESSES:
        rows.append(row(denoiser, name, puzzles, solutions))
        print(rows[-1], flush=True)
    notes = f"Model `{options.model}`, bfloat16; {options.set}, part {options.part}. Nats of the solution given the puzzle."
    print("\n".join([notes, *record.table(rows)]))
    if options.write:
        print(record.write("guessing_sudoku", rows, notes))


if __name__ == "__main__":
    main()
