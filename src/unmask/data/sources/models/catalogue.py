"""The published models that can be fetched, and how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from unmask.data.sources.cache import cache

if TYPE_CHECKING:
    from unmask.data.sources.models.folders import Content


@dataclass(frozen=True)
class Published:
    """A model: what it is, its licence, and what makes it."""

    summary: str
    licence: str
    make: Callable[[], Content]


def fetch_model(name: str) -> Path:
    """The folder of a model in the cache, made if need be; ValueError for an unknown name or a failed download."""
    if name not in MODELS:
        raise ValueError(f"model '{name}': expected one of {', '.join(MODELS)}")
    folder = cache() / name
    if not is_there(name):
        from unmask.data.sources.models import folders

        folders.write(folder, MODELS[name].make())
    return folder


def is_there(name: str) -> bool:
    """Whether a model's folder is complete."""
    return (cache() / name / "model.safetensors").is_file()


def _antiberty() -> Content:
    from unmask.data.sources.models import antibodies

    return antibodies.antiberty()


def _sapiens(chain: str) -> Content:
    from unmask.data.sources.models import antibodies

    return antibodies.sapiens(chain)


def _sceptr(variant: str) -> Content:
    from unmask.data.sources.models import receptors

    return receptors.sceptr(variant)


def _receptors(variant: str, summary: str) -> Published:
    return Published(f"loops of T-cell receptors, {summary}", "MIT", partial(_sceptr, variant))


MODELS = {
    "antiberty": Published("antibody chains, 25.8 M parameters (Bert)", "MIT", _antiberty),
    "sapiens_vh": Published(
        "heavy chains of antibodies, 0.57 M parameters (Roberta)", "MIT", partial(_sapiens, "h")
    ),
    "sapiens_vl": Published(
        "light chains of antibodies, 0.57 M parameters (Roberta)", "MIT", partial(_sapiens, "l")
    ),
    "sceptr": _receptors("SCEPTR", "both chains, 0.15 M parameters, contrastive too"),
    "sceptr_mlm": _receptors("SCEPTR_MLM_only", "both chains, 0.15 M parameters"),
    "sceptr_large": _receptors("SCEPTR_large", "both chains, 0.8 M parameters, contrastive too"),
    "sceptr_small": _receptors("SCEPTR_small", "both chains, 0.04 M parameters, contrastive too"),
    "sceptr_tiny": _receptors("SCEPTR_tiny", "both chains, 0.01 M parameters, contrastive too"),
    "sceptr_alpha": _receptors("A_SCEPTR", "alpha chain, 0.15 M parameters, contrastive too"),
    "sceptr_beta": _receptors("B_SCEPTR", "beta chain, 0.15 M parameters, contrastive too"),
    "sceptr_cdr3": _receptors("SCEPTR_CDR3_only_MLM_only", "CDR3 of both chains, 0.15 M parameters"),
}
"""The models by name."""
