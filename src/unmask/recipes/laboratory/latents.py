"""Recipe `lo_nae_sat`: bits, and observations of three of them each (L&O-NAE-SAT, arXiv 2502.06768).

A network that has learnt what each observation says of its three latents still meets hard subproblems: to tell latents, or
an observation, from other observations. An adaptive order avoids many of them. The law itself, exact for few latents, is
`unmask.laws.NotAllEqual`; training data are drawn from it as they are needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from unmask.data.vocabularies import Characters
from unmask.laws import LatentsAndObservations, NotAllEqual
from unmask.masking import corruption
from unmask.networks import TransformerConfig
from unmask.networks.transformer import from_config
from unmask.recipes import sequences
from unmask.recipes.run import Batch, Machine, Optimiser, Run, check_ranges, generator


@dataclass(frozen=True)
class LatentData:
    """``latents`` N bits and ``observations`` P of them, whose triples follow from ``triples``, a seed.

    ``told``: each observation's position has its three latents as coordinates, so that the network need not learn by
    heart which they are; otherwise positions are numbered.
    """

    latents: int = 20
    observations: int = 80
    triples: int = 0
    told: bool = True

    def __post_init__(self) -> None:
        check_ranges(self, latents=(3, math.inf), observations=(1, math.inf), triples=(0, 2**32 - 1))

    def law(self) -> LatentsAndObservations:
        """The law that training data come from."""
        return NotAllEqual(self.latents, self.observations, self.triples)


def lo_nae_sat() -> Run:
    """Twenty latents and eighty observations; four blocks, width 64."""
    return Run(
        name="lo_nae_sat",
        network=TransformerConfig(vocab_size=2, length=100, width=64, depth=4, heads=4, hidden=160),
        data=LatentData(),
        build=from_config,
        prepare=prepare,
        batch=batch,
        objective=sequences.loss,
        order="margin",
        encode=sequences.encode_windows,
        decode=sequences.decode_windows,
        vocabulary=Characters("01"),
        batch_size=64,
        optimiser=Optimiser(steps=8_000, learning_rate=2e-3, warmup=100, decay=0.3, ema=0.998),
        machine=Machine(bfloat16=None, compile=True),
    )


def prepare(run: Run) -> Run:
    """The run with the network's length and coordinates of positions, which follow from the data."""
    law = run.data.law()
    axes = coordinates(law) if run.data.told else None
    return replace(run, network=replace(run.network, length=law.length, axes=axes))


def coordinates(law: LatentsAndObservations) -> tuple[tuple[int, ...], ...]:
    """Four coordinates of each position: the three latents that it is about (a latent is about itself), and itself."""
    latents = torch.arange(law.latents)[:, None].expand(-1, law.sees.shape[1])
    about = torch.cat([latents, law.sees]).T
    axes = [*about, torch.arange(law.length)]
    return tuple(tuple(axis.tolist()) for axis in axes)


def batch(run: Run, step: int) -> Batch:
    """Sequences of the law and a uniform number of hidden positions each; a function of (seed, step) only."""
    random = generator(run, step)
    tokens = run.data.law().sample(run.batch_size, random)
    drawn = corruption.exact_count(torch.ones_like(tokens, dtype=torch.bool), random)
    return Batch(tokens, drawn.masked, drawn.weight)
