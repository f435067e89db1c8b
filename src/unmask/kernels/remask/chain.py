"""Where is a chain of kernels, and how does one run from the prompt to the last symbol?"""

from __future__ import annotations

import time as clock
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from unmask.base import noise
from unmask.base.numbers import tensor
from unmask.base.types import Denoiser, Info, Result
from unmask.denoisers import check_tokens
from unmask.engine.sampling import Each, manifest, took
from unmask.orders.sources import draw


@dataclass(frozen=True)
class Chain:
    """Where kernels are, every field per row of the batch: tokens int64 [B, L], what is masked, and what is ``free`` to be
    hidden, bool [B, L].

    ``certainty`` float64 [B, L] is the probability with which each symbol was unmasked, +inf where masked or never unmasked
    by a kernel; ``item_ids`` int64 [B] name the rows to their noise; ``nfe`` float64 [B].
    """

    tokens: Tensor
    masked: Tensor
    free: Tensor
    certainty: Tensor
    item_ids: Tensor
    nfe: Tensor
    step: int = 0


Kernel: TypeAlias = Callable[[Chain, Denoiser, int], tuple[Chain, tuple[Info, ...]]]
"""One step: (state, denoiser, seed) -> the next state and what was done to it."""


def sample(
    denoiser: Denoiser,
    tokens: Tensor,
    kernels: Iterable[Kernel],
    *,
    generator: torch.Generator,
    prompt: Tensor | None = None,
    item_ids: Tensor | None = None,
    each: Each | None = None,
) -> Result:
    """Runs the kernels one after the other on tokens int64 [B, L]; log_prob [B] is NaN.

    ``prompt`` bool [B, L] marks what must stay, by default all that is visible; give less to correct a
    complete sequence. Noise belongs to ``item_ids`` as in `unmask.sample`. A trace entry with symbol
    ``mask_id`` says which positions were hidden again. ``each`` hears of every step as in `unmask.sample`.
    ValueError if positions are still masked after the last kernel.
    """
    began = clock.perf_counter()
    check_tokens(tokens, denoiser, masks=True)
    seed = noise.drawn_seed(generator)
    state, trace, names = start(tokens, denoiser.mask_id, prompt, item_ids), list[Info](), Counter[str]()
    for kernel in kernels:
        names[getattr(kernel, "__name__", "kernel")] += 1
        state, infos = kernel(state, denoiser, seed)
        trace.extend(infos)
        if each is not None:
            for info in infos:
                each(info, state.tokens.clone())
    if state.masked.any():
        raise ValueError(
            f"{int(state.masked.sum())} positions are masked after the last kernel; expected none: "
            "end with the last step of remdm or p2"
        )
    record = manifest(denoiser, tokens, sample, draw, 1, seed) | took(began, trace, state.tokens)
    record["selector"] = ", ".join(f"{count} x {name}" for name, count in names.items())
    return Result(state.tokens, torch.full_like(state.nfe, torch.nan), state.nfe, tuple(trace), record)


def start(
    tokens: Tensor, mask_id: int, prompt: Tensor | None = None, item_ids: Tensor | None = None
) -> Chain:
    """The chain before the first kernel; ``prompt`` and ``item_ids`` as in `sample`."""
    masked = tokens == mask_id
    given = ~masked if prompt is None else tensor(prompt, "prompt")
    if given.shape != tokens.shape or given.dtype != torch.bool or bool((given & masked).any()):
        raise ValueError(
            f"prompt of dtype {given.dtype} and shape {list(given.shape)}: expected bool {list(tokens.shape)}, "
            "True at visible positions only"
        )
    places = torch.arange(len(tokens), device=tokens.device)
    items = noise.checked_ids(item_ids, tokens, places, "item_ids")
    unknown = torch.full(tokens.shape, torch.inf, dtype=torch.float64, device=tokens.device)
    nfe = torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
    return Chain(tokens, masked, ~given, unknown, items, nfe)
