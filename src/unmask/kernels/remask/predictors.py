"""Kernels that hide symbols again: ReMDM and Psi samplers, P2, and correctors that resample what is visible.

A kernel is ``kernel(state, denoiser, seed) -> (state, infos)``; `sample` runs a sequence of them. A
predictor is a tuple of kernels, one per step, a corrector is one kernel, and they are combined by putting
them in a row:

>>> from unmask import remask, schedules
>>> steps = remask.remdm(schedules.linear().alpha, schedules.uniform_grid(8), remask.cap(0.1))
>>> kernels = [kernel for step in steps for kernel in (step, remask.gibbs(2))]

A sequence can be reached in many ways, so there is no tractable likelihood and log_prob is NaN. Symbols that
were visible at the start (the prompt) are never hidden. Fresh noise, a function of (seed, row, position,
step), decides.
"""

from __future__ import annotations

import time as clock
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from unmask.base import noise
from unmask.base.numbers import real, whole
from unmask.base.types import Denoiser, Info, Result, Score, View
from unmask.denoisers import ask, masked_rows, passes, take_symbols
from unmask.engine.sampling import check_tokens, manifest, took
from unmask.kernels.commit import candidates
from unmask.masking.schedules import check_times
from unmask.orders.scores import setting, spread
from unmask.orders.selectors import is_blind, take
from unmask.orders.sources import draw

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True)
class Chain:
    """Where kernels are, every field per row of the batch: tokens int64 [B, L], what is masked, and what is ``free`` to be
    hidden, bool [B, L].

    ``certainty`` float64 [B, L] is the probability with which each symbol was unmasked, +inf where masked or never unmasked
    by a kernel; ``item_ids`` int64 [B] name the rows to their noise; ``nfe`` float64 [B].
    """

    tokens: Tensor
    masked: Tensor
    free: Tensor
    certainty: Tensor
    item_ids: Tensor
    nfe: Tensor
    step: int = 0


Kernel: TypeAlias = Callable[[Chain, Denoiser, int], tuple[Chain, tuple[Info, ...]]]
"""One step: (state, denoiser, seed) -> the next state and what was done to it."""


def sample(
    denoiser: Denoiser,
    tokens: Tensor,
    kernels: Iterable[Kernel],
    *,
    generator: torch.Generator,
    prompt: Tensor | None = None,
    item_ids: Tensor | None = None,
) -> Result:
    """Runs the kernels one after the other on tokens int64 [B, L]; log_prob [B] is NaN.

    ``prompt`` bool [B, L] marks what must stay, by default all that is visible; give less to correct a
    complete sequence. Noise belongs to ``item_ids`` as in `unmask.sample`. A trace entry with symbol
    ``mask_id`` says which positions were hidden again.
    ValueError if positions are still masked after the last kernel.
    """
    began = clock.perf_counter()
    check_tokens(tokens, denoiser, masks=True)
    seed = noise.drawn_seed(generator)
    state, trace, names = start(tokens, denoiser.mask_id, prompt, item_ids), list[Info](), Counter[str]()
    for kernel in kernels:
        names[getattr(kernel, "__name__", "kernel")] += 1
        state, infos = kernel(state, denoiser, seed)
        trace.extend(infos)
    if state.masked.any():
        raise ValueError(
            f"{int(state.masked.sum())} positions are masked after the last kernel; expected none: "
            "end with the last step of remdm or p2"
        )
    record = manifest(denoiser, tokens, sample, draw, 1, seed) | took(began, trace)
    record["selector"] = ", ".join(f"{count} x {name}" for name, count in names.items())
    return Result(state.tokens, torch.full_like(state.nfe, torch.nan), state.nfe, tuple(trace), record)


def start(
    tokens: Tensor, mask_id: int, prompt: Tensor | None = None, item_ids: Tensor | None = None
) -> Chain:
    """The chain before the first kernel; ``prompt`` and ``item_ids`` as in `sample`."""
    masked = tokens == mask_id
    given = ~masked if prompt is None else prompt
    if given.shape != tokens.shape or given.dtype != torch.bool or bool((given & masked).any()):
        raise ValueError(
            f"prompt of dtype {given.dtype} and shape {list(given.shape)}: expected bool {list(tokens.shape)}, "
            "True at visible positions only"
        )
    places = torch.arange(len(tokens), device=tokens.device)
    items = noise.checked_ids(item_ids, tokens, places, "item_ids")
    unknown = torch.full(tokens.shape, torch.inf, dtype=torch.float64, device=tokens.device)
    nfe = torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
    return Chain(tokens, masked, ~given, unknown, items, nfe)


# --- predictors -----------------------------------------------------------------------------------


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
        changing = _uniform(state, seed) < chance
        after, shown = _unmask(state, denoiser, changing & state.masked, seed, interval.t)
        after, hidden = hide(after, changing & ~state.masked, denoiser.mask_id)
        return after, shown + hidden

    return _named(kernel, f"remdm({setting(sigma)})")


def cap(eta: float = 0.008) -> Sigma:
    """At most eta: ReMDM-cap; 0.008 for text at 1024 steps (arXiv 2503.00307)."""
    eta = real(eta, "eta", 0, 1)
    return _named(lambda interval, _: min(eta, interval.limit), f"cap({eta})")


def rescale(eta: float = 0.015) -> Sigma:
    """The share eta of the limit: ReMDM-rescale; 0.015 for text at 1024 steps (arXiv 2503.00307)."""
    eta = real(eta, "eta", 0, 1)
    return _named(lambda interval, _: eta * interval.limit, f"rescale({eta})")


def psi(kappa: float) -> Sigma:
    """(1 - kappa)(1 - alpha_s): a position goes the ancestral way with probability kappa, or is noised anew.

    To noise anew is to draw a clean symbol (or take the visible one) and to mask it with 1 - alpha_s. 1 is
    ancestral sampling, 0 full re-noising. Psi samplers (s-sahoo/duo) in the form of ReMDM: derived.
    """
    kappa = real(kappa, "kappa", 0, 1)
    return _named(lambda interval, _: (1 - kappa) * (1 - interval.alpha_s), f"psi({kappa})")


def by_confidence(sigma: Sigma) -> Sigma:
    """``sigma`` shared out among visible symbols, most to the least probable: softmax of -p at unmasking.

    ReMDM-conf is ``by_confidence(rescale(1))`` (arXiv 2503.00307). The shares of a row sum to sigma. As
    published, masked positions unmask as in ancestral sampling, so fewer symbols are visible than the
    schedule says.
    """

    def shared(interval: Interval, probability: Tensor) -> Tensor:
        share = torch.softmax(-probability, dim=1)
        return share.nan_to_num(0.0) * sigma(interval, probability)  # NaN: a row with nothing to hide

    return _named(shared, f"by_confidence({setting(sigma)})")


def between(sigma: Sigma, t_on: float = 0.55, t_off: float = 0.05) -> Sigma:
    """``sigma`` for intervals that start in (t_off, t_on], else 0: the window of ReMDM's switch and loop."""
    t_on, t_off = real(t_on, "t_on"), real(t_off, "t_off")

    def windowed(interval: Interval, probability: Tensor) -> Tensor | float:
        return sigma(interval, probability) if t_off < interval.t <= t_on else 0.0

    return _named(windowed, f"between({setting(sigma)}, {t_on}, {t_off})")


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
        state, drawn = _draw(state, denoiser, state.free, seed)
        score = torch.where(before.masked, drawn.log_probs, eta * drawn.log_probs)
        kept = _chosen(View(before.tokens, before.free), score, total - total * left // steps)
        state, shown = _write(state, drawn, kept & before.masked)
        state, hidden = hide(state, ~kept, denoiser.mask_id)
        return state, shown + hidden

    return _named(kernel, f"p2({steps}, {eta})")


# --- correctors -----------------------------------------------------------------------------------


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
        scores, seconds = _uniform(state, seed), 0.0
        if reliability is not None:
            state, view, seconds = _view(state, None if is_blind(reliability) else denoiser, visible)
            scores = scores.index_copy(0, _items(visible), reliability(view))
        again = _chosen(View(state.tokens, visible), -scores, torch.full((len(scores),), count))
        state, hidden = hide(state, again, denoiser.mask_id)
        state, shown = _unmask(state, denoiser, again, seed)
        return state, tuple(replace(i, network_seconds=seconds) for i in hidden) + shown

    return _named(kernel, f"gibbs({count}, {getattr(reliability, 'name', 'at random')})")


def _symbol_margin(view: View) -> Tensor:
    if view.log_probs is None or view.rows is None:
        raise ValueError("symbol_margin reads log-probabilities and there are none: a blind kernel called it")
    symbols = view.tokens.gather(1, view.rows.clamp(min=0))
    best = view.log_probs.topk(2, dim=-1)
    rival = torch.where(best.indices[..., 0] == symbols, best.values[..., 1], best.values[..., 0])
    return spread(view, (take_symbols(view.log_probs, symbols) - rival).clamp(-100, 100))


symbol_margin = Score(_symbol_margin, name="symbol_margin")
"""log p(symbol that stands there) minus that of its best rival, nats, within +-100 (arXiv 2407.21243).

Meant for networks whose law at a visible position does not see its own symbol; others look too sure of it.
"""


# --- the pieces that kernels are made of ----------------------------------------------------------


def hide(state: Chain, where: Tensor, mask_id: int) -> tuple[Chain, tuple[Info, ...]]:
    """Masks the visible positions of ``where`` bool [B, L] again, except in the prompt."""
    where = where & state.free & ~state.masked
    after = replace(
        state,
        tokens=state.tokens.masked_fill(where, mask_id),
        masked=state.masked | where,
        certainty=state.certainty.masked_fill(where, torch.inf),
    )
    return after, _infos(where, after.tokens, torch.zeros_like(state.certainty))


@dataclass(frozen=True)
class _Drawn:
    """Symbols int64 [B, L] and their log-probabilities float64 [B, L], 0 where nothing was drawn."""

    symbols: Tensor
    log_probs: Tensor
    seconds: float
    dtype: torch.dtype | None = None


def _unmask(
    state: Chain, denoiser: Denoiser, where: Tensor, seed: int, time: float | None = None
) -> tuple[Chain, tuple[Info, ...]]:
    """Draws symbols at the masked positions of ``where``, each given what is visible now."""
    state, drawn = _draw(state, denoiser, where, seed, time)
    return _write(state, drawn, where)


def _draw(
    state: Chain, denoiser: Denoiser, where: Tensor, seed: int, time: float | None = None
) -> tuple[Chain, _Drawn]:
    """Symbols at ``where``, which are not written yet; one call for the rows that ask for any."""
    state, view, seconds = _view(state, denoiser, where, time)
    blank = _Drawn(torch.zeros_like(state.tokens), torch.zeros_like(state.certainty), seconds)
    if view.log_probs is None or view.rows is None:
        return state, blank
    symbols = candidates(view, draw, seed)
    item, column = (view.rows >= 0).nonzero(as_tuple=True)
    at = (_items(where)[item], view.rows[item, column])
    log_probs = take_symbols(view.log_probs, symbols)[item, column].double()
    return state, _Drawn(
        blank.symbols.index_put(at, symbols[item, column]),
        blank.log_probs.index_put(at, log_probs),
        seconds,
        view.log_probs.dtype,
    )


def _view(
    state: Chain, denoiser: Denoiser | None, where: Tensor, time: float | None = None
) -> tuple[Chain, View, float]:
    """The rows of the batch that have positions in ``where``, and what the denoiser, if any, says there."""
    items = _items(where)
    view = View(
        state.tokens[items],
        where[items],
        step=state.step,
        order_ids=state.item_ids[items],
        start=state.free[items],
    )
    if denoiser is None or not len(items):
        return state, view, 0.0
    rows, marked = masked_rows(view.masked)
    extra = {} if time is None else {"time": torch.full((len(items),), time, device=rows.device)}
    began = clock.perf_counter()
    law = ask(denoiser, view.tokens, rows, marked >= 0, **extra)
    seconds = clock.perf_counter() - began
    calls = torch.full((len(items),), passes(denoiser), dtype=torch.float64, device=rows.device)
    state = replace(state, nfe=state.nfe.index_add(0, items, calls))
    return state, replace(view, log_probs=law, rows=marked), seconds


def _write(state: Chain, drawn: _Drawn, where: Tensor) -> tuple[Chain, tuple[Info, ...]]:
    """The state one step on, with the drawn symbols at ``where``."""
    after = replace(
        state,
        tokens=torch.where(where, drawn.symbols, state.tokens),
        masked=state.masked & ~where,
        certainty=torch.where(where, drawn.log_probs.exp(), state.certainty),
        step=state.step + 1,
    )
    infos = _infos(where, drawn.symbols, drawn.log_probs)
    return after, tuple(replace(i, network_seconds=drawn.seconds, dtype=drawn.dtype) for i in infos)


def _infos(where: Tensor, symbols: Tensor, log_probs: Tensor) -> tuple[Info, ...]:
    """What happened at ``where``, as one record, or none if that is nowhere."""
    items = _items(where)
    if not len(items):
        return ()
    rows, marked = masked_rows(where[items])
    padding = marked < 0
    took, values = symbols[items].gather(1, rows), log_probs[items].gather(1, rows)
    return (Info(items, marked, took.masked_fill(padding, -1), values.masked_fill(padding, 0.0)),)


def _items(where: Tensor) -> Tensor:
    """Rows of the batch, int64, with any position in ``where``."""
    return where.any(1).nonzero()[:, 0]


def _chosen(view: View, score: Tensor, counts: Tensor) -> Tensor:
    """The ``counts`` best masked positions of a view, as bool [B, L]."""
    rows = take(view, score, counts).rows
    hits = torch.zeros_like(view.tokens).scatter_add_(1, rows.clamp(min=0), (rows >= 0).long())
    return hits > 0


def _uniform(state: Chain, seed: int) -> Tensor:
    """Private uniforms float64 [B, L], fresh at every step."""
    places = torch.arange(state.tokens.shape[1], device=state.tokens.device)
    return noise.uniform(seed, noise.ORDER, state.item_ids[:, None], places[None], state.step)


def _named(function: F, name: str) -> F:
    """The function under a name that says its settings, for manifests."""
    function.__name__ = name
    return function
