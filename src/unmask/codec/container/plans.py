"""Plans as a header holds them: in runs, for every masked count or as one of which all take their share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, overload

from unmask.base.numbers import shown
from unmask.orders.samplers import expanded, runs_of
from unmask.planning import families


@dataclass(frozen=True)
class Runs(Sequence[int]):
    """The step sizes of a header as it holds them, in runs (size, times): a plan costs no more than its words there."""

    pairs: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        """Number of steps."""
        return sum(times for _, times in self.pairs)

    def __iter__(self) -> Iterator[int]:
        """The size of each step."""
        return expanded(self.pairs)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        """The size of one step, or of some."""
        return tuple(self)[index]


Sizes: TypeAlias = dict[int, Sequence[int]]
"""Masked count -> sizes of the steps."""


class Shares(Sizes):
    """One plan, of as many positions as its only key; fewer take their share of it (`families.in_proportion`)."""

    def __contains__(self, masked: object) -> bool:
        """Whether the plan reaches as far."""
        return isinstance(masked, int) and 0 < masked <= max(self)

    def __missing__(self, masked: int) -> Sequence[int]:
        """The steps of fewer positions."""
        longest = max(self)
        return families.in_proportion(tuple(self[longest]), masked)


IN_PROPORTION = "in_proportion"
"""What stands before a plan of which all masked counts take their share."""

LONGEST_PLAN = 2**20
"""Positions that a plan in a header may have."""


def written_plan(plan: int | Sizes) -> Any:
    """A plan as JSON; step sizes as pairs [size, times]."""
    if isinstance(plan, int):
        return plan
    found = {str(n): [list(run) for run in runs_of(sizes)] for n, sizes in plan.items()}
    return {IN_PROPORTION: found} if isinstance(plan, Shares) else found


def read_plan(plan: Any) -> int | Sizes:
    """The plan of `written_plan`; ValueError for what that would not write."""
    if type(plan) is int and 0 < plan < 2**31:
        return plan
    shared = isinstance(plan, dict) and list(plan) == [IN_PROPORTION]
    try:
        sizes: Sizes = {
            (masked := _count(n)): _runs(masked, runs)
            for n, runs in (plan[IN_PROPORTION] if shared else plan).items()
        }
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            f"field plan: {shown(plan)}, expected positions per call or steps that sum to each masked count"
        ) from None
    if shared and len(sizes) != 1:
        raise ValueError(f"field plan: {shown(plan)}, expected one plan to take shares of")
    return Shares(sizes) if shared else sizes


def _count(text: str) -> int:
    """A masked count; ValueError for what `written_plan` would not write."""
    masked = int(text) if len(text) < 9 else 0
    if text != str(masked) or not 0 < masked <= LONGEST_PLAN:
        raise ValueError
    return masked


def _runs(masked: int, runs: list[list[int]]) -> Runs:
    """The runs [size, times] of a plan; ValueError unless they sum to the masked count."""
    pairs = tuple((size, times) for size, times in runs)
    if any(type(x) is not int or not 0 < x <= masked for pair in pairs for x in pair):
        raise ValueError
    if sum(size * times for size, times in pairs) != masked:
        raise ValueError
    return Runs(pairs)
