"""MaskGIT of image tokens in the Halton release (arXiv 2503.17076): adaLN told the class, register tokens, tied head.

Names of the weights are those of Network/transformer.py. The image behind the tokens is `vq.Pixels`'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.networks.blocks import remember
from unmask.networks.config import check_length
from unmask.networks.published.pieces import at, attended, heads_of

KeysAndValues = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class MaskGITConfig:
    """Shape of a `MaskGIT`: ``side`` x ``side`` tokens out of ``codes``, ``classes`` labels, ``registers`` extra tokens.

    With ``patches`` the transformer has one place for each 2 x 2 tokens.
    """

    codes: int
    side: int
    width: int
    depth: int
    heads: int
    hidden: int
    classes: int = 1000
    registers: int = 1
    patches: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} over {self.heads} heads: expected a divisor")
        if self.patches and self.side % 2:
            raise ValueError(f"patches of 2 x 2 out of side {self.side}: expected an even one")


class Scale(nn.Module):
    """x over its root mean square along the last axis, times a weight and plus a bias, as far as there are such."""

    def __init__(self, width: int, *, weight: bool = True, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width)) if weight else None
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x, of x's dtype."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        y = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)).to(x.dtype)
        y = y if self.weight is None else self.weight * y
        return y if self.bias is None else y + self.bias


class MaskGITAttention(nn.Module):
    """The maps of an attention; queries and keys are normalised over all heads, without weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.norm = Scale(width, weight=False)


class MaskGITFeed(nn.Module):
    """w2(silu(w1 x) * w3 x)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as x."""
        y: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return y


class MaskGITBlock(nn.Module):
    """Attention and a gated MLP, moved, scaled and gated by the class."""

    def __init__(self, config: MaskGITConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(config.width, 6 * config.width))
        self.ln1, self.ln2 = Scale(config.width), Scale(config.width)
        self.attn, self.ff = MaskGITAttention(config.width), MaskGITFeed(config.width, config.hidden)

    def project(self, x: Tensor, told: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [B, H, R, D/H]."""
        shift, scale = self.mlp(told)[:, None].chunk(6, dim=-1)[:2]
        inner, maps = self.ln1(x) * (1 + scale) + shift, self.attn
        parts = maps.norm(maps.wq(inner)), maps.norm(maps.wk(inner)), maps.wv(inner)
        q, k, v = (heads_of(part, self.heads) for part in parts)
        return q, k, v

    def finish(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, told: Tensor) -> Tensor:
        """The next x."""
        _, _, gate, shift, scale, gate_mlp = self.mlp(told)[:, None].chunk(6, dim=-1)
        x = x + gate * self.attn.wo(attended(q, k, v, False))
        return x + gate_mlp * self.ff(self.ln2(x) * (1 + scale) + shift)  # type: ignore[no-any-return]


class LastNorm(nn.Module):
    """A norm that the class moves and scales."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm_final = Scale(width, bias=True)
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """The normalised x."""
        shift, scale = self.mlp(told)[:, None].chunk(2, dim=-1)
        return self.norm_final(x) * (1 + scale) + shift  # type: ignore[no-any-return]


class MaskGIT(nn.Module):
    """``network(tokens, rows=None) -> logits`` float [B, R, codes + 1]; tokens int64 [B, side^2] row-major, codes = masked.

    ``label`` int64 [B] is the class; ``classes`` itself, the default, means none. `networks.Labelled` gives all sequences
    one class, and `denoisers.guided` of it and of the bare network is the guidance of the release.
    """

    timed = False

    def __init__(self, config: MaskGITConfig) -> None:
        super().__init__()
        self.shape, self.mask_id = config, config.codes
        self.cls_emb = nn.Embedding(config.classes + 1, config.width)
        self.tok_emb = nn.Embedding(config.codes + 1, config.width)
        self.pos_emb = nn.Embedding(config.side**2, config.width)
        self.transformer = nn.ModuleDict(
            {"layers": nn.ModuleList([MaskGITBlock(config) for _ in range(config.depth)])}
        )
        self.last_norm = LastNorm(config.width)
        self.head = nn.Linear(config.width, config.codes + 1)
        self.head.weight = self.tok_emb.weight
        self.reg_tokens = nn.Embedding(config.registers, config.width) if config.registers else None
        if config.patches:
            self.in_proj = nn.Conv2d(config.width, config.width, 2, stride=2, bias=False)
            self.out_proj = nn.Conv2d(config.width, 4 * config.width, 1, bias=False)

    def forward(
        self,
        tokens: Tensor,
        rows: Tensor | None = None,
        *,
        time: Tensor | None = None,
        label: Tensor | None = None,
    ) -> Tensor:
        """Logits at rows int64 [B, R] (None: all positions); the time is not read."""
        del time
        return self._logits(tokens, rows, None, label)

    def full(
        self,
        tokens: Tensor,
        rows: Tensor | None = None,
        *,
        time: Tensor | None = None,
        label: Tensor | None = None,
    ) -> tuple[Tensor, KeysAndValues]:
        """Logits at rows, and every layer's keys and values, those of the registers last."""
        del time
        cache: KeysAndValues = []
        return self._logits(tokens, rows, cache, label), cache

    def partial(
        self,
        tokens: Tensor,
        rows: Tensor,
        cache: KeysAndValues,
        *,
        time: Tensor | None = None,
        label: Tensor | None = None,
    ) -> Tensor:
        """Logits at rows, running only those, or the patches that they are in; registers stay as they were."""
        del time
        told = self._told(tokens, label)
        if self.shape.patches:
            places, corners = self._places(rows)
            x = self._run(at(self._embed(tokens), places), places, cache, told)
            return self._read(self._corner(x, corners), told)
        x = self.tok_emb(tokens.gather(1, rows)) + self.pos_emb(rows)
        return self._read(self._run(x, rows, cache, told), told)

    def _logits(
        self, tokens: Tensor, rows: Tensor | None, cache: KeysAndValues | None, label: Tensor | None
    ) -> Tensor:
        """Logits at rows of a pass over all positions and registers."""
        check_length(tokens, self.shape.side**2)
        told = self._told(tokens, label)
        x = self._embed(tokens)
        count = x.shape[1]
        if self.reg_tokens is not None:
            x = torch.cat([x, self.reg_tokens.weight.expand(len(x), -1, -1)], dim=1)
        x = self._run(x, None, cache, told)[:, :count]
        if self.shape.patches:
            every = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
            places, corners = self._places(every if rows is None else rows)
            return self._read(self._corner(at(x, places), corners), told)
        return self._read(x if rows is None else at(x, rows), told)

    def _embed(self, tokens: Tensor) -> Tensor:
        """The residual stream [B, P, D] of all tokens, or of all patches of them."""
        x: Tensor = self.tok_emb(tokens) + self.pos_emb.weight
        if not self.shape.patches:
            return x
        grid = x.transpose(1, 2).reshape(len(x), -1, self.shape.side, self.shape.side)
        return self.in_proj(grid).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]

    def _places(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The patch of each row, and where in it the row lies: 0 to 3, row-major."""
        side = self.shape.side
        down, right = rows // side, rows % side
        return down // 2 * (side // 2) + right // 2, down % 2 * 2 + right % 2

    def _corner(self, x: Tensor, corners: Tensor) -> Tensor:
        """One corner [B, R, D] of each patch [B, R, D]."""
        four = F.linear(x, self.out_proj.weight.flatten(1)).reshape(*x.shape, 4)
        return four.gather(-1, corners[..., None, None].expand(*x.shape, 1))[..., 0]

    def _run(self, x: Tensor, rows: Tensor | None, cache: KeysAndValues | None, told: Tensor) -> Tensor:
        layers: Any = self.transformer["layers"]
        for i, block in enumerate(layers):
            q, k, v = block.project(x, told)
            k, v = remember(k, v, rows, cache, i)
            x = block.finish(x, q, k, v, told)
        return x

    def _read(self, x: Tensor, told: Tensor) -> Tensor:
        logits: Tensor = self.head(self.last_norm(x, told))
        return logits

    def _told(self, tokens: Tensor, label: Tensor | None) -> Tensor:
        """The vector [B, D] of the class."""
        none = torch.full((len(tokens),), self.shape.classes, device=tokens.device)
        vector: Tensor = self.cls_emb(none if label is None else label)
        return vector
