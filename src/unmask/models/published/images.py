"""How is MaskGIT read from the Halton release, and the decoder of its images? Sizes follow from the tensors."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unmask.base import checkpoints
from unmask.base.checkpoints import one_line
from unmask.models.sizes import Limited
from unmask.networks.published import MaskGIT, MaskGITConfig, Pixels, PixelsConfig

HEADS = {384: 6, 512: 6, 768: 12, 1024: 16, 1152: 16}
"""Heads by width, which no tensor tells: sizes tiny to xlarge of the release (small, 512 over 6, runs in no code)."""

N = TypeVar("N", bound=nn.Module)


def maskgit(file: str | Path, *, heads: int | None = None) -> MaskGIT:
    """The network of a .safetensors file, or of the release's .pth, which is read by torch's weights-only loader.

    ``heads`` must be said for widths that the release does not have. A class is given by `networks.Labelled`.
    """
    tensors = _tensors(Path(file), ("model_state_dict",))

    def sizes() -> MaskGITConfig:
        codes, width = tensors["tok_emb.weight"].shape
        if heads is None and width not in HEADS:
            raise ValueError(f"width {width} is none of the release; say how many heads it has: heads=")
        registers = tensors.get("reg_tokens.weight")
        return MaskGITConfig(
            codes=codes - 1,
            side=round(len(tensors["pos_emb.weight"]) ** 0.5),
            width=width,
            depth=sum(name.endswith(".attn.wq.weight") for name in tensors),
            heads=HEADS[width] if heads is None else heads,
            hidden=len(tensors["transformer.layers.0.ff.w1.weight"]),
            classes=len(tensors["cls_emb.weight"]) - 1,
            registers=0 if registers is None else len(registers),
            patches="in_proj.weight" in tensors,
        )

    network = _filled(lambda: MaskGIT(sizes()), tensors, Path(file))
    if not torch.equal(tensors["head.weight"], tensors["tok_emb.weight"]):
        raise ValueError(
            f"{file}: 'head.weight' is not 'tok_emb.weight'; expected the tied head of the release"
        )
    return network


def pixels(file: str | Path) -> Pixels:
    """The decoder of a .safetensors file, or of LlamaGen's vq_ds16_c2i.pt; encoders in it are left out."""
    found = _tensors(Path(file), ("model", "ema"))
    ours = ("decoder.", "post_quant_conv.", "quantize.embedding.")
    others = ("encoder.", "quant_conv.", "quantize.codebook_used")
    tensors = {
        name: value for name, value in found.items() if name.startswith(ours) or not name.startswith(others)
    }

    def sizes() -> PixelsConfig:
        levels = sum(name.endswith(".res.0.conv1.weight") for name in tensors)
        widths = [len(tensors[f"decoder.conv_blocks.{i}.res.0.conv1.weight"]) for i in range(levels)]
        codes, code_width = tensors["quantize.embedding.weight"].shape
        return PixelsConfig(
            codes=codes,
            code_width=code_width,
            latent=len(tensors["post_quant_conv.weight"]),
            features=widths[-1],
            steps=tuple(width // widths[-1] for width in reversed(widths)),
        )

    return _filled(lambda: Pixels(sizes()), tensors, Path(file)).requires_grad_(False)


def _tensors(file: Path, places: tuple[str, ...]) -> dict[str, Tensor]:
    """The tensors of a file by name; those of a pickle may lie in a record at one of ``places``."""
    if file.suffix == ".safetensors":
        return checkpoints.read_tensors(file)
    try:
        found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{file} is not readable as weights alone ({one_line(error)}): missing, damaged or with code"
        ) from None
    for place in places:
        if isinstance(found, Mapping) and isinstance(found.get(place), Mapping):
            found = found[place]
    if not isinstance(found, Mapping) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise ValueError(f"{file} holds no tensors by name; expected weights, at {' or '.join(places)}")
    return dict(found)


def _filled(build: Callable[[], N], tensors: dict[str, Tensor], file: Path) -> N:
    """The network that ``build`` makes, with the tensors of a file; ValueError where they do not belong to it."""
    try:
        with torch.random.fork_rng(devices=()), Limited(tensors):
            network = build()
    except (ValueError, TypeError, RuntimeError, ArithmeticError, IndexError, KeyError) as error:
        raise ValueError(
            f"{file}: no network of these sizes ({one_line(error)}); expected the release's"
        ) from None
    with torch.no_grad():
        checkpoints.fill(network.state_dict(), tensors, file)
    return network.eval()
