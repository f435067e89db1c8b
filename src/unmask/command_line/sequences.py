"""``unmask eval`` of models that are not of puzzles: what a model makes of a token folder, a text file or a fetched set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.base import noise
from unmask.base.progress import IN_TURN, Pieces, Progress
from unmask.command_line.boards import batched
from unmask.command_line.options import MACHINE, Machine, in_range
from unmask.command_line.output import Report, number
from unmask.data import files
from unmask.data import tokens as folders
from unmask.data.readers.lines import fasta
from unmask.data.readers.pieces import Piece, where
from unmask.data.readers.text import text8
from unmask.data.sources.cache import cache
from unmask.data.tokens import Tokens
from unmask.data.vocabularies import (
    TEXT8,
    Bytes,
    Characters,
    Foreign,
    Levels,
    Listed,
    Tokenizer,
    Vocabulary,
    to_record,
)
from unmask.data.writing import encode
from unmask.denoisers import check_tokens
from unmask.models import Model
from unmask.variants import upscale

Places: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """tokens int64 [n, L] that a model is measured on, where they came from, and what each row stands for.

    ``symbols`` int64 [n] counts a row's data symbols, not its padding; ``bytes`` int64 [n] is what these take in the
    source: line ends, what was skipped and what was cut off are not among them. ``left_out`` counts that, by its reason.
    """

    source: str
    tokens: Tensor
    symbols: Tensor
    bytes: Tensor
    left_out: Report = field(default_factory=dict)

    @property
    def characters(self) -> int:
        """Data symbols of all rows."""
        return int(self.symbols.sum())

    def part(self, places: Places) -> Sequences:
        """Some of the sequences."""
        rows = torch.as_tensor(places)
        return replace(self, tokens=self.tokens[rows], symbols=self.symbols[rows], bytes=self.bytes[rows])


def read(model: Model, data: Path, num: int | None, seed: int) -> Sequences:
    """Sequences of a token folder (or one in the cache), or of a text file: all, or ``num`` at random.

    A stream is cut into disjoint stretches of the model's length, the last partial one dropped.
    """
    place = data if data == files.STANDARD or data.exists() else cache() / data
    if place != files.STANDARD and not place.exists():
        raise ValueError(
            f"no data '{data}': expected a token folder, a text file, - for standard input, or a set such as text/valid"
        )
    if place.is_dir():
        found = _folder(model, folders.verify(place), num, seed)
    else:
        found = _file(model, place, num, seed)
    return found if model.places is None else replace(found, tokens=found.tokens[:, model.places])


def _rows(source: str, vocabulary: Vocabulary, tokens: NDArray[np.int64], left_out: Report) -> Sequences:
    """Sequences of tokens int64 [n, L] filled up with symbols that the vocabulary has not."""
    own = [row[row < vocabulary.size] for row in tokens]
    counts, in_bytes = [len(ids) for ids in own], [vocabulary.bytes_of(ids) for ids in own]
    told = {why: count for why, count in left_out.items() if count}
    return Sequences(source, torch.as_tensor(tokens), torch.tensor(counts), torch.tensor(in_bytes), told)


def _folder(model: Model, data: Tokens, num: int | None, seed: int) -> Sequences:
    """The sequences of an opened token folder; ValueError unless it has the model's vocabulary and they fit."""
    if model.frame is not None:
        raise ValueError(
            f"model '{model.name}' has a tokenizer of its own; expected a text or FASTA file, an item a line"
        )
    own = model.config.get("vocabulary")
    if own is not None and to_record(data.vocabulary) != own:
        raise ValueError(
            f"{data.folder} has another vocabulary than model '{model.name}': prepare it with the model's"
        )
    count = upscale.stages_of(model.config["network"])
    length = model.length // count
    total = data.items or data.symbols // length
    if not total:
        raise _too_short(data.folder, data.symbols, model)
    places = drawn(total, num, seed)
    rows = data.padded(places, length, _size(model)) if data.items else data.windows(places * length, length)
    rest = 0 if data.items else data.symbols - total * length
    found = _rows(str(data.folder), data.vocabulary, rows, {SYMBOLS_AT_END: rest})
    if count > 1:
        digits = upscale.encode_digits(found.tokens, model.denoiser.vocab_size, _size(model))
        found = replace(found, tokens=digits)
    check_tokens(found.tokens, model.denoiser, masks=False)
    return found


SYMBOLS_AT_END = "symbols at the end"


def _too_short(place: Path, symbols: int, model: Model) -> ValueError:
    return ValueError(
        f"{files.shown(place)} holds no sequence of length {model.length}: it is too short, {symbols} symbols"
    )


def _file(model: Model, path: Path, num: int | None, seed: int) -> Sequences:
    """A text file: one item a line (or FASTA record) for models of items, one stream for the others."""
    if model.vocabulary is None or isinstance(model.vocabulary, Levels):
        raise ValueError(f"model '{model.name}' is not one of text; expected a token folder")
    stream = model.frame is None and model.denoiser.vocab_size == model.vocabulary.size
    found = (_stream if stream else _items)(model, model.vocabulary, path)
    check_tokens(found.tokens, model.denoiser, masks=False)
    return found.part(drawn(len(found.tokens), num, seed))


def _stream(model: Model, vocabulary: Vocabulary, path: Path) -> Sequences:
    """A file as one stream in stretches of the model's length."""
    if isinstance(vocabulary, Bytes):
        ids, changed, wide = vocabulary.encode(files.read_bytes(path)), 0, None
    else:
        text, changed, wide = _readable(files.read_text(path), vocabulary)
        try:
            ids = vocabulary.encode(text)  # type: ignore[union-attr]
        except Foreign as error:
            raise ValueError(
                f"{where(Piece(text, files.shown(path), 1), error.at)}: {error.message}"
            ) from None
    count = len(ids) // model.length
    if not count:
        raise _too_short(path, len(ids), model)
    rows = ids[: count * model.length].reshape(-1, model.length)
    rest = len(ids) - rows.size
    found = _rows(files.shown(path), vocabulary, rows, {"characters changed": changed, SYMBOLS_AT_END: rest})
    if wide is None:
        return found
    return replace(found, bytes=found.bytes + (found.tokens == wide).sum(1))


def _readable(text: str, vocabulary: Vocabulary) -> tuple[str, int, int | None]:
    """A text as a vocabulary has it, how many characters that changed, and the symbol that stands for two bytes.

    A vocabulary without line ends leaves out those at the text's end; one without ``\\r`` has a ``\\r\\n`` as one symbol.
    Text that text8's symbols do not hold goes through text8's filter, as in ``unmask data prepare --as text8``.
    """
    if not isinstance(vocabulary, Characters):
        return text, 0, None
    known = set(vocabulary.symbols)
    text = text if "\n" in known else text.rstrip("\r\n")
    if vocabulary.symbols == TEXT8 and not known.issuperset(text):
        return text8(text), sum(c not in known for c in text), None
    if "\n" in known and "\r" not in known and "\r\n" in text:
        lone = text.replace("\r\n", "")
        if "\n" not in lone:  # every line end takes two bytes
            return text.replace("\r\n", "\n"), 0, vocabulary.symbols.index("\n")
    return text, 0, None


def _items(model: Model, vocabulary: Vocabulary, path: Path) -> Sequences:
    """The lines of a file as items; blank ones are left out and counted. ValueError names another that does not fit."""
    rows, blank = [], 0
    for piece in pieces_of(path, vocabulary):
        if not piece.data:
            blank += 1
            continue
        try:
            ids = encode(vocabulary, piece)
        except Foreign as error:
            raise ValueError(f"{where(piece, error.at)}: {error.message}") from None
        if model.frame is not None and not np.isin(ids, model.frame.drawn + model.frame.fixed).all():
            raise ValueError(f"{where(piece)}: the tokenizer has no symbol for a part of this text")
        if len(ids) > model.length:
            raise ValueError(f"{where(piece)}: {len(ids)} symbols; expected at most {model.length}")
        rows.append(ids)
    if not rows:
        raise ValueError(f"{files.shown(path)} holds blank lines only; expected an item a line")
    if model.frame is not None:
        scored = [ids[np.isin(ids, model.frame.drawn)] for ids in rows]
        counts, in_bytes = [len(ids) for ids in scored], [vocabulary.bytes_of(ids) for ids in scored]
        told = {"blank lines": blank} if blank else {}
        tokens = model.frame.rows(rows)
        return Sequences(files.shown(path), tokens, torch.tensor(counts), torch.tensor(in_bytes), told)
    rows = [np.pad(ids, (0, model.length - len(ids)), constant_values=vocabulary.size) for ids in rows]
    return _rows(files.shown(path), vocabulary, np.stack(rows), {"blank lines": blank})


def pieces_of(path: Path, vocabulary: Vocabulary | None) -> Iterator[Piece]:
    """The lines of a file, or the sequences of a FASTA file: one that begins with > where that is no symbol."""
    with files.rereadable((path,)):
        found = files.read_lines(path)
        symbols = vocabulary.characters if isinstance(vocabulary, Listed) else vocabulary
        known = not isinstance(symbols, Characters) or ">" in symbols.symbols
        if not known and next((line for line in found if line), b"").startswith(b">"):
            yield from fasta(path)
        else:
            yield from (Piece(line, files.shown(path), place) for place, line in enumerate(found, 1))


def _size(model: Model) -> int:
    """Data symbols of a model's vocabulary, without the pad."""
    vocabulary = model.vocabulary
    return model.denoiser.vocab_size if vocabulary is None else vocabulary.size


def drawn(total: int, num: int | None, seed: int) -> Places:
    """All places 0..total-1, or ``num`` of them at random, in order."""
    in_range("num", num, 1)
    if num is None or num >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, num, replace=False))


Measure: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Nats float64 [B] of tokens int64 [B, L] that are the items of numbers int64 [B]."""


def estimator(model: Model, samples: int, seed: int) -> tuple[Measure, str]:
    """Nats by the estimator that suits a model's training, given lengths included, and its name.

    The noise of an item is a function of the seed and its number, whatever batch it is in.
    """
    bound, about = model.bound(samples)
    lengths = "" if model.end is None else ", and the cost of the length"
    return (
        lambda rows, ids: bound(rows, noise.seeded(seed), ids).value + model.length_cost(rows),
        about + lengths,
    )


def nats_of(
    posed: Sequences,
    measure: Measure,
    label: str = "",
    quiet: bool = True,
    machine: Machine = MACHINE,
    pieces: Pieces = IN_TURN,
) -> Tensor:
    """Nats of every sequence, float64 [n]."""

    def measured(ids: Tensor) -> dict[str, Tensor]:
        return {"nats": measure(posed.tokens[ids].to(machine.device), ids.to(machine.device)).cpu()}

    batches = batched(len(posed.tokens), machine.batch_size, measured)
    with Progress(label, len(posed.tokens), quiet=quiet) as progress:
        return torch.cat([found["nats"] for found in pieces.each(label, batches, progress.advance)])


def numbers(model: Model, posed: Sequences, nats: Tensor, estimator: str) -> Report:
    """Nats per sequence and what follows: bits per dimension for images; per character, byte, perplexity for text.

    Standard errors are over sequences and include the noise of the masks.
    """
    n = len(nats)
    mean, error = float(nats.mean()), float(nats.std() / math.sqrt(n)) if n > 1 else math.nan
    if posed.characters == 0:
        raise ValueError(f"{posed.source} holds empty sequences only; expected symbols to score")
    images, symbol = isinstance(model.vocabulary, Levels), _symbol(model)
    each, in_bytes = n / posed.characters, int(posed.bytes.sum())
    units = (
        {"bits_per_dim": (each, "bits per dimension", "nats / (dimensions ln 2)")}
        if images
        else {
            "bits_per_character": (
                each,
                "bits per character",
                "nats of all sequences / (their characters ln 2)",
            ),
            "bits_per_byte": (
                n / in_bytes,
                "bits per byte",
                f"nats of all sequences / (their {in_bytes} bytes ln 2)",
            ),
        }
    )
    report = {"nats": number(mean, "nats per sequence", estimator, stderr=error)}
    for name, (scale, unit, definition) in units.items():
        bits = scale / math.log(2)
        report[name] = number(mean * bits, unit, definition, stderr=error * bits)
    if not images:
        value = math.exp(mean * each)
        report["perplexity"] = number(
            value, f"per {symbol}", f"exp(nats / {symbol}s)", stderr=value * error * each
        )
    return report


def _symbol(model: Model) -> str:
    """What one symbol stands for."""
    names: dict[type, str] = {Characters: "character", Listed: "character", Bytes: "byte", Tokenizer: "token"}
    return names.get(type(model.vocabulary), "symbol")
