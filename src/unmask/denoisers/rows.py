"""Rows: the positions of a sequence that a denoiser is asked for, and what stands there."""

from __future__ import annotations

import torch
from torch import Tensor


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Entries [B, k, V] of values [B, L, V] at rows int64 [B, k]."""
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[-1]))


def take_symbols(log_probs: Tensor, symbols: Tensor) -> Tensor:
    """Log-probabilities [B, k], nats, of symbols int64 [B, k] under log_probs [B, k, V]."""
    return log_probs.gather(-1, symbols[..., None])[..., 0]


def masked_rows(masked: Tensor, most: int | None = None, padded: bool = True) -> tuple[Tensor, Tensor]:
    """Masked positions int64 [B, R] in order, filled up with visible ones, and the same with -1 for those.

    ``most`` is the largest number in a row, where it is known already, and ``padded`` False says that all have as many:
    then both are one tensor.
    """
    count = masked.sum(1) if padded else masked
    width = (int(count.max()) if len(count) else 0) if most is None else most
    rows = masked.view(torch.uint8).sort(dim=1, stable=True, descending=True).indices[:, :width]
    if not padded:
        return (rows := rows.contiguous()), rows
    return rows, rows.masked_fill(torch.arange(width, device=rows.device) >= count[:, None], -1)
