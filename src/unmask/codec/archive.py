"""`compress` and `decompress`: items to a file and back, whole or one at a time; `inspect` says what a file holds.

Work goes block by block (up to 256 items), so memory does not grow with the input, and a block's bytes depend on its own
items only.
"""

from __future__ import annotations

import io
import os
import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeAlias

from unmask.base.numbers import shown, whole
from unmask.base.records import TEMPORARY
from unmask.base.types import Plan
from unmask.codec import container, subjects, tables
from unmask.codec.coder import Damaged
from unmask.codec.container import BLOCK_ITEMS, CODED, ESCAPED, Entry, Listed, Place
from unmask.codec.layout import (
    Budget,
    Coding,
    decode_items,
    encode_items,
    log_likelihoods,
    portions,
    row_sizes,
    symbols_of,
)
from unmask.codec.settings import Method, Order, Settings, Wrapper, from_record, law_of, method_of, to_record
from unmask.codec.subjects import Item, Subject
from unmask.version import __version__

if TYPE_CHECKING:
    from unmask.models import Model

DEFAULTS = Settings()
"""One position per call, in random order."""

BLOCK_POSITIONS = 2**16
"""About how many positions a block has at most: work is shown and resumed block by block."""

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

    def add(self, entries: Iterable[Entry | Listed]) -> None:
        """Counts the items of a block."""
        for entry in entries:
            length = len(entry.payload) if isinstance(entry, Entry) else entry.length
            self.items += 1
            self.kinds[container.NAMES[entry.kind]] += 1
            self.payload_bytes += length
            if entry.kind in (CODED, ESCAPED):
                self.symbols += entry.size
                self.coded_bytes += length


# --- writing --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A compression that is set up: the header to write and how items are encoded."""

    coding: Coding
    returns: str
    named: bool
    header: bytes

    @property
    def block_items(self) -> int:
        """Items of each block but the last: 256, or fewer where rows are long."""
        return max(16, min(BLOCK_ITEMS, BLOCK_POSITIONS // self.coding.subject.length))

    def block(
        self, first: int, items: Sequence[Item], names: Sequence[str] = ()
    ) -> tuple[bytes, list[Entry], int]:
        """The block of items numbered from ``first``, its entries, and how many bytes the items have."""
        data = [self._bytes(first + i, item) for i, item in enumerate(items)]
        entries = encode_items(self.coding, data, first, names)
        return container.write_block(first, entries, self.named), entries, sum(map(len, data))

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
    named: bool = False,
    lengths: Iterable[int] | None = None,
    batch: int = 64,
    verify: bool = True,
    shorter: bool = True,
) -> Job:
    """Sets up a compression; ``lengths`` are the masked counts of rows, where they are known beforehand."""
    batch = whole(batch, "batch", 1)
    subject = _subject(model)
    kind = subject.returns if returns is None else returns
    method = method_of(settings, subject, None if isinstance(settings.plan, int) else lengths)
    law = law_of(method, subject, settings.order, settings.wrapper)
    record = {
        "library": __version__,
        "model": {"name": subject.name, "identity": subject.identity, "length": subject.length},
        "vocab_size": subject.denoiser.vocab_size,
        "returns": kind,
        "named": named,
        "method": to_record(method),
        "table": tables.checksum(method.grid),
    }
    return Job(
        Coding(subject, law, method, batch, verify, shorter), kind, named, container.write_header(record)
    )


def _subject(model: Model | Subject) -> Subject:
    return model if isinstance(model, Subject) else subjects.of_model(model)


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


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` when all went well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise


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
) -> bytes:
    """An archive of items, losslessly: texts, bytes of texts, images uint8, or symbols int64 [n] of a bare denoiser.

    ``model`` is a loaded model, or `subjects.of_denoiser` of any denoiser. ``plan`` is positions per call, the sizes of
    all steps, or a function of the masked count; ``order`` a named order (default random; left to right for a causal
    model) and ``wrapper`` a named change of the law. What the model cannot say is stored by itself; ``verify`` decodes
    every item after encoding and stores those that would not come back, ``shorter`` those that coding would make longer.
    ``batch`` does not change the archive. Source:
    ARDM, arXiv 2110.02037; guard band and format derived, docs/codec.md.
    """
    settings = Settings(plan, order, seed, substeps, 0, wrapper, band=band)
    subject = _subject(model)
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


# --- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """What an archive says of itself at its beginning: names, hash, method; ``length`` is that of the header, in bytes."""

    record: dict[str, Any]
    method: Method
    length: int

    @property
    def named(self) -> bool:
        """Whether items have names."""
        return bool(self.record["named"])

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
    for name, kind in (("name", str), ("identity", str), ("length", int)):
        found = record["model"].get(name)
        if not isinstance(found, kind) or len(str(found)[:1001]) > 1000:
            raise ValueError(f"field model: {name} {shown(found)}, expected a {kind.__name__}")
    return Header(record, from_record(record["method"]), file.tell())


PORTION = 2**18
"""Symbols, or bytes, that are decoded at once, or a batch of rows where that is more."""


class Archive:
    """An open archive: ``len``, `item`, `items`; made from its bytes, file name or file, and the model that wrote it.

    With ``errors`` "skip" a damaged item is None and damage to the index is worked around; with "raise" each is a
    ValueError that names the item. An item that claims more than the size of the file justifies (`layout.Budget`) counts as
    damaged; ``max_symbols`` accepts as many symbols, or bytes of stored items, in any case.
    """

    def __init__(
        self,
        model: Model | Subject,
        data: Data,
        *,
        errors: Literal["raise", "skip"] = "raise",
        batch: int = 64,
        order: Order | None = None,
        wrapper: Wrapper | None = None,
        max_symbols: int = 0,
    ) -> None:
        if errors not in ("raise", "skip"):
            raise ValueError(f"errors '{errors}': expected 'raise' or 'skip'")
        batch, self.max_symbols = whole(batch, "batch", 1), whole(max_symbols, "max_symbols", 0)
        self.file, self.errors, self._own = opened(data), errors, isinstance(data, str | Path)
        try:
            self.header = read_header(self.file)
            subject = _subject(model)
            check_subject(self.header, subject)
            law = law_of(self.header.method, subject, order, wrapper)
            self.coding = Coding(subject, law, self.header.method, batch)
            self.places, self.more = self._index()
            self._bytes = self.file.seek(0, 2)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file if the archive opened it."""
        if self._own:
            self.file.close()

    def _index(self) -> tuple[list[Place], dict[str, Any]]:
        try:
            return container.read_index(self.file, self.header.length)
        except Damaged:
            if self.errors == "raise":
                raise
            return list(container.scan(self.file, self.header.length, self.header.named)), {}

    def __len__(self) -> int:
        """How many items there are; after damage to the index, up to the last one that is left."""
        return self.places[-1].first + self.places[-1].count if self.places else 0

    def item(self, number: int) -> Item | None:
        """One item; only its block's table and its own payload are read."""
        if not 0 <= number < len(self):
            raise ValueError(f"item {number}: expected 0..{len(self) - 1} of this archive")
        place = self.places[bisect_right(self.places, number, key=lambda p: p.first) - 1]
        listed = [entry for entry in self._table(place) if entry.number == number]
        if not listed:
            return self._failed(number, Damaged("its block is lost"))
        return next(self._decoded(listed, self._budget()))

    def items(self) -> Iterator[Item | None]:
        """All items in order."""
        for _, item in self.named_items():
            yield item

    def named_items(self) -> Iterator[tuple[str, Item | None]]:
        """All items in order, with their names (empty where they have none)."""
        if self.errors == "raise":
            self._foresee()
        following, budget = 0, self._budget()
        for place in self.places:
            for number in range(following, place.first):  # blocks that a scan did not find
                yield "", self._failed(number, Damaged("its block is lost"))
            following = place.first + place.count
            yield from self._block(place, budget)

    def _budget(self) -> Budget:
        return Budget(self._bytes, self.max_symbols)

    def _foresee(self) -> None:
        """The error of the first item that is too large, before anything is computed for those before it."""
        budget = self._budget()
        for place in self.places:
            listed = list[Listed]()
            with suppress(Damaged):  # it is named in its turn
                listed = self._table(place)
            for entry in listed:
                try:
                    budget.take(entry)
                except Damaged as error:
                    raise Damaged(f"item {entry.number}: {error}") from None

    def _block(self, place: Place, budget: Budget) -> Iterator[tuple[str, Item | None]]:
        listed = self._table(place)
        if not listed:
            for number in range(place.first, place.first + place.count):
                yield "", self._failed(number, Damaged("its block is lost"))
            return
        yield from zip((entry.name for entry in listed), self._decoded(listed, budget))

    def _table(self, place: Place) -> list[Listed]:
        """A block's table; empty if it is damaged and errors are skipped."""
        try:
            listed, end = container.read_table(
                self.file, place.offset, place.offset + place.length, self.header.named
            )
            first = listed[0].number if listed else place.first
            if (end, first, len(listed)) != (place.offset + place.length, place.first, place.count):
                raise Damaged("the block is not the one that the index says")
        except Damaged as error:
            last = place.first + place.count - 1
            if self.errors == "raise":
                raise Damaged(f"items {place.first} to {last}: {error}") from None
            return []
        return listed

    def _decoded(self, listed: Sequence[Listed], budget: Budget) -> Iterator[Item | None]:
        """Items as they are asked for: what is computed ahead is one portion."""
        for part in portions(listed, max(PORTION, self.coding.batch * self.coding.subject.length)):
            payloads = [self._payload(entry) for entry in part]
            for entry, data in zip(part, decode_items(self.coding, part, payloads, budget)):
                yield self._item(entry.number, data)

    def _payload(self, entry: Listed) -> bytes:
        self.file.seek(entry.offset)
        return self.file.read(entry.length)

    def _item(self, number: int, data: bytes | Damaged) -> Item | None:
        if isinstance(data, Damaged):
            return self._failed(number, data)
        try:
            return subjects.from_bytes(data, self.header.returns, self.coding.subject.denoiser.vocab_size)
        except ValueError as error:
            return self._failed(number, Damaged(f"its bytes are no item ({error})"))

    def _failed(self, number: int, error: Damaged) -> Item | None:
        """None, or the error with the item's number."""
        if self.errors == "raise":
            raise Damaged(f"item {number}: {error}")
        return None


def decompress(
    model: Model | Subject,
    data: Data,
    *,
    errors: Literal["raise", "skip"] = "raise",
    batch: int = 64,
    order: Order | None = None,
    wrapper: Wrapper | None = None,
    max_symbols: int = 0,
) -> Iterator[Item | None]:
    """The items of an archive, one after another; ``data`` is its bytes, its file name, or an open file.

    ``batch``, threads and device need not be those of the encoder. ``errors`` "skip" yields None for a damaged item;
    "raise" is a ValueError that names it. ValueError also for another model, format version, order or wrapper.
    ``max_symbols`` are accepted however small the file is: see `Archive`.
    """
    return _then_closed(
        Archive(
            model,
            data,
            errors=errors,
            batch=batch,
            order=order,
            wrapper=wrapper,
            max_symbols=max_symbols,
        )
    )


def _then_closed(archive: Archive) -> Iterator[Item | None]:
    """All items; then the archive is closed."""
    try:
        yield from archive.items()
    finally:
        archive.close()


def opened(data: Data) -> BinaryIO:
    """The archive as a file that can seek."""
    if isinstance(data, bytes | bytearray | memoryview):
        return io.BytesIO(data)
    return Path(data).open("rb") if isinstance(data, str | Path) else data


def check_subject(header: Header, subject: Subject) -> None:
    """ValueError unless the archive was written with this model."""
    model, record = header.record["model"], header.record
    if model.get("identity") != subject.identity or model.get("length") != subject.length:
        raise ValueError(
            f"field model: written with {shown(model['name'])} ({shown(model['identity'][:12])[1:-1]}), got "
            f"'{subject.name}' ({subject.identity[:12]}); expected the same weights and vocabulary"
        )
    if record["vocab_size"] != subject.denoiser.vocab_size:
        raise ValueError(
            f"field vocab_size: {shown(record['vocab_size'])}, expected {subject.denoiser.vocab_size}"
        )
    if not isinstance(header.method.plan, int) and max(header.method.plan, default=0) > subject.length:
        raise ValueError(
            f"field plan: steps for {max(header.method.plan)} positions, expected at most {subject.length}, a row of the model"
        )
    if record["table"] != tables.checksum(header.method.grid):
        raise ValueError(
            "field table: another table of weights than this version's; install the version that wrote it"
        )
    if header.returns not in (subjects.TEXT, subjects.BYTES, subjects.ARRAYS, subjects.SYMBOLS):
        raise ValueError(f"field returns: {shown(header.returns)}, expected text, bytes, arrays or symbols")


# --- looking ----------------------------------------------------------------------------------------


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
    places, more = container.read_index(file, header.length)
    summary, names = Summary(source_bytes=None), list[str]()
    for place in places:
        listed, _ = container.read_table(file, place.offset, place.offset + place.length, header.named)
        summary.add(listed)
        names += [entry.name for entry in listed] if header.named else []
    summary.bytes = file.seek(0, 2)
    return Inspection(header, summary, more, names)


def scored(
    model: Model | Subject, items: Sequence[Item], settings: Settings, *, batch: int = 64
) -> list[float | None]:
    """Nats of each item along the order and plan of ``settings``, without rounding; None where it would be stored."""
    subject = _subject(model)
    returns, _ = _peeked(items, subject)
    job = prepare(
        subject, settings, returns=returns, lengths=masked_counts(subject, items, returns), batch=batch
    )
    data = [subjects.to_bytes(item, returns, subject.denoiser.vocab_size) for item in items]
    return log_likelihoods(job.coding, data)
