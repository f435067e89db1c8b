"""The network calls of one step: what was seen, the cache that it left, what it took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor

from unmask.base.types import Cache, Denoiser, Request, State, View
from unmask.denoisers import (
    caches,
    certain,
    masked_rows,
    passes,
    shaped,
    take_rows,
    unlawful,
    untempered,
    vouched,
)
from unmask.denoisers.checks import complaint
from unmask.engine.choosing import Chosen, Doubts

Settle: TypeAlias = Callable[[Request], Tensor]
"""What happens to the denoiser's law before anything reads it: a `Request` to log_probs of the same shape."""


class Look:
    """Asks the denoiser within one step; ``keep`` says that a cache will be wanted.

    ``cost`` is that of the first call for each item, in passes; a block cache makes it less than 1.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        state: State,
        doubts: Doubts,
        settle: Settle | None = None,
        seed: int | None = None,
        *,
        keep: bool = False,
    ) -> None:
        self.denoiser, self.blocks = caches.unwrapped(denoiser)
        self.root, self.change = untempered(self.denoiser)
        self.state, self.doubts, self.settle, self.seed, self.keep = state, doubts, settle, seed, keep
        self.passes, self.seconds = passes(self.denoiser), 0.0
        self.cost: Tensor | float = 1.0
        self.remembered = state.remembered
        self.cache: Cache = None
        self.dtype: torch.dtype | None = None
        self.before: tuple[Tensor, Tensor | None] | None = None

    def at_masked(self, view: View) -> View:
        """The view with log-probabilities at every masked position, before and after tempering."""
        if self.blocks is None:
            counts = view.counts()
            rows, marked = masked_rows(view.masked, max(counts), padded=min(counts) < max(counts))
        else:  # the filling must stay inside the block
            view = replace(view, left=None, total=None)
            rows, marked = masked_rows(view.masked & self.blocks.inside(view.tokens))
            rows = torch.where(marked < 0, rows[:, :1], rows)
        valid = view.all_true(rows.shape[1]) if rows is marked else marked >= 0
        base, law = self._laws(lambda: self._ask(view, rows), view, rows, valid)
        self.before = (law, rows if rows is marked else None)
        if rows is not marked:
            place = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
            self.slots = torch.zeros_like(view.tokens).scatter_(1, rows, place)
        return replace(view, log_probs=law, base_log_probs=base, rows=marked)

    def first(self, view: View, choice: Chosen, mine: Tensor) -> Tensor:
        """The law [B, k, V] at the chosen rows where ``mine``, called for or seen before; tilted if the choice says so."""
        if self.blocks is not None:
            self.blocks.check(view.tokens, choice.rows)
        if self.before is not None:
            law = take_rows(self.before[0], self._places(choice.rows))
        else:
            law = self._laws(lambda: self._ask(view, choice.rows), view, choice.rows, mine)[1]
        return self._tilted(law, choice, mine)

    def _places(self, rows: Tensor) -> Tensor:
        """Where rows int64 [B, k] stand among those that were asked for: these are sorted, unless there was padding."""
        assert self.before is not None
        asked = self.before[1]
        if asked is None:
            return self.slots.gather(1, rows)
        return torch.searchsorted(asked, rows.contiguous()).clamp_(max=asked.shape[1] - 1)

    def again(self, tokens: Tensor, view: View, choice: Chosen, mine: Tensor) -> Tensor:
        """The same after a partial pass over the rows, some of whose symbols are known by now (tokens int64 [B, L])."""
        rows = choice.rows
        law = self._laws(
            lambda: self.root.partial(tokens, rows, self.cache, time=view.time), view, rows, mine
        )[1]
        return self._tilted(law, choice, mine)

    def request(self, law: Tensor, view: View, rows: Tensor, valid: Tensor) -> Request:
        """What a source, or the codec's rounding, is asked at rows int64 [B, k]."""
        items, state = view.places, self.state
        ids = state.item_ids if view.items is None else state.item_ids[items]
        return Request(law, rows, valid, items, state.step, self.seed, ids, tuple(state.tokens.shape))

    def _laws(
        self, produce: Callable[[], Tensor], view: View, rows: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The law before and after wrappers such as `tempered`, each settled; the same tensor where there are none."""
        began = time.perf_counter()
        base = shaped(produce(), view.tokens, rows, self.root)
        self.seconds += time.perf_counter() - began
        self.dtype = base.dtype
        if not vouched(self.root):
            self._doubt(base, rows, valid)
        base = law = self._settled(base, view, rows, valid)
        if self.root is not self.denoiser:
            began = time.perf_counter()
            law = shaped(self.change(base, view.tokens, rows), view.tokens, rows, self.denoiser)
            self.seconds += time.perf_counter() - began
            if not certain(self.denoiser):
                self._doubt(law, rows, valid)
            law = self._settled(law, view, rows, valid)
        return base, law

    def _ask(self, view: View, rows: Tensor) -> Tensor:
        """One call of the root, through the block cache if there is one."""
        extra = {} if view.time is None else {"time": view.time}
        if self.blocks is not None:
            law, self.remembered, self.cost = self.blocks.law(
                self.root, view.tokens, rows, view.places, self.remembered, extra
            )
            self.cache = self.remembered.cache
            return law
        if self.keep:
            law, self.cache = self.root.full(view.tokens, rows, **extra)
            return law
        return self.root(view.tokens, rows, **extra)

    def _doubt(self, law: Tensor, rows: Tensor, valid: Tensor) -> None:
        totals, wrong = unlawful(law, valid)
        self.doubts.add(wrong, lambda: complaint(law, totals, rows, wrong))

    def _settled(self, law: Tensor, view: View, rows: Tensor, valid: Tensor) -> Tensor:
        return law if self.settle is None else self.settle(self.request(law, view, rows, valid))

    def _tilted(self, law: Tensor, choice: Chosen, mine: Tensor) -> Tensor:
        """The law times exp(tilt), renormalised."""
        if choice.tilt is None:
            return law
        tilted = torch.log_softmax(law + choice.tilt, dim=-1)
        wrong = mine & tilted.isnan().any(-1)
        self.doubts.add(wrong, lambda: _TILT)
        return tilted


_TILT = "the selector's tilt is NaN or leaves no symbol possible at a row; expected finite log-weights"
