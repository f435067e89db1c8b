"""Selectors by their public name, `unmask.selectors`; they live in `unmask.orders`, in `selectors` and `lookahead`."""

from unmask.orders.lookahead import independent  # noqa: F401
from unmask.orders.selectors import *  # noqa: F403
