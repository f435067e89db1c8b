"""Orders by name: what makes one of `catalogue.ORDERS` from options."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unmask.base.types import Denoiser, Plan
from unmask.command_line.choosing.files import read_plan
from unmask.command_line.options import Options, value
from unmask.kernels import commit, remask
from unmask.kernels.remask import Kernel, Sigma
from unmask.masking import schedules
from unmask.orders import presets, scores, selectors


@dataclass(frozen=True)
class Task:
    """What an order may have to know: the denoiser that it will ask, and how many positions there are."""

    denoiser: Denoiser
    length: int


def _own_plan(options: Options) -> Plan | None:
    """The plan that was asked for, or None: the order's own."""
    return None if options.plan is None else read_plan(options.plan)


def _steps(options: Options, default: int = 64) -> int:
    steps = value(options.steps, default)
    if steps < 1:
        raise ValueError(f"steps {steps}: expected at least 1")
    return steps


def _grid(text: str | None, length: int) -> tuple[int, int]:
    """Height and width of ``length`` positions, from ``9x9`` or, if nothing is said, those of a square."""
    if text is None:
        text = f"{math.isqrt(length)}x{math.isqrt(length)}"
    height, _, width = text.partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise ValueError(f"--grid '{text}': expected HEIGHTxWIDTH, such as 9x9")
    if int(height) * int(width) != length:
        raise ValueError(f"a grid of {text} has no {length} cells: give --grid HEIGHTxWIDTH of that many")
    return int(height), int(width)


def _uniform(vocab_size: int) -> Tensor:
    """Background frequencies, where none were counted."""
    return torch.full((vocab_size,), 1 / vocab_size, dtype=torch.float64)


def _maskgit(options: Options) -> commit.Rule:
    """As published (cosine counts, falling temperature), or a plan at a fixed temperature, or a plan and --steps."""
    steps, alpha = _steps(options, 12), value(options.alpha, 4.5)
    fixed = options.plan is not None and options.steps is None
    counts = commit.cosine_counts(steps) if options.plan is None else read_plan(options.plan)
    return commit.maskgit(alpha if fixed else commit.annealed(alpha, steps), counts)


def _remdm(options: Options, sigma: Sigma) -> tuple[Kernel, ...]:
    return remask.remdm(schedules.linear().alpha, schedules.uniform_grid(_steps(options)), sigma)


def _looping(options: Options) -> tuple[Kernel, ...]:
    sigma = remask.between(remask.cap(value(options.eta, 0.02)))
    return remask.remdm(remask.looped(), schedules.uniform_grid(_steps(options)), sigma)


def _corrected(options: Options) -> tuple[Kernel, ...]:
    """Ancestral steps with a Gibbs corrector after each."""
    return tuple(kernel for step in _remdm(options, remask.psi(1)) for kernel in (step, remask.gibbs()))


BUILD: dict[str, Callable[[Options, Task], Any]] = {
    "random": lambda o, _: presets.random(read_plan(o.plan), o.seed),
    "left-to-right": lambda o, _: presets.left_to_right(read_plan(o.plan)),
    "bisection": lambda o, _: presets.bisection(_own_plan(o)),
    "halton": lambda o, t: presets.halton(*_grid(o.grid, t.length), _own_plan(o)),
    "ancestral": lambda o, _: presets.ancestral(_steps(o), o.seed),
    "first-hitting": lambda o, _: presets.first_hitting(o.seed),
    "confidence": lambda o, _: presets.confidence(read_plan(o.plan)),
    "margin": lambda o, _: presets.margin(read_plan(o.plan)),
    "noisy-margin": lambda o, _: presets.noisy_margin(read_plan(o.plan), value(o.alpha, 0.5), o.seed),
    "entropy": lambda o, _: presets.entropy(read_plan(o.plan)),
    "moment": lambda o, _: presets.moment(read_plan(o.plan), value(o.beta, 2.0), o.seed),
    "hybrid": lambda o, _: presets.hybrid(read_plan(o.plan), value(o.share, 0.5)),
    "pc": lambda o, t: presets.pc(_uniform(t.denoiser.vocab_size), read_plan(o.plan), value(o.decay, 0.25)),
    "information-gain": lambda o, t: presets.information_gain(
        t.denoiser, read_plan(o.plan), value(o.candidates, 8), o.seed
    ),
    "threshold": lambda o, _: presets.threshold(value(o.tau, 0.9)),
    "margin-threshold": lambda o, _: selectors.threshold(scores.on_base(scores.margin), value(o.tau, 0.9)),
    "fork": lambda o, _: presets.fork(value(o.tau, 0.999)),
    "entropy-budget": lambda o, _: presets.eb(value(o.gamma, 0.1)),
    "eb": lambda o, _: presets.eb(value(o.gamma, 0.1)),
    "factor": lambda o, _: presets.factor(value(o.limit, 1.0)),
    "klass": lambda o, _: presets.klass(value(o.tau, 0.6), value(o.eps, 0.015), read_plan(o.plan)),
    "moment-sampler": lambda o, _: presets.moment_sampler(read_plan(o.plan), value(o.alpha, 1.0), o.seed),
    "race": lambda o, _: presets.race(read_plan(o.plan), value(o.alpha, 1.0), o.seed),
    "maskgit": lambda o, _: _maskgit(o),
    "low-confidence": lambda o, _: commit.low_confidence(1.0, read_plan(o.plan)),
    "remdm": lambda o, _: _remdm(o, remask.cap(value(o.eta, 0.008))),
    "remdm-rescale": lambda o, _: _remdm(o, remask.rescale(value(o.eta, 0.015))),
    "remdm-conf": lambda o, _: _remdm(o, remask.by_confidence(remask.rescale(value(o.eta, 1.0)))),
    "remdm-loop": lambda o, _: _looping(o),
    "psi": lambda o, _: _remdm(o, remask.psi(1 - value(o.eta, 0.1))),
    "gibbs": lambda o, _: _corrected(o),
    "p2": lambda o, _: remask.p2(_steps(o, 32), value(o.eta, 1.0)),
}
"""What makes an order of `catalogue.ORDERS` from options: a selector, a rule that draws first, or kernels."""
