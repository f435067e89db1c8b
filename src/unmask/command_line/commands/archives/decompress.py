"""``unmask decompress``: an archive's items as files, lines or images."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from unmask import codec
from unmask.base.progress import Progress
from unmask.base.records import write_bytes
from unmask.codec import inspection, reading
from unmask.codec.subjects import Item
from unmask.command_line.commands.archives import fasta
from unmask.command_line.commands.archives.sources import line_ends
from unmask.command_line.options import in_range
from unmask.command_line.output import Report, say
from unmask.data import files
from unmask.data.readers.images import pillow
from unmask.models import load


def run_decompress(
    path: Path,
    out: Path | None,
    *,
    model_name: str | None,
    item: int | None,
    skip: bool,
    max_symbols: int = 0,
    batch: int,
    quiet: bool,
) -> Report:
    """Gives back an archive's items: files and images into a folder, lines into a file or to standard output."""
    in_range("item", item, 0)
    in_range("max_symbols", max_symbols, 0)
    out, streamed = (None, True) if out == files.STANDARD else (out, False)
    with opened_file(path) as file:
        header = header_of(file, path)
        name = model_name or str(header.record["model"].get("name"))
        errors: Literal["raise", "skip"] = "skip" if skip else "raise"
        opened = reading.Archive(load(name), file, errors=errors, batch=batch, max_symbols=max_symbols)
        in_range("item", item, 0, max(len(opened) - 1, 0), " of this archive")
        if header.named and out is None and item is None and "fasta" not in opened.more:
            if len(opened) != 1 or not streamed:
                raise ValueError("the archive holds files; expected -o FOLDER for them, or --item N")
            item = 0
        with Progress("decompress", len(opened), quiet=quiet) as progress:
            counts = _unpacked(opened, out, item, progress)
    return {"command": "decompress", "file": str(path), "out": None if out is None else str(out)} | counts


@contextmanager
def opened_file(path: Path) -> Iterator[BinaryIO]:
    """An archive that can seek; standard input and what is no regular file are read whole."""
    if path == files.STANDARD:
        yield io.BytesIO(files.standard_input().read())
        return
    if path.is_dir() or not path.exists():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"no archive '{path}': it {state}; expected a file, or - for standard input")
    with path.open("rb") as file:
        yield file if path.is_file() else io.BytesIO(file.read())


def header_of(file: BinaryIO, path: Path) -> inspection.Header:
    """The header of an archive; ValueError names the file."""
    try:
        return inspection.read_header(file)
    except ValueError as error:
        raise ValueError(f"{files.shown(path)}: {error}") from None


def _unpacked(opened: reading.Archive, out: Path | None, item: int | None, progress: Progress) -> Report:
    """Writes one item or all; how many there were and how many are lost."""
    if item is not None:
        found = opened.item(item)
        _put(found, out)
        return {"items": 1, "lost": int(found is None)}
    if opened.header.named and "fasta" not in opened.more:
        return _to_folder(opened, out or Path(), progress)
    with ExitStack() as stack:
        target = sys.stdout.buffer if out is None else stack.enter_context(codec.replacing(out))
        return (_to_fasta if opened.header.named else _to_lines)(opened, target, progress)


def _put(item: Item | None, out: Path | None) -> None:
    """One item to a file or to standard output."""
    if item is None:
        return
    data = _file_of(item)
    if out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write_bytes(out, data)


def _file_of(item: Item) -> bytes:
    """The bytes of a file: of an image, a PNG."""
    if isinstance(item, np.ndarray):
        data = io.BytesIO()
        pillow().fromarray(item).save(data, "PNG")
        return data.getvalue()
    return item.encode() if isinstance(item, str) else item


def _to_folder(opened: reading.Archive, folder: Path, progress: Progress) -> Report:
    count = lost = 0
    for name, item in opened.named_items():
        count += 1
        if item is None:
            lost += 1
        else:
            write_bytes(_inside(folder, name), _file_of(item))
        progress.advance(count)
    return {"items": count, "lost": lost}


def _inside(folder: Path, name: str) -> Path:
    """Where a file of this name goes; ValueError where it would leave the folder, or take another file's place."""
    place = Path(name)
    if not name or place.is_absolute() or ".." in place.parts or "\0" in name:
        raise ValueError(f"the archive has a file called {name!r}; expected a name inside the folder")
    if (folder / place).exists():
        raise ValueError(f"{folder / place} exists; expected an empty place: give another --out")
    return folder / place


def _to_lines(opened: reading.Archive, target: BinaryIO, progress: Progress) -> Report:
    """Lines with their ends; an item that is lost leaves an empty one."""
    count, lost, end = 0, 0, b""
    for item, following in zip(opened.items(), line_ends(opened.more)):
        target.write(end)
        target.write(b"" if item is None else _file_of(item))
        count, lost, end = count + 1, lost + (item is None), following
        progress.advance(count)
    target.write(end if opened.more.get("newline", True) else b"")
    target.flush()
    return {"items": count, "lost": lost}


def _to_fasta(opened: reading.Archive, target: BinaryIO, progress: Progress) -> Report:
    """The FASTA file as it was; a record that is lost leaves its header."""

    def pairs() -> Iterator[tuple[str, bytes | None]]:
        for count, (name, item) in enumerate(opened.named_items(), 1):
            yield name, None if item is None else _file_of(item)
            progress.advance(count)

    record = opened.more["fasta"]
    count, lost = fasta.write(target, pairs(), record if isinstance(record, dict) else {})
    return {"items": count, "lost": lost}


def render_decompress(report: Report, quiet: bool) -> None:
    """A remark on standard error: items go to standard output."""
    lost = f", {report['lost']} of them damaged and lost" if report["lost"] else ""
    place = "" if report["out"] is None else f" in {report['out']}"
    say(f"{report['items']} items{lost}{place}", quiet)
