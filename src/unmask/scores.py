"""Scores by their public name, `unmask.scores`; they live in `unmask.orders.scores`."""

from unmask.orders.scores import *  # noqa: F403
