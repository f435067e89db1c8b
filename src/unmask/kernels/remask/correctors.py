"""Kernels that draw anew what is there already, the least reliable first."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from unmask.base.numbers import whole
from unmask.base.types import Denoiser, Info, Score, View
from unmask.denoisers import take_symbols
from unmask.kernels.remask.chain import Chain, Kernel
from unmask.kernels.remask.pieces import best_of, fill, hide, look_at, named, rows_with, uniforms
from unmask.orders.scores import spread
from unmask.orders.selectors import is_blind


def gibbs(count: int = 1, reliability: Score | None = None) -> Kernel:
    """Hides the ``count`` least reliable visible symbols outside the prompt and draws them anew, all unseen.

    Without ``reliability`` the positions are uniformly random, one call: with exact conditionals and count 1
    this is the Gibbs sampler and leaves the law unchanged. A sighted score (one more call) reads the law at
    visible positions; `symbol_margin` with noise is the informed corrector (arXiv 2407.21243). Choosing by
    the symbols, or several at once, changes the law.
    """
    count = whole(count, "count", 1)

    def kernel(state: Chain, denoiser: Denoiser, seed: int) -> tuple[Chain, tuple[Info, ...]]:
        visible = state.free & ~state.masked
        scores, seconds = uniforms(state, seed), 0.0
        if reliability is not None:
            state, view, seconds = look_at(state, None if is_blind(reliability) else denoiser, visible)
            if len(view.tokens):
                scores = scores.index_copy(0, rows_with(visible), reliability(view))
        again = best_of(View(state.tokens, visible), -scores, torch.full((len(scores),), count))
        state, hidden = hide(state, again, denoiser.mask_id)
        state, shown = fill(state, denoiser, again, seed)
        return state, tuple(replace(i, network_seconds=seconds) for i in hidden) + shown

    return named(kernel, f"gibbs({count}, {getattr(reliability, 'name', 'at random')})")


def _symbol_margin(view: View) -> Tensor:
    if view.log_probs is None or view.rows is None:
        raise ValueError("symbol_margin reads log-probabilities and there are none: a blind kernel called it")
    symbols = view.tokens.gather(1, view.rows.clamp(min=0))
    if view.log_probs.shape[-1] == 1:  # no rival
        return spread(view, torch.full_like(symbols, 100.0, dtype=view.log_probs.dtype))
    best = view.log_probs.topk(2, dim=-1)
    rival = torch.where(best.indices[..., 0] == symbols, best.values[..., 1], best.values[..., 0])
    return spread(view, (take_symbols(view.log_probs, symbols) - rival).clamp(-100, 100))


symbol_margin = Score(_symbol_margin, name="symbol_margin")
"""log p(symbol that stands there) minus that of its best rival, nats, within +-100 (arXiv 2407.21243).

Meant for networks whose law at a visible position does not see its own symbol; others look too sure of it.
"""
