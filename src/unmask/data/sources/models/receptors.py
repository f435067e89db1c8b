"""SCEPTR, masked models of the loops of T-cell receptors (Nagano et al., Cell Systems 2025), for `unmask.networks.sceptr`.

A layer's input is one-hot residue, place in its loop from 0 to 1, and one-hot loop: no architecture of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from unmask.data.sources import packages
from unmask.data.sources.models import layouts, pickles
from unmask.data.sources.models.folders import RESIDUES, Content, Symbols, read_config
from unmask.data.sources.packages import Package

SCEPTR = Package(
    tool="pip",
    name="sceptr",
    version="1.2.0",
    file="sceptr-1.2.0-py3-none-any.whl",
    sha256="aba652a9fb53861d5170cc1ad99a284852da8899328f4b4fd80e78f595d250d5",
)
SYMBOLS = Symbols(
    ("[PAD]", "[MASK]", "[CLS]", *RESIDUES, "|"), {"pad": "[PAD]", "mask": "[MASK]", "cls": "[CLS]"}
)
"""The published ids, and a bar between loops, which is ours: the network reads from it which loop a residue is in."""

LOOPS = {
    "CdrTokeniser": ("CDR1A", "CDR2A", "CDR3A", "CDR1B", "CDR2B", "CDR3B"),
    "AlphaCdrTokeniser": ("CDR1A", "CDR2A", "CDR3A"),
    "BetaCdrTokeniser": ("CDR1B", "CDR2B", "CDR3B"),
    "Cdr3Tokeniser": ("CDR3A", "CDR3B"),
}
"""The loops in their order by what reads them."""

EMBEDDERS = ("CdrSimpleEmbedder", "SingleChainCdrSimpleEmbedder", "Cdr3SimpleEmbedder")
STACK, TABLES = "_self_attention_stack", "_token_embedder"
RENAMED = {
    "self_attn.in_proj_": "qkv.",
    "self_attn.out_proj.": "out.",
    "linear1.": "up.",
    "linear2.": "down.",
    "norm1.": "norm1.",
    "norm2.": "norm2.",
}
HIDDEN = 4
"""How many times wider than the rest the hidden layer is where a configuration does not say."""

EXAMPLE = {
    "CDR1A": "SVFSS",
    "CDR2A": "VVTGGEV",
    "CDR3A": "CAGAGSQGNLIF",
    "CDR1B": "LNHDA",
    "CDR2B": "SQIVND",
    "CDR3B": "CASSIRSSYEQYF",
}
"""The receptor JM22 (TRAV27, TRBV19), whose structure is published (PDB 1OGA)."""


def sceptr(variant: str) -> Content:
    """One of the package's saved models."""
    wheel, at = packages.bring(SCEPTR), f"sceptr/_model_saves/{variant}"
    config = configuration(read_config(packages.read(wheel, f"{at}/config.json"), f"{variant}'s config.json"))
    tensors = converted(packages.read(wheel, f"{at}/state_dict.pt"), config, f"{variant}'s state_dict.pt")
    probe = ["|".join(EXAMPLE[loop] for loop in config["loops"])]
    about = (
        f"{variant} (Cell Systems 16, 101165, 2025): from the package {SCEPTR.name} {SCEPTR.version}, file {SCEPTR.file}, "
        f"SHA-256 {SCEPTR.sha256}; MIT licence, as the package says.\nWeights renamed, not changed. Read it with "
        f"unmask.networks.sceptr.load. A receptor is its loops, {' | '.join(config['loops'])}, a missing one empty.\n"
    )
    return Content(config, tensors, SYMBOLS, probe, about)


def configuration(published: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of `unmask.networks.sceptr`; ValueError for a variant that embeds otherwise."""
    model, reader = published["model"], published["data"]["tokeniser"]["class"]
    embedder, stack = model["token_embedder"]["class"], model["self_attention_stack"]
    if embedder not in EMBEDDERS or reader not in LOOPS:
        raise ValueError(f"{model['name']} embeds by {embedder}; expected one of {', '.join(EMBEDDERS)}")
    sizes = stack["initargs"]
    return {
        "architectures": ["SceptrForMaskedLM"],
        "model_type": "sceptr",
        "loops": list(LOOPS[reader]),
        "vocab_size": len(SYMBOLS.names),
        "hidden_size": sizes["d_model"],
        "num_hidden_layers": sizes["num_layers"],
        "num_attention_heads": sizes["nhead"],
        "intermediate_size": sizes.get("dim_feedforward") or HIDDEN * sizes["d_model"],
        "pad_token_id": SYMBOLS.id_of("pad"),
        "mask_token_id": SYMBOLS.id_of("mask"),
    }


def converted(data: bytes, config: Mapping[str, Any], what: str) -> dict[str, Tensor]:
    """The weights as `unmask.networks.sceptr` names them; the tables must be the one-hot ones that it builds itself."""
    found = pickles.tensors(pickles.read(data, what), what)
    for name, size in (("token", len(RESIDUES) + 3), ("compartment", len(config["loops"]) + 1)):
        table = found.pop(f"{TABLES}._{name}_embedding._token_embeddings", torch.empty(0))
        wanted = torch.cat([torch.zeros(1, size - 1), torch.eye(size - 1)])
        if table.shape != wanted.shape or not torch.equal(table, wanted):
            raise ValueError(f"{what}: the table of {name}s is not one-hot; expected another variant")
    names = published_names(config["num_hidden_layers"])
    shapes = {names[k]: v for k, v in tensor_shapes(config).items()}
    fitted = layouts.fitted(found, shapes, what)
    return {name: fitted[published] for name, published in names.items()}


def published_names(layers: int) -> dict[str, str]:
    """What the package calls each tensor."""
    inner = f"{STACK}._standard_stack.{STACK}.layers"
    ends = ("weight", "bias")
    found = {
        f"layers.{n}.{own}{end}": f"{inner}.{n}.{theirs}{end}"
        for n in range(layers)
        for theirs, own in RENAMED.items()
        for end in ends
    }
    head = {f"head.{end}": f"_mlm_token_prediction_projector.projector.{end}" for end in ends}
    return {"project.weight": f"{STACK}._initial_projector.weight", **found, **head}


def tensor_shapes(config: Mapping[str, Any]) -> layouts.Shapes:
    """Shapes of all tensors."""
    wide, hidden = config["hidden_size"], config["intermediate_size"]
    inputs = len(RESIDUES) + 2 + 1 + len(config["loops"])
    inside = {"qkv": (3 * wide, wide), "out": (wide, wide), "up": (hidden, wide), "down": (wide, hidden)}
    found: layouts.Shapes = {"project.weight": (wide, inputs), "head.weight": (len(RESIDUES), wide)}
    found["head.bias"] = (len(RESIDUES),)
    for n in range(config["num_hidden_layers"]):
        for name, shape in inside.items():
            found |= {f"layers.{n}.{name}.weight": shape, f"layers.{n}.{name}.bias": shape[:1]}
        for name in ("norm1", "norm2"):
            found |= {f"layers.{n}.{name}.{end}": (wide,) for end in ("weight", "bias")}
    return found
