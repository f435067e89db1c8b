"""How training data are hidden, and what the loss is."""

from unmask.masking import corruption, enumeration, head_loss, objectives, schedules

__all__ = ["corruption", "enumeration", "head_loss", "objectives", "schedules"]
