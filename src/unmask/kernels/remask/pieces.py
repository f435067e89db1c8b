"""What kernels are made of: hide positions, ask what belongs there, draw it, and write down what was done."""

from __future__ import annotations

import time as clock
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from unmask.base import noise
from unmask.base.types import Denoiser, Info, View
from unmask.denoisers import ask, masked_rows, passes, take_symbols
from unmask.kernels.commit import candidates
from unmask.kernels.remask.chain import Chain
from unmask.orders.selectors import take
from unmask.orders.sources import draw

F = TypeVar("F", bound=Callable[..., object])


def hide(state: Chain, where: Tensor, mask_id: int) -> tuple[Chain, tuple[Info, ...]]:
    """Masks the visible positions of ``where`` bool [B, L] again, except in the prompt."""
    where = where & state.free & ~state.masked
    after = replace(
        state,
        tokens=state.tokens.masked_fill(where, mask_id),
        masked=state.masked | where,
        certainty=state.certainty.masked_fill(where, torch.inf),
    )
    return after, told(where, after.tokens, torch.zeros_like(state.certainty))


@dataclass(frozen=True)
class NewSymbols:
    """Symbols int64 [B, L] and their log-probabilities float64 [B, L], 0 where nothing was drawn."""

    symbols: Tensor
    log_probs: Tensor
    seconds: float
    dtype: torch.dtype | None = None


def fill(
    state: Chain, denoiser: Denoiser, where: Tensor, seed: int, time: float | None = None
) -> tuple[Chain, tuple[Info, ...]]:
    """Draws symbols at the masked positions of ``where``, each given what is visible now."""
    state, drawn = new_symbols(state, denoiser, where, seed, time)
    return write(state, drawn, where)


def new_symbols(
    state: Chain, denoiser: Denoiser, where: Tensor, seed: int, time: float | None = None
) -> tuple[Chain, NewSymbols]:
    """Symbols at ``where``, which are not written yet; one call for the rows that ask for any."""
    state, view, seconds = look_at(state, denoiser, where, time)
    blank = NewSymbols(torch.zeros_like(state.tokens), torch.zeros_like(state.certainty), seconds)
    if view.log_probs is None or view.rows is None:
        return state, blank
    symbols = candidates(view, draw, seed)
    item, column = (view.rows >= 0).nonzero(as_tuple=True)
    at = (rows_with(where)[item], view.rows[item, column])
    log_probs = take_symbols(view.log_probs, symbols)[item, column].double()
    return state, NewSymbols(
        blank.symbols.index_put(at, symbols[item, column]),
        blank.log_probs.index_put(at, log_probs),
        seconds,
        view.log_probs.dtype,
    )


def look_at(
    state: Chain, denoiser: Denoiser | None, where: Tensor, time: float | None = None
) -> tuple[Chain, View, float]:
    """The rows of the batch that have positions in ``where``, and what the denoiser, if any, says there."""
    items = rows_with(where)
    view = View(
        state.tokens[items],
        where[items],
        step=state.step,
        order_ids=state.item_ids[items],
        start=state.free[items],
    )
    if denoiser is None or not len(items):
        return state, view, 0.0
    rows, marked = masked_rows(view.masked)
    extra = {} if time is None else {"time": torch.full((len(items),), time, device=rows.device)}
    began = clock.perf_counter()
    law = ask(denoiser, view.tokens, rows, marked >= 0, **extra)
    seconds = clock.perf_counter() - began
    calls = torch.full((len(items),), passes(denoiser), dtype=torch.float64, device=rows.device)
    state = replace(state, nfe=state.nfe.index_add(0, items, calls))
    return state, replace(view, log_probs=law, rows=marked), seconds


def write(state: Chain, drawn: NewSymbols, where: Tensor) -> tuple[Chain, tuple[Info, ...]]:
    """The state one step on, with the drawn symbols at ``where``."""
    after = replace(
        state,
        tokens=torch.where(where, drawn.symbols, state.tokens),
        masked=state.masked & ~where,
        certainty=torch.where(where, drawn.log_probs.exp(), state.certainty),
        step=state.step + 1,
    )
    infos = told(where, drawn.symbols, drawn.log_probs)
    return after, tuple(replace(i, network_seconds=drawn.seconds, dtype=drawn.dtype) for i in infos)


def told(where: Tensor, symbols: Tensor, log_probs: Tensor) -> tuple[Info, ...]:
    """What happened at ``where``, as one record, or none if that is nowhere."""
    items = rows_with(where)
    if not len(items):
        return ()
    rows, marked = masked_rows(where[items])
    padding = marked < 0
    took, values = symbols[items].gather(1, rows), log_probs[items].gather(1, rows)
    return (Info(items, marked, took.masked_fill(padding, -1), values.masked_fill(padding, 0.0)),)


def rows_with(where: Tensor) -> Tensor:
    """Rows of the batch, int64, with any position in ``where``."""
    return where.any(1).nonzero()[:, 0]


def best_of(view: View, score: Tensor, counts: Tensor) -> Tensor:
    """The ``counts`` best masked positions of a view, as bool [B, L]."""
    rows = take(view, score, counts).rows
    hits = torch.zeros_like(view.tokens).scatter_add_(1, rows.clamp(min=0), (rows >= 0).long())
    return hits > 0


def uniforms(state: Chain, seed: int) -> Tensor:
    """Private uniforms float64 [B, L], fresh at every step."""
    places = torch.arange(state.tokens.shape[1], device=state.tokens.device)
    return noise.uniform(seed, noise.ORDER, state.item_ids[:, None], places[None], state.step)


def named(function: F, name: str) -> F:
    """The function under a name that says its settings, for manifests."""
    function.__name__ = name
    return function
