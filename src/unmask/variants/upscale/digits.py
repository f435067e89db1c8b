"""How are levels written as digits, stage after stage, and where does a half-finished sequence stand?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unmask.base.numbers import whole


def stages(base: int, levels: int) -> int:
    """The number of stages S: the least with base^S >= levels (at least 1). Whole-number arithmetic only."""
    base, levels = whole(base, "base", 2), whole(levels, "levels", 2)
    count = 1
    while base**count < levels:
        count += 1
    return count


def stages_of(network: Mapping[str, Any]) -> int:
    """In how many stages a network of this configuration unmasks the digits of each level: 1 for one without ``levels``."""
    levels = network.get("levels")
    return 1 if levels is None else stages(int(network["vocab_size"]), int(levels))


def encode_digits(values: Tensor, base: int, levels: int) -> Tensor:
    """Levels int64 [B, N] in 0..K-1 as digits int64 [B, S N], coarsest stage first; ValueError for other levels."""
    if values.ndim != 2 or values.is_floating_point():
        raise ValueError(
            f"levels have dtype {values.dtype} and shape {list(values.shape)}; expected int64 [batch, length]"
        )
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < levels:
        raise ValueError(f"levels {int(values.min())}..{int(values.max())}; expected 0..{levels - 1}")
    steps = steps_of(base, levels, values.device)
    return (values[:, None] // steps[:, None] % base).flatten(1)


def decode_digits(digits: Tensor, base: int, levels: int) -> Tensor:
    """Levels int64 [B, N] of digits int64 [B, S N] of `encode_digits`; ValueError for masks and foreign digits."""
    steps = steps_of(base, levels, digits.device)
    by_stage = in_stages(digits, len(steps))
    values = (by_stage * steps[:, None]).sum(1)
    foreign = ((by_stage < 0) | (by_stage >= base)).any(1) | (values >= levels)
    if foreign.any():
        row, place = foreign.nonzero()[0].tolist()
        raise ValueError(
            f"digits {by_stage[row, :, place].tolist()} at row {row}, position {place} are no level in 0..{levels - 1}; "
            f"expected {len(steps)} digits of base {base}, none masked"
        )
    return values


def steps_of(base: int, levels: int, device: torch.device) -> Tensor:
    """What a digit of each stage counts, b^(S-s), int64 [S]."""
    count = stages(base, levels)
    return torch.tensor([base ** (count - s) for s in range(1, count + 1)], device=device)


def in_stages(digits: Tensor, count: int) -> Tensor:
    """Digits [B, S N] as [B, S, N]; ValueError when they do not divide."""
    if digits.ndim != 2 or digits.shape[1] % count:
        raise ValueError(
            f"digits of shape {list(digits.shape)}; expected [batch, {count} stages times length]"
        )
    return digits.reshape(len(digits), count, digits.shape[1] // count)


class Situation(NamedTuple):
    """Where digits stand: levels int64 [B, N] as far as known, masked bool [B, N], parent int64 [B, N], stage int64 [B].

    The stage, from 1, is the first with a masked digit (the last when there is none); ``masked`` says where its digit
    is hidden, ``parent`` is x^(s-1) and ``levels`` is x^(s) where the digit is visible, x^(s-1) elsewhere.
    """

    levels: Tensor
    masked: Tensor
    parent: Tensor
    stage: Tensor


def situation(digits: Tensor, base: int, levels: int) -> Situation:
    """The `Situation` of digits int64 [B, S N] with ``base`` where hidden."""
    steps = steps_of(base, levels, digits.device)
    by_stage = in_stages(digits, len(steps))
    hidden = by_stage == base
    unfinished = hidden.any(2).long()
    place = torch.where(unfinished.any(1), unfinished.argmax(1), len(steps) - 1)
    own = place[:, None, None].expand(-1, 1, by_stage.shape[2])
    worth = by_stage.masked_fill(hidden, 0) * steps[:, None]
    coarser = torch.arange(len(steps), device=digits.device) < place[:, None]
    parent = (worth * coarser[:, :, None]).sum(1)
    return Situation(parent + worth.gather(1, own)[:, 0], hidden.gather(1, own)[:, 0], parent, place + 1)
