"""Zero-shot perplexity: the sets that language models are compared on, and how their text is made plain again.

These sets come tokenised: spaces stand around punctuation, WikiText writes ``1 @,@ 000``, the Penn Treebank ``do n't``. A
model of plain text never saw that, so the usual figures are of text from which it is taken out (Radford and others, 2019;
SEDD, arXiv 2310.16834; MD4, arXiv 2406.04329). The rules below do so; those of other programs differ in places, and so
do their figures: compare models under one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from unmask.data.files import text_lines
from unmask.data.readers import lines
from unmask.data.readers.pieces import text_of

Rules: TypeAlias = tuple[tuple[str, str], ...]
"""Regular expressions and what stands in their place, one after another."""

CLOSING: Rules = (
    (r" ([.,:;!?%])", r"\1"),
    (r" (['\u2019](?:s|S|re|ve|ll|d|m|t)\b)", r"\1"),
    (r" (n['\u2019]t\b)", r"\1"),
)
"""No space before punctuation, and before the rest of a contracted word."""

BRACKETS: Rules = ((r"([(\[{]) ", r"\1"), (r" ([)\]}])", r"\1"))
QUOTES: Rules = ((r"``|''", '"'), (r'" ([^"]*?) "', r'"\1"'), (r"(^|\s)' ([^']*?) '(?=\s|$)", r"\1'\2'"))
"""Quotes stand at what they quote."""

WIKITEXT: Rules = (
    (r" @([-,.])@ ", r"\1"),
    (r"(?<==) (?==)", ""),
    *(*CLOSING, *BRACKETS, *QUOTES),
    (r"^ | $", ""),
)
PTB: Rules = (
    (r"\\/", "/"),
    (r"(\b[a-zA-Z]+s) ' ", r"\1' "),
    (r"(?<![^\s])N(?![^\s])", "1"),
    (r"([$#]) (?=1)", r"\1"),
    (r"<unk>", "?"),
    *((CLOSING[0][0].replace("?", ""), CLOSING[0][1]), *CLOSING[1:]),
    (r"^ | $", ""),
)
LM1B: Rules = (
    (r"(https?) : / / ", r"\1://"),
    *(*CLOSING, *BRACKETS, *QUOTES),
    (r"([$£€#]) (?=\d)", r"\1"),
    (r"^ | $", ""),
)
LAMBADA: Rules = ((r"[“”]|``|''", '"'), (r"[\u2018\u2019]", "'"), (r"^\s+|\s+$", ""))


@dataclass(frozen=True)
class Zero:
    """A set: its file, how it is made plain, and MD4's figures on it, perplexity per token (small, medium)."""

    file: str
    rules: Rules
    md4: tuple[float, float] | None


SETS = {
    "lambada": Zero("lambada_test.jsonl, OpenAI's", LAMBADA, (48.43, 44.12)),
    "wikitext2": Zero("wiki.test.raw of wikitext-2-raw", WIKITEXT, (34.94, 25.84)),
    "ptb": Zero("ptb.test.txt", PTB, (102.26, 66.07)),
    "wikitext103": Zero("wiki.test.raw of wikitext-103-raw", WIKITEXT, (35.90, 25.84)),
    "lm1b": Zero("news.en.heldout-00000-of-00050", LM1B, (68.10, 51.45)),
    "plain": Zero("any text, a document a line, as it is", (), None),
}
"""The sets by name, in the order of MD4's table; its 25.84 stands there twice."""


def plain(text: str, rules: Rules) -> str:
    """A text without the traces of tokenisation."""
    for pattern, other in rules:
        text = re.sub(pattern, other, text)
    return text


def documents(path: Path, name: str) -> Iterator[tuple[str, int]]:
    """The documents of a set's file, made plain, with the words that each had before; blank lines are none.

    One a line, or the field ``text`` of each line of a ``.jsonl`` file. ValueError for another set.
    """
    if name not in SETS:
        raise ValueError(f"--zero-shot {name}: expected one of {', '.join(SETS)}")
    for text in _texts(path):
        if words := len(text.split()):
            yield plain(text, SETS[name].rules), words


def _texts(path: Path) -> Iterator[str]:
    if ".jsonl" in path.suffixes:
        yield from map(text_of, lines.jsonl(path, "text"))
        return
    yield from (line.rstrip("\r\n") for line in text_lines(path))
