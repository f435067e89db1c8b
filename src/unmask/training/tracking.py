"""Who else hears of a training? A *tracker* opens on (run, folder, step) and gives a function that takes one row at a time.

A row is a dictionary of numbers: step, loss, lr (learning rate), per_second (steps) and seconds. ``step`` at the opening is
the one that training goes on from: what a tracker holds beyond it is of a run that was cut short, and comes again. Only the
first process of several opens any. A tracker of one's own is a context manager of a line or two::

    @contextmanager
    def printed(run, folder, step):
        yield lambda row: print(row["step"], row["loss"])

    train(run, folder, track=[printed, tracking.csv])
"""

from __future__ import annotations

import csv as commas
import importlib
import io
import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TypeAlias

from unmask.base import records
from unmask.base.checkpoints import one_line
from unmask.recipes.run import Run, describe

Row: TypeAlias = dict[str, Any]
Hear: TypeAlias = Callable[[Row], object]
Tracker: TypeAlias = Callable[[Run, Path, int], AbstractContextManager[Hear]]


@contextmanager
def opened(trackers: Sequence[Tracker], run: Run, folder: Path, step: int) -> Iterator[Hear]:
    """One function that every tracker hears, after the log of the folder, `jsonl`.

    What fails in the log ends the training, as any full disk does; what fails in a tracker is a warning, and that one hears
    no more. ValueError or ImportError where one cannot be opened.
    """
    with jsonl(run, folder, step) as log, ExitStack() as stack:
        hearing = [stack.enter_context(_lenient(tracker, run, folder, step)) for tracker in trackers]

        def hear(row: Row) -> None:
            log(row)
            for one in hearing:
                one(row)

        yield hear


@contextmanager
def _lenient(tracker: Tracker, run: Run, folder: Path, step: int) -> Iterator[Hear]:
    """A tracker that falls silent when it fails, with a warning: training is worth more than its curves."""
    silent = False
    place = tracker(run, folder, step)
    hear = place.__enter__()

    def careful(row: Row) -> None:
        nonlocal silent
        if not silent:
            silent = not _tried(lambda: hear(row), tracker)

    try:
        yield careful
    finally:
        _tried(lambda: place.__exit__(None, None, None), tracker)


def _tried(action: Callable[[], object], tracker: Tracker) -> bool:
    """Does it; False, and a warning, where it fails."""
    try:
        action()
    except Exception as error:  # whatever a stranger's package raises
        name = getattr(tracker, "__name__", "a tracker")
        warnings.warn(f"{name} is left out from here on: {one_line(error)}", stacklevel=2)
        return False
    return True


# --- files ----------------------------------------------------------------------------------------


@contextmanager
def jsonl(run: Run, folder: Path, step: int) -> Iterator[Hear]:  # noqa: ARG001 - as every tracker
    """Rows as lines of ``log.jsonl``; those beyond the step, foreign ones and half a line are dropped before."""
    path = folder / "log.jsonl"
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    kept = [line for line in lines if _step_of(line) <= step]
    records.write_bytes(path, "".join(f"{line}\n" for line in kept).encode())
    with path.open("a") as file:
        yield lambda row: print(json.dumps(row), file=file, flush=True)


def _step_of(line: str) -> float:
    """The step of a log line; a line cut short by a crash, or foreign, counts as beyond everything."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


@contextmanager
def csv(run: Run, folder: Path, step: int) -> Iterator[Hear]:  # noqa: ARG001 - as every tracker
    """Rows as lines of ``log.csv`` below the names of their numbers; those beyond the step are dropped before."""
    path = folder / "log.csv"
    kept = [row for row in _rows(path) if _within(row, step)]
    records.write_bytes(path, _table(kept))
    columns = list(kept[0]) if kept else []
    with path.open("a", newline="") as file:

        def hear(row: Row) -> None:
            if not columns:
                columns.extend(row)
                commas.writer(file).writerow(columns)
            commas.DictWriter(file, columns).writerow(row)
            file.flush()

        yield hear


def _rows(path: Path) -> list[Row]:
    """What a table holds; a row that a crash cut short is none."""
    if not path.exists():
        return []
    whole, end, _ = path.read_bytes().decode(errors="replace").rpartition("\n")
    found = commas.DictReader(io.StringIO(whole + end, newline=""))
    return [row for row in found if None not in row and None not in row.values()]


def _within(row: Row, step: int) -> bool:
    """Whether a row of a table is of a step that is kept."""
    return str(row.get("step")).isdecimal() and int(row["step"]) <= step


def _table(rows: list[Row]) -> bytes:
    """Rows as a file."""
    made = io.StringIO(newline="")
    if rows:
        writer = commas.DictWriter(made, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return made.getvalue().encode()


# --- other people's packages ----------------------------------------------------------------------


def needs(package: str) -> Any:
    """The module of a tracker's package; ImportError says how to get it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        home = package.partition(".")[0]
        name = "tensorboard" if home == "torch" else home
        raise ImportError(f"{name} is not installed: pip install 'unmask[track]', or {name} alone") from None


@contextmanager
def tensorboard(run: Run, folder: Path, step: int) -> Iterator[Hear]:  # noqa: ARG001 - as every tracker
    """Numbers as curves below ``tensorboard`` in the folder; TensorBoard hides those beyond the step (``purge_step``)."""
    writer = needs("torch.utils.tensorboard").SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def hear(row: Row) -> None:
        for name, value in _numbers(row).items():
            writer.add_scalar(name, value, row["step"])
        writer.flush()

    try:
        yield hear
    finally:
        writer.close()


@contextmanager
def wandb(run: Run, folder: Path, step: int) -> Iterator[Hear]:
    """Numbers to Weights & Biases, project ``unmask``: kept in the folder, for ``wandb sync``, or as WANDB_MODE says."""
    package, told = needs("wandb"), _Told(folder / "wandb.json", step)
    settings = {"mode": os.environ.get("WANDB_MODE", "offline"), "resume": "allow", "id": told.name}
    settings |= {"project": os.environ.get("WANDB_PROJECT", "unmask"), "dir": str(folder)}
    with redirect_stdout(sys.stderr):
        log = package.init(name=folder.name, config=describe(run), **settings)
    with _finished(log):
        yield told.once(lambda row: log.log(_numbers(row), step=row["step"]))


@contextmanager
def trackio(run: Run, folder: Path, step: int) -> Iterator[Hear]:
    """Numbers to trackio, project ``unmask``, which keeps them on this machine (TRACKIO_DIR says where)."""
    package, told = needs("trackio"), _Told(folder / "trackio.json", step)
    settings = {"project": os.environ.get("TRACKIO_PROJECT", "unmask"), "resume": "allow", "embed": False}
    with redirect_stdout(sys.stderr):
        log = package.init(name=f"{folder.name}-{told.name}", config=describe(run), **settings)
    with _finished(log):
        yield told.once(lambda row: log.log(_numbers(row), step=row["step"]))


@contextmanager
def _finished(log: Any) -> Iterator[None]:
    """Finishes what a service opened; what it has to say is a remark, and belongs on standard error."""
    try:
        yield
    finally:
        with redirect_stdout(sys.stderr):
            log.finish()


def _numbers(row: Row) -> Row:
    """What is drawn of a row: its numbers but the step."""
    return {k: v for k, v in row.items() if k != "step" and isinstance(v, int | float)}


class _Told:
    """What a service that takes nothing back has been told: the run's name there, and the last step.

    Steps that come again after a crash are those that it has, for training goes on bit for bit.
    """

    def __init__(self, path: Path, step: int) -> None:
        """Reads it from a file, or begins one; a run that begins anew is another one there."""
        self.path = path
        found = json.loads(path.read_text()) if step and path.exists() else {}
        self.name = str(found.get("id") or os.urandom(4).hex())
        self.step = int(found.get("step", 0))
        self._write()

    def _write(self) -> None:
        records.write_text(self.path, json.dumps({"id": self.name, "step": self.step}))

    def once(self, hear: Hear) -> Hear:
        """Passes on rows of steps beyond those that were told before."""

        def later(row: Row) -> None:
            if row["step"] > self.step:
                hear(row)
                self.step = row["step"]
                self._write()

        return later
