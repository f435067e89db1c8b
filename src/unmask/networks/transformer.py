"""A bidirectional transformer in plain PyTorch: tokens in, logits at the rows that are asked for out.

It takes no time unless asked to: the best denoiser of uniformly masked data depends on the visible tokens only
(MD4, arXiv 2406.04329). Shape legend: B batch, L length, R rows evaluated, D width, H heads, V data symbols.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.base.numbers import whole


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of a `Transformer`; every field is stored with its weights.

    ``timed`` and ``classes`` > 0 let the network read a time and a label, ``causal`` makes it autoregressive, ``ends``
    lets it see where a sequence of given length ends.
    """

    vocab_size: int
    length: int
    width: int
    depth: int
    heads: int
    loops: int = 1
    hidden: int | None = None
    rotary: bool = False
    axes: tuple[tuple[int, ...], ...] | None = None
    timed: bool = False
    classes: int = 0
    causal: bool = False
    ends: bool = False

    def __post_init__(self) -> None:
        for name in ("vocab_size", "length", "width", "depth", "heads", "loops", "hidden"):
            if (name, getattr(self, name)) != ("hidden", None):
                object.__setattr__(self, name, whole(getattr(self, name), name, 1))
        object.__setattr__(self, "classes", whole(self.classes, "classes", 0))
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"width {self.width} over {self.heads} heads: expected an even number of channels per head"
            )
        if self.ends and self.causal:
            raise ValueError("ends with causal: expected one of the two")
        count = 1 if self.axes is None else len(self.axes)
        if count < 1 or (self.rotary and count > self.width // self.heads // 2):
            raise ValueError(
                f"{count} position axes: expected 1 or more; with rotary, a channel pair for each"
            )
        for axis in self.axes or ():
            if len(axis) != self.length or not all(isinstance(i, int) and i >= 0 for i in axis):
                raise ValueError(f"a position axis is {axis}: expected {self.length} whole numbers >= 0")


def check_length(tokens: Tensor, length: int, cut: bool = False) -> None:
    """ValueError unless tokens are [B, length], or shorter where a network may be given rows that are ``cut``."""
    if tokens.ndim != 2 or tokens.shape[1] > length or (tokens.shape[1] < length and not cut):
        most = " at most" if cut else ""
        raise ValueError(
            f"tokens of shape {list(tokens.shape)}; expected [batch, {length}]{most}, the length of the network"
        )


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


CONDITION = 64
"""Channels of the vector that carries time and label."""


class Condition(nn.Module):
    """What blocks are told beside the tokens, [B, width]: an MLP of a sinusoid of 1000 t, plus a vector per label.

    The form of MD4's code (arXiv 2406.04329). Label ``classes`` stands for none. The MLP reads ``waves`` channels.
    """

    def __init__(
        self,
        timed: bool,
        classes: int,
        *,
        waves: int = CONDITION,
        hidden: int = 4 * CONDITION,
        width: int = CONDITION,
    ) -> None:
        super().__init__()
        self.waves = waves
        self.time = (
            nn.Sequential(nn.Linear(waves, hidden), nn.SiLU(), nn.Linear(hidden, width)) if timed else None
        )
        self.labels = nn.Embedding(classes + 1, width) if classes else None

    def forward(self, time: Tensor, label: Tensor | None) -> Tensor:
        """The vector of each batch row from time float [B] and label int64 [B] (None: no label)."""
        parts = []
        if self.time is not None:
            parts.append(self.time(sinusoid(1000 * time, self.waves).to(next(self.time.parameters()).dtype)))
        if self.labels is not None:
            none = torch.full(time.shape, self.labels.num_embeddings - 1, device=time.device)
            parts.append(self.labels(none if label is None else label))
        return F.silu(torch.stack(parts).sum(0))


def sinusoid(x: Tensor, width: int) -> Tensor:
    """Sines and cosines of x [B] at wavelengths from 2 pi to 20000 pi, [B, width]."""
    scale = torch.arange(width // 2, device=x.device, dtype=torch.float64) / (width // 2 - 1)
    angles = x.double()[:, None] * 10_000.0**-scale
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Block(nn.Module):
    """Pre-norm attention and gated MLP on a residual stream x [B, R, D].

    Where there is a condition, adaLN (DiT, arXiv 2212.09748) changes both: ``change`` is shift, scale and gate
    of each, six tensors [B, 1, D] that start at zero, at which the block is as without.
    """

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
        self.change = None
        if config.timed or config.classes:
            self.change = nn.Linear(CONDITION, 6 * width)
            nn.init.zeros_(self.change.weight)
            nn.init.zeros_(self.change.bias)

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
            q = q + _at(self.q_positions(), rows, x.shape[1])
            k = k + _at(self.k_positions(), rows, x.shape[1])
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
        x = x + _gated(self.out(attend(q, k, v, past).transpose(1, 2).flatten(2)), change, 2)
        gate, up = self.up(_moved(self.norm_mlp(x), change, 3)).chunk(2, dim=-1)
        return x + _gated(self.down(F.silu(gate) * up), change, 5)


def _moved(x: Tensor, change: tuple[Tensor, ...] | None, first: int) -> Tensor:
    """x with the shift and scale that stand at ``first`` and after it."""
    return x if change is None else x * (1 + change[first + 1]) + change[first]


def _gated(x: Tensor, change: tuple[Tensor, ...] | None, place: int) -> Tensor:
    """x times one plus the gate that stands at ``place``."""
    return x if change is None else x * (1 + change[place])


def attend(q: Tensor, k: Tensor, v: Tensor, past: bool | Tensor = False) -> Tensor:
    """Softmax attention; float32 on CPU under autocast, where bfloat16 is far slower.

    ``past``: True for causal attention, False for all keys, or bool [B, 1, R, L], the keys that each row sees.
    """
    mask, causal = (None, past) if isinstance(past, bool) else (past, False)
    if q.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
    with torch.autocast("cpu", enabled=False):
        attended = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), mask, is_causal=causal)
        return attended.to(v.dtype)


def _at(table: Tensor, rows: Tensor | None, count: int) -> Tensor:
    """Entries of a per-position table [L, D] at rows [B, R]; the first ``count`` when rows is None."""
    return table[:count] if rows is None else table[rows]


class Transformer(nn.Module):
    """Transformer: ``network(tokens, rows=None) -> logits`` float [B, R, V], bidirectional unless ``causal``.

    ``loops`` runs the same ``depth`` blocks several times (weights shared, the input added again each
    time), which buys depth without parameters. ``axes`` gives each position several coordinates (row,
    column, box), embedded separately (default: the position index); with ``rotary`` they turn queries and
    keys instead. ``mask_id`` is ``vocab_size``. ValueError on sizes that do not fit together.

    ``timed`` reads the keyword ``time`` float [B] (default: the share of masked positions, the time of the
    linear schedule); networks without it ignore the keyword. ``classes`` reads ``label`` int64 [B], where
    ``classes`` itself, the default, means none. ``causal`` is the autoregressive network: logits at i depend
    on the tokens before i only, the mask stands for the beginning, and one call gives all factors of the
    chain rule.

    With ``ends`` the last symbol marks the end of a sequence whose length is given: it is never drawn, and what
    comes after the first one is not seen, so tokens may as well be cut there, which gives the same logits.
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
        timed: bool = False,
        classes: int = 0,
        causal: bool = False,
        ends: bool = False,
    ) -> None:
        super().__init__()
        kept = (
            None
            if axes is None
            else tuple(tuple(whole(i, "a place on an axis") for i in axis) for axis in axes)
        )
        self.shape = TransformerConfig(
            vocab_size, length, width, depth, heads, loops, hidden, rotary, kept, timed, classes, causal, ends
        )
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
        self.condition = Condition(timed, classes) if timed or classes else None

    @property
    def config(self) -> dict[str, Any]:
        """Keyword arguments that build this network again."""
        return asdict(self.shape)

    @property
    def mask_id(self) -> int:
        """Symbol id of the mask."""
        return self.shape.vocab_size

    @property
    def timed(self) -> bool:
        """Whether the keyword ``time`` is read."""
        return self.shape.timed

    def forward(
        self,
        tokens: Tensor,
        rows: Tensor | None = None,
        *,
        time: Tensor | None = None,
        label: Tensor | None = None,
    ) -> Tensor:
        """Logits float [B, R, V] at rows int64 [B, R] (None: all positions)."""
        return self.logits(self._run(tokens, None, None, time, label), rows)

    def full(
        self,
        tokens: Tensor,
        rows: Tensor | None = None,
        *,
        time: Tensor | None = None,
        label: Tensor | None = None,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Logits at rows, and every layer's keys and values [B, H, L, D/H] for `partial`."""
        cache: list[tuple[Tensor, Tensor]] = []
        return self.logits(self._run(tokens, None, cache, time, label), rows), cache

    def partial(
        self,
        tokens: Tensor,
        rows: Tensor,
        cache: list[tuple[Tensor, Tensor]],
        *,
        time: Tensor | None = None,
        label: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, R, V] at rows, running only those against cached keys and values, updated in place.

        Exact for one layer; deeper, rows that are not run stay as they were (partial caching, arXiv
        2510.04525). A causal network is exact at any depth when all rows after a changed token are run.
        """
        return self.logits(self._run(tokens, rows, cache, time, label), None)

    def readouts(
        self, tokens: Tensor, *, time: Tensor | None = None, label: Tensor | None = None
    ) -> list[Tensor]:
        """Logits [B, L, V] after every loop, the last as `forward` gives them (for deep supervision)."""
        return [self.head(self.norm(x)) for x in self._loops(tokens, None, None, time, label)]

    def states(self, tokens: Tensor, *, time: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        """What the head reads, float [B, L, D]: for losses that want logits at some positions only."""
        states: Tensor = self.norm(self._run(tokens, None, None, time, label))
        return states

    def logits(self, x: Tensor, rows: Tensor | None) -> Tensor:
        """The output head at rows of the residual stream x [B, L, D]."""
        if rows is not None:
            x = x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))
        logits: Tensor = self.head(self.norm(x))
        if self.shape.ends:
            logits = F.pad(logits[..., :-1], (0, 1), value=-torch.inf)
        return logits

    def _run(
        self,
        tokens: Tensor,
        rows: Tensor | None,
        cache: list[tuple[Tensor, Tensor]] | None,
        time: Tensor | None,
        label: Tensor | None,
    ) -> Tensor:
        return self._loops(tokens, rows, cache, time, label)[-1]

    def _loops(
        self,
        tokens: Tensor,
        rows: Tensor | None,
        cache: list[tuple[Tensor, Tensor]] | None,
        time: Tensor | None,
        label: Tensor | None,
    ) -> list[Tensor]:
        check_length(tokens, self.shape.length, cut=self.shape.ends)
        changes = self._changes(tokens, time, label)
        read = self._before(tokens) if self.shape.causal else tokens
        inputs = self.embedding(read if rows is None else read.gather(1, rows))
        if self.positions is not None:
            inputs = inputs + _at(self.positions(), rows, inputs.shape[1])
        angles = self._angles(rows, tokens.shape[1]) if self.shape.rotary else None
        past = self._seen(tokens, rows)
        x, states = torch.zeros_like(inputs), []
        for loop in range(self.shape.loops):
            x = x + inputs
            for i, (block, change) in enumerate(zip(self.blocks, changes)):
                q, k, v = block.project(x, angles, rows, change)  # type: ignore[operator]
                k, v = self._remember(k, v, rows, cache, loop * self.shape.depth + i)
                x = block.finish(x, q, k, v, change, past)  # type: ignore[operator]
            states.append(x)
        return states

    def _changes(
        self, tokens: Tensor, time: Tensor | None, label: Tensor | None
    ) -> list[tuple[Tensor, ...] | None]:
        """What time and label change in each block; None where nothing does."""
        if self.condition is None:
            return [None] * len(self.blocks)
        t = (tokens == self.mask_id).double().mean(1) if time is None else time
        condition = self.condition(t, label)
        return [block.changes(condition) for block in self.blocks]  # type: ignore[operator]

    def _before(self, tokens: Tensor) -> Tensor:
        """The token before each position, the mask before the first."""
        return F.pad(tokens[:, :-1], (1, 0), value=self.mask_id)

    def _seen(self, tokens: Tensor, rows: Tensor | None) -> bool | Tensor:
        """What `attend` lets rows see: keys up to their own in a causal network, up to the first end with ``ends``."""
        if self.shape.ends:
            end = tokens == self.mask_id - 1
            return ~(end & F.pad(end[:, :-1], (1, 0)))[:, None, None]
        if not self.shape.causal:
            return False
        if rows is None:
            return True
        return torch.arange(self.shape.length, device=rows.device) <= rows[:, None, :, None]

    def _angles(self, rows: Tensor | None, count: int) -> Tensor:
        """Rotary angles [B or 1, 1, R, D/2H] of rows, or of the first ``count`` positions; axes share the pairs evenly."""
        half = self.shape.width // self.shape.heads // 2
        pair = torch.arange(half, device=self.coordinates.device)
        axes, kind = len(self.coordinates), torch.promote_types(self.embedding.weight.dtype, torch.float32)
        frequency = 10_000.0 ** (-(pair // axes).to(kind) * axes / half)
        angles = self.coordinates.T[:, pair % axes] * frequency
        return angles[None, None, :count] if rows is None else angles[rows][:, None]

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


def from_config(config: TransformerConfig) -> Transformer:
    """The transformer of a configuration: what recipes build."""
    return Transformer(**vars(config))


class Labelled(nn.Module):
    """A network with one label for every sequence, so that it is a denoiser like any other.

    Classifier-free guidance (arXiv 2207.12598) is ``guided(from_logits(Labelled(network, c), ..),
    from_logits(network, ..), scale)``. ValueError when the network has no such label.
    """

    def __init__(self, network: Transformer, label: int) -> None:
        super().__init__()
        label = whole(label, "label")
        if not 0 <= label <= network.shape.classes or network.shape.classes == 0:
            raise ValueError(f"label {label}: expected one of the network's {network.shape.classes} classes")
        self.network, self.label = network, label

    @property
    def mask_id(self) -> int:
        """Symbol id of the mask."""
        return self.network.mask_id

    @property
    def timed(self) -> bool:
        """Whether the keyword ``time`` is read."""
        return self.network.timed

    def forward(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        """Logits float [B, R, V] at rows."""
        logits: Tensor = self.network(tokens, rows, time=time, label=self._labels(tokens))
        return logits

    def full(
        self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """As `Transformer.full`."""
        return self.network.full(tokens, rows, time=time, label=self._labels(tokens))

    def partial(
        self,
        tokens: Tensor,
        rows: Tensor,
        cache: list[tuple[Tensor, Tensor]],
        *,
        time: Tensor | None = None,
    ) -> Tensor:
        """As `Transformer.partial`."""
        return self.network.partial(tokens, rows, cache, time=time, label=self._labels(tokens))

    def _labels(self, tokens: Tensor) -> Tensor:
        return torch.full((len(tokens),), self.label, device=tokens.device)
