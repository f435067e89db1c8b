"""Does a plan cost on a real model what its profile says, and how many calls does the optimal plan save?

Run: python benchmarks/plans_sudoku.py [--model sudoku] [--grids 1024] [--realised 192] [--write]

Profile: losses on one set of fresh grids choose the plans, losses on a second set predict their cost, and exact
log-likelihoods of a third set, against one cell per step in the same orders, are what they really cost.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import record
import torch

import unmask
from unmask import plans, profiles
from unmask.command_line.commands.plan import FAMILIES
from unmask.data import sudoku as boards

SEED = 20_261_130


def main() -> None:
    """Prints, and with --write records, predicted and realised excess nats, and calls saved."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="sudoku")
    parser.add_argument("--grids", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--realised", type=int, default=192)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    model = unmask.load(options.model)
    first, second = (measured(model, options, part) for part in range(2))
    fitted = profiles.choose(first, second)
    chosen = {
        "uniform K=8": plans.uniform(81, 8),
        "cosine K=16": plans.cosine(81, 16),
        "optimal K=4": plans.optimal(fitted, steps=4),
        "optimal K=8": plans.optimal(fitted, steps=8),
        "optimal K=16": plans.optimal(fitted, steps=16),
        "optimal K=40": plans.optimal(fitted, steps=40),
    }
    rows = realised(model, second, chosen, options.realised)
    saved = [row for steps in (8, 16, 32) for row in savings(fitted, second, steps)]
    gap, error = profiles.calibration(second)
    notes = NOTES.format(
        gap=gap, error=error, hash=model.hash, fit=fitted.provenance["estimator"], **vars(options)
    )
    print("\n".join([notes, *record.table(rows), "", *record.table(saved)]))
    if options.write:
        path = record.write("plans_sudoku", rows, notes, saved=saved, profile=second.entropies.tolist())
        path.write_text(path.read_text() + "\n" + "\n".join(record.table(saved)) + "\n")
        print(path)


NOTES = """
Model weights {hash}. Profile: {grids} fresh grids x {rounds} rounds per half; fitted by `{fit}` on the first half, costs
predicted from the raw losses of the second half, KL in nats with the order disclosed (excess over one cell per step).
Realised: mean over {realised} further grids, each in its own random order, of log-likelihood one by one minus
log-likelihood under the plan. z: difference over the combined standard error.
Cross-entropy minus model entropy, mean over counts: {gap:.4f} +- {error:.4f} nats per cell (calibration).
"""


def measured(model: unmask.Model, options: argparse.Namespace, part: int) -> unmask.Profile:
    """Raw losses on fresh grids."""
    grids = torch.as_tensor(boards.full_grids(options.grids, SEED + part))
    generator = torch.Generator().manual_seed(part)
    return profiles.measure(model.denoiser, grids, generator=generator, rounds=options.rounds, quiet=False)


def realised(
    model: unmask.Model, held_out: unmask.Profile, chosen: dict[str, tuple[int, ...]], count: int
) -> list[dict[str, Any]]:
    """Predicted and realised excess of each plan."""
    grids = torch.as_tensor(boards.full_grids(count, SEED + 2))
    alone = log_likelihoods(model, grids, plans.one_by_one(81))
    rows = []
    for name, plan in chosen.items():
        excess = (alone - log_likelihoods(model, grids, plan)).numpy()
        mean, error = float(excess.mean()), float(excess.std(ddof=1) / np.sqrt(count))
        said, doubt = held_out.kl(plan), held_out.kl_stderr(plan) or 0.0
        z = (mean - said) / np.hypot(error, doubt)
        rows.append(
            {"plan": name, "predicted": said, "+-": doubt, "realised": mean, "+- ": error, "z": float(z)}
        )
        print(rows[-1], flush=True)
    return rows


def log_likelihoods(model: unmask.Model, grids: torch.Tensor, plan: tuple[int, ...]) -> torch.Tensor:
    """Log-likelihood of each grid in its own random order, nats."""
    selector = unmask.selectors.top_k(unmask.scores.at_random(SEED), plan)
    parts = [
        unmask.log_likelihood(
            model.denoiser, grids[i : i + 64], selector, order_ids=torch.arange(i, min(i + 64, len(grids)))
        )
        for i in range(0, len(grids), 64)
    ]
    return torch.cat(parts)


def savings(fitted: unmask.Profile, held_out: unmask.Profile, steps: int) -> list[dict[str, Any]]:
    """Every fixed family at ``steps`` calls, and the fewest calls with which the optimal plan costs no more."""
    optimum = {k: held_out.kl(plans.optimal(fitted, steps=k)) for k in range(1, 82)}
    rows = []
    for name, family in FAMILIES.items():
        cost = held_out.kl(family(81, steps))
        fewest = next(k for k, best in optimum.items() if best <= cost)
        rows.append({"calls": steps, "family": name, "nats": cost, "optimal, as many calls": optimum[steps]})
        rows[-1] |= {"optimal needs": fewest, "times fewer": steps / fewest}
    return rows


if __name__ == "__main__":
    main()
