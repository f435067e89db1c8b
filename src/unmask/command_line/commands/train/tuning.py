"""``unmask train --start FOLDER --data FILE``: a model of transformers learns the diffusion objective on one's own data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unmask.base.progress import Progress
from unmask.command_line import sequences
from unmask.command_line.output import Report, number, say
from unmask.data.prepare import fraction
from unmask.evaluation import shares
from unmask.models import Model, load
from unmask.models.transformers.tuning import Texts, check_tunable, fine_tuning
from unmask.recipes import Run
from unmask.recipes.run import override

MOST = 128
"""Held-out sequences that are measured, before and after."""


@dataclass(frozen=True)
class Task:
    """What is trained, from which model, and the sequences int64 [n, L] that are held out."""

    run: Run
    model: Model
    held_out: Tensor


def task(changes: Mapping[str, str]) -> Task:
    """The task of ``start``, ``data`` and dotted fields; ValueError where one is missing, or data and model do not fit."""
    start, file = changes.get("start"), changes.get("data", changes.get("data.file"))
    if start is None:
        raise ValueError("nothing to train: expected a recipe's name, or --start FOLDER --data FILE")
    if file is None:
        raise ValueError(
            "--start without a recipe: expected --data FILE too, sequences in FASTA or one text a line"
        )
    known = ("start", "data", "data.file")
    more = {name: value for name, value in changes.items() if name not in known}
    if fixed := [name for name in more if name.startswith("network.")]:
        raise ValueError(f"field '{fixed[0]}': it comes from the folder {start}; expected none")
    own = {name.removeprefix("data."): value for name, value in more.items() if name.startswith("data.")}
    texts, model = override(Texts(file), own), load(start)
    check_tunable(model)
    training, held_out = parted(model, texts)
    others = {name: value for name, value in more.items() if not name.startswith("data.")}
    return Task(override(fine_tuning(model, training, data=texts), others), model, held_out)


def parted(model: Model, texts: Texts) -> tuple[Tensor, Tensor]:
    """Rows to train on and rows held out, int64 [n, L] each; equal ones are on one side, told by their contents only."""
    tokens = sequences.read(model, Path(texts.file), None, 0).tokens
    keys = _contents(model, tokens)
    if isinstance(texts.held_out, str):
        others = sequences.read(model, Path(texts.held_out), None, 0).tokens
        known = set(_contents(model, others))
        return tokens[[key not in known for key in keys]], others
    share = texts.held_out
    out = torch.tensor([fraction(key, 0) < share for key in keys], dtype=torch.bool)
    return tokens[~out], tokens[out]


def _contents(model: Model, tokens: Tensor) -> list[bytes]:
    """The symbols of each row as bytes, without what fills it up."""
    pad = model.frame.pad if model.frame is not None else -1
    return [row[row != pad].numpy().tobytes() for row in tokens]


def folder_of(found: Task, out: Path | None) -> Path:
    """Where the run lives; ValueError where a model lies there."""
    folder = Path("runs") / found.model.name if out is None else out
    if (folder / "config.json").exists():
        raise ValueError(f"{folder} holds a model; expected another folder for the training")
    return folder


def measured(found: Task, place: Path, quiet: bool) -> Report | None:
    """What the model knew of held-out sequences by the share hidden, and what it knows now; None without any."""
    if not len(found.held_out):
        return None
    some = found.held_out[torch.as_tensor(sequences.drawn(len(found.held_out), MOST, 0))]
    say(f"measuring {len(some)} held-out sequences, before and after", quiet)
    models = {"before": found.model, "after": load(place)}
    rows: list[Report] = []
    with Progress("held out", len(shares.SHARES), quiet=quiet) as progress:
        for share in shares.SHARES:
            told = {when: _by_share(model, some, share) for when, model in models.items()}
            rows.append({"hidden": share} | told)
            progress.advance(len(rows))
    return {"sequences": len(some), "shares": rows}


def _by_share(model: Model, tokens: Tensor, share: float) -> Report:
    """What a model knows of so many hidden symbols."""
    mean, error = shares.ratio(*shares.by_share(model, tokens, share))
    return number(mean, "nats per hidden symbol", f"{100 * share:g} % hidden at random", stderr=error)


def render(report: Report, console: Console) -> None:
    """Prints what is known of held-out sequences."""
    table = Table("hidden", "before", "after", box=None)
    for row in report["shares"]:
        values = (f"{row[when]['value']:.3f} +- {row[when]['stderr']:.3f}" for when in ("before", "after"))
        table.add_row(f"{100 * row['hidden']:g} %", *values)
    console.print(f"{report['sequences']} held-out sequences, nats per hidden symbol:")
    console.print(table)
