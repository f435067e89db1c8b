"""How is a network told the time and a label?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONDITION = 64
"""Channels of the vector that carries time and label."""


class Condition(nn.Module):
    """What blocks are told beside the tokens, [B, width]: an MLP of a sinusoid of 1000 t, plus a vector per label.

    The form of MD4's code (arXiv 2406.04329). Label ``classes`` stands for none. The MLP reads ``waves`` channels.
    """

    def __init__(
        self,
        timed: bool,
        classes: int,
        *,
        waves: int = CONDITION,
        hidden: int = 4 * CONDITION,
        width: int = CONDITION,
    ) -> None:
        super().__init__()
        self.waves = waves
        self.time = (
            nn.Sequential(nn.Linear(waves, hidden), nn.SiLU(), nn.Linear(hidden, width)) if timed else None
        )
        self.labels = nn.Embedding(classes + 1, width) if classes else None

    def forward(self, time: Tensor, label: Tensor | None) -> Tensor:
        """The vector of each batch row from time float [B] and label int64 [B] (None: no label)."""
        parts = []
        if self.time is not None:
            parts.append(self.time(sinusoid(1000 * time, self.waves).to(next(self.time.parameters()).dtype)))
        if self.labels is not None:
            none = torch.full(time.shape, self.labels.num_embeddings - 1, device=time.device)
            parts.append(self.labels(none if label is None else label))
        return F.silu(torch.stack(parts).sum(0))


def sinusoid(x: Tensor, width: int) -> Tensor:
    """Sines and cosines of x [B] at wavelengths from 2 pi to 20000 pi, [B, width]."""
    scale = torch.arange(width // 2, device=x.device, dtype=torch.float64) / (width // 2 - 1)
    angles = x.double()[:, None] * 10_000.0**-scale
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
