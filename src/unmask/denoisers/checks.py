"""What a denoiser says is checked where it enters: whoever wrote it, a wrong number is an error and not a score."""

from __future__ import annotations

import torch
from torch import Tensor

from unmask.base.numbers import tensor
from unmask.base.types import Denoiser

TOLERANCE = 1e-3
"""How far the log of a law's sum may lie from 0, nats: float32 stays far below at any vocabulary."""


def ask(
    denoiser: Denoiser,
    tokens: Tensor,
    rows: Tensor,
    valid: Tensor | None = None,
    *,
    time: Tensor | None = None,
) -> Tensor:
    """Log-probabilities [B, k, V] of a denoiser at rows int64 [B, k], checked by `lawful`."""
    extra = {} if time is None else {"time": time}
    return lawful(denoiser(tokens, rows, **extra), tokens, rows, denoiser, valid)


def ask_everywhere(
    denoiser: Denoiser, tokens: Tensor, valid: Tensor | None = None, *, time: Tensor | None = None
) -> Tensor:
    """Log-probabilities [B, L, V] of a denoiser at all positions, those of ``valid`` bool [B, L] checked by `lawful`."""
    extra = {} if time is None else {"time": time}
    place = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
    return lawful(denoiser(tokens, **extra), tokens, place, denoiser, valid)


def lawful(
    log_probs: Tensor, tokens: Tensor, rows: Tensor, denoiser: Denoiser, valid: Tensor | None = None
) -> Tensor:
    """The log-probabilities of a denoiser at rows [B, k] if they are a law at each of ``valid`` bool [B, k] (None: all).

    ValueError on another shape, dtype or device, on NaN, where they do not sum to one, and where no symbol is possible.
    The sums are added up only where the denoiser does not vouch for them (its attribute ``normalised``).
    """
    shaped(log_probs, tokens, rows, denoiser)
    if not vouched(denoiser):
        totals, wrong = unlawful(log_probs, valid)
        if wrong.any():
            raise ValueError(complaint(log_probs, totals, rows, wrong))
    return log_probs


def unlawful(log_probs: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The log of the sum of each law, nats [B, k], and where that is not near 0 among ``valid``, bool [B, k]."""
    flat = log_probs.reshape(-1, log_probs.shape[-1])  # a few rows at a time, which stay in the cache
    sums = [part.exp().sum(-1) for part in torch.split(flat, max(1, 2**18 // flat.shape[-1]))]
    totals = torch.cat(sums).log().view(log_probs.shape[:-1])
    wrong = ~(totals.abs() <= TOLERANCE)  # NaN is wrong too
    return totals, wrong if valid is None else wrong & valid


def shaped(log_probs: Tensor, tokens: Tensor, rows: Tensor, denoiser: Denoiser) -> Tensor:
    """The log-probabilities of a denoiser if they are floats [B, k, V] where the tokens are; shapes only."""
    if not isinstance(log_probs, Tensor) or log_probs.shape != (*rows.shape, denoiser.vocab_size):
        found = list(log_probs.shape) if isinstance(log_probs, Tensor) else type(log_probs).__name__
        raise ValueError(
            f"the denoiser returned shape {found}; expected {[*rows.shape, denoiser.vocab_size]}, "
            "log-probabilities of the data symbols at the rows it was asked for"
        )
    if log_probs.dtype not in (torch.float32, torch.float64) or log_probs.device != tokens.device:
        raise ValueError(
            f"the denoiser returned {log_probs.dtype} on {log_probs.device}; expected float32 or float64 "
            f"on {tokens.device}, for other dtypes hold no law: convert before the softmax"
        )
    return log_probs


def vouched(denoiser: Denoiser) -> bool:
    """Whether its laws sum to one by construction: networks under `from_logits`, exact laws, and our wrappers, which check
    their parts."""
    return bool(getattr(denoiser, "normalised", False))


def complaint(log_probs: Tensor, totals: Tensor, rows: Tensor, wrong: Tensor) -> str:
    """What is wrong with the first wrong row."""
    item, place = wrong.nonzero()[0].tolist()
    where = f"at row {item}, position {int(rows[item, place])}"
    if log_probs[item, place].isnan().any():
        return f"the denoiser returned NaN; expected log-probabilities ({where}): check its weights and its inputs"
    total = float(totals[item, place])
    if total == -torch.inf:
        return f"no symbol is possible {where}: every log-probability is -inf; expected at least one above"
    return (
        f"the denoiser's probabilities sum to e^{total:.4g} {where}; expected 1: "
        "give log_softmax of its values, or wrap a network in unmask.from_logits"
    )


def check_tokens(tokens: Tensor, denoiser: Denoiser, *, masks: bool) -> None:
    """ValueError unless tokens are int64 [B, L] data symbols (or, with ``masks``, the mask)."""
    if tensor(tokens, "tokens").dtype != torch.int64 or tokens.ndim != 2:
        raise ValueError(
            f"tokens have dtype {tokens.dtype} and shape {list(tokens.shape)}; expected int64 [batch, length]"
        )
    if tokens.is_meta:
        raise ValueError("tokens are on the meta device, without values; expected tokens on a real one")
    symbol = (tokens >= 0) & (tokens < denoiser.vocab_size) & (tokens != denoiser.mask_id)
    good = symbol | (tokens == denoiser.mask_id) if masks else symbol
    if not good.all():
        row, column = (~good).nonzero()[0].tolist()
        allowed = f"0..{denoiser.vocab_size - 1}" + (
            f" or the mask {denoiser.mask_id}" if masks else ", no masks"
        )
        raise ValueError(
            f"token {int(tokens[row, column])} at row {row}, position {column}; expected symbols {allowed}"
        )


def checked_visible(visible: Tensor | None, tokens: Tensor) -> Tensor:
    """The prompt as bool [B, L], nothing for None; ValueError on another shape or dtype."""
    if visible is None:
        return torch.zeros_like(tokens, dtype=torch.bool)
    if tensor(visible, "visible").dtype != torch.bool or visible.shape != tokens.shape:
        raise ValueError(
            f"visible has dtype {visible.dtype} and shape {list(visible.shape)}; expected bool {list(tokens.shape)}"
        )
    return visible
