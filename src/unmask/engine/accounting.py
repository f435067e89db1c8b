"""What one step did: tokens written, log-probability and network calls added up."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.base.devices import precise
from unmask.base.types import Info, State, View
from unmask.denoisers import take_symbols
from unmask.engine.asking import Look
from unmask.engine.choosing import Chosen, Doubts
from unmask.orders.scores import by_slices, entropy


@dataclass(frozen=True)
class Moved:
    """What a step has done so far: tokens int64 [B, L] as they are now; symbols, log_probs (nats), entropies [B, k].

    ``calls`` float64 [B] counts passes beyond the first.
    """

    tokens: Tensor
    symbols: Tensor
    log_probs: Tensor
    calls: Tensor
    entropies: Tensor | None

    @staticmethod
    def nothing(view: View, choice: Chosen, entropies: bool) -> Moved:
        """Before the first sub-step."""
        zeros = torch.zeros(choice.rows.shape, dtype=precise(choice.rows.device), device=choice.rows.device)
        spread = torch.full_like(zeros, torch.nan) if entropies else None
        return Moved(view.tokens, torch.zeros_like(choice.rows), zeros, zeros.sum(1), spread)

    def by(self, law: Tensor, took: Tensor, choice: Chosen, mine: Tensor) -> Moved:
        """After the symbols ``took`` int64 [B, k] were written at ``mine`` of the rows, which had this law [B, k, V]."""
        found = take_symbols(law, took.clamp(0, law.shape[-1] - 1)).to(self.log_probs.dtype)
        spread = self.entropies
        if spread is not None:
            spread = torch.where(mine, by_slices(entropy, law).to(spread.dtype), spread)
        return replace(
            self,
            tokens=written(self.tokens, choice.rows, took, mine),
            symbols=torch.where(mine, took, self.symbols),
            log_probs=torch.where(mine, found, self.log_probs),
            entropies=spread,
        )

    def and_passed(self, look: Look, choice: Chosen, mine: Tensor) -> Moved:
        """After a partial pass over the chosen rows of the items that have any of ``mine``: m of L rows count m/L."""
        share = choice.valid.sum(1).to(self.calls.dtype) / self.tokens.shape[1]
        return replace(self, calls=self.calls + look.passes * mine.any(1) * share)

    def info(self, view: View, choice: Chosen, look: Look) -> Info:
        """The entry of the trace."""
        symbols = self.symbols.masked_fill(~choice.valid, -1)
        return Info(
            view.places, choice.marked, symbols, self.log_probs, look.seconds, self.entropies, look.dtype
        )


def written(tokens: Tensor, rows: Tensor, values: Tensor | int, where: Tensor) -> Tensor:
    """Tokens (or a map) [B, L] with ``values`` at those rows int64 [B, k] that are marked by ``where`` bool [B, k]."""
    place = rows.masked_fill(~where, tokens.shape[1])  # the others go to a column that is dropped
    if not isinstance(values, Tensor):
        values = torch.full_like(rows, values)
    return F.pad(tokens, (0, 1)).scatter(1, place, values.to(tokens.dtype))[:, :-1]


def placed(whole: Tensor, part: Tensor, view: View) -> Tensor:
    """The whole batch [B, ..] with ``part`` at the items of a view."""
    return part.contiguous() if view.items is None else whole.index_copy(0, view.items, part)


def added(whole: Tensor, part: Tensor, view: View) -> Tensor:
    """The whole batch [B] with ``part`` added at the items of a view."""
    return whole + part if view.items is None else whole.index_add(0, view.items, part)


def remembered(state: State, view: View, memory: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A selector's memory, tensors [B', ..], among the whole batch; zero for the others."""
    return tuple(placed(m.new_zeros(len(state.tokens), *m.shape[1:]), m, view) for m in memory)


def symbols(took: Tensor, mine: Tensor, look: Look, doubts: Doubts) -> Tensor:
    """What a source gave, if it can be symbols of ``mine`` [B, k]: int64, data only, no mask."""
    if took.dtype != torch.int64 or took.shape != mine.shape:
        raise ValueError(
            f"the source gave symbols of dtype {took.dtype} and shape {list(took.shape)}; "
            f"expected int64 {list(mine.shape)}"
        )
    size, mask_id = look.denoiser.vocab_size, look.denoiser.mask_id
    wrong = mine & ((took < 0) | (took >= size) | (took == mask_id))
    doubts.add(wrong, lambda: _foreign(took[wrong], size, mask_id))
    return took


def _foreign(found: Tensor, size: int, mask_id: int) -> str:
    what = "the mask" if int(found[0]) == mask_id else f"symbol {int(found[0])}"
    return f"the source gave {what} for a masked position; expected data symbols 0..{size - 1}"
