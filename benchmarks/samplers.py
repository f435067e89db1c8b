"""Samplers of a real model at several numbers of calls, and plans against their families: for several benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import unmask
from unmask import plans, profiles, scores, selectors
from unmask.base.types import Denoiser, Plan, Result, Score, Selector
from unmask.command_line.commands.plan import FAMILIES
from unmask.kernels import commit
from unmask.orders import presets

SEED = 20_261_130
BATCH = 64


@dataclass(frozen=True)
class Way:
    """A sampler: ``sample(tokens, order_ids, generator)``, and the calls that it was asked for."""

    name: str
    calls: int
    sample: Callable[[Tensor, Tensor, torch.Generator], Result]


def chosen(name: str, denoiser: Denoiser, selector: Selector, calls: int, substeps: int = 1) -> Way:
    """A choose-first selector."""

    def draw(tokens: Tensor, order_ids: Tensor, generator: torch.Generator) -> Result:
        return unmask.sample(
            denoiser, tokens, selector, generator=generator, order_ids=order_ids, substeps=substeps
        )

    return Way(name, calls, draw)


def drawn(name: str, denoiser: Denoiser, rule: commit.Rule, calls: int) -> Way:
    """A rule that draws first."""
    return Way(
        name, calls, lambda tokens, _, generator: commit.sample(denoiser, tokens, rule, generator=generator)
    )


def ways(
    denoiser: Denoiser,
    profile: unmask.Profile,
    calls: int,
    spread: Score = scores.bisection,
    caching: bool = True,
) -> list[Way]:
    """The samplers that are compared at one number of calls; ``spread`` is the exploring order of the data's shape."""
    even, cosine, best = (
        fitting(plans.uniform, calls),
        fitting(plans.cosine, calls),
        plans.for_counts(profile, steps=calls),
    )
    found = [
        chosen("random, uniform plan", denoiser, presets.random(even, SEED), calls),
        chosen("random, cosine plan", denoiser, presets.random(cosine, SEED), calls),
        chosen("random, planned", denoiser, presets.random(best, SEED), calls),
        chosen(f"{spread.name}, planned", denoiser, selectors.top_k(spread, best), calls),
        chosen("confidence, planned", denoiser, presets.confidence(best), calls),
        chosen("moment, planned", denoiser, presets.moment(best, 2.0, SEED), calls),
        chosen(
            "moment sampler (alpha 4.5), planned", denoiser, presets.moment_sampler(best, 4.5, SEED), calls
        ),
        chosen(
            f"hybrid ({spread.name}, moment), planned",
            denoiser,
            presets.hybrid(best, 0.5, spread, scores.moment(2.0, SEED)),
            calls,
        ),
        drawn("MaskGIT (4.5, annealed)", denoiser, commit.maskgit(commit.annealed(4.5, calls), best), calls),
    ]
    if caching:
        found.append(
            chosen("random, planned, 2 sub-steps", denoiser, presets.random(best, SEED), calls, substeps=2)
        )
        reading = presets.left_to_right(even)  # one position per sub-step, at L / K - 1 forwards more in all
        found.append(chosen("left to right, all sub-steps", denoiser, reading, calls, substeps=128))
    return found


def fitting(family: Callable[[int, int], tuple[int, ...]], calls: int) -> Plan:
    """A family's plan for as many positions as there are, in at most that many calls."""
    return cache(lambda total: family(total, min(calls, total)))


def draws(way: Way, masked: Tensor, seed: int = SEED, end: int | None = None) -> tuple[Tensor, float, float]:
    """Samples of masked tokens [n, L]: tokens, mean calls (full-forward equivalents), seconds.

    Where lengths are given, a batch is cut after its longest sequence's ``end``.
    """
    generator = torch.Generator().manual_seed(seed)
    began, results = time.perf_counter(), []
    for start in range(0, len(masked), BATCH):
        rows = masked[start : start + BATCH]
        if end is not None:
            rows = rows[:, : int((rows != end).sum(1).max()) + 1]
        results.append(way.sample(rows, torch.arange(start, start + len(rows)), generator))
    filled = [F.pad(r.tokens, (0, masked.shape[1] - r.tokens.shape[1]), value=end or 0) for r in results]
    tokens = torch.cat(filled)
    return tokens, float(torch.cat([r.nfe for r in results]).mean()), time.perf_counter() - began


def measured(
    denoiser: Denoiser, tokens: Tensor, rounds: int = 2, quiet: bool = False, end: int | None = None
) -> tuple[unmask.Profile, unmask.Profile]:
    """A profile fitted on half of the sequences, with which plans are made, and the raw losses of the other half."""
    generator = torch.Generator().manual_seed(SEED)
    half = len(tokens) // 2
    parts = [
        profiles.measure(denoiser, part, generator=generator, rounds=rounds, quiet=quiet, end=end)
        for part in (tokens[:half], tokens[half:])
    ]
    return profiles.choose(*parts), parts[1]


def nats(denoiser: Denoiser, tokens: Tensor, plan: Plan, substeps: int = 1, end: int | None = None) -> Tensor:
    """-log p of each sequence, in its own random order under a plan, float64 [n], nats; ``end`` is given."""
    selector = presets.random(plan, SEED)
    parts = [
        -unmask.log_likelihood(
            denoiser,
            tokens[i : i + BATCH],
            selector,
            order_ids=torch.arange(i, min(i + BATCH, len(tokens))),
            substeps=substeps,
            visible=None if end is None else tokens[i : i + BATCH] == end,
        )
        for i in range(0, len(tokens), BATCH)
    ]
    return torch.cat(parts)


def planned_against_families(
    denoiser: Denoiser,
    fitted: unmask.Profile,
    tokens: Tensor,
    budgets: Sequence[int],
    unit: float,
    end: int | None = None,
) -> list[dict[str, Any]]:
    """Realised -log p of held-out sequences under the optimal plan and every fixed family, in nats times ``unit``.

    The last columns compare each plan with the optimal one, paired by sequence: difference and standard error.
    """
    rows = []
    for calls in budgets:
        best = nats(denoiser, tokens, plans.for_counts(fitted, steps=calls), end=end)
        for name, family in {"optimal": None, **FAMILIES}.items():
            mine = best if family is None else nats(denoiser, tokens, fitting(family, calls), end=end)
            gap = (mine - best).numpy() * unit
            rows.append(
                {
                    "calls": calls,
                    "plan": name,
                    "realised": float(mine.mean()) * unit,
                    "more than optimal": float(gap.mean()),
                    "+-": float(gap.std(ddof=1) / np.sqrt(len(gap))),
                }
            )
            print(rows[-1], flush=True)
    return rows


def draw(rows: list[dict[str, Any]], quantities: Sequence[str], path: Path, real: dict[str, float]) -> None:
    """Each quantity of every sampler against its calls, side by side; ``real`` is what real data have."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(quantities), figsize=(5 * len(quantities), 5.5), layout="constrained")
    asked = sorted({row["calls asked"] for row in rows})
    for axis, quantity in zip(axes, quantities):
        axis.set_prop_cycle(color=[*plt.get_cmap("tab10").colors, "black", "gold"])
        for name in dict.fromkeys(row["sampler"] for row in rows):
            mine = [row for row in rows if row["sampler"] == name]
            values = [float(str(row[quantity]).split()[0]) for row in mine]
            axis.plot([row["nfe"] for row in mine], values, "o-", ms=4, label=name)
        if quantity in real:
            axis.axhline(real[quantity], color="black", lw=1, ls=":", label="real data")
        unit = ", %" if "%" in str(rows[0][quantity]) else ""
        axis.set(xlabel="network calls, full-forward equivalents", ylabel=f"{quantity}{unit}", xscale="log")
        axis.set_xticks(asked, [str(calls) for calls in asked])
        axis.minorticks_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=110)
    print(path)
