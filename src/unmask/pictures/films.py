"""Films of unmasking: what stands where after each call, how probable it was, and how much was open."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unmask.pictures import heat, molecules
from unmask.pictures.svg import tag, text

KINDS = ("text", "grid", "image", "molecule", "residues", "symbols")
"""What a sequence looks like: running text, a board, pixels, SMILES, letters in tens, or symbols with gaps between."""

COLOURS = ("red", "green", "blue")
"""The channels of a pixel, in their order."""


@dataclass(frozen=True)
class Item:
    """A sequence at the start, tokens with masks, and its steps: each with ``positions``, ``symbols``, ``log_probs``

    and ``entropies`` (nats; None where not known), lists of equal length.
    """

    start: Sequence[int]
    steps: Sequence[Mapping[str, Any]]
    title: str = ""

    @classmethod
    def before(
        cls, tokens: Sequence[int], steps: Sequence[Mapping[str, Any]], mask: int, title: str = ""
    ) -> Item:
        """The item whose steps led to ``tokens``: what they unmasked was masked."""
        touched = {at for step in steps for at in step["positions"]}
        return cls([mask if at in touched else t for at, t in enumerate(tokens)], steps, title)

    def column(self, name: str) -> list[Any]:
        """One of the lists, of all steps together; Nones for a step that has none."""
        return [v for step in self.steps for v in step[name] or [None] * len(step["positions"])]

    def final(self) -> list[int]:
        """The tokens after the last step."""
        found = list(self.start)
        for at, symbol in zip(self.column("positions"), self.column("symbols")):
            found[at] = symbol
        return found

    def ranks(self) -> list[float | None]:
        """How late each position is unmasked, 0 to 1: see `heat.ranks`."""
        sizes = [len(step["positions"]) for step in self.steps]
        return heat.ranks(len(self.start), sizes, self.column("positions"))


@dataclass(frozen=True)
class Look:
    """How the symbols of a model look: one of `KINDS`, their texts (numbers where there is none), the mask.

    ``columns``: of a board or an image; ``levels``: of an image, the symbol that is white. ``whole``: how many levels an
    image has whose tokens are their digits, the coarsest of all pixels first. ``channels``: 3 where the red, green and blue
    of a pixel stand side by side, each in a column.
    """

    kind: str = "symbols"
    texts: Mapping[int, str] = field(default_factory=dict)
    mask: int = -1
    columns: int = 0
    levels: int = 0
    whole: int = 0
    channels: int = 1

    def record(self, used: Iterable[int]) -> dict[str, Any]:
        """The look as JSON, with the texts of the symbols that are used."""
        texts = {str(t): self.texts[t] for t in sorted(set(used)) if t in self.texts}
        sizes = {"columns": self.columns, "levels": self.levels}
        more = {"whole": self.whole or None, "channels": self.channels if self.channels > 1 else None}
        known = {name: size for name, size in more.items() if size is not None}
        return {"kind": self.kind, "texts": texts, "mask": self.mask, **sizes, **known}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Look:
        """The look of a record; a kind that this version does not know shows as symbols."""
        texts = {int(t): str(text) for t, text in record["texts"].items()}
        kind = record["kind"] if record["kind"] in KINDS else "symbols"
        mask, columns, levels = (int(record[name]) for name in ("mask", "columns", "levels"))
        whole, channels = int(record.get("whole", 0)), int(record.get("channels", 1))
        return cls(kind, texts, mask, columns, levels, whole, channels)

    def signs(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token."""
        return ["_" if t == self.mask else self.texts.get(t, str(t)) for t in tokens]

    def written(self, tokens: Sequence[int]) -> str:
        """Tokens as text: boards and images in rows."""
        signs = self.signs(tokens)
        if self.kind not in ("grid", "image") or not self.columns:
            return (" " if self.kind == "symbols" else "").join(signs)
        rows = range(0, len(signs), self.columns)
        return "\n".join(" ".join(signs[k : k + self.columns]) for k in rows)

    def box(self, count: int) -> tuple[int, int]:
        """Height and width of the boxes of a Sudoku of ``count`` cells; of all of it where it is none."""
        high = math.isqrt(self.columns)
        while high and self.columns % high:
            high -= 1
        if self.kind != "grid" or self.columns**2 != count or high < 2:
            return math.ceil(count / max(self.columns, 1)), self.columns
        return high, self.columns // high

    def place(self, at: int) -> str:
        """A position in words, counted from 1: of a board or an image its row and column, and its colour."""
        if not self.columns:
            return f"position {at + 1}"
        row, column = divmod(at, self.columns)
        column, channel = divmod(column, self.channels)
        colour = f", {COLOURS[channel]}" if self.channels > 1 else ""
        return f"row {row + 1}, column {column + 1}{colour}"


def pixels(look: Look, items: Sequence[Item]) -> tuple[Look, list[Item]]:
    """Items of digits as items of levels: each digit leaves its pixel in the middle of what is still possible."""
    if not look.whole:
        return look, list(items)
    worth = [1]
    while worth[0] * (look.levels + 1) < look.whole:
        worth.insert(0, worth[0] * (look.levels + 1))
    after = replace(look, mask=look.whole, levels=look.whole - 1, whole=0)
    return after, [_levelled(item, worth, look) for item in items]


def _levelled(item: Item, worth: Sequence[int], look: Look) -> Item:
    """The levels that the digits of an item leave, whose first stage is masked to begin with."""
    known = [0] * (len(item.start) // len(worth))
    steps = []
    for step in item.steps:
        places = [divmod(at, len(known)) for at in step["positions"]]
        levels = []
        for (stage, at), digit in zip(places, step["symbols"]):
            known[at] += digit * worth[stage]
            levels.append(min(known[at] + worth[stage] // 2, look.whole - 1))
        steps.append({**step, "positions": [at for _, at in places], "symbols": levels})
    return Item([look.whole] * len(known), steps, item.title)


def film(title: str, look: Look, items: Sequence[Item], note: str = "") -> str:
    """The stage with its controls: buttons, a slider, keys; without a script the first finished item stands there."""
    look, items = pixels(look, items)
    data = json.dumps(record(look, items), separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    store = tag("script", data, type="application/json", class_="um-data")
    stage = tag(
        "div",
        tag("pre", text(look.written(items[0].final()) if items else "")),
        class_="um-stage",
        role="img",
        aria_label=title,
    )
    talk = tag("p", "", class_="um-said", aria_live="polite")
    along = tag("div", "", class_="um-along")
    keys = (
        "Space plays and stops, arrow keys step, Home and End go to the ends, plus and minus change the speed"
    )
    label = f"{title}, step by step. {keys}"
    key = _pixel_key(look.channels) if look.kind == "image" else _key()
    inside = stage + _controls(items) + talk + key + along
    body = tag(
        "div", inside, class_="um-film", tabindex="0", role="group", aria_label=label, data_kind=look.kind
    )
    below = tag("p", text(note), class_="um-note") if note else ""
    return tag("figure", tag("figcaption", text(title)), store, body, below, class_="um-figure")


BUTTONS = (
    ("first", "M4 3v10M12 3L7 8l5 5", "Start"),
    ("back", "M10 3L5 8l5 5", "One call back"),
    ("play", "M5 3l8 5-8 5Z", "Play"),
    ("next", "M6 3l5 5-5 5", "Next call"),
    ("last", "M4 3l5 5-5 5M12 3v10", "End"),
)
"""What buttons do, how they look in a square of 16, and what they are called."""

PACES = (0.25, 0.5, 1, 2, 4)
"""Speeds to choose from."""

KEY = (
    ("um-q0", "below 0.5"),
    ("um-q1", "below 0.9"),
    ("um-q2", "above"),
    ("um-given", "given"),
    ("um-new", "this call"),
)


def _key() -> str:
    """What underlines and frames mean."""
    items = [tag("span", text(said), class_=f"um-sign {name}") for name, said in KEY]
    return tag("p", "Probability when unmasked: ", " ".join(items), class_="um-note um-key")


def _pixel_key(channels: int) -> str:
    """What blue and frames mean."""
    partly = " A channel that is still masked stands at its middle level, with a blue square in its pixel."
    said = f"Blue: masked. Framed: this call.{partly if channels > 1 else ''}"
    return tag("p", text(said), class_="um-note um-key")


def _icon(path: str) -> str:
    return tag("svg", tag("path", d=path), viewBox="0 0 16 16", aria_hidden="true", class_="um-icon")


def _controls(items: Sequence[Item]) -> str:
    """Hidden until the script runs."""
    buttons = [
        tag("button", _icon(path), type="button", aria_label=label, title=label, data_do=name)
        for name, path, label in BUTTONS
    ]
    slider = tag("input", type="range", min="0", max="1", value="0", step="1", aria_label="Call").replace(
        "</input>", ""
    )
    names = [tag("option", text(item.title or f"sample {k + 1}"), value=k) for k, item in enumerate(items)]
    choice = tag("label", "Sample ", tag("select", *names, class_="um-items")) if len(names) > 1 else ""
    return tag("div", *buttons, slider, _pace(), choice, class_="um-controls", hidden=True)


def _pace() -> str:
    """How fast a film plays, in times its usual pace."""
    options = [tag("option", f"{pace:g} x", value=f"{pace:g}", selected=pace == 1) for pace in PACES]
    return tag("label", "Speed ", tag("select", *options, class_="um-pace"))


def record(look: Look, items: Sequence[Item]) -> dict[str, Any]:
    """What the script reads: per item the sizes of the steps, positions, symbols, 1000 probability and 100 entropy."""
    used = (t for item in items for t in [*item.start, *item.column("symbols")] if t != look.mask)
    return look.record(used) | {"items": [_item(item, look) for item in items]}


def _item(item: Item, look: Look) -> dict[str, Any]:
    told = any(step["entropies"] is not None for step in item.steps)
    hidden = all(t == look.mask for t in item.start)
    return {
        "t": item.title,
        "b": len(item.start) if hidden else list(item.start),
        "n": [len(step["positions"]) for step in item.steps],
        "p": item.column("positions"),
        "s": item.column("symbols"),
        "c": [_whole(None if v is None else math.exp(min(v, 0.0)), 1000) for v in item.column("log_probs")],
        "e": [_whole(v, 100) for v in item.column("entropies")] if told else None,
        **({"m": molecules.drawing(look.signs(item.final()))} if look.kind == "molecule" else {}),
    }


def _whole(value: float | None, times: int) -> int:
    """A number as a whole one; -1 where it is not known."""
    return -1 if value is None or not math.isfinite(value) else round(times * value)
