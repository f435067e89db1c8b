"""Which rows go through the loop together: items cut into rows, groups that share a stream, batches of groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from unmask.codec.coder import Batch
from unmask.codec.subjects import Subject
from unmask.codec.tables import Ints

Rows: TypeAlias = tuple[int, ...]
"""Symbols in each row of a group."""


def row_sizes(subject: Subject, size: int) -> list[int]:
    """Symbols in each row of an item of ``size`` symbols."""
    length = subject.length
    return [length] * (size // length) + ([size % length] if size % length else [])


def group_rows(subject: Subject, sizes: Sequence[int], most: int) -> list[Rows]:
    """The groups of items of these sizes, one after another: up to ``most`` rows each."""
    rows = [n for size in sizes for n in row_sizes(subject, size)]
    return [tuple(rows[start : start + most]) for start in range(0, len(rows), most)]


def batches(subject: Subject, groups: Sequence[Rows], rows: int) -> Iterator[tuple[list[int], Batch]]:
    """Groups in batches of at least ``rows`` rows, those of like lengths together: their places, and the batch."""
    places, count = list[int](), 0
    for place in sorted(range(len(groups)), key=lambda g: (max(groups[g]), sum(groups[g]))):
        places.append(place)
        count += len(groups[place])
        if count >= rows:
            yield places, _batch(subject, [groups[p] for p in places])
            places, count = [], 0
    if places:
        yield places, _batch(subject, [groups[p] for p in places])


def _batch(subject: Subject, groups: Sequence[Rows]) -> Batch:
    """The batch of these groups, all hidden; with ``ends``, what comes after an item is visible."""
    counts = torch.tensor([n for rows in groups for n in rows])
    owners = np.repeat(np.arange(len(groups)), [len(rows) for rows in groups])
    if subject.frame is not None:
        return Batch(*_framed(subject, counts), owners)
    width = min(subject.length, int(counts.max()) + 1) if subject.cut else subject.length
    masked = torch.arange(width) < counts[:, None]
    tokens = torch.full(masked.shape, subject.denoiser.mask_id)
    if subject.ends:
        tokens[~masked] = subject.denoiser.vocab_size - 1
    return Batch(tokens, masked, owners)


def _framed(subject: Subject, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens int64 [B, L] of rows with so many masked symbols int64 [B] inside their frame, and where those are."""
    assert subject.frame is not None
    before, after, fill = subject.frame
    place = torch.arange(len(before) + int(counts.max()) + len(after)) - len(before)
    tokens = torch.full((len(counts), len(place)), fill)
    tokens[:, : len(before)] = torch.tensor(before)
    masked = (place >= 0) & (place < counts[:, None])
    tokens[masked] = subject.denoiser.mask_id
    for i, symbol in enumerate(after):
        tokens[place == counts[:, None] + i] = symbol
    return tokens, masked


def cut(items: Sequence[Ints], groups: Sequence[Rows]) -> list[Ints]:
    """The symbols of items, one after another, group by group."""
    every = np.concatenate([np.empty(0, np.int64), *items])
    return np.split(every, np.cumsum([sum(rows) for rows in groups])[:-1]) if groups else []


def filled(batch: Batch, ids: Sequence[Ints]) -> Tensor:
    """The batch's tokens with the symbols of its groups."""
    tokens = batch.tokens.clone()
    tokens[batch.masked] = torch.from_numpy(np.concatenate(ids))
    return tokens


def emptied(batch: Batch, tokens: Tensor, groups: Sequence[Rows]) -> list[Ints]:
    """The symbols of each group."""
    return cut([tokens[batch.masked].numpy()], groups)
