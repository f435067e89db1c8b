"""Recipes `digits..`: hand-written digits, 28x28 pixels of 256 grey levels (MNIST), under five objectives; and others.

`digits` is order-agnostic diffusion (ARDM, arXiv 2110.02037) and `digits_md4` MD4's integral over time (arXiv 2406.04329);
`digits_upscale4` and `digits_upscale16` are Upscale ARDM in four and two stages, and `digits_autoregressive` reads pixels
row by row. Network, batch, steps and optimiser are those of `digits`; the last has a causal transformer, half the batch.
Bits per dimension are nats per position / ln 2. Data: ``unmask data fetch mnist``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unmask.data.vocabularies import Levels
from unmask.masking import schedules
from unmask.networks import TransformerConfig, UNet, UNetConfig
from unmask.networks.transformer import from_config
from unmask.recipes import baselines, sequences
from unmask.recipes.run import Batch, Machine, Optimiser, Run
from unmask.variants import upscale

SIDE = 28
"""Pixels along each side."""


@dataclass(frozen=True)
class UpscaledConfig:
    """Shape of an `upscale.Upscaled` U-Net over digits of base ``vocab_size``; ``levels`` and sizes are the image's.

    ``direct`` gives each stage its own logits, otherwise one law over the levels serves all. ``length`` follows.
    """

    vocab_size: int
    levels: int
    height: int
    width: int
    channels: int = 1
    features: int = 128
    blocks: int = 3
    heads: int = 4
    patch: int = 1
    ordinal: int = 16
    direct: bool = False
    length: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", self.stages * self.image.length)

    @property
    def stages(self) -> int:
        """How many digits each level has."""
        return upscale.stages(self.vocab_size, self.levels)

    @property
    def image(self) -> UNetConfig:
        """The U-Net underneath."""
        same = {f.name: getattr(self, f.name) for f in fields(self) if f.name in SHARED}
        outputs = self.stages * self.vocab_size if self.direct else None
        return UNetConfig(vocab_size=self.levels, stages=self.stages, outputs=outputs, **same)


SHARED = ("height", "width", "channels", "features", "blocks", "heads", "patch", "ordinal")
"""Fields that an `UpscaledConfig` and the `UNetConfig` of its network have in common."""


def digits() -> Run:
    """A U-Net of nine residual blocks on squares of 2x2 pixels, which cost a quarter of single ones."""
    return Run(
        name="digits",
        network=UNetConfig(vocab_size=256, height=SIDE, width=SIDE, features=128, blocks=3, heads=4, patch=2),
        data=sequences.Folder("mnist"),
        build=build,
        batch=sequences.batches(sequences.items),
        objective=sequences.sparse_loss,
        encode=encode,
        decode=decode,
        vocabulary=Levels(256),
        prepare=lambda run: sequences.prepared(run, kind="images"),
        batch_size=32,
        optimiser=Optimiser(steps=12_000, learning_rate=1e-3, warmup=100, decay=0.3, ema=0.999),
        machine=Machine(bfloat16=None),
    )


def emoji() -> Run:
    """The same for emoji, 32x32 pixels of three colours (Twemoji): ``unmask data fetch emoji``. Ships no weights."""
    network = UNetConfig(
        vocab_size=256, height=32, width=32, channels=3, features=128, blocks=3, heads=4, patch=2
    )
    data = sequences.Folder("emoji")
    return replace(digits(), name="emoji", network=network, data=data, objective=sequences.loss, batch_size=8)


def pictures() -> Run:
    """Images of your own, of one size, in a few minutes of a processor: a small U-Net that takes its size from them.

    Made for a first look: for better models raise ``optimiser.steps`` and ``network.features``. Data: ``--data.folder``
    with what ``unmask data prepare`` made.
    """
    run = digits()
    return replace(
        run,
        name="pictures",
        network=replace(run.network, features=48, blocks=1),
        prepare=fitted,
        batch_size=16,
        optimiser=Optimiser(steps=150, learning_rate=2e-3, warmup=20, decay=0.4, ema=0.98),
    )


def fitted(run: Run) -> Run:
    """`sequences.prepared` with a network of the size of the data's images; pixels stand alone where a side is odd."""
    height, width, *colours = run.data.open().manifest["shape"] or (1, 1)
    patch = run.network.patch if height % run.network.patch == width % run.network.patch == 0 else 1
    size = {"height": height, "width": width, "channels": colours[0] if colours else 1, "patch": patch}
    return sequences.prepared(replace(run, network=replace(run.network, **size)), kind="images")


def digits_md4() -> Run:
    """The same network under MD4's integral, with the linear schedule that its image models have."""
    return replace(baselines.md4(digits(), sequences.items, schedules.linear(eps=1e-4)), name="digits_md4")


def digits_upscale4() -> Run:
    """Four stages of four children each."""
    return replace(_upscaled(digits(), base=4), name="digits_upscale4")


def digits_upscale16() -> Run:
    """Two stages of sixteen children each."""
    return replace(_upscaled(digits(), base=16), name="digits_upscale16")


def digits_autoregressive() -> Run:
    """A causal transformer, pixel by pixel; its attention is dear, so half the batch takes longer than the U-Net's."""
    network = TransformerConfig(
        vocab_size=256, length=SIDE**2, width=128, depth=3, heads=2, axes=ROWS_AND_COLUMNS
    )
    run = replace(digits(), network=network, build=from_config, batch_size=16)
    return replace(baselines.autoregressive(run, sequences.items), name="digits_autoregressive")


ROWS_AND_COLUMNS = (
    tuple(pixel // SIDE for pixel in range(SIDE**2)),
    tuple(pixel % SIDE for pixel in range(SIDE**2)),
)
"""Row and column of each pixel."""


def build(config: UNetConfig) -> UNet:
    """The network of a configuration."""
    return UNet(config)


def build_upscaled(config: UpscaledConfig) -> upscale.Upscaled:
    """The network over digits of a configuration."""
    law = upscale.from_digits if config.direct else upscale.from_levels
    return upscale.Upscaled(UNet(config.image), config.vocab_size, config.levels, law)


def _upscaled(run: Run, base: int) -> Run:
    """The run in stages of base-``base`` digits; the network differs in its first layer only."""
    same = {name: getattr(run.network, name) for name in SHARED}
    return replace(
        run,
        network=UpscaledConfig(vocab_size=base, levels=run.network.vocab_size, **same),
        build=build_upscaled,
        batch=upscaled_batch,
        objective=upscaled_loss,
        encode=encode_upscaled,
        decode=decode_upscaled,
        prepare=prepared_upscaled,
    )


def prepared_upscaled(run: Run) -> Run:
    """The run with the data's fingerprint; ValueError when the data have other levels than the network."""
    found = sequences.prepared(replace(run, network=run.network.image), kind="images")
    if found.network.vocab_size != run.network.levels:
        raise ValueError(
            f"the data have {found.network.vocab_size} levels; expected network.levels {run.network.levels}: "
            f"set --network.levels {found.network.vocab_size}"
        )
    return replace(found, network=run.network)


def upscaled_batch(run: Run, step: int) -> Batch:
    """Digits of random images, and what is hidden of them; a function of (seed, step) only."""
    return sequences.batches(_upscaled_items, upscale.in_one_stage(run.network.stages))(run, step)


def _upscaled_items(run: Run, random: torch.Generator) -> Tensor:
    images = sequences.items(replace(run, network=run.network.image), random)
    return upscale.encode_digits(images, run.network.vocab_size, run.network.levels)


def upscaled_loss(network: nn.Module, data: Batch) -> Tensor:
    """The upscale bound on a batch, nats per pixel and channel."""
    return upscale.loss(network, data.tokens, data.masked, data.weight)  # type: ignore[arg-type]


# --- images and tokens ----------------------------------------------------------------------------


def encode(run: Run, images: Any) -> Tensor:
    """Tokens int64 [n, L] of images uint8 [n, height, width], colour with channels last; ValueError on another shape."""
    values, shape = np.asarray(images), _shape(run)
    if values.dtype.kind not in "iu" or values.shape[1:] != shape:
        raise ValueError(
            f"images of dtype {values.dtype} and shape {list(values.shape)}; expected whole numbers [n, "
            f"{', '.join(map(str, shape))}]"
        )
    return torch.as_tensor(values.reshape(len(values), -1).astype(np.int64))


def decode(run: Run, tokens: Tensor) -> NDArray[np.uint8]:
    """Images uint8 [n, height, width] (colour: channels last) of tokens int64 [n, L]; masked pixels come out mid grey."""
    levels = run.network.vocab_size
    return _images(run, torch.where(tokens == levels, levels // 2, tokens))


def encode_upscaled(run: Run, images: Any) -> Tensor:
    """Digits int64 [n, S L] of images, as `encode`."""
    return upscale.encode_digits(encode(run, images), run.network.vocab_size, run.network.levels)


def decode_upscaled(run: Run, tokens: Tensor) -> NDArray[np.uint8]:
    """Images of digits int64 [n, S L], as `decode`; where digits are masked, as far as the stage before knows the level."""
    return _images(run, upscale.situation(tokens, run.network.vocab_size, run.network.levels).levels)


def _shape(run: Run) -> tuple[int, ...]:
    """Height, width and, in colour, channels; those of `digits` for a network that has none."""
    if isinstance(run.network, TransformerConfig):
        return (SIDE, SIDE)
    channels = (run.network.channels,) if run.network.channels > 1 else ()
    return (run.network.height, run.network.width, *channels)


def _images(run: Run, levels: Tensor) -> NDArray[np.uint8]:
    return levels.cpu().numpy().astype(np.uint8).reshape(len(levels), *_shape(run))
