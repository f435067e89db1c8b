"""The loop. Unmasking a sequence is the same computation whether its tokens are drawn, given, written or read.

``init`` makes a state, ``step`` unmasks once, ``run`` goes on until nothing is masked. A step asks a selector for rows, a
denoiser for the law of their symbols and a token source for the symbols, and adds up the log-probability.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from unmask import caching
from unmask.denoisers import masked_rows, passes, shaped, sound, take_rows, untempered
from unmask.scores import by_slices, entropy
from unmask.selectors import is_blind
from unmask.types import Cache, Choice, Denoiser, Info, Request, Selector, State, TokenSource, View

Settle: TypeAlias = Callable[[Request], Tensor]
"""What happens to the denoiser's law before anything reads it: a `Request` to log_probs of the same shape."""


def init(
    tokens: Tensor,
    mask_id: int,
    order_ids: Tensor | None = None,
    masked: Tensor | None = None,
    item_ids: Tensor | None = None,
) -> State:
    """The state before the first step of tokens int64 [B, L] with ``mask_id`` where hidden; order_ids default to 0.

    ``item_ids`` (default 0..B-1) name the rows to their private noise. ``masked`` bool [B, L] leaves out positions
    that stay hidden for ever (default: none): the model averages over them.
    """
    hidden = tokens == mask_id
    if masked is not None and bool((masked & ~hidden).any()):
        raise ValueError("masked marks a position that holds a symbol; expected the mask there")
    masked = hidden if masked is None else masked
    zeros = torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
    orders = tokens.new_zeros(len(tokens)) if order_ids is None else order_ids.to(tokens.device)
    items = (
        torch.arange(len(tokens), device=tokens.device) if item_ids is None else item_ids.to(tokens.device)
    )
    return State(tokens, masked, masked, orders, items, zeros, zeros.clone())


def run(
    state: State,
    denoiser: Denoiser,
    selector: Selector | Callable[[View], Choice],
    source: TokenSource,
    *,
    substeps: int = 1,
    seed: int | None = None,
    entropies: bool = False,
    settle: Settle | None = None,
) -> tuple[State, tuple[Info, ...]]:
    """Steps until no position is masked; returns the last state and what each step did."""
    trace: list[Info] = []
    while state.masked.any():
        state, info = step(
            state,
            denoiser,
            selector,
            source,
            substeps=substeps,
            seed=seed,
            entropies=entropies,
            settle=settle,
        )
        trace.append(info)
    return state, tuple(trace)


def step(
    state: State,
    denoiser: Denoiser,
    selector: Selector | Callable[[View], Choice],
    source: TokenSource,
    *,
    substeps: int = 1,
    seed: int | None = None,
    entropies: bool = False,
    settle: Settle | None = None,
) -> tuple[State, Info]:
    """Unmasks the rows that the selector chooses. Finished rows of the batch are left out and cost nothing.

    With ``substeps`` S the chosen rows are split, in order, into S parts; later parts see the symbols of earlier ones
    through ``denoiser.partial`` (partial caching, arXiv 2510.04525). ``entropies`` also notes the entropy of each law
    that a symbol came from: one more pass over those laws. ``settle`` changes every law before the selector or the
    source sees it, at the root and again after wrappers such as `tempered`: the codec rounds there.
    """
    items = state.masked.any(1).nonzero()[:, 0]
    view = _view(state, items, selector)
    look = _Look(denoiser, view.time, items, state.remembered, _settled(settle, state.step, seed))
    if not is_blind(selector):
        view = look.at_masked(view, keep=substeps > 1)
    choice = _checked(selector(view), view, selector)
    memory = tuple(_placed(m, items, len(state.tokens)) for m in choice.memory)
    if is_blind(selector):  # rows that stay still at this step (random counts) need no network call
        moving = (choice.rows >= 0).any(1)
        items, view, choice = items[moving], view.part(moving), _part(choice, moving)
        look.items = items

    def symbols_of(law: Tensor, rows: Tensor, mine: Tensor) -> Tensor:
        return source(Request(law, rows, mine, items, state.step, seed, state.item_ids[items]))

    moved = _unmasked(look, view, choice, symbols_of, substeps, entropies)
    after = replace(
        state,
        tokens=state.tokens.index_copy(0, items, moved.tokens),
        masked=state.masked.index_copy(0, items, _hide(view.masked, moved.rows, moved.valid)),
        log_prob=state.log_prob.index_add(0, items, moved.log_probs.sum(1)),
        nfe=state.nfe.index_add(0, items, moved.calls),
        step=state.step + 1,
        memory=memory,
        remembered=look.remembered,
    )
    symbols = moved.symbols.masked_fill(~moved.valid, -1)
    info = Info(items, choice.rows, symbols, moved.log_probs, look.seconds, moved.entropies, look.dtype)
    return after, info


@dataclass(frozen=True)
class _Moved:
    """What one step did to the batch rows that moved: rows int64 [B', k], True in ``valid`` where not padding."""

    tokens: Tensor
    rows: Tensor
    valid: Tensor
    symbols: Tensor
    log_probs: Tensor
    calls: Tensor
    entropies: Tensor | None


def _unmasked(
    look: _Look,
    view: View,
    choice: Choice,
    symbols_of: Callable[[Tensor, Tensor, Tensor], Tensor],
    substeps: int,
    entropies: bool,
) -> _Moved:
    """The chosen rows with symbols from ``symbols_of(law, rows, which)``, sub-step by sub-step."""
    valid = choice.rows >= 0
    rows = torch.where(valid, choice.rows, choice.rows[:, :1].clamp(min=0))
    tokens, symbols = view.tokens, torch.zeros_like(rows)
    log_probs = torch.zeros_like(rows, dtype=torch.float64)
    spread = torch.full_like(log_probs, torch.nan) if entropies else None
    part, calls = _parts(valid, substeps), log_probs.sum(1)
    for s in range(substeps if rows.numel() else 0):
        mine = valid & (part == s)
        if not mine.any():
            continue
        law = look.first(view, rows, mine, keep=substeps > 1) if s == 0 else look.again(tokens, rows, mine)
        law = _tilted(law, choice.tilt)
        took = symbols_of(law, rows, mine)
        log_probs = torch.where(mine, law.gather(-1, took[..., None])[..., 0].double(), log_probs)
        symbols = torch.where(mine, took, symbols)
        tokens = _write(tokens, rows, took, mine)
        spread = None if spread is None else torch.where(mine, by_slices(entropy, law).double(), spread)
        calls += passes(look.denoiser) * mine.any(1) * valid.sum(1).double() / tokens.shape[1] if s else 0.0
    calls += passes(look.denoiser) * look.cost + (0.0 if choice.calls is None else choice.calls)
    return _Moved(tokens, rows, valid, symbols, log_probs, calls, spread)


def _view(state: State, items: Tensor, selector: object) -> View:
    """What the selector may see of the unfinished rows."""
    view = View(
        state.tokens[items],
        state.masked[items],
        step=state.step,
        order_ids=state.order_ids[items],
        start=state.start[items],
        memory=tuple(m[items] for m in state.memory),
    )
    clock = getattr(selector, "time", None)
    return view if clock is None else replace(view, time=clock(view))


def _part(choice: Choice, kept: Tensor) -> Choice:
    tilt, calls = (None if x is None else x[kept] for x in (choice.tilt, choice.calls))
    return Choice(choice.rows[kept], tilt, calls)


def _placed(values: Tensor, items: Tensor, total: int) -> Tensor:
    """Values [B', ..] of some batch rows among ``total``, zero for the others."""
    return values.new_zeros(total, *values.shape[1:]).index_copy(0, items, values)


class _Look:
    """The network calls of one step: what was seen, the cache it left, its dtype and the seconds it took.

    ``cost`` is that of the first call for each batch row, in passes; a block cache makes it less than 1.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        time_: Tensor | None,
        items: Tensor,
        remembered: Any,
        settled: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    ) -> None:
        self.denoiser, self.blocks = caching.unwrapped(denoiser)
        self.root, self.change = untempered(self.denoiser)
        self.settled = settled
        self.time, self.seconds, self.items, self.remembered = time_, 0.0, items, remembered
        self.cost: Tensor | float = 1.0
        self.dtype: torch.dtype | None = None
        self.seen: tuple[Tensor, Tensor] | None = None
        self.cache: Cache = None

    def at_masked(self, view: View, keep: bool) -> View:
        """The view with log-probabilities at every masked position, before and after tempering."""
        open_ = view.masked if self.blocks is None else view.masked & self.blocks.inside(view.tokens)
        rows, marked = masked_rows(open_)
        if self.blocks is not None:  # the filling must stay inside the block
            rows = torch.where(marked < 0, rows[:, :1], rows)
        base, log_probs = self._laws(self._call(view.tokens, rows, keep), rows, marked >= 0)
        slots = torch.zeros_like(view.tokens).scatter_(
            1, rows, torch.arange(rows.shape[1], device=rows.device).expand_as(rows)
        )
        self.seen = (log_probs, slots)
        return replace(view, log_probs=log_probs, base_log_probs=base, rows=marked)

    def first(self, view: View, rows: Tensor, mine: Tensor, keep: bool) -> Tensor:
        """The law [B, k, V] at rows, settled where ``mine``: from what was seen, or by running the network."""
        if self.blocks is not None:
            self.blocks.check(view.tokens, rows)
        if self.seen is not None:
            log_probs, slots = self.seen
            return sound(take_rows(log_probs, slots.gather(1, rows)), rows, self.denoiser)
        self.time = view.time
        law = self._laws(self._call(view.tokens, rows, keep), rows, mine)[1]
        return sound(law, rows, self.denoiser)

    def again(self, tokens: Tensor, rows: Tensor, mine: Tensor) -> Tensor:
        """The law [B, k, V] at rows after a partial pass over them; settled where ``mine``."""
        began = time.perf_counter()
        base = self.root.partial(tokens, rows, self.cache, time=self.time)
        self.seconds += time.perf_counter() - began
        return sound(self._laws(base, rows, mine)[1], rows, self.denoiser)

    def _laws(self, base: Tensor, rows: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The law before and after wrappers such as `tempered`, each settled; the same tensor where there are none."""
        base = self.settled(base, rows, valid, self.items)
        if self.root is self.denoiser:
            return base, base
        began = time.perf_counter()
        changed = self.change(base)
        self.seconds += time.perf_counter() - began
        return base, self.settled(changed, rows, valid, self.items)

    def _call(self, tokens: Tensor, rows: Tensor, keep: bool) -> Tensor:
        denoiser, began = self.root, time.perf_counter()
        extra = {} if self.time is None else {"time": self.time}
        if self.blocks is not None:
            log_probs, self.remembered, self.cost = self.blocks.law(
                denoiser, tokens, rows, self.items, self.remembered, extra
            )
            self.cache = self.remembered.cache
        elif keep:
            log_probs, self.cache = denoiser.full(tokens, rows, **extra)
        else:
            log_probs = denoiser(tokens, rows, **extra)
        self.seconds += time.perf_counter() - began
        self.dtype = log_probs.dtype
        return shaped(log_probs, rows, denoiser)


def _settled(
    settle: Settle | None, step: int, seed: int | None
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """``settle`` as a function of (log_probs, rows, valid, items); without one the law stays as it is."""
    if settle is None:
        return lambda log_probs, *_: log_probs
    return lambda log_probs, rows, valid, items: settle(Request(log_probs, rows, valid, items, step, seed))


def _checked(choice: Choice, view: View, selector: object) -> Choice:
    """The choice, if its rows are masked, distinct and, unless the selector keeps time, at least one per row."""
    rows, valid = choice.rows, choice.rows >= 0
    if rows.dtype != torch.int64 or rows.ndim != 2 or len(rows) != len(view.tokens):
        raise ValueError(
            f"the selector gave rows of dtype {rows.dtype} and shape {list(rows.shape)}; "
            f"expected int64 [{len(view.tokens)}, k]"
        )
    place = rows.clamp(0, view.tokens.shape[1] - 1)
    hit = torch.zeros_like(view.tokens).scatter_add_(1, place, valid.long())
    wrong = valid & ((hit > view.masked).gather(1, place) | (place != rows))
    if wrong.any():
        raise ValueError(
            f"the selector chose position {int(rows[wrong][0])}, which is visible, chosen twice or beyond the end; "
            "expected distinct masked positions"
        )
    if getattr(selector, "time", None) is None and not valid.any(1).all():
        raise ValueError(
            "the selector chose no position for a row that is not finished; expected at least one"
        )
    order = (
        (~valid).to(torch.uint8).sort(dim=1, stable=True).indices
    )  # -1 may stand anywhere; move it to the end
    return replace(
        choice,
        rows=choice.rows.gather(1, order),
        tilt=None if choice.tilt is None else take_rows(choice.tilt, order),
    )


def _tilted(log_probs: Tensor, tilt: Tensor | None) -> Tensor:
    """The law times exp(tilt), renormalised."""
    return log_probs if tilt is None else torch.log_softmax(log_probs + tilt, dim=-1)


def _parts(valid: Tensor, substeps: int) -> Tensor:
    """Which sub-step each chosen row belongs to, int64 [B, k]: consecutive parts of nearly equal size."""
    if substeps < 1:
        raise ValueError(f"substeps {substeps}: expected at least 1")
    place = torch.arange(valid.shape[1], device=valid.device)
    return place * substeps // valid.sum(1, keepdim=True).clamp(min=1)


def _write(tokens: Tensor, rows: Tensor, symbols: Tensor, mine: Tensor) -> Tensor:
    """Tokens with symbols at the rows that are ``mine``."""
    tokens = tokens.clone()
    item = torch.arange(len(rows), device=rows.device)[:, None].expand_as(rows)[mine]
    tokens[item, rows[mine]] = symbols[mine]
    return tokens


def _hide(masked: Tensor, rows: Tensor, valid: Tensor) -> Tensor:
    """The map of masked positions without the rows that were unmasked."""
    done = torch.zeros_like(masked, dtype=torch.int64).scatter_add_(1, rows, valid.long())
    return masked & (done == 0)
