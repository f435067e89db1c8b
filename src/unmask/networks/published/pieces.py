"""What do the published architectures share? The way through the layers, with rows, caches and pads; norms and positions.

Shapes as in `transformer`: B batch, L length, R rows evaluated, D width, H heads, V symbols.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.networks.blocks import attend, remember
from unmask.networks.config import check_length
from unmask.networks.positions import rotate


class Layer(Protocol):
    """One layer of a published network on a residual stream x [B, R, D]; ``told`` is what it knows besides, or None."""

    def project(self, x: Tensor, angles: Tensor, told: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, H, R, d], keys and values [B, K, R, d] of rows; K heads, a divisor of H."""
        ...

    def finish(
        self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, seen: bool | Tensor, told: Tensor | None
    ) -> Tensor:
        """The next x, from attention of q over k and v."""
        ...


class Published(nn.Module):
    """A published architecture under the contract of networks here: ``network(tokens, rows=None) -> logits`` [B, R, V].

    A sequence may be shorter than ``length``. With ``pad_id`` positions that hold this symbol are seen by nobody, and the
    symbol is never drawn: sequences of several lengths share a batch, and each has the logits that it has alone.
    """

    timed = False

    def __init__(self, length: int, mask_id: int, pad_id: int | None = None) -> None:
        super().__init__()
        self.length, self.mask_id, self.pad_id = length, mask_id, pad_id

    def layers(self) -> Iterable[Any]:
        """The layers, each a `Layer`."""
        raise NotImplementedError

    def embed(self, symbols: Tensor) -> Tensor:
        """The residual stream [B, R, D] of symbols int64 [B, R] before the first layer."""
        raise NotImplementedError

    def read(self, x: Tensor, told: Tensor | None) -> Tensor:
        """Logits [B, R, V] of the residual stream [B, R, D] after the last layer."""
        raise NotImplementedError

    def frequencies(self) -> Tensor:
        """Radians per position of each pair of channels that positions turn, [P]."""
        raise NotImplementedError

    def told(self, tokens: Tensor, time: Tensor | None) -> Tensor | None:
        """What layers know besides the tokens, by default nothing."""
        del tokens, time
        return None

    def source(self, tokens: Tensor, rows: Tensor | None) -> Tensor | None:
        """The positions whose state gives the logits at rows: the same."""
        del tokens
        return rows

    def seen(self, tokens: Tensor, rows: Tensor | None) -> bool | Tensor:
        """What `attend` lets rows see: all keys but pads."""
        del rows
        return False if self.pad_id is None else (tokens != self.pad_id)[:, None, None]

    def forward(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        """Logits float [B, R, V] at rows int64 [B, R] (None: all positions)."""
        told = self.told(tokens, time)
        return self.logits(self._run(tokens, None, None, told), self.source(tokens, rows), told)

    def full(
        self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Logits at rows, and every layer's keys and values [B, K, L, d] for `partial`."""
        cache: list[tuple[Tensor, Tensor]] = []
        told = self.told(tokens, time)
        return self.logits(self._run(tokens, None, cache, told), self.source(tokens, rows), told), cache

    def partial(
        self,
        tokens: Tensor,
        rows: Tensor,
        cache: list[tuple[Tensor, Tensor]],
        *,
        time: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, R, V] at rows, running only those against cached keys and values, updated in place."""
        told = self.told(tokens, time)
        return self.logits(self._run(tokens, rows, cache, told), None, told)

    def logits(self, x: Tensor, places: Tensor | None, told: Tensor | None) -> Tensor:
        """The output head at places of the residual stream x [B, R, D]; the pad is impossible."""
        logits = self.read(x if places is None else at(x, places), told)
        if self.pad_id is None:
            return logits
        return logits.index_fill(-1, torch.tensor(self.pad_id, device=logits.device), -torch.inf)

    def _run(
        self,
        tokens: Tensor,
        rows: Tensor | None,
        cache: list[tuple[Tensor, Tensor]] | None,
        told: Tensor | None,
    ) -> Tensor:
        """The residual stream [B, R, D] of rows after the last layer."""
        check_length(tokens, self.length, cut=True)
        x = self.embed(tokens if rows is None else tokens.gather(1, rows))
        place = torch.arange(tokens.shape[1], device=tokens.device)[None] if rows is None else rows
        angles, seen = place[:, None, :, None] * self.frequencies(), self.seen(tokens, rows)
        for i, layer in enumerate(self.layers()):
            q, k, v = layer.project(x, angles, told)
            k, v = remember(k, v, rows, cache, i)
            x = layer.finish(x, q, k, v, seen, told)
        return x


class RMSNorm(nn.Module):
    """x over its root mean square along the last axis, in float32 at least, times a weight (arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """The normalised x, of x's dtype."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class GatedMLP(nn.Module):
    """down(silu(gate x) * up x), by the names that most published weights use."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as x [.., D]."""
        y: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return y


def powers(theta: float, channels: int, like: Tensor) -> Tensor:
    """Radians per position theta^(-2 i / channels) of ``channels`` / 2 pairs, in float32 at least, where ``like`` is."""
    kind = torch.promote_types(like.dtype, torch.float32)
    pairs = torch.arange(0, channels, 2, device=like.device).to(kind)
    return 1.0 / theta ** (pairs / channels)


def heads_of(x: Tensor, heads: int) -> Tensor:
    """x [B, R, heads d] as [B, heads, R, d]."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(1, 2)


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """The first channels of x [B, H, R, d] turned by angles [B or 1, 1, R, P], in the angles' precision; 2 P <= d."""
    count = 2 * angles.shape[-1]
    inner = rotate(x[..., :count].to(angles.dtype), angles).to(x.dtype)
    return inner if count == x.shape[-1] else torch.cat([inner, x[..., count:]], dim=-1)


def attended(q: Tensor, k: Tensor, v: Tensor, seen: bool | Tensor) -> Tensor:
    """Softmax attention [B, R, H d] of q [B, H, R, d] over k and v [B, K, L, d], each shared by H/K heads."""
    share = q.shape[1] // k.shape[1]
    if share > 1:
        k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
    return attend(q, k, v, seen).transpose(1, 2).flatten(2)


def at(x: Tensor, rows: Tensor) -> Tensor:
    """Entries [B, R, D] of x [B, L, D] at rows int64 [B, R]."""
    return x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))
