"""A network of puzzles in which symbols are interchangeable, and positions are known by the groups that they lie in.

Sudoku's digits have no meaning of their own, and neither do its rows, columns and boxes: renaming them renames the
answer. `Transformer` must learn that from examples; here it holds by construction. The state is a vector for every
(position, symbol). It is summed over the symbols of a position and over the positions of a group with the same symbol,
small networks read the sums, and what they say goes back to all members: messages on the graph of an exact cover. The
form is ours; sums that make networks indifferent to order are those of arXiv 1703.06114, repeated messages between the
cells of Sudoku those of arXiv 1711.08028.

Shape legend: B batch, L length, R rows evaluated, V data symbols, D width, H hidden, G groups of an axis.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.base.numbers import whole
from unmask.networks.config import check_length


@dataclass(frozen=True)
class EquivariantConfig:
    """Shape of an `EquivariantNetwork`; every field is stored with its weights.

    ``axes`` say for each position which group of each axis it lies in; ``kinds`` which axes share their weights (equal
    numbers do; none: each has its own). ``depth`` blocks run ``loops`` times.
    """

    vocab_size: int
    length: int
    width: int
    hidden: int
    axes: tuple[tuple[int, ...], ...]
    kinds: tuple[int, ...] = ()
    depth: int = 1
    loops: int = 1

    def __post_init__(self) -> None:
        for name in ("vocab_size", "length", "width", "hidden", "depth", "loops"):
            object.__setattr__(self, name, whole(getattr(self, name), name, 1))
        if not self.axes or any(len(axis) != self.length for axis in self.axes):
            raise ValueError(
                f"axes of {[len(axis) for axis in self.axes]} places: expected some of {self.length}"
            )
        if any(not isinstance(i, int) or i < 0 for axis in self.axes for i in axis):
            raise ValueError("axes: expected whole numbers >= 0")
        if self.kinds and len(self.kinds) != len(self.axes):
            raise ValueError(f"kinds {self.kinds}: expected one for each of {len(self.axes)} axes, or none")


class Said(nn.Module):
    """What a group says to its members, from the sum of their vectors: D to D to H."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.read = nn.Linear(width, width, bias=False)
        self.write = nn.Linear(width, hidden, bias=False)

    def forward(self, sums: Tensor) -> Tensor:
        """Vectors [..., H] of sums [..., D]."""
        said: Tensor = self.write(F.gelu(self.read(sums), approximate="tanh"))
        return said


class Block(nn.Module):
    """One exchange of messages: x [B, L, V, D] to the same."""

    def __init__(self, config: EquivariantConfig) -> None:
        super().__init__()
        kinds = config.kinds or tuple(range(len(config.axes)))
        self.places = [sorted(set(kinds)).index(kind) for kind in kinds]
        self.norm = nn.RMSNorm(config.width)
        self.own = nn.Linear(config.width, config.hidden)
        self.symbols = Said(config.width, config.hidden)
        self.groups = nn.ModuleList([Said(config.width, config.hidden) for _ in set(kinds)])
        self.out = nn.Linear(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor, members: list[Tensor]) -> Tensor:
        """One exchange; ``members`` float [G, L] for each axis, scaled so that sums keep their size."""
        h = self.norm(x)
        heard = self.own(h) + self.symbols(h.sum(2, keepdim=True) / h.shape[2] ** 0.5)
        for place, member in zip(self.places, members):
            heard = heard + self._of_groups(h, member.to(h.dtype), self.groups[place])
        told: Tensor = self.out(F.gelu(heard, approximate="tanh"))
        return x + told

    def _of_groups(self, h: Tensor, member: Tensor, said: nn.Module) -> Tensor:
        """What each position and symbol hears from its group on one axis, [B, L, V, H]."""
        sums = member @ h.flatten(2)
        told: Tensor = said(sums.view(*sums.shape[:2], *h.shape[2:]))
        back = member.T @ told.flatten(2)
        return back.view(*h.shape[:3], told.shape[-1])


class EquivariantNetwork(nn.Module):
    """``network(tokens, rows=None) -> logits`` float [B, R, V]; tokens int64 [B, L], ``vocab_size`` stands for masked.

    Renaming symbols, or moving positions so that groups go to groups, does the same to the logits. It takes no time, and
    has no partial passes.
    """

    def __init__(self, config: EquivariantConfig) -> None:
        super().__init__()
        self.shape = config
        for number, axis in enumerate(config.axes):
            self.register_buffer(f"members_{number}", membership(axis), persistent=False)
        self.embedding = nn.Embedding(3, config.width)  # masked, this symbol, another
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.depth)])
        self.norm = nn.RMSNorm(config.width)
        self.head = nn.Linear(config.width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def config(self) -> dict[str, Any]:
        """Fields of the `EquivariantConfig` that builds this network again."""
        return asdict(self.shape)

    @property
    def mask_id(self) -> int:
        """Symbol id of the mask."""
        return self.shape.vocab_size

    def forward(self, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        """Logits [B, R, V] at rows int64 [B, R] (None: all positions)."""
        return self.logits(self.refine(tokens, None, self.shape.loops)[-1], rows)

    def readouts(self, tokens: Tensor) -> list[Tensor]:
        """Logits [B, L, V] after every loop, the last as `forward` gives them (for deep supervision)."""
        return [self.logits(x, None) for x in self.refine(tokens, None, self.shape.loops)]

    def refine(self, tokens: Tensor, stream: Tensor | None, loops: int) -> list[Tensor]:
        """The state [B, L, V, D] after each of ``loops`` more loops from ``stream`` (None: the start)."""
        check_length(tokens, self.shape.length)
        inputs = self.embedding(self._roles(tokens))
        members = [getattr(self, f"members_{number}") for number in range(len(self.shape.axes))]
        x, states = torch.zeros_like(inputs) if stream is None else stream, []
        for _ in range(loops):
            x = x + inputs
            for block in self.blocks:
                x = block(x, members)
            states.append(x)
        return states

    def logits(self, x: Tensor, rows: Tensor | None) -> Tensor:
        """Logits [B, R, V] at rows of the state x [B, L, V, D]."""
        if rows is not None:
            x = x.gather(1, rows[..., None, None].expand(-1, -1, *x.shape[2:]))
        logits: Tensor = self.head(self.norm(x))[..., 0]
        return logits

    def _roles(self, tokens: Tensor) -> Tensor:
        """What every symbol is to every position, int64 [B, L, V]: 0 masked, 1 the one there, 2 another."""
        symbols = torch.arange(self.shape.vocab_size, device=tokens.device)
        here = torch.where(tokens[..., None] == symbols, 1, 2)
        return here.masked_fill((tokens == self.mask_id)[..., None], 0)


def membership(axis: tuple[int, ...]) -> Tensor:
    """Float [G, L]: 1 / sqrt(size of the group) where the position lies in it."""
    groups = F.one_hot(torch.tensor(axis)).T.float()
    return groups / groups.sum(1, keepdim=True).clamp(min=1).sqrt()


def from_config(config: EquivariantConfig) -> EquivariantNetwork:
    """The network of a configuration: what recipes build."""
    return EquivariantNetwork(config)
