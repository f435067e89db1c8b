"""How training data are masked: which positions, and the weight that makes the loss an unbiased bound.

Each function returns a `Corruption` whose ``weight`` satisfies: the mean over draws of
``weight * (sum of cross-entropies over masked positions)`` is the negative log-likelihood bound in nats per sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from unmask.base import noise
from unmask.base.numbers import real, whole
from unmask.masking import schedules
from unmask.masking.schedules import Schedule


@dataclass(frozen=True)
class Corruption:
    """masked bool [B, L]; weight float64 [B] of each sequence's summed cross-entropy, or [B, L] of each position's;
    time float64 [B] or None."""

    masked: Tensor
    weight: Tensor
    time: Tensor | None = None

    def apply(self, tokens: Tensor, mask_id: int) -> Tensor:
        """Tokens int64 [B, L] with the masked positions hidden."""
        return tokens.masked_fill(self.masked, mask_id)


@dataclass(frozen=True)
class Draws:
    """The noise of an estimate as a function of (seed, item id), so that it does not depend on how items are batched.

    ``items`` int64 [B] are the ids.
    """

    seed: int
    items: Tensor

    @staticmethod
    def of(generator: torch.Generator, tokens: Tensor, item_ids: Tensor | None) -> Draws:
        """For the rows of tokens int64 [B, L], whose ids default to 0..B-1; takes one number from the generator."""
        places = torch.arange(len(tokens), device=tokens.device)
        items = noise.checked_ids(item_ids, tokens, places, "item_ids")
        return Draws(noise.drawn_seed(generator), items)

    def level(self, sample: int, samples: int) -> Tensor:
        """Levels on 0..1, float64 [B]: those of an item's ``samples`` draws are evenly spread."""
        start = noise.uniform(self.seed, noise.LEVEL, self.items, torch.zeros_like(self.items))
        return (start + sample / samples) % 1

    def uniforms(self, length: int, sample: int) -> Tensor:
        """Uniforms on (0, 1) for each position, float64 [B, length]."""
        place = torch.arange(length, device=self.items.device)
        return noise.uniform(self.seed, noise.MASK, self.items[:, None], place[None], sample)


Corrupt: TypeAlias = Callable[[Tensor, torch.Generator], Corruption]
"""How training data are masked: maskable bool [B, L] and a generator to a `Corruption`."""


def low_discrepancy(
    count: int, generator: torch.Generator, first: int = 0, total: int | None = None
) -> Tensor:
    """Times (u + i/total) mod 1 for i = first..first+count-1 with one shared u; float64 [count].

    Evenly spread over the *global* batch: a rank passes its first index, the global total and a generator that is the
    same on all ranks, so the union over ranks is one stratified batch (MD4, arXiv 2406.04329, "antithetic" times).
    """
    count, first = whole(count, "count", 0), whole(first, "first")
    total = count if total is None else whole(total, "total")
    if not 0 <= first <= first + count <= total:
        raise ValueError(
            f"indices {first}..{first + count - 1} of {total} times; expected them within 0..{total - 1}"
        )
    u = torch.rand((), dtype=torch.float64, generator=generator, device=generator.device)
    return (u + torch.arange(first, first + count, dtype=torch.float64, device=generator.device) / total) % 1


def independent(
    maskable: Tensor, schedule: Schedule, generator: torch.Generator, times: Tensor | None = None
) -> Corruption:
    """Masks each maskable bool [B, L] position with probability 1 - alpha(t); weight -alpha'(t)/(1 - alpha(t)).

    Times default to `low_discrepancy`. Continuous-time bound of MD4, arXiv 2406.04329; add the end-point terms of
    `enumeration.end_terms` when the schedule has eps > 0.
    """
    t = low_discrepancy(len(maskable), generator) if times is None else times
    return Corruption(_hidden_with(maskable, 1 - schedule.alpha(t), generator), schedule.weight(t), t)


def discrete_time(
    maskable: Tensor,
    schedule: Schedule,
    grid: Tensor,
    generator: torch.Generator,
    levels: Tensor | None = None,
) -> Corruption:
    """Masks at one of the T upper ends t of a time grid, drawn uniformly; weight T (alpha_s - alpha_t) / (1 - alpha_t).

    ``grid`` float64 [T + 1] falls from 1 to 0, such as `schedules.uniform_grid` (T), and s is the time after t. ``levels``
    u in [0, 1) float64 [B], default `low_discrepancy`, pick t: on the uniform grid it is (floor(u T) + 1) / T. Its mean
    is the T-step bound `enumeration.discrete_bound` (MD4, arXiv 2406.04329).
    """
    u = low_discrepancy(len(maskable), generator) if levels is None else levels
    steps, rising = len(grid) - 1, grid.to(u.device, torch.float64).flip(0)
    place = torch.floor(u * steps).long().clamp(max=steps - 1)
    visible = schedule.alpha(rising)
    before, now = visible[place], visible[place + 1]
    masked = _hidden_with(maskable, 1 - now, generator)
    return Corruption(masked, steps * (before - now) / (1 - now), rising[place + 1])


def _hidden_with(maskable: Tensor, probability: Tensor, generator: torch.Generator) -> Tensor:
    """Maskable bool [B, L] positions, each kept in the mask with its row's probability [B]."""
    return maskable & (_uniforms(maskable, generator) < probability[:, None])


def _uniforms(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniforms on 0..1 in the shape of a tensor, float64."""
    return torch.rand(like.shape, dtype=torch.float64, generator=generator, device=generator.device)


def exact_count(maskable: Tensor, generator: torch.Generator, levels: Tensor | None = None) -> Corruption:
    """Masks a uniform random set of n = 1 + floor(N u) of the N maskable bool [B, L] positions; weight N/n.

    ``levels`` u in [0, 1) float64 [B] default to `low_discrepancy`, so that counts are stratified over the batch. This
    is the order-agnostic bound (ARDM, arXiv 2110.02037), equal to the continuous-time one, without a schedule.
    """
    u = low_discrepancy(len(maskable), generator) if levels is None else levels
    return counted(maskable, u, _uniforms(maskable, generator))


def counted(maskable: Tensor, levels: Tensor, keys: Tensor) -> Corruption:
    """`exact_count` at the ``levels`` [B]: the positions of least ``keys`` float64 [B, L], which are uniform on 0..1."""
    size = maskable.sum(1)
    count = (1 + torch.floor(size * levels).long()).clamp(max=size)
    return Corruption(least(maskable, count, keys), size.double() / count.clamp(min=1))


def everything(maskable: Tensor, generator: torch.Generator) -> Corruption:  # noqa: ARG001
    """Masks every maskable bool [B, L] position, weight 1: the sum of all cross-entropies, for a causal network."""
    return Corruption(maskable, torch.ones(len(maskable), dtype=torch.float64, device=maskable.device))


def next_few(maskable: Tensor, generator: torch.Generator, few: int = 1) -> Corruption:
    """Masks the maskable bool [B, L] positions from a random one on, and scores the first ``few`` of them.

    The weight, [B, L], makes the mean over starts the cost, nats per sequence, of going from left to right ``few``
    positions a call, averaged over where the calls begin; with ``few`` 1 it is -log p exactly.
    """
    few, size = whole(few, "few", 1), maskable.sum(1)
    start = torch.floor(low_discrepancy(len(maskable), generator) * (size + few - 1)).long()[:, None]
    place = maskable.cumsum(1) - 1
    masked = maskable & (place >= start - few + 1)
    scored = masked & (place <= start)
    return Corruption(masked, scored.double() * (size[:, None] + few - 1) / few)


def mixed(one: Corrupt, other: Corrupt, share: float = 0.5) -> Corrupt:
    """Masks the first ``share`` of a batch in one way and the rest in another; each part's weights are its own."""
    share = real(share, "share", 0, 1)

    def corrupt(maskable: Tensor, generator: torch.Generator) -> Corruption:
        first = round(share * len(maskable))
        parts = one(maskable[:first], generator), other(maskable[first:], generator)
        weights = [p.weight if p.weight.ndim == 2 else p.weight[:, None].expand_as(p.masked) for p in parts]
        return Corruption(torch.cat([p.masked for p in parts]), torch.cat(weights))

    return corrupt


def md4(schedule: Schedule) -> Corrupt:
    """Masks as MD4 trains (arXiv 2406.04329): `independent` at stratified times."""
    return lambda maskable, generator: independent(maskable, schedule, generator)


def d3pm(steps: int) -> Corrupt:
    """Masks as absorbing D3PM trains (arXiv 2107.03006): one of ``steps`` times per sequence, each drawn on its own.

    Its rate 1/(T - t + 1) is the linear schedule on the uniform grid, weight 1/t. ValueError unless steps >= 1.
    """
    steps = whole(steps, "steps", 1)

    def corrupt(maskable: Tensor, generator: torch.Generator) -> Corruption:
        levels = torch.rand(len(maskable), dtype=torch.float64, generator=generator, device=generator.device)
        return discrete_time(maskable, schedules.linear(), schedules.uniform_grid(steps), generator, levels)

    return corrupt


def random_subset(maskable: Tensor, count: Tensor, generator: torch.Generator) -> Tensor:
    """A uniform random subset of each row of maskable bool [B, L] with count int64 [B] members."""
    return least(maskable, count, _uniforms(maskable, generator))


def least(maskable: Tensor, count: Tensor, keys: Tensor) -> Tensor:
    """The ``count`` int64 [B] positions of maskable bool [B, L] with the least ``keys`` float64 [B, L] < 2."""
    rank = keys.masked_fill(~maskable, 2.0).argsort(dim=1).argsort(dim=1)
    return maskable & (rank < count[:, None])
