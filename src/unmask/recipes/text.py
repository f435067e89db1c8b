"""Recipe `text`: English in the 27 symbols of text8, by the order-agnostic bound, with baselines of equal size.

Trained on Jane Austen's novels and the King James Bible (8 MB); data: ``unmask data fetch text``. The text8
figures of MD4 (1.37 bits per character) and an autoregressive transformer (1.23) are for 90 MB and 100 times
the parameters.
"""

from __future__ import annotations

from dataclasses import replace

from unmask.data.vocabularies import TEXT8, Characters
from unmask.networks import TransformerConfig
from unmask.networks.transformer import from_config
from unmask.recipes import baselines, sequences
from unmask.recipes.run import Machine, Optimiser, Run


def text() -> Run:
    """Six blocks, width 256, stretches of 128 characters."""
    return Run(
        name="text",
        network=TransformerConfig(
            vocab_size=len(TEXT8), length=128, width=256, depth=6, heads=8, hidden=448, rotary=True
        ),
        data=sequences.Folder("text"),
        build=from_config,
        batch=sequences.batches(sequences.windows),
        objective=sequences.loss,
        encode=sequences.encode_windows,
        decode=sequences.decode_windows,
        vocabulary=Characters(TEXT8),
        prepare=lambda run: sequences.prepared(run, kind="stream"),
        batch_size=64,
        optimiser=Optimiser(steps=5_000, learning_rate=1e-3, warmup=100, decay=0.3, ema=0.999),
        machine=Machine(bfloat16=None, compile=True),
    )


def text_md4() -> Run:
    """The same network under MD4's integral over time, told the time."""
    return replace(baselines.md4(text(), sequences.windows, timed=True), name="text_md4")


def text_genmd4() -> Run:
    """A schedule per symbol is learnt besides; two masks of half as many stretches, so as many masked stretches a step."""
    return replace(baselines.gen_md4(text(), sequences.windows), name="text_genmd4")


def text_d3pm() -> Run:
    """Absorbing D3PM with 1,000 independent times (arXiv 2107.03006)."""
    return replace(baselines.d3pm(text(), sequences.windows), name="text_d3pm")


def text_autoregressive() -> Run:
    """A causal network of the same size, from left to right."""
    return replace(baselines.autoregressive(text(), sequences.windows), name="text_autoregressive")
