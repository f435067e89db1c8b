"""Markov chains: exact conditionals and profiles of any length, in nats."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
import torch
from scipy.special import entr
from torch import Tensor
from torch.nn.functional import embedding

from unmask.laws.base import Array, Law, as_probabilities, draw_symbols, forbid


class Markov(Law):
    """A homogeneous Markov chain, nats: ``initial`` [V], ``transition`` [V, V] (row = from), any length.

    A conditional needs the nearest visible neighbours only: P^l(left, v) P^r(v, right), from a table of the
    powers of the transition matrix, built at the first call up to where they no longer change. An l-step probability
    below 1e-308 counts as zero. Raises ValueError unless rows are probabilities within 1e-9, and, at the first call,
    for a table of more than 2^24 numbers.
    """

    def __init__(self, initial: object, transition: object, length: int) -> None:
        self.initial = as_probabilities("initial", initial, (None,))
        vocab = len(self.initial)
        self.transition = as_probabilities("transition", transition, (vocab, vocab))
        super().__init__(length, vocab)

    @cached_property
    def _powers(self) -> Tensor:
        """P^l for l = 0..T, float64 [T + 1, V, V]; T = L - 1, or less if all later powers are equal within rounding."""
        powers = [torch.eye(self.vocab_size, dtype=torch.float64)]
        for length in range(1, self.length):
            powers.append(powers[-1] @ self.transition)
            if length % _MIXED == 0 and length & (length - 1) == 0 and _settled(powers):
                break
            if len(powers) * self.vocab_size**2 > _MOST_POWERS:
                raise ValueError(
                    f"got {self!r} that has not mixed after {length} steps, expected 2^24 numbers of its powers at most; "
                    "use a shorter law"
                )
        return torch.stack(powers)

    @cached_property
    def _marginals(self) -> Tensor:
        """The law of the symbol at each position, float64 [L, V]."""
        known = self.initial @ self._powers
        return known[torch.arange(self.length).clamp(max=len(known) - 1)]

    @cached_property
    def _forward(self) -> Tensor:
        """Log-laws given the left side: row l V + x for distance l to symbol x, then T + 1 marginals."""
        return torch.cat([self._powers.flatten(0, 1), self.initial @ self._powers]).log()

    @cached_property
    def _backward(self) -> Tensor:
        """Log-likelihoods of the right side: row r V + x for distance r to symbol x, then one of zeros."""
        columns = self._powers.transpose(1, 2).flatten(0, 1)
        return torch.cat([columns, torch.ones(1, self.vocab_size, dtype=torch.float64)]).log()

    def entropies(self) -> Array:
        """The entropy profile, nats, exact for any start: averages over the nearest visible neighbours.

        With e_l(x) = H(P^l(x, .)), H(X_n | X_a = x, X_b) = e_l(x) + (P^l e_r)(x) - e_{l+r}(x), where l and r
        are the distances to a < n < b. Sums over places are convolutions: O(L log L V) operations (derived).
        ValueError for more than 2^24 positions times symbols.
        """
        if self.length * self.vocab_size > _MOST_POWERS:
            raise ValueError(
                f"got {self!r}, expected length times symbols of 2^24 at most; use a shorter law"
            )
        others, steps = self.length - 1, self._steps()
        values = _spread(self._between(steps), 2, others) + _spread(self._beside(steps), 1, others)
        values[0] = entr(self._marginals.numpy()).sum()
        return np.asarray(np.maximum(values, 0.0) / self.length, dtype=np.float64)

    def _steps(self) -> Array:
        """e_l(x), nats, float64 [L, V] for l = 0..L-1."""
        known = np.stack([entr(power).sum(-1) for power in self._powers.numpy()])
        return known[np.minimum(np.arange(self.length), len(known) - 1)]

    def _between(self, steps: Array) -> Array:
        """Sum of H(X_n | X_a, X_b) over all a < n < b with m = b - a - 2 others between, nats; index m.

        With S_k the sum of the laws of the first k positions, the a that leave room for a gap g have sum S_{N-g}, and
        positions l further on S_{N-r} - S_l, r = g - l.
        """
        n = self.length
        sums = np.cumsum(np.concatenate([np.zeros((1, self.vocab_size)), self._marginals.numpy()]), 0)
        gap = np.arange(2, n)
        reach = np.cumsum(steps, 0)
        left = (sums[n - gap] * reach[gap - 1]).sum(1)
        right = (
            np.cumsum((sums[n - 1 : 0 : -1] * steps[1:]).sum(1))[gap - 2] - _convolved(sums[:n], steps)[gap]
        )
        whole_gap = (gap - 1) * (sums[n - gap] * steps[gap]).sum(1)
        return np.asarray(left + right - whole_gap, dtype=np.float64)

    def _beside(self, steps: Array) -> Array:
        """The same with the visible neighbour on one side only and m hidden others there, nats; index m."""
        marginals, n = self._marginals.numpy(), self.length
        reach, single, b = np.cumsum(steps, 0), entr(marginals).sum(-1), np.arange(1, n)
        after = (marginals[: n - 1] * reach[n - 1 : 0 : -1]).sum(1)
        before = np.cumsum(single)[b - 1] + _convolved(marginals, steps)[b] - b * single[b]
        return np.asarray(after[::-1] + before, dtype=np.float64)

    def _log_weights(self, tokens: Tensor) -> Tensor:
        visible = tokens != self.mask_id
        forward = embedding(self._left_index(tokens, visible), self._forward)
        backward = embedding(self._right_index(tokens, visible), self._backward)
        seen = forward.gather(-1, tokens.clamp(max=self.vocab_size - 1).unsqueeze(-1)).squeeze(-1)
        return forbid(forward + backward, (visible & (seen == -torch.inf)).any(1))

    def _left_index(self, tokens: Tensor, visible: Tensor) -> Tensor:
        place = torch.arange(self.length)
        nearest = torch.where(visible, place, -1).cummax(1).values.roll(1, 1)
        nearest[:, 0] = -1
        symbol = tokens.gather(1, nearest.clamp(min=0))
        last = len(self._powers) - 1
        inside = (place - nearest).clamp(max=last) * self.vocab_size + symbol
        return torch.where(nearest >= 0, inside, (last + 1) * self.vocab_size + place.clamp(max=last))

    def _right_index(self, tokens: Tensor, visible: Tensor) -> Tensor:
        place = torch.arange(self.length)
        nearest = torch.where(visible, place, self.length).flip(1).cummin(1).values.flip(1).roll(-1, 1)
        nearest[:, -1] = self.length
        symbol = tokens.gather(1, nearest.clamp(max=self.length - 1))
        last = len(self._powers) - 1
        inside = (nearest - place).clamp(max=last) * self.vocab_size + symbol
        return torch.where(nearest < self.length, inside, (last + 1) * self.vocab_size)

    def _log_prob(self, tokens: Tensor) -> Tensor:
        steps = self.transition.log()[tokens[:, :-1], tokens[:, 1:]]
        return self.initial.log()[tokens[:, 0]] + steps.sum(1)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        return draw_chain(self.initial, self.transition, n, self.length, generator)


def stationary(transition: object) -> Tensor:
    """The stationary probabilities, float64 [V], of a transition matrix with a single recurrent class.

    Solves pi P = pi with sum one; ValueError if more than one solution exists.
    """
    matrix = as_probabilities("transition", transition, (None, None))
    size = len(matrix)
    system = torch.cat([matrix.T - torch.eye(size, dtype=torch.float64), torch.ones(1, size).double()])
    if int(torch.linalg.matrix_rank(system)) < size:
        raise ValueError("got a chain with several stationary laws, expected one; connect its classes")
    target = torch.zeros(size + 1, dtype=torch.float64)
    target[-1] = 1
    found: Tensor = torch.linalg.lstsq(system, target.unsqueeze(1)).solution.squeeze(1).clamp(min=0)
    return found / found.sum()


_MIXED = 64
"""Powers of a transition matrix are compared at this power, and at each of its doubles."""


_MOST_POWERS = 2**24
"""Numbers in the table of powers of a chain: 128 MiB."""


def _settled(powers: list[Tensor]) -> bool:
    """Whether the last power, an even one, equals the one before and the one at half, each entry within 1e-14 of it.

    The half tells slow chains from mixed ones, the neighbour periodic ones.
    """
    last = powers[-1]
    return all(
        bool(((last - other).abs() <= 1e-14 * last).all()) for other in (powers[-2], powers[len(powers) // 2])
    )


def _convolved(weights: Array, steps: Array) -> Array:
    """Sum over l = 0..g-1 of weights[l] . steps[g - l], for g = 0..N-1, float64 [N]; weights and steps [N, V].

    What steps end at is summed exactly, only the rest, which dies out, by Fourier transforms.
    """
    from scipy.signal import fftconvolve  # here, as it takes a fifth of `load`'s time

    ahead = np.cumsum(weights, 0) - weights
    total = ahead @ steps[-1]
    for row, rest in zip(weights.T, (steps - steps[-1]).T):
        rest = np.concatenate([[0.0], rest[1:]])
        live = np.flatnonzero(rest)
        if len(live):
            total = total + fftconvolve(row, rest[: live[-1] + 1])[: len(row)]
    return np.asarray(total, dtype=np.float64)


def _spread(values: Array, named: int, others: int) -> Array:
    """Sum over m of values[m] P(``named`` given positions visible, m given ones hidden), for i = 0..others.

    The probability is a product of ratios, taken one by one: no large binomials, no cancellation. It is at most
    exp(-m (i - named) / (others - named)); what is below e^-75 is left out, which leaves O(N log N) terms.
    """
    i = np.arange(others + 1, dtype=np.float64)
    chance = np.ones(others + 1)
    for j in range(min(named, others)):
        chance *= np.maximum(i - j, 0) / (others - j)
    total = np.zeros(others + 1)
    for m, value in enumerate(values):
        kept = min(others + 1, named + 1 + math.ceil(75 * max(others - named, 1) / max(m, 1)))
        chance = chance[:kept]
        total[:kept] += value * chance
        chance = chance * (np.maximum(others - m - i[:kept], 0) / max(others - named - m, 1))
    return total


def draw_chain(
    initial: Tensor, transition: Tensor, n: int, length: int, generator: torch.Generator
) -> Tensor:
    """Sequences int64 [n, length] of a Markov chain."""
    states = [draw_symbols(initial.expand(n, -1), 1, generator)]
    for _ in range(length - 1):
        states.append(draw_symbols(transition[states[-1].squeeze(1)], 1, generator))
    return torch.cat(states, 1)
