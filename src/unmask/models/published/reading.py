"""How does a folder of a published diffusion language model become a denoiser, or a model with its text?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unmask.base import checkpoints
from unmask.base.checkpoints import one_line
from unmask.base.devices import check_device
from unmask.base.types import Selector
from unmask.data.vocabularies import Tokenizer
from unmask.denoisers import NetworkDenoiser, from_logits
from unmask.models.model import Model
from unmask.models.published import shards
from unmask.models.published.families import Family, family_of
from unmask.models.sizes import Limited
from unmask.orders import presets
from unmask.orders.selectors import in_blocks

N = TypeVar("N", bound=nn.Module)
R = TypeVar("R")


def from_folder(
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | None = None,
    pad_id: int | None = None,
) -> tuple[NetworkDenoiser, dict[str, Any]]:
    """The denoiser of a folder with config.json and model.safetensors (or shards and their index), and what it needs.

    ``dtype`` None is the one that most weights are stored in. ``pad_id`` names a symbol that fills sequences up: nobody
    sees it and it is never drawn (None: there is no such symbol). The second value says ``mask_id``, ``end_of_text`` and
    ``end_of_turn`` (symbols or None; a law that forbids the first is LLaDA's logits_eos_inf), ``block_length`` (None: no
    blocks), ``prompt`` (the form of a question), ``order`` and ``network``, its length and vocabulary. ValueError in one
    line for what is not read.
    """
    folder, device = Path(folder), device or "cpu"
    check_device(device)
    shards.checked_dtype(dtype)
    config = checkpoints.read_json(folder / "config.json")
    family = told(folder, lambda: family_of(config))
    found = shards.stored(folder)
    words = _words(folder)
    shape = told(folder, lambda: family.read(_completed(config, family, found, words), pad_id))
    if pad_id is not None and not (0 <= pad_id < shape.vocab_size and pad_id != _mask_of(shape)):
        raise ValueError(
            f"pad_id {pad_id}; expected a symbol in 0..{shape.vocab_size - 1} that is not the mask"
        )
    network = built(lambda: family.build(shape), found, folder)
    ignored = (
        (*family.ignored, "lm_head.weight", "transformer.ff_out.weight") if _tied(shape) else family.ignored
    )
    shards.check(network, found, ignored, folder)
    shards.fill(network, found, shards.common_dtype(found) if dtype is None else dtype, device)
    denoiser = from_logits(network.eval(), mask_id=_mask_of(shape), vocab_size=shape.vocab_size - family.data)
    return denoiser, {
        "name": family.name,
        "network": {"length": shape.length, "vocab_size": denoiser.vocab_size},
        "order": family.order,
        "mask_id": denoiser.mask_id,
        "pad_id": pad_id,
        "end_of_text": _end(config, family, words),
        "end_of_turn": words.get(str(family.turn)),
        "block_length": getattr(shape, "block_length", None),
        "prompt": family.prompt,
        "source": str(folder),
    }


def model(
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | None = None,
    pad_id: int | None = None,
) -> Model:
    """The same as a `Model`: its text goes through the folder's tokenizer.json, if there is one (extra `hf`)."""
    denoiser, config = from_folder(folder, dtype=dtype, device=device, pad_id=pad_id)
    file = Path(folder) / "tokenizer.json"
    text = Text(
        Tokenizer(file.read_text("utf-8")) if file.exists() else None,
        config["mask_id"],
        pad_id,
        config["prompt"],
        str(folder),
    )
    return Model(config["name"], denoiser, text.encode, text.decode, config, text.tokenizer)


def selector(config: Mapping[str, Any], plan: int = 1) -> Selector:
    """The order of a published model by its config, ``plan`` positions a call; inside its blocks where it has some."""
    chosen = {"random": presets.random, "confidence": presets.confidence, "entropy": presets.entropy}
    own: Selector = chosen[config["order"]](plan)
    return own if config["block_length"] is None else in_blocks(own, config["block_length"])


@dataclass(frozen=True)
class Text:
    """Texts as tokens: prompts are visible, what is to be written is masked."""

    tokenizer: Tokenizer | None
    mask_id: int
    pad_id: int | None
    prompt: str | None
    folder: str

    def encode(self, texts: str | Sequence[str], *, masked: int = 0, asked: bool = False) -> Tensor:
        """Tokens int64 [n, L] of texts, then ``masked`` hidden positions; ``asked`` puts each into the form of a question.

        Shorter ones begin with pads. ValueError for texts of several lengths where there is no pad.
        """
        words = [texts] if isinstance(texts, str) else list(texts)
        if asked and self.prompt is None:
            raise ValueError("this model has no form of a question; expected asked=False")
        rows = [self._tokenizer.encode(self.prompt.format(w) if asked and self.prompt else w) for w in words]
        length = max(map(len, rows), default=0)
        if self.pad_id is None and any(len(row) != length for row in rows):
            raise ValueError(
                "texts of several lengths; load the model with a pad_id, or encode one at a time"
            )
        pad = self.mask_id if self.pad_id is None else self.pad_id
        tokens = torch.full((len(rows), length + masked), pad)
        tokens[:, length:] = self.mask_id
        for row, ids in zip(tokens, rows):
            row[length - len(ids) : length] = torch.from_numpy(ids)
        return tokens

    def decode(self, tokens: Tensor) -> list[str]:
        """The texts of tokens int64 [n, L]; masks and pads are left out."""
        gone = {self.mask_id, self.pad_id}
        return [self._tokenizer.decode([i for i in row if i not in gone]) for row in tokens.tolist()]

    @property
    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ValueError(f"{self.folder} has no tokenizer.json; put it there, or work on token ids")
        return self.tokenizer


def told(folder: Path, read: Callable[[], R]) -> R:
    """What ``read`` gives; its ValueError names the config.json."""
    try:
        return read()
    except ValueError as error:
        raise ValueError(f"{folder / 'config.json'}: {one_line(error)}") from None


def _words(folder: Path) -> dict[str, int]:
    """Special symbols by their text, from a tokenizer.json; empty where there is none."""
    file = folder / "tokenizer.json"
    if not file.exists():
        return {}
    try:
        entries = json.loads(file.read_text("utf-8")).get("added_tokens") or ()
        return {str(entry["content"]): int(entry["id"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is no tokenizer.json ({one_line(error)})") from None


def _completed(
    config: Mapping[str, Any], family: Family, found: Mapping[str, shards.Stored], words: Mapping[str, int]
) -> dict[str, Any]:
    """The config with what it leaves open: the mask by its text or by the published code, biases by the files."""
    full = dict(config)
    if full.get("mask_token_id") is None and family.mask and family.mask in words:
        full["mask_token_id"] = words[family.mask]
    if full.get("mask_token_id") is None and family.mask_id and full.get("vocab_size") == family.mask_id[0]:
        full["mask_token_id"] = family.mask_id[1]
    full.setdefault("use_bias", any(name.endswith("attention.dense.bias") for name in found))
    return full


def _end(config: Mapping[str, Any], family: Family, words: Mapping[str, int]) -> int | None:
    """The symbol that ends a text: by its text, else by the config."""
    named = config.get("eos_token_id", config.get("pad_token_id"))
    return words.get(str(family.end), named if isinstance(named, int) else None)


def _mask_of(shape: Any) -> int:
    """The mask: named, or the last symbol."""
    return int(getattr(shape, "mask_id", shape.vocab_size - 1))


def _tied(shape: Any) -> bool:
    return bool(getattr(shape, "tied", False))


def built(build: Callable[[], N], found: Mapping[str, shards.Stored], folder: Path) -> N:
    """The network on the meta device; ValueError for sizes that have nothing to do with the weights."""
    try:
        with Limited(shards.shapes(found)), torch.device("meta"):
            return build()
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(
            f"{folder / 'config.json'}: no network of these sizes ({one_line(error)}); expected those of the weights"
        ) from None
