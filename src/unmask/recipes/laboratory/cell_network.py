"""A causal network of Sudoku as (cell, value) pairs: the blocks of `Transformer`, told which cell a token is about.

Shape legend: B batch, C cells, L = 2 C tokens, R rows evaluated, V symbols, D width, H heads. Symbols 0..C-1 are cells, the
others values: 81 and 9 of a 9x9 board, 36 and 6 of a 6x6 one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.data.readers.boards import BOXES, SMALLER, symbols_of
from unmask.denoisers import take_rows
from unmask.networks import TransformerConfig
from unmask.networks.blocks import Block
from unmask.networks.config import check_length
from unmask.networks.positions import AxisEmbedding
from unmask.recipes.sudoku import axes_of


def vocab_size(cells: int) -> int:
    """Symbols of pairs of cell and value on a board of so many cells; the next one is the mask."""
    return cells + symbols_of(cells)


class CellNetwork(nn.Module):
    """``network(tokens, rows=None) -> logits`` [B, R, V]: causal, the token at 2k a cell and the one at 2k + 1 its value.

    Row, column and box of a token's cell stand where `Transformer` has its position's. A cell is never written again, and
    cells and values keep to their places: those logits are -inf, so that the network is a law of orders and grids.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        cells = config.length // 2
        if cells not in BOXES:
            raise ValueError(f"length {config.length}: expected 162, twice the cells of a board {SMALLER}")
        wanted = (vocab_size(cells), 2 * cells, True)
        if (config.vocab_size, config.length, config.causal) != wanted:
            raise ValueError(
                f"vocab_size, length and causal {config.vocab_size}, {config.length}, {config.causal}: expected "
                f"{wanted[0]}, {wanted[1]}, {wanted[2]}"
            )
        self.shape = config
        axes = F.pad(torch.tensor(axes_of(cells)), (0, 1), value=symbols_of(cells))
        self.embedding = nn.Embedding(config.vocab_size + 1, config.width)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.cells = AxisEmbedding(axes, config.width, std=0.5)
        self.blocks = nn.ModuleList([Block(config, axes) for _ in range(config.depth)])
        self.norm = nn.LayerNorm(config.width, bias=False)
        self.head = nn.Linear(config.width, config.vocab_size)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def mask_id(self) -> int:
        """Symbol id of the mask."""
        return self.shape.vocab_size

    def forward(self, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        """Logits [B, R, V] at rows int64 [B, R] (None: all); those at i depend on tokens before i only."""
        return taken(self._run(tokens, None, None), rows)

    def full(self, tokens: Tensor, rows: Tensor | None = None) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Logits at rows, and every layer's keys and values [B, H, L, D/H] for `partial`."""
        cache: list[tuple[Tensor, Tensor]] = []
        return taken(self._run(tokens, None, cache), rows), cache

    def partial(self, tokens: Tensor, rows: Tensor, cache: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Logits [B, R, V] at rows, running those only; exact when every row after a changed token is run in turn."""
        return self._run(tokens, rows, cache)

    def _run(self, tokens: Tensor, rows: Tensor | None, cache: list[tuple[Tensor, Tensor]] | None) -> Tensor:
        length = self.shape.length
        check_length(tokens, length)
        read = F.pad(tokens[:, :-1], (1, 0), value=self.mask_id)
        cells = cells_of(read, length // 2)
        if rows is not None:
            read, cells = read.gather(1, rows), cells.gather(1, rows)
        past = True if rows is None else torch.arange(length, device=rows.device) <= rows[:, None, :, None]
        inputs = self.embedding(read) + self.cells()[cells]
        x = torch.zeros_like(inputs)
        for loop in range(self.shape.loops):
            x = x + inputs
            for i, block in enumerate(self.blocks):
                x = block(x, None, rows, None, past, cache, loop * self.shape.depth + i, places=cells)
        logits: Tensor = self.head(self.norm(x))
        return logits.masked_fill(~taken(lawful(tokens, self.shape.vocab_size), rows), -torch.inf)


def taken(values: Tensor, rows: Tensor | None) -> Tensor:
    """Values [B, L, V] at rows int64 [B, R], or all."""
    return values if rows is None else take_rows(values, rows)


def cells_of(read: Tensor, nowhere: int) -> Tensor:
    """The cell that each token read is about, int64 [B, L]: a value is about the cell before it.

    ``nowhere``, the number of cells, stands for none: at the beginning, and after a masked token. ``read`` holds at i the
    token before i, so that cells stand at odd places.
    """
    told = torch.where(read < nowhere, read, nowhere)[:, 1::2]
    after = F.pad(told, (1, 0), value=nowhere)[:, :-1]
    return torch.stack([after, told], -1).flatten(1)


def lawful(tokens: Tensor, symbols: int) -> Tensor:
    """Which symbols may stand at each place, bool [B, L, V]: at even ones cells not written before, at odd ones values."""
    written = tokens[:, ::2]
    cells = written.shape[1]
    there = F.one_hot(written.clamp(max=cells), cells + 1)[..., :cells]
    fresh = F.pad(there.cumsum(1) == there, (0, symbols - cells), value=False)
    value = (torch.arange(symbols, device=tokens.device) >= cells).expand_as(fresh)
    return torch.stack([fresh, value], 2).flatten(1, 2)


def from_config(config: TransformerConfig) -> CellNetwork:
    """The network of a configuration: what the recipes build."""
    return CellNetwork(config)
