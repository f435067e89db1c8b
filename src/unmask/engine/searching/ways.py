"""`backtrack`: the arg-max, then what it passed by."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from unmask.base import noise
from unmask.base.numbers import whole
from unmask.base.types import Choice, Denoiser, Info, Request, Selector, State, View
from unmask.denoisers import check_tokens
from unmask.engine.loop import step
from unmask.engine.sampling import Each, manifest, took
from unmask.engine.searching.hypotheses import Found, branches, order_of, sorted_, watch
from unmask.engine.state import branched, init
from unmask.orders.samplers import Sampler
from unmask.orders.sources import greedy


def backtrack(
    denoiser: Denoiser,
    tokens: Tensor,
    selector: Selector | Callable[[View], Choice] | Sampler,
    *,
    count: int = 8,
    finish: bool = False,
    order_ids: Tensor | None = None,
    each: Each | None = None,
) -> Found:
    """Fills tokens int64 [B, L] with the arg-max, then goes back to the most probable partial filling that it passed by.

    That makes ``count`` ways. What one passes by waits with its log-probability, exact along the order as in `search`. As
    that only falls, a way ends where it is no more probable than the best filling so far, and none begins there: a way
    costs fewer calls than a hypothesis of a beam. Once nothing more probable waits, the first filling is ``certain`` to be
    the most probable one. With ``finish`` all ways are filled to their ends, for `judged` to choose from. Of a
    `Sampler` the order counts.
    """
    check_tokens(tokens, denoiser, masks=True)
    selector = order_of(denoiser, selector)
    began, trace = time.perf_counter(), list[Info]()
    count, places = whole(count, "count", 1), torch.arange(len(tokens), device=tokens.device)
    root = init(tokens, denoiser.mask_id, noise.checked_ids(order_ids, tokens, places))
    waiting = _Ways(tokens, places, root.log_prob, torch.zeros_like(places))
    going, filled = waiting.part(root.masked.any(1)), [waiting.part(~root.masked.any(1))]
    waiting, best, calls = waiting.part(places[:0]), torch.full_like(root.nfe, -torch.inf), root.nfe
    lost = best  # what ways must be more probable than
    for way in range(count):
        if way:
            going, waiting = _next(waiting, lost, count)
        while len(going.owner):
            behind = going.steps == going.steps.min()  # they catch up, and then share calls with the others
            now, later = going.part(behind), going.part(~behind)
            grown, first, cost = _stepped(root, now, denoiser, selector, count + 1, trace)
            calls, done = calls.index_add(0, now.owner, cost), (grown.tokens != denoiser.mask_id).all(1)
            if each is not None:
                each(trace[-1], grown.tokens)
            filled.append(grown.part(done))
            best = best.scatter_reduce(0, grown.owner[done], grown.log_prob[done], "amax")
            lost = lost if finish else best
            waiting = _joined(waiting, grown.part(~first & ~done))
            going = _joined(later, grown.part(first & ~done & (grown.log_prob > lost[grown.owner])))
    ranked, rank = _ranked(_joined(*filled))
    those = ranked.part(rank < count)
    found = sorted_(those.tokens, those.log_prob, those.owner, calls, count)
    certain = torch.ones_like(places, dtype=torch.bool)
    certain[_next(waiting, best, count)[0].owner] = False
    record = manifest(denoiser, tokens, selector, greedy, 1, 0, (order_ids, None))
    record |= {"search": {"backtrack": count, "finish": finish}} | took(began, trace, found.tokens[:, 0])
    return replace(found, manifest=record, certain=certain, rounds=calls)


@dataclass(frozen=True)
class _Ways:
    """Fillings int64 [H, L], partial or whole, of sequences ``owner`` int64 [H], after as many steps; log_prob float64."""

    tokens: Tensor
    owner: Tensor
    log_prob: Tensor
    steps: Tensor

    def part(self, which: Tensor) -> _Ways:
        """Some of them: places int64, or bool [H]."""
        return _Ways(*(x[which] for x in (self.tokens, self.owner, self.log_prob, self.steps)))


def _joined(*ways: _Ways) -> _Ways:
    """All of them."""
    names = ("tokens", "owner", "log_prob", "steps")
    return _Ways(*(torch.cat([getattr(w, name) for w in ways]) for name in names))


def _ranked(ways: _Ways) -> tuple[_Ways, Tensor]:
    """Those of each sequence together, the most probable first, and their places int64 [H] in it."""
    order = ways.log_prob.argsort(dim=0, descending=True, stable=True)
    order = order[ways.owner[order].argsort(dim=0, stable=True)]
    owner = ways.owner[order]
    places = torch.arange(len(order), device=order.device)
    return ways.part(order), places - torch.searchsorted(owner, owner)


def _next(waiting: _Ways, lost: Tensor, count: int) -> tuple[_Ways, _Ways]:
    """The most probable way of each sequence that is more probable than ``lost`` float64 [B], and ``count`` others."""
    ranked, rank = _ranked(waiting.part(waiting.log_prob > lost[waiting.owner]))
    return ranked.part(rank == 0), ranked.part((rank > 0) & (rank <= count))


def _stepped(
    root: State,
    ways: _Ways,
    denoiser: Denoiser,
    selector: Callable[[View], Choice],
    width: int,
    trace: list[Info],
) -> tuple[_Ways, Tensor, Tensor]:
    """The ``width`` most probable goings-on of each way, which of them are its first, bool, and the calls of each way."""
    masked = ways.tokens == denoiser.mask_id
    state = replace(
        branched(root, ways.owner, ways.tokens),
        tokens=ways.tokens,
        masked=masked,
        left=tuple(masked.sum(1).tolist()),
        log_prob=ways.log_prob,
        step=int(ways.steps[0]),
    )
    asked: list[Request] = []
    after, info = step(state, denoiser, selector, partial(watch, asked))
    trace.append(info)
    if after.memory:
        raise ValueError("the selector remembers its steps and cannot go back; expected another, or `search`")
    parent, shown, score = branches(state, asked, torch.arange(len(masked), device=masked.device), width)
    on = branched(after, parent, shown)
    first = parent.diff(prepend=parent.new_full((1,), -1)) > 0
    grown = _Ways(on.tokens, ways.owner[parent], score, ways.steps[parent] + 1)
    return grown, first, after.nfe - state.nfe
