"""Which models come with the package, what was measured on them, and which samplers were tuned for them and others?"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from unmask.base.profile import Profile
from unmask.models.model import Model
from unmask.orders.samplers import Sampler


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


def tuned_calls(name: str) -> tuple[int, ...]:
    """Calls for which a sampler that `unmask tune` found for a model comes with the package."""
    files = (pretrained_folder() / name).glob(f"{TUNED}*.json")
    return tuple(sorted(int(path.stem.removeprefix(TUNED)) for path in files))


def tuned_sampler(model: Model, calls: int) -> Sampler:
    """The sampler of so many calls that comes with the package; ValueError where there is none for these weights."""
    known = tuned_calls(model.name)
    if calls not in known:
        there = f"calls {', '.join(map(str, known))}" if known else "none for it: `unmask tune` finds one"
        raise ValueError(
            f"no tuned sampler of {calls} calls comes with model '{model.name}'; there is {there}"
        )
    found = Sampler.load(pretrained_folder() / model.name / f"{TUNED}{calls}.json")
    if found.provenance.get("model_hash") != model.hash:
        raise ValueError(
            f"model '{model.name}' has other weights than those that its sampler was tuned for; expected the shipped "
            "or fetched ones, or a file of `unmask tune`"
        )
    return found


TUNED = "tuned_"
"""Before the calls, in the name of a sampler file of a model's folder."""
