"""Networks: raw modules from tokens to logits, wrapped by `unmask.denoisers.from_logits`."""

from unmask.networks.config import TransformerConfig
from unmask.networks.transformer import Labelled, Transformer, from_config
from unmask.networks.unet import UNet, UNetConfig

__all__ = ["Labelled", "Transformer", "TransformerConfig", "UNet", "UNetConfig", "from_config"]
