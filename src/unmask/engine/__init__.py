"""The engine: one loop for sampling, likelihood and compression."""

from unmask.engine.loop import run, step
from unmask.engine.state import init

__all__ = ["init", "run", "step"]
