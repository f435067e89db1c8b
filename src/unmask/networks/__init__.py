"""Networks: raw modules from tokens to logits, wrapped by `unmask.denoisers.from_logits`."""

from unmask.networks.transformer import Labelled, Transformer, TransformerConfig
from unmask.networks.unet import UNet, UNetConfig

__all__ = ["Labelled", "Transformer", "TransformerConfig", "UNet", "UNetConfig"]
