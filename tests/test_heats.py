"""Heats: an order gets a plan of its own only where a plan might win."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import unmask
from unmask.evaluation.tuning import costs, racing, tasks, tuning
from unmask.evaluation.tuning.bench import Bench, Kept
from unmask.evaluation.tuning.candidates import ORDERS, Space, sized, usual
from unmask.evaluation.tuning.heats import _best_orders, best_defaults, first_heat
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


def chain(length=16):
    """A chain, and draws of it, in which nothing is given."""
    law = unmask.laws.Markov([0.6, 0.4], [[0.9, 0.1], [0.2, 0.8]], length)
    tokens = law.sample(24, torch.Generator().manual_seed(0))
    return law, tasks.Items(tokens, torch.zeros_like(tokens, dtype=torch.bool))


def test_steps_of_a_blind_order_lose_at_its_levels_what_enumeration_says():
    law = chain(8)[0]
    tokens = torch.cartesian_prod(*[torch.arange(2)] * 8)
    shares = law.log_prob(tokens).exp()
    sizes = costs.parted((1, 1, 2, 4), 2)
    assert sizes == (1, 1, 1, 1, 2, 2)
    between = np.einsum("n,nab->ab", shares.numpy(), costs.at_ends(law, tokens, ORDERS["bisection"], sizes))
    likelihood = lambda plan: unmask.log_likelihood(law, tokens, ORDERS["bisection"](plan))  # noqa: E731
    ends = np.cumsum((0, *sizes)).tolist()
    for plan in ((8,), (4, 4), (1, 3, 2, 2)):
        places = [ends.index(e) for e in np.cumsum((0, *plan)).tolist()]
        told = sum(between[a, b] for a, b in pairwise(places))
        assert told == pytest.approx(float(shares @ (likelihood(sizes) - likelihood(plan))), abs=1e-9)


def test_the_plan_of_bisection_ends_at_levels_which_lose_nothing_on_a_chain():
    law, items = chain()
    bench = Bench(law, tasks.nats(), 64, Kept(None, ""))
    best = bench.levels(Space(16, 16), items, "bisection", 5)
    assert best(5) == (1, 1, 2, 4, 8)
    assert len(best(3)) == 3
    assert bench.measuring() == 2 * 16 * 10


def test_what_the_races_of_defaults_take_counts():
    law, items = chain(8)
    bench = Bench(law, tasks.nats(), 64, Kept(None, ""))
    tried, race = first_heat(bench, Space(8, 8), items, (2, 4), lambda _: None)
    usual_, after = best_defaults(bench, tried, race, items)
    measured = sum(float(v[1].sum()) for k, v in bench.kept.known.items() if k.startswith("choose|"))
    assert after.spent == pytest.approx(measured)
    assert after.winners == race.winners
    assert all(tried[arm].default for arm in usual_)


def test_a_choice_leaves_no_arm_near_a_winner_that_there_are_calls_for():
    law = unmask.laws.Markov([0.6, 0.4], [[0.9, 0.1], [0.2, 0.8]], 6)
    tokens = law.sample(192, torch.Generator().manual_seed(0))
    found = tuning.choose(law, tasks.Items(tokens, torch.zeros_like(tokens, dtype=torch.bool)), (2, 3))
    looked = racing.last_look(found.race, lambda *_: pytest.fail("measured"))
    assert looked.winners == found.race.winners
    assert found.race.spent <= racing.MOST * found.race.full


def test_no_sampler_is_tried_under_two_names():
    tried = usual(Space(8, 8), (2, 4))
    rules = [replace(c.sampler, name="").to_json() for c in tried]
    assert len(rules) == len(set(rules))
    assert [c.default for c in tried] == sorted((c.default for c in tried), reverse=True)
