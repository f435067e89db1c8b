"""Images behind the tokens of aMUSEd: the decoder of diffusers' VQModel; the encoder is not built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from unmask.base.numbers import whole
from unmask.networks.published.settings import count, must, only
from unmask.networks.published.vq import Doubled, Residual, latents_of, norm_of


@dataclass(frozen=True)
class AmusedPixelsConfig:
    """Shape of `AmusedPixels`: ``widths`` are channels from the finest level, with ``layers`` + 1 blocks each."""

    codes: int
    code_width: int
    latent: int
    widths: tuple[int, ...]
    layers: int
    groups: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> AmusedPixelsConfig:
        """From the config.json of ``vqvae``; what it leaves out is diffusers' default."""
        must(config, _class_name="VQModel", lookup_from_codebook=True, mid_block_add_attention=False)
        widths = config.get("block_out_channels")
        if not isinstance(widths, list) or not widths:
            raise ValueError(f"'block_out_channels' is {widths!r}; expected a list of whole numbers")
        kinds = ["UpDecoderBlock2D"] * len(widths)
        only(config, up_block_types=kinds, out_channels=3, act_fn="silu", norm_type="group")
        latent = count(config, "latent_channels", 3)
        return cls(
            codes=count(config, "num_vq_embeddings", 256),
            code_width=count(config, "vq_embed_dim", latent),
            latent=latent,
            widths=tuple(whole(width, "'block_out_channels'", 1) for width in widths),
            layers=count(config, "layers_per_block", 1),
            groups=count(config, "norm_num_groups", 32),
        )


class Level(nn.Module):
    """Residual blocks, and a doubling unless it is the finest level."""

    def __init__(self, config: AmusedPixelsConfig, before: int, after: int, finest: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            [_residual(config, after if i else before, after) for i in range(config.layers + 1)]
        )
        if not finest:
            self.upsamplers = nn.ModuleList([Doubled(after)])

    def forward(self, x: Tensor) -> Tensor:
        """The next x."""
        for block in (*self.resnets, *getattr(self, "upsamplers", ())):
            x = block(x)
        return x


class Decoder(nn.Module):
    """From latents [B, Z, h, w] to pixels."""

    def __init__(self, config: AmusedPixelsConfig) -> None:
        super().__init__()
        widths = config.widths[::-1]
        self.conv_in = nn.Conv2d(config.latent, widths[0], 3, padding=1)
        middle = nn.Sequential(*(_residual(config, widths[0], widths[0]) for _ in range(2)))
        self.mid_block = nn.ModuleDict({"resnets": middle})
        self.up_blocks = nn.Sequential(
            *(
                Level(config, widths[max(i - 1, 0)], width, finest=i == len(widths) - 1)
                for i, width in enumerate(widths)
            )
        )
        self.conv_norm_out = norm_of(widths[-1], config.groups)
        self.conv_out = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels [B, 3, H, W]."""
        x = self.up_blocks(self.mid_block["resnets"](self.conv_in(x)))
        return self.conv_out(F.silu(self.conv_norm_out(x)))  # type: ignore[no-any-return]


class AmusedPixels(nn.Module):
    """``pixels(tokens int64 [B, side^2]) -> images`` float [B, 3, H, W], about 0..1; all but one level double the side."""

    def __init__(self, config: AmusedPixelsConfig) -> None:
        super().__init__()
        self.shape = config
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(config.codes, config.code_width)})
        self.post_quant_conv = nn.Conv2d(config.code_width, config.latent, 1)
        self.decoder = Decoder(config)

    @property
    def scale(self) -> int:
        """Pixels in a row by tokens in a row."""
        return int(2 ** (len(self.shape.widths) - 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Images of tokens, which must be data symbols; ValueError for others, and for no square of them."""
        latents = latents_of(tokens, self.quantize["embedding"].weight)  # type: ignore[arg-type]
        return self.decoder(self.post_quant_conv(latents))  # type: ignore[no-any-return]


def _residual(config: AmusedPixelsConfig, before: int, after: int) -> Residual:
    return Residual(before, after, config.groups, "conv_shortcut")
