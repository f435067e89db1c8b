"""LLaDA (arXiv 2502.09992): a Llama without a causal mask, as LLaDA-8B and LLaDA-1.5 are published.

Names of the weights are those of modeling_llada.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from unmask.networks.published.pieces import Published, RMSNorm, attended, heads_of, powers, turned
from unmask.networks.published.settings import count, flag, must, number, only, shared_heads, symbol


@dataclass(frozen=True)
class LLaDAConfig:
    """Shape of a `LLaDA`; ``biases`` are those of q, k and v, ``tied`` shares the embedding, ``scaled`` divides logits."""

    vocab_size: int
    length: int
    width: int
    depth: int
    heads: int
    kv_heads: int
    hidden: int
    mask_id: int
    theta: float = 10_000.0
    eps: float = 1e-5
    biases: bool = False
    tied: bool = False
    scaled: bool = False
    pad_id: int | None = None

    def __post_init__(self) -> None:
        shared_heads(self.width, self.heads, self.kv_heads)

    @classmethod
    def read(cls, config: Mapping[str, Any], pad_id: int | None = None) -> LLaDAConfig:
        """The shape that a published config.json describes; ValueError for variants that are not built here."""
        must(config, block_type="llama", activation_type="silu", layer_norm_type="rms", rope=True)
        only(config, alibi=False, attention_layer_norm=False, input_emb_norm=False, block_group_size=1)
        only(config, layer_norm_with_affine=True, include_bias=False)
        for name in ("bias_for_layer_norm", "multi_query_attention"):
            if flag(config, name, False):
                raise ValueError(f"{name!r} is true; only false is built here")
        width, heads = count(config, "d_model"), count(config, "n_heads")
        vocab_size = count(config, "embedding_size", count(config, "vocab_size"))
        return cls(
            vocab_size=vocab_size,
            length=count(config, "max_sequence_length"),
            width=width,
            depth=count(config, "n_layers"),
            heads=heads,
            kv_heads=count(config, "n_kv_heads", heads),
            hidden=count(config, "mlp_hidden_size", count(config, "mlp_ratio", 4) * width),
            mask_id=symbol(config, "mask_token_id", vocab_size),
            theta=number(config, "rope_theta", 10_000.0),
            eps=number(config, "rms_norm_eps", 1e-5),
            biases=flag(config, "include_qkv_bias", False),
            tied=flag(config, "weight_tying", True),
            scaled=flag(config, "scale_logits", False),
            pad_id=pad_id,
        )


class LLaDABlock(nn.Module):
    """Pre-norm attention and gated MLP; a `pieces.Layer`."""

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__()
        width, biases = config.width, config.biases
        shared = width // config.heads * config.kv_heads
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.attn_norm, self.ff_norm = RMSNorm(width, config.eps), RMSNorm(width, config.eps)
        self.q_proj = nn.Linear(width, width, bias=biases)
        self.k_proj, self.v_proj = (
            nn.Linear(width, shared, bias=biases),
            nn.Linear(width, shared, bias=biases),
        )
        self.attn_out = nn.Linear(width, width, bias=False)
        self.ff_proj = nn.Linear(width, config.hidden, bias=False)
        self.up_proj = nn.Linear(width, config.hidden, bias=False)
        self.ff_out = nn.Linear(config.hidden, width, bias=False)

    def project(self, x: Tensor, angles: Tensor, told: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of rows."""
        del told
        inner = self.attn_norm(x)
        q, k = heads_of(self.q_proj(inner), self.heads), heads_of(self.k_proj(inner), self.kv_heads)
        return turned(q, angles), turned(k, angles), heads_of(self.v_proj(inner), self.kv_heads)

    def finish(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, seen: bool | Tensor, told: Tensor | None
    ) -> Tensor:
        """The next x."""
        del told
        x = x + self.attn_out(attended(q, k, v, seen))
        inner = self.ff_norm(x)
        return x + self.ff_out(F.silu(self.ff_proj(inner)) * self.up_proj(inner))  # type: ignore[no-any-return]


class LLaDA(Published):
    """LLaDA: ``network(tokens, rows=None) -> logits`` float [B, R, V]; prompts are visible tokens."""

    def __init__(self, config: LLaDAConfig) -> None:
        super().__init__(config.length, config.mask_id, config.pad_id)
        self.shape = config
        parts: dict[str, nn.Module] = {
            "wte": nn.Embedding(config.vocab_size, config.width),
            "blocks": nn.ModuleList([LLaDABlock(config) for _ in range(config.depth)]),
            "ln_f": RMSNorm(config.width, config.eps),
        }
        if not config.tied:
            parts["ff_out"] = nn.Linear(config.width, config.vocab_size, bias=False)
        self.model = nn.ModuleDict({"transformer": nn.ModuleDict(parts)})

    @property
    def transformer(self) -> nn.ModuleDict:
        """The parts by their published names."""
        return self.model["transformer"]  # type: ignore[return-value]

    def layers(self) -> Iterable[Any]:
        """The blocks."""
        return self.transformer["blocks"]  # type: ignore[return-value]

    def frequencies(self) -> Tensor:
        """Radians per position of each pair of channels."""
        return powers(
            self.shape.theta,
            self.shape.width // self.shape.heads,
            self.transformer["wte"].weight,  # type: ignore[arg-type]
        )

    def embed(self, symbols: Tensor) -> Tensor:
        """The residual stream before the first layer."""
        return self.transformer["wte"](symbols)  # type: ignore[no-any-return]

    def read(self, x: Tensor, told: Tensor | None) -> Tensor:
        """Logits of the residual stream."""
        del told
        inner = self.transformer["ln_f"](x)
        if self.shape.tied:
            logits = F.linear(inner, self.transformer["wte"].weight)  # type: ignore[arg-type]
        else:
            logits = self.transformer["ff_out"](inner)
        return logits / math.sqrt(self.shape.width) if self.shape.scaled else logits
