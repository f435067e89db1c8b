"""Saving and reading weights and records: safetensors and JSON, written to a temporary name and renamed."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from unmask.records import TEMPORARY, write_bytes


def sweep(folder: Path) -> None:
    """Removes the unfinished files and folders that a crash left in a folder."""
    for leftover in list(folder.glob(f".*{TEMPORARY}")):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def write_json(path: Path, record: Any) -> None:
    """Writes a record as JSON, atomically."""
    write_bytes(path, (json.dumps(record, indent=1) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Reads a record from a JSON file; ValueError when it holds none."""
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: expected a folder written by `unmask train`") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}): the file is truncated or foreign") from None
    if not isinstance(record, dict):
        raise ValueError(
            f"{path} holds a {type(record).__name__}; expected a record written by `unmask train`"
        )
    return record


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes named tensors as safetensors, atomically."""
    write_bytes(path, save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads named tensors; ValueError when the file is missing, truncated or foreign."""
    if not path.exists():
        raise ValueError(f"{path} does not exist: expected a folder written by `unmask train`")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not readable ({error}): the file is truncated or foreign") from None


def write_folder(path: Path, tensors: dict[str, dict[str, Tensor]], records: dict[str, Any]) -> None:
    """Writes ``<name>.safetensors`` and ``<name>.json`` files as one folder, in place of an older one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY))
    older = staging.with_suffix(f".old{TEMPORARY}")
    try:
        for name, values in tensors.items():
            write_tensors(staging / f"{name}.safetensors", values)
        for name, record in records.items():
            write_json(staging / f"{name}.json", record)
        staging.chmod(0o755)
        if path.exists():
            path.replace(older)
        staging.replace(path)
        shutil.rmtree(older, ignore_errors=True)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def fill(own: dict[str, Tensor], tensors: dict[str, Tensor], source: Path) -> None:
    """Copies tensors read from ``source`` into those of a network, by name, in place.

    ValueError names the first one that is missing, foreign, misshapen or not finite; nothing is copied then.
    """
    for name in [*own, *tensors]:
        if name not in tensors or name not in own:
            lacks = "the file lacks" if name not in tensors else "the network has no"
            raise ValueError(f"{source}: {lacks} '{name}'; the checkpoint belongs to another architecture")
        if own[name].shape != tensors[name].shape:
            raise ValueError(
                f"{source}: '{name}' has shape {tuple(tensors[name].shape)}, "
                f"expected {tuple(own[name].shape)}; the checkpoint belongs to another architecture"
            )
        if not torch.isfinite(tensors[name]).all():
            raise ValueError(f"{source}: '{name}' holds NaN or infinite weights; expected finite ones")
    for name, value in tensors.items():
        own[name].copy_(value)
