"""Folders of published masked diffusion models of text: MDLM, SEDD, LLaDA, LLaDA2, Dream. No code of theirs is run."""

from unmask.models.published.families import FAMILIES, Family, is_published
from unmask.models.published.reading import from_folder, model, selector

__all__ = ["FAMILIES", "Family", "from_folder", "is_published", "model", "selector"]
