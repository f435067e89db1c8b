"""What a model says of texts given texts: likelihoods that name what they are, and texts that go on. No package needed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unmask import engine
from unmask.base import noise
from unmask.base.numbers import whole
from unmask.base.types import Request, State, TokenSource
from unmask.denoisers import tempered
from unmask.engine.likelihood import nelbo
from unmask.models import Model, verbs
from unmask.orders.sources import draw, given, greedy


class Nats(float):
    """A log-probability in nats that says what it is: ``meaning`` is "exact, order X" or "bound, n samples", and more."""

    meaning: str

    def __new__(cls, value: float, meaning: str) -> Nats:
        """The number with its meaning."""
        found = super().__new__(cls, value)
        found.meaning = meaning
        return found

    def __getnewargs__(self) -> tuple[float, str]:  # type: ignore[override]
        return float(self), self.meaning


@dataclass(frozen=True)
class Piece:
    """Ids of a text of which those before ``start`` are given; ``cut`` says that more stood before."""

    ids: tuple[int, ...]
    start: int
    cut: bool = False


@dataclass(frozen=True)
class Scorer:
    """Scores and continues texts by a model that reads text.

    With ``samples`` 0 likelihoods are exact along ``order``, ``plan`` positions a call; otherwise they are the bound over
    random orders by so many mask sets. Texts are continued in blocks of ``block`` symbols, from left to right, by the
    same order and plan. ``batch_size`` rows go through the network at once.
    """

    model: Model
    order: str = "left-to-right"
    plan: int = 1
    samples: int = 0
    block: int = 32
    seed: int = 0
    batch_size: int = 16

    def __post_init__(self) -> None:
        if not hasattr(self.model.vocabulary, "encode"):
            raise ValueError(f"model '{self.model.name}' has no tokenizer; expected a model of text")
        whole(self.samples, "samples", 0)
        for name in ("plan", "block", "batch_size"):
            whole(getattr(self, name), name, 1)
        if self.samples and self._layout == "open":
            raise ValueError(
                f"samples {self.samples}: model '{self.model.name}' leaves what follows a text open, and has no bound "
                "for that; expected samples 0"
            )
        verbs.ordered(self.model, self.order, None, self.plan, self.seed)

    @property
    def meaning(self) -> str:
        """What a likelihood of these settings is."""
        if self.samples:
            return f"bound, {self.samples} samples"
        steps = "" if self.plan == 1 else f", {self.plan} positions a call"
        return f"exact, order {self.order}{steps}"

    # --- likelihood ---------------------------------------------------------------------------------

    def given_contexts(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[Nats, bool]]:
        """log p(continuation | context) of each pair, and whether each of its symbols was the likeliest in its turn.

        A bound does not tell that, and says False.
        """
        return [self._joined(pieces) for pieces in self._scored([self._pair(*pair) for pair in pairs])]

    def rolling(self, texts: Sequence[str]) -> list[Nats]:
        """log p of whole texts, in windows where they are longer than the model's rows: each given half a row before it."""
        found = self._scored([self._windows(self._ids(text), 0) for text in texts])
        return [self._joined(pieces)[0] for pieces in found]

    def _joined(self, parts: list[tuple[Piece, float, bool]]) -> tuple[Nats, bool]:
        """The number of all pieces of a text."""
        meaning = self.meaning + (f", in {len(parts)} windows" if len(parts) > 1 else "")
        meaning += ", context cut" if len(parts) == 1 and parts[0][0].cut else ""
        return Nats(sum(p[1] for p in parts), meaning), not self.samples and all(p[2] for p in parts)

    def _pair(self, context: str, continuation: str) -> list[Piece]:
        """Context and continuation as one text: a space between them belongs to the continuation."""
        kept = context.rstrip(" ")
        text, before = context + continuation, self._ids(kept)
        ids = self._ids(text)
        same = next((i for i, (a, b) in enumerate(zip(before, ids)) if a != b), min(len(before), len(ids)))
        return self._windows(ids, same)

    def _windows(self, ids: Sequence[int], start: int) -> list[Piece]:
        """The pieces that score ids from ``start`` on, each in a row of the model."""
        room, found, at = self.model.length, list[Piece](), start
        if len(ids) <= room:
            return [Piece(tuple(ids), start)] if start < len(ids) else []
        while at < len(ids):
            end = min(len(ids), at + (room - room // 2 if at else room))
            first = max(0, end - room)
            found.append(Piece(tuple(ids[first:end]), at - first, first > 0))
            at = end
        return found

    def _scored(self, texts: Sequence[list[Piece]]) -> list[list[tuple[Piece, float, bool]]]:
        """Every piece with its number, those of like length together."""
        flat = [(i, piece) for i, pieces in enumerate(texts) for piece in pieces]
        flat.sort(key=lambda entry: len(entry[1].ids))
        found: list[list[tuple[Piece, float, bool]]] = [[] for _ in texts]
        for batch in self._batches(flat):
            for (i, piece), (value, likeliest) in zip(batch, self._numbers([piece for _, piece in batch])):
                found[i].append((piece, value, likeliest))
        return found

    def _batches(self, flat: list[tuple[int, Piece]]) -> Iterator[list[tuple[int, Piece]]]:
        """Pieces in batches; where rows have no pads, all of a batch are equally long."""
        batch: list[tuple[int, Piece]] = []
        for entry in flat:
            other = bool(batch) and self._layout == "bare" and len(batch[0][1].ids) != len(entry[1].ids)
            if len(batch) == self.batch_size or other:
                yield batch
                batch = []
            batch.append(entry)
        if batch:
            yield batch

    def _numbers(self, pieces: list[Piece]) -> list[tuple[float, bool]]:
        """Nats of each piece given what stands before its start, and whether its symbols were the likeliest."""
        tokens, hidden = self._rows(pieces)
        self._check(tokens, hidden)
        if self.samples:
            bound = nelbo(
                self.model.denoiser,
                tokens,
                generator=noise.seeded(self.seed),
                samples=self.samples,
                visible=~hidden,
                item_ids=torch.tensor([_number(piece.ids) for piece in pieces], device=tokens.device),
            )
            return [(-value, False) for value in bound.value.tolist()]
        source = Watched(tokens)
        state = self._run(tokens, hidden, source)
        return list(zip(state.log_prob.tolist(), source.likeliest.tolist()))

    def _run(
        self,
        tokens: Tensor,
        hidden: Tensor,
        source: TokenSource,
        seed: int | None = None,
        temperature: float = 1.0,
    ) -> State:
        """The last state of the loop on tokens int64 [B, L] from which ``hidden`` bool [B, L] are taken."""
        mask, denoiser = self.model.denoiser.mask_id, tempered(self.model.denoiser, temperature)
        state = engine.init(tokens.masked_fill(hidden, mask), mask, masked=hidden)
        selector = verbs.ordered(self.model, self.order, None, self.plan, self.seed)
        with torch.no_grad():
            return engine.run(state, denoiser, selector, source, seed=seed)[0]

    # --- rows -----------------------------------------------------------------------------------------

    @property
    def _layout(self) -> str:
        """How a text stands in a row: framed, filled up with ends, bare, or open: then what follows stays masked."""
        if self.model.frame is not None:
            return "framed"
        if self.model.end is not None:
            return "ended"
        return "bare" if "block_length" in self.model.config else "open"

    def _rows(self, pieces: Sequence[Piece]) -> tuple[Tensor, Tensor]:
        """Tokens int64 [B, L] of pieces, and where those that are to be scored stand, bool [B, L]."""
        model = self.model
        before = 0
        if model.frame is not None:
            tokens, before = model.frame.rows([p.ids for p in pieces]), len(model.frame.before)
        else:
            longest = max(len(p.ids) for p in pieces)
            fill = model.denoiser.mask_id if model.end is None else model.end
            tokens = torch.full(
                (len(pieces), longest if self._layout == "bare" else model.length), fill, dtype=torch.int64
            )
            for row, piece in zip(tokens, pieces):
                row[: len(piece.ids)] = torch.tensor(piece.ids)
        place = torch.arange(tokens.shape[1]) - before
        first = torch.tensor([p.start for p in pieces])[:, None]
        end = torch.tensor([len(p.ids) for p in pieces])[:, None]
        device = next((p.device for p in model.denoiser.network.parameters()), tokens.device)
        return tokens.to(device), ((place >= first) & (place < end)).to(device)

    def _check(self, tokens: Tensor, hidden: Tensor) -> None:
        """ValueError where what is to be scored has a symbol that the model never draws."""
        model = self.model
        drawn = range(model.denoiser.vocab_size) if model.frame is None else model.frame.drawn
        known = torch.isin(tokens, torch.tensor(list(drawn), device=tokens.device))
        known &= tokens != model.denoiser.mask_id
        if bool((hidden & ~known).any()):
            wrong = int(tokens[hidden & ~known][0])
            raise ValueError(
                f"symbol {wrong} in a text to be scored; expected symbols that model '{model.name}' draws, not special ones"
            )

    def _ids(self, text: str) -> list[int]:
        """The ids of a text; ValueError for what the model has no symbol for."""
        ids: list[int] = self.model.vocabulary.encode(text).tolist()  # type: ignore[union-attr]
        if self.model.denoiser.mask_id in ids:
            raise ValueError("a text holds the mask; expected text without it")
        return ids

    # --- going on ---------------------------------------------------------------------------------------

    def continued(
        self, context: str, until: Sequence[str] = (), most: int = 256, temperature: float = 0.0
    ) -> str:
        """The text that follows a context, block by block, cut before the first of ``until`` or after ``most`` symbols.

        At temperature 0 each symbol is the likeliest. Before each block as much stands of what came before as fits.
        """
        ids, stops = self._ids(context), [stop for stop in until if stop]
        start, end = len(ids), self.model.config.get("end_of_text")
        while len(ids) - start < whole(most, "most", 1):
            size = min(self.block, most - (len(ids) - start), self.model.length)
            block = self._block(ids, size, temperature)
            ids += block[: block.index(end)] if end in block else block
            text = self._since(ids, start)
            if end in block or any(stop in text for stop in stops):
                break
        text = self._since(ids, start)
        return text[: min((text.index(stop) for stop in stops if stop in text), default=len(text))]

    def _block(self, ids: list[int], size: int, temperature: float) -> list[int]:
        """The next symbols after ids."""
        before = ids[max(0, len(ids) - (self.model.length - size)) :] if size < self.model.length else []
        filler = self.model.frame.drawn[0] if self.model.frame is not None else 0
        tokens, hidden = self._rows([Piece((*before, *[filler] * size), len(before))])
        if temperature <= 0:
            state = self._run(tokens, hidden, greedy)
        else:
            state = self._run(tokens, hidden, draw, self.seed ^ _number(ids), temperature)
        return [int(i) for i in state.tokens[0][hidden[0]]]

    def _since(self, ids: list[int], start: int) -> str:
        """The text of ids from ``start`` on, as it stands in the text of all."""
        decode = self.model.vocabulary.decode  # type: ignore[union-attr]
        whole_text, before = decode(ids), decode(ids[:start])
        return str(
            whole_text[len(before) :] if start and whole_text.startswith(before) else decode(ids[start:])
        )


def _number(ids: Sequence[int]) -> int:
    """A number of a text by its ids: private noise belongs to it, in whatever batch it comes."""
    return zlib.crc32(",".join(map(str, ids)).encode())


class Watched:
    """A token source that gives tokens int64 [B, L] and notes which rows were the ``likeliest``, bool [B], all along."""

    def __init__(self, tokens: Tensor) -> None:
        self.source, self.likeliest = given(tokens), torch.ones(len(tokens), dtype=torch.bool)

    def __call__(self, request: Request) -> Tensor:
        """The given symbols of the rows that were asked for."""
        took = self.source(request)
        other = ((request.log_probs.argmax(-1) != took) & request.valid).any(1)
        self.likeliest[request.items[other].cpu()] = False
        return took
