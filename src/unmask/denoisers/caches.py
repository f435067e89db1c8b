"""Block caches: between two full passes only some rows run again, against keys and values that are remembered.

Every cache is a choice of which rows run again and of when a full pass happens. `blocks` makes the two choices of Fast-dLLM
(arXiv 2505.22618) for generation in blocks. What a cached denoiser says is a pure function of the visible tokens, so that
likelihood, compression and sampling agree; what is remembered between steps (`State.remembered`) only saves time.
Sub-steps (``substeps`` of `sample`) are a cache inside one step and may be used together with blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unmask.base.numbers import whole
from unmask.base.types import Cache, Denoiser
from unmask.denoisers import Wrapped, take_rows, vouched


@dataclass(frozen=True)
class Remembered:
    """A full pass: batch rows ``items`` int64 [B], the tokens int64 [B, L] that it saw and the cache that it left."""

    items: Tensor
    tokens: Tensor
    cache: Cache


@dataclass(frozen=True)
class Blocks:
    """A denoiser that runs only the current block again (``suffix``: and all after it); made by `blocks`."""

    base: Denoiser
    block_length: int
    suffix: bool = False

    @property
    def mask_id(self) -> int:
        """Symbol id of the mask."""
        return self.base.mask_id

    @property
    def vocab_size(self) -> int:
        """Number of symbols."""
        return self.base.vocab_size

    @property
    def normalised(self) -> bool:
        """Whether its laws sum to one by construction."""
        return vouched(self.base)

    def __call__(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        """Log-probabilities float [B, k, V] at rows of the current block, which is the first with a masked position."""
        return self.full(tokens, rows, time=time)[0]

    def full(
        self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None
    ) -> tuple[Tensor, Cache]:
        """As a call, and the cache of what is wrapped."""
        asked = (
            torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens) if rows is None else rows
        )
        items = torch.arange(len(tokens), device=tokens.device)
        log_probs, remembered, _ = self.law(self.base, tokens, asked, items, None, {"time": time})
        return log_probs, remembered.cache

    def partial(self, tokens: Tensor, rows: Tensor, cache: Cache, *, time: Tensor | None = None) -> Tensor:
        """Log-probabilities at rows after only those rows are run again."""
        return self.base.partial(tokens, rows, cache, time=time)

    def inside(self, tokens: Tensor) -> Tensor:
        """bool [B, L]: the rows that run again."""
        first, last, _ = self._window(tokens)
        place = torch.arange(tokens.shape[1], device=tokens.device)
        return (place >= first[:, None]) & (place < last[:, None])

    def check(self, tokens: Tensor, rows: Tensor) -> None:
        """ValueError unless rows int64 [B, k] are among those that run again."""
        outside = ~self.inside(tokens).gather(1, rows)
        if outside.any():
            raise ValueError(
                f"position {int(rows[outside][0])} lies outside the rows that caching.blocks runs again; expected "
                f"one of the current block: wrap the selector in selectors.in_blocks(.., {self.block_length})"
            )

    def law(
        self,
        denoiser: Denoiser,
        tokens: Tensor,
        rows: Tensor,
        items: Tensor,
        before: Remembered | None,
        extra: Mapping[str, Any],
    ) -> tuple[Tensor, Remembered, Tensor]:
        """Log-probabilities [B, k, V] of ``denoiser`` at rows, what to remember, and the cost in passes float64 [B].

        The full pass sees the tokens with the current block masked; the block is then run again with its visible
        symbols, unless it has none. ``before`` spares the full pass of the batch rows for which it saw the same.
        """
        self.check(tokens, rows)
        first, last, seen = self._window(tokens)
        held, place = _held(before, items, seen)
        again = held | (seen != tokens).any(1)
        log_probs, cache = _refreshed(denoiser, seen, rows, before, (held, place), extra)
        if again.any():
            log_probs = take_rows(
                denoiser.partial(tokens, _span(first, last), cache, **extra), rows - first[:, None]
            )
        cost = (~held).double() + again * (last - first).double() / tokens.shape[1]
        return log_probs, Remembered(items, seen, cache), cost

    def _window(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """First row int64 [B] of the current block, the end of what runs again, and the tokens of the full pass."""
        length = tokens.shape[1]
        block = torch.arange(length, device=tokens.device) // self.block_length
        current = torch.where(tokens == self.mask_id, block, block[-1]).amin(1)
        first = current * self.block_length
        last = (
            torch.full_like(first, length) if self.suffix else (first + self.block_length).clamp(max=length)
        )
        return first, last, tokens.masked_fill(block == current[:, None], self.mask_id)


def blocks(denoiser: Denoiser, block_length: int, *, suffix: bool = False) -> Denoiser:
    """The denoiser with a cache per block: a full pass when a block begins, then only rows of the block (dual cache).

    With ``suffix`` all rows from the block on run again (prefix cache). The current block is the first of ``block_length``
    positions with a masked one; the full pass sees it wholly masked, so the law depends on the visible tokens only. Use it
    with ``selectors.in_blocks(.., block_length)`` or another selector that stays inside: other rows are a ValueError. Exact
    for one layer and for a single block; deeper, rows that do not run stay as they were. Wraps tempered and guided
    denoisers. A pass over m of N rows costs m/N calls. Source: Fast-dLLM, arXiv 2505.22618; the masked full pass derived.
    """
    return Blocks(denoiser, whole(block_length, "block_length", 1), suffix)


def unwrapped(denoiser: Denoiser) -> tuple[Denoiser, Blocks | None]:
    """The denoiser without its block cache, and the cache; wrappers around it are kept."""
    if isinstance(denoiser, Blocks):
        return denoiser.base, denoiser
    if not isinstance(denoiser, Wrapped):
        return denoiser, None
    found = [unwrapped(part) for part in denoiser.parts]
    cached = next((blocks for _, blocks in found if blocks is not None), None)
    if cached is not None and len(found) > 1:
        raise ValueError("caching.blocks lies inside guided(..); expected caching.blocks(guided(..), ..)")
    return (denoiser if cached is None else replace(denoiser, parts=(found[0][0],))), cached


def _span(first: Tensor, last: Tensor) -> Tensor:
    """Rows int64 [B, m] from first to last, the last repeated where there are fewer."""
    steps = torch.arange(int((last - first).max()), device=first.device)
    return torch.minimum(first[:, None] + steps, last[:, None] - 1)


def _held(before: Remembered | None, items: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Which batch rows bool [B] were remembered after a full pass over the same tokens, and where int64 [B]."""
    if before is None:
        return torch.zeros_like(items, dtype=torch.bool), torch.zeros_like(items)
    same = items[:, None] == before.items
    place = same.to(torch.uint8).argmax(1)
    return same.any(1) & (before.tokens[place] == seen).all(1), place


def _refreshed(
    denoiser: Denoiser,
    seen: Tensor,
    rows: Tensor,
    before: Remembered | None,
    found: tuple[Tensor, Tensor],
    extra: Mapping[str, Any],
) -> tuple[Tensor, Cache]:
    """The cache of full passes over ``seen``, run where it is not held; log-probabilities at rows if all were run.

    Nothing remembered is overwritten: a state that is kept may be continued twice.
    """
    held, place = found
    if before is None or not held.any():
        return denoiser.full(seen, rows, **extra)
    aligned = len(held) == len(before.items) and bool(
        (place == torch.arange(len(held), device=held.device)).all()
    )
    cache = before.cache if aligned else _mapped(lambda kept: kept[place], before.cache)
    if not held.all():
        fresh = (~held).nonzero()[:, 0]
        _, new = denoiser.full(
            seen[fresh], rows[fresh], **{k: v if v is None else v[fresh] for k, v in extra.items()}
        )
        cache = _mapped(lambda kept, other: kept.index_copy(0, fresh, other), cache, new)
    return rows.new_empty(0), cache


def _mapped(change: Callable[..., Tensor], *caches: Cache) -> Cache:
    """``change`` of the tensors in caches of equal shape: tuples and lists of tensors, batch first, or None."""
    head = caches[0]
    if head is None:
        return None
    if isinstance(head, Tensor):
        return change(*caches)
    if isinstance(head, tuple | list):
        return type(head)([_mapped(change, *parts) for parts in zip(*caches)])
    raise ValueError(
        f"a cache holds {type(head).__name__}; expected tensors with the batch first, in tuples and lists"
    )
