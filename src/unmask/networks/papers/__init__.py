"""The networks of papers that this library has no general form of, with the shapes of their code."""

from unmask.networks.papers.audio import WaveNet, WaveNetConfig
from unmask.networks.papers.images import ImageConfig, ImageNetwork

__all__ = ["ImageConfig", "ImageNetwork", "WaveNet", "WaveNetConfig"]
