"""Bulk work in several processes, or calls: pieces by global item number, kept as files, joined as one process would.

A piece is a batch of items whatever the number of processes, so shapes, noise and sums are those of one process. Each
finished piece is a file of the work's folder, written aside and renamed; a piece that is there is not done again, whoever
did it. Without a folder pieces go over the network, and nothing is kept.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from unmask.base.checkpoints import read_tensors, write_tensors
from unmask.base.progress import IN_TURN, Partly, Piece, Pieces, Work
from unmask.base.records import read_record, write_text
from unmask.recipes.run import Machine
from unmask.training.together.locks import locked
from unmask.training.together.world import (
    World,
    agreed,
    check_alike,
    gathered,
    of_first,
    started,
)

MANIFEST = "work.json"
"""What is computed, in the folder of a work."""

PATIENCE = datetime.timedelta(days=2)
"""How long a process that is done waits for the others; one that is gone is noticed at once."""


@dataclass
class Dealt(Pieces):
    """Pieces that the processes of a world do in turn, kept in ``folder`` if there is one.

    ``only``: just those that begin among these items, and nothing is joined. ``everywhere``: all processes get what the
    pieces give; otherwise the first one alone does, and the others leave by `Partly`.
    """

    world: World
    folder: Path | None = None
    only: range | None = None
    everywhere: bool = False
    about: str = ""
    flag: Path | None = None
    asked: list[str] = field(default_factory=list)
    """Names of pieces that were asked for, of the whole work."""
    held: ExitStack = field(default_factory=ExitStack)
    """The lock of the folder, for who does the whole."""

    shared = True

    @property
    def speaks(self) -> bool:  # type: ignore[override]
        """Whether this process is the first."""
        return self.world.first

    def of(self, **facts: Any) -> None:
        """Says what is computed; ValueError where the folder holds other work, or another process does."""
        known = json.loads(json.dumps(facts, default=str))
        check_alike(self.world, known)
        self.about = _digest(json.dumps(known, sort_keys=True))
        if self.folder is not None:
            place = self.folder
            self.flag = place / f".failed-{of_first(self.world, os.urandom(4).hex())}"
            agreed(self.world, lambda: self._begun(place, known) if self.world.first else None)
            agreed(self.world, lambda: check(place, known, self.world.rank))

    def _begun(self, folder: Path, facts: dict[str, Any]) -> None:
        claim(folder, facts)
        if self.only is None:
            self.held.enter_context(locked(folder, "worked"))

    def each(
        self, name: str, works: Iterable[Work], advance: Callable[[int], object] = lambda _: None
    ) -> Iterator[Piece]:
        """What the pieces give, in order, once all are there."""
        there = of_first(self.world, self._there()) if self.folder is not None else set[str]()
        try:
            names, held = agreed(self.world, lambda: self._done(name, works, advance, there))
        finally:
            if self.flag is not None:
                self.flag.unlink(missing_ok=True)
        check_alike(self.world, {f"the input of {name}": f"{len(names)} pieces, {_digest(' '.join(names))}"})
        self.asked += names
        if self.folder is None:
            held = {key: piece for some in gathered(self.world, held) for key, piece in some.items()}
        if self.only is not None or not (self.everywhere or self.world.first):
            raise Partly
        return (held[key] if self.folder is None else self._read(key) for key in names)

    def _done(
        self, name: str, works: Iterable[Work], advance: Callable[[int], object], there: set[str]
    ) -> tuple[list[str], dict[str, Piece]]:
        """Names of all pieces, this process's own being done; what they give where nothing is kept."""
        names, held, turn, items = list[str](), dict[str, Piece](), 0, 0
        for work in works:
            key = f"{name}-{len(names):08d}-{_digest(self.about + work.of)}"
            names.append(key)
            if key not in there and (self.only is None or work.first in self.only):
                if turn % self.world.size == self.world.rank and not self._failed():
                    self._do(key, work, held)
                turn += 1
            items += work.count
            advance(items)
        return names, held

    def _do(self, key: str, work: Work, held: dict[str, Piece]) -> None:
        """One piece, unless another call has done it meanwhile; where it fails the others learn of it."""
        try:
            if self.folder is None:
                held[key] = work.make()
            elif not self._path(key).exists():
                write_tensors(self._path(key), packed(work.make()))
        except Exception:
            with suppress(OSError):  # a disk may be full for this, too
                if self.flag is not None:
                    self.flag.touch()
            raise

    def _failed(self) -> bool:
        return self.flag is not None and self.flag.exists()

    def _there(self) -> set[str]:
        """Names of the pieces that the folder holds."""
        return {path.stem for path in self.folder.glob("*.safetensors")} if self.folder is not None else set()

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{key}.safetensors"

    def _read(self, key: str) -> Piece:
        path = self._path(key)
        if not path.is_file():
            raise ValueError(
                f"{path} is not there: expected a folder that all processes see, and nobody empties"
            )
        return unpacked(read_tensors(path))

    def lacking(self) -> int:
        """How many of the pieces that were asked for nobody has done yet."""
        return len(set(self.asked) - self._there())


@contextmanager
def working(
    folder: Path | None,
    only: range | None = None,
    *,
    device: str = "cpu",
    everywhere: bool = False,
    beside: Path | None = None,
) -> Iterator[Pieces]:
    """The pieces of this process, as torchrun made it; `IN_TURN` where nothing is kept and nobody else is there.

    ``beside`` is a folder that several processes keep pieces in unless told otherwise; it vanishes when all went well.
    """
    kept = "the pieces that are done" if folder is not None or beside is not None else "the beginning"
    with started(Machine(device=device), ("work", kept)) as world, ExitStack() as stack:
        if world.size == 1 and folder is None:
            yield IN_TURN
            return
        place = beside if folder is None else folder
        yield Dealt(_patient(world), place, only, everywhere, held=stack)
        if folder is None and place is not None and world.first:
            shutil.rmtree(place, ignore_errors=True)


def _patient(world: World) -> World:
    """The same world, whose processes wait long for each other."""
    if world.size == 1:
        return world
    return World(world.rank, world.size, dist.new_group(backend="gloo", timeout=PATIENCE))


# --- the folder -----------------------------------------------------------------------------------


def claim(folder: Path, facts: dict[str, Any]) -> None:
    """Makes a folder that of a work, if it is none yet; ValueError where it holds something else."""
    path = folder / MANIFEST
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    if any(p.name != "lock" and not p.name.startswith(".") for p in folder.iterdir()) and not path.exists():
        raise ValueError(
            f"{folder} holds files but no {MANIFEST}: expected a new folder, or one of such work"
        )
    write_text(path, json.dumps({"format": "unmask.work", "version": 1, "of": facts}, indent=1))


def check(folder: Path, facts: dict[str, Any], rank: int = 0) -> None:
    """ValueError that names what differs, unless the folder is that of this work."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"{path} is not there in process {rank}: expected a folder that all processes see")
    try:
        found = read_record(path.read_text(), "unmask.work").get("of")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    found = found if isinstance(found, dict) else {}
    for name in [*facts, *(n for n in found if n not in facts)]:
        if found.get(name) != facts.get(name):
            said, wanted = (_short(facts_.get(name)) for facts_ in (found, facts))
            raise ValueError(
                f"{folder} holds other work: its {name} is {said}, and {wanted} here; "
                "expected the same command, or another folder"
            )


def _short(value: object) -> str:
    """A value on one short line."""
    text = "nothing" if value is None else " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def packed(piece: Piece) -> dict[str, Tensor]:
    """A piece as tensors alone: what is none becomes bytes of JSON under the name of no other."""
    rest = {name: value for name, value in piece.items() if not isinstance(value, Tensor)}
    told = torch.frombuffer(bytearray(json.dumps(rest).encode()), dtype=torch.uint8)
    return {f"={name}": value for name, value in piece.items() if isinstance(value, Tensor)} | {"json": told}


def unpacked(tensors: dict[str, Tensor]) -> Piece:
    """The piece again."""
    rest: Piece = json.loads(bytes(tensors["json"].numpy().tobytes()))
    return {name[1:]: value for name, value in tensors.items() if name[0] == "="} | rest


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
