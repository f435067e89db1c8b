"""``unmask eval``: how many puzzles a model solves, and how well it knows full grids."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unmask.base import noise
from unmask.base.progress import IN_TURN, Piece, Pieces, Progress
from unmask.command_line import boards, choosing, sequences
from unmask.command_line.boards import Boards
from unmask.command_line.choosing.files import facts
from unmask.command_line.options import MACHINE, Machine, Options, in_range
from unmask.command_line.output import Report, number, percent
from unmask.data import sudoku
from unmask.engine.likelihood import nelbo
from unmask.models import Model


def run(
    model: Model,
    posed: Boards,
    options: Options,
    *,
    samples: int,
    quiet: bool,
    machine: Machine = MACHINE,
    pieces: Pieces = IN_TURN,
) -> Report:
    """Accuracy, network calls, and the bounds of the solutions, each with its unit and estimator.

    The bounds are those of the model itself: temperature and top-p change what is drawn, not what is scored.
    """
    boards.check_sudoku(model)
    in_range("samples", samples, 1)
    posed = with_solutions(posed)
    options = choosing.suited(options, model)
    watch = boards.Watch(model.denoiser.mask_id)
    each = None if quiet or pieces.shared else watch.each
    sampler = choosing.sampler(options, model.denoiser, model.length, each=each)
    if pieces.shared:
        asked = {"samples": samples, "data": posed.puzzles, "solutions": posed.solutions}
        pieces.of(**facts(model, machine, options, command="eval", **asked))

    def solve() -> boards.Solved:
        with Progress("eval", len(posed.puzzles), quiet=quiet) as progress:
            watch.advance = progress.advance
            return boards.solve(
                posed.puzzles,
                sampler,
                seed=options.seed,
                machine=machine,
                advance=progress.advance,
                pieces=pieces,
                watch=watch,
            )

    solved, bounds = pieces.every(
        solve, lambda: _bounds(model, posed, samples, options.seed, machine, pieces, quiet)
    )
    return {
        "command": "eval",
        "model": {"name": model.name, "hash": model.hash, "trained_steps": model.config.get("trained_steps")},
        "data": {
            "source": posed.source,
            "puzzles": len(posed.puzzles),
            "mean_clues": float(posed.clues().sum(1).double().mean()),
        },
        **choosing.described(options, solved),
        **boards.accuracy(posed, solved),
        **bounds,
        "seconds": solved.seconds,
        "network_seconds": solved.manifest["network_seconds"],
        "manifest": solved.manifest,
    }


def dataset(model: Model, data: Path | None, clues: str | None, num: int | None, seed: int) -> Boards:
    """Puzzles of a file, all or ``num`` at random, or fresh ones; ValueError unless one of the two is asked for."""
    boards.check_sudoku(model)
    if (data is None) == (clues is None):
        raise ValueError("expected a puzzle file or --generate CLUES (34, or minimal), one of the two")
    if data is None:
        return boards.generate(str(clues), 100 if num is None else num, seed, model.length)
    found = boards.read(data, model.length)
    places = torch.as_tensor(sequences.drawn(len(found.puzzles), num, seed))
    kept = None if found.solutions is None else found.solutions[places]
    return Boards(found.source, found.puzzles[places], kept)


def with_solutions(posed: Boards) -> Boards:
    """The boards with solutions from the solver where the file had none and each puzzle has exactly one."""
    if posed.solutions is not None or not bool(sudoku.is_unique(posed.puzzles).all()):
        return posed
    return Boards(posed.source, posed.puzzles, sudoku.solve(posed.puzzles))


def _bounds(
    model: Model, posed: Boards, samples: int, seed: int, machine: Machine, pieces: Pieces, quiet: bool
) -> Report:
    """The bound of the solutions on their own, and given the clues."""
    grids = posed.solutions
    if grids is None:
        return {"nelbo": None, "nelbo_given_clues": None}
    clues = posed.clues()
    hidden = {"nelbo": torch.zeros_like(clues), "nelbo_given_clues": clues}
    found = pieces.every(
        *(
            partial(_bound, model, grids, visible, samples, seed, machine, pieces.within(name), quiet)
            for name, visible in hidden.items()
        )
    )
    return dict(zip(hidden, found))


def _bound(
    model: Model,
    grids: Tensor,
    visible: Tensor,
    samples: int,
    seed: int,
    machine: Machine,
    pieces: Pieces = IN_TURN,
    quiet: bool = True,
) -> Report:
    """NELBO of grids int64 [n, cells], nats per grid and bits per scored cell; standard error over grids."""

    def measured(ids: Tensor) -> Piece:
        found = nelbo(
            model.denoiser,
            grids[ids].to(machine.device),
            generator=noise.seeded(seed),
            samples=samples,
            visible=visible[ids].to(machine.device),
            item_ids=ids.to(machine.device),
        )
        return {"value": found.value.cpu(), "stderr": found.stderr.cpu()}

    batches = boards.batched(len(grids), machine.batch_size, measured)
    with Progress("bound", len(grids), quiet=quiet) as progress:
        parts = list(pieces.each("grids", batches, progress.advance))
    values = torch.cat([p["value"] for p in parts])
    within = float(torch.cat([p["stderr"] for p in parts]).mean())
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else within
    to_bits = len(grids) / (math.log(2) * max(int((~visible).sum()), 1))
    value = float(values.mean())
    bits = number(value * to_bits, "bits per scored cell", "the same", stderr=error * to_bits)
    name = f"unmask.nelbo, {samples} samples per grid, mean over {len(values)} grids"
    return number(value, "nats per grid", name, stderr=error, bits_per_cell=bits)


def render(report: Report, console: Console) -> None:
    """Prints a table of numbers, each with unit and estimator."""
    data = report["data"]
    console.print(f"{data['puzzles']} puzzles ({data['source']}), {data['mean_clues']:.1f} clues on average")
    console.print(f"{report['selector']}, symbols {report['symbols']}, {report['seconds']:.1f} s")
    table = Table("", "value", "unit: estimator", box=None)
    for name in ("exact_match", "solved", "valid", "clues_kept"):
        if found := report[name]:
            about = f"{found['unit']}, {found['interval']}: {found['estimator']}"
            table.add_row(name.replace("_", " "), percent(found), about)
    calls = report["calls"]
    table.add_row("calls", f"{calls['value']:.2f}", f"{calls['unit']}: {calls['estimator']}")
    for name, of in (("nelbo", "full grids"), ("nelbo_given_clues", "blanks, given the clues")):
        if found := report[name]:
            bits = found["bits_per_cell"]
            table.add_row("NELBO", _plus_minus(found, 3), f"{found['unit']}, {of}: {found['estimator']}")
            table.add_row("", _plus_minus(bits, 4), f"{bits['unit']}: {bits['estimator']}")
    console.print(table)


def _plus_minus(found: Report, digits: int) -> str:
    """A value and its standard error."""
    return f"{found['value']:.{digits}f} +- {found['stderr']:.{digits}f}"
