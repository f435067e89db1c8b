"""What do SCEPTR's models know of real T-cell receptors? Nats per residue by share hidden, and of CDR3 alone.

Run: python benchmarks/receptors.py [--receptors 1000] [--write]; it fetches models and receptors (`unmask data fetch`).
A minute of one core.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import record
import torch
from torch import Tensor

import unmask
from unmask.data import tokens as folders
from unmask.data.sources import packages
from unmask.data.sources.fetch import fetch
from unmask.data.sources.models import fetch_model, receptors
from unmask.data.sources.receptors import ALPHABET
from unmask.networks import sceptr
from unmask.orders import presets

MODELS = {
    "sceptr": "SCEPTR",
    "sceptr_mlm": "SCEPTR_MLM_only",
    "sceptr_large": "SCEPTR_large",
    "sceptr_small": "SCEPTR_small",
    "sceptr_tiny": "SCEPTR_tiny",
}
SHARES = (0.15, 0.5, 0.9, 1.0)
SMOOTHING = 0.1
"""Of labels, in the loss that the package logs."""

SEED, BATCH, RESAMPLES = 20_261_128, 100, 2000

NOTES = """
{n} human receptors of the test part of `unmask data fetch receptors` (VDJdb), six loops each, lengths given. Nats per
hidden residue, each residue's law given what is left, at random shares hidden, and along a random order, one residue a
call, of all six loops and of the two CDR3 with the other loops visible. 95 % intervals: a bootstrap of receptors.

No table of nats per residue of these models was found. The source that there is: the log.csv of each variant in the
package sceptr 1.2.0, last epoch, on the authors' own held-out receptors (other ones than here), labels smoothed by .1,
which is no cross-entropy: "smoothed" is that loss here, at 15 % hidden. "first guess": the share of hidden residues that
were the most probable one, there at the hiding that the models were taught with, here at 15 %.
"""


def main() -> None:
    """Prints, and with --write records, the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--receptors", type=int, default=1000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    part = folders.load(fetch("receptors") / "test")
    texts = ["".join(ALPHABET[i] for i in part.item(n)) for n in range(min(options.receptors, part.items))]
    rows = [row(name, variant, texts) for name, variant in MODELS.items()]
    print("\n".join(record.table(rows)))
    if options.write:
        print(record.write("receptors", rows, NOTES.format(n=len(texts))))


def row(name: str, variant: str, texts: list[str]) -> dict[str, Any]:
    """One model."""
    denoiser = unmask.from_logits(sceptr.load(fetch_model(name)), sceptr.MASK, sceptr.VOCAB)
    found: dict[str, Any] = {"model": name, "n": len(texts)}
    for share in SHARES:
        parts = [hiding(denoiser, place, tokens, share) for place, tokens in batches(texts)]
        nats, smooth, hits, counts = (np.concatenate(x) for x in zip(*parts))
        found[f"{round(100 * share)} % hidden"] = ratio(nats, counts)
        if share == SHARES[0]:
            found["smoothed"] = ratio(smooth, counts)
            found["first guess %"] = ratio(100 * hits, counts, 1)
    for label, loops in (("all in random order", range(6)), ("CDR3 in random order", (2, 5))):
        parts = [along(denoiser, place, tokens, tuple(loops)) for place, tokens in batches(texts)]
        found[label] = ratio(*(np.concatenate(x) for x in zip(*parts)))
    return found | logged(variant)


def batches(texts: list[str]) -> Iterator[tuple[int, Tensor]]:
    """(place of the first, tokens)."""
    for place in range(0, len(texts), BATCH):
        yield place, sceptr.encode(texts[place : place + BATCH])


def residues(tokens: Tensor) -> Tensor:
    """Where residues are, bool [B, L]."""
    return (tokens >= sceptr.FIRST) & (tokens < sceptr.BAR)


def hiding(denoiser: Any, place: int, tokens: Tensor, share: float) -> tuple[Any, ...]:
    """Nats, the loss with smoothed labels, first guesses and number of the hidden residues of each receptor."""
    keys = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(SEED + place))
    rank = keys.masked_fill(~residues(tokens), torch.inf).argsort(1).argsort(1)
    hidden = rank < (share * residues(tokens).sum(1)).round()[:, None]
    laws = denoiser(tokens.masked_fill(hidden, sceptr.MASK)).double()
    loss = torch.where(hidden, -laws.gather(2, tokens[..., None])[..., 0], 0.0)
    mean = -laws[..., sceptr.FIRST : sceptr.BAR].mean(-1)
    smooth = (1 - SMOOTHING) * loss + SMOOTHING * torch.where(hidden, mean, 0.0)
    hits = hidden & (laws.argmax(-1) == tokens)
    return loss.sum(1).numpy(), smooth.sum(1).numpy(), hits.sum(1).numpy(), hidden.sum(1).numpy()


def along(denoiser: Any, place: int, tokens: Tensor, loops: tuple[int, ...]) -> tuple[Any, Any]:
    """Nats and number of residues of some loops, one a call in a random order of each receptor's own."""
    loop = (tokens == sceptr.BAR).cumsum(1)
    hidden = residues(tokens) & torch.isin(loop, torch.tensor(loops))
    ids = torch.arange(place, place + len(tokens))
    law = unmask.log_likelihood(denoiser, tokens, presets.random(1), visible=~hidden, order_ids=ids)
    return -law.numpy(), hidden.sum(1).numpy()


def logged(variant: str) -> dict[str, Any]:
    """The last line of a variant's log in the package."""
    wheel = packages.bring(receptors.SCEPTR)
    text = packages.read(wheel, f"sceptr/_model_saves/{variant}/log.csv").decode()
    last = list(csv.DictReader(io.StringIO(text)))[-1]
    kind = "valid_mlm" if "valid_mlm_loss" in last else "valid"
    return {
        "log: smoothed loss": round(float(last[f"{kind}_loss"]), 4),
        "log: first guess %": round(100 * float(last[f"{kind}_acc"]), 1),
    }


def ratio(values: Any, counts: Any, digits: int = 3) -> str:
    """Sum of values over sum of counts, with its interval by a bootstrap of items."""
    draws = np.random.default_rng(SEED).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].sum(1) / counts[draws].sum(1), [0.025, 0.975])
    return f"{values.sum() / counts.sum():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


if __name__ == "__main__":
    main()
