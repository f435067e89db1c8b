"""A board in the terminal, unmasked cell by cell, with the probability of each symbol as its colour."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text
from torch import Tensor

from unmask.base.types import Result
from unmask.data import sudoku

BAD, GOOD = (214, 69, 65), (46, 160, 67)
"""Colours of probability 0 and 1."""


@dataclass(frozen=True)
class Move:
    """One cell unmasked: position 0..80, symbol 0..8, its probability, and the network call that did it."""

    cell: int
    symbol: int
    probability: float
    call: int


def moves(result: Result, row: int = 0) -> list[Move]:
    """The cells of one batch row in the order in which they were unmasked."""
    found = []
    for call, info in enumerate(result.trace, 1):
        for place in (info.items == row).nonzero()[:, 0].tolist():
            cells, symbols = info.rows[place].tolist(), info.symbols[place].tolist()
            chances = info.log_probs[place].exp().tolist()
            found += [Move(c, s, p, call) for c, s, p in zip(cells, symbols, chances) if c >= 0]
    return found


def show(console: Console, puzzle: Tensor, steps: list[Move], seconds: float = 4.0) -> None:
    """Plays the moves on a puzzle int64 [81] in about ``seconds``; a few plain lines when not a terminal."""
    if console.is_terminal:
        _play(console, puzzle, steps, seconds)
    else:
        _tell(console, puzzle, steps)


def _play(console: Console, puzzle: Tensor, steps: list[Move], seconds: float) -> None:
    with Live(frame(puzzle, []), console=console, auto_refresh=False) as live:
        for count in range(1, len(steps) + 1):
            time.sleep(seconds / max(len(steps), 1))
            live.update(frame(puzzle, steps[:count]), refresh=True)


def frame(puzzle: Tensor, steps: list[Move]) -> Group:
    """The board after some moves: clues in bold, unmasked cells by colour, the last one inverted."""
    placed = {m.cell: m for m in steps}
    lines = [_line(puzzle, placed, row, steps[-1].cell if steps else -1) for row in range(9)]
    rule = Text("  ------+-------+------")
    last = steps[-1] if steps else None
    note = f"  call {last.call}: {_words(last)}" if last else "  all blanks masked"
    legend = Text("  probability ") + Text(" ").join(
        Text(f"{p:.2f}", style=_style(p)) for p in (0.3, 0.5, 0.7, 0.9, 1.0)
    )
    return Group(*lines[:3], rule, *lines[3:6], rule, *lines[6:], Text(note), legend)


def _line(puzzle: Tensor, placed: dict[int, Move], row: int, last: int) -> Text:
    """One row of the board."""
    line = Text("  ")
    for column in range(9):
        cell = 9 * row + column
        if cell in placed:
            style = _style(placed[cell].probability) + (" reverse" if cell == last else "")
            line.append(str(placed[cell].symbol + 1), style=style)
        else:
            blank = int(puzzle[cell]) == sudoku.BLANK
            line.append("." if blank else str(int(puzzle[cell]) + 1), style="dim" if blank else "bold")
        line.append(" | " if column in (2, 5) else " ")
    return line


def _style(probability: float) -> str:
    """Red to green; the square spreads the colours near 1, where a good model lives."""
    share = probability**2
    return "rgb({},{},{})".format(*(round(b + share * (g - b)) for b, g in zip(BAD, GOOD)))


def _words(move: Move) -> str:
    row, column = divmod(move.cell, 9)
    return f"row {row + 1}, column {column + 1} is {move.symbol + 1} (probability {move.probability:.3f})"


def _tell(console: Console, puzzle: Tensor, steps: list[Move], lines: int = 8) -> None:
    """The puzzle, every few moves in words, and the finished board."""
    board = puzzle.clone()
    console.print(sudoku.pretty(board.numpy()))
    for count, move in enumerate(steps, 1):
        board[move.cell] = move.symbol
        if count % max(1, len(steps) // lines) == 0 or count == len(steps):
            console.print(f"cell {count} of {len(steps)}, call {move.call}: {_words(move)}")
    console.print(sudoku.pretty(board.numpy()))
