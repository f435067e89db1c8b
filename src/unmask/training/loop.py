"""One readable training loop: AdamW on a recipe's batches, EMA, log, checkpoints that resume bit for bit.

A run lives in a folder: ``log.jsonl``, ``checkpoints/<step>/`` and, at the end, ``model/`` (EMA weights and
config, which `unmask.load` reads). Batches are pure functions of (seed, step): the only random state is
torch's, for dropout. Under torchrun every process runs this loop and takes a part of each batch (`together`);
the first one writes and speaks, and where one stops or fails, all do.
"""

from __future__ import annotations

import ctypes
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from unmask.base import checkpoints, devices
from unmask.base.devices import kind_of
from unmask.base.progress import Progress
from unmask.recipes.run import Batch, Optimiser, Run, describe
from unmask.training import resuming, saving, state, tracking
from unmask.training.state import State
from unmask.training.together import parallel
from unmask.training.together.batches import batches_of, check_divides, checksum, parts
from unmask.training.together.locks import locked
from unmask.training.together.world import World, agreed, any_of, check_alike, mean, started
from unmask.training.tracking import Hear, Tracker


def train(run: Run, folder: Path, *, quiet: bool = False, track: Sequence[Tracker] = ()) -> Path:
    """Trains a run in a folder, or goes on with what it holds; returns the folder of the finished model.

    ValueError when another process trains there, when the folder belongs to a run with other settings or has done more
    steps, when its newest checkpoint is damaged, when the device is not there, and when the gradient is not finite. Ctrl-C
    or SIGTERM finishes the step and saves before it leaves; a second one leaves at once. Whatever goes wrong, checkpoints
    hold whole steps only, the earlier ones stay as they were, and so do the caller's random states and threads.

    The processes of torchrun train one run together; where one fails, all end, and the first says why. ``track``: who hears
    of every logged step besides the log (`unmask.training.tracking`), in the first process only.
    """
    with started(run.machine) as world:
        agreed(world, lambda: devices.check_device(run.machine.device))
        run = agreed(world, lambda: run.prepare(run))
        check_alike(world, resuming.settings(run))
        device, threads = run.machine.device, run.machine.threads
        with _locked(world, folder), devices.random_states_kept(device), _threads(threads):
            return _train(world, run, folder, quiet or not world.first, track)


def _train(world: World, run: Run, folder: Path, quiet: bool, track: Sequence[Tracker]) -> Path:
    run = agreed(world, lambda: _prepared(world, run, folder))
    network = agreed(world, lambda: state.initialised(run, fresh=not resuming.saved(folder)))
    training = state.started(world, run, network)
    first = step = agreed(world, lambda: saving.resume(training, folder))
    check_alike(world, {"the newest checkpoint": step})
    saved, stopped = time.monotonic(), False
    with (
        Progress("train", run.optimiser.steps, step, quiet=quiet) as progress,
        _heard(world, track, run, folder, step) as log,
        _ctrl_c(world) as stop,
        batches_of(run) as made,
    ):
        while step < run.optimiser.steps and not stopped:
            batch = agreed(world, partial(made, step))
            if world.size > 1 and step == first:
                check_alike(world, {"the checksum of a batch": checksum(batch)})
            loss = update(training, batch, step)
            step += 1
            if step % run.machine.log_every == 0:
                rate = learning_rate(run.optimiser, step)
                log(progress.advance(step, loss=mean(world, loss.item()), lr=rate))
            due = time.monotonic() - saved > 60 * run.machine.save_minutes
            stopped, due = any_of(world, stop(), due)
            if due:
                saving.save(training, folder, step)
                saved = time.monotonic()
        saving.save(training, folder, step)
        if any(any_of(world, stopped, stop())):
            raise KeyboardInterrupt
    return saving.export(training, folder, step)


def update(training: State, batch: Batch, step: int) -> Tensor:
    """One step of training, in place; returns this process's loss, nats per position; ValueError on divergence."""
    run, network, optimiser = training.run, training.network, training.optimiser
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(run.optimiser, step)
    loss = _backward(training, parts(batch, training.world, run.machine.accumulate))
    norm = nn.utils.clip_grad_norm_(network.parameters(), run.optimiser.clip)
    if not parallel.whole(norm).isfinite():
        raise ValueError(
            f"the gradient is not finite at step {step}: lower optimiser.learning_rate or optimiser.clip"
        )
    optimiser.step()
    optimiser.zero_grad()
    decay = min(run.optimiser.ema, (1 + step) / (10 + step))
    now = {k: parallel.own(v) for k, v in network.state_dict().items()}
    torch._foreach_lerp_([parallel.own(training.average[k]) for k in now], list(now.values()), 1 - decay)
    return loss


def _backward(training: State, mine: list[Batch]) -> Tensor:
    """The mean loss of parts of a batch; its gradient, the mean over processes, is added to those of the parameters."""
    device, total = training.run.machine.device, torch.zeros(())
    half = state.in_bfloat16(training.run)
    for number, part in enumerate(mine, 1):
        with parallel.apart(training.loss, last=number == len(mine)):
            with torch.autocast(kind_of(device), torch.bfloat16, enabled=half):
                loss = training.loss(part.to(device)) / len(mine)
            loss.backward()
        total = total.to(loss) + loss.detach()
    return total


def learning_rate(o: Optimiser, step: int) -> float:
    """Learning rate at a step: linear warm-up, plateau, decay to 0 over the last ``decay`` share, linear or a cosine."""
    left = min((o.steps - step) / max(o.decay * o.steps, 1), 1.0)
    left = (1 - math.cos(math.pi * left)) / 2 if o.cosine else left
    return o.learning_rate * min((step + 1) / max(o.warmup, 1), left)


@contextmanager
def _locked(world: World, folder: Path) -> Iterator[None]:
    """The folder belongs to this world inside: its first process has the lock."""
    with ExitStack() as held:
        agreed(world, lambda: held.enter_context(locked(folder)) if world.first else None)
        yield


def _prepared(world: World, run: Run, folder: Path) -> Run:
    """The run that the folder goes on with, and the folder and the machine made ready for it."""
    run = resuming.adopted(run, folder)
    check_divides(run.batch_size, world, run.machine.accumulate)
    _prepare_machine(run)
    if world.first:
        for place in (folder, folder / "checkpoints"):
            checkpoints.sweep(place)
        checkpoints.write_json(folder / "run.json", describe(run))
    return run


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Computes on so many CPU threads inside (0: as before), and leaves the caller's number as it was."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)


def _prepare_machine(run: Run) -> None:
    """An allocator that keeps freed memory: page faults cost up to a third of a step.

    ValueError where compiling is asked for and there is no compiler, or bfloat16 and the device knows none.
    """
    if run.machine.compile and run.machine.device == "cpu" and not _has_compiler():
        raise ValueError(
            "machine.compile on a CPU needs a C++ compiler, and none was found: install g++, name one in CXX, or "
            "set --machine.compile false"
        )
    if run.machine.bfloat16:
        devices.check_bfloat16(run.machine.device)
    if run.machine.device == "cpu" and sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: None)  # other C libraries have none
        mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def _has_compiler() -> bool:
    """Whether torch.compile would find a C++ compiler."""
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    return shutil.which(os.environ.get("CXX") or usual) is not None


@contextmanager
def _heard(world: World, track: Sequence[Tracker], run: Run, folder: Path, step: int) -> Iterator[Hear]:
    """What rows are said to: the log and the trackers in the first process, nobody in the others."""
    with ExitStack() as held:
        opening = tracking.opened(track, run, folder, step)
        first = agreed(world, lambda: held.enter_context(opening) if world.first else None)
        yield first or (lambda _: None)


AGAIN = 5.0
"""Seconds in which several processes take signals for one: torchrun passes on what a terminal has sent them already."""


@contextmanager
def _ctrl_c(world: World) -> Iterator[Callable[[], bool]]:
    """Tells whether Ctrl-C was pressed or SIGTERM came; a second one raises KeyboardInterrupt."""
    pressed: list[float] = []

    def press(*_: object) -> None:
        if pressed and (world.size == 1 or time.monotonic() - pressed[0] > AGAIN):
            raise KeyboardInterrupt
        pressed.append(time.monotonic())

    # a caller's own handler is left alone, and only the main thread may set one
    main = threading.current_thread() is threading.main_thread()
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    ours = {n: h for n, h in usual.items() if main and signal.getsignal(n) is h}
    for number in ours:
        signal.signal(number, press)
    try:
        yield lambda: bool(pressed)
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
