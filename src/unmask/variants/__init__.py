"""A paper's own law, end to end."""

from unmask.variants import genmd4, upscale

__all__ = ["genmd4", "upscale"]
