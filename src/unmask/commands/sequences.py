"""``unmask eval`` of models that are not of puzzles: what a model makes of a token folder, a text file or a fetched set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unmask import genmd4, upscale
from unmask.commands import orders
from unmask.commands.options import Options
from unmask.commands.output import Report, number
from unmask.data import tokens as folders
from unmask.data.cache import cache
from unmask.data.tokens import Tokens
from unmask.data.vocabularies import Bytes, Characters, Levels, Tokenizer, to_record
from unmask.denoisers import take_symbols
from unmask.likelihood import nelbo
from unmask.models import Model
from unmask.progress import Progress
from unmask.sampling import check_tokens

BATCH = 64
Places: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """tokens int64 [n, L] that a model is measured on, the characters in them, and where they came from.

    ``characters`` counts the data symbols, not the padding; ``bytes_each`` is the mean number of source bytes of one.
    """

    source: str
    tokens: Tensor
    characters: int
    bytes_each: float

    def part(self, places: Places, model: Model) -> Sequences:
        """Some of the sequences."""
        rows = self.tokens[torch.as_tensor(places)]
        return Sequences(self.source, rows, int((rows < _size(model)).sum()), self.bytes_each)


def read(model: Model, data: Path, num: int | None, seed: int) -> Sequences:
    """Sequences of a token folder (or one in the cache), or of a text file: all, or ``num`` at random.

    A stream is cut into disjoint stretches of the model's length, the last partial one dropped.
    """
    place = data if data.exists() else cache() / data
    if not place.exists():
        raise ValueError(
            f"no data '{data}': expected a token folder, a text file, or a set such as text/valid"
        )
    found = (
        _folder(model, folders.verify(place), num, seed) if place.is_dir() else _file(model, place, num, seed)
    )
    if not len(found.tokens):
        raise ValueError(f"{place} holds no sequence of length {model.length}: it is too short")
    return found


def _folder(model: Model, data: Tokens, num: int | None, seed: int) -> Sequences:
    """The sequences of an opened token folder; ValueError unless it has the model's vocabulary and they fit."""
    own = model.config.get("vocabulary")
    if own is not None and to_record(data.vocabulary) != own:
        raise ValueError(
            f"{data.folder} has another vocabulary than model '{model.name}': prepare it with the model's"
        )
    count = upscale.stages_of(model.config["network"])
    length = model.length // count
    places = drawn(data.items or data.symbols // length, num, seed)
    rows = data.padded(places, length, _size(model)) if data.items else data.windows(places * length, length)
    symbols = int((rows < _size(model)).sum())
    tokens = torch.as_tensor(rows)
    if count > 1:
        tokens = upscale.encode_digits(tokens, model.denoiser.vocab_size, _size(model))
    check_tokens(tokens, model.denoiser, masks=False)
    return Sequences(str(data.folder), tokens, symbols, data.manifest["source_bytes"] / max(data.symbols, 1))


def _file(model: Model, path: Path, num: int | None, seed: int) -> Sequences:
    """A text file: one item a line for models of items, one stream for the others."""
    if isinstance(model.vocabulary, Levels):
        raise ValueError(f"model '{model.name}' is one of images; expected a token folder")
    text = path.read_bytes().decode()
    rows = model.encode(text if model.denoiser.vocab_size == _size(model) else text.splitlines())
    check_tokens(rows, model.denoiser, masks=False)
    found = rows[torch.as_tensor(drawn(len(rows), num, seed))]
    symbols = int((found < _size(model)).sum())
    return Sequences(str(path), found, symbols, len(text.encode()) / max(int((rows < _size(model)).sum()), 1))


def _size(model: Model) -> int:
    """Data symbols of a model's vocabulary, without the pad."""
    vocabulary = model.vocabulary
    return model.denoiser.vocab_size if vocabulary is None else vocabulary.size


def drawn(total: int, num: int | None, seed: int) -> Places:
    """All places 0..total-1, or ``num`` of them at random, in order."""
    if num is not None and num < 1:
        raise ValueError(f"num {num}: expected at least 1")
    if num is None or num >= total:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, num, replace=False))


def run(
    model: Model, data: Path, options: Options, *, num: int | None, exact: int, samples: int, quiet: bool
) -> Report:
    """The bound of data under a model, and of ``exact`` sequences the log-likelihood along the order, with units."""
    options = orders.suited(options, model)
    score = orders.scored(options, model) if exact else None
    posed = read(model, data, num, options.seed)
    generator = torch.Generator().manual_seed(options.seed)
    bound, about = estimator(model, samples, generator)
    report: Report = {
        "command": "eval",
        "model": {"name": model.name, "hash": model.hash, "trained_steps": model.config.get("trained_steps")},
        "data": {"source": posed.source, "sequences": len(posed.tokens), "characters": posed.characters},
        "nelbo": numbers(model, posed, _values(posed, "bound", bound, quiet), about),
        "log_likelihood": None,
    }
    if score is not None:
        some = posed.part(drawn(len(posed.tokens), exact, options.seed), model)
        values = _values(some, "likelihood", lambda rows: -score(rows), quiet)
        name = f"exact along one order, {options.order}, plan {options.plan or 'its own'}, {len(some.tokens)} sequences"
        report["log_likelihood"] = numbers(model, some, values, name)
    return report


def estimator(
    model: Model, samples: int, generator: torch.Generator
) -> tuple[Callable[[Tensor], Tensor], str]:
    """Nats [B] of tokens [B, L], given lengths included, by the estimator that suits a model's training, and its name."""
    denoiser, network = model.denoiser, model.config["network"]
    each = f"{samples} mask sets per sequence"
    if network.get("causal"):  # one call gives all factors of the chain
        return lambda rows: -take_symbols(denoiser(rows), rows).double().sum(1), "exact from left to right"
    if (count := upscale.stages_of(network)) > 1:
        return (
            lambda rows: upscale.nelbo(denoiser, rows, count, generator=generator, samples=samples).value,
            f"sum of the bounds of {count} stages, {each} and stage",
        )
    if network.get("timed"):
        powers = getattr(denoiser.network, "powers", torch.ones(denoiser.vocab_size))
        return (
            lambda rows: genmd4.nelbo(denoiser, rows, powers, generator=generator, samples=samples).value,
            f"integral over time with its end terms (MD4, GenMD4), {each}",
        )
    lengths = "" if model.end is None else ", and the cost of the length"
    return (
        lambda rows: (
            model.length_cost(rows)
            + nelbo(denoiser, rows, generator=generator, samples=samples, visible=model.visible(rows)).value
        ),
        f"bound over random orders, {each}{lengths}",
    )


def _values(posed: Sequences, label: str, measure: Callable[[Tensor], Tensor], quiet: bool) -> Tensor:
    """Nats of every sequence, float64 [n]."""
    values: list[Tensor] = []
    with Progress(label, len(posed.tokens), quiet=quiet) as progress:
        for rows in torch.split(posed.tokens, BATCH):
            values.append(measure(rows))
            progress.advance(sum(map(len, values)))
    return torch.cat(values)


def numbers(model: Model, posed: Sequences, nats: Tensor, estimator: str) -> Report:
    """Nats per sequence and what follows: bits per dimension for images; per character, byte, perplexity for text.

    Standard errors are over sequences and include the noise of the masks.
    """
    n = len(nats)
    mean, error = float(nats.mean()), float(nats.std() / math.sqrt(n)) if n > 1 else math.nan
    if posed.characters == 0:
        raise ValueError(f"{posed.source} holds empty sequences only; expected symbols to score")
    images, symbol = isinstance(model.vocabulary, Levels), _symbol(model)
    each = n / posed.characters
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
                each / posed.bytes_each,
                "bits per byte",
                f"bits per {symbol} / source bytes per {symbol}",
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
    return {Characters: "character", Bytes: "byte", Tokenizer: "token"}.get(type(model.vocabulary), "symbol")


def render(report: Report, console: Console) -> None:
    """Prints every number with its unit, standard error and definition."""
    data = report["data"]
    console.print(f"{data['source']}: {data['sequences']} sequences, {data['characters']} symbols")
    table = Table("", "value", "unit: definition", box=None)
    for name in ("nelbo", "log_likelihood"):
        for quantity, found in (report[name] or {}).items():
            label = name.replace("_", " ") if quantity == "nats" else ""
            value = f"{found['value']:.4f} +- {found['stderr']:.4f}"
            table.add_row(label, value, f"{found['unit']}: {found['estimator']}")
    console.print(table)
