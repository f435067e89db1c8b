"""Heats: an order gets a plan of its own only where a plan might win."""

from __future__ import annotations

import numpy as np

from unmask.evaluation.tuning.candidates import Space, sized
from unmask.evaluation.tuning.heats import _best_orders
from unmask.evaluation.tuning.racing import Race


def test_an_order_far_behind_gets_no_plan():
    space = Space(64, 64)
    tried = [
        sized(space, name, "uniform", (64 // k,) * k)
        for name in ("bisection", "random", "entropy")
        for k in (4, 8)
    ]
    losses = np.array([220.0, 214.0, 248.0, 230.0, 226.0, 218.0])[:, None] + np.zeros((6, 16))
    calls = np.array([4.0, 8.0] * 3)[:, None] + np.zeros((6, 16))
    race = Race((4.0, 8.0), losses, calls, (0, 1))
    assert _best_orders(tried, race, 4.0) == ("entropy",)  # 8 calls bring random to 230, a plan brings less
    assert _best_orders(tried, race, 8.0) == ("entropy", "random")[:2]
    alone = Race((4.0,), losses, calls, (0,))
    assert _best_orders(tried, alone, 4.0) == ("entropy", "random")
