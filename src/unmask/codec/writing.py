"""`compress`: items to a file, whole or one block at a time, by one process or several.

Work goes block by block (up to 256 items), so memory does not grow with the input, and a block's bytes depend on its own
items only. So blocks are the pieces that several processes, or calls, share, and the file is that of a single one.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from unmask.base.numbers import whole
from unmask.base.progress import IN_TURN, Piece, Pieces, Work
from unmask.base.types import Plan
from unmask.codec import container, subjects, tables
from unmask.codec.container import BLOCK_ITEMS, Listed, Place
from unmask.codec.inspection import Summary
from unmask.codec.layout import Coding, encode_bundles, encode_items, log_likelihoods, row_sizes, symbols_of
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
        """Items of each block but the last: 256, or fewer where rows are long; whole bundles."""
        most = max(16, min(BLOCK_ITEMS, BLOCK_POSITIONS // self.coding.subject.length))
        together = self.coding.together
        return max(together, most // together * together)

    def block(
        self, first: int, items: Sequence[Item], names: Sequence[str] = ()
    ) -> tuple[bytes, list[Listed], int]:
        """The block of items numbered from ``first``, its table, and how many bytes the items have.

        Packed names count as well: they are a part of the source.
        """
        data = [self._bytes(first + i, item) for i, item in enumerate(items)]
        block = self._written(first, data, names)
        told = names if self.named == container.PACKED_NAMES else ()
        source = sum(map(len, data)) + sum(len(name.encode("utf-8", "surrogateescape")) for name in told)
        listed, _ = container.read_table(io.BytesIO(block), 0, len(block), self.named, self.coding.together)
        return block, listed, source

    def _written(self, first: int, data: Sequence[bytes], names: Sequence[str]) -> bytes:
        """The block of items of these bytes."""
        if self.coding.together > 1:
            bundles = encode_bundles(self.coding, data, first, names)
            return container.write_bundles(first, bundles, bool(self.named))
        return container.write_block(first, encode_items(self.coding, data, first, names), self.named)

    def piece(self, first: int, items: Sequence[Item], names: Sequence[str] = ()) -> Piece:
        """The block of items numbered from ``first``, and what it counts."""
        data, listed, source = self.block(first, items, names)
        counted = Summary(source_bytes=source)
        counted.add(listed)
        block = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return {"block": block, "first": first, "counts": vars(counted) | {"kinds": dict(counted.kinds)}}

    def digest(self, first: int, items: Sequence[Item], names: Sequence[str] = ()) -> str:
        """What tells items and names apart from others."""
        found = hashlib.sha256()
        data = [self._bytes(first + i, item) for i, item in enumerate(items)]
        for part in [*data, *(name.encode("utf-8", "surrogateescape") for name in names)]:
            found.update(len(part).to_bytes(8, "little") + part)
        return found.hexdigest()

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
    together: int = 1,
) -> Job:
    """Sets up a compression; ``lengths`` are the masked counts of rows, where they are known beforehand.

    ``named`` says whether items have names, and how these stand: see `container.write_block`. So many items ``together``
    are a bundle.
    """
    batch, together = whole(batch, "batch", 1), whole(together, "together", 1, BLOCK_ITEMS)
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
    }
    record |= {"names": "packed"} if named == container.PACKED_NAMES else {}
    record |= {"together": together} if together > 1 else {}
    coding = Coding(subject, law, method, batch, verify, shorter, together)
    return Job(coding, kind, named, container.write_header(record))


def write(
    file: BinaryIO,
    job: Job,
    items: Iterable[Item],
    *,
    names: Iterable[str] | None = None,
    more: Callable[[], dict[str, Any]] = dict,
    advance: Callable[[int, Summary], object] = lambda *_: None,
    pieces: Pieces = IN_TURN,
) -> Summary:
    """Writes an archive of items to an open file, block by block; ``more()`` goes into its end after the last item.

    ``pieces`` says who makes the blocks; ``advance`` hears how many items are done, and what was written by then.
    """
    file.write(job.header)
    summary, places, offset = Summary(), list[Place](), len(job.header)
    works = works_of(job, items, names, digests=pieces.shared)
    for found in pieces.each("blocks", works, lambda done: advance(done, summary)):
        data = found["block"].numpy().tobytes()
        file.write(data)
        places.append(Place(offset, len(data), found["first"], found["counts"]["items"]))
        offset += len(data)
        summary.take(found["counts"])
    end = container.write_index(offset, places, more())
    file.write(end)
    summary.bytes = offset + len(end)
    return summary


def works_of(job: Job, items: Iterable[Item], names: Iterable[str] | None, digests: bool) -> Iterator[Work]:
    """The blocks of an archive, to be made by whoever does; with ``digests`` each tells apart what it is made from."""
    for first, part, titles in blocks(items, names, job.block_items):
        told = job.digest(first, part, titles) if digests else ""
        yield Work(first, len(part), partial(job.piece, first, part, titles), told)


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
    together: int = 1,
) -> bytes:
    """An archive of items, losslessly: texts, bytes of texts, images uint8, or symbols int64 [n] of a bare denoiser.

    ``model`` is a loaded model, or `subjects.of_denoiser` of any denoiser. ``plan`` is positions per call, the sizes of
    all steps, or a function of the masked count, of which ``partial(plans.in_proportion, sizes)`` takes the least room in
    the header; ``order`` a named order (default random; left to right for a causal
    model) and ``wrapper`` a named change of the law. What the model cannot say is stored by itself; ``verify`` decodes
    every item after encoding and stores those that would not come back, ``shorter`` those that coding would make longer.
    ``batch`` does not change the archive. A ``sampler`` takes the place of plan, order, seed and sub-steps, and stands in
    the header, so that nothing has to be given again: thresholds and budgets compress too. So many items ``together`` share
    one stream, one checksum and one entry, up to 256: smaller, and read and damaged together.
    Source: ARDM, arXiv 2110.02037; guard band and format derived, docs/codec.md.
    """
    settings = Settings(plan, order, seed, substeps, 0, wrapper, band=band, sampler=sampler)
    subject = subject_of(model)
    returns, items = _peeked(items, subject)
    lengths = None
    if not isinstance(settings.plan, int) and isinstance(items, Sequence):
        lengths = masked_counts(subject, items, returns)
    job = prepare(
        subject,
        settings,
        returns=returns,
        lengths=lengths,
        batch=batch,
        verify=verify,
        shorter=shorter,
        together=together,
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
