"""Evaluation mode for the length of a call: dropout and batch norm as at inference, each module's own mode put back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import CodeType, FunctionType, MethodType
from typing import Any

from torch import nn

_SHORT = 1000
"""Items of a container that is looked through for modules."""


class evaluating:
    """Runs every module of a network in evaluation mode, and leaves each in the mode that it was in, whatever happens.

    For a function these are the modules that it can reach: bound, enclosed, global or default ones. Modes are written past
    `nn.Module.__setattr__`, which takes a tenth of a small network's pass.
    """

    def __init__(self, network: Callable[..., Any]) -> None:
        self.network = network

    def __enter__(self) -> None:
        self.training = _training(roots(self.network))
        for module in self.training:
            module.__dict__["training"] = False

    def __exit__(self, *_: object) -> None:
        for module in self.training:
            module.__dict__["training"] = True


def _training(modules: list[nn.Module]) -> list[nn.Module]:
    """Those of the modules and of all inside them that are in training mode."""
    found: list[nn.Module] = []
    inside, seen = list(modules), set[int]()
    while inside:
        module = inside.pop()
        if id(module) not in seen:
            seen.add(id(module))
            if module._modules:
                inside.extend(part for part in module._modules.values() if part is not None)
            if module.training:
                found.append(module)
    return found


def roots(network: Any) -> list[nn.Module]:
    """The modules that a call of ``network`` may run: itself, or those that a function, method or object holds."""
    if isinstance(network, nn.Module):
        return [network]
    found: list[nn.Module] = []
    _gather(network, found, set())
    return found


def _gather(thing: Any, found: list[nn.Module], seen: set[int]) -> None:
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, nn.Module):
        found.append(thing)
        return
    for part in _parts(thing):
        _gather(part, found, seen)


def _parts(thing: Any) -> list[Any]:
    """What a callable or a short container holds; of a function's globals, functions of the same file only."""
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, FunctionType):
        enclosed = [c.cell_contents for c in thing.__closure__ or () if _filled(c)]
        named = [thing.__globals__.get(name) for name in _names(thing.__code__)]
        near = [x for x in named if getattr(x, "__globals__", thing.__globals__) is thing.__globals__]
        return [*enclosed, *near, *(thing.__defaults__ or ()), *(thing.__kwdefaults__ or {}).values()]
    if isinstance(thing, list | tuple | dict):
        inside = list(thing.values() if isinstance(thing, dict) else thing)
        return inside if len(inside) <= _SHORT else []
    if isinstance(thing, MethodType):
        return [thing.__self__, thing.__func__]
    return list(vars(thing).values()) if _is_callable_object(thing) else []


def _is_callable_object(thing: Any) -> bool:
    """Whether a thing is an object of somebody's class that can be called."""
    return callable(thing) and not isinstance(thing, type) and hasattr(thing, "__dict__")


def _names(code: CodeType) -> set[str]:
    """Global names that a function and those inside it use."""
    inner = (c for c in code.co_consts if isinstance(c, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _filled(cell: Any) -> bool:
    """Whether a closure's variable has a value yet."""
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
