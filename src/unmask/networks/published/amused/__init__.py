"""aMUSEd of image tokens (arXiv 2401.01808), told a caption, by the names of the weights in diffusers, and its images.

Convolutions read neighbours, so that there are no partial passes.
"""

from unmask.networks.published.amused.config import AmusedConfig, Caption
from unmask.networks.published.amused.network import Amused, Captioned
from unmask.networks.published.amused.pixels import AmusedPixels, AmusedPixelsConfig

__all__ = ["Amused", "AmusedConfig", "AmusedPixels", "AmusedPixelsConfig", "Caption", "Captioned"]
