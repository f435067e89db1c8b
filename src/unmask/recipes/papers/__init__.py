"""The configurations of papers: MD4 (arXiv 2406.04329) and ARDM (arXiv 2110.02037), with the values of paper and code.

Where the two disagree the recipe takes one and its docstring names both. Common to all and other than in the code: only
the matrices of linear layers decay, the average of the weights warms up, and times are stratified over the whole batch.
`FACTS` says what was published of each and which data it expects; ``unmask train RECIPE --dry-run`` says what it costs.
"""

from collections.abc import Callable

from unmask.recipes.papers.facts import FACTS, Facts, Published
from unmask.recipes.papers.images import ardm_cifar10, ardm_cifar10_upscale4, cifar10, imagenet64
from unmask.recipes.papers.sound import ardm_sc09
from unmask.recipes.papers.text import ardm_text8, owt_medium, owt_small, text8
from unmask.recipes.run import Run

RECIPES: dict[str, Callable[[], Run]] = {
    recipe.__name__.replace("_", "-"): recipe
    for recipe in (
        *(text8, owt_small, owt_medium, cifar10, imagenet64),
        *(ardm_text8, ardm_cifar10, ardm_cifar10_upscale4, ardm_sc09),
    )
}
"""The recipes by name."""

__all__ = [
    "FACTS",
    "RECIPES",
    "Facts",
    "Published",
    "ardm_cifar10",
    "ardm_cifar10_upscale4",
    "ardm_sc09",
    "ardm_text8",
    "cifar10",
    "imagenet64",
    "owt_medium",
    "owt_small",
    "text8",
]
