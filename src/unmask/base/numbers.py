"""Numbers that callers hand over, checked in one place: whole numbers, real numbers, seeds, settings per step.

Numbers of Python, of numpy and tensors without a dimension are the same to every function of the library. A truth value
is no number, a fraction is no whole number, and NaN is refused: each in one line that names the argument.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmask.base.types import PerStep

LARGEST_SEED = 2**64 - 1
"""Seeds of public noise are keys of 64 bits."""


def whole(value: object, name: str, low: int | None = None, high: int | None = None) -> int:
    """The value as an int from low to high; ValueError for anything that is no integer, such as 1.5 or True."""
    number = _converted(value, operator.index)
    if number is None or not _inside(number, low, high):
        raise ValueError(f"{name} {shown(value)}: expected a whole number{_limits(low, high)}; change {name}")
    return int(number)


def real(value: object, name: str, low: float | None = None, high: float | None = None) -> float:
    """The value as a float from low to high, infinity included; ValueError for NaN and for what is no number."""
    number = _converted(value, float)
    if number is None or math.isnan(number) or not _inside(number, low, high):
        raise ValueError(f"{name} {shown(value)}: expected a number{_limits(low, high)}; change {name}")
    return float(number)


def tensor(value: object, name: str) -> Tensor:
    """The value, if it is a tensor; ValueError for an array or a list."""
    if isinstance(value, Tensor):
        return value
    kind = type(value)
    known = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    raise ValueError(
        f"{name} of type {known}; expected a tensor: torch.as_tensor makes one of an array or a list"
    )


def seed(value: object, name: str = "seed") -> int:
    """The value as a seed of public noise, an int from 0 to 2^64 - 1; ValueError otherwise."""
    number = _converted(value, operator.index)
    if number is None or not 0 <= number <= LARGEST_SEED:
        raise ValueError(
            f"{name} {shown(value)}: expected a whole number in 0..2^64 - 1; choose another seed"
        )
    return int(number)


def per_step(value: PerStep, name: str, low: float | None = None, high: float | None = None) -> PerStep:
    """A setting as a float from low to high, or, for a function of the step, as one whose answers are such floats."""
    if not callable(value):
        return real(value, name, low, high)
    function = value

    def checked(step: int) -> float:
        return real(function(step), f"{name} at step {step}", low, high)

    checked.__name__ = str(getattr(function, "__name__", function))
    return checked


def listed(values: object, name: str) -> tuple[Any, ...] | None:
    """The entries of a sequence, or of an array or tensor of one dimension, as a tuple; None for anything else.

    ValueError for arrays of other dimensions and tensors without data, under ``name``.
    """
    if isinstance(values, torch.Tensor | np.ndarray):
        if values.ndim == 0:
            return None
        if values.ndim != 1 or _is_meta(values):
            raise ValueError(f"got {name} {shown(values)}, expected one dimension; flatten it")
        return tuple(values.tolist())
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        return tuple(values)
    return None


def shown(value: object) -> str:
    """A value as it stands in an error message: short, and on one line."""
    if isinstance(value, torch.Tensor | np.ndarray) and (value.ndim or _is_meta(value)):
        device = f" on {value.device}" if isinstance(value, torch.Tensor) else ""
        return f"an array of dtype {value.dtype} and shape {list(value.shape)}{device}"
    text = repr(value.item()) if isinstance(value, torch.Tensor | np.ndarray | np.generic) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _converted(value: object, convert: Any) -> Any:
    """``convert`` of the value; None where that makes no sense, or where only a truth value or a text could mean it."""
    if type(value) is int and convert is operator.index:
        return value
    kind = getattr(value, "dtype", None)
    truth = isinstance(value, bool) or kind in (torch.bool, np.dtype(bool))
    if truth or isinstance(value, str | bytes) or getattr(value, "ndim", 0) != 0:
        return None
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last: a tensor without data
        return None


def _is_meta(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.device.type == "meta"


def _inside(number: float, low: float | None, high: float | None) -> bool:
    return (low is None or number >= low) and (high is None or number <= high)


def _limits(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" between {low} and {high}"
    return f" of at least {low}" if low is not None else f" of at most {high}" if high is not None else ""
