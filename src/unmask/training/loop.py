"""One readable training loop: AdamW on a recipe's batches, EMA, log, checkpoints that resume bit for bit.

A run lives in a folder: ``log.jsonl``, ``checkpoints/<step>/`` and, at the end, ``model/`` (EMA weights and
config, which `unmask.load` reads). Batches are pure functions of (seed, step): the only random state is
torch's, for dropout.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unmask.base import checkpoints, devices, records
from unmask.base.devices import has_bfloat16, kind_of
from unmask.base.progress import Progress
from unmask.recipes.run import Optimiser, Run, describe
from unmask.training import resuming
from unmask.training.locks import locked
from unmask.training.muon import Muon


def train(run: Run, folder: Path, *, quiet: bool = False) -> Path:
    """Trains a run in a folder, or goes on with what it holds; returns the folder of the finished model.

    ValueError when another process trains there, when the folder belongs to a run with other settings or has done more
    steps, when its newest checkpoint is damaged, when the device is not there, and when the gradient is not finite. Ctrl-C
    or SIGTERM finishes the step and saves before it leaves; a second one leaves at once. Whatever goes wrong, checkpoints
    hold whole steps only, the earlier ones stay as they were, and so do the caller's random states and threads.
    """
    devices.check_device(run.machine.device)
    run = run.prepare(run)
    with locked(folder), devices.random_states_kept(run.machine.device), _threads(run.machine.threads):
        return _train(run, folder, quiet)


def _train(run: Run, folder: Path, quiet: bool) -> Path:
    run = resuming.adopted(run, folder)
    for place in (folder, folder / "checkpoints"):
        checkpoints.sweep(place)
    _prepare_machine(run)
    checkpoints.write_json(folder / "run.json", describe(run))
    network = _initialised(run, fresh=not resuming.saved(folder))
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    optimiser = _optimiser(network, run.optimiser)
    step = _resume(run, folder, network, average, optimiser)
    objective = torch.compile(run.objective) if run.machine.compile else run.objective
    saved = time.monotonic()
    with (
        Progress("train", run.optimiser.steps, step, quiet=quiet) as progress,
        _log(folder, step) as log,
        _ctrl_c() as stop,
    ):
        while step < run.optimiser.steps and not stop():
            loss = update(run, network, average, optimiser, objective, step)
            step += 1
            if step % run.machine.log_every == 0:
                log(progress.advance(step, loss=loss.item(), lr=learning_rate(run.optimiser, step)))
            if time.monotonic() - saved > 60 * run.machine.save_minutes:
                save(run, folder, network, average, optimiser, step)
                saved = time.monotonic()
        save(run, folder, network, average, optimiser, step)
    return export(run, folder, average, step)


def update(
    run: Run,
    network: nn.Module,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    objective: Callable[..., Tensor],
    step: int,
) -> Tensor:
    """One step of training, in place; returns the loss, nats per position; ValueError on divergence."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(run.optimiser, step)
    batch = run.batch(run, step).to(run.machine.device)
    half = run.machine.bfloat16
    half = has_bfloat16(run.machine.device) if half is None else half
    with torch.autocast(kind_of(run.machine.device), torch.bfloat16, enabled=half):
        loss = objective(network, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    if not nn.utils.clip_grad_norm_(network.parameters(), run.optimiser.clip).isfinite():
        raise ValueError(
            f"the gradient is not finite at step {step}: lower optimiser.learning_rate or optimiser.clip"
        )
    optimiser.step()
    optimiser.zero_grad()
    decay = min(run.optimiser.ema, (1 + step) / (10 + step))
    state = network.state_dict()
    torch._foreach_lerp_([average[k] for k in state], list(state.values()), 1 - decay)
    return loss.detach()


def learning_rate(o: Optimiser, step: int) -> float:
    """Learning rate at a step: linear warm-up, plateau, decay to 0 over the last ``decay`` share, linear or a cosine."""
    left = min((o.steps - step) / max(o.decay * o.steps, 1), 1.0)
    left = (1 - math.cos(math.pi * left)) / 2 if o.cosine else left
    return o.learning_rate * min((step + 1) / max(o.warmup, 1), left)


def save(
    run: Run,
    folder: Path,
    network: nn.Module,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    step: int,
) -> None:
    """Writes a checkpoint from which training continues bit for bit, then drops the oldest ones."""
    place = folder / "checkpoints" / f"{step:08d}"
    if place.exists():  # this run was at this step before, in the same state
        return
    groups = {"network": network.state_dict(), "average": average, "optimiser": _flat(optimiser)}
    groups["random"] = devices.random_states(run.machine.device)
    checkpoints.write_folder(place, groups, {"state": {"step": step}, "run": describe(run)})
    for old in resuming.saved(folder)[: -run.machine.keep]:
        shutil.rmtree(old)


def export(run: Run, folder: Path, average: dict[str, Tensor], step: int) -> Path:
    """Writes the model that `unmask.load` reads, of the EMA weights, in the run's layout."""
    place = folder / "model"
    run.write(run, place, average, step)
    return place


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


def _initialised(run: Run, fresh: bool = True) -> nn.Module:
    """The network at its start. Seeds torch's random state: initialisers and dropout read no other.

    A run that is not ``fresh`` has a checkpoint with all weights, and reads nothing from where it once started.
    """
    devices.seed_random_states(run.machine.device, run.seed)
    network = run.build(run.network)
    if run.start and fresh:
        weights = Path(run.start) / "weights.safetensors"
        checkpoints.fill(network.state_dict(), checkpoints.read_tensors(weights), weights)
    return network.to(run.machine.device)


def _optimiser(network: nn.Module, o: Optimiser) -> torch.optim.Optimizer:
    """AdamW, or Muon for the matrices of linear layers but the output head, and AdamW for the rest."""
    if not o.muon:
        return _adamw(network, o)
    layers = {f"{name}.weight" for name, m in network.named_modules() if isinstance(m, nn.Linear)} - {
        "head.weight"
    }
    matrices = [p for name, p in network.named_parameters() if name in layers]
    others = [p for name, p in network.named_parameters() if name not in layers]
    return Muon(matrices, others, lr=o.learning_rate, weight_decay=o.weight_decay, beta2=o.beta2)


def _adamw(network: nn.Module, o: Optimiser) -> torch.optim.AdamW:
    """AdamW; only matrices of linear layers decay."""
    matrices = {id(m.weight) for m in network.modules() if isinstance(m, nn.Linear)}
    decayed = [p for p in network.parameters() if id(p) in matrices]
    rest = [p for p in network.parameters() if id(p) not in matrices]
    groups = [{"params": decayed, "weight_decay": o.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=o.learning_rate, betas=(0.9, o.beta2), fused=True)


def _resume(
    run: Run,
    folder: Path,
    network: nn.Module,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
) -> int:
    """Loads the newest checkpoint, if any, and returns its step; ValueError when it is damaged."""
    for place in resuming.saved(folder)[-1:]:
        try:
            return _restore(run, place, network, average, optimiser)
        except ValueError as error:
            raise ValueError(f"{error}; delete {place} to go on from an earlier checkpoint") from None
    return 0


def _restore(
    run: Run,
    place: Path,
    network: nn.Module,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
) -> int:
    """Loads what `save` wrote and returns its step."""
    step = resuming.step_of(place)
    for name, own in (("network", network.state_dict()), ("average", average)):
        path = place / f"{name}.safetensors"
        checkpoints.fill(own, checkpoints.read_tensors(path), path)
    _unflatten(optimiser, resuming.read_moments(place / "optimiser.safetensors", optimiser))
    resuming.restore_random(place / "random.safetensors", run, step)
    return step


def _flat(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors by name, ``<parameter>.<moment>``."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{k}": torch.as_tensor(v) for i, values in state.items() for k, v in values.items()}


def _unflatten(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts tensors named by `_flat` back."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


@contextmanager
def _log(folder: Path, step: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that appends records to log.jsonl, after dropping those beyond the step resumed from."""
    path = folder / "log.jsonl"
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    kept = [line for line in lines if _step_of(line) <= step]
    records.write_bytes(path, "".join(f"{line}\n" for line in kept).encode())
    with path.open("a") as file:
        yield lambda record: print(json.dumps(record), file=file, flush=True)


def _step_of(line: str) -> float:
    """The step of a log line; a line cut short by a crash, or foreign, counts as beyond everything."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


@contextmanager
def _ctrl_c() -> Iterator[Callable[[], bool]]:
    """Tells whether Ctrl-C was pressed or SIGTERM came: they wait for the end of the block, a second one does not."""
    pressed: list[bool] = []

    def press(*_: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)

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
    if pressed:
        raise KeyboardInterrupt
