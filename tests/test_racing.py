"""Racing: the winner is rarely worse than the best by more than an error, for a third of the calls; ties end early."""

from __future__ import annotations

import numpy as np
import pytest

from unmask.evaluation.tuning import racing
from unmask.evaluation.tuning.racing import race, rounds

BUDGETS = (4, 8, 16, 32)
CALLS = np.repeat(BUDGETS, 6).astype(float)


def raced(losses, calls=CALLS, budgets=BUDGETS, **settings):
    return race(
        lambda a, i: (losses[a, i], np.full(len(i), calls[a])),
        len(losses),
        losses.shape[1],
        budgets,
        **settings,
    )


def gaussian(seed, spread=1.0, paired=0.3, items=128):
    """Arms whose losses share the items' difficulty; their means."""
    random = np.random.default_rng(seed)
    means = 20 - 2 * np.log2(CALLS) + spread * random.random(24) * np.tile(np.arange(6), 4)
    shared = 3 * random.standard_normal(items)
    return means[:, None] + shared + paired * random.standard_normal((24, items)), means


def solved(seed, items=256):
    """Arms that solve an item or do not; their shares of failures."""
    random = np.random.default_rng(seed)
    limit = 0.5 + 0.4 * random.random(24) * np.log2(CALLS) / 5
    hard = lambda n: 0.7 * random.random(n) + 0.3 * random.random((24, n))  # noqa: E731
    return (hard(items) > limit[:, None]).astype(float), (hard(20_000) > limit[:, None]).mean(1)


def misses(losses, means, found):
    """Budgets whose winner is worse than the best by more than a standard error."""
    error = losses.std(1) / np.sqrt(losses.shape[1])
    best = [means[budget >= CALLS].min() for budget in BUDGETS]
    return sum(means[w] > b + error[w] for w, b in zip(found.winners, best))


@pytest.mark.parametrize("make", [gaussian, solved])
def test_winners_are_within_an_error_of_the_best_for_a_third_of_the_calls(make):
    wrong, spent = 0, []
    for seed in range(50):
        losses, means = make(seed)
        found = raced(losses)
        wrong += misses(losses, means, found)
        spent.append(found.spent / (CALLS.sum() * losses.shape[1]))
    assert wrong <= 0.05 * 50 * len(BUDGETS)
    assert np.mean(spent) < 1 / 3


def test_ties_end_early():
    losses, _ = gaussian(0, spread=0.0)
    assert raced(losses).spent < CALLS.sum() * 128 / 3


@pytest.mark.parametrize("items", [48, 128])
def test_many_arms_as_good_as_each_other_are_not_all_run_to_the_end(items):
    """Nothing tells them apart, so that no interval drops them: only the share of calls does."""
    calls = np.tile(CALLS, 3)
    losses = (np.random.default_rng(0).random((len(calls), items)) < 0.3).astype(float)
    found = raced(losses, calls)
    assert 0.2 < found.spent / (calls.sum() * items) < 1 / 3
    assert all(calls[w] <= b for w, b in zip(found.winners, BUDGETS))
    assert found.seen == items


def test_the_best_of_every_budget_go_on_in_turn():
    calls = np.array([[2.0], [4.0], [8.0], [8.0], [4.0], [2.0]])
    race_ = racing.Race((4, 8), np.zeros((6, 1)), calls, (1, 3))
    open_ = [[1, 0, 5], [3, 1, 2, 0, 4]]  # in turn: 1, 3, 0, then 5, 2, then 4
    assert racing.affordable(race_, open_, 0.0) == [0, 1, 3, 5]
    assert racing.affordable(race_, open_, 24.0) == [0, 1, 2, 3, 5]
    assert racing.affordable(race_, open_, 28.0) == [0, 1, 2, 3, 4, 5]


def test_arms_that_are_right_everywhere_so_far_stay():
    """Four items without an error say little of a share of errors."""
    losses = np.zeros((2, 64))
    losses[0, 10:] = 1.0
    assert raced(losses, np.array([4.0, 4.0]), (4,)).winners == (1,)


def test_what_takes_too_many_calls_wins_nothing():
    losses = np.array([[1.0] * 32, [0.0] * 32]) + np.random.default_rng(0).normal(size=32)
    found = raced(losses, np.array([4.0, 9.0]), (3, 8, 16))
    assert found.winners == (None, 0, 1)


def test_rounds_double_and_cover_all_items():
    assert [(r.start, r.stop) for r in rounds(50)] == [(0, 4), (4, 8), (8, 16), (16, 32), (32, 50)]
    assert rounds(3) == (slice(0, 3),)


def test_dropped_arms_are_not_measured_again():
    losses, _ = gaussian(1)
    losses[3] += 100
    seen = []
    found = race(lambda a, i: seen.append(a) or (losses[a, i], np.full(len(i), CALLS[a])), 24, 128, BUDGETS)
    assert seen.count(3) == 1
    assert np.isnan(found.losses[3, racing.FIRST :]).all()
    assert 3 not in found.alive


def test_a_rule_wins_only_where_the_interval_of_its_calls_is_within_the_budget():
    """A mean of 7.9 calls of 8, give or take, took 9.7 on other items."""
    losses = np.array([[1.0] * 64, [0.0] * 64]) + np.random.default_rng(0).normal(size=64)
    calls = np.full((2, 64), 8.0)
    calls[1] = np.where(np.arange(64) % 2, 4, 11.8)
    found = race(lambda a, i: (losses[a, i], calls[a, i]), 2, 64, (8, 16))
    assert found.winners == (0, 1)
    alone = race(lambda _, i: (losses[1, i], calls[1, i]), 1, 64, (8, 16))
    assert alone.winners == (None, 0)  # nobody wins rather than one that may take too many
    calls[1] = np.where(np.arange(64) % 2, 4, 8)
    assert race(lambda a, i: (losses[a, i], calls[a, i]), 2, 64, (8, 16)).winners == (1, 1)


def test_of_arms_that_do_the_same_the_cheaper_one_stays():
    losses = np.repeat(np.random.default_rng(0).normal(size=(1, 64)), 3, 0)
    losses[2] += 1e-14  # a sum in another order
    found = raced(losses, np.array([8.0, 4.0, 8.0]), (8,))
    assert found.winners == (1,)
    assert found.spent == racing.FIRST * (8 + 4 + 8)
