"""``unmask eval --calls``: data along several orders at equal calls, for models whose answers are more or less probable."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from unmask.base.progress import IN_TURN, Pieces, Progress
from unmask.base.statistics import mean_reach
from unmask.command_line import choosing
from unmask.command_line.boards import batched
from unmask.command_line.choosing.files import SCALED
from unmask.command_line.options import MACHINE, Machine, Options
from unmask.command_line.output import Report, number
from unmask.command_line.sequences import Sequences
from unmask.engine.likelihood import along
from unmask.models import Model

ORDERS = ("random", "left-to-right", "bisection", "confidence", "entropy")
"""Orders that are compared where none are named."""
MANY = 32
"""Sequences that are compared where no number is said."""


def budgets(calls: str) -> tuple[int, ...]:
    """Numbers of calls from a text such as ``4,8,16``."""
    parts = [part.strip() for part in calls.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"--calls {calls}: expected numbers of network calls such as 4,8,16")
    return tuple(sorted({int(part) for part in parts}))


def ways(model: Model, options: Options, orders: str | None, calls: str) -> list[tuple[int, Options]]:
    """Each order with each budget, in equal steps; ValueError for settings that these would replace."""
    if options.plan is not None or options.sampler is not None:
        raise ValueError("--calls spends each budget in equal steps; expected no --plan and no --sampler")
    usual = ("left-to-right",) if model.config["network"].get("causal") else ORDERS
    named = options.order if orders is None else orders
    names = usual if named is None else tuple(dict.fromkeys(named.split(",")))
    budgeted = budgets(calls)
    made = [
        (k, choosing.suited(replace(options, order=name, plan=_plan(k, model)), model))
        for name in names
        for k in budgeted
    ]
    for _, way in made:
        choosing.selected(way, model)
    return made


def _plan(calls: int, model: Model) -> str:
    """Equal steps for any number of positions."""
    return SCALED + ",".join(["1"] * calls) if calls > 1 else str(model.length)


def run(
    model: Model,
    posed: Sequences,
    those: Sequence[tuple[int, Options]],
    *,
    machine: Machine = MACHINE,
    quiet: bool = True,
    pieces: Pieces = IN_TURN,
) -> list[Report]:
    """For each way the network calls and nats of the same sequences, each in a random order of its own if it is random."""
    with Progress("orders", len(posed.tokens) * len(those), quiet=quiet) as progress:
        parts = (
            partial(_along, model, posed, way, budget, k, machine, pieces, progress)
            for k, (budget, way) in enumerate(those)
        )
        return list(pieces.every(*parts))


def _along(
    model: Model,
    posed: Sequences,
    way: Options,
    budget: int,
    before: int,
    machine: Machine,
    pieces: Pieces,
    progress: Progress,
) -> Report:
    """One order at one budget."""
    law, (selector, substeps) = choosing.changed(way, model.denoiser), choosing.selected(way, model)

    def measured(ids: Tensor) -> dict[str, Tensor]:
        rows, orders = (x.to(machine.device) for x in (posed.tokens[ids], ids))
        visible = model.visible(rows)
        found = along(law, rows, selector, visible=visible, substeps=substeps, order_ids=orders)
        return {"nats": (model.length_cost(rows) - found.log_prob).cpu(), "calls": found.nfe.cpu()}

    done, batches = before * len(posed.tokens), batched(len(posed.tokens), machine.batch_size, measured)
    name = f"{way.order}-{budget}"
    every = list(pieces.each(name, batches, lambda n: progress.advance(done + n)))
    nats, calls = (torch.cat([piece[what] for piece in every]) for what in ("nats", "calls"))
    about = f"exact along order {way.order}, {budget} equal steps, the same {len(nats)} sequences for all"
    return {
        "order": way.order,
        "budget": budget,
        "calls": number(float(calls.mean()), "network calls per sequence, full forward passes", "mean"),
        "nats": _mean(nats, "nats per sequence", about),
    }


def _mean(values: Tensor, unit: str, about: str) -> Report:
    """A mean with its 95 % interval, Student's t."""
    mean, half = float(values.mean()), mean_reach(values.numpy()) if len(values) > 1 else math.nan
    return number(mean, unit, about, low=mean - half, high=mean + half, interval="t 95 %")
