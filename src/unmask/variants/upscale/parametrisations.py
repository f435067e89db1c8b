"""What law over the digits of a stage do a network's logits stand for?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.variants.upscale.digits import stages, steps_of

Law: TypeAlias = Callable[[Tensor, Tensor, Tensor, int, int], Tensor]
"""(logits [.., K or S b], parent x^(s-1) int64 [..], stage int64 [..], base, levels) -> log-probabilities [.., b]."""


def from_levels(logits: Tensor, parent: Tensor, stage: Tensor, base: int, levels: int) -> Tensor:
    """Digits under one law theta over the K levels (data parametrisation): log-probabilities [.., b].

    logits [.., K] are pushed forward to the stage, the children of ``parent`` int64 [..] kept and renormalised:
    -ln theta^(s) = LSE(levels under x^(s-1)) - LSE(levels under x^(s)), in log space without floors, so the stages of
    one theta add up to -ln theta(x). Children beyond level K-1 get -inf. Derived from ARDM, arXiv 2110.02037.
    """
    count = stages(base, levels)
    nodes = F.pad(_precise(logits), (0, base**count - levels), value=-torch.inf)
    chosen = nodes[..., :base]
    for s in range(count, 0, -1):
        families = nodes.reshape(*parent.shape, base ** (s - 1), base)
        place = (parent // base ** (count - s + 1))[..., None, None]
        own = families.gather(-2, place.expand(*place.shape[:-1], base))[..., 0, :]
        chosen = torch.where((stage == s)[..., None], own, chosen)
        nodes = families.logsumexp(-1)
    law: Tensor = chosen.log_softmax(-1)
    return law


def from_digits(logits: Tensor, parent: Tensor, stage: Tensor, base: int, levels: int) -> Tensor:
    """Digits under S heads of b logits each (direct parametrisation): log-probabilities [.., b] of the stage's head.

    logits [.., S b]; children of ``parent`` beyond level K-1 get -inf. Needed where K logits are too many (sound with
    65,536 levels). ARDM, arXiv 2110.02037.
    """
    count = stages(base, levels)
    place = (stage - 1)[..., None, None].expand(*parent.shape, 1, base)
    own = _precise(logits).reshape(*parent.shape, count, base).gather(-2, place)[..., 0, :]
    step = steps_of(base, levels, logits.device)[stage - 1]
    child = parent[..., None] + torch.arange(base, device=logits.device) * step[..., None]
    return own.masked_fill(child >= levels, -torch.inf).log_softmax(-1)


def _precise(logits: Tensor) -> Tensor:
    """Logits in float32 at least."""
    return logits if logits.dtype == torch.float64 else logits.float()
