"""The output head and its cross-entropy as one operation, at the rows that count only.

Half of the positions of a training batch are visible and cost nothing in the loss, so their logits need not exist. The
others are taken a slice at a time: the gradient of a slice is made while its logits are at hand, so that no [rows, V]
array outlives its slice. Pays for large vocabularies; for small ones `objectives.masked_cross_entropy` is as fast.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SLICE = 2**25
"""Logits held at a time."""


class _HeadLoss(torch.autograd.Function):
    """sum_r weight_r * -log softmax(states_r W' + bias)[symbol_r], with its gradients made in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, matrix: Tensor, bias: Tensor, symbols: Tensor, weights: Tensor
    ) -> Tensor:
        """The loss, float32 scalar."""
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        kind = _precision(states)
        cast, into = matrix.to(kind), torch.zeros_like(matrix, dtype=torch.float32)
        to_states, to_bias = torch.empty_like(states, dtype=torch.float32), torch.zeros_like(bias)
        size = max(1, SLICE // len(matrix))
        for start in range(0, len(states), size):
            part = slice(start, start + size)
            logits = F.linear(states[part].to(kind), cast).float() + bias
            places = symbols[part, None]
            logits -= logits.logsumexp(1, keepdim=True)
            total -= (logits.gather(1, places)[:, 0] * weights[part]).sum()
            slope = logits.exp_()
            slope.scatter_add_(1, places, torch.full_like(places, -1, dtype=slope.dtype))
            slope *= weights[part, None]
            to_bias += slope.sum(0)
            slope = slope.to(kind)
            to_states[part] = slope @ cast
            into += slope.T @ states[part].to(kind)
        ctx.save_for_backward(to_states.to(states.dtype), into.to(matrix.dtype), to_bias.to(bias.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of states, matrix and bias."""
        return *(upstream * g for g in ctx.saved_tensors), None, None


def head_cross_entropy(
    states: Tensor, matrix: Tensor, bias: Tensor, symbols: Tensor, weights: Tensor
) -> Tensor:
    """Weighted sum over rows of the cross-entropy of a linear head, nats; differentiable in the first three.

    states float [R, D], matrix [V, D], bias [V], symbols int64 [R], weights float [R]. Runs in bfloat16 under autocast.
    """
    loss: Tensor = _HeadLoss.apply(states, matrix, bias, symbols, weights.float())  # type: ignore[no-untyped-call]
    return loss


def _precision(states: Tensor) -> torch.dtype:
    """bfloat16 under autocast, which the meta device has not, else as the states are."""
    kind = states.device.type
    if kind == "meta":
        return states.dtype
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype
