"""Moment order, exploration and sub-steps together: what does each share of exploring cost, on exact laws and two models?

Run: python benchmarks/hybrid.py [--laws chain ..] [--models text molecules] [--num 32] [--orders 16] [--write]

The proposal is arXiv 2510.04525's: a step takes its first positions from an exploring order (bisection, or Halton where
there is a grid) and the rest by the moments of the law (`scores.moment`, beta 2); with sub-steps the rest sees the first.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from pathlib import Path
from typing import Any

import orders
import record
import samplers
import torch
from searching import held_out
from torch import Tensor

import unmask
from unmask import plans, scores
from unmask.base.types import Plan, Score, Selector
from unmask.command_line import sequences
from unmask.models import measured_profile
from unmask.orders import presets

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
BETA = 2.0
LAWS = ("chain", "ising .7", "sudoku 4x4")
Row = dict[str, Any]


def main() -> None:
    """Prints, and with --write records, a table for each law and model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--laws", nargs="*", default=LAWS)
    parser.add_argument("--models", nargs="*", default=["text", "molecules"])
    parser.add_argument("--num", type=int, default=32, help="sequences of a model")
    parser.add_argument("--orders", type=int, default=16, help="order_ids of an exact law")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    parts: dict[str, list[Row]] = {}
    for name in options.laws:
        parts[f"{name}: exact KL, nats"] = list(map(told, of_law(name, options.orders)))
    for name in options.models:
        parts[f"{name}: nats a symbol at N/8 calls"] = list(map(told, of_model(name, options.num)))
    for name, rows in parts.items():
        print(f"\n{name}\n" + "\n".join(record.table(rows)))
    if options.write:
        print(record.write_parts("hybrid", parts, NOTES.format(beta=BETA, **vars(options))))


NOTES = """
Columns: the share of each step that explores; 0 is moment order alone (beta {beta:g}), 1 the exploring order alone, which
is bisection or on grids Halton. Sizes: uniform, cosine, or the optimal plan of a random order's profile ("planned").
Sub-steps: parts of a step, of which the later ones see the symbols of the earlier through a pass over the chosen rows; two
of them cost one full forward more in all. "+-" are standard errors.

Exact laws: KL(data law || sampler) with exact conditionals, by enumeration, the order disclosed (mean and standard error
over {orders} order_ids); after the stroke that of the law mixed over them. "calls" counts the forward of the sub-steps,
which for an exact law are conditionals made anew: no row is stale.

Models: -log p of {num} sequences in nats a symbol, each along the order of its own order_id; from share .1 on how much
that is more than at share 0, paired by sequence (below 0: exploring helps). Text is held out. Molecules are where data
are there, and otherwise the model's own draws from left to right; their lengths are given.
"""


def told(row: Row) -> Row:
    """The row, which is also shown at once."""
    print(row, flush=True)
    return row


def hybrid(plan: Plan, share: float, explore: Score) -> Selector:
    """The order of one share."""
    return presets.hybrid(plan, share, explore, scores.moment(BETA, samplers.SEED))


# --- exact laws -------------------------------------------------------------------------------------


def of_law(name: str, count: int) -> list[Row]:
    """Exact KL of every share, sizes and sub-steps in N/4 and N/2 calls."""
    make, grid = orders.LAWS[name]
    law = make()
    explore = scores.halton(*grid) if grid[0] > 1 else scores.bisection
    tokens = orders.support(law)
    rows = []
    for calls, substeps in itertools.product((round(law.length / 4), round(law.length / 2)), (1, 2)):
        for sizes, plan in sizes_of(law.profile(), law.length, calls).items():
            row: Row = {"calls": calls + substeps - 1, "sub-steps": substeps, "sizes": sizes}
            for share in SHARES:
                selector = hybrid(plan, share, explore)
                row[f"{share:g}"] = divergence(law, tokens, selector, substeps, count)
            rows.append(row)
    return rows


def sizes_of(profile: unmask.Profile, length: int, calls: int) -> dict[str, tuple[int, ...]]:
    """Step sizes by name."""
    return {
        "uniform": plans.uniform(length, calls),
        "cosine": plans.cosine(length, calls),
        "planned": plans.optimal(profile, steps=calls),
    }


def divergence(law: Any, tokens: Tensor, selector: Selector, substeps: int, count: int) -> str:
    """KL with the order disclosed, its standard error over orders, and that of the mixed law."""
    truth, values = law.log_prob(tokens), []
    for order in range(count):
        ids = torch.full((len(tokens),), order)
        values.append(unmask.log_likelihood(law, tokens, selector, substeps=substeps, order_ids=ids))
        if order == 1 and torch.equal(values[0], values[1]):  # no noise in it
            break
    weights, found = truth.exp(), torch.stack(values)
    paths = (weights * (truth - found)).sum(1)
    mixed = float((weights * (truth - found.logsumexp(0) + math.log(len(found)))).sum())
    error = float(paths.std()) / math.sqrt(len(paths))
    return f"{max(float(paths.mean()), 0.0):.3f} +- {error:.3f} / {max(mixed, 0.0):.3f}"


# --- models -----------------------------------------------------------------------------------------


def of_model(name: str, count: int) -> list[Row]:
    """Nats a symbol of every share, sizes and sub-steps in N/8 calls."""
    model = unmask.load(name)
    profile = measured_profile(model)
    if profile is None:
        raise ValueError(f"model '{name}' ships with no profile; expected one that does")
    if name == "molecules":
        tokens = held_out(model, count)[0]
    else:
        tokens = sequences.read(model, Path(name) / "test", count, samplers.SEED).tokens
    families: dict[str, Plan] = {
        "uniform": lambda n: plans.uniform(n, eighth(n)),
        "cosine": lambda n: plans.cosine(n, eighth(n)),
        "planned": plans.for_counts(profile, share=1 / 8),
    }
    rows = []
    for substeps, (sizes, plan) in itertools.product((1, 2), families.items()):
        first: Tensor | None = None
        row: Row = {"sub-steps": substeps, "sizes": sizes}
        for share in SHARES:
            began = time.process_time()
            values = nats(model, tokens, hybrid(plan, share, scores.bisection), substeps)
            first = values if first is None else first
            row[f"{share:g}"] = interval(values) if share == 0 else interval(values - first, "+")
            print(name, row, f"{time.process_time() - began:.1f} s", flush=True)
        rows.append(row)
    return rows


def eighth(masked: int) -> int:
    """Calls for so many positions."""
    return max(1, math.ceil(masked / 8))


def nats(model: unmask.Model, tokens: Tensor, selector: Selector, substeps: int) -> Tensor:
    """-log p of each sequence in nats a symbol, float64 [n]."""
    visible = model.visible(tokens)
    count = torch.full((len(tokens),), model.length) if visible is None else (~visible).sum(1)
    found = unmask.log_likelihood(
        model.denoiser,
        tokens,
        selector,
        substeps=substeps,
        visible=visible,
        order_ids=torch.arange(len(tokens)),
    )
    return -found / count


def interval(values: Tensor, sign: str = "") -> str:
    """A mean with its standard error."""
    return f"{float(values.mean()):{sign}.3f} +- {float(values.std()) / math.sqrt(len(values)):.3f}"


if __name__ == "__main__":
    main()
