"""The orders that the command line knows by name: what each does and which options it reads. Needs no torch."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unmask.command_line.options import Options, check_values

if TYPE_CHECKING:
    from rich.console import Console

EXACT = "exact at one position per call"
ADAPTIVE = "as many as are certain"
BIASED = "biased, with a likelihood"
UNKNOWN = "without a likelihood"


@dataclass(frozen=True)
class Kind:
    """How orders of a kind work, the options that all of them read, and whether log_prob exists."""

    name: str
    takes: tuple[str, ...]
    likelihood: bool


CHOOSES = Kind("chooses", ("blocks", "spacing", "substeps", "greedy"), likelihood=True)
DRAWS = Kind("draws first", ("blocks", "greedy"), likelihood=False)
REMASKS = Kind("hides again", (), likelihood=False)


@dataclass(frozen=True)
class Order:
    """What an order does in one line, and the options that it reads beside its kind's.

    A ``blind`` order never reads probabilities, so the network runs at the chosen positions only.
    """

    about: str
    own: tuple[str, ...]
    group: str = EXACT
    kind: Kind = CHOOSES
    blind: bool = False

    @property
    def takes(self) -> tuple[str, ...]:
        """All options that the order reads."""
        return self.own + self.kind.takes


ORDERS = {
    "random": Order("every order equally likely", ("plan",), blind=True),
    "left-to-right": Order("the first position first", ("plan",), blind=True),
    "bisection": Order(
        "halves every gap; without a plan a level a call, which is exact on Markov chains",
        ("plan",),
        blind=True,
    ),
    "halton": Order(
        "quasi-random on a grid; without a plan in at most 32 calls (arccos plan)",
        ("plan", "grid"),
        blind=True,
    ),
    "ancestral": Order(
        "reverse diffusion on a grid of times, random counts; exact as steps grow (steps 64)",
        ("steps",),
        blind=True,
    ),
    "first-hitting": Order("ancestral sampling in continuous time, one position a call", (), blind=True),
    "confidence": Order("the position with the most probable symbol first (top probability)", ("plan",)),
    "margin": Order("the largest gap between the two most probable symbols first", ("plan",)),
    "noisy-margin": Order("margin plus alpha times Gumbel noise (alpha 0.5)", ("plan", "alpha")),
    "entropy": Order("the position of least entropy first", ("plan",)),
    "moment": Order("drawn with weights sum p^beta, symbols from p (beta 2)", ("plan", "beta")),
    "hybrid": Order(
        "a share of each step by bisection, the rest by confidence (share 0.5)", ("plan", "share")
    ),
    "pc": Order(
        "early and certain first; all symbols count as equally common (decay 0.25)", ("plan", "decay")
    ),
    "information-gain": Order(
        "the best of several batches by one look ahead, which costs a call each (candidates 8)",
        ("plan", "candidates"),
    ),
    "threshold": Order(
        "all positions whose best symbol has probability tau or more, at least one (tau 0.9)",
        ("tau",),
        ADAPTIVE,
    ),
    "margin-threshold": Order(
        "all positions whose margin is tau or more, at least one (tau 0.9)", ("tau",), ADAPTIVE
    ),
    "fork": Order(
        "all of probability tau or more, else a guess between two, for --backtrack (tau 0.999)",
        ("tau",),
        ADAPTIVE,
    ),
    "entropy-budget": Order(
        "the most certain positions whose entropies fit a budget of gamma nats a call (gamma 0.1)",
        ("gamma",),
        ADAPTIVE,
    ),
    "eb": Order("short for entropy-budget", ("gamma",), ADAPTIVE),
    "factor": Order(
        "the n most certain while (n + 1) (1 - p) is below the limit (limit 1)", ("limit",), ADAPTIVE
    ),
    "klass": Order(
        "all that are above tau and moved by less than eps nats twice, else the plan (tau 0.6, eps 0.015)",
        ("plan", "tau", "eps"),
        ADAPTIVE,
    ),
    "moment-sampler": Order(
        "moment with beta = 1 + 1/alpha, symbols from p^beta too (alpha 1)", ("plan", "alpha"), BIASED
    ),
    "race": Order(
        "MaskGIT's law, with a likelihood given its public noise (alpha 1)", ("plan", "alpha"), BIASED
    ),
    "maskgit": Order(
        "draws everywhere, keeps the luckiest; alpha falls, counts follow a cosine (alpha 4.5, steps 12)",
        ("plan", "alpha", "steps"),
        UNKNOWN,
        DRAWS,
    ),
    "low-confidence": Order(
        "draws everywhere, keeps the symbols that are most probable before tempering (LLaDA)",
        ("plan",),
        UNKNOWN,
        DRAWS,
    ),
    "remdm": Order(
        "ancestral, hides visible symbols with a chance of at most eta (steps 64, eta 0.008)",
        ("steps", "eta"),
        UNKNOWN,
        REMASKS,
        blind=True,
    ),
    "remdm-rescale": Order(
        "ancestral, hides with eta times the largest chance that the schedule allows (steps 64, eta 0.015)",
        ("steps", "eta"),
        UNKNOWN,
        REMASKS,
        blind=True,
    ),
    "remdm-conf": Order(
        "ancestral, hides symbols that were improbable when drawn (steps 64, eta 1)",
        ("steps", "eta"),
        UNKNOWN,
        REMASKS,
    ),
    "remdm-loop": Order(
        "ancestral, stays at nine tenths visible for half the time and hides there (steps 64, eta 0.02)",
        ("steps", "eta"),
        UNKNOWN,
        REMASKS,
        blind=True,
    ),
    "psi": Order(
        "ancestral, a share eta of the positions is noised anew at each step (steps 64, eta 0.1)",
        ("steps", "eta"),
        UNKNOWN,
        REMASKS,
        blind=True,
    ),
    "gibbs": Order(
        "ancestral, a random visible symbol is drawn anew after each step (steps 64)",
        ("steps",),
        UNKNOWN,
        REMASKS,
        blind=True,
    ),
    "p2": Order(
        "draws everywhere, keeps the most probable, hides the others (steps 32, eta 1)",
        ("steps", "eta"),
        UNKNOWN,
        REMASKS,
    ),
}
"""What is built for each name: `choosing.BUILD`."""


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


# --- unmask orders ------------------------------------------------------------------------------------


def run() -> dict[str, Any]:
    """The orders with one line each."""
    return {"command": "orders", "orders": [_line(name, order) for name, order in ORDERS.items()]}


def _line(name: str, order: Order) -> dict[str, Any]:
    return {
        "name": name,
        "group": order.group,
        "blind": order.blind,
        "likelihood": order.kind.likelihood,
        "about": order.about,
        "options": list(order.takes),
        "own_options": list(order.own),
    }


def render(report: dict[str, Any], console: Console) -> None:
    """Prints one line an order, by group."""
    for group in (EXACT, ADAPTIVE, BIASED, UNKNOWN):
        console.print(group, style="bold")
        for order in report["orders"]:
            if order["group"] == group:
                console.print(_listed(order))
    for text, kind in (("Those with a likelihood", CHOOSES), ("maskgit and low-confidence", DRAWS)):
        console.print(f"{text} also take {_dashed(kind.takes)}.")
    console.print("All take --temperature, --top-p and --seed.")


def _listed(order: dict[str, Any]) -> str:
    sight = "blind" if order["blind"] else "sighted"
    return f"  {order['name']:<17}{sight:<8} {order['about']} {_dashed(order['own_options'])}".rstrip()


def _dashed(options: Iterable[str]) -> str:
    return " ".join(f"--{option}" for option in options)
