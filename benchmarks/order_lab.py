"""The order laboratory: what does the order of unmasking decide on data with hard subproblems?

Run: python benchmarks/order_lab.py lo MODEL ... [--num 256] [--write]       L&O-NAE-SAT: observations right by order
     python benchmarks/order_lab.py hardness MODEL [--num 64] [--write]      the model's error by subproblem, few latents
     python benchmarks/order_lab.py zebra MODEL ... [--num 500] [--write]    zebra puzzles solved by order
     python benchmarks/order_lab.py imbalance MODEL ... [--num 512] [--write]   text read in one fixed order

Models are folders that `unmask train` leaves of lo_nae_sat, zebra, text_pi and text; records say how each was trained.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import record
import torch
from order_imbalance import imbalance
from torch import Tensor

import unmask
from unmask.base.statistics import t_quantile, wilson
from unmask.base.types import Score
from unmask.data import zebra
from unmask.laws import LatentsAndObservations
from unmask.recipes.laboratory.latents import LatentData
from unmask.recipes.laboratory.zebra import ZebraData, to_tokens

SEED = 20_261_128
"""Seed of test puzzles and of draws; training uses seeds of the upper half of 64 bits."""

BATCH = 128
HARD = 0.05
"""Nats of KL(law, model) at one position above which a subproblem counts as hard for the model."""

Row: TypeAlias = dict[str, Any]
Parts: TypeAlias = dict[str, list[Row]]

ORDERS: dict[str, Score] = {
    "random": unmask.scores.at_random(0),
    "top probability": unmask.scores.confidence,
    "margin": unmask.scores.margin,
    "left to right": unmask.scores.left_to_right,
}
"""Scores, one position per call; from left to right latents come first."""

SOURCES = {"drawn": unmask.draw, "arg-max": unmask.greedy}


def main() -> None:
    """Prints, and with --write records, the tables of one part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--num", type=int, default=256)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    models = [unmask.load(name) for name in options.models]
    tables, notes = PARTS[options.part](models, options.num)
    trained = "\n".join(f"- {described(model)}" for model in models)
    notes = f"{notes.strip()}\n\nModels:\n\n{trained}"
    if options.write:
        print(record.write_parts(f"order_lab_{options.part}", tables, notes))
    print("\n".join([notes, *(line for rows in tables.values() for line in ("", *record.table(rows)))]))


def described(model: unmask.Model) -> str:
    """How a model was trained, on one line."""
    config, size = model.config, sum(p.numel() for p in model.denoiser.network.parameters())
    optimiser, network = config["optimiser"], config["network"]
    shape = f"width {network['width']}, {network.get('depth', 1)} blocks run {network['loops']} times"
    how = f"{'Muon' if optimiser['muon'] else 'AdamW'} {optimiser['learning_rate']}, batch {config['batch_size']}"
    data = ", ".join(f"{k} {v}" for k, v in config["data"].items())
    steps = f"{config['trained_steps']} steps, {how}, seed {config['seed']}"
    return f"{data}; {size} parameters, {shape}; {steps}; {model.hash}"


def sampled(model: unmask.Model, tokens: Tensor, score: Score, source: unmask.TokenSource) -> Tensor:
    """Tokens filled in one position per call, in batches."""
    found = []
    for start in range(0, len(tokens), BATCH):
        part = tokens[start : start + BATCH]
        ids = torch.arange(start, start + len(part))
        found.append(
            unmask.sample(
                model.denoiser,
                part,
                unmask.selectors.top_k(score, 1),
                generator=torch.Generator().manual_seed(SEED),
                source=source,
                order_ids=ids,
                item_ids=ids,
            ).tokens
        )
    return torch.cat(found)


# --- latents and observations ----------------------------------------------------------------------

LO_NOTES = """
L&O-NAE-SAT with distinct triples. Observations right: share of drawn observations that are what the drawn latents say,
95 % interval over sequences; fully: share of sequences with all of them right. Levels: 62.5 % where observations are drawn
without regard to latents, 75 % where each is the more likely symbol, 1; full consistency is 100 %. Latents: mean, and
entropy of the frequencies at each position in bits, averaged; both show a sampler that always fills in the same, as
arg-max does along every order that is no random one: there "right" is of a single sequence, and its interval says nothing.
KL: KL(law, sampler) in nats per sequence, order disclosed, from the exact log-probability of fresh data along the order.
Two symbols: top probability and margin are one order. Left to right takes latents first, as the data were made.
Table "margin less random": points between the two orders on the same models, mean over models of a size, 95 % interval by
Student's t over models; in how many of them the intervals over sequences are apart.
"""


def latents(models: list[unmask.Model], num: int) -> tuple[Parts, str]:
    """Observations right by order, source and model, and the gap between margin and random by size."""
    rows = [row for model in models for row in lo_rows(model, num)]
    return {"orders": rows, "margin less random": list(gaps(rows))}, LO_NOTES


def lo_rows(model: unmask.Model, num: int) -> Iterator[Row]:
    """One row for each order and source."""
    data = LatentData(**model.config["data"])
    law, seed = data.law(), model.config["seed"]
    blank = torch.full((num, law.length), model.denoiser.mask_id)
    fresh = law.sample(num, torch.Generator().manual_seed(SEED))
    for order in [o for o in ORDERS if o != "top probability"]:
        cost = kl(model, law, fresh, ORDERS[order])
        for how, source in SOURCES.items():
            tokens = sampled(model, blank, ORDERS[order], source)
            row = {"latents": data.latents, "observations": data.observations, "seed": seed, "order": order}
            yield row | {"symbols": how} | lo_scores(law, tokens) | {"KL": cost}
            print(row, how, lo_scores(law, tokens), flush=True)


def lo_scores(law: LatentsAndObservations, tokens: Tensor) -> Row:
    """What samples of one setting are like."""
    right = law.consistent(tokens).double()
    share, error = 100 * float(right.mean()), 100 * float(right.mean(1).std()) / math.sqrt(len(right))
    bits = tokens[:, : law.latents].double().mean(0)
    entropy = (torch.special.entr(bits) + torch.special.entr(1 - bits)).mean() / math.log(2)
    return {
        "right %": round(share, 2),
        "95 %": f"{share - 1.96 * error:.1f} to {share + 1.96 * error:.1f}",
        "fully %": round(100 * float(right.all(1).double().mean()), 1),
        "latent mean": round(float(bits.mean()), 3),
        "latent bits": round(float(entropy), 3),
    }


def kl(model: unmask.Model, law: LatentsAndObservations, tokens: Tensor, score: Score) -> str:
    """KL(law, sampler) in nats per sequence with its standard error."""
    ids, selector = torch.arange(len(tokens)), unmask.selectors.top_k(score, 1)
    parts = [
        unmask.log_likelihood(model.denoiser, part, selector, order_ids=some)
        for part, some in zip(torch.split(tokens, BATCH), torch.split(ids, BATCH))
    ]
    cost = law.log_prob(tokens) - torch.cat(parts)
    return f"{float(cost.mean()):.2f} +- {float(cost.std()) / math.sqrt(len(cost)):.2f}"


def gaps(rows: list[Row]) -> Iterator[Row]:
    """Margin less random by size and source."""
    sizes = dict.fromkeys((r["latents"], r["observations"], r["symbols"]) for r in rows)
    for size in sizes:
        mine = [r for r in rows if (r["latents"], r["observations"], r["symbols"]) == size]
        one, other = ([r for r in mine if r["order"] == o] for o in ("margin", "random"))
        points = np.array([a["right %"] - b["right %"] for a, b in zip(one, other)])
        apart = sum(low(a) > high(b) for a, b in zip(one, other))
        yield {
            "latents": size[0],
            "observations": size[1],
            "symbols": size[2],
            "random %": round(float(np.mean([r["right %"] for r in other])), 2),
            "margin %": round(float(np.mean([r["right %"] for r in one])), 2),
            "points": round(float(points.mean()), 2),
            "95 %": interval(points),
            "models": len(points),
            "apart": apart,
        }


def low(row: Row) -> float:
    """The lower end of a row's interval."""
    return float(row["95 %"].split(" to ")[0])


def high(row: Row) -> float:
    """The upper end of a row's interval."""
    return float(row["95 %"].split(" to ")[1])


def interval(values: np.ndarray) -> str:
    """A 95 % interval of a mean over models by Student's t; "-" for one model."""
    if len(values) < 2:
        return "-"
    half = t_quantile(0.95, len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return f"{values.mean() - half:.1f} to {values.mean() + half:.1f}"


# --- hardness ---------------------------------------------------------------------------------------

HARD_NOTES = """
Where is the model wrong? KL(law, model) in nats at one masked position, the law exact by summing over all states of the
latents, on fresh data. First table: a share of latents and a share of observations visible at random, mean at masked
latents and at masked observations, and the share of masked positions above {hard} nats ("hard"). Second table: fresh data
unmasked in each order, one position per call; the KL that the order meets at the positions it takes, and the share of its
steps that are hard, beside the share of hard ones among all positions that were masked then.
"""


def hardness(models: list[unmask.Model], num: int) -> tuple[Parts, str]:
    """The model's error by subproblem, and what of it each order meets."""
    (model,) = models
    law = LatentData(**model.config["data"]).law()
    tokens = law.sample(num, torch.Generator().manual_seed(SEED))
    shares = [0.0, 0.25, 0.5, 0.75, 1.0]
    pattern = [subproblem(model, law, tokens, a, b) for a in shares for b in shares if a + b < 2]
    met = [visited(model, law, tokens, order) for order in ORDERS if order != "top probability"]
    return {"error by subproblem": pattern, "met by orders": met}, HARD_NOTES.format(hard=HARD)


def subproblem(
    model: unmask.Model, law: LatentsAndObservations, tokens: Tensor, latents: float, seen: float
) -> Row:
    """Errors with so large a share of latents and of observations visible."""
    random = torch.Generator().manual_seed(SEED + 1)
    share = torch.tensor([latents] * law.latents + [seen] * (law.length - law.latents))
    masked = torch.rand(tokens.shape, generator=random) >= share
    errors = divergence(model, law, tokens.masked_fill(masked, law.mask_id))
    first, second = masked.clone(), masked.clone()
    first[:, law.latents :], second[:, : law.latents] = False, False
    return {
        "latents visible": latents,
        "observations visible": seen,
        "KL at latents": mean(errors[first]),
        "KL at observations": mean(errors[second]),
        "hard %": round(100 * float((errors[masked] > HARD).double().mean()), 1),
    }


def mean(values: Tensor) -> Any:
    """The mean of some values to four digits, "-" of none."""
    return round(float(values.mean()), 4) if len(values) else "-"


def divergence(model: unmask.Model, law: LatentsAndObservations, tokens: Tensor) -> Tensor:
    """KL(law, model) at every position, nats, float64 [B, L]; 0 at visible ones."""
    truth = law(tokens)
    with torch.no_grad():
        guess = model.denoiser(tokens).double()
    gap = torch.where(truth > -torch.inf, truth.exp() * (truth - guess), 0.0).sum(-1)
    return torch.where(tokens == law.mask_id, gap, 0.0)


def visited(model: unmask.Model, law: LatentsAndObservations, tokens: Tensor, order: str) -> Row:
    """The errors that an order meets on its way through fresh data."""
    states = passed(model.denoiser, tokens, ORDERS[order])
    met, hard, around = [], [], []
    for now, then in zip(states, [*states[1:], tokens]):
        errors, masked = divergence(model, law, now), now == law.mask_id
        met.append(errors[now != then])
        hard.append((met[-1] > HARD).double().mean())
        around.append((errors[masked] > HARD).double().mean())
    cost = torch.stack(met).sum(0)
    return {
        "order": order,
        "KL met, nats per sequence": f"{float(cost.mean()):.2f} +- {float(cost.std()) / math.sqrt(len(cost)):.2f}",
        "hard steps %": round(100 * float(torch.stack(hard).mean()), 1),
        "hard among masked %": round(100 * float(torch.stack(around).mean()), 1),
    }


def passed(denoiser: unmask.Denoiser, tokens: Tensor, score: Score) -> list[Tensor]:
    """The states through which an order goes on data, the first all masked."""
    states: list[Tensor] = []

    class Watched:
        mask_id, vocab_size = denoiser.mask_id, denoiser.vocab_size

        def __call__(self, now: Tensor, rows: Tensor | None = None, **more: Any) -> Tensor:
            states.append(now.clone())
            return denoiser(now, rows, **more)

    ids = torch.arange(len(tokens))
    unmask.log_likelihood(Watched(), tokens, unmask.selectors.top_k(score, 1), order_ids=ids)
    return states


# --- zebra puzzles ----------------------------------------------------------------------------------

ZEBRA_NOTES = """
Zebra puzzles of one solution, minimal in their clues, fresh ones of seed {seed}; clues visible, one cell per call.
Solved: the grid is proper and keeps every clue, which is the only solution; Wilson 95 % interval.
"""


def zebras(models: list[unmask.Model], num: int) -> tuple[Parts, str]:
    """Solved share by order, source and model."""
    rows = [row for model in models for row in zebra_rows(model, num)]
    return {"orders": rows}, ZEBRA_NOTES.format(seed=SEED)


def share(solved: int, num: int) -> Row:
    """The columns of a share solved, with its Wilson 95 % interval."""
    low, high = (f"{100 * x:.1f}" for x in wilson(solved, num))
    return {"n": num, "solved %": round(100 * solved / num, 1), "95 %": f"{low} to {high}"}


def zebra_rows(model: unmask.Model, num: int) -> Iterator[Row]:
    """One row for each order and source."""
    data = ZebraData(**model.config["data"])
    size = data.size()
    clues, grids = zebra.puzzles(num, SEED, size, weights=data.weights)
    tokens = to_tokens(clues, np.full_like(grids, -1), size)
    for order, score in ORDERS.items():
        for how, source in SOURCES.items():
            filled = sampled(model, tokens, score, source)[:, size.most :].numpy()
            solved = int(zebra.is_solved(clues, filled, size).sum())
            row = {"houses": size.houses, "attributes": size.attributes, "seed": model.config["seed"]}
            row |= {"order": order, "symbols": how} | share(solved, num)
            yield row
            print(row, flush=True)


PARTS: dict[str, Callable[[list[unmask.Model], int], tuple[Parts, str]]] = {
    "lo": latents,
    "hardness": hardness,
    "zebra": zebras,
    "imbalance": imbalance,
}


if __name__ == "__main__":
    main()
