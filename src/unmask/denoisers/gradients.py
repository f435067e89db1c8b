"""Gradients of a law in the parameters of its networks, for those who train by likelihood or reward."""

from __future__ import annotations

from dataclasses import replace

import torch

from unmask.base.types import Denoiser
from unmask.denoisers.caches import Blocks
from unmask.denoisers.contract import NetworkDenoiser
from unmask.denoisers.wrappers import Wrapped


def differentiable(denoiser: Denoiser, *, recompute: bool = False) -> Denoiser:
    """The same law, whose log-probabilities carry gradients in the parameters of the networks under its wrappers.

    Networks run in evaluation mode as ever (no dropout). Each call keeps its activations until ``backward``; with
    ``recompute`` it keeps its tokens only, and ``backward`` runs the network once more for each call
    (`torch.utils.checkpoint`). A denoiser of one's own gives what gradients it gives; exact laws have none. ValueError
    where torch records no gradients, and for block caches, which remember what was computed before.
    """
    if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        raise ValueError(
            "torch records no gradients here; expected a call outside no_grad and inference_mode"
        )
    return _recorded(denoiser, recompute)


def _recorded(denoiser: Denoiser, recompute: bool) -> Denoiser:
    if isinstance(denoiser, NetworkDenoiser):
        return replace(denoiser, gradients="recomputed" if recompute else "kept")
    if isinstance(denoiser, Wrapped):
        return replace(denoiser, parts=tuple(_recorded(part, recompute) for part in denoiser.parts))
    if isinstance(denoiser, Blocks):
        raise ValueError("gradients do not pass through caches; expected a denoiser without caches.blocks")
    return denoiser
