"""Kernels that bring a sequence nearer to its end: reverse diffusion with re-masking, and path planning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor

from unmask.base.numbers import real, whole
from unmask.base.types import Denoiser, Info, View
from unmask.kernels.remask.chain import Chain, Kernel
from unmask.kernels.remask.pieces import best_of, fill, hide, named, new_symbols, uniforms, write
from unmask.masking.schedules import check_times
from unmask.orders.scores import setting


@dataclass(frozen=True)
class Interval:
    """A step of the reverse process from time t down to s; alpha is the probability of being visible."""

    t: float
    s: float
    alpha_t: float
    alpha_s: float

    @property
    def limit(self) -> float:
        """The largest chance of hiding a symbol that keeps the marginals: min(1, (1-alpha_s)/alpha_t)."""
        return 1.0 if self.alpha_t <= 0 else min(1.0, (1 - self.alpha_s) / self.alpha_t)


Sigma: TypeAlias = Callable[[Interval, Tensor], "Tensor | float"]
"""Chance of hiding a visible symbol: (interval, its probability when unmasked [B, L]) -> float or [B, L]."""


def remdm(alpha: Callable[[Tensor], Tensor], times: Tensor, sigma: Sigma) -> tuple[Kernel, ...]:
    """Reverse diffusion with re-masking (ReMDM, arXiv 2503.00307): one kernel per interval of ``times``.

    A visible symbol is hidden with probability sigma, a masked one drawn with (alpha_s - (1 - sigma)
    alpha_t) / (1 - alpha_t), both given the tokens at t: a share alpha_s is visible at s, whatever sigma.
    ``times`` float64 [T + 1] falls from 1 to 0, where all is unmasked. `psi` of 1 is ancestral sampling. One
    call per step for rows that draw something, at those positions.
    """
    times = check_times(times)
    levels = alpha(times.double()).tolist()
    levels[-1] = 1.0
    ends = zip(pairwise(times.tolist()), pairwise(levels))
    return tuple(_reverse(Interval(t, s, alpha_t, alpha_s), sigma) for (t, s), (alpha_t, alpha_s) in ends)


def chance_of_change(masked: Tensor, interval: Interval, sigma: Tensor | float) -> Tensor:
    """Probability float64 [B, L] that a position changes: hidden if visible, unmasked if masked (ReMDM)."""
    hidden = torch.as_tensor(sigma, dtype=torch.float64, device=masked.device).expand(masked.shape)
    if interval.alpha_t >= 1:
        return hidden.masked_fill(masked, 1.0)
    shown = (interval.alpha_s - (1 - hidden) * interval.alpha_t) / (1 - interval.alpha_t)
    return torch.where(masked, shown, hidden)


def _reverse(interval: Interval, sigma: Sigma) -> Kernel:
    def kernel(state: Chain, denoiser: Denoiser, seed: int) -> tuple[Chain, tuple[Info, ...]]:
        chance = chance_of_change(state.masked, interval, sigma(interval, state.certainty))
        changing = uniforms(state, seed) < chance
        after, shown = fill(state, denoiser, changing & state.masked, seed, interval.t)
        after, hidden = hide(after, changing & ~state.masked, denoiser.mask_id)
        return after, shown + hidden

    return named(kernel, f"remdm({setting(sigma)})")


def cap(eta: float = 0.008) -> Sigma:
    """At most eta: ReMDM-cap; 0.008 for text at 1024 steps (arXiv 2503.00307)."""
    eta = real(eta, "eta", 0, 1)
    return named(lambda interval, _: min(eta, interval.limit), f"cap({eta})")


def rescale(eta: float = 0.015) -> Sigma:
    """The share eta of the limit: ReMDM-rescale; 0.015 for text at 1024 steps (arXiv 2503.00307)."""
    eta = real(eta, "eta", 0, 1)
    return named(lambda interval, _: eta * interval.limit, f"rescale({eta})")


def psi(kappa: float) -> Sigma:
    """(1 - kappa)(1 - alpha_s): a position goes the ancestral way with probability kappa, or is noised anew.

    To noise anew is to draw a clean symbol (or take the visible one) and to mask it with 1 - alpha_s. 1 is
    ancestral sampling, 0 full re-noising. Psi samplers (s-sahoo/duo) in the form of ReMDM: derived.
    """
    kappa = real(kappa, "kappa", 0, 1)
    return named(lambda interval, _: (1 - kappa) * (1 - interval.alpha_s), f"psi({kappa})")


def by_confidence(sigma: Sigma) -> Sigma:
    """``sigma`` shared out among visible symbols, most to the least probable: softmax of -p at unmasking.

    ReMDM-conf is ``by_confidence(rescale(1))`` (arXiv 2503.00307). The shares of a row sum to sigma. As
    published, masked positions unmask as in ancestral sampling, so fewer symbols are visible than the
    schedule says.
    """

    def shared(interval: Interval, probability: Tensor) -> Tensor:
        share = torch.softmax(-probability, dim=1)
        return share.nan_to_num(0.0) * sigma(interval, probability)  # NaN: a row with nothing to hide

    return named(shared, f"by_confidence({setting(sigma)})")


def between(sigma: Sigma, t_on: float = 0.55, t_off: float = 0.05) -> Sigma:
    """``sigma`` for intervals that start in (t_off, t_on], else 0: the window of ReMDM's switch and loop."""
    t_on, t_off = real(t_on, "t_on"), real(t_off, "t_off")

    def windowed(interval: Interval, probability: Tensor) -> Tensor | float:
        return sigma(interval, probability) if t_off < interval.t <= t_on else 0.0

    return named(windowed, f"between({setting(sigma)}, {t_on}, {t_off})")


def looped(t_on: float = 0.55, t_off: float = 0.05, alpha_on: float = 0.9) -> Callable[[Tensor], Tensor]:
    """alpha(t) of ReMDM-loop: linear up to alpha_on at t_on, constant down to t_off, linear to 1 at time 0.

    ReMDM-loop is ``remdm(looped(), times, between(cap(0.02)))`` (arXiv 2503.00307; values for text, 1024
    steps).
    """
    t_on, t_off, alpha_on = real(t_on, "t_on"), real(t_off, "t_off"), real(alpha_on, "alpha_on")
    if not 0 < t_off < t_on < 1 or not 0 < alpha_on < 1:
        raise ValueError(
            f"t_on {t_on}, t_off {t_off}, alpha_on {alpha_on}: expected 0 < t_off < t_on < 1, 0 < alpha_on < 1"
        )
    return lambda t: torch.where(
        t > t_on, alpha_on * (1 - t) / (1 - t_on), 1 - (1 - alpha_on) * t.clamp(max=t_off) / t_off
    )


def p2(steps: int, eta: float = 1.0) -> tuple[Kernel, ...]:
    """Path planning, the model as its own planner (P2, arXiv 2502.03540): ``steps`` kernels, one call each.

    Draws at every position outside the prompt and scores it by log p of the draw, times ``eta`` where a
    symbol is visible; step i leaves the floor(n (1 - i/steps)) lowest of all n masked, hiding visible ones
    among them. Visible symbols that stay are not replaced. eta 0 hides none, above 1 more. Biased, as all
    rules that draw first.
    """
    steps, eta = whole(steps, "steps", 1), real(eta, "eta", 0)
    return tuple(_plan_path(left, steps, eta) for left in range(steps - 1, -1, -1))


def _plan_path(left: int, steps: int, eta: float) -> Kernel:
    """The kernel after which a share left/steps is masked."""

    def kernel(state: Chain, denoiser: Denoiser, seed: int) -> tuple[Chain, tuple[Info, ...]]:
        before, total = state, state.free.sum(1)
        state, drawn = new_symbols(state, denoiser, state.free, seed)
        score = torch.where(before.masked, drawn.log_probs, eta * drawn.log_probs)
        kept = best_of(View(before.tokens, before.free), score, total - total * left // steps)
        state, shown = write(state, drawn, kept & before.masked)
        state, hidden = hide(state, ~kept, denoiser.mask_id)
        return state, shown + hidden

    return named(kernel, f"p2({steps}, {eta})")
