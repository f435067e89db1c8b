"""Published masked diffusion models: folders of text models, files of MaskGIT and its images. No code of theirs is run."""

from unmask.models.published.families import FAMILIES, Family, is_published
from unmask.models.published.images import maskgit, pixels
from unmask.models.published.reading import from_folder, model, selector

__all__ = ["FAMILIES", "Family", "from_folder", "is_published", "maskgit", "model", "pixels", "selector"]
