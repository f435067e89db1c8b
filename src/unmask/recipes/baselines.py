"""A recipe over sequences under another objective: what order-agnostic training is compared with.

Each function takes a run, such as `text`, and how its sequences are drawn (`sequences.windows` or `items`), and returns the
run with another network switch, batch and objective; data, size, optimiser and machine stay. Name the result and it is
a recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from unmask.masking import corruption, schedules
from unmask.masking.schedules import Schedule
from unmask.networks import TransformerConfig
from unmask.networks.transformer import from_config
from unmask.recipes import sequences
from unmask.recipes.run import Batch, Run, generator
from unmask.variants import genmd4
from unmask.variants.genmd4 import GenMD4Network

Draw: TypeAlias = Callable[[Run, torch.Generator], Tensor]
"""The sequences of one batch, int64 [B, L], as `sequences.windows` draws them."""

LINEAR = schedules.linear(eps=1e-4)
"""The schedule of MD4's text models, with its cut-off."""


def autoregressive(run: Run, draw: Draw) -> Run:
    """The run with a causal network of the same size, trained on every next symbol; nats per position are exact."""
    return replace(
        run,
        network=replace(run.network, causal=True),
        batch=sequences.batches(draw, corruption.everything),
        objective=sequences.causal_loss,
    )


def md4(run: Run, draw: Draw, schedule: Schedule = LINEAR, timed: bool = False) -> Run:
    """The run under MD4's integral over time (arXiv 2406.04329); the network reads the time if ``timed``."""
    return replace(
        run,
        network=replace(run.network, timed=timed),
        batch=sequences.batches(draw, corruption.md4(schedule)),
    )


def d3pm(run: Run, draw: Draw, steps: int = 1000, auxiliary: float = 0.001) -> Run:
    """The run under absorbing D3PM (arXiv 2107.03006): ``steps`` times, independent, and a share of plain cross-entropy."""
    return replace(
        run,
        batch=sequences.batches(draw, corruption.d3pm(steps)),
        objective=partial(sequences.loss, auxiliary=auxiliary),
    )


def gen_md4(run: Run, draw: Draw) -> Run:
    """The run under GenMD4 (arXiv 2406.04329, section 6): a schedule per symbol is learnt with the network, which is timed.

    Each step draws half a batch of sequences and masks each twice, so the network sees ``batch_size`` masked sequences
    as in the other baselines. ValueError when the batch size is odd.
    """
    return replace(
        run,
        network=replace(run.network, timed=True),
        build=build_gen_md4,
        batch=gen_md4_batches(draw),
        objective=gen_md4_loss,
    )


def build_gen_md4(config: TransformerConfig) -> GenMD4Network:
    """The network of a configuration with all powers 1."""
    return GenMD4Network(from_config(config))


def gen_md4_batches(draw: Draw) -> Callable[[Run, int], Batch]:
    """Half-size batches with a time per sequence and noise for two masks; ``masked`` and ``weight`` say nothing there."""

    def batch(run: Run, step: int) -> Batch:
        if run.batch_size % 2:
            raise ValueError(f"batch_size {run.batch_size}: expected an even number, two masks per sequence")
        random = generator(run, step)
        tokens = draw(replace(run, batch_size=run.batch_size // 2), random)
        time = genmd4.draw_times(len(tokens), random)
        noise = torch.rand(len(tokens), 2, tokens.shape[1], dtype=torch.float64, generator=random)
        drawn = corruption.everything(torch.ones_like(tokens, dtype=torch.bool), random)
        return Batch(tokens, drawn.masked, drawn.weight, time, noise=noise)

    return batch


def gen_md4_loss(network: nn.Module, data: Batch) -> Tensor:
    """`genmd4.training_loss` of a batch, nats per position."""
    if data.time is None or data.noise is None:
        raise ValueError("the batch has no time and noise; expected one of gen_md4_batches")
    return genmd4.training_loss(network, data.tokens, data.time, data.noise).mean() / data.tokens.shape[1]
