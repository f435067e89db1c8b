"""What the code should cost: log-probabilities of items under the same law and plan, before any rounding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from unmask import engine
from unmask.codec.coder import Batch, exact
from unmask.codec.layout.batches import batches, cut, filled, group_rows
from unmask.codec.layout.coding import GROUP, Coding, symbols_of
from unmask.codec.tables import Law
from unmask.orders.sources import given


def log_likelihoods(coding: Coding, items: Sequence[bytes]) -> list[float | None]:
    """Nats of each item; None where the model cannot say it."""
    found = [symbols_of(coding.subject, data) for data in items]
    totals: list[float | None] = [None if ids is None else 0.0 for ids in found]
    each = [group_rows(coding.subject, [] if ids is None else [len(ids)], GROUP) for ids in found]
    owner = [i for i, groups in enumerate(each) for _ in groups]
    flat = [rows for groups in each for rows in groups]
    parts = cut([ids for ids in found if ids is not None], flat)
    for places, batch in batches(coding.subject, flat, coding.batch):
        for place, nats in zip(places, _scores(coding.law, batch, filled(batch, [parts[p] for p in places]))):
            totals[owner[place]] = (totals[owner[place]] or 0.0) + nats
    return totals


def _scores(law: Law, batch: Batch, symbols: Tensor) -> list[float]:
    """Log-probability of each group, nats."""
    with exact():
        state = engine.init(batch.tokens, law.denoiser.mask_id, masked=batch.masked)
        state, _ = engine.run(state, law.denoiser, law.selector, given(symbols), substeps=law.substeps)
    found: list[float] = np.bincount(batch.groups, state.log_prob.numpy()).tolist()
    return found
