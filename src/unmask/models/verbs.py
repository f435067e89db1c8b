"""What a model does with tokens beyond scoring them: it draws, measures, and gives the values that are no likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unmask.base import noise
from unmask.base.numbers import whole
from unmask.base.profile import Profile
from unmask.base.progress import IN_TURN, Pieces
from unmask.base.types import Plan, Result, Selector
from unmask.data.vocabularies import Levels, word_starts
from unmask.denoisers import check_tokens, take_symbols, tempered
from unmask.engine.sampling import sample
from unmask.networks.sceptr import RESIDUES
from unmask.orders import presets
from unmask.orders.samplers import Sampler
from unmask.orders.selectors import in_blocks
from unmask.orders.sources import draw, greedy
from unmask.pictures import Look
from unmask.planning import estimators, plans, profiles
from unmask.variants import upscale

if TYPE_CHECKING:
    from unmask.models.model import Model

ORDERS: dict[str, Callable[[Plan, int], Selector]] = {
    "random": presets.random,
    "left-to-right": lambda plan, _: presets.left_to_right(plan),
    "bisection": lambda plan, _: presets.bisection(plan),
    "confidence": lambda plan, _: presets.confidence(plan),
    "margin": lambda plan, _: presets.margin(plan),
    "entropy": lambda plan, _: presets.entropy(plan),
    "hybrid": lambda plan, _: presets.hybrid(plan, 0.5),
    "moment": lambda plan, seed: presets.moment(plan, 2.0, seed),
}
"""Orders by name, from a plan and a seed: those that need no other settings than usual ones."""


def tokens_of(model: Model, data: Any) -> Tensor:
    """Tokens int64 [B, L] as they are, or of what the model encodes."""
    return data if isinstance(data, Tensor) else model.encode(data)


def both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """Where either holds, bool [B, L]; None without any."""
    if one is None or other is None:
        return other if one is None else one
    return one | other


def _symbols(model: Model, tokens: Tensor) -> Tensor:
    """Where symbols of the data stand, masked or not, bool [B, L]."""
    visible = model.visible(tokens)
    return torch.ones_like(tokens, dtype=torch.bool) if visible is None else ~visible


def _device(model: Model, tokens: Tensor) -> torch.device:
    """Where the network is; that of the tokens where it has no parameters."""
    return next((p.device for p in model.denoiser.network.parameters()), tokens.device)


# --- looking ----------------------------------------------------------------------------------------


SMILES = set("()=#Cc")


def look(model: Model) -> Look:
    """How the symbols of a model look to people: boards and images in rows, residues in tens, molecules drawn."""
    network, mask = model.config["network"], model.denoiser.mask_id
    if model.sudoku:
        return Look("grid", {k: str(k + 1) for k in range(mask)}, mask, mask)
    if isinstance(model.vocabulary, Levels):
        width = int(network.get("width") or 0) if "height" in network else math.isqrt(model.length)
        size, staged = model.vocabulary.size, upscale.stages_of(network) > 1
        channels = int(network.get("channels") or 1)
        levels, whole = (mask if staged else size) - 1, size if staged else 0
        return Look("image", {}, mask, width * channels, levels, whole, channels if channels == 3 else 1)
    ids = range(len(model.symbols)) if model.frame is None else model.frame.drawn
    texts = dict(zip(ids, model.symbols)) | ({} if model.end is None else {model.end: ""})
    return Look(_kind({t for t in texts.values() if t}), texts, mask)


def _kind(signs: set[str]) -> str:
    """What sequences of these symbols are taken for."""
    if all(sign.isdigit() for sign in signs):
        return "symbols"
    if signs >= set(RESIDUES) and len(signs) < 40 and not any(sign.islower() for sign in signs):
        return "residues"
    return "molecule" if signs >= SMILES and not signs & {" ", "a", "e"} else "text"


# --- drawing ----------------------------------------------------------------------------------------


def drawn(
    model: Model,
    tokens: Tensor,
    *,
    order: str | Selector | Sampler | None = None,
    calls: int | None = None,
    plan: Plan | None = None,
    temperature: float = 1.0,
    greedy: bool = False,
    seed: int = 0,
) -> Result:
    """Tokens int64 [B, L] with every mask replaced by a symbol: see `Model.infill`."""
    device = _device(model, tokens)
    if isinstance(order, Sampler):
        if (calls, plan, temperature, greedy) != (None, None, 1.0, False):
            raise ValueError(
                "a sampler says calls, plan, temperature and symbols itself; expected none beside it"
            )
        found = sample(model.denoiser, tokens.to(device), order, generator=noise.seeded(seed))
        return replace(found, look=look(model))
    found = sample(
        tempered(model.denoiser, temperature),
        tokens.to(device),
        ordered(model, order, calls, plan, seed),
        generator=noise.seeded(seed),
        source=_greedy if greedy else draw,
    )
    return replace(found, look=look(model))


_greedy = greedy


def ordered(
    model: Model, order: str | Selector | None, calls: int | None, plan: Plan | None, seed: int
) -> Selector:
    """The selector of an order's name in so many calls or by a plan; a selector is used as it is."""
    if order is not None and not isinstance(order, str):
        if calls is not None or plan is not None:
            raise ValueError("a selector has its own plan; expected neither calls nor plan beside it")
        return order
    network = model.config["network"]
    own = "left-to-right" if network.get("causal") else str(model.config.get("order", "left-to-right"))
    name = own if order is None else order
    if name not in ORDERS or (network.get("causal") and name != own):
        known = own if network.get("causal") else ", ".join(ORDERS)
        raise ValueError(f"order '{name}': expected one of {known}, or a selector")
    stages = upscale.stages_of(network)
    found = ORDERS[name](_plan(calls, plan), seed)
    return found if stages == 1 else in_blocks(found, model.length // stages)


def _plan(calls: int | None, plan: Plan | None) -> Plan:
    """A plan for any number of hidden symbols."""
    if calls is not None and plan is not None:
        raise ValueError("calls and plan; expected one of the two")
    if calls is not None:
        most = whole(calls, "calls", 1)
        return lambda total: plans.uniform(total, min(most, total))
    if isinstance(plan, tuple):
        known = plan
        return lambda total: known if sum(known) == total else plans.rescaled(known, total)
    return 1 if plan is None else plan


def hiding(model: Model, tokens: Tensor, hidden: Tensor | Sequence[tuple[int, int]] | None) -> Tensor:
    """Tokens int64 [B, L] with masks where ``hidden``: see `Model.infill`. ValueError where that is no symbol."""
    if hidden is None:
        return tokens
    symbols = _symbols(model, tokens)
    if not isinstance(hidden, Tensor):
        hidden = _ranges(hidden, symbols)
        hidden = hidden if model.places is None else hidden[:, model.places]
    if hidden.dtype != torch.bool or hidden.shape != tokens.shape:
        raise ValueError(
            f"hidden has dtype {hidden.dtype} and shape {list(hidden.shape)}; expected bool {list(tokens.shape)}"
        )
    if bool((hidden & ~symbols).any()):
        raise ValueError(
            "hidden marks a special token, an end or a pad; expected symbols only: see model.visible"
        )
    return tokens.masked_fill(hidden, model.denoiser.mask_id)


def _ranges(ranges: Sequence[tuple[int, int]], symbols: Tensor) -> Tensor:
    """Where the symbols of each row, bool [B, L], have numbers in the ranges; ValueError where a row is too short."""
    place, shortest = symbols.long().cumsum(1) - 1, int(symbols.sum(1).min())
    found = torch.zeros_like(symbols)
    for first, end in ranges:
        if not 0 <= first < end <= shortest:
            raise ValueError(
                f"hidden {first}:{end}: expected 0 <= first < end <= {shortest}, the symbols of the shortest sequence"
            )
        found |= symbols & (place >= first) & (place < end)
    return found


# --- what is no likelihood ----------------------------------------------------------------------------


def pseudo_log_likelihood(model: Model, tokens: Tensor, words: bool | Tensor, batch_size: int) -> Tensor:
    """See `Model.pseudo_log_likelihood`."""
    check_tokens(tokens, model.denoiser, masks=False)
    symbols = _symbols(model, tokens)
    owner = _words(model, tokens, words)
    total = torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
    for items, places in _pieces(symbols, whole(batch_size, "batch_size", 1)):
        rows, at = tokens[items], places[:, None]
        hidden = torch.arange(rows.shape[1], device=rows.device) == at
        if owner is not None:
            later = torch.arange(rows.shape[1], device=rows.device) > at
            hidden |= later & symbols[items] & (owner[items] == owner[items].gather(1, at))
        law = model.denoiser(rows.masked_fill(hidden, model.denoiser.mask_id), at)
        total.index_add_(0, items, take_symbols(law, rows.gather(1, at))[:, 0].double())
    return total


def _pieces(symbols: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Row and position of every symbol, int64 [<= size] each."""
    yield from zip(*(torch.split(found, size) for found in symbols.nonzero(as_tuple=True)))


def _words(model: Model, tokens: Tensor, words: bool | Tensor) -> Tensor | None:
    """The number of each position's word, int64 [B, L]; None where words do not count."""
    if isinstance(words, Tensor):
        if words.shape != tokens.shape or words.is_floating_point():
            raise ValueError(
                f"words of shape {list(words.shape)}; expected whole numbers {list(tokens.shape)}"
            )
        return words.to(tokens.device)
    if not words:
        return None
    starts = word_starts(model.vocabulary)
    if starts is None:
        raise ValueError(
            f"the vocabulary of model '{model.name}' does not tell words; expected words int64 {list(tokens.shape)}"
        )
    begins = torch.zeros(max(int(tokens.max()) + 1, len(starts)), dtype=torch.long, device=tokens.device)
    begins[: len(starts)] = torch.as_tensor(starts).to(tokens.device)
    return begins[tokens].cumsum(1)


# --- measuring ----------------------------------------------------------------------------------------


def halves(
    model: Model,
    tokens: Tensor,
    *,
    rounds: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    state: Path | None = None,
    quiet: bool = True,
    pieces: Pieces = IN_TURN,
) -> tuple[Profile, Profile]:
    """The profile fitted to one half of tokens int64 [n, L], carrying the other, and that other half's losses, nats.

    By default as many ``rounds`` as show each number of visible positions about four times. ``state`` names files that let
    an interrupted measurement go on; ``pieces`` says who does the batches.
    """
    if len(tokens) < 2:
        raise ValueError(f"{len(tokens)} sequences; expected at least 2, one for each half")
    enough = max(4, math.ceil(4 * tokens.shape[1] / (len(tokens) // 2))) if rounds is None else rounds
    device = _device(model, tokens)
    halves = torch.randperm(len(tokens), generator=noise.seeded(seed)).chunk(
        2
    )  # no pattern, as data may have one
    special = None if model.frame is None else model.visible(tokens)

    def half(part: int) -> Profile:
        return profiles.measure(
            model.denoiser,
            tokens[halves[part].sort().values.to(tokens.device)].to(device),
            generator=noise.seeded(2 * seed + part),
            rounds=enough,
            batch_size=batch_size,
            state=None if state is None else state.with_name(f"{state.name}.half{part + 1}.part"),
            quiet=quiet,
            provenance={"model": model.name, "model_hash": model.hash, "seed": seed},
            end=model.end,
            visible=None if model.frame is None else model.visible,
            entries=None if special is None else int((~special).sum(1).max()),
            pieces=pieces.within(f"half{part + 1}", part, 2),
        )

    first, second = pieces.every(partial(half, 0), partial(half, 1))
    return estimators.choose(first, second), second
