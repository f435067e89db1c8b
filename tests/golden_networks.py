"""What the published architectures say about small random weights: the cases of tests/golden/architectures.json.

The numbers come from the published code: ``python benchmarks/golden_architectures.py --peers FOLDER`` writes them again.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FILE = Path(__file__).parent / "golden" / "architectures.json"

VOCAB, LENGTH = 24, 9

CONFIGS: dict[str, dict[str, Any]] = {
    "mdlm": {
        "model_type": "mdlm",
        "vocab_size": VOCAB,
        "model_length": 16,
        "hidden_dim": 32,
        "cond_dim": 8,
        "n_blocks": 2,
        "n_heads": 4,
        "dropout": 0.1,
        "time_conditioning": False,
    },
    "sedd": {
        "tokens": VOCAB - 1,
        "model": {
            "name": "tiny",
            "type": "ddit",
            "hidden_size": 32,
            "cond_dim": 8,
            "length": 16,
            "n_blocks": 2,
            "n_heads": 4,
            "scale_by_sigma": True,
            "dropout": 0.1,
        },
        "graph": {"type": "absorb", "file": "data", "report_all": False},
        "noise": {"type": "loglinear", "sigma_min": 1e-4, "sigma_max": 20},
    },
    "llada": {
        "model_type": "llada",
        "architectures": ["LLaDAModelLM"],
        "activation_type": "silu",
        "alibi": False,
        "attention_dropout": 0.0,
        "attention_layer_norm": False,
        "bias_for_layer_norm": False,
        "block_group_size": 1,
        "block_type": "llama",
        "d_model": 32,
        "embedding_dropout": 0.0,
        "embedding_size": VOCAB,
        "eos_token_id": 1,
        "include_bias": False,
        "include_qkv_bias": False,
        "input_emb_norm": False,
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "mask_token_id": VOCAB - 3,
        "max_sequence_length": 16,
        "mlp_hidden_size": 48,
        "n_heads": 4,
        "n_kv_heads": 2,
        "n_layers": 2,
        "pad_token_id": 1,
        "residual_dropout": 0.0,
        "rms_norm_eps": 1e-5,
        "rope": True,
        "rope_full_precision": True,
        "rope_theta": 500000.0,
        "scale_logits": False,
        "vocab_size": VOCAB,
        "weight_tying": False,
    },
    "dream": {
        "model_type": "Dream",
        "architectures": ["DreamModel"],
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 48,
        "mask_token_id": VOCAB - 3,
        "max_position_embeddings": 16,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "pad_token_id": 1,
        "rms_norm_eps": 1e-6,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "vocab_size": VOCAB,
    },
    "llada2": {
        "model_type": "llada2_moe",
        "architectures": ["LLaDA2MoeModelLM"],
        "first_k_dense_replace": 1,
        "head_dim": 8,
        "hidden_act": "silu",
        "hidden_size": 32,
        "intermediate_size": 48,
        "mask_token_id": VOCAB - 3,
        "block_length": 4,
        "max_position_embeddings": 16,
        "moe_intermediate_size": 16,
        "n_group": 4,
        "norm_topk_prob": True,
        "num_attention_heads": 4,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "num_shared_experts": 1,
        "pad_token_id": 1,
        "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1e-6,
        "rope_theta": 600000,
        "routed_scaling_factor": 2.5,
        "score_function": "sigmoid",
        "tie_word_embeddings": False,
        "topk_group": 2,
        "use_bias": False,
        "use_qk_norm": True,
        "use_qkv_bias": False,
        "vocab_size": VOCAB,
    },
}
"""What a published config.json says, made small; LLaDA2 has ``mask_token_id`` and ``block_length`` in code."""

MASKGIT = {
    "input_size": 3,
    "hidden_dim": 32,
    "codebook_size": VOCAB - 1,
    "depth": 2,
    "heads": 4,
    "mlp_dim": 48,
    "nclass": 5,
    "register": 2,
    "proj": 1,
}
"""What the published class of MaskGIT is built with; nothing of it is in a file."""

MASKGIT_PATCHES = MASKGIT | {"input_size": 4, "proj": 2}
"""The same with a place in the transformer for each 2 x 2 tokens."""

AMUSED: dict[str, dict[str, Any]] = {
    "amused": {
        "_class_name": "UVit2DModel",
        "block_num_heads": 2,
        "block_out_channels": 16,
        "codebook_size": VOCAB - 1,
        "cond_embed_dim": 12,
        "downsample": True,
        "encoder_hidden_size": 20,
        "hidden_size": 32,
        "in_channels": 24,
        "intermediate_size": 40,
        "layer_norm_eps": 1e-6,
        "ln_elementwise_affine": True,
        "micro_cond_embed_dim": 40,
        "micro_cond_encode_dim": 8,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_res_blocks": 2,
        "sample_size": 4,
        "upsample": True,
        "use_bias": False,
        "vocab_size": 32,
    }
}
AMUSED["amused_flat"] = AMUSED["amused"] | {
    "block_out_channels": 32,
    "downsample": False,
    "num_hidden_layers": 1,
    "num_res_blocks": 1,
    "sample_size": 3,
    "upsample": False,
}
"""What ``transformer/config.json`` says, as for 512 pixels, and as for 256 with equal widths; the mask is symbol 31."""

AMUSED_PIXELS: dict[str, Any] = {
    "_class_name": "VQModel",
    "act_fn": "silu",
    "block_out_channels": [16, 32],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "in_channels": 3,
    "latent_channels": 8,
    "layers_per_block": 1,
    "lookup_from_codebook": True,
    "mid_block_add_attention": False,
    "norm_num_groups": 8,
    "norm_type": "group",
    "num_vq_embeddings": VOCAB - 1,
    "out_channels": 3,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "vq_embed_dim": 6,
}
"""What ``vqvae/config.json`` says."""

LABELS = torch.tensor([2, 4])

SIGMA = (0.3, 4.0)
"""Noise levels of the two sequences, for SEDD."""

BLOCK = (3, 7)
"""Rows that a partial pass of LLaDA runs again, with `changed` tokens."""


def tokens() -> Tensor:
    """Two sequences with masks; the masks of all cases are symbols 21 and 23."""
    return torch.tensor([[5, 21, 7, 23, 21, 23, 2, 21, 23], [21, 23, 21, 23, 0, 11, 23, 21, 3]])


def image() -> Tensor:
    """Codes of two images, 3 x 3, with masks (23)."""
    return tokens().masked_fill(tokens() == 21, VOCAB - 1).view(2, 3, 3)


def codes() -> Tensor:
    """Codes of one image, 2 x 2, without masks."""
    return torch.tensor([[[3, 17], [0, 22]]])


def drawing(side: int) -> Tensor:
    """Tokens of two images of aMUSEd, side x side, some of them masked (31)."""
    values = torch.arange(2 * side**2).view(2, side, side) * 7 % (VOCAB - 1)
    return values.masked_fill(values % 3 == 1, 31)


def captions() -> tuple[Tensor, Tensor, Tensor]:
    """States [2, 5, 20], pooled [2, 12] and sizes [2, 5] of two captions."""
    made = [torch.from_numpy(_uniform(i, n)).float() for i, n in enumerate((200, 24))]
    sizes = torch.tensor([[512.0, 512, 0, 0, 6], [256, 384, 3, 9, 4.5]])
    return made[0].view(2, 5, 20), made[1].view(2, 12), sizes


def changed() -> Tensor:
    """The same after some symbols of `BLOCK` were unmasked."""
    after = tokens()
    after[:, 3], after[0, 4] = torch.tensor([4, 17]), 9
    return after


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights that are the same everywhere: splitmix64 of the name and the place, uniform with variance 1/width.

    What is one-dimensional lies around 1 for norms, and around 0 for biases; tables of frequencies are left out.
    """
    made = {}
    for name, shape in shapes.items():
        if name.endswith("inv_freq"):
            continue
        unit = torch.from_numpy(_uniform(zlib.crc32(name.encode()), int(np.prod(shape)))).view(shape)
        scale = 3**0.5 * (shape[-1] ** -0.5 if len(shape) > 1 else 0.2)
        made[name] = (unit * scale + (len(shape) == 1 and name.endswith("weight"))).float()
    return made


def _uniform(seed: int, count: int) -> np.ndarray:
    """float64 in -1..1."""
    with np.errstate(over="ignore"):
        z = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 20)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0


def golden() -> dict[str, dict[str, Any]]:
    """By case: ``shapes`` by the published names, ``logits`` [B, L, V], and ``partial`` [B, R, V] where there is one."""
    return json.loads(FILE.read_text())
