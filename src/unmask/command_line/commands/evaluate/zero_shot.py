"""``unmask eval --zero-shot``: perplexity per token and per word of a set that the model has not seen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from unmask.base.progress import IN_TURN, Pieces
from unmask.command_line import sequences
from unmask.command_line.choosing.files import facts
from unmask.command_line.options import Machine, Options, in_range
from unmask.command_line.output import Report, number
from unmask.data import files
from unmask.data.readers.papers import END
from unmask.data.readers.text import text8
from unmask.data.vocabularies import TEXT8, Bytes, Characters, Foreign, Levels, Tokenizer
from unmask.evaluation.harness.zero_shot import SETS, documents
from unmask.models import Model


def run(
    model: Model,
    data: Path | None,
    options: Options,
    *,
    name: str,
    num: int | None,
    samples: int,
    quiet: bool,
    machine: Machine,
    pieces: Pieces = IN_TURN,
) -> Report:
    """The bound of a set, packed into rows of the model's length, per token and per word, with standard errors."""
    in_range("samples", samples, 1)
    posed, words, about = packed(model, data, name)
    kept = posed.part(sequences.drawn(len(posed.tokens), num, options.seed))
    bound, estimator = sequences.estimator(model, samples, options.seed)
    if pieces.shared:
        asked = {"command": f"eval --zero-shot {name}", "samples": samples, "data": kept.tokens}
        pieces.of(**facts(model, machine, options, **asked))
    nats = sequences.nats_of(kept, bound, "eval", quiet, machine, pieces)
    tokens = about["tokens"]
    per_token = float(nats.mean()) / model.length
    error = float(nats.std() / math.sqrt(len(nats))) / model.length if len(nats) > 1 else math.nan
    report: Report = {
        "command": "eval --zero-shot",
        "model": {"name": model.name, "hash": model.hash, "trained_steps": model.config.get("trained_steps")},
        "set": name,
        "data": about | {"rows": len(kept.tokens), "tokens_scored": kept.tokens.numel()},
        "nats": number(per_token, "nats per token", f"{estimator}; an upper bound", stderr=error),
        "perplexity": _perplexity(per_token, error, 1.0, "token", "exp(nats / tokens)"),
        "word_perplexity": _perplexity(
            per_token, error, tokens / words, "word", "exp(nats / words of the file as it is)"
        ),
        "md4": SETS[name].md4,
    }
    return report


def _perplexity(nats: float, error: float, each: float, what: str, definition: str) -> Report:
    """exp of nats, ``each`` tokens of them at a time."""
    value = math.exp(min(nats * each, 700.0))
    return number(value, f"per {what}", definition, stderr=value * error * each)


def packed(model: Model, data: Path | None, name: str) -> tuple[sequences.Sequences, int, Report]:
    """Documents one after another in rows of the model's length, their words, and what was done; the rest is dropped."""
    if data is None:
        raise ValueError(
            f"--zero-shot {name} without data; expected its file: {SETS[name].file if name in SETS else 'text'}"
        )
    end, changed = separator(model)
    found = list(documents(data, name))
    if not found:
        raise ValueError(f"{files.shown(data)} holds no text; expected {SETS[name].file}")
    ids = np.concatenate([_ids(model, f"{text}{end}" if not changed else text, changed) for text, _ in found])
    rows, words = len(ids) // model.length, sum(count for _, count in found)
    if not rows:
        raise ValueError(
            f"{files.shown(data)} has {len(ids)} tokens; expected at least {model.length}, a row of the model"
        )
    tokens = ids[: rows * model.length].reshape(rows, model.length)
    about = {
        "source": files.shown(data),
        "documents": len(found),
        "words": words,
        "tokens": len(ids),
        "tokens_dropped": len(ids) - tokens.size,
        "between_documents": "text8's filter" if changed else repr(end),
    }
    counts = torch.full((rows,), model.length)
    return sequences.Sequences(files.shown(data), torch.as_tensor(tokens), counts, counts), words, about


def separator(model: Model) -> tuple[str, bool]:
    """What stands between documents, and whether text goes through text8's filter; ValueError for no model of a stream."""
    vocabulary = model.vocabulary
    if (
        vocabulary is None
        or isinstance(vocabulary, Levels)
        or model.frame is not None
        or model.end is not None
    ):
        raise ValueError(
            f"model '{model.name}' is not one of a stream of text; --zero-shot expects one, such as owt-small"
        )
    if isinstance(vocabulary, Tokenizer):
        known = len(vocabulary.encode(END)) == 1
        return (END if known else "\n"), False
    if isinstance(vocabulary, Characters) and vocabulary.symbols == TEXT8:
        return "", True
    plain = isinstance(vocabulary, Bytes) or "\n" in getattr(vocabulary, "symbols", "")
    return ("\n" if plain else " "), False


def _ids(model: Model, text: str, changed: bool) -> NDArray[np.int64]:
    """Token ids of a document; ValueError for a symbol that the model has not."""
    vocabulary: Any = model.vocabulary
    try:
        ids: NDArray[np.int64] = vocabulary.encode(text8(text) if changed else text)
        return ids
    except Foreign as error:
        raise ValueError(f"document '{text[:30]}': {error.message}") from None


def render(report: Report, console: Console) -> None:
    """Prints both perplexities with their units, and what was scored."""
    data = report["data"]
    console.print(
        f"{report['set']}, {data['source']}: {data['documents']} documents, {data['words']} words, "
        f"{data['tokens']} tokens; {data['rows']} rows scored, {data['tokens_dropped']} tokens at the end left out"
    )
    table = Table("", "value", "unit: definition", box=None)
    for name in ("nats", "perplexity", "word_perplexity"):
        found = report[name]
        value = f"{found['value']:.4g} +- {found['stderr']:.2g}"
        table.add_row(name.replace("_", " "), value, f"{found['unit']}: {found['estimator']}")
    console.print(table)
    if report["md4"] is not None:
        console.print("MD4 on OpenWebText, per token: {} (small), {} (medium)".format(*report["md4"]))
