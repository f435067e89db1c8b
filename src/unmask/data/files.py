"""Source files: found in folders, opened whether compressed or not, refused when empty."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

_OPENERS: dict[str, Callable[[Path, str], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


@dataclass(frozen=True)
class Source:
    """A file and its name: the path below the folder that was given, or just the file's name."""

    path: Path
    name: str

    @property
    def folder(self) -> str:
        """The first folder of the name; empty for a file that was given itself or lies at the top."""
        return self.name.rpartition("/")[0].partition("/")[0]


def find(places: Sequence[Path], pattern: str = "*") -> list[Source]:
    """The files among ``places`` and those below its folders that match, in the order of their names.

    ValueError for what does not exist, a folder without such files, and an empty file.
    """
    found = [source for place in places for source in _below(place, pattern)]
    if not found:
        raise ValueError("no sources; expected at least one file or folder")
    for source in found:
        if not source.path.stat().st_size:
            raise ValueError(f"{source.path} is empty; expected data")
    return found


def _below(place: Path, pattern: str) -> list[Source]:
    """The files of one place; hidden ones stay out."""
    if place.is_file():
        return [Source(place, place.name)]
    if not place.is_dir():
        raise ValueError(f"{place} does not exist; expected a file or a folder")
    paths = {p.relative_to(place).as_posix(): p for p in place.rglob(pattern) if p.is_file()}
    sources = [
        Source(paths[n], n) for n in sorted(paths) if not any(part.startswith(".") for part in n.split("/"))
    ]
    if not sources:
        raise ValueError(f"{place} holds no files {pattern}")
    return sources


def open_binary(path: Path) -> BinaryIO:
    """A file for reading, unpacked on the way where its name ends in .gz, .bz2 or .xz."""
    opener = _OPENERS.get(path.suffix)
    return path.open("rb") if opener is None else cast(BinaryIO, opener(path, "rb"))
