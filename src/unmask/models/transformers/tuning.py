"""`fine_tuning`: the training of a masked model of transformers by the diffusion objective, as a `Run`.

Such models are taught at 15 % masked and know little of sequences that are masked to 90 %. Here as many symbols are masked
as chance has it, from one to all, with the weights of the order-agnostic bound (ARDM, arXiv 2110.02037).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from unmask.base import checkpoints
from unmask.masking.corruption import exact_count
from unmask.models.frames import Frame
from unmask.models.model import Model
from unmask.recipes import Machine, Optimiser, Run, sequences

OPTIMISER = Optimiser(steps=2_000, learning_rate=3e-4, warmup=100, decay=0.5, ema=0.995)
"""What a `fine_tuning` begins with; large models want a lower learning rate."""


@dataclass(frozen=True)
class Start:
    """The model that training begins with: its name, a hash of its weights, and its sizes. All come from its folder."""

    name: str
    weights: str
    length: int
    vocab_size: int


@dataclass(frozen=True)
class Texts:
    """Where the training data come from; ``fingerprint`` is filled in, so that a run goes on with the same data only.

    ``held_out``: a share of them that is not trained on, 0 to below 1, or a file of others.
    """

    file: str = ""
    held_out: float | str = 0.05
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.held_out, str) and not 0 <= self.held_out < 1:
            raise ValueError(
                f"held_out {self.held_out}: expected a share of at least 0 and below 1, or a file"
            )


def fine_tuning(model: Model, tokens: Tensor, *, data: Texts | None = None) -> Run:
    """A run that teaches a model of transformers the law of tokens int64 [n, L], as `Model.encode` gives them.

    Special tokens and pads are visible and cost nothing. The folder of the finished model has the layout that it came in.
    The network has the dropout that its configuration tells. ``model`` itself stays as it is. ValueError where it is no
    model of transformers, or no row has a symbol.
    """
    frame = check_tunable(model)
    rows = _rows(model, tokens)

    def data_symbols(_: Run, batch: Tensor) -> Tensor:
        return ~frame.visible(batch, model.denoiser.mask_id)

    start = Start(model.name, model.hash[:16], model.length, model.denoiser.vocab_size)
    return Run(
        name="fine_tuning",
        network=start,
        data=replace(data or Texts(), fingerprint=_fingerprint(rows)),
        build=lambda _: copy.deepcopy(model.denoiser.network).train(),
        batch=sequences.batches_by_length(exact_count, _drawn(frame.pad, rows), data_symbols),
        objective=sequences.loss,
        encode=lambda _, texts: model.encode(texts),
        decode=lambda _, found: model.decode(found),
        write=_writer(model),
        batch_size=16,
        optimiser=OPTIMISER,
        machine=Machine(bfloat16=None),
    )


def check_tunable(model: Model) -> Frame:
    """The frame of a model of transformers; ValueError for any other model."""
    if model.frame is None or model.write is None:
        raise ValueError(
            f"model '{model.name}' is not one of transformers; expected a folder with config.json and model.safetensors, "
            "or a recipe's name before --start"
        )
    return model.frame


def _rows(model: Model, tokens: Tensor) -> list[Tensor]:
    """Each row without its pads, those without a symbol left out; ValueError where masks stand, or none is left."""
    if bool((tokens == model.denoiser.mask_id).any()):
        raise ValueError("the training data hold masks; expected whole sequences")
    frame = check_tunable(model)
    known = ~frame.visible(tokens, model.denoiser.mask_id)
    rows = [row[row != frame.pad] for row in tokens[known.any(1)]]
    if not rows:
        raise ValueError(f"{len(tokens)} sequences without a symbol; expected some to train on")
    return rows


def _fingerprint(rows: list[Tensor]) -> str:
    """Which sequences these are, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(len(row).to_bytes(8) + row.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _drawn(pad: int, rows: list[Tensor]) -> Callable[[Run, int], Tensor]:
    """Random rows of like lengths, pads behind the shorter ones, int64 [B, L]: a function of (seed, step)."""
    lengths = np.array([len(row) for row in rows])
    return lambda run, step: pad_sequence(
        [rows[i] for i in sequences.alike(run, step, lengths)], batch_first=True, padding_value=pad
    )


def _writer(model: Model) -> Callable[[Run, Path, dict[str, Tensor], int], None]:
    """Writes weights in the layout of the model's own folder, with its tokenizer."""

    def write(_: Run, place: Path, weights: dict[str, Tensor], __: int) -> None:
        network: nn.Module = copy.deepcopy(model.denoiser.network)
        checkpoints.fill(network.state_dict(), weights, place)
        own: Any = model.write
        own(place, network)

    return write
