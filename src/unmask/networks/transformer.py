"""A bidirectional transformer in plain PyTorch: tokens in, logits at the rows that are asked for out.

It takes no time unless asked to: the best denoiser of uniformly masked data depends on the visible tokens only
(MD4, arXiv 2406.04329). Shape legend: B batch, L length, R rows evaluated, D width, H heads, V data symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.base.numbers import whole
from unmask.networks.blocks import Block
from unmask.networks.conditioning import Condition
from unmask.networks.config import TransformerConfig, check_length
from unmask.networks.positions import AxisEmbedding, at_rows


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
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        kept = (
            None
            if axes is None
            else tuple(tuple(whole(i, "a place on an axis") for i in axis) for axis in axes)
        )
        size = (vocab_size, length, width, depth, heads, loops, hidden, rotary, kept)
        self.shape = TransformerConfig(*size, timed, classes, causal, ends, dropout)
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

    def refine(self, tokens: Tensor, stream: Tensor | None, loops: int) -> list[Tensor]:
        """The residual stream [B, L, D] after each of ``loops`` more loops from ``stream`` (None: the start).

        For training through the last loops only; `logits` reads a stream out. Networks without time and label.
        """
        return self._loops(tokens, None, None, None, None, stream, loops)

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
        stream: Tensor | None = None,
        loops: int | None = None,
    ) -> list[Tensor]:
        check_length(tokens, self.shape.length, cut=self.shape.ends)
        condition = self._condition(tokens, time, label)
        read = self._before(tokens) if self.shape.causal else tokens
        inputs = self.embedding(read if rows is None else read.gather(1, rows))
        if self.positions is not None:
            inputs = inputs + at_rows(self.positions(), rows, inputs.shape[1])
        angles = self._angles(rows, tokens.shape[1]) if self.shape.rotary else None
        past = self._seen(tokens, rows)
        x, states = torch.zeros_like(inputs) if stream is None else stream, []
        for loop in range(self.shape.loops if loops is None else loops):
            x = x + inputs
            for i, block in enumerate(self.blocks):
                x = block(x, angles, rows, condition, past, cache, loop * self.shape.depth + i)
            states.append(x)
        return states

    def _condition(self, tokens: Tensor, time: Tensor | None, label: Tensor | None) -> Tensor | None:
        """What time and label say to every block, [B, 64]; None where nothing does."""
        if self.condition is None:
            return None
        t = (tokens == self.mask_id).double().mean(1) if time is None else time
        condition: Tensor = self.condition(t, label)
        return condition

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
