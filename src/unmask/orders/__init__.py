"""Which positions next, and where their symbols come from."""

from unmask.orders import presets, rules, samplers, scores, selectors, sources

__all__ = ["presets", "rules", "samplers", "scores", "selectors", "sources"]
