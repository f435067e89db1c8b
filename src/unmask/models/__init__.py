"""Trained models: load them, and what ships."""

from unmask.models.loading import Model, load, measured_profile, shipped

__all__ = ["Model", "load", "measured_profile", "shipped"]
