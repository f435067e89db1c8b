"""What tests of transformers' models have in common: an alphabet of amino acids, and the sizes of a tiny network."""

from __future__ import annotations

from typing import Any

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
TOKENS = ["<pad>", "<cls>", "<eos>", "<mask>", "<unk>", *LETTERS]
SIZES: dict[str, Any] = {
    "vocab_size": len(TOKENS),
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 34,
    "pad_token_id": TOKENS.index("<pad>"),
    "cls_token_id": TOKENS.index("<cls>"),
    "bos_token_id": TOKENS.index("<cls>"),
    "eos_token_id": TOKENS.index("<eos>"),
    "sep_token_id": TOKENS.index("<eos>"),
    "mask_token_id": TOKENS.index("<mask>"),
}
"""What configurations of transformers take."""
