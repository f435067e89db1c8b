"""Plans: how many positions each network call unmasks, and what that is expected to cost in nats.

A plan is a tuple of step sizes that sums to the number of masked positions. Fixed families need only a
length and a number of steps; `optimal` needs a `Profile` and is exact for it. Every KL here is with the
order disclosed.

    >>> from unmask import Profile, plans
    >>> profile = Profile([3.0, 2.0, 1.0, 0.5, 0.5, 0.5])
    >>> plans.optimal(profile, steps=3)
    (2, 1, 3)
    >>> plans.describe((2, 1, 3), profile).kl
    1.0
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from unmask import pictures
from unmask.base.numbers import real, shown, whole
from unmask.base.profile import Profile, check
from unmask.base.records import read_record, stamped, write_text
from unmask.planning import guarantees, search
from unmask.planning.continuum import continuum, predicted_kl, square_root
from unmask.planning.families import (
    arccos,
    boundaries,
    chen_cong_li_dtc,
    chen_cong_li_tc,
    cosine,
    doubling,
    dtc,
    dtc_at,
    in_proportion,
    lengths,
    log_odds,
    log_odds_at,
    one_by_one,
    phase_size,
    random_phase_geometric,
    random_phase_uniform,
    rescaled,
    sizes_between,
    tc,
    tc_at,
    uniform,
)
from unmask.planning.guarantees import Certificates, certificates
from unmask.planning.profiles import heldout_of, resampled

__all__ = [
    "Certificates",
    "PlanFile",
    "PlanReport",
    "all_budgets",
    "arccos",
    "boundaries",
    "certificates",
    "check",
    "chen_cong_li_dtc",
    "chen_cong_li_tc",
    "continuum",
    "cosine",
    "describe",
    "doubling",
    "dtc",
    "dtc_at",
    "for_counts",
    "in_proportion",
    "load",
    "log_odds",
    "log_odds_at",
    "one_by_one",
    "optimal",
    "phase_size",
    "predicted_kl",
    "random_phase_geometric",
    "random_phase_uniform",
    "rescaled",
    "save",
    "sizes_between",
    "square_root",
    "staged",
    "tc",
    "tc_at",
    "uniform",
]

FORMAT = "unmask.plan"


def optimal(profile: Profile, *, steps: int | None = None, max_kl: float | None = None) -> tuple[int, ...]:
    """The best plan of a profile: the least KL for ``steps`` steps, or the fewest steps for ``max_kl`` nats.

    Exact for the profile as it stands (KL with the order disclosed), plateaus and ties included; no step is
    empty. A profile that never rises takes about O(N log N) time and O(N) memory. A measured one that rises
    takes O(K N log N) and O(K N) memory: smooth it first (`profiles.smooth`), a plan from raw noise can be
    worse than `uniform`. Raises ValueError unless exactly one of ``steps`` (1..N) and ``max_kl`` (>= 0) is
    given. Derived.
    """
    if (steps is None) == (max_kl is None):
        raise ValueError(f"got steps={steps} and max_kl={max_kl}, expected exactly one of them")
    if steps is not None:
        return sizes_between(_best(profile, steps).points)
    return sizes_between(search.best_for_kl(profile.entropies, real(max_kl, "max_kl", 0)).points)


def for_counts(
    profile: Profile, *, steps: int | None = None, share: float | None = None
) -> Callable[[int], tuple[int, ...]]:
    """The optimal plan for any number n of masked positions, as a function of n; for rows of different lengths.

    At most ``steps`` steps, or ceil(share n). Where n is not the profile's length, the profile is taken at equal shares of
    visible positions (`profiles.resampled`). ValueError unless exactly one is given, ``steps`` >= 1 or ``share`` in 0..1.

        >>> plans.for_counts(Profile([3.0, 2.0, 1.0, 0.5, 0.5, 0.5]), share=0.5)(4)
        (2, 2)
    """
    if (steps is None) == (share is None):
        raise ValueError(f"got steps={steps} and share={share}, expected exactly one of them")
    steps = None if steps is None else whole(steps, "steps")
    share = None if share is None else real(share, "share")
    if (steps is not None and steps < 1) or (share is not None and not 0 < share <= 1):
        raise ValueError(f"got steps={steps} and share={share}, expected steps >= 1 or 0 < share <= 1")

    @cache
    def plan(count: int) -> tuple[int, ...]:
        own = profile if count == profile.length else resampled(profile, count)
        wanted = steps if share is None else math.ceil(share * count - 1e-9)  # not one more by rounding
        return optimal(own, steps=min(count, wanted or 1))

    return plan


def all_budgets(profile: Profile, max_steps: int) -> list[float]:
    """The least KL, nats, order disclosed, for 1, 2, .., ``max_steps`` steps: entry K-1 is V(K). Derived.

    Convex in K when the profile never rises, not always otherwise. Time O(N) a budget, or O(N log N) if it
    rises.
    """
    _, max_steps = lengths(profile.length, max_steps)
    return search.costs_for_all(profile.entropies, max_steps)


def staged(profiles: Sequence[Profile], steps: int, *, equal: bool = False) -> tuple[tuple[int, ...], ...]:
    """One plan per stage of a model in stages, ``steps`` calls in all, at the least total KL (nats).

    ``profiles[s]`` is the profile of stage s with all earlier stages visible; each stage takes one call or
    more. With ``equal`` the calls are shared evenly instead, as far as stages have positions for them. Exact. Raises
    ValueError for too few or too many steps.
    """
    longest, steps = sum(profile.length for profile in profiles), whole(steps, "steps")
    if not profiles or not len(profiles) <= steps <= longest:
        raise ValueError(
            f"got steps={steps}, expected {len(profiles)}..{longest}: at least one for every stage"
        )
    if equal:
        shares = _even(steps, [profile.length for profile in profiles])
        return tuple(optimal(profile, steps=k) for profile, k in zip(profiles, shares))
    spare = steps - len(profiles) + 1
    curves = [all_budgets(profile, min(spare, profile.length)) for profile in profiles]
    return tuple(optimal(profile, steps=k) for profile, k in zip(profiles, _shares(curves, steps)))


def _even(steps: int, lengths: Sequence[int]) -> list[int]:
    """``steps`` shared evenly among stages, none with more than its length: what one cannot take the others do."""
    shares = [0] * len(lengths)
    while left := steps - sum(shares):
        open_ = sorted((s for s, most in enumerate(lengths) if shares[s] < most), key=shares.__getitem__)
        for s, more in zip(open_, uniform(left, min(left, len(open_)))):
            shares[s] = min(shares[s] + more, lengths[s])
    return shares


@dataclass(frozen=True)
class PlanReport:
    """What a plan is expected to cost.

    ``calls`` network calls; ``kl`` nats per sequence with the order disclosed, ``kl_stderr`` its standard
    error (0: exact profile, None: unknown) and ``interval`` where it lies at 95 % (`Profile.kl_interval`);
    ``code_length`` nats per sequence. ``certificates`` hold for every law; ``bounds`` maps the name of a bound to nats for
    this profile, conditions in `unmask.planning.guarantees`.
    """

    plan: tuple[int, ...]
    calls: int
    kl: float
    kl_stderr: float | None
    code_length: float
    certificates: Certificates
    bounds: dict[str, float]
    interval: tuple[float, float] | None = None

    def _repr_html_(self) -> str:
        """The plan as a notebook shows it, with its cost."""
        shown = pictures.staircase_alone("Plan", self.plan)
        facts = {
            "calls": self.calls,
            "KL, nats": self.kl,
            "95 %": list(self.interval or ()),
            "bounds": self.bounds,
        }
        return pictures.fragment(shown + pictures.listed("What it costs", facts))


def describe(plan: Sequence[int], profile: Profile) -> PlanReport:
    """Cost, certificates and bounds of a plan for a profile, in nats, KL with the order disclosed.

    A profile that carries its held-out half (`profiles.choose`, ``unmask profile``) has the cost judged by that half,
    and the bounds estimated from its own. Of a measured one that carries none the plan must be made without it.
    """
    sizes = check(plan, profile.length)
    rho = certificates(sizes)
    limits = {
        "rho TC": rho.tc * profile.total_correlation,
        "rho DTC": rho.dtc * profile.dual_total_correlation,
        "rho M": rho.log_odds * profile.mixed,
        "by blocks": guarantees.by_blocks(sizes, profile),
        "by largest block": guarantees.by_largest_block(sizes, profile),
        "by power of two": guarantees.by_power_of_two(sizes, profile),
    }
    judge = heldout_of(profile)
    return PlanReport(
        plan=sizes,
        calls=len(sizes),
        kl=judge.kl(sizes),
        kl_stderr=judge.kl_stderr(sizes),
        code_length=judge.code_length(sizes),
        certificates=rho,
        bounds=limits,
        interval=judge.kl_interval(sizes),
    )


@dataclass(frozen=True)
class PlanFile:
    """A plan as stored: its sizes, the ``family`` that made it, and what it was expected to cost, if known.

    ``kl``, ``kl_stderr`` and ``interval`` (95 %, None: unknown) in nats per sequence, order disclosed;
    ``provenance`` is that of the profile.
    """

    plan: tuple[int, ...]
    family: str = "explicit"
    kl: float | None = None
    kl_stderr: float | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    interval: tuple[float, float] | None = None


def save(
    path: str | Path, plan: Sequence[int], *, family: str = "explicit", profile: Profile | None = None
) -> None:
    """Write a plan as JSON, whole or not at all, with its KL under ``profile`` (nats, order disclosed; see `describe`)."""
    judge = None if profile is None else heldout_of(profile)
    sizes = check(plan, boundaries(plan)[-1] if profile is None else profile.length)
    record = stamped("plan") | {
        "format": FORMAT,
        "version": 1,
        "length": sum(sizes),
        "sizes": list(sizes),
        "family": family,
        "kl": None if judge is None else judge.kl(sizes),
        "kl_stderr": None if judge is None else judge.kl_stderr(sizes),
        "kl_interval": None if judge is None else judge.kl_interval(sizes),
        "kl_level": 0.95,
        "kl_unit": "nats per sequence",
        "kl_kind": "order disclosed",
        "provenance": {} if judge is None else judge.provenance,
    }
    write_text(Path(path), json.dumps(record, indent=1, allow_nan=False))


def load(path: str | Path) -> PlanFile:
    """Read a plan written by `save`; ValueError for another format or sizes that miss the stored length."""
    record = read_record(Path(path).read_text(encoding="utf-8"), FORMAT)
    for name, good in _FIELDS.items():
        if name not in record or not good(record[name]):
            found = shown(record[name]) if name in record else "nothing"
            raise ValueError(
                f"got a plan file with field {name} missing or wrong ({found}); save the plan again"
            )
    fields = {name: record[name] for name in ("family", "kl", "kl_stderr", "provenance")}
    interval = record.get("kl_interval")  # older files have none
    if not _is_interval(interval):
        raise ValueError(
            f"got a plan file with field kl_interval wrong ({shown(interval)}); save the plan again"
        )
    fields["interval"] = None if interval is None else (float(interval[0]), float(interval[1]))
    return PlanFile(check(record["sizes"], record["length"]), **fields)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**62


def _is_number(value: object) -> bool:
    return value is None or type(value) in (int, float)


def _is_interval(value: object) -> bool:
    pair = isinstance(value, list) and len(value) == 2
    return value is None or (pair and all(type(end) in (int, float) for end in value))  # type: ignore[attr-defined]


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "sizes": lambda value: isinstance(value, list) and all(map(_is_count, value)),
    "length": lambda value: _is_count(value),
    "family": lambda value: isinstance(value, str),
    "kl": _is_number,
    "kl_stderr": _is_number,
    "provenance": lambda value: isinstance(value, dict),
}
"""What the fields of a plan file are."""


def _best(profile: Profile, steps: int) -> search.Path:
    _, steps = lengths(profile.length, steps)
    return search.best_for_steps(profile.entropies, steps)


def _shares(curves: Sequence[Sequence[float]], steps: int) -> list[int]:
    """Steps for each curve (entry k-1: cost of k steps) that sum to ``steps`` at the least total cost."""
    total, choices = np.array([0.0]), []  # total[k]: least cost of the stages so far with k steps
    for curve in curves:
        options = np.full((len(total) + len(curve), len(curve)), math.inf)
        for k, cost in enumerate(curve, start=1):
            options[k : k + len(total), k - 1] = total + cost
        choices.append(options.argmin(1) + 1)
        total = options.min(1)
    shares = []
    for choice in reversed(choices):
        shares.append(int(choice[steps]))
        steps -= shares[-1]
    return shares[::-1]
