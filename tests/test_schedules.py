"""Schedules against autograd and closed forms; corruption against its own promise, E[weight * masked] = 1."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import chi_square_z, seeded

from unmask.masking import corruption, schedules

SCHEDULES = {
    "linear": schedules.linear(),
    "cosine": schedules.cosine(),
    "square": schedules.polynomial(2.0),
    "root": schedules.polynomial(0.5),
    "geometric": schedules.geometric(),
    "linear, cut": schedules.linear(1e-4),
    "cosine, cut": schedules.cosine(1e-2),
    "geometric, cut": schedules.geometric(eps=1e-3),
}
EPS = {"linear, cut": 1e-4, "cosine, cut": 1e-2, "geometric, cut": 1e-3}
every_schedule = pytest.mark.parametrize("name", SCHEDULES)
TIMES = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)


@every_schedule
def test_schedules_fall_from_one_to_zero(name):
    schedule, eps = SCHEDULES[name], EPS.get(name, 0.0)
    start, end = schedule.alpha(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
    slack = 2e-5 if "geometric" in name else 1e-12
    assert start == pytest.approx(1 - eps, abs=slack)
    assert end == pytest.approx(eps, abs=slack)
    assert (schedule.alpha(TIMES).diff() < 0).all()


@every_schedule
def test_slope_and_weight_are_the_derivative(name):
    schedule, t = SCHEDULES[name], TIMES.clone().requires_grad_()
    (slope,) = torch.autograd.grad(schedule.alpha(t).sum(), t)
    assert schedule.slope(TIMES) == pytest.approx(slope, rel=1e-9)
    assert schedule.weight(TIMES) == pytest.approx(-slope / (1 - schedule.alpha(TIMES)), rel=1e-9)


def test_weights_in_closed_form():
    half = math.pi / 2
    assert schedules.linear().weight(TIMES) == pytest.approx(1 / TIMES)
    assert schedules.polynomial(3.0).weight(TIMES) == pytest.approx(3 / TIMES)
    assert schedules.cosine().weight(TIMES) == pytest.approx(half * torch.tan(half * (1 - TIMES)))


@every_schedule
def test_inverse_undoes_alpha(name):
    schedule = SCHEDULES[name]
    assert schedule.inverse(schedule.alpha(TIMES)) == pytest.approx(TIMES, rel=1e-6)


def test_inverse_of_a_cut_schedule_stays_within_time():
    ends = schedules.linear(0.1).inverse(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("grid", [schedules.uniform_grid, schedules.cosine_grid])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_grids_fall_from_one_to_zero(grid, steps):
    times = grid(steps)
    assert times.dtype == torch.float64
    assert len(times) == steps + 1
    assert (times[0], times[-1]) == (1, 0)
    assert (times.diff() < 0).all()


def test_grids_in_closed_form():
    i = torch.arange(11, dtype=torch.float64)
    assert schedules.uniform_grid(10) == pytest.approx(1 - i / 10, abs=1e-15)
    assert schedules.cosine_grid(10) == pytest.approx(torch.cos(math.pi / 2 * i / 10), abs=1e-15)


BAD = {
    "power": (lambda: schedules.polynomial(0.0), r"power 0.0: expected a positive number"),
    "eps": (lambda: schedules.linear(0.5), r"eps 0.5: expected 0 <= eps < 0.5"),
    "rates": (lambda: schedules.geometric(2.0, 1.0), r"low 2.0, high 1.0: expected 0 < low < high"),
    "shares": (
        lambda: corruption.low_discrepancy(4, seeded(0), first=2, total=5),
        r"indices 2..5 of 5 times; expected them within 0..4",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_are_one_clear_line(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


# Corruption.

KINDS = {
    "exact count": corruption.exact_count,
    "linear": lambda maskable, g: corruption.independent(maskable, schedules.linear(), g),
    "cosine": lambda maskable, g: corruption.independent(maskable, schedules.cosine(), g),
    "root": lambda maskable, g: corruption.independent(maskable, schedules.polynomial(0.5), g),
    "discrete": lambda maskable, g: corruption.discrete_time(
        maskable, schedules.linear(), schedules.uniform_grid(5), g
    ),
    "discrete cosine": lambda maskable, g: corruption.discrete_time(
        maskable, schedules.cosine(), schedules.cosine_grid(3), g
    ),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_the_weight_makes_every_position_count_once(kind):
    maskable = torch.ones(4000, 5, dtype=torch.bool)
    maskable[:, 3] = False
    drawn = KINDS[kind](maskable, seeded(1))
    assert drawn.weight.dtype == torch.float64
    assert not drawn.masked[:, 3].any()
    weighted = drawn.weight[:, None] * drawn.masked
    mean, error = weighted.mean(0), weighted.std(0) / math.sqrt(4000)
    places = [0, 1, 2, 4]
    assert ((mean - 1).abs()[places] < 4 * error[places]).all()


@every_kind
def test_visible_symbols_are_untouched(kind):
    tokens = torch.arange(40).view(8, 5)
    drawn = KINDS[kind](torch.ones(8, 5, dtype=torch.bool), seeded(0))
    hidden = drawn.apply(tokens, -7)
    assert torch.equal(hidden[~drawn.masked], tokens[~drawn.masked])
    assert (hidden[drawn.masked] == -7).all()
    assert torch.equal(tokens, torch.arange(40).view(8, 5))


@every_kind
def test_corruption_repeats_with_its_generator(kind):
    maskable = torch.ones(8, 5, dtype=torch.bool)
    first, second = (KINDS[kind](maskable, seeded(3)) for _ in range(2))
    assert torch.equal(first.masked, second.masked)
    assert torch.equal(first.weight, second.weight)


def test_exact_counts_are_exact_stratified_and_uniform():
    maskable = torch.ones(60, 6, dtype=torch.bool)
    maskable[::2, :2] = False  # rows of four and of six
    drawn = corruption.exact_count(maskable, seeded(2))
    size, count = maskable.sum(1), drawn.masked.sum(1)
    assert ((count >= 1) & (count <= size)).all()
    assert torch.equal(drawn.weight, size.double() / count)
    whole = corruption.exact_count(torch.ones(60, 6, dtype=torch.bool), seeded(2)).masked.sum(1)
    assert torch.bincount(whole, minlength=7).tolist() == [0, 10, 10, 10, 10, 10, 10]
    levels = torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64)
    extremes = corruption.exact_count(torch.ones(2, 6, dtype=torch.bool), seeded(0), levels)
    assert extremes.masked.sum(1).tolist() == [1, 6]


def test_nothing_to_mask_weighs_nothing():
    drawn = corruption.exact_count(torch.zeros(2, 3, dtype=torch.bool), seeded(0))
    assert not drawn.masked.any()
    assert drawn.weight.tolist() == [0.0, 0.0]


def test_random_subsets_are_uniform():
    maskable = torch.tensor([True, True, False, True, True]).expand(6000, -1)
    chosen = corruption.random_subset(maskable, torch.full((6000,), 2), seeded(0))
    assert (chosen.sum(1) == 2).all()
    assert not (chosen & ~maskable).any()
    kinds = torch.unique(chosen.long() @ (2 ** torch.arange(5)), return_counts=True)[1]
    assert len(kinds) == 6
    assert chi_square_z(kinds, torch.ones(6)) < 4


def test_independent_masks_have_the_probability_of_their_time():
    times = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64).repeat_interleave(400)
    maskable = torch.ones(1200, 50, dtype=torch.bool)
    drawn = corruption.independent(maskable, schedules.cosine(), seeded(0), times)
    share = drawn.masked.double().view(3, -1).mean(1)
    wanted = 1 - schedules.cosine().alpha(times.view(3, -1)[:, 0])
    assert ((share - wanted).abs() < 4 * (wanted * (1 - wanted) / 20000).sqrt()).all()
    assert torch.equal(drawn.time, times)


def test_discrete_times_are_the_upper_ends_of_their_steps():
    levels = torch.tensor([0.0, 0.24, 0.26, 0.99], dtype=torch.float64)
    maskable = torch.ones(4, 3, dtype=torch.bool)
    drawn = corruption.discrete_time(
        maskable, schedules.linear(), schedules.uniform_grid(4), seeded(0), levels
    )
    assert drawn.time.tolist() == [0.25, 0.25, 0.5, 1.0]
    assert drawn.weight.tolist() == pytest.approx([4 * 0.25 / t for t in (0.25, 0.25, 0.5, 1.0)])


def test_low_discrepancy_times_are_one_per_stratum_and_uniform():
    for seed in range(20):
        times = corruption.low_discrepancy(10, seeded(seed))
        assert times.dtype == torch.float64
        assert torch.floor(times * 10).sort().values.tolist() == list(range(10))
    firsts = torch.stack([corruption.low_discrepancy(3, seeded(seed)) for seed in range(2000)])
    for column in firsts.T:
        assert chi_square_z(torch.histc(column, 10, 0, 1), torch.ones(10)) < 4


def test_ranks_together_draw_one_global_batch():
    whole = corruption.low_discrepancy(12, seeded(5))
    parts = [corruption.low_discrepancy(4, seeded(5), first, 12) for first in (0, 4, 8)]
    assert torch.equal(torch.cat(parts), whole)
    counts = torch.floor(12 * torch.cat(parts)).sort().values
    assert counts.tolist() == list(range(12))
