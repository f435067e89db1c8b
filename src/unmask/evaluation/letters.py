"""How are mutants written? As biologists do: ``A23T``, the letter of the wild type, the position from 1, the new letter."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.evaluation.mutants import Mutant
from unmask.models import Model

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
"""The letters that mutants of a protein have, unless others are asked for."""

MOST_SYMBOLS = 1024
"""Symbols of a model that is asked for the letter of each."""

_WRITTEN = re.compile(r"(.)(\d+)(.)")


@dataclass(frozen=True)
class Letters:
    """One sequence as text: residue k, from 1, is ``text[k - 1]`` and stands at ``places[k - 1]`` of the tokens.

    ``symbols`` are the symbols of letters.
    """

    text: str
    places: tuple[int, ...]
    symbols: dict[str, int]

    def read(self, written: str) -> Mutant:
        """The mutant that is written ``A23T``, or ``A23T:G45D`` for several at once; ValueError says what is wrong."""
        pairs = tuple(self._substitution(part, written) for part in written.split(":"))
        if len({place for place, _ in pairs}) < len(pairs):
            raise ValueError(f"mutant {written}: a position twice; expected each once")
        return pairs

    def _substitution(self, part: str, written: str) -> tuple[int, int]:
        found = _WRITTEN.fullmatch(part)
        if found is None:
            raise ValueError(
                f"mutant '{written}': expected a letter, a position and a letter, such as A23T or A23T:G45D"
            )
        wild, position, letter = found[1], int(found[2]), found[3]
        if not 1 <= position <= len(self.text):
            raise ValueError(
                f"mutant {written}: position {position}; expected 1..{len(self.text)}, from the first letter on"
            )
        if (there := self.text[position - 1]) != wild:
            raise ValueError(
                f"mutant {written}: position {position} holds {there}, expected {wild}: is this the sequence, and are "
                "positions counted from 1?"
            )
        if letter not in self.symbols:
            raise ValueError(
                f"mutant {written}: no symbol is '{letter}'; expected one of {''.join(self.symbols)}"
            )
        return self.places[position - 1], self.symbols[letter]

    def write(self, mutant: Mutant) -> str:
        """What `read` reads."""
        names = {symbol: letter for letter, symbol in self.symbols.items()}
        return ":".join(
            f"{self.text[k]}{k + 1}{names[symbol]}"
            for place, symbol in mutant
            for k in [self.places.index(place)]
        )

    def alphabet(self, letters: str | None = None) -> list[int]:
        """Symbols of ``letters``; by default those of amino acids where the text is a protein's, or all that there are."""
        if letters is None:
            protein = set(self.text) <= set(AMINO_ACIDS) <= set(self.symbols)
            return [self.symbols[x] for x in AMINO_ACIDS] if protein else list(self.symbols.values())
        if foreign := [x for x in letters if x not in self.symbols]:
            raise ValueError(f"letter '{foreign[0]}': expected some of {''.join(self.symbols)}")
        return [self.symbols[x] for x in dict.fromkeys(letters)]

    def region(self, text: str) -> list[int]:
        """Places of a region such as ``23-45``, ``7``, ``1-5,23-45`` or ``all``; positions count from 1, ends included."""
        if text == "all":
            return list(self.places)
        found: dict[int, None] = {}
        for part in text.split(","):
            first, _, last = part.partition("-")
            low, high = int(first), int(last or first)
            if not 1 <= low <= high <= len(self.text):
                raise ValueError(
                    f"region {part}: expected positions in 1..{len(self.text)}, the first one first"
                )
            found |= dict.fromkeys(range(low, high + 1))
        return [self.places[k - 1] for k in found]


def is_region(text: str) -> bool:
    """Whether a text is written as a region is."""
    return text == "all" or re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text) is not None


def letters_of(model: Model, tokens: Tensor) -> Letters:
    """The letters of tokens int64 [L] of a model, from what it decodes; positions that it calls visible are none.

    ValueError where it does not write a letter for a symbol.
    """
    size, mask_id = model.denoiser.vocab_size, model.denoiser.mask_id
    if size > MOST_SYMBOLS:
        raise ValueError(
            f"model '{model.name}' has {size} symbols; mutants need one that writes single letters"
        )
    shown = model.visible(tokens[None])
    seen = torch.zeros_like(tokens, dtype=torch.bool) if shown is None else shown[0]
    places = tuple((~seen).nonzero()[:, 0].tolist())
    text = _text(model.decode(tokens[None])[0], len(places))
    if text is None or not places:
        raise ValueError(
            f"model '{model.name}' does not write a letter for a symbol; mutants need one that does"
        )
    variants = tokens.repeat(size, 1)
    variants[:, places[0]] = torch.arange(size, device=tokens.device)
    kept = _scored(model, variants, seen) & (variants[:, places[0]] != mask_id)
    symbols: dict[str, int] = {}
    for symbol in kept.nonzero()[:, 0].tolist():
        found = _text(model.decode(variants[symbol][None])[0], len(places))
        if found is not None and found[1:] == text[1:]:
            symbols.setdefault(found[0], symbol)
    own = {letter: int(tokens[place]) for letter, place in zip(text, places)}
    return Letters(text, places, symbols | own)


def _scored(model: Model, variants: Tensor, seen: Tensor) -> Tensor:
    """Which of the variants [n, L] have the same visible positions bool [L]."""
    shown = model.visible(variants)
    return torch.ones(len(variants), dtype=torch.bool) if shown is None else (shown == seen).all(1).cpu()


def _text(decoded: object, count: int) -> str | None:
    """What was decoded as ``count`` letters, without the spaces between tokens if it had any; None where it is not that."""
    if not isinstance(decoded, str):
        return None
    return next((text for text in (decoded, decoded.replace(" ", "")) if len(text) == count), None)
