"""Schedules of the forward process: alpha(t) = P(position still visible at time t), t from 0 (clean) to 1 (masked).

The continuous-time bound weights the cross-entropy of the masked positions by -alpha'(t) / (1 - alpha(t))
(MD4, arXiv 2406.04329, section 2). ``eps`` squeezes alpha into [eps, 1 - eps]; it leaves out a reconstruction and a
prior term, both of which `unmask.masking.enumeration` adds back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unmask.base.numbers import real, shown, whole


@dataclass(frozen=True)
class Schedule:
    """alpha(t), its derivative and its inverse, each a function of float64 tensors; all dimensionless."""

    alpha: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]

    def weight(self, t: Tensor) -> Tensor:
        """Weight of the cross-entropy at time t, -alpha'(t) / (1 - alpha(t)), per unit of time."""
        return -self.slope(t) / (1 - self.alpha(t))


def linear(eps: float = 0.0) -> Schedule:
    """alpha = 1 - t, so the weight is 1/t (MD4, arXiv 2406.04329)."""
    return polynomial(1.0, eps)


def polynomial(power: float, eps: float = 0.0) -> Schedule:
    """alpha = 1 - t^power, so the weight is power/t (MD4, arXiv 2406.04329)."""
    power = real(power, "power")
    if not 0 < power < math.inf:
        raise ValueError(f"power {power}: expected a positive number")
    return _cut(
        Schedule(
            lambda t: 1 - t**power,
            lambda t: -power * t ** (power - 1),
            lambda a: (1 - a) ** (1 / power),
        ),
        eps,
    )


def cosine(eps: float = 0.0) -> Schedule:
    """alpha = 1 - cos(pi/2 (1 - t)), so the weight is pi/2 tan(pi/2 (1 - t)) (MD4, arXiv 2406.04329)."""
    half = math.pi / 2
    return _cut(
        Schedule(
            lambda t: 1 - torch.cos(half * (1 - t)),
            lambda t: -half * torch.sin(half * (1 - t)),
            lambda a: 1 - torch.arccos(1 - a) / half,
        ),
        eps,
    )


def geometric(low: float = 1e-5, high: float = 20.0, eps: float = 0.0) -> Schedule:
    """alpha = exp(-low^(1-t) high^t); its end points fall short of 1 and 0 by about low and exp(-high).

    MD4, arXiv 2406.04329; the printed weight there has a sign slip, this is the derivative.
    """
    low, high = real(low, "low"), real(high, "high")
    if not 0 < low < high < math.inf:
        raise ValueError(f"low {low}, high {high}: expected 0 < low < high")
    ratio = math.log(high / low)

    def rate(t: Tensor) -> Tensor:
        """B(t) of the formula."""
        return torch.as_tensor(low ** (1 - t) * high**t)

    return _cut(
        Schedule(
            lambda t: torch.exp(-rate(t)),
            lambda t: -torch.exp(-rate(t)) * rate(t) * ratio,
            lambda a: torch.log(-torch.log(a) / low) / ratio,
        ),
        eps,
    )


def _cut(schedule: Schedule, eps: float) -> Schedule:
    """The schedule squeezed into [eps, 1 - eps]: alpha <- (1 - 2 eps) alpha + eps."""
    eps = real(eps, "eps")
    if not 0 <= eps < 0.5:
        raise ValueError(f"eps {eps}: expected 0 <= eps < 0.5")
    if eps == 0:
        return schedule
    scale = 1 - 2 * eps
    return Schedule(
        lambda t: scale * schedule.alpha(t) + eps,
        lambda t: scale * schedule.slope(t),
        lambda a: schedule.inverse(((a - eps) / scale).clamp(0, 1)),
    )


def check_times(times: Tensor) -> Tensor:
    """The times of a reverse process, float [T + 1]; ValueError unless they fall strictly, within 1 to 0."""
    found = torch.as_tensor(times) if isinstance(times, Tensor | np.ndarray | list | tuple) else None
    good = found is not None and found.ndim == 1 and len(found) > 1 and not found.is_meta
    if found is None or not good or not bool((found.diff() < 0).all() & (found[0] <= 1) & (found[-1] >= 0)):
        raise ValueError(
            "times: expected float64 [T + 1], strictly falling to 0 from 1 at most, such as "
            f"schedules.uniform_grid(T); got {shown(times)}"
        )
    return found


def uniform_grid(steps: int) -> Tensor:
    """Times 1 = t_0 > ... > t_steps = 0, equally spaced; float64 [steps + 1]."""
    return torch.linspace(1, 0, whole(steps, "steps", 1) + 1, dtype=torch.float64)


def cosine_grid(steps: int) -> Tensor:
    """Times cos(pi/2 i/steps), i = 0..steps; the linear schedule on it has the alphas of cosine on `uniform_grid`."""
    fraction = torch.linspace(0, 1, whole(steps, "steps", 1) + 1, dtype=torch.float64)
    return torch.cos(math.pi / 2 * fraction).clamp(min=0.0).where(fraction < 1, 0.0)
