"""FASTA files in archives: a record is an item called by its header; how lines are wrapped stands at the archive's end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO

from unmask.data import files


@dataclass
class Layout:
    """What of a file is neither header nor sequence: line ends, and in runs of records how wide their lines are.

    Width 0 is a sequence on one line. ``newline`` says whether the last line has an end.
    """

    widths: list[list[int]] = field(default_factory=list)
    end: str = "\n"
    newline: bool = True

    def record(self) -> dict[str, Any]:
        """What an archive's end says."""
        return {"fasta": {"widths": self.widths, "end": self.end, "newline": self.newline}}

    def note(self, lines: list[bytes], place: str) -> None:
        """Takes the lines of the next sequence; ValueError where they are not as wide as each other."""
        sequence = b"".join(lines)
        known = self.widths[-1][1] if self.widths else 0
        for width in (known, len(lines[0]) if len(lines) > 1 else 0):
            if wrapped(sequence, width) == lines:
                break
        else:
            raise ValueError(
                f"{place}: lines of this sequence differ in width; expected --lines for such a file"
            )
        if self.widths and known == width:
            self.widths[-1][0] += 1
        else:
            self.widths.append([1, width])


def wrapped(sequence: bytes, width: int) -> list[bytes]:
    """The lines of a sequence."""
    if not width:
        return [sequence] if sequence else []
    return [sequence[i : i + width] for i in range(0, len(sequence), width)]


def records(path: Path, layout: Layout) -> Iterator[tuple[str, bytes]]:
    """Headers and sequences of a FASTA file, whose layout is noted; ValueError where it is none."""
    lines = _lines(path, layout)
    header, own, at = None, list[bytes](), 0
    for number, line in enumerate(lines, 1):
        place = f"{files.shown(path)}, line {number}"
        if line.startswith(b">"):
            if header is not None:
                layout.note(own, f"{files.shown(path)}, line {at}")
                yield header, b"".join(own)
            header, own, at = line[1:].decode("utf-8", "surrogateescape"), [], number
        elif header is None or not line:
            state = "a blank line" if not line else "text before the first header"
            raise ValueError(f"{place}: {state}; expected FASTA records that begin with >, or --lines")
        else:
            own.append(line)
    if header is not None:
        layout.note(own, f"{files.shown(path)}, line {at}")
        yield header, b"".join(own)


def _lines(path: Path, layout: Layout) -> Iterator[bytes]:
    """The lines of a file without their ends; ValueError where these are mixed."""
    with files.open_binary(path) as file:
        for number, line in enumerate(file, 1):
            layout.newline = line.endswith(b"\n")
            end = b"\r\n" if line.endswith(b"\r\n") else b"\n"
            if number == 1 and layout.newline:
                layout.end = end.decode()
            if layout.newline and end.decode() != layout.end:
                raise ValueError(
                    f"{files.shown(path)}, line {number}: another line end than before; expected --lines"
                )
            yield line.removesuffix(end) if layout.newline else line


def write(
    target: BinaryIO, items: Iterable[tuple[str, bytes | None]], record: dict[str, Any]
) -> tuple[int, int]:
    """The file of headers and sequences (None: lost, left empty), as it was; how many records and how many lost."""
    layout = _layout(record)
    widths = (width for count, width in layout.widths for width in repeat(width, count))
    end, pending, count, lost = layout.end.encode(), b"", 0, 0
    for (header, sequence), width in zip(items, widths):
        for line in (b">" + header.encode("utf-8", "surrogateescape"), *wrapped(sequence or b"", width)):
            target.write(pending + line)
            pending = end
        count, lost = count + 1, lost + (sequence is None)
    target.write(pending if layout.newline else b"")
    target.flush()
    return count, lost


def _layout(record: dict[str, Any]) -> Layout:
    """The layout of an archive's end; ValueError for a record of another form."""
    widths, end, newline = (record.get(name) for name in ("widths", "end", "newline"))
    good = isinstance(widths, list) and all(
        isinstance(run, list) and len(run) == 2 and all(type(n) is int and 0 <= n < 2**62 for n in run)
        for run in widths
    )
    if not good or end not in ("\n", "\r\n") or not isinstance(newline, bool):
        raise ValueError("field fasta: expected widths, end and newline; the archive is damaged")
    return Layout(widths, str(end), newline)  # type: ignore[arg-type]
