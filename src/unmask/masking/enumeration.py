"""What are the bounds of masked diffusion, exactly? By visiting all masks of short sequences.

For a denoiser mu that sees the visible tokens only, let CE(M) = sum over i in M of -ln mu_i(x_i | x outside M). The
continuous-time bound of MD4 (arXiv 2406.04329) and the order-agnostic bound of ARDM (arXiv 2110.02037) are one number:

(a) sum over non-empty sets M of CE(M) / (|M| C(N, |M|))
(b) mean over orders pi of sum_j -ln mu_{pi(j)}(x_{pi(j)} | first j tokens of pi)
(c) N times the mean over n in 1..N, |M| = n, of CE(M) / n

The functions evaluate these, and the bounds in continuous and discrete time, for time-free denoisers, with the closed forms
that tests compare them to. `unmask.nelbo` estimates the same number for any length.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from unmask.base.numbers import whole
from unmask.base.types import Denoiser
from unmask.denoisers import check_tokens
from unmask.masking.objectives import cross_entropies
from unmask.masking.schedules import Schedule

Quadrature: TypeAlias = Callable[[Schedule], tuple[Tensor, Tensor]]
"""A schedule to float64 masking probabilities [Q] and the weights [Q] of the expected cross-entropy at each."""


_LONGEST = 16


_LONGEST_ORDERED = 8


_CHUNK = 2**14
"""Sequences that the denoiser is asked at once when all masks are visited."""


def bound_by_subsets(denoiser: Denoiser, tokens: Tensor) -> Tensor:
    """The bound of tokens int64 [B, N] in form (a), nats per sequence, float64 [B]; N <= 16.

    Derived from MD4's continuous-time bound: the integral over time of one mask's probability is 1 / (|M| C(N, |M|)).
    """
    hidden = _all_masks(tokens.shape[1], _LONGEST)
    sizes = hidden.sum(1).tolist()
    share = [1 / (n * math.comb(tokens.shape[1], n)) if n else 0.0 for n in sizes]
    return subset_losses(denoiser, tokens).sum(2) @ torch.tensor(
        share, dtype=torch.float64, device=tokens.device
    )


def bound_by_orders(denoiser: Denoiser, tokens: Tensor) -> Tensor:
    """The bound of tokens int64 [B, N] in form (b), nats per sequence, float64 [B], by all N! orders; N <= 8.

    ARDM, arXiv 2110.02037: one token at a time, in uniformly random order.
    """
    length = _short_enough(tokens.shape[1], _LONGEST_ORDERED)
    orders = torch.tensor(list(itertools.permutations(range(length))), device=tokens.device)
    members = 1 << orders
    still_hidden = (
        members.flip(1).cumsum(1).flip(1)
    )  # the mask, as a bit set, when each token of the order is predicted
    return subset_losses(denoiser, tokens)[:, still_hidden, orders].sum(2).mean(1)


def bound_by_counts(denoiser: Denoiser, tokens: Tensor) -> Tensor:
    """The bound of tokens int64 [B, N] in form (c), nats per sequence, float64 [B]; N <= 16.

    ARDM, arXiv 2110.02037; `corruption.exact_count` draws from this mean.
    """
    counts = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    return tokens.shape[1] * (losses_by_count(denoiser, tokens) / counts).mean(1)


def continuous_bound(
    denoiser: Denoiser,
    tokens: Tensor,
    schedule: Schedule,
    *,
    quadrature: Quadrature | None = None,
    ends: bool = False,
) -> Tensor:
    """MD4's bound of tokens int64 [B, N], E_t[-alpha'(t) / (1 - alpha(t)) CE(M)], nats per sequence, float64 [B]; N <= 16.

    ``quadrature`` (default `gauss_legendre`) does the integral over time. With ``ends`` the two `end_terms` are added, so
    that schedules with different cut-offs compare. MD4, arXiv 2406.04329.
    """
    hidden, weight = (quadrature or gauss_legendre)(schedule)
    extra = sum(end_terms(schedule, tokens.shape[1], denoiser.vocab_size)) if ends else 0.0
    return _mixed_over_counts(denoiser, tokens, hidden, weight) + extra


def discrete_bound(denoiser: Denoiser, tokens: Tensor, schedule: Schedule, grid: Tensor) -> Tensor:
    """The bound of T ancestral steps for tokens int64 [B, N], nats per sequence, float64 [B]; N <= 16.

    ``grid`` float64 [T + 1] falls from 1 to 0 (`schedules.uniform_grid`, `cosine_grid`). The sum over steps t -> s of
    (alpha_s - alpha_t) / (1 - alpha_t) E[CE(M_t)], which is also the mean over public orders of the code length under
    `selectors.ancestral`. MD4, arXiv 2406.04329; `corruption.discrete_time` draws from it.
    """
    alpha = schedule.alpha(grid.double())
    hidden = 1 - alpha[:-1]
    return _mixed_over_counts(denoiser, tokens, hidden, alpha.diff() / hidden)


def end_terms(schedule: Schedule, length: int, vocab_size: int) -> tuple[float, float]:
    """What a cut-off leaves out of the bound, nats per sequence: reconstruction and prior.

    N (1 - alpha(0)) ln V for tokens masked at time 0, guessed uniformly, and N alpha(1) ln V for tokens still visible at
    time 1, against a uniform prior (MD4, arXiv 2406.04329).
    """
    start, end = schedule.alpha(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    return length * (1 - start) * math.log(vocab_size), length * end * math.log(vocab_size)


def gauss_legendre(schedule: Schedule, nodes: int = 64) -> tuple[Tensor, Tensor]:
    """Quadrature in u = 1 - alpha, where the integrand is a polynomial of degree N - 1: exact from N/2 nodes on.

    Since -alpha'(t) dt = du, only the end points of the schedule matter.
    """
    start, end = (1 - schedule.alpha(torch.tensor([0.0, 1.0], dtype=torch.float64))).tolist()
    points, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(whole(nodes, "nodes", 1)))
    hidden = start + (end - start) * (points + 1) / 2
    return hidden, weights * (end - start) / 2 / hidden


def midpoints(schedule: Schedule, count: int = 20000) -> tuple[Tensor, Tensor]:
    """Quadrature at the middles of ``count`` equal intervals of t, through the schedule's own weight."""
    count = whole(count, "count", 1)
    t = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return 1 - schedule.alpha(t), schedule.weight(t) / count


def losses_by_count(denoiser: Denoiser, tokens: Tensor) -> Tensor:
    """Mean of CE(M), nats, over the sets of n = 1..N masked positions of tokens int64 [B, N]: float64 [B, N]; N <= 16."""
    length = tokens.shape[1]
    sizes = _all_masks(length, _LONGEST).sum(1).to(tokens.device)
    sums = torch.zeros(len(tokens), length + 1, dtype=torch.float64, device=tokens.device)
    sums.index_add_(1, sizes, subset_losses(denoiser, tokens).sum(2))
    return sums[:, 1:] / torch.tensor(
        [math.comb(length, n) for n in range(1, length + 1)], device=tokens.device
    )


def subset_losses(denoiser: Denoiser, tokens: Tensor) -> Tensor:
    """-log p of every masked symbol under every mask, nats, float64 [B, 2^N, N]; 0 at visible positions.

    Entry m of the second axis masks the positions whose bits are set in m. ValueError for N > 16 or for symbols that are
    not data.
    """
    check_tokens(tokens, denoiser, masks=False)
    hidden = _all_masks(tokens.shape[1], _LONGEST).to(tokens.device)
    rows = tokens[:, None].expand(-1, len(hidden), -1).flatten(0, 1)
    masks = hidden.repeat(len(tokens), 1)
    parts = [
        cross_entropies(denoiser, *part)
        for part in zip(torch.split(rows, _CHUNK), torch.split(masks, _CHUNK))
    ]
    return torch.cat(parts).view(len(tokens), len(hidden), -1)


def _mixed_over_counts(denoiser: Denoiser, tokens: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    """Sum over levels [Q] of weight times E[CE(M)] when each position is masked with that level's probability; [B]."""
    length = tokens.shape[1]
    n = torch.arange(1, length + 1)
    ways = torch.tensor([math.comb(length, k) for k in n.tolist()], dtype=torch.float64)
    binomial = ways * hidden.cpu()[:, None] ** n * (1 - hidden.cpu()[:, None]) ** (length - n)
    return losses_by_count(denoiser, tokens) @ (weight.cpu() @ binomial).to(tokens.device)


def _all_masks(length: int, longest: int) -> Tensor:
    """bool [2^N, N]: bit i of the row number says whether position i is masked."""
    numbers = torch.arange(2 ** _short_enough(length, longest))[:, None]
    return numbers >> torch.arange(length) & 1 == 1


def _short_enough(length: int, longest: int) -> int:
    if not 1 <= length <= longest:
        raise ValueError(
            f"length {length}: expected 1..{longest}, since all masks are visited; use unmask.nelbo"
        )
    return length
