"""Muon: momentum whose steps are made orthogonal, for matrices; AdamW for the rest (Jordan and others, 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from unmask.training.together import parallel

MOMENTUM = 0.95
ROUNDS = 5
"""Newton-Schulz iterations."""

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Their coefficients: singular values end between 0.7 and 1.2 or so."""


class Muon(torch.optim.Optimizer):
    """Muon on ``matrices``, AdamW on ``others``, with one learning rate: a step of a matrix has the size that AdamW's has.

    Sizes are matched as in arXiv 2502.16982: 0.2 sqrt(larger side) times an orthogonal matrix. ``weight_decay`` is for
    matrices only.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        beta2: float,
    ) -> None:
        groups = [
            {"params": list(matrices), "orthogonal": True, "weight_decay": weight_decay},
            {"params": list(others), "orthogonal": False, "weight_decay": 0.0},
        ]
        super().__init__(groups, {"lr": lr, "betas": (0.9, beta2), "eps": 1e-8})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step on every parameter that has a gradient; closures are refused."""
        if closure is not None:
            raise ValueError("got a closure; expected none: Muon evaluates nothing again")
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                step = self._orthogonal(p, p.grad) if group["orthogonal"] else self._adam(p, p.grad, group)
                p.add_(step, alpha=-group["lr"])

    def _orthogonal(self, p: Tensor, gradient: Tensor) -> Tensor:
        """The step of a matrix: Nesterov momentum, made orthogonal."""
        state = self.state[p]
        momentum = state.setdefault("momentum", torch.zeros_like(p))
        momentum.lerp_(gradient, 1 - MOMENTUM)
        size: float = 0.2 * max(p.shape) ** 0.5
        # where processes hold a share each, every one makes all of the step
        direction = parallel.whole(gradient.lerp(momentum, MOMENTUM))
        return parallel.like(p, size * orthogonal(direction))

    def _adam(self, p: Tensor, gradient: Tensor, group: dict[str, Any]) -> Tensor:
        """The step of AdamW."""
        state, (beta1, beta2) = self.state[p], group["betas"]
        if not state:
            state |= {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }
        state["step"] += 1
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].lerp_(gradient.square(), 1 - beta2)
        first = state["exp_avg"] / (1 - beta1 ** state["step"].item())
        second = state["exp_avg_sq"] / (1 - beta2 ** state["step"].item())
        step: Tensor = first / (second.sqrt() + group["eps"])
        return step


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly the nearest orthogonal matrix, [n, m] as given: its singular vectors with values near 1."""
    a, b, c = QUINTIC
    x = matrix / (matrix.norm() + 1e-7)
    x = x.T if matrix.shape[0] > matrix.shape[1] else x
    for _ in range(ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    made: Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return made
