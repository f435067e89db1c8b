"""Laws on chains and trees whose conditionals come by belief propagation: HMM and TreeIsing, in nats."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import embedding

from unmask.base.numbers import listed, shown, whole
from unmask.base.profile import Profile
from unmask.laws.base import (
    Array,
    Law,
    as_floats,
    as_probabilities,
    as_tensor,
    draw_symbols,
    estimate_entropies,
    forbid,
)
from unmask.laws.markov import draw_chain


class Measured(Law):
    """A law without a closed-form profile: exact conditionals, Monte Carlo entropies in nats."""

    def entropies(self, samples: int = 64, generator: torch.Generator | None = None) -> Array:
        """The entropy profile, nats, by `estimate_entropies`; not exact, hence not exactly non-increasing.

        Without a generator the draws are those of seed 0.
        """
        return estimate_entropies(self, samples, generator or torch.Generator().manual_seed(0))[0]

    def profile(self, samples: int = 64, generator: torch.Generator | None = None) -> Profile:
        """The measured `Profile` with standard errors, nats, from the draws of `entropies`."""
        values, stderr = estimate_entropies(self, samples, generator or torch.Generator().manual_seed(0))
        return Profile(values, stderr=stderr)


_EMITTED = 2**22
"""Log-probabilities of (state, symbol) pairs held at once: 32 MiB."""


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
        self._parents = list(range(-1, self.length - 1))
        self._edges = self.transition.log().expand(self.length, -1, -1)

    def _local(self, tokens: Tensor) -> Tensor:
        """Log-evidence [B, L, S] of each position about its state, with the law of the first state."""
        silent = torch.zeros(1, len(self.initial), dtype=torch.float64)
        evidence = embedding(tokens, torch.cat([self.emission.T.log(), silent]))
        evidence[:, 0] += self.initial.log()
        return evidence

    def _log_weights(self, tokens: Tensor) -> Tensor:
        beliefs = _beliefs(self._parents, self._edges, self._local(tokens))
        size = max(1, _EMITTED // (beliefs[:, 0].numel() * self.vocab_size + 1))
        emission = self.emission.log()
        parts = [(part.unsqueeze(-1) + emission).logsumexp(2) for part in torch.split(beliefs, size, dim=1)]
        return torch.cat(parts, 1)

    def _log_prob(self, tokens: Tensor) -> Tensor:
        return _collected(self._parents, self._edges, self._local(tokens))[0][0].logsumexp(1)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        states = draw_chain(self.initial, self.transition, n, self.length, generator)
        return draw_symbols(self.emission[states.flatten()], 1, generator).view(n, self.length)


class TreeIsing(Measured):
    """Ising spins on a forest, nats: P ~ exp(sum coupling s s' over edges + sum field s); bit 0 is s = -1.

    ``parents[n]`` is the neighbour of n that comes before it, or -1 for a root. ``coupling`` (of the edge
    above n) and ``field`` are numbers or one per position. Conditionals by belief propagation.
    """

    def __init__(self, parents: Sequence[int], coupling: object, field: object) -> None:
        above = listed(parents, "parents")
        if above is None:
            raise ValueError(f"got parents {shown(parents)}, expected a list of positions; list the parents")
        super().__init__(len(above), 2)
        self.parents = [whole(p, "a parent") for p in above]
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
    tensor = as_tensor(name, value)
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
