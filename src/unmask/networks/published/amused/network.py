"""The network of aMUSEd: convolutions, a transformer, convolutions, and a head at the asked places."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unmask.networks.config import check_length
from unmask.networks.published.amused.blocks import AmusedLayer, Convolved, Embedded, Read
from unmask.networks.published.amused.config import AmusedConfig, Caption
from unmask.networks.published.pieces import RMSNorm, at, powers


class Amused(nn.Module):
    """``network(tokens, rows=None, caption=..) -> logits`` float [B, R, codes]; tokens int64 [B, side^2] row-major.

    `Captioned` gives all sequences one caption; `denoisers.guided` of two of these, the other one of the empty text, with
    scale s is diffusers' guidance_scale 1 + s.
    """

    timed = False

    def __init__(self, config: AmusedConfig) -> None:
        super().__init__()
        self.shape, width = config, config.width
        self.encoder_proj = nn.Linear(config.text, width, bias=False)
        self.encoder_proj_layer_norm = RMSNorm(width, config.eps)
        self.embed = Embedded(config)
        self.cond_embed = nn.ModuleDict(
            {
                "linear_1": nn.Linear(config.sizes * config.waves + config.pooled, width, bias=False),
                "linear_2": nn.Linear(width, width, bias=False),
            }
        )
        self.down_block = Convolved(config, config.down, False)
        self.project_to_hidden_norm = RMSNorm(config.channels, config.eps)
        self.project_to_hidden = nn.Linear(config.channels, width, bias=False)
        self.transformer_layers = nn.ModuleList([AmusedLayer(config) for _ in range(config.depth)])
        self.project_from_hidden_norm = RMSNorm(width, config.eps)
        self.project_from_hidden = nn.Linear(width, config.channels, bias=False)
        self.up_block = Convolved(config, False, config.up)
        self.mlm_layer = Read(config)

    def forward(
        self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None, caption: Caption
    ) -> Tensor:
        """Logits at rows int64 [B, R] (None: all positions); the time is not read, and the head runs at rows alone."""
        del time
        check_length(tokens, self.shape.length)
        text, told = self._told(caption.batch())
        x = self.down_block(self.embed(tokens.reshape(-1, self.shape.side, self.shape.side)), text, told)
        inner = self.project_to_hidden(self.project_to_hidden_norm(x.flatten(1, 2)))
        for layer in self.transformer_layers:
            inner = layer(inner, text, told)
        inner = self.project_from_hidden(self.project_from_hidden_norm(inner))
        x = self.up_block(inner.view(x.shape), text, told).flatten(1, 2)
        return self.mlm_layer(x if rows is None else at(x, rows))  # type: ignore[no-any-return]

    def _told(self, caption: Caption) -> tuple[Tensor, Tensor]:
        """The text [B or 1, S, D] and a vector [B or 1, D] of the rest."""
        kind = self.encoder_proj.weight.dtype
        text = self.encoder_proj_layer_norm(self.encoder_proj(caption.states.to(kind)))
        sizes = caption.sizes.float()
        angles = sizes[..., None] * powers(10_000.0, self.shape.waves, sizes)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).flatten(1)
        told = torch.cat([caption.pooled.to(kind), waves.to(kind)], dim=1)
        return text, self.cond_embed["linear_2"](F.silu(self.cond_embed["linear_1"](told)))


class Captioned(nn.Module):
    """An `Amused` with one caption for every sequence, so that it is a network like any other.

    ValueError for a caption that is not of the network's widths.
    """

    timed = False

    def __init__(self, network: Amused, caption: Caption) -> None:
        super().__init__()
        shape, found = network.shape, [caption.states, caption.pooled, caption.sizes]
        wanted = [shape.text, shape.pooled, shape.sizes]
        good = [x.ndim for x in found] == [2, 1, 1] and [x.shape[-1] for x in found] == wanted
        if not good or not all(x.isfinite().all() for x in found):
            raise ValueError(
                f"a caption of shapes {', '.join(str(list(x.shape)) for x in found)}; expected finite states "
                f"[n, {wanted[0]}], pooled [{wanted[1]}] and sizes [{wanted[2]}]"
            )
        self.network = network
        for name, value in zip(("states", "pooled", "sizes"), found):
            self.register_buffer(name, value.to(network.encoder_proj.weight.device), persistent=False)

    def forward(self, tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        """Logits float [B, R, codes] at rows."""
        caption = Caption(*(self.get_buffer(name) for name in ("states", "pooled", "sizes")))
        return self.network(tokens, rows, caption=caption)  # type: ignore[no-any-return]
