"""How papers train: MD4's AdamW with a cosine, ARDM's Adam at a constant rate."""

from __future__ import annotations

from unmask.recipes.run import Optimiser

NO_CLIPPING = 1e9
"""Clips no gradient."""


def md4(steps: int, learning_rate: float, warmup: int, beta2: float, weight_decay: float) -> Optimiser:
    """AdamW, a cosine to 0 over all steps, EMA .9999, no clipping (arXiv 2406.04329)."""
    return Optimiser(
        steps=steps,
        learning_rate=learning_rate,
        warmup=warmup,
        decay=1.0,
        beta2=beta2,
        weight_decay=weight_decay,
        clip=NO_CLIPPING,
        ema=0.9999,
        cosine=True,
    )


def ardm(
    steps: int, learning_rate: float, warmup: int, clip: float, ema: float, weight_decay: float = 0.0
) -> Optimiser:
    """Adam at a constant rate after the warm-up, beta2 .999 (arXiv 2110.02037)."""
    return Optimiser(
        steps=steps,
        learning_rate=learning_rate,
        warmup=warmup,
        decay=0.0,
        beta2=0.999,
        weight_decay=weight_decay,
        clip=clip,
        ema=ema,
    )
