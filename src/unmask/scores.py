"""Scores by their public name, `unmask.scores`; they live in `unmask.orders`, in `scores` and `policy`."""

from unmask.orders.policy import OrderConfig, OrderNetwork, learnt  # noqa: F401
from unmask.orders.scores import *  # noqa: F403
