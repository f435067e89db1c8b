"""A bidirectional transformer in plain PyTorch: tokens in, logits at the rows that are asked for out.

It takes no time: the best denoiser of uniformly masked data depends on the visible tokens only (MD4, arXiv
2406.04329). Shape legend: B batch, L length, R rows evaluated, D width, H heads, V data symbols.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of a `Transformer`; every field is stored with its weights."""

    vocab_size: int
    length: int
    width: int
    depth: int
    heads: int
    loops: int = 1
    hidden: int | None = None
    rotary: bool = False
    axes: tuple[tuple[int, ...], ...] | None = None

    def __post_init__(self) -> None:
        for name in ("vocab_size", "length", "width", "depth", "heads", "loops", "hidden"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 1) and (name, value) != ("hidden", None):
                raise ValueError(f"{name} {value!r}: expected a whole number of at least 1")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"width {self.width} over {self.heads} heads: expected an even number of channels per head"
            )
        count = 1 if self.axes is None else len(self.axes)
        if count < 1 or (self.rotary and count > self.width // self.heads // 2):
            raise ValueError(
                f"{count} position axes: expected 1 or more; with rotary, a channel pair for each"
            )
        for axis in self.axes or ():
            if len(axis) != self.length or not all(isinstance(i, int) and i >= 0 for i in axis):
                raise ValueError(f"a position axis is {axis}: expected {self.length} whole numbers >= 0")


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotary positions: channel pairs of x [B, H, R, D/H] turned by angles [B or 1, 1, R, D/2H].

    RoFormer, arXiv 2104.09864.
    """
    even, odd = x.chunk(2, dim=-1)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat([even * cos - odd * sin, even * sin + odd * cos], dim=-1)


class AxisEmbedding(nn.Module):
    """A learned vector per position: the sum over position axes of a vector per coordinate, [L, D]."""

    def __init__(self, axes: Tensor, width: int, std: float) -> None:
        super().__init__()
        self.axes = axes
        sizes = [int(axis.max()) + 1 for axis in axes]
        self.offsets = [sum(sizes[:i]) for i in range(len(sizes))]
        self.weight = nn.Parameter(torch.randn(sum(sizes), width) * std)

    def forward(self) -> Tensor:
        """The vectors of all positions, [L, D]."""
        terms = (self.weight[axis + o] for axis, o in zip(self.axes, self.offsets))
        vectors: Tensor = sum(terms, torch.zeros(()))
        return vectors


class Block(nn.Module):
    """Pre-norm attention and gated MLP on a residual stream x [B, R, D]."""

    def __init__(self, config: TransformerConfig, axes: Tensor) -> None:
        super().__init__()
        width, hidden = config.width, config.hidden or 32 * math.ceil(config.width * 8 / 3 / 32)
        self.heads = config.heads
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

    def project(self, x: Tensor, angles: Tensor | None, rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of rows, each [B, H, R, D/H]."""
        q, k, v = self.qkv(self.norm_attention(x)).chunk(3, dim=-1)
        if self.q_positions is not None and self.k_positions is not None:
            q = q + _at(self.q_positions(), rows)
            k = k + _at(self.k_positions(), rows)
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        return q, k, v

    def finish(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of q over k and v, then the MLP, both added to x [B, R, D]."""
        x = x + self.out(attend(q, k, v).transpose(1, 2).flatten(2))
        gate, up = self.up(self.norm_mlp(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)  # type: ignore[no-any-return]


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention without a mask; float32 on CPU under autocast, where bfloat16 is far slower."""
    if q.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return F.scaled_dot_product_attention(q, k, v)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(v.dtype)


def _at(table: Tensor, rows: Tensor | None) -> Tensor:
    """Entries of a per-position table [L, D] at rows [B, R]; the whole table when rows is None."""
    return table if rows is None else table[rows]


class Transformer(nn.Module):
    """Bidirectional transformer: ``network(tokens, rows=None) -> logits`` float [B, R, V].

    ``loops`` runs the same ``depth`` blocks several times (weights shared, the input added again each
    time), which buys depth without parameters. ``axes`` gives each position several coordinates (row,
    column, box), embedded separately (default: the position index); with ``rotary`` they turn queries and
    keys instead. ``mask_id`` is ``vocab_size``. ValueError on sizes that do not fit together.
    """

    def __init__(
        self,
        vocab_size: int,
        length: int,
        width: int,
        depth: int,
        heads: int,
        *,
        loops: int = 1,
        hidden: int | None = None,
        rotary: bool = False,
        axes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        kept = None if axes is None else tuple(tuple(int(i) for i in axis) for axis in axes)
        self.shape = TransformerConfig(vocab_size, length, width, depth, heads, loops, hidden, rotary, kept)
        coordinates = torch.tensor(kept) if kept is not None else torch.arange(length)[None]
        self.coordinates: Tensor
        self.register_buffer("coordinates", coordinates, persistent=False)
        self.embedding = nn.Embedding(vocab_size + 1, width)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.positions = None if rotary else AxisEmbedding(coordinates, width, std=0.5)
        self.blocks = nn.ModuleList([Block(self.shape, coordinates) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, vocab_size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments that build this network again."""
        return asdict(self.shape)

    def forward(self, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        """Logits float [B, R, V] at rows int64 [B, R] (None: all positions)."""
        return self.logits(self._run(tokens, None, None), rows)

    def full(self, tokens: Tensor, rows: Tensor | None = None) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Logits at rows, and every layer's keys and values [B, H, L, D/H] for `partial`."""
        cache: list[tuple[Tensor, Tensor]] = []
        return self.logits(self._run(tokens, None, cache), rows), cache

    def partial(self, tokens: Tensor, rows: Tensor, cache: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Logits [B, R, V] at rows, running only those against cached keys and values, updated in place.

        Exact for one layer; deeper, rows that are not run stay as they were (partial caching, arXiv
        2510.04525).
        """
        return self.logits(self._run(tokens, rows, cache), None)

    def readouts(self, tokens: Tensor) -> list[Tensor]:
        """Logits [B, L, V] after every loop, the last as `forward` gives them (for deep supervision)."""
        return [self.head(self.norm(x)) for x in self._loops(tokens, None, None)]

    def logits(self, x: Tensor, rows: Tensor | None) -> Tensor:
        """The output head at rows of the residual stream x [B, L, D]."""
        if rows is not None:
            x = x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))
        logits: Tensor = self.head(self.norm(x))
        return logits

    def _run(self, tokens: Tensor, rows: Tensor | None, cache: list[tuple[Tensor, Tensor]] | None) -> Tensor:
        return self._loops(tokens, rows, cache)[-1]

    def _loops(
        self, tokens: Tensor, rows: Tensor | None, cache: list[tuple[Tensor, Tensor]] | None
    ) -> list[Tensor]:
        inputs = self.embedding(tokens if rows is None else tokens.gather(1, rows))
        if self.positions is not None:
            inputs = inputs + _at(self.positions(), rows)
        angles = self._angles(rows) if self.shape.rotary else None
        x, states = torch.zeros_like(inputs), []
        for loop in range(self.shape.loops):
            x = x + inputs
            for i, block in enumerate(self.blocks):
                q, k, v = block.project(x, angles, rows)  # type: ignore[operator]
                k, v = self._remember(k, v, rows, cache, loop * self.shape.depth + i)
                x = block.finish(x, q, k, v)  # type: ignore[operator]
            states.append(x)
        return states

    def _angles(self, rows: Tensor | None) -> Tensor:
        """Rotary angles [B or 1, 1, R, D/2H], channel pairs shared out evenly over the axes."""
        half = self.shape.width // self.shape.heads // 2
        pair = torch.arange(half, device=self.coordinates.device)
        axes = len(self.coordinates)
        frequency = 10_000.0 ** (-(pair // axes) * axes / half)
        angles = self.coordinates.T[:, pair % axes] * frequency
        return angles[None, None] if rows is None else angles[rows][:, None]

    @staticmethod
    def _remember(
        k: Tensor, v: Tensor, rows: Tensor | None, cache: list[tuple[Tensor, Tensor]] | None, layer: int
    ) -> tuple[Tensor, Tensor]:
        """Stores fresh keys and values in the cache and returns those to attend to."""
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
