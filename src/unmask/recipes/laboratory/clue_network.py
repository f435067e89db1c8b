"""A network of zebra puzzles: `Transformer` with clues read by their parts and a head over houses.

A clue is one symbol of thousands, each of which a batch rarely holds. Its vector is the sum of one for its kind and one
for each argument, so that what is learnt of one clue holds for all that share a part with it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.data.zebra import Kind
from unmask.networks import TransformerConfig
from unmask.networks.transformer import Transformer


class PartsEmbedding(nn.Module):
    """Vectors [..., D] of symbols int64 [...]: the sum of a learned one for each part, ``parts`` int64 [V + 1, P]."""

    def __init__(self, parts: Tensor, width: int, std: float) -> None:
        super().__init__()
        self.parts: Tensor
        self.register_buffer("parts", parts, persistent=False)
        self.weight = nn.Parameter(torch.randn(int(parts.max()) + 1, width) * std)

    def forward(self, tokens: Tensor) -> Tensor:
        """The sum over parts."""
        return F.embedding(tokens, self.weight[self.parts].sum(1))


class HouseHead(nn.Module):
    """Logits [..., V] of which only the first ``houses`` are finite: what may stand in a grid."""

    def __init__(self, width: int, houses: int, symbols: int) -> None:
        super().__init__()
        self.linear, self.others = nn.Linear(width, houses), symbols - houses
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        return F.pad(self.linear(x), (0, self.others), value=-torch.inf)


def parts_of_symbols(houses: int, items: int) -> Tensor:
    """What each symbol is made of, int64 [symbols + 1, 3]: houses, clues by kind and arguments, no clue, the mask.

    Tables stand one after another: nothing, houses, kinds, first items, second items, houses that clues name, then two of
    their own. `AT` and `NOT_AT` name a house as their second argument.
    """
    kinds = len(Kind)
    house, kind = 1, 1 + houses
    first = kind + kinds
    second, named = first + items, first + 2 * items
    none, mask = named + items, named + items + 1
    k, x, y = torch.meshgrid(torch.arange(kinds), torch.arange(items), torch.arange(items), indexing="ij")
    other = torch.where((k == Kind.AT) | (k == Kind.NOT_AT), named, second)
    clues = torch.stack([kind + k, first + x, other + y], -1).reshape(-1, 3)
    single = torch.tensor([*range(house, kind), none, mask])[:, None]
    alone = F.pad(single, (0, 2))
    return torch.cat([alone[:houses], clues, alone[houses:]])


def from_config(config: TransformerConfig) -> Transformer:
    """The network of a configuration whose axes are those of `zebra.coordinates`: what the recipe builds."""
    assert config.axes is not None
    attributes, items = config.axes
    houses, count = attributes.count(1), max(items)
    network = Transformer(**vars(config))
    network.embedding = PartsEmbedding(parts_of_symbols(houses, count), config.width, std=0.5)  # type: ignore[assignment]
    network.head = HouseHead(config.width, houses, config.vocab_size)  # type: ignore[assignment]
    return network
