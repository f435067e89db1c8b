"""The network of ARDM for sound (arXiv 2110.02037): WaveNet without causality, as DiffWave (arXiv 2009.09761) has it.

Shape legend: B batch, N samples of sound, F features, S stages of `variants.upscale`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.base.numbers import whole
from unmask.denoisers import take_rows
from unmask.networks.conditioning import Condition
from unmask.variants import upscale


@dataclass(frozen=True)
class WaveNetConfig:
    """Shape of a `WaveNet` under Upscale ARDM over digits of base ``vocab_size``; every field is stored with its weights.

    ``samples`` numbers of ``levels`` values each. Block i looks 2^(i mod ``cycle``) samples to both sides. ``length`` (S N)
    follows.
    """

    vocab_size: int
    levels: int
    samples: int
    features: int = 256
    blocks: int = 36
    cycle: int = 11
    length: int = 0

    def __post_init__(self) -> None:
        for name, low in {
            "vocab_size": 2,
            "levels": 2,
            "samples": 1,
            "features": 8,
            "blocks": 1,
            "cycle": 1,
        }.items():
            object.__setattr__(self, name, whole(getattr(self, name), name, low))
        if self.features % 4:
            raise ValueError(f"features {self.features}: expected a multiple of 4")
        object.__setattr__(self, "length", self.stages * self.samples)

    @property
    def stages(self) -> int:
        """How many digits each number has."""
        return upscale.stages(self.vocab_size, self.levels)


class Dilated(nn.Module):
    """A gated convolution of x [B, F, N]: what goes on, and what goes to the output."""

    def __init__(self, features: int, told: int, dilation: int) -> None:
        super().__init__()
        self.tell = nn.Linear(told, features)
        self.gates = nn.Conv1d(features, 2 * features, 3, padding=dilation, dilation=dilation)
        self.parts = nn.Conv1d(features, 2 * features, 1)
        for layer in (self.gates, self.parts):
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """The next x and this block's share of the output, each [B, F, N]."""
        signal, gate = self.gates(x + self.tell(told)[:, :, None]).chunk(2, dim=1)
        onward, out = self.parts(signal.tanh() * gate.sigmoid()).chunk(2, dim=1)
        return (x + onward) / math.sqrt(2), out


class WaveNet(nn.Module):
    """``staged(levels, masked, stage, rows) -> logits`` [B, R, S b], the direct parametrisation of `variants.upscale`."""

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__()
        self.shape = config
        wide = config.features
        self.told = Condition(True, 0, waves=wide, hidden=4 * wide, width=4 * wide)
        self.stem = nn.Conv1d(2 + config.stages, wide - wide // 4, 3, padding=1)
        self.levels = nn.Embedding(config.levels, wide // 4)
        self.known = nn.Linear(wide // 4, wide // 4)
        self.blocks = nn.ModuleList(
            [Dilated(wide, 4 * wide, 2 ** (i % config.cycle)) for i in range(config.blocks)]
        )
        self.last = nn.Conv1d(wide, wide, 1)
        self.head = nn.Conv1d(wide, config.stages * config.vocab_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    @property
    def config(self) -> dict[str, Any]:
        """Fields of the `WaveNetConfig` that builds this network again."""
        return asdict(self.shape)

    def staged(
        self,
        levels: Tensor,
        masked: Tensor,
        stage: Tensor,
        rows: Tensor | None = None,
        *,
        time: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, R, S b] of levels int64 [B, N], all known at the precision of a stage, at rows (None: all).

        ``masked`` bool [B, N] says where the level is the coarser one; stage int64 [B] counts from 1.
        """
        told = self.told(masked.float().mean(1) if time is None else time, None)
        values = 2.0 / (self.shape.levels - 1) * levels - 1.0
        planes = F.one_hot(stage - 1, self.shape.stages)[:, None].expand(-1, levels.shape[1], -1)
        seen = torch.cat([values[..., None], masked[..., None], planes], dim=2).to(self.stem.weight.dtype)
        x = self.stem(seen.transpose(1, 2))
        known = self.known(self.levels(levels)).transpose(1, 2)
        x, total = F.relu(torch.cat([x, known.to(x.dtype)], dim=1)), torch.zeros((), device=x.device)
        for block in self.blocks:
            x, out = block(x, told)
            total = total + out
        logits: Tensor = self.head(F.relu(self.last(total / math.sqrt(len(self.blocks))))).transpose(1, 2)
        return logits if rows is None else take_rows(logits, rows)
