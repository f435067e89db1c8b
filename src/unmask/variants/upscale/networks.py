"""How does a network over levels become one over digits?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.base.numbers import whole
from unmask.denoisers import NetworkDenoiser, from_logits, take_rows
from unmask.variants.upscale.digits import Situation, situation, stages
from unmask.variants.upscale.parametrisations import Law, from_levels


class Upscaled(nn.Module):
    """A network over digits: ``network(digits int64 [B, S N], rows=None) -> log-probabilities`` [B, R, b]; mask id b.

    ``network`` is a module with ``staged(levels, masked, stage, rows) -> logits`` [B, R, K] (or [B, R, S b] with the law
    `from_digits`), as `networks.UNet` and `StagedTokens`. Rows outside the current stage get the uniform law: they are
    asked for when a sighted selector looks at all that is masked, and never drawn from under ``in_blocks``.
    """

    def __init__(self, network: nn.Module, base: int, levels: int, law: Law = from_levels) -> None:
        super().__init__()
        self.network, self.law = network, law
        self.base, self.levels = whole(base, "base", 2), whole(levels, "levels", 2)
        self.stages = stages(base, levels)

    @property
    def mask_id(self) -> int:
        """Digit that hides a position."""
        return self.base

    def forward(self, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        """Log-probabilities [B, R, b] at rows; ValueError when the coarser digits are beyond the last level."""
        now = situation(tokens, self.base, self.levels)
        if bool((now.parent >= self.levels).any()):
            raise ValueError(
                f"coarse digits stand for a level beyond {self.levels - 1}: unmask stage by stage, "
                f"under selectors.in_blocks(selector, {now.levels.shape[1]})"
            )
        length = now.levels.shape[1]
        asked = (
            torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens) if rows is None else rows
        )
        few = asked.shape[1] <= length
        law = self.at(now, asked % length if few else None)
        law = law if few else take_rows(law, asked % length)
        current = asked // length == now.stage[:, None] - 1
        uniform = torch.full_like(law[:1, :1], 1 / self.base).log()
        return torch.where(current[..., None], law, uniform)

    def at(self, now: Situation, places: Tensor | None) -> Tensor:
        """Log-probabilities [B, R, b] of the current stage's digits at places int64 [B, R] of the N (None: all)."""
        logits = self.network.staged(now.levels, now.masked, now.stage, places)  # type: ignore[operator]
        parent = now.parent if places is None else now.parent.gather(1, places)
        return self.law(logits, parent, now.stage[:, None].expand_as(parent), self.base, self.levels)


class StagedTokens(nn.Module):
    """A network over tokens, told level, mask and stage in one symbol, (stage - 1) 2K + (K if masked) + level.

    ``network(tokens, rows=None)`` takes 2 K S symbols and gives at least ``outputs`` logits, such as
    ``Transformer(2 * K * S, N, ..)``.
    """

    def __init__(self, network: nn.Module, levels: int, outputs: int | None = None) -> None:
        super().__init__()
        self.network, self.levels, self.outputs = network, levels, outputs or levels

    def staged(self, levels: Tensor, masked: Tensor, stage: Tensor, rows: Tensor | None = None) -> Tensor:
        """Logits [B, R, outputs] at rows int64 [B, R] of the N (None: all)."""
        tokens = levels + self.levels * (masked + 2 * (stage[:, None] - 1))
        logits: Tensor = self.network(tokens, rows)[..., : self.outputs]
        return logits


def upscaled(network: nn.Module, base: int, levels: int, law: Law = from_levels) -> NetworkDenoiser:
    """A denoiser over S N digits from a network that is told levels, mask and stage; see `Upscaled`."""
    return from_logits(Upscaled(network, base, levels, law), base, base)
