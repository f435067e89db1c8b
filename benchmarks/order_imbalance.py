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
BATCH, SAMPLES = 64, 8
ALONG = 8
"""Exact likelihoods along an order take a call a position: they are of one in so many of the windows."""
FLAT = 0.02
"""Nats per character over the last doubling of the training, below which a curve counts as flat."""

NOTES = """
Order imbalance on text of 27 symbols: held-out nats per character of causal networks that read every window of {length}
characters in one fixed order of its places (pi-learners; learnt positions, exact likelihood in one call), beside the masked
model of the same network (learnt positions, bound over random orders with {samples} mask sets a window), on the first {num}
windows of the test part. Orders: the identity; the identity after random swaps of two places; uniform. The paper (L 2048)
has sqrt(L) = 45 and L/10 = 204 swaps. In windows of 128 these formulas give 11 and 13, which hardly differ, so the nearer
family has the paper's share of the window, 3 swaps; L/10 is 13 by either rule. Rows of 11 swaps are the literal sqrt(L).
Draws: permutations, each with another seed of training (identity, masked: seeds only); 95 % intervals over draws by
Student's t, of three very wide; the windows are the same in all rows. The first swaps of a draw are the same whatever
their number, so families are paired: "above identity" is the mean difference, seed by seed, with its interval.
Families are compared after as many windows of training as most models saw (batch times steps), so at equal compute. FLOPs:
6 times the parameters without embeddings times the characters trained on. "Last doubling" is the fall since half as many
windows; a curve counts as flat below {flat} nats, and what is not flat has not converged.
Masked along orders: exact log-probability of {some} of these windows under the masked model that saw the most, one position
a call, along the same permutations; "less uniform": how much less it costs than the uniform order of the same draw.
"""


def imbalance(models: list[unmask.Model], num: int) -> tuple[Parts, str]:
    """Tables: families of orders at equal compute, curves, a masked model along the same orders, and each model."""
    texts = held_out(models[0], num)
    rows = [measured(model, texts) for model in models]
    seen = compared_at(rows)
    compared = [row for row in rows if row["windows"] == seen]
    tables = {"families": list(families(compared)), "curves": list(curves(rows))}
    along_orders = list(along_rows(models, rows, seen, texts[::ALONG]))
    tables |= {"masked along orders": along_orders} if along_orders else {}
    some = len(texts[::ALONG])
    notes = NOTES.format(length=models[0].length, samples=SAMPLES, num=num, flat=FLAT, some=some)
    return tables | {"runs": rows}, notes


def compared_at(rows: list[Row]) -> int:
    """Windows of training after which families are compared: the longest training of those that most models reached."""
    reached = {windows: len(some) for (windows,), some in grouped(rows, "windows").items()}
    return int(max(reached, key=lambda windows: (reached[windows], windows)))


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
    size, windows = parameters(model), config["trained_steps"] * config["batch_size"]
    row = {
        "order": kind(config),
        "draw": config["seed"],
        "width": config["network"]["width"],
        "parameters": size,
        "batch": config["batch_size"],
        "windows": windows,
        "FLOPs": float(6 * size * windows * model.length),
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


FAMILY = ("width", "order", "batch")
"""What models have in common of which the draws are averaged."""


def families(rows: list[Row]) -> Iterator[Row]:
    """Mean and interval over draws for each size and family, by cost; how much more than the identity."""
    for (width, *_), some in sorted(grouped(rows, *FAMILY).items(), key=lambda pair: average(pair[1])):
        above = differences(
            some, [row for row in rows if row["width"] == width and row["order"] == "identity"]
        )
        yield {name: some[0][name] for name in ("order", "width", "batch", "windows")} | {
            "draws": len(some),
            "nats per character": average(some),
            "95 %": interval([*values(some).values()]),
            "above identity": round(float(np.mean(above)), 4) if above else "-",
            "95 % of that": interval(above),
            "each draw": " ".join(f"{x:.3f}" for x in values(some).values()),
        }


def curves(rows: list[Row]) -> Iterator[Row]:
    """Mean cost against windows and FLOPs for each size and family, over the draws that got so far."""
    found = grouped(rows, *FAMILY, "windows")
    for (*family, windows), some in sorted(found.items()):
        falls = differences(found.get((*family, windows // 2), []), some)
        fall = round(float(np.mean(falls)), 4) if falls else "-"
        yield {name: some[0][name] for name in ("order", "width", "batch", "windows", "FLOPs")} | {
            "draws": len(some),
            "nats per character": average(some),
            "last doubling": fall,
            "flat": "yes" if falls and fall < FLAT else "no",
        }


def along_rows(models: list[unmask.Model], rows: list[Row], seen: int, texts: list[str]) -> Iterator[Row]:
    """The best trained masked model's exact cost along every order of the causal models that saw so many windows."""
    masked = [(row["width"], row["windows"], i) for i, row in enumerate(rows) if row["order"] == "masked"]
    if not masked:
        return
    reader = models[max(masked)[2]]
    costs = costs_along(reader, [m for m, row in zip(models, rows) if row["windows"] == seen], texts)
    for order, cost in costs.items():
        less = [costs["uniform"][draw] - cost[draw] for draw in cost if draw in costs.get("uniform", {})]
        yield {
            "order": order,
            "draws": len(cost),
            "nats per character": round(float(np.mean([*cost.values()])), 4),
            "95 %": interval([*cost.values()]),
            "less uniform": round(float(np.mean(less)), 4) if less else "-",
            "95 % of that": interval(less),
        }


def costs_along(
    reader: unmask.Model, models: list[unmask.Model], texts: list[str]
) -> dict[str, dict[int, float]]:
    """Nats per character of a masked model along the orders of causal ones, by family and draw; each order once."""
    costs: dict[str, dict[int, float]] = {}
    known: dict[Any, float] = {}
    for config in (model.config for model in models if kind(model.config) != "masked"):
        (places,) = config["network"]["axes"]
        if (order := tuple(places)) not in known:
            found = along(reader, reader.encode(texts), torch.tensor(order))
            known[order] = -float(found.mean()) / reader.length
            print(kind(config), config["seed"], known[order], flush=True)
        costs.setdefault(kind(config), {})[config["seed"]] = known[order]
    return costs


def along(model: unmask.Model, tokens: Tensor, order: Tensor) -> Tensor:
    """Log-probability float64 [B], nats, of tokens int64 [B, L] along one order, int64 [L], of places, one a call."""
    ranks = order.argsort().double()
    score = Score(lambda view: -ranks.expand(view.tokens.shape), blind=True, name="given", constant=True)
    selector = unmask.selectors.top_k(score, 1)
    return torch.cat([model.log_likelihood(part, selector) for part in torch.split(tokens, BATCH)])


def values(rows: list[Row]) -> dict[int, float]:
    """Nats per character by draw."""
    return {row["draw"]: row["nats per character"] for row in rows}


def average(rows: list[Row]) -> float:
    """Mean nats per character."""
    return round(float(np.mean([row["nats per character"] for row in rows])), 4)


def differences(some: list[Row], others: list[Row]) -> list[float]:
    """Nats per character of some models less those of others, for every draw that both have."""
    one, other = values(some), values(others)
    return [one[draw] - other[draw] for draw in one if draw in other]


def interval(numbers: list[float]) -> str:
    """A 95 % interval of a mean over draws by Student's t; "-" for one draw."""
    if len(numbers) < 2:
        return "-"
    half = t_quantile(0.95, len(numbers) - 1) * float(np.std(numbers, ddof=1)) / math.sqrt(len(numbers))
    return f"{np.mean(numbers) - half:.3f} to {np.mean(numbers) + half:.3f}"
