"""Codes: laws where tokens are free until they are determined. Entropies are whole numbers of ln q nats."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from unmask.base.numbers import whole
from unmask.laws.base import LARGEST, Array, Law, flat_log_prob, forbid, point_masses

_LARGEST_FIELD = 2**20
"""Elements of a field whose inverses are listed."""

_MOST_FACTORS = 2**24
"""Length times dimension of a code whose words are interpolated: 128 MiB of factors a word."""


class Code(Law):
    """The uniform law on a code where any ``dimension`` symbols are free and fix the rest, uniform, in nats.

    ``extend`` maps tokens int64 [B, L] to the code words int64 [B, L] through the first ``dimension`` visible
    symbols; what it says of rows with fewer visible symbols is ignored. (Maximum distance separable codes.)
    """

    def __init__(self, length: int, dimension: int, vocab: int, extend: Callable[[Tensor], Tensor]) -> None:
        super().__init__(length, vocab)
        self.dimension = whole(dimension, "dimension", 1, self.length)
        self._extend = extend

    def entropies(self) -> Array:
        """The entropy profile, nats: ln q while fewer than ``dimension`` symbols are visible, then 0."""
        return np.where(np.arange(self.length) < self.dimension, math.log(self.vocab_size), 0.0)

    def _log_weights(self, tokens: Tensor) -> Tensor:
        word, visible = self._extend(tokens), tokens != self.mask_id
        decided = visible.sum(1) >= self.dimension
        clash = ((word != tokens) & visible).any(1)
        weights = point_masses(word, self.vocab_size)
        return forbid(torch.where(decided[:, None, None], weights, 0.0), decided & clash)

    def _log_prob(self, tokens: Tensor) -> Tensor:
        inside = (self._extend(tokens) == tokens).all(1)
        return flat_log_prob(inside, self.dimension * math.log(self.vocab_size))

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        tokens = torch.full((n, self.length), self.mask_id)
        free = (n, self.dimension)
        tokens[:, : self.dimension] = torch.randint(self.vocab_size, free, generator=generator)
        return self._extend(tokens)


def Parity(n: int, q: int) -> Code:
    """n symbols of 0..q-1 whose sum is 0 modulo q, uniform, (n - 1) ln q nats; n >= 2, any q >= 2."""
    n, q = whole(n, "n", 2, LARGEST), whole(q, "q", 2, LARGEST)

    def extend(tokens: Tensor) -> Tensor:
        masked = tokens == q
        last = torch.where(masked.any(1), masked.int().argmax(1), n - 1).unsqueeze(1)
        word = tokens.masked_fill(masked, 0).scatter(1, last, 0)
        return word.scatter(1, last, -word.sum(1, keepdim=True) % q)

    return Code(n, n - 1, q, extend)


def Repetition(n: int, q: int) -> Code:
    """n copies of one uniform symbol of 0..q-1, ln q nats."""
    n, q = whole(n, "n", 1, LARGEST), whole(q, "q", 2, LARGEST)

    def extend(tokens: Tensor) -> Tensor:
        first = (tokens != q).int().argmax(1, keepdim=True)
        return tokens.gather(1, first).expand(-1, n)

    return Code(n, 1, q, extend)


def ReedSolomon(n: int, k: int, q: int) -> Code:
    """Values at 0..n-1 of a uniform polynomial of degree below k modulo a prime q; k ln q nats.

    Raises ValueError unless q is prime, at most 2^20, and 1 <= k <= n <= q; words need n k <= 2^24.
    """
    n, k, q = whole(n, "n", 1), whole(k, "k", 1), whole(q, "q", 2, _LARGEST_FIELD)
    if not _is_prime(q):
        raise ValueError(f"got q = {q}, expected a prime; the next one is {_next_prime(q)}")
    if not k <= n <= q:
        raise ValueError(f"got n = {n}, k = {k}, q = {q}, expected k <= n <= q; raise q or lower n")
    inverse = torch.tensor([pow(a, q - 2, q) for a in range(q)])

    def extend(tokens: Tensor) -> Tensor:
        if n * k > _MOST_FACTORS:
            raise ValueError(f"got n = {n}, k = {k}, expected n k of 2^24 at most; use a shorter code")
        parts = [_part(part) for part in torch.split(tokens, max(1, _MOST_FACTORS // (n * k)))]
        return torch.cat(parts)

    def _part(tokens: Tensor) -> Tensor:
        nodes = (tokens == q).int().argsort(dim=1, stable=True)[:, :k]
        return _interpolated(nodes, tokens.gather(1, nodes), torch.arange(n), inverse)

    return Code(n, k, q, extend)


def _interpolated(nodes: Tensor, values: Tensor, points: Tensor, inverse: Tensor) -> Tensor:
    """Values [B, L] at points of the polynomial through nodes and values [B, k], modulo q (Lagrange)."""
    q = len(inverse)
    gaps = (nodes.unsqueeze(2) - nodes.unsqueeze(1)) % q
    gaps.diagonal(dim1=1, dim2=2).fill_(1)
    weights = values * inverse[_product(gaps, q)] % q
    steps = (points[None, :, None] - nodes.unsqueeze(1)) % q
    word = _product(steps, q) * (weights.unsqueeze(1) * inverse[steps] % q).sum(2) % q
    return word.scatter(1, nodes, values)  # at a node the formula divides by zero


def _product(factors: Tensor, q: int) -> Tensor:
    """Product over the last dimension modulo q, without overflow."""
    result = torch.ones_like(factors[..., 0])
    for factor in factors.unbind(-1):
        result = result * factor % q
    return result


def _is_prime(q: int) -> bool:
    return q >= 2 and all(q % d for d in range(2, math.isqrt(q) + 1))


def _next_prime(q: int) -> int:
    while not _is_prime(q):
        q += 1
    return q


class LatentParity(Law):
    """n0 copies of a bit b, then n1 fair bits whose XOR is b; n1 ln 2 nats.

    A copy is unknown while no other copy and not all n1 bits are visible; a bit is known only from the n1 - 1
    others and a copy. Total and dual total correlation grow with the length, yet few steps are enough.
    """

    def __init__(self, n0: int, n1: int) -> None:
        self.n0, self.n1 = whole(n0, "n0", 1), whole(n1, "n1", 1)
        super().__init__(self.n0 + self.n1, 2)
        self._parity = Parity(self.n1 + 1, 2)

    def entropies(self) -> Array:
        """The entropy profile, nats, in closed form from two hypergeometric probabilities (derived)."""
        n, others = self.length, self.length - 1
        draws = np.arange(others)
        # shown[i]: all i visible are bits. hidden[u]: all u hidden others are copies.
        shown = np.cumprod(np.append(1.0, np.maximum(self.n1 - draws, 0) / (others - draws)))
        hidden = np.cumprod(np.append(1.0, np.maximum(self.n0 - draws, 0) / (others - draws)))
        visible = np.arange(n)
        copy_free = np.where(visible < self.n1, shown, 0.0)
        bit_free = 1 - np.where(others - visible < self.n0, hidden[::-1], 0.0)
        return np.asarray(math.log(2) / n * (self.n0 * copy_free + self.n1 * bit_free), dtype=np.float64)

    def _reduced(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The n1 bits and one copy, int64 [B, n1 + 1], and where visible copies clash, bool [B]."""
        copies, bits = tokens[:, : self.n0], tokens[:, self.n0 :]
        zero, one = (copies == 0).any(1), (copies == 1).any(1)
        copy = torch.where(one, 1, torch.where(zero, 0, self.mask_id))
        return torch.cat([bits, copy.unsqueeze(1)], 1), zero & one

    def _log_weights(self, tokens: Tensor) -> Tensor:
        reduced, clash = self._reduced(tokens)
        weights = self._parity._log_weights(reduced)
        known = (reduced < self.mask_id).unsqueeze(-1)  # one visible copy pins the hidden ones
        weights = weights + torch.where(known, point_masses(reduced, 2), 0.0)
        bits, copy = weights[:, : self.n1], weights[:, self.n1 :]
        return forbid(torch.cat([copy.expand(-1, self.n0, -1), bits], 1), clash)

    def _log_prob(self, tokens: Tensor) -> Tensor:
        reduced, clash = self._reduced(tokens)
        return self._parity._log_prob(reduced).masked_fill(clash, -torch.inf)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        bits = torch.randint(2, (n, self.n1), generator=generator)
        copies = (bits.sum(1, keepdim=True) % 2).expand(-1, self.n0)
        return torch.cat([copies, bits], 1)
