"""What a selector chose and a source gave is checked: on the device, and read once, at the end of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unmask.base.types import Choice, Selector, View
from unmask.denoisers import take_rows


class Doubts:
    """What may be wrong at a step: flags that stay on the device until `settled` reads them, all in one transfer."""

    def __init__(self) -> None:
        self.flags: list[Tensor] = []
        self.reasons: list[Callable[[], str]] = []

    def add(self, wrong: Tensor, reason: Callable[[], str]) -> None:
        """An error, bool of any shape, and what to say of it."""
        self.flags.append(wrong.any())
        self.reasons.append(reason)

    def settled(self, masked: Tensor) -> Tensor:
        """The number of True in each row of masked bool [B, L], int64 [B] on the CPU; ValueError if a flag is up."""
        found = (
            torch.cat([masked.sum(1), torch.stack(self.flags)]).cpu() if self.flags else masked.sum(1).cpu()
        )
        wrong = found[len(masked) :].nonzero()
        if len(wrong):
            raise ValueError(self.reasons[int(wrong[0])]())
        return found[: len(masked)]


@dataclass(frozen=True)
class Chosen:
    """Rows int64 [B, k], real where ``valid`` bool [B, k], which is at the front; elsewhere the first one again.

    ``tilt`` and ``calls`` are those of the `Choice`, ``memory`` is what it wants back.
    """

    rows: Tensor
    valid: Tensor
    tilt: Tensor | None
    calls: Tensor | None
    memory: tuple[Tensor, ...]

    @property
    def marked(self) -> Tensor:
        """The rows with -1 where they are padding."""
        return self.rows.masked_fill(~self.valid, -1)


def chosen(selector: Selector | Callable[[View], Choice], view: View, doubts: Doubts) -> Chosen:
    """What the selector chooses: rows that are masked, distinct and, unless it keeps time, at least one for each item."""
    choice, shape = selector(view), view.tokens.shape
    rows = choice.rows
    if rows.dtype != torch.int64 or rows.ndim != 2 or len(rows) != shape[0]:
        raise ValueError(
            f"the selector gave rows of dtype {rows.dtype} and shape {list(rows.shape)}; expected int64 [{shape[0]}, k]"
        )
    valid, place = rows >= 0, rows.clamp(0, shape[1] - 1)
    hits = torch.zeros_like(view.tokens).scatter_add_(1, place, valid.long())
    wrong = valid & ((hits > view.masked).gather(1, place) | (place != rows))
    doubts.add(wrong, lambda: _wrong_position(rows[wrong]))
    if getattr(selector, "time", None) is None:
        doubts.add(~valid.any(1), lambda: _NOTHING)
    if choice.doubt is not None:
        doubts.add(choice.doubt, lambda: _NAN)
    return _packed(replace(choice, rows=place), valid)


def _packed(choice: Choice, valid: Tensor) -> Chosen:
    """The choice with its valid rows at the front: -1 may stand anywhere."""
    order = (~valid).to(torch.uint8).sort(dim=1, stable=True).indices
    rows, valid = choice.rows.gather(1, order), valid.gather(1, order)
    tilt = None if choice.tilt is None else take_rows(choice.tilt, order)
    return Chosen(torch.where(valid, rows, rows[:, :1]), valid, tilt, choice.calls, choice.memory)


def moving(view: View, choice: Chosen) -> tuple[View, Chosen]:
    """The items for which anything was chosen: the others, at this step of a clock, need no network call."""
    some = choice.valid.any(1).nonzero()[:, 0]
    tilt, calls = (None if x is None else x[some] for x in (choice.tilt, choice.calls))
    return view.part(some), Chosen(choice.rows[some], choice.valid[some], tilt, calls, ())


def parts(choice: Chosen, substeps: int) -> list[Tensor]:
    """Which of the rows are unmasked at each sub-step, bool [B, k]: consecutive parts of nearly equal size, none empty."""
    width = choice.rows.shape[1]
    if not choice.rows.numel() or substeps == 1:
        return [choice.valid] * min(choice.rows.numel(), 1)
    place = torch.arange(width, device=choice.rows.device)
    part = place * substeps // choice.valid.sum(1, keepdim=True).clamp(min=1)
    found = [choice.valid & (part == s) for s in range(substeps)]
    return found if width >= substeps else [mine for mine in found if bool(mine.any())]


def _wrong_position(rows: Tensor) -> str:
    return (
        f"the selector chose position {int(rows[0])}, which is visible, chosen twice or beyond the end; "
        "expected distinct masked positions"
    )


_NOTHING = "the selector chose no position for a row that is not finished; expected at least one"
_NAN = "a score is NaN; expected a number, or -inf where a position is not eligible"
