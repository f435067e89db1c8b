"""Names and shapes of the tensors of two architectures, as transformers has them, and the check that all are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from unmask.base.checkpoints import one_line

Shapes = dict[str, tuple[int, ...]]

NORM = "LayerNorm"


def bert(config: Mapping[str, Any]) -> Shapes:
    """Shapes of ``BertForMaskedLM`` by name; the output matrix, and its bias' second name, are tied and not stored."""
    wide, symbols = config["hidden_size"], config["vocab_size"]
    head = "cls.predictions.transform"
    return {
        **_encoder("bert", config),
        "cls.predictions.bias": (symbols,),
        **_linear(f"{head}.dense", wide, wide),
        **_norm(f"{head}.{NORM}", wide),
    }


def roberta(config: Mapping[str, Any]) -> Shapes:
    """Shapes of ``RobertaForMaskedLM`` by name; the output matrix, and its bias' second name, are tied and not stored."""
    wide, symbols = config["hidden_size"], config["vocab_size"]
    return {
        **_encoder("roberta", config),
        "lm_head.bias": (symbols,),
        **_linear("lm_head.dense", wide, wide),
        **_norm("lm_head.layer_norm", wide),
    }


def _encoder(prefix: str, config: Mapping[str, Any]) -> Shapes:
    """Embeddings and layers of either architecture."""
    wide, hidden = config["hidden_size"], config["intermediate_size"]
    rows = {
        "word": config["vocab_size"],
        "position": config["max_position_embeddings"],
        "token_type": config["type_vocab_size"],
    }
    found: Shapes = {f"{prefix}.embeddings.{k}_embeddings.weight": (n, wide) for k, n in rows.items()}
    found |= _norm(f"{prefix}.embeddings.{NORM}", wide)
    for n in range(config["num_hidden_layers"]):
        layer = f"{prefix}.encoder.layer.{n}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            found |= _linear(f"{layer}.attention.{name}", wide, wide)
        found |= _linear(f"{layer}.intermediate.dense", hidden, wide)
        found |= _linear(f"{layer}.output.dense", wide, hidden)
        found |= _norm(f"{layer}.attention.output.{NORM}", wide) | _norm(f"{layer}.output.{NORM}", wide)
    return found


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def tied(tensors: Mapping[str, Tensor], pairs: Mapping[str, str], what: str) -> None:
    """ValueError unless each tensor equals the one that transformers ties it to, bit for bit."""
    for name, other in pairs.items():
        if name in tensors and other in tensors and not torch.equal(tensors[name], tensors[other]):
            raise ValueError(f"{what}: {name!r} is not {other!r}; expected a model that ties them")


def fitted(
    tensors: Mapping[str, Tensor], shapes: Shapes, what: str, *, ignored: Iterable[str] = ()
) -> dict[str, Tensor]:
    """Exactly the tensors that ``shapes`` names, in float32; ValueError names the first that is not as it should be.

    A tensor that is missing, misshapen, not floating or not finite is refused, and one that is neither wanted nor has a
    name in ``ignored`` (or below one that ends with a dot) too: nothing is left out in silence, nothing stays random.
    """
    ends = tuple(ignored)
    for name in tensors:
        known = name in shapes or any(name == e or (e.endswith(".") and name.startswith(e)) for e in ends)
        if not known:
            raise ValueError(f"{what}: unexpected tensor {name!r}; expected another architecture's weights?")
    return {name: _fitting(tensors, name, shape, what) for name, shape in shapes.items()}


def _fitting(tensors: Mapping[str, Tensor], name: str, shape: tuple[int, ...], what: str) -> Tensor:
    """One tensor, checked."""
    if name not in tensors:
        raise ValueError(f"{what} lacks {name!r}; expected all weights, none is left random")
    found = tensors[name]
    if tuple(found.shape) != shape:
        raise ValueError(f"{what}: {name!r} has shape {one_line(tuple(found.shape))}, expected {shape}")
    if not found.is_floating_point() or not torch.isfinite(found).all():
        raise ValueError(f"{what}: {name!r} ({found.dtype}) holds other than finite floating numbers")
    return found.float()
