"""What several commands take: an order and its settings, the machine, the output. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

from tyro.conf import arg

T = TypeVar("T")


def _default(text: str) -> str:
    """A default as help says it; nothing for what is off or depends."""
    return "" if text in ("None", "False", "") else f"(default: {text})"


option = partial(arg, help_behavior_hint=_default)
"""An option's help, which names its default where it has one."""


@dataclass(frozen=True)
class Options:
    """An order and its settings. None leaves a setting at the order's default; orders refuse what they do not read."""

    order: Annotated[
        str | None,
        option(
            metavar="NAME", help="Which positions come next, of those named below; default the model's own."
        ),
    ] = None
    plan: Annotated[
        str | None,
        option(metavar="K|SIZES|FILE", help="Positions per call (3), step sizes (3,3,2), or a plan file."),
    ] = None
    steps: Annotated[int | None, option(metavar="N", help="Calls, or the grid of times.")] = None
    tau: Annotated[float | None, option(metavar="P", help="Probability or margin that suffices.")] = None
    gamma: Annotated[float | None, option(metavar="NATS", help="Entropy that a call may spend.")] = None
    limit: Annotated[float | None, option(metavar="X", help="Factor rule: (n + 1) (1 - p) below this.")] = (
        None
    )
    eps: Annotated[float | None, option(metavar="NATS", help="How far a stable law may have moved.")] = None
    alpha: Annotated[float | None, option(metavar="X", help="Temperature of the choice.")] = None
    beta: Annotated[float | None, option(metavar="X", help="Exponent of the moment order, from 1.")] = None
    share: Annotated[float | None, option(metavar="P", help="Part of each step that explores.")] = None
    decay: Annotated[float | None, option(metavar="X", help="Preference for early positions.")] = None
    candidates: Annotated[int | None, option(metavar="N", help="Batches that a look-ahead compares.")] = None
    eta: Annotated[float | None, option(metavar="X", help="Strength of re-masking.")] = None
    grid: Annotated[str | None, option(metavar="HxW", help="Rows and columns; default a square.")] = None
    blocks: Annotated[int | None, option(metavar="LENGTH", help="Work in blocks, left to right.")] = None
    spacing: Annotated[int | None, option(metavar="D", help="Least distance within a step.")] = None
    substeps: Annotated[int | None, option(metavar="S", help="Parts of a step (partial caching).")] = None
    greedy: Annotated[bool, option(help="Take the most probable symbol instead of drawing.")] = False
    temperature: Annotated[
        float, option(metavar="X", help="Below 1 sharpens the law, above 1 flattens it.")
    ] = 1.0
    top_p: Annotated[
        float, option(metavar="P", help="Draw from the likeliest symbols that hold this probability.")
    ] = 1.0
    seed: Annotated[int, option(metavar="N", help="Start of all random numbers.")] = 0
    sampler: Annotated[
        Path | None,
        option(
            metavar="FILE|tuned:CALLS",
            help="A sampler file, or one that comes with the model, in the place of all these but --seed.",
        ),
    ] = None

    def given(self) -> list[str]:
        """The settings that an order must read, where the user said something."""
        unread = ("sampler", "order", "temperature", "top_p", "seed")
        return [f.name for f in fields(self) if f.name not in unread and getattr(self, f.name) != f.default]


@dataclass(frozen=True)
class Search:
    """How the most probable filling is looked for, if it is."""

    beam: Annotated[
        int | None,
        option(metavar="W", help="Find the most probable filling: of the W best partial ones at each step."),
    ] = None
    backtrack: Annotated[
        int | None,
        option(metavar="K", help="Find it by the arg-max, then K - 1 times from the best passed by."),
    ] = None
    best_of: Annotated[
        int | None, option(metavar="K", help="Find it among K draws, judged by the model's own law.")
    ] = None
    judge: Annotated[
        int | None,
        option(metavar="C", help="Compare what was found along a random order, in C calls each."),
    ] = None

    @property
    def given(self) -> list[tuple[str, int]]:
        """The ways that were asked for, as options, and how many fillings each compares."""
        values = {"beam": self.beam, "backtrack": self.backtrack, "best-of": self.best_of}
        return [(name, value) for name, value in values.items() if value is not None]

    @property
    def passes(self) -> int:
        """How often a sequence is filled in, about: a beam and draws go side by side, what backtracks one by one."""
        return (self.backtrack or 1) + (self.judge is not None)

    @property
    def about(self) -> dict[str, dict[str, str | int | None]]:
        """What reports say of it; nothing without a search."""
        (way, width), *_ = [*self.given, ("", 0)]
        return {"search": {"way": way, "width": width, "judge": self.judge}} if way else {}


def alone(sampler: Path | None, **others: object) -> None:
    """ValueError where a sampler file stands beside an option that was given a value (not None, False or 0)."""
    said = [name for name, value in others.items() if value not in (None, False, 0)]
    if sampler is not None and said:
        raise ValueError(
            f"--sampler {sampler} with --{said[0].replace('_', '-')}; expected one of them: "
            "a sampler file says how to sample"
        )


BATCH = 64
"""Rows per network call: enough to keep two cores busy, few enough for their caches."""


@dataclass(frozen=True)
class Cores:
    """How the processor is used, for commands that compute on it. It changes speed only."""

    threads: Annotated[int | None, option(metavar="N", help="Threads; default what torch takes.")] = None
    batch_size: Annotated[
        int,
        option(metavar="N", aliases=("--batch",), help="Rows per network call; changes nothing but speed."),
    ] = BATCH


@dataclass(frozen=True)
class Machine(Cores):
    """Where a model runs, and how."""

    device: Annotated[str, option(metavar="NAME", help="cpu, cuda, cuda:1 or mps.")] = "cpu"


@dataclass(frozen=True)
class Output:
    """How a command answers."""

    json: Annotated[bool, option(help="Print one JSON document on standard output.")] = False
    quiet: Annotated[bool, option(help="No progress and remarks on standard error.")] = False


@dataclass(frozen=True)
class Bulk:
    """How long work is kept, and how much of it is done. Under torchrun each process does its share either way."""

    work: Annotated[
        Path | None,
        option(metavar="FOLDER", help="Keep finished batches here: the same command goes on from them."),
    ] = None
    items: Annotated[
        str | None,
        option(
            metavar="FIRST:END",
            help="Only the batches that begin among these items, into --work; without it all are joined.",
        ),
    ] = None

    @property
    def only(self) -> range | None:
        """The items; ValueError where they are no range, or nothing would keep what is done."""
        if self.items is None:
            return None
        first, _, end = self.items.partition(":")
        if not (first.isdecimal() and end.isdecimal() and int(first) < int(end)):
            raise ValueError(
                f"--items {self.items}: expected FIRST:END, items counted from 0, such as 0:1000"
            )
        if self.work is None:
            raise ValueError(
                "--items without --work; expected a folder for what is done, which a later call joins"
            )
        return range(int(first), int(end))


@dataclass(frozen=True)
class Fleet:
    """What a dry run counts for: devices, how a step is spread over them, and what they can do."""

    devices: Annotated[int | None, option(metavar="N", help="Of a dry run: devices; default 1.")] = None
    strategy: Annotated[
        str | None,
        option(metavar="NAME", help="Of a dry run: ddp (default), a copy each, or fsdp, a share each."),
    ] = None
    accumulate: Annotated[
        int | None, option(metavar="N", help="Of a dry run: parts of a batch, one after another; default 1.")
    ] = None
    checkpointing: Annotated[
        bool, option(help="Of a dry run: blocks compute forward twice and keep their inputs only.")
    ] = False
    flops: Annotated[
        float | None,
        option(metavar="X", help="Of a dry run: operations a second of a device; default 312e12."),
    ] = None
    utilisation: Annotated[
        float | None, option(metavar="SHARE", help="Of a dry run: the part of these in use; default 0.4.")
    ] = None
    memory: Annotated[
        float | None, option(metavar="BYTES", help="Of a dry run: what a device holds; default 80e9.")
    ] = None

    @property
    def given(self) -> list[str]:
        """Options that were said."""
        return [f.name for f in fields(self) if getattr(self, f.name) not in (None, False)]


ORDER, SEARCH, CORES, MACHINE, OUTPUT, FLEET = Options(), Search(), Cores(), Machine(), Output(), Fleet()
BULK = Bulk()
"""What holds where nothing is said."""


@contextmanager
def running(cores: Cores) -> Iterator[None]:
    """Torch's threads as asked for, and afterwards as they were; ValueError for numbers that make no sense."""
    in_range("threads", cores.threads, 1)
    in_range("batch_size", cores.batch_size, 1)
    if cores.threads is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(cores.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    """ValueError for a setting that makes no sense in any order, or stands beside a sampler file."""
    kept = ("sampler", "seed", "said")
    own = {f.name: getattr(options, f.name) for f in fields(options) if f.name not in kept}
    usual = {f.name: f.default for f in fields(options)}
    alone(options.sampler, **{name: v for name, v in own.items() if v != usual[name]})
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


def check_search(search: Search, options: Options, num: int, trace: bool) -> None:
    """ValueError for a search that makes no sense, alone or beside other options."""
    for name, width in [*search.given, ("judge", search.judge)]:
        in_range(name, width, 1)
    if search.judge is not None and not search.given:
        raise ValueError("--judge without a search; expected --beam, --backtrack or --best-of beside it")
    if len(search.given) > 1:
        raise ValueError(f"--{search.given[0][0]} beside --{search.given[1][0]}; expected one of them")
    for name, width in search.given:
        in_range("num", num, 1, width, f", the fillings that --{name} {width} compares")
        changed = "a search for the mode of the model's own law"
        wrong = {
            "greedy": (options.greedy, "a search goes beyond the arg-max"),
            "substeps": (options.substeps is not None, "a search has no sub-steps"),
            "trace": (trace, "a trace tells the steps of one sequence, not of all that are compared"),
            "temperature": (options.temperature != 1 and name != "best-of", changed),
            "top-p": (options.top_p != 1 and name != "best-of", changed),
        }
        for other, (given, why) in wrong.items():
            if given:
                raise ValueError(f"--{other} beside --{name}; expected one of them: {why}")


def value(said: T | None, default: T) -> T:
    """What was said, or the default."""
    return default if said is None else said
