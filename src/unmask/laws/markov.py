"""Markov chains, hidden Markov chains and Ising trees, all in nats."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import entr
from torch import Tensor
from torch.nn.functional import embedding

from unmask.laws.base import (
    Array,
    Law,
    as_floats,
    as_probabilities,
    draw_symbols,
    estimate_entropies,
    forbid,
)

if TYPE_CHECKING:
    from unmask.profiles import Profile


class Markov(Law):
    """A homogeneous Markov chain, nats: ``initial`` [V], ``transition`` [V, V] (row = from), any length.

    A conditional needs the nearest visible neighbours only: P^l(left, v) P^r(v, right), from a table of the
    powers of the transition matrix (2 L V^2 numbers, built at the first call). An l-step probability below
    1e-308 counts as zero. Raises ValueError unless rows are probabilities within 1e-9.
    """

    def __init__(self, initial: object, transition: object, length: int) -> None:
        self.initial = as_probabilities("initial", initial, (None,))
        vocab = len(self.initial)
        self.transition = as_probabilities("transition", transition, (vocab, vocab))
        super().__init__(length, vocab)

    @cached_property
    def _powers(self) -> Tensor:
        """P^l for l = 0..L-1, float64 [L, V, V]."""
        powers = [torch.eye(self.vocab_size, dtype=torch.float64)]
        for _ in range(self.length - 1):
            powers.append(powers[-1] @ self.transition)
        return torch.stack(powers)

    @cached_property
    def _forward(self) -> Tensor:
        """Log-laws given the left side: row l V + x for distance l to symbol x, then L marginals."""
        return torch.cat([self._powers.flatten(0, 1), self.initial @ self._powers]).log()

    @cached_property
    def _backward(self) -> Tensor:
        """Log-likelihoods of the right side: row r V + x for distance r to symbol x, then one of zeros."""
        columns = self._powers.transpose(1, 2).flatten(0, 1)
        return torch.cat([columns, torch.ones(1, self.vocab_size, dtype=torch.float64)]).log()

    def entropies(self) -> Array:
        """The entropy profile, nats, exact for any start: averages over the nearest visible neighbours.

        With e_l(x) = H(P^l(x, .)), H(X_n | X_a = x, X_b) = e_l(x) + (P^l e_r)(x) - e_{l+r}(x), where l and r
        are the distances to a < n < b. Costs L^2 V^2 operations (derived).
        """
        others = self.length - 1
        values = _spread(self._between(), 2, others) + _spread(self._beside(), 1, others)
        values[0] = entr(self._marginals()).sum()
        return np.maximum(values, 0.0) / self.length

    def _marginals(self) -> Array:
        return np.asarray((self.initial @ self._powers).numpy(), dtype=np.float64)

    def _between(self) -> Array:
        """Sum of H(X_n | X_a, X_b) over all a < n < b with m = b - a - 2 others between, nats; index m."""
        powers, n = self._powers.numpy(), self.length
        steps = entr(powers).sum(-1)
        starts = np.cumsum(self._marginals(), 0)
        totals = np.zeros(n + 1)
        for left in range(1, n - 1):
            right = np.arange(1, n - left)
            gap = left + right
            inner = steps[left] + steps[right] @ powers[left].T - steps[gap]
            totals[gap] += (inner * starts[n - 1 - gap]).sum(1)
        return totals[2:n]

    def _beside(self) -> Array:
        """The same with the visible neighbour on one side only and m hidden others there, nats; index m."""
        steps, marginals = entr(self._powers.numpy()).sum(-1), self._marginals()
        reach, single, n = np.cumsum(steps, 0), entr(marginals).sum(-1), self.length
        after = [marginals[a] @ reach[n - 1 - a] for a in range(n - 1)]
        before = [
            single[:b].sum() + (marginals[:b] * steps[b:0:-1]).sum() - b * single[b] for b in range(1, n)
        ]
        return np.asarray(np.array(after[::-1]) + np.array(before), dtype=np.float64)

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
        inside = (place - nearest) * self.vocab_size + symbol
        return torch.where(nearest >= 0, inside, self.length * self.vocab_size + place)

    def _right_index(self, tokens: Tensor, visible: Tensor) -> Tensor:
        place = torch.arange(self.length)
        nearest = torch.where(visible, place, self.length).flip(1).cummin(1).values.flip(1).roll(-1, 1)
        nearest[:, -1] = self.length
        symbol = tokens.gather(1, nearest.clamp(max=self.length - 1))
        inside = (nearest - place) * self.vocab_size + symbol
        return torch.where(nearest < self.length, inside, self.length * self.vocab_size)

    def _log_prob(self, tokens: Tensor) -> Tensor:
        steps = self.transition.log()[tokens[:, :-1], tokens[:, 1:]]
        return self.initial.log()[tokens[:, 0]] + steps.sum(1)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        return _draw_chain(self.initial, self.transition, n, self.length, generator)


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


def _spread(values: Array, named: int, others: int) -> Array:
    """Sum over m of values[m] P(``named`` given positions visible, m given ones hidden), for i = 0..others.

    The probability is a product of ratios, taken one by one: no large binomials, no cancellation.
    """
    i = np.arange(others + 1, dtype=np.float64)
    chance = np.ones(others + 1)
    for j in range(min(named, others)):
        chance *= np.maximum(i - j, 0) / (others - j)
    total = np.zeros(others + 1)
    for m, value in enumerate(values):
        total += value * chance
        chance *= np.maximum(others - i - m, 0) / max(others - named - m, 1)
    return total


def _draw_chain(
    initial: Tensor, transition: Tensor, n: int, length: int, generator: torch.Generator
) -> Tensor:
    """Sequences int64 [n, length] of a Markov chain."""
    states = [draw_symbols(initial.expand(n, -1), 1, generator)]
    for _ in range(length - 1):
        states.append(draw_symbols(transition[states[-1].squeeze(1)], 1, generator))
    return torch.cat(states, 1)


class Measured(Law):
    """A law without a closed-form profile: exact conditionals, Monte Carlo entropies in nats."""

    def entropies(self, samples: int = 64, generator: torch.Generator | None = None) -> Array:
        """The entropy profile, nats, by `estimate_entropies`; not exact, hence not exactly non-increasing.

        Without a generator the draws are those of seed 0.
        """
        return estimate_entropies(self, samples, generator or torch.Generator().manual_seed(0))[0]

    def profile(self, samples: int = 64, generator: torch.Generator | None = None) -> Profile:
        """The measured `Profile` with standard errors, nats, from the draws of `entropies`."""
        from unmask.profiles import Profile

        values, stderr = estimate_entropies(self, samples, generator or torch.Generator().manual_seed(0))
        return Profile(values, stderr=stderr)


class HMM(Measured):
    """A hidden Markov chain, nats: ``initial`` [S], ``transition`` [S, S], ``emission`` [S, V].

    Tokens are the emissions. Conditionals by belief propagation in log space: 2 L steps for a whole batch.
    """

    def __init__(self, initial: object, transition: object, emission: object, length: int) -> None:
        self.initial = as_probabilities("initial", initial, (None,))
        states = len(self.initial)
        self.transition = as_probabilities("transition", transition, (states, states))
        self.emission = as_probabilities("emission", emission, (states, None))
        super().__init__(length, self.emission.shape[1])
        self._parents = list(range(-1, length - 1))
        self._edges = self.transition.log().expand(length, -1, -1)

    def _local(self, tokens: Tensor) -> Tensor:
        """Log-evidence [B, L, S] of each position about its state, with the law of the first state."""
        silent = torch.zeros(1, len(self.initial), dtype=torch.float64)
        evidence = embedding(tokens, torch.cat([self.emission.T.log(), silent]))
        evidence[:, 0] += self.initial.log()
        return evidence

    def _log_weights(self, tokens: Tensor) -> Tensor:
        beliefs = _beliefs(self._parents, self._edges, self._local(tokens))
        return (beliefs.unsqueeze(-1) + self.emission.log()).logsumexp(2)

    def _log_prob(self, tokens: Tensor) -> Tensor:
        return _collected(self._parents, self._edges, self._local(tokens))[0][0].logsumexp(1)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        states = _draw_chain(self.initial, self.transition, n, self.length, generator)
        return draw_symbols(self.emission[states.flatten()], 1, generator).view(n, self.length)


class TreeIsing(Measured):
    """Ising spins on a forest, nats: P ~ exp(sum coupling s s' over edges + sum field s); bit 0 is s = -1.

    ``parents[n]`` is the neighbour of n that comes before it, or -1 for a root. ``coupling`` (of the edge
    above n) and ``field`` are numbers or one per position. Conditionals by belief propagation.
    """

    def __init__(self, parents: Sequence[int], coupling: object, field: object) -> None:
        super().__init__(len(parents), 2)
        self.parents = [int(p) for p in parents]
        wrong = [n for n, p in enumerate(self.parents) if not -1 <= p < n]
        if wrong:
            raise ValueError(
                f"got parent {self.parents[wrong[0]]} of position {wrong[0]}, expected -1 or an earlier "
                "position; renumber the tree from its roots"
            )
        spins = torch.tensor([-1.0, 1.0], dtype=torch.float64)
        pull = _per_position("coupling", coupling, self.length)
        self._edges = pull[:, None, None] * spins[:, None] * spins
        self._fields = _per_position("field", field, self.length)[:, None] * spins
        self._up, self._messages = _collected(self.parents, self._edges, self._fields.unsqueeze(0))
        self._log_partition = self._roots(self._up).logsumexp(-1).sum()

    def _roots(self, up: list[Tensor]) -> Tensor:
        return torch.stack([up[n] for n, p in enumerate(self.parents) if p < 0])

    def _log_weights(self, tokens: Tensor) -> Tensor:
        allowed = torch.cat([torch.eye(2), torch.ones(1, 2)]).double().log()
        return _beliefs(self.parents, self._edges, embedding(tokens, allowed) + self._fields)

    def _log_prob(self, tokens: Tensor) -> Tensor:
        place, above = torch.arange(self.length), torch.tensor(self.parents)
        edges = self._edges[place, tokens[:, above.clamp(min=0)], tokens].masked_fill(above < 0, 0.0)
        return (edges + self._fields[place, tokens]).sum(1) - self._log_partition

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        drawn: list[Tensor] = []
        for place, parent in enumerate(self.parents):
            weights = self._up[place].expand(n, -1)
            if parent >= 0:
                weights = weights + self._edges[place][drawn[parent].squeeze(1)]
            drawn.append(draw_symbols(weights.softmax(-1), 1, generator))
        return torch.cat(drawn, 1)


def _per_position(name: str, value: object, length: int) -> Tensor:
    tensor = torch.as_tensor(value, dtype=torch.float64)
    return as_floats(name, tensor.expand(length) if tensor.ndim == 0 else tensor, (length,))


def _collected(
    parents: Sequence[int], edges: Tensor, local: Tensor
) -> tuple[list[Tensor], dict[int, Tensor]]:
    """Leaves to roots: log-evidence [B, S] of each subtree about its top, and the message to each parent.

    edges [N, S, S] are log-potentials (row = state of the parent), local [B, N, S] those of single positions.
    """
    up = list(local.unbind(1))
    messages: dict[int, Tensor] = {}
    for n in reversed(range(len(parents))):
        if parents[n] >= 0:
            messages[n] = (edges[n] + up[n].unsqueeze(1)).logsumexp(2)
            up[parents[n]] = up[parents[n]] + messages[n]
    return up, messages


def _beliefs(parents: Sequence[int], edges: Tensor, local: Tensor) -> Tensor:
    """Log-beliefs [B, N, S] of every position, of any sum; -inf throughout an impossible batch row."""
    up, messages = _collected(parents, edges, local)
    beliefs: list[Tensor] = []
    for n, parent in enumerate(parents):
        if parent < 0:
            beliefs.append(up[n])
            continue
        # Where the message is -inf the parent's state is impossible, and so is every state below it.
        rest = torch.where(messages[n] == -torch.inf, -torch.inf, beliefs[parent] - messages[n])
        beliefs.append(up[n] + (edges[n] + rest.unsqueeze(2)).logsumexp(1))
    stacked = torch.stack(beliefs, 1)
    return forbid(stacked, (stacked.logsumexp(2) == -torch.inf).any(1))
