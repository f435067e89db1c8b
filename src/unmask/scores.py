"""Scores by their public name, `unmask.scores`; they live in `unmask.orders.scores` and `unmask.orders.policy`."""

from unmask.orders.policy import OrderConfig, OrderNetwork, learnt  # noqa: F401
from unmask.orders.scores import *  # noqa: F403
