"""The loop. Unmasking a sequence is the same computation whether its tokens are drawn, given, written or read.

`state.init` makes a state, `step` unmasks once, `run` goes on until nothing is masked. A step sees, chooses, asks,
unmasks and accounts: a selector gives rows, a denoiser the law of their symbols, a token source the symbols, and the
log-probability adds up. What asks the denoiser stands in `asking`, what checks the choices in `choosing`, what adds up in
`accounting`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from unmask.base.numbers import whole
from unmask.base.types import Choice, Denoiser, Info, Selector, State, TokenSource, View
from unmask.engine.accounting import Moved, added, placed, remembered, symbols, written
from unmask.engine.asking import Look, Settle
from unmask.engine.choosing import Doubts, chosen, moved_all, moving, parts
from unmask.engine.state import seen
from unmask.orders.selectors import is_blind


def run(
    state: State,
    denoiser: Denoiser,
    selector: Selector | Callable[[View], Choice],
    source: TokenSource,
    **settings: Any,
) -> tuple[State, tuple[Info, ...]]:
    """Steps until no position is masked, each with the same settings; the last state and what each step did."""
    trace: list[Info] = []
    while any(state.left):
        state, info = step(state, denoiser, selector, source, **settings)
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
    substeps, doubts, view = whole(substeps, "substeps", 1), Doubts(), seen(state, selector)
    look = Look(denoiser, state, doubts, settle, seed, keep=substeps > 1)
    if not is_blind(selector):
        view = look.at_masked(view)
    wanted = selector(view)
    memory, choice = remembered(state, view, wanted.memory), chosen(wanted, view, selector, doubts)
    if view.time is not None and is_blind(selector):
        view, choice = moving(view, choice)
    moved = Moved(view.tokens)
    for s, mine in enumerate(parts(choice, substeps)):
        law = look.again(moved.tokens, view, choice, mine) if s else look.first(view, choice, mine)
        took = source(look.request(law, view, choice.rows, mine))
        moved = moved.by(law, symbols(took, mine, choice, look, doubts), choice, mine, entropies)
        moved = moved.and_passed(look, choice, mine) if s else moved
    masked = placed(state.masked, written(view.masked, choice, False, choice.valid), view)
    calls = moved.calls + look.passes * look.cost + (0.0 if choice.calls is None else choice.calls)
    left = doubts.settled(masked)
    moved_all(choice, view, left)
    after = replace(
        state,
        tokens=placed(state.tokens, moved.tokens, view),
        masked=masked,
        left=left,
        log_prob=added(state.log_prob, moved.total(), view),
        nfe=added(state.nfe, calls, view),
        step=state.step + 1,
        memory=memory,
        remembered=look.remembered,
    )
    return after, moved.info(view, choice, look)
