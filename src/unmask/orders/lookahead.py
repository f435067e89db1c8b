"""Which positions may be unmasked together? PUNT asks the denoiser what would move if the most certain ones were known."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from unmask.base.numbers import real
from unmask.base.types import Choice, Denoiser, Score, Selector, View
from unmask.denoisers import ask, passes
from unmask.orders.described import described
from unmask.orders.rules import divergence, law_of, rows_of
from unmask.orders.scores import confidence, spread
from unmask.orders.selectors import GRID, ranked, take


@described
def independent(denoiser: Denoiser, eps: float = 0.05, score: Score = confidence) -> Selector:
    """All positions whose law moves by at most ``eps`` nats, KL(after || now), once better ones are filled in; PUNT.

    Positions are numbered by score, the best 0. From the highest binary digit to the lowest, those with a 0 there are
    filled with their most probable symbols, and those with a 1 that move are left out, at one call of ``denoiser`` each
    time: ceil(log2 n) calls of n masked positions, counted in nfe. The best position is always taken; what the calls saw
    cannot be kept, for symbols are drawn afterwards. Independence is tested at those symbols only. Where they exclude each
    other, a law has no more to say and the test means nothing: exact laws answer uniformly (`laws.Law`). Source: PUNT,
    arXiv 2510.21961, which fills in drawn symbols.
    """
    eps = real(eps, "eps", 0)

    def choose(view: View) -> Choice:
        values, likely = score(view), spread(view, law_of(view).argmax(-1)).long()
        place, kept = ranked(values, view.masked).argsort(1), view.masked
        calls = torch.zeros_like(values[:, 0])
        for digit in reversed(range(max(0, max(view.counts()) - 1).bit_length())):
            late = (place >> digit & 1).bool()
            items = ((kept & late).any(1) & (kept & ~late).any(1)).nonzero()[:, 0]
            if len(items):
                trial = torch.where(kept & ~late, likely, view.tokens)[items]
                moves = _moved(denoiser, view, items, trial) > eps + GRID
                kept = kept.index_copy(0, items, kept[items] & ~(late[items] & moves))
                calls = calls.index_add(0, items, torch.ones_like(calls[items]))
        choice = take(view, values.masked_fill(~kept, -torch.inf), kept.sum(1))
        return replace(choice, calls=calls * passes(denoiser))

    return Selector(choose, name=f"independent({eps}, {score.name})")


def _moved(denoiser: Denoiser, view: View, items: Tensor, trial: Tensor) -> Tensor:
    """KL(law at tokens ``trial`` int64 [b, L] || law now) of the batch rows ``items``, nats, [b, L]."""
    rows, part = rows_of(view)[items], view.part(items)
    after = ask(denoiser, trial, rows.clamp(min=0), rows >= 0, time=part.time)
    return spread(part, divergence(after, law_of(view)[items]))
