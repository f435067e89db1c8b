"""What encoding and decoding have in common: the model, how it is asked, and which bytes it can say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unmask.codec import container
from unmask.codec.settings import Method
from unmask.codec.subjects import Subject
from unmask.codec.tables import Ints, Law

GROUP = 16
"""Rows that share a stream and advance together; of larger bundles, one for each item."""


@dataclass(frozen=True)
class Coding:
    """All that turns bytes of items into entries and back; at least ``batch`` rows go through the model at once.

    The file does not depend on ``batch``; ``verify`` decodes every item after encoding. ``shorter`` stores items that
    coding would make longer; tests of escapes, of which wide bands make many, leave them coded. ``together`` items are a
    bundle.
    """

    subject: Subject
    law: Law
    method: Method
    batch: int = 64
    verify: bool = True
    shorter: bool = True
    together: int = 1

    @property
    def rows(self) -> int:
        """The most rows of a stream."""
        return max(GROUP, self.together)

    def crc(self, number: int, payload: bytes, items: Sequence[bytes]) -> int:
        """The checksum of an item, or of the items of a bundle, numbered from ``number``."""
        if self.together > 1:
            return container.bundle_crc(number, payload, items)
        return container.item_crc(number, payload, items[0])


def symbols_of(subject: Subject, data: bytes) -> Ints | None:
    """The symbols of an item's bytes; None where the model cannot say them."""
    try:
        ids = subject.symbols(data)
    except ValueError:
        return None
    top = subject.denoiser.vocab_size - (1 if subject.ends else 0)
    known = (ids >= 0) & (ids < top) & (ids != subject.denoiser.mask_id)
    fits = len(ids) == subject.length if subject.whole else len(ids) <= subject.length or not subject.ends
    return np.asarray(ids, np.int64) if known.all() and fits else None
