"""Exact log-likelihood along an order, and the bound that averages over orders."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from unmask import engine
from unmask.base import noise
from unmask.base.numbers import whole
from unmask.base.types import Choice, Denoiser, Estimate, Selector, State, View
from unmask.denoisers import check_tokens, checked_visible, gradients
from unmask.engine.sampling import opened
from unmask.masking.corruption import Draws, counted
from unmask.masking.objectives import cross_entropies
from unmask.orders.samplers import Sampler
from unmask.orders.sources import given


def log_likelihood(
    denoiser: Denoiser,
    tokens: Tensor,
    selector: Selector | Callable[[View], Choice] | Sampler,
    *,
    visible: Tensor | None = None,
    substeps: int = 1,
    order_ids: Tensor | None = None,
    differentiable: bool = False,
    recompute: bool = False,
) -> Tensor:
    """Log-probability float64 [B], nats, with which `sample` under the same selector and order_ids yields these tokens.

    tokens int64 [B, L] hold no mask. ``visible`` bool [B, L] marks the prompt (default: none), which is not scored.
    ``order_ids`` default to 0 for every row. ``selector`` may be a `Sampler` of drawn symbols.

    With ``differentiable`` the result has gradients in the parameters of the networks; without, there are none. The order
    is held fixed, as if it had been given. Memory is that of all calls together, or with ``recompute`` that of one call,
    whose networks then run once more in ``backward``. Caches have no gradients: ``substeps`` is 1.
    """
    return along(
        denoiser,
        tokens,
        selector,
        visible=visible,
        substeps=substeps,
        order_ids=order_ids,
        differentiable=differentiable,
        recompute=recompute,
    ).log_prob


def along(
    denoiser: Denoiser,
    tokens: Tensor,
    selector: Selector | Callable[[View], Choice] | Sampler,
    *,
    visible: Tensor | None = None,
    substeps: int = 1,
    order_ids: Tensor | None = None,
    differentiable: bool = False,
    recompute: bool = False,
) -> State:
    """The last state of the loop that is given these tokens, as `log_likelihood`: it holds the network calls as well."""
    check_tokens(tokens, denoiser, masks=False)
    visible = checked_visible(visible, tokens)
    if isinstance(selector, Sampler) and not selector.is_law:
        raise ValueError(
            "the sampler takes the most probable symbols, which is no law; expected source 'draw'"
        )
    denoiser, selector, substeps = opened(denoiser, selector, substeps)
    denoiser = _recorded(denoiser, differentiable, recompute)
    orders = noise.checked_ids(order_ids, tokens, tokens.new_zeros(len(tokens)))
    state = engine.init(torch.where(visible, tokens, denoiser.mask_id), denoiser.mask_id, orders)
    if differentiable and whole(substeps, "substeps", 1) > 1:
        raise ValueError(f"substeps {substeps}: expected 1, for gradients do not pass through caches")
    with nullcontext() if differentiable else torch.no_grad():
        return engine.run(state, denoiser, selector, given(tokens), substeps=substeps)[0]


def nelbo(
    denoiser: Denoiser,
    tokens: Tensor,
    *,
    generator: torch.Generator,
    samples: int = 16,
    visible: Tensor | None = None,
    item_ids: Tensor | None = None,
    differentiable: bool = False,
    recompute: bool = False,
) -> Estimate:
    """Negative evidence lower bound, nats per sequence: value and standard error, float64 [B].

    The mean over uniform orders of -log p (form (c) of `masking.enumeration`): N * CE(M) / |M| for ``samples`` random
    sets M per sequence, their sizes stratified over 1..N. The standard error ignores the stratification, so it is on the
    safe side; it is NaN for one sample. Positions of ``visible`` bool [B, L] are a prompt and are not scored. A row's
    sets depend on the generator's next number and on its id in ``item_ids`` int64 [B] (default 0..B-1) only.

    ``differentiable`` and ``recompute`` are as in `log_likelihood`; the gradient of ``value`` is an unbiased estimate of
    the bound's. To hold one sample in memory at a time, call with ``samples=1``, go backward, and call again with the same
    generator.
    """
    check_tokens(tokens, denoiser, masks=False)
    samples = whole(samples, "samples", 1)
    maskable = ~checked_visible(visible, tokens)
    draw, denoiser = Draws.of(generator, tokens, item_ids), _recorded(denoiser, differentiable, recompute)
    with nullcontext() if differentiable else torch.no_grad():
        each = [_one_bound(denoiser, tokens, maskable, draw, s, samples) for s in range(samples)]
    draws = torch.stack(each)
    spread = draws.std(0) / math.sqrt(samples) if samples > 1 else torch.full_like(draws[0], torch.nan)
    return Estimate(draws.mean(0), spread)


def _one_bound(
    denoiser: Denoiser, tokens: Tensor, maskable: Tensor, draw: Draws, sample: int, samples: int
) -> Tensor:
    """One unbiased draw of the bound for each row, float64 [B]."""
    corruption = counted(maskable, draw.level(sample, samples), draw.uniforms(tokens.shape[1], sample))
    losses = cross_entropies(denoiser, tokens, corruption.masked)
    return torch.where(corruption.masked, losses, 0.0).sum(1) * corruption.weight


def _recorded(denoiser: Denoiser, differentiable: bool, recompute: bool) -> Denoiser:
    """The denoiser, with gradients if they are asked for."""
    if recompute and not differentiable:
        raise ValueError(
            "recompute=True without differentiable=True; expected both, for there is nothing to recompute"
        )
    return gradients.differentiable(denoiser, recompute=recompute) if differentiable else denoiser
