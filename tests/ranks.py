"""Several processes on this machine that do something together, as torchrun would start them: `together`.

They are forked from a server that has loaded everything already, so that a world of two costs a tenth of a second.
"""

from __future__ import annotations

import errno
import io
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from tiny import batch, killed_at, log_of, often, tiny
from torch import Tensor, nn

from unmask.command_line.app import main
from unmask.recipes import Batch, Run, all_recipes
from unmask.recipes.sequences import Folder
from unmask.training import tracking, train
from unmask.training.together import bulk

COMMANDS = tuple(
    f"unmask.command_line.commands.{name}"
    for name in ("sample", "evaluate.bounds", "evaluate.variants", "plan.tune", "archives.compress")
)
"""What is loaded when a command runs."""

LATE = "scipy.signal", "sympy", "matplotlib.figure", "typeguard"
"""What some of them load on their way."""

PATIENCE = 60.0
"""Seconds after which a process counts as hanging."""


@dataclass(frozen=True)
class End:
    """How a process ended: what it returned or raised, and its exit code (below 0: by that signal)."""

    value: Any
    error: str
    code: int


def together(work: Callable[..., Any], *arguments: Any, size: int = 2, alike: bool = True) -> list[End]:
    """What ``work(*arguments)`` gave in each of ``size`` processes; with ``alike`` False, ``work(rank, *arguments)``."""
    context, port = _server(), _free_port()
    pairs = []
    for rank in range(size):
        here, there = context.Pipe()
        given = arguments if alike else (rank, *arguments)
        process = context.Process(target=_rank, args=(there, rank, size, port, work, given))
        process.start()
        there.close()
        pairs.append((process, here))
    ends = []
    for process, here in pairs:
        try:
            value, error = here.recv() if here.poll(PATIENCE) else (None, "it hangs")
        except EOFError:
            value, error = None, "it was killed"
        process.join(1.0 if error == "it hangs" else PATIENCE)
        if process.is_alive():
            error = f"it does not end, having said: {error}"
            process.kill()
            process.join()
        ends.append(End(value, error, process.exitcode or 0))
    return ends


def given(ends: list[End]) -> list[Any]:
    """The values of processes that all ended well."""
    assert [end.error for end in ends] == [""] * len(ends)
    return [end.value for end in ends]


def _rank(
    answer: Connection, rank: int, size: int, port: int, work: Callable[..., Any], given: tuple[Any, ...]
) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    try:
        answer.send((work(*given), ""))
    except BaseException as error:
        answer.send((None, f"{type(error).__name__}: {error}"))


@cache
def _server() -> Any:
    """What processes are forked from, with everything that they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["ranks", "torch.distributed.fsdp", "torch.distributed.tensor", "torch._dynamo", *COMMANDS, *LATE]
    )
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        os.environ |= {} if before is None else {"PYTHONPATH": before}
    return context


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


# --- what they do ---------------------------------------------------------------------------------


def losses(folder: str, changes: dict[str, Any], seed: int = 0, **machine: Any) -> list[float]:
    """The losses of a training of `tiny` without dropout, with some settings of the optimiser and the machine."""
    run = tiny(often(**{"save_minutes": 60} | machine), dropout=0.0, **changes)
    train(replace(run, seed=seed), Path(folder), quiet=True)
    return [record["loss"] for record in log_of(Path(folder))]


def trained(folder: str, steps: int = 8, **machine: Any) -> None:
    """A training of `tiny`, with dropout, that saves every step and keeps all."""
    train(tiny(often(**machine), steps=steps), Path(folder), quiet=True)


def killed(rank: int, folder: str, strategy: str, calls: int) -> None:
    """The same, in which the second process is killed at that call of fsync."""
    if rank == 1:
        killed_at(calls)
    trained(folder, strategy=strategy)


def tracked(folder: str) -> None:
    """The same, with a table, and a mark for every tracker that is opened."""

    @contextmanager
    def marking(run: Run, place: Path, step: int) -> Iterator[tracking.Hear]:
        with (place / "opened").open("a") as file:
            file.write("x")
        yield lambda row: None

    train(tiny(often(save_minutes=60), steps=8), Path(folder), quiet=True, track=[tracking.csv, marking])


def stopped(rank: int, folder: str, number: int) -> None:
    """The same, in which one process gets a signal before its step 4, and another one soon after."""

    def pressing(run: Run, step: int) -> Batch:
        for _ in range(2 * (step == 4 and rank == 1)):
            signal.raise_signal(number)
        return batch(run, step)

    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    train(replace(tiny(often(save_minutes=60), steps=8), batch=pressing), Path(folder), quiet=True)


def differing(rank: int, folder: str, what: str) -> None:
    """The same, in which the second process has something else than the first, or something befalls it."""
    run = tiny(often(save_minutes=60))
    if rank == 1:
        run, folder = WAYS[what](run, folder)
    train(run, Path(folder), quiet=True)


def _failing(error: Exception, at: int) -> Callable[[Run, int], Batch]:
    def failing(run: Run, step: int) -> Batch:
        if step == at:
            raise error
        return batch(run, step)

    return failing


def _other_data(run: Run, step: int) -> Batch:
    return batch(replace(run, seed=5), step)


def _broken(network: nn.Module, data: Batch) -> Tensor:
    raise RuntimeError("out of memory")


def _full_disk(run: Run) -> Run:
    def fsync(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    os.fsync = fsync
    return run


WAYS: dict[str, Callable[[Run, str], tuple[Run, str]]] = {
    "seed": lambda run, folder: (replace(run, seed=1), folder),
    "rate": lambda run, folder: (replace(run, optimiser=replace(run.optimiser, learning_rate=0.5)), folder),
    "steps": lambda run, folder: (replace(run, optimiser=replace(run.optimiser, steps=13)), folder),
    "machine": lambda run, folder: (replace(run, machine=replace(run.machine, log_every=2)), folder),
    "folder": lambda run, folder: (run, f"{folder}-other"),
    "data": lambda run, folder: (replace(run, batch=_other_data), folder),
    "shard": lambda run, folder: (
        replace(run, batch=_failing(OSError(errno.ENOENT, "No such shard"), 3)),
        folder,
    ),
    "first shard": lambda run, folder: (replace(run, batch=_failing(ValueError("no such shard"), 0)), folder),
    "memory": lambda run, folder: (replace(run, objective=_broken), folder),
    "disk": lambda run, folder: (_full_disk(run), folder),
}
"""What may differ, by name."""


# --- every objective ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Words:
    """A token folder of sixty random items of two lengths, or one random stream, in memory."""

    size: int
    length: int
    swaps: int | None = 3
    items: int = 60
    symbols: int = 600

    @property
    def lengths(self) -> np.ndarray:
        return np.where(np.arange(60) % 2, self.length // 2, self.length - 1)

    def open(self) -> Words:
        return self

    def _drawn(self, *shape: int) -> np.ndarray:
        return np.random.default_rng(shape).integers(0, self.size, shape)

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        return self._drawn(600)[starts[:, None] + np.arange(length)]

    def padded(self, places: np.ndarray, length: int, pad: int) -> np.ndarray:
        rows = self._drawn(60, length)[places]
        return np.where(np.arange(length) < self.lengths[places, None], rows, pad)


SIZES = {"width": 16, "depth": 2, "heads": 2, "hidden": 32, "features": 16, "blocks": 1, "ordinal": 4}
"""A network of any kind, made small."""


def small(name: str, rows: int = 12, **machine: Any) -> Run:
    """A recipe with a small network, on made-up data where it needs a folder."""
    run = all_recipes()[name]()
    sizes = SIZES | ({"width": 8, "height": 8} if hasattr(run.network, "features") else {})
    sizes = {k: v for k, v in sizes.items() if hasattr(run.network, k)}
    network = replace(run.network, **sizes)
    run = replace(run, network=network, batch_size=rows, machine=often(save_minutes=60, **machine))
    run = replace(run, optimiser=replace(run.optimiser, steps=3, warmup=0, decay=0.0))
    if isinstance(run.data, Folder):
        size = getattr(network, "levels", network.vocab_size) - 1
        return replace(run, data=Words(size, network.length), prepare=lambda run: run)
    if name in ("sudoku_hard", "sudoku_equivariant"):
        return replace(run, data=replace(run.data, banked=0.0))
    return run


def steps_of(name: str, folder: str, **machine: Any) -> list[float]:
    """The losses of three steps of such a recipe."""
    train(small(name, **machine), Path(folder), quiet=True)
    return [record["loss"] for record in log_of(Path(folder))]


def spoken(words: list[str]) -> tuple[int, str, str]:
    """A command's exit code, and what it said on standard output and standard error."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


def broken(rank: int, words: list[str], after: int, how: str) -> tuple[int, str, str]:
    """The same, where process 1 is killed, or its disk is full, at a piece."""
    keep, count = bulk.write_tensors, [0]

    def failing(*arguments: Any) -> None:
        count[0] += 1
        if rank == 1 and count[0] > after:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, "No space left on device", "piece")
        keep(*arguments)

    bulk.write_tensors = failing
    return spoken(words)


def apart(rank: int, words: list[list[str]]) -> tuple[int, str, str]:
    """A command of its own in each process."""
    return spoken(words[rank])
