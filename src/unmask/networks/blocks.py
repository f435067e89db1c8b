"""What does one layer of the transformer do? Attention and a gated MLP on a residual stream.

Shape legend as in `transformer`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.networks.conditioning import CONDITION
from unmask.networks.config import TransformerConfig
from unmask.networks.positions import AxisEmbedding, at_rows, rotate


class Block(nn.Module):
    """Pre-norm attention and gated MLP on a residual stream x [B, R, D].

    Where there is a condition, adaLN (DiT, arXiv 2212.09748) changes both: ``change`` is shift, scale and gate
    of each, six tensors [B, 1, D] that start at zero, at which the block is as without.
    """

    def __init__(self, config: TransformerConfig, axes: Tensor) -> None:
        super().__init__()
        width, hidden = config.width, config.hidden or 32 * math.ceil(config.width * 8 / 3 / 32)
        self.heads, self.dropout = config.heads, config.dropout
        self.norm_attention = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_mlp = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        for layer in (self.out, self.down):
            nn.init.normal_(layer.weight, std=0.02 / math.sqrt(config.depth * config.loops))
        self.q_positions = self.k_positions = None
        if not config.rotary:
            # q and k start equal: positions that share a coordinate attend to each other from the start
            self.q_positions = AxisEmbedding(axes, width, std=(config.width // config.heads) ** -0.25)
            self.k_positions = AxisEmbedding(axes, width, std=0.0)
            self.k_positions.weight.data.copy_(self.q_positions.weight.data)
        self.change = None
        if config.timed or config.classes:
            self.change = nn.Linear(CONDITION, 6 * width)
            nn.init.zeros_(self.change.weight)
            nn.init.zeros_(self.change.bias)

    def forward(
        self,
        x: Tensor,
        angles: Tensor | None = None,
        rows: Tensor | None = None,
        condition: Tensor | None = None,
        past: bool | Tensor = False,
        cache: list[tuple[Tensor, Tensor]] | None = None,
        layer: int = 0,
        places: Tensor | None = None,
    ) -> Tensor:
        """The stream x [B, R, D] after the block; ``layer`` is its place in the cache, as `remember` takes it.

        ``places`` stand for rows where positions are embedded. All weights are read in here: what shards modules, or makes
        their activations anew, needs nothing else.
        """
        change = self.changes(condition)
        q, k, v = self.project(x, angles, rows if places is None else places, change)
        k, v = remember(k, v, rows, cache, layer)
        return self.finish(x, q, k, v, change, past)

    def changes(self, condition: Tensor | None) -> tuple[Tensor, ...] | None:
        """Shift, scale and gate of the attention and of the MLP, each [B, 1, D], for a condition [B, 64]."""
        if self.change is None or condition is None:
            return None
        return tuple(self.change(condition)[:, None].chunk(6, dim=-1))

    def project(
        self,
        x: Tensor,
        angles: Tensor | None,
        rows: Tensor | None,
        change: tuple[Tensor, ...] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of rows, each [B, H, R, D/H]."""
        q, k, v = self.qkv(_moved(self.norm_attention(x), change, 0)).chunk(3, dim=-1)
        if self.q_positions is not None and self.k_positions is not None:
            q = q + at_rows(self.q_positions(), rows, x.shape[1])
            k = k + at_rows(self.k_positions(), rows, x.shape[1])
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        return q, k, v

    def finish(
        self,
        x: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        change: tuple[Tensor, ...] | None = None,
        past: bool | Tensor = False,
    ) -> Tensor:
        """Attention of q over k and v, then the MLP, both added to x [B, R, D]."""
        p = self.dropout if self.training else 0.0
        seen = self.out(attend(q, k, v, past, p).transpose(1, 2).flatten(2))
        x = x + _gated(dropped(seen, p), change, 2)
        gate, up = self.up(_moved(self.norm_mlp(x), change, 3)).chunk(2, dim=-1)
        return x + _gated(dropped(self.down(F.silu(gate) * up), p), change, 5)


def _moved(x: Tensor, change: tuple[Tensor, ...] | None, first: int) -> Tensor:
    """x with the shift and scale that stand at ``first`` and after it."""
    return x if change is None else x * (1 + change[first + 1]) + change[first]


def _gated(x: Tensor, change: tuple[Tensor, ...] | None, place: int) -> Tensor:
    """x times one plus the gate that stands at ``place``."""
    return x if change is None else x * (1 + change[place])


def dropped(x: Tensor, probability: float) -> Tensor:
    """x [B, R, D] with channels left out at random, the same at all positions of a sequence (MD4, arXiv 2406.04329)."""
    return x * F.dropout(torch.ones_like(x[:, :1]), probability) if probability else x


def attend(q: Tensor, k: Tensor, v: Tensor, past: bool | Tensor = False, dropout: float = 0.0) -> Tensor:
    """Softmax attention; float32 on CPU under autocast, where bfloat16 is far slower.

    ``past``: True for causal attention, False for all keys, or bool [B, 1, R, L], the keys that each row sees.
    ``dropout``: the chance that a weight is left out.
    """
    mask, causal = (None, past) if isinstance(past, bool) else (past, False)
    if q.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal)
    with torch.autocast("cpu", enabled=False):
        parts = (q.float(), k.float(), v.float())
        attended = F.scaled_dot_product_attention(*parts, mask, dropout, is_causal=causal)
        return attended.to(v.dtype)


def remember(
    k: Tensor, v: Tensor, rows: Tensor | None, cache: list[tuple[Tensor, Tensor]] | None, layer: int
) -> tuple[Tensor, Tensor]:
    """Stores fresh keys and values [B, H, R, D/H] of rows in the cache, if any, and returns those to attend to."""
    if cache is None:
        return k, v
    if rows is None:
        cache.append((k.contiguous(), v.contiguous()))
        return k, v
    index = rows[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[3])
    kept_k, kept_v = cache[layer]
    kept_k.scatter_(2, index, k)
    kept_v.scatter_(2, index, v)
    return kept_k, kept_v
