"""What is the training loss of masked diffusion, and what does a denoiser pay for hidden symbols?

The bound of short sequences, exactly, is in `enumeration`; `unmask.nelbo` estimates the same number for any length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unmask.base.numbers import real
from unmask.base.types import Denoiser
from unmask.denoisers import ask, masked_rows, take_symbols


def masked_cross_entropy(logits: Tensor, tokens: Tensor, masked: Tensor, weight: Tensor) -> Tensor:
    """Mean over the batch of weight [B] (or [B, L]) times the summed cross-entropy of masked positions, nats per position.

    logits float [B, L, V], tokens int64 [B, L] (clean), masked bool [B, L]. Visible positions cost nothing. With the
    weights of `unmask.masking.corruption` it is an unbiased estimate of the bound, divided by L.
    """
    losses = F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten(), reduction="none").view(
        tokens.shape
    )
    weights = (weight if weight.ndim == 2 else weight[:, None]).to(losses.dtype)
    return (torch.where(masked, losses, 0.0) * weights).sum(1).mean() / tokens.shape[1]


def cross_entropies(denoiser: Denoiser, tokens: Tensor, masked: Tensor) -> Tensor:
    """-log p of the masked symbols given the visible ones, float64 [B, L], nats; 0 at visible positions.

    tokens int64 [B, L] (clean), masked bool [B, L]; the denoiser is asked for masked rows only.
    """
    rows, marked = masked_rows(masked)
    log_probs = ask(denoiser, tokens.masked_fill(masked, denoiser.mask_id), rows, marked >= 0)
    losses = -take_symbols(log_probs, tokens.gather(1, rows)).double()
    return torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device).scatter_(
        1, rows, torch.where(marked < 0, 0.0, losses)
    )


def concrete_scores(log_probs: Tensor, alpha: float) -> Tensor:
    """Ratios q_t(x with symbol j at i) / q_t(x with the mask at i) from log_probs [.., V]: alpha / (1 - alpha) mu_j.

    What score-based models (SEDD, arXiv 2310.16834) learn; the sum over j is alpha / (1 - alpha) (MD4, arXiv 2406.04329).
    """
    alpha = real(alpha, "alpha")
    if not 0 <= alpha < 1:
        raise ValueError(
            f"alpha {alpha}: expected 0 <= alpha < 1, for where all is visible nothing has a ratio"
        )
    return log_probs.exp() * (alpha / (1 - alpha))
