"""What was published of each paper's run, and the data that it expects: what a dry run compares with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A number of parameters, and where it stands or how it was counted."""

    parameters: int
    source: str


@dataclass(frozen=True)
class Facts:
    """``published`` counts, the first one the paper's where it prints one; ``value`` is the paper's result, with its unit.

    ``symbols`` of the training part; ``prepare`` makes the token folders ``train`` and ``valid`` that the recipe reads.
    """

    published: tuple[Published, ...]
    value: str
    data: str
    symbols: int
    origin: str
    prepare: tuple[str, ...]


SHAPES = "counted from the shapes of the authors' code"

_TEXT8 = (
    "text8: 100,000,000 characters, 90 / 5 / 5 million",
    90_000_000,
    "mattmahoney.net/dc/text8.zip",
    (
        "unmask data prepare text8.zip --as text8_file -o text8 --split train=0.9 valid=0.05 test=0.05",
        "unmask train RECIPE --data.folder text8",
    ),
)
_OWT = (
    "OpenWebText: about 9.0 billion GPT-2 tokens of 8.0 million documents (count of the usual preparation, unverified)",
    9_035_582_198,
    "skylion007.github.io/OpenWebTextCorpus, or the dataset of that name",
    (
        "unmask data prepare openwebtext --as documents --tokenizer gpt2/tokenizer.json -o openwebtext "
        "--split train=0.9875 valid=0.0125",
        "unmask train RECIPE --data.folder openwebtext",
    ),
)
_CIFAR = (
    "CIFAR-10: 50,000 images of 32x32x3 and 10,000 of the test set",
    50_000 * 3072,
    "www.cs.toronto.edu/~kriz/cifar.html, the python or the binary version",
    (
        "unmask data prepare cifar-10-batches-py/data_batch_* --as cifar_python -o cifar10/train",
        "unmask data prepare cifar-10-batches-py/test_batch --as cifar_python -o cifar10/valid",
        "unmask train RECIPE --data.folder cifar10",
    ),
)
_IMAGENET = (
    "downsampled ImageNet: 1,281,149 images of 64x64x3",
    1_281_149 * 12_288,
    "image-net.org/download-images (npz batches), or the older PNG files (--as png), which are what bits were published of",
    (
        "unmask data prepare Imagenet64_train --as imagenet64 -o imagenet64/train",
        "unmask data prepare Imagenet64_val --as imagenet64 -o imagenet64/valid",
        "unmask train RECIPE --data.folder imagenet64",
    ),
)
_SC09 = (
    "SC09: the spoken digits of Speech Commands, 31,158 of one second for training (unverified)",
    31_158 * 16_000,
    "download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
    (
        "unmask data prepare speech_commands --as sc09 -o sc09/train",
        "unmask data prepare speech_commands --as sc09_valid -o sc09/valid",
        "unmask train RECIPE --data.folder sc09",
    ),
)

FACTS: dict[str, Facts] = {
    "text8": Facts((Published(88_734_272, SHAPES),), "1.37 bits per character", *_TEXT8),
    "owt-small": Facts(
        (
            Published(165_857_344, SHAPES),
            Published(124_439_808, "GPT-2 small, whose size the paper names: tied embeddings, no time"),
        ),
        "perplexity 22.13 per token",
        *_OWT,
    ),
    "owt-medium": Facts(
        (
            Published(416_240_960, SHAPES),
            Published(354_823_168, "GPT-2 medium, whose size the paper names: tied embeddings, no time"),
        ),
        "perplexity 16.64 per token",
        *_OWT,
    ),
    "cifar10": Facts(
        (Published(28_000_000, "paper"), Published(28_427_520, SHAPES)), "2.75 bits per dimension", *_CIFAR
    ),
    "imagenet64": Facts(
        (Published(198_000_000, "paper"), Published(198_279_680, SHAPES)),
        "3.40 bits per dimension",
        *_IMAGENET,
    ),
    "ardm-text8": Facts((Published(85_060_635, SHAPES),), "1.43 bits per character", *_TEXT8),
    "ardm-cifar10": Facts((Published(141_060_736, SHAPES),), "2.69 bits per dimension", *_CIFAR),
    "ardm-cifar10-upscale4": Facts((Published(141_060_736, SHAPES),), "2.64 bits per dimension", *_CIFAR),
    "ardm-sc09": Facts((Published(33_944_224, SHAPES),), "6.29 bits per dimension", *_SC09),
}
"""By recipe. Neither paper prints counts for the others."""
