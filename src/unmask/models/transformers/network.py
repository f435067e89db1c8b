"""A masked language model of transformers under our contract: attention follows pads, special tokens are never drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unmask.denoisers import NetworkDenoiser, take_rows

DROPPED = 0.15 * 0.8
"""Share of tokens that were dropped as ESM was trained (`modeling_esm`)."""


class Network(nn.Module):
    """(tokens int64 [B, L]) -> logits [B, L, V], -inf at symbols that are ``never`` drawn, bool [V].

    Pads are not attended to. Of ESM with token dropout, embeddings of masks are 0 and the others scale with the share of
    masks, as published. Where nothing but masks stands in a row, published code divides 0 by 0; here all embeddings are 0.
    """

    never: Tensor

    def __init__(self, module: nn.Module, pad: int, mask_id: int, never: Tensor, longest: int) -> None:
        super().__init__()
        self.module, self.pad, self.mask_id, self.longest = module, pad, mask_id, longest
        self.register_buffer("never", never, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, L, V]; ValueError for rows that are longer than the network has positions."""
        if tokens.shape[1] > self.longest:
            raise ValueError(
                f"rows of {tokens.shape[1]} tokens; expected at most {self.longest}, the positions of the network"
            )
        kept = tokens != self.pad
        told = {"inputs_embeds": self._embedded(tokens, kept)} if self._drops else {"input_ids": tokens}
        logits: Tensor = self.module(**told, attention_mask=kept.long(), return_dict=True).logits
        return logits.masked_fill(self.never, -torch.inf)

    @property
    def _drops(self) -> bool:
        config: Any = self.module.config
        return config.model_type == "esm" and bool(config.token_dropout)

    def _embedded(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """What ESM's embeddings give under token dropout, without 0 / 0."""
        inside: Any = self.module
        hidden = tokens == self.mask_id
        share = hidden.sum(1).float() / kept.sum(1).clamp(min=1)
        seen = torch.where(share < 1, 1 - share, 1.0)[:, None, None]
        words = inside.get_input_embeddings()(tokens).masked_fill(hidden[..., None], 0.0)
        places = kept.int().cumsum(1).type_as(kept.int()) * kept + self.pad  # as published, from pad + 1
        found: Tensor = inside.esm.embeddings(
            inputs_embeds=(words * (1 - DROPPED) / seen).to(words.dtype),
            attention_mask=kept.long(),
            position_ids=places.long(),
        )
        return found


@dataclass(frozen=True)
class PaddedDenoiser(NetworkDenoiser):
    """A network whose rows may begin with pads: it sees these moved to the end, so that positions count from 0."""

    pad: int = -1

    def __call__(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        """Log-probabilities float [B, R, V] at rows."""
        length = tokens.shape[1]
        first = (tokens != self.pad).byte().argmax(1, keepdim=True) if length else tokens
        if not first.any():
            return super().__call__(tokens, rows, time=time)
        place = torch.arange(length, device=tokens.device)
        moved = tokens.gather(1, (place + first) % length)
        if rows is not None:
            return super().__call__(moved, (rows - first) % length, time=time)
        return take_rows(super().__call__(moved, time=time), (place - first) % length)
