"""The orders that the command line knows by name; in Python pass selectors themselves."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from unmask import plans, schedules, scores, selectors
from unmask.commands.output import Report
from unmask.types import Plan, Score, Selector


@dataclass(frozen=True)
class Options:
    """What the command line says about an order; None where it says nothing."""

    plan: str | None = None
    tau: float | None = None
    gamma: float | None = None
    steps: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Order:
    """How to make a selector from options, what it does in one line, and the options that it reads."""

    build: Callable[[Options], Selector]
    about: str
    takes: tuple[str, ...]


def _by(score: Score, about: str) -> Order:
    return Order(lambda o: selectors.top_k(score, read_plan(o.plan)), about, ("plan",))


ORDERS = {
    "random": Order(
        lambda o: selectors.top_k(scores.at_random(o.seed), read_plan(o.plan)),
        "every order equally likely; blind",
        ("plan",),
    ),
    "left-to-right": _by(scores.left_to_right, "the first position first; blind"),
    "confidence": _by(
        scores.confidence, "the position with the most probable symbol first (top probability)"
    ),
    "margin": _by(scores.margin, "the largest gap between the two most probable symbols first"),
    "entropy": _by(scores.negative_entropy, "the position of least entropy first"),
    "threshold": Order(
        lambda o: selectors.threshold(scores.confidence, 0.9 if o.tau is None else o.tau),
        "all positions whose best symbol has probability tau or more, at least one (tau 0.9)",
        ("tau",),
    ),
    "margin-threshold": Order(
        lambda o: selectors.threshold(scores.margin, 0.9 if o.tau is None else o.tau),
        "all positions whose margin is tau or more, at least one (tau 0.9)",
        ("tau",),
    ),
    "entropy-budget": Order(
        lambda o: selectors.entropy_budget(0.1 if o.gamma is None else o.gamma),
        "the most certain positions whose entropies fit a budget of gamma nats a call (gamma 0.1)",
        ("gamma",),
    ),
    "ancestral": Order(
        lambda o: selectors.ancestral(schedules.linear(), schedules.uniform_grid(_steps(o)), o.seed),
        "reverse diffusion, linear schedule, on a uniform grid of times (steps 64); blind",
        ("steps",),
    ),
    "first-hitting": Order(
        lambda o: selectors.first_hitting(schedules.linear(), o.seed),
        "ancestral sampling in continuous time, one position a call; blind",
        (),
    ),
}


def selector(name: str, options: Options) -> Selector:
    """The selector of an order; ValueError for an unknown name, or an option that the order does not read."""
    if name not in ORDERS:
        near = difflib.get_close_matches(name, ORDERS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ValueError(f"no order '{name}': {hint}orders: {', '.join(ORDERS)}")
    given = [k for k in ("plan", "tau", "gamma", "steps") if getattr(options, k) is not None]
    foreign = [k for k in given if k not in ORDERS[name].takes]
    if foreign:
        takes = ", ".join(f"--{k}" for k in ORDERS[name].takes) or "no options"
        raise ValueError(f"order '{name}' does not read --{foreign[0]}; it takes {takes}")
    return ORDERS[name].build(options)


def read_plan(text: str | None) -> Plan:
    """A plan from positions per call (``3``), step sizes (``3,3,2``), or a plan file; None is 1 per call."""
    if text is None:
        return 1
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        return _plan_file(text)
    return sizes if "," in text else sizes[0]


def _plan_file(text: str) -> tuple[int, ...]:
    if not Path(text).is_file():
        raise ValueError(
            f"plan '{text}': no such file; expected positions per call (3), step sizes (3,3,2) or a plan file"
        )
    return plans.load(text).plan


def _steps(options: Options) -> int:
    steps = 64 if options.steps is None else options.steps
    if steps < 1:
        raise ValueError(f"steps {steps}: expected at least 1")
    return steps


def run() -> Report:
    """The orders with one line each."""
    known = [{"name": k, "about": v.about, "options": list(v.takes)} for k, v in ORDERS.items()]
    return {"command": "orders", "orders": known}


def render(report: Report, console: Console) -> None:
    """Prints one line an order."""
    table = Table("order", "which positions come next", "options", box=None)
    for order in report["orders"]:
        table.add_row(order["name"], order["about"], " ".join(f"--{k}" for k in order["options"]))
    console.print(table)
