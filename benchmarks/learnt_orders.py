"""Does a learnt order beat margin, and how far is the best order that there is? And what does PUNT's look-ahead give?

Run: python benchmarks/learnt_orders.py laws [--seeds 3] [--write]                 four short exact laws, KL
     python benchmarks/learnt_orders.py zebra MODEL [--cells 3] [--write]          zebra puzzles: solved, nats
     python benchmarks/learnt_orders.py sudoku --cells 8 [--order DIR] [--write]   minimal Sudoku, the same

About 4 minutes of one core each, and as many again for each halving of ``--cells``. MODEL is a folder that `unmask train
zebra` leaves. With ``--order`` a Sudoku order is kept, and tried again at other ``--cells``.
"""

from __future__ import annotations

import argparse
import ast
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import record
import torch
from orders import LAWS, support
from torch import Tensor

import unmask
from unmask import laws, plans, scores, selectors
from unmask.base.statistics import wilson
from unmask.base.types import Plan, Score, Selector
from unmask.data import sudoku as boards
from unmask.data import zebra
from unmask.evaluation.searched import MOST_STATES, best_order
from unmask.laws import Law
from unmask.orders import policy
from unmask.recipes.laboratory.zebra import ZebraData, to_tokens
from unmask.recipes.sudoku import AXES
from unmask.training.ordering import Items, Lessons, learn

SEED = 20_261_128
"""Seed of test puzzles; orders are learnt on puzzles of `LEARNING` and seeds after it."""

LEARNING = 5_000_000
BATCH = 64
EPS = (0.01, 0.05, 0.3)
"""Thresholds of PUNT, nats."""

Row: TypeAlias = dict[str, Any]
Parts: TypeAlias = dict[str, list[Row]]

ORDERS: dict[str, Score] = {
    "random": scores.at_random(0),
    "top probability": scores.confidence,
    "margin": scores.margin,
    "entropy": scores.negative_entropy,
}


def main() -> None:
    """Prints, and with --write records, the table of one part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("model", nargs="?", default="sudoku")
    parser.add_argument("--num", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cells", type=int, default=3, help="cells per call of the plan, for puzzles")
    parser.add_argument(
        "--order", type=Path, help="folder of a learnt order: read if it is there, else written"
    )
    parser.add_argument(
        "--known", type=Path, help="what a run of laws printed that was cut off: not run again"
    )
    parser.add_argument("--laws", nargs="*", choices=SHORT, default=WITH_BEST)
    parser.add_argument("--steps", type=int, help="training steps, instead of the part's own")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tables, notes = PARTS[options.part](options)
    if options.write:
        laws_only = "" if options.laws == WITH_BEST else "_" + "_".join(options.laws).replace(" ", "_")
        name = laws_only if options.part == "laws" else f"_{options.cells}_per_call"
        print(record.write_parts(f"learnt_orders_{options.part}{name}", tables, notes))
    print("\n".join([notes, *(line for rows in tables.values() for line in ("", *record.table(rows)))]))


def taught(network: policy.OrderNetwork, *lesson: Any) -> tuple[Score, str]:
    """A learnt score, and how long that took."""
    began = time.perf_counter()
    rewards = learn(network, *lesson, each=lambda n, r: n % 5 or print(n, round(r, 4), flush=True))
    head, tail = (float(np.mean(part)) for part in (rewards[:20], rewards[-20:]))
    told = f"{time.perf_counter() - began:.0f} s, mean reward {head:.3f} in the first 20 steps, {tail:.3f} in the last"
    return scores.learnt(network), told


# --- exact laws -------------------------------------------------------------------------------------

LAW_NOTES = """
KL(law, sampler) in nats with exact conditionals, by the log-likelihood of all sequences; the order is disclosed (random:
mean over orders, from the profile). Plans are uniform in K calls. "best" rows are searched over all sets of positions at
every state: fixed orders are the same whatever the symbols, adaptive ones see them; "free sizes" may also choose how many
positions each of at most K calls unmasks. Learnt: {steps} steps of 24 sequences, 8 orders each, reward the log-likelihood,
{parameters} parameters at most, which also see the visible symbols; mean over seeds, and from the least to the
largest. "of the gap": how much of what margin lies above the best adaptive order of that plan the learnt mean makes up for.

PUNT chooses its own sizes, so it stands in a table of its own with its calls, tests included; one position per call takes
N calls and costs no nats. Beside it the least KL of free sizes in as many steps as its longest path has.

chain: 3 symbols, N = 8, rows Dirichlet(.35) of seed 0. ising: 3 x 3 open grid, coupling .7, field .1. latents: 4 bits, 4
observations of three of them each (not all equal). switch: the first of 5 symbols says which two pairs of the others are
equal; 3 symbols. sudoku 4x4: uniform on 288 grids, too long for the search (nan).
"""


def switch() -> Law:
    """Four symbols in two equal pairs; the first position says in which pairs."""
    rows = []
    for first, pairs in enumerate((((1, 2), (3, 4)), ((1, 3), (2, 4)), ((1, 4), (2, 3)))):
        for a in range(3):
            for b in range(3):
                row = [first, 0, 0, 0, 0]
                for place, symbol in ((pairs[0], a), (pairs[1], b)):
                    row[place[0]] = row[place[1]] = symbol
                rows.append(row)
    return laws.Support(torch.tensor(rows), 3)


SHORT: dict[str, Callable[[], Law]] = {
    "chain": LAWS["chain"][0],
    "ising": LAWS["ising .7"][0],
    "latents": lambda: laws.NotAllEqual(4, 4),
    "switch": switch,
    "sudoku 4x4": laws.Sudoku4,
}

WITH_BEST = ["chain", "ising", "latents", "switch"]
"""Laws that are short enough for the search."""

CALLS = {"chain": (2, 4), "ising": (2, 4), "latents": (2, 4), "switch": (2, 3), "sudoku 4x4": (8,)}


def exact(options: argparse.Namespace) -> tuple[Parts, str]:
    """KL by order, law and number of calls; PUNT beside."""
    rows, punt, size = [], [], 0
    lines = [] if options.known is None else options.known.read_text().splitlines()
    cut_off = [ast.literal_eval(line) for line in lines if line.startswith("{")]
    known = {(row["law"], row["plan"]): row for row in cut_off}
    for name in options.laws:
        law = SHORT[name]()
        for calls in CALLS[name]:
            plan = "+".join(map(str, plans.uniform(law.length, calls)))
            rows.append(known.get((name, plan)) or by_order(name, law, calls, options))
            print(rows[-1], flush=True)
        punt += list(by_test(name, law))
        size = max(size, sum(p.numel() for p in untrained(law, 0).parameters()))
    notes = LAW_NOTES.format(steps=options.steps or 200, parameters=size)
    return {"orders under a plan": rows, "PUNT": punt}, notes


def by_order(name: str, law: Law, calls: int, options: argparse.Namespace) -> Row:
    """The KL of every order under one plan."""
    plan = plans.uniform(law.length, calls)
    known = {n: cost(law, selectors.top_k(s, plan))[0] for n, s in ORDERS.items() if n != "random"}
    best = {n: searched(law, plan, fixed=n == "fixed") for n in ("fixed", "adaptive")}
    steps, found = options.steps or 200, []
    for seed in range(options.seeds):
        network = untrained(law, seed)
        score, _ = taught(network, law, drawn(law, seed), plan, Lessons(steps=steps, seed=seed))
        found.append(cost(law, selectors.top_k(score, plan))[0])
    mean = float(np.mean(found))
    gap = known["margin"] - best["adaptive"]
    row: Row = {"law": name, "plan": "+".join(map(str, plan)), "seeds": options.seeds}
    row |= {"random": rounded(law.profile().kl(plan))} | known
    row |= {"learnt": mean, "from to": f"{min(found):.4f} to {max(found):.4f}"}
    row |= {"best fixed": best["fixed"], "best adaptive": best["adaptive"]}
    row |= {"of the gap": f"{100 * (known['margin'] - mean) / gap:.0f} %" if gap > 1e-9 else "-"}
    return row | {"best, free sizes": searched(law, calls=calls)}


def untrained(law: Law, seed: int) -> policy.OrderNetwork:
    """A network for a law that sees the visible symbols."""
    return policy.blank(policy.OrderConfig(law.length, symbols=law.vocab_size, sharpness=1.0), seed)


def drawn(law: Law, seed: int) -> Items:
    """Fresh sequences, nothing visible."""

    def items(step: int) -> tuple[Tensor, Tensor]:
        tokens = law.sample(24, torch.Generator().manual_seed(LEARNING + 10_000 * seed + step))
        return tokens, torch.zeros_like(tokens, dtype=torch.bool)

    return items


def by_test(name: str, law: Law) -> Iterator[Row]:
    """What PUNT costs."""
    for eps in EPS:
        kl, steps, most, calls = cost(law, selectors.independent(law, eps))
        row: Row = {"law": name, "N": law.length, "eps": eps, "KL": kl, "steps": steps, "most steps": most}
        least = 0.0 if most >= law.length else searched(law, calls=most)
        yield row | {"calls": calls, "best in most steps": least}


def cost(law: Law, selector: Selector) -> tuple[float, float, int, float]:
    """KL in nats, steps under the law, mean and most, and mean calls."""
    tokens = support(law)
    truth = law.log_prob(tokens)
    state = unmask.engine.init(torch.full_like(tokens, law.mask_id), law.mask_id)
    state, trace = unmask.engine.run(state, law, selector, unmask.given(tokens))
    weights, steps = truth.exp(), torch.zeros_like(truth)
    for info in trace:
        steps[info.items] += 1
    kl = rounded(float(weights @ (truth - state.log_prob)))
    return kl, float(weights @ steps), len(trace), float(weights @ state.nfe)


def searched(law: Law, *plan: Plan, **kind: Any) -> float:
    """The least KL there is; NaN for a law of too many states."""
    many = (law.vocab_size + 1) ** law.length > MOST_STATES
    return math.nan if many else rounded(best_order(law, *plan, **kind).kl)


def rounded(nats: float) -> float:
    """Without float noise."""
    return max(round(nats, 9), 0.0)


# --- puzzles ----------------------------------------------------------------------------------------

PUZZLE_NOTES = """
Fresh puzzles of seed {seed}, one solution each, clues visible. Solved: arg-max symbols give the solution; Wilson 95 %
interval. Nats: -log-likelihood of the solution along the order, mean and standard error; "less margin": the same less
margin's on the same puzzles, with its standard error. Calls count PUNT's tests.

{learnt}
"""


def measured(
    denoiser: unmask.Denoiser, tokens: Tensor, truth: Tensor, selector: Selector
) -> dict[str, Tensor]:
    """Solved bool, nats and calls of every puzzle."""
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(tokens), BATCH):
        some, right = tokens[start : start + BATCH], truth[start : start + BATCH]
        ids = torch.arange(start, start + len(some))
        generator = torch.Generator().manual_seed(SEED)
        made = unmask.sample(
            denoiser, some, selector, generator=generator, source=unmask.greedy, order_ids=ids
        )
        seen = some != denoiser.mask_id
        nats = -unmask.log_likelihood(denoiser, right, selector, visible=seen, order_ids=ids)
        parts.append(((made.tokens == right).all(1), nats, made.nfe))
    return {name: torch.cat(column) for name, column in zip(("solved", "nats", "nfe"), zip(*parts))}


def puzzle_rows(
    denoiser: unmask.Denoiser, tokens: Tensor, truth: Tensor, found: dict[str, Selector], per_call: int
) -> Iterator[Row]:
    """A row for each selector; the others are compared with margin's."""
    figures = {}
    for name, selector in found.items():
        figures[name] = measured(denoiser, tokens, truth, selector)
        print(
            per_call,
            name,
            {k: round(float(v.double().mean()), 4) for k, v in figures[name].items()},
            flush=True,
        )
    for name, mine in figures.items():
        solved, count = int(mine["solved"].sum()), len(tokens)
        low, high = wilson(solved, count)
        less = mine["nats"] - figures["margin"]["nats"]
        yield {
            "cells per call": "own" if name.startswith("PUNT") else per_call,
            "order": name,
            "n": count,
            "solved %": round(100 * solved / count, 1),
            "95 %": f"{100 * low:.1f} to {100 * high:.1f}",
            "nats": with_error(mine["nats"]),
            "less margin": "-" if name == "margin" else with_error(less),
            "calls": round(float(mine["nfe"].mean()), 2),
        }


def with_error(values: Tensor) -> str:
    """A mean and its standard error."""
    return f"{float(values.mean()):.3f} +- {float(values.std()) / len(values) ** 0.5:.3f}"


def usual(plan: Plan) -> dict[str, Selector]:
    """The orders that everybody has."""
    return {name: selectors.top_k(score, plan) for name, score in ORDERS.items()}


def zebras(options: argparse.Namespace) -> tuple[Parts, str]:
    """Zebra puzzles, orders learnt for the likelihood and for solving at so many cells per call."""
    model = unmask.load(options.model)
    size = ZebraData(**model.config["data"]).size()
    axes = tuple(tuple(axis) for axis in model.config["network"]["axes"])
    tokens, truth = zebra_set(options.num, SEED, size)
    found, learnt = usual(options.cells), []
    for solving in (False, True):
        network = policy.blank(policy.OrderConfig(tokens.shape[1], symbols=size.houses, axes=axes))
        lessons = Lessons(steps=options.steps or 150, solving=solving)
        score, told = taught(network, model.denoiser, zebra_items(size), options.cells, lessons)
        name = f"learnt for {'solving' if solving else 'likelihood'}"
        learnt.append(f"- {name}: {lessons.steps} steps of 16 puzzles, 8 orders each; {told}")
        found[name] = selectors.top_k(score, options.cells)
    if options.cells > 1:
        found |= {f"PUNT {eps}": selectors.independent(model.denoiser, eps) for eps in EPS}
    rows = list(puzzle_rows(model.denoiser, tokens, truth, found, options.cells))
    return {"orders": rows}, PUZZLE_NOTES.format(seed=SEED, learnt="\n".join([described(model), "", *learnt]))


def described(model: unmask.Model) -> str:
    """Which model it is."""
    data = ", ".join(f"{k} {v}" for k, v in model.config["data"].items())
    return f"Model `{model.name}` ({data}), {model.config['trained_steps']} steps, weights {model.hash}."


def zebra_set(count: int, seed: int, size: zebra.Size) -> tuple[Tensor, Tensor]:
    """Puzzles as tokens, and their solutions."""
    clues, grids = zebra.puzzles(count, seed, size)
    return to_tokens(clues, np.full_like(grids, -1), size), to_tokens(clues, grids, size)


def zebra_items(size: zebra.Size) -> Items:
    """Puzzles to learn on."""

    def items(step: int) -> tuple[Tensor, Tensor]:
        truth = zebra_set(16, LEARNING + step, size)[1]
        return truth, (torch.arange(truth.shape[1]) < size.most).expand_as(truth)

    return items


def sudokus(options: argparse.Namespace) -> tuple[Parts, str]:
    """Minimal Sudoku puzzles, an order learnt for the likelihood at so many cells per call, or one learnt before."""
    model, folder = unmask.load(options.model), options.order
    if folder is not None and folder.exists():
        network, told = policy.read(folder), "by an earlier run, for eight cells per call, and tried as it is"
        score = scores.learnt(network)
    else:
        network = policy.blank(policy.OrderConfig(81, axes=AXES))
        lessons = Lessons(steps=options.steps or 40, epochs=4)
        score, told = taught(network, model.denoiser, sudoku_items, options.cells, lessons)
        told = f"for the likelihood, {lessons.steps} steps of 8 puzzles, 8 orders each, 4 epochs; {told}"
        if folder is not None:
            policy.write(network, folder)
    found = {**usual(options.cells), "learnt": selectors.top_k(score, options.cells)}
    if options.cells > 1:
        found["PUNT 0.05"] = selectors.independent(model.denoiser, 0.05)
    tokens, truth = (torch.as_tensor(x) for x in boards.puzzles(options.num, SEED))
    rows = list(puzzle_rows(model.denoiser, tokens, truth, found, options.cells))
    learnt = f"Model `{model.name}`, weights {model.hash}. Learnt {told} ({score.name})."
    return {"orders": rows}, PUZZLE_NOTES.format(seed=SEED, learnt=learnt)


def sudoku_items(step: int) -> tuple[Tensor, Tensor]:
    """Minimal puzzles to learn on."""
    puzzles, solutions = (torch.as_tensor(x) for x in boards.puzzles(8, LEARNING + step))
    return solutions, puzzles != 9


PARTS: dict[str, Callable[[argparse.Namespace], tuple[Parts, str]]] = {
    "laws": exact,
    "zebra": zebras,
    "sudoku": sudokus,
}


if __name__ == "__main__":
    main()
