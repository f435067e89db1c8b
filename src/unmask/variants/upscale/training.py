"""How are digits hidden in training, and what is the loss?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from unmask.base.numbers import whole
from unmask.denoisers import take_symbols
from unmask.masking.corruption import Corruption, exact_count, low_discrepancy
from unmask.variants.upscale.digits import in_stages, situation
from unmask.variants.upscale.networks import Upscaled


def in_one_stage(count: int) -> Callable[[Tensor, torch.Generator], Corruption]:
    """How training digits are masked: one of ``count`` stages at random, part of its digits, and all finer ones.

    The weight S N / n of n masked digits among the stage's N makes the loss of that stage's digits an unbiased bound
    of all stages together. Stage and number are stratified over the batch jointly. ARDM, arXiv 2110.02037.
    """

    count = whole(count, "count", 1)

    def corrupt(maskable: Tensor, generator: torch.Generator) -> Corruption:
        spread = count * low_discrepancy(len(maskable), generator)
        stage = spread.floor().long().clamp(max=count - 1)
        within = exact_count(
            in_stages(maskable, count)[:, 0], generator, (spread - stage).clamp(0, 1 - 1e-12)
        )
        number = torch.arange(count, device=maskable.device)[:, None]
        own, finer = number == stage[:, None, None], number > stage[:, None, None]
        return Corruption((own & within.masked[:, None] | finer).flatten(1), count * within.weight)

    return corrupt


def loss(network: Upscaled, digits: Tensor, masked: Tensor, weight: Tensor) -> Tensor:
    """The upscale bound on a batch, nats per position of the N: weight [B] times the current stage's cross-entropies.

    digits int64 [B, S N] (clean); masked bool [B, S N] and weight from `in_one_stage`.
    """
    now = situation(digits.masked_fill(masked, network.base), network.base, network.levels)
    log_probs = network.at(now, None)
    own = (now.stage - 1)[:, None, None].expand(-1, 1, now.levels.shape[1])
    target = in_stages(digits, network.stages).gather(1, own)[:, 0]
    losses = -take_symbols(log_probs, target)
    per_row = torch.where(now.masked, losses, 0.0).sum(1) * weight.to(losses.dtype)
    return per_row.mean() / now.levels.shape[1]
