"""A batch of the right shape without data: what a dry run trains on."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.recipes.run import Batch, Run
from unmask.recipes.sequences import Folder

ROWS = 2
"""Rows that are drawn; a batch of any size has their shape."""


@dataclass(frozen=True)
class _Blank:
    """A token folder of zeros, of items as long as the network takes them."""

    longest: int
    symbols: int = 2**40
    items: int = 2**20

    def open(self) -> _Blank:
        return self

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.full(self.items, self.longest)

    def windows(self, starts: NDArray[Any], length: int) -> NDArray[np.int64]:
        return np.zeros((len(starts), length), np.int64)

    def padded(self, indices: NDArray[Any], length: int, fill: int) -> NDArray[np.int64]:  # noqa: ARG002
        return np.zeros((len(indices), length), np.int64)


def blank_batch(run: Run, rows: int) -> Batch:
    """A batch of the run on the meta device, as a step of batch size ``rows`` has it; data are not looked at."""
    if isinstance(run.data, Folder):
        ends = bool(getattr(run.network, "ends", False))
        run = replace(run, data=_Blank(run.network.length - ends))
    drawn = replace(run, batch_size=ROWS).batch(replace(run, batch_size=ROWS), 0)
    values = {f.name: getattr(drawn, f.name) for f in fields(Batch)}
    return Batch(**{name: None if v is None else _longer(v, rows) for name, v in values.items()})  # type: ignore[arg-type]


def _longer(value: torch.Tensor, rows: int) -> torch.Tensor:
    """An empty tensor of a drawn one's kind with its rows for ``ROWS`` made those for ``rows``, on the meta device."""
    count = max(1, len(value) * rows // ROWS)
    return torch.empty((count, *value.shape[1:]), dtype=value.dtype, device="meta")
