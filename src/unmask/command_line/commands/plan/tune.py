"""``unmask tune``: the best way to generate with a model in so many calls, chosen by data and judged on other data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from unmask.base.progress import IN_TURN, Partly, Pieces
from unmask.command_line import sequences
from unmask.command_line.choosing.files import facts
from unmask.command_line.commands.evaluate import dataset, with_solutions
from unmask.command_line.commands.plan import grids
from unmask.command_line.options import MACHINE, Machine, check_seed, in_range
from unmask.command_line.output import Report, say
from unmask.data import files
from unmask.evaluation.tuned import NAMED, NUM, scorer, tune
from unmask.evaluation.tuning.heats import Told
from unmask.evaluation.tuning.results import Tuned, heading, lines_of, rows_of
from unmask.evaluation.tuning.tasks import Items, items_of
from unmask.models import Model, load

PARTS = "parts.jsonl"
"""What was measured, in the folder of a tuning."""


def run(
    model_name: str,
    data: Path | None,
    *,
    calls: str,
    task: str | None = None,
    share: float | None = None,
    metric: str | None = None,
    generate: str | None = None,
    num: int | None = None,
    out: Path | None = None,
    seed: int = 0,
    machine: Machine = MACHINE,
    quiet: bool = False,
    pieces: Pieces = IN_TURN,
) -> tuple[Report, Tuned]:
    """Tunes, and writes what was found into a folder; see `unmask.tune`."""
    budgets = _budgets(calls)
    check_seed(seed)
    in_range("num", num, 4)
    in_range("share", share, 0, 1)
    if metric is not None and metric not in NAMED:
        scorer(metric)
    model = load(model_name, device=machine.device)
    task = task or ("solve" if model.sudoku else "generate")
    metric = metric or ("exact" if task == "solve" else "nats")
    source, items = _items(model, data, task, share, generate, NUM if num is None else num, seed)
    if pieces.shared:
        asked: Report = {"command": "tune", "calls": budgets, "metric": metric, "seed": seed, "num": num}
        pieces.of(**facts(model, machine, **asked, data=items.tokens, given=items.visible))
    state = None if out is None or pieces.shared else out / PARTS
    with _telling(quiet) as tell, _kept(out, pieces.shared):
        tuned = tune(
            model, items=items, calls=budgets, metric=metric, num=num, seed=seed,
            batch_size=machine.batch_size, state=state, source=source, tell=tell, pieces=pieces,
        )  # fmt: skip
    if not pieces.speaks:
        raise Partly
    written = () if out is None else tuned.save(out)
    more = {"task": task, "share": share, "files": [str(p) for p in written]}
    return {"command": "tune", **tuned.record(), **more}, tuned


def _budgets(calls: str) -> tuple[int, ...]:
    """Budgets from numbers with commas between them."""
    parts = calls.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ValueError(f"--calls {calls}: expected numbers of network calls such as 4,8,16")
    return tuple(int(part) for part in parts)


def _items(
    model: Model, data: Path | None, task: str, share: float | None, generate: str | None, num: int, seed: int
) -> tuple[str, Items]:
    """What to generate, and where it comes from."""
    if task == "solve":
        if not model.sudoku:
            raise ValueError(
                f"--task solve is for Sudoku models, not '{model.name}'; expected generate or infill"
            )
        if share is not None:
            raise ValueError("--share with task solve; expected it with --task infill only")
        return _puzzles(model, data, generate, num, seed)
    if generate is not None:
        raise ValueError(
            "--generate makes puzzles to solve; expected it for Sudoku models with --task solve only"
        )
    if model.sudoku:
        source = "fresh grids" if data is None else files.shown(data)
        return source, items_of(model, grids(model, data, num, seed), task=task, share=share, seed=seed)
    if data is None:
        raise ValueError(
            f"no data for model '{model.name}': expected a token folder or text it was not trained on"
        )
    tokens = sequences.read(model, data, num, seed).tokens
    return files.shown(data), items_of(model, tokens, task=task, share=share, seed=seed)


def _puzzles(model: Model, data: Path | None, generate: str | None, num: int, seed: int) -> tuple[str, Items]:
    """Puzzles with their solutions, the clues given."""
    posed = with_solutions(dataset(model, data, generate, num, seed))
    if posed.solutions is None:
        raise ValueError(f"{posed.source}: no solutions are known; expected puzzles with one solution each")
    return posed.source, Items(posed.solutions, posed.clues())


@contextmanager
def _kept(out: Path | None, shared: bool) -> Iterator[None]:
    """What is said when someone interrupts."""
    try:
        yield
    except KeyboardInterrupt:
        if shared:
            raise
        kept = "nothing is kept without --out FOLDER"
        if out is not None:
            kept = f"what was measured is in {out / PARTS}; the same command goes on from there"
        raise KeyboardInterrupt(kept) from None


@contextmanager
def _telling(quiet: bool) -> Iterator[Told]:
    """Lines on standard error; on a terminal the best so far stands in a line that stays, beside the time."""
    if quiet or not sys.stderr.isatty():
        yield lambda line: say(line, quiet)
        return
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=Console(stderr=True, highlight=False, markup=False)) as live:
        shown = live.add_task("", total=None)

        def tell(line: str) -> None:
            if line.startswith("after"):
                live.update(shown, description=f"best {line}")
            else:
                live.console.print(line)

        yield tell


def render(report: Report, console: Console) -> None:
    """Prints winners beside defaults, what tuning saves, the front, and what it took."""
    data = report["provenance"]["data"]
    given = "" if report["share"] is None else f", {report['share']:.0%} hidden"
    console.print(
        f"{report['provenance']['model']}, task {report['task']}{given}, {data['items']} items of {data['source']}: "
        "half chose, numbers are of the other half"
    )
    console.print(_table(report, console.is_terminal))
    for line in lines_of(report):
        console.print(line)


def _table(report: Report, folds: bool) -> Table:
    """Winners beside defaults; on a terminal long names are folded, elsewhere lines are as long as they are."""
    names, rows = heading(report), rows_of(report)
    widths = [max(len(row[k]) for row in (names, *rows)) + 2 for k in range(len(names))]
    table = Table(box=None, width=None if folds else sum(widths))
    for name in names:
        table.add_column(name, no_wrap=name != "sampler")
    for row in rows:
        table.add_row(*row)
    return table
