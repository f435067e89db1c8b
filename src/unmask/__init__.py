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

from unmask import _moved
from unmask.version import __version__

if TYPE_CHECKING:
    from unmask import (
        codec,
        data,
        denoisers,
        engine,
        evaluation,
        kernels,
        laws,
        masking,
        models,
        networks,
        orders,
        pictures,
        planning,
        plans,
        profiles,
        recipes,
        scores,
        selectors,
        training,
        variants,
    )
    from unmask.base.profile import Profile
    from unmask.base.types import (
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
    from unmask.codec import compress, decompress
    from unmask.denoisers import biased, forbidding, from_logits, guided, nucleus, tempered
    from unmask.engine.likelihood import log_likelihood, nelbo
    from unmask.engine.replaying import replay
    from unmask.engine.sampling import sample
    from unmask.engine.searching import backtrack, best_of, judged, search
    from unmask.evaluation.tuned import tune
    from unmask.models import Model, from_transformers, load
    from unmask.orders.samplers import Sampler
    from unmask.orders.sources import draw, given, greedy

_HOMES = {
    "base.profile": ("Profile",),
    "base.types": (
        *("Choice", "Denoiser", "Estimate", "Info", "Request", "Result"),
        *("Score", "Selector", "State", "TokenSource", "View"),
    ),
    "codec": ("compress", "decompress"),
    "denoisers": ("biased", "forbidding", "from_logits", "guided", "nucleus", "tempered"),
    "engine.likelihood": ("log_likelihood", "nelbo"),
    "engine.replaying": ("replay",),
    "engine.sampling": ("sample",),
    "engine.searching": ("backtrack", "best_of", "judged", "search"),
    "evaluation.tuned": ("tune",),
    "models": ("Model", "from_transformers", "load"),
    "orders.samplers": ("Sampler",),
    "orders.sources": ("draw", "given", "greedy"),
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
    "Sampler",
    "Score",
    "Selector",
    "State",
    "TokenSource",
    "View",
    "__version__",
    "backtrack",
    "best_of",
    "biased",
    "codec",
    "compress",
    "data",
    "decompress",
    "denoisers",
    "draw",
    "engine",
    "evaluation",
    "forbidding",
    "from_logits",
    "from_transformers",
    "given",
    "greedy",
    "guided",
    "judged",
    "kernels",
    "laws",
    "load",
    "log_likelihood",
    "masking",
    "models",
    "nelbo",
    "networks",
    "nucleus",
    "orders",
    "pictures",
    "planning",
    "plans",
    "profiles",
    "recipes",
    "replay",
    "sample",
    "scores",
    "search",
    "selectors",
    "tempered",
    "training",
    "tune",
    "variants",
]

_moved.watch()


def __getattr__(name: str) -> Any:
    """A public name or module, imported at first use."""
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is not None:
        return getattr(import_module(f"unmask.{home}"), name)
    if name in __all__:
        return import_module(f"unmask.{name}")
    if name in _moved.NEW_NAMES:
        return _moved.moved(name)
    raise AttributeError(f"module 'unmask' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
