"""What does each order cost? Exact KL of every choose-first preset on ten solvable laws at K = N/4, N/2 and N calls.

Run: python benchmarks/orders.py [--orders 256] [--laws chain ising ..] [--write]. About twenty minutes on one core.

The law of a sampler is found by expanding its tree: states that look the same are expanded once, the selector and the
denoiser run on those, and every sequence that has probability collects its log-probability. No sampling of symbols.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import record
import torch
from torch import Tensor

from unmask import engine, laws, plans, scores
from unmask.base.types import Request, Selector
from unmask.engine.state import branched
from unmask.laws import Law
from unmask.orders import presets, rules


@dataclass(frozen=True)
class Case:
    """A law, the number of calls K, and the height and width of its grid."""

    law: Law
    calls: int
    grid: tuple[int, int]

    @property
    def uniform(self) -> tuple[int, ...]:
        """The uniform plan."""
        return plans.uniform(self.law.length, self.calls)


Make = Callable[[Case], list[Selector]]
"""Selectors to choose from: of those within the number of calls the cheapest in nats counts."""


@dataclass(frozen=True)
class Preset:
    """How to make a preset: ``noisy`` ones depend on order_ids, ``biased`` ones are no order only.

    ``disclosed`` gives the KL with the order disclosed where the profile knows it exactly.
    """

    make: Make
    noisy: bool = False
    biased: bool = False
    disclosed: Callable[[Case], float] | None = None


def chain(length: int) -> Law:
    """The reference chain of three symbols, stationary."""
    transition = np.random.default_rng(0).dirichlet([0.35] * 3, size=3)
    return laws.Markov(laws.stationary(transition), transition, length)


def sticky(length: int) -> Law:
    """Three symbols that stay with probability .9."""
    return laws.Markov([1 / 3] * 3, 0.85 * np.eye(3) + 0.05, length)


def ising(coupling: float, side: int = 3, field: float = 0.1) -> Law:
    """Spins on an open square grid."""
    spins = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * side**2)
    grid = spins.view(-1, side, side)
    pairs = (grid[:, 1:] * grid[:, :-1]).sum((1, 2)) + (grid[:, :, 1:] * grid[:, :, :-1]).sum((1, 2))
    return laws.Table((coupling * pairs + field * spins.sum(1)).log_softmax(0), side**2)


LAWS: dict[str, tuple[Callable[[], Law], tuple[int, int]]] = {
    "chain": (lambda: chain(8), (1, 8)),
    "sticky": (lambda: sticky(8), (1, 8)),
    "ising .4": (lambda: ising(0.4), (3, 3)),
    "ising .7": (lambda: ising(0.7), (3, 3)),
    "sudoku 4x4": (laws.Sudoku4, (4, 4)),
    "hamming": (laws.Hamming74, (1, 7)),
    "permutation": (lambda: laws.Permutation(6), (1, 6)),
    "repetition": (lambda: laws.NoisyRepetition(8, 0.1), (1, 8)),
    "curie-weiss": (lambda: laws.CurieWeiss(8, 1.3), (1, 8)),
    "polya": (lambda: laws.Polya([0.4, 2.0, 0.7], 6), (1, 6)),
}


def by_plan(preset: Callable[[tuple[int, ...]], Selector]) -> Make:
    """A preset under the uniform plan."""
    return lambda case: [preset(case.uniform)]


def planned(preset: Callable[[tuple[int, ...]], Selector]) -> Make:
    """A preset under every plan of K calls: the cheapest is the best that planned sizes can do for that order.

    Left out where there are more than a hundred plans.
    """

    def make(case: Case) -> list[Selector]:
        many = math.comb(case.law.length - 1, case.calls - 1) > 100
        return [] if many else [preset(plan) for plan in compositions(case.law.length, case.calls)]

    return make


def compositions(total: int, parts: int) -> list[tuple[int, ...]]:
    """All ways to write ``total`` as a sum of ``parts`` positive numbers, in order."""
    cuts = itertools.combinations(range(1, total), parts - 1)
    return [tuple(b - a for a, b in itertools.pairwise((0, *cut, total))) for cut in cuts]


def within(*options: Selector) -> Make:
    """The same selectors whatever the number of calls."""
    return lambda _: list(options)


def halton(case: Case) -> list[Selector]:
    """Only where there is a grid."""
    return [presets.halton(*case.grid, case.uniform)] if case.grid[0] > 1 else []


def best_plan(case: Case) -> list[Selector]:
    """A random order with the best plan of the exact profile."""
    return [presets.random(plans.optimal(case.law.profile(), steps=case.calls))]


def from_profile(case: Case) -> float:
    """Nats of a random order under the uniform plan, order disclosed."""
    return case.law.profile().kl(case.uniform)


def from_best_plan(case: Case) -> float:
    """The same under the best plan."""
    profile = case.law.profile()
    return profile.kl(plans.optimal(profile, steps=case.calls))


def slow_start(case: Case) -> list[Selector]:
    """Confidence under the cosine plan."""
    return [presets.confidence(plans.cosine(case.law.length, case.calls))]


def look_ahead(case: Case) -> list[Selector]:
    """Information gain that looks at every step."""
    return [rules.information_gain(case.law, case.uniform, bypass=2.0)]


LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 2.0)
BUDGETS = (0, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 20)
LIMITS = (0.1, 0.3, 0.5, 0.7, 1, 1.4, 2, 3, 4, 6, 20)
SPACED = [rules.spaced(presets.confidence(k), d) for k in (1, 2, 3, 4, 8) for d in (2, 3, 4)]
STABLE = [presets.klass(t, e, k) for t in (0.3, 0.5, 0.7, 0.9) for e in (0.015, 0.3) for k in (1, 2, 4)]

PRESETS: dict[str, Preset] = {
    "random": Preset(by_plan(presets.random), noisy=True, disclosed=from_profile),
    "random, best plan": Preset(best_plan, noisy=True, disclosed=from_best_plan),
    "left to right": Preset(by_plan(presets.left_to_right)),
    "bisection": Preset(by_plan(presets.bisection)),
    "bisection, by level": Preset(within(presets.bisection())),
    "left to right, best plan": Preset(planned(presets.left_to_right)),
    "bisection, best plan": Preset(planned(presets.bisection)),
    "halton": Preset(halton),
    "confidence": Preset(by_plan(presets.confidence)),
    "confidence, best plan": Preset(planned(presets.confidence)),
    "confidence, slow start": Preset(slow_start),
    "confidence, spaced": Preset(within(*SPACED)),
    "margin": Preset(by_plan(presets.margin)),
    "margin, best plan": Preset(planned(presets.margin)),
    "margin, noise .5": Preset(by_plan(presets.noisy_margin), noisy=True),
    "entropy": Preset(by_plan(presets.entropy)),
    "entropy, best plan": Preset(planned(presets.entropy)),
    "moment, beta 2": Preset(by_plan(presets.moment), noisy=True),
    "hybrid, bisection + confidence": Preset(by_plan(presets.hybrid)),
    "hybrid, random + moment": Preset(
        by_plan(lambda plan: presets.hybrid(plan, 0.5, scores.at_random(0), scores.moment(2.0))), noisy=True
    ),
    "entropy budget": Preset(within(*(presets.eb(gamma) for gamma in BUDGETS))),
    "threshold": Preset(within(*(presets.threshold(tau) for tau in LEVELS))),
    "factor": Preset(within(*(presets.factor(limit) for limit in LIMITS))),
    "klass": Preset(within(*STABLE)),
    "information gain": Preset(look_ahead, noisy=True),
    "moment sampler, alpha 1": Preset(by_plan(presets.moment_sampler), noisy=True, biased=True),
    "race, alpha 1": Preset(by_plan(presets.race), noisy=True, biased=True),
    "race, alpha 4.5": Preset(by_plan(lambda plan: presets.race(plan, 4.5)), noisy=True, biased=True),
}


def main() -> None:
    """Prints, and with --write records, the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--orders", type=int, default=256)
    parser.add_argument("--laws", nargs="*", default=list(LAWS))
    parser.add_argument("--presets", nargs="*", default=list(PRESETS))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    raw = [row for name in options.laws for row in measured(name, options.presets, options.orders)]
    table = ranked(raw, options.laws, options.presets)
    print("\n".join(record.table(table)))
    if options.write:
        print(record.write("orders", table, NOTES.format(orders=options.orders), raw=raw))


def measured(name: str, names: list[str], orders: int) -> list[dict[str, Any]]:
    """One row per number of calls and preset: KL, its standard error over orders, calls."""
    law, grid = LAWS[name][0](), LAWS[name][1]
    tokens = support(law)
    rows: list[dict[str, Any]] = []
    for share in (4, 2, 1):
        calls = round(law.length / share)
        for preset in names:
            began = time.perf_counter()
            best = cheapest(Case(law, calls, grid), tokens, PRESETS[preset], orders)
            rows.append({"law": name, "share": share, "calls": calls, "preset": preset, **best})
            print(name, calls, preset, best, f"{time.perf_counter() - began:.1f} s", flush=True)
    return rows


def cheapest(case: Case, tokens: Tensor, preset: Preset, orders: int) -> dict[str, Any]:
    """The least KL among the preset's settings that keep within the calls; look-ahead calls are not counted here."""
    found: list[dict[str, Any]] = [
        {**cost(case.law, tokens, selector, orders if preset.noisy else 1), "selector": selector.name}
        for selector in preset.make(case)
    ]
    allowed = [figures for figures in found if figures["steps"] <= case.calls + 1e-9]
    best = min(allowed, key=lambda figures: figures["kl"], default={})
    return best if preset.disclosed is None else {**best, "disclosed": preset.disclosed(case), "stderr": 0.0}


def cost(law: Law, tokens: Tensor, selector: Selector, orders: int) -> dict[str, float]:
    """KL in nats of the law mixed over orders and with the order disclosed (with its standard error), steps and calls."""
    values, steps, nfe = expanded(law, tokens, selector, orders)
    truth = law.log_prob(tokens)
    weights = truth.exp()
    paths = (weights * (truth - values)).sum(1)
    whole = float((weights * (truth - (values.logsumexp(0) - np.log(orders)))).sum())
    return {
        "kl": max(whole, 0.0),
        "disclosed": max(float(paths.mean()), 0.0),
        "stderr": float(paths.std() / orders**0.5) if orders > 1 else 0.0,
        "steps": float((weights * steps).sum(1).mean()),
        "nfe": float((weights * nfe).sum(1).mean()),
    }


def support(law: Law) -> Tensor:
    """All sequences that have probability, int64 [S, N]."""
    if isinstance(law, laws.Support):
        return law.rows
    tokens = torch.cartesian_prod(*[torch.arange(law.vocab_size)] * law.length)
    return tokens[law.log_prob(tokens) > -torch.inf]


def expanded(law: Law, tokens: Tensor, selector: Selector, orders: int) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities [orders, S] of sequences tokens [S, N] along each order, with steps and calls of their paths."""
    seen: list[Request] = []

    def watch(request: Request) -> Tensor:
        seen.append(request)
        return torch.zeros_like(request.rows)

    total = orders * len(tokens)
    sequence = tokens.repeat(orders, 1)
    group = torch.arange(orders).repeat_interleave(len(tokens))
    state = engine.init(torch.full((orders, law.length), law.mask_id), law.mask_id, torch.arange(orders))
    values, steps = torch.zeros(total, dtype=torch.float64), torch.zeros(total, dtype=torch.float64)
    while state.masked.any():
        alive = state.masked.any(1)
        after, info = engine.step(state, law, selector, watch)
        rows, laws_, valid = spread_out(seen.pop(), info.rows, len(state.tokens), law.vocab_size)
        mine = rows[group]
        symbols = sequence.gather(1, mine)
        gained = laws_[group].gather(2, symbols[..., None])[..., 0]
        values += torch.where(valid[group], gained.double(), 0.0).sum(1)
        steps += alive[group]
        code = torch.where(valid[group], symbols + 1, 0) @ (law.vocab_size + 1) ** torch.arange(mine.shape[1])
        keys, group = (group * (law.vocab_size + 1) ** mine.shape[1] + code).unique(return_inverse=True)
        member = torch.empty(len(keys), dtype=torch.int64).scatter_(0, group, torch.arange(total))
        parent = keys // (law.vocab_size + 1) ** mine.shape[1]
        state = branched(after, parent, sequence[member])
    shape = (orders, len(tokens))
    return values.view(shape), steps.view(shape), state.nfe[group].view(shape)


def spread_out(request: Request, rows: Tensor, count: int, vocab: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, laws and validity of one step for all ``count`` states; finished ones have no valid row."""
    shape = (count, rows.shape[1])
    places = torch.zeros(shape, dtype=torch.int64).index_copy_(0, request.items, request.rows)
    law = torch.zeros(*shape, vocab, dtype=request.log_probs.dtype).index_copy_(
        0, request.items, request.log_probs
    )
    return places, law, torch.zeros(shape, dtype=torch.bool).index_copy_(0, request.items, rows >= 0)


def ranked(raw: list[dict[str, Any]], names: list[str], presets_: list[str]) -> list[dict[str, Any]]:
    """One line per number of calls and preset: KL with the rank among presets for each law, and the mean rank."""
    table: list[dict[str, Any]] = []
    for share, label in ((4, "N/4"), (2, "N/2"), (1, "N")):
        columns = {
            n: {r["preset"]: r for r in raw if r["law"] == n and r["share"] == share and "kl" in r}
            for n in names
        }
        places = {n: ranks({p: float(r["kl"]) for p, r in column.items()}) for n, column in columns.items()}
        for preset in presets_:
            mine = [places[n][preset] for n in names if preset in places[n]]
            cells = {n: cell(columns[n].get(preset), PRESETS[preset], places[n].get(preset)) for n in names}
            if mine:
                table.append(
                    {"K": label, "preset": preset, **cells, "mean rank": round(float(np.mean(mine)), 1)}
                )
    return table


def cell(figures: dict[str, Any] | None, preset: Preset, rank: int | None) -> str:
    """KL of the mixed law, that with the order disclosed where it differs, and the rank."""
    if figures is None:
        return "-"
    disclosed = f" / {figures['disclosed']:.3f}" if preset.noisy and not preset.biased else ""
    return f"{figures['kl']:.3f}{disclosed} ({rank})"


def ranks(values: dict[str, float]) -> dict[str, int]:
    """1 + how many are better by more than 1e-6 nats."""
    return {name: 1 + sum(other < mine - 1e-6 for other in values.values()) for name, mine in values.items()}


NOTES = """
KL(data law || sampler) in nats, exact conditionals, symbols at temperature 1, with the rank among all presets in
brackets (presets within 1e-6 nats share a rank). Orders that depend on order_ids: first the KL of the law that is mixed
over {orders} order_ids, which is what samples follow and is a little too high because the mixture is finite; after the
stroke the KL with the order disclosed, which is what a code length pays (standard errors in the JSON file). Biased
samplers (moment sampler, race, which is MaskGIT's law): the mixed law only; along one order_id the race is far sharper
than its samples. Ranks compare mixed laws, so a random order gains by being random.

Plans are uniform in K calls unless the name says otherwise; K is rounded. "Best plan": of a random order the optimal one
of the exact profile; of other orders the cheapest of all compositions of N into K sizes, each by its exact KL, where there
are at most a hundred. Rules with adaptive counts (entropy budget, threshold, factor, klass, spaced) have no K: of a grid of
settings the best counts whose mean number of calls under the data law is at most K, so these rows flatter them.
"Bisection, by level" needs 1 + ceil(log2 N) calls. Information gain
looks ahead at 8 candidates, so each of its K steps costs 9 calls. Halton needs a grid.

chain: 3 symbols, N = 8, stationary, rows Dirichlet(.35) of seed 0. sticky: 3 symbols, N = 8, stays with .9. ising: 3 x 3
open grid, field .1. sudoku 4x4: uniform on 288 grids. hamming: [7, 4] code. permutation: of 6. repetition: 8 copies of
a bit, each flipped with .1. curie-weiss: 8 spins, coupling 1.3. polya: weights .4, 2, .7, N = 6.
"""


if __name__ == "__main__":
    main()
