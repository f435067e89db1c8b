"""Latents and observations: free symbols, then what a predicate says of a few of them; in nats.

Masked models meet hard subproblems here (arXiv 2502.06768): an observation follows at once from its latents, but to tell
latents, or one observation, from other observations is a constraint satisfaction problem with a planted solution.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot, pad

from unmask.base import noise
from unmask.base.numbers import shown, whole
from unmask.laws.base import Array, Law, as_probabilities, draw_symbols, random_ranks
from unmask.laws.table import Support, tabulated

_MOST_NUMBERS = 2**26
"""Entries of the table of what every state of the latents says: half a GiB."""

_AT_ONCE = 2**24
"""Weights of states handled at once: 128 MiB."""


class LatentsAndObservations(Law):
    """``latents`` N independent symbols of law ``prior`` [m], then an observation for each row of ``sees`` int64 [P, k].

    Observation j is drawn from ``predicate`` [m, .., m, S] (k axes of latent symbols, then probabilities) at the latents
    that row j names. Entropies need few positions, and conditionals a sum over all m^N states of the latents: up to
    2^26 / (L V) of them, else ValueError. Samples and log-probabilities have no limit.
    """

    def __init__(self, latents: int, sees: object, predicate: object, prior: object = (0.5, 0.5)) -> None:
        self.latents = whole(latents, "latents", 1)
        self.sees = _as_places(sees, self.latents)
        self.prior = as_probabilities("prior", prior, (None,))
        symbols = (len(self.prior),) * self.sees.shape[1]
        self.predicate = as_probabilities("predicate", predicate, (*symbols, None))
        super().__init__(self.latents + len(self.sees), max(len(self.prior), self.predicate.shape[-1]))
        self._tables: tuple[Tensor, Tensor, Tensor] | None = None
        # Where all that is possible is equally likely, sums over states are whole numbers, exact in any order.
        self._counts = bool(((self.predicate == 0) | (self.predicate == 1)).all()) and bool(
            (self.prior == self.prior[0]).all()
        )

    def entropies(self) -> Array:
        """The entropy profile, nats, by listing the sequences, or a table of them where they are not equally likely."""
        if not self._counts:
            return tabulated(self).entropies()
        states = self._states()
        return Support(torch.cat([states, self.says(states).argmax(-1)], 1), self.vocab_size).entropies()

    def says(self, latents: Tensor) -> Tensor:
        """Probabilities of every observation, float64 [B, P, S], given latents int64 [B, N]."""
        m, arity = len(self.prior), self.sees.shape[1]
        code = (latents[:, self.sees] * m ** torch.arange(arity - 1, -1, -1)).sum(-1)
        return self.predicate.flatten(0, -2)[code]

    def consistent(self, tokens: Tensor) -> Tensor:
        """Which observations of complete tokens are possible given the latents beside them: bool [B, P]."""
        self._check(tokens, self.vocab_size - 1, "unmask every position first")
        return self._likelihoods(tokens.cpu()).to(tokens.device) > 0

    def _likelihoods(self, tokens: Tensor) -> Tensor:
        """The probability of each observation given the latents, float64 [B, P]; 0 for symbols that do not exist."""
        latents, seen = tokens[:, : self.latents], tokens[:, self.latents :]
        m, symbols = len(self.prior), self.predicate.shape[-1]
        probs = self.says(latents.clamp(max=m - 1)).gather(-1, seen.clamp(max=symbols - 1)[..., None])[..., 0]
        return torch.where((seen < symbols) & (latents < m)[:, self.sees].all(-1), probs, 0.0)

    def _log_prob(self, tokens: Tensor) -> Tensor:
        prior = pad(self.prior, (0, self.vocab_size - len(self.prior)))[tokens[:, : self.latents]]
        return torch.cat([prior, self._likelihoods(tokens)], 1).log().sum(1)

    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        latents = draw_symbols(self.prior[None], n * self.latents, generator).view(n, self.latents)
        probs = self.says(latents)
        return torch.cat(
            [latents, draw_symbols(probs.flatten(0, 1), 1, generator).view(n, len(self.sees))], 1
        )

    def _log_weights(self, tokens: Tensor) -> Tensor:
        tables = self._all_states()
        size = max(1, _AT_ONCE // len(tables[0])) if self._counts else 1
        return torch.cat([self._marginals(part, *tables) for part in torch.split(tokens, size)])

    def _marginals(self, tokens: Tensor, prior: Tensor, probs: Tensor, log_probs: Tensor) -> Tensor:
        """Log-weights [B, L, V]: what the states say of each position, weighted by their posterior."""
        visible = one_hot(tokens, self.vocab_size + 1)[..., :-1].flatten(1).double()
        agrees = visible @ (probs > 0).double().T == (tokens < self.mask_id).sum(1, keepdim=True)
        weights = (prior + visible @ log_probs.T).masked_fill(~agrees, -torch.inf)
        peak = weights.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float64).min)
        return ((weights - peak).exp() @ probs).view(len(tokens), self.length, self.vocab_size).log()

    def _all_states(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of every state of the latents: log-prior [M]; what it says of each symbol at each position [M, L V], as
        probabilities and as logarithms, those of the impossible set to 0."""
        if self._tables is None:
            states = self._states()
            own = one_hot(states, self.vocab_size).double()
            seen = pad(self.says(states), (0, self.vocab_size - self.predicate.shape[-1]))
            probs = torch.cat([own, seen], 1).flatten(1)
            self._tables = (
                self.prior.log()[states].sum(1),
                probs,
                probs.log().clamp(min=torch.finfo(probs.dtype).min),
            )
        return self._tables

    def _states(self) -> Tensor:
        """Every state of the latents, int64 [m^N, N]; ValueError where there are too many."""
        m = len(self.prior)
        if m**self.latents * self.length * self.vocab_size > _MOST_NUMBERS:
            raise ValueError(
                f"got {m}^{self.latents} states of the latents at {self.length} positions, expected 2^26 numbers at "
                "most; use fewer latents, or only .sample and .log_prob"
            )
        return torch.arange(m**self.latents)[:, None] // m ** torch.arange(self.latents - 1, -1, -1) % m


def NotAllEqual(latents: int, observations: int, seed: int = 0) -> LatentsAndObservations:
    """L&O-NAE-SAT (arXiv 2502.06768): fair bits; an observation is 0 if three of them are equal, else 1; N ln 2 nats.

    The three are distinct, uniformly random and a function of the seed: an observation alone is 1 with probability 3/4.
    """
    count, most = whole(latents, "latents", 3), whole(observations, "observations", 1)
    sees = random_ranks(most, count, noise.generator(whole(seed, "seed", 0, 2**32 - 1)))[:, :3].sort(1).values
    equal = [float(len({a, b, c}) == 1) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
    table = torch.tensor(equal, dtype=torch.float64).view(2, 2, 2)
    return LatentsAndObservations(count, sees, torch.stack([table, 1 - table], -1))


def _as_places(sees: object, latents: int) -> Tensor:
    """Positions of latents int64 [P, k]; ValueError otherwise."""
    try:
        places = torch.as_tensor(sees, device="cpu").detach().clone()
    except (TypeError, ValueError, RuntimeError):
        places = torch.empty(0)
    fits = places.dtype == torch.int64 and places.ndim == 2 and places.numel() > 0
    if not fits or int(places.min()) < 0 or int(places.max()) >= latents:
        raise ValueError(
            f"got sees {shown(sees)}, expected int64 [P, k] of latents 0 to {latents - 1}; list k for each observation"
        )
    return places
