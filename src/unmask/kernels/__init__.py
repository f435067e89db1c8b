"""Samplers without a likelihood: rules that draw first, kernels that hide symbols again."""

from unmask.kernels import commit, remask

__all__ = ["commit", "remask"]
