"""Kernels that hide symbols again: ReMDM and Psi samplers, P2, and correctors that resample what is visible.

A kernel is ``kernel(state, denoiser, seed) -> (state, infos)``; `sample` runs a sequence of them. A
predictor is a tuple of kernels, one per step, a corrector is one kernel, and they are combined by putting
them in a row:

>>> from unmask.kernels import remask
>>> from unmask.masking import schedules
>>> steps = remask.remdm(schedules.linear().alpha, schedules.uniform_grid(8), remask.cap(0.1))
>>> kernels = [kernel for step in steps for kernel in (step, remask.gibbs(2))]

A sequence can be reached in many ways, so there is no tractable likelihood and log_prob is NaN. Symbols that
were visible at the start (the prompt) are never hidden. Fresh noise, a function of (seed, row, position,
step), decides.
"""

from unmask.kernels.remask.chain import Chain, Kernel, sample, start
from unmask.kernels.remask.correctors import gibbs, symbol_margin
from unmask.kernels.remask.pieces import hide
from unmask.kernels.remask.predictors import (
    Interval,
    Sigma,
    between,
    by_confidence,
    cap,
    chance_of_change,
    looped,
    p2,
    psi,
    remdm,
    rescale,
)

__all__ = [
    "Chain",
    "Interval",
    "Kernel",
    "Sigma",
    "between",
    "by_confidence",
    "cap",
    "chance_of_change",
    "gibbs",
    "hide",
    "looped",
    "p2",
    "psi",
    "remdm",
    "rescale",
    "sample",
    "start",
    "symbol_margin",
]
