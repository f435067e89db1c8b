"""How is a published config.json read? Field by field: a missing or odd one is refused, not guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from unmask.base.numbers import whole


def count(config: Mapping[str, Any], name: str, default: int | None = None, least: int = 1) -> int:
    """A whole number of at least ``least``; ValueError where there is none and no default."""
    value = config.get(name)
    if value is None:
        if default is None:
            raise ValueError(f"no {name!r}; expected a whole number of at least {least}")
        value = default
    return whole(value, repr(name), least)


def number(config: Mapping[str, Any], name: str, default: float) -> float:
    """A positive finite number."""
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name!r} is {value!r}; expected a positive number")
    return float(value)


def flag(config: Mapping[str, Any], name: str, default: bool) -> bool:
    """True or False; null is the default."""
    value = default if config.get(name) is None else config[name]
    if not isinstance(value, bool):
        raise ValueError(f"{name!r} is {value!r}; expected true or false")
    return value


def only(config: Mapping[str, Any], **known: Any) -> None:
    """ValueError for a field with another value than the one that is built here; fields that are missing have it."""
    for name, value in known.items():
        if (found := config.get(name, value)) != value:
            raise ValueError(f"{name!r} is {found!r}; only {value!r} is built here")


def must(config: Mapping[str, Any], **known: Any) -> None:
    """As `only`, for fields whose absence would mean something else."""
    for name, value in known.items():
        if name not in config:
            raise ValueError(f"no {name!r}; expected {value!r}")
    only(config, **known)


def symbol(config: Mapping[str, Any], name: str, vocab_size: int) -> int:
    """A symbol id below the size of the vocabulary; ValueError where the config names none."""
    found = count(config, name, least=0)
    if found >= vocab_size:
        raise ValueError(f"{name!r} is {found}; expected one of {vocab_size} symbols")
    return found


def shared_heads(width: int, heads: int, kv_heads: int) -> None:
    """ValueError unless ``heads`` divide the width into even parts, and ``kv_heads`` of keys and values divide them."""
    if width % heads or (width // heads) % 2 or heads % kv_heads:
        raise ValueError(
            f"width {width} over {heads} heads and {kv_heads} of keys: expected divisors, and an "
            "even number of channels per head"
        )
