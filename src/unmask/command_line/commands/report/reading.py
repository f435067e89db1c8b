"""Results from files and folders, of this version and of older ones."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from unmask.base.records import kind_of
from unmask.command_line.commands.archives.inspect import run_inspect
from unmask.command_line.commands.train import curves
from unmask.command_line.output import Report
from unmask.data import files

NEEDED: dict[str, tuple[tuple[str, ...], ...]] = {
    "sample": (("samples",), ("manifest",)),
    "eval": (),
    "profile": (("entropies", "bound"),),
    "plan": (("sizes", "families"),),
    "tune": (("budgets",), ("front",), ("metric",)),
    "compress": (("bytes", "part"),),
    "inspect": (("bytes",), ("payload_bytes",)),
    "train": (("curve", "loss", "steps", "fields"),),
    "demo": (("solving",), ("planning",)),
}
"""The fields that a result of each kind must have: of each group at least one."""


@dataclass(frozen=True)
class Result:
    """What a command found: its name on the page, its kind, its record."""

    name: str
    kind: str
    record: Report

    @property
    def model(self) -> str | None:
        """The model's name, where there is one."""
        known = self.record.get("provenance")
        found = self.record.get("model") or (known.get("model") if isinstance(known, dict) else None)
        found = found.get("name") if isinstance(found, dict) else found
        return None if self.kind == "train" or not found else str(found)

    def called(self, name: str) -> Result:
        """The same under another name."""
        return replace(self, name=name)


def read(path: Path) -> Result:
    """The result in a file or folder; ValueError names the place that holds none."""
    if path.is_dir():
        return _folder(path)
    if path != files.STANDARD and not path.exists():
        raise ValueError(
            f"no result '{path}'; expected what --json wrote, a profile, a plan, an archive or a folder"
        )
    if path.suffix == ".umz":
        return Result(path.stem, "inspect", run_inspect(path))
    if path.suffix == ".jsonl":
        return _log(path, path.resolve().parent.name)
    return checked(path.stem if path != files.STANDARD else "result", _record(path), files.shown(path))


def checked(name: str, record: Report, place: str) -> Result:
    """A record as a result; ValueError names the place where it lacks what a report needs."""
    try:
        kind = kind_of(record)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    for fields in NEEDED.get(kind, ()):
        if not any(field in record for field in fields):
            raise ValueError(f"{place}: a result of {kind} without {' or '.join(fields)}; write it again")
    return Result(name, kind, record)


def _record(path: Path) -> Report:
    text = files.read_text(path, "a result, JSON")
    try:
        found: Report = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(
            f"{files.shown(path)}: got text that is not JSON, expected what a command wrote, such as "
            "`unmask sample MODEL --json --trace > FILE`"
        ) from None
    return found


def _folder(path: Path) -> Result:
    """A tuning or a training."""
    if (path / "tune.json").is_file():
        return checked(path.name, _record(path / "tune.json"), str(path / "tune.json"))
    if (path / curves.LOG).is_file():
        return _log(path / curves.LOG, path.resolve().name)
    if (path / "parts.jsonl").is_file():
        raise ValueError(
            f"{path} is a tuning that has not ended; the same `unmask tune` command goes on from there"
        )
    raise ValueError(f"{path} holds no tune.json and no {curves.LOG}; expected a folder of tune or train")


def _log(path: Path, name: str) -> Result:
    """The log of a training, which may still go on."""
    found = curves.curve(curves.read(path))
    if not found["step"]:
        raise ValueError(
            f"{path}: no steps with losses; expected the log of a training, or a result that ends in .json"
        )
    about = path.parent / "run.json"
    recipe = _record(about).get("name") if about.is_file() else None
    return Result(name, "train", {"command": "train", "recipe": recipe, "curve": found})


DAMAGES = (LookupError, TypeError, AttributeError, ArithmeticError, ValueError)
"""What comes of a result that is not as its kind should be."""


def damaged(result: Result) -> ValueError:
    """The error being handled, in one line that names the result."""
    error = sys.exc_info()[1]
    about = " ".join(f"{type(error).__name__}: {error}".split())
    return ValueError(
        f"{result.name}: this result of {result.kind} is not as expected ({about}); write it again"
    )
