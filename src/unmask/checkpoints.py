"""Saving and reading weights and records: safetensors and JSON, written to a temporary name and renamed."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor


def write_json(path: Path, record: Any) -> None:
    """Writes a record as JSON, atomically."""
    write_bytes(path, (json.dumps(record, indent=1) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Writes data atomically: a failure leaves the old file, or none, and no temporary one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """Reads a JSON file; ValueError when it is not one."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: expected a folder written by `unmask train`") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}): the file is truncated or foreign") from None


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
        raise ValueError(f"{path} is not readable ({error}): truncated or foreign; use an earlier checkpoint") from None


def write_folder(path: Path, tensors: dict[str, dict[str, Tensor]], records: dict[str, Any]) -> None:
    """Writes a checkpoint folder in one rename: ``<name>.safetensors`` and ``<name>.json`` files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        for name, values in tensors.items():
            write_tensors(staging / f"{name}.safetensors", values)
        for name, record in records.items():
            write_json(staging / f"{name}.json", record)
        if path.exists():
            shutil.rmtree(path)
        staging.chmod(0o755)
        staging.replace(path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def fill(module: torch.nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Loads weights into a module; ValueError names the first missing, foreign, misshapen or non-finite tensor."""
    own = module.state_dict()
    for name in [*own, *tensors]:
        if name not in tensors or name not in own:
            lacks = "the file lacks" if name not in tensors else "the network has no"
            raise ValueError(f"{source}: {lacks} '{name}'; the checkpoint belongs to another architecture")
        if own[name].shape != tensors[name].shape:
            raise ValueError(
                f"{source}: '{name}' has shape {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}; "
                "the checkpoint belongs to another architecture"
            )
        if not torch.isfinite(tensors[name]).all():
            raise ValueError(f"{source}: '{name}' holds NaN or infinite weights; use an earlier checkpoint")
    module.load_state_dict(tensors)
