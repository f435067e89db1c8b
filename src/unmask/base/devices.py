"""Devices: which exist, what they compute fast, and their random states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np
import torch
from torch import Tensor


def precise(device: torch.device | str) -> torch.dtype:
    """The dtype in which log-probabilities add up there: float64, or float32 on Apple's GPUs, which have no other."""
    kind = device.type if isinstance(device, torch.device) else device.split(":")[0]
    return torch.float32 if kind == "mps" else torch.float64


def has_bfloat16(device: str = "cpu") -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 there: on hardware that has them.

    Those are GPUs made for them and CPUs with AMX or AVX-512's bfloat16 (a training step of the shipped Sudoku network took
    0.4 to 0.6 of the time, on one thread). Other CPUs emulate them: 8 to 17 times as slow with AVX2, 3 with plain AVX-512.
    """
    if device.startswith("cuda"):
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return False
    kinds = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # by version of torch
    return any(getattr(torch.cpu, kind, bool)() for kind in kinds)


def existing() -> list[str]:
    """Names of the devices that this machine computes on."""
    gpus = [f"cuda:{n}" for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return [
        "cpu",
        *(["cuda"] if gpus else []),
        *gpus,
        *(["mps"] if torch.backends.mps.is_available() else []),
    ]


def check_device(device: str) -> None:
    """ValueError unless tensors can be computed on a device of this name here; says which exist."""
    try:
        there = torch.device(device).type != "meta" and torch.empty(1, device=device).add(1).shape == (1,)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError):
        there = False
    if not there:
        raise ValueError(f"no device {str(device)!r} here; expected one of {', '.join(existing())}")


def check_bfloat16(device: str) -> None:
    """ValueError where matrix products in bfloat16 cannot be asked for; a device that emulates them obeys."""
    try:
        with torch.autocast(kind_of(device), torch.bfloat16):
            pass
    except RuntimeError as error:
        raise ValueError(
            f"device '{device}' has no bfloat16 ({' '.join(str(error).split())}); expected machine.bfloat16 false or None"
        ) from None


def kind_of(device: str) -> str:
    """The kind of a device without its number, such as cuda for cuda:1."""
    return torch.device(device).type


# --- random states --------------------------------------------------------------------------------


def random_states(device: str) -> dict[str, Tensor]:
    """The states of torch's global generators that a computation on the device reads: ``torch`` (the CPU's) and its own."""
    states = {"torch": torch.get_rng_state()}
    if (kind := kind_of(device)) != "cpu":
        states[kind] = _module(kind).get_rng_state(*_number(device))
    return states


def set_random_states(device: str, states: dict[str, Tensor]) -> None:
    """Puts back what `random_states` gave, as far as it is there."""
    torch.set_rng_state(states["torch"])
    if (kind := kind_of(device)) != "cpu" and kind in states:
        _module(kind).set_rng_state(states[kind], *_number(device))


def seed_random_states(device: str, seed: int) -> None:
    """Seeds those generators as `torch.manual_seed` does, and no other device's."""
    torch.default_generator.manual_seed(seed)
    if (kind := kind_of(device)) != "cpu":
        state = torch.Generator(device=device).manual_seed(seed).get_state()
        _module(kind).set_rng_state(state, *_number(device))


@contextmanager
def random_states_kept(device: str) -> Iterator[None]:
    """Leaves torch's states, the device's included, and numpy's global one as they were, whatever happens inside."""
    states, numpys = random_states(device), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        set_random_states(device, states)
        np.random.set_state(numpys)  # noqa: NPY002


def _module(kind: str) -> ModuleType:
    module: ModuleType = torch.get_device_module(kind)
    return module


def _number(device: str) -> tuple[str, ...]:
    """The device as an argument, for kinds of which there may be several."""
    return () if kind_of(device) == "mps" else (device,)
