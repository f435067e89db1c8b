"""How do variants of one sequence compare with it? Substitutions, scored in four ways, each a difference in nats.

A mutant is a tuple of (place along the tokens, symbol). Every score is that of the mutant less that of the wild type, high
is good, and 0 is the wild type's own:

* `likelihood`: log p along an order, exact: the law that `unmask.sample` draws from.
* `masked_marginals`: the mutated positions are masked together; log p(mutant) - log p(wild type) given the rest, summed.
* `pseudo_likelihood`: sum over all positions of log p(symbol given all others). No probability of anything.
* `wild_type_marginals`: log p(mutant) - log p(wild type) where nothing is masked, for networks that were taught to say
  something there (a part of BERT's training); exact laws are sure of what they see and give -inf.

Where the wild type is impossible a difference is NaN. The names of the marginals are those of Meier et al. 2021 (ESM-1v).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from unmask.base.numbers import whole
from unmask.base.types import Choice, Denoiser, Selector, View
from unmask.denoisers import ask, ask_everywhere, check_tokens
from unmask.engine.likelihood import log_likelihood
from unmask.masking.objectives import cross_entropies

Mutant: TypeAlias = tuple[tuple[int, int], ...]
"""(place along the tokens, from 0; symbol) of every substitution."""

BATCH = 64
"""Rows per network call."""


def singles(tokens: Tensor, places: Iterable[int], symbols: Iterable[int]) -> tuple[Mutant, ...]:
    """All mutants of tokens int64 [L] with one other symbol at one of the places."""
    wild, others = tokens.tolist(), list(symbols)
    return tuple(((place, symbol),) for place in places for symbol in others if symbol != wild[place])


def applied(tokens: Tensor, mutants: Sequence[Mutant]) -> Tensor:
    """The sequences int64 [n, L] of mutants of tokens int64 [L]."""
    found = tokens.repeat(len(mutants), 1)
    where = [(n, place, symbol) for n, mutant in enumerate(mutants) for place, symbol in mutant]
    if where:
        rows, places, symbols = torch.tensor(where, device=tokens.device).T
        found[rows, places] = symbols
    return found


def likelihood(
    denoiser: Denoiser,
    tokens: Tensor,
    mutants: Sequence[Mutant],
    selector: Selector | Callable[[View], Choice],
    *,
    visible: Tensor | None = None,
    substeps: int = 1,
    batch_size: int = BATCH,
) -> Tensor:
    """Exact log-likelihood along an order less that of tokens int64 [L], float64 [n], nats.

    ``visible`` bool [L] is not scored. A sighted order may take each mutant another way. Costs an order's calls for each
    mutant, in batches.
    """
    seen = _checked(denoiser, tokens, mutants, visible)
    rows = torch.cat([tokens[None], applied(tokens, mutants)])
    values = torch.cat(
        [
            log_likelihood(denoiser, part, selector, visible=seen.expand_as(part), substeps=substeps)
            for part in torch.split(rows, whole(batch_size, "batch_size", 1))
        ]
    )
    return values[1:] - values[0]


def masked_marginals(
    denoiser: Denoiser, tokens: Tensor, mutants: Sequence[Mutant], *, batch_size: int = BATCH
) -> Tensor:
    """Sum of log p(mutant) - log p(wild type) where the mutated positions are masked, float64 [n], nats.

    A row of a call for each set of positions: all single mutants of a site share one.
    """
    _checked(denoiser, tokens, mutants, None)
    groups: dict[tuple[int, ...], list[int]] = {}
    for n, mutant in enumerate(mutants):
        groups.setdefault(tuple(sorted(place for place, _ in mutant)), []).append(n)
    found = torch.zeros(len(mutants), dtype=torch.float64)
    sets, size = sorted(groups, key=len), whole(batch_size, "batch_size", 1)
    for start in range(0, len(sets), size):
        part = sets[start : start + size]
        for places, law in zip(part, _masked_laws(denoiser, tokens, part)):
            for n in groups[places]:
                found[n] = _gain(law, tokens, mutants[n], places)
    return found.to(tokens.device)


def _masked_laws(denoiser: Denoiser, tokens: Tensor, sets: Sequence[tuple[int, ...]]) -> Tensor:
    """Log-probabilities float64 [S, k, V], on the host, at each set of places where it is masked; padded to the largest."""
    width = max(map(len, sets))
    filled = [[*places, *[places[0]] * (width - len(places))] for places in sets]
    rows = torch.tensor(filled, device=tokens.device)
    masked = tokens.repeat(len(sets), 1).scatter(1, rows, denoiser.mask_id)
    return ask(denoiser, masked, rows).detach().double().cpu()


def _gain(law: Tensor, tokens: Tensor, mutant: Mutant, places: tuple[int, ...]) -> Tensor:
    """Sum of log p(mutant) - log p(wild type) under the laws [k, V] of places."""
    slots = [places.index(place) for place, _ in mutant]
    wild = [int(tokens[place]) for place, _ in mutant]
    return (law[slots, [symbol for _, symbol in mutant]] - law[slots, wild]).sum()


def wild_type_marginals(denoiser: Denoiser, tokens: Tensor, mutants: Sequence[Mutant]) -> Tensor:
    """Sum of log p(mutant) - log p(wild type) where nothing is masked, float64 [n], nats; one row of one call."""
    _checked(denoiser, tokens, mutants, None)
    law = ask_everywhere(denoiser, tokens[None])[0].detach().double().cpu()
    everywhere = tuple(range(len(tokens)))
    gains = [_gain(law, tokens, mutant, everywhere) for mutant in mutants]
    return torch.stack(gains).to(tokens.device) if gains else tokens.new_zeros(0, dtype=torch.float64)


def pseudo_likelihood(
    denoiser: Denoiser,
    tokens: Tensor,
    mutants: Sequence[Mutant],
    *,
    visible: Tensor | None = None,
    batch_size: int = BATCH,
) -> Tensor:
    """Pseudo-log-likelihood less that of tokens int64 [L], float64 [n], nats: each position given all others, summed.

    ``visible`` bool [L] is not scored. Costs a row of a call for each position of each mutant and of the wild type.
    """
    seen = _checked(denoiser, tokens, mutants, visible)
    scored = (~seen).nonzero()[:, 0]
    rows = torch.cat([tokens[None], applied(tokens, mutants)])
    values = torch.zeros(len(rows), dtype=torch.float64, device=tokens.device)
    pairs = torch.arange(len(rows) * len(scored), device=tokens.device)
    for part in torch.split(pairs, whole(batch_size, "batch_size", 1)):
        items, places = part // max(len(scored), 1), scored[part % max(len(scored), 1)]
        hidden = torch.zeros(len(part), len(tokens), dtype=torch.bool, device=tokens.device)
        hidden[torch.arange(len(part)), places] = True
        values.index_add_(0, items, -cross_entropies(denoiser, rows[items], hidden).detach().sum(1))
    return values[1:] - values[0]


def _checked(denoiser: Denoiser, tokens: Tensor, mutants: Sequence[Mutant], visible: Tensor | None) -> Tensor:
    """``visible`` as bool [L]; ValueError for tokens, mutants and maps that do not fit one another."""
    if tokens.ndim != 1:
        raise ValueError(f"tokens have shape {list(tokens.shape)}; expected one sequence, int64 [length]")
    check_tokens(tokens[None], denoiser, masks=False)
    seen = torch.zeros_like(tokens, dtype=torch.bool) if visible is None else visible
    if seen.dtype != torch.bool or seen.shape != tokens.shape:
        raise ValueError(
            f"visible has dtype {seen.dtype} and shape {list(seen.shape)}; expected bool {list(tokens.shape)}"
        )
    shown = seen.tolist()
    for mutant in mutants:
        places = [place for place, _ in mutant]
        if not mutant or len(set(places)) < len(places) or not all(0 <= p < len(tokens) for p in places):
            raise ValueError(
                f"mutant {mutant}: expected distinct places in 0..{len(tokens) - 1}, at least one"
            )
        if not all(0 <= s < denoiser.vocab_size and s != denoiser.mask_id for _, s in mutant):
            raise ValueError(f"mutant {mutant}: expected data symbols 0..{denoiser.vocab_size - 1}")
        if any(shown[place] for place in places):
            raise ValueError(
                f"mutant {mutant}: a place is visible, which is not scored; expected other places"
            )
    return seen
