"""How often does the 95 % interval of a plan's predicted cost hold the truth? Plans from one half, judged on the other.

    OMP_NUM_THREADS=1 python benchmarks/interval_coverage.py [--splits 200] [--losses sudoku_losses.npy]
        [--processes 2] [--write]

Every split goes the way of ``unmask profile`` and ``unmask plan``: two halves are measured (`profiles.measure`), the curve
is fitted (`profiles.choose`), `plans.optimal` takes it, and `plans.describe` judges each plan by the other half. The truth
of a law is its exact profile. The shipped Sudoku model's losses are computed once, at every number of visible cells of 192
fresh grids (in bfloat16, about 10 minutes on one core; --losses names the file), and these grids are the population:
splits draw sequences from it with replacement, and its mean losses are the truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch

import unmask
from unmask import laws, plans, profiles
from unmask.base.statistics import wilson
from unmask.command_line.commands.demo import in_bfloat16
from unmask.data import sudoku
from unmask.planning import measuring
from unmask.profiles import Profile

LAWS: dict[str, Callable[[], Any]] = {
    "Markov, 64 positions": lambda: laws.Markov([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], 64),
    "OneHot, 24 positions": lambda: laws.OneHot(24),
    "CurieWeiss, 16 positions": lambda: laws.CurieWeiss(16, 1.5),
}
SIZES = dict.fromkeys(LAWS, ((64, 4), (256, 4))) | {"CurieWeiss, 16 positions": ((64, 4), (64, 32))}
"""(sequences in each half, rounds); 32 rounds see each of 16 entries twice in every sequence, so entries go together."""


@cache
def _law(name: str) -> Any:
    return LAWS[name]()


@cache
def _profile(name: str) -> Profile:
    return _law(name).profile()


MODEL, MODEL_SIZES = "shipped sudoku, 81 cells", ((128, 4), (512, 4))
FAMILIES = {"uniform": plans.uniform, "cosine": plans.cosine}
CALLS = (2, 4, 8, 16)
GRIDS, GRIDS_SEED = 192, 2**61 + 2**40


@dataclass(frozen=True)
class Case:
    """A law, or the losses [M, N] of a model on M sequences, and how much of it a split measures."""

    name: str
    sequences: int
    rounds: int
    losses: np.ndarray | None = None

    def truth(self) -> Profile:
        """The profile that predictions are about."""
        return (
            LAWS[self.name]().profile() if self.losses is None else Profile(self.losses.mean(0), exact=False)
        )

    def half(self, seed: int, part: int) -> Profile:
        """One measured half of a split."""
        if self.losses is None:
            law = _law(self.name)
            tokens = law.sample(self.sequences, torch.Generator().manual_seed(2 * seed + part))
            generator = torch.Generator().manual_seed(10**6 + 2 * seed + part)
            return profiles.measure(law, tokens, generator=generator, rounds=self.rounds)
        return self._drawn(np.random.default_rng([seed, part]))

    def _drawn(self, random: np.random.Generator) -> Profile:
        """As `profiles.measure`, from losses that are known: each sequence at one entry a round."""
        population, length = self.losses.shape
        chosen, key = random.integers(population, size=self.sequences), int(random.integers(2**62))
        tally = measuring.Tally(length, 1, key)
        for turn in range(self.rounds):
            index = torch.floor(length * measuring.spread_levels(key, turn, self.sequences)).long()
            tally.add(index[:, None], torch.from_numpy(self.losses[chosen, index.numpy()])[:, None, None])
        sums = tally.result()
        return Profile(sums.means[:, 0], sums.stderrs[:, 0], sums.counts)

    def split(self, seed: int) -> Iterator[tuple[str, int, bool, float, bool]]:
        """Of every plan: family, calls, whether the interval holds the truth, its width, whether its own half's would."""
        first, second = self.half(seed, 0), self.half(seed, 1)
        fitted, truth = profiles.choose(first, second), self.truth()
        for calls in (k for k in CALLS if k < truth.length):  # one by one costs exactly 0
            made = {name: family(truth.length, calls) for name, family in FAMILIES.items()}
            for name, plan in (made | {"optimal": plans.optimal(fitted, steps=calls)}).items():
                cost, (low, high) = truth.kl(plan), plans.describe(plan, fitted).interval
                under, over = first.kl_interval(plan)
                yield name, calls, low - 1e-9 <= cost <= high + 1e-9, high - low, under <= cost <= over


def rows(case: Case, splits: int) -> list[dict[str, Any]]:
    """One row a plan: how often the interval held, and how wide it was."""
    torch.set_num_threads(1)
    found: dict[tuple[str, int], list[tuple[bool, float, bool]]] = {}
    costs = case.truth()
    for seed in range(splits):
        for name, calls, *rest in case.split(seed):
            found.setdefault((name, calls), []).append(tuple(rest))
    best = {k: costs.kl(plans.optimal(costs, steps=k)) if costs.exact else None for _, k in found}
    return [_row(case, name, calls, np.array(found[name, calls]), costs, best) for name, calls in found]


def _row(case: Case, name: str, calls: int, seen: np.ndarray, costs: Profile, best: dict) -> dict[str, Any]:
    held, own = int(seen[:, 0].sum()), int(seen[:, 2].sum())
    low, high = wilson(held, len(seen))
    exact = best[calls] if name == "optimal" else costs.kl(FAMILIES[name](costs.length, calls))
    return {
        "of": case.name,
        "sequences a half": case.sequences,
        "rounds": case.rounds,
        "plan": name,
        "calls": calls,
        "true KL, nats": "" if exact is None else float(exact),
        "coverage": held / len(seen),
        "Wilson 95 %": f"{low:.3f}..{high:.3f}",
        "median width, nats": float(np.median(seen[:, 1])),
        "coverage on its own half": own / len(seen),
    }


@torch.inference_mode()
def sudoku_losses(path: Path) -> np.ndarray:
    """Mean loss over masked cells, nats, float64 [192, 81]: the shipped model, i random cells visible."""
    if path.exists():
        return np.load(path)
    model = unmask.load("sudoku")
    denoiser, generator = in_bfloat16(model.denoiser), torch.Generator().manual_seed(5)
    losses = np.zeros((GRIDS, 81))
    for r, grid in enumerate(torch.as_tensor(sudoku.full_grids(GRIDS, GRIDS_SEED))):
        tokens, rank = grid.expand(81, 81), torch.rand(81, 81, generator=generator).argsort(1).argsort(1)
        masked = rank >= torch.arange(81)[:, None]
        log_probs = denoiser(tokens.masked_fill(masked, denoiser.mask_id)).double()
        loss = -log_probs.gather(-1, tokens[..., None])[..., 0]
        losses[r] = (torch.where(masked, loss, 0.0).sum(1) / masked.sum(1)).numpy()
    np.save(path, losses)
    return losses


NOTES = """
Nominal 95 %, wanted 90 to 99 % of {splits} splits. `coverage`: the interval of `plans.describe`, which judges the plan by
the half that it has not seen. `coverage on its own half`: the same formula on the data that the optimum was made from
(winner's curse; for uniform and cosine plans, which see no data, just another draw). Widths shrink as one over the square
root of sequences times rounds. Out of 90 to 99 %: {outside} of {count} rows; least {least:.3f}, most {most:.3f}, mean
{mean:.3f}.
"""


def main() -> None:
    """Prints the rows; --write keeps them as a record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--losses", type=Path, default=Path("sudoku_losses.npy"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    losses = sudoku_losses(options.losses)
    cases = [Case(name, *size) for name in LAWS for size in SIZES[name]]
    cases += [Case(MODEL, *size, losses) for size in MODEL_SIZES]
    with ProcessPoolExecutor(options.processes) as pool:
        found = [row for part in pool.map(rows, cases, [options.splits] * len(cases)) for row in part]
    held = np.array([row["coverage"] for row in found])
    notes = NOTES.format(
        splits=options.splits,
        outside=int(((held < 0.9) | (held > 0.99)).sum()),
        count=len(held),
        least=held.min(),
        most=held.max(),
        mean=held.mean(),
    )
    print("\n".join(record.table(found)), notes)
    if options.write:
        print(record.write("coverage", found, notes))


if __name__ == "__main__":
    main()
