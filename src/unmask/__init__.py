"""Masked diffusion over discrete data: one loop for sampling, likelihood and compression, in any order.

>>> import unmask
>>> law = unmask.laws.Permutation(5)
>>> masked = torch.full((2, 5), law.mask_id)
>>> selector = unmask.selectors.top_k(unmask.scores.confidence, 1)
>>> result = unmask.sample(law, masked, selector, generator=torch.Generator().manual_seed(0))
"""

__version__ = "0.1.0"

from unmask import (
    corruption,
    denoisers,
    laws,
    networks,
    objectives,
    plans,
    profiles,
    schedules,
    scores,
    selectors,
    sources,
)
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
    "corruption",
    "denoisers",
    "draw",
    "from_logits",
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
    "profiles",
    "sample",
    "schedules",
    "scores",
    "selectors",
    "sources",
    "tempered",
]
