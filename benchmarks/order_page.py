"""Writes docs/laboratory.md: the tables of "Train for the worst, plan for the best" beside ours, from the newest records.

Run: python benchmarks/order_page.py. Records come from checkpoints: `order_lab.py`, `order_puzzles.py`,
`order_sudoku.py`, `searching.py`, `learnt_orders.py`, `hybrid.py`.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import record

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "laboratory.md"
Row: TypeAlias = Mapping[str, Any]

HEAD = """
*Train for the worst, plan for the best* (arXiv 2502.06768): a masked model is taught every order, so it meets
subproblems that nobody can solve; an order chosen as it goes avoids them. Here the paper's tables stand beside ours, at
sizes that train on a processor. Every number comes from the record linked under its table;
`python benchmarks/order_page.py` writes this page anew.
"""


@dataclass(frozen=True)
class Section:
    """A heading, what the paper has and what ours is, and columns of a part of a record."""

    title: str
    text: str
    record: str
    part: str
    columns: tuple[str, ...]
    keep: Callable[[Row], bool] = lambda _: True

    def lines(self) -> Iterable[str]:
        """The section as Markdown; it says so where there is no record."""
        parts, link = newest(self.record)
        rows = [row for row in parts.get(self.part, []) if self.keep(row)]
        yield from ("", f"## {self.title}", "", wrapped(self.text), "")
        yield from (*shown(rows, self.columns), "", link) if rows else ("Not measured yet.",)


TRAINED, COSTS = ("model", "steps", "puzzles", "hours"), ("nats, cell", "nats, value")
MINIMAL = ("minimal %", "minimal, told where %")
"""Columns of the curves of smaller boards."""

SECTIONS = (
    Section(
        "Latents and observations",
        """N hidden bits and P observations, each 1 unless its three bits are equal (L&O-NAE-SAT). Paper, a network of 19
        million parameters, share of observations right: vanilla 78.06 and adaptive 93.76 % at (25, 275), 75.70 and 93.54 at
        (30, 270), 62.84 and 88.91 at (100, 200). Ours, a quarter of a million parameters, symbols drawn; 62.5 % is
        independent guessing, 100 % full consistency; mean over models, Student's t over them:""",
        "order_lab_lo",
        "margin less random",
        ("latents", "observations", "random %", "margin %", "points", "95 %", "models", "apart"),
        lambda row: row["symbols"] == "drawn",
    ),
    Section(
        "Where the model is wrong",
        """The paper derives that some shares of visible latents make subproblems hard, and shows the errors at latent
        positions. KL(law, model) in nats per position, the law exact:""",
        "order_lab_hardness",
        "error by subproblem",
        ("latents visible", "observations visible", "KL at latents", "KL at observations", "hard %"),
        lambda row: row["observations visible"] in (0.0, 0.5, 1.0),
    ),
    Section(
        "What an order meets of it",
        """Fresh data unmasked in each order: the share of its steps that are hard, and that among all masked positions
        then.""",
        "order_lab_hardness",
        "met by orders",
        ("order", "KL met, nats per sequence", "hard steps %", "hard among masked %"),
    ),
    Section(
        "Sudoku",
        """Paper (other data): a masked model of 6 million parameters solves 6.88 % in random order, 18.51 % by top
        probability and 89.49 % by margin; an autoregressive one of 42 million 9.73 % without order and 87.18 % taught a
        solver's. Ours, the plain shipped model (590,000 parameters), 17-clue puzzles of a published collection, one cell a
        call:""",
        "order_puzzles_sudoku",
        "orders",
        ("puzzles", "symbols", "order", "n", "solved %", "95 %"),
    ),
    Section(
        "Hard Sudoku",
        """What training takes further: a network of 64 thousand parameters to which digits, rows, columns and boxes have
        no names (`unmask.recipes.sudoku_equivariant`), arg-max symbols, all beyond a threshold at once (one cell a call
        solves as many, in 56 to 64 calls). One puzzle of each symmetry class of published collections; very hard ones
        take a solver with singles 128 guesses (median):""",
        "sudoku_equivariant",
        "rows",
        ("puzzles", "order", "n", "solved %", "95 %", "calls"),
    ),
    Section(
        "Guesses between two",
        """The same network with a search (`unmask.backtrack`, 64 ways at most) that uses no rule of Sudoku, only the
        model's own exact log-probability. What matters is where it guesses: margin guesses where the model is least in
        doubt, which tells little; `presets.fork` where two symbols share the probability, so that either tells most.
        "arg-max" is one way, the calls are those of all ways together:""",
        "searching_sudoku_fork",
        "rows",
        ("task", "way", "n", "calls", "most probable solved %", "any %", "certain %"),
    ),
    Section(
        "Guesses side by side",
        """The same guesses in a beam (`unmask.search` with `finish=False`): its hypotheses share a batch, so that what
        counts on a machine with room is how many calls come one after another. The aims for very hard puzzles are 80 %
        and 12 calls:""",
        "searching_sudoku_beam",
        "rows",
        ("task", "way", "n", "calls", "one after another", "most probable solved %", "any %"),
    ),
    Section(
        "Other ways to guess",
        """Nats of the solution of very hard puzzles along orders that differ only in where they guess (part `valid`). A
        search that always goes on from the most probable partial filling finds it within exp(nats) ways:""",
        "guessing_sudoku",
        "rows",
        (
            "guesses where",
            "n",
            "nats, median",
            "quartiles",
            "within 16 ways %",
            "within 64 ways %",
            "within 256 ways %",
        ),
    ),
    Section(
        "Zebra puzzles, searched",
        """The three models of zebra puzzles below: one cell a call by margin has nothing to gain from a search, guesses
        between two do, in a third of the calls:""",
        "searching_zebra_fork",
        "rows",
        ("task", "way", "n", "calls", "most probable solved %", "any %", "certain %"),
    ),
    Section(
        "Masked against autoregressive",
        """A masked model of 0.3 million parameters against autoregressive ones of 1 and 7 times its size, the same puzzles
        and geometry, up to 0.2 hours of a core for those of its size and 0.6 for the larger ones. **Not converged**: the
        autoregressive ones have only begun, so this says who learns faster, not who ends higher.""",
        "order_sudoku_curves",
        "rows",
        (
            "model",
            "steps",
            "puzzles",
            "hours",
            "nats, value",
            "40 clues %",
            "34 clues %",
            "minimal %",
            "34 clues, told where %",
        ),
    ),
    Section(
        "Masked against autoregressive, 6x6",
        """The same comparison on boards of 6x6, boxes of 2x3, where steps are a tenth as dear: 0.13 million parameters, and
        7 times as many. The masked model solves every puzzle of every set after 0.1 hours of a core; the autoregressive
        ones, whose budgets of 0.8 hours (the same size) and 1.0 (the larger) end before, are **not converged**. "Told
        where" is what a model would solve if each next cell were told: a solver's order is learnt much later than its
        digits.""",
        "order_sudoku6_curves",
        "rows",
        (*TRAINED, *COSTS, "16 clues %", "12 clues %", *MINIMAL, "verdict"),
    ),
    Section(
        "Does a falling rate end it? 6x6",
        """The model of 7 times the size trained once more, its learning rate twice as high, falling to 0 in the last half:
        hardly further than at a constant rate after as many steps, so it is steps that are missing.""",
        "order_sudoku6_curves_falling",
        "rows",
        (*TRAINED, "rate falls", *COSTS, "16 clues %", "12 clues %", *MINIMAL),
    ),
    Section(
        "Masked against autoregressive, 4x4",
        """Boards of 4x4, boxes of 2x2, 0.03 million parameters and 7 times as many: of 288 grids there are 85,632 minimal
        puzzles, so that all can be known, and curves come to an end or within three points of it. What differs is when: the
        masked model solves all after 0.01 hours of a core, the larger one that was taught a solver's order after 0.2 to
        0.4; the others are at 97 to 98 % of minimal puzzles after 0.3 to 0.4 hours and gain two or three points a
        doubling.""",
        "order_sudoku4_curves",
        "rows",
        (*TRAINED, *COSTS, "8 clues %", "6 clues %", *MINIMAL, "verdict"),
    ),
    Section(
        "Every order, 6x6",
        """The last model of each kind of 6x6, fresh puzzles:""",
        "order_sudoku6_orders",
        "rows",
        ("model", "steps", "puzzles", "order", "n", "solved %", "95 %"),
    ),
    Section(
        "Zebra puzzles",
        """Paper: vanilla 76.9 %, top probability 98.5, margin 98.3; autoregressive 80.31 without order, 91.17 with. Ours,
        models of 0.4 million parameters to which names mean nothing, after minutes of training:""",
        "order_lab_zebra",
        "orders",
        ("houses", "attributes", "order", "symbols", "n", "solved %", "95 %"),
    ),
    Section(
        "Order imbalance",
        """The paper's curves (no table): left to right is learnt best, then orders near it, then random ones; the masked
        model lies near a random order. Ours on text of 27 symbols, windows of 128, nats per character at equal compute,
        nothing converged; 3 and 13 swaps are the paper's shares of the window:""",
        "order_lab_imbalance",
        "families",
        (
            "order",
            "width",
            "batch",
            "windows",
            "draws",
            "nats per character",
            "95 %",
            "above identity",
            "95 % of that",
        ),
    ),
    Section(
        "The most probable filling",
        """A beam, the best of several draws, and going back to the best partial filling that was passed by
        (`unmask.backtrack`), all by the model's own exact log-probability. Minimal Sudoku, the harder model; calls of all
        hypotheses together:""",
        "searching_sudoku_minimal",
        "rows",
        ("way", "n", "calls", "found, nats", "most probable solved %", "any %", "certain %"),
    ),
    Section(
        "Judged by other orders",
        """Along the order that found it a wrong grid looks sure, for each mistake is made before its consequences are
        seen; along random orders it does not. Fillings by backtracking and by draws, chosen by several criteria, all the
        model's own (`unmask.judged`, `unmask sample --backtrack 8 --judge 8`):""",
        "judging_sudoku_hard",
        "rows",
        ("puzzles", "n", "chosen by", "solved %", "95 %"),
    ),
    Section(
        "A learnt order",
        """A small network as a score, taught by policy gradient for the exact likelihood, several positions a call; exact
        KL in nats, and the best that any order reaches, found by search:""",
        "learnt_orders_laws",
        "orders under a plan",
        ("law", "plan", "seeds", "random", "margin", "learnt", "from to", "best adaptive", "of the gap"),
    ),
    Section(
        "MaskGIT's proposal",
        """Moment order, exploration (bisection) and sub-steps combined; nats a symbol of the text model that shipped
        until 2026-11-29 in N/8 calls by the share that explores, the first column absolute and the others less it:""",
        "hybrid",
        "text: nats a symbol at N/8 calls",
        ("sub-steps", "sizes", "0", "0.1", "0.25", "0.5", "0.75", "1"),
    ),
)


def newest(name: str) -> tuple[dict[str, list[Row]], str]:
    """The parts of the newest record of a name, and a link to it; no parts where there is none."""
    found = sorted((ROOT / "benchmarks" / "records").glob(f"{name}_2*.json"))
    if not found:
        return {}, ""
    data = json.loads(found[-1].read_text())
    return data.get("parts") or {
        "rows": data["rows"]
    }, f"([record](../benchmarks/records/{found[-1].stem}.md))"


def shown(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Some columns of rows as a table."""
    return list(record.table([{name: row.get(name, "") for name in names} for row in rows]))


def wrapped(text: str) -> str:
    """A paragraph in lines of one width."""
    return textwrap.fill(" ".join(text.split()), 120)


if __name__ == "__main__":
    lines = ["# The order laboratory", "", wrapped(HEAD), *(line for s in SECTIONS for line in s.lines())]
    PAGE.write_text("\n".join(lines) + "\n")
    print(PAGE)
