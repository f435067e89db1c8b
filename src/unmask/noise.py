"""Random numbers as pure functions of where they are used: Philox-4x32-10 on arrays of integers.

``uniform(seed, stream, a, b, c)`` is the same on every device, for every batch size and in any order of evaluation, so a
row of a batch has its own stream, and a random order is replayed from (seed, order_id). Source of the generator: Salmon
et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ORDER, SYMBOL = 1, 2
"""Streams: public noise of orders, private noise of symbols; one seed gives unrelated numbers in each."""

MASK, LEVEL = 5, 6
"""Streams of estimates: which positions are hidden, and how many."""

Words = NDArray[np.uint64]
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(
    counter: tuple[Words, Words, Words, Words], key: tuple[int, int]
) -> tuple[Words, Words, Words, Words]:
    """Four 32-bit words (held in uint64) for a 128-bit counter, given as four such words, and a 64-bit key."""
    c0, c1, c2, c3 = counter
    for i in range(10):
        k0, k1 = (np.uint64((k + i * w) & 0xFFFFFFFF) for k, w in zip(key, _WEYL))
        a, b = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (b >> _HALF) ^ c1 ^ k0, b & _LOW, (a >> _HALF) ^ c3 ^ k1, a & _LOW
    return c0, c1, c2, c3


def uniform(seed: int, stream: int, first: Tensor, second: Tensor, third: int = 0) -> Tensor:
    """Float64 uniforms on (0, 1), one per broadcast entry of the integer tensors ``first`` and ``second``.

    The counter is (first, second, third, stream) modulo 2^32 each, the key is the 64-bit seed. Never exactly 0 or 1.
    Computed on the CPU, so that it is the same for every device, and returned on the device of ``first``.
    """
    words = [t.detach().cpu().numpy().astype(np.uint64) & _LOW for t in (first, second)]
    a, b = np.broadcast_arrays(*words)
    rest = [np.full(a.shape, value & 0xFFFFFFFF, dtype=np.uint64) for value in (third, stream)]
    high, low, _, _ = philox((a, b, rest[0], rest[1]), (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    bits = ((high >> np.uint64(6)) << np.uint64(26)) | (
        low >> np.uint64(6)
    )  # 52, so that adding 1/2 is exact
    return torch.from_numpy((bits.astype(np.float64) + 0.5) * 2.0**-52).to(first.device)


def gumbel(seed: int, stream: int, first: Tensor, second: Tensor, third: int = 0) -> Tensor:
    """Standard Gumbel noise, float64, with the arguments of `uniform`; reaches 36.7, not float32's 16.6."""
    return -torch.log(-torch.log(uniform(seed, stream, first, second, third)))


def drawn_seed(generator: torch.Generator) -> int:
    """The generator's next number, which stands for all private noise of one call."""
    if not isinstance(generator, torch.Generator):
        raise ValueError(
            f"generator {generator!r}: expected a torch.Generator, such as torch.Generator().manual_seed(0)"
        )
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))


def checked_ids(ids: Tensor | None, tokens: Tensor, default: Tensor, name: str = "order_ids") -> Tensor:
    """ids int64 [B], or the default; ValueError on another shape, dtype or a negative id."""
    if ids is None:
        return default
    if ids.dtype != torch.int64 or ids.shape != tokens.shape[:1] or bool((ids < 0).any()):
        raise ValueError(
            f"{name} have dtype {ids.dtype} and shape {list(ids.shape)}; "
            f"expected int64 [{len(tokens)}], each at least 0"
        )
    return ids
