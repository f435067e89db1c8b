"""`Run`: everything that defines a training, as one typed record. A recipe is a function that returns one."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from unmask.base import checkpoints, noise
from unmask.data.vocabularies import Vocabulary, to_record

T = TypeVar("T")

RANDOMNESS = 2
"""How the random numbers of a step follow from (seed, step, stream); runs recorded without a number have 1."""


def check_ranges(record: Any, **ranges: tuple[float, float]) -> None:
    """ValueError unless each named field lies in its closed range."""
    for name, (low, high) in ranges.items():
        if not low <= getattr(record, name) <= high:
            raise ValueError(f"{name} {getattr(record, name)}: expected a number in {low:g}..{high:g}")


@dataclass(frozen=True)
class Optimiser:
    """AdamW or Muon: linear warm-up, plateau and decay to 0 over the last ``decay`` share of the steps.

    The decay is linear, or half a period of a ``cosine``.
    """

    steps: int = 10_000
    learning_rate: float = 1e-3
    warmup: int = 300
    decay: float = 0.3
    beta2: float = 0.98
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    cosine: bool = False
    muon: bool = False
    """Muon for the matrices of linear layers but the output head (`unmask.training.muon`)."""

    def __post_init__(self) -> None:
        anything = (0, math.inf)
        check_ranges(
            self, steps=anything, learning_rate=anything, warmup=anything, decay=(0, 1), beta2=(0, 1)
        )
        check_ranges(self, weight_decay=anything, clip=anything, ema=(0, 1))


STRATEGIES = ("ddp", "fsdp")
"""What `Machine.strategy` may be."""


@dataclass(frozen=True)
class Machine:
    """How to compute, not what: none of it changes the training in expectation."""

    device: str = "cpu"
    bfloat16: bool | None = False
    """Matrix products in bfloat16; None where the device is faster at them (`devices.has_bfloat16`).

    True also where a CPU emulates them, which is slow; refused on a GPU that knows none."""
    compile: bool = False
    threads: int = 0
    """CPU threads; 0 leaves the library's choice."""
    save_minutes: float = 4.0
    keep: int = 2
    """Checkpoints kept on disk; 0 keeps all."""
    log_every: int = 20
    strategy: str = "ddp"
    """Of several processes (torchrun): ddp, where each holds the whole network, or fsdp, where each holds its share of
    weights, their average and the optimiser's moments. One process alone holds everything."""
    accumulate: int = 1
    """Parts in which a process takes its share of a batch, one after another: less memory, the same gradient."""
    recompute: bool = False
    """Make the activations of each block anew in the backward pass: less memory for about a third more work."""
    prefetch: int | None = None
    """Batches made ahead, in a thread; None: one where the device is no CPU. The batches stay the same."""
    timeout_minutes: float = 30.0
    """How long a process waits for the others before it gives up."""

    def __post_init__(self) -> None:
        anything = (0, math.inf)
        check_ranges(self, threads=anything, save_minutes=anything, keep=anything, log_every=(1, math.inf))
        check_ranges(self, accumulate=(1, math.inf), timeout_minutes=(0.01, math.inf))
        if self.prefetch is not None:
            check_ranges(self, prefetch=anything)
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy {self.strategy!r}: expected {' or '.join(STRATEGIES)}")


@dataclass(frozen=True)
class Batch:
    """tokens int64 [B, L] without masks, masked bool [B, L], weight float [B] of its summed cross-entropy (or [B, L]).

    ``time`` float [B] and ``label`` int64 [B] are for networks that take them, ``noise`` float [B, n, L] on 0..1 for
    objectives whose masks depend on what is learnt (n masks per sequence). ``place`` int64 [B, 2] says where the rows
    of a part stand in the whole batch; what an objective does to a row may depend on that, and on no other row (`Run`).
    """

    tokens: Tensor
    masked: Tensor
    weight: Tensor
    time: Tensor | None = None
    label: Tensor | None = None
    noise: Tensor | None = None
    place: Tensor | None = None

    def places(self) -> Tensor:
        """The number of each row in the whole batch, and how many rows that has, int64 [B, 2]."""
        rows = len(self.tokens)
        number = torch.arange(rows, device=self.tokens.device)
        return torch.stack([number, torch.full_like(number, rows)], 1) if self.place is None else self.place

    def every(self, step: int, first: int) -> Batch:
        """Every ``step``-th row from the ``first`` on, which keep their places."""
        whole = replace(self, place=self.places())
        values = {f.name: getattr(whole, f.name) for f in fields(self)}
        return replace(whole, **{k: v[first::step].contiguous() for k, v in values.items() if v is not None})

    def to(self, device: str) -> Batch:
        """The same batch on a device."""
        moved = {f.name: v.to(device) for f in fields(self) if (v := getattr(self, f.name)) is not None}
        return replace(self, **moved)


def _as_it_is(run: Run) -> Run:
    return run


def write_model(run: Run, place: Path, weights: dict[str, Tensor], step: int) -> None:
    """Writes the folder that `unmask.load` reads: weights and the run's description."""
    checkpoints.write_folder(place, {"weights": weights}, {"config": describe(run) | {"trained_steps": step}})


@dataclass(frozen=True)
class Run:
    """A complete training. ``network`` is the typed record that ``build`` takes, ``data`` is for ``batch``.

    ``batch(run, step)`` is a pure function of the run and the step, so a resumed run sees the same data;
    ``objective(network, batch)`` returns the loss (nats per token) to minimise, a mean over rows: the mean of the losses of
    equal parts of a batch is that of the whole, so that several processes may take a part each. ``encode(run, data)`` and
    ``decode(run, tokens)`` turn data into tokens int64 [n, L] and back, for the finished model; where symbols
    stand for text, ``vocabulary`` says for which. ``prepare(run)`` comes first: it checks the data and returns
    the run with what only the data can tell. ``order`` names the one in which
    `unmask sample` unmasks if it is not told another. ``start`` is a folder whose model's weights training begins with;
    ``lengths`` says how often each length 0, 1, .. occurs in data whose lengths are given, and is empty otherwise.
    ``write(run, folder, weights, step)`` puts the finished model there, by default in our own layout.
    ``randomness`` is the rule by which `generator` makes random numbers: a run goes on with the one that it began with.
    """

    name: str
    network: Any
    data: Any
    build: Callable[[Any], nn.Module]
    batch: Callable[[Run, int], Batch]
    objective: Callable[[nn.Module, Batch], Tensor]
    encode: Callable[[Run, Any], Tensor]
    decode: Callable[[Run, Tensor], Any]
    vocabulary: Vocabulary | None = None
    prepare: Callable[[Run], Run] = _as_it_is
    write: Callable[[Run, Path, dict[str, Tensor], int], None] = write_model
    order: str = "random"
    start: str = ""
    lengths: tuple[int, ...] = ()
    batch_size: int = 64
    seed: int = 0
    randomness: int = RANDOMNESS
    optimiser: Optimiser = field(default_factory=Optimiser)
    machine: Machine = field(default_factory=Machine)

    def __post_init__(self) -> None:
        check_ranges(self, batch_size=(1, math.inf), seed=(0, 2**31 - 1), randomness=(1, RANDOMNESS))


def describe(run: Run) -> dict[str, Any]:
    """The run's values as JSON: all fields but the functions, nested records as dictionaries."""
    plain = {f.name: getattr(run, f.name) for f in fields(run) if not callable(getattr(run, f.name))}
    named = {
        k: dataclasses.asdict(v) if is_dataclass(v) and not isinstance(v, type) else v
        for k, v in plain.items()
    }
    named["vocabulary"] = None if run.vocabulary is None else to_record(run.vocabulary)
    loaded: dict[str, Any] = json.loads(json.dumps(named))
    return loaded


def override(record: T, changes: Mapping[str, str]) -> T:
    """The record with dotted fields replaced, ``{"optimiser.steps": "200"}``, read as the field's type.

    All changes are made together, so that fields which must fit each other may change at once. ValueError
    names the nearest field when one does not exist, and says what type was expected.
    """
    kinds = field_types(record)
    for path in changes:
        if path not in kinds:
            raise ValueError(f"unknown field '{path}': did you mean '{_nearest(path, kinds)}'?")
    return _replace(record, {path: _read(text, kinds[path], path) for path, text in changes.items()})


def field_types(record: Any, prefix: str = "") -> dict[str, Any]:
    """The types of a record's single values by dotted name, nested records opened and functions left out."""
    hints = get_type_hints(type(record))
    types: dict[str, Any] = {}
    for name in (f.name for f in fields(record)):
        value = getattr(record, name)
        if name in ("vocabulary", "lengths"):  # come from the data
            continue
        if is_dataclass(value):
            types |= field_types(value, f"{prefix}{name}.")
        elif not callable(value):
            types[prefix + name] = hints[name]
    return types


def _nearest(path: str, known: Iterable[str]) -> str:
    """The known name most like a path, in full or in its last part."""

    def likeness(name: str) -> float:
        parts = (name, path), (name.split(".")[-1], path.split(".")[-1])
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in parts)

    return max(known, key=likeness)


def _replace(record: T, values: Mapping[str, Any]) -> T:
    """The record with dotted fields set; a nested record is made once, so its checks see all its values."""
    own: dict[str, Any] = {path: value for path, value in values.items() if "." not in path}
    for group in {path.split(".")[0] for path in values} - set(own):
        inner = {p.removeprefix(f"{group}."): v for p, v in values.items() if p.startswith(f"{group}.")}
        own[group] = _replace(getattr(record, group), inner)
    return dataclasses.replace(record, **own)  # type: ignore[type-var]


def _read(text: str, kind: Any, where: str) -> Any:
    """``text`` as a value of type ``kind``: JSON, or Python's True, False and None; lists become tuples."""
    kinds = [get_origin(k) or k for k in (get_args(kind) if isinstance(kind, UnionType) else (kind,))]
    try:
        value = tuples(json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text)))
    except json.JSONDecodeError:
        value = text
    if float in kinds and type(value) is int:
        return float(value)
    if str in kinds and type(value) not in kinds:
        return text
    if type(value) not in kinds:
        names = " or ".join("None" if k is NoneType else k.__name__ for k in kinds)
        raise ValueError(f"field '{where}': got {text!r}; expected {names}")
    return value


def tuples(value: Any) -> Any:
    """A JSON value with tuples for lists, all the way down."""
    return tuple(tuples(v) for v in value) if isinstance(value, list) else value


def generator(run: Run, step: int, stream: int = 0) -> torch.Generator:
    """The random generator of one step: a function of (seed, step, stream) and of nothing before it.

    ValueError for a step or stream outside 0..2^32 - 1. Under randomness 1 triples shared numbers: (seed 0, step 1,000,003)
    had those of (seed 1, step 0), stream 64 those of the next step, and whatever was equal modulo 2^32.
    """
    if run.randomness == RANDOMNESS:
        return noise.generator(run.seed, step, stream)
    if not (step >= 0 and 0 <= stream < 64):
        raise ValueError(
            f"step {step}, stream {stream}: expected a step of at least 0 and, under randomness 1, a stream in 0..63"
        )
    return torch.Generator().manual_seed((run.seed * 1_000_003 + step) * 64 + stream)
