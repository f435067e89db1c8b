"""Token sources: where the symbols of the chosen rows come from. Each is ``source(request) -> int64 [B, k]``."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.base import noise
from unmask.base.types import Request, TokenSource

SLICE = 2**18
"""Probabilities held in float64 at a time while symbols are drawn: 2 MB."""


def draw(request: Request) -> Tensor:
    """Symbols drawn from the law, by inverse CDF in float64 with one private uniform per (row of the batch, position).

    Works on the chosen rows only. A batch row's symbols depend on (seed, its item id, position, step).
    """
    if request.seed is None:
        raise ValueError("drawing needs a seed; call unmask.sample(..., generator=...)")
    items = request.items if request.item_ids is None else request.item_ids
    u = noise.uniform(request.seed, noise.SYMBOL, items[:, None], request.rows, request.step)
    return inverse_cdf(request.log_probs, u)


def inverse_cdf(log_probs: Tensor, levels: Tensor) -> Tensor:
    """The symbols int64 [B, k] where the cumulated law [B, k, V] passes ``levels`` float64 [B, k] in (0, 1).

    In float64, a few rows at a time; impossible symbols are never taken.
    """
    size = max(1, SLICE // log_probs.shape[-1])
    flat, each = log_probs.flatten(0, 1), levels.reshape(-1, 1)
    if len(flat) <= size:
        return _passed(flat, each).view(levels.shape)
    parts = zip(torch.split(flat, size), torch.split(each, size))
    return torch.cat([_passed(law, level) for law, level in parts]).view(levels.shape)


def _passed(log_probs: Tensor, levels: Tensor) -> Tensor:
    """The same for rows [n, V] and levels [n, 1]; int64 [n]."""
    total = log_probs.double().contiguous().exp().cumsum_(dim=-1)
    whole = total[:, -1:]
    below = torch.nextafter(whole, whole.new_zeros(()))  # so that a symbol of some probability passes
    return torch.searchsorted(total, torch.minimum(levels * whole, below), right=True)[:, 0]


def greedy(request: Request) -> Tensor:
    """The most probable symbol, the lowest id among equals."""
    return request.log_probs.argmax(-1)  # which is the first


def given(tokens: Tensor) -> TokenSource:
    """The symbols of tokens int64 [B, L], whatever their probability: this is how likelihood is computed."""

    def source(request: Request) -> Tensor:
        if request.shape is not None and tokens.shape != request.shape:
            raise ValueError(
                f"given tokens of shape {list(tokens.shape)} for a batch of shape {list(request.shape)}; expected the same"
            )
        return tokens[request.items].gather(1, request.rows.clamp(min=0))

    return source
