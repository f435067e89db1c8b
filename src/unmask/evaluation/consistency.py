"""Does a model say the same of a sequence along every order? The spread, where it comes from, what mixing orders gains.

A law gives a sequence one probability, whatever the order of its positions. A network gives many; their spread over orders
is an error that no data are needed to see. Along an order s the log-probability is a sum over steps,

    l(s) = sum_i log p(x_{s_i} | the first i visible),

so the share of the variance of l that step i (or a position) brings is Cov(term, l) / Var l; shares sum to 1 and may be
negative, where a term takes back what others did. The even mixture of K orders is a law too; it gains

    log(1/K sum_s exp l(s)) - 1/K sum_s l(s) >= 0    nats over one of them at random.

Derived.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask import engine
from unmask.base.numbers import whole
from unmask.base.types import Denoiser, Plan, Selector
from unmask.denoisers import check_tokens, checked_visible
from unmask.orders import presets
from unmask.orders.sources import given


@dataclass(frozen=True, eq=False)
class Consistency:
    """Exact log-probabilities float64 [n, K], nats, of n sequences along K orders, and shares of their variance.

    ``by_visible`` float64 [L] are the shares of the steps by how many positions were visible, ``by_position`` [L] those of
    the positions: means over sequences, weighted by variance.
    """

    log_probs: Tensor
    by_visible: Tensor
    by_position: Tensor

    @property
    def spread(self) -> Tensor:
        """Standard deviation over orders of each sequence, nats, float64 [n]; 0 of a law."""
        return self.log_probs.std(1)

    @property
    def mixing(self) -> Tensor:
        """What the even mixture of the K orders gains over one of them at random, nats, float64 [n]."""
        count = self.log_probs.shape[1]
        return self.log_probs.logsumexp(1) - math.log(count) - self.log_probs.mean(1)


def consistency(
    denoiser: Denoiser,
    tokens: Tensor,
    *,
    orders: int = 8,
    visible: Tensor | None = None,
    plan: Plan = 1,
    seed: int = 0,
    batch_size: int = 64,
) -> Consistency:
    """Scores tokens int64 [n, L] along ``orders`` random orders: positions x orders calls a sequence.

    ``visible`` bool [n, L] is given and not scored. ``plan`` unmasks several positions at once, which costs what plans cost
    and is a part of the spread then. The orders are the same for all sequences.
    """
    check_tokens(tokens, denoiser, masks=False)
    if whole(orders, "orders", 2) and not len(tokens):
        raise ValueError("no sequences; expected at least one")
    selector, parts = presets.random(plan, seed), []
    given_, batch_size = checked_visible(visible, tokens), whole(batch_size, "batch_size", 1)
    for places in torch.split(torch.arange(len(tokens) * orders, device=tokens.device), batch_size):
        items, ids = places // orders, places % orders
        parts.append(_terms(denoiser, tokens[items], given_[items], ids, selector))
    by_step, by_place = (torch.cat(x).view(len(tokens), orders, -1) for x in zip(*parts))
    return Consistency(by_place.sum(2), _shares(by_step), _shares(by_place))


@torch.no_grad()
def _terms(
    denoiser: Denoiser, tokens: Tensor, visible: Tensor, ids: Tensor, selector: Selector
) -> tuple[Tensor, Tensor]:
    """The terms of the log-probability by how many were visible (of those hidden), and by position: float64 [B, L] each."""
    start = torch.where(visible, tokens, denoiser.mask_id)
    state, source = engine.init(start, denoiser.mask_id, ids), given(tokens)
    total = state.masked.sum(1, keepdim=True)
    by_step, by_place = (
        torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device) for _ in range(2)
    )
    while any(state.left):
        seen = (total - state.masked.sum(1, keepdim=True)).clamp(max=tokens.shape[1] - 1)
        state, info = engine.step(state, denoiser, selector, source)
        terms = torch.where(info.rows >= 0, info.log_probs.double(), 0.0)
        by_step[info.items] = by_step[info.items].scatter_add(1, seen[info.items], terms.sum(1, keepdim=True))
        by_place[info.items] = by_place[info.items].scatter_add(1, info.rows.clamp(min=0), terms)
    return by_step, by_place


def _shares(terms: Tensor) -> Tensor:
    """Cov(term, sum) / Var sum over orders, of terms [n, K, L], pooled over sequences: float64 [L]; 0 of a law."""
    centred = terms - terms.mean(1, keepdim=True)
    total = centred.sum(2, keepdim=True)
    variance = float(total.square().sum())
    shares = (centred * total).sum((0, 1))
    return shares / variance if variance > TINY else torch.zeros_like(shares)


TINY = 1e-18
"""A sum of squares in nats that is rounding."""
