"""`Run`: everything that defines a training, as one typed record. A recipe is a function that returns one."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Optimiser:
    """AdamW with linear warm-up, a plateau and linear decay to zero over the last ``decay`` share of the steps."""

    steps: int = 10_000
    learning_rate: float = 1e-3
    warmup: int = 300
    decay: float = 0.3
    beta2: float = 0.98
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999


@dataclass(frozen=True)
class Machine:
    """How to compute, not what: none of it changes the training in expectation."""

    device: str = "cpu"
    bfloat16: bool = False
    compile: bool = False
    threads: int = 0
    """CPU threads; 0 leaves the library's choice."""
    save_minutes: float = 4.0
    keep: int = 2
    """Checkpoints kept on disk."""
    log_every: int = 20


@dataclass(frozen=True)
class Batch:
    """tokens int64 [B, L] without masks, masked bool [B, L], weight float64 [B] of each row's summed cross-entropy."""

    tokens: Tensor
    masked: Tensor
    weight: Tensor

    def to(self, device: str) -> Batch:
        """The same batch on a device."""
        return Batch(*(getattr(self, f.name).to(device) for f in fields(self)))


@dataclass(frozen=True)
class Run:
    """A complete training. ``network`` holds keyword arguments of the constructor ``build``.

    ``batch(run, step)`` is a pure function of the run and the step, so a resumed run sees the same data;
    ``objective(network, batch)`` returns the loss (nats per token) to minimise. ``encode`` and ``decode`` turn data into
    tokens int64 [n, L] and back, for the finished model.
    """

    name: str
    network: Any
    data: Any
    build: Callable[[Any], nn.Module]
    batch: Callable[[Run, int], Batch]
    objective: Callable[[nn.Module, Batch], Tensor]
    encode: Callable[[Any], Tensor]
    decode: Callable[[Tensor], Any]
    batch_size: int = 64
    seed: int = 0
    optimiser: Optimiser = field(default_factory=Optimiser)
    machine: Machine = field(default_factory=Machine)


def describe(run: Run) -> dict[str, Any]:
    """The run's values as JSON: all fields but the functions, nested records as dictionaries."""
    plain = {f.name: getattr(run, f.name) for f in fields(run) if not callable(getattr(run, f.name))}
    named = {k: dataclasses.asdict(v) if is_dataclass(v) and not isinstance(v, type) else v for k, v in plain.items()}
    loaded: dict[str, Any] = json.loads(json.dumps(named))
    return loaded


def override(record: T, changes: Mapping[str, str], where: str = "") -> T:
    """The record with dotted fields replaced, ``{"optimiser.steps": "200"}``, values read as the field's type.

    ValueError names the nearest field when one does not exist, and says what type was expected.
    """
    for path, text in changes.items():
        record = _replace(record, path.split("."), text, path)
    return record


def _replace(record: T, path: list[str], text: str, whole: str) -> T:
    known = [f.name for f in fields(record) if not callable(getattr(record, f.name))]  # type: ignore[arg-type]
    if path[0] not in known:
        near = difflib.get_close_matches(path[0], known, n=1, cutoff=0.0)
        raise ValueError(f"unknown field '{whole}': did you mean '{'.'.join([*whole.split('.')[:-len(path)], *near])}'? "
                         f"fields here: {', '.join(known)}")
    old = getattr(record, path[0])
    if is_dataclass(old) != (len(path) > 1):
        kind = "a group of fields" if is_dataclass(old) else "a single value"
        raise ValueError(f"field '{whole}': '{path[0]}' is {kind}")
    new = _replace(old, path[1:], text, whole) if len(path) > 1 else _read(text, old, whole)
    return dataclasses.replace(record, **{path[0]: new})  # type: ignore[type-var]


def _read(text: str, old: Any, where: str) -> Any:
    """``text`` as a value of the type of ``old``."""
    if isinstance(old, str):
        return text
    try:
        value = json.loads(text.lower() if text in ("True", "False", "None") else text)
    except json.JSONDecodeError:
        value = text
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if old is not None and type(value) is not type(old) and not (isinstance(old, tuple) and isinstance(value, list)):
        raise ValueError(f"field '{where}': got {text!r}; expected {type(old).__name__}, such as {old!r}")
    return tuple(value) if isinstance(value, list) else value


def generator(run: Run, step: int, stream: int = 0) -> torch.Generator:
    """The random generator of one step: a function of (seed, step, stream) and of nothing before it."""
    return torch.Generator().manual_seed((run.seed * 1_000_003 + step) * 64 + stream)
