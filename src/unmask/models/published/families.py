"""Which published family does a config.json belong to, and what does it not say? And which models are refused, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from unmask.networks import published


@dataclass(frozen=True)
class Family:
    """One architecture: how its config is read and its network built, and what its users must know.

    ``mask`` is the text of the mask in a tokenizer, ``end`` that of the end of a text, which the model draws to fill up
    what it does not need, ``turn`` that of an answer's end. ``prompt`` is the form of a question, ``order`` the one that
    its authors sample in (confidence: LLaDA's low-confidence rule is its biased form). ``ignored`` are endings of names
    that files may hold besides.
    """

    name: str
    read: Callable[[Mapping[str, Any], int | None], Any]
    build: Callable[[Any], nn.Module]
    order: str = "confidence"
    mask: str | None = None
    mask_id: tuple[int, int] | None = None
    """Size of the vocabulary and mask, where the config does not name it."""
    end: str | None = None
    turn: str | None = None
    prompt: str | None = None
    data: int = 0
    """How many of the last symbols are no data: 1 where the mask is the last one."""
    ignored: tuple[str, ...] = ("rotary_emb.inv_freq",)


FAMILIES = {
    "mdlm": Family(
        "MDLM", published.DiTConfig.read, published.MDLM, "random", end="<|endoftext|>", data=1, ignored=()
    ),
    "sedd": Family(
        "SEDD",
        published.DiTConfig.read_sedd,
        published.SEDD,
        "random",
        end="<|endoftext|>",
        data=1,
        ignored=(),
    ),
    "llada": Family(
        "LLaDA",
        published.LLaDAConfig.read,
        published.LLaDA,
        mask="<|mdm_mask|>",
        end="<|endoftext|>",
        turn="<|eot_id|>",
        prompt="<|startoftext|><|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "llada2_moe": Family(
        "LLaDA2",
        published.LLaDA2Config.read,
        published.LLaDA2,
        mask="<|mask|>",
        mask_id=(157184, 156895),
        end="<|endoftext|>",
        turn="<|role_end|>",
        prompt="<role>SYSTEM</role>detailed thinking off<|role_end|><role>HUMAN</role>{}<|role_end|>"
        "<role>ASSISTANT</role>",
    ),
    "dream": Family(
        "Dream",
        published.DreamConfig.read,
        published.Dream,
        order="entropy",
        mask="<|mask|>",
        end="<|endoftext|>",
        turn="<|im_end|>",
        prompt="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
}
"""By ``model_type``, in small letters."""

_UNIFORM = (
    "its noise replaces symbols by others at random and has no mask, so that what is visible may be wrong"
)
REFUSED = {
    "udlm": ("UDLM", _UNIFORM),
    "duo": ("Duo", _UNIFORM),
    "diffusion_gemma": ("DiffusionGemma", _UNIFORM),
    "diffusion_gemma_text": ("DiffusionGemma", _UNIFORM),
    "bd3lm": ("BD3-LM", "it reads clean blocks beside the noisy ones, which is not built here"),
}
"""Name and reason, by ``model_type`` in small letters."""


def is_published(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is one of a family here, or one that is refused by name: ask `from_folder`."""
    return kind_of(config) in (*FAMILIES, *REFUSED)


def kind_of(config: Mapping[str, Any]) -> str:
    """The ``model_type`` in small letters; SEDD has none, and is known by its records."""
    if "model_type" not in config and {"model", "graph", "noise"} <= set(config):
        return "sedd"
    return str(config.get("model_type")).lower()


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a config.json; ValueError for models that are refused, or unknown."""
    kind = kind_of(config)
    if kind in REFUSED:
        name, why = REFUSED[kind]
        raise ValueError(f"{name} is not read: {why}")
    if kind == "sedd" and isinstance(config["graph"], Mapping) and config["graph"].get("type") == "uniform":
        raise ValueError(f"SEDD-uniform is not read: {_UNIFORM}")
    if kind not in FAMILIES:
        raise ValueError(f"model_type {config.get('model_type')!r}; expected one of {', '.join(FAMILIES)}")
    return FAMILIES[kind]
