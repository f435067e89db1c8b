"""`decompress`: a file to items, all of them or a single one; nothing is computed but what is asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unmask.base.numbers import shown, whole
from unmask.codec import container, subjects, tables
from unmask.codec.coder import Damaged
from unmask.codec.container import Budget, Listed, Place, Unit
from unmask.codec.inspection import Data, Header, opened, read_header
from unmask.codec.layout import Coding, decode_units
from unmask.codec.settings import Order, Wrapper, law_of
from unmask.codec.subjects import Item, Subject, subject_of

if TYPE_CHECKING:
    from unmask.models import Model


PORTION = 2**18
"""Symbols, or bytes, that are decoded at once, or a batch of rows where that is more."""


class Archive:
    """An open archive: ``len``, `item`, `items`; made from its bytes, file name or file, and the model that wrote it.

    With ``errors`` "skip" a damaged item is None and damage to the index is worked around; with "raise" each is a
    ValueError that names the item. An item that claims more than the size of the file justifies (`container.Budget`)
    counts as damaged; ``max_symbols`` accepts as many symbols, or bytes of stored items, in any case.
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
            subject = subject_of(model)
            check_subject(self.header, subject)
            law = law_of(self.header.method, subject, order, wrapper)
            self.coding = Coding(subject, law, self.header.method, batch, together=self.header.together)
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
            return container.read_index(self.file, self.header.length, self.header.together)
        except Damaged:
            if self.errors == "raise":
                raise
            header = self.header
            return list(container.scan(self.file, header.length, header.named, header.together)), {}

    def __len__(self) -> int:
        """How many items there are; after damage to the index, up to the last one that is left."""
        return self.places[-1].first + self.places[-1].count if self.places else 0

    def item(self, number: int) -> Item | None:
        """One item; only its block's table and its own payload, or its bundle's, are read."""
        if not 0 <= number < len(self):
            raise ValueError(f"item {number}: expected 0..{len(self) - 1} of this archive")
        place = self.places[bisect_right(self.places, number, key=lambda p: p.first) - 1]
        listed = self._table(place)
        if not listed:
            return self._failed(number, Damaged("its block is lost"))
        mine = [unit for unit in container.units(listed) if unit.members[-1].number >= number][:1]
        decoded = dict(self._decoded(mine, self._budget()))
        return self._item(number, decoded[number])

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
            for unit in container.units(listed):
                try:
                    budget.take(unit)
                except Damaged as error:
                    raise Damaged(f"item {unit.members[0].number}: {error}") from None

    def _block(self, place: Place, budget: Budget) -> Iterator[tuple[str, Item | None]]:
        listed = self._table(place)
        if not listed:
            for number in range(place.first, place.first + place.count):
                yield "", self._failed(number, Damaged("its block is lost"))
            return
        decoded = self._decoded(container.units(listed), budget)
        for entry, (number, data) in zip(listed, decoded):
            yield entry.name, self._item(number, data)

    def _table(self, place: Place) -> list[Listed]:
        """A block's table; empty if it is damaged and errors are skipped."""
        try:
            listed, end = container.read_table(
                self.file,
                place.offset,
                place.offset + place.length,
                self.header.named,
                self.header.together,
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

    def _decoded(self, units: Sequence[Unit], budget: Budget) -> Iterator[tuple[int, bytes | Damaged]]:
        """Numbers and bytes of items as they are asked for: what is computed ahead is one portion."""
        for part in portions(units, max(PORTION, self.coding.batch * self.coding.subject.length)):
            payloads = [self._payload(unit) for unit in part]
            for unit, data in zip(part, decode_units(self.coding, part, payloads, budget)):
                for place, member in enumerate(unit.members):
                    yield member.number, data if isinstance(data, Damaged) else data[place]

    def _payload(self, unit: Unit) -> bytes:
        self.file.seek(unit.offset)
        return self.file.read(sum(unit.lengths))

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


def portions(units: Sequence[Unit], most: int) -> Iterator[list[Unit]]:
    """Units in stretches of about ``most`` symbols or bytes, or single ones that have more: what is decoded at once."""
    part, size = list[Unit](), 0
    for unit in units:
        own = max(sum(member.size for member in unit.members), *unit.lengths)
        if part and size + own > most:
            yield part
            part, size = [], 0
        part.append(unit)
        size += own
    if part:
        yield part


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
            f"field plan: steps for {max(header.method.plan)} positions, expected at most {subject.length}, "
            "a row of the model"
        )
    if record["table"] != tables.checksum(header.method.grid):
        raise ValueError(
            "field table: another table of weights than this version's; install the version that wrote it"
        )
    if header.returns not in (subjects.TEXT, subjects.BYTES, subjects.ARRAYS, subjects.SYMBOLS):
        raise ValueError(f"field returns: {shown(header.returns)}, expected text, bytes, arrays or symbols")
