"""Denoisers: networks under the contract of `types.Denoiser`, and wrappers that change the law.

Whatever changes the law wraps the denoiser, so likelihood and code length follow the sampler. Each wrapper forwards
``full`` and ``partial`` to what it wraps.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unmask.types import Cache, Denoiser


@dataclass(frozen=True)
class NetworkDenoiser:
    """A network ``(tokens, rows=None) -> logits`` as a denoiser; made by `from_logits`."""

    network: Any
    mask_id: int
    vocab_size: int
    takes_time: bool = False

    def __call__(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        """Log-probabilities float [B, R, V] at rows."""
        stored = torch.is_inference_mode_enabled()
        with torch.inference_mode():
            return self._normalised(self.network(tokens, rows, **self._time(time)), stored)

    def full(
        self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None
    ) -> tuple[Tensor, Cache]:
        """As a call, and the network's cache for `partial`."""
        self._check_caching()
        stored = torch.is_inference_mode_enabled()
        with torch.inference_mode():
            logits, cache = self.network.full(tokens, rows, **self._time(time))
            return self._normalised(logits, stored), cache

    def partial(self, tokens: Tensor, rows: Tensor, cache: Cache, *, time: Tensor | None = None) -> Tensor:
        """Log-probabilities at rows after running only them against the cache."""
        self._check_caching()
        stored = torch.is_inference_mode_enabled()
        with torch.inference_mode():
            return self._normalised(self.network.partial(tokens, rows, cache, **self._time(time)), stored)

    def _time(self, time: Tensor | None) -> dict[str, Tensor]:
        return {"time": time} if self.takes_time and time is not None else {}

    def _check_caching(self) -> None:
        if not hasattr(self.network, "partial"):
            raise ValueError(
                f"{type(self.network).__name__} has no `full` and `partial`; use substeps=1, or give it partial passes"
            )

    def _normalised(self, logits: Tensor, stored: bool) -> Tensor:
        """Log-probabilities of the data symbols; ValueError on NaN or a wrong width.

        Logits made by this call, which inference tensors are unless the caller was in that mode too
        (``stored``: they may be the network's own), are overwritten.
        """
        if logits.shape[-1] < self.vocab_size:
            raise ValueError(
                f"the network gave {logits.shape[-1]} logits; expected vocab_size {self.vocab_size}"
            )
        logits = logits[..., : self.vocab_size]
        if self.mask_id < self.vocab_size:
            logits = logits.clone()
            logits[..., self.mask_id] = -torch.inf
        kept = logits if logits.dtype == torch.float64 else logits.float()
        return log_normalise_(kept.clone() if stored or not logits.is_inference() else kept)


def log_normalise_(logits: Tensor) -> Tensor:
    """Subtracts the log of the sum of exponentials along the last axis, in place, a few rows at a time.

    Working in slices keeps the peak memory at one copy of the logits. ValueError when a row has no finite maximum.
    """
    flat = (
        logits.view(-1, logits.shape[-1]) if logits.is_contiguous() else logits.reshape(-1, logits.shape[-1])
    )
    rows = max(1, 2**18 // max(1, flat.shape[-1]))
    for start in range(0, len(flat), rows):
        part = flat[start : start + rows]
        total = torch.logsumexp(part, dim=-1, keepdim=True)
        if not torch.isfinite(total).all():
            raise ValueError(
                "the network returned NaN or infinite logits; expected finite numbers: check its weights and inputs"
            )
        part -= total
    return flat.view(logits.shape)


def from_logits(network: Callable[..., Tensor], mask_id: int, vocab_size: int) -> NetworkDenoiser:
    """A denoiser from a network ``(tokens int64 [B, L], rows=None) -> logits [B, R, >= vocab_size]``.

    The first ``vocab_size`` logits are kept, the mask's own gets probability zero when it lies among them. A network
    with a keyword ``time`` receives it, unless its attribute ``timed`` is False; one without ``rows`` is evaluated
    everywhere and gathered. Modules are put into evaluation mode.
    """
    if vocab_size < 1 or mask_id < 0:
        raise ValueError(
            f"mask_id {mask_id}, vocab_size {vocab_size}: expected mask_id >= 0 and vocab_size >= 1"
        )
    if isinstance(network, torch.nn.Module):
        network.eval()
    names = inspect.signature(network.forward if isinstance(network, torch.nn.Module) else network).parameters
    adapted = network if "rows" in names else _gathering(network)
    timed = "time" in names and getattr(network, "timed", True)
    return NetworkDenoiser(adapted, mask_id, vocab_size, takes_time=timed)


def _gathering(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A network without rows as one with them."""

    def evaluate(tokens: Tensor, rows: Tensor | None = None, **time: Tensor) -> Tensor:
        logits = network(tokens, **time)
        return logits if rows is None else take_rows(logits, rows)

    return evaluate


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Entries [B, k, V] of values [B, L, V] at rows int64 [B, k]."""
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[-1]))


def masked_rows(masked: Tensor) -> tuple[Tensor, Tensor]:
    """Masked positions int64 [B, R] in order, filled up with visible ones, and the same with -1 for those."""
    count = masked.sum(1)
    width = int(count.max()) if len(count) else 0
    rows = (~masked).to(torch.uint8).sort(dim=1, stable=True).indices[:, :width]
    return rows, rows.masked_fill(torch.arange(width, device=rows.device) >= count[:, None], -1)


def shaped(log_probs: Tensor, rows: Tensor, denoiser: Denoiser) -> Tensor:
    """The log-probabilities of a denoiser at rows [B, k]; ValueError unless they have shape [B, k, V]."""
    if log_probs.shape != (*rows.shape, denoiser.vocab_size):
        raise ValueError(
            f"the denoiser returned shape {list(log_probs.shape)}; expected {[*rows.shape, denoiser.vocab_size]}, "
            "log-probabilities of the data symbols at the rows it was asked for"
        )
    return log_probs


def sound(log_probs: Tensor, rows: Tensor, denoiser: Denoiser) -> Tensor:
    """The log-probabilities of a denoiser at rows [B, k]; ValueError unless they are [B, k, V] and free of NaN."""
    shaped(log_probs, rows, denoiser)
    if torch.isnan(log_probs).any():
        raise ValueError(
            "the denoiser returned NaN; expected log-probabilities: check its weights and its inputs"
        )
    return log_probs


@dataclass(frozen=True)
class Reshaped:
    """A denoiser whose log-probabilities pass through ``change``, [.., V] to normalised [.., V]."""

    base: Denoiser
    change: Callable[[Tensor], Tensor]

    @property
    def mask_id(self) -> int:
        """Symbol id of the mask."""
        return self.base.mask_id

    @property
    def vocab_size(self) -> int:
        """Number of symbols."""
        return self.base.vocab_size

    def __call__(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        """Changed log-probabilities float [B, R, V] at rows."""
        return self.change(self.base(tokens, rows, time=time))

    def full(
        self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None
    ) -> tuple[Tensor, Cache]:
        """As a call, and the cache of what is wrapped."""
        log_probs, cache = self.base.full(tokens, rows, time=time)
        return self.change(log_probs), cache

    def partial(self, tokens: Tensor, rows: Tensor, cache: Cache, *, time: Tensor | None = None) -> Tensor:
        """Changed log-probabilities at rows after a partial pass."""
        return self.change(self.base.partial(tokens, rows, cache, time=time))


def tempered(denoiser: Denoiser, temperature: float) -> Denoiser:
    """The law proportional to p^(1/temperature) at every position; temperature 1 changes nothing.

    The exponent beta of the moment sampler (arXiv 2510.04525) is 1/temperature.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"temperature {temperature}: expected a positive number; for the arg-max use source=greedy"
        )
    if temperature == 1:
        return denoiser
    return Reshaped(denoiser, lambda log_probs: torch.log_softmax(log_probs / temperature, dim=-1))


def nucleus(denoiser: Denoiser, p: float) -> Denoiser:
    """The law kept to the smallest set of symbols that holds at least probability p, renormalised (top-p).

    The symbol that crosses p is kept; equally probable symbols are taken lowest id first.
    """
    if not 0 < p <= 1:
        raise ValueError(f"p {p}: expected 0 < p <= 1")
    return denoiser if p == 1 else Reshaped(denoiser, lambda log_probs: _top_p(log_probs, p))


def _top_p(log_probs: Tensor, p: float) -> Tensor:
    """log_probs [.., V] outside the nucleus set to -inf, renormalised."""
    values, order = log_probs.sort(dim=-1, descending=True, stable=True)
    before = values.exp().cumsum(dim=-1) - values.exp()
    dropped = torch.empty_like(before, dtype=torch.bool).scatter_(-1, order, before >= p)
    return torch.log_softmax(log_probs.masked_fill(dropped, -torch.inf), dim=-1)


@dataclass(frozen=True)
class Guided:
    """Classifier-free guidance: the law proportional to p^(1 + scale) / other^scale; made by `guided`."""

    base: Denoiser
    other: Denoiser
    scale: float

    @property
    def mask_id(self) -> int:
        """Symbol id of the mask."""
        return self.base.mask_id

    @property
    def vocab_size(self) -> int:
        """Number of symbols."""
        return self.base.vocab_size

    def __call__(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        """Guided log-probabilities float [B, R, V] at rows; two network calls."""
        return self._combine(self.base(tokens, rows, time=time), self.other(tokens, rows, time=time))

    def full(
        self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None
    ) -> tuple[Tensor, Cache]:
        """As a call, and both caches."""
        ours, cache = self.base.full(tokens, rows, time=time)
        theirs, other_cache = self.other.full(tokens, rows, time=time)
        return self._combine(ours, theirs), (cache, other_cache)

    def partial(self, tokens: Tensor, rows: Tensor, cache: Cache, *, time: Tensor | None = None) -> Tensor:
        """Guided log-probabilities after partial passes of both."""
        ours = self.base.partial(tokens, rows, cache[0], time=time)
        return self._combine(ours, self.other.partial(tokens, rows, cache[1], time=time))

    def _combine(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """log p + scale (log p - log other), normalised; symbols impossible under p stay impossible."""
        ratio = torch.where(ours == -torch.inf, 0.0, ours - theirs.clamp(min=torch.finfo(theirs.dtype).min))
        return torch.log_softmax(ours + self.scale * ratio.clamp(max=1e4), dim=-1)


def guided(denoiser: Denoiser, other: Denoiser, scale: float) -> Denoiser:
    """Classifier-free guidance of a denoiser (conditional) away from another (unconditional); scale 0 changes nothing.

    Log-probabilities (1 + scale) log p - scale log other, normalised (Ho and Salimans, arXiv 2207.12598).
    """
    if denoiser.mask_id != other.mask_id or denoiser.vocab_size != other.vocab_size:
        raise ValueError(
            f"the denoisers differ in mask_id ({denoiser.mask_id}, {other.mask_id}) or vocab_size "
            f"({denoiser.vocab_size}, {other.vocab_size}); expected the same vocabulary"
        )
    return Guided(denoiser, other, scale)


def passes(denoiser: Denoiser) -> int:
    """How many networks one call of a denoiser runs: 1, and one more for each guidance."""
    if isinstance(denoiser, Guided):
        return passes(denoiser.base) + passes(denoiser.other)
    return passes(denoiser.base) if isinstance(denoiser, Reshaped) else 1


def networks(denoiser: Denoiser) -> tuple[torch.nn.Module, ...]:
    """The modules that a denoiser runs, under all wrappers; none for an exact law."""
    inside = [getattr(denoiser, name, None) for name in ("network", "base", "other")]
    parts = [(x,) if isinstance(x, torch.nn.Module) else networks(x) for x in inside if x is not None]
    return tuple(module for part in parts for module in part)


def untempered(denoiser: Denoiser) -> tuple[Denoiser, Callable[[Tensor], Tensor]]:
    """What lies under all `Reshaped` wrappers, and the change from its log-probabilities to the wrapped ones."""
    if not isinstance(denoiser, Reshaped):
        return denoiser, lambda log_probs: log_probs
    root, inner = untempered(denoiser.base)
    return root, lambda log_probs: denoiser.change(inner(log_probs))
