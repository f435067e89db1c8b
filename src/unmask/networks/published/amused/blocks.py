"""What do the layers of aMUSEd do? Attention among places and to the text, convolutions among neighbours.

Shapes as in `pieces`, and h, w for the places of a grid, F for the channels of convolutions, S for the places of a text.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.networks.published.amused.config import AmusedConfig
from unmask.networks.published.pieces import RMSNorm, attended, heads_of


class Attend(nn.Module):
    """Attention of x over ``context``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(width, width, bias=False)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """[B, R, D] of x [B, R, D] over context [B or 1, S, D]."""
        q, k, v = (
            heads_of(part, self.heads) for part in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        k, v = (part.expand(len(x), -1, -1, -1) for part in (k, v))
        return self.to_out[0](attended(q, k, v, False))  # type: ignore[no-any-return]


class ToldNorm(nn.Module):
    """A norm that the caption scales and moves."""

    def __init__(self, width: int, norm: nn.Module) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(width, 2 * width, bias=False), norm

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """The normalised x [B, R, D], told [B or 1, D]."""
        scale, shift = self.linear(F.silu(told))[:, None].chunk(2, dim=-1)
        return self.norm(x) * (1 + scale) + shift  # type: ignore[no-any-return]


class Gated(nn.Module):
    """The first half of a map of x, times gelu of the second."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, R, hidden]."""
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class AmusedLayer(nn.Module):
    """Attention among the tokens, attention to the text, a gated MLP."""

    def __init__(self, config: AmusedConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = ToldNorm(width, RMSNorm(width, config.eps))
        self.norm2 = ToldNorm(width, RMSNorm(width, config.eps))
        self.norm3 = ToldNorm(width, nn.LayerNorm(width, config.eps, bias=False))
        self.attn1, self.attn2 = Attend(width, config.heads), Attend(width, config.heads)
        out = nn.Linear(config.hidden, width, bias=False)
        self.ff = nn.ModuleDict({"net": nn.Sequential(Gated(width, config.hidden), nn.Identity(), out)})

    def forward(self, x: Tensor, text: Tensor, told: Tensor) -> Tensor:
        """The next x [B, R, D]."""
        inner = self.norm1(x, told)
        x = x + self.attn1(inner, inner)
        x = x + self.attn2(self.norm2(x, told), text)
        return x + self.ff["net"](self.norm3(x, told))  # type: ignore[no-any-return]


class ResponseNorm(nn.Module):
    """Channels weighted by how strong they are in the whole image, against each other (ConvNeXt V2, arXiv 2301.00808)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.zeros(1, 1, 1, width)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, h, w, F]."""
        strength: Tensor = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
        share = strength / (strength.mean(-1, keepdim=True) + 1e-6)
        y: Tensor = self.gamma * (x * share) + self.beta
        return x + y


class Neighbours(nn.Module):
    """What stands around a place, channel by channel, then an MLP; the caption scales and moves the sum."""

    def __init__(self, config: AmusedConfig) -> None:
        super().__init__()
        channels = config.channels
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = RMSNorm(channels, config.eps)
        self.channelwise_linear_1 = nn.Linear(channels, 4 * channels, bias=False)
        self.channelwise_norm = ResponseNorm(4 * channels)
        self.channelwise_linear_2 = nn.Linear(4 * channels, channels, bias=False)
        self.cond_embeds_mapper = nn.Linear(config.width, 2 * channels, bias=False)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """The next x [B, h, w, F]."""
        inner = self.norm(last(self.depthwise(first(x))))
        inner = self.channelwise_norm(F.gelu(self.channelwise_linear_1(inner)))
        x = x + self.channelwise_linear_2(inner)
        scale, shift = self.cond_embeds_mapper(F.silu(told))[:, None, None].chunk(2, dim=-1)
        return x * (1 + scale) + shift  # type: ignore[no-any-return]


class TextOnly(nn.Module):
    """Attention to the text, twice."""

    def __init__(self, config: AmusedConfig) -> None:
        super().__init__()
        channels = config.channels
        self.kv_mapper = nn.Linear(config.width, channels, bias=False) if config.width != channels else None
        self.norm1, self.norm2 = RMSNorm(channels, 1e-6), RMSNorm(channels, 1e-6)
        self.attn1, self.attn2 = (Attend(channels, config.block_heads) for _ in range(2))

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """The next x [B, R, F]."""
        text = text if self.kv_mapper is None else self.kv_mapper(F.silu(text))
        x = x + self.attn1(self.norm1(x), text)
        return x + self.attn2(self.norm2(x), text)  # type: ignore[no-any-return]


class Scaled(nn.Module):
    """Half or twice the height and width, after a norm."""

    def __init__(self, config: AmusedConfig, conv: type[nn.Conv2d] | type[nn.ConvTranspose2d]) -> None:
        super().__init__()
        self.norm = RMSNorm(config.channels, config.eps)
        self.conv = conv(config.channels, config.channels, 2, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, h, w, F]."""
        return last(self.conv(first(self.norm(x))))


class Convolved(nn.Module):
    """Convolutions and attention to the text in turn; halved before, or doubled after."""

    def __init__(self, config: AmusedConfig, down: bool, up: bool) -> None:
        super().__init__()
        self.downsample = Scaled(config, nn.Conv2d) if down else None
        self.res_blocks = nn.ModuleList([Neighbours(config) for _ in range(config.blocks)])
        self.attention_blocks = nn.ModuleList([TextOnly(config) for _ in range(config.blocks)])
        self.upsample = Scaled(config, nn.ConvTranspose2d) if up else None

    def forward(self, x: Tensor, text: Tensor, told: Tensor) -> Tensor:
        """The next x [B, h, w, F]."""
        x = x if self.downsample is None else self.downsample(x)
        for near, words in zip(self.res_blocks, self.attention_blocks):
            x = near(x, told)
            x = words(x.flatten(1, 2), text).view(x.shape)
        return x if self.upsample is None else self.upsample(x)


class Embedded(nn.Module):
    """Symbols as channels."""

    def __init__(self, config: AmusedConfig) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(config.symbols, config.embedded)
        self.layer_norm = RMSNorm(config.embedded, config.eps)
        self.conv = nn.Conv2d(config.embedded, config.channels, 1, bias=False)

    def forward(self, symbols: Tensor) -> Tensor:
        """[B, h, w, F] of symbols int64 [B, h, w]."""
        return last(self.conv(first(self.layer_norm(self.embeddings(symbols)))))


class Read(nn.Module):
    """Logits of each place by itself."""

    def __init__(self, config: AmusedConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(config.channels, config.embedded, 1, bias=False)
        self.layer_norm = RMSNorm(config.embedded, config.eps)
        self.conv2 = nn.Conv2d(config.embedded, config.codes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, R, codes] of places [B, R, F]."""
        inner = F.linear(x, self.conv1.weight.flatten(1))
        return F.linear(self.layer_norm(inner), self.conv2.weight.flatten(1))


def first(x: Tensor) -> Tensor:
    """x [B, h, w, F] with the channels after the batch."""
    return x.permute(0, 3, 1, 2)


def last(x: Tensor) -> Tensor:
    """x [B, F, h, w] with the channels last."""
    return x.permute(0, 2, 3, 1)
