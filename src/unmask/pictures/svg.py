"""Tags, numbers as text, and scales between numbers and places in a drawing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

NONE = "\N{EN DASH}"
"""What stands for a number that is not there."""


def tag(name: str, *content: str, **attributes: object) -> str:
    """An element of HTML or SVG; ``content`` is markup, attributes are escaped. ``class_`` is class, ``a_b`` is a-b.

    An attribute that is None or False is left out, one that is True stands alone.
    """
    said = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    kept = (
        f" {key}{'' if value is True else _quoted(value)}"
        for key, value in said
        if value not in (None, False)
    )
    return f"<{name}{''.join(kept)}>{''.join(content)}</{name}>"


def _quoted(value: object) -> str:
    return f'="{escape(place(value) if isinstance(value, float) else str(value))}"'


def text(value: object) -> str:
    """Anything as text that is no markup."""
    return escape(str(value))


def place(value: float) -> str:
    """A coordinate, to a hundredth."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def said(value: object, digits: int = 4) -> str:
    """A number for people: so many digits, whole ones as they are; a dash for None and NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NONE
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def finite(values: Iterable[float | None]) -> list[float]:
    """Those that are numbers."""
    return [float(v) for v in values if v is not None and math.isfinite(v)]


@dataclass(frozen=True)
class Scale:
    """From numbers low..high to places start..end, linear or, with a ``base`` above 1, by logarithms."""

    low: float
    high: float
    start: float
    end: float
    base: float = 0.0

    def __call__(self, value: float) -> float:
        """The place of a number."""
        low, high, at = (self._bent(v) for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    def inverse(self, at: float) -> float:
        """The number at a place."""
        low, high = self._bent(self.low), self._bent(self.high)
        found = low + (high - low) * (at - self.start) / (self.end - self.start)
        return self.base**found if self.base else found

    def has(self, value: float | None) -> bool:
        """Whether a number has a place."""
        return value is not None and math.isfinite(value) and (not self.base or value > 0)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers within the scale, at most about so many."""
        return self._powers(most) if self.base else _round(self.low, self.high, most)

    def _bent(self, value: float) -> float:
        return math.log(value, self.base) if self.base else value

    def _powers(self, most: int) -> list[float]:
        first, last = math.ceil(self._bent(self.low) - 1e-9), math.floor(self._bent(self.high) + 1e-9)
        step = max(1, math.ceil((last - first + 1) / most))
        found = [self.base**k for k in range(first, last + 1, step)]
        return found if len(found) > 1 else _round(self.low, self.high, most)


def _round(low: float, high: float, most: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    count = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [k * step for k in count]


def scale(
    values: Iterable[float | None], start: float, end: float, base: float = 0.0, zero: bool = False
) -> Scale:
    """The scale that holds all these numbers, with room where they are all the same; ``zero``: and 0."""
    known = [v for v in finite(values) if not base or v > 0] + ([0.0] if zero and not base else [])
    low, high = (min(known), max(known)) if known else (1.0, 2.0)
    if low == high:
        low, high = (
            (low / base, high * base) if base else (low - abs(low or 1) / 2, high + abs(high or 1) / 2)
        )
    return Scale(low, high, start, end, base)


def line(points: Sequence[tuple[float, float]], close: bool = False) -> str:
    """The path through places."""
    return "M" + "L".join(f"{place(x)} {place(y)}" for x, y in points) + ("Z" if close else "")
