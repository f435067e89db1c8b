"""What the image networks of papers are made of: residual blocks, attention among pixels, a transformer on squares."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.networks.blocks import attend, dropped
from unmask.networks.conditioning import sinusoid

if TYPE_CHECKING:
    from unmask.recipes.papers.image_network import ImageConfig


def groups(features: int) -> int:
    """Groups of a GroupNorm: 32, or as many as divide the features."""
    return math.gcd(32, features)


def nothing(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """The layer with zero weights: what it adds begins at nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Spatial(nn.Module):
    """Two 3x3 convolutions beside x [B, inputs, H, W], which becomes [B, F, H, W].

    What the network is told [B, told] is added between them (with a ``bias``: ARDM), or where ``scaled`` scales and
    shifts both norms, which then have no weights of their own (MD4 on ImageNet64).
    """

    def __init__(
        self, inputs: int, features: int, *, told: int, scaled: bool, bias: bool, dropout: float
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm_in = nn.GroupNorm(groups(inputs), inputs, affine=not scaled)
        self.conv_in = nn.Conv2d(inputs, features, 3, padding=1)
        self.norm_out = nn.GroupNorm(groups(features), features, affine=not scaled)
        self.conv_out = nothing(nn.Conv2d(features, features, 3, padding=1))
        self.merge = nn.Conv2d(inputs, features, 1) if inputs != features else nn.Identity()
        self.tell = None if scaled else nn.Linear(told, features, bias=bias)
        self.scale_in = nothing(nn.Linear(told, 2 * inputs)) if scaled else None
        self.scale_out = nothing(nn.Linear(told, 2 * features)) if scaled else None

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """The next x."""
        inner = self.conv_in(F.silu(scaled(self.norm_in(x), self.scale_in, told)))
        if self.tell is not None:
            inner = inner + self.tell(told)[:, :, None, None]
        inner = F.silu(scaled(self.norm_out(inner), self.scale_out, told))
        inner = self.conv_out(F.dropout(inner, self.dropout, self.training))
        y: Tensor = self.merge(x) + inner
        return y


def scaled(x: Tensor, layer: nn.Module | None, told: Tensor) -> Tensor:
    """x [B, F, H, W] scaled and shifted by a layer of what is told, if there is one."""
    if layer is None:
        return x
    change: Tensor = layer(told)[:, :, None, None]
    scale, shift = change.chunk(2, dim=1)
    return x * (1 + scale) + shift


class SpatialAttention(nn.Module):
    """Softmax attention among all places of x [B, F, H, W], added to x."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups(features), features)
        self.qkv = nn.Conv2d(features, 3 * features, 1)
        self.out = nothing(nn.Conv2d(features, features, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x with what every place saw of the others."""
        parts = self.qkv(self.norm(x)).reshape(len(x), 3, self.heads, -1, x.shape[2] * x.shape[3])
        q, k, v = parts.transpose(-1, -2).unbind(1)
        return x + self.out(attend(q, k, v).transpose(-1, -2).reshape(x.shape))  # type: ignore[no-any-return]


class Square(nn.Module):
    """A block of DiT with adaLN-zero on x [B, R, D], told [B, T]."""

    def __init__(self, width: int, heads: int, told: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.change = nothing(nn.Linear(told, 6 * width))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """The next x."""
        p = self.dropout if self.training else 0.0
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.change(told)[:, None].chunk(6, dim=-1)
        parts = self.qkv(_normed(x) * (1 + scale) + shift).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        seen = attend(q, k, v, dropout=p).transpose(1, 2).flatten(2)
        x = x + gate * dropped(self.out(seen), p)
        inner = F.dropout(F.gelu(self.up(_normed(x) * (1 + scale_mlp) + shift_mlp), approximate="tanh"), p)
        y: Tensor = x + gate_mlp * F.dropout(self.down(inner), p)
        return y


def _normed(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


class Squares(nn.Module):
    """A transformer on squares of 2x2 places of x [B, F, H, W], in x's place (it begins at nothing)."""

    def __init__(self, config: ImageConfig, told: int) -> None:
        super().__init__()
        wide, inside = config.features, config.width_inside
        self.read = nn.Conv2d(wide, inside, 2, stride=2)
        self.places = nn.Parameter(_waves(config.height // 2, config.width // 2, inside))
        self.blocks = nn.ModuleList(
            [Square(inside, config.heads_inside, told, config.dropout) for _ in range(config.squares)]
        )
        self.change = nothing(nn.Linear(told, 2 * inside))
        self.write = nothing(nn.Linear(inside, 4 * wide))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """The next x."""
        read = self.read(x)
        y = read.flatten(2).transpose(1, 2) + self.places
        for block in self.blocks:
            y = block(y, told)
        shift, scale = self.change(told)[:, None].chunk(2, dim=-1)
        y = self.write(_normed(y) * (1 + scale) + shift).transpose(1, 2)
        return F.pixel_shuffle(y.unflatten(2, read.shape[2:]), 2)


def _waves(height: int, width: int, count: int) -> Tensor:
    """Sines and cosines of row and column, half of the ``count`` channels each, [H W, count]; they are learnt on."""
    rows, columns = (torch.arange(n, device="cpu", dtype=torch.float64) for n in (height, width))
    half = 2 * (count // 4)
    table = torch.zeros(height, width, count, dtype=torch.float64, device="cpu")
    table[..., :half] = sinusoid(columns, half)[None]
    table[..., half : 2 * half] = sinusoid(rows, half)[:, None]
    return table.flatten(0, 1).float().to(torch.get_default_device())
