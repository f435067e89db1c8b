"""What is the best that any order can do? By visiting all states of a short exact law; nats.

An order's code length is the sum over steps of the cross-entropies of the positions that it takes, each given what is
visible then. So the best choice at a state follows from the best that can be done after it: dynamic programming from the
last step to the first, over all sets of positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from unmask.base.numbers import whole
from unmask.base.types import Choice, Denoiser, Plan, Selector, View
from unmask.denoisers import ask_everywhere
from unmask.laws import Law
from unmask.laws.table import tabulated
from unmask.orders.selectors import step_sizes, take

MOST_STATES = 2**18
"""Partly masked sequences, (V + 1)^N."""

_CHUNK = 2**12
"""States that the denoiser is asked at once."""

Set: TypeAlias = tuple[int, ...]
"""Positions, in order."""

Sizes: TypeAlias = Sequence[Callable[[int], range]]
"""For each step: how many positions may be unmasked with so many masked."""


@dataclass(frozen=True)
class Best:
    """The least KL(law || sampler) in nats that orders of a kind reach, and a selector that reaches it."""

    kl: float
    selector: Selector


def best_order(
    law: Law,
    plan: Plan | None = None,
    *,
    calls: int | None = None,
    denoiser: Denoiser | None = None,
    fixed: bool = False,
) -> Best:
    """The order of the least KL(law || sampler), from nothing visible, that chooses by all that is visible.

    Step sizes are those of a ``plan``, or free within so many ``calls``. ``fixed`` orders are the same for all symbols.
    ``denoiser`` (default: the law) says how symbols are drawn: of a trained model this is the best order for it. ValueError
    for more than 2^18 states.
    """
    states = (law.vocab_size + 1) ** law.length
    if states > MOST_STATES:
        raise ValueError(
            f"{law.vocab_size + 1}^{law.length} states: expected {MOST_STATES} at most; use a shorter law"
        )
    if (plan is None) == (calls is None):
        raise ValueError("best_order: expected a plan or a number of calls, one of the two")
    sizes = _free(whole(calls, "calls", 1, law.length)) if plan is None else _planned(plan, law.length)
    truth = _marginals(law)
    costs = _costs(truth, law, law if denoiser is None else denoiser)
    value, tables = _solved(costs, sizes, fixed)
    entropy = torch.special.entr(_at(truth, tuple(range(law.length)), law.length)).sum()
    name = f"best({law.length} positions, {'fixed' if fixed else 'adaptive'})"
    return Best(max(float(value - entropy), 0.0), Selector(_following(tables, law), name=name))


def _free(calls: int) -> Sizes:
    """Any sizes, if the last call takes what is left."""
    return [*[lambda masked: range(1, masked + 1)] * (calls - 1), lambda masked: range(masked, masked + 1)]


def _planned(plan: Plan, length: int) -> Sizes:
    """The sizes of a plan; none where a step of it cannot begin."""
    start, count, left, sizes = torch.ones(1, length, dtype=torch.bool), step_sizes(plan), length, []
    while left:
        now = torch.arange(length)[None] < left
        size = min(left, *count(View(start.long(), now, start=start)))
        sizes.append(partial(_only, left, size))
        left -= size
    return sizes


def _only(left: int, size: int, masked: int) -> range:
    return range(size, size + 1) if masked == left else range(0)


def _marginals(law: Law) -> Tensor:
    """The probability of what is visible at every state, float64 [V + 1, .., V + 1]; symbol V is the mask."""
    probs = (
        tabulated(law).log_prob(_states(law.vocab_size, law.length)).exp().view([law.vocab_size] * law.length)
    )
    for axis in range(law.length):
        probs = torch.cat([probs, probs.sum(axis, keepdim=True)], axis)
    return probs


def _states(symbols: int, length: int) -> Tensor:
    """All sequences of so many symbols, int64 [symbols^N, N], the last position the fastest."""
    return torch.cartesian_prod(*[torch.arange(symbols)] * length).view(-1, length)


def _costs(truth: Tensor, law: Law, denoiser: Denoiser) -> Tensor:
    """P(state) times the cross-entropy of each position there, nats, float64 [V + 1, .., V + 1, N]; 0 at visible ones."""
    states, flat, vocab = _states(law.vocab_size + 1, law.length), truth.flatten(), law.vocab_size
    place = (vocab + 1) ** torch.arange(law.length - 1, -1, -1)
    down = (vocab - torch.arange(vocab)) * place[:, None]  # from the mask to each symbol, [N, V]
    found = torch.zeros(states.shape, dtype=torch.float64)
    for some in torch.split((flat > 0).nonzero()[:, 0], _CHUNK):
        hidden = states[some] == vocab
        guess = ask_everywhere(denoiser, states[some].masked_fill(hidden, denoiser.mask_id)).double()
        joint = flat[(some[:, None, None] - down).clamp(min=0)]
        terms = torch.where(joint > 0, -joint * guess, 0.0).sum(-1)
        found[some] = torch.where(hidden, terms, 0.0)
    return found.view(*truth.shape, law.length)


def _solved(costs: Tensor, sizes: Sizes, fixed: bool) -> tuple[Tensor, list[Tensor]]:
    """The least expected cost from nothing visible; for each step the best set of every state, int64 [V + 1, .., V + 1].

    Values are weighted by P(state), so that a sum over symbols is an expectation. Sets are numbers with a bit for each
    position.
    """
    length = costs.ndim - 1
    tables: list[Tensor] = []
    everywhere = tuple(range(length))
    done = {everywhere: torch.zeros_like(_at(costs[..., 0], everywhere, length))}
    value = done
    for step in reversed(sizes):
        before, table = dict(done), torch.zeros(costs.shape[:-1], dtype=torch.int64)
        for seen in _subsets(everywhere, range(length)):
            hidden = tuple(i for i in everywhere if i not in seen)
            options = [c for c in _subsets(hidden, step(len(hidden))) if _with(seen, c) in value]
            if options:
                worth = torch.stack([_worth(costs, seen, some, value) for some in options])
                before[seen], best = _least(worth, fixed)
                table[_index(seen, length, costs.shape[0] - 1)] = _bits(options)[best]
        value = before
        tables.insert(0, table)
    return value[()], tables


def _least(worth: Tensor, fixed: bool) -> tuple[Tensor, Tensor]:
    """The least of worth [options, V, .., V] and which it is; the same everywhere if ``fixed``."""
    if not fixed:
        return worth.amin(0), worth.argmin(0)
    best = worth.reshape(len(worth), -1).sum(1).argmin()
    return worth[best], best.expand(worth.shape[1:])


def _worth(costs: Tensor, seen: Set, some: Set, value: dict[Set, Tensor]) -> Tensor:
    """What it costs to unmask ``some`` now and go on as well as can be, for all symbols at ``seen``, [V, .., V]."""
    both = _with(seen, some)
    now = _at(costs, seen, costs.ndim - 1)[..., list(some)].sum(-1)
    return now + value[both].sum([both.index(i) for i in some])


def _subsets(of: Set, sizes: range) -> list[Set]:
    return [some for size in sizes for some in itertools.combinations(of, size)]


def _with(seen: Set, some: Set) -> Set:
    return tuple(sorted(seen + some))


def _bits(options: list[Set]) -> Tensor:
    return torch.tensor([sum(1 << i for i in some) for some in options])


def _index(seen: Set, length: int, vocab: int) -> tuple[slice | int, ...]:
    """Where the states stand in which ``seen`` positions are visible."""
    return tuple(slice(0, vocab) if i in seen else vocab for i in range(length))


def _at(values: Tensor, seen: Set, length: int) -> Tensor:
    """Values of those states, [V, .., V] and what comes after the axes of positions."""
    return values[_index(seen, length, values.shape[0] - 1)]


def _following(tables: list[Tensor], law: Law) -> Callable[[View], Choice]:
    """What a selector of these tables chooses."""
    place = (law.vocab_size + 1) ** torch.arange(law.length - 1, -1, -1)

    def choose(view: View) -> Choice:
        code = torch.where(view.masked, law.vocab_size, view.tokens).cpu() @ place
        bits = tables[min(view.step, len(tables) - 1)].flatten()[code, None]
        mine = (bits >> torch.arange(law.length) & 1).to(view.tokens.device)
        return take(view, mine.double(), mine.sum(1))

    return choose
