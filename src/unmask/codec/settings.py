"""How a file's items are unmasked: order and plan or a sampler's rule, sub-steps, grid and band; how a header says it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from unmask.base.numbers import real, shown, whole
from unmask.base.profile import accepted, check
from unmask.base.types import Denoiser, Plan, Selector
from unmask.codec.container.plans import Shares, Sizes, read_plan, written_plan
from unmask.codec.subjects import Subject
from unmask.codec.tables import Law
from unmask.denoisers import tempered
from unmask.orders import presets, scores, selectors
from unmask.orders.described import is_learnt, reads_on, selector_of
from unmask.orders.samplers import Sampler
from unmask.planning import families


@dataclass(frozen=True)
class Order:
    """An order by name: ``make(plan, seed)`` is its selector. Your own must be given again to decompress."""

    name: str
    make: Callable[[Plan, int], Selector]


RANDOM = Order("random", presets.random)
LEFT_TO_RIGHT = Order("left-to-right", lambda plan, _: presets.left_to_right(plan))
ORDERS = (
    RANDOM,
    LEFT_TO_RIGHT,
    Order("bisection", lambda plan, _: selectors.top_k(scores.bisection, plan)),
    Order("confidence", lambda plan, _: presets.confidence(plan)),
    Order("margin", lambda plan, _: presets.margin(plan)),
    Order("entropy", lambda plan, _: presets.entropy(plan)),
)
"""Orders that every version knows: a file names one of them, and it must not change."""


@dataclass(frozen=True)
class Wrapper:
    """A change of the law by name, as ``Wrapper("T 0.9", lambda d: tempered(d, 0.9))``; give it again to decompress."""

    name: str
    apply: Callable[[Denoiser], Denoiser]


@dataclass(frozen=True)
class Settings:
    """How items are unmasked. ``order`` None is left to right for a causal model and random otherwise.

    ``plan`` is positions per call, the sizes of all steps, or a function of the masked count (of a row, or of a block
    where ``block`` or the model works in blocks); a header holds a function's value for every count that it needs, and of
    ``partial(plans.in_proportion, sizes)`` the sizes alone. ``band`` is in nats, the grid 2^-grid. A ``sampler`` takes the
    place of order, plan, seed, sub-steps and block.
    """

    plan: Plan = 1
    order: Order | None = None
    seed: int = 0
    substeps: int = 1
    block: int = 0
    wrapper: Wrapper | None = None
    grid: int = 8
    band: float = 1e-9
    sampler: Sampler | None = None

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            object.__setattr__(self, name, whole(getattr(self, name), name, low, high))
        object.__setattr__(self, "band", real(self.band, "band", 0))
        object.__setattr__(self, "plan", accepted(self.plan))
        if self.sampler is not None and (
            said := [name for name, usual in _USUAL if getattr(self, name) != usual]
        ):
            raise ValueError(f"{said[0]} beside a sampler, which says it itself; expected one of the two")


_USUAL = (("order", None), ("plan", 1), ("seed", 0), ("substeps", 1), ("block", 0))
"""What a sampler says, and its value where nobody said anything."""

_RANGES = (("seed", 0, 2**63 - 1), ("substeps", 1, 2**16 - 1), ("block", 0, 2**31 - 1), ("grid", 0, 63))
"""What a header may hold."""


@dataclass(frozen=True)
class Method:
    """Settings as a header holds them: every name and number that a decoder needs, ``plan`` an int or `Sizes`.

    A ``rule`` (`Sampler.rule`) with its ``temperature`` takes the place of order, plan and seed.
    """

    plan: int | Sizes
    order: str
    seed: int
    substeps: int
    block: int
    wrapper: str
    grid: int
    band: float
    rule: dict[str, Any] | None = None
    temperature: float = 1.0


def method_of(settings: Settings, subject: Subject, lengths: Iterable[int] | None) -> Method:
    """The method for rows of these masked counts; without them, of all that the subject may have.

    ValueError when a plan does not sum to a masked count.
    """
    if settings.sampler is not None:
        return _by_rule(settings, settings.sampler, subject)
    if subject.whole:
        lengths = (subject.length,)
    order = settings.order or (LEFT_TO_RIGHT if subject.causal else RANDOM)
    if subject.causal and order.name != LEFT_TO_RIGHT.name:
        raise ValueError(f"a causal model reads from left to right; expected no order '{order.name}'")
    if subject.block and settings.block not in (0, subject.block):
        raise ValueError(f"this model works in blocks of {subject.block}; expected no block {settings.block}")
    block = settings.block or subject.block
    counts = _counts(range(1, subject.length + 1) if lengths is None else lengths, block)
    return Method(
        _plan(settings.plan, counts, block or subject.length, lengths is None),
        order.name,
        settings.seed,
        settings.substeps,
        block,
        settings.wrapper.name if settings.wrapper else "",
        settings.grid,
        settings.band,
    )


def _by_rule(settings: Settings, sampler: Sampler, subject: Subject) -> Method:
    """The method of a sampler; ValueError where it has no likelihood, or does not suit the model."""
    if not sampler.is_law:
        raise ValueError(
            "the sampler takes the most probable symbols, which is no law; expected source 'draw'"
        )
    if sampler.looks_ahead:
        raise ValueError("the sampler looks ahead with calls that are not rounded; expected another order")
    if is_learnt(sampler.rule):
        raise ValueError(
            "the sampler asks an order network, whose scores are not rounded; expected another order"
        )
    if subject.causal and not reads_on(sampler.rule):
        raise ValueError("a causal model reads from left to right; expected no sampler of another order")
    wrapper = settings.wrapper.name if settings.wrapper else ""
    return Method(
        *(1, "", 0, sampler.substeps, subject.block, wrapper, settings.grid, settings.band),
        rule=sampler.rule,
        temperature=sampler.temperature,
    )


def law_of(
    method: Method, subject: Subject, order: Order | None = None, wrapper: Wrapper | None = None
) -> Law:
    """The law of a method; ValueError when it names an order or wrapper that is neither known nor given."""
    if method.wrapper != (wrapper.name if wrapper else ""):
        raise ValueError(
            f"field wrapper: written with {shown(method.wrapper)}, got '{wrapper.name if wrapper else ''}'; "
            "give the same again"
        )
    selector = _ordered(method, order) if method.rule is None else _ruled(method.rule)
    if method.block:
        selector = selectors.in_blocks(selector, method.block)
    denoiser = tempered(wrapper.apply(subject.denoiser) if wrapper else subject.denoiser, method.temperature)
    return Law(denoiser, selector, method.substeps, method.grid, method.band)


def _ordered(method: Method, order: Order | None) -> Selector:
    """The selector of a named order."""
    known = {o.name: o for o in (*ORDERS, *((order,) if order else ()))}
    if method.order not in known:
        raise ValueError(f"field order: {shown(method.order)} is not among {', '.join(known)}; give it again")
    plan = method.plan if isinstance(method.plan, int) else _looked_up(method.plan)
    made: Selector = known[method.order].make(plan, method.seed)
    return made


def _ruled(rule: dict[str, Any]) -> Selector:
    """The selector of a rule; one that looks ahead is not made, for no denoiser is given to it."""
    try:
        return selector_of(rule)
    except ValueError as error:
        raise ValueError(f"field rule: {error}") from None


def in_calls(calls: int, length: int) -> Callable[[int], tuple[int, ...]]:
    """A plan for any masked count n: equal steps, ``calls`` for a full row of ``length`` and in proportion for fewer."""
    calls, length = whole(calls, "calls"), whole(length, "length")
    if not 1 <= calls <= length:
        raise ValueError(f"calls {calls}: expected 1..{length}, the positions of a row")
    return lambda n: families.uniform(n, min(n, -(-n * calls // length)))


def _counts(lengths: Iterable[int], block: int) -> list[int]:
    """The masked counts that a selector meets at the start of a row, or of a block."""
    rows = set(lengths) - {0}
    return sorted(rows if not block else {part for n in rows for part in (min(n, block), n % block)} - {0})


def _plan(plan: Plan, counts: list[int], most: int, all_lengths: bool) -> int | Sizes:
    if isinstance(plan, int):
        return plan
    if isinstance(plan, partial) and plan.func is families.in_proportion:
        return _shares(plan, counts, most)
    if all_lengths and not callable(plan):
        counts = [sum(plan)]
    return {n: check(plan, n) for n in counts}


def _shares(plan: partial[tuple[int, ...]], counts: list[int], most: int) -> Shares:
    """The one plan that counts up to ``most`` take shares of; ValueError where it is too short for them, or too long."""
    if len(plan.args) != 1 or plan.keywords:
        raise ValueError(
            f"a plan in proportion with {plan.args}, {plan.keywords}; expected the sizes of its steps alone"
        )
    longest = families.boundaries(plan.args[0])[-1]
    needed = max(counts, default=1)
    if not needed <= longest <= most:
        raise ValueError(f"a plan in proportion of {longest} positions; expected {needed} to {most}")
    return Shares({longest: families.in_proportion(plan.args[0], longest)})


def _looked_up(sizes: Sizes) -> Callable[[int], tuple[int, ...]]:
    @lru_cache(64)
    def plan(masked: int) -> tuple[int, ...]:
        if masked not in sizes:
            raise ValueError(f"no plan for {masked} masked positions; expected one of {sorted(sizes)[:8]}")
        return tuple(sizes[masked])

    return plan


# --- as JSON ----------------------------------------------------------------------------------------


def to_record(method: Method) -> dict[str, Any]:
    """The method as JSON; step sizes as pairs [size, times]."""
    record = vars(method)
    if method.rule is not None:
        return {name: value for name, value in record.items() if name not in _NAMED}
    plan = written_plan(method.plan)
    return {name: value for name, value in record.items() if name not in _OWN} | {"plan": plan}


_NAMED, _OWN = ("plan", "order", "seed"), ("rule", "temperature")
"""What only headers of named orders have, and what only headers of rules."""


def from_record(record: dict[str, Any]) -> Method:
    """The method of `to_record`; ValueError names the field that is wrong."""
    usual: dict[str, Any] = {"plan": 1, "order": "", "seed": 0}
    record = usual | record if "rule" in record else record
    kinds: dict[str, type] = {"order": str, "wrapper": str, "band": float}
    for name, kind in (kinds | ({"rule": dict, "temperature": float} if "rule" in record else {})).items():
        if not isinstance(record.get(name), kind):
            raise ValueError(f"field {name}: {shown(record.get(name))}, expected a {kind.__name__}")
    for name, high in (("seed", 2**63), ("substeps", 2**16), ("block", 2**31), ("grid", 64)):
        if type(record.get(name)) is not int or not 0 <= record[name] < high:
            raise ValueError(f"field {name}: {shown(record.get(name))}, expected a whole number below {high}")
    names = (
        "order",
        "seed",
        "substeps",
        "block",
        "wrapper",
        "grid",
        "band",
        *(_OWN if "rule" in record else ()),
    )
    return Method(read_plan(record.get("plan")), **{name: record[name] for name in names})


# --- what it costs ----------------------------------------------------------------------------------


def full_passes(sizes: Sequence[int], substeps: int = 1) -> float:
    """Network calls of a row in full passes: a step of k of the N positions runs them again for each part but its first.

    A step has ``substeps`` parts, or k where those are fewer.
    """
    again = sum(k * (min(substeps, k) - 1) for k in sizes)
    return len(sizes) + again / max(sum(sizes), 1)
