"""Selectors by their public name, `unmask.selectors`; they live in `unmask.orders.selectors` and `unmask.orders.lookahead`."""

from unmask.orders.lookahead import independent  # noqa: F401
from unmask.orders.selectors import *  # noqa: F403
