"""The base of all exact laws: a denoiser with samples, log-probabilities and an entropy profile, in nats."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unmask.base.numbers import shown, whole
from unmask.base.profile import Profile

Array: TypeAlias = npt.NDArray[np.float64]

LARGEST = 2**31 - 1
"""The largest length and vocabulary: sums and products of symbols and positions stay below 2^63."""

MOST_NUMBERS = 2**27
"""Log-probabilities that one call may hold: one GiB. Above it, ask at rows, or in smaller batches."""

_AT_ONCE = 2**24
"""Log-weights handled at once, a few batch rows at a time: 128 MiB."""

_LONGEST_ESTIMATE = 4096
"""Positions of a law whose profile is estimated: each of them costs a call at all positions."""


class Law(ABC):
    """A solvable distribution of sequences that is its own denoiser; every log-probability is in nats.

    ``law(tokens, rows)`` is float64 [B, k, V] (or [B, L, V] without rows): at a masked position the exact
    conditional log-probabilities given all visible tokens, at a visible one the point mass on its symbol.

    **Null histories.** Visible tokens that have probability zero together carry no conditional law. Samplers
    reach such states after a factorisation error, so the answer is then uniform, -ln V at every masked
    position, and never NaN.

    Laws compute on the CPU in float64 and answer on the device of their input. A batch row's answer does not
    depend on the other rows. An answer of more than 2^27 numbers, and what a law cannot do in reasonable time and
    memory at its length, is a ValueError at once that says the limit.

    Subclasses are final and give four things: `_log_weights`, `_log_prob`, `_sample` and `entropies`.
    """

    positional: ClassVar[bool] = True
    """Whether `_log_weights` differ from position to position."""

    def __init__(self, length: int, vocab_size: int) -> None:
        self.length = whole(length, "length", 1, LARGEST)
        self.vocab_size = whole(vocab_size, "vocab_size", 2, LARGEST)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(length={self.length}, vocab_size={self.vocab_size})"

    @property
    def mask_id(self) -> int:
        """Symbol id that hides a position: one above the largest data symbol."""
        return self.vocab_size

    def __call__(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        """Conditional log-probabilities, float64 nats, [B, k, V] at rows or [B, L, V]; time is ignored.

        Raises ValueError for a wrong dtype or shape, a symbol outside 0..mask_id, a row outside 0..L-1, and for more than
        2^27 log-probabilities.
        """
        del time
        self._check(tokens, self.mask_id, "masked positions hold mask_id")
        if rows is not None:
            self._check_rows(rows, tokens)
        self._check_size(len(tokens), self.length if rows is None else rows.shape[1])
        size = max(1, _AT_ONCE // (self.length * self.vocab_size))
        parts = torch.split(tokens.cpu(), size)
        wanted = [None] * len(parts) if rows is None else torch.split(rows.cpu(), size)
        return torch.cat([self._answer(*part) for part in zip(parts, wanted)]).to(tokens.device)

    def _answer(self, tokens: Tensor, rows: Tensor | None) -> Tensor:
        """Log-probabilities of checked tokens, all on the CPU."""
        log_probs = _normalised(self._log_weights(tokens)).expand(-1, self.length, -1)
        if rows is not None:
            tokens = tokens.gather(1, rows)
            log_probs = log_probs.gather(1, rows.unsqueeze(-1).expand(-1, -1, self.vocab_size))
        return _pinned(log_probs, tokens)

    def full(
        self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """As a call, in nats, with an empty cache: exact laws simply recompute."""
        return self(tokens, rows, time=time), None

    def partial(self, tokens: Tensor, rows: Tensor, cache: Any, *, time: Tensor | None = None) -> Tensor:
        """As a call at rows, in nats; the cache is not used."""
        del cache
        return self(tokens, rows, time=time)

    def log_prob(self, tokens: Tensor) -> Tensor:
        """Exact log-probability of complete sequences, float64 nats [B]; -inf outside the support.

        Raises ValueError for masked or unknown symbols.
        """
        self._check(tokens, self.vocab_size - 1, "unmask every position first")
        return self._log_prob(tokens.cpu()).to(tokens.device)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws n independent sequences, int64 [n, L], by exact float64 methods from a CPU generator."""
        if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
            place = getattr(generator, "device", type(generator).__name__)
            raise ValueError(
                f"got a generator on {place}, expected a torch.Generator on the CPU; make one there"
            )
        return self._sample(whole(n, "n", 0, 8 * MOST_NUMBERS // self.length), generator)

    def profile(self) -> Profile:
        """The information profile of the law: `Profile` of `entropies`, in nats."""
        return Profile(self.entropies())

    @abstractmethod
    def entropies(self) -> Array:
        """The entropy profile, nats, float64 [L].

        h(i) = E H(X_n | X_S), with S a uniform set of i positions and n a uniform position outside S
        (Chen, Cong, Li, COLT 2026).
        """

    @abstractmethod
    def _log_weights(self, tokens: Tensor) -> Tensor:
        """Log-weights [B, L, V], or [B, 1, V] if equal everywhere, of any sum; -inf for null histories.

        What is said of visible positions is ignored.
        """

    @abstractmethod
    def _log_prob(self, tokens: Tensor) -> Tensor:
        """Log-probabilities, nats [B], of checked complete tokens."""

    @abstractmethod
    def _sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Sequences int64 [n, L]."""

    def _check(self, tokens: Tensor, highest: int, hint: str) -> None:
        if not isinstance(tokens, Tensor) or tokens.is_meta:
            raise ValueError(
                f"got tokens {shown(tokens)}, expected an int64 tensor with data; convert it first"
            )
        if tokens.dtype != torch.int64:
            raise ValueError(
                f"got tokens of dtype {tokens.dtype}, expected torch.int64; convert with .long()"
            )
        if tokens.ndim != 2 or tokens.shape[1] != self.length:
            raise ValueError(
                f"got tokens of shape {list(tokens.shape)}, expected [batch, {self.length}]; "
                "add a batch dimension or use a law of that length"
            )
        if tokens.numel() and not _within(tokens, highest):
            low, high = (int(bound) for bound in tokens.aminmax())
            raise ValueError(f"got symbols from {low} to {high}, expected 0 to {highest}; {hint}")

    def _check_size(self, batch: int, places: int) -> None:
        """ValueError for more log-probabilities than one call may hold."""
        if self.positional and self.length * self.vocab_size > MOST_NUMBERS:
            raise ValueError(
                f"got {self!r}, expected length times vocabulary to be 2^27 at most; use a smaller law"
            )
        if batch * places * self.vocab_size > MOST_NUMBERS:
            raise ValueError(
                f"got {batch} sequences at {places} positions of {self.vocab_size} symbols, expected 2^27 "
                "log-probabilities at most; ask at a few rows, or for fewer sequences"
            )

    def _check_rows(self, rows: Tensor, tokens: Tensor) -> None:
        if not isinstance(rows, Tensor) or rows.is_meta:
            raise ValueError(f"got rows {shown(rows)}, expected an int64 tensor with data; convert it first")
        if rows.dtype != torch.int64 or rows.ndim != 2 or rows.shape[0] != tokens.shape[0]:
            raise ValueError(
                f"got rows of dtype {rows.dtype} and shape {list(rows.shape)}, "
                f"expected int64 [{tokens.shape[0]}, k]; give one list of positions per batch row"
            )
        if rows.numel() and not _within(rows, self.length - 1):
            raise ValueError(
                f"got rows from {int(rows.min())} to {int(rows.max())}, expected 0 to {self.length - 1}; "
                "remove the padding before the call"
            )


def _within(values: Tensor, highest: int) -> bool:
    low, high = values.aminmax()
    return bool(low >= 0) and bool(high <= highest)


def _normalised(weights: Tensor) -> Tensor:
    """Log-probabilities from log-weights along the last dimension; uniform where no symbol has any weight."""
    total = weights.logsumexp(-1, keepdim=True)
    return torch.where(total == -torch.inf, -math.log(weights.shape[-1]), weights - total)


def _pinned(log_probs: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities [B, k, V] with point masses at the visible ones of tokens [B, k]."""
    visible = (tokens < log_probs.shape[-1]).unsqueeze(-1)
    symbols = tokens.clamp(max=log_probs.shape[-1] - 1).unsqueeze(-1)
    kept = torch.where(visible, 0.0, log_probs.gather(-1, symbols))
    return log_probs.masked_fill(visible, -torch.inf).scatter_(-1, symbols, kept)


def point_masses(tokens: Tensor, vocab_size: int) -> Tensor:
    """Log-probabilities (nats) that put everything on the given symbols: int64 [...] to float64 [..., V]."""
    symbols = tokens.clamp(0, vocab_size - 1).unsqueeze(-1)
    blank = torch.full((*tokens.shape, vocab_size), -torch.inf, dtype=torch.float64)
    return blank.scatter(-1, symbols, 0.0)


def flat_log_prob(inside: Tensor, entropy: float) -> Tensor:
    """Log-probabilities float64 [B] of a uniform law: minus its entropy in nats where inside, else -inf."""
    level = torch.full(inside.shape, -entropy, dtype=torch.float64)
    return level.masked_fill(~inside, -torch.inf)


def forbid(weights: Tensor, null: Tensor) -> Tensor:
    """Log-weights [B, *, V] with -inf throughout the batch rows where null, bool [B], is True."""
    return weights.masked_fill(null[:, None, None], -torch.inf)


def count_symbols(tokens: Tensor, vocab_size: int) -> Tensor:
    """How often each symbol is visible: int64 [B, L] to int64 [B, V]."""
    counts = torch.zeros(tokens.shape[0], vocab_size + 1, dtype=torch.int64)
    return counts.scatter_add_(1, tokens, torch.ones_like(tokens))[:, :vocab_size]


def draw_symbols(probs: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draws by inversion: float64 probabilities [n, V] to int64 [n, count], none of probability 0."""
    ends = probs.cumsum(-1)
    uniform = torch.rand(probs.shape[0], count, dtype=torch.float64, generator=generator)
    return torch.searchsorted(ends, uniform * ends[:, -1:], right=True)


def random_ranks(n: int, length: int, generator: torch.Generator) -> Tensor:
    """n independent uniform permutations of 0..length-1, int64 [n, length]."""
    return torch.rand(n, length, dtype=torch.float64, generator=generator).argsort(dim=-1)


def as_tensor(name: str, values: object) -> Tensor:
    """Numbers in a tensor, an array or nested lists as a float64 tensor of its own; ValueError otherwise."""
    if not isinstance(values, Tensor) or not (values.is_meta or values.is_complex()):
        try:
            return torch.as_tensor(values, dtype=torch.float64, device="cpu").detach().clone()
        except (TypeError, ValueError, RuntimeError):
            pass
    raise ValueError(f"got {name} {shown(values)}, expected an array of real numbers; convert it first")


def as_floats(name: str, values: object, shape: tuple[int | None, ...]) -> Tensor:
    """Finite float64 numbers of the given shape (None: any positive size); ValueError otherwise."""
    tensor = as_tensor(name, values)
    fits = tensor.ndim == len(shape) and all(
        size > 0 if wanted is None else size == wanted for size, wanted in zip(tensor.shape, shape)
    )
    if not fits:
        wanted = ["any" if size is None else size for size in shape]
        raise ValueError(f"got {name} of shape {list(tensor.shape)}, expected {wanted}; reshape {name}")
    if not bool(tensor.isfinite().all()):
        raise ValueError(f"got a NaN or infinite entry in {name}, expected finite numbers; check {name}")
    return tensor


def as_probabilities(name: str, values: object, shape: tuple[int | None, ...]) -> Tensor:
    """Float64 probabilities that sum to one along the last dimension (within 1e-9); ValueError otherwise."""
    tensor = as_floats(name, values, shape)
    if bool((tensor < 0).any()):
        raise ValueError(
            f"got {name} down to {float(tensor.min()):g}, expected probabilities >= 0; check {name}"
        )
    total = tensor.sum(-1, keepdim=True)
    gap = float((total - 1).abs().max())
    if gap > 1e-9:
        raise ValueError(
            f"got {name} whose sum is off one by {gap:.3g}, expected 1e-9 at most; normalise {name}"
        )
    return tensor / total


def estimate_entropies(law: Law, samples: int, generator: torch.Generator) -> tuple[Array, Array]:
    """Monte Carlo entropy profile of any law and its standard errors, nats, two float64 [L].

    Every sample x ~ law gets one random order; its first i positions are shown, and the exact conditional
    entropies of all the others are averaged. Unbiased at every i. Costs L calls with ``samples`` rows. ValueError for more
    than 4096 positions.
    """
    if law.length > _LONGEST_ESTIMATE:
        raise ValueError(
            f"got {law.length} positions, each of which costs a call, expected {_LONGEST_ESTIMATE} at most; "
            "use a shorter law"
        )
    tokens = law.sample(whole(samples, "samples", 2), generator)
    order = random_ranks(samples, law.length, generator)
    state = torch.full_like(tokens, law.mask_id)
    values = []
    for i in range(law.length):
        values.append(_mean_entropy(law, state))
        place = order[:, i : i + 1]
        state = state.scatter(1, place, tokens.gather(1, place))
    stacked = torch.stack(values)
    return stacked.mean(1).numpy(), (stacked.std(1) / math.sqrt(samples)).numpy()


def _mean_entropy(law: Law, tokens: Tensor) -> Tensor:
    """Mean conditional entropy of the masked positions, nats [B]; a visible position has entropy 0."""
    entropy: Tensor = torch.special.entr(law(tokens).exp()).sum((1, 2))
    return entropy / (tokens == law.mask_id).sum(1)
