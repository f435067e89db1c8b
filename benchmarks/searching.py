"""Does a search for the most probable filling solve more than the arg-max? Beams and best draws against network calls.

Run: python benchmarks/searching.py [--model sudoku_hard] [--num 100] [--sets minimal "very hard"] [--write]

The rule of the puzzle is never used: what counts is the model's own exact log-probability along margin order, one cell a
step. "most probable solved": the first of the fillings found is the solution; "any": one of them is.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import record
import sudoku_hard
import torch
from torch import Tensor

import unmask
from unmask.base.devices import has_bfloat16
from unmask.base.statistics import wilson
from unmask.engine.searching import Found

MARGIN = unmask.selectors.top_k(unmask.scores.margin, 1)
SURE = 0.999
BATCH = 16


def main() -> None:
    """Prints, and with --write records, one row for each set and way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="sudoku_hard")
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--sets", nargs="+", default=["minimal", "very hard"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--part", default="valid")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = unmask.load(options.model).denoiser.network
    half = has_bfloat16()
    denoiser = unmask.from_logits(cast(network) if half else network, 9, 9, with_rows=True)
    rows = []
    for name in options.sets:
        puzzle, truth = (torch.as_tensor(x) for x in sudoku_hard.puzzles(name, options.part, options.num))
        for way in options.ways:
            rows.append(row(denoiser, name, way, puzzle, truth))
            print(rows[-1], flush=True)
    print("\n".join(record.table(rows)))
    if options.write:
        notes = NOTES.format(half="bfloat16" if half else "float32", **vars(options))
        print(record.write(f"searching_{options.model}", rows, notes))


NOTES = """
Model {model}, {half}, part {part} of each set. "threshold": cells beyond .999 go together, otherwise the one of largest
margin. Calls are full passes a puzzle, of all hypotheses together; Wilson 95 % intervals.
"""


def cast(network: torch.nn.Module) -> Callable[..., Tensor]:
    """The network in bfloat16, its logits in float32."""

    def run(tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            found: Tensor = network(tokens, rows=rows)
        return found.float()

    return run


def sure(view: unmask.View) -> unmask.Choice:
    """All cells beyond the threshold, at least the one of largest margin."""
    found: unmask.Choice = unmask.selectors.threshold(unmask.scores.confidence, SURE)(view)
    return found


def beam(width: int, selector: Any = MARGIN) -> Callable[[Any, Tensor, int], Found]:
    """A beam."""
    return lambda denoiser, tokens, _: unmask.search(denoiser, tokens, selector, width=width)


def draws(count: int, temperature: float = 1.0) -> Callable[[Any, Tensor, int], Found]:
    """The best of some draws, with a temperature judged by the model itself."""

    def found(denoiser: Any, tokens: Tensor, place: int) -> Found:
        generator = torch.Generator().manual_seed(place)
        proposal = None if temperature == 1 else unmask.tempered(denoiser, temperature)
        return unmask.best_of(denoiser, tokens, MARGIN, count=count, generator=generator, proposal=proposal)

    return found


WAYS: dict[str, Callable[[Any, Tensor, int], Found]] = {
    "arg-max": beam(1),
    "beam 4": beam(4),
    "best of 4 draws": draws(4),
    "beam 16": beam(16),
    "best of 16 draws": draws(16),
    "arg-max, threshold": beam(1, sure),
    "beam 4, threshold": beam(4, sure),
    "beam 16, threshold": beam(16, sure),
}


def row(denoiser: Any, name: str, way: str, puzzle: Tensor, truth: Tensor) -> dict[str, Any]:
    """One way on one set."""
    began, first, any_, calls = time.monotonic(), 0, 0, 0.0
    for place in range(0, len(puzzle), BATCH):
        found = WAYS[way](denoiser, puzzle[place : place + BATCH], place)
        right = (found.tokens == truth[place : place + BATCH, None]).all(2) & (found.log_prob > -torch.inf)
        first, any_ = first + int(right[:, 0].sum()), any_ + int(right.any(1).sum())
        calls += float(found.nfe.sum())
    n = len(puzzle)
    low, high = wilson(first, n)
    return {
        "puzzles": name,
        "way": way,
        "n": n,
        "most probable solved %": f"{100 * first / n:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
        "any %": round(100 * any_ / n, 1),
        "calls": round(calls / n, 1),
        "seconds": round(time.monotonic() - began, 1),
    }


if __name__ == "__main__":
    main()
