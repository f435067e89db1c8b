"""From options to samplers; in Python call `orders.presets`, `commit` and `remask` themselves."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from unmask.base.types import Denoiser, Plan, Result, Selector
from unmask.command_line.boards import Sampler, Solved
from unmask.command_line.catalogue import CHOOSES, DRAWS, REMASKS, Kind, find
from unmask.command_line.choosing.files import SCALED, plan_path, read_plan, read_sampler
from unmask.command_line.options import SEARCH, Options, Search, check_values, value
from unmask.command_line.output import Report
from unmask.denoisers import nucleus, tempered
from unmask.engine.likelihood import log_likelihood
from unmask.engine.sampling import Each, sample
from unmask.engine.searching import Found, backtrack, best_of, judged
from unmask.engine.searching import search as beam
from unmask.kernels import commit, remask
from unmask.kernels.remask import Kernel, Sigma
from unmask.masking import schedules
from unmask.models import Model
from unmask.orders import presets, rules, scores, selectors
from unmask.orders.samplers import Sampler as Filing
from unmask.orders.sources import draw, greedy
from unmask.planning import plans
from unmask.variants import upscale

__all__ = [
    "BUILD",
    "SAMPLERS",
    "Filed",
    "Task",
    "changed",
    "described",
    "plan_path",
    "read_plan",
    "read_sampler",
    "said",
    "sampler",
    "scored",
    "selected",
    "suited",
    "told",
]


@dataclass(frozen=True)
class Task:
    """What an order may have to know: the denoiser that it will ask, and how many positions there are."""

    denoiser: Denoiser
    length: int


# --- the three kinds ------------------------------------------------------------------------------


def _arranged(selector: Selector, options: Options) -> Selector:
    """A selector, in blocks and spaced if asked."""
    spaced = selector if options.spacing is None else rules.spaced(selector, options.spacing)
    return spaced if options.blocks is None else selectors.in_blocks(spaced, options.blocks)


def _choosing(
    selector: Selector, options: Options, denoiser: Denoiser, entropies: bool, each: Each | None
) -> Sampler:
    """A selector's sampler."""
    chosen = _arranged(selector, options)
    return lambda tokens, ids, generator: sample(
        denoiser,
        tokens,
        chosen,
        generator=generator,
        source=greedy if options.greedy else draw,
        substeps=value(options.substeps, 1),
        order_ids=ids,
        item_ids=ids,
        entropies=entropies,
        each=each,
    )


def _by_file(found: Filing, denoiser: Denoiser, entropies: bool, each: Each | None) -> Sampler:
    """That of a sampler file."""
    told: dict[str, Any] = {"entropies": entropies, "each": each}
    return lambda tokens, ids, generator: sample(
        denoiser, tokens, found, generator=generator, order_ids=ids, item_ids=ids, **told
    )


def _drawing(
    rule: commit.Rule, options: Options, denoiser: Denoiser, entropies: bool, each: Each | None
) -> Sampler:
    """A rule that draws first, in blocks if asked."""
    source = greedy if options.greedy else rule.source
    rule = replace(rule, source=source, block_length=options.blocks)
    return lambda tokens, ids, generator: commit.sample(
        denoiser, tokens, rule, generator=generator, item_ids=ids, entropies=entropies, each=each
    )


def _remasking(
    kernels: tuple[Kernel, ...], _: Options, denoiser: Denoiser, __: bool, each: Each | None
) -> Sampler:
    """Kernels that hide symbols again."""
    return lambda tokens, ids, generator: remask.sample(
        denoiser, tokens, kernels, generator=generator, item_ids=ids, each=each
    )


SAMPLERS: dict[Kind, Callable[[Any, Options, Denoiser, bool, Each | None], Sampler]] = {
    CHOOSES: _choosing,
    DRAWS: _drawing,
    REMASKS: _remasking,
}


# --- the orders -----------------------------------------------------------------------------------


def _own_plan(options: Options) -> Plan | None:
    """The plan that was asked for, or None: the order's own."""
    return None if options.plan is None else read_plan(options.plan)


def _steps(options: Options, default: int = 64) -> int:
    steps = value(options.steps, default)
    if steps < 1:
        raise ValueError(f"steps {steps}: expected at least 1")
    return steps


def _grid(text: str | None, length: int) -> tuple[int, int]:
    """Height and width of ``length`` positions, from ``9x9`` or, if nothing is said, those of a square."""
    if text is None:
        text = f"{math.isqrt(length)}x{math.isqrt(length)}"
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ValueError(f"--grid '{text}': expected HEIGHTxWIDTH, such as 9x9")
    if int(height) * int(width) != length:
        raise ValueError(f"a grid of {text} has no {length} cells: give --grid HEIGHTxWIDTH of that many")
    return int(height), int(width)


def _uniform(vocab_size: int) -> Tensor:
    """Background frequencies, where none were counted."""
    return torch.full((vocab_size,), 1 / vocab_size, dtype=torch.float64)


def _maskgit(options: Options) -> commit.Rule:
    """As published (cosine counts, falling temperature), or a plan at a fixed temperature, or a plan and --steps."""
    steps, alpha = _steps(options, 12), value(options.alpha, 4.5)
    fixed = options.plan is not None and options.steps is None
    counts = commit.cosine_counts(steps) if options.plan is None else read_plan(options.plan)
    return commit.maskgit(alpha if fixed else commit.annealed(alpha, steps), counts)


def _remdm(options: Options, sigma: Sigma) -> tuple[Kernel, ...]:
    return remask.remdm(schedules.linear().alpha, schedules.uniform_grid(_steps(options)), sigma)


def _looping(options: Options) -> tuple[Kernel, ...]:
    sigma = remask.between(remask.cap(value(options.eta, 0.02)))
    return remask.remdm(remask.looped(), schedules.uniform_grid(_steps(options)), sigma)


def _corrected(options: Options) -> tuple[Kernel, ...]:
    """Ancestral steps with a Gibbs corrector after each."""
    return tuple(kernel for step in _remdm(options, remask.psi(1)) for kernel in (step, remask.gibbs()))


BUILD: dict[str, Callable[[Options, Task], Any]] = {
    "random": lambda o, _: presets.random(read_plan(o.plan), o.seed),
    "left-to-right": lambda o, _: presets.left_to_right(read_plan(o.plan)),
    "bisection": lambda o, _: presets.bisection(_own_plan(o)),
    "halton": lambda o, t: presets.halton(*_grid(o.grid, t.length), _own_plan(o)),
    "ancestral": lambda o, _: presets.ancestral(_steps(o), o.seed),
    "first-hitting": lambda o, _: presets.first_hitting(o.seed),
    "confidence": lambda o, _: presets.confidence(read_plan(o.plan)),
    "margin": lambda o, _: presets.margin(read_plan(o.plan)),
    "noisy-margin": lambda o, _: presets.noisy_margin(read_plan(o.plan), value(o.alpha, 0.5), o.seed),
    "entropy": lambda o, _: presets.entropy(read_plan(o.plan)),
    "moment": lambda o, _: presets.moment(read_plan(o.plan), value(o.beta, 2.0), o.seed),
    "hybrid": lambda o, _: presets.hybrid(read_plan(o.plan), value(o.share, 0.5)),
    "pc": lambda o, t: presets.pc(_uniform(t.denoiser.vocab_size), read_plan(o.plan), value(o.decay, 0.25)),
    "information-gain": lambda o, t: presets.information_gain(
        t.denoiser, read_plan(o.plan), value(o.candidates, 8), o.seed
    ),
    "threshold": lambda o, _: presets.threshold(value(o.tau, 0.9)),
    "margin-threshold": lambda o, _: selectors.threshold(scores.on_base(scores.margin), value(o.tau, 0.9)),
    "fork": lambda o, _: presets.fork(value(o.tau, 0.999)),
    "entropy-budget": lambda o, _: presets.eb(value(o.gamma, 0.1)),
    "eb": lambda o, _: presets.eb(value(o.gamma, 0.1)),
    "factor": lambda o, _: presets.factor(value(o.limit, 1.0)),
    "klass": lambda o, _: presets.klass(value(o.tau, 0.6), value(o.eps, 0.015), read_plan(o.plan)),
    "moment-sampler": lambda o, _: presets.moment_sampler(read_plan(o.plan), value(o.alpha, 1.0), o.seed),
    "race": lambda o, _: presets.race(read_plan(o.plan), value(o.alpha, 1.0), o.seed),
    "maskgit": lambda o, _: _maskgit(o),
    "low-confidence": lambda o, _: commit.low_confidence(1.0, read_plan(o.plan)),
    "remdm": lambda o, _: _remdm(o, remask.cap(value(o.eta, 0.008))),
    "remdm-rescale": lambda o, _: _remdm(o, remask.rescale(value(o.eta, 0.015))),
    "remdm-conf": lambda o, _: _remdm(o, remask.by_confidence(remask.rescale(value(o.eta, 1.0)))),
    "remdm-loop": lambda o, _: _looping(o),
    "psi": lambda o, _: _remdm(o, remask.psi(1 - value(o.eta, 0.1))),
    "gibbs": lambda o, _: _corrected(o),
    "p2": lambda o, _: remask.p2(_steps(o, 32), value(o.eta, 1.0)),
}
"""What makes an order of `catalogue.ORDERS` from options: a selector, a rule that draws first, or kernels."""


# --- what commands ask ----------------------------------------------------------------------------


def suited(options: Options, model: Model) -> Options:
    """The options as a model can serve them, with its own order if none is named.

    A causal one goes left to right, one of upscaled levels stage by stage; where lengths are given, a list of step sizes
    serves every length, at equal shares.
    """
    network = model.config["network"]
    if options.sampler is not None:
        return Filed(**vars(options), said=read_sampler(options.sampler, model))
    if model.varied and options.plan is not None and not options.plan.startswith(SCALED):
        options = replace(options, plan=SCALED + options.plan)
    if network.get("causal"):
        if options.order not in (None, "left-to-right"):
            raise ValueError(f"a causal model reads from left to right; expected no --order {options.order}")
        return replace(options, order="left-to-right")
    options = replace(options, order=options.order or str(model.config["order"]))
    if (count := upscale.stages_of(network)) > 1:
        if options.blocks is not None:
            raise ValueError("this model works in blocks of its own, one a stage; expected no --blocks")
        return replace(options, blocks=int(network["length"]) // count)
    return options


@dataclass(frozen=True)
class Filed(Options):
    """Options that are a sampler file, which was read, and suits the model."""

    said: Filing | None = None


def said(options: Options) -> Filing | None:
    """The sampler of options that are one."""
    return options.said if isinstance(options, Filed) else None


def told(options: Options) -> str:
    """The order in a few words."""
    if (found := said(options)) is not None:
        return f"sampler {options.sampler}{f' ({found.name})' if found.name else ''}"
    return f"{options.order}, plan {options.plan or 'its own'}"


def changed(options: Options, denoiser: Denoiser) -> Denoiser:
    """The law that symbols are drawn from."""
    if (found := said(options)) is not None:
        return found.denoiser(denoiser)
    return nucleus(tempered(denoiser, options.temperature), options.top_p)


def sampler(
    options: Options, denoiser: Denoiser, length: int, *, entropies: bool = False, each: Each | None = None
) -> Sampler:
    """What unmasks ``length`` positions as the options say; ``entropies`` puts them into the trace where possible.

    ``each`` hears of every step, as in `unmask.sample`.
    """
    check_values(options)
    if (found := said(options)) is not None:
        return _spoken(_by_file(found, denoiser, entropies, each), options)
    order = find(options)
    law = changed(options, denoiser)
    built = BUILD[str(options.order)](options, Task(law, length))
    return _spoken(SAMPLERS[order.kind](built, options, law, entropies, each), options)


def searcher(
    search: Search, options: Options, denoiser: Denoiser, length: int, num: int, each: Each | None = None
) -> Sampler:
    """What finds the ``num`` best fillings of each sequence; draws come from the law of --temperature and --top-p.

    ``each`` hears of every step, those of a judge included.
    """
    check_values(options)
    law, found = changed(options, denoiser), said(options)
    selector = _with_likelihood(options, denoiser, length) if found is None else found
    ((way, width),) = search.given
    finish, proposal = search.judge is not None or num > 1, None if law is denoiser or found else law

    def find(tokens: Tensor, ids: Tensor, generator: torch.Generator) -> Found:
        if way == "beam":
            return beam(denoiser, tokens, selector, width=width, order_ids=ids, each=each)
        if way == "backtrack":
            return backtrack(denoiser, tokens, selector, count=width, finish=finish, order_ids=ids, each=each)
        own: dict[str, Any] = {"order_ids": ids, "item_ids": ids, "each": each}
        return best_of(denoiser, tokens, selector, count=width, generator=generator, proposal=proposal, **own)

    def told(tokens: Tensor, ids: Tensor, generator: torch.Generator) -> Result:
        if search.judge is None:
            return find(tokens, ids, generator).told(num)
        order = presets.random(partial(plans.rescaled, (1,) * search.judge), (options.seed + 1) % 2**63)
        found = find(tokens, ids, generator)
        return judged(denoiser, tokens, found, order, order_ids=ids, each=each).told(num)

    return _spoken(told, options)


T = TypeVar("T")


def _spoken(work: Callable[..., T], options: Options) -> Callable[..., T]:
    """``work`` whose complaint about a plan that does not fit names the option."""

    def call(*arguments: Any) -> T:
        try:
            return work(*arguments)
        except ValueError as error:
            found = re.search(r"plan sums to (\d+) but (\d+) positions are masked", str(error))
            if found is None or (options.plan is None and options.sampler is None):
                raise
            short = f"sums to {found[1]} but {found[2]} positions are masked; expected that many"
            if options.sampler is not None:
                wanted = f"--sampler {options.sampler}: its plan {short}, or a plan that is rescaled"
            else:
                wanted = (
                    f"--plan {options.plan} {short}, positions per call (3), or --plan {SCALED}{options.plan}"
                )
            raise ValueError(wanted) from None

    return call


def selected(options: Options, model: Model) -> tuple[Selector, int]:
    """The selector and sub-steps of the options; ValueError if the order has no likelihood."""
    found, selector = said(options), _with_likelihood(options, model.denoiser, model.length)
    return selector, value(options.substeps, 1) if found is None else found.substeps


def _with_likelihood(options: Options, denoiser: Denoiser, length: int) -> Selector:
    check_values(options)
    if (found := said(options)) is not None:
        if not found.is_law:
            raise ValueError(
                f"--sampler {options.sampler} draws no symbols, so it has no likelihood; expected one that does"
            )
        return found.selector_for(denoiser)
    order = find(options)
    if not order.kind.likelihood:
        raise ValueError(f"order '{options.order}' has no likelihood; see `unmask orders`")
    task = Task(changed(options, denoiser), length)
    return _arranged(BUILD[str(options.order)](options, task), options)


def scored(options: Options, model: Model) -> Callable[[Tensor], Tensor]:
    """Log-likelihood of tokens [B, L] along the order and of given lengths, nats; ValueError if the order has none."""
    law = changed(options, model.denoiser)
    selector, substeps = selected(options, model)

    def score(tokens: Tensor) -> Tensor:
        visible = model.visible(tokens)
        found = log_likelihood(law, tokens, selector, substeps=substeps, visible=visible)
        return found - model.length_cost(tokens)

    return _spoken(score, options)


def described(options: Options, solved: Solved, search: Search = SEARCH) -> Report:
    """How something was sampled, for reports."""
    found = said(options)
    greedily = options.greedy if found is None else not found.is_law
    return {
        "order": options.order,
        "selector": solved.manifest["selector"],
        "symbols": "the most probable found" if search.given else "arg-max" if greedily else "drawn",
        "temperature": options.temperature if found is None else found.temperature,
        "top_p": options.top_p,
        "seed": options.seed,
        "sampler": None if found is None else found.record(),
        **search.about,
    }
