"""Runs samplers on items, never the same twice: what was measured is kept, on disk if asked."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from unmask import engine
from unmask.base.types import Denoiser
from unmask.evaluation.tuning import costs as stepping
from unmask.evaluation.tuning import racing
from unmask.evaluation.tuning.candidates import ORDERS, Candidate, Space
from unmask.evaluation.tuning.results import Row, interval
from unmask.evaluation.tuning.tasks import Items, Metric
from unmask.orders.sources import given
from unmask.planning import families

Array: TypeAlias = NDArray[np.float64]

MEASURED = 16
"""Items that costs of steps are measured on."""


@dataclass(frozen=True)
class Bench:
    """Runs samplers on items, and never the same twice."""

    denoiser: Denoiser
    metric: Metric
    batch_size: int
    kept: Kept

    def measure(self, candidate: Candidate, items: Items, places: NDArray[np.int64]) -> tuple[Array, Array]:
        """Losses and calls of a candidate on some items."""
        key = f"choose|{_key(candidate)}|{places[0]}|{places[-1]}"
        losses, calls = self.kept.of(key, lambda: self._measured(candidate, items, places))
        return losses, calls

    def _measured(self, candidate: Candidate, items: Items, places: NDArray[np.int64]) -> tuple[Array, Array]:
        found = []
        for some in np.array_split(places, -(-len(places) // self.batch_size)):
            ids = torch.as_tensor(some, device=items.tokens.device)
            found.append(self.metric.of(self.denoiser, items.at(some), candidate.sampler, ids))
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])

    def keeps_to(self, candidate: Candidate, items: Items, most: float) -> bool:
        """Whether a rule is done with two items in so many steps."""
        key = f"keeps|{_key(candidate)}|{most}"
        return bool(self.kept.of(key, lambda: self._kept_to(candidate, items.at(slice(0, 2)), most))[0][0])

    def _kept_to(self, candidate: Candidate, some: Items, most: float) -> tuple[Array, Array, Array]:
        start = torch.where(some.visible, some.tokens, self.denoiser.mask_id)
        state = engine.init(start, self.denoiser.mask_id, torch.arange(len(start), device=start.device))
        selector, source = candidate.sampler.selector_for(self.denoiser), given(some.tokens)
        with torch.no_grad():
            while any(state.left) and state.step < most:
                state, _ = engine.step(state, self.denoiser, selector, source)
        calls = np.array([float(state.nfe.sum())])
        return np.array([float(not any(state.left))]), calls[:0], calls

    def pace(self, items: Items) -> float:
        """Seconds that a call takes for an item."""
        some = items.at(slice(0, racing.FIRST))
        hidden = torch.where(some.visible, some.tokens, self.denoiser.mask_id)
        with torch.no_grad():
            self.denoiser(hidden)
            began = time.perf_counter()
            self.denoiser(hidden)
        return (time.perf_counter() - began) / len(hidden)

    def judge(self, candidate: Candidate, items: Items) -> tuple[Row, Array]:
        """A candidate on all items, with times."""
        losses, calls, seconds = self.kept.of(
            f"judge|{_key(candidate)}", lambda: self._timed(candidate, items)
        )
        middle, each, spent = (
            interval(losses, self.metric.shares),
            float(seconds[0]),
            racing.mean_calls(calls),
        )
        row = Row(candidate, float(calls.mean()), float(losses.mean()), middle, len(losses), each, spent)
        return row, losses

    def _timed(self, candidate: Candidate, items: Items) -> tuple[Array, Array, Array]:
        began = time.perf_counter()
        losses, calls = self._measured(candidate, items, np.arange(len(items)))
        return losses, calls, np.array([(time.perf_counter() - began) / len(items)])

    def costs(self, space: Space, items: Items, name: str, sizes: tuple[int, ...]) -> stepping.StepCosts:
        """Costs of steps of an order along a plan, on the first items."""
        some, grid = items.at(slice(0, MEASURED)), stepping.Grid(max(2, min(stepping.POINTS, space.count)))
        key = f"costs|{name}|{sizes}"
        losses, gains, _ = self.kept.of(key, lambda: self._costs(space, some, name, sizes, grid))
        shape = (-1, grid.size, grid.size)
        return stepping.StepCosts.plain(grid, losses.reshape(shape), gains.reshape(shape), space.count, sizes)

    def _costs(
        self, space: Space, items: Items, name: str, sizes: tuple[int, ...], grid: stepping.Grid
    ) -> tuple[Array, Array, Array]:
        tokens, masked, hidden = items.tokens, ~items.visible, ~items.visible
        if space.block is not None:
            tokens, masked, hidden = stepping.in_blocks(tokens, space.block)
        found = stepping.measure(
            self.denoiser, tokens, ORDERS[name], space.plan(sizes),
            masked=masked, hidden=hidden, grid=grid, batch_size=self.batch_size,
        )  # fmt: skip
        calls = np.array([len(tokens) * stepping.calls(grid, len(sizes))])
        return found.losses.reshape(len(tokens), -1), found.gains.reshape(len(tokens), -1), calls

    def levels(self, space: Space, items: Items, name: str, steps: int) -> Callable[[int], tuple[int, ...]]:
        """Plans of at most ``steps`` steps for a blind order whose costs jump between levels of bisection."""
        some, sizes = items.at(slice(0, MEASURED)), stepping.parted(families.doubling(space.count), steps)

        def make() -> tuple[Array, ...]:
            found = stepping.at_ends(self.denoiser, some.tokens, ORDERS[name], sizes)
            return np.nan_to_num(found, posinf=-1.0), found[:0], np.array([2.0 * len(some) * len(sizes)])

        nats = self.kept.of(f"levels|{name}|{sizes}", make)[0]
        return functools.partial(stepping.joined, np.where(nats < 0, np.inf, nats), sizes)

    def measuring(self) -> float:
        """Calls that costs of steps took, and rules that were tried on two items before the race."""
        used = {k: v for k, v in self.kept.known.items() if k in self.kept.used}
        return float(sum(v[2][0] for k, v in used.items() if k.startswith(("costs|", "levels|", "keeps|"))))


def _key(candidate: Candidate) -> str:
    """A candidate by name and by what it is: a plan that was measured anew has the name of the one before."""
    return f"{candidate.name}|{hashlib.sha256(candidate.sampler.to_json().encode()).hexdigest()[:12]}"


class Kept:
    """Measurements by key, on disk as lines of JSON where there is a file."""

    def __init__(self, path: Path | None, title: str) -> None:
        self.path, self.known, self.used = path, dict[str, list[Array]](), set[str]()
        if path is None:
            return
        if path.exists():
            text = path.read_text()
            first, *lines = text.splitlines()
            if not text.endswith("\n"):
                path.write_text(text[: text.rfind("\n") + 1])
            if json.loads(first) != {"of": title}:
                raise ValueError(
                    f"{path} holds measurements of something else; expected another file, or none"
                )
            for line in lines:
                if line.endswith("}"):  # a line that was cut off is measured again
                    found = json.loads(line)
                    self.known[found["key"]] = [np.array(v) for v in found["values"]]
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"of": title}) + "\n")

    @staticmethod
    def at(path: Path | None, source: str, choosing: Items, judging: Items, metric: Metric) -> Kept:
        """Those of a denoiser, as ``source`` says, on these items by this metric."""
        if path is None:
            return Kept(None, "")
        digest = hashlib.sha256(source.encode())
        for part in (choosing, judging):
            digest.update(part.content)
        return Kept(path, f"{metric.name} {digest.hexdigest()}")

    def of(self, key: str, make: Callable[[], Sequence[Array]]) -> list[Array]:
        """What is known under a key, or else is measured now and kept."""
        self.used.add(key)
        if key not in self.known:
            self.known[key] = list(make())
            if self.path is not None:
                line = json.dumps({"key": key, "values": [v.tolist() for v in self.known[key]]})
                with self.path.open("a") as file:
                    file.write(line + "\n")
        return self.known[key]
