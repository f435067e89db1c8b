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


def test_arms_that_do_the_same_go_on_once():
    """The first alike stays for both, whether it leads or not; shares that agree so far need not stay so."""
    random = np.random.default_rng(0)
    calls = np.full((4, 8), 4.0)
    losses = random.random((4, 8)) + np.array([0.0, 0.1, 0.1, 0.1])[:, None]
    losses[3] = losses[1] + 1e-14
    assert 3 not in racing.contenders(losses, calls, (4,), range(4))[0]
    assert {1, 2} <= set(racing.contenders(losses, calls, (4,), range(4))[0])
    assert racing.contenders(np.round(losses), calls, (4,), range(4))[0] == [0, 1, 2, 3]


def dropped(items=64, first=8):
    """A race of 20 arms of 4 calls: 0 won it, 1 led to the end, the others were dropped; of these 2 would have won."""
    random = np.random.default_rng(1)
    truth = random.normal(size=items) + random.normal(size=(20, items)) * 0.3 + np.arange(20)[:, None] / 2
    truth[2] = truth[0] - 0.2
    truth[2, :first] = truth[0, :first] + 0.1 * random.normal(size=first) + 0.02
    losses = truth.copy()
    losses[2:, first:] = np.nan
    return racing.Race((4.0,), losses, np.where(np.isnan(losses), np.nan, 4.0), (0,)), truth


def looked(race_, truth, calls=4.0):
    """A race after a last look, and what that measured."""
    seen = []
    measure = lambda a, i: seen.append((a, i[0])) or (truth[a, i], np.full(len(i), calls))  # noqa: E731
    return racing.last_look(race_, measure), seen


def test_who_was_dropped_near_a_winner_is_measured_on_all_items_and_may_win():
    race_, truth = dropped()
    found, seen = looked(race_, truth)
    assert found.winners == (2,)
    assert seen[:3] == [(2, 8), (2, 16), (2, 32)]  # what was measured is not measured again
    assert {arm for arm, _ in seen} == {2}  # nobody far from the winner
    assert np.isnan(race_.losses[2, 8:]).all()
    np.testing.assert_array_equal(found.losses[2], truth[2])


@pytest.mark.parametrize(("most", "reached"), [(0.22, False), (0.27, True)])
def test_a_last_look_takes_the_calls_that_are_left(monkeypatch, most, reached):
    """Two of 20 arms to the end and 18 on an eighth of the items are 21 % of all calls; one more to the end are 26 %."""
    monkeypatch.setattr(racing, "MOST", most)
    race_, truth = dropped()
    found, seen = looked(race_, truth)
    assert bool(seen) == reached
    assert found.spent <= most * found.full


def test_a_last_look_leaves_who_does_the_same_as_a_known_arm():
    race_, truth = dropped()
    truth[2] = truth[1] = truth[0] + 0.01
    race_.losses[1], race_.losses[2, :8] = truth[1], truth[2, :8]
    assert (2, 8) not in looked(race_, truth)[1]


def test_who_takes_too_many_calls_on_all_items_does_not_win_by_a_last_look():
    race_, truth = dropped()
    assert looked(race_, truth, 4.5)[0].winners == (0,)


def test_all_items_decide_where_a_winner_was_not_measured_on_all():
    """A race that ended early: its winner too goes to the end beside who is near."""
    race_, truth = dropped()
    for arm in (0, 1):
        race_.losses[arm, 32:] = race_.calls[arm, 32:] = np.nan
    found, seen = looked(race_, truth)
    assert found.winners == (2,)
    assert (0, 32) in seen


@pytest.mark.parametrize("make", [gaussian, solved])
def test_a_last_look_misses_no_more_and_stays_within_a_third(make):
    wrong, after = 0, 0
    for seed in range(20):
        losses, means = make(seed)
        before = raced(losses)
        found = racing.last_look(before, lambda a, i: (losses[a, i], np.full(len(i), CALLS[a])))  # noqa: B023
        wrong, after = wrong + misses(losses, means, before), after + misses(losses, means, found)
        assert before.spent <= found.spent <= max(before.spent, racing.MOST * found.full)
    assert after <= wrong
