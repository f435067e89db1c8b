"""The whole vocabulary on one page: shapes, records and protocols.

Everything that unmasks a sequence is one loop (`unmasking.py`) and three choices:

* a **denoiser** says how probable each symbol is at some positions, given the visible tokens;
* a **selector** says which masked positions come next, judging only by what is visible;
* a **token source** says where their symbols come from: drawn, taken greedily, given, or read from a stream.

Shapes: B = batch, L = length, V = data symbols, k = positions in one step, R = rows evaluated.

==============  =========================  =====================================================
name            dtype and shape            meaning
==============  =========================  =====================================================
tokens          int64 [B, L]               masked positions hold ``denoiser.mask_id``
masked          bool [B, L]                True where a position is still hidden
rows            int64 [B, k]               positions along L; -1 pads rows that need fewer
log_probs       float [B, k, V]            natural logarithms, normalised over the data symbols
order_ids       int64 [B]                  which public random order each row follows
==============  =========================  =====================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from unmask import pictures
from unmask.pictures import Item, Look

Plan: TypeAlias = tuple[int, ...] | int | Callable[[int], tuple[int, ...]]
"""Sizes of the steps: a tuple that sums to the masked count, k per step, or masked count -> tuple."""

Cache: TypeAlias = Any
"""What `Denoiser.full` leaves behind for `Denoiser.partial`; opaque to the loop."""

PerStep: TypeAlias = float | Callable[[int], float]
"""A number, or a function of the step (0, 1, ..) that gives it: how samplers are annealed."""


@runtime_checkable
class Denoiser(Protocol):
    """The contract of a model: log-probabilities of the data symbols at rows, given visible tokens.

    ``denoiser(tokens, rows)`` returns float [B, k, V] at ``rows`` (int64 [B, k], all valid), or [B, L, V]
    when rows is None. The mask never has probability. ``time`` is optional and ignored by time-free models.
    """

    @property
    def mask_id(self) -> int:
        """Symbol id that hides a position."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of symbols that log_probs range over."""
        ...

    def __call__(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        """Log-probabilities [B, k, V] of the symbols at rows."""
        ...

    def full(
        self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None
    ) -> tuple[Tensor, Cache]:
        """As a call, and a cache from which `partial` may re-run chosen rows."""
        ...

    def partial(self, tokens: Tensor, rows: Tensor, cache: Cache, *, time: Tensor | None = None) -> Tensor:
        """Log-probabilities [B, k, V] at rows after only those rows are run again; updates the cache in place."""
        ...


@dataclass(frozen=True)
class View:
    """All that a score or selector may look at: never a drawn candidate.

    ``log_probs`` is None before a blind choice. Where ``rows`` is given, ``log_probs`` has one entry per row
    [B, R, V] (rows padded with -1); otherwise one per position [B, L, V].
    """

    tokens: Tensor
    masked: Tensor
    log_probs: Tensor | None = None
    base_log_probs: Tensor | None = None
    step: int = 0
    time: Tensor | None = None
    order_ids: Tensor | None = None
    rows: Tensor | None = None
    start: Tensor | None = None
    """bool [B, L]: the positions that were masked before the first step (None: as `masked`)."""
    memory: tuple[Tensor, ...] = ()
    """What the selector left in `Choice.memory` at the step before, for these rows; empty at the first step."""
    items: Tensor | None = None
    """int64 [B]: which rows of the whole batch these are (None: all of them)."""
    left: tuple[int, ...] | None = None
    total: tuple[int, ...] | None = None
    """If known: how many positions are masked in each row, now and in ``start``; see `counts` and `totals`."""
    fixed: dict[Any, Tensor] | None = None
    """Tensors [whole batch, ..] that no step changes, such as public noise: made when first asked for, see `constant`."""

    @property
    def places(self) -> Tensor:
        """int64 [B]: which rows of the whole batch these are."""
        if self.items is not None:
            return self.items
        known = None if self.fixed is None else self.fixed.get("places")
        return torch.arange(len(self.tokens), device=self.tokens.device) if known is None else known

    def counts(self) -> tuple[int, ...]:
        """How many positions are masked in each row."""
        return tuple(self.masked.sum(1).tolist()) if self.left is None else self.left

    def totals(self) -> tuple[int, ...]:
        """How many were masked before the first step."""
        if self.total is None:
            return self.counts() if self.start is None else tuple(self.start.sum(1).tolist())
        return self.total

    def constant(self, key: Any, make: Callable[[Tensor], Tensor]) -> Tensor:
        """``make(order_ids int64 [B])`` [B, ..] for these rows, made once in a run where ``key`` says what it is."""
        if self.fixed is None:
            zeros = self.tokens.new_zeros(len(self.tokens))
            return make(zeros if self.order_ids is None else self.order_ids)
        if key not in self.fixed:
            self.fixed[key] = make(self.fixed["order_ids"])
        return self.fixed[key] if self.items is None else self.fixed[key][self.items]

    def all_true(self, width: int) -> Tensor:
        """True everywhere, bool [B, width]: a part of one map that a run makes."""
        whole = self.constant(
            "true", lambda ids: ids.new_ones(len(ids), self.tokens.shape[1], dtype=torch.bool)
        )
        return whole[:, :width]

    def within(self, eligible: Tensor) -> View:
        """The same view with only ``eligible`` bool [B, L] positions open to choice."""
        start = self.masked if self.start is None else self.start
        return replace(self, masked=self.masked & eligible, start=start & eligible, left=None, total=None)

    def part(self, items: Tensor) -> View:
        """The same view of some rows of the batch: int64 places."""
        there, host = items.to(self.tokens.device), items.tolist()
        names = {f.name for f in fields(self)}
        kept: dict[str, Any] = {n: v[there] for n in names if isinstance(v := getattr(self, n), Tensor)}
        for name in ("left", "total"):
            known = getattr(self, name)
            kept[name] = None if known is None else tuple(known[i] for i in host)
        return replace(
            self, memory=tuple(m[there] for m in self.memory), **kept | {"items": self.places[there]}
        )


@dataclass(frozen=True)
class Choice:
    """The rows that are unmasked next, int64 [B, k] in order of choice, padded with -1.

    ``tilt`` float [B, k, V], if any, is added to the log-probabilities of those rows, which are renormalised.
    ``calls`` float64 [B] counts network calls that the selector made itself (a look-ahead). ``memory``,
    tensors that begin with B, comes back in the next view: a selector that needs the past says so, and stays
    a pure function.
    """

    rows: Tensor
    tilt: Tensor | None = None
    calls: Tensor | None = None
    memory: tuple[Tensor, ...] = ()
    doubt: Tensor | None = None
    """bool, True where a score that was compared is NaN: an error at the end of the step."""
    packed: Tensor | None = None
    """``rows`` itself where they are known to hold no padding; other rows put in their place are looked at again."""


@dataclass(frozen=True)
class Score:
    """A preference among positions: ``score(view)`` is float [B, L], -inf where not eligible; high goes first.

    ``blind`` scores never read log-probabilities, so the choice can be made before the network runs. Those that are
    ``constant`` too depend on order_ids, positions and what was masked at the start, but not on the step: the order that
    they give is made once in a run.
    """

    compute: Callable[[View], Tensor]
    blind: bool = False
    name: str = "score"
    constant: bool = False

    def __call__(self, view: View) -> Tensor:
        """Scores float [B, L] of the masked positions; -inf elsewhere."""
        return torch.where(view.masked, self.compute(view), -torch.inf)


@dataclass(frozen=True)
class Selector:
    """Chooses the next positions from a `View`. ``time``, if any, gives the model's time [B] at this step."""

    choose: Callable[[View], Choice]
    blind: bool = False
    time: Callable[[View], Tensor] | None = None
    name: str = "selector"

    def __call__(self, view: View) -> Choice:
        """The next rows, at least one for every batch row that can still move (ancestral may return none)."""
        return self.choose(view)


@dataclass(frozen=True)
class Request:
    """What the loop asks of a token source: symbols for ``rows`` [B, k] under ``log_probs`` [B, k, V].

    ``items`` int64 [B] are the batch rows' places in the original batch, ``valid`` bool [B, k] marks real
    rows. ``item_ids`` int64 [B] name the items themselves, in whatever batch they come (None: as ``items``):
    private noise belongs to them.
    """

    log_probs: Tensor
    rows: Tensor
    valid: Tensor
    items: Tensor
    step: int
    seed: int | None
    item_ids: Tensor | None = None
    shape: tuple[int, ...] | None = None
    """That of the whole batch of tokens, (B, L)."""


TokenSource: TypeAlias = Callable[[Request], Tensor]
"""Where symbols come from: a `Request` to int64 [B, k]."""


@dataclass(frozen=True)
class State:
    """What the next step needs. Every field is per batch row; ``log_prob`` float64, nats; ``nfe`` float64."""

    tokens: Tensor
    masked: Tensor
    start: Tensor
    left: tuple[int, ...]
    total: tuple[int, ...]
    """How many positions are masked in each row, now and in ``start``."""
    order_ids: Tensor
    item_ids: Tensor
    log_prob: Tensor
    nfe: Tensor
    fixed: dict[Any, Tensor]
    """What no step changes: ``order_ids``, ``places`` 0..B-1, ``start``, and what `View.constant` makes of them."""
    step: int = 0
    memory: tuple[Tensor, ...] = ()
    remembered: Any = None
    """What `caching.blocks` keeps between steps. It follows from the tokens: without it a step is slower, not different."""


@dataclass(frozen=True)
class Info:
    """What a diagnostician wants of one step.

    ``items`` int64 [B'] are the batch rows that moved; ``rows``, ``symbols`` int64 and ``log_probs`` float
    [B', k] belong to them, with -1 in ``rows`` where a row moved fewer positions. ``network_seconds`` is
    wall time inside the denoiser. ``entropies`` float64 [B', k], nats, NaN at padding, are those of the laws
    that the symbols came from, if they were asked for; ``dtype`` is that of the denoiser's log-probabilities.
    """

    items: Tensor
    rows: Tensor
    symbols: Tensor
    log_probs: Tensor
    network_seconds: float = 0.0
    entropies: Tensor | None = None
    dtype: torch.dtype | None = None


SHOWN = 16
"""Rows of a result that a notebook shows."""


@dataclass(frozen=True)
class Result:
    """A finished batch: tokens int64 [B, L], log_prob float64 [B] (nats), nfe float64 [B], trace, manifest.

    ``nfe`` counts network calls in full-forward equivalents: a pass over m of N rows counts m/N. The manifest
    says how to repeat it (versions, device, dtypes, seed, selector, source, substeps) and what it took:
    ``seconds`` of wall time, ``network_seconds`` of them inside the denoiser.
    """

    tokens: Tensor
    log_prob: Tensor
    nfe: Tensor
    trace: tuple[Info, ...] = ()
    manifest: dict[str, Any] = field(default_factory=dict)
    look: Look | None = field(default=None, repr=False, compare=False)
    """How the symbols look to people, where a model said it; None: as numbers."""

    def items(self, most: int | None = None) -> list[Item]:
        """Each row, or the first ones, as it was at the start, and its steps, as `unmask.pictures.film` takes them."""
        look = self.look or Look()
        rows = zip(self.tokens[:most].tolist(), steps_of(self.trace, len(self.tokens)))
        return [Item.before(row, steps, look.mask, f"sample {k + 1}") for k, (row, steps) in enumerate(rows)]

    def _repr_html_(self) -> str:
        """The first rows step by step, as a notebook shows them, and the manifest."""
        told = zip(self.log_prob.tolist(), self.nfe.tolist())
        note = "; ".join(f"{p:.4g} nats in {n:g} calls" for p, n in islice(told, 4))
        title = f"Unmasking, {min(len(self.tokens), SHOWN)} of {len(self.tokens)} rows"
        shown = pictures.film(title, self.look or Look(), self.items(SHOWN), f"Log-probability: {note}.")
        return pictures.fragment(shown + pictures.listed("How it was made", self.manifest))


def steps_of(trace: Sequence[Info], count: int) -> list[list[dict[str, Any]]]:
    """What each step did to each of ``count`` sequences: positions, symbols, log-probabilities and entropies (nats)."""
    steps: list[list[dict[str, Any]]] = [[] for _ in range(count)]
    for info in trace:
        for place, item in enumerate(info.items.tolist()):
            kept = info.rows[place] >= 0
            values = {"positions": info.rows, "symbols": info.symbols, "log_probs": info.log_probs}
            record: dict[str, Any] = {k: v[place][kept].tolist() for k, v in values.items()}
            known = None if info.entropies is None else info.entropies[place][kept].tolist()
            steps[item].append(record | {"entropies": known})
    return steps


@dataclass(frozen=True)
class Estimate:
    """A Monte Carlo value and its standard error, both float64 [B], in nats per sequence."""

    value: Tensor
    stderr: Tensor
