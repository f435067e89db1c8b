"""Masked language models of transformers as models of ours (extra `hf`). Nothing here runs code from a folder."""

from unmask.models.transformers.adapter import from_transformers

__all__ = ["from_transformers"]
