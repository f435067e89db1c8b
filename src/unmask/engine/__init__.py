"""The engine: one loop for sampling, likelihood and compression."""

from unmask.engine.loop import init, run, step

__all__ = ["init", "run", "step"]
