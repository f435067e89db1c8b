"""Source files: found in folders, opened whether compressed or not, refused when empty; ``-`` is standard input."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STANDARD = Path("-")
"""Standard input where a file is read, standard output where one is written."""

HUB = "hf:"
"""How the name of a data set of Hugging Face's hub begins."""

BOM = b"\xef\xbb\xbf"
"""What some programs put before text in UTF-8; it belongs to no line."""

_OPENERS: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.open,
    ".xz": lzma.open,
}
_MAGIC = {".gz": (0, b"\x1f\x8b\x08"), ".bz2": (4, b"1AY&SY"), ".xz": (0, b"\xfd7zXZ\x00")}
"""What stands where at the beginning of packed files."""
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
        if source.path == STANDARD:
            _check_input()
        elif not is_of_hub(source.path) and not source.path.stat().st_size:
            raise ValueError(f"{source.path} is empty; expected data")
    return found


def _check_input() -> None:
    with standard_input() as file:
        if not file.peek(1):
            raise ValueError("standard input is empty; expected data")


def _below(place: Path, pattern: str) -> list[Source]:
    """The files of one place; hidden ones stay out."""
    if place == STANDARD:
        return [Source(STANDARD, "stdin")]
    if is_of_hub(place):
        return [Source(place, str(place))]
    if place.is_file():
        return [Source(place, place.name)]
    if not place.is_dir():
        state = "is read only once" if place.exists() else "does not exist"
        raise ValueError(f"{place} {state}; expected a file, a folder, or - for standard input")
    paths = {p.relative_to(place).as_posix(): p for p in place.rglob(pattern) if p.is_file()}
    sources = [
        Source(paths[n], n) for n in sorted(paths) if not any(part.startswith(".") for part in n.split("/"))
    ]
    if not sources:
        raise ValueError(f"{place} holds no files {pattern}")
    return sources


def is_of_hub(path: Path) -> bool:
    """Whether a place is the name of a data set of the hub, and no file."""
    return str(path).startswith(HUB) and not path.exists()


def shown(path: Path) -> str:
    """A file's name in messages."""
    return "standard input" if path == STANDARD else str(path)


def once(*paths: Path | None) -> None:
    """ValueError where more than one of the files to read is standard input."""
    if paths.count(STANDARD) > 1:
        raise ValueError("standard input (-) for two files; expected it for one: give the other by its name")


def check_file(path: Path, what: str = "a file") -> None:
    """ValueError for a folder in a file's place."""
    if path != STANDARD and path.is_dir():
        raise ValueError(f"{path} is a folder; expected {what}, or - for standard input")


def open_binary(path: Path, *, by_name: bool = False) -> BinaryIO:
    """A file (``-``: standard input) for reading, unpacked on the way where it is a .gz, .bz2 or .xz file.

    Its name or its first bytes say so; only its name with ``by_name``. ValueError for a folder; reading raises it where
    the packed data are damaged or end too early.
    """
    check_file(path)
    file = standard_input() if path == STANDARD else path.open("rb")
    kind = path.suffix if path.suffix in _OPENERS else "" if by_name else _packed(file)
    if not kind:
        return cast(BinaryIO, file)
    opener = _OPENERS[kind]
    return cast(
        BinaryIO, io.BufferedReader(_Unpacked(shown(path), kind, opener(cast(BinaryIO, file)), file), _BUFFER)
    )


def is_packed(path: Path) -> bool:
    """Whether `open_binary` unpacks this file."""
    if path.suffix in _OPENERS:
        return True
    with path.open("rb") as file:
        return bool(_packed(file))


def _packed(file: io.BufferedReader) -> str:
    """The ending of the packed format that a file begins like, or nothing."""
    head = file.peek(10)
    return next((kind for kind, (at, magic) in _MAGIC.items() if head[at : at + len(magic)] == magic), "")


def standard_input() -> io.BufferedReader:
    """Standard input in bytes; closing it leaves the real one open. Inside `rereadable` each call begins at its start."""
    if _SPOOLED:
        _SPOOLED[-1].seek(0)
        return io.BufferedReader(_Kept(_SPOOLED[-1]), _BUFFER)
    source = getattr(sys.stdin, "buffer", None) or io.BytesIO(sys.stdin.read().encode())
    return io.BufferedReader(_Kept(source), _BUFFER)


_SPOOLED: list[Any] = []


@contextmanager
def rereadable(paths: Sequence[Path]) -> Iterator[None]:
    """Keeps standard input in a temporary file for as long as it lasts, where it is among ``paths``: for several passes."""
    if STANDARD not in paths:
        yield
        return
    with tempfile.TemporaryFile() as copy, standard_input() as file:
        shutil.copyfileobj(file, copy)
        _SPOOLED.append(copy)
        try:
            yield
        finally:
            _SPOOLED.remove(copy)


def read_bytes(path: Path, what: str | None = "data") -> bytes:
    """All of a file, unpacked; ValueError where it holds nothing, unless ``what`` it should hold is None."""
    with open_binary(path) as file:
        data = file.read()
    if not data and what is not None:
        raise ValueError(f"{shown(path)} is empty; expected {what}")
    return data


def read_text(path: Path, what: str = "text") -> str:
    """All of a text file in UTF-8, unpacked, line ends as they are, without a byte order mark.

    ValueError names the line of what is not UTF-8.
    """
    data = read_bytes(path, what).removeprefix(BOM)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{shown(path)}, line {line}: {not_utf8(data[error.start])}") from None


def read_lines(path: Path, what: str | None = "lines") -> list[bytes]:
    """The lines of a file without their ends (``\\n`` or ``\\r\\n``) and a byte order mark; ValueError if it is empty."""
    lines = read_bytes(path, what).removeprefix(BOM).split(b"\n")
    return [line.removesuffix(b"\r") for line in (lines if lines[-1] else lines[:-1])]


def text_lines(path: Path, what: str | None = "lines") -> list[str]:
    """The lines of a UTF-8 file; ValueError names the first that is not."""
    return [decoded(line, path, number) for number, line in enumerate(read_lines(path, what), 1)]


def decoded(line: bytes, path: Path, number: int) -> str:
    """The text of line ``number`` of a file; ValueError names the line where it is not UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(path)}, line {number}: {not_utf8(line[error.start])}") from None


def not_utf8(byte: int) -> str:
    """What is wrong with a text that has this byte where none such can be."""
    return f"not UTF-8 (byte {byte:#04x}); expected text in UTF-8: convert the file"


class _Kept(io.RawIOBase):
    """A file that stays open when this is closed."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fills a buffer; the bytes that it got, 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = self.file.read(len(view))
        view[: len(data)] = data
        return len(data)


class _Unpacked(io.RawIOBase):
    """The content of a packed file, whose damage is a ValueError that names the file."""

    def __init__(self, name: str, kind: str, file: Any, source: Any) -> None:
        """Takes over ``file``, the unpacker of the file ``source``, and closes both in the end."""
        self.name, self.kind, self.file, self.source = name, kind, file, source

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
                f"{self.name} cannot be unpacked ({error}); expected a whole {self.kind} file: get it again"
            ) from None

    def close(self) -> None:
        """Closes the unpacker and its file."""
        self.file.close()
        self.source.close()
        super().close()
