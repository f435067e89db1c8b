"""How does a text become what an image is told? By CLIP's text encoder, as pipelines of diffusers call it (extra `hf`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unmask.base import checkpoints
from unmask.base.checkpoints import one_line
from unmask.models.transformers import reading
from unmask.models.transformers.adapter import check_installed

CLASS = "CLIPTextModelWithProjection"


def encoded(tokenizer: Path, encoder: Path, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """States [n, S, E] before the last layer and pooled projections [n, P] of texts, all of the encoder's whole length.

    Longer texts are cut off, as published. ValueError on one line where a folder is not what it should be.
    """
    check_installed()
    if not texts:
        raise ValueError("no texts; expected one at least")
    with reading.quiet():
        module = _encoder(encoder)
        ids = _ids(tokenizer, int(module.config.max_position_embeddings), texts)
        if int(ids.max()) >= module.config.vocab_size:
            raise ValueError(
                f"{tokenizer} gives symbol {int(ids.max())}; expected one of the {module.config.vocab_size} of {encoder}"
            )
        with torch.inference_mode():
            told = module(ids, output_hidden_states=True)
    return told.hidden_states[-2].clone(), told.text_embeds.clone()


def _encoder(folder: Path) -> Any:
    """CLIP's text encoder with its projection, in float32."""
    classes = checkpoints.read_json(folder / "config.json").get("architectures")
    if classes != [CLASS]:
        raise ValueError(
            f"{folder / 'config.json'}: architectures {one_line(repr(classes))}; expected [{CLASS!r}]"
        )
    return reading.loaded(folder, CLASS)


def _ids(folder: Path, most: int, texts: Sequence[str]) -> Tensor:
    """int64 [n, S] of texts, padded or cut to the length that the tokenizer names, at most the encoder's."""
    from transformers import CLIPTokenizer

    try:
        found: Any = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        length = min(int(found.model_max_length), most)
        rows = found(list(texts), padding="max_length", truncation=True, max_length=length)["input_ids"]
    except Exception as error:  # whatever its readers raise, the files are not what they should be
        raise ValueError(
            f"{folder}: no tokenizer can be made of its files ({one_line(error)}); expected those of CLIP"
        ) from None
    return torch.tensor(rows, dtype=torch.int64)
