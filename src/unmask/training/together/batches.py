"""Where do the batches of a training come from, and which rows are whose?"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from unmask.base.devices import kind_of
from unmask.recipes.run import Batch, Run
from unmask.training.together.world import World


@contextmanager
def batches_of(run: Run) -> Iterator[Callable[[int], Batch]]:
    """``made(step)`` is ``run.batch(run, step)``, asked for one step after another.

    With ``machine.prefetch`` as many are made ahead in a thread, while others are trained on; what fails there is raised
    at its own step.
    """
    ahead = run.machine.prefetch
    ahead = int(kind_of(run.machine.device) != "cpu") if ahead is None else ahead
    if not ahead:
        yield lambda step: run.batch(run, step)
        return
    pool = ThreadPoolExecutor(1, "batches")
    waiting: deque[Future[Batch]] = deque()

    def made(step: int) -> Batch:
        last = min(step + ahead, run.optimiser.steps - 1)
        waiting.extend(pool.submit(run.batch, run, s) for s in range(step + len(waiting), last + 1))
        return waiting.popleft().result()

    try:
        yield made
    finally:
        pool.shutdown(cancel_futures=True)


def parts(batch: Batch, world: World, count: int) -> list[Batch]:
    """This process's share of a batch, in ``count`` parts; ValueError where the batch has no so many equal ones.

    Rows are dealt out in turn, so that processes get rows of every kind.
    """
    whole = world.size * count
    if whole == 1:
        return [batch]
    check_divides(len(batch.tokens), world, count)
    return [batch.every(whole, world.rank * count + i) for i in range(count)]


def check_divides(rows: int, world: World, count: int) -> None:
    """ValueError unless rows are a multiple of processes times parts."""
    whole = world.size * count
    if rows % whole:
        raise ValueError(
            f"a batch of {rows} rows for {world.size} processes x {count} parts (machine.accumulate): expected a "
            f"multiple of {whole}, by --batch_size"
        )


def checksum(batch: Batch) -> int:
    """A number that tells batches of other data apart."""
    return zlib.crc32(batch.masked.numpy().tobytes(), zlib.crc32(batch.tokens.numpy().tobytes()))
