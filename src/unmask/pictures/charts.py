"""Charts of series with axes, legends and a table of the same numbers; bars with their numbers beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unmask.pictures.pages import table
from unmask.pictures.svg import Scale, line, place, said, scale, tag, text

WIDTH, HEIGHT = 480.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 18.0, 10.0, 44.0
STYLES = 6
"""Colours, each with a dash and a mark of its own; further series take them again."""
MOST_ROWS = 64
"""Rows of a table below a chart; of longer series every so manieth is listed."""


@dataclass(frozen=True)
class Series:
    """Points ``x``, ``y`` of one name, with 95 % intervals ``low``..``high`` if known (None: not of that point)."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None
    marks: bool = True
    joined: bool = True

    def reach(self) -> list[float | None]:
        """All numbers that must have room."""
        return [*self.y, *(self.low or ()), *(self.high or ())]


@dataclass(frozen=True)
class Axes:
    """Two scales and what they measure."""

    x: Scale
    y: Scale
    x_label: str
    y_label: str

    def drawn(self) -> str:
        """Grid lines, numbers and names."""
        return tag("g", *self._across(), *self._along(), class_="um-axes")

    def _across(self) -> list[str]:
        left, right = LEFT, WIDTH - RIGHT
        ticks = ((self.y(v), said(round(v, 9))) for v in self.y.ticks(5))
        lines = [
            tag("line", x1=left, x2=right, y1=at, y2=at)
            + tag("text", number, x=left - 5, y=at + 3.5, text_anchor="end")
            for at, number in ticks
        ]
        name = tag(
            "text", text(self.y_label), transform=f"translate(11 {place(TOP)}) rotate(-90)", text_anchor="end"
        )
        return [*lines, name]

    def _along(self) -> list[str]:
        bottom = self.y.start
        ticks = ((self.x(v), said(round(v, 9), 5)) for v in self.x.ticks(6))
        lines = [
            tag("line", x1=at, x2=at, y1=bottom, y2=bottom + 4)
            + tag("text", n, x=at, y=bottom + 16, text_anchor="middle")
            for at, n in ticks
        ]
        name = tag("text", text(self.x_label), x=WIDTH - RIGHT, y=HEIGHT - 6, text_anchor="end")
        return [*lines, name]


def axes(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    log_x: float = 0.0,
    log_y: float = 0.0,
    zero: bool = False,
    room: float = 0.0,
) -> Axes:
    """Axes that hold all series, with so much room at both ends of the lower one."""
    across = scale([v for s in series for v in s.x], LEFT + room, WIDTH - RIGHT - room, log_x)
    up = scale([v for s in series for v in s.reach()], HEIGHT - BOTTOM, TOP, log_y, zero)
    return Axes(across, up, x_label, y_label)


def chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    log_x: float = 0.0,
    log_y: float = 0.0,
    zero: bool = False,
    note: str = "",
    apart: float = 0.0,
) -> str:
    """Series in one drawing, a legend where there are several, and the numbers as a table.

    Where series stand at the same x, each is drawn so far to the right of the one before as ``apart`` says.
    """
    room = apart * len(series) / 2
    found = axes(series, x_label, y_label, log_x=log_x, log_y=log_y, zero=zero, room=room)
    body = "".join(drawn(s, k, found, apart * (k - (len(series) - 1) / 2)) for k, s in enumerate(series))
    keys = legend([s.name for s in series]) if len(series) > 1 else ""
    return figure(title, drawing(title, found.drawn() + body) + keys, note, numbers(series, x_label, y_label))


def drawing(title: str, content: str, height: float = HEIGHT) -> str:
    """An SVG that says what it is."""
    return tag("svg", content, viewBox=f"0 0 {place(WIDTH)} {place(height)}", role="img", aria_label=title)


def figure(title: str, content: str, note: str = "", more: str = "") -> str:
    """A drawing under its title, with a note, and numbers to open."""
    caption = tag("figcaption", text(title))
    below = tag("p", text(note), class_="um-note") if note else ""
    return tag("figure", caption, content, below, more, class_="um-figure")


def drawn(series: Series, number: int, axes: Axes, aside: float = 0.0) -> str:
    """A series: its line, its intervals, its marks, each with its number; ``aside`` of its place."""
    kept = [k for k, (x, y) in enumerate(zip(series.x, series.y)) if axes.x.has(x) and axes.y.has(y)]
    points = [(axes.x(series.x[k]), axes.y(float(series.y[k] or 0))) for k in kept]
    path = tag("path", d=line(points), class_="um-line") if series.joined and len(points) > 1 else ""
    spans = [_interval(series, k, x, axes) for k, (x, _) in zip(kept, points)]
    marks = [
        mark(number, x, y, f"{series.name}: {said(series.x[k])}, {said(series.y[k])}")
        for k, (x, y) in zip(kept, points)
        if series.marks
    ]
    moved = f"translate({place(aside)} 0)" if aside else None
    return tag(
        "g",
        path,
        *spans,
        *marks,
        transform=moved,
        class_=f"um-series um-s{number % STYLES}",
        data_name=series.name,
    )


def _interval(series: Series, k: int, x: float, axes: Axes) -> str:
    low, high = (None if ends is None else ends[k] for ends in (series.low, series.high))
    if low is None or high is None or not (axes.y.has(low) and axes.y.has(high)):
        return ""
    down, up = axes.y(low), axes.y(high)
    path = (
        f"M{place(x)} {place(down)}V{place(up)}M{place(x - 3)} {place(down)}h6M{place(x - 3)} {place(up)}h6"
    )
    return tag("path", d=path, class_="um-span")


SHAPES = (
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0Z",
    "M-3 -3h6v6h-6Z",
    "M0 -4L4 3H-4Z",
    "M0 -4.5L4 0L0 4.5L-4 0Z",
    "M-4 -3H4L0 4Z",
    "M-3.5 -3.5L3.5 3.5M-3.5 3.5L3.5 -3.5",
)
"""Circle, square, triangle, diamond, triangle down, cross."""


def mark(number: int, x: float, y: float, title: str = "") -> str:
    """The mark of a series at a place, with a title that a pointer shows."""
    told = tag("title", text(title)) if title else ""
    return tag(
        "path",
        told,
        d=SHAPES[number % STYLES],
        transform=f"translate({place(x)} {place(y)})",
        class_="um-mark",
    )


def legend(names: Sequence[str]) -> str:
    """Names with the line and the mark of each."""
    keys = [
        tag(
            "svg",
            tag("path", d="M2 6H26", class_="um-line") + mark(k, 14, 6),
            viewBox="0 0 28 12",
            aria_hidden="true",
        )
        for k in range(len(names))
    ]
    items = [
        tag("li", key, text(name), class_=f"um-s{k % STYLES}")
        for k, (key, name) in enumerate(zip(keys, names))
    ]
    return tag("ul", *items, class_="um-legend")


def numbers(series: Sequence[Series], x_label: str, y_label: str) -> str:
    """The numbers of a chart to open: every so manieth of long series."""
    step = max(1, math.ceil(sum(len(s.x) for s in series) / MOST_ROWS))
    rows = [
        (s.name, said(s.x[k], 6), said(s.y[k], 6), _ends(s, k))
        for s in series
        for k in range(0, len(s.x), step)
    ]
    every = f" (one in {step})" if step > 1 else ""
    return tag(
        "details",
        tag("summary", f"Numbers{every}"),
        table(["series", x_label, y_label, "95 % interval"], rows),
    )


def _ends(series: Series, k: int) -> str:
    low, high = (None if ends is None else ends[k] for ends in (series.low, series.high))
    return "" if low is None or high is None else f"{said(low)} to {said(high)}"


def bars(title: str, rows: Sequence[tuple[str, float, str]], note: str = "") -> str:
    """Bars of (name, value from 0, what to say of it), the longest as wide as there is room."""
    most = max((value for _, value, _ in rows), default=1.0) or 1.0
    lines = [
        tag("dt", text(name))
        + tag(
            "dd",
            tag("span", style=f"width:{100 * value / most:.2f}%", class_=f"um-bar um-s{k % STYLES}"),
            tag("b", text(told)),
        )
        for k, (name, value, told) in enumerate(rows)
    ]
    return figure(title, tag("dl", *lines, class_="um-bars"), note)
