"""A limit on what building a network may allocate, for sizes that come from a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

FILLED = ("empty", "zeros", "ones", "full", "rand", "randn")
"""Functions that make a tensor of a given shape."""


class Limited(TorchFunctionMode):
    """Inside, ValueError before tensors are made that have many more elements than those given, or many more of them.

    The limit is 8 times as many elements in 30 times as many tensors, and some for very small networks.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.elements = 2**24 + 8 * sum(value.numel() for value in tensors.values())
        self.tensors = 1000 + 30 * len(tensors)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Counts what is asked for, then does it; what makes nothing, such as leaving `torch.no_grad`, always goes on."""
        made = _made(getattr(func, "__name__", ""), args)
        if max(made, _broadcast(args)) > self.elements or (made and not self.tensors):
            raise ValueError("sizes are far beyond those of the weights")
        self.elements -= made
        self.tensors -= made > 0
        return func(*args, **(kwargs or {}))


def _made(name: str, args: tuple[Any, ...]) -> int:
    """How many elements a function makes from nothing."""
    if name == "arange":
        return max((math.ceil(abs(n)) for n in args if isinstance(n, int | float)), default=0)
    return math.prod(max(n, 1) for n in _whole(args)) if name in FILLED else 0


def _whole(args: Iterable[Any]) -> Iterator[int]:
    for value in args:
        if isinstance(value, list | tuple):
            yield from _whole(value)
        elif isinstance(value, int):
            yield value


def _broadcast(args: tuple[Any, ...]) -> int:
    """Elements of what tensors broadcast to, 0 where they do not."""
    shapes = [tuple(a.shape) for a in args if isinstance(a, Tensor)]
    try:
        return math.prod(torch.broadcast_shapes(*shapes)) if len(shapes) > 1 else 0  # type: ignore[no-untyped-call]
    except RuntimeError:
        return 0
