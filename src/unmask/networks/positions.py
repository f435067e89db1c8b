"""How is a network told where a token stands? Learned vectors per coordinate, and rotary angles."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary positions: channel pairs of x [B, H, R, D/H] turned by angles [B or 1, 1, R, D/2H].

    RoFormer, arXiv 2104.09864.
    """
    even, odd = x.chunk(2, dim=-1)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat([even * cos - odd * sin, even * sin + odd * cos], dim=-1)


class AxisEmbedding(nn.Module):
    """A learned vector per position: the sum over position axes of a vector per coordinate, [L, D]."""

    def __init__(self, axes: Tensor, width: int, std: float) -> None:
        super().__init__()
        self.axes = axes
        sizes = [int(axis.max()) + 1 for axis in axes]
        self.offsets = [sum(sizes[:i]) for i in range(len(sizes))]
        self.weight = nn.Parameter(torch.randn(sum(sizes), width) * std)

    def forward(self) -> Tensor:
        """The vectors of all positions, [L, D]."""
        terms = (self.weight[axis + o] for axis, o in zip(self.axes, self.offsets))
        vectors: Tensor = sum(terms, torch.zeros(()))
        return vectors


def at_rows(table: Tensor, rows: Tensor | None, count: int) -> Tensor:
    """Entries of a per-position table [L, D] at rows [B, R]; the first ``count`` when rows is None."""
    return table[:count] if rows is None else table[rows]
