"""Sound of papers: SC09, the spoken digits of Speech Commands, one second each at 16 kHz in 65,536 levels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.data.vocabularies import Levels
from unmask.recipes import sequences
from unmask.recipes.papers import optimisers
from unmask.recipes.papers.images import upscaled_loss
from unmask.recipes.papers.wavenet import WaveNet, WaveNetConfig
from unmask.recipes.run import Batch, Machine, Run
from unmask.variants import upscale

LEVELS = 2**16
"""Values of a sample of 16 bits, -32768 as 0."""


@dataclass(frozen=True)
class _Samples:
    """What `sequences` asks of a network over plain levels."""

    vocab_size: int
    length: int


def ardm_sc09() -> Run:
    """Upscale ARDM on SC09 in eight stages of base 4, direct parametrisation; 6.29 bits per dimension published.

    WaveNet without causality: 36 blocks of 256 features, a dilation cycle of 11 as in the paper; the code has 12. Adam 1e-4
    after 15,000 steps of warm-up, clip 1,000, .0001 of plain cross-entropy added. EMA .995 is the code's (unverified for
    the paper's run), whose default base is 2: ``--network.vocab_size 2``. One stage under a mixture of 30 logistics (7.93)
    is not built: sampling and likelihood would want 65,536 logits for each of 16,000 samples.
    """
    return Run(
        name="ardm-sc09",
        network=WaveNetConfig(vocab_size=4, levels=LEVELS, samples=16_000),
        data=sequences.Folder("sc09"),
        build=build,
        batch=batch,
        objective=_loss,
        encode=encode,
        decode=decode,
        vocabulary=Levels(LEVELS),
        prepare=prepared,
        batch_size=256,
        optimiser=optimisers.ardm(1_000_000, 1e-4, warmup=15_000, clip=1000.0, ema=0.995),
        machine=Machine(bfloat16=None, compile=True),
    )


def build(config: WaveNetConfig) -> upscale.Upscaled:
    """The network over digits of a configuration."""
    return upscale.Upscaled(WaveNet(config), config.vocab_size, config.levels, upscale.from_digits)


def batch(run: Run, step: int) -> Batch:
    """Digits of random sounds, and what is hidden of them; a function of (seed, step) only."""
    return sequences.batches(_digits, upscale.in_one_stage(run.network.stages))(run, step)


def prepared(run: Run) -> Run:
    """The run with the data's fingerprint; ValueError when the data have other levels or lengths than the network."""
    found = sequences.prepared(_plain(run), kind="images")
    if found.network.vocab_size != run.network.levels:
        raise ValueError(
            f"the data have {found.network.vocab_size} levels; expected network.levels {run.network.levels}: "
            "prepare them with `unmask data prepare FOLDER --as sc09`"
        )
    return replace(found, network=run.network)


def encode(run: Run, sounds: Any) -> Tensor:
    """Digits int64 [n, S N] of sounds int16 [n, N]; ValueError on another shape or type."""
    values = np.asarray(sounds)
    if values.dtype != np.int16 or values.shape[1:] != (run.network.samples,):
        raise ValueError(
            f"sounds of dtype {values.dtype} and shape {list(values.shape)}; expected int16 [n, {run.network.samples}]"
        )
    levels = torch.as_tensor(values.astype(np.int64) + LEVELS // 2)
    return upscale.encode_digits(levels, run.network.vocab_size, run.network.levels)


def decode(run: Run, tokens: Tensor) -> NDArray[np.int16]:
    """Sounds int16 [n, N] of digits int64 [n, S N]; where digits are masked, as far as the stage before knows the level."""
    levels = upscale.situation(tokens, run.network.vocab_size, run.network.levels).levels
    return (levels.cpu().numpy() - LEVELS // 2).astype(np.int16)


def _digits(run: Run, random: torch.Generator) -> Tensor:
    levels = sequences.items(_plain(run), random)
    return upscale.encode_digits(levels, run.network.vocab_size, run.network.levels)


def _plain(run: Run) -> Run:
    """The run over levels instead of digits."""
    return replace(run, network=_Samples(run.network.levels, run.network.samples))


def _loss(network: Any, data: Batch) -> Tensor:
    return upscaled_loss(network, data, auxiliary=1e-4)
