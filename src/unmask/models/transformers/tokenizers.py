"""The symbols of a folder of transformers: a tokenizer.json, or a plain vocab.txt of single characters."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unmask.data.vocabularies import Ints, Listed, Tokenizer
from unmask.models.frames import Frame

FILES = (
    *(
        "vocab.txt",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.json",
        "merges.txt",
    ),
    *("added_tokens.json", "probe.txt", "probe.json"),
)
"""What belongs to a tokenizer, and sequences that weights can be tried on."""

USUAL = {
    "mask_token": ("[MASK]", "<mask>"),
    "pad_token": ("[PAD]", "<pad>"),
    "cls_token": ("[CLS]", "<cls>", "<s>"),
    "sep_token": ("[SEP]", "<sep>", "<eos>", "</s>"),
}
"""What special tokens are called where nothing says so."""

UNUSED = re.compile(r"\[unused\d+\]|<unused\d+>|madeupword\d+")
"""Names of places that vocabularies keep free."""


@dataclass(frozen=True)
class Symbols:
    """A vocabulary, the mask's id, the frame of a row, and the files that it came from (or would be written to)."""

    vocabulary: Listed | Tokenizer
    mask_id: int
    frame: Frame
    files: dict[str, bytes] = field(default_factory=dict, repr=False)


def symbols_of(tokenizer: Any, config: Any, size: int) -> Symbols:
    """The symbols of a folder, a list of tokens, or a tokenizer of transformers, for a network of ``size`` logits."""
    if isinstance(tokenizer, str | Path):
        return _of_folder(Path(tokenizer), config, size)
    if isinstance(tokenizer, list | tuple):
        return _listed(Listed(tuple(map(str, tokenizer))), {}, config, size)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(
            f"tokenizer {type(tokenizer).__name__}: expected a folder, a fast tokenizer, or a list of tokens"
        )
    special = {
        name: str(value) for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)
    }
    return _pieces(backend.to_str(), special, config, size)


def _of_folder(folder: Path, config: Any, size: int) -> Symbols:
    """A plain vocab.txt goes first: it says all there is to single characters."""
    special = _special(folder)
    found = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
    if "vocab.txt" in found and (names := _plain(found["vocab.txt"])) is not None:
        try:
            symbols = _listed(Listed(names), special, config, size)
        except ValueError as error:
            raise ValueError(f"{folder / 'vocab.txt'}: {error}") from None
    elif "tokenizer.json" in found:
        symbols = _pieces(found["tokenizer.json"].decode(), special, config, size)
    elif {"vocab.txt", "vocab.json"} & set(found):
        symbols = _pieces(_converted(folder), special, config, size)
    else:
        raise ValueError(f"{folder} has no tokenizer.json and no vocab.txt; expected one, or give tokenizer=")
    return Symbols(symbols.vocabulary, symbols.mask_id, symbols.frame, found)


def _special(folder: Path) -> dict[str, str]:
    """Names of special tokens as the folder's files tell them."""
    told: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            try:
                told |= json.loads((folder / name).read_bytes())
            except (ValueError, TypeError):
                raise ValueError(f"{folder / name} is no JSON record; expected one, or none") from None
    plain = {
        k: v.get("content") if isinstance(v, dict) else v for k, v in told.items() if k.endswith("_token")
    }
    return {k: v for k, v in plain.items() if isinstance(v, str)}


def _plain(data: bytes) -> tuple[str, ...] | None:
    """The tokens of a vocab.txt if all but special ones are single characters; None otherwise."""
    names = tuple(
        line.removesuffix("\r") for line in data.decode("utf-8", "replace").removesuffix("\n").split("\n")
    )
    special = re.compile(r"\[.+\]|<.+>|" + UNUSED.pattern)
    return names if all(len(name) == 1 or special.fullmatch(name) for name in names) else None


def _converted(folder: Path) -> str:
    """A tokenizer.json made by transformers from older files."""
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return str(found.backend_tokenizer.to_str())
    except Exception as error:  # whatever its readers raise, the files are not what they should be
        line = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{folder}: no tokenizer can be made of its files ({line}); expected a tokenizer.json"
        ) from None


# --- special tokens -----------------------------------------------------------------------------------


def _listed(vocabulary: Listed, special: Mapping[str, str], config: Any, size: int) -> Symbols:
    """The symbols of a list of tokens; the frame is its first and last special tokens by name."""
    ids = {name: i for i, name in enumerate(vocabulary.names)}
    begin, end = _place("cls_token", ids, special, config), _place("sep_token", ids, special, config)
    drawn = [i for i, name in enumerate(vocabulary.names) if len(name) == 1]
    around = (() if begin is None else (begin,), () if end is None else (end,))
    files = {"vocab.txt": "".join(f"{name}\n" for name in vocabulary.names).encode()}
    return _symbols(vocabulary, ids, special, config, size, drawn, around, files)


def _pieces(text: str, special: Mapping[str, str], config: Any, size: int) -> Symbols:
    """The symbols of a tokenizer.json; the frame is what its own post-processor puts around a text."""
    try:
        vocabulary = Tokenizer(text)
        names = vocabulary.names
        added = {t["id"] for t in json.loads(text).get("added_tokens") or () if t.get("special")}
        around = _around(vocabulary)
    except ImportError:
        raise
    except Exception as error:  # the library's own kind has no name
        line = " ".join(str(error).split())[:120]
        raise ValueError(
            f"tokenizer.json is damaged or foreign ({line}); expected one that tokenizers reads"
        ) from None
    ids = {name: i for i, name in enumerate(names)}
    never = added | {ids[name] for name in special.values() if name in ids} | set(around[0] + around[1])
    drawn = [i for i, name in enumerate(names) if name and i not in never and not UNUSED.fullmatch(name)]
    return _symbols(vocabulary, ids, special, config, size, drawn, around, {"tokenizer.json": text.encode()})


def _around(vocabulary: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What stands before and after a text with special tokens."""
    library = vocabulary._tokenizer
    text = next(name for name in vocabulary.names if name.isalpha() or name.isalnum())
    bare = library.encode(text, add_special_tokens=False).ids
    whole = library.encode(text, add_special_tokens=True).ids
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return tuple(whole[:start]), tuple(whole[start + len(bare) :])
    raise ValueError("its special tokens change the text between them")


def _symbols(
    vocabulary: Listed | Tokenizer,
    ids: Mapping[str, int],
    special: Mapping[str, str],
    config: Any,
    size: int,
    drawn: Iterable[int],
    around: tuple[tuple[int, ...], tuple[int, ...]],
    files: dict[str, bytes],
) -> Symbols:
    """The record of all that, checked against the network's ``size``."""
    mask, pad = (_place(name, ids, special, config) for name in ("mask_token", "pad_token"))
    if mask is None or pad is None:
        which = "mask" if mask is None else "pad"
        raise ValueError(
            f"no {which} token among {', '.join(list(ids)[:8])} ..; expected {USUAL[f'{which}_token'][0]}"
        )
    kept = tuple(i for i in drawn if i not in (mask, pad))
    if not kept or max(*kept, mask, pad) >= size:
        raise ValueError(
            f"the tokenizer has {vocabulary.size} tokens, the network {size}; expected the tokenizer of this network"
        )
    names = tuple(vocabulary.names[i] for i in kept)
    return Symbols(vocabulary, mask, Frame(*around, pad, kept, names), files)


def _place(kind: str, ids: Mapping[str, int], special: Mapping[str, str], config: Any) -> int | None:
    """The id of a special token: as files name it, as it is usually called, or as the network's configuration says."""
    for name in (special.get(kind, ""), *USUAL[kind]):
        if name in ids:
            return ids[name]
    known = getattr(config, f"{kind}_id", None)
    return int(known) if isinstance(known, int) and 0 <= known < len(ids) else None


# --- texts ----------------------------------------------------------------------------------------------


GAP = "_"
"""Stands for a masked position, where no symbol of single characters is written so."""


def ids_of(symbols: Symbols, text: str) -> Ints:
    """Ids int64 [n] of a text, masks where it has gaps; ValueError for what the vocabulary has no symbol for."""
    vocabulary = symbols.vocabulary
    if isinstance(vocabulary, Tokenizer):
        ids = vocabulary.encode(text)
        known = np.isin(ids, (*symbols.frame.drawn, symbols.mask_id))
        if not known.all():
            name = vocabulary.names[int(ids[~known][0])]
            raise ValueError(
                f"{name} in its place {int(np.argmin(known))}: the tokenizer has no symbol for this text"
            )
        return ids
    text = text.replace(vocabulary.names[symbols.mask_id], GAP)
    if GAP in vocabulary.characters.symbols or GAP not in text:
        return vocabulary.encode(text)
    gaps = np.array([c == GAP for c in text])
    filler = vocabulary.characters.symbols[0]
    return np.where(gaps, symbols.mask_id, vocabulary.encode(text.replace(GAP, filler)))


def text_of(symbols: Symbols, ids: Iterable[int]) -> str:
    """The text of a row of ids: special tokens and pads left out, gaps for masks."""
    kept = set(symbols.frame.drawn) | {symbols.mask_id}
    inside = [i for i in ids if i in kept]
    text = symbols.vocabulary.decode(inside)
    if isinstance(symbols.vocabulary, Tokenizer) or GAP in symbols.vocabulary.characters.symbols:
        return text
    return text.replace(symbols.vocabulary.names[symbols.mask_id], GAP)
