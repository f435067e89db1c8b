"""A learnt order: a small network over what is visible, as a score. `unmask.training.ordering` trains it.

The network sees the law's certainty at every position, how much is masked, where a position stands and, if asked to, the
visible symbols: no candidate. So the order stays a function of what is visible, and likelihood and coding follow. After
UPO, arXiv 2510.05725, and Olausson et al., arXiv 2512.09106.
"""

from __future__ import annotations

import base64
import binascii
import copy
import hashlib
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from unmask.base import checkpoints
from unmask.base.devices import precise
from unmask.base.numbers import real, whole
from unmask.base.types import Score, View
from unmask.networks import TransformerConfig
from unmask.networks.blocks import Block
from unmask.networks.positions import AxisEmbedding
from unmask.orders.described import described
from unmask.orders.scores import by_slices, confidence, entropy, margin, spread

FEATURES = 6
"""What the network is told of a position: see `features`."""

MOST_NOTED = 2**13
"""Weights of a network that a manifest holds; an order by a larger one is handed to `replay`."""


@dataclass(frozen=True)
class OrderConfig:
    """Shape of an `OrderNetwork` for ``length`` positions.

    ``symbols``: visible symbols below it are told, 0 tells none. ``axes`` are coordinates of positions as in
    `TransformerConfig` (default: one, their number). Before training the score is ``sharpness`` times the margin.
    """

    length: int
    symbols: int = 0
    width: int = 16
    depth: int = 1
    heads: int = 2
    hidden: int = 24
    axes: tuple[tuple[int, ...], ...] | None = None
    sharpness: float = 8.0

    def __post_init__(self) -> None:
        whole(self.symbols, "symbols", 0)
        real(self.sharpness, "sharpness", 0)
        axes = None if self.axes is None else tuple(tuple(axis) for axis in self.axes)
        object.__setattr__(self, "axes", axes)
        self.transformer()

    def transformer(self) -> TransformerConfig:
        """The same as a transformer's shape."""
        shape = (self.length, self.width, self.depth, self.heads)
        return TransformerConfig(max(1, self.symbols), *shape, hidden=self.hidden, axes=self.axes)


class OrderNetwork(nn.Module):
    """Features [B, L, 6] and tokens int64 [B, L] to scores [B, L]: blocks of a transformer, and a straight line.

    The line begins as the margin, the rest as nothing.
    """

    def __init__(self, config: OrderConfig) -> None:
        super().__init__()
        self.config, shape = config, config.transformer()
        axes = torch.tensor(config.axes or [range(config.length)])
        self.inward = nn.Linear(FEATURES, config.width)
        self.symbols: nn.Embedding | None = None
        if config.symbols:
            self.symbols = nn.Embedding(config.symbols + 1, config.width)
        self.positions = AxisEmbedding(axes, config.width, std=0.5)
        self.blocks = nn.ModuleList(Block(shape, axes) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, bias=False)
        self.outward = nn.Linear(config.width, 1, bias=False)
        self.line = nn.Linear(FEATURES, 1, bias=False)
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(self.line.weight)
        self.line.weight.data[0, 0] = config.sharpness

    def forward(self, told: Tensor, tokens: Tensor) -> Tensor:
        """Scores [B, L] of positions of which ``told`` [B, L, 6] is known, in sequences tokens int64 [B, L]."""
        x = self.inward(told) + self.positions()
        if self.symbols is not None:
            x = x + self.symbols(tokens.clamp(max=self.config.symbols))
        for block in self.blocks:
            x = block.finish(x, *block.project(x, None, None))  # type: ignore[operator]
        found: Tensor = self.outward(self.norm(x)) + self.line(told)
        return found[..., 0]

    def noted(self) -> dict[str, Any] | None:
        """The network as JSON, None for a large one: weights as safetensors in base64."""
        if sum(p.numel() for p in self.parameters()) > MOST_NOTED:
            return None
        return {"network": asdict(self.config), "weights": base64.b64encode(save(_plain(self))).decode()}


def from_noted(description: dict[str, Any]) -> OrderNetwork:
    """The network that `OrderNetwork.noted` told of; ValueError for anything else."""
    try:
        config = OrderConfig(**description["network"])
        if _least(config) > MOST_NOTED:
            raise ValueError(
                f"an order network of at least {_least(config)} weights; expected {MOST_NOTED} at most"
            )
        network = blank(config)
        weights = load(base64.b64decode(description["weights"], validate=True))
    except (KeyError, TypeError, binascii.Error, SafetensorError) as error:
        raise ValueError(f"no network is told of ({error}); expected what a manifest says") from None
    return _filled(network, weights, Path("the manifest"))


def _least(config: OrderConfig) -> int:
    """Weights that a network of this shape has at least; a stranger's description may ask for any."""
    places = config.length if config.axes is None else max(map(max, config.axes), default=0) + 1
    each = config.width * (config.width + config.hidden)
    return config.depth * each + config.width * (config.symbols + places)


def write(network: OrderNetwork, folder: str | Path) -> None:
    """Writes a network as ``config.json`` and ``weights.safetensors``, in place of an older folder."""
    checkpoints.write_folder(
        Path(folder), {"weights": _plain(network)}, {"config": {"order": asdict(network.config)}}
    )


def read(folder: str | Path) -> OrderNetwork:
    """The network in a folder that `write` left; ValueError for another one."""
    where = Path(folder)
    stored = checkpoints.read_json(where / "config.json").get("order")
    try:
        network = blank(OrderConfig(**stored))  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"{where / 'config.json'} tells of no order; expected what `write` leaves") from None
    weights = where / "weights.safetensors"
    return _filled(network, checkpoints.read_tensors(weights), weights)


def blank(config: OrderConfig, seed: int = 0) -> OrderNetwork:
    """An untrained network, whose first weights are a function of the seed; the global random state is left alone."""
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        return OrderNetwork(config)


def features(view: View) -> Tensor:
    """What is told of every position, [B, L, 6]; all in [0, 1].

    Margin, top probability, digits of certainty and entropy, which are 0 where a position is visible; masked; share masked.
    """
    if view.log_probs is None:
        raise ValueError(
            "a learnt order reads log-probabilities and there are none: a blind selector called it"
        )
    most = math.log(max(2, view.log_probs.shape[-1]))
    spent = spread(view, by_slices(entropy, view.log_probs)) / most
    best = confidence(view)
    digits = -(1 - best.clamp(min=0)).clamp(min=1e-6).log10() / 6
    sighted = torch.stack([margin(view), best, digits, spent], -1)
    hidden = view.masked.to(sighted.dtype)
    share = hidden.mean(1, keepdim=True).expand_as(hidden)
    sighted = torch.where(view.masked[..., None], sighted, 0.0)
    return torch.cat([sighted, torch.stack([hidden, share], -1)], -1)


@described
def learnt(network: OrderNetwork) -> Score:
    """The score of a network as it is now: what is trained later changes the network and not this order.

    Computed in float64. It reads the law that symbols are drawn from; `on_base` makes it read the law before tempering.
    """
    if not isinstance(network, OrderNetwork):
        raise ValueError(f"learnt: got {type(network).__name__}, expected an OrderNetwork")
    own = copy.deepcopy(network).eval().requires_grad_(False)

    def compute(view: View) -> Tensor:
        length, expected = view.tokens.shape[1], own.config.length
        if length != expected:
            raise ValueError(f"a learnt order for {expected} positions got {length}; expected as many")
        own.to(view.tokens.device, precise(view.tokens.device))
        found: Tensor = own(features(view), view.tokens)
        return found

    return Score(compute, name=f"learnt({_digest(network)})")


def _digest(network: OrderNetwork) -> str:
    return hashlib.sha256(save(_plain(network))).hexdigest()[:8]


def _plain(network: OrderNetwork) -> dict[str, Tensor]:
    """The weights on the CPU, as they are saved."""
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def _filled(network: OrderNetwork, weights: dict[str, Tensor], source: Path) -> OrderNetwork:
    checkpoints.fill(network.state_dict(), weights, source)
    return network
