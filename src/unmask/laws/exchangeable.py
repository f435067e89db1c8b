"""Laws that do not care about positions: only the counts of the visible symbols matter."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import entr, gammaln, logsumexp, psi, softmax, xlogy
from torch import Tensor

from unmask.base.numbers import real, whole
from unmask.laws.base import (
    Array,
    Law,
    as_floats,
    as_probabilities,
    count_symbols,
    draw_symbols,
    flat_log_prob,
    forbid,
    random_ranks,
)
from unmask.laws.between import at_every

_MOST_COUNT_VECTORS = 2_000_000


_MOST_TERMS = 2**25
"""Positions times components (or colours) of a profile that is summed over counts; about a minute."""


class Permutation(Law):
    """A uniform permutation of n symbols, ln n! nats: length n, vocabulary n, each symbol once.

    Conditionals are uniform over the unused symbols.
    """

    positional = False

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

    positional = False

    def __init__(self, n: int, ones: int) -> None:
        super().__init__(n, 2)
        self.ones = whole(ones, "ones", 0)
        if self.ones > self.length:
            raise ValueError(f"got {ones} ones in {n} bits, expected {n} at most; lower ones or raise n")

    def entropies(self) -> Array:
        """The entropy profile, nats: the binary entropy of the conditional under hypergeometric counts.

        O(n): evaluated at a few numbers of hidden bits, and interpolated within 1e-11 between them.
        """
        sides = [_hidden_term(self.length, size) for size in (self.ones, self.length - self.ones) if size]
        return at_every(lambda m: sum(side(m) for side in sides), 1, self.length)[::-1].copy()

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

    positional = False

    def __init__(self, alpha: object, length: int) -> None:
        weights = as_floats("alpha", alpha, (None,))
        super().__init__(length, len(weights))
        if bool((weights <= 0).any()):
            raise ValueError(f"got alpha down to {float(weights.min()):g}, expected > 0; raise it")
        if not bool(weights.sum().isfinite()):
            raise ValueError(
                "got alpha whose sum is infinite, expected a finite sum; divide it by a constant"
            )
        self.alpha = weights

    def entropies(self) -> Array:
        """The entropy profile, nats, from beta-binomial counts; with r(x) = psi(x + 1) - ln x and A = sum alpha

        h(i) = sum_v alpha_v / A (psi(A + 1) - psi(alpha_v + 1) + E r(alpha_v + c_v)) - r(A + i), where c_v counts v among
        i draws of the urn that v was put into once more (derived). O(n) for each distinct alpha: the means are
        interpolated within 1e-11. ValueError for more than 2^25 positions times distinct alphas.
        """
        alpha = self.alpha.numpy()
        values, first, repeats = np.unique(alpha, return_index=True, return_counts=True)
        if len(values) * self.length > _MOST_TERMS:
            raise ValueError(
                f"got {self.length} positions and {len(values)} different alphas, expected a product of 2^25 at most; "
                "use a shorter law"
            )
        total = alpha.sum()
        profile = -_digamma_excess(total + np.arange(self.length))
        for a, place, count in zip(values, first, repeats):
            mean = _mean_excess(float(a), float(np.delete(alpha, place).sum()), self.length)
            profile += count * a / total * (psi(total + 1) - psi(a + 1) + at_every(mean, 0, self.length - 1))
        return np.asarray(np.maximum(profile, 0.0), dtype=np.float64)

    def _log_weights(self, tokens: Tensor) -> Tensor:
        return (self.alpha + count_symbols(tokens, self.vocab_size)).log().unsqueeze(1)

    def _log_prob(self, tokens: Tensor) -> Tensor:
        counts = count_symbols(tokens, self.vocab_size).numpy()
        alpha = self.alpha.numpy()
        whole_urn = _log_rising(float(alpha.sum()), np.array(float(self.length)))
        return torch.from_numpy(_log_rising(alpha, counts).sum(1) - whole_urn)

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

    positional = False

    def __init__(self, weights: object, probs: object, length: int) -> None:
        self.weights = as_probabilities("weights", weights, (None,))
        self.probs = as_probabilities("probs", probs, (len(self.weights), None))
        super().__init__(length, self.probs.shape[1])

    def entropies(self) -> Array:
        """The entropy profile, nats: expected entropy of the predictive law over all vectors of counts.

        Two symbols: interpolated within 1e-11 between a few i; ValueError above 2^25 positions times components. More
        symbols: visits C(L + V - 1, V) vectors; ValueError above two million.
        """
        if self.vocab_size == 2 and self.length * len(self.weights) <= _MOST_TERMS:
            return at_every(lambda i: self._entropy(_count_vectors(i, 2)), 0, self.length - 1)
        visits = math.comb(self.length + self.vocab_size - 1, self.vocab_size)
        if visits > _MOST_COUNT_VECTORS:
            raise ValueError(
                f"got about 2^{visits.bit_length() - 1} vectors of counts, expected {_MOST_COUNT_VECTORS} at most; "
                "use a shorter law, or estimate_entropies(law, samples, generator)"
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
    flip = real(flip, "flip", 0, 1)
    return Mixture([0.5, 0.5], [[1 - flip, flip], [flip, 1 - flip]], n)


def _hidden_term(n: int, size: int) -> Callable[[int], float]:
    """E[-p ln p], nats, as a function of m hidden bits; p = k/m, k of the ``size`` bits of a kind are hidden.

    By size bias E[p f(k)] = size/n E f(1 + k'), k' hypergeometric with one bit of the kind less (derived). Counts further
    than 6 sqrt(m) from the mean have probability below e^-72 and are left out (Hoeffding).
    """
    log_factorial = gammaln(np.arange(n + 1) + 1.0)

    def term(m: int) -> float:
        others = n - m  # visible
        reach = 6 * math.sqrt(min(m, others) + 1)
        mean = (m - 1) * (size - 1) / max(n - 1, 1)
        low = max(0, size - 1 - others, math.ceil(mean - reach))
        high = min(m - 1, size - 1, math.floor(mean + reach))
        k = np.arange(low, high + 1)
        ways = log_factorial[k] + log_factorial[m - 1 - k]
        ways += log_factorial[size - 1 - k] + log_factorial[others - size + 1 + k]
        return float(-size / n * (softmax(-ways) @ np.log((1 + k) / m)))

    return term


def _mean_excess(a: float, rest: float, length: int) -> Callable[[int], float]:
    """E r(a + c), nats, as a function of i: c counts a colour among i draws of an urn of a + 1 and ``rest``."""
    count = np.arange(length, dtype=np.float64)
    own = _log_rising(a + 1, count) - gammaln(count + 1)
    other = _log_rising(rest, count) - gammaln(count + 1)
    excess = _digamma_excess(a + count)
    return lambda i: float(softmax(own[: i + 1] + other[i::-1]) @ excess[: i + 1])


def _digamma_excess(x: Array) -> Array:
    """r(x) = psi(x + 1) - ln x > 0, about 1/(2x)."""
    series = 1 / (2 * x) - 1 / (12 * x**2) + 1 / (120 * x**4) - 1 / (252 * x**6)
    return np.asarray(np.where(x > 1e3, series, psi(x + 1) - np.log(x)), dtype=np.float64)


def _log_rising(start: Array | float, count: Array) -> Array:
    """ln of start (start + 1) .. (start + count - 1), nats, broadcast; by Stirling's series where start is large."""
    start = np.asarray(start, dtype=np.float64)
    end = start + count
    exact = gammaln(end) - gammaln(start)
    series = (start - 0.5) * np.log1p(count / start) + count * (np.log(end) - 1)
    series += _stirling(end) - _stirling(start)
    return np.asarray(np.where(start < 32, exact, series), dtype=np.float64)


def _stirling(x: Array) -> Array:
    """What Stirling's formula lacks of ln Gamma(x), for x of 32 and more."""
    y = np.maximum(x, 32.0)
    return np.asarray(
        1 / (12 * y) - 1 / (360 * y**3) + 1 / (1260 * y**5) - 1 / (1680 * y**7), dtype=np.float64
    )


def _count_vectors(total: int, symbols: int) -> npt.NDArray[np.int64]:
    """All vectors of ``symbols`` counts that sum to total, int64 [k, symbols]."""
    if symbols == 2:
        ones = np.arange(total + 1)
        return np.stack([total - ones, ones], 1)
    parts = [
        np.insert(_count_vectors(total - first, symbols - 1), 0, first, axis=1) for first in range(total + 1)
    ]
    return np.concatenate(parts)
