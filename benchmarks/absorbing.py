"""Absorbing diffusion against planned random order at equal calls, on exact laws.

Run: python benchmarks/absorbing.py [--draws 2000] [--write]. Both unmask in uniformly random order, so that all that
differs is how many positions each call takes: absorbing diffusion draws the numbers (binomial, from a time grid), a plan
fixes them. The cost of either is the profile's KL of the sizes, nats, order disclosed; for diffusion it is averaged over
draws of sizes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np
import record
import torch

from unmask import Profile, laws, plans
from unmask.masking import schedules

CHAIN = [[0.7, 0.2, 0.1], [0.05, 0.15, 0.8], [0.5, 0.1, 0.4]]
LAWS: dict[str, Callable[[], laws.Law]] = {
    "Markov chain, N = 64": lambda: laws.Markov([0.2, 0.5, 0.3], CHAIN, 64),
    "Permutation, N = 64": lambda: laws.Permutation(64),
    "OneHot, N = 64": lambda: laws.OneHot(64),
    "Balanced, N = 64": lambda: laws.Balanced(64, 32),
    "Polya (.3, .3), N = 64": lambda: laws.Polya([0.3, 0.3], 64),
    "CurieWeiss 1.2, N = 64": lambda: laws.CurieWeiss(64, 1.2),
    "Mixture, N = 64": lambda: laws.Mixture([0.5, 0.5], [[0.9, 0.1], [0.2, 0.8]], 64),
    "ReedSolomon (16, 8, 17)": lambda: laws.ReedSolomon(16, 8, 17),
    "Sudoku4": laws.Sudoku4,
}
GRIDS = {"uniform": schedules.uniform_grid, "cosine": schedules.cosine_grid}


def sizes_of(
    grid: torch.Tensor, length: int, draws: int, random: np.random.Generator
) -> list[tuple[int, ...]]:
    """Sizes of the calls that absorbing diffusion makes on a time grid: steps that unmask nothing make none."""
    alpha = schedules.linear().alpha(grid.double()).numpy()
    shares = np.diff(alpha)
    found = random.multinomial(length, shares / shares.sum(), size=draws)
    return [tuple(int(s) for s in row if s) for row in found]


def diffusion(profile: Profile, grid: str, calls: int, draws: int) -> tuple[float, float, float]:
    """Cost (nats, mean and standard error) of the grid whose mean number of calls is nearest to ``calls``; that mean."""
    random, best = np.random.default_rng(0), (math.inf, math.nan, math.nan)
    for steps in range(calls, 4 * profile.length + 1):
        found = sizes_of(GRIDS[grid](steps), profile.length, draws, random)
        mean = float(np.mean([len(s) for s in found]))
        if mean > calls + 0.5:
            break
        costs = [profile.kl(s) for s in found]
        if abs(mean - calls) <= abs(best[2] - calls) or math.isinf(best[0]):
            best = float(np.mean(costs)), float(np.std(costs, ddof=1)) / math.sqrt(draws), mean
    return best


def measure(name: str, calls: int, draws: int) -> dict[str, object]:
    """The costs of one law at one number of calls."""
    profile = LAWS[name]().profile()
    row: dict[str, object] = {
        "law": name,
        "calls": calls,
        "planned": profile.kl(plans.optimal(profile, steps=calls)),
        "equal sizes": profile.kl(plans.uniform(profile.length, calls)),
    }
    for grid in GRIDS:
        cost, error, mean = diffusion(profile, grid, calls, draws)
        row |= {f"absorbing, {grid} grid": cost, f"+- ({grid})": error, f"its calls ({grid})": mean}
    return row


NOTES = """
Nats, order disclosed: what the sizes of the calls cost beyond one position per call. Absorbing diffusion: linear schedule,
time grid of as many steps as make the mean number of calls (steps that unmask nothing make none) nearest to that of the
plan; mean and standard error (+-) over draws of the sizes. The plan is the optimal one for the law's exact profile.
"""


def main() -> None:
    """Prints, and with --write records, costs for all laws at N/8, N/4 and N/2 calls."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = []
    for name, law in LAWS.items():
        length = law().length
        for share in (8, 4, 2):
            rows.append(measure(name, max(2, length // share), options.draws))
            print(rows[-1], flush=True)
    print("\n".join(record.table(rows)))
    if options.write:
        print(record.write("absorbing", rows, NOTES))


if __name__ == "__main__":
    main()
