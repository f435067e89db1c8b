"""``unmask demo``: fresh Sudoku puzzles solved in several orders, then one board step by step.

Each part returns its piece of the report; a further part is one more function of the model.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unmask.base import noise
from unmask.base.devices import has_bfloat16
from unmask.base.profile import Profile
from unmask.base.progress import Progress
from unmask.base.statistics import sign_test
from unmask.base.types import Denoiser, Result, Selector, TokenSource, steps_of
from unmask.command_line import boards
from unmask.command_line.boards import Boards
from unmask.command_line.commands import plan as work
from unmask.command_line.commands import report as pages
from unmask.command_line.commands.demo.speed import Remembering, in_bfloat16
from unmask.command_line.commands.sample import animation
from unmask.command_line.options import MACHINE, Machine, above_zero, check_seed, in_range
from unmask.command_line.output import Report, percent, say
from unmask.data import sudoku
from unmask.engine.sampling import sample
from unmask.models import Model, load, measured_profile, verbs
from unmask.orders import scores, selectors
from unmask.orders.sources import draw, greedy
from unmask.pictures import Look
from unmask.planning import plans, profiles


@dataclass(frozen=True)
class Setting:
    """A row of the table: an order and where symbols come from."""

    order: str
    symbols: str
    selector: Selector
    source: TokenSource


def settings(seed: int, tau: float) -> list[Setting]:
    """The orders that the demo compares: one cell per call, and a threshold rule."""
    at_random = selectors.top_k(scores.at_random(seed), 1)
    confidence, margin = (selectors.top_k(s, 1) for s in (scores.confidence, scores.margin))
    return [
        Setting("random", "drawn", at_random, draw),
        Setting("random", "arg-max", at_random, greedy),
        Setting("top probability", "arg-max", confidence, greedy),
        Setting("margin", "arg-max", margin, greedy),
        Setting(f"threshold {tau:g}", "arg-max", selectors.threshold(scores.confidence, tau), greedy),
    ]


def run(
    model_name: str, *, num: int, seed: int, tau: float, precision: str, batch_size: int, quiet: bool
) -> tuple[Report, Model, Denoiser]:
    """The report of the demo, the model, and the denoiser as it computed (for `animate` and `page`)."""
    in_range("num", num, 2, more=" puzzles, one of each difficulty")
    above_zero("tau", tau, 1)
    check_seed(seed)
    began = time.monotonic()
    say("loading the model and making puzzles (the first time, compiling their generator)", quiet)
    model = load(model_name)
    boards.check_sudoku(model)
    if model.length != 81:
        raise ValueError(
            f"the demo solves boards of 81 cells; model '{model.name}' has {model.length}: use unmask eval"
        )
    half = precision == "bfloat16" or (precision == "auto" and has_bfloat16())
    denoiser = Remembering(in_bfloat16(model.denoiser) if half else model.denoiser)
    sets = [boards.generate("34", num - num // 2, seed), boards.generate("minimal", num // 2, seed)]
    machine = Machine(batch_size=batch_size)
    _say_how_long(denoiser, sets, quiet)
    report = {
        "command": "demo",
        "model": {"name": model.name, "trained_steps": model.config.get("trained_steps")},
        "precision": "bfloat16" if half else "float32",
        "threads": torch.get_num_threads(),
        "seed": seed,
        "puzzles": {s.source: len(s.puzzles) for s in sets},
        "solving": (rows := solving(denoiser, sets, settings(seed, tau), seed, quiet, machine)),
        "pairs": paired(rows, ("random", "margin"), "arg-max"),
    }
    report["planning"] = planning(model, denoiser, seed, quiet)
    return report | {"seconds": time.monotonic() - began}, model, denoiser


ALIKE = 3.0
"""Boards that the settings run, as a multiple of the blanks: those that they share are run once."""


def _say_how_long(denoiser: Denoiser, sets: list[Boards], quiet: bool) -> None:
    """Runs the boards that all settings start from, and says how long the rest will take at that speed."""
    puzzles = torch.cat([s.puzzles for s in sets])
    began = time.monotonic()
    denoiser(puzzles)
    each = (time.monotonic() - began) / len(puzzles)
    blanks = int((puzzles == sudoku.BLANK).sum())
    count = ALIKE * blanks + GRIDS * (81 + sum(CALLS))
    say(f"about {count * each:.0f} s to go: {count:.0f} boards at {1000 * each:.1f} ms", quiet)


CALLS, GRIDS = (8, 16, 32), 6
"""Budgets that the demo plans for, and full grids on which it checks what the plans cost."""


def planning(model: Model, denoiser: Denoiser, seed: int, quiet: bool) -> Report:
    """The profile of the model, the optimal plans for a few budgets, what they should cost and what they do."""
    profile = measured_profile(model) or _measured(model, seed, quiet)
    heldout = profiles.heldout_of(profile)
    tokens = torch.as_tensor(sudoku.full_grids(GRIDS, work.FRESH_GRIDS + 2**32 + noise.narrowed(seed, 60)))
    say("scoring fresh grids under each plan", quiet)
    with Progress("plans", 1 + len(CALLS), quiet=quiet) as progress:
        alone = work.in_random_order(denoiser, tokens, plans.one_by_one(profile.length), seed)
        progress.advance(1)
        rows = [_planned(profile, denoiser, calls, tokens, alone, seed, progress) for calls in CALLS]
    return {"grids": GRIDS, "bound": heldout.entropy, "plans": rows}


def _planned(
    profile: Profile,
    denoiser: Denoiser,
    calls: int,
    tokens: Tensor,
    alone: Tensor,
    seed: int,
    progress: Progress,
) -> Report:
    """The best plan of so many calls: what it should cost, and what it does on tokens int64 [n, 81]."""
    plan = plans.optimal(profile, steps=calls)
    uniform = work.predicted(profile, plans.uniform(profile.length, calls))
    found = work.realised(denoiser, tokens, plan, alone, seed)
    progress.advance(progress.step + 1)
    return {
        "calls": calls,
        "plan": list(plan),
        "predicted": work.predicted(profile, plan),
        "realised": found,
        "uniform": uniform,
    }


def _measured(model: Model, seed: int, quiet: bool) -> Profile:
    """A profile measured now, for a model that ships without one."""
    tokens = torch.as_tensor(sudoku.full_grids(256, work.FRESH_GRIDS + noise.narrowed(seed, 60)))
    return verbs.halves(model, tokens, rounds=4, seed=seed, quiet=quiet)[0]


def solving(
    denoiser: Denoiser,
    sets: list[Boards],
    compared: list[Setting],
    seed: int,
    quiet: bool,
    machine: Machine = MACHINE,
) -> list[Report]:
    """Every puzzle in every setting: accuracy and network calls per set."""
    puzzles = torch.cat([s.puzzles for s in sets])
    with Progress("solve", len(compared) * len(puzzles), quiet=quiet) as progress:
        return [_row(denoiser, sets, puzzles, setting, seed, progress, machine) for setting in compared]


def _row(
    denoiser: Denoiser,
    sets: list[Boards],
    puzzles: Tensor,
    setting: Setting,
    seed: int,
    progress: Progress,
    machine: Machine,
) -> Report:
    """One setting on all sets, which share batches."""
    before = progress.step
    solved = boards.solve(
        puzzles,
        lambda tokens, ids, generator: sample(
            denoiser,
            tokens,
            setting.selector,
            generator=generator,
            source=setting.source,
            order_ids=ids,
            item_ids=ids,
        ),
        seed=seed,
        machine=machine,
        advance=lambda done: progress.advance(before + done),
    )
    found, start = {}, 0
    for posed in sets:
        part = solved.part(slice(start, start + len(posed.puzzles)))
        each = boards.exact(posed, part).tolist()
        found[posed.source] = boards.accuracy(posed, part) | {"each": each}
        start += len(posed.puzzles)
    return {"order": setting.order, "symbols": setting.symbols, "sets": found, "seconds": solved.seconds}


def paired(rows: list[Report], orders: tuple[str, str], symbols: str) -> list[Report]:
    """Two orders puzzle by puzzle: which of them alone solved how many, and how likely that is if they are equal."""
    first, second = (
        next(row["sets"] for row in rows if (row["order"], row["symbols"]) == (order, symbols))
        for order in orders
    )
    report = []
    for name in first:
        alone = [
            sum(a and not b for a, b in zip(x[name]["each"], y[name]["each"]))
            for x, y in ((first, second), (second, first))
        ]
        report.append(
            {
                "set": name,
                "orders": list(orders),
                "symbols": symbols,
                "alone": alone,
                "p_value": sign_test(*alone),
            }
        )
    return report


def render(report: Report, console: Console) -> None:
    """Prints the table: exact match with Wilson 95 % intervals, and network calls per puzzle."""
    counts = ", ".join(
        f"{n} with {name}" if "clues" in name else f"{n} {name}" for name, n in report["puzzles"].items()
    )
    console.print(f"Fresh Sudoku puzzles, each with one solution: {counts} (seed {report['seed']})")
    table = Table(
        title="solved exactly, with Wilson 95 % intervals, and network calls per puzzle", title_justify="left"
    )
    table.add_column("order")
    table.add_column("symbols")
    for name in report["puzzles"]:
        table.add_column(name, justify="right")
        table.add_column("calls", justify="right")
    for row in report["solving"]:
        cells = ((percent(f["exact_match"], 0), f"{f['calls']['value']:.1f}") for f in row["sets"].values())
        table.add_row(row["order"], row["symbols"], *(text for pair in cells for text in pair))
    console.print(table)
    for pair in report["pairs"]:
        (first, second), (a, b) = pair["orders"], pair["alone"]
        console.print(
            f"{pair['set']}, {pair['symbols']}, puzzle by puzzle: only {second} solved {b}, only {first} {a} "
            f"(sign test, p = {pair['p_value']:.2g})"
        )
    render_planning(report["planning"], console)
    console.print(f"{report['seconds']:.0f} s, {report['precision']}, {report['threads']} threads")


def render_planning(report: Report, console: Console) -> None:
    """Prints what each plan should cost and what it cost."""
    console.print(
        f"\nA whole grid from nothing takes {report['bound']:.1f} nats one cell per call. In fewer calls, cells unmasked\n"
        "together miss what they say about each other; the information profile tells how much, before anything is run:"
    )
    table = Table(title="excess nats per grid, random order", title_justify="left")
    for name in (
        "calls",
        "optimal plan",
        "predicted",
        f"realised on {report['grids']} grids",
        "uniform plan, predicted",
    ):
        table.add_column(name, justify="left" if name == "optimal plan" else "right")
    for row in report["plans"]:
        found = f"{row['realised']['value']:.2f} +- {row['realised']['stderr']:.2f}"
        sizes = " ".join(map(str, row["plan"][:12])) + (" ..." if len(row["plan"]) > 12 else "")
        table.add_row(str(row["calls"]), sizes, work.cost(row["predicted"]), found, work.cost(row["uniform"]))
    console.print(table)
    console.print(
        f"Predicted, with 95 % intervals: {work.PREDICTED}.\nRealised, +- standard error: {work.REALISED}."
    )


FILMS = {"margin": selectors.top_k(scores.margin, 1), "random": selectors.top_k(scores.at_random(0), 1)}
"""Orders in which one puzzle is solved before the eyes of the reader."""


def filmed(denoiser: Denoiser, seed: int) -> dict[str, tuple[Tensor, Result]]:
    """One minimal puzzle, solved by the most probable digits in each order: the puzzle [1, 81] and what was done."""
    puzzle = boards.generate("minimal", 1, seed).puzzles
    chosen = {"generator": noise.seeded(seed), "source": greedy, "entropies": True}
    return {name: (puzzle, sample(denoiser, puzzle, order, **chosen)) for name, order in FILMS.items()}  # type: ignore[arg-type]


def animate(denoiser: Denoiser, seed: int, console: Console) -> None:
    """Solves one minimal puzzle in margin order before the eyes of the reader."""
    puzzle, result = filmed(denoiser, seed)["margin"]
    console.print(
        "\nOne minimal puzzle in margin order: first the cell whose two best digits are furthest apart."
    )
    animation.show(console, puzzle[0], animation.moves(result))


def page(report: Report, model: Model, denoiser: Denoiser, out: Path) -> Report:
    """Writes what the demo found as a page: the table, the plans, and one puzzle in each order."""
    look, found = verbs.look(model), [pages.Result("demo", "demo", report)]
    for name, (puzzle, result) in filmed(denoiser, report["seed"]).items():
        found.append(pages.Result(name, "sample", _film(model, look, name, puzzle, result)))
    profile = measured_profile(model)
    if profile is not None:
        found.append(pages.Result("profile", "profile", json.loads(profile.to_json())))
    return pages.write(found, out, f"unmask demo: {model.name}")


def _film(model: Model, look: Look, name: str, puzzle: Tensor, result: Result) -> Report:
    """One puzzle as `unmask sample --json --trace` tells it."""
    made = {"start": puzzle[0].tolist(), "steps": steps_of(result.trace, 1)[0], "nfe": float(result.nfe)}
    kept = {"text": model.decode(result.tokens)[0], "log_prob": float(result.log_prob), **made}
    about = {"command": "sample", "model": model.name, "order": name, "symbols": "arg-max"}
    return about | {"look": look.record(range(9)), "samples": [kept], "manifest": result.manifest}
