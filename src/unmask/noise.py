"""Random numbers as pure functions of where they are used: Philox-4x32-10 on integer tensors.

``uniform(seed, stream, a, b, c)`` is the same on every device, for every batch size and in any order of evaluation, so a
row of a batch has its own stream, and a random order is replayed from (seed, order_id). Source of the generator: Salmon
et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import torch
from torch import Tensor

ORDER, SYMBOL = 1, 2
"""Streams: public noise of orders, private noise of symbols; one seed gives unrelated numbers in each."""

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Four 32-bit words (int64 tensors in 0..2^32-1) for a 128-bit counter and a 64-bit key; ten rounds."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]  # products wrap modulo 2^64; the high half is masked back
        c0, c1, c2, c3 = ((b >> 32) & _LOW) ^ c1 ^ k0, b & _LOW, ((a >> 32) & _LOW) ^ c3 ^ k1, a & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def uniform(seed: int, stream: int, first: Tensor, second: Tensor, third: int = 0) -> Tensor:
    """Float64 uniforms on (0, 1), one per broadcast entry of the integer tensors ``first`` and ``second``.

    The counter is (first, second, third, stream), the key is the 64-bit seed. Odd multiples of 2^-53: never 0 or 1.
    """
    first, second = torch.broadcast_tensors(first.long() & _LOW, second.long() & _LOW)
    rest = [torch.full_like(first, value & _LOW) for value in (third, stream)]
    a, b, _, _ = philox((first, second, rest[0], rest[1]), (seed & _LOW, (seed >> 32) & _LOW))
    return (((a >> 6 << 26) | (b >> 6)).double() + 0.5) * 2.0**-52  # integers until here: int64 times float is float32


def gumbel(seed: int, stream: int, first: Tensor, second: Tensor, third: int = 0) -> Tensor:
    """Standard Gumbel noise, float64, with the arguments of `uniform`; reaches 36.7, not float32's 16.6."""
    return -torch.log(-torch.log(uniform(seed, stream, first, second, third)))
