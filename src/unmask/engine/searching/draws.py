"""`best_of` draws, and `judged`: fillings compared along another order."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from unmask.base import noise
from unmask.base.numbers import whole
from unmask.base.types import Choice, Denoiser, Selector, View
from unmask.denoisers import check_tokens, denoiser_name
from unmask.engine.likelihood import log_likelihood
from unmask.engine.loop import run
from unmask.engine.sampling import Each, checksum, manifest, sampled, telling, took
from unmask.engine.searching.hypotheses import Found, order_of
from unmask.engine.state import init
from unmask.orders.described import made_by
from unmask.orders.samplers import Sampler
from unmask.orders.sources import draw, given


def best_of(
    denoiser: Denoiser,
    tokens: Tensor,
    selector: Selector | Callable[[View], Choice] | Sampler,
    *,
    count: int,
    generator: torch.Generator,
    proposal: Denoiser | None = None,
    order_ids: Tensor | None = None,
    item_ids: Tensor | None = None,
    each: Each | None = None,
) -> Found:
    """``count`` draws for each of tokens int64 [B, L], from the most probable down.

    With a ``proposal``, such as a tempered or guided denoiser, symbols are drawn from that law and judged by the
    denoiser's, along the same order, which takes as many calls again. ``order_ids`` int64 [B] (default 0..B-1) choose the
    order of all draws of a sequence, so that their log-probabilities compare; draw j of item i in ``item_ids`` (likewise)
    has the private noise of item i * count + j. Of a `Sampler` with a temperature the tempered law is the proposal.
    """
    seed, ids = noise.drawn_seed(generator), (order_ids, item_ids)
    if isinstance(selector, Sampler) and selector.temperature != 1:
        if proposal is not None:
            raise ValueError("a sampler with a temperature beside a proposal; expected one of them")
        proposal = selector.denoiser(denoiser)
    order = order_of(denoiser, selector, drawn=True)
    return best_drawn(denoiser, tokens, order, count, seed, ids, proposal, each)


def best_drawn(
    denoiser: Denoiser,
    tokens: Tensor,
    selector: Selector | Callable[[View], Choice],
    count: int,
    seed: int,
    ids: tuple[Tensor | None, Tensor | None],
    proposal: Denoiser | None = None,
    each: Each | None = None,
) -> Found:
    """`best_of` with the private noise of ``seed``; ``ids`` are order_ids and item_ids."""
    check_tokens(tokens, denoiser, masks=True)
    began, count, size = time.perf_counter(), whole(count, "count", 1), len(tokens)
    places, draws = (torch.arange(n, device=tokens.device) for n in (size, count))
    orders = noise.checked_ids(ids[0], tokens, places).repeat_interleave(count)
    items = (noise.checked_ids(ids[1], tokens, places, "item_ids")[:, None] * count + draws).flatten()
    many, law = tokens.repeat_interleave(count, 0), denoiser if proposal is None else proposal
    drawn = sampled(law, many, selector, seed, draw, 1, (orders, items), each=each)
    log_prob, nfe = drawn.log_prob, drawn.nfe
    if proposal is not None:
        seen = many != denoiser.mask_id
        log_prob = log_likelihood(denoiser, drawn.tokens, selector, visible=seen, order_ids=orders)
        nfe = 2 * nfe
    nfe = nfe.view(size, count)
    score, order = log_prob.view(size, count).sort(dim=1, descending=True, stable=True)
    found = drawn.tokens.view(size, count, tokens.shape[1])[places[:, None], order]
    way = {"best_of": count} | ({} if proposal is None else {"proposal": denoiser_name(proposal)})
    record = manifest(denoiser, tokens, selector, draw, 1, seed, ids) | {"search": way}
    record |= took(began, drawn.trace, found[:, 0])
    return Found(found, score, nfe.sum(1), record, rounds=nfe.amax(1))


def judged(
    denoiser: Denoiser,
    tokens: Tensor,
    found: Found,
    selector: Selector | Callable[[View], Choice],
    *,
    order_ids: Tensor | None = None,
    each: Each | None = None,
) -> Found:
    """The fillings of tokens int64 [B, L] that were found, by their log-probability along another order, the best first.

    Along the order of a search mistakes look sure, for each is made before its consequences are seen; along another they do
    not. ``selector`` needs few calls for that: they are counted for every filling. `backtrack` with ``finish`` finds more.
    """
    size, width, length = found.tokens.shape
    orders = noise.checked_ids(order_ids, tokens, torch.arange(size, device=tokens.device))
    real = (found.log_prob > -torch.inf).flatten()
    some, many = found.tokens.flatten(0, 1)[real], tokens.repeat_interleave(width, 0)[real]
    start = init(many, denoiser.mask_id, orders.repeat_interleave(width)[real])
    steps = run if each is None else partial(telling, each)
    state, _ = steps(start, denoiser, selector, given(some))
    score = torch.full_like(found.log_prob.flatten(), -torch.inf).masked_scatter(real, state.log_prob)
    calls = torch.zeros_like(score).masked_scatter(real, state.nfe).view(size, width)
    score, order = score.view(size, width).sort(dim=1, descending=True, stable=True)
    best = found.tokens.gather(1, order[..., None].expand(-1, -1, length))
    record = found.manifest | {"search": found.manifest.get("search", {}) | {"judge": made_by(selector)}}
    rounds = None if found.rounds is None else found.rounds + calls.amax(1)
    record |= {"tokens": checksum(best[:, 0])}
    return Found(best, score, found.nfe + calls.sum(1), record, rounds=rounds)
