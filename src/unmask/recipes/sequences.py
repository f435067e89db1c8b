"""What recipes over token folders share: finding the data, batches of windows or items, and the loss.

The loss is the order-agnostic bound (ARDM, arXiv 2110.02037), which equals MD4's integral (arXiv 2406.04329)
and needs neither a schedule nor a time: see `unmask.masking.objectives`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unmask.data import tokens as folders
from unmask.data.sources.cache import cache
from unmask.data.tokens import Tokens
from unmask.data.vocabularies import Bytes, Characters, Foreign
from unmask.data.writing import GIVEN, LEARNT
from unmask.masking.corruption import Corrupt, exact_count
from unmask.masking.head_loss import head_cross_entropy
from unmask.masking.objectives import masked_cross_entropy
from unmask.recipes.run import Batch, Run, generator


@dataclass(frozen=True)
class Folder:
    """The token folder ``part`` inside ``folder``, or that folder itself: a path, or a name that `unmask data fetch` knows.

    ``fingerprint`` is filled in when training starts, so that a run goes on with the same data only.
    """

    folder: str
    part: str = "train"
    fingerprint: str = ""

    def open(self) -> Tokens:
        """The opened token folder; ValueError when there is none, or another than training began with."""
        data = folders.load(self.place)
        if self.fingerprint and fingerprint(data) != self.fingerprint:
            raise ValueError(
                f"{data.folder} holds other data than training began with (fingerprint {fingerprint(data)}, not "
                f"{self.fingerprint}): put those back, or train in another folder"
            )
        return data

    @property
    def place(self) -> Path:
        """Where the token folder is; ValueError for a file."""
        if Path(self.folder).is_file():
            raise ValueError(
                f"{self.folder} is a file; expected a token folder: unmask data prepare {self.folder} -o FOLDER --as FORMAT"
            )
        own = Path(self.folder) / self.part
        if (Path(self.folder) / "manifest.json").is_file():
            return Path(self.folder)
        return own if own.exists() else cache() / self.folder / self.part


def prepared(run: Run, kind: str) -> Run:
    """The run with the vocabulary and the fingerprint of its data, of a kind (stream, items, images); reads all once.

    Items get a pad symbol besides. ValueError when the folder is missing, damaged or of another kind or padding, or an
    item does not fit into the network.
    """
    data, extra = folders.verify(run.data.place), 1 if kind == "items" else 0
    found, policy = data.manifest["kind"], data.manifest.get("policy")
    wanted = GIVEN if _ends(run) else LEARNT
    if found != kind or (kind == "items" and policy != wanted):
        expected = f"items with padding '{wanted}'" if kind == "items" else kind
        other = "" if found == kind or found not in TAKES else f"; recipe '{TAKES[found]}' takes {found}"
        raise ValueError(
            f"{data.folder} holds {found} (padding {policy!r}); recipe '{run.name}' expects {expected}{other}"
        )
    if kind == "images" and data.symbols != data.items * run.network.length:
        raise ValueError(
            f"{data.folder} has images of {data.symbols // max(data.items, 1)} values; expected {run.network.length}"
        )
    if data.items and data.longest > run.network.length:
        raise ValueError(
            f"{data.folder}: the longest item has {data.longest} symbols; expected at most network.length "
            f"{run.network.length}: raise it with --network.length {data.longest}"
        )
    if not data.items and data.symbols < run.network.length:
        raise ValueError(
            f"{data.folder} has {data.symbols} symbols; expected at least network.length {run.network.length}"
        )
    return replace(
        run,
        data=replace(run.data, fingerprint=fingerprint(data)),
        vocabulary=data.vocabulary,
        network=replace(run.network, vocab_size=data.vocabulary.size + extra),
        lengths=tuple(np.bincount(data.lengths, minlength=run.network.length + 1).tolist())
        if _ends(run)
        else (),
    )


TAKES = {"items": "lines", "images": "pictures", "stream": "text"}
"""A recipe for each kind of token folder."""


def fingerprint(data: Tokens) -> str:
    """Which data a token folder holds: a hash of its vocabulary and checksums, 16 hexadecimal digits."""
    shards = [(s["symbols"], s["items"], s["crc32"]) for s in data.manifest["shards"]]
    contents = json.dumps([data.manifest["vocabulary"], shards], sort_keys=True).encode()
    return hashlib.sha256(contents).hexdigest()[:16]


def _ends(run: Run) -> bool:
    """Whether lengths are given and not learnt."""
    return bool(getattr(run.network, "ends", False))


def windows(run: Run, random: torch.Generator) -> Tensor:
    """Random stretches of a stream, int64 [B, L]."""
    data, length = run.data.open(), run.network.length
    starts = torch.randint(data.symbols - length + 1, (run.batch_size,), generator=random)
    return torch.as_tensor(data.windows(starts.numpy(), length))


def items(run: Run, random: torch.Generator) -> Tensor:
    """Random items, filled up with the pad symbol (the last one), int64 [B, L]: padding is learnt like any symbol."""
    data = run.data.open()
    places = torch.randint(data.items, (run.batch_size,), generator=random)
    return torch.as_tensor(data.padded(places.numpy(), run.network.length, run.network.vocab_size - 1))


def alike(run: Run, step: int, lengths: NDArray[Any], group: int = 16) -> NDArray[np.int64]:
    """Numbers of a batch of random items of like ``lengths`` [n], int64 [B].

    Every ``group`` steps share one draw, sorted by length and dealt out in random order.
    """
    random = generator(run, step - step % group, stream=1)
    places = torch.randint(len(lengths), (group * run.batch_size,), generator=random).numpy()
    places = places[np.argsort(lengths[places], kind="stable")]
    turn = int(torch.randperm(group, generator=random)[step % group])
    return places[turn * run.batch_size : (turn + 1) * run.batch_size]


def items_by_length(run: Run, step: int) -> Tensor:
    """Random items of like lengths, ended and filled up by the last symbol, int64 [B, <= L].

    A multiple of 4 positions, as few as hold the longest and its end.
    """
    data = run.data.open()
    mine = alike(run, step, data.lengths)
    length = min(run.network.length, 4 * math.ceil((data.lengths[mine].max() + 1) / 4))
    return torch.as_tensor(data.padded(mine, length, run.network.vocab_size - 1))


def not_ends(run: Run, tokens: Tensor) -> Tensor:
    """Where tokens int64 [B, L] are no ends, bool [B, L]."""
    found: Tensor = tokens != run.network.vocab_size - 1
    return found


def batches_by_length(
    corrupt: Corrupt,
    draw: Callable[[Run, int], Tensor] = items_by_length,
    data_symbols: Callable[[Run, Tensor], Tensor] = not_ends,
) -> Callable[[Run, int], Batch]:
    """Batches of items whose lengths are given: ends are neither masked nor counted in the loss, nats per symbol."""

    def batch(run: Run, step: int) -> Batch:
        tokens = draw(run, step)
        symbols = data_symbols(run, tokens)
        hidden = corrupt(symbols, generator(run, step))
        return Batch(tokens, hidden.masked, hidden.weight * (symbols.numel() / max(int(symbols.sum()), 1)))

    return batch


def batches(
    draw: Callable[[Run, torch.Generator], Tensor], corrupt: Corrupt = exact_count
) -> Callable[[Run, int], Batch]:
    """Batches from a drawing function and a corruption, as `Run.batch` wants them: functions of (seed, step)."""

    def batch(run: Run, step: int) -> Batch:
        random = generator(run, step)
        tokens = draw(run, random)
        hidden = corrupt(torch.ones_like(tokens, dtype=torch.bool), random)
        return Batch(tokens, hidden.masked, hidden.weight, hidden.time)

    return batch


def loss(network: nn.Module, data: Batch, auxiliary: float = 0.0) -> Tensor:
    """The bound on a batch, nats per position, plus ``auxiliary`` times the cross-entropy without weight.

    D3PM (arXiv 2107.03006) and ARDM (arXiv 2110.02037) add 0.001 of it. The time and label of the batch reach the network.
    """
    hidden = data.tokens.masked_fill(data.masked, network.mask_id)  # type: ignore[arg-type]
    logits = network(hidden, **told(data))
    return masked_cross_entropy(logits, data.tokens, data.masked, data.weight + auxiliary)


def told(data: Batch) -> dict[str, Tensor]:
    """The time and label of a batch, as far as it has them, as keywords of a network."""
    return {k: v for k in ("time", "label") if (v := getattr(data, k)) is not None}


def causal_loss(network: nn.Module, data: Batch) -> Tensor:
    """Next-token cross-entropy of a causal network, nats per position: exact -log p / L, with `corruption.everything`."""
    return masked_cross_entropy(network(data.tokens), data.tokens, data.masked, data.weight)


def sparse_loss(network: nn.Module, data: Batch) -> Tensor:
    """`loss` with the head at masked positions only: for large vocabularies, in less time and memory."""
    hidden = data.tokens.masked_fill(data.masked, network.mask_id)  # type: ignore[arg-type]
    states = network.states(hidden, **told(data))  # type: ignore[operator]
    if states.shape[:2] != data.tokens.shape:
        raise ValueError(
            f"the network has states for {states.shape[1]} of {data.tokens.shape[1]} positions; expected all: use `loss`"
        )
    rows, columns = data.masked.nonzero(as_tuple=True)
    head: nn.Linear = network.head  # type: ignore[assignment]
    symbols, weights = data.tokens[rows, columns], data.weight[rows]
    total = head_cross_entropy(states[rows, columns], head.weight, head.bias, symbols, weights)
    return total / data.tokens.numel()


def encode_windows(run: Run, texts: Any, *, cut: bool = False) -> Tensor:
    """Tokens int64 [n, L] of a text, or several, in stretches of L symbols.

    ValueError names the first text that does not fill whole stretches; with ``cut`` what is left at its end is left out.
    """
    length, rows = run.network.length, []
    for number, ids in enumerate(_all_ids(run, texts, run.network.vocab_size)):
        whole = len(ids) // length * length
        if not whole or (whole < len(ids) and not cut):
            rest = f": {len(ids) - whole} at the end would be lost; cut=True leaves them out" if whole else ""
            raise ValueError(
                f"item {number} has {len(ids)} symbols; model '{run.name}' expects stretches of {length}{rest}"
            )
        rows.append(ids[:whole].reshape(-1, length))
    return torch.as_tensor(np.concatenate([np.empty((0, length), np.int64), *rows]))


def decode_windows(run: Run, tokens: Tensor) -> list[str]:
    """The text of each row; masked positions show as ``_``."""
    return [_text(run, row.tolist()) for row in tokens]


def encode_items(run: Run, texts: Any, *, cut: bool = False) -> Tensor:
    """Tokens int64 [n, L] of a text or several, each filled up with the pad symbol.

    ValueError names the first that is too long; with ``cut`` what is behind its first L symbols is left out.
    """
    length, pad = run.network.length, run.network.vocab_size - 1
    ids = [row[:length] if cut else row for row in _all_ids(run, texts, pad)]
    if long := [n for n, row in enumerate(ids) if len(row) > length]:
        raise ValueError(
            f"item {long[0]} has {len(ids[long[0]])} symbols; expected at most {length}; cut=True leaves out the others"
        )
    rows = [np.pad(row, (0, length - len(row)), constant_values=pad) for row in ids]
    return torch.as_tensor(np.stack(rows) if rows else np.empty((0, length), np.int64))


def decode_items(run: Run, tokens: Tensor) -> list[str]:
    """The text of each row up to its first pad; masked positions show as ``_``."""
    pad = run.network.vocab_size - 1
    rows = [row.tolist() for row in tokens]
    return [_text(run, row[: row.index(pad)] if pad in row else row) for row in rows]


GAP = "_"
"""Stands for a masked position in text, where the vocabulary has no such character."""


def _all_ids(run: Run, texts: Any, symbols: int) -> list[NDArray[np.int64]]:
    """Symbols of a text or several; ValueError names the item, and the place of a foreign character in it."""
    found = []
    for number, text in enumerate([texts] if isinstance(texts, str | bytes) else texts):
        if not isinstance(text, str | bytes):
            raise ValueError(f"item {number} is a {type(text).__name__}; expected a text")
        try:
            found.append(_ids(run, text, symbols))
        except Foreign as error:
            raise ValueError(f"item {number}, position {error.at}: {error.message}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"item {number}, byte {error.start}: not UTF-8; expected text") from None
        except ValueError as error:
            raise ValueError(f"item {number}: {error}") from None
    return found


def _ids(run: Run, text: str | bytes, symbols: int) -> NDArray[np.int64]:
    """Symbols of a text, with the mask for each gap; ValueError for one that is none of the network's ``symbols``."""
    vocabulary: Any = run.vocabulary
    if isinstance(vocabulary, Bytes):
        return _known(vocabulary.encode(text), symbols)
    text = text.decode() if isinstance(text, bytes) else text
    if not isinstance(vocabulary, Characters) or GAP in vocabulary.symbols or GAP not in text:
        return _known(vocabulary.encode(text), symbols)
    ids = np.full(len(text), run.network.vocab_size)
    told = np.array([i for i, character in enumerate(text) if character != GAP], np.int64)
    try:
        ids[told] = _known(vocabulary.encode(text.replace(GAP, "")), symbols)
    except Foreign as error:
        raise Foreign(error.message, int(told[error.at])) from None
    return ids


def _known(ids: NDArray[np.int64], symbols: int) -> NDArray[np.int64]:
    """The ids; ValueError for one that would be the mask or the pad symbol of the network, or nothing at all."""
    if ids.size and ids.max() >= symbols:
        raise ValueError(
            f"symbol {ids.max()} of a vocabulary that is larger than the network's; expected 0..{symbols - 1}"
        )
    return ids


def _text(run: Run, ids: list[int]) -> str:
    """Text with ``_`` for the mask."""
    mask, vocabulary = run.network.vocab_size, run.vocabulary
    pieces: list[str] = []
    while ids:
        cut = ids.index(mask) if mask in ids else len(ids)
        pieces.append(vocabulary.decode(ids[:cut]))  # type: ignore[union-attr]
        pieces += [GAP] if cut < len(ids) else []
        ids = ids[cut + 1 :]
    return "".join(pieces)
