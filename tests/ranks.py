"""Several processes on this machine that do something together, as torchrun would start them: `together`.

They are forked from a server that has loaded everything already, so that a world of two costs a tenth of a second.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tiny import log_of, often, tiny

from unmask.training import train

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
    context.set_forkserver_preload(["ranks", "torch.distributed.fsdp", "torch.distributed.tensor", "torch._dynamo"])
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


def losses(folder: str, changes: dict[str, Any], **machine: Any) -> list[float]:
    """The losses of a training of `tiny` without dropout, with some settings of the optimiser and the machine."""
    run = tiny(often(**{"save_minutes": 60} | machine), dropout=0.0, **changes)
    train(run, Path(folder), quiet=True)
    return [record["loss"] for record in log_of(Path(folder))]
