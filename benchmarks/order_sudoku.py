"""Sudoku in an order that the model chooses against orders that it is taught: masked and autoregressive models, one code.

Run: python benchmarks/order_sudoku.py train FOLDER [--only NAME ...] [--hours H]     trains, or goes on, one after another
     python benchmarks/order_sudoku.py train FOLDER --steps N [--decay .5] [--rate R]    one run, learning rate to 0
     python benchmarks/order_sudoku.py curves FOLDER [--num 200] [--write]            exact match against steps and hours
     python benchmarks/order_sudoku.py orders FOLDER [--num 500] [--write]            the last models, in every order

With --cells 36 boards are 6x6, where a step takes a tenth of the time; with --cells 16 they are 4x4, where curves end.

FOLDER/NAME/at/STEPS holds the model at each power of two of steps, FOLDER/NAME/processor.json the processor seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import order_lab
import record
import torch
from torch import Tensor

import unmask
from unmask import recipes
from unmask.base.statistics import wilson
from unmask.data import sudoku
from unmask.data.readers.boards import symbols_of
from unmask.data.sudoku.ordering import fixed_order, solver_order
from unmask.recipes import Machine, Run
from unmask.recipes.laboratory.cell_network import vocab_size
from unmask.recipes.laboratory.sudoku_sequences import grids, pairs, written
from unmask.recipes.run import override
from unmask.training import train

SEED = 20_261_129
"""Seed of test puzzles; training uses seeds of the upper half of 64 bits."""

HELD_OUT = 2**31 - 1
"""Seed of the run whose batches the held-out loss is of."""

FIRST, GAIN, NATS, POINTS = 256, 0.02, 0.01, 2.0
"""First number of steps noted; a curve is flat when, over the last doubling, the loss fell by a smaller share than GAIN or
by less than NATS a blank, and exact match rose by less than POINTS on every set."""

FULL = 99.0
"""Exact match, %, from which on there is nothing to rise to: at both ends of a doubling, on every set."""

SETS: dict[int, dict[str, int | None]] = {
    81: {"40 clues": 40, "34 clues": 34, "minimal": None},
    36: {"16 clues": 16, "12 clues": 12, "minimal": None},
    16: {"8 clues": 8, "6 clues": 6, "minimal": None},
}
"""Sets of test puzzles by the cells of a board: how many clues they have."""

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A model of the comparison: a recipe with some fields changed, and processor hours that end its curve."""

    recipe: str
    changes: dict[str, str]
    hours: float

    def run(self, steps: int, decay: float = 0.0, rate: float | None = None) -> Run:
        """Its training up to so many steps: constant learning rate, so that the curve is one of a single run.

        ``decay`` is the share of steps over which it falls to 0 at the end, ``rate`` another one than the entry's.
        """
        run = override(recipes.all_recipes()[self.recipe](), DATA | self.changes)
        rate = rate or run.optimiser.learning_rate
        chosen: dict[str, Any] = {"steps": steps, "learning_rate": rate, "decay": decay, "warmup": 100}
        optimiser = replace(run.optimiser, ema=0.998, muon=True, **chosen)
        machine = Machine(bfloat16=None, compile=True, threads=1, save_minutes=5, keep=1)
        return replace(run, optimiser=optimiser, machine=machine)


DATA = {"data.grids": "0", "data.reveal": "2"}
"""Minimal puzzles of which floor(blanks * u^2) blanks are shown, u uniform: 43 clues on average of 81, 19 of 36."""

SMALL = {"network.width": "96", "network.depth": "3", "network.heads": "4", "network.hidden": "192"} | {
    "network.loops": "2",
    "optimiser.learning_rate": "0.002",
}
LARGE = {"network.width": "160", "network.depth": "8", "network.heads": "4", "network.hidden": "320"} | {
    "network.loops": "1",
    "optimiser.learning_rate": "0.0015",
}
SMALL_6 = {"optimiser.learning_rate": "0.002"}
LARGE_6 = {"network.width": "104", "network.depth": "8", "network.hidden": "224", "network.loops": "1"} | {
    "optimiser.learning_rate": "0.0015"
}
SMALL_4 = {"optimiser.learning_rate": "0.002"}
LARGE_4 = {"network.width": "64", "network.depth": "6", "network.hidden": "112", "network.loops": "1"} | {
    "optimiser.learning_rate": "0.0015"
}


def entries(
    board: str, small: dict[str, str], large: dict[str, str], hours: tuple[float, ...]
) -> dict[str, Entry]:
    """The masked model, and autoregressive ones of its size and of seven times its size, taught either order.

    ``hours`` of a processor are what each may have taken when it begins another doubling.
    """
    one, seven = small | {"batch_size": "32"}, large | {"batch_size": "32"}
    return {
        "masked": Entry(board, small | {"batch_size": "64"}, hours[0]),
        "solver1": Entry(f"{board}_solver", one, hours[1]),
        "fixed1": Entry(f"{board}_fixed", one, hours[2]),
        "solver7": Entry(f"{board}_solver", seven, hours[3]),
        "fixed7": Entry(f"{board}_fixed", seven, hours[4]),
    }


BOARDS = {
    81: entries("sudoku", SMALL, LARGE, (0.15, 0.2, 0.2, 0.5, 0.14)),
    36: entries("sudoku6", SMALL_6, LARGE_6, (0.15, 0.8, 0.35, 1.0, 0.5)),
    16: entries("sudoku4", SMALL_4, LARGE_4, (0.03, 0.25, 0.25, 0.4, 0.4)),
}


def main() -> None:
    """Trains, or prints and with --write records one part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("train", "curves", "orders"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=tuple(BOARDS[81]), default=list(BOARDS[81]))
    parser.add_argument("--hours", type=float, default=100.0, help="processor hours of each model at most")
    parser.add_argument("--steps", type=int, help="one training of so many steps, to its end")
    parser.add_argument(
        "--decay", type=float, default=0.5, help="with --steps, share of falling learning rate"
    )
    parser.add_argument("--rate", type=float, help="with --steps, the learning rate before")
    parser.add_argument("--num", type=int, default=200)
    parser.add_argument("--cells", type=int, choices=tuple(BOARDS), default=81)
    parser.add_argument(
        "--write", nargs="?", const="", metavar="MORE", help="a record, with this after its name"
    )
    options = parser.parse_args()
    if options.part == "train":
        every = BOARDS[options.cells]
        if options.steps:
            for name in options.only:
                stage(options.folder / name, every[name].run(options.steps, options.decay, options.rate))
        else:
            trained(options.folder, every, options.only, options.hours)
        return
    rows, notes = PARTS[options.part](options.folder, options.only, options.num, options.cells)
    if options.write is not None:
        of = "" if options.cells == 81 else str(symbols_of(options.cells))
        more = f"_{options.write}" if options.write else ""
        print(record.write(f"order_sudoku{of}_{options.part}{more}", rows, notes))
    print("\n".join([notes, *record.table(rows)]))


# --- training ---------------------------------------------------------------------------------------


def trained(folder: Path, entries: dict[str, Entry], names: list[str], hours: float) -> None:
    """Every model to the next power of two of steps, again and again, until its hours are over."""
    steps, left = FIRST, list(names)
    while left:
        for name in list(left):
            if (folder / name / "at" / str(steps)).exists():
                continue
            if sum(spent(folder / name).values()) > 3600 * min(hours, entries[name].hours):
                left.remove(name)
                continue
            stage(folder / name, entries[name].run(steps))
        steps *= 2


def stage(place: Path, run: Run) -> None:
    """A model at the end of a run, which goes on where its folder has come to."""
    steps, used = str(run.optimiser.steps), spent(place)
    if (place / "at" / steps).exists():
        return
    began = time.process_time()
    try:
        model = train(run, place)
    finally:  # seconds of a training that was cut off count as well
        used[steps] = used.get(steps, 0.0) + time.process_time() - began
        (place / "processor.json").write_text(json.dumps(used))
    shutil.copytree(model, place / "at" / steps)


def spent(place: Path) -> dict[str, float]:
    """Processor seconds that a model took to each number of steps from the one before."""
    path = place / "processor.json"
    found: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    return found


# --- measuring --------------------------------------------------------------------------------------


@lru_cache
def puzzles(name: str, num: int, cells: int) -> tuple[Tensor, Tensor]:
    """Test puzzles of a set and their solutions, int64 [num, cells]."""
    clues = SETS[cells][name]
    asked, solution = sudoku.puzzles(num, SEED + (clues or 0), clues=clues, cells=cells)
    return torch.as_tensor(asked), torch.as_tensor(solution)


def solved(model: unmask.Model, name: str, num: int, order: str) -> float:
    """The share of a set solved, clues kept and grid valid: each symbol the most likely one, one position a call."""
    asked, solution = puzzles(name, num, cells_of(model))
    if autoregressive(model):
        start = model.encode([sudoku.text(board) for board in asked])
        found = [grids(written(model.denoiser.network, part)) for part in start.split(order_lab.BATCH)]
        filled = torch.cat(found)
    else:
        filled = order_lab.sampled(model, asked, order_lab.ORDERS[order], unmask.greedy)
    right = sudoku.is_solved(filled, asked)
    assert torch.equal(right, (filled == solution).all(1))
    return float(right.double().mean())


@torch.inference_mode()
def told_where(model: unmask.Model, name: str, num: int) -> float:
    """The share that an autoregressive model would solve if each next cell were told, in the order that it was taught."""
    asked, solution = puzzles(name, num, cells_of(model))
    solver = model.config["name"].endswith("_solver")
    order = solver_order(asked, solution)[0] if solver else fixed_order(asked)
    tokens = pairs(solution, order)
    best = torch.cat([model.denoiser.network(part).argmax(-1) for part in tokens.split(order_lab.BATCH)])
    clue = pairs(asked, order) != vocab_size(cells_of(model))
    return float(((best == tokens) | clue)[:, 1::2].all(1).double().mean())


@torch.inference_mode()
def held_out(model: unmask.Model, entry: Entry, batches: int = 6) -> tuple[float, float]:
    """Nats per blank on puzzles as in training: for its cell, and for its value given the cell."""
    run = replace(entry.run(1), seed=HELD_OUT)
    totals = torch.zeros(3, dtype=torch.float64)
    for step in range(batches):
        batch = run.batch(run, step)
        tokens = (
            batch.tokens
            if autoregressive(model)
            else batch.tokens.masked_fill(batch.masked, model.denoiser.mask_id)
        )
        laws = model.denoiser.network(tokens).double().log_softmax(-1)
        costs = -laws.gather(-1, batch.tokens[..., None])[..., 0]
        costs = costs.where(batch.masked, torch.zeros(()))
        if autoregressive(model):
            parts, blanks = (costs[:, ::2].sum(), costs[:, 1::2].sum()), batch.masked.sum() / 2
        else:
            parts, blanks = (torch.zeros(()), costs.sum()), batch.masked.sum()
        totals += torch.stack([*(p.double() for p in parts), blanks.double()])
    cell, value = (totals[:2] / totals[2]).tolist()
    return cell, value


def autoregressive(model: unmask.Model) -> bool:
    """Whether a model writes pairs of cell and value."""
    return str(model.config["name"]).endswith(("_solver", "_fixed"))


def cells_of(model: unmask.Model) -> int:
    """How many cells the boards of a model have."""
    return model.length // 2 if autoregressive(model) else model.length


def stages(place: Path) -> list[int]:
    """Numbers of steps at which a model was noted."""
    return sorted(int(p.name) for p in (place / "at").glob("*"))


FRESH = """Test
puzzles have seeds of their own; of 28 million 6x6 grids some are met again in training, nearly all are symmetric to one
that was. Of 4x4 boards there are 288 grids and 85,632 minimal puzzles in all: there it counts how soon they are known."""

CURVES = f"""
Exact match (clues kept, grid valid) of {{num}} fresh puzzles ({{cells}} cells) of each set, every symbol the most likely,
one position a call: the masked model by margin, autoregressive ones by greedy writing of cell and value (no cell twice by
construction). Sets: `unmask.data.sudoku.puzzles`, seed {SEED} plus the number of clues. {FRESH}
Training: minimal puzzles with floor(blanks u^2) blanks shown, the same generator for all; learning rate constant, or
falling where the row says over what last share of steps; average of weights 0.998. Nats per blank
on held-out puzzles of that law, for the cell and for its value (masked: each hidden cell given what is visible, before any
is filled in, so not comparable between kinds). "Told where": exact match where each next cell is the taught order's.
Verdict: flat if over the last doubling of steps the nats fell by less than {100 * GAIN:.0f} % or {NATS:g} and exact match
rose by less than {POINTS:g} points on every set; "solves all" if exact match was {FULL:g} % or more of every set at both
ends; else not converged. Hours are processor hours, starts included; the machine was shared.
"""


def curves(folder: Path, names: list[str], num: int, cells: int) -> tuple[list[Row], str]:
    """One row for each model and power of two of steps."""
    found = []
    for name in names:
        rows: list[Row] = []
        for steps in stages(folder / name):
            model = unmask.load(folder / name / "at" / str(steps))
            rows.append(curve_row(name, BOARDS[cells][name], steps, model, spent(folder / name), num))
            rows[-1]["verdict"] = verdict(rows, list(SETS[cells]))
            print(json.dumps(rows[-1]), flush=True)
        found += rows
    return found, CURVES.format(num=num, cells=cells)


def curve_row(
    name: str, entry: Entry, steps: int, model: unmask.Model, used: dict[str, float], num: int
) -> Row:
    """What a model can do after so many steps."""
    sets = SETS[cells_of(model)]
    cell, value = held_out(model, entry)
    row: Row = {"model": name, "parameters": sum(p.numel() for p in model.denoiser.network.parameters())}
    row |= {"steps": steps, "puzzles": steps * model.config["batch_size"]}
    falling = model.config["optimiser"]["decay"]
    row |= {"rate falls": falling} if falling else {}
    row["hours"] = round(sum(s for at, s in used.items() if int(at) <= steps) / 3600, 3)
    row |= {"nats, cell": round(cell, 4), "nats, value": round(value, 4)}
    row |= {f"{s} %": round(100 * solved(model, s, num, "margin"), 1) for s in sets}
    for s in sets:
        told = round(100 * told_where(model, s, num), 1) if autoregressive(model) else "-"
        row[f"{s}, told where %"] = told
    return row


def verdict(rows: list[Row], sets: list[str]) -> str:
    """Whether the curve that ends in the last row is flat there."""
    if len(rows) < 2:
        return "-"
    before, now = ({"nats": r["nats, cell"] + r["nats, value"], **r} for r in rows[-2:])
    if min(row[f"{s} %"] for row in (before, now) for s in sets) >= FULL:
        return "solves all"
    fell = before["nats"] - now["nats"]
    rose = max(now[f"{s} %"] - before[f"{s} %"] for s in sets)
    slow = fell < max(GAIN * before["nats"], NATS)
    return "flat" if slow and rose < POINTS else "not converged"


ORDERS = f"""
Exact match of {{num}} fresh puzzles ({{cells}} cells) of each set by the last model of each kind, every symbol the most
likely one, one position a call; Wilson 95 % interval. Sets: `unmask.data.sudoku.puzzles`, seed {SEED} plus clues. {FRESH}
"""


def orders(folder: Path, names: list[str], num: int, cells: int) -> tuple[list[Row], str]:
    """The last model of each kind in the orders it knows: the masked one in three, the others in their own."""
    rows = []
    for name in [n for n in names if stages(folder / n)]:
        model = unmask.load(folder / name / "at" / str(stages(folder / name)[-1]))
        for row in order_rows(name, model, num):
            rows.append(row)
            print(json.dumps(row), flush=True)
    trained = "\n".join(
        f"- {row['model']}: {order_lab.described(unmask.load(folder / row['model'] / 'at' / str(row['steps'])))}"
        for row in {r["model"]: r for r in rows}.values()
    )
    return rows, f"{ORDERS.format(num=num, cells=cells).strip()}\n\nModels:\n\n{trained}"


def order_rows(name: str, model: unmask.Model, num: int) -> Iterator[Row]:
    """One row for each set and order."""
    known = ["as taught"] if autoregressive(model) else ["margin", "top probability", "random"]
    for kind in SETS[cells_of(model)]:
        for order in known:
            share = solved(model, kind, num, order)
            bounds = " to ".join(f"{100 * x:.1f}" for x in wilson(round(share * num), num))
            row: Row = {"model": name, "steps": model.config["trained_steps"], "puzzles": kind, "n": num}
            yield row | {"order": order, "solved %": round(100 * share, 1), "95 %": bounds}


PARTS = {"curves": curves, "orders": orders}


if __name__ == "__main__":
    main()
