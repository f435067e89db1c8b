"""How do the symbols of a sequence stand in a row of tokens? With special tokens around them, and pads after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """Tokens ``before`` and ``after`` a sequence, ``pad`` that fills rows up, and ``drawn``: ids of the data symbols.

    ``names`` are those of the data symbols. All other tokens are visible, unscored and never drawn; ``fixed`` ones among
    them belong to items, such as bars between their parts.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    pad: int
    drawn: tuple[int, ...]
    names: tuple[str, ...]
    fixed: tuple[int, ...] = ()

    def rows(self, sequences: Sequence[Any], *, left: bool = False) -> Tensor:
        """Tokens int64 [n, L] of sequences of ids, as long as the longest; pads stand on the right, or on the left."""
        whole = [torch.tensor([*self.before, *map(int, ids), *self.after]) for ids in sequences]
        rows = torch.full((len(whole), max(map(len, whole), default=0)), self.pad)
        for row, ids in zip(rows, whole):
            row[len(row) - len(ids) if left else 0 :][: len(ids)] = ids
        return rows

    def visible(self, tokens: Tensor, mask_id: int) -> Tensor:
        """Where tokens int64 [B, L] are special ones or pads, bool [B, L]."""
        drawn = torch.tensor((*self.drawn, mask_id), device=tokens.device)
        return ~torch.isin(tokens, drawn)
