"""Which models come with the package, and what was measured on them?"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from unmask.base.profile import Profile
from unmask.models.model import Model


def measured_profile(model: Model) -> Profile | None:
    """The information profile that ships with a model, if one does and it was measured on these weights."""
    path = pretrained_folder() / model.name / "profile.json"
    found = Profile.load(path) if path.exists() else None
    return found if found is not None and found.provenance.get("model_hash") == model.hash else None


def shipped() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.parent.name for p in pretrained_folder().glob("*/config.json"))


def pretrained_folder() -> Path:
    """The folder of the models that come with the package."""
    return Path(str(resources.files("unmask"))) / "pretrained"
