"""`sample`: unmask the hidden positions of a batch of sequences."""

from __future__ import annotations

import hashlib
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from unmask import engine
from unmask.base import noise
from unmask.base.types import Choice, Denoiser, Info, Result, Selector, State, TokenSource, View
from unmask.denoisers import check_tokens, denoiser_name, networks
from unmask.orders.described import made_by
from unmask.orders.samplers import Sampler
from unmask.orders.sources import draw
from unmask.version import __version__


def sample(
    denoiser: Denoiser,
    tokens: Tensor,
    selector: Selector | Callable[[View], Choice] | Sampler,
    *,
    generator: torch.Generator,
    source: TokenSource = draw,
    substeps: int = 1,
    order_ids: Tensor | None = None,
    item_ids: Tensor | None = None,
    entropies: bool = False,
    each: Each | None = None,
) -> Result:
    """Unmasks every position of tokens int64 [B, L] that holds ``denoiser.mask_id``; visible ones are the prompt.

    Returns tokens, their exact log-probability (float64 [B], nats, of what was unmasked, given the prompt and the public
    order), network calls, a trace and a manifest. ``order_ids`` int64 [B] (default 0..B-1) choose each row's random
    order, ``item_ids`` (likewise) the private noise of its symbols. A row depends on the generator's next number and on
    these two only, not on its neighbours or its place: a set that is drawn in batches, each with a generator of the same
    seed and the items' numbers, is the set drawn at once. ``entropies`` puts those of the laws that symbols came from into
    the trace (`Info.entropies`); that is one more pass over the laws.

    ``selector`` may be a `Sampler`, which says the source, the sub-steps and the temperature itself.

    ``each(info, tokens)`` is called after every step with its `Info` and a copy of the tokens int64 [B, L] as they are
    then: for progress, animations, or to stop by an exception. It changes nothing. `replay` repeats a sample from
    ``result.manifest``.
    """
    check_tokens(tokens, denoiser, masks=True)
    law, chosen, parts = opened(denoiser, selector, substeps)
    seed, ids = noise.drawn_seed(generator), (order_ids, item_ids)
    if not isinstance(selector, Sampler):
        return sampled(law, tokens, chosen, seed, source, parts, ids, entropies=entropies, each=each)
    if source is not draw:
        raise ValueError("a sampler says itself where symbols come from; expected no source beside it")
    took = selector.token_source
    found = sampled(law, tokens, chosen, seed, took, parts, ids, entropies=entropies, each=each)
    return replace(found, manifest=found.manifest | {"sampler": selector.record()})


def opened(
    denoiser: Denoiser, selector: Selector | Callable[[View], Choice] | Sampler, substeps: int
) -> tuple[Denoiser, Selector | Callable[[View], Choice], int]:
    """The law, the selector and the sub-steps: as they are given, or those of a sampler."""
    if not isinstance(selector, Sampler):
        return denoiser, selector, substeps
    if substeps != 1:
        raise ValueError(f"substeps {substeps} beside a sampler, which has its own; expected none")
    return selector.denoiser(denoiser), selector.selector_for(denoiser), selector.substeps


Each: TypeAlias = Callable[[Info, Tensor], object]
"""What is told of every step: what it did, and the tokens after it."""


def sampled(
    denoiser: Denoiser,
    tokens: Tensor,
    selector: Selector | Callable[[View], Choice],
    seed: int,
    source: TokenSource,
    substeps: int,
    ids: tuple[Tensor | None, Tensor | None],
    *,
    entropies: bool = False,
    each: Each | None = None,
) -> Result:
    """`sample` of checked tokens with the private noise of ``seed``; ``ids`` are order_ids and item_ids."""
    began, places = time.perf_counter(), torch.arange(len(tokens), device=tokens.device)
    orders = noise.checked_ids(ids[0], tokens, places)
    items = noise.checked_ids(ids[1], tokens, places, "item_ids")
    state = engine.init(tokens, denoiser.mask_id, orders, item_ids=items)
    settings = {"substeps": substeps, "seed": seed, "entropies": entropies}
    steps = engine.run if each is None else partial(telling, each)
    state, trace = steps(state, denoiser, selector, source, **settings)
    record = manifest(denoiser, tokens, selector, source, substeps, seed, ids) | took(
        began, trace, state.tokens
    )
    return Result(state.tokens, state.log_prob, state.nfe, trace, record)


def telling(each: Each, state: State, *choices: Any, **settings: Any) -> tuple[State, tuple[Info, ...]]:
    """`engine.run`, where ``each`` hears of every step."""
    trace: list[Info] = []
    while any(state.left):
        state, info = engine.step(state, *choices, **settings)
        trace.append(info)
        each(info, state.tokens.clone())
    return state, tuple(trace)


def manifest(
    denoiser: Denoiser,
    tokens: Tensor,
    selector: object,
    source: object,
    substeps: int,
    seed: int,
    ids: tuple[Tensor | None, Tensor | None] = (None, None),
) -> dict[str, Any]:
    """What is needed to repeat a sample: versions, device, dtypes of parameters, seed and the three choices, by name.

    ``selector_made_by`` is the order as data (`orders.described`), None where it is none. ``order_ids`` and ``item_ids``
    are None for 0..B-1, ``start`` where all was masked, and otherwise a checksum of the tokens given.
    """
    given = [None if x is None or bool((x.cpu() == torch.arange(len(x))).all()) else x.tolist() for x in ids]
    hidden = bool((tokens == denoiser.mask_id).all())
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
        "selector_made_by": made_by(selector),
        "order_ids": given[0],
        "item_ids": given[1],
        "start": None if hidden else checksum(tokens),
    }


def checksum(tokens: Tensor) -> str:
    """SHA-256 of tokens, in hexadecimal."""
    return hashlib.sha256(tokens.cpu().contiguous().numpy().tobytes()).hexdigest()


def took(began: float, trace: Sequence[Info], tokens: Tensor) -> dict[str, Any]:
    """Entries of a manifest after the last step: dtypes of the log-probabilities, wall time, a checksum of the tokens.

    ``seconds`` count from ``began`` (`time.perf_counter`), ``network_seconds`` are those inside the denoiser.
    A look-ahead, where the selector calls a denoiser itself, counts as the rest.
    """
    return {
        "log_probs_dtype": sorted({str(info.dtype) for info in trace if info.dtype is not None}),
        "seconds": time.perf_counter() - began,
        "network_seconds": math.fsum(info.network_seconds for info in trace),
        "tokens": checksum(tokens),
    }
