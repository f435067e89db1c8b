"""Vocabularies: text to symbol ids and back. Each has ``size``, ``encode(text) -> int64 [n]``, ``decode(ids) -> text``.

``bytes_of(ids)`` says how many bytes of UTF-8 symbols stand for: what bits per byte are divided by.
Symbols are numbered 0..size-1; the pad symbol that some sequences need and the mask come after them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]

TEXT8 = " abcdefghijklmnopqrstuvwxyz"
"""The 27 symbols of text8 (Mahoney): a space and the lower-case letters."""

SMILES = "#()-123456=BCFHNOS[]clnors"
"""The 26 symbols of the MOSES molecules (training part)."""


class Foreign(ValueError):
    """A symbol that the vocabulary lacks; ``at`` is its place in the text."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(f"at {at}: {message}")
        self.message, self.at = message, at


@dataclass(frozen=True)
class Characters:
    """Single characters, ids in the order of ``symbols``."""

    symbols: str

    def __post_init__(self) -> None:
        twice = [c for i, c in enumerate(self.symbols) if c in self.symbols[:i]]
        if twice or not self.symbols:
            state = f"character {twice[0]!r} twice" if twice else "no characters"
            raise ValueError(f"a vocabulary with {state}; expected different characters")

    @property
    def size(self) -> int:
        """Number of symbols."""
        return len(self.symbols)

    @cached_property
    def _ids(self) -> Ints:
        """Ids by code point; -1 for characters that are not in the vocabulary."""
        points = _points(self.symbols)
        table = np.full(int(points.max(initial=0)) + 2, -1, np.int64)
        table[points] = np.arange(len(points))
        return table

    def encode(self, text: str) -> Ints:
        """Ids int64 [n]; `Foreign` names the first foreign character and its place."""
        ids = self._ids[np.minimum(_points(text), len(self._ids) - 1)]
        if ids.size and ids.min() < 0:
            at = int(np.argmin(ids >= 0))
            known = f"{self.symbols[:60]!r}{'..' if len(self.symbols) > 60 else ''}"
            raise Foreign(f"character {text[at]!r} is not in the vocabulary: expected one of {known}", at)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; ValueError for one outside 0..size-1."""
        return "".join(self.symbols[i] for i in _within(ids, self.size))

    @cached_property
    def _widths(self) -> Ints:
        """Bytes of each symbol in UTF-8."""
        return np.array([len(c.encode("utf-8", "surrogatepass")) for c in self.symbols], np.int64)

    def bytes_of(self, ids: Ints) -> int:
        """Bytes of UTF-8 that ids int64 [n] stand for."""
        return int(self._widths[ids].sum())


@dataclass(frozen=True)
class Listed:
    """Tokens by id, as a file vocab.txt lists them: single characters, and special ones such as ``<mask>`` or ``[PAD]``.

    Text is made of the characters only; the others are longer, and stand for none.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        _ = self.characters

    @property
    def size(self) -> int:
        """Number of tokens, special ones included."""
        return len(self.names)

    @cached_property
    def characters(self) -> Characters:
        """The tokens that stand for text."""
        return Characters("".join(name for name in self.names if len(name) == 1))

    @cached_property
    def _ids(self) -> Ints:
        return np.array([i for i, name in enumerate(self.names) if len(name) == 1], np.int64)

    def encode(self, text: str) -> Ints:
        """Ids int64 [n], one a character; `Foreign` names the first foreign one and its place."""
        return self._ids[self.characters.encode(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """The names of ids, one after another; ValueError for one outside 0..size-1."""
        return "".join(self.names[i] for i in _within(ids, self.size))

    def bytes_of(self, ids: Ints) -> int:
        """Bytes of UTF-8 that ids int64 [n] stand for."""
        return len(self.decode(ids.tolist()).encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class Bytes:
    """UTF-8 bytes, 256 symbols; what is not UTF-8 is decoded with replacement characters."""

    size: int = 256

    def encode(self, text: str | bytes) -> Ints:
        """Ids int64 [n] of a text's UTF-8 bytes, or of bytes."""
        data = text.encode() if isinstance(text, str) else text
        return np.frombuffer(data, np.uint8).astype(np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        return bytes(_within(ids, self.size)).decode("utf-8", "replace")

    def bytes_of(self, ids: Ints) -> int:
        """A byte for each of ids int64 [n]."""
        return len(ids)


@dataclass(frozen=True)
class Levels:
    """Grey or colour values 0..size-1 of images: numbers, not text."""

    size: int = 256

    def bytes_of(self, ids: Ints) -> int:
        """A byte for each of ids int64 [n], as they are stored."""
        return len(ids)


@dataclass(frozen=True)
class Tokenizer:
    """A Hugging Face ``tokenizer.json``, kept whole as text; needs the package tokenizers (extra `hf`)."""

    text: str

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            from tokenizers import Tokenizer as HuggingFace  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            raise ImportError("tokenizers is not installed: pip install 'unmask[hf]'") from None
        found = HuggingFace.from_str(self.text)
        found.no_truncation()  # a file may say so, and a part of a text is another text
        found.no_padding()
        return found

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Tokens by id."""
        return tuple(self._tokenizer.id_to_token(i) or "" for i in range(self.size))

    @property
    def size(self) -> int:
        """Number of symbols, added ones included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> Ints:
        """Ids int64 [n], without special tokens around them."""
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""
        return str(self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=False))

    @cached_property
    def _widths(self) -> Ints | None:
        """Bytes of each token where every character of a token stands for a byte (byte-level BPE); None elsewhere."""
        record = json.loads(self.text)
        if (record.get("decoder") or {}).get("type") != "ByteLevel":
            return None
        added = {token["id"]: len(token["content"].encode()) for token in record.get("added_tokens") or ()}
        return np.array([added.get(i, len(name)) for i, name in enumerate(self.names)], np.int64)

    def bytes_of(self, ids: Ints) -> int:
        """Bytes that ids int64 [n] stand for: of each token where it has some of its own, else of the text of them all."""
        if self._widths is None:
            return len(self.decode(ids.tolist()).encode())
        return int(self._widths[ids].sum())


Vocabulary: TypeAlias = Characters | Bytes | Levels | Tokenizer | Listed

_KINDS: dict[str, type[Vocabulary]] = {
    "characters": Characters,
    "bytes": Bytes,
    "levels": Levels,
    "tokenizer": Tokenizer,
    "listed": Listed,
}


def to_record(vocabulary: Vocabulary) -> dict[str, Any]:
    """The vocabulary as JSON: its kind and its fields."""
    kind = next(k for k, v in _KINDS.items() if isinstance(vocabulary, v))
    return {"kind": kind, **asdict(vocabulary)}


def from_record(record: Any) -> Vocabulary:
    """The vocabulary of `to_record`; ValueError for another record."""
    values = dict(record) if isinstance(record, dict) else {}
    kind = values.pop("kind", None)
    try:
        return _KINDS[str(kind)](**values)
    except (KeyError, TypeError):
        shown = json.dumps(record)[:80]
        raise ValueError(
            f"vocabulary {shown}: expected a kind among {', '.join(_KINDS)} and its fields"
        ) from None


def word_starts(vocabulary: Vocabulary | None) -> NDArray[np.bool_] | None:
    """Which symbols begin a word, bool [size]: after a space, or as a tokenizer's names tell; None where nothing does."""
    if isinstance(vocabulary, Characters) and " " in vocabulary.symbols:
        return np.array([c == " " for c in vocabulary.symbols])
    if not isinstance(vocabulary, Tokenizer):
        return None
    if any(name.startswith("##") for name in vocabulary.names):
        return np.array([not name.startswith("##") for name in vocabulary.names])
    starts = np.array([name.startswith(("\u0120", "\u2581")) for name in vocabulary.names])
    return starts if starts.any() else None


def _within(ids: Iterable[int], size: int) -> list[int]:
    """The ids as integers; ValueError for one outside 0..size-1, such as a mask."""
    found = [int(i) for i in ids]
    if bad := [i for i in found if not 0 <= i < size]:
        raise ValueError(
            f"id {bad[0]} among symbols to decode; expected 0..{size - 1}: take out masks and padding first"
        )
    return found


def _points(text: str) -> Ints:
    """Unicode code points of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)
