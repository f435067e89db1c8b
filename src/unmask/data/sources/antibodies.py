"""Real heavy chains of antibodies, from ExampleDb of the package alakazam (AGPL): translated, with their regions.

Reads are aligned with gaps by IMGT's numbering, so that a codon's place says its region: CDR1 27 to 38, CDR2 56 to 65, and
CDR3 from 105 on, as long as the read's junction says. Reads of one clone are near copies: parts are split by clone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from unmask.data.readers import rdata
from unmask.data.sources import packages
from unmask.data.sources.packages import Package

ALAKAZAM = Package(
    tool="apt-get",
    name="r-cran-alakazam",
    version="1.2.1-1",
    file="r-cran-alakazam_1.2.1-1_amd64.deb",
    sha256="bc26cb5256cb5c0fe1415d416dad75d3c99eb5b3137b8861f393ee9191c63428",
)

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
"""Symbols of a chain."""

BASES = "TCAG"
CODE = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
"""The genetic code, codons in the order of `BASES`."""

CDRS = {"cdr1": (27, 38), "cdr2": (56, 65)}
"""First and last place of a region by IMGT's numbering."""

CDR3 = 105
"""The first place of CDR3, which has no last."""

AFTER = 1000
"""The first column behind CDR3; the right half of CDR3 has the columns .., -2, -1."""


@dataclass(frozen=True)
class Chain:
    """A heavy chain: its residues, its clone, and where each of cdr1, cdr2, cdr3 begins and ends (not included).

    ``columns``: where each residue stands in the alignment of all chains (`_columns`).
    """

    sequence: str
    clone: str
    regions: dict[str, tuple[int, int]]
    columns: tuple[int, ...]


def chains() -> list[Chain]:
    """The clean chains, each once: whole codons, no stop, nothing unread, all three regions, in the order of the file."""
    place = "usr/lib/R/site-library/alakazam/data/Rdata"
    deb = packages.bring(ALAKAZAM)
    table = rdata.table(packages.read(deb, f"{place}.rdx"), packages.read(deb, f"{place}.rdb"), "ExampleDb")
    columns = (table[name] for name in ("sequence_alignment", "junction", "clone_id"))
    found = (chain(*row) for row in zip(*columns, strict=True))
    return list({c.sequence: c for c in reversed([c for c in found if c is not None])}.values())[::-1]


def chain(aligned: str, junction: str, clone: str) -> Chain | None:
    """One read with its regions, or None where it is not clean."""
    codons = [aligned[i : i + 3] for i in range(0, len(aligned) - len(aligned) % 3, 3)]
    residues = [(place, residue(c)) for place, c in enumerate(codons, 1) if c.strip(".-")]
    sequence, places = "".join(r for _, r in residues), [p for p, _ in residues]
    loop = len(junction) // 3 - 2  # without the cysteine before it and the residue behind
    if set(sequence) - set(RESIDUES) or len(junction) % 3 or loop < 1:
        return None
    bounds = CDRS | {"cdr3": (CDR3, CDR3 + loop - 1)}
    regions = {name: _between(places, first, last) for name, (first, last) in bounds.items()}
    start, end = regions["cdr3"]
    told = "".join(residue(junction[i : i + 3]) for i in range(0, len(junction), 3))
    whole = all(a < b for a, b in regions.values()) and sequence[start - 1 : end + 1] == told
    return Chain(sequence, str(clone), regions, _columns(places, loop)) if whole else None


def residue(codon: str) -> str:
    """What a codon stands for; ``*`` a stop, ``X`` one that was not wholly read."""
    places = [BASES.find(base) for base in codon.upper()]
    return CODE[16 * places[0] + 4 * places[1] + places[2]] if min(places) >= 0 else "X"


def _columns(places: list[int], loop: int) -> tuple[int, ...]:
    """Columns of residues at IMGT's places: CDR3, which is as long as ``loop``, has its gap in the middle."""
    left = CDR3 + (loop + 1) // 2
    end = CDR3 + loop
    return tuple(p if p < left else (p - end if p < end else AFTER + p - end) for p in places)


def _between(places: list[int], first: int, last: int) -> tuple[int, int]:
    """Which residues stand at the places first..last."""
    return sum(p < first for p in places), sum(p <= last for p in places)


def identity(a: Chain, b: Chain) -> float:
    """Share of residues of the shorter chain that the other has in the same column, 0 to 1."""
    other = dict(zip(b.columns, b.sequence))
    equal = sum(other.get(column) == residue for column, residue in zip(a.columns, a.sequence))
    return equal / min(len(a.sequence), len(b.sequence))


def distinct(found: Iterable[Chain], most: float) -> list[Chain]:
    """The first chain of each clone that is at most ``most`` (0 to 1) identical to all kept before it."""
    kept: list[Chain] = []
    clones: set[str] = set()
    for one in found:
        if one.clone not in clones and all(identity(one, k) <= most for k in kept):
            kept.append(one)
            clones.add(one.clone)
    return kept
