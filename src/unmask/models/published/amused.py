"""How is aMUSEd read from a folder of diffusers, how does it draw what a text says, and what do its tokens look like?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unmask.base import checkpoints
from unmask.base.checkpoints import one_line
from unmask.base.devices import check_device
from unmask.denoisers import NetworkDenoiser, from_logits
from unmask.models.published import shards
from unmask.models.published.reading import built, told
from unmask.networks.published import (
    Amused,
    AmusedConfig,
    AmusedPixels,
    AmusedPixelsConfig,
    Caption,
    Captioned,
)

N = TypeVar("N", bound=nn.Module)
C = TypeVar("C")

STEM = "diffusion_pytorch_model"
"""What diffusers calls files of weights."""

BEAUTY = 6.0
"""How beautiful images are asked to be, of 10, where nothing is said: the pipeline's default."""


@dataclass(frozen=True)
class Drawer:
    """An aMUSEd: ``denoiser(caption)`` is a law of tokens, ``pixels(tokens)`` their images, float [B, 3, H, W] about 0..1.

    Guidance is ``guided(denoiser(caption), denoiser(captions("")[0]), scale)``; diffusers' guidance_scale is 1 + scale,
    and 10 unless it is said.
    """

    network: Amused
    pixels: AmusedPixels
    mask_id: int
    folder: Path

    def denoiser(self, caption: Caption) -> NetworkDenoiser:
        """The law of the tokens of an image that a caption describes; ValueError for one of other widths."""
        return from_logits(Captioned(self.network, caption), self.mask_id, self.network.shape.codes)

    def masked(self, count: int) -> Tensor:
        """Tokens int64 [count, side^2] of images of which nothing is drawn."""
        device = self.network.encoder_proj.weight.device
        return torch.full((count, self.network.shape.length), self.mask_id, device=device)

    def caption(self, states: Tensor, pooled: Tensor, *, beauty: float = BEAUTY) -> Caption:
        """Of a text encoder's states [S, E] before its last layer and its pooled projection [P]; nothing is cropped."""
        side = float(self.network.shape.side * self.pixels.scale)
        return Caption(states, pooled, torch.tensor([side, side, 0.0, 0.0, beauty]))

    def captions(self, texts: str | Sequence[str], *, beauty: float = BEAUTY) -> list[Caption]:
        """One for each text, by the folder's CLIP (extra `hf`), which is read for this call and let go of."""
        states, pooled = encoded(self.folder, [texts] if isinstance(texts, str) else list(texts))
        return [self.caption(*both, beauty=beauty) for both in zip(states, pooled)]


def amused(folder: str | Path, *, dtype: torch.dtype | None = None, device: str | None = None) -> Drawer:
    """The aMUSEd of a folder with ``transformer`` and ``vqvae``, each with config.json and safetensors.

    ``dtype`` None is the one that most weights are stored in. ValueError in one line for what is not read.
    """
    folder, device = Path(folder), device or "cpu"
    check_device(device)
    shards.checked_dtype(dtype)
    network = _read(folder / "transformer", AmusedConfig.read, Amused, dtype, device)
    pixels = _read(
        folder / "vqvae",
        AmusedPixelsConfig.read,
        AmusedPixels,
        dtype,
        device,
        ignored=("encoder.", "quant_conv."),
    )
    if pixels.shape.codes < network.shape.codes:
        raise ValueError(
            f"{folder / 'vqvae'} has {pixels.shape.codes} codes; expected the {network.shape.codes} of the transformer"
        )
    return Drawer(network, pixels.requires_grad_(False), _mask_of(folder, network.shape), folder)


def _read(
    folder: Path,
    read: Callable[[Mapping[str, Any]], C],
    build: Callable[[C], N],
    dtype: torch.dtype | None,
    device: str,
    ignored: tuple[str, ...] = (),
) -> N:
    """A part of a folder of diffusers, with the tensors of its files but those whose names begin as ``ignored``."""
    config = checkpoints.read_json(folder / "config.json")
    shape = told(folder, lambda: read(config))
    found = {k: v for k, v in shards.stored(folder, STEM).items() if not k.startswith(ignored)}
    network = built(lambda: build(shape), found, folder)
    shards.check(network, found, (), folder)
    shards.fill(network, found, shards.common_dtype(found) if dtype is None else dtype, device)
    return network.eval()


def _mask_of(folder: Path, shape: AmusedConfig) -> int:
    """The mask that the scheduler names, or the last symbol."""
    file = folder / "scheduler" / "scheduler_config.json"
    found = checkpoints.read_json(file).get("mask_token_id") if file.exists() else shape.symbols - 1
    if type(found) is not int or not shape.codes <= found < shape.symbols:
        raise ValueError(
            f"{file}: mask_token_id {one_line(repr(found))}; expected a symbol in {shape.codes}..{shape.symbols - 1}"
        )
    return found


def encoded(folder: Path, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """States [n, S, E] before the last layer of CLIP, and its pooled projections [n, P], of texts.

    ``folder`` has ``tokenizer`` and ``text_encoder``. No code of it is run, and a pickle is not read. ImportError where
    transformers is not there.
    """
    from unmask.models.transformers import clip

    return clip.encoded(folder / "tokenizer", folder / "text_encoder", texts)
