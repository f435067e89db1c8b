"""Token folders: symbols on disk, memory-mapped, of any size, with a manifest that says what they are.

``manifest.json`` holds the vocabulary, counts, the bytes that the symbols came from (for bits per byte), the source files
with their hashes, and for every shard its name, number of symbols and checksums. A shard ``tokens-00000.bin`` is one flat
array of little-endian unsigned integers. A *stream* is one long sequence, cut into windows at will; *items* are sequences
of their own (lines, molecules, images), and ``ends-00000.bin`` holds where each one ends (uint64) in its shard. Images may
have labels, ``labels-00000.bin`` (uint32).
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unmask.base.numbers import shown, whole
from unmask.base.records import read_record
from unmask.data.vocabularies import Vocabulary, from_record

Ints: TypeAlias = NDArray[np.int64]

FORMAT = "unmask tokens"
BLOCK = 2**22
"""Bytes that one checksum covers: damage is located to this many bytes."""


@dataclass(frozen=True)
class Tokens:
    """An opened token folder; make it with `load`. Symbols are read when they are asked for."""

    folder: Path
    manifest: dict[str, Any]

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """How symbols are numbered."""
        return from_record(self.manifest["vocabulary"])

    @property
    def symbols(self) -> int:
        """Number of symbols in all shards."""
        return sum(s["symbols"] for s in self.manifest["shards"])

    @property
    def items(self) -> int:
        """Number of items in all shards; 0 for a stream."""
        return sum(s["items"] for s in self.manifest["shards"])

    @property
    def longest(self) -> int:
        """Symbols of the longest item."""
        return whole(self.manifest["longest"], "longest", 0)

    @cached_property
    def _arrays(self) -> list[NDArray[Any]]:
        kind = np.dtype(self.manifest["dtype"]).newbyteorder("<")
        return [np.memmap(self.folder / s["file"], kind, "r") for s in self.manifest["shards"]]

    @cached_property
    def _ends(self) -> list[NDArray[np.uint64]]:
        return [np.fromfile(self.folder / s["ends"], "<u8") for s in self.manifest["shards"]]

    @cached_property
    def _first_symbols(self) -> Ints:
        return np.cumsum([0, *(s["symbols"] for s in self.manifest["shards"])])

    @cached_property
    def _first_items(self) -> Ints:
        return np.cumsum([0, *(s["items"] for s in self.manifest["shards"])])

    @cached_property
    def labels(self) -> Ints:
        """The label of every item, int64 [items]; ValueError where there are none."""
        shards = self.manifest["shards"]
        if not all("labels" in s for s in shards):
            raise ValueError(f"{self.folder} has no labels")
        return np.concatenate([np.fromfile(self.folder / s["labels"], "<u4") for s in shards]).astype(
            np.int64
        )

    @cached_property
    def lengths(self) -> Ints:
        """Symbols of every item, int64 [items]."""
        return np.concatenate([np.diff(ends, prepend=np.uint64(0)) for ends in self._ends]).astype(np.int64)

    def span(self, start: int, stop: int) -> Ints:
        """Symbols start..stop-1 of the whole, int64; ValueError outside 0..symbols."""
        if not 0 <= start <= stop <= self.symbols:
            raise ValueError(f"symbols {start}..{stop} of {self.folder}: expected 0..{self.symbols}")
        first = self._first_symbols
        shards = range(
            int(np.searchsorted(first, start, "right")) - 1, int(np.searchsorted(first, stop, "left"))
        )
        parts = [self._arrays[s][max(start - first[s], 0) : stop - first[s]] for s in shards]
        return np.concatenate(parts or [np.empty(0)]).astype(np.int64)

    def item(self, index: int) -> Ints:
        """The symbols of one item, int64; ValueError for a number outside 0..items-1."""
        if not 0 <= index < self.items:
            raise ValueError(f"item {index} of {self.folder}: expected 0..{self.items - 1}")
        shard = int(np.searchsorted(self._first_items, index, "right")) - 1
        place = index - int(self._first_items[shard])
        ends = self._ends[shard]
        return self._arrays[shard][int(ends[place - 1]) if place else 0 : int(ends[place])].astype(np.int64)

    def windows(self, starts: Ints, length: int) -> Ints:
        """Stretches of ``length`` symbols from each start [B]: int64 [B, length], also for no starts."""
        spans = [self.span(int(s), int(s) + length) for s in starts]
        return np.stack(spans) if spans else np.empty((0, length), np.int64)

    def padded(self, indices: Ints, length: int, fill: int) -> Ints:
        """Items [B] as int64 [B, length], filled up with ``fill``; ValueError for an item that is longer."""
        out = np.full((len(indices), length), fill, np.int64)
        for row, index in enumerate(indices):
            item = self.item(int(index))
            if len(item) > length:
                raise ValueError(
                    f"item {int(index)} of {self.folder} has {len(item)} symbols; expected at most {length}"
                )
            out[row, : len(item)] = item
        return out


_FILES = {"file": "crc32", "ends": "ends_crc32", "labels": "labels_crc32"}
"""The files of a shard and their checksums, as the manifest calls them."""


def load(folder: str | Path) -> Tokens:
    """Opens a token folder; ValueError when it is not one, is unfinished, or a file's size differs from the manifest."""
    manifest = Path(folder) / "manifest.json"
    if not manifest.is_file():
        unfinished = manifest.with_name("progress.json").is_file()
        state = (
            "is an unfinished preparation: start it again"
            if unfinished
            else "holds no manifest.json: make a token folder"
        )
        raise ValueError(f"{folder} {state} with `unmask data prepare`")
    return _load(Path(folder), manifest.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _load(folder: Path, _changed: int) -> Tokens:
    """Opens a token folder, once for every manifest."""
    try:
        opened = Tokens(folder, read_record((folder / "manifest.json").read_text(), FORMAT))
        sizes = [size for shard in opened.manifest["shards"] for size in _sizes(opened, shard)]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / 'manifest.json'} lacks {error}; expected a manifest of `unmask data prepare`"
        ) from None
    for path, expected in sizes:
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            state = "is missing" if found is None else f"has {found} bytes"
            raise ValueError(f"shard {path} {state}; expected {expected} bytes: prepare the data again")
    return opened


def _sizes(opened: Tokens, shard: dict[str, Any]) -> list[tuple[Path, int]]:
    """The files of a shard and the bytes that each should have."""
    kind = opened.manifest["dtype"]
    if kind not in KINDS:
        raise ValueError(f"{opened.folder} has symbols of dtype {shown(kind)}; expected {', '.join(KINDS)}")
    symbols, items = (
        whole(shard[key], f"{key} of a shard of {opened.folder}", 0) for key in ("symbols", "items")
    )
    sizes = {"file": symbols * np.dtype(kind).itemsize, "ends": 8 * items, "labels": 4 * items}
    return [(_inside(opened.folder, shard[key]), size) for key, size in sizes.items() if key in shard]


KINDS = ("uint8", "uint16", "uint32")
"""What symbols are stored as."""


def _inside(folder: Path, name: object) -> Path:
    """The file of a shard; ValueError for a name that leads out of the folder: a manifest may be a stranger's."""
    place = folder / name if isinstance(name, str) and "\0" not in name and len(name) < 256 else None
    if place is None or ".." in place.parts[len(folder.parts) :] or not _leads_into(place, folder):
        raise ValueError(f"{folder} has a shard called {shown(name)}; expected a file inside the folder")
    return place


def _leads_into(place: Path, folder: Path) -> bool:
    try:
        return place.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a name too long, or a link to itself
        return False


def verify(folder: str | Path) -> Tokens:
    """Opens a token folder and reads all of it; ValueError names a damaged file and where the damage is."""
    opened = load(folder)
    for shard in opened.manifest["shards"]:
        for key, crc in _FILES.items():
            if key in shard:
                _compare(opened.folder / shard[key], shard[crc])
    return opened


def _compare(path: Path, expected: list[int]) -> None:
    """ValueError at the first block whose checksum differs."""
    for number, (found, wanted) in enumerate(zip(checksums(path), expected, strict=True)):
        if found != wanted:
            end = min((number + 1) * BLOCK, path.stat().st_size)
            raise ValueError(
                f"shard {path} is damaged between byte {number * BLOCK} and {end}: prepare the data again"
            )


def checksums(path: Path) -> list[int]:
    """CRC32 of every `BLOCK` bytes of a file."""
    with path.open("rb") as file:
        return [zlib.crc32(block) for block in iter(lambda: file.read(BLOCK), b"")]
