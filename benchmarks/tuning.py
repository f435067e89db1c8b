"""Is a tuned choice right? Exact laws by enumeration, then models that people have, against what they take untuned.

Run: python benchmarks/tuning.py laws [--repeats 200] [--write]          about 10 minutes of a quiet core
     python benchmarks/tuning.py models NAME ... [--calls 4 8 16] [--num N] [--state FOLDER] [--write]

NAME is a shipped or fetched model; its data are the test part that `unmask data fetch` brings, or fresh puzzles.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from torch import Tensor

import unmask
from unmask import laws, plans
from unmask.base.statistics import wilson
from unmask.data.sources.fetch import fetch
from unmask.evaluation.tuning import costs as stepping
from unmask.evaluation.tuning import tasks, tuning
from unmask.evaluation.tuning.candidates import Candidate
from unmask.evaluation.tuning.results import Tuned
from unmask.orders import presets

F64 = torch.float64
BUDGETS = (2, 3, 4)
ORDER_IDS = 24
"""Random orders over which the cost of one is averaged."""

Row = dict[str, Any]


def six_laws() -> dict[str, Any]:
    """Laws small enough to enumerate, of several kinds of dependence."""
    random = torch.Generator().manual_seed(0)
    stay = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=F64)
    start = torch.tensor([0.7, 0.3], dtype=F64)
    return {
        "random table, 3 symbols": laws.Table(
            torch.log_softmax(3 * torch.randn(3**6, generator=random, dtype=F64), 0), 6
        ),
        "spiky table": laws.Table(
            torch.log_softmax(8 * torch.randn(2**8, generator=random, dtype=F64), 0), 8
        ),
        "Markov chain": laws.Markov(start, stay, 8),
        "Curie-Weiss": laws.CurieWeiss(8, 1.2),
        "Polya urn": laws.Polya(torch.tensor([0.5, 0.7], dtype=F64), 8),
        "mixture": laws.Mixture(torch.tensor([0.3, 0.7], dtype=F64), stay, 8),
    }


def everything(law: Any) -> tuple[Tensor, Tensor]:
    """All sequences of a law that have a probability, and these."""
    tokens = torch.tensor(list(itertools.product(range(law.vocab_size), repeat=law.length)))
    shares = law.log_prob(tokens).exp()
    return tokens[shares > 1e-300], shares[shares > 1e-300]


# --- exact laws ---------------------------------------------------------------------------------------

LAW_NOTES = """
Six exact laws, whose KL (order disclosed) is known by enumeration; orders that are random are averaged over {ids} of them.

"costs": steps measured on 256 draws along the path of the plan that is told of, two equal steps and the best plan of three;
predicted mean and standard error against the exact KL, nats. "choice": `tuning.choose` on 256 draws (half to choose
by, half to judge by), budgets of 2, 3 and 4 calls, {repeats} repeats: how often the winner's exact nats (entropy plus KL)
are more than one standard error of the mean of 128 items above those of the best candidate within its budget, Wilson 95 %;
how often they are more than 2 % above; calls of the race as a share of those of the full grid.
"""


def on_laws(repeats: int) -> tuple[dict[str, list[Row]], str]:
    """Predicted costs, and choices by draws."""
    found: dict[str, list[Row]] = {"costs": [], "choice": []}
    for name, law in six_laws().items():
        found["costs"] += cost_rows(name, law)
        found["choice"].append(choice_row(name, law, repeats))
        print(found["choice"][-1], flush=True)
    return found, LAW_NOTES.format(ids=ORDER_IDS, repeats=repeats)


def cost_rows(name: str, law: Any) -> list[Row]:
    """Predicted against exact costs for adaptive orders."""
    rows = []
    tokens = law.sample(256, torch.Generator().manual_seed(1))
    for order in ("confidence", "margin", "entropy"):
        make = getattr(presets, order)
        best = stepping.planned(law, tokens, make, 3, grid=law.length)
        equal = stepping.measure(law, tokens, make, plans.uniform(law.length, 2), grid=law.length)
        for costs in (equal, best):
            mean, error = costs.of(costs.path)
            exact = divergence(law, functools.partial(_always, make(costs.path)), 1)
            row = {
                "law": name,
                "order": order,
                "plan": str(costs.path),
                "predicted": mean,
                "+-": error,
                "exact": exact,
            }
            rows.append(row | {"z": (mean - exact) / error if error > 0 else 0.0})
    return rows


def _always(selector: unmask.Selector, _: int) -> unmask.Selector:
    """The same selector for every order."""
    return selector


def divergence(law: Any, make: Callable[[int], unmask.Selector], orders: int, substeps: int = 1) -> float:
    """KL(law, sampler) of a selector, order disclosed, by enumeration: the mean over order_ids 0..orders-1."""
    tokens, shares = everything(law)
    values = []
    for k in range(orders):
        ids = torch.full((len(tokens),), k)
        found = unmask.log_likelihood(law, tokens, make(k), substeps=substeps, order_ids=ids)
        values.append(float((shares * (law.log_prob(tokens) - found)).sum()))
    return float(np.mean(values))


def choice_row(name: str, law: Any, repeats: int) -> Row:
    """How often the choice by draws is far from the best, and what it takes."""
    tokens, shares = everything(law)
    entropy = -float((shares * law.log_prob(tokens)).sum())

    @functools.lru_cache(None)
    def exact(rule: str, substeps: int, random: bool) -> float:
        selector = made[rule].sampler.selector
        return entropy + divergence(
            law, functools.partial(_always, selector), ORDER_IDS if random else 1, substeps
        )

    made: dict[str, Candidate] = {}
    wrong, far, share, trials = 0, 0, [], 0
    for repeat in range(repeats):
        draws = law.sample(256, torch.Generator().manual_seed(1000 + repeat))
        items = tasks.Items(draws, torch.zeros_like(draws, dtype=torch.bool))
        found = tuning.choose(law, items, BUDGETS, seed=repeat)
        made |= {str(c.sampler.rule) + c.name: c for c in found.candidates}
        nats = {
            c.name: exact(str(c.sampler.rule) + c.name, c.sampler.substeps, c.order in ("random", "moment"))
            for c in found.candidates
            if c.calls
        }
        share.append(found.race.spent / found.race.full)
        for budget, winner in zip(found.budgets, found.winners):
            if winner is None or not winner.candidate.calls:
                continue
            best = min(nats[c.name] for c in found.candidates if c.calls and c.calls <= budget)
            error = (winner.interval[1] - winner.interval[0]) / 4
            mine, trials = nats[winner.candidate.name], trials + 1
            wrong, far = wrong + (mine > best + error), far + (mine > 1.02 * best)
    low, high = (100 * x for x in wilson(wrong, trials))
    row = {"law": name, "entropy": entropy, "choices": trials, "far %": 100 * wrong / trials}
    row |= {"95 %": f"{low:.1f} to {high:.1f}", "2 % above %": 100 * far / trials}
    return row | {"calls, % of the grid": 100 * float(np.mean(share))}


# --- models -------------------------------------------------------------------------------------------

MODEL_NOTES = """
For each model and budget of calls: the winner of `unmask tune` as judged on items that the choice has not seen, mean and
95 % interval, beside the best order in equal steps ("default", of random, confidence, margin, entropy, left to right), and
what the choice gains on the same items. "needs": the least budget of those given whose winner is as good as that default.
"grid": calls of the race as a share of all samplers on all items. Items are test data, all hidden, or puzzles with clues.
"""


def on_models(
    names: list[str], budgets: list[int], num: int, state: Path | None
) -> tuple[dict[str, list[Row]], str]:
    """A row for each model and budget."""
    rows, cost = [], []
    for name in names:
        began = time.perf_counter()
        found = tuned(name, budgets, num, state)
        rows += model_rows(name, found)
        grid = {"model": name, "samplers": len(found.candidates), "calls of the race": found.race.spent}
        grid |= {"grid %": 100 * found.race.spent / found.race.full, "calls for costs": found.measuring}
        cost.append(grid | {"s": time.perf_counter() - began})
        for row in rows[-len(budgets) :]:
            print(row, flush=True)
        print(cost[-1], flush=True)
    return {"choices": rows, "what it took": cost}, MODEL_NOTES


def tuned(name: str, budgets: list[int], num: int, state: Path | None) -> Tuned:
    """The choice for one model."""
    model = unmask.load(name)
    kept = None if state is None else state / f"{name}.jsonl"
    tell = lambda line: print(f"{name}: {line}", flush=True)  # noqa: E731
    if model.sudoku:
        import sudoku_hard

        puzzle, truth = (torch.as_tensor(x) for x in sudoku_hard.puzzles("minimal", "valid", num))
        items = tasks.Items(truth, puzzle != model.denoiser.mask_id)
        return tuning.tune(model, items, budgets, metric=tasks.exact(), state=kept, tell=tell)
    return tuning.tune(
        model, tasks.items_of(model, tokens_of(model, name, num)), budgets, state=kept, tell=tell
    )


def tokens_of(model: unmask.Model, name: str, num: int) -> Tensor:
    """Test sequences of a shipped model's data, or heavy chains, one of a clone, for models of antibodies."""
    from unmask.command_line import sequences
    from unmask.data.sources import antibodies

    if name in ("antiberty", "sapiens_vh"):
        each = {c.clone: c.sequence for c in antibodies.chains()}
        return model.encode(list(each.values())[:num])
    data = {"digits": "mnist", "records": "fingerprints"}
    return sequences.read(model, fetch(data.get(name, name)) / "test", num, 0).tokens


def model_rows(name: str, found: Tuned) -> list[Row]:
    """A row for each budget."""
    rows = []
    for budget, winner, default, gain in zip(found.budgets, found.winners, found.defaults, found.gains):
        row: Row = {"model": name, "calls": budget, "unit": found.metric.unit}
        if winner is not None and default is not None and gain is not None:
            enough = [
                b for b, w in zip(found.budgets, found.winners) if w is not None and w.loss <= default.loss
            ]
            row |= {
                "winner": winner.candidate.name,
                "takes": winner.calls,
                "n": winner.items,
                "loss": shown(winner),
            }
            row |= {"default": default.candidate.name, "its loss": shown(default)}
            row |= {
                "gain": f"{gain[0]:.2f} [{gain[1]:.2f}, {gain[2]:.2f}]",
                "needs": min(enough, default=budget),
            }
        rows.append(row)
    return rows


def shown(row: Any) -> str:
    """A loss with its interval."""
    return f"{row.loss:.2f} [{row.interval[0]:.2f}, {row.interval[1]:.2f}]"


def main() -> None:
    """Prints, and with --write records, the tables of one part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("laws", "models"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--calls", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--num", type=int, default=256)
    parser.add_argument("--state", type=Path, default=None)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.part == "laws":
        tables, notes = on_laws(options.repeats)
    else:
        tables, notes = on_models(options.names, options.calls, options.num, options.state)
    print("\n".join([notes, *(line for rows in tables.values() for line in ("", *record.table(rows)))]))
    if options.write:
        print(record.write_parts(f"tuning_{options.part}", tables, notes))


if __name__ == "__main__":
    main()
