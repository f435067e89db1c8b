"""Selectors with a rule of their own: sharpened symbols, MaskGIT's race, spacing, stability, information gain.

Like all selectors they choose before a symbol is drawn, so sampling with them has an exact likelihood. What
they need beyond the view is on record: tilts and look-ahead calls in `Choice`, the past in `View.memory`,
noise from order_ids.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from unmask.base import noise
from unmask.base.numbers import per_step, real, whole
from unmask.base.numbers import seed as checked_seed
from unmask.base.profile import accepted
from unmask.base.types import Choice, Denoiser, PerStep, Plan, Score, Selector, View
from unmask.denoisers import ask, passes, take_rows, take_symbols
from unmask.orders.described import described
from unmask.orders.scores import (
    at_step,
    by_slices,
    confidence,
    entropy,
    orders_of,
    public_gumbel,
    setting,
    spread,
)
from unmask.orders.selectors import on_grid, step_sizes, take
from unmask.orders.sources import inverse_cdf

DISCARDED, LOOK_AHEAD = 3, 4
"""Streams of public noise, beside those of `unmask.base.noise`: the race's discarded draws, the look-ahead's actions."""

LEAST = -1e4
"""The least tilt: as good as impossible, yet it never leaves a row without a possible symbol."""


@described
def sharpened(selector: Selector, beta: PerStep) -> Selector:
    """The selector with symbols drawn from p^beta, by a tilt of (beta - 1) log p; annealed if beta is a function.

    The law of ``tempered(denoiser, 1/beta)``, which cannot change from step to step. Sighted, because it
    needs p.
    """

    beta = per_step(beta, "beta")
    if not callable(beta):
        _check_power(beta)

    def choose(view: View) -> Choice:
        choice, power = selector(view), at_step(beta, view.step)
        _check_power(power)
        if power == 1:
            return choice
        tilt = (power - 1) * law_at(view, choice.rows).clamp(min=LEAST)
        return replace(choice, tilt=tilt if choice.tilt is None else tilt + choice.tilt)

    return Selector(choose, time=selector.time, name=f"sharpened({selector.name}, {setting(beta)})")


def _check_power(power: float) -> None:
    if not 0 < power < math.inf:
        raise ValueError(
            f"sharpened: got beta {power}, expected a positive number; for the arg-max use source=greedy"
        )


@described
def race(plan: Plan, alpha: PerStep = 1.0, seed: int = 0) -> Selector:
    """MaskGIT with choice temperature alpha as a choose-first sampler: its exact law, with a likelihood given the noise.

    MaskGIT draws x_i ~ p_i and keeps the k largest log p_i(x_i) + alpha Gumbel. That is a race: position i
    arrives at an exponential time T_i of rate a_i(x_i), a_i = p_i^(1/alpha), and the k earliest win. Here
    those draws are public and give the times only; symbols are drawn afresh from p_i(x) a_i(x) exp(-T_i
    a_i(x)), their law given T_i. The average over order_ids is MaskGIT's law. Along one order_id it is
    sharper, for small alpha all but certain. alpha = inf is a random order with symbols from p. Under
    sub-steps the rates stay those of the first look. Source: MaskGIT (Chang et al. 2022), arXiv 2510.04525;
    the race is derived.
    """
    sizes, alpha, seed = step_sizes(plan), per_step(alpha, "alpha"), checked_seed(seed)
    if not callable(alpha):
        _check_heat(alpha)

    def choose(view: View) -> Choice:
        heat, gumbel = at_step(alpha, view.step), public_gumbel(view, seed)
        _check_heat(heat)
        if heat == math.inf:
            return take(view, gumbel, sizes(view))
        found = public_draw(view, seed)
        choice = take(view, (found + heat * gumbel) / (1 + heat), sizes(view))
        rows = choice.rows.clamp(min=0)
        past = -(found.gather(1, rows) / heat + gumbel.gather(1, rows))[..., None]  # log T_i
        hazard = law_at(view, choice.rows) / heat + past.clamp(max=1e30)  # infinite at padding
        return replace(choice, tilt=(hazard - hazard.exp()).clamp(min=LEAST))

    return Selector(choose, name=f"race({setting(accepted(plan))}, {setting(alpha)}, {seed})")


def _check_heat(heat: float) -> None:
    if not heat > 0:
        raise ValueError(
            f"race: got alpha {heat}, expected more than 0; alpha = 0 draws first, see unmask.commit"
        )


@described
def maskgit_alpha(tau: float, steps: int) -> PerStep:
    """MaskGIT's choice temperature tau (1 - (n + 1)/steps) at step n; infinite at the last, where every draw is kept.

    Then symbols follow p, which is what MaskGIT's last step does at any temperature. Source:
    google-research/maskgit.
    """

    tau, steps = real(tau, "tau"), whole(steps, "steps", 1)

    def alpha(step: int) -> float:
        return tau * (1 - (step + 1) / steps) if step + 1 < steps else math.inf

    alpha.__name__ = f"maskgit_alpha({tau}, {steps})"
    return alpha


@described
def exponent(alpha: PerStep) -> PerStep:
    """The power of p that belongs to MaskGIT's choice temperature alpha: beta = 1 + 1/alpha (arXiv 2510.04525)."""

    alpha = per_step(alpha, "alpha")

    def beta(step: int) -> float:
        heat = at_step(alpha, step)
        return 1 + 1 / heat if heat else math.inf

    beta.__name__ = f"1 + 1/{setting(alpha)}"
    return beta if callable(alpha) else beta(0)


@described
def spaced(selector: Selector, distance: int) -> Selector:
    """The selector without those rows that stand closer than ``distance`` to a better one of the same step.

    They wait for a later step, so steps unmask fewer positions than their plan says: use an int plan or an
    adaptive rule, a tuple raises ValueError. Source: dilated unmasking, arXiv 2506.19037, as a filter.
    """
    distance = whole(distance, "distance")
    if distance < 1:
        raise ValueError(f"spaced: got distance {distance}, expected at least 1 (which changes nothing)")

    def choose(view: View) -> Choice:
        choice = selector(view)
        rows, kept = choice.rows, choice.rows >= 0
        close = (rows[:, :, None] - rows[:, None, :]).abs() < distance
        for j in range(1, rows.shape[1]):
            kept[:, j] &= ~(close[:, j, :j] & kept[:, :j]).any(1)
        return replace(choice, rows=rows.masked_fill(~kept, -1))

    return Selector(choose, selector.blind, selector.time, name=f"spaced({selector.name}, {distance})")


@described
def stable(
    plan: Plan = 1, tau: float = 0.6, eps: float = 0.015, history: int = 2, score: Score = confidence
) -> Selector:
    """All positions with score > tau whose law moved by less than eps nats, KL(now || before), in the last steps; KLASS.

    ``history`` is the number of moves looked at. Where none is ready the best positions by the plan, which
    should be an int. Keeps the laws of one step in `View.memory`: [B, R, V] numbers. Reads the law that
    symbols are drawn from. Source: KLASS, arXiv 2511.05664 (GSM8K 0.6 and 0.015, HumanEval 0.9 and 0.01,
    blocks of 64).
    """
    sizes, history = step_sizes(plan), whole(history, "history", 0)
    tau, eps = real(tau, "tau"), real(eps, "eps", 0)

    def choose(view: View) -> Choice:
        values, calm = score(view), _calm_steps(view, eps)
        ready = view.masked & (values > tau) & (spread(view, calm) >= history)
        some = ready.any(1, keepdim=True)
        counts = torch.where(some[:, 0], ready.sum(1), torch.tensor(sizes(view), device=ready.device))
        choice = take(view, values.masked_fill(some & ~ready, -torch.inf), counts)
        return replace(choice, memory=(_slots(view), law_of(view), calm))

    return Selector(choose, name=f"stable({setting(accepted(plan))}, {tau}, {eps}, {history}, {score.name})")


def _calm_steps(view: View, eps: float) -> Tensor:
    """For how many steps in a row each row's law has moved by less than eps nats, int64 [B, R]."""
    law = law_of(view)
    if not view.memory:
        return torch.zeros(law.shape[:2], dtype=torch.int64, device=law.device)
    slots, before, calm = view.memory
    rows = rows_of(view).clamp(min=0)
    old = slots.gather(1, rows)
    moved = divergence(law, take_rows(before, old))
    return torch.where(moved < eps, calm.gather(1, old) + 1, 0)


def divergence(law: Tensor, other: Tensor) -> Tensor:
    """KL(law || other) along the last axis, nats, [B, R]."""
    terms = law.exp() * (law - other)
    return terms.masked_fill(law == -torch.inf, 0.0).sum(-1)


@described
def information_gain(
    denoiser: Denoiser,
    plan: Plan = 1,
    *,
    candidates: int = 8,
    temperature: float = 0.2,
    bypass: float = 0.8,
    score: Score = confidence,
    seed: int = 0,
) -> Selector:
    """One look ahead: of several batches, the one that leaves least entropy behind for the entropy it takes, in nats.

    Batches: the best by ``score``, and ``candidates`` - 1 by score / temperature + public Gumbel noise. Each
    is filled with its most probable symbols, one batched call of ``denoiser`` gives the entropies after it,
    and the largest -sum H(batch) - mean H(rest) wins. The symbols are drawn afterwards, so nothing of that
    call can be kept; it costs ``candidates`` passes, counted in nfe. Rows whose best batch has probabilities
    of at least ``bypass`` take it at once. Source: Info-Gain sampler, arXiv 2602.18176, which looks ahead
    along symbols already drawn.
    """
    sizes, seed = step_sizes(plan), checked_seed(seed)
    candidates, temperature = whole(candidates, "candidates"), real(temperature, "temperature")
    bypass = real(bypass, "bypass")
    if not 1 <= candidates <= 256 or not temperature > 0:
        raise ValueError(
            f"information_gain: got {candidates} candidates and spread {temperature}, "
            "expected at least 1, at most 256, and more than 0"
        )

    def choose(view: View) -> Choice:
        values, counts = score(view), sizes(view)
        first = take(view, values, counts)
        sure = confidence(view).gather(1, first.rows.clamp(min=0)).masked_fill(first.rows < 0, 1.0).amin(1)
        unsure = (sure < bypass).nonzero()[:, 0]
        calls = torch.zeros_like(sure)
        if candidates == 1 or not len(unsure):
            return replace(first, calls=calls)
        noisy = [values / temperature + _actions(view, seed, n) for n in range(1, candidates)]
        options = torch.stack([first.rows, *(take(view, keys, counts).rows for keys in noisy)], 1)[unsure]
        best = _best_option(denoiser, view, unsure, options)
        rows = first.rows.index_copy(0, unsure, options[torch.arange(len(unsure)), best])
        return replace(
            first, rows=rows, calls=calls.index_fill(0, unsure, float(candidates * passes(denoiser)))
        )

    return Selector(
        choose,
        name=f"information_gain({setting(accepted(plan))}, {candidates}, {temperature}, {bypass}, {score.name}, {seed})",
    )


def _actions(view: View, seed: int, candidate: int) -> Tensor:
    """Public Gumbel noise [B, L] of one candidate at this step."""
    place = torch.arange(view.tokens.shape[1], device=view.tokens.device)[None]
    return noise.gumbel(seed, LOOK_AHEAD, orders_of(view), place, (view.step << 8) + candidate)


def _best_option(denoiser: Denoiser, view: View, items: Tensor, options: Tensor) -> Tensor:
    """Which of the options int64 [b, C, k] is best for the batch rows ``items``, int64 [b]; the first among equals."""
    count = options.shape[1]
    likely, masked = spread(view, law_of(view).argmax(-1)).long(), view.masked[items]
    chosen = torch.zeros(*options.shape[:2], masked.shape[1] + 1, dtype=torch.bool, device=masked.device)
    chosen = chosen.scatter(2, options.where(options >= 0, masked.shape[1]), True)[..., :-1]
    trials = torch.where(chosen, likely[items][:, None], view.tokens[items][:, None]).flatten(0, 1)
    time = None if view.time is None else view.time[items].repeat_interleave(count, 0)
    rows = rows_of(view)[items].repeat_interleave(count, 0)
    after = (
        by_slices(entropy, ask(denoiser, trials, rows.clamp(min=0), rows >= 0, time=time))
        .double()
        .view(*chosen.shape[:2], -1)
    )
    now = spread(view, by_slices(entropy, law_of(view)))[items][:, None]
    cost = now.where(chosen, 0.0).sum(2)
    left = (masked[:, None] & ~chosen).gather(2, rows.clamp(min=0).view(after.shape)) & (rows >= 0).view(
        after.shape
    )
    ahead = after.where(left, 0.0).sum(2) / left.sum(2).clamp(min=1)
    value = on_grid(-cost - ahead)
    return (value < value.amax(1, keepdim=True)).cumprod(1).sum(1)


# --- the law as a view holds it --------------------------------------------------------------------


def law_of(view: View) -> Tensor:
    """The log-probabilities [B, R, V] of a view; ValueError where there are none."""
    if view.log_probs is None:
        raise ValueError(
            "this selector reads log-probabilities and there are none: mark what wraps it as not blind"
        )
    return view.log_probs


def law_at(view: View, rows: Tensor) -> Tensor:
    """The log-probabilities [B, k, V] of a view at rows int64 [B, k]; at padding, those of some other row."""
    return take_rows(law_of(view), _slots(view).gather(1, rows.clamp(min=0)))


def public_draw(view: View, seed: int) -> Tensor:
    """log p of one symbol drawn at every masked position with public noise, float64 [B, L], -inf elsewhere.

    By inverse CDF in float64, a few rows at a time: a function of (seed, order_id, position, step) and the
    law.
    """
    place = torch.arange(view.tokens.shape[1], device=view.tokens.device)[None]
    u = noise.uniform(seed, DISCARDED, orders_of(view), place, 1 + view.step)
    law, rows = law_of(view), rows_of(view).clamp(min=0)
    symbols = inverse_cdf(law, u.gather(1, rows))
    return spread(view, take_symbols(law, symbols))


def rows_of(view: View) -> Tensor:
    """The position of each entry of the law, int64 [B, R], -1 where it is padding."""
    if view.rows is not None:
        return view.rows
    return torch.arange(view.tokens.shape[1], device=view.tokens.device).expand_as(view.tokens)


def _slots(view: View) -> Tensor:
    """Where the law of each position stands, int64 [B, L]; 0 where it has none."""
    rows, length = rows_of(view), view.tokens.shape[1]
    slots = torch.zeros(len(rows), length + 1, dtype=torch.int64, device=rows.device)
    place = torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
    return slots.scatter_(1, rows.where(rows >= 0, length), place)[:, :-1]
