"""The image networks of MD4 (arXiv 2406.04329) and ARDM (arXiv 2110.02037), layer for layer as their code has them.

Both are VDM's U-Net (arXiv 2107.00630) without down-sampling: residual blocks, each of the second half reading what one
of the first left. `networks.UNet` has the same form with fewer parameters. For ImageNet64 the middle is a transformer
(DiT, arXiv 2212.09748) on squares of 2x2.

Shape legend as in `networks.unet`: B batch, H height, W width, C channels, L = H W C positions, F features.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.base.numbers import real, whole
from unmask.denoisers import take_rows
from unmask.networks.conditioning import Condition
from unmask.networks.config import check_length
from unmask.recipes.papers.image_layers import Spatial, SpatialAttention, Squares, groups, nothing, scaled


@dataclass(frozen=True)
class ImageConfig:
    """Shape of an `ImageNetwork`; every field is stored with its weights.

    ``blocks`` stand in each half. ``everywhere`` puts attention behind every block (ARDM), not in the middle only (MD4).
    ``valued`` is the stem of ARDM: three quarters of the features from a convolution of value, mask and stage, a quarter
    from embedded levels; otherwise each channel's level is embedded (MD4). ``squares`` > 0 is the depth of a transformer
    in the middle, of ``width_inside`` and ``heads_inside``; then time scales and shifts every norm. ``stages`` S > 0 makes
    one for `variants.upscale`; ``outputs`` are logits per position, if not one per level. ``length`` follows.
    """

    vocab_size: int
    height: int
    width: int
    channels: int = 3
    features: int = 128
    blocks: int = 32
    heads: int = 1
    everywhere: bool = False
    valued: bool = False
    squares: int = 0
    width_inside: int = 768
    heads_inside: int = 12
    dropout: float = 0.1
    stages: int = 0
    outputs: int | None = None
    length: int = 0

    def __post_init__(self) -> None:
        least = {
            "vocab_size": 1,
            "height": 1,
            "width": 1,
            "channels": 1,
            "features": 4,
            "blocks": 0,
            "heads": 1,
        }
        for name, low in (least | {"squares": 0, "width_inside": 8, "heads_inside": 1, "stages": 0}).items():
            object.__setattr__(self, name, whole(getattr(self, name), name, low))
        real(self.dropout, "dropout", 0, 1)
        if self.features % 4 or self.features % self.heads:
            raise ValueError(
                f"features {self.features} of {self.heads} heads: expected a multiple of 4 and of the heads"
            )
        if self.squares and (self.height % 2 or self.width % 2 or self.width_inside % self.heads_inside):
            raise ValueError(
                f"a transformer of width {self.width_inside} and {self.heads_inside} heads in images of {self.height}x"
                f"{self.width}: expected even sides and a width that the heads divide"
            )
        object.__setattr__(self, "length", self.height * self.width * self.channels)


class ImageNetwork(nn.Module):
    """``network(tokens, rows=None, *, time=None) -> logits`` float [B, R, V]; tokens int64 [B, L], V = masked.

    ``time`` float [B] defaults to the share of masked positions. It has no partial passes.
    """

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        self.shape = config
        wide = config.features
        told = 4 * wide if config.valued else wide
        self.told = Condition(True, 0, waves=wide, hidden=4 * wide, width=told)
        self.levels = nn.Embedding(config.vocab_size + 1, wide // 4 if config.valued else wide)
        planes = 2 * config.channels + config.stages if config.valued else config.channels * wide
        self.stem = nn.Conv2d(planes, wide - wide // 4 if config.valued else wide, 3, padding=1)
        self.known = nn.Linear(config.channels * (wide // 4), wide // 4) if config.valued else None
        block: dict[str, Any] = {
            "told": told,
            "scaled": config.squares > 0,
            "bias": config.valued,
            "dropout": config.dropout,
        }

        def seen(everywhere: bool) -> nn.Module:
            return SpatialAttention(wide, config.heads) if everywhere else nn.Identity()

        self.down = nn.ModuleList([Spatial(wide, wide, **block) for _ in range(config.blocks)])
        self.down_seen = nn.ModuleList([seen(config.everywhere) for _ in range(config.blocks)])
        self.middle = nn.ModuleList([Spatial(wide, wide, **block) for _ in range(0 if config.squares else 2)])
        self.attention = seen(not config.squares)
        self.inside = Squares(config, told) if config.squares else None
        self.up = nn.ModuleList([Spatial(2 * wide, wide, **block) for _ in range(config.blocks + 1)])
        self.up_seen = nn.ModuleList([seen(config.everywhere) for _ in range(config.blocks + 1)])
        self.norm = nn.GroupNorm(groups(wide), wide, affine=not config.squares)
        self.scale = nothing(nn.Linear(told, 2 * wide)) if config.squares else None
        self.head = nothing(nn.Conv2d(wide, config.channels * self.outputs, 3, padding=1))

    @property
    def config(self) -> dict[str, Any]:
        """Fields of the `ImageConfig` that builds this network again."""
        return asdict(self.shape)

    @property
    def mask_id(self) -> int:
        """Symbol id of the mask."""
        return self.shape.vocab_size

    @property
    def timed(self) -> bool:
        """The keyword ``time`` is read."""
        return True

    @property
    def outputs(self) -> int:
        """Logits per position."""
        return self.shape.outputs or self.shape.vocab_size

    def forward(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        """Logits float [B, R, V] at rows int64 [B, R] (None: all positions)."""
        check_length(tokens, self.shape.length)
        masked = tokens == self.mask_id
        values = self._values(tokens).masked_fill(masked, 0.0)
        return self._logits([values, masked], tokens, masked, rows, time)

    def staged(
        self,
        levels: Tensor,
        masked: Tensor,
        stage: Tensor,
        rows: Tensor | None = None,
        *,
        time: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, R, outputs] for `unmask.variants.upscale`, as `networks.UNet.staged`."""
        if not self.shape.valued:
            raise ValueError(
                "stages without valued: expected a network that sees values, masks and the stage"
            )
        known = F.one_hot(stage - 1, self.shape.stages)
        planes = known[:, None].expand(-1, self.shape.height * self.shape.width, -1)
        return self._logits([self._values(levels), masked, planes], levels, masked, rows, time)

    def _values(self, levels: Tensor) -> Tensor:
        """Levels scaled to -1..1."""
        return 2.0 / max(self.shape.vocab_size - 1, 1) * levels - 1.0

    def _logits(
        self, planes: list[Tensor], levels: Tensor, masked: Tensor, rows: Tensor | None, time: Tensor | None
    ) -> Tensor:
        told = self.told(masked.float().mean(1) if time is None else time, None)
        x = self._run(self._stem(planes, levels), told)
        logits = x.permute(0, 2, 3, 1).reshape(len(x), self.shape.length, self.outputs)
        return logits if rows is None else take_rows(logits, rows)

    def _stem(self, planes: list[Tensor], levels: Tensor) -> Tensor:
        """The first x [B, F, H, W]."""
        size = (self.shape.height, self.shape.width)
        known = self.levels(levels.view(len(levels), *size, self.shape.channels)).flatten(3)
        if self.known is None:
            return self.stem(known.permute(0, 3, 1, 2))  # type: ignore[no-any-return]
        images = [p.reshape(len(p), *size, -1).to(self.stem.weight.dtype) for p in planes]
        seen = self.stem(torch.cat(images, dim=3).permute(0, 3, 1, 2))
        return torch.cat([seen, self.known(known).permute(0, 3, 1, 2).to(seen.dtype)], dim=1)

    def _run(self, x: Tensor, told: Tensor) -> Tensor:
        left = [x]
        for block, seen in zip(self.down, self.down_seen):
            x = seen(block(x, told))
            left.append(x)
        if self.inside is not None:
            x = self.inside(x, told)
        else:
            x = self.middle[1](self.attention(self.middle[0](x, told)), told)
        for block, seen in zip(self.up, self.up_seen):
            x = seen(block(torch.cat([x, left.pop()], dim=1), told))
        return self.head(F.silu(scaled(self.norm(x), self.scale, told)))  # type: ignore[no-any-return]
