"""Networks: raw modules from tokens to logits, wrapped by `unmask.denoisers.from_logits`."""

from unmask.networks.transformer import Transformer, TransformerConfig

__all__ = ["Transformer", "TransformerConfig"]
