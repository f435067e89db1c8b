"""When is which position unmasked? Maps of the order: of boards and images by place, of sequences by place and time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from unmask.pictures.charts import figure
from unmask.pictures.svg import tag, text

Ranks: TypeAlias = Sequence[float | None]
"""For each position how late it is unmasked, 0 (first) to 1 (last); None where it never is."""

CELLS = 64
"""Positions of a sequence that have a column of their own; in longer ones neighbours share one."""
TIMES = 10
"""Rows of a map by time."""
LEVELS = 10


def ranks(length: int, sizes: Sequence[int], positions: Sequence[int]) -> list[float | None]:
    """How late each of ``length`` positions is unmasked: the middle of its step among all steps, 0 to 1.

    ``positions`` stand in the order of steps, ``sizes`` of them a step. One that is hidden again counts as it was last.
    """
    found: list[float | None] = [None] * length
    calls = [k for k, size in enumerate(sizes) for _ in range(size)]
    for at, call in zip(positions, calls):
        found[at] = (call + 0.5) / len(sizes)
    return found


def means(all_ranks: Sequence[Ranks]) -> list[float | None]:
    """The mean rank of each position over the sequences that unmask it."""
    found: list[float | None] = []
    for at in range(max(map(len, all_ranks), default=0)):
        known = [r for row in all_ranks if at < len(row) and (r := row[at]) is not None]
        found.append(sum(known) / len(known) if known else None)
    return found


def order_map(title: str, all_ranks: Sequence[Ranks], columns: int, channels: int = 1) -> str:
    """The mean rank of each cell of a grid: early cells are large and strong, late ones small and faint.

    The ``channels`` of an image in colour, which take turns in a row, become pictures side by side.
    """
    values = planes(means(all_ranks), columns, channels)
    cells = [_cell(k, value, columns) for k, value in enumerate(values) if value is not None]
    rows = math.ceil(len(values) / columns)
    told = [None if v is None else round(100 * v) for v in values]
    picture = _map(title, "".join(cells), columns, rows, told, "unmasked at % of the way, mean")
    note = f"Mean over {len(all_ranks)} samples. Large and strong: unmasked early; small and faint: late; empty: given."
    beside = " Red, green and blue side by side." if channels > 1 else ""
    return figure(title, picture + scale_of(("first", "last")), note + beside)


def planes(values: Ranks, columns: int, channels: int) -> list[float | None]:
    """Rows whose columns are those of the first channel, then those of the next."""
    rows = [values[k : k + columns] for k in range(0, len(values), columns)]
    return [v for row in rows for channel in range(channels) for v in row[channel::channels]]


def over_positions(title: str, all_ranks: Sequence[Ranks]) -> str:
    """How often a position is unmasked at a tenth of the way: position along, time down."""
    length = max(map(len, all_ranks), default=1)
    width = math.ceil(length / CELLS)
    columns = math.ceil(length / width)
    counts = _counts(all_ranks, width, columns)
    shares = [c / max(sum(column), 1) for row in zip(*counts) for c, column in zip(row, counts)]
    cells = [_cell(k, 1 - share, columns) for k, share in enumerate(shares) if share]
    told = [round(100 * share) for share in shares]
    picture = _map(title, "".join(cells), columns, TIMES, told, "% of the samples", width)
    places = "" if width == 1 else f", {width} neighbours a column"
    note = (
        f"{len(all_ranks)} samples; positions from left to right{places}, time from top to bottom in tenths."
    )
    return figure(title, picture + scale_of(("all samples", "none")), note)


def _counts(all_ranks: Sequence[Ranks], width: int, columns: int) -> list[list[int]]:
    """For each column how many positions are unmasked in each tenth."""
    counts = [[0] * TIMES for _ in range(columns)]
    for row in all_ranks:
        for at, rank in enumerate(row):
            if rank is not None:
                counts[at // width][min(int(rank * TIMES), TIMES - 1)] += 1
    return counts


def _cell(k: int, value: float, columns: int) -> str:
    """A square whose side and colour fall with a value from 0 to 1."""
    y, x = divmod(k, columns)
    side = 9.6 - 7 * value
    level = min(int((1 - value) * LEVELS), LEVELS - 1)
    at = {"x": 10 * x + 5 - side / 2, "y": 10 * y + 5 - side / 2}
    return tag("rect", **at, width=side, height=side, class_=f"um-h{level}")


def _map(
    title: str, cells: str, columns: int, rows: int, told: Sequence[int | None], unit: str, width: int = 0
) -> str:
    """A map that a pointer or the arrow keys read out; with a ``width`` rows are tenths, columns so many positions."""
    empty = tag("rect", width=10 * columns, height=10 * rows, class_="um-floor")
    cursor = tag("rect", width=10, height=10, class_="um-cursor", style="display:none")
    box = f"-1 -1 {10 * columns + 2} {10 * rows + 2}"
    drawing = tag("svg", empty, cells, cursor, viewBox=box, role="img", aria_label=title)
    values = " ".join("-" if v is None else str(v) for v in told)
    label = f"{title}; arrow keys read it out"
    data = {"data_values": values, "data_columns": columns, "data_unit": unit, "data_width": str(width)}
    shape = "um-map um-wide" if columns > 3 * rows else "um-map"
    board = tag("div", drawing, class_=shape, tabindex="0", role="group", aria_label=label, **data)
    return board + tag(
        "p", text("Point at a cell, or move with the arrow keys."), class_="um-read", aria_live="polite"
    )


def scale_of(ends: tuple[str, str]) -> str:
    """What sizes and colours mean."""
    cells = "".join(_cell(k, k / (LEVELS - 1), LEVELS) for k in range(LEVELS))
    bar = tag("svg", cells, viewBox=f"0 0 {10 * LEVELS} 10", aria_hidden="true", class_="um-scale")
    return tag("p", text(ends[0]), bar, text(ends[1]), class_="um-ends")
