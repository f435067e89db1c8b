"""Images behind tokens: the decoder of LlamaGen's VQ model (arXiv 2406.06525), as the Halton release uses it.

Names of the weights are those of Network/vq_model.py; the encoder is not built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from unmask.networks.blocks import attend


@dataclass(frozen=True)
class PixelsConfig:
    """Shape of `Pixels`: ``steps`` are multiples of ``features`` from the finest level to the coarsest."""

    codes: int = 16384
    code_width: int = 8
    latent: int = 256
    features: int = 128
    steps: tuple[int, ...] = (1, 1, 2, 2, 4)


def norm_of(channels: int, groups: int = 32) -> nn.GroupNorm:
    """A norm over groups of channels."""
    return nn.GroupNorm(groups, channels, eps=1e-6)


class Residual(nn.Module):
    """Two 3x3 convolutions beside x, which ``shortcut`` names the map of where the channels change."""

    def __init__(self, before: int, after: int, groups: int = 32, shortcut: str = "nin_shortcut") -> None:
        super().__init__()
        self.norm1, self.norm2 = norm_of(before, groups), norm_of(after, groups)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.shortcut = shortcut
        if before != after:
            self.add_module(shortcut, nn.Conv2d(before, after, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, F, h, w] with as many channels as the second convolution gives."""
        inner = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        known = self._modules.get(self.shortcut)
        return (x if known is None else known(x)) + inner  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Attention among all places of x, added to x."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm_of(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, F, h, w]."""
        inner = self.norm(x)
        q, k, v = (part(inner).flatten(2).transpose(1, 2)[:, None] for part in (self.q, self.k, self.v))
        seen = attend(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
        return x + self.proj_out(seen)  # type: ignore[no-any-return]


class Doubled(nn.Module):
    """Twice the height and width, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, F, 2 h, 2 w]."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # type: ignore[no-any-return]


class Level(nn.Module):
    """Three residual blocks, on the coarsest level with attention, and a doubling unless it is the finest."""

    def __init__(self, before: int, after: int, coarsest: bool, finest: bool) -> None:
        super().__init__()
        self.res = nn.ModuleList([Residual(before if i == 0 else after, after) for i in range(3)])
        self.attn = nn.ModuleList([Attention(after) for _ in range(3 * coarsest)])
        if not finest:
            self.upsample = Doubled(after)

    def forward(self, x: Tensor) -> Tensor:
        """The next x."""
        for i, block in enumerate(self.res):
            x = block(x)
            x = self.attn[i](x) if len(self.attn) else x
        return self.upsample(x) if hasattr(self, "upsample") else x


class Decoder(nn.Module):
    """From latents [B, Z, h, w] to pixels."""

    def __init__(self, config: PixelsConfig) -> None:
        super().__init__()
        widths: Sequence[int] = [config.features * step for step in reversed(config.steps)]
        self.conv_in = nn.Conv2d(config.latent, widths[0], 3, padding=1)
        self.mid = nn.ModuleList(
            [Residual(widths[0], widths[0]), Attention(widths[0]), Residual(widths[0], widths[0])]
        )
        self.conv_blocks = nn.ModuleList(
            [
                Level(widths[max(i - 1, 0)], width, coarsest=i == 0, finest=i == len(widths) - 1)
                for i, width in enumerate(widths)
            ]
        )
        self.norm_out, self.conv_out = norm_of(widths[-1]), nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels [B, 3, H, W]."""
        x = self.conv_in(x)
        for block in (*self.mid, *self.conv_blocks):
            x = block(x)
        return self.conv_out(F.silu(self.norm_out(x)))  # type: ignore[no-any-return]


class Pixels(nn.Module):
    """``pixels(tokens int64 [B, side^2]) -> images`` float [B, 3, H, W], about -1..1, with side 16 times smaller than H."""

    def __init__(self, config: PixelsConfig) -> None:
        super().__init__()
        self.shape = config
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(config.codes, config.code_width)})
        self.post_quant_conv = nn.Conv2d(config.code_width, config.latent, 1)
        self.decoder = Decoder(config)

    def forward(self, tokens: Tensor) -> Tensor:
        """Images of tokens, which must be data symbols; ValueError for others, and for no square of them."""
        codes = F.normalize(self.quantize["embedding"].weight, dim=-1)  # type: ignore[arg-type]
        return self.decoder(self.post_quant_conv(latents_of(tokens, codes)))  # type: ignore[no-any-return]


def latents_of(tokens: Tensor, codes: Tensor) -> Tensor:
    """[B, F, side, side] of tokens int64 [B, side^2], which must be rows of codes [N, F]; ValueError for others."""
    side = round(tokens.shape[-1] ** 0.5)
    square = tokens.ndim == 2 and side**2 == tokens.shape[1]
    if not square or not ((tokens >= 0) & (tokens < len(codes))).all():
        raise ValueError(
            f"tokens of shape {list(tokens.shape)}; expected a square of codes 0..{len(codes) - 1}, no masks"
        )
    return codes[tokens].transpose(1, 2).reshape(len(tokens), -1, side, side)
