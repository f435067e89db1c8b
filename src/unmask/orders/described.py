"""How an order was made, as data: which function of this room made it, with which arguments, so that it can be made again.

A function that is `described` leaves this on what it makes, as ``made_by``: JSON of numbers, texts and lists. What is no
data, such as a function of one's own, has no description, and neither has what was changed afterwards.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from importlib import import_module
from math import isfinite
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from unmask.base.types import Denoiser, Score
from unmask.denoisers import denoiser_name

P = ParamSpec("P")
T = TypeVar("T")

MODULES = ("lookahead", "policy", "presets", "rules", "scores", "selectors")
"""Where makers are looked up."""

LARGEST = 4096
"""Numbers of a tensor that a description holds."""


class NoData(Exception):
    """Something that a description cannot hold."""


def described(make: Callable[P, T]) -> Callable[P, T]:
    """The maker of a score, a selector or a setting, which also notes how it was called."""
    signature, name = inspect.signature(make), f"{make.__module__.rpartition('.')[2]}.{make.__name__}"

    @functools.wraps(make)
    def maker(*args: P.args, **kwargs: P.kwargs) -> T:
        made = make(*args, **kwargs)
        if isinstance(made, float):  # a setting that is the same at every step says itself
            return made
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        try:
            noted = {"make": name, "with": {key: _data(value) for key, value in given.arguments.items()}}
        except NoData:
            noted = None
        object.__setattr__(made, "made_by", noted)
        return made

    maker.described = True  # type: ignore[attr-defined]
    return maker


def made_by(thing: object) -> dict[str, Any] | None:
    """How a score or selector was made, or None where that is not known."""
    return getattr(thing, "made_by", None)


def made(description: Any, denoiser: Denoiser | None = None) -> Any:
    """What a description tells of, made again; ValueError for one that no order of this version has.

    Orders that look ahead take ``denoiser``, which must have the name that was noted.
    """
    if isinstance(description, list):
        return tuple(made(value, denoiser) for value in description)
    if not isinstance(description, dict):
        return description
    try:
        kind = next(iter(description))
        return _KINDS[kind](description, denoiser)
    except (KeyError, StopIteration, TypeError, AttributeError):
        raise ValueError(
            f"no order is made by {str(description)[:80]}; expected what a manifest says"
        ) from None


def _data(value: Any) -> Any:
    """A value as JSON holds it; `NoData` where it does not."""
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value)):
        return value
    if (noted := made_by(value)) is not None:
        return noted
    if isinstance(value, tuple | list):
        return [_data(part) for part in value]
    if isinstance(value, Tensor) and value.numel() <= LARGEST:
        return {"numbers": value.tolist()}
    if isinstance(value, Score) and (name := _constant(value)) is not None:
        return {"score": name}
    if isinstance(value, functools.partial) and value.func is _rescaled() and not value.keywords:
        return {"rescaled": _data(value.args[0])}
    if (noting := getattr(value, "noted", None)) is not None and (told := noting()) is not None:
        return told
    if isinstance(value, Denoiser):
        return {"denoiser": denoiser_name(value)}
    raise NoData


def _constant(score: Score) -> str | None:
    """The name of one of the scores that are there from the start."""
    known = vars(import_module("unmask.orders.scores"))
    return next((name for name, value in known.items() if value is score), None)


def _rescaled() -> Callable[..., Any]:
    """What makes a plan of any length from one."""
    return import_module("unmask.planning.plans").rescaled  # type: ignore[no-any-return]


def _called(description: dict[str, Any], denoiser: Denoiser | None) -> Any:
    module, _, name = description["make"].partition(".")
    make = getattr(import_module(f"unmask.orders.{module}"), name) if module in MODULES else None
    if make is None or not getattr(make, "described", False):
        raise KeyError
    return make(**{key: made(value, denoiser) for key, value in description["with"].items()})


def _same(description: dict[str, Any], denoiser: Denoiser | None) -> Denoiser:
    if denoiser is None or denoiser_name(denoiser) != description["denoiser"]:
        raise ValueError(f"the order looks ahead through {description['denoiser']}; expected that denoiser")
    return denoiser


def _score(description: dict[str, Any], _: Denoiser | None) -> Score:
    score = getattr(import_module("unmask.orders.scores"), description["score"])
    if not isinstance(score, Score):
        raise KeyError
    return score


_KINDS: dict[str, Callable[[dict[str, Any], Denoiser | None], Any]] = {
    "make": _called,
    "score": _score,
    "numbers": lambda description, _: torch.tensor(description["numbers"]),
    "rescaled": lambda description, _: functools.partial(_rescaled(), tuple(description["rescaled"])),
    "denoiser": _same,
    "network": lambda description, _: import_module("unmask.orders.policy").from_noted(description),
}
