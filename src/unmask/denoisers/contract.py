"""Networks under the contract of `types.Denoiser`: adapted once, here, and checked at each call by shapes alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unmask.base.numbers import whole
from unmask.base.types import Cache
from unmask.denoisers.heads import Head, asking, head_of
from unmask.denoisers.modes import evaluating
from unmask.denoisers.rows import take_rows
from unmask.denoisers.signature import layers, name_of, settle


@dataclass(frozen=True)
class NetworkDenoiser:
    """A network ``(tokens, rows=None) -> logits`` as a denoiser; made by `from_logits`.

    ``head`` is for networks that take no rows: what runs at the asked ones only, where that is shown to be the same.
    """

    network: Any
    mask_id: int
    vocab_size: int
    takes_time: bool = False
    takes_rows: bool = True
    head: Head | None = field(default=None, compare=False)
    gradients: Literal["none", "kept", "recomputed"] = "none"
    """Whether laws carry gradients, see `gradients.differentiable`; then no head runs alone, and there are no caches."""

    normalised = True
    """Its laws sum to one by construction (see `checks.ask`)."""

    def __call__(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        """Log-probabilities float [B, R, V] at rows."""
        if self.gradients == "recomputed":
            return checkpoint(  # type: ignore[no-any-return]
                self._with_gradients, tokens, rows, time, use_reentrant=False, preserve_rng_state=False
            )
        if self.gradients == "kept":
            return self._with_gradients(tokens, rows, time)
        stored = torch.is_inference_mode_enabled()
        with torch.inference_mode(), evaluating(self.network):
            logits = self._logits_at(tokens, rows, time)
            return self._normalised(logits, tokens, tokens if rows is None else rows, stored)

    def full(
        self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None
    ) -> tuple[Tensor, Cache]:
        """As a call, and the network's cache for `partial`."""
        stored, network = torch.is_inference_mode_enabled(), self._caching()
        with torch.inference_mode(), evaluating(network):
            logits, cache = network.full(tokens, rows, **self._time(time))
            return self._normalised(logits, tokens, tokens if rows is None else rows, stored), cache

    def partial(self, tokens: Tensor, rows: Tensor, cache: Cache, *, time: Tensor | None = None) -> Tensor:
        """Log-probabilities at rows after running only them against the cache."""
        stored, network = torch.is_inference_mode_enabled(), self._caching()
        with torch.inference_mode(), evaluating(network):
            logits = network.partial(tokens, rows, cache, **self._time(time))
            return self._normalised(logits, tokens, rows, stored)

    def _with_gradients(self, tokens: Tensor, rows: Tensor | None, time: Tensor | None) -> Tensor:
        """As a call, differentiable in the network's parameters: nothing is overwritten."""
        with evaluating(self.network):
            logits = self._logits_at(tokens, rows, time)
        self._check(logits, tokens, tokens if rows is None else rows)
        kept = logits[..., : self.vocab_size]
        return log_normalised(kept if kept.dtype == torch.float64 else kept.float(), self.mask_id)

    def _logits_at(self, tokens: Tensor, rows: Tensor | None, time: Tensor | None) -> Tensor:
        """Logits [B, R, ..] at rows: by the network's own ``rows``, by its head at those alone, or of all, gathered."""
        if self.takes_rows or rows is None:
            return self._run(tokens, time, **({"rows": rows} if self.takes_rows else {}))
        if self.head is not None and self.gradients == "none":
            run, symbols = self._run_as_asked, (self.mask_id, self.vocab_size)
            logits = self.head.at(run, tokens, rows, time, symbols)
            if logits is not None:
                return logits
        logits = self._run(tokens, time)
        self._check(logits, tokens, tokens)
        return take_rows(logits, rows)

    def _run(self, tokens: Tensor, time: Tensor | None, **extra: Tensor | None) -> Tensor:
        """The network's logits; no hook of ours acts within."""
        with asking(None):
            return self._run_as_asked(tokens, time, **extra)

    def _run_as_asked(self, tokens: Tensor, time: Tensor | None, **extra: Tensor | None) -> Tensor:
        return _logits_of(self.network, tokens, **extra, **self._time(time))

    def _time(self, time: Tensor | None) -> dict[str, Tensor]:
        return {"time": time} if self.takes_time and time is not None else {}

    def _caching(self) -> Any:
        """The network, or what a wrapper such as DataParallel holds, that has `full` and `partial`."""
        if self.gradients != "none":
            raise ValueError("gradients do not pass through caches; expected substeps=1 and no block cache")
        for network in layers(self.network):
            if hasattr(network, "partial") and hasattr(network, "full"):
                return network
        raise ValueError(
            f"{name_of(self.network)} has no `full` and `partial`; use substeps=1, or give it partial passes"
        )

    def _normalised(self, logits: Tensor, tokens: Tensor, rows: Tensor, stored: bool) -> Tensor:
        """Log-probabilities of the data symbols; ValueError on NaN or another shape.

        Logits made by this call, which inference tensors are unless the caller was in that mode too
        (``stored``: they may be the network's own), are overwritten.
        """
        self._check(logits, tokens, rows)
        kept = logits if logits.shape[-1] == self.vocab_size else logits[..., : self.vocab_size]
        kept = kept if kept.dtype == torch.float64 else kept.float()
        own = kept.is_inference() and not stored
        return log_normalise_(kept if own else kept.clone(), self.mask_id)

    def _check(self, logits: Tensor, tokens: Tensor, rows: Tensor) -> None:
        """ValueError unless logits are floating [B, R, at least V] for rows [B, R], where the tokens are; shapes only."""
        if logits.ndim and logits.shape[-1] < self.vocab_size:
            raise ValueError(
                f"{name_of(self.network)} gave {logits.shape[-1]} logits; expected vocab_size {self.vocab_size} or more"
            )
        fits = logits.ndim == 3 and logits.shape[:2] == rows.shape
        if not fits or not logits.is_floating_point() or logits.device != tokens.device:
            raise ValueError(
                f"{name_of(self.network)} gave {_kind(logits)} for {rows.shape[1]} positions of {len(tokens)} sequences; "
                f"expected floating logits {[*rows.shape, self.vocab_size]} (the last at least) on {tokens.device}"
            )


def log_normalise_(logits: Tensor, forbidden: int | None = None) -> Tensor:
    """Subtracts the log of the sum of exponentials along the last axis, in place, a few rows at a time.

    The symbol ``forbidden``, if it lies within, gets probability zero. Working in slices keeps the peak memory at one copy
    of the logits. ValueError when a row has no finite sum: all of it is NaN then. That is asked once, whatever the number
    of slices.
    """
    size = logits.shape[-1]
    flat = logits.view(-1, size) if logits.is_contiguous() else logits.reshape(-1, size)
    if forbidden is not None and forbidden < size:
        flat[:, forbidden] = -torch.inf
    rows = max(1, 2**18 // max(1, size))
    for part in [flat] if len(flat) <= rows else torch.split(flat, rows):
        _normalise_(part)
    _check_numbers(flat)
    return flat.view(logits.shape)


def _normalise_(flat: Tensor) -> None:
    """log_softmax in place. That torch's own may write over what it reads was tried on the CPU, and is not promised."""
    if flat.device.type == "cpu":
        torch.log_softmax(flat, -1, out=flat)
    else:
        flat.copy_(torch.log_softmax(flat, -1))


def log_normalised(logits: Tensor, forbidden: int | None = None) -> Tensor:
    """The same as `log_normalise_`, into new memory, with gradients."""
    if forbidden is not None and forbidden < logits.shape[-1]:
        logits = logits.index_fill(-1, torch.tensor([forbidden], device=logits.device), -torch.inf)
    law = torch.log_softmax(logits, dim=-1)
    _check_numbers(law.detach().flatten(0, -2))
    return law


def _check_numbers(flat: Tensor) -> None:
    """ValueError if normalising log-probabilities [n, V] left NaN."""
    if flat.shape[1] and math.isnan(flat[:, 0].sum().item()):  # of numbers up to 0
        raise ValueError(
            "the network returned NaN or infinite logits; expected finite numbers: check its weights and inputs"
        )


def from_logits(
    network: Callable[..., Any],
    mask_id: int,
    vocab_size: int,
    *,
    timed: bool | None = None,
    with_rows: bool | None = None,
    head: nn.Module | bool | None = None,
) -> NetworkDenoiser:
    """A denoiser from a network ``(tokens int64 [B, L], rows=None) -> logits [B, R, >= vocab_size]``.

    The first ``vocab_size`` logits are kept, the mask's own gets probability zero when it lies among them. An output with a
    tensor ``logits`` counts as that. A network with a keyword ``time`` receives it, unless its attribute ``timed`` is
    False; one without ``rows`` is evaluated everywhere and gathered. Both are read off the signature, through compiled,
    parallel and partial wrappers; where it does not tell, ``timed`` and ``with_rows`` say it. The network always runs in
    evaluation mode, and its modules are put back into their own. There are no gradients; see `gradients.differentiable`.

    Of a network without ``rows``, the output head alone runs at the asked rows, if the network tells it (``head`` does, or
    the method ``get_output_embeddings`` of transformers) and a probe at the first such call, and after each change of the
    weights, gives its own logits; otherwise, and if it is compiled, it runs in full. Hooks of others on the head see those
    rows. ``head=False`` asks for none of this; ``denoiser.head.why`` says why a network runs in full.
    """
    mask_id, vocab_size = whole(mask_id, "mask_id", 0), whole(vocab_size, "vocab_size", 1)
    if not callable(network):
        raise ValueError(f"network {type(network).__name__}: expected a module or function of tokens")
    takes_time, takes_rows = settle(network, timed, with_rows)
    if takes_rows and isinstance(head, nn.Module):
        raise ValueError(
            f"head {name_of(head)}: {name_of(network)} takes rows itself; leave head out, or say with_rows=False"
        )
    found = head_of(network, head)
    return NetworkDenoiser(
        network, mask_id, vocab_size, takes_time, takes_rows, None if takes_rows else found
    )


def _logits_of(network: Callable[..., Any], tokens: Tensor, **extra: Tensor | None) -> Tensor:
    """The logits that a network gives, or the ``logits`` of its output; ValueError for other outputs and devices."""
    try:
        output = network(tokens, **extra)
    except RuntimeError as error:
        if "device" not in str(error).lower():
            raise
        raise ValueError(
            f"{name_of(network)} does not run on tokens of device {tokens.device} ({_line(error)}); "
            "expected both on one device: move either with .to(..)"
        ) from error
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise ValueError(
            f"{name_of(network)} returned {type(output).__name__}; expected a tensor of logits, or an output "
            "with one as .logits: wrap it in a function that picks it"
        )
    return logits


def _line(error: Exception) -> str:
    """The first line of a message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _kind(tensor: Tensor) -> str:
    """Dtype, shape and device of a tensor."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} on {tensor.device}"
