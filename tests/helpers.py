"""Small things that several test files need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from unmask import laws
from unmask.base.types import Denoiser
from unmask.laws import Law

CHAIN = [[0.7, 0.2, 0.1], [0.05, 0.15, 0.8], [0.5, 0.1, 0.4]]

SMALL_LAWS: dict[str, Callable[[], Law]] = {
    "table": lambda: laws.Table(_spiky(81), 4),
    "support": lambda: laws.Support(
        torch.tensor([[0, 1, 2, 0], [0, 1, 1, 2], [2, 2, 2, 2], [1, 1, 0, 0]]), 3
    ),
    "hamming": laws.Hamming74,
    "markov": lambda: laws.Markov([0.2, 0.5, 0.3], CHAIN, 4),
    "hmm": lambda: laws.HMM([0.9, 0.1], [[0.7, 0.3], [0.2, 0.8]], [[0.6, 0.4, 0.0], [0.0, 0.3, 0.7]], 4),
    "tree": lambda: laws.TreeIsing([-1, 0, 0, 1, -1], [0, 0.6, -1.1, 0.3, 0], [0.2, 0, -0.4, 0.1, 0.5]),
    "permutation": lambda: laws.Permutation(3),
    "one-hot": lambda: laws.OneHot(5),
    "balanced": lambda: laws.Balanced(5, 2),
    "polya": lambda: laws.Polya([0.4, 2.0, 0.7], 3),
    "mixture": lambda: laws.Mixture([0.2, 0.5, 0.3], [[0.5, 0.5, 0], [0, 0.3, 0.7], [0, 0, 1]], 4),
    "noisy repetition": lambda: laws.NoisyRepetition(5, 0.1),
    "curie-weiss": lambda: laws.CurieWeiss(5, 1.3),
    "parity": lambda: laws.Parity(4, 3),
    "repetition": lambda: laws.Repetition(4, 3),
    "reed-solomon": lambda: laws.ReedSolomon(3, 2, 5),
    "latent parity": lambda: laws.LatentParity(3, 2),
}
"""One of every law in the catalogue that can be listed."""


def _spiky(size: int) -> Tensor:
    """Log-probabilities of a table with very unequal entries, a few of them zero."""
    probs = np.random.default_rng(3).dirichlet([0.3] * size)
    probs[[4, 5, 40, 60, 61, 62]] = 0
    return torch.tensor(probs / probs.sum()).log()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def every_sequence(law: Denoiser, length: int) -> Tensor:
    """int64 [V^N, N], in the order that `laws.Table` uses."""
    return torch.cartesian_prod(*[torch.arange(law.vocab_size)] * length).view(-1, length)


def place_of(tokens: Tensor, vocab_size: int) -> Tensor:
    """Where tokens [B, N] stand in `every_sequence`."""
    return (tokens * vocab_size ** torch.arange(tokens.shape[1] - 1, -1, -1)).sum(1)


def hidden(rows: int, law: Law) -> Tensor:
    """Tokens [rows, N], all masked."""
    return torch.full((rows, law.length), law.mask_id)


def chi_square_z(counts: Tensor, probs: Tensor) -> float:
    """Standard score of a chi-square test; cells expected below five are pooled, impossible ones must be empty."""
    counts, expected = counts.double(), probs.double() / probs.sum() * counts.sum()
    assert counts[probs == 0].sum() == 0, "something impossible was drawn"
    order = expected.argsort()
    rare = expected[order].cumsum(0) < 5
    cells = torch.where(rare, 0, 1 + (~rare).cumsum(0) - 1)
    pooled = torch.zeros(2, int(cells.max()) + 1, dtype=torch.float64)
    pooled.index_add_(1, cells, torch.stack([counts, expected])[:, order])
    got, wanted = pooled[:, pooled[1] > 0]
    if len(wanted) < 2:
        return 0.0
    statistic = float(((got - wanted) ** 2 / wanted).sum())
    return float(stats.norm.isf(stats.chi2.sf(statistic, len(wanted) - 1)))


class Toy:
    """A denoiser of three symbols without random numbers, for reference values."""

    vocab_size = mask_id = 3

    def __call__(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        place = torch.arange(1, tokens.shape[1] + 1, dtype=torch.float64)
        seen = (place * tokens).sum(1)[:, None, None]
        log_probs = (2 * torch.sin(place[:, None] * torch.arange(2, 5) + seen)).log_softmax(-1)
        return log_probs if rows is None else log_probs.gather(1, rows[..., None].expand(-1, -1, 3))

    def full(self, tokens, rows=None, *, time=None):
        return self(tokens, rows, time=time), None

    def partial(self, tokens, rows, cache, *, time=None):
        return self(tokens, rows, time=time)


@dataclass
class Recording:
    """A denoiser that notes what it was asked: tokens, rows and time of every call."""

    base: Denoiser
    calls: list[tuple[str, Tensor, Tensor | None, Tensor | None]] = field(default_factory=list)

    @property
    def mask_id(self) -> int:
        return self.base.mask_id

    @property
    def vocab_size(self) -> int:
        return self.base.vocab_size

    def __call__(self, tokens, rows=None, *, time=None):
        self.calls.append(("call", tokens.clone(), rows, time))
        return self.base(tokens, rows, time=time)

    def full(self, tokens, rows=None, *, time=None):
        self.calls.append(("full", tokens.clone(), rows, time))
        return self.base.full(tokens, rows, time=time)

    def partial(self, tokens, rows, cache, *, time=None):
        self.calls.append(("partial", tokens.clone(), rows, time))
        return self.base.partial(tokens, rows, cache, time=time)
