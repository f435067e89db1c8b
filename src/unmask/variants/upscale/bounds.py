"""Upscale ARDM: levels as base-b digits, coarsest first, so that one law covers all stages (arXiv 2110.02037, section 3).

A level x in 0..K-1 has S digits, S the least with b^S >= K. Stage s = 1..S unmasks the s-th digit of every position, given
all coarser ones: it takes x^(s-1) to x^(s), where x^(s) = floor(x / b^(S-s)) b^(S-s) is x with its last S - s digits zero.
A sequence of N levels is a sequence of S N digits, stage after stage, and `Upscaled` is a network over those. Sampling,
likelihood and plans work on it as on any other under ``selectors.in_blocks(selector, N)`` (or `stage_by_stage`, for a plan
per stage). The bound is the sum of the stages' bounds, `nelbo`: digits never are unmasked in an order that mixes stages.

At stage s the network sees x^(s) where that digit is visible and x^(s-1) elsewhere, which is which, and the stage. Finer
digits that happen to be visible (a prompt) are not looked at before their stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.base import noise
from unmask.base.numbers import whole
from unmask.base.profile import Profile
from unmask.base.types import Cache, Choice, Denoiser, Estimate, Selector, View
from unmask.denoisers import NetworkDenoiser, from_logits, take_rows, vouched
from unmask.engine import likelihood
from unmask.masking.corruption import Corruption, exact_count, low_discrepancy
from unmask.planning import measuring
from unmask.planning.profiles import check_seen

Law: TypeAlias = Callable[[Tensor, Tensor, Tensor, int, int], Tensor]
"""(logits [.., K or S b], parent x^(s-1) int64 [..], stage int64 [..], base, levels) -> log-probabilities [.., b]."""


# --- digits ---------------------------------------------------------------------------------------


def stages(base: int, levels: int) -> int:
    """The number of stages S: the least with base^S >= levels (at least 1). Whole-number arithmetic only."""
    base, levels = whole(base, "base", 2), whole(levels, "levels", 2)
    count = 1
    while base**count < levels:
        count += 1
    return count


def stages_of(network: Mapping[str, Any]) -> int:
    """In how many stages a network of this configuration unmasks the digits of each level: 1 for one without ``levels``."""
    levels = network.get("levels")
    return 1 if levels is None else stages(int(network["vocab_size"]), int(levels))


def encode_digits(values: Tensor, base: int, levels: int) -> Tensor:
    """Levels int64 [B, N] in 0..K-1 as digits int64 [B, S N], coarsest stage first; ValueError for other levels."""
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < levels:
        raise ValueError(f"levels {int(values.min())}..{int(values.max())}; expected 0..{levels - 1}")
    steps = _steps(base, levels, values.device)
    return (values[:, None] // steps[:, None] % base).flatten(1)


def decode_digits(digits: Tensor, base: int, levels: int) -> Tensor:
    """Levels int64 [B, N] of digits int64 [B, S N] of `encode_digits`; ValueError for masks and foreign digits."""
    steps = _steps(base, levels, digits.device)
    by_stage = _by_stage(digits, len(steps))
    values = (by_stage * steps[:, None]).sum(1)
    foreign = ((by_stage < 0) | (by_stage >= base)).any(1) | (values >= levels)
    if foreign.any():
        row, place = foreign.nonzero()[0].tolist()
        raise ValueError(
            f"digits {by_stage[row, :, place].tolist()} at row {row}, position {place} are no level in 0..{levels - 1}; "
            f"expected {len(steps)} digits of base {base}, none masked"
        )
    return values


def _steps(base: int, levels: int, device: torch.device) -> Tensor:
    """What a digit of each stage counts, b^(S-s), int64 [S]."""
    count = stages(base, levels)
    return torch.tensor([base ** (count - s) for s in range(1, count + 1)], device=device)


def _by_stage(digits: Tensor, count: int) -> Tensor:
    """Digits [B, S N] as [B, S, N]; ValueError when they do not divide."""
    if digits.ndim != 2 or digits.shape[1] % count:
        raise ValueError(
            f"digits of shape {list(digits.shape)}; expected [batch, {count} stages times length]"
        )
    return digits.reshape(len(digits), count, digits.shape[1] // count)


class Situation(NamedTuple):
    """Where digits stand: levels int64 [B, N] as far as known, masked bool [B, N], parent int64 [B, N], stage int64 [B].

    The stage, from 1, is the first with a masked digit (the last when there is none); ``masked`` says where its digit
    is hidden, ``parent`` is x^(s-1) and ``levels`` is x^(s) where the digit is visible, x^(s-1) elsewhere.
    """

    levels: Tensor
    masked: Tensor
    parent: Tensor
    stage: Tensor


def situation(digits: Tensor, base: int, levels: int) -> Situation:
    """The `Situation` of digits int64 [B, S N] with ``base`` where hidden."""
    steps = _steps(base, levels, digits.device)
    by_stage = _by_stage(digits, len(steps))
    hidden = by_stage == base
    unfinished = hidden.any(2).long()
    place = torch.where(unfinished.any(1), unfinished.argmax(1), len(steps) - 1)
    own = place[:, None, None].expand(-1, 1, by_stage.shape[2])
    worth = by_stage.masked_fill(hidden, 0) * steps[:, None]
    coarser = torch.arange(len(steps), device=digits.device) < place[:, None]
    parent = (worth * coarser[:, :, None]).sum(1)
    return Situation(parent + worth.gather(1, own)[:, 0], hidden.gather(1, own)[:, 0], parent, place + 1)


# --- the two parametrisations ---------------------------------------------------------------------


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
    step = _steps(base, levels, logits.device)[stage - 1]
    child = parent[..., None] + torch.arange(base, device=logits.device) * step[..., None]
    return own.masked_fill(child >= levels, -torch.inf).log_softmax(-1)


def _precise(logits: Tensor) -> Tensor:
    """Logits in float32 at least."""
    return logits if logits.dtype == torch.float64 else logits.float()


# --- networks over digits -------------------------------------------------------------------------


class Upscaled(nn.Module):
    """A network over digits: ``network(digits int64 [B, S N], rows=None) -> log-probabilities`` [B, R, b]; mask id b.

    ``network`` is a module with ``staged(levels, masked, stage, rows) -> logits`` [B, R, K] (or [B, R, S b] with the law
    `from_digits`), as `networks.UNet` and `StagedTokens`. Rows outside the current stage get the uniform law: they are
    asked for when a sighted selector looks at all that is masked, and never drawn from under ``in_blocks``.
    """

    def __init__(self, network: nn.Module, base: int, levels: int, law: Law = from_levels) -> None:
        super().__init__()
        self.network, self.law = network, law
        self.base, self.levels = whole(base, "base", 2), whole(levels, "levels", 2)
        self.stages = stages(base, levels)

    @property
    def mask_id(self) -> int:
        """Digit that hides a position."""
        return self.base

    def forward(self, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        """Log-probabilities [B, R, b] at rows; ValueError when the coarser digits are beyond the last level."""
        now = situation(tokens, self.base, self.levels)
        if bool((now.parent >= self.levels).any()):
            raise ValueError(
                f"coarse digits stand for a level beyond {self.levels - 1}: unmask stage by stage, "
                f"under selectors.in_blocks(selector, {now.levels.shape[1]})"
            )
        length = now.levels.shape[1]
        asked = (
            torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens) if rows is None else rows
        )
        few = asked.shape[1] <= length
        law = self.at(now, asked % length if few else None)
        law = law if few else take_rows(law, asked % length)
        current = asked // length == now.stage[:, None] - 1
        uniform = torch.full_like(law[:1, :1], 1 / self.base).log()
        return torch.where(current[..., None], law, uniform)

    def at(self, now: Situation, places: Tensor | None) -> Tensor:
        """Log-probabilities [B, R, b] of the current stage's digits at places int64 [B, R] of the N (None: all)."""
        logits = self.network.staged(now.levels, now.masked, now.stage, places)  # type: ignore[operator]
        parent = now.parent if places is None else now.parent.gather(1, places)
        return self.law(logits, parent, now.stage[:, None].expand_as(parent), self.base, self.levels)


class StagedTokens(nn.Module):
    """A network over tokens, told level, mask and stage in one symbol, (stage - 1) 2K + (K if masked) + level.

    ``network(tokens, rows=None)`` takes 2 K S symbols and gives at least ``outputs`` logits, such as
    ``Transformer(2 * K * S, N, ..)``.
    """

    def __init__(self, network: nn.Module, levels: int, outputs: int | None = None) -> None:
        super().__init__()
        self.network, self.levels, self.outputs = network, levels, outputs or levels

    def staged(self, levels: Tensor, masked: Tensor, stage: Tensor, rows: Tensor | None = None) -> Tensor:
        """Logits [B, R, outputs] at rows int64 [B, R] of the N (None: all)."""
        tokens = levels + self.levels * (masked + 2 * (stage[:, None] - 1))
        logits: Tensor = self.network(tokens, rows)[..., : self.outputs]
        return logits


def upscaled(network: nn.Module, base: int, levels: int, law: Law = from_levels) -> NetworkDenoiser:
    """A denoiser over S N digits from a network that is told levels, mask and stage; see `Upscaled`."""
    return from_logits(Upscaled(network, base, levels, law), base, base)


# --- training -------------------------------------------------------------------------------------


def in_one_stage(count: int) -> Callable[[Tensor, torch.Generator], Corruption]:
    """How training digits are masked: one of ``count`` stages at random, part of its digits, and all finer ones.

    The weight S N / n of n masked digits among the stage's N makes the loss of that stage's digits an unbiased bound
    of all stages together. Stage and number are stratified over the batch jointly. ARDM, arXiv 2110.02037.
    """

    count = whole(count, "count", 1)

    def corrupt(maskable: Tensor, generator: torch.Generator) -> Corruption:
        spread = count * low_discrepancy(len(maskable), generator)
        stage = spread.floor().long().clamp(max=count - 1)
        within = exact_count(
            _by_stage(maskable, count)[:, 0], generator, (spread - stage).clamp(0, 1 - 1e-12)
        )
        order = torch.arange(count, device=maskable.device)[:, None]
        own, finer = order == stage[:, None, None], order > stage[:, None, None]
        return Corruption((own & within.masked[:, None] | finer).flatten(1), count * within.weight)

    return corrupt


def loss(network: Upscaled, digits: Tensor, masked: Tensor, weight: Tensor) -> Tensor:
    """The upscale bound on a batch, nats per position of the N: weight [B] times the current stage's cross-entropies.

    digits int64 [B, S N] (clean); masked bool [B, S N] and weight from `in_one_stage`.
    """
    now = situation(digits.masked_fill(masked, network.base), network.base, network.levels)
    log_probs = network.at(now, None)
    own = (now.stage - 1)[:, None, None].expand(-1, 1, now.levels.shape[1])
    target = _by_stage(digits, network.stages).gather(1, own)[:, 0]
    losses = -log_probs.gather(-1, target[..., None])[..., 0]
    per_row = torch.where(now.masked, losses, 0.0).sum(1) * weight.to(losses.dtype)
    return per_row.mean() / now.levels.shape[1]


# --- bounds, profiles, plans ----------------------------------------------------------------------


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
    return AtStage(denoiser, digits, stage, stages), _by_stage(digits, stages)[:, stage - 1]


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
    length = _by_stage(digits, stages).shape[2]
    sums = measuring.collect(denoiser, digits, observe, measuring.Tally(length, 2, seed), passes)
    check_seen(sums.counts)
    facts: dict[str, Any] = {"estimator": "cross-entropy", "sequences": len(digits), "stage": [stage, stages]}
    return Profile(sums.means[:, 0], sums.stderrs[:, 0], sums.counts, facts)


def stage_by_stage(selectors: Sequence[Selector], length: int) -> Selector:
    """A selector for each stage, inside the ``length`` digits of that stage: `in_blocks` with a plan per block.

    ValueError for selectors that keep time, tilt the law or remember: they cannot change from stage to stage.
    """
    length = whole(length, "length", 1)
    if any(getattr(s, "time", None) is not None for s in selectors):
        raise ValueError("a selector keeps time (ancestral, first_hitting): expected others; use in_blocks")

    def choose(view: View) -> Choice:
        block = torch.arange(view.tokens.shape[1], device=view.tokens.device) // length
        current = torch.where(view.masked, block, len(selectors)).amin(1)
        rows, doubt = (
            torch.full_like(view.tokens, -1),
            torch.zeros((), dtype=torch.bool, device=current.device),
        )
        for number, selector in enumerate(selectors):
            items = (current == number).nonzero()[:, 0]
            if len(items):
                choice = selector(view.part(items).within(block == number))
                mine = _plain(choice)
                rows[items, : mine.shape[1]] = mine
                doubt = doubt if choice.doubt is None else doubt | choice.doubt.any()
        return Choice(rows[:, : int((rows >= 0).sum(1).max())] if len(rows) else rows, doubt=doubt)

    names = ", ".join(getattr(s, "name", "selector") for s in selectors)
    blind = all(getattr(s, "blind", False) for s in selectors)
    return Selector(choose, blind=blind, name=f"stage_by_stage({names}; {length})")


def _plain(choice: Choice) -> Tensor:
    """The rows of a choice that holds nothing else, padding last."""
    if choice.tilt is not None or choice.calls is not None or choice.memory:
        raise ValueError(
            "a selector tilts, looks ahead or remembers: expected one that only chooses; use in_blocks"
        )
    return choice.rows.gather(1, (choice.rows < 0).to(torch.uint8).sort(dim=1, stable=True).indices)
