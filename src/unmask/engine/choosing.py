"""What a selector chose is checked: on the device, and read once, at the end of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unmask.base.types import Choice, View
from unmask.denoisers import take_rows


class Doubts:
    """What may be wrong at a step: flags that stay on the device until `settled` reads them, all in one transfer."""

    def __init__(self) -> None:
        self.flags: list[Tensor] = []
        self.reasons: list[Callable[[], str]] = []

    def add(self, wrong: Tensor, reason: Callable[[], str]) -> None:
        """An error, bool of any shape, and what to say of it."""
        self.flags.append(wrong.reshape(-1) if wrong.numel() < _FEW else wrong.any()[None])
        self.reasons.append(reason)

    def settled(self, masked: Tensor) -> tuple[int, ...]:
        """The number of True in each row of masked bool [B, L]; ValueError if a flag is up."""
        found = torch.cat([masked.sum(1), *self.flags]).tolist()
        place = len(masked)
        if any(found[place:]):
            for flags, reason in zip(self.flags, self.reasons):
                if any(found[place : place + len(flags)]):
                    raise ValueError(reason())
                place += len(flags)
        return tuple(found[: len(masked)])


_FEW = 4096
"""Flags that are cheaper to transfer than to add up."""


@dataclass(frozen=True)
class Chosen:
    """Rows int64 [B, k], real where ``valid`` bool [B, k], which is at the front; elsewhere the first one again.

    ``full`` says that all are valid, as the host knows. ``tilt`` and ``calls`` are those of the `Choice`.
    """

    rows: Tensor
    valid: Tensor
    full: bool = False
    tilt: Tensor | None = None
    calls: Tensor | None = None

    @property
    def marked(self) -> Tensor:
        """The rows with -1 where they are padding."""
        return self.rows if self.full else self.rows.masked_fill(~self.valid, -1)


def chosen(choice: Choice, view: View, selector: object, doubts: Doubts) -> Chosen:
    """The choice with its padding at the end, if its rows are masked and distinct, and there are some for each item.

    A selector that keeps time may choose none. What `orders.selectors.take` chose needs no look: that as many positions
    were unmasked as it chose is seen at the end of the step, see `moved_all`.
    """
    rows, size = choice.rows, len(view.tokens)
    if rows.dtype != torch.int64 or rows.ndim != 2 or len(rows) != size:
        raise ValueError(
            f"the selector gave rows of dtype {rows.dtype} and shape {list(rows.shape)}; expected int64 [{size}, k]"
        )
    if choice.doubt is not None:
        doubts.add(choice.doubt, lambda: _NAN)
    full = choice.packed is rows
    valid = view.all_true(rows.shape[1]) if full else rows >= 0
    if getattr(selector, "time", None) is None and (not full or rows.shape[1] == 0):
        doubts.add(~valid.any(1), lambda: _NOTHING)
    if full:
        return Chosen(rows, valid, True, choice.tilt, choice.calls)
    wrong = _wrong(rows, view)
    doubts.add(wrong, lambda: _position(rows, wrong))
    return _packed(replace(choice, rows=rows.clamp(0, view.tokens.shape[1] - 1)), valid)


def _wrong(rows: Tensor, view: View) -> Tensor:
    """Which of the rows int64 [B, k] are beyond the end, visible, or there twice; bool [B, k]."""
    place, valid = rows.clamp(0, view.tokens.shape[1] - 1), rows >= 0
    hits = torch.zeros_like(view.tokens).scatter_add_(1, place, valid.long())
    return valid & ((hits > view.masked).gather(1, place) | (place != rows))


def _packed(choice: Choice, valid: Tensor) -> Chosen:
    """The choice with its valid rows at the front: -1 may stand anywhere."""
    order = (~valid).to(torch.uint8).sort(dim=1, stable=True).indices
    rows, valid = choice.rows.gather(1, order), valid.gather(1, order)
    tilt = None if choice.tilt is None else take_rows(choice.tilt, order)
    return Chosen(torch.where(valid, rows, rows[:, :1]), valid, False, tilt, choice.calls)


def moving(view: View, choice: Chosen) -> tuple[View, Chosen]:
    """The items for which anything was chosen: the others, at this step of a clock, need no network call."""
    moves = torch.tensor(
        [i for i, any_ in enumerate(choice.valid.any(1).tolist()) if any_], dtype=torch.int64
    )
    some = moves.to(choice.rows.device)
    tilt, calls = (None if x is None else x[some] for x in (choice.tilt, choice.calls))
    return view.part(moves), Chosen(choice.rows[some], choice.valid[some], choice.full, tilt, calls)


def moved_all(choice: Chosen, view: View, left: tuple[int, ...]) -> None:
    """ValueError unless full rows were all masked and distinct, which the positions ``left`` afterwards tell."""
    if choice.full and view.left is not None:
        items = range(len(left)) if view.items is None else view.items.tolist()
        if any(before - left[i] != choice.rows.shape[1] for before, i in zip(view.left, items)):
            raise ValueError(_position(choice.rows, _wrong(choice.rows, view)))


def parts(choice: Chosen, substeps: int) -> list[Tensor]:
    """Which of the rows are unmasked at each sub-step, bool [B, k]: consecutive parts of nearly equal size, none empty."""
    width = choice.rows.shape[1]
    if not choice.rows.numel() or substeps == 1:
        return [choice.valid] * min(choice.rows.numel(), 1)
    place = torch.arange(width, device=choice.rows.device)
    part = place * substeps // choice.valid.sum(1, keepdim=True).clamp(min=1)
    filled = range(substeps) if width >= substeps else sorted(set(part[choice.valid].tolist()))
    return [choice.valid & (part == s) for s in filled]


def _position(rows: Tensor, wrong: Tensor) -> str:
    return (
        f"the selector chose position {int(rows[wrong][0])}, which is visible, chosen twice or beyond the end; "
        "expected distinct masked positions"
    )


_NOTHING = "the selector chose no position for a row that is not finished; expected at least one"
_NAN = "a score is NaN; expected a number, or -inf where a position is not eligible"
