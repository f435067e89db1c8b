"""SCEPTR: a masked model of the loops of T-cell receptors (Nagano et al., Cell Systems 2025).

Tokens are ``[CLS]``, then the loops in the configuration's order with a bar between them, a missing loop empty. Where the
bars stand says which loop a residue is in, how long the loop is, and so the residue's place from 0 to 1; bars and padding
are seen by none. Symbols that are no residues have logits of -inf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.base import checkpoints

PAD, MASK, CLS = 0, 1, 2
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
FIRST, BAR = 3, 3 + len(RESIDUES)
VOCAB = BAR + 1


@dataclass(frozen=True)
class SceptrConfig:
    """Loops by name, width, layers, heads, and the width of the hidden layer."""

    loops: tuple[str, ...]
    width: int = 64
    depth: int = 3
    heads: int = 8
    hidden: int = 256


class Layer(nn.Module):
    """Attention and a hidden layer, each followed by a norm."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """x float [B, L, width]; seen bool [B, 1, 1, L], which positions are attended to."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        x = self.norm1(x + self.out(mixed.transpose(1, 2).flatten(2)))
        return self.norm2(x + self.down(F.relu(self.up(x))))  # type: ignore[no-any-return]


class Sceptr(nn.Module):
    """The network: tokens int64 [B, L] to logits float [B, L, 24], -inf for what is no residue."""

    def __init__(self, config: SceptrConfig) -> None:
        super().__init__()
        self.config = config
        inputs = len(RESIDUES) + 2 + 1 + len(config.loops)
        self.project = nn.Linear(inputs, config.width, bias=False)
        self.layers = nn.ModuleList(
            Layer(config.width, config.heads, config.hidden) for _ in range(config.depth)
        )
        self.head = nn.Linear(config.width, len(RESIDUES))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits; ValueError unless every row has a bar between each two loops."""
        bars = (tokens == BAR).sum(1)
        if (bars != len(self.config.loops) - 1).any():
            raise ValueError(
                f"a receptor with {int(bars.max())} bars; expected {len(self.config.loops) - 1} between "
                f"{', '.join(self.config.loops)}"
            )
        seen = (tokens != PAD) & (tokens != BAR)
        x = self.project(self._inputs(tokens))
        for layer in self.layers:
            x = layer(x, seen[:, None, None])
        logits = self.head(x)
        return F.pad(logits, (FIRST, VOCAB - BAR), value=-torch.inf)

    def _inputs(self, tokens: Tensor) -> Tensor:
        """One-hot symbol, place in the loop, one-hot loop: float [B, L, 23 + loops]."""
        held = (tokens == MASK) | ((tokens >= FIRST) & (tokens < BAR))
        loops = F.one_hot((tokens == BAR).cumsum(1), len(self.config.loops)) * held[..., None]
        length = (loops * loops.sum(1, keepdim=True)).sum(-1)
        place = (loops * (loops.cumsum(1) - 1)).sum(-1)
        share = torch.where(length == 1, 0.5, place / (length - 1).clamp(min=1))
        symbols = F.one_hot(tokens, VOCAB)[..., 1:BAR]
        parts = (symbols, torch.where(held, share, 0.0)[..., None], loops)
        return torch.cat([part.to(self.project.weight.dtype) for part in parts], dim=-1)


def encode(texts: Sequence[str]) -> Tensor:
    """Receptors such as ``SVFSS|VVTGGEV|CAGAGSQGNLIF|LNHDA|SQIVND|CASSIRSSYEQYF`` as int64 [n, L], padded at the end.

    ``_`` is the mask. ValueError names another character.
    """
    ids = {"_": MASK, "|": BAR, **{r: FIRST + n for n, r in enumerate(RESIDUES)}}
    if bad := sorted(set("".join(texts)) - set(ids)):
        raise ValueError(f"character {bad[0]!r}: expected amino acids, bars between loops, and _ for masks")
    rows = [torch.tensor([CLS, *(ids[c] for c in text)]) for text in texts]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)


def decode(tokens: Tensor) -> list[str]:
    """The text of each row."""
    names = ["", "_", "", *RESIDUES, "|"]
    return ["".join(names[i] for i in row) for row in tokens.tolist()]


def load(folder: str | Path) -> Sceptr:
    """The network of a folder that `unmask data fetch sceptr` made, in evaluation mode; ValueError for another folder."""
    folder = Path(folder)
    config = checkpoints.read_json(folder / "config.json")
    if config.get("model_type") != "sceptr":
        raise ValueError(f"{folder} holds a model of type {config.get('model_type')!r}; expected 'sceptr'")
    with torch.random.fork_rng(devices=()):  # what it draws is not the caller's loss
        network = Sceptr(_record(config, folder))
    tensors = checkpoints.read_tensors(folder / "model.safetensors")
    with torch.no_grad():
        checkpoints.fill(network.state_dict(), tensors, folder / "model.safetensors")
    return network.eval()


def _record(config: dict[str, Any], folder: Path) -> SceptrConfig:
    """The typed configuration; ValueError for sizes that are none."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    sizes = [config.get(name) for name in names]
    loops = config.get("loops")
    good = isinstance(loops, list) and loops and all(isinstance(x, str) for x in loops)
    if not good or any(type(s) is not int or not 0 < s <= 4096 for s in sizes) or sizes[0] % sizes[2]:  # type: ignore[operator]
        raise ValueError(
            f"{folder / 'config.json'}: loops {loops} and sizes {sizes}; expected names, and {', '.join(names)}"
        )
    return SceptrConfig(tuple(loops), *sizes)  # type: ignore[arg-type]
