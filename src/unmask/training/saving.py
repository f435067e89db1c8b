"""Checkpoints: what each process holds, in files of its own, and one folder that is whole or not there.

A tensor that processes share is in pieces, rows after rows, in ``<name>-00001-of-00002.safetensors`` and so on; all others
are in ``<name>.safetensors``, or in the first piece. So any number of processes goes on from what any number wrote.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from unmask.base import checkpoints, devices
from unmask.recipes.run import describe
from unmask.training import resuming
from unmask.training.state import State
from unmask.training.together.parallel import is_shared, own, whole
from unmask.training.together.world import World, agreed, of_first


def save(state: State, folder: Path, step: int) -> None:
    """Writes a checkpoint from which training continues bit for bit, then drops the oldest ones."""
    world, run = state.world, state.run
    place = folder / "checkpoints" / f"{step:08d}"
    if of_first(world, place.exists()):  # this run was at this step before, in the same state
        return
    files: dict[str, dict[str, Tensor]] = {}
    for name, tensors in _groups(state).items():
        files |= _mine(world, name, tensors)
    files[piece("random", world.rank, world.size)] = devices.random_states(run.machine.device)
    records = {"state": {"step": step}, "run": describe(run)}
    _write(world, place, files, records)
    if world.first:
        for old in resuming.saved(folder)[: -run.machine.keep]:
            shutil.rmtree(old)


def _groups(state: State) -> dict[str, dict[str, Tensor]]:
    """What a training consists of but the random states, by the names of the files."""
    return {
        "network": state.network.state_dict(),
        "average": state.average,
        "optimiser": flat(state.optimiser),
    }


def _mine(world: World, name: str, tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The file that this process writes of some tensors, if any."""
    if not any(is_shared(value) for value in tensors.values()):
        return {name: tensors} if world.first else {}
    held = {k: own(v) for k, v in tensors.items() if world.first or is_shared(v)}
    return {piece(name, world.rank, world.size): held}


def piece(name: str, rank: int, size: int) -> str:
    """What a process's own file is called, without its end."""
    return name if size == 1 else f"{name}-{rank + 1:05d}-of-{size:05d}"


def _write(
    world: World, place: Path, files: dict[str, dict[str, Tensor]], records: dict[str, dict[str, object]]
) -> None:
    """The folder, when all have written their files, and nothing otherwise."""
    if world.size == 1:
        checkpoints.write_folder(place, files, records)
        return
    with ExitStack() as opened:
        staging = agreed(
            world, lambda: opened.enter_context(checkpoints.staged(place)) if world.first else None
        )
        staging = of_first(world, staging)
        agreed(world, lambda: checkpoints.write_files(staging, files, records if world.first else {}))  # type: ignore[arg-type]
        agreed(world, opened.close)


def export(state: State, folder: Path, step: int) -> Path:
    """Writes the model that `unmask.load` reads, of the EMA weights, in the run's layout."""
    place, weights = folder / "model", {}
    for name, value in state.average.items():
        full = whole(value)
        weights[name] = (full.cpu() if is_shared(value) else full) if state.world.first else torch.empty(0)
    agreed(
        state.world, lambda: state.run.write(state.run, place, weights, step) if state.world.first else None
    )
    return place


# --- going on -------------------------------------------------------------------------------------


def resume(state: State, folder: Path) -> int:
    """Loads the newest checkpoint, if any, and returns its step; ValueError when it is damaged."""
    for place in resuming.saved(folder)[-1:]:
        try:
            return _restore(state, place)
        except ValueError as error:
            raise ValueError(f"{error}; delete {place} to go on from an earlier checkpoint") from None
    if not state.world.first:
        resuming.seed_dropout(state.run, 0, state.world.rank)
    return 0


def _restore(state: State, place: Path) -> int:
    """Loads what `save` wrote and returns its step."""
    step = resuming.step_of(place)
    for name, tensors in (("network", state.network.state_dict()), ("average", state.average)):
        path = place / f"{name}.safetensors"
        found = _read(state.world, path, tensors)
        checkpoints.fill({k: own(v) for k, v in tensors.items()}, found, path)
    unflatten(state.optimiser, _moments(state, place / "optimiser.safetensors"))
    _restore_random(state, place, step)
    return step


def _restore_random(state: State, place: Path, step: int) -> None:
    """This process's random states, or new ones where another number of processes wrote the checkpoint."""
    rank, size = state.world.rank, state.world.size
    if _writers(place) == size:
        resuming.restore_random(place / f"{piece('random', rank, size)}.safetensors", state.run, step, rank)
    else:
        resuming.seed_dropout(state.run, step, rank)


def _writers(place: Path) -> int:
    """How many processes wrote a checkpoint."""
    pieces = sorted(place.glob("random-*-of-*.safetensors"))
    return _of_how_many(pieces[0]) if pieces else 1


def _of_how_many(piece: Path) -> int:
    """The number of pieces that the name of one says."""
    return int(piece.stem.rsplit("-", 1)[1])


def _moments(state: State, path: Path) -> dict[str, Tensor]:
    """The optimiser's tensors ``<parameter>.<moment>``; ValueError unless they fit its parameters, all or none of each."""
    wanted = resuming.moments(state.optimiser)
    found = _read(state.world, path, wanted)
    kept = {k: v for k, v in wanted.items() if any(n.startswith(k.split(".")[0] + ".") for n in found)}
    made = {k: torch.empty_like(v) for k, v in kept.items()}
    checkpoints.fill({k: own(v) for k, v in made.items()}, found, path)
    return made


def _read(world: World, path: Path, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """What this process holds of the tensors of a file, or of its pieces; ValueError when one is missing or damaged."""
    pieces = sorted(path.parent.glob(f"{path.stem}-*-of-*{path.suffix}"))
    if not pieces:
        return {k: _share(world, v, like.get(k)) for k, v in checkpoints.read_tensors(path).items()}
    count = _of_how_many(pieces[0])
    names = [path.with_stem(piece(path.stem, i, count)) for i in range(count)]
    found = [checkpoints.read_tensors(name) for name in names]
    every = dict.fromkeys(name for tensors in found for name in tensors)
    joined = ((k, [t[k] for t in found if k in t]) for k in every)
    return {k: _share(world, v[0] if len(v) == 1 else torch.cat(v), like.get(k)) for k, v in joined}


def _share(world: World, full: Tensor, like: Tensor | None) -> Tensor:
    """The rows of a tensor that this process holds, where it is shared: as many to each, the last ones fewer or none."""
    if like is None or not is_shared(like) or full.shape != like.shape:
        return full
    each = -(-len(full) // world.size)
    return full[world.rank * each : (world.rank + 1) * each].clone()


def flat(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors by name, ``<parameter>.<moment>``."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{k}": torch.as_tensor(v) for i, values in state.items() for k, v in values.items()}


def unflatten(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts tensors named by `flat` back."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
