"""Model folders in the standard layout: config.json, model.safetensors, vocab.txt, tokenizer files, probe.txt, README."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from unmask.base import checkpoints
from unmask.base.records import write_text

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
"""The amino acids, in the order of all vocabularies here."""


@dataclass(frozen=True)
class Symbols:
    """A vocabulary of single characters and special symbols, in the order of their ids.

    ``roles``: the special symbol of each of pad, unk, cls, sep, mask (and bos, eos where they have names of their own).
    """

    names: tuple[str, ...]
    roles: Mapping[str, str]

    def id_of(self, role: str) -> int:
        """The id of a special symbol."""
        return self.names.index(self.roles[role])


@dataclass(frozen=True)
class Content:
    """What a model folder holds: its configuration, weights, symbols, sequences that it should know, and what to say of it.

    ``longest``: the most tokens of a sequence, where it goes to transformers; without, no tokenizer is written.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    symbols: Symbols
    probe: Sequence[str]
    about: str
    longest: int | None = None


def write(folder: Path, content: Content) -> None:
    """Writes a model folder, the weights last: a folder without them is unfinished."""
    symbols = content.symbols
    write_text(folder / "vocab.txt", "".join(f"{name}\n" for name in symbols.names))
    write_text(folder / "probe.txt", "".join(f"{text}\n" for text in content.probe))
    write_text(folder / "README.md", content.about)
    if content.longest is not None:
        special = {f"{role}_token": name for role, name in symbols.roles.items()}
        kind = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": content.longest}
        settings = {**kind, **special}
        records = {"special_tokens_map": special, "tokenizer_config": settings}
        for name, record in {**records, "tokenizer": tokenizer_record(symbols)}.items():
            checkpoints.write_json(folder / f"{name}.json", record)
    checkpoints.write_json(folder / "config.json", content.config)
    checkpoints.write_tensors(folder / "model.safetensors", content.tensors)


def tokenizer_record(symbols: Symbols) -> dict[str, Any]:
    """A tokenizer.json: every character by its id, between the first and the last special symbol."""
    first, last = symbols.roles["cls"], symbols.roles["sep"]
    ends = {s: {"id": s, "ids": [symbols.names.index(s)], "tokens": [s]} for s in (first, last)}
    frame = [{"SpecialToken": {"id": s, "type_id": 0}} for s in (first, last)]
    single = [frame[0], {"Sequence": {"id": "A", "type_id": 0}}, frame[1]]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": symbols.names.index(s), "content": s, **flags, "special": True}
            for s in dict.fromkeys(symbols.roles.values())
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "."},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, {"Sequence": {"id": "B", "type_id": 0}}, frame[1]],
            "special_tokens": ends,
        },
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {name: n for n, name in enumerate(symbols.names)},
            "unk_token": symbols.roles["unk"],
        },
    }


def read_config(data: bytes, what: str) -> dict[str, Any]:
    """A configuration in JSON; ValueError when it is none."""
    try:
        found = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{what} is not JSON ({checkpoints.one_line(error)}); fetch again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{what} holds a {type(found).__name__}; expected a record")
    return found
