"""``unmask eval`` of data: the bound of sequences under a model, and log-likelihoods along an order."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from unmask.base.progress import IN_TURN, Pieces
from unmask.command_line import choosing, sequences
from unmask.command_line.choosing.files import facts
from unmask.command_line.commands.evaluate import compared
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
    calls: str | None = None,
    orders: str | None = None,
    machine: Machine = MACHINE,
    pieces: Pieces = IN_TURN,
) -> Report:
    """The bound of data under a model, and of ``exact`` sequences the log-likelihood along the order, with units.

    With ``calls`` it is that along several ``orders`` within each number of calls.
    """
    in_range("samples", samples, 1)
    in_range("exact", exact, 0)
    those = [] if calls is None else compared.ways(model, options, orders, calls)
    options = choosing.suited(options, model)
    score = choosing.scored(options, model) if exact and not those else None
    posed = sequences.read(model, data, num, options.seed)
    bound, about = sequences.estimator(model, samples, options.seed)
    count = (exact or compared.MANY) if those else exact
    some = posed.part(sequences.drawn(len(posed.tokens), count, options.seed)) if count else posed
    if pieces.shared:
        asked = {"samples": samples, "exact": exact, "data": posed.tokens}
        asked |= {"ways": [(k, str(way.order)) for k, way in those]} if those else {}
        pieces.of(**facts(model, machine, options, command="eval", **asked))
    nats, values, rows = pieces.every(
        lambda: sequences.nats_of(posed, bound, "bound", quiet, machine, pieces),
        lambda: (
            score
            and sequences.nats_of(some, lambda rows, _: -score(rows), "likelihood", quiet, machine, pieces)
        ),
        lambda: those and compared.run(model, some, those, machine=machine, quiet=quiet, pieces=pieces),
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
    return report | ({"along": rows} if those else {})


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
    if rows := report.get("along"):
        _render_along(rows, console)


def _render_along(rows: list[Report], console: Console) -> None:
    """Prints an order a line, by rising calls."""
    console.print(f"{rows[0]['nats']['unit']}, exact along each order in equal steps, 95 % intervals:")
    table = Table("calls", "order", "nats", box=None)
    for row in sorted(rows, key=lambda r: (r["budget"], r["nats"]["value"])):
        found = row["nats"]
        table.add_row(
            f"{row['calls']['value']:.1f}",
            row["order"],
            f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]",
        )
    console.print(table)
