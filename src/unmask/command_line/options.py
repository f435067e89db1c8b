"""What a user may say about how sequences are unmasked; one record for every command that samples. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, TypeVar

from tyro.conf import arg

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """An order and its settings. None leaves a setting at the order's default; orders refuse what they do not read."""

    order: Annotated[
        str | None, arg(help="Which positions come next: see `unmask orders`; default the model's own.")
    ] = None
    plan: Annotated[
        str | None,
        arg(metavar="K|SIZES|FILE", help="Positions per call (3), step sizes (3,3,2), or a plan file."),
    ] = None
    steps: Annotated[int | None, arg(metavar="N", help="Calls, or the grid of times.")] = None
    tau: Annotated[float | None, arg(metavar="P", help="Probability or margin that suffices.")] = None
    gamma: Annotated[float | None, arg(metavar="NATS", help="Entropy that a call may spend.")] = None
    limit: Annotated[float | None, arg(metavar="X", help="Factor rule: (n + 1) (1 - p) below this.")] = None
    eps: Annotated[float | None, arg(metavar="NATS", help="How far a stable law may have moved.")] = None
    alpha: Annotated[float | None, arg(metavar="X", help="Temperature of the choice.")] = None
    beta: Annotated[float | None, arg(metavar="X", help="Exponent of the moment order, from 1.")] = None
    share: Annotated[float | None, arg(metavar="P", help="Part of each step that explores.")] = None
    decay: Annotated[float | None, arg(metavar="X", help="Preference for early positions.")] = None
    candidates: Annotated[int | None, arg(metavar="N", help="Batches that a look-ahead compares.")] = None
    eta: Annotated[float | None, arg(metavar="X", help="Strength of re-masking.")] = None
    grid: Annotated[str | None, arg(metavar="HxW", help="Rows and columns; default a square.")] = None
    blocks: Annotated[int | None, arg(metavar="LENGTH", help="Work in blocks, left to right.")] = None
    spacing: Annotated[int | None, arg(metavar="D", help="Least distance within a step.")] = None
    substeps: Annotated[int | None, arg(metavar="S", help="Parts of a step (partial caching).")] = None
    greedy: Annotated[bool, arg(help="Take the most probable symbol instead of drawing.")] = False
    temperature: Annotated[float, arg(help="Below 1 sharpens the law, above 1 flattens it.")] = 1.0
    top_p: Annotated[float, arg(help="Draw from the likeliest symbols that hold this probability.")] = 1.0
    seed: Annotated[int, arg(help="Start of all random numbers.")] = 0

    def given(self) -> list[str]:
        """The settings that an order must read, where the user said something."""
        unread = ("order", "temperature", "top_p", "seed")
        return [f.name for f in fields(self) if f.name not in unread and getattr(self, f.name) != f.default]


def in_range(name: str, value: float | None, low: float, high: float = math.inf, more: str = "") -> None:
    """ValueError in the command's own words unless option ``name`` is within low..high, or was not given."""
    if value is None or low <= value <= high:
        return
    whole = isinstance(value, int) and isinstance(low, int)
    span = (
        f"at least {low}"
        if high == math.inf
        else f"{low}..{high}"
        if whole
        else f"a number from {low} to {high}"
    )
    raise ValueError(f"--{name.replace('_', '-')} {value:g}: expected {span}{more}")


def above_zero(name: str, value: float | None, high: float = math.inf, more: str = "") -> None:
    """ValueError in the command's own words unless option ``name`` is more than 0, at most ``high``, or was not given."""
    if value is None or (0 < value <= high and value < math.inf):
        return
    span = "a number above 0" if high == math.inf else f"a number above 0, at most {high}"
    raise ValueError(f"--{name.replace('_', '-')} {value:g}: expected {span}{more}")


def check_seed(seed: int) -> None:
    """ValueError unless a generator can start from the seed."""
    if not 0 <= seed < 2**63:
        raise ValueError(f"--seed {seed}: expected 0..2^63 - 1")


def check_values(options: Options) -> None:
    """ValueError for a setting that makes no sense in any order."""
    check_seed(options.seed)
    above_zero("temperature", options.temperature, more="; --greedy takes the most probable symbol")
    above_zero("top_p", options.top_p, 1)
    above_zero("limit", options.limit)
    for name in ("steps", "candidates", "blocks", "spacing", "substeps"):
        in_range(name, getattr(options, name), 1)
    for name in ("tau", "share"):
        in_range(name, getattr(options, name), 0, 1)
    for name in ("gamma", "eps", "alpha", "decay", "eta"):
        in_range(name, getattr(options, name), 0)
    in_range("beta", options.beta, 1)
    if options.order in ("race", "moment-sampler") and options.alpha is not None:
        above_zero("alpha", options.alpha, more=f" for order {options.order}")
    if options.order != "p2":
        in_range("eta", options.eta, 0, 1)


def value(said: T | None, default: T) -> T:
    """What was said, or the default."""
    return default if said is None else said
