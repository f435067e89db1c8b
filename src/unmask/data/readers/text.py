"""Text as a stream of symbols: bytes, characters, text8's 27 symbols, or the tokens of a tokenizer file."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from unmask.data.files import open_binary, shown
from unmask.data.readers.pieces import Piece

BLOCK = 2**20
"""Bytes that are read at a time."""

LONGEST_WORD = 2**24
"""Characters without white space after which a text is cut anyway."""

_SPELT = dict(
    zip("0123456789", ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
)
_WORDS = re.compile("[a-z]+")
_LOWER = str.maketrans(
    {chr(c): chr(c + 32) for c in range(ord("A"), ord("Z") + 1)} | {d: f" {w} " for d, w in _SPELT.items()}
)


def text8(text: str) -> str:
    """The words of a text in text8's 27 symbols, each behind one space: lower-case a-z, digits spelt out.

    What Mahoney's filter does with text that has no markup: A-Z become lower-case, every digit a word, and every
    run of other characters, accented letters among them, one space.
    """
    return "".join(f" {word}" for word in _WORDS.findall(text.translate(_LOWER)))


def words(path: Path) -> Iterator[Piece]:
    """A UTF-8 file in text8's 27 symbols."""
    return (shortened(piece) for piece in characters(path))


def shortened(piece: Piece) -> Piece:
    """A piece in text8's 27 symbols; pieces end at white space, so no word is torn."""
    return replace(piece, data=text8(piece.data if isinstance(piece.data, str) else ""))


def contents(path: Path) -> Iterator[Piece]:
    """A file's bytes; unpacked only where its name says that it is packed."""
    with open_binary(path, by_name=True) as file:
        while data := file.read(BLOCK):
            yield Piece(data, shown(path))


def characters(path: Path) -> Iterator[Piece]:
    """A UTF-8 file's characters, line ends as they are, in pieces that end at white space; a byte order mark is none.

    ValueError where the file is not UTF-8. A tokenizer sees one piece at a time: no token spans two.
    """
    rest, line = "", 1
    for text in _decoded(path):
        text = rest + text
        cut = max(text.rfind(" "), text.rfind("\n")) + 1
        if not cut and len(text) >= LONGEST_WORD:
            cut = len(text)
        if cut:
            yield Piece(text[:cut], shown(path), line)
        rest, line = text[cut:], line + text.count("\n", 0, cut)
    if rest:
        yield Piece(rest, shown(path), line)


def _decoded(path: Path) -> Iterator[str]:
    """A file's text, block by block, without a byte order mark."""
    decoder, done, lines = codecs.getincrementaldecoder("utf-8-sig")(), 0, 1
    with open_binary(path) as file:
        while True:
            data = file.read(BLOCK)
            done += len(data)
            try:
                yield decoder.decode(data, final=not data)
                lines += data.count(b"\n")
            except UnicodeDecodeError as error:
                at = done - len(error.object) + error.start
                line = lines + error.object.count(b"\n", 0, error.start)
                raise ValueError(
                    f"{shown(path)}, line {line}: not UTF-8 at byte {at} ({error.object[error.start]:#04x}); "
                    "expected UTF-8 text: convert it, or read it as bytes"
                ) from None
            if not data:
                return
