"""Trained models: load them, and what ships."""

from unmask.models.loading import load
from unmask.models.model import Model
from unmask.models.pretrained import measured_profile, shipped, tuned_calls, tuned_sampler
from unmask.models.transformers import from_transformers

__all__ = [
    "Model",
    "from_transformers",
    "load",
    "measured_profile",
    "shipped",
    "tuned_calls",
    "tuned_sampler",
]
