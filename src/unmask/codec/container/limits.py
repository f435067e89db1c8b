"""What the items of one reading may hold, by the bytes of their file."""

from __future__ import annotations

from dataclasses import dataclass

from unmask.codec.coder import Damaged
from unmask.codec.container.form import DENSE, PACKED, Listed, Unit

LEAST_ENTRY = 6
"""The fewest bytes that an item by itself takes in a table."""

LONG, LARGE = 2**21, 2**25
"""Symbols that an item may have in a file of any size, and bytes of a stored one."""


@dataclass
class Budget:
    """What the items of one reading may hold, by the bytes of their file and what the caller trusts (``trusted``).

    Symbols that are certain cost nothing, so payloads are no measure: a file of n bytes may hold 256 n symbols, and 2^25 +
    2,048 n bytes of stored items (zlib makes no more than 1,032 of one). A single item, or bundle, which lies in memory as
    a whole, has at most 2^21 symbols or 2^25 bytes, or 64 n where that is more. Beyond, up to ``trusted``.
    """

    file_bytes: int
    trusted: int = 0
    coded: int = 0
    stored: int = 0

    def take(self, entry: Listed | Unit) -> None:
        """Counts an item, or the items of a bundle as one; `Damaged` when it is too large, or all together are."""
        members = entry.members if isinstance(entry, Unit) else (entry,)
        for coded in (True, False):
            size = sum(member.size for member in members if member.is_coded == coded)
            before = self.coded if coded else self.stored
            single, total = self.limits(coded)
            if size > single or before + size > total:
                what = "symbols" if coded else "bytes"
                raise Damaged(
                    f"field size: {size} {what} after {before}; expected at most {single}, and {total} in all, of a file "
                    f"of {self.file_bytes} bytes: if you trust it, give max_symbols (--max-symbols)"
                )
            self.coded, self.stored = self.coded + coded * size, self.stored + (not coded) * size

    def limits(self, coded: bool) -> tuple[int, int]:
        """The most symbols (``coded``) or bytes of one item, and of all."""
        least = LONG if coded else LARGE
        total = DENSE * self.file_bytes if coded else LARGE + PACKED * self.file_bytes
        return max(least, 64 * self.file_bytes, self.trusted), max(total, self.trusted)


def dense_enough(symbols: int, coded: int, least: int = LEAST_ENTRY) -> bool:
    """Whether readers accept so many symbols in so few bytes, whatever else is in the archive: see `Budget`.

    ``least`` are the bytes that the item, or the bundle, takes in a table.
    """
    own = coded + least
    return symbols <= min(DENSE * own, max(LONG, 64 * own))
