"""Masked diffusion over discrete data: one loop for sampling, likelihood and compression, in any order.

>>> import unmask
>>> law = unmask.laws.Permutation(5)
>>> masked = torch.full((2, 5), law.mask_id)
>>> selector = unmask.selectors.top_k(unmask.scores.confidence, 1)
>>> result = unmask.sample(law, masked, selector, generator=torch.Generator().manual_seed(0))

Names are imported at first use, so that the command line answers ``--help`` without loading torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unmask.version import __version__

if TYPE_CHECKING:
    from unmask import (
        caching,
        codec,
        commit,
        corruption,
        denoisers,
        engine,
        genmd4,
        laws,
        networks,
        objectives,
        plans,
        presets,
        profiles,
        remask,
        rules,
        schedules,
        scores,
        selectors,
        sources,
        upscale,
    )
    from unmask.codec import compress, decompress
    from unmask.denoisers import from_logits, guided, nucleus, tempered
    from unmask.likelihood import log_likelihood, nelbo
    from unmask.models import Model, load
    from unmask.profiles import Profile
    from unmask.sampling import sample
    from unmask.sources import draw, given, greedy
    from unmask.types import (
        Choice,
        Denoiser,
        Estimate,
        Info,
        Request,
        Result,
        Score,
        Selector,
        State,
        TokenSource,
        View,
    )

_HOMES = {
    "codec": ("compress", "decompress"),
    "denoisers": ("from_logits", "guided", "nucleus", "tempered"),
    "likelihood": ("log_likelihood", "nelbo"),
    "models": ("Model", "load"),
    "profiles": ("Profile",),
    "sampling": ("sample",),
    "sources": ("draw", "given", "greedy"),
    "types": (
        *("Choice", "Denoiser", "Estimate", "Info", "Request", "Result"),
        *("Score", "Selector", "State", "TokenSource", "View"),
    ),
}
"""Where each public name lives."""

__all__ = [
    "Choice",
    "Denoiser",
    "Estimate",
    "Info",
    "Model",
    "Profile",
    "Request",
    "Result",
    "Score",
    "Selector",
    "State",
    "TokenSource",
    "View",
    "__version__",
    "caching",
    "codec",
    "commit",
    "compress",
    "corruption",
    "decompress",
    "denoisers",
    "draw",
    "engine",
    "from_logits",
    "genmd4",
    "given",
    "greedy",
    "guided",
    "laws",
    "load",
    "log_likelihood",
    "nelbo",
    "networks",
    "nucleus",
    "objectives",
    "plans",
    "presets",
    "profiles",
    "remask",
    "rules",
    "sample",
    "schedules",
    "scores",
    "selectors",
    "sources",
    "tempered",
    "upscale",
]


def __getattr__(name: str) -> Any:
    """A public name or module, imported at first use."""
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is not None:
        return getattr(import_module(f"unmask.{home}"), name)
    if name in __all__:
        return import_module(f"unmask.{name}")
    raise AttributeError(f"module 'unmask' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
