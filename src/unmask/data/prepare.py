"""From files to token folders: how each format is read, surveyed, split into parts and written.

A first pass reads everything once: it hashes the files, counts, finds the characters, and refuses what cannot be
used before anything is written. The second pass writes, part by part (`unmask.data.writing`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from unmask.base.progress import Progress
from unmask.data import writing
from unmask.data.files import Source, find
from unmask.data.readers import images, lines, papers, samples, text
from unmask.data.readers.pieces import Piece, size
from unmask.data.tokens import Tokens
from unmask.data.vocabularies import TEXT8, Bytes, Characters, Levels, Tokenizer, Vocabulary
from unmask.data.writing import GIVEN, NONE, WINDOWS, Form, Record

Read: TypeAlias = Callable[..., Iterator[Piece]]
"""The pieces of a file; readers of items take ``skip=True`` and hand out faulty pieces instead of raising."""


@dataclass(frozen=True)
class Reading:
    """A way of reading files, its usual vocabulary (None: the characters found) and padding policy.

    ``name`` says which one, with its settings: two of one name read the same.
    """

    summary: str
    kind: Literal["stream", "items", "images"]
    read: Read
    vocabulary: Vocabulary | None
    policy: str
    pattern: str = "*"
    shape: tuple[int, ...] = ()
    name: str = ""


READINGS = {
    "text8": Reading("words in a-z, digits spelt out", "stream", text.words, Characters(TEXT8), WINDOWS),
    "bytes": Reading("any files, as one stream of bytes", "stream", text.contents, Bytes(), WINDOWS),
    "characters": Reading("text, the characters that occur in it", "stream", text.characters, None, WINDOWS),
    "tokenizer": Reading("text in the tokens of a tokenizer.json", "stream", text.characters, None, WINDOWS),
    "lines": Reading("every line an item", "items", lines.lines, None, GIVEN),
    "jsonl": Reading("every JSON line an item, byte for byte", "items", lines.jsonl, Bytes(), GIVEN),
    "smiles": Reading("molecules, one a line or in a CSV column", "items", lines.smiles, None, GIVEN),
    "fasta": Reading("biological sequences", "items", lines.fasta, None, GIVEN),
    "sudoku": Reading("full grids", "items", lines.grids, Characters(lines.DIGITS), NONE, shape=(9, 9)),
    "idx": Reading("images in the format of MNIST", "images", images.idx, Levels(), NONE, "*idx3*"),
    "cifar": Reading("CIFAR-10 binary batches", "images", images.cifar, Levels(), NONE, "*.bin"),
    "png": Reading("PNG files; folders are classes", "images", images.png, Levels(), NONE, "*.png"),
    "npy": Reading("images as an array of numpy.save", "images", images.npy, Levels(), NONE, "*.npy"),
    "text8_file": Reading("text8, or text8.zip", "stream", papers.text8_file, Characters(TEXT8), WINDOWS),
    "documents": Reading("JSON lines with text, or files, an end after each", "stream", papers.documents, None, WINDOWS),
    "token_ids": Reading("token ids as uint16 (nanoGPT)", "stream", papers.token_ids, None, WINDOWS, "*.bin"),
    "cifar_python": Reading("CIFAR-10, Python version", "images", papers.cifar_python, Levels(), NONE, "data_batch_*"),
    "imagenet64": Reading("downsampled ImageNet", "images", papers.imagenet64, Levels(), NONE, "*batch*"),
    "images": Reading("pictures in a field of samples", "images", samples.unnamed, Levels(), NONE),
    **{
        name: Reading("spoken digits", "images", partial(papers.sc09, part=part), Levels(2**16), NONE, "*.wav")
        for name, part in (("sc09", "train"), ("sc09_valid", "valid"), ("sc09_test", "test"))
    },
}  # fmt: skip
"""The formats by name."""
TOKENIZED = ("tokenizer", "documents", "token_ids")
"""Those that want a tokenizer's vocabulary."""
READINGS = {name: replace(reading, name=name) for name, reading in READINGS.items()}


def of_samples(name: str, where: samples.Where, places: Sequence[Path]) -> Reading:
    """The reading of a format in a field of samples, for these places; ValueError for a format that cannot.

    In folders it looks for the first of `samples.PATTERNS` that one of them holds.
    """
    if name not in samples.VALUES:
        raise ValueError(f"format '{name}' in a field of samples: expected {', '.join(samples.VALUES)}")
    held = (
        p for p in samples.PATTERNS if any(next(place.rglob(p), None) for place in places if place.is_dir())
    )
    read = partial(samples.read, where=where, value=samples.VALUES[name])
    return replace(READINGS[name], read=read, pattern=next(held, "*"), name=f"{name}, {where}")


@dataclass(frozen=True)
class Survey:
    """What a first pass found: characters, bytes or values of each file, pieces in all, characters, the images' shape."""

    sizes: tuple[int, ...]
    pieces: int
    alphabet: str
    shape: tuple[int, ...]


def prepare(
    places: Sequence[Path],
    folder: Path,
    reading: Reading,
    *,
    vocabulary: Vocabulary | None = None,
    policy: str | None = None,
    limit: int | None = None,
    skip: bool = False,
    split: Mapping[str, float] | None = None,
    seed: int = 0,
    shard: int = writing.SHARD,
    quiet: bool = False,
    clean: bool = False,
) -> list[Tokens]:
    """Makes files and folders into a token folder, or with ``split`` into one for each part; goes on where it was stopped.

    ``vocabulary``: another than the reading's own. ``split``: shares by name that sum to 1. Streams are cut in
    order, every file for itself; items go by a hash of ``seed`` and their content, so equal ones stay together.
    ``limit``, ``skip``, ``shard``: see `Form`; ``clean``: see `writing.write`. ValueError as in `unmask.data.writing` and
    the readers.
    """
    shares = _shares(split)
    sources = find(places, reading.pattern)
    classes = sorted({s.folder for s in sources}) if reading.pattern == "*.png" else []
    usual = partial(reading.read, skip=True) if skip and reading.kind == "items" else reading.read
    read = _with_classes(usual, sources, classes)
    _check(reading, vocabulary or reading.vocabulary, policy)
    survey = look(sources, usual, quiet, reading.kind)
    form = Form(
        reading.kind,
        vocabulary or reading.vocabulary or Characters(survey.alphabet or "?"),
        policy or reading.policy,
        survey.shape or reading.shape,
        limit,
        skip,
        shard,
        more={"classes": classes} if len(classes) > 1 else {},
        reading=reading.name,
    )
    itemsize = np.dtype(form.dtype).itemsize
    writing.check_room(
        folder, int(1.1 * sum(survey.sizes) * itemsize) + (8 * survey.pieces if form.kind != "stream" else 0)
    )
    records = _records(sources)
    made = list[Tokens]()
    new = [folder / part for part in shares if not (folder / part / "manifest.json").is_file()]
    for number, part in enumerate(shares):
        pieces = _part(sources, read, survey, form.kind, shares, number, seed)
        more = {"part": {"name": part, "shares": shares, "seed": seed}} if part else {}
        place = folder / part
        try:
            made.append(
                _written(place, pieces, replace(form, more=form.more | more), records, survey, quiet, clean)
            )
        except ValueError:
            if clean:
                for finished in [m.folder for m in made if m.folder in new]:
                    writing.undo(finished)
                _remove_empty(folder)
            raise
    return made


def _written(
    place: Path,
    pieces: Iterator[Piece],
    form: Form,
    records: list[Record],
    survey: Survey,
    quiet: bool,
    clean: bool,
) -> Tokens:
    """One part, written with a bar."""
    with Progress(f"writing {place.name}", sum(survey.sizes), quiet=quiet) as progress:
        return writing.write(place, pieces, form, records, advance=progress.advance, clean=clean)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def look(sources: Sequence[Source], read: Read, quiet: bool = False, kind: str = "images") -> Survey:
    """Reads all files once; ValueError for damaged files and for images of different sizes."""
    sizes, pieces, alphabet, shape = [], 0, set[str](), tuple[int, ...]()
    with Progress("reading", len(sources), quiet=quiet) as progress:
        for number, source in enumerate(sources, 1):
            total = 0
            for piece in read(source.path):
                total, pieces = total + size(piece.data), pieces + 1
                if piece.fault is not None:
                    continue
                if isinstance(piece.data, np.ndarray):
                    shape = _same(shape, piece) if kind == "images" else ()
                else:
                    alphabet.update(
                        piece.data if isinstance(piece.data, str) else piece.data.decode("utf-8", "ignore")
                    )
            sizes.append(total)
            progress.advance(number)
    return Survey(tuple(sizes), pieces, "".join(sorted(alphabet)), shape)


def _same(shape: tuple[int, ...], piece: Piece) -> tuple[int, ...]:
    """The shape that all images so far share."""
    found = np.shape(piece.data)
    if shape and found != shape:
        sizes = " after ".join("x".join(map(str, s)) for s in (found, shape))
        raise ValueError(
            f"{piece.file}: image {piece.line} of {sizes}; expected images of one size and kind: scale them first"
        )
    return found


def _check(reading: Reading, vocabulary: Vocabulary | None, policy: str | None) -> None:
    """ValueError for settings that do not go together."""
    if reading.name.partition(",")[0] in TOKENIZED and not isinstance(vocabulary, Tokenizer):
        raise ValueError(f"reading {reading.name}; expected the file: --tokenizer tokenizer.json")
    if (reading.kind == "images") != isinstance(vocabulary, Levels):
        raise ValueError(
            f"{reading.kind} with a vocabulary of {type(vocabulary).__name__}; expected Levels for images only"
        )
    if policy is not None and (policy == WINDOWS) != (reading.kind == "stream"):
        raise ValueError(
            f"padding policy '{policy}' for {reading.kind}; expected '{WINDOWS}' for streams and only for them"
        )


# --- files ----------------------------------------------------------------------------------------


def _with_classes(read: Read, sources: Sequence[Source], classes: Sequence[str]) -> Read:
    """Reading that labels pieces by the folder of their file, where there is more than one."""
    if len(classes) < 2:
        return read
    label = {s.path: classes.index(s.folder) for s in sources}
    return lambda path: (replace(piece, label=label[path]) for piece in read(path))


def _records(sources: Sequence[Source]) -> list[Record]:
    """What the manifest says about the files; more than 100 become one record."""
    records = [writing.source(s.path) | {"file": s.name} for s in sources]
    if len(records) <= 100:
        return records
    digest = hashlib.sha256("".join(f"{r['sha256']} {r['file']}\n" for r in records).encode()).hexdigest()
    name = f"{records[0]['file']} .. {records[-1]['file']}"
    return [
        {"file": name, "files": len(records), "bytes": sum(r["bytes"] for r in records), "sha256": digest}
    ]


# --- parts ----------------------------------------------------------------------------------------


def _shares(split: Mapping[str, float] | None) -> dict[str, float]:
    """Shares by part; one nameless part without a split."""
    if not split:
        return {"": 1.0}
    if min(split.values()) <= 0 or not math.isclose(sum(split.values()), 1.0):
        raise ValueError(f"shares {dict(split)}; expected positive numbers that sum to 1")
    if bad := [name for name in split if not name.isidentifier()]:
        raise ValueError(f"part '{bad[0]}'; expected a name of letters and digits, such as train")
    return dict(split)


def _part(
    sources: Sequence[Source],
    read: Read,
    survey: Survey,
    kind: str,
    shares: dict[str, float],
    number: int,
    seed: int,
) -> Iterator[Piece]:
    """The pieces of one part."""
    borders = [0.0, *np.cumsum(list(shares.values())).tolist()]
    low, high = borders[number], 2.0 if number == len(shares) - 1 else borders[number + 1]
    for source, total in zip(sources, survey.sizes):
        pieces = read(source.path)
        if kind == "stream":
            yield from _between(pieces, round(low * total), round(min(high, 1.0) * total))
        else:
            yield from (p for p in pieces if len(shares) == 1 or low <= fraction(p.data, seed) < high)


def _between(pieces: Iterator[Piece], start: int, stop: int) -> Iterator[Piece]:
    """Characters or bytes start..stop-1 of a file's pieces."""
    at = 0
    for piece in pieces:
        data: Any = piece.data
        first, last = max(start - at, 0), min(stop - at, len(data))
        if first < last:
            yield replace(piece, data=data[first:last], line=piece.line + _ends(data, first))
        at += len(data)


def _ends(data: Any, stop: int) -> int:
    """Line ends before a place; ids have none."""
    if isinstance(data, np.ndarray):
        return 0
    end: Any = b"\n" if isinstance(data, bytes) else "\n"
    return int(data.count(end, 0, stop))


def fraction(data: Any, seed: int) -> float:
    """A number in [0, 1) that depends on the content and the seed only."""
    content = data.encode() if isinstance(data, str) else bytes(data)
    digest = hashlib.blake2b(content, digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest) / 2**64
