"""Denoisers: networks under one contract, wrappers that change the law, and the checks of what enters."""

from unmask.denoisers.checks import (
    ask,
    ask_everywhere,
    check_tokens,
    checked_visible,
    lawful,
    shaped,
    unlawful,
    vouched,
)
from unmask.denoisers.contract import NetworkDenoiser, from_logits, log_normalise_
from unmask.denoisers.rows import masked_rows, take_rows, take_symbols
from unmask.denoisers.wrappers import (
    Wrapped,
    biased,
    certain,
    denoiser_name,
    forbidding,
    guided,
    networks,
    nucleus,
    passes,
    tempered,
    untempered,
)

__all__ = [
    "NetworkDenoiser",
    "Wrapped",
    "ask",
    "ask_everywhere",
    "biased",
    "certain",
    "check_tokens",
    "checked_visible",
    "denoiser_name",
    "forbidding",
    "from_logits",
    "guided",
    "lawful",
    "log_normalise_",
    "masked_rows",
    "networks",
    "nucleus",
    "passes",
    "shaped",
    "take_rows",
    "take_symbols",
    "tempered",
    "unlawful",
    "untempered",
    "vouched",
]
