"""What a device computes fast."""

from __future__ import annotations

import torch


def precise(device: torch.device | str) -> torch.dtype:
    """The dtype in which log-probabilities add up there: float64, or float32 on Apple's GPUs, which have no other."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


def has_bfloat16(device: str = "cpu") -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 there: on GPUs made for them, on CPUs with AMX.

    A CPU without such units emulates them: a training step took 8 to 17 times as long as in float32 on one with AVX2.
    """
    if device.startswith("cuda"):
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return False
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(supported and supported())
