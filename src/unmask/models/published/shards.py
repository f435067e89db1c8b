"""How are weights read that hardly fit into memory? One tensor after the other, onto a network without memory of its own.

What a file holds is known from its first bytes, so that a foreign or damaged folder is refused before anything is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import RawIOBase
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from unmask.base import checkpoints
from unmask.base.checkpoints import FLOATS, one_line

KINDS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""What safetensors call the kinds of numbers that weights may be stored in."""


@dataclass(frozen=True)
class Stored:
    """Where a tensor stands: file, first byte, kind and shape."""

    file: Path
    start: int
    kind: str
    shape: tuple[int, ...]


def stored(folder: Path, stem: str = "model") -> dict[str, Stored]:
    """Every tensor of a folder by name; ValueError where its files are missing, damaged or pickled."""
    found: dict[str, Stored] = {}
    for file in _files(folder, stem):
        for name, entry in _contents(file).items():
            if name in found:
                raise ValueError(f"{file} holds {name!r} again, which {found[name].file.name} holds too")
            found[name] = entry
    return found


def _files(folder: Path, stem: str) -> list[Path]:
    """The files that an index names, or the only one."""
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if not index.exists():
        if not single.exists() and (pickled := sorted([*folder.glob("*.bin"), *folder.glob("*.pt*")])):
            raise ValueError(
                f"{pickled[0]} is a pickle, which may run code when it is read; expected {single.name}: convert it"
            )
        if not single.exists():
            raise ValueError(
                f"{single} does not exist; expected the weights beside config.json, or {index.name}"
            )
        return [single]
    names = checkpoints.read_json(index).get("weight_map")
    if not isinstance(names, Mapping) or not names or not all(isinstance(n, str) for n in names.values()):
        raise ValueError(f"{index} has no weight_map; expected file names by tensor")
    files = [folder / name for name in sorted(set(names.values()))]
    for file in files:
        if file.parent != folder or not file.is_file():
            raise ValueError(
                f"{file} does not exist; expected {len(files)} files beside {index.name}: fetch it"
            )
    return files


def _contents(file: Path) -> dict[str, Stored]:
    """What a file says it holds; ValueError where that does not fit its size."""
    try:
        with safe_open(file, framework="pt"):
            pass
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            entries: dict[str, Any] = json.loads(opened.read(size))
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(
            f"{file} is not readable ({one_line(error)}): the file is truncated or foreign"
        ) from None
    return {
        name: Stored(file, 8 + size + entry["data_offsets"][0], entry["dtype"], tuple(entry["shape"]))
        for name, entry in entries.items()
        if name != "__metadata__"
    }


def shapes(found: Mapping[str, Stored]) -> dict[str, Tensor]:
    """Tensors of the same names and shapes, without memory."""
    return {name: torch.empty(entry.shape, device="meta") for name, entry in found.items()}


def check(network: nn.Module, found: Mapping[str, Stored], ignored: Iterable[str], folder: Path) -> None:
    """ValueError unless the files hold every tensor of a network, in its shape, and no other but those ``ignored``."""
    own = network.state_dict()
    endings = tuple(ignored)
    for name in [*own, *found]:
        if name not in found:
            raise ValueError(f"{folder}: the files lack {name!r}; the weights belong to another architecture")
        if name not in own and not (endings and name.endswith(endings)):
            raise ValueError(
                f"{folder}: the network has no {name!r}; the weights belong to another architecture"
            )
        if name in own and tuple(own[name].shape) != found[name].shape:
            raise ValueError(
                f"{found[name].file}: {name!r} has shape {found[name].shape}, expected {tuple(own[name].shape)}; "
                "config.json and weights do not belong together"
            )
        if name in own and found[name].kind not in KINDS:
            kinds = ", ".join(KINDS)
            raise ValueError(f"{found[name].file}: {name!r} has dtype {found[name].kind}, expected {kinds}")


def fill(
    network: nn.Module, found: Mapping[str, Stored], dtype: torch.dtype, device: torch.device | str
) -> None:
    """Gives a network on the meta device its tensors, file by file, each turned into ``dtype`` at once.

    Beside the network there is never more than one tensor in memory. Buffers keep the kind that the network gave them.
    """
    wanted = sorted(
        ((name, found[name]) for name in network.state_dict()), key=lambda item: (item[1].file, item[1].start)
    )
    buffers = {name for name, _ in network.named_buffers()}
    for file, entries in groupby(wanted, key=lambda item: item[1].file):
        with file.open("rb", buffering=0) as opened:
            for name, entry in entries:
                kind = network.get_buffer(name).dtype if name in buffers else dtype
                value = _read(opened, name, entry)
                _put(network, name, value.to(device=device, dtype=kind))


def _read(opened: RawIOBase, name: str, entry: Stored) -> Tensor:
    """A tensor from an opened file; ValueError where the file ends or holds NaN."""
    value = torch.empty(entry.shape, dtype=KINDS[entry.kind])
    place = memoryview(value.view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    opened.seek(entry.start)
    done = 0
    while done < len(place):
        count = opened.readinto(place[done:])
        if not count:
            raise ValueError(f"{entry.file} ends within {name!r}: the file is truncated")
        done += count
    if not all(torch.isfinite(part).all() for part in torch.split(value.view(-1), 2**24)):
        raise ValueError(f"{entry.file}: {name!r} holds NaN or infinite weights; expected finite ones")
    return value


def _put(network: nn.Module, name: str, value: Tensor) -> None:
    """Replaces a parameter or buffer of a network by a value."""
    home, _, last = name.rpartition(".")
    module = network.get_submodule(home)
    if last in module._parameters:
        module._parameters[last] = nn.Parameter(value)
    else:
        module._buffers[last] = value


def checked_dtype(dtype: torch.dtype | None) -> None:
    """ValueError unless weights may have this dtype, or None."""
    if dtype is not None and dtype not in FLOATS:
        raise ValueError(f"dtype {dtype}; expected one of {', '.join(map(str, FLOATS))}, or None: as stored")


def common_dtype(found: Mapping[str, Stored]) -> torch.dtype:
    """The dtype that most numbers are stored in: one for all, as layers of several do not fit together."""
    numbers = dict.fromkeys(KINDS, 0)
    for entry in found.values():
        if entry.kind in numbers:
            numbers[entry.kind] += math.prod(entry.shape)
    return KINDS[max(numbers, key=lambda kind: numbers[kind])]
