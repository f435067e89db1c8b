"""The information profile with plans as staircases over it: the area between is what a plan costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from unmask.pictures.charts import Axes, Series, axes, chart, drawing, drawn, figure, numbers
from unmask.pictures.svg import line, tag, text


@dataclass(frozen=True)
class Staircase:
    """A plan's step sizes, and its name with what it costs."""

    name: str
    sizes: Sequence[int]


NOTE = (
    "h(i): nats of a masked position when i random others are visible. A step that begins at i unmasks all its positions "
    "at h(i): the hatched area between staircase and profile is the cost of the plan, nats per sequence, order disclosed."
)


def profile(
    title: str,
    entropies: Sequence[float],
    plans: Sequence[Staircase] = (),
    stderr: Sequence[float] | None = None,
    first: int = 0,
) -> str:
    """A profile h(0)..h(N-1), nats, with 1.96 ``stderr`` if known, under plans, of which ``first`` is shown first."""
    own = Series("profile h(i)", range(len(entropies)), entropies, marks=len(entropies) <= 24)
    wide = Series("", own.x, own.y, *_band(entropies, stderr))
    names = ("positions already visible", "nats per masked position")
    found = axes([wide, Series("", [0, len(entropies)], [])], *names, zero=True)
    steps = "".join(staircase(plan, entropies, found, shown=k == first) for k, plan in enumerate(plans))
    ground = tag("path", d=area(_steps([1] * len(entropies), entropies), found), class_="um-ground")
    inside = steps + ground + found.drawn() + _shade(wide, found) + drawn(own, 0, found)
    note = NOTE if plans else NOTE.split(". ")[0] + "."
    return figure(
        title,
        drawing(title, inside) + _choice(plans, first),
        note,
        numbers([own], found.x_label, found.y_label),
    )


def _band(
    entropies: Sequence[float], stderr: Sequence[float] | None
) -> tuple[list[float], list[float]] | tuple[None, None]:
    """Ends of 95 % intervals of single entries."""
    if stderr is None:
        return None, None
    pairs = [(h, 1.96 * e) for h, e in zip(entropies, stderr)]
    return [max(h - e, 0.0) for h, e in pairs], [h + e for h, e in pairs]


def _shade(series: Series, axes: Axes) -> str:
    """The band between low and high."""
    if series.low is None or series.high is None:
        return ""
    ends = [list(zip(series.x, side)) for side in (series.low, series.high)]
    places = [(axes.x(x), axes.y(float(y or 0))) for x, y in [*ends[0], *reversed(ends[1])]]
    return tag("path", d=line(places, close=True), class_="um-band")


def _steps(sizes: Sequence[int], entropies: Sequence[float]) -> list[tuple[float, float]]:
    """A plan as (visible positions, nats): a step that begins at a stands at h(a) until the next begins."""
    starts = [0, *accumulate(sizes)]
    return [(at, float(entropies[a])) for a, b in pairwise(starts) for at in (a, b)]


def area(steps: Sequence[tuple[float, float]], axes: Axes) -> str:
    """The path around what is below steps: that of a plan is larger than that of the profile by its cost."""
    ends = [(steps[-1][0], 0.0), (steps[0][0], 0.0)]
    return line([(axes.x(x), axes.y(y)) for x, y in [*steps, *ends]], close=True)


def staircase(plan: Staircase, entropies: Sequence[float], axes: Axes, shown: bool = True) -> str:
    """A plan, hatched down to 0; the profile is drawn over it, which leaves the area between."""
    steps = _steps(plan.sizes, entropies)
    stairs = tag("path", d=line([(axes.x(x), axes.y(y)) for x, y in steps]), class_="um-stairs")
    filled = tag("path", d=area(steps, axes), class_="um-cost")
    return tag(
        "g",
        filled,
        stairs,
        class_="um-plan um-s1",
        data_name=plan.name,
        style=None if shown else "display:none",
    )


def _choice(plans: Sequence[Staircase], first: int) -> str:
    """Which plan is shown, and what it costs."""
    if not plans:
        return ""
    if len(plans) == 1:
        return tag("p", "Plan: ", tag("b", text(plans[0].name)), class_="um-choice")
    names = [tag("option", text(plan.name), selected=k == first) for k, plan in enumerate(plans)]
    return tag("p", tag("label", "Plan ", tag("select", *names, class_="um-plans")), class_="um-choice")


def staircase_alone(title: str, sizes: Sequence[int]) -> str:
    """A plan without a profile: how many positions are visible after each call."""
    visible = [0, *accumulate(sizes)]
    series = [Series("visible", range(len(visible)), visible, marks=len(sizes) <= 40)]
    return chart(title, series, "network calls", "positions visible", zero=True)
