"""In which order are digits unmasked? A selector for each stage."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unmask.base.numbers import whole
from unmask.base.types import Choice, Selector, View


def stage_by_stage(selectors: Sequence[Selector], length: int) -> Selector:
    """A selector for each stage, inside the ``length`` digits of that stage: `in_blocks` with a plan per block.

    ValueError for selectors that keep time, tilt the law or remember: they cannot change from stage to stage.
    """
    length = whole(length, "length", 1)
    if any(getattr(s, "time", None) is not None for s in selectors):
        raise ValueError("a selector keeps time (ancestral, first_hitting): expected others; use in_blocks")

    def choose(view: View) -> Choice:
        block = torch.arange(view.tokens.shape[1], device=view.tokens.device) // length
        current = torch.where(view.masked, block, len(selectors)).amin(1)
        rows, doubt = (
            torch.full_like(view.tokens, -1),
            torch.zeros((), dtype=torch.bool, device=current.device),
        )
        for number, selector in enumerate(selectors):
            items = (current == number).nonzero()[:, 0]
            if len(items):
                choice = selector(view.part(items).within(block == number))
                mine = _plain(choice)
                rows[items, : mine.shape[1]] = mine
                doubt = doubt if choice.doubt is None else doubt | choice.doubt.any()
        return Choice(rows[:, : int((rows >= 0).sum(1).max())] if len(rows) else rows, doubt=doubt)

    names = ", ".join(getattr(s, "name", "selector") for s in selectors)
    blind = all(getattr(s, "blind", False) for s in selectors)
    return Selector(choose, blind=blind, name=f"stage_by_stage({names}; {length})")


def _plain(choice: Choice) -> Tensor:
    """The rows of a choice that holds nothing else, padding last."""
    if choice.tilt is not None or choice.calls is not None or choice.memory:
        raise ValueError(
            "a selector tilts, looks ahead or remembers: expected one that only chooses; use in_blocks"
        )
    return choice.rows.gather(1, (choice.rows < 0).to(torch.uint8).sort(dim=1, stable=True).indices)
