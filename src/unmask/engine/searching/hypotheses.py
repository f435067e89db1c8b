"""What searches share: the order, hypotheses that go on with several symbols, and the fillings that were found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unmask.base.types import Choice, Denoiser, Request, Result, Selector, State, View
from unmask.engine.sampling import checksum
from unmask.orders.samplers import Sampler
from unmask.orders.sources import greedy


@dataclass(frozen=True)
class Found:
    """Fillings int64 [B, W, L] of each sequence from the most probable down, and their log_prob float64 [B, W], nats.

    Where there are fewer, log_prob is -inf and the tokens repeat the first. ``nfe`` float64 [B] counts the network calls
    of all hypotheses together, in full passes, and ``rounds`` float64 [B] those that came one after another, where
    hypotheses side by side share a call (of draws, those of the longest). `unmask.replay` repeats it from ``manifest``.
    ``certain`` bool [B], where it can be known: nothing along the order is more probable than the first filling.
    """

    tokens: Tensor
    log_prob: Tensor
    nfe: Tensor
    manifest: dict[str, Any] = field(default_factory=dict)
    certain: Tensor | None = None
    rounds: Tensor | None = None

    def told(self, num: int = 1) -> Result:
        """The ``num`` most probable fillings of each sequence one after another, as a sample of B * num rows.

        ValueError where so many were not kept.
        """
        if not 1 <= num <= self.tokens.shape[1]:
            raise ValueError(f"num={num}; expected 1..{self.tokens.shape[1]}, as many as the search kept")
        tokens, log_prob = self.tokens[:, :num].flatten(0, 1), self.log_prob[:, :num].flatten()
        search = self.manifest.get("search", {}) | {"told": num}
        record = self.manifest | {"search": search, "tokens": checksum(tokens)}
        return Result(tokens, log_prob, self.nfe.repeat_interleave(num), (), record)


def watch(asked: list[Request], request: Request) -> Tensor:
    """A source that notes what was asked; the symbols that it gives are thought again."""
    asked.append(request)
    return greedy(request)


def branches(state: State, asked: list[Request], owner: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The hypotheses after a step: the row int64 [H] that each comes from, its tokens [H, L], its log-probability [H]."""
    parent, score, tokens = torch.arange(len(owner), device=owner.device), state.log_prob, state.tokens
    for request in asked:
        slot = torch.full_like(owner, -1).index_copy(
            0, request.items, torch.arange(len(request.items), device=owner.device)
        )
        for j in range(request.rows.shape[1]):
            mine = slot[parent]
            open_ = (mine >= 0) & request.valid[:, j][mine]
            law = request.log_probs[:, j].to(score.dtype)[mine]
            rest = torch.full_like(law, -torch.inf).index_fill(
                1, parent.new_zeros(1), 0.0
            )  # one that goes on as it is
            options = score[:, None] + torch.where(open_[:, None], law, rest)
            kept, symbol, score = _kept(options, owner[parent], width)
            place = request.rows[:, j][mine][kept, None]
            told = torch.where(open_[kept, None], symbol[:, None], tokens[kept].gather(1, place))
            tokens, parent = tokens[kept].scatter(1, place, told), parent[kept]
    return parent, tokens, score


def _kept(options: Tensor, owner: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of log-probabilities [H, V] of sequences ``owner`` [H] the best ``width`` of each: place, symbol and value [H'].

    Of equal ones the first, so that what others are in the batch changes nothing.
    """
    first = torch.searchsorted(owner, owner)  # where its sequence begins
    rank, group = (
        torch.arange(len(owner), device=owner.device) - first,
        torch.unique(owner, return_inverse=True)[1],
    )
    size, most, vocab = int(group[-1]) + 1, int(rank.max()) + 1, options.shape[1]
    dense = options.new_full((size, most, vocab), -torch.inf)
    dense[group, rank] = options
    value, flat = _first_best(dense.flatten(1), min(width, most * vocab))
    start = first.new_zeros(size).scatter(0, group, first)
    good = value > -torch.inf
    return (start[:, None] + flat // vocab)[good], (flat % vocab)[good], value[good]


def _first_best(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest of each row and their places, descending, of equal ones the first: `torch.topk` takes any."""
    least = values.topk(count, dim=1).values[:, -1:]
    equal, more = values == least, values > least
    chosen = more | (equal & (equal.cumsum(1) <= count - more.sum(1, keepdim=True)))
    places = chosen.nonzero()[:, 1].view(len(values), count)
    value, order = values.gather(1, places).sort(dim=1, descending=True, stable=True)
    return value, places.gather(1, order)


def worth(tokens: Tensor, score: Tensor, owner: Tensor, mask_id: int, size: int) -> Tensor:
    """Which hypotheses [H] are whole, or more probable than the best that is: log-probabilities only fall. Bool [H]."""
    whole = (tokens != mask_id).all(1)
    best = score.new_full((size,), -torch.inf).scatter_reduce(0, owner[whole], score[whole], "amax")
    return whole | (score > best[owner])


def shared(rounds: Tensor, owner: Tensor, cost: Tensor) -> Tensor:
    """The rounds float64 [B] after one more, that hypotheses [H] of sequences ``owner`` shared at a ``cost`` each."""
    return rounds + torch.zeros_like(rounds).scatter_reduce(0, owner, cost, "amax")


def sorted_(tokens: Tensor, log_prob: Tensor, owner: Tensor, calls: Tensor, width: int) -> Found:
    """Fillings [H, L], those of each sequence one after another, of which each has one, as the ``width`` best of each."""
    size, length = len(calls), tokens.shape[1]
    first = torch.searchsorted(owner, torch.arange(size, device=owner.device))
    rank = torch.arange(len(owner), device=owner.device) - first[owner]
    score = calls.new_full((size, width), -torch.inf)
    score[owner, rank] = log_prob
    whole = tokens[first][:, None].repeat(1, width, 1)
    whole[owner, rank] = tokens
    score, order = score.sort(dim=1, descending=True, stable=True)
    found = whole.gather(1, order[..., None].expand(-1, -1, length))
    return Found(torch.where(score[..., None] > -torch.inf, found, found[:, :1]), score, calls)


def order_of(
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
