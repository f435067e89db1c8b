"""Writing token folders: from a stream of pieces to shards and a manifest, in bounded memory.

A preparation that was stopped goes on after its last finished shard when it is started again, and ends with the
same bytes as one that was not. ``progress.json`` holds what is needed for it; ``manifest.json`` comes last, so
a folder without one is unfinished.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unmask.base.records import TEMPORARY, read_record, write_bytes, write_text
from unmask.data import tokens
from unmask.data.files import STANDARD, standard_input
from unmask.data.pieces import Piece, size, where
from unmask.data.vocabularies import Bytes, Characters, Foreign, Levels, Vocabulary, to_record

Record: TypeAlias = dict[str, Any]
Symbols: TypeAlias = NDArray[Any]

SHARD = 2**26
"""Symbols of a shard: 64 MB where a symbol takes a byte."""

BATCH = 2**20
"""Characters or bytes of small pieces that are encoded together, and at most so many symbols wait in memory."""

PROGRESS = "unmask preparation"

GIVEN, LEARNT, NONE, WINDOWS = "given", "learnt", "none", "windows"
POLICIES = {
    GIVEN: "the length is given: the network sees where an item ends, and its cost is that of its length's frequency",
    LEARNT: "filled up with a pad symbol that is masked, predicted and counted like any other",
    NONE: "all items have the same length; another length is an error",
    WINDOWS: "a stream, cut into windows of any length",
}
"""How items of different lengths share a batch, by name; the manifest carries the name.

The tokens of `LEARNT` and `GIVEN` are the same bytes, and nothing here pads. A network with ``ends`` wants `GIVEN`.
"""


@dataclass(frozen=True)
class Form:
    """What a token folder holds and how: the settings of a preparation.

    ``shape``: of images, ``(h, w)`` or ``(h, w, 3)``. ``limit``: symbols that an item may have. ``skip``: items with
    foreign symbols, longer ones and faulty pieces are left out and counted; otherwise they are errors. ``shard``: symbols
    of a shard. ``note``, ``more``: what readers should know, in words and as fields of the manifest. ``reading``: how the
    files are read, so that a preparation goes on with the same reading only.
    """

    kind: Literal["stream", "items", "images"]
    vocabulary: Vocabulary
    policy: str = GIVEN
    shape: tuple[int, ...] = ()
    limit: int | None = None
    skip: bool = False
    shard: int = SHARD
    note: str = ""
    more: Record = field(default_factory=dict)
    reading: str = ""

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"padding policy '{self.policy}': expected one of {', '.join(POLICIES)}")
        if self.shard < 1:
            raise ValueError(f"shards of {self.shard} symbols; expected at least 1")

    @property
    def dtype(self) -> str:
        """The smallest unsigned type that holds every symbol."""
        return np.min_scalar_type(self.vocabulary.size - 1).name

    def record(self) -> Record:
        """What the manifest says about every folder of this form."""
        return {
            "kind": self.kind,
            "vocabulary": to_record(self.vocabulary),
            "dtype": self.dtype,
            "shape": list(self.shape),
            "policy": self.policy,
            **({"note": self.note} if self.note else {}),
            **self.more,
        }


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
    job = _job(form, sources)
    if (folder / "manifest.json").is_file():
        return _finished(folder, job)
    writer = _Writer(folder, form, _progress(folder, job))
    try:
        _write_all(writer, pieces, advance)
        _manifest(folder, form, sources, writer.state)
    except ValueError:  # not a stop: the same data would fail again
        if clean:
            undo(folder)
        raise
    return tokens.load(folder)


def _write_all(writer: _Writer, pieces: Iterable[Piece], advance: Callable[[int], object]) -> None:
    """Takes in all pieces from where an earlier start stopped."""
    number, done = writer.state["pieces"], 0
    for batch in _batches(islice(pieces, number, None)):
        for piece, ids in zip(batch, _encoded(writer.form, batch)):
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


# --- the writer -----------------------------------------------------------------------------------


@dataclass
class _Writer:
    """Collects the symbols of one shard in memory and writes it when it is full."""

    folder: Path
    form: Form
    state: Record
    parts: list[Symbols] = field(default_factory=list)
    size: int = 0
    ends: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def add(self, number: int, piece: Piece, ids: Symbols | Foreign) -> None:
        """Takes in piece ``number``: splits streams between shards, keeps items whole."""
        if piece.fault is not None:
            self.leave(*piece.fault)
        elif isinstance(ids, Foreign):
            self.leave("foreign", f"{where(piece, ids.at)}: {ids.message}")
        elif self.form.kind == "stream":
            self.stream(number, ids)
            self.count(piece, ids)
        elif self.fits(piece, len(ids)):
            if self.size and self.size + len(ids) > self.form.shard:
                self.flush(number, 0)
            self.put(ids)
            self.ends.append(self.size)
            self.labels += [] if piece.label is None else [piece.label]
            self.count(piece, ids)

    def stream(self, number: int, ids: Symbols) -> None:
        """Takes in a stretch of a stream, from where an earlier start left it."""
        at, shard = self.state["offset"] if number == self.state["pieces"] else 0, self.form.shard
        while len(ids) - at >= shard - self.size:
            step = shard - self.size
            self.put(ids[at : at + step])
            at += step
            self.flush(number, at)
        self.put(ids[at:])

    def fits(self, piece: Piece, length: int) -> bool:
        """Whether an item is kept; ValueError for a length that the form refuses."""
        longest, limit = self.state["longest"], self.form.limit
        if not length:
            self.drop("blank")
            return False
        if limit is not None and length > limit:
            self.leave(
                "long",
                f"{where(piece)}: {length} symbols; expected at most {limit}: raise the limit, or skip such items",
            )
            return False
        if self.form.policy == NONE and longest not in (0, length):
            raise ValueError(
                f"{where(piece)}: {length} symbols after items of {longest}; padding policy '{NONE}' expects "
                f"equal lengths: choose '{LEARNT}' or '{GIVEN}'"
            )
        return True

    def leave(self, why: str, message: str) -> None:
        """Counts an item that is left out; ValueError where that is not wanted."""
        if not self.form.skip or self.form.kind == "stream":
            raise ValueError(message)
        self.state["first_dropped"] = self.state.get("first_dropped") or message
        self.drop(why)

    def drop(self, why: str) -> None:
        """Counts an item that is left out."""
        self.state["dropped"][why] = self.state["dropped"].get(why, 0) + 1

    def put(self, ids: Symbols) -> None:
        """Appends symbols to the shard."""
        self.parts.append(ids)
        self.size += len(ids)

    def count(self, piece: Piece, ids: Symbols) -> None:
        """Adds a piece that was taken in whole."""
        characters, in_bytes = _measure(piece, ids)
        self.state["characters"] += characters
        self.state["source_bytes"] += in_bytes
        if self.form.kind != "stream":
            self.state["longest"] = max(self.state["longest"], len(ids))

    def flush(self, pieces: int, offset: int) -> None:
        """Writes the shard; the preparation may go on at symbol ``offset`` of piece number ``pieces``."""
        shards = self.state["shards"]
        record: Record = {"symbols": self.size, "items": len(self.ends)}
        flat = np.concatenate(self.parts).astype(np.dtype(self.form.dtype).newbyteorder("<"))
        record |= self.save("file", f"tokens-{len(shards):05}.bin", flat)
        if self.form.kind != "stream":
            record |= self.save("ends", f"ends-{len(shards):05}.bin", np.array(self.ends, "<u8"))
        if len(self.labels) not in (0, len(self.ends)):
            raise ValueError(
                f"{len(self.labels)} labels of {len(self.ends)} items; expected one for each, or none"
            )
        if self.labels:
            record |= self.save("labels", f"labels-{len(shards):05}.bin", np.array(self.labels, "<u4"))
        shards.append(record)
        self.parts, self.size, self.ends, self.labels = [], 0, [], []
        self.state |= {"pieces": pieces, "offset": offset}
        write_text(self.folder / "progress.json", json.dumps(self.state))

    def save(self, key: str, name: str, array: Symbols) -> Record:
        """Writes one array atomically; its name and checksums."""
        write_bytes(self.folder / name, array.tobytes())
        return {key: name, "crc32" if key == "file" else f"{key}_crc32": tokens.checksums(self.folder / name)}

    def close(self, pieces: int) -> None:
        """Writes what is left; nothing of the ``pieces`` is to be taken in again."""
        if self.size:
            self.flush(pieces, 0)


# --- encoding -------------------------------------------------------------------------------------


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    """Pieces in lists of about `BATCH` characters or bytes."""
    batch, total = [], 0
    for piece in pieces:
        batch.append(piece)
        total += size(piece.data) + 64  # blank items take room, too
        if total >= BATCH:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _encoded(form: Form, batch: list[Piece]) -> Iterator[Symbols | Foreign]:
    """The symbols of each piece, or what is wrong with it; small pieces of plain bytes are encoded at once."""
    sound = all(piece.fault is None for piece in batch)
    joined = _joined(form.vocabulary, [piece.data for piece in batch]) if sound else None
    if joined is None:
        yield from (_one(form, piece) for piece in batch)
        return
    ends = np.cumsum([0, *(len(piece.data) for piece in batch)]).tolist()
    symbols = joined.astype(form.dtype)
    yield from (symbols[a:b] for a, b in pairwise(ends))


def _joined(vocabulary: Vocabulary, data: list[Any]) -> Symbols | None:
    """The symbols of many pieces of bytes, where a byte is a symbol and none is foreign."""
    if not isinstance(vocabulary, Bytes | Characters) or not all(isinstance(d, bytes) for d in data):
        return None
    joined = b"".join(data)
    if isinstance(vocabulary, Bytes):
        return vocabulary.encode(joined)
    try:
        return vocabulary.encode(joined.decode("ascii"))
    except (Foreign, UnicodeDecodeError):
        return None


def _one(form: Form, piece: Piece) -> Symbols | Foreign:
    """The symbols of one piece, or what is wrong with it."""
    if piece.fault is not None:
        return np.empty(0, form.dtype)
    try:
        return encode(form.vocabulary, piece).astype(form.dtype)
    except Foreign as error:
        return error


def encode(vocabulary: Vocabulary, piece: Piece) -> Symbols:
    """The symbols of a piece [n]; ValueError (`Foreign` with its place for text) for what the vocabulary lacks."""
    data = piece.data
    if isinstance(vocabulary, Levels) != isinstance(data, np.ndarray):
        raise ValueError(f"{where(piece)}: images go with levels, text and bytes with other vocabularies")
    if isinstance(vocabulary, Levels):
        return _levels(vocabulary, piece)
    if isinstance(vocabulary, Bytes):
        return vocabulary.encode(data)  # type: ignore[arg-type]
    try:
        return vocabulary.encode(data.decode() if isinstance(data, bytes) else data)  # type: ignore[arg-type]
    except UnicodeDecodeError as error:
        raise Foreign("not UTF-8; expected text in UTF-8, or the vocabulary of bytes", error.start) from None


def _levels(vocabulary: Levels, piece: Piece) -> Symbols:
    """The values of an image, row by row."""
    values = np.asarray(piece.data).reshape(-1)
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < vocabulary.size:
        raise ValueError(
            f"{where(piece)}: values {values.min()}..{values.max()}; expected 0..{vocabulary.size - 1}"
        )
    return values


def _measure(piece: Piece, ids: Symbols) -> tuple[int, int]:
    """Characters and bytes of a piece; an image has no characters, and its values count as bytes."""
    data = piece.data
    if isinstance(data, str):
        return len(data), len(data) if data.isascii() else len(data.encode("utf-8", "surrogatepass"))
    if isinstance(data, bytes):
        plain = data.isascii()
        return len(data) if plain else sum(byte & 0xC0 != 0x80 for byte in data), len(data)
    return 0, len(ids)


# --- records --------------------------------------------------------------------------------------


def _job(form: Form, sources: list[Record]) -> str:
    """A fingerprint of everything that decides the bytes of the folder."""
    settings: list[Any] = [form.record(), form.limit, form.skip, form.shard, sources]
    settings += [form.reading] if form.reading else []
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]


def _finished(folder: Path, job: str) -> tokens.Tokens:
    """The folder, when it holds this very preparation."""
    opened = tokens.load(folder)
    if opened.manifest.get("job") != job:
        raise ValueError(
            f"{folder} holds tokens of other sources or settings: delete it or choose another folder"
        )
    return opened


def _progress(folder: Path, job: str) -> Record:
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


def _manifest(folder: Path, form: Form, sources: list[Record], state: Record) -> None:
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
