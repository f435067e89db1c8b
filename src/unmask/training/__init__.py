"""One readable training loop."""

from unmask.training.loop import train

__all__ = ["train"]
