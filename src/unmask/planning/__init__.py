"""How many positions at once: information profiles, plans and what they cost."""

from unmask.planning import (
    continuum,
    estimators,
    families,
    guarantees,
    measuring,
    plans,
    profiles,
    search,
    smoothing,
)

__all__ = [
    "continuum",
    "estimators",
    "families",
    "guarantees",
    "measuring",
    "plans",
    "profiles",
    "search",
    "smoothing",
]
