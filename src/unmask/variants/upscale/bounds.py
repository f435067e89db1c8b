"""What do the digits of each stage cost, and what is known of them? Bounds and profiles, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unmask.base import noise
from unmask.base.numbers import whole
from unmask.base.profile import Profile
from unmask.base.types import Cache, Denoiser, Estimate
from unmask.denoisers import vouched
from unmask.engine import likelihood
from unmask.planning import measuring
from unmask.planning.profiles import check_seen
from unmask.variants.upscale.digits import in_stages


@dataclass(frozen=True)
class AtStage:
    """One stage as a denoiser over N digits, given the coarser digits of the very same batch rows; made by `at_stage`."""

    base: Denoiser
    digits: Tensor
    stage: int
    stages: int

    @property
    def mask_id(self) -> int:
        """Digit that hides a position."""
        return self.base.mask_id

    @property
    def vocab_size(self) -> int:
        """Number of digits b."""
        return self.base.vocab_size

    @property
    def normalised(self) -> bool:
        """Whether its laws sum to one by construction."""
        return vouched(self.base)

    def __call__(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        """Log-probabilities float [B, R, b] at rows int64 [B, R] of the N."""
        whole, first = self._whole(tokens)
        asked = (
            torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens) if rows is None else rows
        )
        return self.base(whole, asked + first, time=time)

    def full(
        self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None
    ) -> tuple[Tensor, Cache]:
        """As a call; nothing is kept."""
        return self(tokens, rows, time=time), None

    def partial(
        self,
        tokens: Tensor,
        rows: Tensor,
        cache: Cache,  # noqa: ARG002
        *,
        time: Tensor | None = None,
    ) -> Tensor:
        """As a call."""
        return self(tokens, rows, time=time)

    def _whole(self, tokens: Tensor) -> tuple[Tensor, int]:
        """All S N digits with tokens [B, N] at this stage and finer ones hidden, and where the stage begins."""
        length = tokens.shape[1]
        if self.digits.shape != (len(tokens), self.stages * length):
            raise ValueError(
                f"tokens of shape {list(tokens.shape)} for digits of shape {list(self.digits.shape)}; "
                f"expected the same batch rows, each with one of its {self.stages} stages"
            )
        first = (self.stage - 1) * length
        finer = torch.full_like(self.digits[:, first + length :], self.mask_id)
        return torch.cat([self.digits[:, :first], tokens, finer], dim=1), first


def at_stage(denoiser: Denoiser, digits: Tensor, stage: int, stages: int) -> tuple[Denoiser, Tensor]:
    """One stage as a denoiser over its N digits, and those digits int64 [B, N]: a law of its own, given coarser digits.

    digits int64 [B, S N] are the coarser ones' source; whatever asks for whole batches works on it (`unmask.nelbo`).
    """
    stages = whole(stages, "stages", 1)
    stage = whole(stage, "stage")
    if not 1 <= stage <= stages:
        raise ValueError(f"stage {stage}: expected 1..{stages}")
    return AtStage(denoiser, digits, stage, stages), in_stages(digits, stages)[:, stage - 1]


def nelbo(
    denoiser: Denoiser,
    digits: Tensor,
    stages: int,
    *,
    generator: torch.Generator,
    samples: int = 16,
    item_ids: Tensor | None = None,
) -> Estimate:
    """Negative evidence lower bound of digits int64 [B, S N], nats per sequence: the sum of the stages' bounds.

    Each stage takes ``samples`` random sets of each of ``item_ids``, as `unmask.nelbo` does. Value and standard error
    float64 [B].
    """
    parts = [
        likelihood.nelbo(
            *at_stage(denoiser, digits, s, stages), generator=generator, samples=samples, item_ids=item_ids
        )
        for s in range(1, whole(stages, "stages", 1) + 1)
    ]
    value, variance = (
        sum(terms, torch.zeros(())) for terms in ([p.value for p in parts], [p.stderr**2 for p in parts])
    )
    return Estimate(value, variance.sqrt())


def measure(
    denoiser: Denoiser,
    digits: Tensor,
    stages: int,
    *,
    generator: torch.Generator,
    rounds: int = 1,
    batch_size: int = 64,
) -> tuple[Profile, ...]:
    """The loss profile of each stage, nats per masked digit, with standard errors: what its plan is made from.

    As `profiles.measure`, on digits int64 [n, S N] (clean, held out), the coarser ones visible.
    """
    return tuple(
        _stage_profile(denoiser, digits, s, stages, generator, measuring.Passes(rounds, batch_size))
        for s in range(1, whole(stages, "stages", 1) + 1)
    )


def _stage_profile(
    denoiser: Denoiser,
    digits: Tensor,
    stage: int,
    stages: int,
    generator: torch.Generator,
    passes: measuring.Passes,
) -> Profile:
    def observe(law: Denoiser, rows: Tensor, keys: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        inner, symbols = at_stage(law, rows, stage, stages)
        return measuring.losses_and_entropies(inner, symbols, keys[:, : symbols.shape[1]], levels)

    seed = noise.drawn_seed(generator)
    length = in_stages(digits, stages).shape[2]
    sums = measuring.collect(denoiser, digits, observe, measuring.Tally(length, 2, seed), passes)
    check_seen(sums.counts)
    facts: dict[str, Any] = {"estimator": "cross-entropy", "sequences": len(digits), "stage": [stage, stages]}
    return Profile(sums.means[:, 0], sums.stderrs[:, 0], sums.counts, facts)
