"""Which samplers are tried: orders by plans for each budget, passes in parts, blocks, and rules that count themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from unmask.base.types import Plan, Selector
from unmask.evaluation.tuning.costs import Order
from unmask.models import verbs
from unmask.orders import presets, selectors
from unmask.orders.samplers import Sampler
from unmask.planning import families, plans


def _public(make: Callable[[Plan, int], Selector], plan: Plan) -> Selector:
    """The order of seed 0, which everybody takes."""
    return make(plan, 0)


ORDERS: dict[str, Order] = {name: functools.partial(_public, make) for name, make in verbs.ORDERS.items()}
"""Orders that are tried, for any plan."""

LEVELLED = ("bisection", "hybrid")
"""Orders whose steps cost by levels of bisection, which a smooth surface of costs cannot tell.

Their plans are for ends of levels, and parts of levels, where costs of bisection are measured; none where symbols are given
or in stages, for then rows have levels of their own.
"""

TAUS = (0.5, 0.7, 0.9, 0.97, 0.99)
GAMMAS = (0.03, 0.1, 0.3, 1.0, 2.0)
LIMITS = (0.1, 0.3, 1.0, 2.0)
SPLITS = (2, 4)
BLOCKS = (2, 4)
FAMILIES: dict[str, Callable[[int, int], tuple[int, ...]]] = {
    "uniform": families.uniform,
    "cosine": families.cosine,
}
DEFAULT = ("random", "confidence", "margin", "entropy", "left-to-right")
"""Orders that people take with equal steps: what a tuned choice is compared with."""


@dataclass(frozen=True)
class Candidate:
    """A sampler, whose name is its own; ``order``, ``plan`` and ``calls`` (0: its own number) tell what it is made of."""

    sampler: Sampler
    order: str
    plan: str
    calls: int = 0
    default: bool = False
    """Whether it is what people take without tuning: an order in equal steps."""
    sizes: tuple[int, ...] = ()
    """The steps (of a stage) of a plan."""

    @property
    def name(self) -> str:
        """The sampler's name."""
        return self.sampler.name


@dataclass(frozen=True)
class Space:
    """What there is to plan: ``count`` hidden positions of most items, in ``stages`` equal parts that a model fixes.

    ``splits``: whether the denoiser runs rows again (`partial`). ``source`` and ``temperatures`` are the metric's.
    """

    count: int
    length: int
    stages: int = 1
    splits: bool = True
    source: str = "draw"
    temperatures: tuple[float, ...] = (1.0,)

    def sampler(self, selector: Selector, name: str, split: int = 1, temperature: float = 1.0) -> Sampler:
        """A sampler with the source of symbols that the metric is about."""
        warm = "" if temperature == 1 else f", temperature {temperature}"
        return Sampler(selector, split, self.source, temperature, name + warm)

    @property
    def plain(self) -> bool:
        """Whether all is hidden, in one stage."""
        return self.stages == 1 and self.count == self.length

    @property
    def block(self) -> int | None:
        """The length of a stage."""
        return None if self.stages == 1 else self.length // self.stages

    def steps(self, budget: int) -> int:
        """Steps of a plan (of each stage) for so many calls."""
        return min(budget // self.stages, self.count)

    def plan(self, sizes: Sequence[int]) -> Plan:
        """A plan of these steps for any number of hidden positions (of a stage)."""
        return functools.partial(plans.rescaled, tuple(sizes))

    def within(self, selector: Selector, block: int | None = None) -> Selector:
        """The selector stage by stage, or block by block."""
        length = block or self.block
        return selector if length is None else selectors.in_blocks(selector, length)


def usual(space: Space, budgets: Sequence[int]) -> list[Candidate]:
    """What needs no measurement: orders in equal steps and by a cosine, and blocks, for each budget; then rules."""
    found = [c for budget in budgets for c in _of_budget(space, budget)]
    return distinct([*sorted(found, key=lambda c: not c.default), *rules(space)])


def distinct(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that do something else than all before them, whatever they are called."""
    return list({replace(c.sampler, name="").to_json(): c for c in reversed(list(candidates))}.values())[::-1]


def _of_budget(space: Space, budget: int) -> Iterator[Candidate]:
    steps = space.steps(budget)
    for name in ORDERS if steps else ():
        for family, make in FAMILIES.items():
            for warm in space.temperatures:
                default = family == "uniform" and name in DEFAULT and warm == 1
                yield sized(space, name, family, make(space.count, steps), temperature=warm, default=default)
    if space.stages == 1:
        yield from _blocked(space, steps)


def planned(
    space: Space, budget: int, name: str, best: Callable[[int], tuple[int, ...]], label: str = "planned"
) -> Iterator[Candidate]:
    """An order by the ``best`` plan of so many steps, and in fewer steps of several passes each."""
    steps = space.steps(budget)
    yield sized(space, name, label, best(steps))
    for split in SPLITS if space.splits and space.stages == 1 else ():
        if steps > split:
            yield sized(space, name, label, best(steps - split + 1), split)


def sized(
    space: Space,
    name: str,
    family: str,
    sizes: tuple[int, ...],
    split: int = 1,
    temperature: float = 1.0,
    default: bool = False,
) -> Candidate:
    """An order by a plan, each of its steps in ``split`` parts: S - 1 further passes over all rows in sum."""
    selector = space.within(ORDERS[name](space.plan(sizes)))
    calls = len(sizes) * space.stages + split - 1
    label = f"{name}, {family}, {len(sizes) * space.stages} steps" + (
        f" in {split} parts" if split > 1 else ""
    )
    return Candidate(space.sampler(selector, label, split, temperature), name, family, calls, default, sizes)


def _blocked(space: Space, steps: int) -> Iterator[Candidate]:
    """Blocks from left to right, equal steps in each."""
    for blocks in BLOCKS:
        length = -(-space.length // blocks)
        if steps % blocks == 0 and steps > blocks and space.plain:
            for name in ("random", "confidence"):
                sizes = families.uniform(length, steps // blocks)
                selector = space.within(ORDERS[name](space.plan(sizes)), length)
                label = f"{name}, uniform, {steps} steps in {blocks} blocks"
                yield Candidate(space.sampler(selector, label), name, f"uniform, {blocks} blocks", steps)


def rules(space: Space) -> Iterator[Candidate]:
    """Rules that choose their own number of positions: at least one call, as many as they need."""
    made: dict[str, Selector] = {f"threshold {tau}": presets.threshold(tau) for tau in TAUS}
    made |= {f"entropy budget {gamma}": presets.eb(gamma) for gamma in GAMMAS}
    made |= {f"factor {limit}": presets.factor(limit) for limit in LIMITS}
    made["bisection by levels"] = presets.bisection()
    for name, selector in made.items():
        yield Candidate(space.sampler(space.within(selector), name), name.rpartition(" ")[0], "its own")
