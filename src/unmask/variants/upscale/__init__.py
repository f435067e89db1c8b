"""Upscale ARDM: levels as base-b digits, coarsest first, so that one law covers all stages (arXiv 2110.02037, section 3).

A level x in 0..K-1 has S digits, S the least with b^S >= K. Stage s = 1..S unmasks the s-th digit of every position, given
all coarser ones: it takes x^(s-1) to x^(s), where x^(s) = floor(x / b^(S-s)) b^(S-s) is x with its last S - s digits zero.
A sequence of N levels is a sequence of S N digits, stage after stage, and `Upscaled` is a network over those. Sampling,
likelihood and plans work on it as on any other under ``selectors.in_blocks(selector, N)`` (or `stage_by_stage`, for a plan
per stage). The bound is the sum of the stages' bounds, `nelbo`: digits never are unmasked in an order that mixes stages.

At stage s the network sees x^(s) where that digit is visible and x^(s-1) elsewhere, which is which, and the stage. Finer
digits that happen to be visible (a prompt) are not looked at before their stage.
"""

from unmask.variants.upscale.bounds import AtStage, at_stage, measure, nelbo
from unmask.variants.upscale.digits import (
    Situation,
    decode_digits,
    encode_digits,
    situation,
    stages,
    stages_of,
)
from unmask.variants.upscale.networks import StagedTokens, Upscaled, upscaled
from unmask.variants.upscale.orders import stage_by_stage
from unmask.variants.upscale.parametrisations import Law, from_digits, from_levels
from unmask.variants.upscale.training import in_one_stage, loss

__all__ = [
    "AtStage",
    "Law",
    "Situation",
    "StagedTokens",
    "Upscaled",
    "at_stage",
    "decode_digits",
    "encode_digits",
    "from_digits",
    "from_levels",
    "in_one_stage",
    "loss",
    "measure",
    "nelbo",
    "situation",
    "stage_by_stage",
    "stages",
    "stages_of",
    "upscaled",
]
