"""Which of how many processes is this, and what do they agree on? One process alone is a world that asks nobody.

`torchrun` starts the processes and says so in the environment; each finds its number there. What is agreed on goes over
gloo, between processors, whatever the gradients go over.
"""

from __future__ import annotations

import datetime
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from unmask.base.checkpoints import one_line
from unmask.base.devices import kind_of
from unmask.recipes.run import Machine

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Process ``rank`` of ``size``; ``group`` is over which they agree."""

    rank: int = 0
    size: int = 1
    group: Any = None

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes, logs and speaks."""
        return self.rank == 0


ALONE = World()


class Elsewhere(ValueError):
    """What went wrong in another process, which says so itself."""


def speaks() -> bool:
    """Whether this process reports to the user: all but the later ones of several."""
    return _told("WORLD_SIZE", 1) == 1 or _told("RANK", 0) == 0


TRAINING = "training", "the last checkpoint"
"""What processes do together, and from what the same command goes on."""


@contextmanager
def started(machine: Machine, what: tuple[str, str] = TRAINING) -> Iterator[World]:
    """The world of this process, as torchrun made it; what it opens, it closes. A group that is there already is used.

    ValueError when the others do not come, or are more than the devices; when another ends inside, in whatever way.
    """
    size = _told("WORLD_SIZE", 1)
    if dist.is_available() and dist.is_initialized():
        with _ends_with_the_others(what):
            yield _joined(machine)
    elif size == 1:
        yield ALONE
    else:
        with _opened(machine, size), _ends_with_the_others(what):
            yield _joined(machine)


@contextmanager
def _opened(machine: Machine, size: int) -> Iterator[None]:
    """The group of torchrun's processes."""
    _take_device(machine.device, _told("LOCAL_RANK", 0))
    backend = "nccl" if kind_of(machine.device) == "cuda" else "gloo"
    patience = datetime.timedelta(minutes=machine.timeout_minutes)
    try:
        dist.init_process_group(backend, rank=_told("RANK"), world_size=size, timeout=patience)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{size} processes did not meet ({one_line(error)}): start them by torchrun"
        ) from None
    try:
        yield
    except BaseException as error:
        _let_go(error)
        raise
    finally:
        dist.destroy_process_group()


def _let_go(error: BaseException | None) -> None:
    """Frees what the frames of an error hold: what uses a group must go before it, or torch may wait for ever."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _joined(machine: Machine) -> World:
    """The world of the group that is open."""
    patience = datetime.timedelta(minutes=machine.timeout_minutes)
    group = dist.new_group(backend="gloo", timeout=patience) if dist.get_backend() != "gloo" else None
    return World(dist.get_rank(), dist.get_world_size(), group)


def _told(name: str, usual: int | None = None) -> int:
    """A number from the environment; ValueError where there is none."""
    text = os.environ.get(name, "" if usual is None else str(usual))
    if not text.isdecimal():
        raise ValueError(
            f"{name} is {text!r} where WORLD_SIZE is {os.environ.get('WORLD_SIZE')}: start by torchrun"
        )
    return int(text)


def _take_device(device: str, local: int) -> None:
    """Makes the GPU of this process the one that ``cuda`` means; ValueError where there is none for it."""
    kind, number = kind_of(device), torch.device(device).index
    if kind not in ("cpu", "cuda") or number is not None:
        raise ValueError(
            f"machine.device {device} for several processes: expected cpu or cuda, of which each takes one"
        )
    if kind == "cuda":
        count = torch.cuda.device_count()
        if local >= count:
            raise ValueError(
                f"process {local} of this machine has no GPU, of {count}: give --nproc-per-node {count}"
            )
        torch.cuda.set_device(local)


@contextmanager
def _ends_with_the_others(what: tuple[str, str]) -> Iterator[None]:
    """ValueError in the place of what torch says when another process is gone."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise Elsewhere(
            f"another process of this {what[0]} ended or does not answer, and says itself why; the same command goes on "
            f"from {what[1]} ({one_line(error)})"
        ) from None


# --- agreement ------------------------------------------------------------------------------------


def agreed(world: World, action: Callable[[], T]) -> T:
    """What an action gives here; where it fails in one process it fails in all, in the others by that one's words."""
    if world.size == 1:
        return action()
    value, error = None, None
    try:
        value = action()
    except Exception as caught:
        error = caught
    if any(any_of(world, error is not None)):
        said = gathered(world, None if error is None else one_line(error))
        if error is not None:
            raise error
        rank = next(i for i, text in enumerate(said) if text is not None)
        raise Elsewhere(f"process {rank} of {world.size}: {said[rank]}")
    return value  # type: ignore[return-value]


def any_of(world: World, *flags: bool) -> list[bool]:
    """Which flags are up in any process."""
    if world.size == 1:
        return list(flags)
    found = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(found, dist.ReduceOp.MAX, group=world.group)
    return [bool(flag) for flag in found.tolist()]


def mean(world: World, value: float) -> float:
    """The mean of a number over processes."""
    if world.size == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(total, group=world.group)
    return float(total) / world.size


def of_first(world: World, value: T) -> T:
    """The value that the first process has."""
    if world.size == 1:
        return value
    held = [value]
    dist.broadcast_object_list(held, src=0, group=world.group)
    return held[0]


def check_alike(world: World, found: dict[str, Any]) -> None:
    """ValueError in every process that has another value of a name than the first, and in the others by its words."""
    first = of_first(world, found)

    def check() -> None:
        for name in [*first, *(n for n in found if n not in first)]:
            if (own := found.get(name)) != (wanted := first.get(name)):
                raise ValueError(
                    f"{name} is {one_line(own)} in process {world.rank}, and {one_line(wanted)} in process 0: "
                    "give all the same settings, data and folder"
                )

    agreed(world, check)


def gathered(world: World, value: T) -> list[T]:
    """The value of every process, by rank."""
    found: list[Any] = [None] * world.size
    dist.all_gather_object(found, value, group=world.group)
    return found
