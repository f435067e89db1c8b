"""``unmask train``: a recipe with some fields replaced, or a model from elsewhere, trained in a folder, or gone on with."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from unmask.command_line.commands.train import curves, tuning
from unmask.command_line.output import Report, number, say
from unmask.recipes import Run, all_recipes
from unmask.recipes.run import describe, override
from unmask.training import tracking
from unmask.training.loop import train
from unmask.training.together.world import Elsewhere, speaks

TRACKERS = {
    "csv": tracking.csv,
    "tensorboard": tracking.tensorboard,
    "wandb": tracking.wandb,
    "trackio": tracking.trackio,
}
"""Who may hear of a training, by name."""


def run(
    recipe: str | None,
    out: Path | None,
    changes: Mapping[str, str],
    quiet: bool,
    track: Sequence[tracking.Tracker] = (),
) -> Report:
    """Trains a recipe with dotted fields replaced; the report names the model's folder and the loss.

    Without a recipe, the model of ``changes["start"]`` on ``changes["data"]``; the report says what it knew and knows.
    """
    if recipe is None:
        found = tuning.task(changes)
        report = _trained(found.run, tuning.folder_of(found, out), changes, quiet, track)
        if not speaks():
            return report
        return report | {"held_out": tuning.measured(found, Path(report["model"]), quiet)}
    wanted = override(recipe_called(recipe), changes)
    return _trained(wanted, Path("runs") / recipe if out is None else out, changes, quiet, track)


def trackers(names: Sequence[str]) -> list[tracking.Tracker]:
    """The trackers of these names, each once; ValueError for an unknown one."""
    for name in (n for n in names if n not in TRACKERS):
        raise ValueError(
            f"--track {name}: expected some of {', '.join(TRACKERS)}; log.jsonl is written in any case"
        )
    return [TRACKERS[name] for name in dict.fromkeys(names)]


def _trained(
    run: Run, folder: Path, changes: Mapping[str, str], quiet: bool, track: Sequence[tracking.Tracker]
) -> Report:
    """Trains a run in a folder, and what is to be said of that."""
    wanted = _checked(run)
    before = _steps_done(folder)
    if before and speaks():
        say(f"going on from step {before} in {folder}", quiet)
    began = time.monotonic()
    try:
        model = train(wanted, folder, quiet=quiet, track=track)
    except Elsewhere:
        if speaks():
            raise
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        if not speaks():
            raise SystemExit(130) from None
        done = _steps_done(folder)
        hint = f"step {done} is saved in {folder}; the same command goes on from there" if done else ""
        raise KeyboardInterrupt(hint) from None
    return {
        "command": "train",
        "recipe": run.name,
        "model": str(model),
        "steps": _steps_done(folder),
        "resumed_from": before,
        "loss": _loss(folder),
        "curve": curves.curve(curves.read(folder)),
        "seconds": time.monotonic() - began,
        "changes": dict(changes),
    }


def render(report: Report, console: Console) -> None:
    """Prints how training went, and the model's folder last."""
    loss = report["loss"]
    if loss is not None:
        console.print(
            f"{report['steps']} steps, loss {loss['value']:.4f} {loss['unit']} ({loss['estimator']})"
        )
    if report.get("held_out"):
        tuning.render(report["held_out"], console)
    console.print(f"model: {report['model']}")


def changes(texts: Sequence[str]) -> dict[str, str]:
    """``FIELD=VALUE`` texts as a dictionary; ValueError where there is no ``=``."""
    for text in texts:
        if "=" not in text:
            raise ValueError(f"got '{text}'; expected FIELD=VALUE, such as optimiser.steps=200")
    return dict(text.split("=", 1) for text in texts)


def fields(recipe: str | None, changes: Mapping[str, str]) -> Report:
    """The fields of a recipe, or of a fine-tuning, that ``--field value`` may replace, with their values."""
    found = tuning.task(changes).run if recipe is None else recipe_called(recipe)
    return {"command": "train", "recipe": found.name, "fields": dict(_flat(describe(found)))}


def render_fields(report: Report, console: Console) -> None:
    """Prints one field a line."""
    table = Table("field", "default", box=None)
    for name, value in report["fields"].items():
        text = json.dumps(value)
        table.add_row(f"--{name}", text if len(text) < 60 else f"{text[:56]} ...")
    console.print(table)


def recipe_called(name: str) -> Run:
    """The recipe of a name; ValueError for an unknown one."""
    known = all_recipes()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ValueError(f"no recipe '{name}': {hint}recipes: {', '.join(known)}")
    return known[name]()


def _checked(run: Run) -> Run:
    """The run, if its device exists."""
    try:
        torch.empty(0, device=run.machine.device)
    except (RuntimeError, AssertionError):
        raise ValueError(f"field 'machine.device': no device '{run.machine.device}' here; try cpu") from None
    return run


def _flat(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested dictionaries."""
    for key, value in record.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _steps_done(folder: Path) -> int:
    """The step of the newest checkpoint, 0 when there is none."""
    return max((int(p.name) for p in folder.glob("checkpoints/*") if p.name.isdigit()), default=0)


def _loss(folder: Path, last: int = 50) -> Report | None:
    """The mean of the last logged losses."""
    losses = [line["loss"] for line in curves.read(folder)[-last:]]
    if not losses:
        return None
    return number(
        sum(losses) / len(losses),
        "nats per position",
        f"training objective, mean of {len(losses)} logged steps",
    )
