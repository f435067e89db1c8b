"""What does a magnet know? The Curie-Weiss law and its profile, in nats."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.special import entr
from torch import Tensor

from unmask.base.numbers import real
from unmask.laws.base import Array, Law, count_symbols, draw_symbols, random_ranks

_LONGEST_MAGNET = 2**17
"""Spins of a magnet whose profile is thinned spin by spin; about a minute near coupling 1."""


class CurieWeiss(Law):
    """The Curie-Weiss magnet, nats: n spins (bit 0 is -1, bit 1 is +1), P ~ exp(coupling m^2 / (2 n)).

    m is the sum of the spins. A hidden bit sums over the number of ones among the other hidden bits.
    """

    positional = False

    def __init__(self, n: int, coupling: float) -> None:
        super().__init__(n, 2)
        self.coupling = real(coupling, "coupling")
        if not math.isfinite(self.coupling * self.length):
            raise ValueError(
                f"got coupling {coupling}, too large or infinite, expected a finite energy; lower it"
            )
        ones = torch.arange(self.length + 1, dtype=torch.float64)
        # m^2 = n^2 - 4 ones (n - ones): the constant is left out, so that large couplings lose no digits.
        self._energy = -2 * self.coupling * (ones / self.length * (self.length - ones))
        log_counts = _log_binomial(torch.tensor(float(self.length), dtype=torch.float64), ones) + self._energy
        self._log_partition = log_counts.logsumexp(0)
        self._count_probs = log_counts.softmax(0)

    def entropies(self) -> Array:
        """The entropy profile, nats: the binary entropy of the conditional, averaged over visible counts.

        Bits are hidden one by one, over the counts that have probability: O(n) to O(n^2). ValueError above 2^17 spins.
        """
        if self.length > _LONGEST_MAGNET:
            raise ValueError(
                f"got {self.length} spins, expected {_LONGEST_MAGNET} at most; "
                "use profiles.resampled of the profile of fewer spins, which is not exact"
            )
        return _magnet_entropies(self._count_probs.numpy())

    def _log_weights(self, tokens: Tensor) -> Tensor:
        counts = count_symbols(tokens, 2)
        others = (self.length - 1 - counts.sum(1, keepdim=True)).clamp(min=0)
        extra = torch.arange(self.length)
        ways = _log_binomial(others.double(), extra.double())
        ones = (counts[:, 1:] + extra).clamp(max=self.length - 1)
        terms = [ways + self._energy[ones + bit] for bit in (0, 1)]
        return torch.stack(terms, 1).logsumexp(-1).unsqueeze(1)

    def _log_prob(self, tokens: Tensor) -> Tensor:
        return self._energy[tokens.sum(1)] - self._log_partition

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        ones = draw_symbols(self._count_probs.unsqueeze(0), n, generator).T
        return (random_ranks(n, self.length, generator) < ones).long()


def _log_binomial(total: Tensor, chosen: Tensor) -> Tensor:
    """ln C(total, chosen), -inf where chosen > total."""
    left = total - chosen
    value = (total + 1).lgamma() - (chosen + 1).lgamma() - (left.clamp(min=0) + 1).lgamma()
    return torch.where(left < 0, -torch.inf, value)


def _magnet_entropies(count_probs: Array) -> Array:
    """Entropy profile, nats [n], of exchangeable bits from the symmetric law [n + 1] of their number of ones.

    Hiding one of k bits thins the count: P_{k-1}(c) = P_k(c) (k-c)/k + P_k(c+1) (c+1)/k, and the second part's share is
    the probability that the hidden bit is a one. Every term is positive, so nothing cancels (derived). Kept are counts c
    up to k/2, from ``low`` on, and of those the ones with probability above 1e-30.
    """
    n = len(count_probs) - 1
    values = np.zeros(n)
    low, law = 0, ((count_probs + count_probs[::-1]) / 2)[: n // 2 + 1]
    for k in range(n, 0, -1):
        if k % _TRIM == 0:
            low, law = _trimmed(low, law)
        whole_half = low + len(law) - 1 == k // 2
        above = [] if whole_half and k % 2 == 0 else [law[-1] if whole_half else 0.0]
        law = np.concatenate([[0.0] if low else [], law, above])
        low = max(low - 1, 0)
        count = np.arange(low, low + len(law) - 1)
        ones = law[1:] * ((count + 1) / k)
        law = law[:-1] * ((k - count) / k) + ones
        share = np.divide(ones, law, out=np.zeros_like(law), where=law > 0)
        terms = law * (entr(share) + entr(1 - share))
        mirrored = 2 * (low + len(law) - 1) == k - 1  # the middle count, which stands for itself only
        values[k - 1] = 2 * terms.sum() - (terms[-1] if mirrored else 0.0)
    return values


_TRIM = 64
"""Improbable counts are dropped once in so many steps."""


def _trimmed(low: int, law: Array) -> tuple[int, Array]:
    seen = np.flatnonzero(law > 1e-30)
    return low + int(seen[0]), law[seen[0] : seen[-1] + 1]
