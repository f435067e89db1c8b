"""Does the cost of unmasking N/K positions per step depend on N? (It must not: bound B1 of the schedules page.)

Run: python benchmarks/dimension.py [--write]. Exact profiles, uniform plans with N/K = 4, KL in nats, order disclosed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import record
import torch

from unmask import Profile, laws, plans
from unmask.planning.guarantees import by_largest_block

BLOCK = 4


def chain(length: int) -> laws.Markov:
    """Symmetric binary Markov chain that flips with probability 0.3."""
    start = torch.tensor([0.5, 0.5], dtype=torch.float64)
    return laws.Markov(start, torch.tensor([[0.7, 0.3], [0.3, 0.7]], dtype=torch.float64), length)


FAMILIES: dict[str, Callable[[int], laws.Law]] = {
    "Markov chain, flip .3": chain,
    "balanced bits": lambda n: laws.Balanced(n, n // 2),
    "Polya urn, alpha 1, 1": lambda n: laws.Polya([1.0, 1.0], n),
}


def main() -> None:
    """Prints, and with --write records and draws, cost and bound from N = 2^4 to 2^14."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--most", type=int, default=14)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = []
    for power in range(4, options.most + 1):
        row: dict[str, object] = {"N": 2**power, "K": 2**power // BLOCK}
        for name, make in FAMILIES.items():
            profile = Profile(make(2**power).profile().entropies)
            plan = plans.uniform(2**power, 2**power // BLOCK)
            row |= {f"{name}: KL": profile.kl(plan), f"{name}: bound": by_largest_block(plan, profile)}
        rows.append(row)
        print(row, flush=True)
    if options.write:
        path = record.write("dimension", rows, NOTES)
        draw(rows, path.with_suffix(".png"))
        path.write_text(path.read_text() + f"\n![cost and bound over N]({path.stem}.png)\n")
        print(path)


NOTES = f"""
Exact KL (nats, order disclosed) of the uniform plan with {BLOCK} positions per step, and the bound (s_max - 1) f(N-1), that
depends on positions per step only.
"""


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """Cost (lines) and bound (dashes) over N."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for colour, name in zip(("tab:blue", "tab:orange", "tab:green"), FAMILIES):
        axes.plot([r["N"] for r in rows], [r[f"{name}: KL"] for r in rows], color=colour, label=name)
        axes.plot([r["N"] for r in rows], [r[f"{name}: bound"] for r in rows], "--", color=colour)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="length N",
        ylabel="nats",
        title=f"{BLOCK} positions per step: KL, bound dashed",
    )
    axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
