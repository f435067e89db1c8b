"""What a network takes, read off its signature: also through compiled, parallel, partial and decorated wrappers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

TIMES = ("t", "timestep", "timesteps", "sigma", "sigmas", "noise_level")
"""Names under which networks take the time of the forward process; ours is ``time``."""

_INSIDE = ("_orig_mod", "module", "_fsdp_wrapped_module", "_torchdynamo_orig_callable")
"""Where torch.compile, DataParallel and FSDP keep what they wrap."""

_OPEN = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def takes(network: Callable[..., Any], name: str) -> bool | None:
    """Whether a call of the network takes the keyword ``name``; None where a wrapper with ``**kwargs`` hides it."""
    if isinstance(network, functools.partial):
        return name not in network.keywords and takes(network.func, name)
    known = _parameters(network)
    if name in known and known[name].kind not in _OPEN:
        return True
    if not any(map(_is_open, known.values())):
        return False
    inside = _wrapped_by(network)
    if inside is not None:
        return takes(inside, name)
    return False if hasattr(network, "get_output_embeddings") else None  # transformers: it would name them


def layers(network: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """The network, what it wraps, what that wraps, and so on."""
    inside: Callable[..., Any] | None = network
    while inside is not None:
        yield inside
        inside = inside.func if isinstance(inside, functools.partial) else _wrapped_by(inside)


def settle(network: Callable[..., Any], timed: bool | None, with_rows: bool | None) -> tuple[bool, bool]:
    """Whether the network takes ``time`` and ``rows``, as said or as its signature says.

    ValueError where it cannot be told (a lost time is a wrong number), where it takes the time under another name, or where
    it needs more than that. Rows that cannot be told are done without: all positions are evaluated, which is never wrong.
    """
    reads = takes(network, "time") if timed is None else timed
    if reads is None:
        raise ValueError(
            f"cannot tell what {name_of(network)} takes: its signature ends in **kwargs or *args; "
            "say timed=True or timed=False (and with_rows=True if it takes rows)"
        )
    first = next(iter(_parameters(network)), "")
    if timed is None and (other := [n for n in TIMES if n != first and takes(network, n)]) and not reads:
        raise ValueError(
            f"{name_of(network)} takes '{other[0]}', perhaps its time, which goes by the name time here: wrap it, "
            f"lambda tokens, *, time: network(tokens, {other[0]}=time), or say timed=False"
        )
    rows = bool(takes(network, "rows") if with_rows is None else with_rows)
    given = ["time"] * reads + ["rows"] * rows
    if missing := [n for n in _needed(network) if n not in given]:
        raise ValueError(
            f"{name_of(network)} needs '{missing[0]}' beside tokens; expected a network (tokens, rows=None) -> logits: "
            "bind the rest with functools.partial"
        )
    attributes = (getattr(inside, "timed", None) for inside in layers(network))
    listens = next((a for a in attributes if isinstance(a, bool)), True)
    return reads and (listens or timed is True), rows


def name_of(network: object) -> str:
    """A short name for messages."""
    return getattr(network, "__name__", type(network).__name__)


def _parameters(network: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a call; those of ``forward`` for a module. Open where there is no signature."""
    call = network.forward if isinstance(network, nn.Module) else network
    try:
        return inspect.signature(call).parameters
    except (TypeError, ValueError):
        schema = getattr(call, "schema", None)  # TorchScript
        names = [a.name for a in schema.arguments if a.name != "self"] if schema else []
        known = {n: inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in names}
        return known or {"kwargs": inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)}


def _is_open(parameter: inspect.Parameter) -> bool:
    """Whether a parameter takes arguments without names: ``*args``, or ``**kwargs`` that no typed dictionary lists."""
    return parameter.kind in _OPEN and "Unpack[" not in str(parameter.annotation)


def _needed(network: Callable[..., Any]) -> list[str]:
    """Names of the parameters after the first that have no default; none where there is no telling."""
    if isinstance(network, functools.partial):
        return [n for n in _needed(network.func) if n not in network.keywords] if not network.args else []
    known = list(_parameters(network).values())
    if any(map(_is_open, known)):
        inside = _wrapped_by(network)
        return [] if inside is None else _needed(inside)
    return [p.name for p in known[1:] if p.default is inspect.Parameter.empty and p.kind not in _OPEN]


def _wrapped_by(network: Callable[..., Any]) -> Callable[..., Any] | None:
    """What a wrapper calls, where it is known."""
    owner = getattr(network, "__self__", None)
    if isinstance(owner, nn.Module):  # a bound method
        return _wrapped_by(owner) if getattr(network, "__name__", "") == "forward" else owner
    found = (getattr(network, name, None) for name in _INSIDE)
    return next((x for x in found if callable(x)), None)
