"""Draws the pictures of docs/concepts.md from exact laws, as SVG of our own: docs/pictures/*.svg.

Run: python docs/tools/pictures.py. Every number in a picture is computed here; colours are told apart by the
colour-blind, and follow the reader's light or dark setting.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

import unmask
from unmask import laws, plans, scores, selectors

FOLDER = Path(__file__).resolve().parents[1] / "pictures"
STYLE = """
.back{fill:#fbfbf9;stroke:#d5d5cf}text{font:13px system-ui,sans-serif;fill:#333}.small{font-size:11px;fill:#666}
.head{font-weight:600}.mid{text-anchor:middle}.end{text-anchor:end}.digit{font-size:15px}.cell{fill:none;stroke:#999}
.axis{stroke:#888;fill:none}.one{fill:#0072b2}.two{fill:#d55e00}.three{fill:#009e73}.soft{fill:#0072b2;opacity:.22}
.warm{fill:#d55e00;opacity:.3}.l1{stroke:#0072b2}.l2{stroke:#d55e00;stroke-dasharray:7 3}
.l3{stroke:#009e73;stroke-dasharray:2 3}.line{fill:none;stroke-width:2}
@media(prefers-color-scheme:dark){.back{fill:#1d1f23;stroke:#44474d}text{fill:#ddd}.small{fill:#aaa}
.one,.soft{fill:#56b4e9}.two,.warm{fill:#f0914e}.three{fill:#3fc79a}.l1{stroke:#56b4e9}.l2{stroke:#f0914e}.l3{stroke:#3fc79a}}
"""
GRID = laws.Sudoku4()


def text(x: float, y: float, words: str, kind: str = "") -> str:
    """Words at a place; ``kind`` names classes of `STYLE`."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{words}</text>'


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A rectangle."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{kind}"/>'


def line(points: Sequence[tuple[float, float]], kind: str) -> str:
    """A line through points."""
    return f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}" class="{kind}"/>'


def picture(width: int, height: int, title: str, parts: Iterator[str]) -> str:
    """A whole SVG with a title for those who hear it."""
    frame = box(0.5, 0.5, width - 1, height - 1, "back")
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">'
    return "\n".join([head, f"<title>{title}</title><style>{STYLE}</style>", frame, *parts, "</svg>\n"])


def board(x: float, y: float, side: float, symbols: Sequence[int], fresh: Sequence[bool]) -> Iterator[str]:
    """A 4x4 grid; symbol 4 is the mask, ``fresh`` cells are filled."""
    for i, symbol in enumerate(symbols):
        left, top = x + side * (i % 4), y + side * (i // 4)
        if fresh[i]:
            yield box(left, top, side, side, "soft")
        yield box(left, top, side, side, "cell")
        if symbol < 4:
            yield text(left + side / 2, top + side / 2 + 5, str(symbol + 1), "digit mid")
    yield line([(x + 2 * side, y), (x + 2 * side, y + 4 * side)], "axis")
    yield line([(x, y + 2 * side), (x + 4 * side, y + 2 * side)], "axis")


def loop() -> str:
    """The loop with its three choices, on a chain of six symbols of which two are visible."""
    law = laws.Markov([0.5, 0.3, 0.2], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]], 6)
    tokens = torch.tensor([[0, 3, 3, 1, 3, 3]])
    probs = law(tokens).exp()[0].tolist()
    chosen, names = (2, 4), "ABC"
    drawn = [max(range(3), key=probs[i].__getitem__) for i in range(6)]

    def row(
        y: float, label: str, note: str, cell: Callable[[int], str], fill: Callable[[int], str]
    ) -> Iterator[str]:
        yield text(20, y + 18, label, "head")
        yield text(20, y + 34, note, "small")
        for i in range(6):
            yield box(260 + 62 * i, y, 50, 40, fill(i))
            yield text(285 + 62 * i, y + 26, cell(i), "digit mid")

    def parts() -> Iterator[str]:
        seen = [names[s] if s < 3 else "" for s in tokens[0].tolist()]
        yield from row(20, "what is visible", "empty: masked", lambda i: seen[i], lambda _: "cell")
        yield text(20, 98, "denoiser", "head")
        yield text(20, 114, "how probable is each symbol?", "small")
        for i in range(6):
            if not seen[i]:
                for s, p in enumerate(probs[i]):
                    yield box(262 + 62 * i + 16 * s, 122 - 42 * p, 13, 42 * p, ("one", "two", "three")[s])
                    yield text(268 + 62 * i + 16 * s, 134, names[s], "small mid")
        picks = row(152, "selector", "which come next?", lambda i: "▲" if i in chosen else "",
                    lambda i: "warm" if i in chosen else "cell")  # fmt: skip
        yield from picks
        told = [names[drawn[i]] if i in chosen else seen[i] for i in range(6)]
        yield from row(210, "token source", "draw, greedy, given, read", lambda i: told[i],
                       lambda i: "soft" if i in chosen else "cell")  # fmt: skip
        yield line([(640, 230), (656, 230), (656, 40), (644, 40)], "axis")
        yield line([(650, 34), (643, 40), (650, 46)], "axis")
        yield text(260, 278, "again, until nothing is masked", "small")

    return picture(680, 296, "The loop and its three choices", parts())


def axes(x: float, y: float, width: float, height: float, right: str, up: str) -> Iterator[str]:
    """Two axes with their labels; the corner is (x, y)."""
    yield line([(x, y - height), (x, y), (x + width, y)], "axis")
    yield text(x + width, y + 32, right, "small end")
    yield text(x - 30, y - height - 10, up, "small")


def plan() -> str:
    """The profile of 4x4 Sudoku with the best plan of four calls as a staircase."""
    profile = GRID.profile()
    sizes = plans.optimal(profile, steps=4)
    h, x0, y0, across, up = profile.entropies.tolist(), 60, 270, 34.0, 150.0

    def parts() -> Iterator[str]:
        yield from axes(x0, y0, 16 * across, 225, "cells that are visible already", "nats a cell")
        start = 0
        for size in sizes:
            for i in range(start, start + size):
                yield box(x0 + across * i, y0 - up * h[start], across, up * (h[start] - h[i]), "warm")
                yield box(x0 + across * i, y0 - up * h[i], across, up * h[i], "soft")
            yield line([(x0 + across * i, y0 - up * h[start]) for i in (start, start + size)], "line l2")
            yield text(x0 + across * (start + size / 2), y0 - up * h[start] - 6, f"{size} cells", "small mid")
            start += size
        for i in range(0, 17, 4):
            yield text(x0 + across * i, y0 + 16, str(i), "small mid")
        for value in (0.5, 1.0):
            yield text(x0 - 8, y0 - up * value + 4, f"{value}", "small end")
        yield text(330, 60, f"blue: what a whole grid needs, {profile.entropy:.2f} nats", "")
        yield text(330, 80, f"orange: what four calls lose, {profile.kl(sizes):.2f} nats", "")

    return picture(640, 320, "A profile, and a plan as a staircase over it", parts())


def steps() -> str:
    """A grid of 4x4 Sudoku drawn in five calls in random order."""
    sizes = plans.optimal(GRID.profile(), steps=5)
    selector = selectors.top_k(scores.at_random(7), sizes)
    result = unmask.sample(GRID, torch.full((1, 16), 4), selector, generator=torch.Generator().manual_seed(3))
    grids, now = [], torch.full((16,), 4)
    for info in result.trace:
        rows = info.rows[0][info.rows[0] >= 0]
        now, fresh = now.clone(), torch.zeros(16, dtype=torch.bool)
        now[rows], fresh[rows] = result.tokens[0, rows], True
        grids.append((now.tolist(), fresh.tolist()))

    def parts() -> Iterator[str]:
        for k, (symbols, fresh) in enumerate(grids):
            yield text(75 + 130 * k, 28, f"call {k + 1}: {sizes[k]} cell{'s' * (sizes[k] > 1)}", "head mid")
            yield from board(21 + 130 * k, 40, 27, symbols, fresh)
        said = f"log-probability of this grid in this order: {result.log_prob.item():.2f} nats"
        yield text(
            20,
            178,
            f"{said}, against -ln 288 = {GRID.log_prob(GRID.sample(1, torch.Generator())).item():.2f}",
        )

    return picture(670, 194, "One grid of 4x4 Sudoku, unmasked in five calls", parts())


def sighted() -> str:
    """When each cell is unmasked: a blind order beside a sighted one, on a puzzle with four clues."""
    puzzle = torch.tensor([[4, 4, 4, 4, 4, 4, 4, 4, 1, 4, 2, 4, 4, 0, 4, 3]])
    orders = (("random: blind", scores.at_random(1)), ("confidence: sighted", scores.confidence))

    def when(score: unmask.Score) -> tuple[list[int], int]:
        """The call in which each cell is unmasked, 0 where it was given, and how many rows the denoiser answered."""
        traced = unmask.sample(
            GRID, puzzle, selectors.top_k(score, 1), generator=torch.Generator().manual_seed(0)
        )
        calls, masked, rows = [0] * 16, int((puzzle == 4).sum()), 0
        for k, info in enumerate(traced.trace):
            calls[int(info.rows[0, 0])] = k + 1
            rows += 1 if score.blind else masked - k
        return calls, rows

    def parts() -> Iterator[str]:
        for n, (name, score) in enumerate(orders):
            (calls, rows), x = when(score), 40 + 300 * n
            yield text(x, 30, name, "head")
            for i, call in enumerate(calls):
                left, top = x + 44 * (i % 4), 42 + 44 * (i // 4)
                yield f'<g opacity="{1 - 0.07 * call:.2f}">{box(left, top, 44, 44, "soft" if call else "back")}</g>'
                yield box(left, top, 44, 44, "cell")
                words = str(call) if call else f"[{puzzle[0, i].item() + 1}]"
                yield text(left + 22, top + 27, words, "digit mid" if call else "small mid")
            yield text(x, 240, f"{max(calls)} calls; the denoiser tells {rows} laws", "small")
        yield text(40, 262, "Numbers: the call in which a cell is unmasked. [ ]: given.", "small")

    return picture(560, 276, "Blind and sighted orders", parts())


def parallel() -> str:
    """What plans of 2 to 16 calls cost on 4x4 Sudoku: equal steps, cosine, the best."""
    profile = GRID.profile()
    kinds: tuple[tuple[str, str, Callable[[int], tuple[int, ...]]], ...] = (
        ("l2", "equal steps", lambda k: plans.uniform(16, k)),
        ("l3", "cosine", lambda k: plans.cosine(16, k)),
        ("l1", "best plan of the profile", lambda k: plans.optimal(profile, steps=k)),
    )
    x0, y0, across, up = 60, 270, 36.0, 34.0

    def parts() -> Iterator[str]:
        yield from axes(x0, y0, 15 * across, 225, "network calls for 16 cells", "KL in nats, order disclosed")
        for n, (kind, name, plan) in enumerate(kinds):
            costs = [(k, profile.kl(plan(k))) for k in range(2, 17)]
            yield line([(x0 + across * (k - 1), y0 - up * c) for k, c in costs], f"line {kind}")
            yield line([(330, 56 + 22 * n), (370, 56 + 22 * n)], f"line {kind}")
            told = ", ".join(f"{c:.2f}" for k, c in costs if k in (4, 8))
            yield text(380, 60 + 22 * n, f"{name} ({told})")
        yield text(330, 60 + 22 * 3, "in brackets: 4 and 8 calls", "small")
        for k in (2, 4, 8, 12, 16):
            yield text(x0 + across * (k - 1), y0 + 16, str(k), "small mid")
        for value in (2, 4, 6):
            yield text(x0 - 8, y0 - up * value + 4, str(value), "small end")

    return picture(640, 320, "What parallel steps cost", parts())


def drawn() -> dict[str, str]:
    """All pictures by the names of their files."""
    return {f"{f.__name__}.svg": f() for f in (loop, plan, steps, sighted, parallel)}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, svg in drawn().items():
        (FOLDER / name).write_text(svg)
        print(f"{name}: {len(svg)} bytes", file=sys.stderr)
