"""What an archive says of itself: its header, and how many items, symbols and bytes it holds. No model is needed."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from unmask import pictures
from unmask.base.numbers import shown
from unmask.codec import container
from unmask.codec.container import BLOCK_ITEMS, Listed, units
from unmask.codec.settings import Method, from_record

Data: TypeAlias = bytes | str | Path | BinaryIO
"""An archive: its bytes, its file name, or an open file that can seek."""


@dataclass
class Summary:
    """What a file holds, in items, symbols and bytes."""

    items: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    symbols: int = 0
    """Symbols of coded items."""
    coded_bytes: int = 0
    """Payload of coded items."""
    payload_bytes: int = 0
    """Payload of all items."""
    bytes: int = 0
    """The whole file."""
    source_bytes: int | None = 0
    """Bytes of the items, known to the encoder only."""

    @property
    def bits_per_symbol(self) -> float:
        """Payload bits of coded items per symbol of theirs; NaN without any."""
        return 8 * self.coded_bytes / self.symbols if self.symbols else float("nan")

    def _repr_html_(self) -> str:
        """Sizes as a notebook shows them."""
        sizes = {"source": self.source_bytes or 0, "archive": self.bytes, "of it items": self.payload_bytes}
        rows = [(name, float(size), f"{size} bytes") for name, size in sizes.items() if size]
        return pictures.fragment(
            pictures.bars("Archive", rows, f"{self.items} items, {self.symbols} symbols.")
        )

    def add(self, listed: Iterable[Listed]) -> None:
        """Counts the items of a block."""
        for unit in units(listed):
            coded, stored = unit.lengths
            self.items += len(unit.members)
            self.kinds.update(container.NAMES[member.kind] for member in unit.members)
            self.symbols += sum(member.size for member in unit.coded)
            self.coded_bytes += coded
            self.payload_bytes += coded + stored

    def take(self, counts: dict[str, Any]) -> None:
        """Counts what another summary has counted: its fields, as JSON holds them."""
        self.kinds.update(counts["kinds"])
        for name in ("items", "symbols", "coded_bytes", "payload_bytes"):
            setattr(self, name, getattr(self, name) + counts[name])
        self.source_bytes = (self.source_bytes or 0) + counts["source_bytes"]


@dataclass(frozen=True)
class Header:
    """What an archive says of itself at its beginning: names, hash, method; ``length`` is that of the header, in bytes."""

    record: dict[str, Any]
    method: Method
    length: int

    @property
    def named(self) -> int:
        """Whether items have names, and how they stand: see `container.write_block`."""
        return container.PACKED_NAMES if self.record.get("names") == "packed" else int(self.record["named"])

    @property
    def together(self) -> int:
        """Items of a bundle; 1 where each stands by itself."""
        return int(self.record.get("together", 1))

    @property
    def returns(self) -> str:
        """What items come back as."""
        return str(self.record["returns"])


def read_header(file: BinaryIO) -> Header:
    """The header of an archive; ValueError says which field is wrong."""
    file.seek(0)
    record = container.read_header(file)
    kinds = {
        "library": str,
        "model": dict,
        "vocab_size": int,
        "returns": str,
        "named": bool,
        "method": dict,
        "table": int,
    }
    for name, kind in kinds.items():
        if not isinstance(record.get(name), kind):
            raise ValueError(f"field {name}: {shown(record.get(name))}, expected a {kind.__name__}")
    together = record.get("together", 2)
    if type(together) is not int or not 2 <= together <= BLOCK_ITEMS:
        raise ValueError(f"field together: {shown(together)}, expected 2..{BLOCK_ITEMS}")
    for name, kind in (("name", str), ("identity", str), ("length", int)):
        found = record["model"].get(name)
        if not isinstance(found, kind) or len(str(found)[:1001]) > 1000:
            raise ValueError(f"field model: {name} {shown(found)}, expected a {kind.__name__}")
    return Header(record, from_record(record["method"]), file.tell())


def opened(data: Data) -> BinaryIO:
    """The archive as a file that can seek."""
    if isinstance(data, bytes | bytearray | memoryview):
        return io.BytesIO(data)
    return Path(data).open("rb") if isinstance(data, str | Path) else data


@dataclass(frozen=True)
class Inspection:
    """An archive's header, its summary, and what its end says; no model is needed."""

    header: Header
    summary: Summary
    more: dict[str, Any]
    names: list[str]


def inspect(data: Data) -> Inspection:
    """What an archive holds, from its header, tables and index; ValueError where those are damaged."""
    if isinstance(data, str | Path):
        with Path(data).open("rb") as own:
            return inspect(own)
    file = opened(data)
    header = read_header(file)
    places, more = container.read_index(file, header.length, header.together)
    summary, names = Summary(source_bytes=None), list[str]()
    for place in places:
        listed, _ = container.read_table(
            file, place.offset, place.offset + place.length, header.named, header.together
        )
        summary.add(listed)
        names += [entry.name for entry in listed] if header.named else []
    summary.bytes = file.seek(0, 2)
    return Inspection(header, summary, more, names)
