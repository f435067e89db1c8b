"""``unmask eval`` of data: the bound of sequences under a model, and log-likelihoods along an order."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from unmask.base.progress import IN_TURN, Pieces
from unmask.command_line import choosing, sequences
from unmask.command_line.choosing.files import facts
from unmask.command_line.options import MACHINE, Machine, Options, in_range
from unmask.command_line.output import Report
from unmask.models import Model


def run(
    model: Model,
    data: Path,
    options: Options,
    *,
    num: int | None,
    exact: int,
    samples: int,
    quiet: bool,
    machine: Machine = MACHINE,
    pieces: Pieces = IN_TURN,
) -> Report:
    """The bound of data under a model, and of ``exact`` sequences the log-likelihood along the order, with units."""
    in_range("samples", samples, 1)
    in_range("exact", exact, 0)
    options = choosing.suited(options, model)
    score = choosing.scored(options, model) if exact else None
    posed = sequences.read(model, data, num, options.seed)
    bound, about = sequences.estimator(model, samples, options.seed)
    some = posed.part(sequences.drawn(len(posed.tokens), exact, options.seed)) if score is not None else posed
    if pieces.shared:
        asked = {"samples": samples, "exact": exact, "data": posed.tokens}
        pieces.of(**facts(model, machine, options, command="eval", **asked))
    nats, values = pieces.every(
        lambda: sequences.nats_of(posed, bound, "bound", quiet, machine, pieces),
        lambda: (
            score
            and sequences.nats_of(some, lambda rows, _: -score(rows), "likelihood", quiet, machine, pieces)
        ),
    )
    report: Report = {
        "command": "eval",
        "model": {"name": model.name, "hash": model.hash, "trained_steps": model.config.get("trained_steps")},
        "data": {"source": posed.source, "sequences": len(posed.tokens), "characters": posed.characters}
        | ({"left_out": posed.left_out} if posed.left_out else {}),
        "nelbo": sequences.numbers(model, posed, nats, about),
        "log_likelihood": None,
    }
    if score is not None:
        name = f"exact along one order, {choosing.told(options)}, {len(some.tokens)} sequences"
        report["log_likelihood"] = sequences.numbers(model, some, values, name)
    return report


def render(report: Report, console: Console) -> None:
    """Prints every number with its unit, standard error and definition."""
    data = report["data"]
    rest = "".join(f", {count} {why} left out" for why, count in data.get("left_out", {}).items())
    rest = rest.replace("characters changed left out", "characters changed by text8's filter")
    console.print(
        f"{data['source']}: {data['sequences']} sequences, {data['characters']} symbols{rest}", markup=False
    )
    table = Table("", "value", "unit: definition", box=None)
    for name in ("nelbo", "log_likelihood"):
        for quantity, found in (report[name] or {}).items():
            label = name.replace("_", " ") if quantity == "nats" else ""
            value = f"{found['value']:.4f} +- {found['stderr']:.4f}"
            table.add_row(label, value, f"{found['unit']}: {found['estimator']}")
    console.print(table)
