"""From options to samplers; in Python call `orders.presets`, `commit` and `remask` themselves."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from unmask.base.types import Denoiser, Result, Selector
from unmask.command_line.boards import Sampler, Solved
from unmask.command_line.catalogue import CHOOSES, DRAWS, REMASKS, Kind, find
from unmask.command_line.choosing.files import SCALED, plan_path, read_plan, read_sampler
from unmask.command_line.choosing.orders import BUILD, Task
from unmask.command_line.options import SEARCH, Options, Search, check_values, value
from unmask.command_line.output import Report
from unmask.denoisers import nucleus, tempered
from unmask.engine.likelihood import log_likelihood
from unmask.engine.sampling import Each, sample
from unmask.engine.searching import Found, backtrack, best_of, judged
from unmask.engine.searching import search as beam
from unmask.kernels import commit, remask
from unmask.kernels.remask import Kernel
from unmask.models import Model
from unmask.orders import presets, rules, selectors
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
            return beam(denoiser, tokens, selector, width=width, finish=finish, order_ids=ids, each=each)
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
