"""Selectors by their public name, `unmask.selectors`; they live in `unmask.orders.selectors`."""

from unmask.orders.selectors import *  # noqa: F403
