"""`compress`: items to a file, whole or one block at a time, by one process or several.

Work goes block by block (up to 256 items), so memory does not grow with the input, and a block's bytes depend on its own
items only. Several processes each write every so manieth block into a part, and the parts are joined: the file is that of
a single process. A part that was stopped goes on after its last whole block.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from unmask.base.numbers import whole
from unmask.base.records import replacing
from unmask.base.types import Plan
from unmask.codec import container, subjects, tables
from unmask.codec.coder import Damaged
from unmask.codec.container import BLOCK_ITEMS, Entry, Place
from unmask.codec.inspection import Summary
from unmask.codec.layout import Coding, encode_items, log_likelihoods, row_sizes, symbols_of
from unmask.codec.settings import Order, Settings, Wrapper, law_of, method_of, to_record
from unmask.codec.subjects import Item, Subject, subject_of
from unmask.orders.samplers import Sampler
from unmask.version import __version__

if TYPE_CHECKING:
    from unmask.models import Model


DEFAULTS = Settings()
"""One position per call, in random order."""


BLOCK_POSITIONS = 2**16
"""About how many positions a block has at most: work is shown and resumed block by block."""


@dataclass(frozen=True)
class Job:
    """A compression that is set up: the header to write and how items are encoded."""

    coding: Coding
    returns: str
    named: int
    header: bytes

    @property
    def block_items(self) -> int:
        """Items of each block but the last: 256, or fewer where rows are long."""
        return max(16, min(BLOCK_ITEMS, BLOCK_POSITIONS // self.coding.subject.length))

    def block(
        self, first: int, items: Sequence[Item], names: Sequence[str] = ()
    ) -> tuple[bytes, list[Entry], int]:
        """The block of items numbered from ``first``, its entries, and how many bytes the items have.

        Packed names count as well: they are a part of the source.
        """
        data = [self._bytes(first + i, item) for i, item in enumerate(items)]
        entries = encode_items(self.coding, data, first, names)
        told = names if self.named == container.PACKED_NAMES else ()
        source = sum(map(len, data)) + sum(len(name.encode("utf-8", "surrogateescape")) for name in told)
        return container.write_block(first, entries, self.named), entries, source

    def _bytes(self, number: int, item: Item) -> bytes:
        try:
            return subjects.to_bytes(item, self.returns, self.coding.subject.denoiser.vocab_size)
        except ValueError as error:
            raise ValueError(f"item {number}: {error}") from None


def prepare(
    model: Model | Subject,
    settings: Settings = DEFAULTS,
    *,
    returns: str | None = None,
    named: int = 0,
    lengths: Iterable[int] | None = None,
    batch: int = 64,
    verify: bool = True,
    shorter: bool = True,
) -> Job:
    """Sets up a compression; ``lengths`` are the masked counts of rows, where they are known beforehand.

    ``named`` says whether items have names, and how these stand: see `container.write_block`.
    """
    batch = whole(batch, "batch", 1)
    subject = subject_of(model)
    kind = subject.returns if returns is None else returns
    method = method_of(settings, subject, None if isinstance(settings.plan, int) else lengths)
    law = law_of(method, subject, settings.order, settings.wrapper)
    record = {
        "library": __version__,
        "model": {"name": subject.name, "identity": subject.identity, "length": subject.length},
        "vocab_size": subject.denoiser.vocab_size,
        "returns": kind,
        "named": bool(named),
        "method": to_record(method),
        "table": tables.checksum(method.grid),
    } | ({"names": "packed"} if named == container.PACKED_NAMES else {})
    return Job(
        Coding(subject, law, method, batch, verify, shorter), kind, named, container.write_header(record)
    )


def write(
    file: BinaryIO,
    job: Job,
    items: Iterable[Item],
    *,
    names: Iterable[str] | None = None,
    more: Callable[[], dict[str, Any]] = dict,
    advance: Callable[[Summary], object] = lambda _: None,
) -> Summary:
    """Writes an archive of items to an open file, block by block; ``more()`` goes into its end after the last item."""
    file.write(job.header)
    summary, places, offset = Summary(), list[Place](), len(job.header)
    for first, part, titles in blocks(items, names, job.block_items):
        data, entries, source = job.block(first, part, titles)
        file.write(data)
        places.append(Place(offset, len(data), first, len(part)))
        offset += len(data)
        summary.add(entries)
        summary.source_bytes = (summary.source_bytes or 0) + source
        advance(summary)
    end = container.write_index(offset, places, more())
    file.write(end)
    summary.bytes = offset + len(end)
    return summary


def blocks(
    items: Iterable[Item], names: Iterable[str] | None, size: int
) -> Iterator[tuple[int, list[Item], list[str]]]:
    """Items in blocks of ``size``: the number of the first, the items, their names."""
    source, titles, first = iter(items), iter(() if names is None else names), 0
    while part := list(islice(source, size)):
        yield first, part, list(islice(titles, len(part)))
        first += len(part)


def compress(
    model: Model | Subject,
    items: Iterable[Item],
    *,
    plan: Plan = 1,
    order: Order | None = None,
    seed: int = 0,
    substeps: int = 1,
    wrapper: Wrapper | None = None,
    band: float = 1e-9,
    batch: int = 64,
    verify: bool = True,
    shorter: bool = True,
    sampler: Sampler | None = None,
) -> bytes:
    """An archive of items, losslessly: texts, bytes of texts, images uint8, or symbols int64 [n] of a bare denoiser.

    ``model`` is a loaded model, or `subjects.of_denoiser` of any denoiser. ``plan`` is positions per call, the sizes of
    all steps, or a function of the masked count; ``order`` a named order (default random; left to right for a causal
    model) and ``wrapper`` a named change of the law. What the model cannot say is stored by itself; ``verify`` decodes
    every item after encoding and stores those that would not come back, ``shorter`` those that coding would make longer.
    ``batch`` does not change the archive. A ``sampler`` takes the place of plan, order, seed and sub-steps, and stands in
    the header, so that nothing has to be given again: thresholds and budgets compress too. Source:
    ARDM, arXiv 2110.02037; guard band and format derived, docs/codec.md.
    """
    settings = Settings(plan, order, seed, substeps, 0, wrapper, band=band, sampler=sampler)
    subject = subject_of(model)
    returns, items = _peeked(items, subject)
    lengths = None
    if not isinstance(settings.plan, int) and isinstance(items, Sequence):
        lengths = masked_counts(subject, items, returns)
    job = prepare(
        subject, settings, returns=returns, lengths=lengths, batch=batch, verify=verify, shorter=shorter
    )
    file = io.BytesIO()
    write(file, job, items)
    return file.getvalue()


def _peeked(items: Iterable[Item], subject: Subject) -> tuple[str, Iterable[Item]]:
    """What items come back as, by the first one, and all items."""
    source = iter(items)
    head = list(islice(source, 1))
    returns = subjects.kind_of(head[0], subject) if head else subject.returns
    return returns, items if isinstance(items, Sequence) else chain(head, source)


def masked_counts(subject: Subject, items: Iterable[Item], returns: str) -> set[int]:
    """The masked counts of all rows of items: what `prepare` needs plans for, so that the header holds no others."""
    found: set[int] = set()
    for item in items:
        with suppress(ValueError):
            ids = symbols_of(subject, subjects.to_bytes(item, returns, subject.denoiser.vocab_size))
            found.update(() if ids is None else row_sizes(subject, len(ids)))
    return found


def scored(
    model: Model | Subject, items: Sequence[Item], settings: Settings, *, batch: int = 64
) -> list[float | None]:
    """Nats of each item along the order and plan of ``settings``, without rounding; None where it would be stored."""
    subject = subject_of(model)
    returns, _ = _peeked(items, subject)
    job = prepare(
        subject, settings, returns=returns, lengths=masked_counts(subject, items, returns), batch=batch
    )
    data = [subjects.to_bytes(item, returns, subject.denoiser.vocab_size) for item in items]
    return log_likelihoods(job.coding, data)


# --- several processes ------------------------------------------------------------------------------


def part_path(out: Path, rank: int, world: int) -> Path:
    """Where process ``rank`` of ``world`` keeps its part."""
    return out.with_name(f"{out.name}.part-{rank}-of-{world}")


def write_part(
    out: Path,
    rank: int,
    world: int,
    job: Job,
    items: Iterable[Item],
    *,
    names: Iterable[str] | None = None,
    more: Callable[[], dict[str, Any]] = dict,
    advance: Callable[[Summary], object] = lambda _: None,
) -> None:
    """Writes the blocks number ``rank``, ``rank + world``, .. of all items; what a part holds already is kept.

    ValueError when the part was begun with another model or other settings.
    """
    path = part_path(out, rank, world)
    path.touch()
    with path.open("r+b") as file:
        places = _resumed(file, job, path)
        done, summary = len(places), Summary()
        shares = blocks(items, names, job.block_items)
        own = (block for block in shares if block[0] // job.block_items % world == rank)
        for mine, (first, part, titles) in enumerate(own):
            if mine >= done:
                data, entries, _ = job.block(first, part, titles)
                places.append(Place(file.tell(), len(data), first, len(part)))
                file.write(data)
                file.flush()
                summary.add(entries)
                advance(summary)
        file.write(container.write_index(file.tell(), places, more()))
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _resumed(file: BinaryIO, job: Job, path: Path) -> list[Place]:
    """The whole blocks of a part, the file placed and cut behind them; a new part gets its header."""
    start = file.read(len(job.header))
    if len(start) < len(job.header):
        file.seek(0)
        file.write(job.header)
        file.truncate()
        return []
    if start != job.header:
        raise ValueError(
            f"{path} was begun with another model or other settings; expected the same: delete it"
        )
    places, offset, limit = list[Place](), len(start), file.seek(0, 2)
    while True:
        try:
            listed, end = container.read_table(file, offset, limit, job.named)
        except Damaged:
            file.seek(offset)
            file.truncate()
            return places
        places.append(Place(offset, end - offset, listed[0].number, len(listed)))
        offset = end


def join(out: Path, world: int, job: Job, *, wait: float = 0.2) -> Summary:
    """The archive of all parts, as one process would have written it; waits until all are whole, then deletes them."""
    found = [_whole(part_path(out, rank, world), job, wait) for rank in range(world)]
    places = sorted((p.first, rank, p) for rank, (part, _) in enumerate(found) for p in part)
    files = [part_path(out, rank, world).open("rb") for rank in range(world)]
    summary, joined, offset = Summary(source_bytes=None), list[Place](), len(job.header)
    with replacing(out) as target:
        target.write(job.header)
        for _, rank, place in places:
            summary.add(
                container.read_table(files[rank], place.offset, place.offset + place.length, job.named)[0]
            )
            files[rank].seek(place.offset)
            target.write(files[rank].read(place.length))
            joined.append(Place(offset, place.length, place.first, place.count))
            offset += place.length
        end = container.write_index(offset, joined, found[0][1])
        target.write(end)
    for rank, file in enumerate(files):
        file.close()
        part_path(out, rank, world).unlink()
    summary.bytes = offset + len(end)
    return summary


def _whole(path: Path, job: Job, wait: float) -> tuple[list[Place], dict[str, Any]]:
    """The blocks of a finished part, for which it waits, and what its end says."""
    while True:
        try:
            with path.open("rb") as file:
                if file.read(len(job.header)) == job.header:
                    places, more = container.read_index(file, len(job.header))
                    return [_numbered(file, place, job) for place in places], more
        except (FileNotFoundError, Damaged, json.JSONDecodeError):
            pass
        time.sleep(wait)


def _numbered(file: BinaryIO, place: Place, job: Job) -> Place:
    """The place with the number that its block says, for a part has gaps."""
    listed, _ = container.read_table(file, place.offset, place.offset + place.length, job.named)
    return Place(place.offset, place.length, listed[0].number, place.count)
