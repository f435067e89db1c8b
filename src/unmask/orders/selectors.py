"""Selectors: which masked positions come next, judging only by what is visible.

A selector is ``selector(view) -> Choice``. It never sees a drawn candidate, so sampling with it has an exact
likelihood. Scores are rounded to 1e-9 before they are compared and ties go to the lowest position, so an
order does not hang on float noise. Every selector here is a pure function of the view: nothing is remembered
between steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from unmask.base.devices import precise
from unmask.base.numbers import per_step, real, whole
from unmask.base.numbers import seed as checked_seed
from unmask.base.profile import accepted, plain
from unmask.base.types import Choice, PerStep, Plan, Score, Selector, View
from unmask.masking.schedules import Schedule, check_times
from unmask.orders.described import described
from unmask.orders.scores import at_step, confidence, negative_entropy, public_uniform, setting

GRID = 1e-9
"""Scores closer than this count as equal."""


@described
def top_k(score: Score, plan: Plan) -> Selector:
    """The highest-scoring positions, as many per step as the plan says.

    ``plan`` is k per step (int), the sizes of all steps (tuple summing to the masked count of every row), or
    a function from a row's masked count to such a tuple. ValueError when it does not sum to the masked count.
    """
    sizes = step_sizes(plan)
    keys = _known if getattr(score, "constant", False) else _compared
    return Selector(
        lambda view: _best(view, keys(score, view), sizes(view)),
        blind=is_blind(score),
        name=f"top_k({_name(score)}, {plan_name(plan)})",
    )


@described
def threshold(score: Score, tau: float, otherwise: Score | None = None) -> Selector:
    """All positions that score at least ``tau``, and always the best one (arXiv 2505.22618 with confidence, tau 0.9).

    Where none does, the best one by the score ``otherwise``, if that is given.
    """
    tau = real(tau, "tau")
    level = on_grid(torch.tensor(tau, dtype=torch.float64)).item()
    names = [_name(score), str(tau)] + ([] if otherwise is None else [_name(otherwise)])

    def choose(view: View) -> Choice:
        values = score(view)
        reached = view.masked & (on_grid(values) >= level)
        if otherwise is not None:
            values = torch.where(reached.any(1, keepdim=True), values, otherwise(view))
        return take(view, values, reached.sum(1).clamp(min=1))

    blind = is_blind(score) and (otherwise is None or is_blind(otherwise))
    return Selector(choose, blind=blind, name=f"threshold({', '.join(names)})")


@described
def all_best(score: Score) -> Selector:
    """All positions that tie for the highest score: a score of group numbers unmasks one group per call.

    With `scores.bisection_levels` it is exact on every first-order Markov chain, gaps between visible tokens
    included.
    """

    def choose(view: View) -> Choice:
        values = score(view)
        keys = on_grid(values)
        return take(view, values, (view.masked & (keys == keys.amax(1, keepdim=True))).sum(1))

    return Selector(choose, blind=is_blind(score), name=f"all_best({_name(score)})")


@described
def factor(limit: float = 1.0, score: Score = confidence) -> Selector:
    """The n best positions for the largest n with (n + 1) (1 - c_n) < limit, c_n the n-th best probability; at least one.

    For limit <= 1 and arg-max symbols the batch is the arg-max of the product law and of the joint law alike;
    drawn symbols have no such guarantee. Source: Fast-dLLM, arXiv 2505.22618.
    """
    limit = real(limit, "limit")
    if not limit > 0:
        raise ValueError(f"factor {limit}: expected a positive number, such as 1")

    def choose(view: View) -> Choice:
        values = score(view)
        sizes = torch.arange(2, values.shape[1] + 2, dtype=torch.float64, device=values.device)
        best = values.gather(1, ranked(values, view.masked))  # -inf from the first visible position on
        return take(view, values, (sizes * (1 - best) < limit - GRID).cumprod(1).sum(1).clamp(min=1))

    return Selector(choose, is_blind(score), name=f"factor({limit}, {_name(score)})")


@described
def hybrid(explore: Score, exploit: Score, share: PerStep, plan: Plan) -> Selector:
    """First the round(share * k) best positions of ``explore``, then the best of ``exploit`` that are left, k in all.

    Exploration comes first, so that under partial caching it conditions the rest; halves are rounded up.
    ``share`` in [0, 1] may depend on the step. Blind if both are. Source: the hybrid order of arXiv
    2510.04525, its proportions left open there.
    """
    sizes, share = step_sizes(plan), per_step(share, "share", 0, 1)

    def choose(view: View) -> Choice:
        counts, part = torch.tensor(sizes(view), device=view.masked.device), at_step(share, view.step)
        values = [score(view) for score in (explore, exploit)]
        first, second = (_places(v, view.masked) for v in values)
        mine = first < torch.floor(part * counts + 0.5)[:, None]
        choice = take(view, torch.where(mine, -first, -second - view.tokens.shape[1]).double(), counts)
        return replace(choice, doubt=((values[0] + values[1]).isnan() & view.masked).any(1))

    name = f"hybrid({_name(explore)}, {_name(exploit)}, {setting(share)}, {plan_name(plan)})"
    return Selector(choose, is_blind(explore) and is_blind(exploit), name=name)


@described
def entropy_budget(gamma: float, score: Score = negative_entropy) -> Selector:
    """The longest prefix, by score, whose entropies sum to at most gamma nats beyond the largest, and always one position.

    The joint entropy of the batch is at least its largest member's, so each step adds at most gamma nats of
    KL (entropy-bounded sampler, arXiv 2505.24857). ``score`` sets the sorting only.
    """
    gamma = real(gamma, "gamma", 0)

    def choose(view: View) -> Choice:
        values = score(view)
        order = ranked(values, view.masked)
        entropies = (
            -negative_entropy(view).gather(1, order).masked_fill(~view.masked.gather(1, order), torch.inf)
        )
        excess = entropies.cumsum(1) - entropies.cummax(1).values
        return take(view, values, (excess <= gamma + GRID).cumprod(1).sum(1).clamp(min=1))

    return Selector(choose, name=f"entropy_budget({gamma}, {_name(score)})")


@described
def in_blocks(selector: Selector, block_length: int) -> Selector:
    """The selector inside the first block of ``block_length`` positions that is not finished yet; blocks left to right.

    A tuple plan of the inner selector is the plan of one block (semi-autoregressive generation). Steps are
    counted from the start of the whole sequence, so the clock of `ancestral` does not begin again with each
    block.
    """
    block_length = whole(block_length, "block_length", 1)

    def opened(view: View) -> View:
        block = torch.arange(view.tokens.shape[1], device=view.tokens.device) // block_length
        current = torch.where(view.masked, block, len(block)).amin(1, keepdim=True)
        return view.within(block == current)

    clock = getattr(selector, "time", None)
    return Selector(
        lambda view: selector(opened(view)),
        is_blind(selector),
        None if clock is None else lambda view: clock(opened(view)),
        name=f"in_blocks({_name(selector)}, {block_length})",
    )


def ancestral(schedule: Schedule, times: Tensor, seed: int) -> Selector:
    """Reverse diffusion on a grid: each masked position unmasks from t to s with (alpha_s - alpha_t) / (1 - alpha_t).

    ``times`` float64 [T + 1] falls from 1 to 0 (`schedules.uniform_grid`, `cosine_grid`). Position i has one
    public uniform U_i per order_id and unmasks in the step where 1 - alpha falls below it, which is that law.
    Steps that unmask nothing cost no network call; the last one unmasks the rest (MD4, arXiv 2406.04329).
    """
    times, seed = check_times(times), checked_seed(seed)
    hidden = 1 - schedule.alpha(times.double())
    hidden = (
        hidden / hidden[0]
    )  # given that all is masked at the first time, even where a cut-off leaves alpha > 0
    hidden[-1] = 0.0

    def choose(view: View) -> Choice:
        level = hidden[min(view.step + 1, len(hidden) - 1)].item()
        keys = public_uniform(view, seed).masked_fill(~view.masked, -torch.inf)
        return take(view, keys, (keys >= level).sum(1))

    def time(view: View) -> Tensor:
        return times[min(view.step, len(times) - 2)].expand(len(view.tokens)).to(view.tokens.device)

    return Selector(choose, blind=True, time=time, name=f"ancestral({len(times) - 1} steps, {seed})")


def first_hitting(schedule: Schedule, seed: int) -> Selector:
    """Ancestral sampling in the limit of many steps, one position per call in uniformly random order (arXiv 2409.02908).

    Positions fall in the order of their public uniforms U; the time of an event is alpha^-1(1 - U), so with n
    masked it is the next order statistic, alpha(t') = 1 - u^(1/n) (1 - alpha(t)).
    """

    seed = checked_seed(seed)

    def keys(view: View) -> Tensor:
        return public_uniform(view, seed).masked_fill(~view.masked, -torch.inf)

    return Selector(
        lambda view: take(view, keys(view), view.masked.any(1).long()),
        blind=True,
        time=lambda view: schedule.inverse(1 - keys(view).amax(1)),
        name=f"first_hitting({seed})",
    )


# --- the pieces selectors are made of -------------------------------------------------------------


def on_grid(score: Tensor) -> Tensor:
    """Scores as whole multiples of 1e-9, float64: equal keys are ties."""
    return (score.to(precise(score.device)) / GRID).round_()


def ranked(score: Tensor, masked: Tensor) -> Tensor:
    """Positions int64 [B, L] from the highest score to the lowest, ties by position, visible ones last."""
    keys = torch.where(masked, _keys(score), -torch.inf)
    return keys.sort(dim=1, descending=True, stable=True).indices


def _keys(score: Tensor) -> Tensor:
    """What is compared, [B, L]: the score on its grid, finite or NaN: what is not eligible is open to choice, if last."""
    keys = on_grid(score)
    return keys.clamp_(min=torch.finfo(keys.dtype).min)


def _compared(score: Score, view: View) -> Tensor:
    return _keys(score(view))


def _known(score: Score, view: View) -> Tensor:
    """The same of a score that no step changes, made once in a run unless blocks leave some positions out."""
    if view.fixed is None or view.left is None:
        return _compared(score, view)
    start, shared = view.fixed["start"], view.fixed

    def make(ids: Tensor) -> Tensor:
        return _compared(score, View(start.long(), start, start=start, order_ids=ids, fixed=shared))

    return view.constant(score, make)


def _places(score: Tensor, masked: Tensor) -> Tensor:
    """Where each position stands in `ranked`, int64 [B, L]."""
    order = ranked(score, masked)
    return torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )


def take(view: View, score: Tensor, counts: Tensor | Sequence[int]) -> Choice:
    """The ``counts`` int64 [B] best positions of each row that are masked, best first."""
    return _best(view, _keys(score), counts.tolist() if isinstance(counts, Tensor) else counts)


def _best(view: View, keys: Tensor, counts: Sequence[int]) -> Choice:
    """The same by keys [B, L]."""
    sizes = [min(pair) for pair in zip(counts, view.counts())]
    few, width = min(sizes, default=0), max(sizes, default=0)
    keys = torch.where(view.masked, keys, -torch.inf)
    if few == width == 1:
        best, rows = keys.max(1, keepdim=True)  # of equals the first
        return Choice(rows, doubt=best[:, 0].isnan(), packed=rows)
    keys, order = keys.sort(dim=1, descending=True, stable=True)
    rows, doubt = order[:, :width], keys[:, 0].isnan()
    if few == width:
        return Choice(rows, doubt=doubt, packed=rows)
    place, ends = (torch.tensor(x, device=rows.device) for x in (range(width), sizes))
    return Choice(rows.masked_fill(place >= ends[:, None], -1), doubt=doubt)


def step_sizes(plan: Plan) -> Callable[[View], list[int]]:
    """How many positions each row unmasks at this step, from what is masked now and was at the start."""
    fixed = None if callable(plan) else plain(plan)
    if isinstance(fixed, int):
        return lambda view: [fixed] * len(view.tokens)
    sizes = plan if callable(plan) else _constant(fixed or ())
    table = cache(lambda total: _next_sizes(plain(sizes(total)), total))

    def counts(view: View) -> list[int]:
        pairs = zip(view.totals(), view.counts())
        return [_look_up(table(total), left, total) for total, left in pairs]

    return counts


def _constant(sizes: tuple[int, ...]) -> Callable[[int], tuple[int, ...]]:
    return lambda _: sizes


def _next_sizes(sizes: tuple[int, ...] | int, total: int) -> dict[int, int]:
    """Masked count -> size of the next step; ValueError when the sizes are not positive or do not sum to ``total``."""
    if isinstance(sizes, int):
        raise ValueError(f"a function gave the plan {sizes}: expected the sizes of all steps, a tuple")
    if any(s < 1 for s in sizes):
        raise ValueError(f"plan {_short(sizes)}: expected whole step sizes of at least 1")
    if sum(sizes) != total:
        raise ValueError(
            f"the plan sums to {sum(sizes)} but {total} positions are masked; "
            "make a plan for that many, pass an int k, or a function of the masked count"
        )
    left, table = total, {0: 0}
    for size in sizes:
        table[left] = size
        left -= size
    return table


def _look_up(table: dict[int, int], left: int, total: int) -> int:
    """Size of the next step with ``left`` positions masked."""
    if left not in table:
        raise ValueError(
            f"{left} of {total} positions are masked, which is no boundary of the plan; do not mix plans"
        )
    return table[left]


def is_blind(choice: object) -> bool:
    """Whether a score or selector never reads log-probabilities; plain functions count as sighted."""
    return bool(getattr(choice, "blind", False))


def plan_name(plan: Plan) -> str:
    """A plan in the name of a selector."""
    sizes = accepted(plan)
    return _short(sizes) if isinstance(sizes, tuple) else _name(sizes)


def _name(thing: object) -> str:
    """A short name for manifests."""
    return str(getattr(thing, "name", getattr(thing, "__name__", thing)))


def _short(sizes: tuple[int, ...]) -> str:
    return f"{len(sizes)} steps: {', '.join(map(str, sizes[:8]))}{', ...' if len(sizes) > 8 else ''}"
