"""A U-Net without down-sampling for images: levels in, logits at the pixels that are asked for out.

Residual blocks with skip connections between the two halves, one attention block in the middle, a stem that tells values
from masks: the form of VDM (arXiv 2107.00630), as ARDM (arXiv 2110.02037) and MD4 (arXiv 2406.04329) use it. ``patch``
gathers squares of pixels into channels before the blocks and spreads them out after (nothing is thrown away): with 2 a
block costs a quarter, which on a CPU buys width and depth.

Shape legend: B batch, H height, W width, C channels, L = H W C positions, F features, V levels, S stages. A position is
pixel by pixel, row-major, the channels of a pixel side by side.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.base.numbers import whole
from unmask.networks.blocks import attend
from unmask.networks.conditioning import Condition
from unmask.networks.config import check_length


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a `UNet`; every field is stored with its weights.

    ``blocks`` are residual blocks in each half, two more stand in the middle, around the attention (``heads`` 0: none).
    ``classes`` and ``timed`` say what the network may be told besides the image; ``stages`` S > 0 makes one for
    `variants.upscale`; ``outputs`` are logits per position, if not one per level, and ``ordinal`` counts the smooth
    functions of the level that they start from. ``length`` follows from the sizes.
    """

    vocab_size: int
    height: int
    width: int
    channels: int = 1
    features: int = 128
    blocks: int = 3
    heads: int = 4
    patch: int = 1
    classes: int = 0
    timed: bool = False
    stages: int = 0
    outputs: int | None = None
    ordinal: int = 16
    length: int = 0

    def __post_init__(self) -> None:
        least = {"vocab_size": 1, "height": 1, "width": 1, "channels": 1, "features": 4, "blocks": 0}
        for name, low in (least | {"heads": 0, "patch": 1, "classes": 0, "stages": 0, "ordinal": 0}).items():
            object.__setattr__(self, name, whole(getattr(self, name), name, low))
        if self.outputs is not None:
            object.__setattr__(self, "outputs", whole(self.outputs, "outputs", 1))
        if self.height % self.patch or self.width % self.patch:
            raise ValueError(
                f"patch {self.patch}: expected a divisor of height {self.height} and width {self.width}"
            )
        unit = math.lcm(4 * self.patch**2, self.heads or 1)
        if self.features % unit:
            raise ValueError(
                f"features {self.features}: expected a multiple of {unit}, that is of 4 patch^2 and of heads"
            )
        object.__setattr__(self, "length", self.height * self.width * self.channels)


class _NormSilu(torch.autograd.Function):
    """silu(GroupNorm(x)) with its gradients: sums per channel, then few passes over channels-last memory each way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
        """x [B, F, h, w], weight and bias [F]."""
        kind = torch.promote_types(x.dtype, torch.float32)
        mean, square = (_grouped(v.mean((2, 3), dtype=kind), groups) for v in (x, x * x))
        spread = (square - mean * mean).clamp(min=0).add(1e-5).rsqrt()
        inner = _affine(x, weight * spread, bias - weight * spread * mean)
        ctx.save_for_backward(x, inner, weight, mean, spread)
        ctx.groups = groups
        return F.silu(inner)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias."""
        x, inner, weight, mean, spread = ctx.saved_tensors
        slope = torch.ops.aten.silu_backward(upstream, inner)
        plain = slope.sum((2, 3), dtype=mean.dtype)
        cross = spread * ((slope * x).sum((2, 3), dtype=mean.dtype) - mean * plain)
        size = x.shape[2] * x.shape[3]
        level, tilt = (spread * _grouped(weight * v, ctx.groups) / size for v in (plain, cross))
        to_x = _affine(x, -spread * tilt, spread * tilt * mean - level)
        to_x = to_x.addcmul_(slope, (weight * spread)[:, :, None, None].to(x.dtype))
        return to_x, cross.sum(0), plain.sum(0), None


def _grouped(values: Tensor, groups: int) -> Tensor:
    """Means [B, F] over groups of channels, one entry per channel, of values [B, F]."""
    parts = values.view(len(values), groups, -1)
    return parts.mean(2, keepdim=True).expand_as(parts).reshape(values.shape)


def _affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x [B, F, h, w] times scale plus shift, both [B, F], in x's dtype."""
    return torch.addcmul(shift[:, :, None, None].to(x.dtype), x, scale[:, :, None, None].to(x.dtype))


class Norm(nn.Module):
    """GroupNorm (arXiv 1803.08494) of x [B, F, h, w] with groups of at least four channels, then SiLU.

    The built-in one takes nearly half of a training step on a CPU.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.groups = math.gcd(32, features // 4)
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """silu(normalised x), of x's dtype."""
        y: Tensor = _NormSilu.apply(x, self.weight, self.bias, self.groups)  # type: ignore[no-untyped-call]
        return y


def _nothing(layer: nn.Conv2d | nn.Linear) -> nn.Conv2d | nn.Linear:
    """The layer with zero weights: what it adds begins at nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Residual(nn.Module):
    """Two 3x3 convolutions beside x [B, F, h, w]; ``skip`` first merges what the other half left."""

    def __init__(self, features: int, *, skip: bool, told: int) -> None:
        super().__init__()
        self.merge = nn.Conv2d(2 * features, features, 1) if skip else None
        self.norm_in, self.norm_out = Norm(features), Norm(features)
        self.conv_in = nn.Conv2d(features, features, 3, padding=1)
        self.conv_out = _nothing(nn.Conv2d(features, features, 3, padding=1))
        self.tell = _nothing(nn.Linear(told, features)) if told else None

    def forward(self, x: Tensor, skip: Tensor | None, told: Tensor | None) -> Tensor:
        """The next x; ``told`` float [B, told] is what the network was told besides the image."""
        if self.merge is not None and skip is not None:
            x = self.merge(torch.cat([x, skip], dim=1))
        inner = self.conv_in(self.norm_in(x))
        if self.tell is not None and told is not None:
            inner = inner + self.tell(told)[:, :, None, None]
        return x + self.conv_out(self.norm_out(inner))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Softmax attention among all places of x [B, F, h, w], added to x."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = Norm(features)
        self.qkv = nn.Conv2d(features, 3 * features, 1)
        self.out = _nothing(nn.Conv2d(features, features, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x with what every place saw of the others."""
        parts = self.qkv(self.norm(x)).reshape(len(x), 3, self.heads, -1, x.shape[2] * x.shape[3])
        q, k, v = parts.transpose(-1, -2).unbind(1)
        seen = attend(q, k, v).transpose(-1, -2).reshape(x.shape)
        return x + self.out(seen.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]


class Head(nn.Module):
    """Logits [.., C outputs] of states [.., D]: a linear map for each channel of a pixel, zero at the start.

    The matrix is a free part plus ``ordinal`` smooth functions of the level, so that levels close to each other learn from
    each other from the first step on.
    """

    def __init__(self, width: int, channels: int, outputs: int, ordinal: int) -> None:
        super().__init__()
        self.free = nn.Parameter(torch.zeros(channels * outputs, width))
        self.bias = nn.Parameter(torch.zeros(channels * outputs))
        self.smooth = nn.Parameter(torch.zeros(channels, ordinal, width)) if ordinal else None
        self.basis: Tensor
        self.register_buffer("basis", cosines(outputs, ordinal), persistent=False)

    @property
    def weight(self) -> Tensor:
        """The matrix [C outputs, D]."""
        return self.free if self.smooth is None else self.free + (self.basis @ self.smooth).flatten(0, 1)

    def forward(self, states: Tensor) -> Tensor:
        """Logits of states."""
        return F.linear(states, self.weight, self.bias)


def cosines(points: int, count: int) -> Tensor:
    """The first ``count`` cosines above the constant on ``points`` levels, each of mean square 1/2; [points, count]."""
    place = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    # in float64, so that machines whose cosines differ in the last bit have the same float32 table
    return torch.cos(math.pi * place[:, None] * torch.arange(1, count + 1)).float()


class UNet(nn.Module):
    """U-Net over images: ``network(tokens, rows=None) -> logits`` float [B, R, V]; tokens int64 [B, L], V = masked.

    ``time`` float [B] and ``label`` int64 [B] are read where the configuration says so (no label: a class of its own).
    It has no partial passes. ValueError on sizes that do not fit together.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.shape = config
        width, thin = config.features, config.features // config.patch**2
        told = 4 * width if config.timed or config.classes else 0
        self.told = (
            Condition(config.timed, config.classes, waves=width, hidden=told, width=told) if told else None
        )
        self.stem = nn.Conv2d(2 * config.channels + config.stages, thin - thin // 4, 3, padding=1)
        self.levels = nn.Embedding(config.channels * (config.vocab_size + 1), thin // 4)
        self.places = nn.Parameter(
            torch.zeros(1, width, config.height // config.patch, config.width // config.patch)
        )
        block = {"features": width, "told": told}
        self.down = nn.ModuleList([Residual(**block, skip=False) for _ in range(config.blocks)])
        self.middle = nn.ModuleList([Residual(**block, skip=False) for _ in range(2)])
        self.attention = Attention(width, config.heads) if config.heads else nn.Identity()
        self.up = nn.ModuleList([Residual(**block, skip=True) for _ in range(config.blocks + 1)])
        self.norm = Norm(width)
        self.spread = nn.Conv2d(width, width // 2 * config.patch**2, 1)
        self.head = Head(width // 2, config.channels, self.outputs, config.ordinal)

    @property
    def config(self) -> dict[str, Any]:
        """Fields of the `UNetConfig` that builds this network again."""
        return asdict(self.shape)

    @property
    def mask_id(self) -> int:
        """Symbol id of the mask."""
        return self.shape.vocab_size

    @property
    def timed(self) -> bool:
        """Whether the keyword ``time`` is read."""
        return self.shape.timed

    @property
    def outputs(self) -> int:
        """Logits per position."""
        return self.shape.outputs or self.shape.vocab_size

    def forward(
        self,
        tokens: Tensor,
        rows: Tensor | None = None,
        *,
        time: Tensor | None = None,
        label: Tensor | None = None,
    ) -> Tensor:
        """Logits float [B, R, V] at rows int64 [B, R] (None: all positions)."""
        return self.logits(self.states(tokens, time=time, label=label), rows)

    def states(self, tokens: Tensor, *, time: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        """What the head reads, float [B, H W, D]: for losses that want logits at some positions only."""
        check_length(tokens, self.shape.length)
        masked = tokens == self.mask_id
        values = self._values(tokens).masked_fill(masked, 0.0)
        return self._run([values, masked], tokens, self._told(masked, time, label))

    def staged(
        self,
        levels: Tensor,
        masked: Tensor,
        stage: Tensor,
        rows: Tensor | None = None,
        *,
        time: Tensor | None = None,
        label: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, R, outputs] for `unmask.variants.upscale`: levels int64 [B, L] all known, at the precision of a stage.

        ``masked`` bool [B, L] says where the level is the coarser one; stage int64 [B] counts from 1.
        """
        known = F.one_hot(stage - 1, self.shape.stages)
        planes = known[:, None].expand(-1, self.shape.height * self.shape.width, -1)
        told = self._told(masked, time, label)
        return self.logits(self._run([self._values(levels), masked, planes], levels, told), rows)

    def logits(self, states: Tensor, rows: Tensor | None) -> Tensor:
        """The output head at rows of states [B, H W, D]."""
        channels = self.shape.channels
        if rows is None:
            return self.head(states).unflatten(-1, (channels, self.outputs)).flatten(1, 2)  # type: ignore[no-any-return]
        pixel = rows // channels
        every = self.head(states.gather(1, pixel[..., None].expand(-1, -1, states.shape[-1])))
        own = (rows % channels)[..., None, None].expand(-1, -1, 1, self.outputs)
        return every.unflatten(-1, (channels, self.outputs)).gather(2, own)[:, :, 0]  # type: ignore[no-any-return]

    def _values(self, levels: Tensor) -> Tensor:
        """Levels scaled to -1..1."""
        return 2.0 / max(self.shape.vocab_size - 1, 1) * levels - 1.0

    def _told(self, masked: Tensor, time: Tensor | None, label: Tensor | None) -> Tensor | None:
        """The vectors of time and label; no time is the share of masked positions."""
        share = masked.flatten(1).float().mean(1)
        return None if self.told is None else self.told(share if time is None else time, label)

    def _run(self, planes: list[Tensor], levels: Tensor, told: Tensor | None) -> Tensor:
        """States [B, H W, D] from input planes [B, L or H W, ..] and the levels that are embedded."""
        x = self._stem(planes, levels)
        left = [x]
        for block in self.down:
            x = block(x, None, told)
            left.append(x)
        x = self.middle[1](self.attention(self.middle[0](x, None, told)), None, told)
        for block in self.up:
            x = block(x, left.pop(), told)
        x = F.pixel_shuffle(self.spread(self.norm(x)), self.shape.patch)
        return F.silu(x).flatten(2).transpose(1, 2)

    def _stem(self, planes: list[Tensor], levels: Tensor) -> Tensor:
        """The first x [B, F, h, w]: 3/4 a convolution of the planes, 1/4 the embedded levels, and the place."""
        size = (self.shape.height, self.shape.width)
        images = [p.reshape(len(p), *size, -1).permute(0, 3, 1, 2).to(self.stem.weight.dtype) for p in planes]
        seen = self.stem(torch.cat(images, dim=1).contiguous(memory_format=torch.channels_last))
        ids = levels.view(len(levels), *size, -1) + self._offsets(levels)
        known = self.levels(ids).sum(3).permute(0, 3, 1, 2).to(seen.dtype)
        x = F.pixel_unshuffle(torch.cat([seen, known], dim=1), self.shape.patch)
        return (x + self.places.to(x.dtype)).contiguous(memory_format=torch.channels_last)

    def _offsets(self, levels: Tensor) -> Tensor:
        """Where each channel's rows begin in the table of levels, int64 [C]."""
        return torch.arange(self.shape.channels, device=levels.device) * (self.shape.vocab_size + 1)
