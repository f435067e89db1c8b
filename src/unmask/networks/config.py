"""What shape does a transformer have, and which tokens fit it?"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from unmask.base.numbers import real, whole


@dataclass(frozen=True)
class TransformerConfig:
    """Shape of a `Transformer`; every field is stored with its weights.

    ``timed`` and ``classes`` > 0 let the network read a time and a label, ``causal`` makes it autoregressive, ``ends``
    lets it see where a sequence of given length ends. ``dropout`` is the chance, in training, that a channel of
    what a block adds, or a weight of its attention, is left out.
    """

    vocab_size: int
    length: int
    width: int
    depth: int
    heads: int
    loops: int = 1
    hidden: int | None = None
    rotary: bool = False
    axes: tuple[tuple[int, ...], ...] | None = None
    timed: bool = False
    classes: int = 0
    causal: bool = False
    ends: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("vocab_size", "length", "width", "depth", "heads", "loops", "hidden"):
            if (name, getattr(self, name)) != ("hidden", None):
                object.__setattr__(self, name, whole(getattr(self, name), name, 1))
        object.__setattr__(self, "classes", whole(self.classes, "classes", 0))
        object.__setattr__(self, "dropout", real(self.dropout, "dropout", 0, 1))
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"width {self.width} over {self.heads} heads: expected an even number of channels per head"
            )
        if self.ends and self.causal:
            raise ValueError("ends with causal: expected one of the two")
        count = 1 if self.axes is None else len(self.axes)
        if count < 1 or (self.rotary and count > self.width // self.heads // 2):
            raise ValueError(
                f"{count} position axes: expected 1 or more; with rotary, a channel pair for each"
            )
        for axis in self.axes or ():
            if len(axis) != self.length or not all(isinstance(i, int) and i >= 0 for i in axis):
                raise ValueError(f"a position axis is {axis}: expected {self.length} whole numbers >= 0")


def check_length(tokens: Tensor, length: int, cut: bool = False) -> None:
    """ValueError unless tokens are [B, length], or shorter where a network may be given rows that are ``cut``."""
    if tokens.ndim != 2 or tokens.shape[1] > length or (tokens.shape[1] < length and not cut):
        most = " at most" if cut else ""
        raise ValueError(
            f"tokens of shape {list(tokens.shape)}; expected [batch, {length}]{most}, the length of the network"
        )
