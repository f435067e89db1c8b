"""How do pieces become a token folder? Written from the first piece, or from where an earlier start stopped."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

from unmask.data import tokens
from unmask.data.files import STANDARD, is_of_hub, standard_input
from unmask.data.readers.pieces import Piece, size
from unmask.data.writing.encoding import BATCH, batches, encoded
from unmask.data.writing.form import Form, Record
from unmask.data.writing.resuming import finished, job_of, progress, undo, write_manifest
from unmask.data.writing.shards import Writer


def write(
    folder: Path,
    pieces: Iterable[Piece],
    form: Form,
    sources: list[Record],
    *,
    advance: Callable[[int], object] = lambda _: None,
    clean: bool = False,
) -> tokens.Tokens:
    """Writes pieces as a token folder, or goes on with one; ``advance`` hears how much of them is done (`size`).

    ``pieces`` must come in the same order at every start. ``sources`` are records of the files that they come
    from, see `source`. ValueError for a folder of something else, for foreign symbols, lengths that the policy
    refuses, and when nothing was found; with ``clean`` nothing of the refused preparation stays.
    """
    job = job_of(form, sources)
    if (folder / "manifest.json").is_file():
        return finished(folder, job)
    writer = Writer(folder, form, progress(folder, job))
    try:
        _write_all(writer, pieces, advance)
        write_manifest(folder, form, sources, writer.state)
    except ValueError:  # not a stop: the same data would fail again
        if clean:
            undo(folder)
        raise
    return tokens.load(folder)


def _write_all(writer: Writer, pieces: Iterable[Piece], advance: Callable[[int], object]) -> None:
    """Takes in all pieces from where an earlier start stopped."""
    number, done = writer.state["pieces"], 0
    for batch in batches(islice(pieces, number, None)):
        for piece, ids in zip(batch, encoded(writer.form, batch)):
            writer.add(number, piece, ids)
            number += 1
        advance(done := done + sum(size(piece.data) for piece in batch))
    writer.close(number)


def source(path: Path) -> Record:
    """What the manifest says about a source file: its name, bytes and SHA-256."""
    if path == STANDARD:
        found, total = hashlib.sha256(), 0
        with standard_input() as piped:
            for block in iter(lambda: piped.read(BATCH), b""):
                found.update(block)
                total += len(block)
        return {"file": "stdin", "bytes": total, "sha256": found.hexdigest()}
    if is_of_hub(path):  # its name says which revision, and that stands for the content
        return {"file": str(path), "bytes": 0, "sha256": hashlib.sha256(str(path).encode()).hexdigest()}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": digest}


def check_room(folder: Path, needed: int) -> None:
    """ValueError unless the disk that holds ``folder`` has ``needed`` bytes left."""
    present = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(present).free
    if free < needed:
        raise ValueError(
            f"{folder}: about {needed / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} MB are free; free some space or "
            "choose a folder on another disk"
        )
