"""What `unmask compress` takes in: files, folders, their lines or the images in them, one item after another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unmask.codec.container import PACKED_NAMES
from unmask.codec.subjects import Item
from unmask.command_line.commands.archives import fasta
from unmask.command_line.output import say
from unmask.data import files
from unmask.data.readers.images import idx, pillow

IDX = (".idx", "-ubyte", ".gz")
"""How names of idx files end."""


@dataclass
class Pile:
    """What is to be compressed: names and items, how many (None: not known), how names stand, and how lines end."""

    pairs: Callable[[], Iterator[tuple[str, Item]]]
    total: int | None
    named: int
    ends: LineEnds | fasta.Layout = field(default_factory=lambda: LineEnds())

    def more(self) -> dict[str, Any]:
        """What an archive's end says of them."""
        return self.ends.record()


ENDS = (b"\n", b"\r\n")
"""How lines end; all else is part of a line."""


@dataclass
class LineEnds:
    """How lines end, in runs of lines that end alike, and whether the last one has an end."""

    runs: list[list[Any]] = field(default_factory=list)
    newline: bool = True

    def cut(self, line: bytes) -> bytes:
        """The next line without its end, which is noted; a last line without one counts like the line before."""
        self.newline = line.endswith(b"\n")
        end = ENDS[line.endswith(ENDS[1])]
        kind = end.decode() if self.newline else self.runs[-1][1] if self.runs else "\n"
        if self.runs and self.runs[-1][1] == kind:
            self.runs[-1][0] += 1
        else:
            self.runs.append([1, kind])
        return line.removesuffix(end) if self.newline else line

    def record(self) -> dict[str, Any]:
        """What an archive's end says: ``newline``, and ``line_ends`` [[lines, end], ..] where not all are ``\\n``."""
        plain = all(kind == "\n" for _, kind in self.runs)
        return {"newline": self.newline} | ({} if plain else {"line_ends": self.runs})


def line_ends(more: dict[str, Any]) -> Iterator[bytes]:
    """The ends of an archive's lines, without end; ValueError for a record of another form."""
    runs = more.get("line_ends", [])
    kinds = [end.decode() for end in ENDS]
    good = isinstance(runs, list) and all(
        isinstance(run, list) and len(run) == 2 and _count(run[0]) and run[1] in kinds for run in runs
    )
    if not good:
        raise ValueError("field line_ends: expected runs of lines; the archive is damaged")
    for count, kind in runs:
        yield from repeat(str(kind).encode(), count)
    yield from repeat(b"\n")


def _count(value: object) -> bool:
    """Whether a value of a foreign record is a number of lines."""
    return isinstance(value, int) and 0 <= value < 2**62


Kind: TypeAlias = Literal["files", "lines", "JSON lines", "images", "FASTA"]
"""What an item is."""


def kind_of(lines: bool, jsonl: bool, images: bool, fasta: bool = False) -> Kind:
    """The kind that the options name; ValueError where they name several."""
    named: dict[str, Kind] = {
        "--lines": "lines",
        "--jsonl": "JSON lines",
        "--images": "images",
        "--fasta": "FASTA",
    }
    said = [option for option, given in zip(named, (lines, jsonl, images, fasta)) if given]
    if len(said) > 1:
        raise ValueError(f"{said[0]} with {said[1]}; expected one of them")
    return named[said[0]] if said else "files"


def taken(sources: tuple[Path, ...], kind: Kind, quiet: bool) -> Pile:
    """What to compress, from paths; ValueError when there is nothing, or a name twice. Says what it takes files for."""
    if not sources:
        raise ValueError("nothing to compress: expected files, folders or - for standard input")
    if files.STANDARD in sources and (len(sources) > 1 or kind == "images"):
        raise ValueError("standard input (-) with other sources or --images; expected it alone")
    if kind == "FASTA":
        return _fasta(sources)
    if kind in ("lines", "JSON lines"):
        return _lines(sources, kind, quiet)
    if sources == (files.STANDARD,):
        data = files.standard_input().read()
        _remark("standard input", data, quiet)
        return Pile(lambda: iter([("stdin", data)]), 1, True)
    found = _files(sources)
    if kind == "images":
        return Pile(lambda: _images(found), _count_images(found), True)
    if len(found) == 1:
        _remark(str(found[0][1]), found[0][1].read_bytes(), quiet)
    return Pile(lambda: ((name, path.read_bytes()) for name, path in found), len(found), True)


def _remark(name: str, data: bytes, quiet: bool) -> None:
    """Says that a file of several lines is taken whole, which may not be what was meant."""
    found = _looks_like(data)
    if found is not None:
        say(
            f"{name}: {found}, taken as one item; with {_option(data, found)}",
            quiet,
        )


def _option(data: bytes, found: str) -> str:
    """The option that takes a file apart, and into what."""
    if data.startswith(b">"):
        return "--fasta each record is one"
    return f"{'--jsonl' if 'JSON' in found else '--lines'} each line is one"


def _fasta(sources: tuple[Path, ...]) -> Pile:
    """The records of one FASTA file, or of standard input."""
    if len(sources) != 1 or sources[0].is_dir():
        raise ValueError("--fasta takes one file, or -; expected that")
    if sources[0] != files.STANDARD:
        _files(sources)
    found = Pile(lambda: iter(()), None, PACKED_NAMES)

    def pairs() -> Iterator[tuple[str, Item]]:
        found.ends = layout = fasta.Layout()
        yield from fasta.records(sources[0], layout)

    found.pairs = pairs
    return found


def _looks_like(data: bytes) -> str | None:
    """``12 lines of text`` or ``12 JSON lines``; None for one line or none, and for what is no text."""
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError:
        return None
    if len(lines) < 2 or b"\0" in data:
        return None
    return f"{len(lines)} {'JSON lines' if all(map(_is_json, lines[:9])) else 'lines of text'}"


def _is_json(line: str) -> bool:
    """Whether a line is a JSON object or list."""
    try:
        return isinstance(json.loads(line), dict | list)
    except ValueError:
        return False


def _files(sources: tuple[Path, ...]) -> list[tuple[str, Path]]:
    """Names and paths of files, and of all files in folders."""
    found: list[tuple[str, Path]] = []
    for source in sources:
        if not source.exists():
            raise ValueError(f"no file '{source}': expected files, folders or - for standard input")
        if not source.is_file() and not source.is_dir():
            raise ValueError(f"{source} is read only once; expected files, folders or - for standard input")
        inside = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else []
        if source.is_dir() and not inside:
            raise ValueError(f"{source} holds no files; expected some")
        found += (
            [(p.relative_to(source).as_posix(), p) for p in inside]
            if source.is_dir()
            else [(source.name, source)]
        )
    names = [name for name, _ in found]
    if twice := [n for n in names if names.count(n) > 1] if len(set(names)) < len(names) else []:
        raise ValueError(
            f"two files are called '{twice[0]}'; expected different names: give their folder instead"
        )
    return found


def _lines(sources: tuple[Path, ...], kind: Kind, quiet: bool) -> Pile:
    """The lines of files, one after another, or of standard input; packed files are unpacked, with a remark."""
    from_files = sources != (files.STANDARD,)
    paths = [path for _, path in _files(sources)] if from_files else [files.STANDARD]
    total = sum(_count_lines(path) for path in paths) if from_files else None
    for path in paths if from_files else ():
        if files.is_packed(path):
            say(f"{path} is packed; the archive gets its lines, unpacked", quiet)
        _doubt(path, kind, quiet)
    found = Pile(lambda: iter(()), total, False)

    def pairs() -> Iterator[tuple[str, Item]]:
        found.ends = ends = LineEnds()
        for path in paths:
            with files.open_binary(path) as file:
                for line in file:
                    yield "", ends.cut(line)

    found.pairs = pairs
    return found


def _doubt(path: Path, kind: Kind, quiet: bool) -> None:
    """Says that a file does not look like lines of this kind; they come back as they are all the same."""
    with files.open_binary(path) as file:
        start = file.read(2**16)
    if b"\0" in start:
        say(f"{path} looks binary; its lines are the pieces between bytes 10", quiet)
    elif kind == "JSON lines" and start and not _is_json(start.split(b"\n")[0].decode(errors="replace")):
        say(f"{path}, line 1 is no JSON object or list; taken as lines of text", quiet)


def _count_lines(path: Path) -> int:
    """Lines of a file, the last one with or without its end."""
    count, last = 0, b"\n"
    with files.open_binary(path) as file:
        while piece := file.read(2**20):
            count, last = count + piece.count(b"\n"), piece[-1:]
    return count + (last != b"\n")


def _is_idx(path: Path) -> bool:
    return path.name.endswith(IDX)


def _count_images(files: list[tuple[str, Path]]) -> int | None:
    return None if any(_is_idx(path) for _, path in files) else len(files)


def _images(files: list[tuple[str, Path]]) -> Iterator[tuple[str, Item]]:
    """Pixels uint8 of image files and of the images in idx files; each is called .png."""
    for name, path in files:
        if _is_idx(path):
            yield from ((f"{name}/{n:06}.png", np.asarray(piece.data)) for n, piece in enumerate(idx(path)))
        else:
            yield f"{name.removesuffix(path.suffix)}.png", _pixels(path)


def _pixels(path: Path) -> NDArray[np.uint8]:
    """The pixels of a picture; ValueError where they are more than 8 bits of grey or red, green and blue."""
    try:
        with pillow().open(path) as image:
            if image.mode not in ("L", "RGB"):
                raise ValueError(
                    f"{path} has pixels of mode {image.mode}; expected 8 bits of grey or colours without transparency"
                )
            return np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} is not a readable image ({error})") from None
