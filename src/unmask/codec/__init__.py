"""Lossless compression: the unmasking loop with symbols written to, or read from, a stream. See docs/codec.md."""

from unmask.base.records import replacing
from unmask.codec.coder import Damaged
from unmask.codec.inspection import Summary, inspect
from unmask.codec.reading import Archive, decompress
from unmask.codec.settings import LEFT_TO_RIGHT, ORDERS, RANDOM, Order, Settings, Wrapper, in_calls
from unmask.codec.subjects import Subject, of_denoiser, of_model
from unmask.codec.writing import compress, masked_counts, prepare, scored, write

__all__ = [
    "LEFT_TO_RIGHT",
    "ORDERS",
    "RANDOM",
    "Archive",
    "Damaged",
    "Order",
    "Settings",
    "Subject",
    "Summary",
    "Wrapper",
    "compress",
    "decompress",
    "in_calls",
    "inspect",
    "masked_counts",
    "of_denoiser",
    "of_model",
    "prepare",
    "replacing",
    "scored",
    "write",
]
