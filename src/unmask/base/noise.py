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

from unmask.base import numbers
from unmask.base.devices import precise

ORDER, SYMBOL = 1, 2
"""Streams: public noise of orders, private noise of symbols; one seed gives unrelated numbers in each."""

MASK, LEVEL = 5, 6
"""Streams of estimates: which positions are hidden, and how many."""

WORD = 2**32
"""Rows, order ids, positions, steps and streams are words of 32 bits: below this, and at least 0."""

Words = NDArray[np.uint64]
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_STATES = (0x9B05688C, 0x1F83D9AB)  # the key of `generator`: any fixed one


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
    """Uniforms on (0, 1), one per broadcast entry of the integer tensors ``first`` and ``second``.

    The counter is (first, second, third, stream), each in 0..2^32 - 1, the key is the seed, in 0..2^64 - 1; ValueError
    outside, where two places would share their numbers. In ``second``, usually positions, -1 is padding and stands for the
    last word, which is no position then. The integers are the same on every device, and so are the float64 that they
    become; where a device has none (`devices.precise`) they are rounded to float32. Never exactly 0 or 1. On an
    accelerator nothing waits: there only ``second`` and numbers that a run has checked before may be given.
    """
    numbers = _whole("third", third), _whole("stream", stream)
    key = divmod(_whole("seed", seed, high=WORD**2), WORD)[::-1]
    if first.device.type != "cpu":
        return _on_device(first, second, numbers, key)
    whole = not (first.is_floating_point() or second.is_floating_point())
    if whole and max(first.numel(), second.numel()) <= _FEW:
        return _one_by_one(first, second, numbers, key)
    a, b = np.broadcast_arrays(_words("first", first, 0), _words("second", second, -1))
    rest = [np.full(a.shape, value, dtype=np.uint64) for value in numbers]
    high, low, _, _ = philox((a, b, rest[0], rest[1]), key)
    bits = ((high >> np.uint64(6)) << np.uint64(26)) | (low >> np.uint64(6))
    return torch.from_numpy(
        (bits.astype(np.float64) + 0.5) * 2.0**-52
    )  # 52 bits, so that adding 1/2 is exact


_FEW = 8
"""Numbers that are made sooner one by one than by arrays."""


def _one_by_one(first: Tensor, second: Tensor, rest: tuple[int, int], key: tuple[int, int]) -> Tensor:
    """The same for few numbers, without arrays."""
    if first.shape == second.shape:
        a, b = first, second
    else:
        a, b = torch.broadcast_tensors(first, second)  # type: ignore[no-untyped-call]
    pairs = zip(a.flatten().tolist(), b.flatten().tolist())
    counters = [(_whole("first", x), _whole("second", y, -1, WORD - 1) % WORD, *rest) for x, y in pairs]
    return torch.tensor([_one(counter, key) for counter in counters], dtype=torch.float64).view(a.shape)


def _one(counter: tuple[int, int, int, int], key: tuple[int, int]) -> float:
    """One uniform, by Python's own integers: `philox` without arrays."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & 0xFFFFFFFF, (a >> 32) ^ c3 ^ k1, a & 0xFFFFFFFF
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return ((c0 >> 6 << 26 | c1 >> 6) + 0.5) * 2.0**-52


def _on_device(first: Tensor, second: Tensor, rest: tuple[int, int], key: tuple[int, int]) -> Tensor:
    """The same on a device, by `philox` in its 64-bit integers, whose products wrap like unsigned ones."""
    c0, c1 = first.long() & 0xFFFFFFFF, second.long() & 0xFFFFFFFF
    c2, c3 = torch.full_like(c0, rest[0]), torch.full_like(c0, rest[1])  # the shapes meet in the first round
    for i in range(10):
        k0, k1 = ((k + i * w) & 0xFFFFFFFF for k, w in zip(key, _WEYL))
        a, b = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1 = (b >> 32 & 0xFFFFFFFF) ^ c1 ^ k0, b & 0xFFFFFFFF
        c2, c3 = (a >> 32 & 0xFFFFFFFF) ^ c3 ^ k1, a & 0xFFFFFFFF
    bits: Tensor = c0 >> 6 << 26 | c1 >> 6
    if (kind := precise(first.device)) == torch.float64:
        exact: Tensor = (bits.double() + 0.5) * 2.0**-52
        return exact
    rounded: Tensor = ((bits >> 29).to(kind) + 0.5) * 2.0**-23  # the first 23 bits
    return rounded


def _whole(name: str, value: int, low: int = 0, high: int = WORD) -> int:
    """The integer; ValueError unless it is one in low..high - 1."""
    if not isinstance(value, int | np.integer) or not low <= value < high:
        last = f"2^{(high - 1).bit_length()} - {1 - low}"
        raise ValueError(f"{name} {value!r}: expected a whole number in {low}..{last}, to each its own noise")
    return int(value)


def _words(name: str, values: Tensor, low: int) -> Words:
    """The entries as words; ValueError names the first that is no whole number in low..WORD - 1 + low."""
    found = values.detach().cpu().numpy()
    wrong = ~((found >= low) & (found < WORD + low)) | (found % 1 != 0 if found.dtype.kind == "f" else False)
    if wrong.any():
        _whole(name, found[wrong].flat[0].item(), low, WORD + low)
    return found.astype(np.int64).astype(np.uint64) & _LOW


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
    """ids int64 [B], or the default; ValueError on another shape or dtype, or outside 0..2^32 - 1.

    `uniform` reads 32 bits of an id: larger ones would repeat the numbers of others.
    """
    if ids is None:
        return default
    if numbers.tensor(ids, name).dtype != torch.int64 or ids.shape != tokens.shape[:1]:
        raise ValueError(
            f"{name} have dtype {ids.dtype} and shape {list(ids.shape)}; "
            f"expected int64 [{len(tokens)}], each at least 0"
        )
    wrong = (ids < 0) | (ids >= WORD)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name} have dtype {ids.dtype} and {int(ids[row])} in row {row}; "
            f"expected int64 [{len(tokens)}], each at least 0 and at most 2^32 - 1"
        )
    return ids


def seeded(seed: int) -> torch.Generator:
    """A generator on the CPU for each seed in 0..2^64 - 1, no two alike.

    Below 2^32 it is ``manual_seed``'s own, which keeps 32 bits of a seed: larger ones would repeat the numbers of others.
    """
    seed = _whole("seed", seed, high=WORD**2)
    if seed < WORD:
        return torch.Generator().manual_seed(seed)
    return generator(seed % WORD, seed // WORD, _LARGE)


_LARGE = WORD - 1
"""The stream of `generator` for large seeds, which no step of a training reads."""


def narrowed(seed: int, bits: int) -> int:
    """The seed itself below 2^32; of a larger one, a number in 2^32..2^bits - 1 that is drawn from its generator."""
    return seed if seed < WORD else int(torch.randint(WORD, 2**bits, (), generator=seeded(seed)))


def generator(seed: int, step: int = 0, stream: int = 0) -> torch.Generator:
    """A generator on the CPU for each triple of integers in 0..2^32 - 1, whose state no other triple has.

    ``manual_seed`` keeps 32 bits of its seed. Here the 624 words of the state (a Mersenne twister) are `philox` of
    (block, seed, step, stream) under a fixed key: one to one in each block of four words.
    """
    named = {"seed": seed, "step": step, "stream": stream}
    block = np.arange(624 // 4, dtype=np.uint64)
    rest = [np.full(len(block), _whole(name, value), dtype=np.uint64) for name, value in named.items()]
    words = np.stack(philox((block, rest[0], rest[1], rest[2]), _STATES), axis=1)
    made = torch.Generator().manual_seed(seed)
    state = made.get_state()
    state.view(torch.int64)[3:627] = torch.from_numpy(words.astype(np.int64).ravel())
    return made.set_state(state)
