"""Laws that do not care about positions: only the counts of the visible symbols matter."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import betaln, entr, gammaln, logsumexp, softmax, xlogy
from torch import Tensor

from unmask.laws.base import (
    Array,
    Law,
    as_floats,
    as_probabilities,
    at_least,
    count_symbols,
    draw_symbols,
    flat_log_prob,
    forbid,
    random_ranks,
)

_MOST_COUNT_VECTORS = 2_000_000


class Permutation(Law):
    """A uniform permutation of n symbols, ln n! nats: length n, vocabulary n, each symbol once.

    Conditionals are uniform over the unused symbols.
    """

    def __init__(self, n: int) -> None:
        super().__init__(n, n)

    def entropies(self) -> Array:
        """The entropy profile, nats: h(i) = ln(n - i)."""
        return np.log(np.arange(self.length, 0, -1, dtype=np.float64))

    def _log_weights(self, tokens: Tensor) -> Tensor:
        counts = count_symbols(tokens, self.vocab_size)
        unused = (counts == 0).double().log().unsqueeze(1)
        return forbid(unused, (counts > 1).any(1))

    def _log_prob(self, tokens: Tensor) -> Tensor:
        valid = (count_symbols(tokens, self.vocab_size) == 1).all(1)
        return flat_log_prob(valid, math.lgamma(self.length + 1))

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        return random_ranks(n, self.length, generator)


class Balanced(Law):
    """Uniform bits of length n with exactly ``ones`` ones, ln C(n, ones) nats.

    With c ones among i visible bits, a hidden bit is 1 with probability (ones - c) / (n - i).
    """

    def __init__(self, n: int, ones: int) -> None:
        super().__init__(n, 2)
        self.ones = at_least("ones", ones, 0)
        if ones > n:
            raise ValueError(f"got {ones} ones in {n} bits, expected {n} at most; lower ones or raise n")

    def entropies(self) -> Array:
        """The entropy profile, nats: the binary entropy of the conditional under hypergeometric counts."""
        return _bit_entropies(np.eye(self.length + 1)[self.ones])

    def _log_weights(self, tokens: Tensor) -> Tensor:
        totals = torch.tensor([self.length - self.ones, self.ones])
        left = totals - count_symbols(tokens, 2)
        return forbid(left.clamp(min=0).double().log().unsqueeze(1), (left < 0).any(1))

    def _log_prob(self, tokens: Tensor) -> Tensor:
        size = math.log(math.comb(self.length, self.ones))
        return flat_log_prob(tokens.sum(1) == self.ones, size)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        return (random_ranks(n, self.length, generator) < self.ones).long()


def OneHot(n: int) -> Balanced:
    """Bits of length n with a single one at a uniform place, ln n nats: ``Balanced(n, 1)``."""
    return Balanced(n, 1)


class Polya(Law):
    """The Polya urn, nats: symbols drawn with weights alpha_v + (times v was seen); alpha positive, [V].

    A Dirichlet(alpha) mixture of iid sequences. Raises ValueError unless every alpha is positive.
    """

    def __init__(self, alpha: object, length: int) -> None:
        weights = as_floats("alpha", alpha, (None,))
        super().__init__(length, len(weights))
        if bool((weights <= 0).any()):
            raise ValueError(f"got alpha down to {float(weights.min()):g}, expected > 0; raise it")
        self.alpha = weights

    def entropies(self) -> Array:
        """The entropy profile, nats: each symbol against the rest under its beta-binomial count."""
        values, repeats = np.unique(self.alpha.numpy(), return_counts=True)
        total = float(self.alpha.sum())
        terms = [_ones_term(_beta_binomial(self.length, a, total - a)) for a in values]
        return np.asarray(repeats @ np.stack(terms), dtype=np.float64)

    def _log_weights(self, tokens: Tensor) -> Tensor:
        return (self.alpha + count_symbols(tokens, self.vocab_size)).log().unsqueeze(1)

    def _log_prob(self, tokens: Tensor) -> Tensor:
        counts = count_symbols(tokens, self.vocab_size)
        total = self.alpha.sum()
        rising = ((self.alpha + counts).lgamma() - self.alpha.lgamma()).sum(1)
        return rising - ((total + self.length).lgamma() - total.lgamma())

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        weights = self.alpha.repeat(n, 1)
        drawn = []
        for _ in range(self.length):
            symbols = draw_symbols(weights, 1, generator)
            weights = weights.scatter_add(1, symbols, torch.ones_like(symbols, dtype=torch.float64))
            drawn.append(symbols)
        return torch.cat(drawn, 1)


class Mixture(Law):
    """A mixture of m iid laws, nats: ``weights`` [m], ``probs`` [m, V] (rows sum to one within 1e-9).

    Conditionals average the components under their posterior, which depends on the visible counts only.
    """

    def __init__(self, weights: object, probs: object, length: int) -> None:
        self.weights = as_probabilities("weights", weights, (None,))
        self.probs = as_probabilities("probs", probs, (len(self.weights), None))
        super().__init__(length, self.probs.shape[1])

    def entropies(self) -> Array:
        """The entropy profile, nats: expected entropy of the predictive law over all vectors of counts.

        Visits C(L + V - 1, V) vectors; ValueError above two million.
        """
        visits = math.comb(self.length + self.vocab_size - 1, self.vocab_size)
        if visits > _MOST_COUNT_VECTORS:
            raise ValueError(
                f"got about 2^{visits.bit_length() - 1} vectors of counts, "
                f"expected {_MOST_COUNT_VECTORS} at most; use estimate_entropies(law, samples, generator)"
            )
        return np.array([self._entropy(_count_vectors(i, self.vocab_size)) for i in range(self.length)])

    def _entropy(self, counts: npt.NDArray[np.int64]) -> float:
        repeats = gammaln(counts.sum(1) + 1) - gammaln(counts + 1).sum(1)
        components = np.stack([xlogy(counts, row).sum(1) for row in self.probs.numpy()], 1)
        joint = self.weights.log().numpy() + components
        evidence = logsumexp(joint, axis=1)
        possible = evidence > -np.inf
        predictive = np.exp(joint[possible] - evidence[possible, None]) @ self.probs.numpy()
        return float(softmax((repeats + evidence)[possible]) @ entr(predictive).sum(1))

    def _log_components(self, tokens: Tensor) -> Tensor:
        """Log joint probability of the visible tokens and the component, nats [B, m]."""
        counts = count_symbols(tokens, self.vocab_size).double()
        return self.weights.log() + torch.xlogy(counts.unsqueeze(1), self.probs).sum(-1)

    def _log_weights(self, tokens: Tensor) -> Tensor:
        joint = self._log_components(tokens).unsqueeze(-1) + self.probs.log()
        return joint.logsumexp(1, keepdim=True)

    def _log_prob(self, tokens: Tensor) -> Tensor:
        return self._log_components(tokens).logsumexp(1)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        component = draw_symbols(self.weights.unsqueeze(0), n, generator)[0]
        return draw_symbols(self.probs[component], self.length, generator)


def NoisyRepetition(n: int, flip: float) -> Mixture:
    """n copies of a fair bit, each flipped with probability ``flip``; a two-component `Mixture`, nats."""
    return Mixture([0.5, 0.5], [[1 - flip, flip], [flip, 1 - flip]], n)


class CurieWeiss(Law):
    """The Curie-Weiss magnet, nats: n spins (bit 0 is -1, bit 1 is +1), P ~ exp(coupling m^2 / (2 n)).

    m is the sum of the spins. A hidden bit sums over the number of ones among the other hidden bits.
    """

    def __init__(self, n: int, coupling: float) -> None:
        super().__init__(n, 2)
        self.coupling = float(as_floats("coupling", coupling, ()))
        ones = torch.arange(n + 1, dtype=torch.float64)
        self._energy = self.coupling * (2 * ones - n) ** 2 / (2 * n)
        log_counts = _log_binomial(torch.tensor(float(n), dtype=torch.float64), ones) + self._energy
        self._log_partition = log_counts.logsumexp(0)
        self._count_probs = log_counts.softmax(0)

    def entropies(self) -> Array:
        """The entropy profile, nats: the binary entropy of the conditional, averaged over visible counts."""
        return _bit_entropies(self._count_probs.numpy())

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


def _beta_binomial(n: int, a: float, b: float) -> Array:
    """Probabilities [n + 1] of the number of ones among n draws from a two-colour urn."""
    ones = np.arange(n + 1)
    choose = gammaln(n + 1) - gammaln(ones + 1) - gammaln(n - ones + 1)
    return np.asarray(softmax(choose + betaln(a + ones, b + n - ones)), dtype=np.float64)


def _bit_entropies(count_probs: Array) -> Array:
    """Entropy profile, nats [n], of exchangeable bits from the law [n + 1] of their number of ones."""
    return _ones_term(count_probs) + _ones_term(count_probs[::-1])


def _ones_term(count_probs: Array) -> Array:
    """E[-p ln p], nats [n], p the predictive probability of a one after i bits, from the law of all ones.

    Hiding one of i + 1 bits thins the count: P_i(c) = P_{i+1}(c) (i+1-c)/(i+1) + P_{i+1}(c+1) (c+1)/(i+1),
    and p is the second part's share. Every term is positive, so nothing cancels (derived).
    """
    values = np.zeros(len(count_probs) - 1)
    law = count_probs
    for i in reversed(range(len(values))):
        count = np.arange(i + 1)
        zero, one = law[:-1] * (i + 1 - count) / (i + 1), law[1:] * (count + 1) / (i + 1)
        law = zero + one
        seen = law > 0
        values[i] = law[seen] @ entr(one[seen] / law[seen])
    return values


def _count_vectors(total: int, symbols: int) -> npt.NDArray[np.int64]:
    """All vectors of ``symbols`` counts that sum to total, int64 [k, symbols]."""
    if symbols == 2:
        ones = np.arange(total + 1)
        return np.stack([total - ones, ones], 1)
    parts = [
        np.insert(_count_vectors(total - first, symbols - 1), 0, first, axis=1) for first in range(total + 1)
    ]
    return np.concatenate(parts)
