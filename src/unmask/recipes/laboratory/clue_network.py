"""A network of zebra puzzles: clues are what items tell each other, whatever the items are called.

The state is a vector for every item and house. As in `unmask.recipes.sudoku.equivariant`, an item hears what its vectors
at all houses sum to, and what those of its attribute's items sum to in the same house; each clue hears the vectors of the
items that it names and answers both, by a small network for its kind. Names of attributes and values play no part.

Shape legend: B batch, C places for clues, I items, H houses, D width, V symbols.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.base.numbers import whole
from unmask.data.zebra import Kind, Size
from unmask.denoisers import take_rows
from unmask.networks.config import check_length
from unmask.recipes.sudoku.equivariant import Said

KINDS = len(Kind)


@dataclass(frozen=True)
class ClueConfig:
    """Shape of a `ClueNetwork`; sizes of the puzzles follow from the data."""

    width: int
    hidden: int
    loops: int
    houses: int = 3
    attributes: int = 2
    most: int = 4
    vocab_size: int = 1
    length: int = 1

    def __post_init__(self) -> None:
        for name in asdict(self):
            object.__setattr__(self, name, whole(getattr(self, name), name, 1))

    @property
    def size(self) -> Size:
        """The size of the puzzles."""
        return Size(self.houses, self.attributes, self.most)


def symbols(size: Size) -> int:
    """How many symbols there are: houses, then clues (kind, first, second, the last fastest), then one for no clue."""
    return size.houses + KINDS * size.items**2 + 1


@dataclass(frozen=True)
class Clues:
    """The clues of a batch: those of each kind as places int64 [n] in [B * C], and what they name, int64 [B, C].

    ``named`` bool [B, C] is where the second is a house.
    """

    places: list[Tensor]
    first: Tensor
    second: Tensor
    named: Tensor


def read(told: Tensor, size: Size) -> Clues:
    """The clues in tokens int64 [B, C]; no clue, or a masked one, is of no kind and names item 0."""
    code = told - size.houses
    known = (code >= 0) & (code < KINDS * size.items**2)
    code = torch.where(known, code, 0)
    kind = torch.where(known, code // size.items**2, KINDS)
    first, second = code // size.items % size.items, code % size.items
    places = [(kind.flatten() == k).nonzero()[:, 0] for k in range(KINDS)]
    return Clues(places, first, second, (kind == Kind.AT) | (kind == Kind.NOT_AT))


class Answers(nn.Module):
    """What clues answer, [B, C, 2 H D] to the same, by a network for each kind; nothing where there is none."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.kinds = nn.ModuleList(
            nn.Sequential(
                nn.Linear(channels, hidden), nn.GELU("tanh"), nn.Linear(hidden, channels, bias=False)
            )
            for _ in range(KINDS)
        )

    def forward(self, heard: Tensor, places: list[Tensor]) -> Tensor:
        """Answers [B, C, 2 H D]."""
        flat = heard.flatten(0, 1)
        told = torch.zeros_like(flat)
        for answer, place in zip(self.kinds, places):
            if len(place):
                told = told.index_add(0, place, answer(flat[place]).to(told.dtype))
        return told.view_as(heard)


class ClueNetwork(nn.Module):
    """``network(tokens, rows=None) -> logits`` float [B, R, V], of which only those of houses are finite.

    Tokens int64 [B, C + I] are clues and the house of each item, ``vocab_size`` where it is masked.
    """

    def __init__(self, config: ClueConfig) -> None:
        super().__init__()
        self.shape, width = config, config.width
        self.roles = nn.Embedding(3, width)  # masked, this house, another
        self.houses = nn.Embedding(config.houses, width)
        for table in (self.roles, self.houses):
            nn.init.normal_(table.weight, std=0.5)
        self.norm = nn.RMSNorm(width)
        self.answers = Answers(2 * config.houses * width, config.hidden)
        self.own = nn.Linear(2 * width, config.hidden)
        self.items, self.rivals = Said(width, config.hidden), Said(width, config.hidden)
        self.out = nn.Linear(config.hidden, width, bias=False)
        self.last = nn.RMSNorm(width)
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def config(self) -> dict[str, Any]:
        """Fields of the `ClueConfig` that builds this network again."""
        return asdict(self.shape)

    @property
    def mask_id(self) -> int:
        """Symbol id of the mask."""
        return self.shape.vocab_size

    def forward(self, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        """Logits [B, R, V] at rows int64 [B, R] (None: all positions; clues have even ones)."""
        logits = self._logits(self._states(tokens)[-1])
        return logits if rows is None else take_rows(logits, rows)

    def readouts(self, tokens: Tensor) -> list[Tensor]:
        """Logits [B, L, V] after every loop, the last as `forward` gives them (for deep supervision)."""
        return [self._logits(x) for x in self._states(tokens)]

    def _states(self, tokens: Tensor) -> list[Tensor]:
        """The state [B, I, H, D] after every loop."""
        check_length(tokens, self.shape.length)
        told, grid = tokens[:, : self.shape.most], tokens[:, self.shape.most :]
        clues = read(told, self.shape.size)
        named = self.roles(self._roles(clues.second)).flatten(2)  # houses, as items would be there
        inputs = self.roles(self._roles(grid)) + self.houses.weight
        x, states = torch.zeros_like(inputs), []
        for _ in range(self.shape.loops):
            x = self._loop(x + inputs, clues, named)
            states.append(x)
        return states

    def _loop(self, x: Tensor, clues: Clues, named: Tensor) -> Tensor:
        """One exchange of messages, [B, I, H, D] to the same; ``named`` [B, C, H D] are houses that clues name."""
        h = self.norm(x)
        of_attribute = h.unflatten(1, (-1, self.shape.houses)).sum(2) / self.shape.houses**0.5
        rivals = self.rivals(of_attribute).repeat_interleave(self.shape.houses, 1)
        items = self.items(h.sum(2, keepdim=True) / self.shape.houses**0.5)
        heard = self.own(torch.cat([h, self._of_clues(h, clues, named)], -1)) + items + rivals
        told: Tensor = self.out(F.gelu(heard, approximate="tanh"))
        return x + told

    def _of_clues(self, h: Tensor, clues: Clues, named: Tensor) -> Tensor:
        """The sum of what each item hears from clues, [B, I, H, D]."""
        flat = h.flatten(2)
        first = take_rows(flat, clues.first)
        second = torch.where(clues.named[..., None], named.to(flat.dtype), take_rows(flat, clues.second))
        answers = self.answers(torch.cat([first, second], -1), clues.places)
        to_first, to_second = answers.chunk(2, -1)
        to_second = to_second.masked_fill(clues.named[..., None], 0)
        heard = torch.zeros_like(flat)
        for place, told in ((clues.first, to_first), (clues.second, to_second)):
            heard = heard.scatter_add(1, place[..., None].expand_as(told), told.to(heard.dtype))
        return heard.view_as(h)

    def _logits(self, x: Tensor) -> Tensor:
        """Logits [B, L, V] of a state."""
        logits: Tensor = self.head(self.last(x))[..., 0]
        logits = F.pad(logits, (0, 0, self.shape.most, 0))
        return F.pad(logits, (0, self.shape.vocab_size - self.shape.houses), value=-torch.inf)

    def _roles(self, grid: Tensor) -> Tensor:
        """What every house is to every item, int64 [B, I, H]: 0 masked, 1 where it is, 2 another."""
        here = grid[..., None] == torch.arange(self.shape.houses, device=grid.device)
        return torch.where(here, 1, 2).masked_fill((grid == self.mask_id)[..., None], 0)


def from_config(config: ClueConfig) -> ClueNetwork:
    """The network of a configuration: what the recipe builds."""
    return ClueNetwork(config)
