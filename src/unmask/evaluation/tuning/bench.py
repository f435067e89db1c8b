"""Runs samplers on items, never the same twice: what was measured is kept, on disk if asked."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from unmask import engine
from unmask.base.progress import IN_TURN, Piece, Pieces, Work
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
    """Runs samplers on items, and never the same twice; several at once where several processes measure."""

    denoiser: Denoiser
    metric: Metric
    batch_size: int
    kept: Kept

    def measure(self, candidate: Candidate, items: Items, places: NDArray[np.int64]) -> tuple[Array, Array]:
        """Losses and calls of a candidate on some items."""
        (losses, calls), *_ = self.measure_all([candidate], items, places)
        return losses, calls

    def measure_all(
        self, candidates: Sequence[Candidate], items: Items, places: NDArray[np.int64]
    ) -> list[list[Array]]:
        """Losses and calls of each candidate on some items."""
        return self.kept.all(
            {
                f"choose|{_key(c)}|{places[0]}|{places[-1]}": partial(self._measured, c, items, places)
                for c in candidates
            }
        )

    def _measured(self, candidate: Candidate, items: Items, places: NDArray[np.int64]) -> tuple[Array, Array]:
        found = []
        for some in np.array_split(places, -(-len(places) // self.batch_size)):
            ids = torch.as_tensor(some, device=items.tokens.device)
            found.append(self.metric.of(self.denoiser, items.at(some), candidate.sampler, ids))
        return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])

    def keeping_to(self, candidates: Sequence[Candidate], items: Items, most: float) -> list[bool]:
        """Whether each rule is done with two items in so many steps."""
        some = items.at(slice(0, 2))
        works = {f"keeps|{_key(c)}|{most}": partial(self._kept_to, c, some, most) for c in candidates}
        return [bool(done[0]) for done, *_ in self.kept.all(works)]

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

    def judge(self, candidates: Sequence[Candidate], items: Items) -> list[tuple[Row, Array]]:
        """Each candidate on all items, with times."""
        works = {f"judge|{_key(c)}": partial(self._timed, c, items) for c in candidates}
        return [self._row(c, *found) for c, found in zip(candidates, self.kept.all(works))]

    def _row(self, candidate: Candidate, losses: Array, calls: Array, seconds: Array) -> tuple[Row, Array]:
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

    def costs_of(
        self, space: Space, items: Items, paths: Sequence[tuple[str, tuple[int, ...]]]
    ) -> list[stepping.StepCosts]:
        """Costs of steps of each order along its plan, on the first items."""
        some, grid = items.at(slice(0, MEASURED)), stepping.Grid(max(2, min(stepping.POINTS, space.count)))
        shape = (-1, grid.size, grid.size)
        found = self.kept.all(
            {f"costs|{n}|{sizes}": partial(self._costs, space, some, n, sizes, grid) for n, sizes in paths}
        )
        return [
            stepping.StepCosts.plain(grid, loss.reshape(shape), gains.reshape(shape), space.count, sizes)
            for (loss, gains, _), (_, sizes) in zip(found, paths)
        ]

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
        return partial(stepping.joined, np.where(nats < 0, np.inf, nats), sizes)

    def measuring(self) -> float:
        """Calls that costs of steps took, and rules that were tried on two items before the race."""
        used = {k: v for k, v in self.kept.known.items() if k in self.kept.used}
        return float(sum(v[2][0] for k, v in used.items() if k.startswith(("costs|", "levels|", "keeps|"))))


def _key(candidate: Candidate) -> str:
    """A candidate by name and by what it is: a plan that was measured anew has the name of the one before."""
    return f"{candidate.name}|{hashlib.sha256(candidate.sampler.to_json().encode()).hexdigest()[:12]}"


class Kept:
    """Measurements by key, on disk as lines of JSON where there is a file; ``pieces`` says who makes those of a call."""

    def __init__(self, path: Path | None, title: str, pieces: Pieces = IN_TURN) -> None:
        self.path, self.known, self.used = path, dict[str, list[Array]](), set[str]()
        self.pieces = pieces
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
    def at(
        path: Path | None, source: str, choosing: Items, judging: Items, metric: Metric, pieces: Pieces
    ) -> Kept:
        """Those of a denoiser, as ``source`` says, on these items by this metric."""
        if path is None:
            return Kept(None, "", pieces)
        digest = hashlib.sha256(source.encode())
        for part in (choosing, judging):
            digest.update(part.content)
        return Kept(path, f"{metric.name} {digest.hexdigest()}", pieces)

    def of(self, key: str, make: Callable[[], Sequence[Array]]) -> list[Array]:
        """What is known under a key, or else is measured now and kept."""
        return self.all({key: make})[0]

    def all(self, wanted: Mapping[str, Callable[[], Sequence[Array]]]) -> list[list[Array]]:
        """The same of several keys, none of which needs another."""
        self.used.update(wanted)
        new = [key for key in wanted if key not in self.known]
        works = (Work(n, 1, partial(_piece, wanted[key]), key) for n, key in enumerate(new))
        for key, found in zip(new, self.pieces.each("measured", works)):
            self.known[key] = [found[str(n)].numpy() for n in range(len(found))]
            self._write(key)
        return [self.known[key] for key in wanted]

    def _write(self, key: str) -> None:
        if self.path is not None:
            line = json.dumps({"key": key, "values": [v.tolist() for v in self.known[key]]})
            with self.path.open("a") as file:
                file.write(line + "\n")


def _piece(make: Callable[[], Sequence[Array]]) -> Piece:
    """Arrays as a piece of work."""
    return {str(n): torch.as_tensor(value) for n, value in enumerate(make())}
