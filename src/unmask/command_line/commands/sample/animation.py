"""A sequence in the terminal, unmasked step by step: boards, images, text, molecules, residues.

Colour tells how probable each symbol was; so do, where ``NO_COLOR`` is set, underlines of what was unlikely.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text
from torch import Tensor

from unmask.base.types import Info, Result
from unmask.data import sudoku
from unmask.pictures import Look

BAD, GOOD = (214, 69, 65), (46, 160, 67)
"""Colours of probability 0 and 1."""

BOARD = Look("grid", {k: str(k + 1) for k in range(9)}, sudoku.BLANK, 9)
SHADES = " ░▒▓█"
"""Grey from black to white where there are no colours."""

UNSURE = 0.5
"""Below this probability a symbol is underlined."""

REDRAWN = 0.05
"""Seconds between two frames, at least."""

LINES = 8
"""Steps that are told where there is no terminal."""


@dataclass(frozen=True)
class Move:
    """One position unmasked: its place, symbol, probability, and the network call that did it."""

    cell: int
    symbol: int
    probability: float
    call: int


def moves(result: Result, row: int = 0) -> list[Move]:
    """The positions of one batch row in the order in which they were unmasked."""
    return [m for call, info in enumerate(result.trace, 1) for m in moves_of(info, row, call)]


def moves_of(info: Info, row: int, call: int) -> list[Move]:
    """What a step did to one batch row."""
    found = []
    for place in (info.items == row).nonzero()[:, 0].tolist():
        cells, symbols = info.rows[place].tolist(), info.symbols[place].tolist()
        chances = info.log_probs[place].exp().tolist()
        found += [Move(c, s, p, call) for c, s, p in zip(cells, symbols, chances) if c >= 0]
    return found


def show(
    console: Console, puzzle: Tensor, steps: Sequence[Move], seconds: float = 4.0, look: Look = BOARD
) -> None:
    """Plays the moves on tokens int64 [L] in about ``seconds``; a few plain lines when not a terminal."""
    with Stage(console, puzzle.tolist(), look) as stage:
        for move in steps:
            time.sleep(seconds / max(len(steps), 1) if console.is_terminal else 0)
            stage.play([move], last=move is steps[-1])


@dataclass
class Stage:
    """Where a sequence of tokens is watched: redrawn on a terminal, told in a few lines elsewhere."""

    console: Console
    start: list[int]
    look: Look
    steps: list[Move] = field(default_factory=list)
    live: Live | None = None
    told: int = 0
    calls: int = 0
    began: float = 0.0
    drawn: float = 0.0

    def __enter__(self) -> Stage:
        """Shows the sequence before the first step."""
        if self.console.is_terminal:
            self.live = Live(self.frame(), console=self.console, auto_refresh=False)
            self.live.start()
        else:
            self.console.print(self.still())
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves the last frame; elsewhere prints the sequence as it is."""
        if self.live:
            self.live.stop()
        else:
            self.console.print(self.still())

    def each(self, info: Info, tokens: Tensor) -> None:
        """A step of a batch whose first row is watched."""
        self.calls, self.began = self.calls + 1, self.began or time.monotonic()
        done = bool((tokens[0] != self.look.mask).all())
        self.play(moves_of(info, 0, self.calls), last=done)

    def play(self, more: Sequence[Move], last: bool) -> None:
        """Further moves, seen or told."""
        self.steps += more
        if self.live and (last or time.monotonic() - self.drawn > REDRAWN):
            self.drawn = time.monotonic()
            self.live.update(self.frame(), refresh=True)
        elif self.live:
            return
        elif more and (last or len(self.steps) // self._stride > self.told):
            self.told = len(self.steps) // self._stride
            hidden = self.start.count(self.look.mask)
            self.console.print(
                f"{self._noun} {len(self.steps)} of {hidden}, call {more[-1].call}: {words(more[-1], self.look)}"
            )

    @property
    def _stride(self) -> int:
        return max(1, self.start.count(self.look.mask) // LINES)

    @property
    def _noun(self) -> str:
        return {"grid": "cell", "image": "pixel" if self.look.channels == 1 else "colour"}.get(
            self.look.kind, "position"
        )

    def still(self) -> Group:
        """The sequence as it is now, without colours and indents."""
        lines = frame_of(self.start, self.steps, self.look, note=False, plain=True).renderables
        boards = self.look.kind == "grid"
        return Group(
            *(Text(str(line).removeprefix("  ").rstrip() if boards else str(line)) for line in lines)
        )

    def frame(self) -> Group:
        """What is seen now."""
        seen = frame_of(
            self.start, self.steps, self.look, plain=self.console.no_color, room=self.console.size
        )
        return Group(*seen.renderables, Text(self.left())) if self.began and self.steps else seen

    def left(self) -> str:
        """How many positions are unmasked, and about how long the others will take."""
        hidden = self.start.count(self.look.mask)
        done = hidden - sum(sign == self.look.mask for sign in self.now())
        each = (time.monotonic() - self.began) / max(done, 1)
        return f"  {done} of {hidden} unmasked, {each * (hidden - done):.0f} s left"

    def now(self) -> list[int]:
        """The tokens as they are."""
        found = list(self.start)
        for move in self.steps:
            found[move.cell] = move.symbol
        return found


def frame(puzzle: Tensor, steps: Sequence[Move], look: Look = BOARD) -> Group:
    """Tokens int64 [L] after some moves, the last one inverted, with what it was."""
    return frame_of(puzzle.tolist(), steps, look)


def frame_of(
    start: Sequence[int],
    steps: Sequence[Move],
    look: Look,
    *,
    note: bool = True,
    plain: bool = False,
    room: tuple[int, int] = (80, 24),
) -> Group:
    """Tokens after some moves: given ones in bold, others by colour; ``note``: also the last move in words."""
    placed = {m.cell: m for m in steps}
    last = steps[-1].cell if steps else -1
    if look.kind == "grid":
        lines = _board(start, placed, last, look, plain)
    elif look.kind == "image":
        lines = _image(start, placed, look, plain)
    else:
        lines = [_running(start, placed, last, look, plain)]
    if not note:
        return Group(*lines)
    if look.kind not in ("grid", "image"):
        lines = list(lines[0].wrap(Console(width=room[0]), room[0]))
    seen, where = _window(lines, _line_of(last, lines, look), max(room[1] - 5, 4))
    said = f"  call {steps[-1].call}: {words(steps[-1], look)}" if steps else "  all blanks masked"
    return Group(
        *seen,
        Text(said + where),
        *(_pixel_legend(look) if look.kind == "image" else [_legend(plain)]),
    )


def _line_of(last: int, lines: Sequence[Text], look: Look) -> int:
    """The line in which the last move stands; 0 before any."""
    if look.kind == "image":
        rows = max(last, 0) // look.columns
        return rows // 2 if any("▀" in line.plain for line in lines[:1]) else rows
    return next((k for k, line in enumerate(lines) if any("reverse" in str(s.style) for s in line.spans)), 0)


def _window(lines: Sequence[Text], focus: int, most: int) -> tuple[Sequence[Text], str]:
    """At most so many lines, with one of them in the middle, and in words which they are where some are left out."""
    if len(lines) <= most:
        return lines, ""
    first = min(max(focus - most // 2, 0), len(lines) - most)
    return lines[first : first + most], f"; lines {first + 1} to {first + most} of {len(lines)}"


def _pixel_legend(look: Look) -> list[Text]:
    """What is not seen in colours: a channel that is masked."""
    said = "  blue or dots: masked; a channel still masked stands at its middle"
    return [Text(said)] if look.channels > 1 else []


def _legend(plain: bool) -> Text:
    if plain:
        return Text("  underlined: probability below ") + Text(f"{UNSURE:g}", style="underline")
    chances = (Text(f"{p:.2f}", style=_style(p)) for p in (0.3, 0.5, 0.7, 0.9, 1.0))
    return Text("  probability ") + Text(" ").join(chances)


def _sign(at: int, start: Sequence[int], placed: dict[int, Move], last: int, look: Look, plain: bool) -> Text:
    """One symbol of a board or a text."""
    move = placed.get(at)
    if move is not None and move.symbol != look.mask:
        unsure = " underline" if plain and move.probability < UNSURE else ""
        style = ("" if plain else _style(move.probability)) + unsure + (" reverse" if at == last else "")
        return Text(look.texts.get(move.symbol, str(move.symbol)), style=style.strip())
    masked = move is not None or start[at] == look.mask
    dot = "." if look.kind == "grid" else "·"
    return Text(dot, style="dim") if masked else Text(look.texts.get(start[at], ""), style="bold")


def _board(start: Sequence[int], placed: dict[int, Move], last: int, look: Look, plain: bool) -> list[Text]:
    """Rows of cells; of a Sudoku with rules between the boxes."""
    high, wide = look.box(len(start))
    boxed = wide < look.columns
    ends = range(wide - 1, look.columns - 1, wide)
    gaps = [" | " if column in ends else " " for column in range(look.columns)]
    lines = []
    for row in range(0, len(start), look.columns):
        cells = (_sign(row + k, start, placed, last, look, plain) + gap for k, gap in enumerate(gaps))
        lines.append(Text("  ") + Text("").join(cells))
    if not boxed:
        return lines
    edge, middle = "-" * (2 * wide), "-" * (2 * wide + 1)
    rule = Text("  " + "+".join([edge, *[middle] * (look.columns // wide - 2), edge]))
    bands = [lines[at : at + high] for at in range(0, look.columns, high)]
    return [line for band in bands for line in (*band, rule)][:-1]


def _running(start: Sequence[int], placed: dict[int, Move], last: int, look: Look, plain: bool) -> Text:
    """Symbols one after another; residues in tens."""
    tens = " " if look.kind == "residues" else ""
    between = " " if look.kind == "symbols" else ""
    signs = (
        _sign(at, start, placed, last, look, plain) + (tens if at % 10 == 9 else "") + between
        for at in range(len(start))
    )
    return Text("").join(signs)


def _image(start: Sequence[int], placed: dict[int, Move], look: Look, plain: bool) -> list[Text]:
    """Two rows of pixels a line in colours, or a row in shades, two signs a pixel."""
    values = [placed[at].symbol if at in placed else value for at, value in enumerate(start)]
    levels = [None if v == look.mask else v / max(look.levels, 1) for v in values]
    cells = [tuple(levels[k : k + look.channels]) for k in range(0, len(levels), look.channels)]
    columns = look.columns // look.channels
    rows = [cells[k : k + columns] for k in range(0, len(cells), columns)]
    if plain:
        return [Text("".join(map(_shade, row))) for row in rows]
    black: list[Pixel] = [(0.0,)] * columns
    pairs = zip(rows[::2], [*rows[1::2], black] if len(rows) % 2 else rows[1::2])
    return [
        Text("").join(Text("▀", style=f"{_colour(a)} on {_colour(b)}") for a, b in zip(*two)) for two in pairs
    ]


Pixel: TypeAlias = tuple[float | None, ...]
"""Levels of its channels, 0 to 1; None where they are masked."""


def _shade(pixel: Pixel) -> str:
    """A pixel as two signs: dots where it is masked, a dot behind its shade where a part of it is."""
    known = [level for level in pixel if level is not None]
    shade = SHADES[round(4 * sum(known) / len(known))] if known else "·"
    return shade + (shade if len(known) == len(pixel) else "·")


def _colour(pixel: Pixel) -> str:
    """Levels as a colour: blue where all are masked, the middle for one that is."""
    if all(level is None for level in pixel):
        return "rgb(49,86,124)"
    known = [round(255 * (0.5 if level is None else level)) for level in pixel]
    return "rgb({},{},{})".format(*(known if len(known) == 3 else 3 * known))


def _style(probability: float) -> str:
    """Red to green; the square spreads the colours near 1, where a good model lives."""
    share = probability**2
    return "rgb({},{},{})".format(*(round(b + share * (g - b)) for b, g in zip(BAD, GOOD)))


def words(move: Move, look: Look = BOARD) -> str:
    """A move in words."""
    place = look.place(move.cell)
    if move.symbol == look.mask:
        return f"{place} is hidden again"
    sign = look.texts.get(move.symbol, str(move.symbol))
    named = sign if look.columns else repr(sign)
    return f"{place} is {named} (probability {move.probability:.3f})"
