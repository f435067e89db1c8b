"""What a training may go on with: the settings that its folder records, and the tensors of its checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmask.base import checkpoints, devices, noise
from unmask.recipes.run import RANDOMNESS, Run, describe
from unmask.version import __version__

MAY_CHANGE = {"machine": None, "optimiser": {"steps", "decay"}}
"""What a resumed run may set differently: how to compute, and when to stop."""

FROM_DATA = ("vocabulary", "lengths", "data.fingerprint")
"""Settings that the data give: a record without them says nothing about them."""

DROPOUT = 2**32 - 1
"""Stream of `noise.generator` for dropout of the first process where a checkpoint holds no random state; the next
processes have those before it, which no step of a recipe reads."""


def saved(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    places = [p for p in folder.glob("checkpoints/*") if p.name.isascii() and p.name.isdigit()]
    return sorted(places, key=lambda place: int(place.name))


def adopted(run: Run, folder: Path) -> Run:
    """The run under the randomness that its folder began with; ValueError unless what it holds belongs to this run."""
    run = replace(run, randomness=_began_with(run, folder))
    for record in _records(folder):
        _check_same(run, checkpoints.read_json(record), folder)
    for place in saved(folder)[-1:]:
        if int(place.name) > run.optimiser.steps:
            raise ValueError(
                f"{folder} has done {int(place.name)} steps, more than optimiser.steps {run.optimiser.steps}; "
                "give at least as many, or use another folder"
            )
    return run


def _records(folder: Path) -> list[Path]:
    """The files that describe the run of a folder: its own, and the newest checkpoint's."""
    places = (folder, *saved(folder)[-1:])
    return [record for place in places if (record := place / "run.json").exists()]


def _began_with(run: Run, folder: Path) -> int:
    """The folder's randomness where the run asks for the usual one; 1 where it was not recorded yet."""
    for record in _records(folder)[:1]:
        found = checkpoints.read_json(record).get("randomness", 1)
        if type(found) is not int or found not in range(1, RANDOMNESS + 1):
            raise ValueError(
                f"{record}: randomness {found!r}; this version knows 1..{RANDOMNESS}: use another folder or version"
            )
        return int(found) if run.randomness == RANDOMNESS else run.randomness
    return run.randomness


def _check_same(run: Run, record: dict[str, Any], folder: Path) -> None:
    """ValueError names the first setting in which a run's description and a stored one differ."""
    usual = dict(_usual(run)) | {"randomness": 1}
    old, new = _fixed(record), _fixed(describe(run))
    for name in [*new, *(k for k in old if k not in new)]:
        found = old.get(name, usual.get(name, new.get(name)))
        if name not in new or found != new[name]:
            wanted = f"not {_short(new[name])}" if name in new else "which this version does not know"
            raise ValueError(
                f"{folder} holds a run with {name} {_short(found)}, {wanted}; "
                "use another folder or the same settings"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]} ..."


def _usual(record: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What fields mean to a version that did not know them: their defaults by dotted name, as JSON has them."""
    for field in fields(record):
        value = getattr(record, field.name)
        if is_dataclass(value):
            yield from _usual(value, f"{prefix}{field.name}.")
        elif field.default is not MISSING and not callable(value) and prefix + field.name not in FROM_DATA:
            yield prefix + field.name, json.loads(json.dumps(field.default))


def _fixed(record: dict[str, Any]) -> dict[str, Any]:
    """The part of a run's description that resuming must not change, with dotted names."""
    kept = {k: v for k, v in record.items() if k != "machine" and not isinstance(v, dict)}
    for group in (k for k, v in record.items() if k != "machine" and isinstance(v, dict)):
        free = MAY_CHANGE.get(group) or set()
        kept |= {f"{group}.{k}": v for k, v in record[group].items() if k not in free}
    return kept


def settings(run: Run) -> dict[str, Any]:
    """What processes that train together have in common, with dotted names: all but the functions, and the versions."""
    record = describe(run)
    machine = {f"machine.{k}": v for k, v in record["machine"].items()}
    optimiser = {f"optimiser.{k}": v for k, v in record["optimiser"].items()}
    return _fixed(record) | optimiser | machine | {"unmask": __version__, "torch": torch.__version__}


# --- checkpoints ----------------------------------------------------------------------------------


def step_of(place: Path) -> int:
    """The step that a checkpoint says it is of; ValueError unless its folder is named after it."""
    step = checkpoints.read_json(place / "state.json").get("step")
    if type(step) is not int or step != int(place.name):
        raise ValueError(
            f"{place / 'state.json'}: step {step!r}, expected {int(place.name)} as in the folder's name"
        )
    return step


def moments(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Tensors like those of the state after a step, AdamW's or Muon's, for every parameter."""
    groups = [
        (p.detach(), group.get("orthogonal", False))
        for group in optimiser.param_groups
        for p in group["params"]
    ]
    made: dict[str, Tensor] = {}
    for i, (value, orthogonal) in enumerate(groups):
        adam = {f"{i}.step": torch.zeros(()), f"{i}.exp_avg": value, f"{i}.exp_avg_sq": value}
        made |= {f"{i}.momentum": value} if orthogonal else adam
    return made


def seed_dropout(run: Run, step: int, rank: int) -> None:
    """Random states that belong to a step and a process: the CPU's are no other's, a device's follow from 63 bits."""
    stream = noise.generator(run.seed, step, DROPOUT - rank)
    state = stream.get_state()
    devices.seed_random_states(run.machine.device, int(torch.randint(2**63 - 1, (), generator=stream)))
    torch.set_rng_state(state)


def restore_random(path: Path, run: Run, step: int, rank: int = 0) -> None:
    """Sets torch's random states to those of a checkpoint; ValueError when they are none.

    A device whose state it does not hold, since training was elsewhere then, gets one that belongs to the step.
    """
    device, states = run.machine.device, checkpoints.read_tensors(path)
    wanted = devices.random_states(device)
    if "torch" not in states:
        raise ValueError(f"{path}: the file lacks 'torch'; expected torch's random state")
    seed_dropout(run, step, rank)
    for name in (n for n in wanted if n in states):
        if (states[name].dtype, states[name].shape) != (wanted[name].dtype, wanted[name].shape):
            raise ValueError(
                f"{path}: {name!r} is {states[name].dtype} {list(states[name].shape)}, expected a random state of "
                f"{wanted[name].dtype} {list(wanted[name].shape)}"
            )
    _quietly(path, lambda: devices.set_random_states(device, states))


def _quietly(path: Path, put: Callable[[], None]) -> None:
    """Does it; ValueError where torch refuses the states."""
    try:
        put()
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"{path}: no random state of this version of torch ({checkpoints.one_line(error)})"
        ) from None
