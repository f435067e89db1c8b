"""Makes a bank of hard Sudoku puzzles for recipe `sudoku_hard`: a line ``puzzle,solution`` each, in the order of the text.

Run: python benchmarks/sudoku_bank.py runs/bank.csv [--grids 400] [--seed 2] [--least 4] [--breed 100]

A few seconds a grid. What was made is kept beside the file, so that a stopped run goes on and a larger one adds to it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from unmask.data import sudoku
from unmask.data.sudoku import hard as sudoku_hard


def main() -> None:
    """Climbs on grid after grid, then writes the distinct puzzles that take guessing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--grids", type=int, default=400)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--least", type=int, default=4, help="guesses that a puzzle must take")
    parser.add_argument(
        "--breed", type=int, default=0, help="puzzles that the hardest of each grid gives rise to"
    )
    options = parser.parse_args()
    kept = options.out.with_suffix(".parts")
    kept.mkdir(parents=True, exist_ok=True)
    lines: set[str] = set()
    for index in range(options.grids):
        path = kept / f"{options.seed}_{index:05}_{options.breed}.npy"
        puzzles, solution = climbed(path, options.seed, index, options.breed)
        hard = puzzles[sudoku_hard.effort(puzzles, options.seed) >= options.least]
        lines |= {f"{sudoku.text(p)},{sudoku.text(solution)}" for p in hard}
        print(f"\r{index + 1} grids, {len(lines)} puzzles", end="", flush=True)
    options.out.write_text("\n".join(sorted(lines)) + "\n")
    print(f"\n{options.out}")


def climbed(path: Path, seed: int, index: int, bred: int) -> tuple[np.ndarray, np.ndarray]:
    """The climb on one grid and what its hardest puzzle gives rise to, from the file if it is there."""
    if not path.exists():
        puzzles, solutions = sudoku_hard.climb(1, seed, first=index)
        found, solution = puzzles[0], solutions[0]
        if bred:
            cost = sudoku_hard.effort(found, seed)
            first = found[cost.argmax()]
            others, _ = sudoku_hard.breed(first, solution, bred, seed + index, least=int(cost.max() // 4))
            found = np.concatenate([found, others])
        np.save(path, np.concatenate([found, solutions]).astype(np.int8))
    boards = np.load(path).astype(np.int64)
    return boards[:-1], boards[-1]


if __name__ == "__main__":
    main()
