"""Published masked diffusion models: folders of text models and of aMUSEd, files of MaskGIT. No code of theirs is run."""

from unmask.models.published.amused import Drawer, amused
from unmask.models.published.families import FAMILIES, Family, is_published
from unmask.models.published.images import maskgit, pixels
from unmask.models.published.reading import from_folder, model, selector

__all__ = [
    "FAMILIES",
    "Drawer",
    "Family",
    "amused",
    "from_folder",
    "is_published",
    "maskgit",
    "model",
    "pixels",
    "selector",
]
