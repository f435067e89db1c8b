"""Sampler files: how to sample, as data. An order with its plan, blocks and public noise, sub-steps, temperature, symbols.

    >>> from unmask.orders import presets
    >>> Sampler(presets.threshold(0.9)).rule
    {'make': 'presets.threshold', 'with': {'tau': 0.9}}

The rule is what `orders.described` notes of a selector: which function of this room made it, with which arguments. Whoever
writes a file by hand may leave out arguments that have a default, and fields too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain, groupby, repeat
from pathlib import Path
from typing import Any, TypeAlias

from unmask.base.numbers import real, shown, whole
from unmask.base.records import read_record, write_text
from unmask.base.types import Denoiser, Plan, Selector, TokenSource
from unmask.denoisers import denoiser_name, tempered
from unmask.orders.described import described, looks_through, made_by, selector_of
from unmask.orders.sources import draw, greedy
from unmask.planning.families import rescaled

FORMAT = "unmask.sampler"

SOURCES: dict[str, TokenSource] = {"draw": draw, "greedy": greedy}
"""Token sources that have names."""


@dataclass(frozen=True)
class Sampler:
    """How to sample. ``rule`` is a selector or its description, and is kept as the description, defaults filled in.

    ``source`` is "draw" or "greedy", ``temperature`` that of the law of which symbols are drawn. ``calls`` (expected, in
    full passes a sequence), ``name`` and ``provenance`` (any JSON) are for people. `sample`, `log_likelihood` and
    `compress` take a sampler in the place of a selector.
    """

    rule: Any
    substeps: int = 1
    source: str = "draw"
    temperature: float = 1.0
    name: str = ""
    calls: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        checked = {
            "rule": _rule(self.rule),
            "substeps": whole(self.substeps, "substeps", 1, 2**16 - 1),
            "temperature": real(self.temperature, "temperature", 1e-30, 1e30),
            "calls": None if self.calls is None else real(self.calls, "calls", 0, 2.0**53),
            "provenance": _json(self.provenance),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if not isinstance(self.source, str) or self.source not in SOURCES:
            raise ValueError(f"source {shown(self.source)}: expected one of {', '.join(SOURCES)}")
        if not isinstance(self.name, str) or len(self.name) > 1000:
            raise ValueError(f"name {shown(self.name)}: expected a text of at most 1000 characters")

    @cached_property
    def selector(self) -> Selector:
        """The order, made again; ValueError where it looks ahead, for which see `selector_for`."""
        return selector_of(self.rule)

    def selector_for(self, denoiser: Denoiser) -> Selector:
        """The order; one that looks ahead does so through ``denoiser``, or through its law, whose name the rule says."""
        if not self.looks_ahead:
            return self.selector
        law = self.denoiser(denoiser)
        return selector_of(self.rule, law if denoiser_name(law) == looks_through(self.rule) else denoiser)

    @property
    def looks_ahead(self) -> bool:
        """Whether the order makes network calls of its own."""
        return looks_through(self.rule) is not None

    @property
    def token_source(self) -> TokenSource:
        """Where symbols come from."""
        return SOURCES[self.source]

    def denoiser(self, denoiser: Denoiser) -> Denoiser:
        """The law that symbols are drawn from: tempered, unless the temperature is 1."""
        return tempered(denoiser, self.temperature)

    @property
    def is_law(self) -> bool:
        """Whether samples follow a law whose likelihood is known: that of drawn symbols, not of the most probable ones."""
        return self.source == "draw"

    # --- files --------------------------------------------------------------------------------------

    def record(self) -> dict[str, Any]:
        """The sampler as JSON."""
        return {"format": FORMAT, "version": 1, **{name: getattr(self, name) for name in _FIELDS}}

    def to_json(self) -> str:
        """The sampler as a JSON text, a field a line."""
        lines = [f" {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in self.record().items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> Sampler:
        """The sampler in a JSON text; ValueError names the field that is wrong."""
        found = read_record(text, FORMAT)
        del found["format"], found["version"]
        if foreign := sorted(set(found) - set(_FIELDS)):
            raise ValueError(
                f"field {shown(foreign[0])} of a sampler: expected none but {', '.join(_FIELDS)}"
            )
        if "rule" not in found:
            raise ValueError("a sampler without a rule; expected {'make': 'presets.margin', 'with': {..}}")
        try:
            return cls(**found)
        except ValueError as error:
            raise ValueError(f"a sampler file: {error}") from None

    def save(self, path: str | Path) -> None:
        """Writes the sampler as JSON, whole or not at all."""
        write_text(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Sampler:
        """Reads what `save` wrote, or a hand; ValueError for another format, and for what makes no selector."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{path} is no text; expected a sampler file, JSON") from None
        return cls.from_json(text)


_FIELDS = ("name", "rule", "substeps", "source", "temperature", "calls", "provenance")


def _rule(rule: Any) -> dict[str, Any]:
    """The description of a selector; ValueError where it has none, or makes something else."""
    if not isinstance(rule, dict):
        if (known := made_by(rule)) is None:
            called = f"'{rule.name}'" if isinstance(rule, Selector) else shown(rule)
            raise ValueError(
                f"rule {called} is no data; expected a selector of presets, rules or selectors, or its description"
            )
        rule = known
    known = rule if looks_through(rule) is not None else made_by(selector_of(rule))
    assert known is not None, "what a description makes has one"
    return dict(known)


def _json(value: Any) -> dict[str, Any]:
    """A record that JSON holds, as it comes back; ValueError for anything else."""
    try:
        text = json.dumps(value, allow_nan=False)
        if isinstance(value, dict):
            return dict(json.loads(text))
    except (TypeError, ValueError, RecursionError):
        pass
    raise ValueError(f"provenance {shown(value)}: expected a record that JSON holds")


# --- plans for rows of several lengths ----------------------------------------------------------------


Table: TypeAlias = Sequence[Sequence[Any]]
"""Rows (masked count, runs (size, times)) of plans; see `plans_by_count`."""

LONGEST = 2**20
"""Positions that a plan of a table may have."""


def plans_by_count(plans: Mapping[int, Sequence[int]]) -> Plan:
    """The plan function of a table masked count -> sizes of all steps: `by_count` of its runs."""
    return by_count(
        tuple((whole(n, "masked count", 1), runs_of(sizes)) for n, sizes in sorted(plans.items()))
    )


@described
def by_count(table: Table) -> Plan:
    """A plan for rows of several lengths: ``table`` has rows (masked count, runs (size, times)) that sum to the count.

    A count that the table has not takes the plan of the nearest one, of two equally near ones the larger, at equal shares
    (`plans.rescaled`): as many calls, or fewer where there is no room.
    """
    runs = dict(map(_row, table))
    if not runs or len(runs) < len(table):
        raise ValueError(
            f"a table of {len(table)} plans, {len(runs)} of them different; expected one of each count"
        )

    @lru_cache(256)
    def plan(masked: int) -> tuple[int, ...]:
        if not masked:
            return ()
        nearest = min(runs, key=lambda n: (abs(n - masked), -n))
        sizes = tuple(expanded(runs[nearest]))
        return sizes if nearest == masked else rescaled(sizes, masked)

    plan.__name__ = f"by_count({len(runs)} plans, up to {max(runs)})"
    return plan


def _row(row: Sequence[Any]) -> tuple[int, tuple[tuple[int, int], ...]]:
    """A row of a table, checked: no run is longer than the count, so that nothing is large before it is known to fit."""
    try:
        masked, runs = row
        pairs = tuple((size, times) for size, times in runs)
    except (TypeError, ValueError):
        raise ValueError(
            f"a row {shown(row)} of a table of plans; expected (count, runs (size, times))"
        ) from None
    masked = whole(masked, "masked count", 1, LONGEST)
    for number in chain.from_iterable(pairs):
        whole(number, "a size, or a number of steps", 1, masked)
    if sum(size * times for size, times in pairs) != masked:
        raise ValueError(
            f"a plan of the table sums to another number than {masked}; expected that many positions"
        )
    return masked, pairs


def runs_of(sizes: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Step sizes in runs (size, times): a plan costs no more than its words."""
    return tuple((size, len(list(run))) for size, run in groupby(sizes))


def expanded(runs: Iterable[tuple[int, int]]) -> Iterator[int]:
    """The step sizes of runs (size, times)."""
    return chain.from_iterable(repeat(size, times) for size, times in runs)
