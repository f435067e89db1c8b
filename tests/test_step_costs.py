"""Costs of steps along any order: equal to enumeration, to the information profile, and to the best plan there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from helpers import seeded

import unmask
from unmask import laws, plans
from unmask.base.profile import check
from unmask.evaluation.tuning import costs as stepping
from unmask.evaluation.tuning.costs import Grid, cheapest, in_blocks, measure, planned
from unmask.evaluation.tuning.surface import bent, smoothed
from unmask.orders import presets

F64 = torch.float64
LAWS = {
    "table": laws.Table(torch.log_softmax(3 * torch.randn(3**5, generator=seeded(0), dtype=F64), 0), 5),
    "markov": laws.Markov(
        torch.tensor([0.7, 0.3], dtype=F64), torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=F64), 6
    ),
    "magnet": laws.CurieWeiss(6, 1.2),
    "urn": laws.Polya(torch.tensor([0.5, 0.7], dtype=F64), 6),
    "mixture": laws.Mixture(
        torch.tensor([0.3, 0.7], dtype=F64), torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=F64), 6
    ),
    "spiky": laws.Table(torch.log_softmax(8 * torch.randn(2**6, generator=seeded(1), dtype=F64), 0), 6),
}
ORDERS = {
    name: getattr(presets, name) for name in ("random", "confidence", "margin", "entropy", "left_to_right")
}


def everything(law):
    """All sequences of a law, and their probabilities."""
    tokens = torch.tensor(list(itertools.product(range(law.vocab_size), repeat=law.length)))
    shares = law.log_prob(tokens).exp()
    return tokens[shares > 1e-300], shares[shares > 1e-300]


def exact(law, selector):
    """KL of a sampler, order disclosed, by enumeration."""
    tokens, shares = everything(law)
    return float((shares * (law.log_prob(tokens) - unmask.log_likelihood(law, tokens, selector))).sum())


def measured(law, order, plan, **settings):
    tokens, shares = everything(law)
    ids = torch.zeros(len(tokens), dtype=torch.long)
    return measure(law, tokens, order, plan, weights=shares, grid=law.length, order_ids=ids, **settings)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("order", ORDERS)
def test_a_plan_costs_along_its_own_path_what_enumeration_says(name, order):
    law, make = LAWS[name], ORDERS[order]
    for plan in ((2,) * (law.length // 2) + (1,) * (law.length % 2), (1, law.length - 1), (law.length,)):
        assert measured(law, make, plan).of(plan)[0] == pytest.approx(exact(law, make(plan)), abs=1e-9)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("order", ["random", "confidence", "entropy"])
def test_the_plan_found_is_the_best_of_all(name, order):
    law, make = LAWS[name], ORDERS[order]
    tokens, shares = everything(law)
    ids = torch.zeros(len(tokens), dtype=torch.long)
    found = planned(law, tokens, make, 2, weights=shares, grid=law.length, order_ids=ids)
    assert len(found.path) == 2
    best = min(exact(law, make((k, law.length - k))) for k in range(1, law.length))
    assert exact(law, make(found.path)) <= 1.02 * best + 1e-9


def test_a_random_order_costs_what_the_profile_says():
    law, count = LAWS["magnet"], 6  # all positions alike: one order says all
    costs, profile = measured(law, presets.random, (1,) * count), law.profile()
    h = profile.entropies
    for i, k in itertools.product(range(count), range(count + 1)):
        if i + k <= count:
            assert costs.table()[i, k] == pytest.approx((k * h[i] - h[i : i + k].sum()) if k else 0, abs=1e-9)
    for steps in (2, 3, 4):
        assert profile.kl(costs.optimal(steps)) == pytest.approx(
            profile.kl(plans.optimal(profile, steps=steps))
        )


def test_sampled_costs_lie_within_their_errors():
    law, plan = LAWS["table"], (2, 3)
    truth = exact(law, presets.entropy(plan))
    tokens = law.sample(600, seeded(3))
    ids = torch.zeros(len(tokens), dtype=torch.long)
    mean, error = measure(law, tokens, presets.entropy, plan, grid=5, order_ids=ids).of(plan)
    assert 0 < error < 0.1
    assert abs(mean - truth) < 3 * error


def test_a_coarse_grid_is_linear_between_its_points():
    """A profile that falls on a line is measured at three points as well as at all."""
    grid, count = Grid(3), 9
    line = np.linspace(1.0, 0.2, count)
    points = grid.points(count)
    d = np.where(points[:, None] < points, line[points][:, None] - line[points], 0.0)
    costs = stepping.StepCosts.plain(grid, d[None], d[None], count, (count,))
    for plan in ((9,), (4, 5), (3, 3, 3), (1, 2, 6)):
        starts = np.cumsum([0, *plan[:-1]])
        wanted = sum(line[i] * k - line[i : i + k].sum() for i, k in zip(starts, plan))
        assert costs.of(plan)[0] == pytest.approx(wanted, abs=1e-12)
    assert costs.table(monotone=False)[2, 5] == pytest.approx(5 * line[2] - line[2:7].sum())


def test_the_table_is_what_plans_cost():
    law = LAWS["spiky"]
    costs = measured(law, presets.margin, (1,) * 6)
    table = costs.table()
    for plan in ((6,), (2, 4), (1, 3, 2)):
        starts = np.cumsum([0, *plan[:-1]])
        assert sum(table[i, k] for i, k in zip(starts, plan)) == pytest.approx(costs.of(plan)[0], abs=1e-9)


def test_the_search_is_exact():
    random = np.random.default_rng(0)
    costs = np.full((7, 8), np.inf)
    for i in range(7):
        costs[i, : 8 - i] = np.concatenate([[0], random.random(7 - i).cumsum()])
    for steps in (1, 2, 3, 5, 7):
        every = [p for p in itertools.product(range(1, 8), repeat=steps) if sum(p) == 7]
        price = {p: sum(costs[i, k] for i, k in zip(np.cumsum([0, *p[:-1]]), p)) for p in every}
        assert price[cheapest(costs, steps)] == pytest.approx(min(price.values()))


def test_prompts_are_given_and_not_planned():
    """With a prompt visible, costs are those of the law given it."""
    law = LAWS["markov"]
    tokens, shares = everything(law)
    masked = torch.ones_like(tokens, dtype=torch.bool)
    masked[:, [1, 4]] = False
    for plan in ((2, 2), (4,)):
        costs = measure(
            law, tokens, presets.entropy, plan, masked=masked, weights=shares, grid=4,
            order_ids=torch.zeros(len(tokens), dtype=torch.long),
        )  # fmt: skip
        visible = ~masked
        one = unmask.log_likelihood(law, tokens, presets.entropy(1), visible=visible)
        many = unmask.log_likelihood(law, tokens, presets.entropy(plan), visible=visible)
        assert costs.of(plan)[0] == pytest.approx(float((shares * (one - many)).sum()), abs=1e-9)


def test_blocks_cost_one_after_another():
    law, plan = LAWS["table"], (1, 2)
    law = laws.Table(torch.log_softmax(3 * torch.randn(2**6, generator=seeded(5), dtype=F64), 0), 6)
    tokens, shares = everything(law)
    rows, masked, hidden = in_blocks(tokens, 3)
    costs = measure(
        law, rows, presets.confidence, plan, masked=masked, hidden=hidden, grid=3,
        weights=shares.repeat_interleave(2), order_ids=torch.zeros(len(rows), dtype=torch.long),
    )  # fmt: skip
    whole = exact(law, unmask.selectors.in_blocks(presets.confidence(plan), 3))
    assert 2 * costs.of(plan)[0] == pytest.approx(whole, abs=1e-9)


def test_rows_of_several_lengths_have_plans_of_their_own():
    law = laws.Markov(
        torch.tensor([0.5, 0.5], dtype=F64), torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=F64), 8
    )
    tokens = law.sample(40, seeded(0))
    masked = torch.arange(8) < torch.tensor([8] * 20 + [5] * 20)[:, None]
    costs = measure(law, tokens, presets.random, lambda n: plans.uniform(n, 2), masked=masked, grid=8)
    plan = costs.for_counts(3)
    for count in (1, 2, 5, 8, 11):
        assert check(plan(count), count) == plan(count)
        assert len(plan(count)) == min(3, count)
    assert np.isfinite(costs.each(plan)).all()


def test_smoothing_keeps_smooth_surfaces_and_takes_noise_away():
    a, b = np.mgrid[:8, :8]
    truth = np.where(b > a, 0.3 * (b - a), 0.0)
    assert np.allclose(bent(truth, 100.0), truth, atol=1e-9)
    noisy = truth + np.where(b > a, np.random.default_rng(0).normal(size=(16, 8, 8)), 0.0)
    raw = ((noisy.mean(0) - truth) ** 2).sum()
    assert ((smoothed(noisy) - truth) ** 2).sum() < raw / 2
    assert np.allclose(smoothed(noisy)[a >= b], 0)


def test_what_makes_no_sense_is_refused():
    law = LAWS["magnet"]
    tokens = law.sample(3, seeded(0))
    with pytest.raises(ValueError, match="without a masked position"):
        measure(law, tokens, presets.random, 1, masked=torch.zeros_like(tokens, dtype=torch.bool))
    with pytest.raises(ValueError, match="steps 7"):
        measure(law, tokens, presets.random, 1).optimal(7)
    with pytest.raises(ValueError, match="sums to 5"):
        measure(law, tokens, presets.random, (2, 3))
    with pytest.raises(ValueError, match="grid"):
        measure(law, tokens, presets.random, 1, grid=1)
