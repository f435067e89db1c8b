"""`search`, `backtrack`, `best_of`, `judged`: the most probable filling, by the model's own exact log-probability alone."""

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
from unmask.denoisers import denoiser_name
from unmask.engine.hypotheses import Found, branches, shared, sorted_, watch, worth
from unmask.engine.likelihood import log_likelihood
from unmask.engine.loop import run, step
from unmask.engine.sampling import Each, check_tokens, checksum, manifest, sampled, telling, took
from unmask.engine.state import branched, init
from unmask.orders.described import made_by
from unmask.orders.samplers import Sampler
from unmask.orders.sources import draw, given, greedy


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
    all of them are one batch. With ``finish`` False those no more probable than the best whole filling end: it stays the
    first and comes in fewer calls, and fewer fillings stand behind it. Of a `Sampler` the order counts, and where symbols
    come from does not. ``each`` hears of every step, as in `sample`.
    """
    check_tokens(tokens, denoiser, masks=True)
    selector = _order(denoiser, selector)
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
    selector = _order(denoiser, selector)
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
    order = _order(denoiser, selector, drawn=True)
    return best_drawn(denoiser, tokens, order, count, seed, ids, proposal, each)


def _order(
    denoiser: Denoiser, selector: Selector | Callable[[View], Choice] | Sampler, drawn: bool = False
) -> Selector | Callable[[View], Choice]:
    """The order of a sampler, or the selector that was given; ValueError where a sampler says what a search cannot do."""
    if not isinstance(selector, Sampler):
        return selector
    wrong = {
        f"of {selector.substeps} sub-steps; expected none, for a search has none": selector.substeps != 1,
        f"of temperature {selector.temperature:g}; expected 1, for a search is for the mode of the model's own law": (
            selector.temperature != 1 and not drawn
        ),
        "of the most probable symbols; expected source 'draw', for such draws are all the same": (
            drawn and not selector.is_law
        ),
    }
    for why, given_ in wrong.items():
        if given_:
            raise ValueError(f"a sampler {why}")
    return selector.selector_for(denoiser)


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
    found = drawn.tokens.view(size, count, -1)[places[:, None], order]
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
