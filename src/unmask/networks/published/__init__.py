"""Architectures of published masked diffusion models, each reading the names of the published weights."""

from unmask.networks.published.amused import (
    Amused,
    AmusedConfig,
    AmusedPixels,
    AmusedPixelsConfig,
    Caption,
    Captioned,
)
from unmask.networks.published.dream import Dream, DreamConfig
from unmask.networks.published.llada import LLaDA, LLaDAConfig
from unmask.networks.published.llada2 import LLaDA2, LLaDA2Config
from unmask.networks.published.maskgit import MaskGIT, MaskGITConfig
from unmask.networks.published.mdlm import MDLM, SEDD, DiTConfig
from unmask.networks.published.pieces import Published
from unmask.networks.published.vq import Pixels, PixelsConfig

__all__ = [
    "MDLM",
    "SEDD",
    "Amused",
    "AmusedConfig",
    "AmusedPixels",
    "AmusedPixelsConfig",
    "Caption",
    "Captioned",
    "DiTConfig",
    "Dream",
    "DreamConfig",
    "LLaDA",
    "LLaDA2",
    "LLaDA2Config",
    "LLaDAConfig",
    "MaskGIT",
    "MaskGITConfig",
    "Pixels",
    "PixelsConfig",
    "Published",
]
