"""What a sampler is judged by: items with what is given of each, and a loss for each item, lower is better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask import engine
from unmask.base import noise
from unmask.base.numbers import real
from unmask.base.types import Denoiser, State, TokenSource
from unmask.denoisers import check_tokens
from unmask.masking.corruption import random_subset
from unmask.orders.samplers import Sampler
from unmask.orders.sources import given

if TYPE_CHECKING:
    from unmask.models import Model

Array: TypeAlias = NDArray[np.float64]
Judge: TypeAlias = Callable[[Tensor, Tensor], Any]
"""(samples int64 [B, L], what is true int64 [B, L]) -> [B] numbers, higher is better."""


@dataclass(frozen=True, eq=False)
class Items:
    """Data to measure on: tokens int64 [n, L] without masks, and ``visible`` bool [n, L], what is given of each."""

    tokens: Tensor
    visible: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def at(self, places: NDArray[np.int64] | slice) -> Items:
        """Some of the items."""
        return Items(self.tokens[places], self.visible[places])

    @property
    def content(self) -> bytes:
        """All of it, for checksums."""
        return bytes(self.tokens.cpu().numpy().tobytes() + self.visible.cpu().numpy().tobytes())

    @property
    def counts(self) -> Tensor:
        """Hidden positions of each, int64 [n]."""
        return (~self.visible).sum(1)


@dataclass(frozen=True)
class Metric:
    """A loss of each item under a sampler: ``of(denoiser, items, sampler, ids)`` -> (losses, calls), float64 [n] each.

    ``law`` says whether it is a likelihood, which only samplers have that draw their symbols. ``source`` and
    ``temperatures`` are what is worth trying by it: a likelihood scores the model's law, and any temperature but 1 would
    change the law itself. ``shares``: a loss is 0 or 100, % of one item.
    """

    name: str
    unit: str
    of: Callable[[Denoiser, Items, Sampler, Tensor], tuple[Array, Array]]
    law: bool = True
    source: str = "draw"
    temperatures: tuple[float, ...] = (1.0,)
    shares: bool = False


def items_of(
    model: Model, tokens: Tensor, *, task: str = "generate", share: float | None = None, seed: int = 0
) -> Items:
    """Items for a task: all symbols hidden (``generate``), or a random ``share`` of each (``infill``)."""
    check_tokens(tokens, model.denoiser, masks=False)
    if task not in ("generate", "infill"):
        raise ValueError(f"task '{task}': expected generate or infill; for solve give puzzles")
    if (task == "infill") != (share is not None):
        raise ValueError(f"task {task} and share {share}: expected a share with infill, and only there")
    special = model.visible(tokens)
    visible = torch.zeros_like(tokens, dtype=torch.bool) if special is None else special
    if share is None:
        return Items(tokens, visible)
    if not 0 < (part := real(share, "share")) < 1:
        raise ValueError(
            f"share {share}: expected a number between 0 and 1, the hidden part of each sequence"
        )
    counts = (part * (~visible).sum(1)).round().long().clamp(min=1)
    return Items(tokens, ~random_subset(~visible, counts, noise.seeded(seed)))


def nats() -> Metric:
    """Minus log-likelihood along the order, nats an item: exact, and proper, so no sampler can look better than its law."""
    return Metric("nats", "nats per item", _nats)


def exact() -> Metric:
    """Share of items that do not come out as they are, in percent, by arg-max symbols."""
    return Metric(
        "exact", "% not exactly right", _judged(_not_equal), law=False, source="greedy", shares=True
    )


def judged(judge: Judge, name: str = "judge", temperatures: tuple[float, ...] = (1.0, 0.8, 0.6)) -> Metric:
    """A function of drawn samples, higher is better: its loss is the negative."""

    def loss(samples: Tensor, truth: Tensor) -> Array:
        return -np.asarray(torch.as_tensor(judge(samples, truth)).double().cpu())

    return Metric(name, f"-{name}", _judged(loss), law=False, temperatures=temperatures)


def _not_equal(samples: Tensor, truth: Tensor) -> Array:
    return 100 * (samples != truth).any(1).double().cpu().numpy()


def _nats(denoiser: Denoiser, items: Items, sampler: Sampler, ids: Tensor) -> tuple[Array, Array]:
    state = _run(denoiser, items, sampler, ids, given(items.tokens), None)
    return -state.log_prob.cpu().numpy(), state.nfe.cpu().numpy()


def _judged(loss: Callable[[Tensor, Tensor], Array]) -> Callable[..., tuple[Array, Array]]:
    def of(denoiser: Denoiser, items: Items, sampler: Sampler, ids: Tensor) -> tuple[Array, Array]:
        state = _run(denoiser, items, sampler, ids, sampler.token_source, SEED)
        return loss(state.tokens, items.tokens), state.nfe.cpu().numpy()

    return of


SEED = 0
"""Of the private noise of drawn symbols; each item has a stream of its own."""


def _run(
    denoiser: Denoiser, items: Items, sampler: Sampler, ids: Tensor, source: TokenSource, seed: int | None
) -> State:
    start = torch.where(items.visible, items.tokens, denoiser.mask_id)
    state = engine.init(start, denoiser.mask_id, ids, item_ids=ids)
    law, selector = sampler.denoiser(denoiser), sampler.selector_for(denoiser)
    with torch.no_grad():
        return engine.run(state, law, selector, source, substeps=sampler.substeps, seed=seed)[0]


def halves(items: Items, seed: int = 0) -> tuple[Items, Items]:
    """Two halves at random: one to choose by, one that the choice has not seen."""
    order = torch.randperm(len(items), generator=noise.seeded(seed)).numpy()
    middle = len(items) // 2
    return items.at(order[:middle]), items.at(order[middle:])


def moved(items: Items, device: torch.device | str) -> Items:
    """The items where the network is."""
    return replace(items, tokens=items.tokens.to(device), visible=items.visible.to(device))
