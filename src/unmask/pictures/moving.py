"""A film as a GIF, which plays where no page can be opened: in chats, on slides, in a README. Needs pillow."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from unmask.pictures.films import Item, Look, pixels

Colour: TypeAlias = tuple[int, int, int]
Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, width and height, in pixels of the picture."""

GROUND, INK, GIVEN, LINE = (255, 255, 255), (20, 24, 32), (120, 124, 132), (190, 194, 202)
MASKED, DOT, FRAME = (49, 86, 124), (111, 147, 184), (230, 159, 0)
WIDTH, MARGIN, LETTER, ROW = 576, 12, 16, 26
"""Width of the stage, its margin, and the height of letters and of a row of text, in pixels."""
FRAMES, SECONDS, HELD = 120, 6.0, 2.5
"""Pictures that a GIF has at most; how long they play together, and the last one after them, in seconds."""
UNSURE, LIKELY = 0.5, 0.9
"""Below these probabilities a symbol has two lines under it, or one."""


@dataclass(frozen=True)
class Moment:
    """A sequence after some calls: its tokens, at which call each was unmasked (0: given, -1: masked), how probably."""

    call: int
    tokens: Sequence[int]
    when: Sequence[int]
    sure: Sequence[float | None]


def moments(item: Item, mask: int) -> list[Moment]:
    """An item before its first call and after each."""
    tokens = list(item.start)
    sure: list[float | None] = [None] * len(tokens)
    when = [-1 if t == mask else 0 for t in tokens]
    found = [Moment(0, tuple(tokens), tuple(when), tuple(sure))]
    for call, step in enumerate(item.steps, 1):
        for at, symbol, log_prob in zip(step["positions"], step["symbols"], step["log_probs"]):
            tokens[at], when[at] = symbol, -1 if symbol == mask else call
            sure[at] = None if log_prob is None else math.exp(min(log_prob, 0.0))
        found.append(Moment(call, tuple(tokens), tuple(when), tuple(sure)))
    return found


def gif(look: Look, item: Item) -> bytes:
    """The film of one item; ImportError without pillow says how to get it."""
    look, (item,) = pixels(look, [item])
    calls, boxes = moments(item, look.mask), layout(look, item)
    last = len(calls) - 1
    kept = sorted({round(k * last / FRAMES) for k in range(FRAMES + 1)}) if last > FRAMES else range(last + 1)
    drawn = [_drawn(look, calls[k], boxes, last) for k in kept]
    each = round(1000 * min(max(SECONDS / len(drawn), 0.03), 0.5))
    times = [each] * (len(drawn) - 1) + [round(1000 * HELD)]
    held = io.BytesIO()
    drawn[0].save(held, "GIF", save_all=True, append_images=drawn[1:], duration=times, loop=0)
    return held.getvalue()


# --- where things stand -------------------------------------------------------------------------------


def layout(look: Look, item: Item) -> list[Box]:
    """The box of each position (of each pixel, for images), which no call moves."""
    if look.kind in ("grid", "image") and look.columns:
        return _rows(len(item.start) // look.channels, look.columns // look.channels, look.kind == "image")
    return _running(look.signs(item.final()), look.kind)


def _rows(count: int, columns: int, small: bool) -> list[Box]:
    side = max(1, min(336 // columns, 24)) if small else 34
    return [(MARGIN + side * (k % columns), MARGIN + side * (k // columns), side, side) for k in range(count)]


def _running(signs: Sequence[str], kind: str) -> list[Box]:
    """One symbol after another, as wide as those they end as; residues with gaps between tens."""
    x, y, found = MARGIN, MARGIN, list[Box]()
    for at, sign in enumerate(signs):
        width = max(11, math.ceil(_font().getlength(sign)) + (8 if kind == "symbols" else 2))
        if x + width > MARGIN + WIDTH:
            x, y = MARGIN, y + ROW
        found.append((x, y, width, ROW))
        x += width + (8 if kind == "residues" and at % 10 == 9 else 0)
    return found


# --- what is drawn ------------------------------------------------------------------------------------


def _pillow() -> Any:
    """Pillow's Image, ImageDraw and ImageFont."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise ImportError("pillow is not installed: pip install 'unmask[images]'") from None
    return Image, ImageDraw, ImageFont


@cache
def _font(size: int = LETTER) -> Any:
    return _pillow()[2].load_default(size)


def _drawn(look: Look, moment: Moment, boxes: Sequence[Box], calls: int) -> Any:
    """One picture: the stage, and below it how far it is."""
    image, draw, _ = _pillow()
    width = max(max(x + w for x, _, w, _ in boxes) + MARGIN, 200)
    foot = max(y + h for _, y, _, h in boxes) + MARGIN
    picture = image.new("RGB", (math.ceil(width), math.ceil(foot + ROW)), GROUND)
    brush = draw.Draw(picture)
    if look.kind == "image":
        _pixels(brush, look, moment, boxes)
    else:
        for at, box in enumerate(boxes):
            _sign(brush, look, moment, at, box)
        _rules(brush, look, boxes)
    key = "" if look.kind == "image" else f"; two lines: below {UNSURE:g}, one: below {LIKELY:g}"
    brush.text((MARGIN, foot), f"call {moment.call} of {calls}{key}", INK, _font(13))
    done = (width - 2 * MARGIN) * moment.call / max(calls, 1)
    brush.rectangle((MARGIN, foot - 5, width - MARGIN, foot - 3), LINE)
    brush.rectangle((MARGIN, foot - 5, MARGIN + done, foot - 3), MASKED)
    return picture


def _sign(brush: Any, look: Look, moment: Moment, at: int, box: Box) -> None:
    """A symbol: framed if this call unmasked it, underlined if it was improbable; a dot where it is masked."""
    x, y, width, height = box
    when, sure = moment.when[at], moment.sure[at]
    if look.kind == "grid":
        brush.rectangle((x, y, x + width, y + height), None, LINE)
    middle = (x + width / 2, y + height / 2 - 1)
    if when < 0:
        brush.ellipse((middle[0] - 2, middle[1] - 1, middle[0] + 2, middle[1] + 3), DOT)
        return
    text = look.signs([moment.tokens[at]])[0].replace("\n", "↵")
    brush.text(middle, text, GIVEN if when == 0 else INK, _font(), anchor="mm")
    for line in range(0 if when == 0 or sure is None else (sure < UNSURE) + (sure < LIKELY)):
        brush.line((x + 1, y + height - 4 + 2 * line, x + width - 2, y + height - 4 + 2 * line), MASKED)
    if when == moment.call and when:
        brush.rectangle((x, y + 1, x + width - 1, y + height - 1), None, FRAME)


def _rules(brush: Any, look: Look, boxes: Sequence[Box]) -> None:
    """The rules round the boxes of a Sudoku, and round any board."""
    if look.kind != "grid" or not look.columns:
        return
    (high, wide), side, rows = look.box(len(boxes)), boxes[0][2], math.ceil(len(boxes) / look.columns)
    low, right = MARGIN + side * rows, MARGIN + side * look.columns
    for row in range(0, rows + 1, high):
        brush.line((MARGIN, MARGIN + side * row, right, MARGIN + side * row), GIVEN, 2)
    for column in range(0, look.columns + 1, wide):
        brush.line((MARGIN + side * column, MARGIN, MARGIN + side * column, low), GIVEN, 2)


def _pixels(brush: Any, look: Look, moment: Moment, boxes: Sequence[Box]) -> None:
    """Pixels, blue where they are masked; a channel that is still masked stands at its middle, below a blue square."""
    for k, (x, y, side, _) in enumerate(boxes):
        own = range(look.channels * k, look.channels * (k + 1))
        open_ = sum(moment.when[at] < 0 for at in own)
        levels = [_level(moment, at, look.levels) for at in own]
        colour = MASKED if open_ == look.channels else tuple(levels if len(levels) == 3 else 3 * levels)
        brush.rectangle((x, y, x + side - 1, y + side - 1), colour)
        if 0 < open_ < look.channels and side > 2:
            third = side // 3
            brush.rectangle((x + third, y + third, x + side - 1 - third, y + side - 1 - third), MASKED)
        if moment.call and side > 3 and any(moment.when[at] == moment.call for at in own):
            brush.rectangle((x, y, x + side - 1, y + side - 1), None, FRAME)


def _level(moment: Moment, at: int, white: int) -> int:
    return round(255 * (0.5 if moment.when[at] < 0 else moment.tokens[at] / max(white, 1)))
