"""Weights published as pickles: read by torch's weights-only loader, with exactly the globals that a file needs."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import Tensor

from unmask.base.checkpoints import one_line


def read(data: bytes, what: str, allowed: tuple[type, ...] = ()) -> dict[str, Any]:
    """The record in bytes that `torch.save` wrote; ``allowed``: classes that it may hold besides tensors and plain values.

    ValueError for bytes that name any other, that are damaged, or that hold no record. Nothing of the file is run.
    """
    try:
        with torch.serialization.safe_globals(list(allowed)):
            found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{what} is refused: {_reason(error)}; expected {_wanted(allowed)}") from None
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{what} is damaged ({one_line(error)}); expected weights as torch saves them: fetch again"
        ) from None
    if not isinstance(found, dict):
        raise ValueError(f"{what} holds a {type(found).__name__}; expected a record of tensors")
    return found


def tensors(record: Any, what: str) -> dict[str, Tensor]:
    """The record as named tensors; ValueError where it is none, or holds anything else."""
    if not isinstance(record, dict):
        raise ValueError(f"{what} holds a {type(record).__name__}; expected named tensors")
    if bad := [k for k, v in record.items() if not isinstance(k, str) or not isinstance(v, Tensor)]:
        raise ValueError(f"{what}: entry {one_line(bad[0])} is no named tensor; expected nothing else")
    return dict(record)


def _reason(error: Exception) -> str:
    """What torch's loader did not like, without its advice to switch it off."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line.startswith("WeightsUnpickler error:")]
    return one_line(
        (told[0] if told else lines[0]).removeprefix("WeightsUnpickler error:").split(" Please")[0]
    )


def _wanted(allowed: tuple[type, ...]) -> str:
    names = "".join(f" and {kind.__module__}.{kind.__name__}" for kind in allowed)
    return f"tensors{names} only"
