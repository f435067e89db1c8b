"""`sample`: unmask the hidden positions of a batch of sequences."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unmask import engine
from unmask.base import noise
from unmask.base.types import Choice, Denoiser, Info, Result, Selector, TokenSource, View
from unmask.denoisers import denoiser_name, networks
from unmask.orders.sources import draw
from unmask.version import __version__


def sample(
    denoiser: Denoiser,
    tokens: Tensor,
    selector: Selector | Callable[[View], Choice],
    *,
    generator: torch.Generator,
    source: TokenSource = draw,
    substeps: int = 1,
    order_ids: Tensor | None = None,
    item_ids: Tensor | None = None,
    entropies: bool = False,
) -> Result:
    """Unmasks every position of tokens int64 [B, L] that holds ``denoiser.mask_id``; visible ones are the prompt.

    Returns tokens, their exact log-probability (float64 [B], nats, of what was unmasked, given the prompt and the public
    order), network calls, a trace and a manifest. ``order_ids`` int64 [B] (default 0..B-1) choose each row's random
    order, ``item_ids`` (likewise) the private noise of its symbols. A row depends on the generator's next number and on
    these two only, not on its neighbours or its place: a set that is drawn in batches, each with a generator of the same
    seed and the items' numbers, is the set drawn at once. ``entropies`` puts those of the laws that symbols came from into
    the trace (`Info.entropies`); that is one more pass over the laws.
    """
    began = time.perf_counter()
    check_tokens(tokens, denoiser, masks=True)
    places = torch.arange(len(tokens), device=tokens.device)
    orders = noise.checked_ids(order_ids, tokens, places)
    items = noise.checked_ids(item_ids, tokens, places, "item_ids")
    seed = noise.drawn_seed(generator)
    state = engine.init(tokens, denoiser.mask_id, orders, item_ids=items)
    state, trace = engine.run(
        state, denoiser, selector, source, substeps=substeps, seed=seed, entropies=entropies
    )
    record = manifest(denoiser, tokens, selector, source, substeps, seed) | took(began, trace)
    return Result(state.tokens, state.log_prob, state.nfe, trace, record)


def manifest(
    denoiser: Denoiser, tokens: Tensor, selector: object, source: object, substeps: int, seed: int
) -> dict[str, Any]:
    """What is needed to repeat a sample: versions, device, dtypes of parameters, seed and the three choices, by name."""
    return {
        "unmask": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": str(tokens.device),
        "dtype": sorted({str(p.dtype) for n in networks(denoiser) for p in n.parameters()}),
        "denoiser": denoiser_name(denoiser),
        "selector": getattr(selector, "name", getattr(selector, "__name__", type(selector).__name__)),
        "source": getattr(source, "__name__", type(source).__name__),
        "substeps": substeps,
        "seed": seed,
        "shape": list(tokens.shape),
    }


def took(began: float, trace: Sequence[Info]) -> dict[str, Any]:
    """Entries of a manifest after the last step: dtypes of the log-probabilities, and wall time in seconds.

    ``seconds`` count from ``began`` (`time.perf_counter`), ``network_seconds`` are those inside the denoiser.
    A look-ahead, where the selector calls a denoiser itself, counts as the rest.
    """
    return {
        "log_probs_dtype": sorted({str(info.dtype) for info in trace if info.dtype is not None}),
        "seconds": time.perf_counter() - began,
        "network_seconds": math.fsum(info.network_seconds for info in trace),
    }


def check_tokens(tokens: Tensor, denoiser: Denoiser, *, masks: bool) -> None:
    """ValueError unless tokens are int64 [B, L] data symbols (or, with ``masks``, the mask)."""
    if tokens.dtype != torch.int64 or tokens.ndim != 2:
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
