"""SCEPTR's models of T-cell receptors as a `Model`: six loops, with bars between them that are visible and never scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from unmask.base import checkpoints
from unmask.data.vocabularies import Listed, to_record
from unmask.denoisers import from_logits
from unmask.models.frames import Frame
from unmask.models.model import Model
from unmask.networks import sceptr

FRAME = Frame(
    (sceptr.CLS,),
    (),
    sceptr.PAD,
    tuple(range(sceptr.FIRST, sceptr.BAR)),
    tuple(sceptr.RESIDUES),
    (sceptr.BAR,),
)
VOCABULARY = Listed(("[PAD]", "[MASK]", "[CLS]", *sceptr.RESIDUES, "|"))

LONGEST = 256
"""Residues and bars of a receptor; the network itself has no limit."""


def model(folder: Path, *, device: str = "cpu") -> Model:
    """The model of a folder that `unmask data fetch sceptr` made."""
    network = sceptr.load(folder).to(device)
    denoiser = from_logits(network, sceptr.MASK, sceptr.VOCAB)
    config = checkpoints.read_json(folder / "config.json")
    own: dict[str, Any] = {"length": LONGEST, "vocab_size": sceptr.VOCAB} | config
    name = folder.resolve().name
    record = {"name": name, "order": "left-to-right", "network": own, "vocabulary": to_record(VOCABULARY)}
    return Model(name, denoiser, _encoded, sceptr.decode, record, VOCABULARY, FRAME)


def _encoded(texts: str | list[str]) -> Tensor:
    return sceptr.encode([texts] if isinstance(texts, str) else texts)
