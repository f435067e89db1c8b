"""`search`: the most probable partial sequences go on side by side."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from unmask.base import noise
from unmask.base.numbers import whole
from unmask.base.types import Choice, Denoiser, Info, Request, Selector, View
from unmask.denoisers import check_tokens
from unmask.engine.loop import step
from unmask.engine.sampling import Each, manifest, took
from unmask.engine.searching.hypotheses import Found, branches, order_of, shared, sorted_, watch, worth
from unmask.engine.state import branched, init
from unmask.orders.samplers import Sampler
from unmask.orders.sources import greedy


def search(
    denoiser: Denoiser,
    tokens: Tensor,
    selector: Selector | Callable[[View], Choice] | Sampler,
    *,
    width: int = 8,
    finish: bool = True,
    order_ids: Tensor | None = None,
    each: Each | None = None,
) -> Found:
    """A beam over partial sequences: the ``width`` most probable fillings of tokens int64 [B, L], as far as it sees.

    Every step unmasks the rows that the selector chooses in each hypothesis, goes on with all symbols there, and keeps
    the ``width`` hypotheses of each sequence with the highest log-probability so far, exact along the order (one position
    a step; of several at once it is that of the sampler, which draws them apart). Width 1 is the arg-max; from the number
    of possible sequences on the most probable one is certain to be found. A step costs one call for each hypothesis, and
    all of them are one batch. With ``finish`` False those no more probable than the best whole filling end, which saves
    calls where the order chooses how many positions a step takes: the first is as probable (another one at most among
    equals), and fewer fillings stand behind it. Of a `Sampler` the order counts, and where symbols come from does not.
    ``each`` hears of every step, as in `sample`.
    """
    check_tokens(tokens, denoiser, masks=True)
    selector = order_of(denoiser, selector)
    began, trace = time.perf_counter(), list[Info]()
    width, places = whole(width, "width", 1), torch.arange(len(tokens), device=tokens.device)
    state = init(tokens, denoiser.mask_id, noise.checked_ids(order_ids, tokens, places))
    owner, calls, rounds = places, torch.zeros_like(state.nfe), torch.zeros_like(state.nfe)
    while any(state.left):
        asked: list[Request] = []
        after, info = step(state, denoiser, selector, partial(watch, asked))
        trace.append(info)
        cost = after.nfe - state.nfe
        calls, rounds = calls.index_add(0, owner, cost), shared(rounds, owner, cost)
        parent, shown, score = branches(state, asked, owner, width)
        if not finish:
            kept = worth(shown, score, owner[parent], denoiser.mask_id, len(tokens))
            parent, shown, score = parent[kept], shown[kept], score[kept]
        state = replace(branched(after, parent, shown), log_prob=score)
        if each is not None:
            each(info, state.tokens)
        owner = owner[parent]
    found = sorted_(state.tokens, state.log_prob, owner, calls, width)
    record = manifest(denoiser, tokens, selector, greedy, 1, 0, (order_ids, None)) | {
        "search": {"beam": width, "finish": finish}
    }
    return replace(found, rounds=rounds, manifest=record | took(began, trace, found.tokens[:, 0]))
