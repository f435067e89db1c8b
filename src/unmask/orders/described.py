"""How an order was made, as data: which function of this room made it, with which arguments, so that it can be made again.

A function that is `described` leaves this on what it makes, as ``made_by``: JSON of numbers, texts and lists. What is no
data, such as a function of one's own, has no description, and neither has what was changed afterwards.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from importlib import import_module
from math import isfinite
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from unmask.base.numbers import shown
from unmask.base.types import Denoiser, Score, Selector
from unmask.denoisers import denoiser_name

P = ParamSpec("P")
T = TypeVar("T")

MODULES = ("lookahead", "policy", "presets", "rules", "samplers", "scores", "selectors")
"""Where makers are looked up."""

LARGEST = 4096
"""Numbers of a tensor that a description holds."""

DEEPEST, MOST_STEPS, MOST_CELLS = 24, 2**14, 2**16
"""What a stranger may ask for: how deep a description nests, the steps of a clock, the cells of a grid."""


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

    Orders that look ahead take ``denoiser``, which must have the name that was noted. A stranger's description costs no
    more than its size: see `DEEPEST`.
    """
    if _depth(description) > DEEPEST:
        raise ValueError(f"the order nests more than {DEEPEST} levels; expected what a manifest says")
    return _made(description, denoiser)


def selector_of(description: Any, denoiser: Denoiser | None = None) -> Selector:
    """The selector of a description; ValueError where it makes something else."""
    found = made(description, denoiser)
    if not isinstance(found, Selector):
        raise ValueError(f"the order makes {type(found).__name__}; expected a selector")
    return found


def is_learnt(description: Any) -> bool:
    """Whether an order network is in a description."""
    return any(isinstance(part, dict) and "network" in part for _, part in _parts(description))


def looks_through(description: Any) -> str | None:
    """The name of the denoiser that an order looks ahead through, by its description; None where it does not."""
    found = (
        part["denoiser"] for _, part in _parts(description) if isinstance(part, dict) and "denoiser" in part
    )
    return next((str(name) for name in found if not isinstance(name, dict)), None)


def reads_on(rule: Any) -> bool:
    """Whether a rule goes from left to right."""
    if not isinstance(rule, dict) or not isinstance(given := rule.get("with"), dict):
        return False
    if rule.get("make") in ("selectors.in_blocks", "rules.sharpened"):
        return reads_on(given.get("selector"))
    top = rule.get("make") == "selectors.top_k" and given.get("score") == {"score": "left_to_right"}
    return rule.get("make") == "presets.left_to_right" or top


def _depth(description: Any) -> int:
    """How many records and lists stand inside each other."""
    return max(depth for depth, _ in _parts(description))


def _parts(description: Any) -> Iterator[tuple[int, Any]]:
    """A description and all that is in it, each with its depth, from 0."""
    level, depth = [description], 0
    while level:
        yield from ((depth, part) for part in level)
        inside = [p.values() if isinstance(p, dict) else p for p in level if isinstance(p, dict | list)]
        level, depth = [part for parts in inside for part in parts], depth + 1


def _made(description: Any, denoiser: Denoiser | None) -> Any:
    if isinstance(description, list):
        return tuple(_made(value, denoiser) for value in description)
    if not isinstance(description, dict):
        return description
    try:
        kind = next(iter(description))
        if set(description) - {kind, _BESIDE.get(kind, kind)}:
            raise KeyError
        return _KINDS[kind](description, denoiser)
    except (KeyError, StopIteration, TypeError, AttributeError, RuntimeError):
        raise ValueError(f"no order is made by {shown(description)}; expected what a manifest says") from None


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


def _maker(name: str) -> Callable[..., Any]:
    """The described function of a name such as ``presets.random``; KeyError where there is none."""
    module, _, last = name.partition(".")
    make = getattr(import_module(f"unmask.orders.{module}"), last) if module in MODULES else None
    if make is None or not getattr(make, "described", False):
        raise KeyError
    return cast("Callable[..., Any]", make)


def _called(description: dict[str, Any], denoiser: Denoiser | None) -> Any:
    name, given = description["make"], description.get("with", {})
    make = _maker(name)
    takes = inspect.signature(make).parameters
    for key, value in given.items():
        if key not in takes:
            raise ValueError(
                f"no order is made by {name} with {shown(key)}, which takes {', '.join(takes)}; "
                "expected what a manifest says"
            )
        wanted = takes[key].annotation
        if _kind(value, key) not in _ACCEPTS[wanted]:
            raise ValueError(f"{name} with {key} {shown(value)}: expected {_WORDS.get(wanted, 'a number')}")
    _check_size(given)
    return make(**{key: _made(value, denoiser) for key, value in given.items()})


def _kind(value: Any, key: str) -> str:
    """What a part of a description stands for, as annotations of makers call it; empty for nothing that they take."""
    if value is None:
        return "None"
    if type(value) is int:
        return "int" if key.endswith("seed") or abs(value) < 2**31 else ""
    if isinstance(value, float):
        return "float" if isfinite(value) else ""
    if isinstance(value, list | tuple):
        return "Plan" if all(type(size) is int and 0 < size < 2**31 for size in value) else "Table"
    if not isinstance(value, dict) or not value:
        return ""
    kind = next(iter(value))
    named = {
        "network": "OrderNetwork",
        "score": "Score",
        "numbers": "Tensor",
        "rescaled": "Plan",
        "denoiser": "Denoiser",
    }
    return named[kind] if kind != "make" else str(inspect.signature(_maker(value["make"])).return_annotation)


_ACCEPTS: dict[str, set[str]] = {
    **{kind: {kind} for kind in ("OrderNetwork", "Selector", "Score", "Tensor", "Denoiser", "Table", "int")},
    "float": {"float", "int"},
    "int | None": {"int", "None"},
    "Score | None": {"Score", "None"},
    "Plan": {"Plan", "int"},
    "Plan | None": {"Plan", "int", "None"},
    "PerStep": {"PerStep", "float", "int"},
}
"""Annotations of makers, and the kinds of parts that they take."""

_BESIDE = {"make": "with", "network": "weights"}
"""What stands beside the first key of a description."""

_WORDS = {
    "OrderNetwork": "an order network",
    "Selector": "a selector",
    "Score": "a score",
    "Score | None": "a score",
    "Tensor": "numbers",
    "Denoiser": "a denoiser",
    "Plan": "positions per call or step sizes",
    "Plan | None": "positions per call or step sizes",
    "Table": "rows of a masked count and its runs [size, times]",
    "int": "a whole number below 2^31",
    "int | None": "a whole number below 2^31",
}


def _check_size(given: dict[str, Any]) -> None:
    """ValueError for a clock, or a grid, that would take long to make."""
    cells = given.get("height", 0) * given.get("width", 0)
    if given.get("steps", 0) > MOST_STEPS or cells > MOST_CELLS:
        raise ValueError(
            f"an order of {given.get('steps', cells)} {'steps' if 'steps' in given else 'cells'}; "
            f"expected at most {MOST_STEPS} steps or {MOST_CELLS} cells"
        )


def _rescaling(description: dict[str, Any], _: Denoiser | None) -> Callable[[int], tuple[int, ...]]:
    sizes = description["rescaled"]
    if _kind(sizes, "") != "Plan" or not sizes:
        raise KeyError
    return functools.partial(_rescaled(), tuple(sizes))


def _numbers(description: dict[str, Any], _: Denoiser | None) -> Tensor:
    numbers = description["numbers"]
    if len(numbers) > LARGEST or not all(_kind(number, "") in ("int", "float") for number in numbers):
        raise KeyError
    return torch.tensor(numbers, dtype=torch.float64)


def _same(description: dict[str, Any], denoiser: Denoiser | None) -> Denoiser:
    if denoiser is None or denoiser_name(denoiser) != description["denoiser"]:
        raise ValueError(f"the order looks ahead through {description['denoiser']}; expected that denoiser")
    return denoiser


def _score(description: dict[str, Any], _: Denoiser | None) -> Score:
    score = vars(import_module("unmask.orders.scores"))[description["score"]]
    if not isinstance(score, Score):
        raise KeyError
    return score


_KINDS: dict[str, Callable[[dict[str, Any], Denoiser | None], Any]] = {
    "make": _called,
    "score": _score,
    "numbers": _numbers,
    "rescaled": _rescaling,
    "denoiser": _same,
    "network": lambda description, _: import_module("unmask.orders.policy").from_noted(description),
}
