"""LLaDA2 (arXiv 2512.15745): blocks from left to right, each filled in by diffusion; a mixture of experts.

Names of the weights are those of modeling_llada2_moe.py; LLaDA2.1 is the same network.
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
from unmask.networks.published.settings import count, flag, number, only, symbol


@dataclass(frozen=True)
class LLaDA2Config:
    """Shape of a `LLaDA2`.

    A position sees all of its own block of ``block_length`` and of those before it. The first ``dense`` layers have one
    MLP; in the others each position takes ``taken`` of ``experts``, from the best ``groups_taken`` of ``groups`` of them,
    and ``common`` experts that all positions use.
    """

    vocab_size: int
    length: int
    width: int
    depth: int
    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    expert_hidden: int
    experts: int
    taken: int
    groups: int
    groups_taken: int
    mask_id: int
    common: int = 0
    dense: int = 0
    gain: float = 2.5
    turned: int = 0
    block_length: int = 32
    theta: float = 10_000.0
    eps: float = 1e-5
    normed: bool = True
    qkv_biases: bool = False
    biases: bool = True
    tied: bool = False
    pad_id: int | None = None

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads or self.turned % 2 or not 0 < self.turned <= self.head_width:
            raise ValueError(
                f"{self.heads} heads and {self.kv_heads} of keys, {self.turned} of {self.head_width} channels turned: "
                "expected a divisor, and an even number that is at most all"
            )
        size = self.experts // self.groups
        if self.experts % self.groups or size < 2 or self.groups_taken > self.groups:
            raise ValueError(
                f"{self.experts} experts in {self.groups} groups, {self.groups_taken} taken: expected groups of two or more"
            )
        if self.taken > size * self.groups_taken:
            raise ValueError(f"{self.taken} experts taken; expected at most {size * self.groups_taken}")

    @classmethod
    def read(cls, config: Mapping[str, Any], pad_id: int | None = None) -> LLaDA2Config:
        """The shape that a published config.json describes, with ``mask_token_id`` and ``block_length`` added to it."""
        only(config, hidden_act="silu", use_sliding_window=False, rope_scaling=None, norm_head=False)
        only(config, score_function="sigmoid", norm_topk_prob=True)
        heads, vocab_size = count(config, "num_attention_heads"), count(config, "vocab_size")
        head_width = count(config, "head_dim", count(config, "hidden_size") // heads)
        return cls(
            vocab_size=vocab_size,
            length=count(config, "max_position_embeddings"),
            width=count(config, "hidden_size"),
            depth=count(config, "num_hidden_layers"),
            heads=heads,
            kv_heads=count(config, "num_key_value_heads"),
            head_width=head_width,
            hidden=count(config, "intermediate_size"),
            expert_hidden=count(config, "moe_intermediate_size"),
            experts=count(config, "num_experts"),
            taken=count(config, "num_experts_per_tok"),
            groups=count(config, "n_group"),
            groups_taken=count(config, "topk_group"),
            mask_id=symbol(config, "mask_token_id", vocab_size),
            common=count(config, "num_shared_experts", 0, least=0),
            dense=count(config, "first_k_dense_replace", 0, least=0),
            gain=number(config, "routed_scaling_factor", 2.5),
            turned=int(head_width * number(config, "partial_rotary_factor", 0.5)),
            block_length=count(config, "block_length", 32),
            theta=number(config, "rope_theta", 10_000.0),
            eps=number(config, "rms_norm_eps", 1e-5),
            normed=flag(config, "use_qk_norm", True),
            qkv_biases=flag(config, "use_qkv_bias", False),
            biases=flag(config, "use_bias", True),
            tied=flag(config, "tie_word_embeddings", False),
            pad_id=pad_id,
        )


class Gate(nn.Module):
    """Which experts each position takes, and with which weight."""

    def __init__(self, config: LLaDA2Config) -> None:
        super().__init__()
        self.shape = config
        self.weight = nn.Parameter(torch.randn(config.experts, config.width) * config.width**-0.5)
        self.expert_bias: Tensor
        self.register_buffer("expert_bias", torch.zeros(config.experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Experts int64 [N, K] of positions x [N, D] and their weights [N, K]; the bias moves the choice only."""
        shape, kind = self.shape, torch.promote_types(x.dtype, torch.float32)
        scores = torch.sigmoid(F.linear(x.to(kind), self.weight.to(kind)))
        wanted = (scores + self.expert_bias).view(len(scores), shape.groups, -1)
        best = wanted.topk(2, dim=-1).values.sum(-1).topk(shape.groups_taken, dim=-1).indices
        open_ = torch.zeros_like(wanted[..., 0], dtype=torch.bool).scatter_(1, best, True)
        taken = wanted.masked_fill(~open_[..., None], -torch.inf).flatten(1).topk(shape.taken, dim=-1).indices
        weights = scores.gather(1, taken)
        if shape.taken > 1:
            weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
        return taken, weights * shape.gain


class Experts(nn.Module):
    """A mixture of gated MLPs: each position runs through those that the gate takes, all through the shared one."""

    def __init__(self, config: LLaDA2Config) -> None:
        super().__init__()
        self.gate = Gate(config)
        self.experts = nn.ModuleList(
            [GatedMLP(config.width, config.expert_hidden) for _ in range(config.experts)]
        )
        self.shared_experts = (
            GatedMLP(config.width, config.expert_hidden * config.common) if config.common else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as x [B, R, D]."""
        flat = x.flatten(0, 1)
        taken, weights = self.gate(flat)
        order = taken.flatten().argsort(stable=True)
        sizes = torch.bincount(taken.flatten(), minlength=len(self.experts)).tolist()
        parts = torch.split(flat[order // taken.shape[1]], sizes)
        made = torch.cat([expert(part) for expert, part in zip(self.experts, parts) if len(part)])
        each = torch.empty_like(made).index_copy_(0, order, made).view(*taken.shape, -1)
        mixed = (each.to(weights.dtype) * weights[..., None]).sum(1).to(x.dtype).view(x.shape)
        return mixed if self.shared_experts is None else mixed + self.shared_experts(x)  # type: ignore[no-any-return]


class LLaDA2Attention(nn.Module):
    """The maps of an attention, with norms of queries and keys."""

    def __init__(self, config: LLaDA2Config) -> None:
        super().__init__()
        total = (config.heads + 2 * config.kv_heads) * config.head_width
        self.query_key_value = nn.Linear(config.width, total, bias=config.qkv_biases)
        self.dense = nn.Linear(config.heads * config.head_width, config.width, bias=config.biases)
        if config.normed:
            self.query_layernorm = RMSNorm(config.head_width, config.eps)
            self.key_layernorm = RMSNorm(config.head_width, config.eps)


class LLaDA2Block(nn.Module):
    """Pre-norm attention and one MLP or many; a `pieces.Layer`."""

    def __init__(self, config: LLaDA2Config, place: int) -> None:
        super().__init__()
        self.shape = config
        self.attention = LLaDA2Attention(config)
        self.mlp = GatedMLP(config.width, config.hidden) if place < config.dense else Experts(config)
        self.input_layernorm = RMSNorm(config.width, config.eps)
        self.post_attention_layernorm = RMSNorm(config.width, config.eps)

    def project(self, x: Tensor, angles: Tensor, told: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of rows."""
        del told
        shape, maps = self.shape, self.attention
        every = heads_of(maps.query_key_value(self.input_layernorm(x)), shape.heads + 2 * shape.kv_heads)
        q, k, v = torch.split(every, [shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
        if shape.normed:
            q, k = maps.query_layernorm(q), maps.key_layernorm(k)
        return turned(q, angles), turned(k, angles), v

    def finish(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, seen: bool | Tensor, told: Tensor | None
    ) -> Tensor:
        """The next x."""
        del told
        x = x + self.attention.dense(attended(q, k, v, seen))
        return x + self.mlp(self.post_attention_layernorm(x))  # type: ignore[no-any-return]


class LLaDA2(Published):
    """LLaDA2: ``network(tokens, rows=None) -> logits`` float [B, R, V].

    Blocks are counted from the first position. As nothing in a block sees the blocks after it, `caching.blocks` of this
    length gives the same numbers as no cache where blocks are filled from left to right.
    """

    def __init__(self, config: LLaDA2Config) -> None:
        super().__init__(config.length, config.mask_id, config.pad_id)
        self.shape = config
        self.model = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(config.vocab_size, config.width),
                "layers": nn.ModuleList([LLaDA2Block(config, i) for i in range(config.depth)]),
                "norm": RMSNorm(config.width, config.eps),
            }
        )
        self.lm_head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)

    def layers(self) -> Iterable[Any]:
        """The blocks."""
        return self.model["layers"]  # type: ignore[return-value]

    def frequencies(self) -> Tensor:
        """Radians per position of each pair of channels that is turned."""
        weight: Tensor = self.model["word_embeddings"].weight  # type: ignore[assignment]
        return powers(self.shape.theta, self.shape.turned, weight)

    def seen(self, tokens: Tensor, rows: Tensor | None) -> bool | Tensor:
        """All keys of the own block and of those before it, but pads."""
        place = torch.arange(tokens.shape[1], device=tokens.device)
        block = (place[None] if rows is None else rows) // self.shape.block_length
        near = (block[..., None] >= place // self.shape.block_length)[:, None]
        pads = super().seen(tokens, rows)
        return near if isinstance(pads, bool) else near & pads

    def embed(self, symbols: Tensor) -> Tensor:
        """The residual stream before the first layer."""
        return self.model["word_embeddings"](symbols)  # type: ignore[no-any-return]

    def read(self, x: Tensor, told: Tensor | None) -> Tensor:
        """Logits of the residual stream."""
        del told
        inner = self.model["norm"](x)
        if self.lm_head is None:
            return F.linear(inner, self.model["word_embeddings"].weight)  # type: ignore[arg-type]
        return self.lm_head(inner)  # type: ignore[no-any-return]
