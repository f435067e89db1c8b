"""Kernels that draw first and keep the luckiest symbols: MaskGIT and LLaDA's low-confidence rule.

They are biased: the more probable the symbol that a position happened to draw, the likelier it is kept, so
even exact conditionals and one position per step yield another law (arXiv 2510.04525, Prop. 3). That law has
no tractable likelihood, and `sample` reports NaN for it. The choose-first counterparts without the bias are
``selectors.top_k(scores.confidence, plan)`` and its kin.

A symbol is a pure function of (seed, row of the batch, position, step). A rule may therefore look at the
symbol that the loop would write, and the loop needs no second version: these kernels are `engine.run`
under a selector that peeks. A rule that does not look gives what choosing first gives, bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from unmask import engine
from unmask.base import noise
from unmask.base.numbers import per_step, real, whole
from unmask.base.profile import accepted
from unmask.base.types import Choice, Denoiser, PerStep, Plan, Request, Result, Selector, TokenSource, View
from unmask.denoisers import check_tokens, take_symbols
from unmask.engine.sampling import Each, manifest, telling, took
from unmask.orders.rules import law_of, rows_of
from unmask.orders.scores import at_step, setting, spread
from unmask.orders.selectors import in_blocks, step_sizes, take
from unmask.orders.sources import draw, greedy

SLICE = 2**20
"""Probabilities held in float64 at a time while candidates are drawn: 8 MB."""


@dataclass(frozen=True)
class Drawn:
    """What a rule sees beyond the view, at the view's rows.

    ``symbols`` int64 [B, R] were drawn there (0 where a position is not open to choice); ``noise`` float64
    [B, R] is standard Gumbel, fresh at each step.
    """

    symbols: Tensor
    noise: Tensor


Keep: TypeAlias = Callable[[View, Drawn], Choice]
"""Which of the drawn symbols stay."""


@dataclass(frozen=True)
class Rule:
    """A draw-first sampler: ``source`` draws at all masked positions, ``keep`` says which are unmasked.

    With ``block_length`` the rule works inside the first unfinished block, from left to right.
    """

    keep: Keep
    source: TokenSource = draw
    block_length: int | None = None
    name: str = "rule"


def sample(
    denoiser: Denoiser,
    tokens: Tensor,
    rule: Rule,
    *,
    generator: torch.Generator,
    item_ids: Tensor | None = None,
    entropies: bool = False,
    each: Each | None = None,
) -> Result:
    """Unmasks every position of tokens int64 [B, L] that holds ``denoiser.mask_id``; log_prob [B] is NaN.

    One network call per step and unfinished row. Each step of the trace holds the kept positions, their
    symbols and the log-probabilities, nats, of these under the denoiser, and with ``entropies`` the
    entropies there. A row depends on the generator's next number and on its id in ``item_ids`` only; ``each``
    hears of every step: both as in `unmask.sample`.
    """
    began = time.perf_counter()
    check_tokens(tokens, denoiser, masks=True)
    places = torch.arange(len(tokens), device=tokens.device)
    items = noise.checked_ids(item_ids, tokens, places, "item_ids")
    seed = noise.drawn_seed(generator)
    selector = _peeking(rule, seed)
    state = engine.init(tokens, denoiser.mask_id, items, item_ids=items)
    steps = engine.run if each is None else partial(telling, each)
    state, trace = steps(state, denoiser, selector, rule.source, seed=seed, entropies=entropies)
    record = manifest(denoiser, tokens, selector, rule.source, 1, seed) | took(began, trace, state.tokens)
    return Result(state.tokens, torch.full_like(state.log_prob, torch.nan), state.nfe, trace, record)


def maskgit(temperature: PerStep, plan: Plan) -> Rule:
    """MaskGIT: draw everywhere, keep the highest log p(symbol) + temperature times Gumbel noise, in nats.

    ``temperature`` (alpha, of the choice) is a number >= 0 or a function of the step such as `annealed`; the
    published plan is `cosine_counts`. Biased, the more the smaller alpha. Chang et al., arXiv 2202.04200, in
    the form of arXiv 2510.04525. `rules.race` is the same law, chosen first.
    """

    temperature = per_step(temperature, "temperature")
    if not callable(temperature):
        _not_negative(temperature)

    def score(view: View, drawn: Drawn) -> Tensor:
        alpha = _not_negative(at_step(temperature, view.step))
        return take_symbols(law_of(view), drawn.symbols).double() + alpha * drawn.noise

    return Rule(keep_best(score, plan), name=f"maskgit({setting(temperature)}, {setting(accepted(plan))})")


def low_confidence(temperature: float, plan: Plan, block_length: int | None = None) -> Rule:
    """LLaDA's low-confidence rule: draw at ``temperature``, keep the highest p(symbol) before tempering.

    Symbols follow p^(1/temperature), 0 takes the arg-max. The score is p in [0, 1] of the base law, without
    the wrappers of the denoiser. At 0 this is greedy top-k confidence, above 0 it is biased. With
    ``block_length`` a tuple plan is the plan of one block. Nie et al., arXiv 2502.09992.
    """

    def score(view: View, drawn: Drawn) -> Tensor:
        base = law_of(view) if view.base_log_probs is None else view.base_log_probs
        return take_symbols(base, drawn.symbols).exp()

    temperature = _not_negative(temperature)
    block_length = None if block_length is None else whole(block_length, "block_length", 1)
    name = f"low_confidence({temperature}, {setting(accepted(plan))}, {block_length})"
    return Rule(keep_best(score, plan), draw_at(temperature), block_length, name)


def choose_first(selector: Selector | Callable[[View], Choice]) -> Rule:
    """The rule that does not look: it draws everywhere and keeps what the selector says.

    The tokens are those of ``unmask.sample`` with this selector, bit for bit: the reference point of the
    biased rules (derived). Not for selectors with a clock, which may choose nothing at a step.
    """
    return Rule(lambda view, _: selector(view), name=f"choose_first({getattr(selector, 'name', 'selector')})")


# --- the pieces that rules are made of ------------------------------------------------------------


def keep_best(score: Callable[[View, Drawn], Tensor], plan: Plan) -> Keep:
    """Keeps the highest scores [B, R], as many per step as the plan says; ties go to the lowest position."""
    sizes = step_sizes(plan)
    return lambda view, drawn: take(view, spread(view, score(view, drawn)), sizes(view))


def annealed(start: float, steps: int) -> Callable[[int], float]:
    """MaskGIT's choice temperature at step n = 0, 1, ..: start (1 - (n+1)/steps), zero from the last step on.

    Published starts: 4.5 with 12 steps, 6 with 20 (google-research/maskgit, MAGE).
    """

    start, steps = real(start, "start"), whole(steps, "steps", 1)

    def alpha(step: int) -> float:
        return start * max(0.0, 1 - (step + 1) / steps)

    alpha.__name__ = f"annealed({start}, {steps})"  # for manifests
    return alpha


def cosine_counts(steps: int) -> Callable[[int], tuple[int, ...]]:
    """MaskGIT's plan: after step n, floor(N cos(pi/2 (n+1)/steps)) of N positions stay masked.

    At most masked-1 before the last step, which takes the rest; shorter than ``steps`` where N is
    (google-research/maskgit draws the last symbol again instead, which changes no law).
    """
    steps = whole(steps, "steps", 1)

    def sizes(total: int) -> tuple[int, ...]:
        left: list[int] = [total]
        while left[-1] > 1 and len(left) < steps:
            share = math.cos(math.pi / 2 * len(left) / steps)
            left.append(min(left[-1] - 1, math.floor(total * share)))
        return tuple(a - b for a, b in zip(left, [*left[1:], 0]) if total)

    sizes.__name__ = f"cosine_counts({steps})"
    return sizes


def draw_at(temperature: float) -> TokenSource:
    """Symbols from the law proportional to p^(1/temperature); at 0 the most probable, lowest id among equals.

    The same as the arg-max of log p plus temperature times Gumbel noise. Where a likelihood is wanted, wrap
    the denoiser in `unmask.tempered` instead: no log-probability sees what a source does.
    """
    temperature = _not_negative(temperature)
    if temperature == 0:
        return greedy
    if temperature == 1:
        return draw

    def source(request: Request) -> Tensor:
        return draw(replace(request, log_probs=(request.log_probs / temperature).log_softmax(-1)))

    return source


def candidates(view: View, source: TokenSource, seed: int) -> Tensor:
    """Symbols int64 [B, R] from ``source`` at the rows of a sighted view that are open to choice, else 0.

    They are those that the loop would write there. A few rows are drawn at a time, so no float64 copy of the
    law at all positions exists. ``view.order_ids`` must be the item ids of the batch rows.
    """
    law, rows, places = law_of(view), rows_of(view), _places(view)
    is_open = (rows >= 0) & view.masked.gather(1, rows.clamp(min=0))
    symbols = torch.zeros_like(rows)
    for part in torch.split(is_open.nonzero(), max(1, SLICE // law.shape[-1])):
        item, column = part.unbind(1)
        row = rows[item, column][:, None]
        ids = places[item]
        request = Request(law[item, column][:, None], row, row >= 0, ids, view.step, seed, ids)
        symbols[item, column] = source(request)[:, 0]
    return symbols


def _peeking(rule: Rule, seed: int) -> Selector:
    """The rule as a selector that draws, for itself, what the loop will draw."""

    def choose(view: View) -> Choice:
        gumbel = noise.gumbel(seed, noise.ORDER, _places(view)[:, None], rows_of(view), 1 + view.step)
        return rule.keep(view, Drawn(candidates(view, rule.source, seed), gumbel))

    selector = Selector(choose, name=rule.name)
    return selector if rule.block_length is None else in_blocks(selector, rule.block_length)


def _places(view: View) -> Tensor:
    """Item ids int64 [B], under which the rows find their noise."""
    if view.order_ids is None:
        raise ValueError("the view has no order_ids; expected a sighted view, as commit.sample makes it")
    return view.order_ids


def _not_negative(temperature: float) -> float:
    temperature = real(temperature, "temperature")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature {temperature}: expected a number >= 0")
    return temperature
