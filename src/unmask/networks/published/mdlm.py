"""MDLM (arXiv 2406.07524) and SEDD (arXiv 2310.16834): one diffusion transformer with adaLN, read out in two ways.

Names of the weights are those of dit.py and of SEDD's transformer.py. MDLM's published weights take no time. SEDD's logits
are the logs of the ratios p(x with v here) / p(x) of a masked position at a noise level; for absorbing noise each is
alpha / (1 - alpha) times the probability of v given what is visible, the same factor for all v, so that normalising them
gives the law.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.networks.published.pieces import Published, attended, heads_of, turned
from unmask.networks.published.settings import count, flag, number, only

WAVES = 256
"""Channels of the sinusoid that carries the noise level."""


@dataclass(frozen=True)
class DiTConfig:
    """Shape of a diffusion transformer; the last of its symbols is the mask.

    ``timed``: it reads the noise level sigma = -log(1 - (1 - ``rest``) t) of time t; otherwise that of t = 0 always.
    """

    vocab_size: int
    length: int
    width: int
    depth: int
    heads: int
    condition: int
    timed: bool = False
    rest: float = 1e-3
    pad_id: int | None = None

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"width {self.width} over {self.heads} heads: expected an even number of channels per head"
            )

    @classmethod
    def read(cls, config: Mapping[str, Any], pad_id: int | None = None) -> DiTConfig:
        """The shape that MDLM's config.json describes."""
        return cls(
            vocab_size=count(config, "vocab_size", least=2),
            length=count(config, "model_length"),
            width=count(config, "hidden_dim"),
            depth=count(config, "n_blocks"),
            heads=count(config, "n_heads"),
            condition=count(config, "cond_dim"),
            timed=flag(config, "time_conditioning", False),
            pad_id=pad_id,
        )

    @classmethod
    def read_sedd(cls, config: Mapping[str, Any], pad_id: int | None = None) -> DiTConfig:
        """The shape that SEDD's config describes; ValueError for other noise than absorbing and log-linear."""
        model, graph, noise = (config.get(name) for name in ("model", "graph", "noise"))
        if not all(isinstance(part, Mapping) for part in (model, graph, noise)):
            raise ValueError("no records 'model', 'graph' and 'noise'; expected those of SEDD")
        only(graph, type="absorb")  # type: ignore[arg-type]
        only(noise, type="loglinear")  # type: ignore[arg-type]
        only(model, type="ddit")  # type: ignore[arg-type]
        shape: Mapping[str, Any] = model  # type: ignore[assignment]
        return cls(
            vocab_size=count(config, "tokens") + 1,
            length=count(shape, "length"),
            width=count(shape, "hidden_size"),
            depth=count(shape, "n_blocks"),
            heads=count(shape, "n_heads"),
            condition=count(shape, "cond_dim"),
            timed=True,
            rest=number(noise, "eps", 1e-3),  # type: ignore[arg-type]
            pad_id=pad_id,
        )


class Norm(nn.Module):
    """Layer norm in float32 at least, times a weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x, of x's dtype."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return F.layer_norm(wide, x.shape[-1:]).to(x.dtype) * self.weight


class Embedding(nn.Module):
    """A vector for each symbol."""

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(vocab_size, width) * width**-0.5)


class Level(nn.Module):
    """The vector [B, C] of a noise level: an MLP of its sinusoid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(WAVES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, sigma: Tensor) -> Tensor:
        """For sigma float [B]; cosines stand before sines."""
        half = torch.arange(WAVES // 2, device=sigma.device, dtype=torch.float32)
        angles = sigma.float()[:, None] * torch.exp(-math.log(10_000) * half / (WAVES // 2))
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        vector: Tensor = self.mlp(waves.to(next(self.mlp.parameters()).dtype))
        return vector


class Frequencies(nn.Module):
    """Radians per position of each pair of channels: a table that the published files hold too."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inv_freq: Tensor
        self.register_buffer("inv_freq", 1.0 / 10_000 ** (torch.arange(0, channels, 2).float() / channels))


class DiTBlock(nn.Module):
    """Attention and an MLP, shifted, scaled and gated by the noise level; a `pieces.Layer`."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm1, self.norm2 = Norm(width), Norm(width)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )
        self.adaLN_modulation = nn.Linear(config.condition, 6 * width)

    def _changes(self, told: Tensor | None) -> tuple[Tensor, ...]:
        """Shift, scale and gate of the attention and of the MLP, each [B, 1, D]."""
        return tuple(self.adaLN_modulation(told)[:, None].chunk(6, dim=-1))

    def project(self, x: Tensor, angles: Tensor, told: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of rows."""
        shift, scale = self._changes(told)[:2]
        inner = self.attn_qkv(self.norm1(x) * (1 + scale) + shift)
        q, k, v = (heads_of(part, self.heads) for part in inner.chunk(3, dim=-1))
        return turned(q, angles), turned(k, angles), v

    def finish(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, seen: bool | Tensor, told: Tensor | None
    ) -> Tensor:
        """The next x."""
        _, _, gate, shift, scale, gate_mlp = self._changes(told)
        x = x + gate * self.attn_out(attended(q, k, v, seen))
        return x + gate_mlp * self.mlp(self.norm2(x) * (1 + scale) + shift)  # type: ignore[no-any-return]


class Readout(nn.Module):
    """Logits of the residual stream, shifted and scaled by the noise level."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.norm_final = Norm(config.width)
        self.linear = nn.Linear(config.width, config.vocab_size)
        self.adaLN_modulation = nn.Linear(config.condition, 2 * config.width)

    def forward(self, x: Tensor, told: Tensor | None) -> Tensor:
        """Logits [B, R, V] of x [B, R, D]."""
        shift, scale = self.adaLN_modulation(told)[:, None].chunk(2, dim=-1)
        logits: Tensor = self.linear(self.norm_final(x) * (1 + scale) + shift)
        return logits


class SEDD(Published):
    """The transformer by SEDD's names: ``network(tokens, rows=None, *, time=None) -> logits`` float [B, R, V].

    ``time`` float [B] in 0..1 is that of the log-linear schedule, by default the share of masked positions among those
    that are no pads. Softmax over the data symbols gives the law at masked positions (the own symbol's entry, which SEDD
    sets to zero, is the mask's there).
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config.length, config.vocab_size - 1, config.pad_id)
        self.shape, self.timed = config, config.timed
        self.vocab_embed = Embedding(config.vocab_size, config.width)
        self.sigma_map = Level(config.condition)
        self.rotary_emb = Frequencies(config.width // config.heads)
        self.blocks = nn.ModuleList([DiTBlock(config) for _ in range(config.depth)])
        self.output_layer = Readout(config)

    def layers(self) -> Iterable[Any]:
        """The blocks."""
        return self.blocks

    def frequencies(self) -> Tensor:
        """Radians per position of each pair of channels."""
        return self.rotary_emb.inv_freq.to(
            torch.promote_types(self.vocab_embed.embedding.dtype, torch.float32)
        )

    def told(self, tokens: Tensor, time: Tensor | None) -> Tensor | None:
        """The vector [B, C] of the noise level."""
        return F.silu(self.sigma_map(self.level(tokens, time)))

    def level(self, tokens: Tensor, time: Tensor | None) -> Tensor:
        """The noise level sigma [B], with 1 - exp(-sigma) = (1 - rest) t; zero where the network is told none."""
        if not self.timed:
            return torch.zeros(len(tokens), device=tokens.device)
        if time is None:
            masked = tokens == self.mask_id
            all_ = torch.ones_like(masked) if self.pad_id is None else tokens != self.pad_id
            time = masked.sum(1) / all_.sum(1).clamp(min=1)
        return -torch.log1p(-(1 - self.shape.rest) * time)

    def embed(self, symbols: Tensor) -> Tensor:
        """The residual stream before the first layer."""
        return self.vocab_embed.embedding[symbols]

    def read(self, x: Tensor, told: Tensor | None) -> Tensor:
        """Logits of the residual stream."""
        logits: Tensor = self.output_layer(x, told)
        return logits


class MDLM(nn.Module):
    """The same transformer by MDLM's names, below ``backbone``; without a time unless its config says so."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.backbone = SEDD(config)

    @property
    def shape(self) -> DiTConfig:
        """The configuration."""
        return self.backbone.shape

    @property
    def timed(self) -> bool:
        """Whether the keyword ``time`` is read."""
        return self.backbone.timed

    @property
    def mask_id(self) -> int:
        """Symbol id of the mask."""
        return self.backbone.mask_id

    def forward(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        """Logits float [B, R, V] at rows."""
        logits: Tensor = self.backbone(tokens, rows, time=time)
        return logits

    def full(
        self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """As `Published.full`."""
        return self.backbone.full(tokens, rows, time=time)

    def partial(
        self,
        tokens: Tensor,
        rows: Tensor,
        cache: list[tuple[Tensor, Tensor]],
        *,
        time: Tensor | None = None,
    ) -> Tensor:
        """As `Published.partial`."""
        return self.backbone.partial(tokens, rows, cache, time=time)
