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

    ``calls`` float64 [B], or 0, counts passes beyond the first. Before the first sub-step there are no symbols.
    """

    tokens: Tensor
    symbols: Tensor | None = None
    log_probs: Tensor | None = None
    entropies: Tensor | None = None
    calls: Tensor | float = 0.0

    def by(self, law: Tensor, took: Tensor, choice: Chosen, mine: Tensor, entropies: bool) -> Moved:
        """After the symbols ``took`` int64 [B, k] were written at ``mine`` of the rows, which had this law [B, k, V]."""
        kind = precise(law.device)
        found = {"symbols": took, "log_probs": take_symbols(law, took).to(kind)}
        blank = {"symbols": 0, "log_probs": 0.0, "entropies": torch.nan}
        if entropies:
            found["entropies"] = by_slices(entropy, law).to(kind)
        if not (choice.full and mine is choice.valid):
            before = {n: blank[n] if self.symbols is None else getattr(self, n) for n in found}
            found = {n: torch.where(mine, value, before[n]) for n, value in found.items()}
        return replace(self, tokens=written(self.tokens, choice, took, mine), **found)

    def and_passed(self, look: Look, choice: Chosen, mine: Tensor) -> Moved:
        """After a partial pass over the chosen rows of the items that have any of ``mine``: m of L rows count m/L."""
        share = choice.valid.sum(1).to(precise(mine.device)) / self.tokens.shape[1]
        return replace(self, calls=self.calls + look.passes * mine.any(1) * share)

    def total(self) -> Tensor | float:
        """The log-probability of what was unmasked, nats [B]."""
        if self.log_probs is None:
            return 0.0
        return self.log_probs[:, 0] if self.log_probs.shape[1] == 1 else self.log_probs.sum(1)

    def info(self, view: View, choice: Chosen, look: Look) -> Info:
        """The entry of the trace."""
        rows, symbols, log_probs = choice.marked, self.symbols, self.log_probs
        if symbols is None or log_probs is None:  # nothing was chosen
            symbols, log_probs = rows, torch.zeros_like(rows, dtype=precise(rows.device))
        symbols = symbols if choice.full else symbols.masked_fill(~choice.valid, -1)
        return Info(view.places, rows, symbols, log_probs, look.seconds, self.entropies, look.dtype)


def written(tokens: Tensor, choice: Chosen, values: Tensor | bool, where: Tensor) -> Tensor:
    """Tokens (or a map) [B, L] with ``values`` at those chosen rows that are marked by ``where`` bool [B, k]."""
    if choice.full and where is choice.valid:
        return tokens.scatter(1, choice.rows, values)
    place = choice.rows.masked_fill(~where, tokens.shape[1])  # the others go to a column that is dropped
    return F.pad(tokens, (0, 1)).scatter(1, place, values)[:, :-1]


def placed(whole: Tensor, part: Tensor, view: View) -> Tensor:
    """The whole batch [B, ..] with ``part`` at the items of a view."""
    return part.contiguous() if view.items is None else whole.index_copy(0, view.items, part)


def added(whole: Tensor, part: Tensor | float, view: View) -> Tensor:
    """The whole batch [B] with ``part`` added at the items of a view."""
    if view.items is None:
        return whole + part
    return whole.index_add(0, view.items, torch.zeros_like(view.items, dtype=whole.dtype) + part)


def remembered(state: State, view: View, memory: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A selector's memory, tensors [B', ..], among the whole batch; zero for the others."""
    return tuple(placed(m.new_zeros(len(state.tokens), *m.shape[1:]), m, view) for m in memory)


def symbols(took: Tensor, mine: Tensor, choice: Chosen, look: Look, doubts: Doubts) -> Tensor:
    """What a source gave, if it can be symbols of ``mine`` [B, k]: int64, data only, no mask."""
    if took.dtype != torch.int64 or took.shape != mine.shape:
        raise ValueError(
            f"the source gave symbols of dtype {took.dtype} and shape {list(took.shape)}; "
            f"expected int64 {list(mine.shape)}"
        )
    size, mask_id = look.denoiser.vocab_size, look.denoiser.mask_id
    data = took.clamp(0, size - 1)
    wrong = data != took if mask_id >= size else (data != took) | (took == mask_id)
    wrong = wrong if choice.full and mine is choice.valid else wrong & mine
    doubts.add(wrong, lambda: _foreign(took[wrong], size, mask_id))
    return data


def _foreign(found: Tensor, size: int, mask_id: int) -> str:
    what = "the mask" if int(found[0]) == mask_id else f"symbol {int(found[0])}"
    return f"the source gave {what} for a masked position; expected data symbols 0..{size - 1}"
