"""Wrappers: whatever changes the law is a denoiser around a denoiser, so likelihood and code length follow the sampler.

What the wrapped law forbids stays forbidden, at exactly -inf, and no NaN appears, whatever the setting: the base decides
what is possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unmask.base.numbers import real
from unmask.base.types import Cache, Denoiser
from unmask.denoisers.checks import lawful

LOWEST = -1e30
"""The least log-probability, before normalising, of a symbol that is possible: finite in float32."""


@dataclass(frozen=True)
class Wrapped:
    """A denoiser whose law is ``change`` of those of its ``parts``, each [.., V], to one normalised [.., V].

    ``full`` and ``partial`` are forwarded to every part; the parts share one vocabulary. ``normalised`` says that the
    result sums to one whenever the parts do.
    """

    parts: tuple[Denoiser, ...]
    change: Callable[..., Tensor]
    name: str = "wrapped"
    normalised: bool = field(default=False, kw_only=True)

    @property
    def mask_id(self) -> int:
        """Symbol id of the mask."""
        return self.parts[0].mask_id

    @property
    def vocab_size(self) -> int:
        """Number of symbols."""
        return self.parts[0].vocab_size

    def __call__(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        """Changed log-probabilities float [B, R, V] at rows; a network call for each part."""
        laws = (part(tokens, rows, time=time) for part in self.parts)
        return self._changed(laws, tokens, rows)

    def full(
        self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None
    ) -> tuple[Tensor, Cache]:
        """As a call, and the caches of the parts."""
        found = [part.full(tokens, rows, time=time) for part in self.parts]
        laws = (law for law, _ in found)
        return self._changed(laws, tokens, rows), tuple(cache for _, cache in found)

    def partial(self, tokens: Tensor, rows: Tensor, cache: Cache, *, time: Tensor | None = None) -> Tensor:
        """Changed log-probabilities at rows after partial passes of the parts."""
        pairs = zip(self.parts, cache)
        laws = (part.partial(tokens, rows, kept, time=time) for part, kept in pairs)
        return self._changed(laws, tokens, rows)

    def _changed(self, laws: Iterable[Tensor], tokens: Tensor, rows: Tensor | None) -> Tensor:
        """``change`` of the laws of the parts, each checked where its part does not vouch for it."""
        asked = tokens if rows is None else rows
        return self.change(*(lawful(law, tokens, asked, part) for law, part in zip(laws, self.parts)))


def tempered(denoiser: Denoiser, temperature: float) -> Denoiser:
    """The law proportional to p^(1/temperature) at every position; temperature 1 changes nothing.

    The exponent beta of the moment sampler (arXiv 2510.04525) is 1/temperature.
    """
    temperature = real(temperature, "temperature")
    if not 1e-30 <= temperature <= 1e30:
        raise ValueError(
            f"temperature {temperature}: expected a positive number (1e-30 to 1e30); for the arg-max use source=greedy"
        )
    if temperature == 1:
        return denoiser

    def change(law: Tensor) -> Tensor:
        return _renormalised((law - law.amax(-1, keepdim=True)).div_(temperature), law)

    return Wrapped(
        (denoiser,), change, f"tempered({denoiser_name(denoiser)}, {temperature})", normalised=True
    )


def nucleus(denoiser: Denoiser, p: float) -> Denoiser:
    """The law kept to the smallest set of symbols that holds at least probability p, renormalised (top-p).

    The symbol that crosses p is kept; equally probable symbols are taken lowest id first.
    """
    p = real(p, "p")
    if not 0 < p <= 1:
        raise ValueError(f"p {p}: expected 0 < p <= 1")
    if p == 1:
        return denoiser
    return Wrapped(
        (denoiser,), lambda law: _top_p(law, p), f"nucleus({denoiser_name(denoiser)}, {p})", normalised=True
    )


def _top_p(log_probs: Tensor, p: float) -> Tensor:
    """log_probs [.., V] outside the nucleus set to -inf, renormalised."""
    values, order = log_probs.sort(dim=-1, descending=True, stable=True)
    before = values.exp().cumsum(dim=-1) - values.exp()
    beyond = before >= p
    beyond[..., 0] = False  # also where p is too small for the dtype
    dropped = torch.empty_like(beyond).scatter_(-1, order, beyond)
    return torch.log_softmax(log_probs.masked_fill(dropped, -torch.inf), dim=-1)


def guided(denoiser: Denoiser, other: Denoiser, scale: float) -> Denoiser:
    """Classifier-free guidance of a denoiser (conditional) away from another (unconditional); scale 0 changes nothing.

    Log-probabilities (1 + scale) log p - scale log other, normalised (Ho and Salimans, arXiv 2207.12598). A symbol that the
    other forbids has no ratio and keeps log p: what is possible is the denoiser's to say.
    """
    scale = real(scale, "scale", -1e30, 1e30)
    if denoiser.mask_id != other.mask_id or denoiser.vocab_size != other.vocab_size:
        raise ValueError(
            f"the denoisers differ in mask_id ({denoiser.mask_id}, {other.mask_id}) or vocab_size "
            f"({denoiser.vocab_size}, {other.vocab_size}); expected the same vocabulary"
        )

    def change(ours: Tensor, theirs: Tensor) -> Tensor:
        undefined = (ours == -torch.inf) | (theirs == -torch.inf)
        ratio = torch.where(undefined, 0.0, ours - theirs)
        return _renormalised(ours + scale * ratio, ours)

    return Wrapped(
        (denoiser, other),
        change,
        f"guided({denoiser_name(denoiser)}, {denoiser_name(other)}, {scale})",
        normalised=True,
    )


def denoiser_name(denoiser: Denoiser) -> str:
    """What a denoiser is called in manifests: wrappers say their settings."""
    return str(getattr(denoiser, "name", type(denoiser).__name__))


def _renormalised(logits: Tensor, law: Tensor) -> Tensor:
    """Fresh logits [.., V] normalised, -inf exactly where ``law`` is: elsewhere kept in a range that floats hold."""
    kept = logits.clamp_(LOWEST, -LOWEST).masked_fill_(law == -torch.inf, -torch.inf)
    return torch.log_softmax(kept, dim=-1)


def passes(denoiser: Denoiser) -> int:
    """How many networks one call of a denoiser runs: 1, and one more for each guidance."""
    parts = getattr(denoiser, "parts", None)
    return 1 if parts is None else sum(map(passes, parts))


def networks(denoiser: Denoiser) -> tuple[torch.nn.Module, ...]:
    """The modules that a denoiser runs, under all wrappers; none for an exact law."""
    inside = [getattr(denoiser, name, None) for name in ("network", "base")]
    inside += list(getattr(denoiser, "parts", ()))
    parts = [(x,) if isinstance(x, torch.nn.Module) else networks(x) for x in inside if x is not None]
    return tuple(module for part in parts for module in part)


def untempered(denoiser: Denoiser) -> tuple[Denoiser, Callable[[Tensor], Tensor]]:
    """What lies under all wrappers of one part, and the change from its log-probabilities to the wrapped ones."""
    if not isinstance(denoiser, Wrapped) or len(denoiser.parts) > 1:
        return denoiser, lambda log_probs: log_probs
    root, inner = untempered(denoiser.parts[0])
    return root, lambda log_probs: denoiser.change(inner(log_probs))


def certain(denoiser: Denoiser) -> bool:
    """Whether the wrappers of one part give laws that sum to one whenever what lies under them does."""
    if not isinstance(denoiser, Wrapped) or len(denoiser.parts) > 1:
        return True
    return denoiser.normalised and certain(denoiser.parts[0])
