"""Where does a preparation that was stopped go on, and how is it finished or taken back?"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from unmask.base.records import TEMPORARY, read_record, write_text
from unmask.data import tokens
from unmask.data.writing.form import Form, Record

PROGRESS = "unmask preparation"


def job_of(form: Form, sources: list[Record]) -> str:
    """A fingerprint of everything that decides the bytes of the folder."""
    settings: list[Any] = [form.record(), form.limit, form.skip, form.shard, sources]
    settings += [form.reading] if form.reading else []
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]


def finished(folder: Path, job: str) -> tokens.Tokens:
    """The folder, when it holds this very preparation."""
    opened = tokens.load(folder)
    if opened.manifest.get("job") != job:
        raise ValueError(
            f"{folder} holds tokens of other sources or settings: delete it or choose another folder"
        )
    return opened


def progress(folder: Path, job: str) -> Record:
    """Where a stopped preparation goes on, or the start of a new one.

    A preparation that finished no shard, say because a symbol was refused, makes way for another one.
    """
    path = folder / "progress.json"
    if path.is_file():
        state = read_record(path.read_text(), PROGRESS)
        if state["job"] != job and state["shards"]:
            raise ValueError(
                f"{folder} holds an unfinished preparation of other sources or settings: delete it or choose another"
            )
        _clear(folder, f".*{TEMPORARY}")
        if state["job"] == job:
            return state
        for name in ("tokens", "ends", "labels"):  # of a first shard that the record does not know yet
            _clear(folder, f"{name}-00000.bin")
    else:
        _clear(folder, f".progress.json.*{TEMPORARY}")
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty; expected a new folder")
    counts = {"source_bytes": 0, "characters": 0, "longest": 0, "dropped": {}}
    state = {"format": PROGRESS, "version": 1, "job": job, "pieces": 0, "offset": 0, **counts, "shards": []}
    write_text(path, json.dumps(state))
    return state


def undo(folder: Path) -> None:
    """Takes back a preparation that cannot be finished, and its folder where nothing else is in it."""
    for pattern in (
        "progress.json",
        "manifest.json",
        f".*{TEMPORARY}",
        *(f"{name}-?????.bin" for name in ("tokens", "ends", "labels")),
    ):
        _clear(folder, pattern)
    with suppress(OSError):
        folder.rmdir()


def _clear(folder: Path, pattern: str) -> None:
    """Deletes what a write that was killed left."""
    for path in folder.glob(pattern):
        path.unlink()


def write_manifest(folder: Path, form: Form, sources: list[Record], state: Record) -> None:
    """Writes the manifest and drops the progress record."""
    if not state["shards"]:
        names = ", ".join(s["file"] for s in sources[:3]) or "the sources"
        raise ValueError(
            f"nothing was found in {names} {_dropped(state['dropped'])}: expected at least one symbol"
        )
    counts = {k: state[k] for k in ("longest", "characters", "source_bytes", "dropped")}
    counts |= {"first_dropped": state["first_dropped"]} if "first_dropped" in state else {}
    record = {"format": tokens.FORMAT, "version": 1, "job": state["job"], **form.record(), **counts}
    write_text(
        folder / "manifest.json",
        json.dumps(record | {"sources": sources, "shards": state["shards"]}, indent=1),
    )
    (folder / "progress.json").unlink(missing_ok=True)


def _dropped(counts: dict[str, int]) -> str:
    """What was left out, in words."""
    return f"(left out: {', '.join(f'{n} {why}' for why, n in counts.items())})" if counts else ""
