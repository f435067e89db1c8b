"""What shape does an aMUSEd have, and what is it told?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unmask.networks.published.settings import count, flag, must, number, only


@dataclass(frozen=True)
class AmusedConfig:
    """Shape of an `Amused`: ``side`` x ``side`` tokens out of ``codes``, of ``symbols`` that the embedding knows.

    ``channels`` is the width of the convolutions, ``text`` and ``pooled`` that of a caption; each of its ``sizes``
    numbers becomes ``waves`` channels.
    """

    codes: int
    symbols: int
    side: int
    width: int
    depth: int
    heads: int
    hidden: int
    embedded: int
    channels: int
    blocks: int
    block_heads: int
    text: int
    pooled: int
    waves: int
    sizes: int
    down: bool
    up: bool
    eps: float

    def __post_init__(self) -> None:
        for width, heads in ((self.width, self.heads), (self.channels, self.block_heads)):
            if width % heads:
                raise ValueError(f"width {width} over {heads} heads: expected a divisor")
        if self.down != self.up or (self.down and self.side % 2):
            raise ValueError(
                f"side {self.side}, halved {self.down}, doubled {self.up}; expected both of an even side, or neither"
            )

    @property
    def length(self) -> int:
        """How many tokens an image has."""
        return self.side**2

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> AmusedConfig:
        """From the config.json of ``transformer``; what it leaves out is diffusers' default."""
        must(config, _class_name="UVit2DModel")
        only(config, use_bias=False, ln_elementwise_affine=True)
        waves, told = count(config, "micro_cond_encode_dim", 256), count(config, "micro_cond_embed_dim", 1280)
        if told % waves or waves % 2:
            raise ValueError(
                f"'micro_cond_embed_dim' is {told}; expected a multiple of {waves}, which must be even"
            )
        return cls(
            codes=count(config, "codebook_size", 8192),
            symbols=count(config, "vocab_size", 8256),
            side=count(config, "sample_size", 64),
            width=count(config, "hidden_size", 1024),
            depth=count(config, "num_hidden_layers", 22),
            heads=count(config, "num_attention_heads", 16),
            hidden=count(config, "intermediate_size", 2816),
            embedded=count(config, "in_channels", 768),
            channels=count(config, "block_out_channels", 768),
            blocks=count(config, "num_res_blocks", 3),
            block_heads=count(config, "block_num_heads", 12),
            text=count(config, "encoder_hidden_size", 768),
            pooled=count(config, "cond_embed_dim", 768),
            waves=waves,
            sizes=told // waves,
            down=flag(config, "downsample", False),
            up=flag(config, "upsample", False),
            eps=number(config, "layer_norm_eps", 1e-6),
        )


@dataclass(frozen=True)
class Caption:
    """What an image is told: the states [S, text] of a text, its pooled projection [pooled], and sizes [5].

    The states are the encoder's last but one; the sizes are width and height in pixels, two of a crop's corner, and how
    beautiful it is, of 10. A first axis gives each sequence of a batch its own.
    """

    states: Tensor
    pooled: Tensor
    sizes: Tensor

    def batch(self) -> Caption:
        """The same with a first axis."""
        states, pooled, sizes = self.states, self.pooled, self.sizes
        return Caption(
            states if states.ndim == 3 else states[None],
            pooled if pooled.ndim == 2 else pooled[None],
            sizes if sizes.ndim == 2 else sizes[None],
        )
