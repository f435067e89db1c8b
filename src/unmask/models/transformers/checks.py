"""What a loaded model must show before it is believed: rows do not feel their pads, and symbols fit the weights."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import torch
from torch import Tensor

from unmask.base.checkpoints import one_line
from unmask.denoisers import take_symbols
from unmask.models.model import Model

APART = 1e-3
"""How far log-probabilities of a row alone and among longer ones may lie apart, nats; more in half precision."""

SHARE = 0.15
"""Masked share at which a probe is judged: what such models were taught at."""


MOST = 16
"""Sequences of a probe that are tried."""


class Unchecked(UserWarning):
    """Something about a model that could not be checked."""


def check_padding(model: Model) -> None:
    """ValueError unless a row alone has the law that it has among longer ones, with pads behind it or before it."""
    try:
        _check_padding(model)
    except (RuntimeError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise ValueError(
            f"model '{model.name}' does not run on a row of tokens alone ({one_line(error)}); expected a model of text"
        ) from None


def _check_padding(model: Model) -> None:
    frame, mask = model.frame, model.denoiser.mask_id
    if frame is None or model.length < 2:
        return
    device, kind = next((p.device, p.dtype) for p in model.denoiser.network.parameters())
    ids = torch.tensor(frame.drawn).repeat(8)[: min(8, model.length)].tolist()
    short = [mask if i == 1 else symbol for i, symbol in enumerate(ids[: max(len(ids) // 2, 1)])]
    alone = model.denoiser(frame.rows([short]).to(device))[0]
    for left in (False, True):
        rows = frame.rows([short, ids], left=left).to(device)
        found = model.denoiser(rows)[0]
        found = found[len(found) - len(alone) :] if left else found[: len(alone)]
        apart = float(torch.where(found == alone, 0.0, (found - alone).abs()).max())
        if not apart <= max(APART, 20 * torch.finfo(kind).eps):
            raise ValueError(
                f"model '{model.name}': a row alone and the same row with pads differ by {apart:.2g} nats; expected the "
                "same law: its attention or its positions do not follow the pads"
            )


def check_probe(model: Model, folder: Path) -> None:
    """ValueError where sequences of a folder's probe.txt or probe.json are no better known than by chance.

    The mean loss at 15 % masked must be below ln V, V symbols that may be drawn; a warning where there is no probe.
    """
    texts = [text.strip() for text in _probe(folder) if text.strip()]
    if not texts:
        warnings.warn(
            f"model '{model.name}' has no probe.txt: that its weights and its symbols belong together was not checked",
            Unchecked,
            stacklevel=3,
        )
        return
    tokens = model.encode([text[: model.length] for text in texts])
    loss, chance = masked_loss(model, tokens), math.log(len(model.symbols))
    if not loss < chance:
        raise ValueError(
            f"model '{model.name}': {loss:.2f} nats a symbol of its probe at 15 % masked; expected less than chance, "
            f"ln {len(model.symbols)} = {chance:.2f}: the weights are not of these symbols"
        )


def masked_loss(model: Model, tokens: Tensor, share: float = SHARE) -> float:
    """Mean -log p of masked symbols, nats, where each of tokens int64 [B, L] is masked with a chance of ``share``."""
    visible = model.visible(tokens)
    symbols = torch.ones_like(tokens, dtype=torch.bool) if visible is None else ~visible
    chance = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0)).masked_fill(~symbols, 2.0)
    hidden = (chance < share) | (chance == chance.amin(1, keepdim=True)) & symbols
    device = next(p.device for p in model.denoiser.network.parameters())
    law = model.denoiser(tokens.masked_fill(hidden, model.denoiser.mask_id).to(device)).cpu()
    return float(-take_symbols(law, tokens)[hidden].double().mean())


def _probe(folder: Path) -> list[str]:
    """The sequences of probe.txt, one a line, or of probe.json, a list of texts; ValueError for another form."""
    if (folder / "probe.txt").is_file():
        return (folder / "probe.txt").read_bytes().decode("utf-8", "replace").split("\n")[:MOST]
    if not (folder / "probe.json").is_file():
        return []
    try:
        found = json.loads((folder / "probe.json").read_bytes())
        found = found.get("sequences") if isinstance(found, dict) else found
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(text, str) and text for text in found):
        raise ValueError(f"{folder / 'probe.json'}: expected a list of sequences")
    return found[:MOST]
