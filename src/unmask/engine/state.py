"""The state of a batch before its first step, and what a selector sees of it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from unmask.base.devices import precise
from unmask.base.types import State, View


def init(
    tokens: Tensor,
    mask_id: int,
    order_ids: Tensor | None = None,
    masked: Tensor | None = None,
    item_ids: Tensor | None = None,
) -> State:
    """The state before the first step of tokens int64 [B, L] with ``mask_id`` where hidden; order_ids default to 0.

    ``item_ids`` (default 0..B-1) name the rows to their private noise. ``masked`` bool [B, L] leaves out positions
    that stay hidden for ever (default: none): the model averages over them.
    """
    hidden = tokens == mask_id
    if masked is not None and bool((masked & ~hidden).any()):
        raise ValueError("masked marks a position that holds a symbol; expected the mask there")
    masked = hidden if masked is None else masked
    zeros = torch.zeros(len(tokens), dtype=precise(tokens.device), device=tokens.device)
    orders = tokens.new_zeros(len(tokens)) if order_ids is None else order_ids.to(tokens.device)
    places = torch.arange(len(tokens), device=tokens.device)
    items = places if item_ids is None else item_ids.to(tokens.device)
    fixed = {"order_ids": orders, "places": places, "start": masked}
    left = tuple(masked.sum(1).tolist())
    return State(tokens, masked, masked, left, left, orders, items, zeros, zeros.clone(), fixed)


def branched(state: State, parent: Tensor, tokens: Tensor) -> State:
    """A state of new rows, each going on from row ``parent`` int64 [M], with tokens int64 [M, L] where nothing is masked.

    For searches and trees over symbols: rows may come several times, or not at all.
    """
    masked, start = state.masked[parent], state.start[parent]
    places, parents = torch.arange(len(parent), device=parent.device), parent.tolist()
    return replace(
        state,
        tokens=torch.where(masked, state.tokens[parent], tokens),
        masked=masked,
        start=start,
        left=tuple(state.left[p] for p in parents),
        total=tuple(state.total[p] for p in parents),
        order_ids=state.order_ids[parent],
        item_ids=state.item_ids[parent],
        log_prob=state.log_prob[parent],
        nfe=state.nfe[parent],
        fixed={"order_ids": state.order_ids[parent], "places": places, "start": start},
        memory=tuple(m[parent] for m in state.memory),
        remembered=None,
    )


def seen(state: State, selector: object) -> View:
    """What the selector may see: the unfinished rows of the batch."""
    whole = View(
        state.tokens,
        state.masked,
        step=state.step,
        order_ids=state.order_ids,
        start=state.start,
        memory=state.memory,
        left=state.left,
        total=state.total,
        fixed=state.fixed,
    )
    open_ = [i for i, count in enumerate(state.left) if count]
    view = whole if len(open_) == len(state.left) else whole.part(torch.tensor(open_, dtype=torch.int64))
    clock = getattr(selector, "time", None)
    return view if clock is None else replace(view, time=clock(view))
