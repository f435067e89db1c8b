"""Source files: found in folders, opened whether compressed or not, refused when empty."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_OPENERS: dict[str, Callable[[Path, str], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_BUFFER = 2**17
"""Bytes that are unpacked at once."""


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
    """A file for reading, unpacked on the way where its name ends in .gz, .bz2 or .xz.

    Reading raises ValueError where the packed data are damaged or end too early.
    """
    opener = _OPENERS.get(path.suffix)
    if opener is None:
        return path.open("rb")
    return cast(BinaryIO, io.BufferedReader(_Unpacked(path, opener(path, "rb")), _BUFFER))


class _Unpacked(io.RawIOBase):
    """The content of a packed file, whose damage is a ValueError that names the file."""

    def __init__(self, path: Path, file: Any) -> None:
        """Takes over ``file``, the opened unpacker of ``path``, and closes it in the end."""
        self.path, self.file = path, file

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fills a buffer; the bytes that it got, 0 at the end."""
        try:
            return int(self.file.readinto(buffer))
        except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk, not the data
                raise
            raise ValueError(
                f"{self.path} cannot be unpacked ({error}); expected a whole {self.path.suffix} file: get it again"
            ) from None

    def close(self) -> None:
        """Closes the unpacker and its file."""
        self.file.close()
        super().close()
