"""Which order solves the most Sudoku puzzles for how many network calls? Every preset, and the rules that draw first.

Run: python benchmarks/sudoku_orders.py [--scale 1] [--write]. About 20 minutes on one quiet core.

Fresh puzzles of 34 clues and minimal ones, the shipped model, plans of 2, 4, 8, 12, 24 and as many calls as cells,
several thresholds and budgets of the rules that choose their own counts, and passes split by partial caching.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from sudoku import SEED
from torch import Tensor

import unmask
from unmask import plans
from unmask.base.statistics import wilson
from unmask.command_line.commands.demo import Remembering
from unmask.data import sudoku as boards
from unmask.kernels import commit, remask
from unmask.masking import schedules
from unmask.orders import presets, rules

BATCH = 64
STEPS = (2, 4, 8, 12, 24, 81)
"""Calls of the fixed plans; 81 means one cell per call."""

KINDS = {"34 clues": (160, 80, 32), "minimal": (80, 48, 32)}
"""Puzzles for: the reference and adaptive rules; plans of at most 12 calls; longer ones."""

REFERENCE = "confidence"
Run = Callable[[unmask.Denoiser, Tensor, Tensor, torch.Generator], unmask.Result]
"""A sampler: (denoiser, tokens, order_ids, generator) -> Result."""


@dataclass(frozen=True)
class Setting:
    """A sampler with its family (a line of the plot), its setting within it, and the calls of its plan, 0 if adaptive."""

    family: str
    setting: str
    run: Run
    calls: int = 0
    symbols: str = "arg-max"


def main() -> None:
    """Prints, and with --write records and draws, solved shares over calls."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="sudoku")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the puzzles to take")
    parser.add_argument("--families", nargs="*", help="only these")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    model = unmask.load(options.model)
    rows: list[dict[str, Any]] = []
    for kind, sizes in KINDS.items():
        counts = [max(1, round(options.scale * n)) for n in sizes]
        puzzles = (
            boards.puzzles(counts[0], SEED, clues=34)
            if kind == "34 clues"
            else boards.puzzles(counts[0], SEED + 1)
        )
        denoiser = Remembering(
            model.denoiser
        )  # orders that meet the same board share the work, not the count
        for setting in settings(denoiser):
            if not options.families or setting.family in options.families:
                began = time.perf_counter()
                rows.append({"puzzles": kind, **solved(denoiser, *puzzles, setting, taken(setting, counts))})
                print(*list(rows[-1].values())[:-1], f"{time.perf_counter() - began:.0f} s", flush=True)
    found = (
        statement(rows) if any(r["family"] == REFERENCE and r["setting"] == "81 calls" for r in rows) else ""
    )
    outcomes = {
        f"{r['puzzles']}, {r['family']}, {r['setting']}, {r['symbols']}": r.pop("outcome") for r in rows
    }
    notes = NOTES.format(hash=model.hash, seed=SEED, found=found)
    print("\n".join([notes, *record.table(rows)]))
    if options.write:
        path = record.write("sudoku_orders", rows, notes, outcomes=outcomes)
        draw(rows, path.with_suffix(".png"))
        path.write_text(path.read_text() + f"\n![solved share over calls]({path.stem}.png)\n")
        print(path)


NOTES = """
Model `sudoku`, weights {hash}. Solved: every cell equals the only solution; Wilson 95 % interval. Puzzles:
`unmask.data.sudoku.puzzles`, seed {seed} (34 clues) and the next one (minimal); a setting takes the first n of them.
Calls: mean network calls per puzzle in full-forward equivalents (sub-steps count m/81 for a partial pass over m cells;
the look-ahead of information gain counts). Plans are uniform in that many calls, "81 calls" is one cell per call.
The best settings below were picked on the puzzles that they are judged by, which flatters them a little; with n = 160 a
point is 1.6 puzzles.

{found}
"""


# --- settings --------------------------------------------------------------------------------------


def settings(denoiser: unmask.Denoiser) -> list[Setting]:
    """Everything that is compared."""
    fixed = [
        Setting(family, f"{k} calls", selecting(make(sized(k)), source), k, symbols)
        for family, make, source, symbols in planned(denoiser)
        for k in STEPS
    ]
    return [*fixed, *drawn(), *adaptive(), *split(), *draws_first(), *masks_again()]


def planned(denoiser: unmask.Denoiser) -> list[tuple[str, Callable[[Any], unmask.Selector], Any, str]]:
    """Presets that follow a plan: family, how to make one, source, its name."""
    background = torch.full((9,), 1 / 9)
    arg_max: dict[str, Callable[[Any], unmask.Selector]] = {
        "confidence": presets.confidence,
        "random": presets.random,
        "left to right": presets.left_to_right,
        "margin": presets.margin,
        "noisy margin": presets.noisy_margin,
        "entropy": presets.entropy,
        "moment": presets.moment,
        "halton": lambda plan: presets.halton(9, 9, plan),
        "bisection": presets.bisection,
        "hybrid": presets.hybrid,
        "pc": lambda plan: presets.pc(background, plan, decay=0.0),
        "information gain": lambda plan: presets.information_gain(denoiser, plan),
    }
    sharp = {"moment sampler": presets.moment_sampler, "race": presets.race}
    greedy, draw_ = (unmask.greedy, "arg-max"), (unmask.draw, "drawn")
    return [(n, m, *greedy) for n, m in arg_max.items()] + [(n, m, *draw_) for n, m in sharp.items()]


def sized(calls: int) -> Callable[[int], tuple[int, ...]]:
    """A uniform plan of so many calls, fewer where fewer cells are masked."""

    def sizes(masked: int) -> tuple[int, ...]:
        return plans.uniform(masked, min(calls, masked))

    return sizes


def drawn() -> list[Setting]:
    """The main orders with symbols drawn from the law."""
    orders = {"confidence": presets.confidence, "random": presets.random}
    found = [
        Setting(n, f"{k} calls", selecting(make(sized(k)), unmask.draw), k, "drawn")
        for n, make in orders.items()
        for k in (4, 12, 81)
    ]
    found += [
        Setting("ancestral", f"{k} steps", selecting(presets.ancestral(k), unmask.draw), k, "drawn")
        for k in STEPS[:-1]
    ]
    hitting = selecting(presets.first_hitting(), unmask.draw)
    rule = selecting(presets.threshold(0.99), unmask.draw)
    return [
        *found,
        Setting("first hitting", "81 calls", hitting, 81, "drawn"),
        Setting("threshold", "0.99", rule, 0, "drawn"),
    ]


def adaptive() -> list[Setting]:
    """Rules that choose their own counts."""
    made = {
        "threshold": [(f"{x}", presets.threshold(x)) for x in (0.5, 0.7, 0.9, 0.99, 0.999, 0.9999)],
        "entropy budget": [(f"{x}", presets.eb(x)) for x in (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)],
        "factor": [(f"{x}", presets.factor(x)) for x in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)],
        "klass": [(f"{t}, {e}", presets.klass(t, e)) for t, e in ((0.6, 0.015), (0.9, 0.01), (0.99, 0.003))],
        "spaced threshold": [(f"{x}, 2", rules.spaced(presets.threshold(x), 2)) for x in (0.9, 0.99)],
        "by level": [("bisection", presets.bisection())],
    }
    return [Setting(f, name, selecting(s, unmask.greedy)) for f, found in made.items() for name, s in found]


def split() -> list[Setting]:
    """Partial caching: each step in 2 or 3 parts, the later ones run for the chosen cells only."""
    chosen = {
        "confidence": [(k, presets.confidence(sized(k))) for k in (2, 4, 8)],
        "threshold": [(0, presets.threshold(0.9))],
    }
    return [
        Setting(
            f"{family}, {s} sub-steps", f"{k} steps" if k else "0.9", selecting(selector, unmask.greedy, s), k
        )
        for family, found in chosen.items()
        for k, selector in found
        for s in (2, 3)
    ]


def draws_first() -> list[Setting]:
    """The rules of `unmask.kernels.commit`."""
    made: dict[str, Callable[[int], commit.Rule]] = {
        "maskgit": lambda k: commit.maskgit(commit.annealed(4.5, k), commit.cosine_counts(k)),
        "low confidence": lambda k: commit.low_confidence(1.0, sized(k)),
    }
    return [
        Setting(n, f"{k} calls", committing(make(k)), k, "drawn") for n, make in made.items() for k in STEPS
    ]


def masks_again() -> list[Setting]:
    """The kernels of `unmask.kernels.remask`."""
    alpha, grid = schedules.linear().alpha, schedules.uniform_grid
    made: dict[str, Callable[[int], Sequence[remask.Kernel]]] = {
        "remdm": lambda k: remask.remdm(alpha, grid(k), remask.rescale(0.1)),
        "p2": remask.p2,
        "p2, then gibbs": lambda k: [*remask.p2(k // 2), *[remask.gibbs(2, remask.symbol_margin)] * (k // 4)],
    }
    return [
        Setting(n, f"{k} calls", masking(make(k)), k, "drawn")
        for n, make in made.items()
        for k in STEPS[1:-1]
    ]


def selecting(selector: unmask.Selector, source: unmask.TokenSource, substeps: int = 1) -> Run:
    """`unmask.sample`."""
    return lambda denoiser, tokens, ids, generator: unmask.sample(
        denoiser, tokens, selector, generator=generator, source=source, substeps=substeps, order_ids=ids
    )


def committing(rule: commit.Rule) -> Run:
    """`unmask.kernels.commit.sample`."""
    return lambda denoiser, tokens, _, generator: commit.sample(denoiser, tokens, rule, generator=generator)


def masking(kernels: Sequence[remask.Kernel]) -> Run:
    """`unmask.kernels.remask.sample`."""
    return lambda denoiser, tokens, _, generator: remask.sample(
        denoiser, tokens, kernels, generator=generator
    )


# --- measuring -------------------------------------------------------------------------------------


def taken(setting: Setting, counts: Sequence[int]) -> int:
    """How many puzzles a setting gets."""
    if not setting.calls or (setting.family == REFERENCE and setting.symbols == "arg-max"):
        return counts[0]
    return counts[1] if setting.calls <= 12 else counts[2]


def solved(
    denoiser: unmask.Denoiser, puzzles: np.ndarray, solutions: np.ndarray, setting: Setting, count: int
) -> dict[str, Any]:
    """Solved share and calls of one setting on the first ``count`` puzzles; "outcome" has a 1 for each one solved."""
    right, calls = [], 0.0
    for start in range(0, count, BATCH):
        tokens, truth = (torch.as_tensor(x[start : min(start + BATCH, count)]) for x in (puzzles, solutions))
        ids, generator = torch.arange(start, start + len(tokens)), torch.Generator().manual_seed(start)
        result = setting.run(denoiser, tokens, ids, generator)
        right.append((result.tokens == truth).all(1))
        calls += float(result.nfe.sum())
    outcome = torch.cat(right)
    low, high = wilson(int(outcome.sum()), count)
    return {
        "family": setting.family,
        "setting": setting.setting,
        "symbols": setting.symbols,
        "n": count,
        "solved %": round(100 * float(outcome.double().mean()), 1),
        "95 %": f"{100 * low:.1f} to {100 * high:.1f}",
        "calls": round(calls / count, 2),
        "outcome": "".join("01"[int(x)] for x in outcome),
    }


def statement(rows: list[dict[str, Any]]) -> str:
    """The cheapest rule with counts of its own that keeps within one point of one cell per call, on both sets."""
    lines = []
    for kind in KINDS:
        mine = [r for r in rows if r["puzzles"] == kind and r["symbols"] == "arg-max"]
        best = next(r for r in mine if r["family"] == REFERENCE and r["setting"] == "81 calls")
        names = {s.family for s in adaptive()}
        near = [r for r in mine if r["family"] in names and r["solved %"] >= best["solved %"] - 1]
        lines.append(
            f"{kind}, one cell per call, {REFERENCE}: {best['solved %']} % in {best['calls']} calls. "
            + "; ".join(compared(r, best) for r in sorted(near, key=lambda r: r["calls"])[:3])
        )
    return "Adaptive rules within one point of it, cheapest first:\n\n" + "\n".join(
        f"- {line}" for line in lines
    )


def compared(row: dict[str, Any], best: dict[str, Any]) -> str:
    """A rule beside the reference, puzzle by puzzle."""
    pairs = list(zip(row["outcome"], best["outcome"]))
    return (
        f"{row['family']} {row['setting']}: {row['solved %']} % in {row['calls']} calls "
        f"(it alone solves {pairs.count(('1', '0'))}, the reference alone {pairs.count(('0', '1'))} of {row['n']})"
    )


# --- the plot --------------------------------------------------------------------------------------

LINES = {
    "threshold": ("tab:red", "o-"),
    "entropy budget": ("tab:purple", "s-"),
    "factor": ("tab:pink", "v-"),
    "confidence": ("tab:blue", "o--"),
    "margin": ("tab:cyan", "^--"),
    "moment": ("tab:olive", "d--"),
    "random": ("tab:gray", "o:"),
    "left to right": ("tab:brown", "<:"),
    "bisection": ("black", "x:"),
    "maskgit": ("tab:orange", "P-."),
    "low confidence": ("gold", "*-."),
    "p2": ("tab:green", "h-."),
}
"""Colour and style: solid for adaptive counts, dashes sighted, dots blind, dash and dot where symbols are drawn first."""


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Solved share over calls, one panel for each set of puzzles; families without a style are pale."""
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 5.2), layout="constrained")
    for axes, kind in zip(panels, KINDS):
        shown = [r for r in rows if r["puzzles"] == kind]
        for family in dict.fromkeys(r["family"] for r in shown):
            mine = [r for r in shown if r["family"] == family]
            kept = [r for r in mine if r["symbols"] == "arg-max"] or mine
            points = [(r["calls"], r["solved %"]) for r in kept]
            colour, style = LINES.get(family, ("0.85", ".-"))
            front = family in LINES
            axes.plot(
                *zip(*points),
                style,
                color=colour,
                markersize=5 if front else 3,
                zorder=2 + front,
                label=family if front else None,
            )
        axes.set(xscale="log", xlabel="network calls per puzzle", title=kind)
        axes.set_ylim(10 * (min(r["solved %"] for r in shown) // 10) - 2, 102)
        axes.set_xticks([1, 2, 4, 8, 16, 32, 64], labels=["1", "2", "4", "8", "16", "32", "64"])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("solved, %")
    styles = "solid: own counts\ndashes: sighted, planned\ndots: blind, planned\ndash-dot: draws first\npale: the others\n"
    figure.legend(
        *panels[1].get_legend_handles_labels(), title=styles, loc="outside right center", frameon=False
    )
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
