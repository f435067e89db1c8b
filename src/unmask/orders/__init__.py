"""Which positions next, and where their symbols come from."""

from unmask.orders import presets, rules, scores, selectors, sources

__all__ = ["presets", "rules", "scores", "selectors", "sources"]
