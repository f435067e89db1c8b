"""The orders that the command line knows by name; in Python call `orders.presets`, `commit` and `remask` themselves."""

from __future__ import annotations

import difflib
import math
import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from torch import Tensor

from unmask.base.types import Denoiser, Plan, Selector
from unmask.command_line.boards import Sampler, Solved
from unmask.command_line.options import Options, check_values, value
from unmask.command_line.output import Report
from unmask.data import files
from unmask.denoisers import nucleus, tempered
from unmask.engine.likelihood import log_likelihood
from unmask.engine.sampling import sample
from unmask.kernels import commit, remask
from unmask.kernels.remask import Kernel, Sigma
from unmask.masking import schedules
from unmask.models import Model
from unmask.orders import presets, rules, scores, selectors
from unmask.orders.sources import draw, greedy
from unmask.planning import plans
from unmask.variants import upscale

EXACT = "exact at one position per call"
ADAPTIVE = "as many as are certain"
BIASED = "biased, with a likelihood"
UNKNOWN = "without a likelihood"


@dataclass(frozen=True)
class Task:
    """What an order may have to know: the denoiser that it will ask, and how many positions there are."""

    denoiser: Denoiser
    length: int


@dataclass(frozen=True)
class Kind:
    """What `Order.build` makes and how that samples, the options that all such orders read, and whether log_prob exists."""

    sampler: Callable[[Any, Options, Denoiser, bool], Sampler]
    takes: tuple[str, ...]
    likelihood: bool


# --- the three kinds ------------------------------------------------------------------------------


def _arranged(selector: Selector, options: Options) -> Selector:
    """A selector, in blocks and spaced if asked."""
    spaced = selector if options.spacing is None else rules.spaced(selector, options.spacing)
    return spaced if options.blocks is None else selectors.in_blocks(spaced, options.blocks)


def _choosing(selector: Selector, options: Options, denoiser: Denoiser, entropies: bool) -> Sampler:
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
    )


def _drawing(rule: commit.Rule, options: Options, denoiser: Denoiser, entropies: bool) -> Sampler:
    """A rule that draws first, in blocks if asked."""
    source = greedy if options.greedy else rule.source
    rule = replace(rule, source=source, block_length=options.blocks)
    return lambda tokens, ids, generator: commit.sample(
        denoiser, tokens, rule, generator=generator, item_ids=ids, entropies=entropies
    )


def _remasking(kernels: tuple[Kernel, ...], _: Options, denoiser: Denoiser, __: bool) -> Sampler:
    """Kernels that hide symbols again."""
    return lambda tokens, ids, generator: remask.sample(
        denoiser, tokens, kernels, generator=generator, item_ids=ids
    )


CHOOSES = Kind(_choosing, ("blocks", "spacing", "substeps", "greedy"), likelihood=True)
DRAWS = Kind(_drawing, ("blocks", "greedy"), likelihood=False)
REMASKS = Kind(_remasking, (), likelihood=False)


# --- the orders -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """How to make a sampler from options, what it does in one line, and the options that it reads beside its kind's.

    A ``blind`` order never reads probabilities, so the network runs at the chosen positions only.
    """

    build: Callable[[Options, Task], Any]
    about: str
    own: tuple[str, ...]
    group: str = EXACT
    kind: Kind = CHOOSES
    blind: bool = False

    @property
    def takes(self) -> tuple[str, ...]:
        """All options that the order reads."""
        return self.own + self.kind.takes


SCALED = "scaled:"
"""Before a plan: it is for any number of positions, its boundaries at equal shares."""


def read_plan(text: str | None) -> Plan:
    """A plan from positions per call (``3``), step sizes (``3,3,2``), or a plan file; None is 1 per call.

    ``scaled:`` before step sizes or a file fits them to any number of positions (`plans.rescaled`).
    """
    if text is None:
        return 1
    if text.startswith(SCALED):
        known = read_plan(text.removeprefix(SCALED))
        return known if not isinstance(known, tuple) else lambda total: plans.rescaled(known, total)
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        return _plan_file(Path(text))
    if min(sizes) < 1:
        raise ValueError(f"--plan {text}: expected at least one position per call")
    return sizes if "," in text else sizes[0]


def plan_path(options: Options) -> Path | None:
    """What --plan names, if it could be a file."""
    return None if options.plan is None else Path(options.plan.removeprefix(SCALED))


def _plan_file(path: Path) -> tuple[int, ...]:
    """The plan of a file; ValueError names the file."""
    if path != files.STANDARD and not path.exists():
        raise ValueError(
            f"--plan {path}: no such file; expected positions per call (3), step sizes (3,3,2) or a plan file"
        )
    text = files.read_text(path, "a plan file")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "plan.json"
        copy.write_text(text, "utf-8")
        try:
            return plans.load(copy).plan
        except ValueError as error:
            raise ValueError(f"--plan {files.shown(path)}: {error}") from None


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


BUDGET = Order(
    lambda o, _: presets.eb(value(o.gamma, 0.1)),
    "the most certain positions whose entropies fit a budget of gamma nats a call (gamma 0.1)",
    ("gamma",),
    ADAPTIVE,
)

ORDERS = {
    "random": Order(
        lambda o, _: presets.random(read_plan(o.plan), o.seed),
        "every order equally likely",
        ("plan",),
        blind=True,
    ),
    "left-to-right": Order(
        lambda o, _: presets.left_to_right(read_plan(o.plan)),
        "the first position first",
        ("plan",),
        blind=True,
    ),
    "bisection": Order(
        lambda o, _: presets.bisection(_own_plan(o)),
        "halves every gap; without a plan a level a call, which is exact on Markov chains",
        ("plan",),
        blind=True,
    ),
    "halton": Order(
        lambda o, t: presets.halton(*_grid(o.grid, t.length), _own_plan(o)),
        "quasi-random on a grid; without a plan in at most 32 calls (arccos plan)",
        ("plan", "grid"),
        blind=True,
    ),
    "ancestral": Order(
        lambda o, _: presets.ancestral(_steps(o), o.seed),
        "reverse diffusion on a grid of times, random counts; exact as steps grow (steps 64)",
        ("steps",),
        blind=True,
    ),
    "first-hitting": Order(
        lambda o, _: presets.first_hitting(o.seed),
        "ancestral sampling in continuous time, one position a call",
        (),
        blind=True,
    ),
    "confidence": Order(
        lambda o, _: presets.confidence(read_plan(o.plan)),
        "the position with the most probable symbol first (top probability)",
        ("plan",),
    ),
    "margin": Order(
        lambda o, _: presets.margin(read_plan(o.plan)),
        "the largest gap between the two most probable symbols first",
        ("plan",),
    ),
    "noisy-margin": Order(
        lambda o, _: presets.noisy_margin(read_plan(o.plan), value(o.alpha, 0.5), o.seed),
        "margin plus alpha times Gumbel noise (alpha 0.5)",
        ("plan", "alpha"),
    ),
    "entropy": Order(
        lambda o, _: presets.entropy(read_plan(o.plan)), "the position of least entropy first", ("plan",)
    ),
    "moment": Order(
        lambda o, _: presets.moment(read_plan(o.plan), value(o.beta, 2.0), o.seed),
        "drawn with weights sum p^beta, symbols from p (beta 2)",
        ("plan", "beta"),
    ),
    "hybrid": Order(
        lambda o, _: presets.hybrid(read_plan(o.plan), value(o.share, 0.5)),
        "a share of each step by bisection, the rest by confidence (share 0.5)",
        ("plan", "share"),
    ),
    "pc": Order(
        lambda o, t: presets.pc(_uniform(t.denoiser.vocab_size), read_plan(o.plan), value(o.decay, 0.25)),
        "early and certain first; all symbols count as equally common (decay 0.25)",
        ("plan", "decay"),
    ),
    "information-gain": Order(
        lambda o, t: presets.information_gain(t.denoiser, read_plan(o.plan), value(o.candidates, 8), o.seed),
        "the best of several batches by one look ahead, which costs a call each (candidates 8)",
        ("plan", "candidates"),
    ),
    "threshold": Order(
        lambda o, _: presets.threshold(value(o.tau, 0.9)),
        "all positions whose best symbol has probability tau or more, at least one (tau 0.9)",
        ("tau",),
        ADAPTIVE,
    ),
    "margin-threshold": Order(
        lambda o, _: selectors.threshold(scores.on_base(scores.margin), value(o.tau, 0.9)),
        "all positions whose margin is tau or more, at least one (tau 0.9)",
        ("tau",),
        ADAPTIVE,
    ),
    "entropy-budget": BUDGET,
    "eb": replace(BUDGET, about="short for entropy-budget"),
    "factor": Order(
        lambda o, _: presets.factor(value(o.limit, 1.0)),
        "the n most certain while (n + 1) (1 - p) is below the limit (limit 1)",
        ("limit",),
        ADAPTIVE,
    ),
    "klass": Order(
        lambda o, _: presets.klass(value(o.tau, 0.6), value(o.eps, 0.015), read_plan(o.plan)),
        "all that are above tau and moved by less than eps nats twice, else the plan (tau 0.6, eps 0.015)",
        ("plan", "tau", "eps"),
        ADAPTIVE,
    ),
    "moment-sampler": Order(
        lambda o, _: presets.moment_sampler(read_plan(o.plan), value(o.alpha, 1.0), o.seed),
        "moment with beta = 1 + 1/alpha, symbols from p^beta too (alpha 1)",
        ("plan", "alpha"),
        BIASED,
    ),
    "race": Order(
        lambda o, _: presets.race(read_plan(o.plan), value(o.alpha, 1.0), o.seed),
        "MaskGIT's law, with a likelihood given its public noise (alpha 1)",
        ("plan", "alpha"),
        BIASED,
    ),
    "maskgit": Order(
        lambda o, _: _maskgit(o),
        "draws everywhere, keeps the luckiest; alpha falls, counts follow a cosine (alpha 4.5, steps 12)",
        ("plan", "alpha", "steps"),
        UNKNOWN,
        DRAWS,
    ),
    "low-confidence": Order(
        lambda o, _: commit.low_confidence(1.0, read_plan(o.plan)),
        "draws everywhere, keeps the symbols that are most probable before tempering (LLaDA)",
        ("plan",),
        UNKNOWN,
        DRAWS,
    ),
    "remdm": Order(
        lambda o, _: _remdm(o, remask.cap(value(o.eta, 0.008))),
        "ancestral, hides visible symbols with a chance of at most eta (steps 64, eta 0.008)",
        ("steps", "eta"),
        UNKNOWN,
        REMASKS,
        blind=True,
    ),
    "remdm-rescale": Order(
        lambda o, _: _remdm(o, remask.rescale(value(o.eta, 0.015))),
        "ancestral, hides with eta times the largest chance that the schedule allows (steps 64, eta 0.015)",
        ("steps", "eta"),
        UNKNOWN,
        REMASKS,
        blind=True,
    ),
    "remdm-conf": Order(
        lambda o, _: _remdm(o, remask.by_confidence(remask.rescale(value(o.eta, 1.0)))),
        "ancestral, hides symbols that were improbable when drawn (steps 64, eta 1)",
        ("steps", "eta"),
        UNKNOWN,
        REMASKS,
    ),
    "remdm-loop": Order(
        lambda o, _: _looping(o),
        "ancestral, stays at nine tenths visible for half the time and hides there (steps 64, eta 0.02)",
        ("steps", "eta"),
        UNKNOWN,
        REMASKS,
        blind=True,
    ),
    "psi": Order(
        lambda o, _: _remdm(o, remask.psi(1 - value(o.eta, 0.1))),
        "ancestral, a share eta of the positions is noised anew at each step (steps 64, eta 0.1)",
        ("steps", "eta"),
        UNKNOWN,
        REMASKS,
        blind=True,
    ),
    "gibbs": Order(
        lambda o, _: _corrected(o),
        "ancestral, a random visible symbol is drawn anew after each step (steps 64)",
        ("steps",),
        UNKNOWN,
        REMASKS,
        blind=True,
    ),
    "p2": Order(
        lambda o, _: remask.p2(_steps(o, 32), value(o.eta, 1.0)),
        "draws everywhere, keeps the most probable, hides the others (steps 32, eta 1)",
        ("steps", "eta"),
        UNKNOWN,
        REMASKS,
    ),
}


# --- what commands ask ----------------------------------------------------------------------------


def check(options: Options) -> None:
    """ValueError where it can be known before the model is: see `find`."""
    check_values(options)
    if options.order is not None:
        find(options)


def find(options: Options) -> Order:
    """The order of the options; ValueError for an unknown name, or an option that the order does not read."""
    name = str(options.order)
    if name not in ORDERS:
        near = difflib.get_close_matches(name, ORDERS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ValueError(f"no order '{name}': {hint}orders: {', '.join(ORDERS)}")
    foreign = [option for option in options.given() if option not in ORDERS[name].takes]
    if foreign:
        raise ValueError(
            f"order '{name}' does not read --{foreign[0]}; it takes {_dashed(ORDERS[name].takes)}"
        )
    return ORDERS[name]


def suited(options: Options, model: Model) -> Options:
    """The options as a model can serve them, with its own order if none is named.

    A causal one goes left to right, one of upscaled levels stage by stage; where lengths are given, a list of step sizes
    serves every length, at equal shares.
    """
    network = model.config["network"]
    if model.end is not None and options.plan is not None and not options.plan.startswith(SCALED):
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


def _changed(options: Options, denoiser: Denoiser) -> Denoiser:
    """The law that symbols are drawn from."""
    return nucleus(tempered(denoiser, options.temperature), options.top_p)


def sampler(options: Options, denoiser: Denoiser, length: int, *, entropies: bool = False) -> Sampler:
    """What unmasks ``length`` positions as the options say; ``entropies`` puts them into the trace where possible."""
    check_values(options)
    order = find(options)
    changed = _changed(options, denoiser)
    built = order.build(options, Task(changed, length))
    return _spoken(order.kind.sampler(built, options, changed, entropies), options)


T = TypeVar("T")


def _spoken(work: Callable[..., T], options: Options) -> Callable[..., T]:
    """``work`` whose complaint about a plan that does not fit names the option."""

    def call(*arguments: Any) -> T:
        try:
            return work(*arguments)
        except ValueError as error:
            found = re.search(r"plan sums to (\d+) but (\d+) positions are masked", str(error))
            if found is None or options.plan is None:
                raise
            total, masked = found.groups()
            raise ValueError(
                f"--plan {options.plan} sums to {total} but {masked} positions are masked; expected "
                f"that many, positions per call (3), or --plan {SCALED}{options.plan}"
            ) from None

    return call


def scored(options: Options, model: Model) -> Callable[[Tensor], Tensor]:
    """Log-likelihood of tokens [B, L] along the order and of given lengths, nats; ValueError if the order has none."""
    check_values(options)
    order = find(options)
    if not order.kind.likelihood:
        raise ValueError(f"order '{options.order}' has no likelihood; see `unmask orders`")
    changed = _changed(options, model.denoiser)
    selector = _arranged(order.build(options, Task(changed, model.length)), options)
    substeps = value(options.substeps, 1)

    def score(tokens: Tensor) -> Tensor:
        visible = model.visible(tokens)
        found = log_likelihood(changed, tokens, selector, substeps=substeps, visible=visible)
        return found - model.length_cost(tokens)

    return _spoken(score, options)


def described(options: Options, solved: Solved) -> Report:
    """How something was sampled, for reports."""
    return {
        "order": options.order,
        "selector": solved.manifest["selector"],
        "symbols": "arg-max" if options.greedy else "drawn",
        "temperature": options.temperature,
        "top_p": options.top_p,
        "seed": options.seed,
    }


def run() -> Report:
    """The orders with one line each."""
    return {"command": "orders", "orders": [_line(name, order) for name, order in ORDERS.items()]}


def _line(name: str, order: Order) -> Report:
    return {
        "name": name,
        "group": order.group,
        "blind": order.blind,
        "likelihood": order.kind.likelihood,
        "about": order.about,
        "options": list(order.takes),
        "own_options": list(order.own),
    }


def render(report: Report, console: Console) -> None:
    """Prints one line an order, by group."""
    for group in (EXACT, ADAPTIVE, BIASED, UNKNOWN):
        console.print(f"[bold]{group}[/]")
        for order in report["orders"]:
            if order["group"] == group:
                console.print(_listed(order))
    for text, kind in (("Those with a likelihood", CHOOSES), ("maskgit and low-confidence", DRAWS)):
        console.print(f"{text} also take {_dashed(kind.takes)}.")
    console.print("All take --temperature, --top-p and --seed.")


def _listed(order: Report) -> str:
    sight = "blind" if order["blind"] else "sighted"
    return f"  {order['name']:<17}{sight:<8} {order['about']} {_dashed(order['own_options'])}".rstrip()


def _dashed(options: Iterable[str]) -> str:
    return " ".join(f"--{option}" for option in options)
