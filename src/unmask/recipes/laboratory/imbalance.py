"""Recipe `text_pi`: a causal network that reads text in one fixed order of its places (pi-learner, arXiv 2502.06768).

Text has an order in which its conditionals are easy to learn; another fixed order has the same likelihood to gain, and
what a network does not gain of it is order imbalance. The identity is the usual autoregressive network, and a masked model
(`text`, with ``--network.rotary false``) learns all orders at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unmask.base import noise
from unmask.networks import Transformer, TransformerConfig
from unmask.networks.transformer import from_config
from unmask.recipes import baselines, sequences
from unmask.recipes.run import Run, check_ranges
from unmask.recipes.text import text


@dataclass(frozen=True)
class ReadInOrder(sequences.Folder):
    """A token folder, and the order in which windows are read: the identity after ``swaps`` of two random places.

    With ``swaps`` None every order is equally likely. ``draw`` is the seed of the swaps, whatever their number: the first
    ones are the same.
    """

    swaps: int | None = 0
    draw: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, draw=(0, 2**32 - 1))
        if self.swaps is not None:
            check_ranges(self, swaps=(0, math.inf))


def text_pi() -> Run:
    """As `text_autoregressive`, but places are learnt vectors and not angles, and each stretch is read in the order."""
    plain = text()
    run = replace(plain, network=replace(plain.network, rotary=False), data=ReadInOrder("text"))
    return replace(
        baselines.autoregressive(run, windows),
        name="text_pi",
        build=build,
        prepare=prepare,
        encode=encode,
        decode=decode,
    )


def build(config: TransformerConfig) -> Transformer:
    """The network of a configuration; ValueError where its axis of positions is no order of them."""
    if config.axes is not None and [sorted(axis) for axis in config.axes] != [list(range(config.length))]:
        raise ValueError(f"axes {config.axes}: expected one, with each of 0..{config.length - 1} once")
    return from_config(config)


def prepare(run: Run) -> Run:
    """The run with what the folder tells, and the order as the network's one axis of positions."""
    run = sequences.prepared(run, kind="stream")
    order = drawn(run.network.length, run.data.swaps, run.data.draw)
    return replace(run, network=replace(run.network, axes=(tuple(order.tolist()),)))


def drawn(length: int, swaps: int | None, draw: int) -> Tensor:
    """An order of ``length`` places, int64 [length]: the place in the text that is read first, second, .."""
    random = noise.generator(draw)
    if swaps is None:
        return torch.randperm(length, generator=random)
    order = torch.arange(length)
    for _ in range(swaps if length > 1 else 0):
        pair = torch.randperm(length, generator=random)[:2]
        order[pair] = order[pair.flip(0)]
    return order


def order_of(run: Run) -> Tensor:
    """The order in which a run reads, int64 [L]; it is stored with the network, as the places of its tokens."""
    axes = run.network.axes
    return torch.arange(run.network.length) if axes is None else torch.tensor(axes[0])


def windows(run: Run, random: torch.Generator) -> Tensor:
    """The stretches of `sequences.windows`, each in the run's order, int64 [B, L]."""
    return sequences.windows(run, random)[:, order_of(run)]


def encode(run: Run, texts: Any, *, cut: bool = False) -> Tensor:
    """Tokens of texts in the run's order, int64 [n, L]; `sequences.encode_windows` says what is refused."""
    return sequences.encode_windows(run, texts, cut=cut)[:, order_of(run)]


def decode(run: Run, tokens: Tensor) -> list[str]:
    """The text of each row, places put back as they were."""
    return sequences.decode_windows(run, tokens[:, order_of(run).argsort()])
