"""Trained models: load them, and what ships."""

from unmask.models.loading import load
from unmask.models.model import Model
from unmask.models.pretrained import measured_profile, shipped

__all__ = ["Model", "load", "measured_profile", "shipped"]
