"""Dream (arXiv 2508.15487): a Qwen2 without a causal mask, whose logits at a position predict the symbol after it.

Names of the weights are those of modeling_dream.py; DiffuCoder (arXiv 2506.20639) is the same network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.networks.published.pieces import (
    GatedMLP,
    Published,
    RMSNorm,
    attended,
    heads_of,
    powers,
    turned,
)
from unmask.networks.published.settings import count, flag, must, number, only, shared_heads, symbol


@dataclass(frozen=True)
class DreamConfig:
    """Shape of a `Dream`; ``tied`` shares the embedding with the head."""

    vocab_size: int
    length: int
    width: int
    depth: int
    heads: int
    kv_heads: int
    hidden: int
    mask_id: int
    theta: float = 10_000.0
    eps: float = 1e-6
    tied: bool = False
    pad_id: int | None = None

    def __post_init__(self) -> None:
        shared_heads(self.width, self.heads, self.kv_heads)

    @classmethod
    def read(cls, config: Mapping[str, Any], pad_id: int | None = None) -> DreamConfig:
        """The shape that a published config.json describes; ValueError for variants that are not built here."""
        must(config, architectures=["DreamModel"])
        only(config, hidden_act="silu", use_sliding_window=False)
        only(config, rope_scaling=None, use_mrope=False)
        heads, vocab_size = count(config, "num_attention_heads"), count(config, "vocab_size")
        return cls(
            vocab_size=vocab_size,
            length=count(config, "max_position_embeddings"),
            width=count(config, "hidden_size"),
            depth=count(config, "num_hidden_layers"),
            heads=heads,
            kv_heads=count(config, "num_key_value_heads", heads),
            hidden=count(config, "intermediate_size"),
            mask_id=symbol(config, "mask_token_id", vocab_size),
            theta=number(config, "rope_theta", 10_000.0),
            eps=number(config, "rms_norm_eps", 1e-6),
            tied=flag(config, "tie_word_embeddings", False),
            pad_id=pad_id,
        )


class DreamAttention(nn.Module):
    """The maps of an attention; q, k and v with biases."""

    def __init__(self, config: DreamConfig) -> None:
        super().__init__()
        shared = config.width // config.heads * config.kv_heads
        self.q_proj = nn.Linear(config.width, config.width)
        self.k_proj, self.v_proj = nn.Linear(config.width, shared), nn.Linear(config.width, shared)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)


class DreamBlock(nn.Module):
    """Pre-norm attention and gated MLP; a `pieces.Layer`."""

    def __init__(self, config: DreamConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.self_attn, self.mlp = DreamAttention(config), GatedMLP(config.width, config.hidden)
        self.input_layernorm = RMSNorm(config.width, config.eps)
        self.post_attention_layernorm = RMSNorm(config.width, config.eps)

    def project(self, x: Tensor, angles: Tensor, told: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of rows."""
        del told
        inner, maps = self.input_layernorm(x), self.self_attn
        q, k = heads_of(maps.q_proj(inner), self.heads), heads_of(maps.k_proj(inner), self.kv_heads)
        return turned(q, angles), turned(k, angles), heads_of(maps.v_proj(inner), self.kv_heads)

    def finish(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, seen: bool | Tensor, told: Tensor | None
    ) -> Tensor:
        """The next x."""
        del told
        x = x + self.self_attn.o_proj(attended(q, k, v, seen))
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class Dream(Published):
    """Dream: ``network(tokens, rows=None) -> logits`` float [B, R, V], those at i from the state at i - 1.

    The first position is read from its own state, as published. A partial pass runs the asked rows and those before
    them, where their logits are read.
    """

    def __init__(self, config: DreamConfig) -> None:
        super().__init__(config.length, config.mask_id, config.pad_id)
        self.shape = config
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(config.vocab_size, config.width),
                "layers": nn.ModuleList([DreamBlock(config) for _ in range(config.depth)]),
                "norm": RMSNorm(config.width, config.eps),
            }
        )
        self.lm_head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)

    def layers(self) -> Iterable[Any]:
        """The blocks."""
        return self.model["layers"]  # type: ignore[return-value]

    def frequencies(self) -> Tensor:
        """Radians per position of each pair of channels."""
        return powers(
            self.shape.theta,
            self.shape.width // self.shape.heads,
            self.model["embed_tokens"].weight,  # type: ignore[arg-type]
        )

    def embed(self, symbols: Tensor) -> Tensor:
        """The residual stream before the first layer."""
        return self.model["embed_tokens"](symbols)  # type: ignore[no-any-return]

    def read(self, x: Tensor, told: Tensor | None) -> Tensor:
        """Logits of the residual stream."""
        del told
        inner = self.model["norm"](x)
        if self.lm_head is None:
            return F.linear(inner, self.model["embed_tokens"].weight)  # type: ignore[arg-type]
        return self.lm_head(inner)  # type: ignore[no-any-return]

    def source(self, tokens: Tensor, rows: Tensor | None) -> Tensor:
        """The position before each of rows; the own one where a sequence begins."""
        if rows is None:
            rows = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        before = (rows - 1).clamp(min=0)
        return before if self.pad_id is None else before + (tokens.gather(1, before) == self.pad_id).long()

    def partial(
        self,
        tokens: Tensor,
        rows: Tensor,
        cache: list[tuple[Tensor, Tensor]],
        *,
        time: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, R, V] at rows, running those and the ones before them against cached keys and values."""
        told, read = self.told(tokens, time), self.source(tokens, rows)
        run = _united(rows, read, tokens.shape[1])
        x = self._run(tokens, run, cache, told)
        place = torch.zeros_like(tokens).scatter_reduce_(1, run, _counted(run), "amin", include_self=False)
        return self.logits(x, place.gather(1, read), told)


def _united(rows: Tensor, others: Tensor, length: int) -> Tensor:
    """Rows int64 [B, k] and others, each once and in order; shorter ones repeat their first."""
    wanted = torch.zeros(len(rows), length, dtype=torch.uint8, device=rows.device)
    wanted = wanted.scatter_(1, rows, 1).scatter_(1, others, 1)
    sizes = wanted.sum(1)
    order = wanted.sort(dim=1, stable=True, descending=True).indices[:, : int(sizes.max())]
    return torch.where(_counted(order) < sizes[:, None], order, order[:, :1])


def _counted(rows: Tensor) -> Tensor:
    """0, 1, .. along each of the rows int64 [B, k]."""
    return torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
