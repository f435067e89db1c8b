"""Wrappers: whatever changes the law is a denoiser around a denoiser, so likelihood and code length follow the sampler.

What the wrapped law forbids stays forbidden, at exactly -inf, and no NaN appears, whatever the setting: the base decides
what is possible, and `forbidding` takes from it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmask.base.numbers import listed, real, shown, whole
from unmask.base.types import Cache, Denoiser
from unmask.denoisers.checks import lawful

LOWEST = -1e30
"""The least log-probability, before normalising, of a symbol that is possible: finite in float32."""


@dataclass(frozen=True)
class Wrapped:
    """A denoiser whose law is ``change`` of those of its ``parts``, each [.., V], to one normalised [.., V].

    ``full`` and ``partial`` are forwarded to every part; the parts share one vocabulary. ``normalised`` says that the
    result sums to one whenever the parts do. With ``placed``, ``change`` is also given tokens [B, L] and rows (or None).
    """

    parts: tuple[Denoiser, ...]
    change: Callable[..., Tensor]
    name: str = "wrapped"
    normalised: bool = field(default=False, kw_only=True)
    placed: bool = field(default=False, kw_only=True)

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
        checked = (lawful(law, tokens, asked, part) for law, part in zip(laws, self.parts))
        return self.applied(tuple(checked), tokens, rows)

    def applied(self, laws: tuple[Tensor, ...], tokens: Tensor, rows: Tensor | None) -> Tensor:
        """``change`` of laws [B, R, V] at rows; where a part leaves no symbol, none comes back."""
        where = (tokens, rows) if self.placed else ()
        changed = self.change(*laws, *where)
        for law, part in zip(laws, self.parts):
            if not certain(part):
                changed = changed.masked_fill(law.amax(-1, keepdim=True) == -torch.inf, -torch.inf)
        return changed


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


def forbidding(denoiser: Denoiser, symbols: object) -> Denoiser:
    """The law without some symbols, renormalised: likelihood, bounds and codes follow.

    ``symbols`` are ids, for all positions, or a map that is True where forbidden: bool [vocab], or [length, vocab] for each
    position its own. ValueError where a position keeps no symbol at all. Where the denoiser leaves only forbidden ones at a
    masked position, given what is visible, that is an error of the call that meets it; at a visible position, whose symbol
    is given, the law then stays as it was.
    """
    hidden = _map_of(symbols, denoiser.vocab_size)
    if not hidden.any():
        return denoiser
    weights = torch.zeros(hidden.shape, dtype=torch.float64).masked_fill(hidden, -torch.inf)
    ids = hidden.nonzero()[:, -1].tolist()
    setting = str(ids) if hidden.ndim == 1 and len(ids) <= _FEW else f"{len(ids)} of {_size(hidden)}"
    return _weighted(denoiser, weights, f"forbidding({denoiser_name(denoiser)}, {setting})")


def biased(denoiser: Denoiser, log_weights: object) -> Denoiser:
    """The law times exp(log_weights), renormalised; a constant added to the weights changes nothing.

    ``log_weights`` float [vocab], in nats, for all positions, or [length, vocab] for each its own; -inf forbids, as in
    `forbidding`.
    """
    try:
        weights = torch.as_tensor(log_weights, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"log_weights {shown(log_weights)}: expected numbers [vocab] or [length, vocab]"
        ) from None
    if not _fits(weights, denoiser.vocab_size) or bool((weights.isnan() | (weights == torch.inf)).any()):
        raise ValueError(
            f"log_weights {shown(log_weights)}: expected numbers [{denoiser.vocab_size}], or [length, "
            f"{denoiser.vocab_size}], finite or -inf"
        )
    return _weighted(denoiser, weights, f"biased({denoiser_name(denoiser)}, {_size(weights)})")


_FEW = 8
"""Forbidden symbols that a name lists."""


def _size(values: Tensor) -> str:
    """What stands for a map or weights in a name: their shape and a checksum."""
    return f"{'x'.join(map(str, values.shape))} #{zlib.crc32(values.contiguous().numpy().tobytes()):08x}"


def _fits(values: Tensor, size: int) -> bool:
    """Whether values are [vocab] or [length, vocab]."""
    return values.ndim in (1, 2) and values.shape[-1] == size and values.numel() > 0


def _map_of(symbols: Any, size: int) -> Tensor:
    """What is forbidden, bool [vocab] or [length, vocab]; ValueError for what is neither ids nor such a map."""
    if isinstance(symbols, set | frozenset | range):
        symbols = sorted(symbols)
    if isinstance(symbols, torch.Tensor | np.ndarray | list | tuple) and len(symbols):
        found = _tensor(symbols)
        if found is not None and found.dtype == torch.bool and _fits(found, size):
            return found.cpu()
        if found is None or found.dtype == torch.bool or found.ndim != 1:
            raise ValueError(_SYMBOLS.format(shown(symbols), size))
    ids = listed(symbols, "symbols")
    if ids is None:
        raise ValueError(_SYMBOLS.format(shown(symbols), size))
    hidden = torch.zeros(size, dtype=torch.bool)
    hidden[[whole(v, "symbol", 0, size - 1) for v in ids]] = True
    return hidden


_SYMBOLS = "symbols {0}: expected ids, or a bool map [{1}] or [length, {1}], True where forbidden"


def _tensor(values: Any) -> Tensor | None:
    """The values as a tensor, or None where they are none."""
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        return None


def _weighted(denoiser: Denoiser, weights: Tensor, name: str) -> Denoiser:
    """The law times exp(weights), float64 [vocab] or [length, vocab]; ValueError where they leave no symbol."""
    data = torch.arange(denoiser.vocab_size) != denoiser.mask_id
    best = weights[..., data].amax(-1, keepdim=True)
    if (lost := (best == -torch.inf).view(-1)).any():
        where = "" if weights.ndim == 1 else f" at position {int(lost.nonzero()[0])}"
        raise ValueError(f"{name} forbids every symbol{where}; expected at least one that stays possible")
    table = torch.where(weights == -torch.inf, weights, (weights - best).clamp(min=LOWEST))
    forbids = bool((table == -torch.inf).any())

    def change(law: Tensor, tokens: Tensor, rows: Tensor | None) -> Tensor:
        weighed = law + _at(table.to(law.device, law.dtype), tokens, rows)
        changed = _renormalised(weighed.clone(), weighed)
        if not forbids:
            return changed
        seen = (tokens if rows is None else tokens.gather(1, rows)) != denoiser.mask_id
        lost = (weighed.amax(-1) == -torch.inf)[..., None]
        return torch.where(lost, torch.where(seen[..., None], law, -torch.inf), changed)

    return Wrapped((denoiser,), change, name, normalised=not forbids, placed=True)


def _at(table: Tensor, tokens: Tensor, rows: Tensor | None) -> Tensor:
    """The weights [.., V] of rows: one law for all positions, or each its own."""
    if table.ndim == 1:
        return table
    if len(table) != tokens.shape[1]:
        raise ValueError(
            f"a map or weights for {len(table)} positions met tokens of length {tokens.shape[1]}; expected the same"
        )
    return table if rows is None else table[rows]


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


Changed = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From log_probs [B, R, V] of tokens [B, L] at rows [B, R] to the wrapped ones."""


def untempered(denoiser: Denoiser) -> tuple[Denoiser, Changed]:
    """What lies under all wrappers of one part, and the change from its log-probabilities to the wrapped ones."""
    if not isinstance(denoiser, Wrapped) or len(denoiser.parts) > 1:
        return denoiser, lambda log_probs, *_: log_probs
    root, inner = untempered(denoiser.parts[0])
    return root, lambda law, tokens, rows: denoiser.applied((inner(law, tokens, rows),), tokens, rows)


def certain(denoiser: Denoiser) -> bool:
    """Whether the wrappers of one part give laws that sum to one whenever what lies under them does."""
    if not isinstance(denoiser, Wrapped) or len(denoiser.parts) > 1:
        return True
    return denoiser.normalised and certain(denoiser.parts[0])
