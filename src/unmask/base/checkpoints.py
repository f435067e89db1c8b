"""Saving and reading weights and records: safetensors and JSON, written to a temporary name and renamed."""

from __future__ import annotations

import json
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from unmask.base.records import TEMPORARY, write_bytes


def sweep(folder: Path) -> None:
    """Removes the unfinished files and folders that a crash left in a folder."""
    for leftover in list(folder.glob(f".*{TEMPORARY}")):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def write_json(path: Path, record: Any) -> None:
    """Writes a record as JSON, atomically."""
    write_bytes(path, (json.dumps(record, indent=1) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Reads a record from a JSON file; ValueError when it holds none."""
    _check_file(path)
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not JSON ({one_line(error)}): the file is truncated or foreign"
        ) from None
    if not isinstance(record, dict):
        raise ValueError(
            f"{path} holds a {type(record).__name__}; expected a record written by `unmask train`"
        )
    return record


def _check_file(path: Path) -> None:
    """ValueError unless there is a file of this name."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: expected a folder written by `unmask train`") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is no file: expected a folder written by `unmask train`")


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} cannot be read ({one_line(error)}): expected a file that you may read")


def one_line(value: object) -> str:
    """A value or what an error says, on one line of at most 200 characters; of longer ones the ends."""
    text = " ".join(str(value).split()) or type(value).__name__
    return text if len(text) <= 200 else f"{text[:100]} ... {text[-95:]}"


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes named tensors as safetensors, atomically; tied ones, which share memory, each for itself."""
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    places = Counter(v.untyped_storage().data_ptr() for v in plain.values())
    apart = {k: v.clone() if places[v.untyped_storage().data_ptr()] > 1 else v for k, v in plain.items()}
    write_bytes(path, save(apart))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads named tensors; ValueError when the file is missing, truncated or foreign."""
    _check_file(path)
    try:
        return load_file(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        state = "a pickle, not safetensors" if is_pickle(path) else f"not readable ({one_line(error)})"
        raise ValueError(f"{path} is {state}: the file is truncated or foreign") from None


def is_pickle(path: Path) -> bool:
    """Whether a file begins as `torch.save` or pickle write it; safetensors begin with a number of eight bytes."""
    with path.open("rb") as file:
        head = file.read(4)
    return head == b"PK\x03\x04" or (head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5" and head[2:3] >= b" ")


def write_folder(path: Path, tensors: dict[str, dict[str, Tensor]], records: dict[str, Any]) -> None:
    """Writes ``<name>.safetensors`` and ``<name>.json`` files as one folder, in place of an older one."""
    with staged(path) as staging:
        write_files(staging, tensors, records)


def write_files(folder: Path, tensors: dict[str, dict[str, Tensor]], records: dict[str, Any]) -> None:
    """Writes ``<name>.safetensors`` and ``<name>.json`` files in a folder."""
    for name, values in tensors.items():
        write_tensors(folder / f"{name}.safetensors", values)
    for name, record in records.items():
        write_json(folder / f"{name}.json", record)


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``path`` when all went well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY))
    older = staging.with_suffix(f".old{TEMPORARY}")
    try:
        yield staging
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

    Floating-point numbers of any width become those of the network: bfloat16 and float16 exactly in a float32 network,
    float64 rounded. ValueError names the first tensor that is missing, foreign, misshapen, of another kind, or not finite
    then; nothing is copied in that case.
    """
    for name in [*own, *tensors]:
        if name not in tensors or name not in own:
            lacks = "the file lacks" if name not in tensors else "the network has no"
            raise ValueError(f"{source}: {lacks} {name!r}; the checkpoint belongs to another architecture")
        _check_alike(f"{source}: {name!r}", own[name], tensors[name])
    for name, value in tensors.items():
        own[name].copy_(value)


def _check_alike(what: str, own: Tensor, found: Tensor) -> None:
    """ValueError unless ``found`` can stand in for ``own``."""
    if own.shape != found.shape:
        raise ValueError(
            f"{what} has shape {tuple(found.shape)}, "
            f"expected {tuple(own.shape)}; the checkpoint belongs to another architecture"
        )
    if found.dtype != own.dtype and not {found.dtype, own.dtype} <= set(FLOATS):
        kinds = ", ".join(map(str, FLOATS if own.dtype in FLOATS else (own.dtype,)))
        raise ValueError(f"{what} has dtype {found.dtype}, expected {kinds}; convert the file")
    if not torch.isfinite(found.to(own.dtype)).all():
        raise ValueError(f"{what} holds NaN or infinite weights; expected finite ones")


FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""Kinds of numbers that weights may be stored in."""
