"""From items to batches and back: rows that share a stream, streams of items or bundles, fallback blocks, verification."""

from unmask.codec.layout.batches import row_sizes
from unmask.codec.layout.coding import Coding, symbols_of
from unmask.codec.layout.decoding import decode_units
from unmask.codec.layout.encoding import encode_bundles, encode_items
from unmask.codec.layout.likelihood import log_likelihoods

__all__ = [
    "Coding",
    "decode_units",
    "encode_bundles",
    "encode_items",
    "log_likelihoods",
    "row_sizes",
    "symbols_of",
]
