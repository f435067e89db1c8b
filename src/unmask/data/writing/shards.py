"""How do symbols become shards, and what is left out? Collected in memory, written when full."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unmask.base.records import write_bytes, write_text
from unmask.data import tokens
from unmask.data.readers.pieces import Piece, where
from unmask.data.vocabularies import Foreign
from unmask.data.writing.encoding import Symbols, measured
from unmask.data.writing.form import GIVEN, LEARNT, NONE, Form, Record


@dataclass
class Writer:
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
        characters, in_bytes = measured(piece, ids, self.form.vocabulary)
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
