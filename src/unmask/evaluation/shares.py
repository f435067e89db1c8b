"""What does a model know when a given share of each sequence is hidden? Nats per hidden symbol, by share."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.base import noise
from unmask.masking.corruption import random_subset
from unmask.masking.objectives import cross_entropies
from unmask.models import Model

SHARES = (0.15, 0.5, 0.9, 1.0)
"""What masked models are taught at, and from there to nothing visible."""


def by_share(
    model: Model, tokens: Tensor, share: float, *, seed: int = 0, batch_size: int = 32
) -> tuple[Tensor, Tensor]:
    """Nats of the hidden symbols float64 [n] and how many they are int64 [n], in each row of tokens int64 [n, L].

    The ``share`` of a row's symbols, rounded and at least one, is hidden at random: the same ones for every model. Special
    tokens and pads are visible. ValueError for a share outside 0..1.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share {share}: expected a number above 0 and at most 1")
    special = model.visible(tokens)
    symbols = torch.ones_like(tokens, dtype=torch.bool) if special is None else ~special
    counts = (share * symbols.sum(1)).round().long().clamp(min=1)
    hidden = random_subset(symbols, counts, noise.seeded(seed))
    device = next((p.device for p in model.denoiser.network.parameters()), tokens.device)
    order = symbols.sum(1).argsort()  # rows of like lengths together, whose common pads are left out
    nats = torch.zeros(len(tokens), dtype=torch.float64)
    with torch.no_grad():
        for part in torch.split(order, batch_size):
            rows, masked = _trimmed(model, tokens[part].to(device), hidden[part].to(device))
            nats[part] = cross_entropies(model.denoiser, rows, masked).sum(1).cpu()
    return nats, hidden.sum(1)


def _trimmed(model: Model, tokens: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
    """Without the columns at the end in which only pads stand."""
    if model.frame is None:
        return tokens, masked
    length = int((tokens != model.frame.pad).any(0).nonzero().max()) + 1
    return tokens[:, :length], masked[:, :length]


def ratio(nats: Tensor, counts: Tensor) -> tuple[float, float]:
    """Nats per symbol, and its standard error over sequences (delta method); NaN of one sequence."""
    total, n = float(counts.sum()), len(nats)
    mean = float(nats.sum()) / total
    spread = (nats - mean * counts).double()
    error = float((spread.square().sum() * n / (n - 1)).sqrt()) / total if n > 1 else float("nan")
    return mean, error
