"""Part `imbalance` of the order laboratory: how much of text does a network learn that reads it in one fixed order?

Models are those of `text_pi` (any ``data.swaps``; ``data.draw`` and ``seed`` alike) and of `text` with ``--network.rotary
false``, several numbers of steps of each; run by `order_lab.py imbalance`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

import unmask
from unmask.base.statistics import t_quantile
from unmask.base.types import Score
from unmask.recipes import sequences

Row: TypeAlias = dict[str, Any]
Parts: TypeAlias = dict[str, list[Row]]

SEED = 20_261_128
BATCH, SAMPLES = 64, 32
ALONG = 4
"""Exact likelihoods along an order take a call a position: they are of one in so many of the windows."""
FLAT = 0.02
"""Nats per character over the last doubling of the steps, below which a curve counts as flat."""

NOTES = """
Order imbalance on text of 27 symbols: held-out nats per character of causal networks that read every window of {length}
characters in one fixed order of its places (pi-learners; learnt positions, exact likelihood in one call), beside the masked
model of the same network (learnt positions, bound over random orders with {samples} mask sets a window), on the first {num}
windows of the test part. Orders: the identity; the identity after random swaps of two places; uniform. The paper (L 2048)
has sqrt(L) = 45 and L/10 = 204 swaps. In windows of 128 these formulas give 11 and 13, which hardly differ, so the nearer
family has the paper's share of the window, 3 swaps; L/10 is 13 by either rule. Rows of 11 swaps are the literal sqrt(L).
Draws: permutations, each with another seed of training (identity, masked: seeds only); 95 % intervals over draws by
Student's t, of three very wide; the windows are the same in all rows. The first swaps of a draw are the same whatever
their number, so families are paired: "above identity" is the difference of the means, seed by seed, with its interval.
FLOPs: 6 times the parameters without embeddings times the characters trained on. "Last doubling" is the fall from half as
many steps; a curve counts as flat below {flat} nats, and what is not flat has not converged.
Masked along orders: the masked models' exact log-probability of {some} of these windows, one position a call, along the
same permutations, draw d by the masked model of seed d; "less uniform": less the cost along the uniform order of that draw.
"""


def imbalance(models: list[unmask.Model], num: int) -> tuple[Parts, str]:
    """Tables: families of orders at the most steps, curves, each model, and masked models along the same orders."""
    texts = held_out(models[0], num)
    rows = [measured(model, texts) for model in models]
    steps = max(row["steps"] for row in rows)
    final = [(model, row) for model, row in zip(models, rows) if row["steps"] == steps]
    tables = {"families": list(families([row for _, row in final])), "curves": list(curves(rows))}
    width = max(row["width"] for row in rows)
    largest = [(model, row) for model, row in final if row["width"] == width]
    tables |= {"masked along orders": list(along_rows(largest, texts[::ALONG])), "runs": rows}
    some = len(texts[::ALONG])
    notes = NOTES.format(length=models[0].length, samples=SAMPLES, num=num, flat=FLAT, some=some)
    return {name: found for name, found in tables.items() if found}, notes


def held_out(model: unmask.Model, num: int) -> list[str]:
    """The first ``num`` windows of the part `test` beside the model's training data."""
    data = sequences.Folder(model.config["data"]["folder"], "test").open()
    starts = np.arange(num) * model.length
    return [model.vocabulary.decode(row) for row in data.windows(starts, model.length)]  # type: ignore[union-attr]


def measured(model: unmask.Model, texts: list[str]) -> Row:
    """A model's size, training and held-out nats per character: exact, or the bound of a masked model."""
    config, tokens = model.config, model.encode(texts)
    random = torch.Generator().manual_seed(SEED)
    parts = torch.split(tokens, BATCH)
    cost = torch.cat([model.nelbo(part, generator=random, samples=SAMPLES).value for part in parts])
    size, steps = parameters(model), config["trained_steps"]
    row = {
        "order": kind(config),
        "draw": config["seed"],
        "width": config["network"]["width"],
        "parameters": size,
        "steps": steps,
        "FLOPs": float(6 * size * steps * config["batch_size"] * model.length),
        "nats per character": round(float(cost.mean()) / model.length, 4),
    }
    print(row, flush=True)
    return row


def kind(config: dict[str, Any]) -> str:
    """The family of a model's order."""
    if config["name"] != "text_pi":
        return "masked"
    swaps = config["data"]["swaps"]
    return {0: "identity", None: "uniform"}.get(swaps, f"{swaps} swaps")


def parameters(model: unmask.Model) -> int:
    """Parameters that multiply: all but the embeddings of symbols and positions."""
    named = model.denoiser.network.named_parameters()
    return sum(p.numel() for name, p in named if not name.startswith(("embedding", "positions")))


def grouped(rows: Iterable[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    """Rows by the values of some columns."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def families(rows: list[Row]) -> Iterator[Row]:
    """Mean and interval over draws for each size and family, by cost; how much more than the identity."""
    found = grouped(rows, "width", "order")
    for (width, order), some in sorted(
        found.items(), key=lambda pair: (-pair[0][0], np.mean(values(pair[1])))
    ):
        base = {row["draw"]: row["nats per character"] for row in found.get((width, "identity"), [])}
        above = [row["nats per character"] - base[row["draw"]] for row in some if row["draw"] in base]
        yield {
            "order": order,
            "width": width,
            "steps": some[0]["steps"],
            "draws": len(some),
            "nats per character": round(float(np.mean(values(some))), 4),
            "95 %": interval(values(some)),
            "above identity": round(float(np.mean(above)), 4) if above else "-",
            "95 % of that": interval(above),
            "each draw": " ".join(f"{x:.3f}" for x in values(some)),
        }


def curves(rows: list[Row]) -> Iterator[Row]:
    """Mean cost against steps and FLOPs for each size and family, over the draws that got so far."""
    found = grouped(rows, "width", "order", "steps")
    for (width, order, steps), some in sorted(found.items(), key=lambda pair: (-pair[0][0], *pair[0][1:])):
        before = found.get((width, order, steps // 2))
        fall = float(np.mean(values(before)) - np.mean(values(some))) if before else math.nan
        yield {
            "order": order,
            "width": width,
            "steps": steps,
            "FLOPs": some[0]["FLOPs"],
            "draws": len(some),
            "nats per character": round(float(np.mean(values(some))), 4),
            "last doubling": round(fall, 4) if before else "-",
            "flat": "yes" if fall < FLAT else "no",
        }


def along_rows(final: list[tuple[unmask.Model, Row]], texts: list[str]) -> Iterator[Row]:
    """The masked models' exact cost along the orders of the causal ones: draw d with the masked model of seed d."""
    masked = {row["draw"]: model for model, row in final if row["order"] == "masked"}
    costs: dict[str, dict[int, float]] = {}
    for model, row in final:
        if row["order"] != "masked" and (reader := masked.get(row["draw"])) is not None:
            order = torch.tensor(model.config["network"]["axes"][0])
            found = along(reader, reader.encode(texts), order)
            costs.setdefault(row["order"], {})[row["draw"]] = -float(found.mean()) / model.length
            print(row["order"], row["draw"], costs[row["order"]][row["draw"]], flush=True)
    chance = costs.get("uniform", {})
    for order, cost in costs.items():
        less = [cost[draw] - chance[draw] for draw in cost if draw in chance]
        yield {
            "order": order,
            "draws": len(cost),
            "nats per character": round(float(np.mean([*cost.values()])), 4),
            "95 %": interval([*cost.values()]),
            "less uniform": round(float(np.mean(less)), 4) if less else "-",
            "95 % of that": interval(less),
        }


def along(model: unmask.Model, tokens: Tensor, order: Tensor) -> Tensor:
    """Log-probability float64 [B], nats, of tokens int64 [B, L] along one order, int64 [L], of places, one a call."""
    ranks = order.argsort().double()
    score = Score(lambda view: -ranks.expand(view.tokens.shape), blind=True, name="given", constant=True)
    selector = unmask.selectors.top_k(score, 1)
    return torch.cat([model.log_likelihood(part, selector) for part in torch.split(tokens, BATCH)])


def values(rows: list[Row]) -> list[float]:
    """Nats per character of rows."""
    return [row["nats per character"] for row in rows]


def interval(numbers: list[float]) -> str:
    """A 95 % interval of a mean over draws by Student's t; "-" for one draw."""
    if len(numbers) < 2:
        return "-"
    half = t_quantile(0.95, len(numbers) - 1) * float(np.std(numbers, ddof=1)) / math.sqrt(len(numbers))
    return f"{np.mean(numbers) - half:.3f} to {np.mean(numbers) + half:.3f}"
