"""Scores: which masked positions are preferred. Each is ``score(view) -> float [B, L]``, high first, -inf if not masked.

Sighted scores read ``view.log_probs``, the law that symbols are drawn from; wrap one in `on_base` to read the law before
tempering. Blind scores read no probabilities, so the network is run after the choice, at the chosen rows only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from unmask import noise
from unmask.types import Score, View


def _sighted(reduce: Callable[[Tensor], Tensor], name: str) -> Score:
    """A score from a function of log_probs [.., V] to [..]."""

    def compute(view: View) -> Tensor:
        if view.log_probs is None:
            raise ValueError(f"{name} reads log-probabilities and there are none: a blind selector called it")
        return spread(view, reduce(view.log_probs))

    return Score(compute, name=name)


def spread(view: View, values: Tensor) -> Tensor:
    """Per-row values [B, R] of a view as float64 [B, L], -inf at positions that have no row."""
    if view.rows is None:
        return values.double()
    out = torch.full((len(values), view.tokens.shape[1] + 1), -torch.inf, dtype=torch.float64, device=values.device)
    out.scatter_(1, torch.where(view.rows < 0, view.tokens.shape[1], view.rows), values.double())
    return out[:, :-1]


def _margin(log_probs: Tensor) -> Tensor:
    """Difference of the two largest probabilities."""
    best = log_probs.topk(min(2, log_probs.shape[-1]), dim=-1).values.exp()
    return best[..., 0] - (best[..., 1] if best.shape[-1] > 1 else 0)


def entropy(log_probs: Tensor) -> Tensor:
    """Shannon entropy along the last axis, nats; impossible symbols count 0."""
    return torch.special.entr(log_probs.exp()).sum(-1)


confidence = _sighted(lambda log_probs: log_probs.amax(-1).exp(), "confidence")
"""Largest probability, in [0, 1]: top probability first (arXiv 2502.06768; MaskGIT's and LLaDA's rule draws first)."""

margin = _sighted(_margin, "margin")
"""Largest minus second largest probability, in [0, 1] (arXiv 2502.06768)."""

negative_entropy = _sighted(lambda log_probs: -entropy(log_probs), "negative_entropy")
"""Minus the entropy, in nats: the most certain position first."""

left_to_right = Score(lambda view: -_positions(view).expand(view.tokens.shape), blind=True, name="left_to_right")
"""Minus the position: the order of an autoregressive model."""


def at_random(seed: int) -> Score:
    """A uniformly random order, a pure function of (seed, order_id, position); values in (0, 1), blind."""
    return Score(lambda view: public_uniform(view, seed), blind=True, name=f"at_random({seed})")


def with_noise(score: Score, scale: float, seed: int) -> Score:
    """``score`` plus ``scale`` times standard Gumbel noise that is public: a function of (seed, order_id, position, step)."""

    def compute(view: View) -> Tensor:
        noisy = noise.gumbel(seed, noise.ORDER, _orders(view), _positions(view).long(), 1 + view.step)
        return score(view) + scale * noisy

    return Score(compute, blind=score.blind, name=f"with_noise({score.name}, {scale}, {seed})")


def on_base(score: Score) -> Score:
    """The score as it reads the law before tempering and top-p changed it (guidance outside of them counts as the law)."""

    def compute(view: View) -> Tensor:
        base = view.log_probs if view.base_log_probs is None else view.base_log_probs
        return score(replace(view, log_probs=base))

    return Score(compute, blind=score.blind, name=f"on_base({score.name})")


def public_uniform(view: View, seed: int) -> Tensor:
    """Float64 [B, L] uniforms on (0, 1) that depend on (seed, order_id, position) only: constant over the steps."""
    return noise.uniform(seed, noise.ORDER, _orders(view), _positions(view).long())


def _positions(view: View) -> Tensor:
    """0..L-1 as float64 [1, L]."""
    return torch.arange(view.tokens.shape[1], dtype=torch.float64, device=view.tokens.device)[None]


def _orders(view: View) -> Tensor:
    """order_ids int64 [B, 1], zero when the view has none."""
    return view.tokens.new_zeros(len(view.tokens), 1) if view.order_ids is None else view.order_ids[:, None]
