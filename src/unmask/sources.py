"""Token sources: where the symbols of the chosen rows come from. Each is ``source(request) -> int64 [B, k]``."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask import noise
from unmask.types import Request, TokenSource


def draw(request: Request) -> Tensor:
    """Symbols drawn from the law, by inverse CDF in float64 with one private uniform per (row of the batch, position).

    Works on the chosen rows only. A batch row's symbols depend on (seed, its place in the batch, position, step).
    """
    if request.seed is None:
        raise ValueError("drawing needs a seed; call unmask.sample(..., generator=...)")
    u = noise.uniform(request.seed, noise.SYMBOL, request.items[:, None], request.rows, request.step)
    total = request.log_probs.double().contiguous().exp().cumsum_(dim=-1)
    level = (u * total[..., -1])[..., None]
    symbol = torch.searchsorted(total, level, right=True)
    last = torch.searchsorted(total, total[..., -1:].contiguous())  # the last symbol that has probability
    return torch.minimum(symbol, last)[..., 0]


def greedy(request: Request) -> Tensor:
    """The most probable symbol, the lowest id among equals."""
    best = request.log_probs.amax(-1, keepdim=True)
    symbols = torch.arange(request.log_probs.shape[-1], device=best.device)
    return torch.where(request.log_probs >= best, symbols, len(symbols)).amin(-1)


def given(tokens: Tensor) -> TokenSource:
    """The symbols of tokens int64 [B, L], whatever their probability: this is how likelihood is computed."""
    return lambda request: tokens[request.items].gather(1, request.rows.clamp(min=0))
