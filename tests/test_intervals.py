"""Predicted costs of plans with their intervals: the formula by hand, coverage by simulation, and where none is known."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from helpers import seeded
from rich.console import Console
from scipy import stats

from unmask import laws, plans, profiles
from unmask.base.statistics import contrast, t_quantile
from unmask.command_line.commands import plan as planning
from unmask.profiles import Profile

N = 16


def halves(law, seed, sequences=48, rounds=4):
    """Two measured halves of fresh data."""
    return [
        profiles.measure(
            law,
            law.sample(sequences, seeded(2 * seed + k)),
            generator=seeded(999 + 2 * seed + k),
            rounds=rounds,
        )
        for k in range(2)
    ]


def measured(counts, seed=0):
    """A profile of Gaussian observations, so many at each entry."""
    random, n = np.random.default_rng(seed), np.asarray(counts, float)
    truth, error = np.linspace(9, 7, len(n)), np.ones(len(n)) / np.sqrt(np.maximum(n, 1))
    own = error * np.sqrt(random.chisquare(np.maximum(n - 1, 1)) / np.maximum(n - 1, 1))
    return Profile(truth + error * random.standard_normal(len(n)), own, n)


# --- the formula ------------------------------------------------------------------------------------


def test_an_exact_profile_has_an_interval_of_no_width():
    profile = laws.Permutation(6).profile()
    assert profile.kl_interval((3, 3)) == (profile.kl((3, 3)), profile.kl((3, 3)))
    assert plans.describe((3, 3), profile).interval == profile.kl_interval((3, 3))


def test_standard_errors_alone_give_the_normal_interval():
    profile, plan = Profile([3.0, 2.0, 1.5], stderr=[0.3, 0.2, 0.1]), (2, 1)
    half = 1.959964 * math.sqrt(0.3**2 + 0.2**2)  # weights 1, -1, 0
    assert profile.kl_interval(plan) == pytest.approx((profile.kl(plan) - half, profile.kl(plan) + half))


def test_equal_variances_are_pooled_and_counted():
    """Three entries of five observations each: the triangle 1/2, 1, 1/2 at the middle, 1, 1/2 at the ends."""
    counts, weights = np.full(3, 5.0), np.array([2.0, -1.0, -1.0])
    stderr = np.array([0.4, 0.4, 0.4])
    error, freedom = contrast(weights, stderr, counts)
    assert error == pytest.approx(0.4 * math.sqrt(6))
    share = np.array([4.0, 1.0, 1.0]) / 5
    taken = np.array([[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]]) / np.array(
        [[6], [8], [6]]
    )  # of sums of squares
    used = share @ taken
    wanted = share.sum() ** 2 / (used**2 * 4).sum()
    assert freedom == pytest.approx(wanted, rel=1e-4)
    assert t_quantile(0.95, freedom) == pytest.approx(stats.t.ppf(0.975, wanted), rel=1e-4)


@pytest.mark.parametrize(("counts", "plan"), [([3] * 4, (3, 1)), ([2, 3, 4] * 10, (10, 5, 15))])
def test_gaussian_observations_are_covered_at_the_level(counts, plan):
    """Few observations: Student's quantile matters (at the normal one, the first holds 89 % of the time)."""
    cost = Profile(np.linspace(9, 7, len(counts))).kl(plan)
    for level in (0.5, 0.95):
        spans = [measured(counts, seed).kl_interval(plan, level) for seed in range(1500)]
        held = np.mean([low <= cost <= high for low, high in spans])
        assert abs(held - level) < 4 * math.sqrt(level * (1 - level) / 1500)


def test_unequal_variances_stay_where_they_are():
    """Forty quiet entries, then forty loud ones: a contrast among the quiet ones knows nothing of the others."""
    stderr, weights = np.repeat([0.1, 2.0], 40), np.zeros(80)
    weights[[5, 20]] = 3.0, -3.0
    error, freedom = contrast(weights, stderr, np.full(80, 8.0))
    assert error == pytest.approx(0.1 * math.sqrt(18), rel=0.01)
    assert 20 < freedom < 200


def test_entries_that_were_not_seen_pass_their_weight_to_their_neighbours():
    """Entry 1 is the mean of entries 0 and 2: its weight w goes half and half."""
    counts, stderr = np.array([8.0, 0.0, 8.0, 8.0]), np.full(4, 0.5)
    error, _ = contrast(np.array([0.0, 2.0, 0.0, 0.0]), stderr, counts)
    assert error == pytest.approx(0.5 * math.sqrt(2))
    assert contrast(np.ones(3), np.ones(3), np.ones(3)) is None  # seen once each: nothing tells a variance


# --- coverage -----------------------------------------------------------------------------------------


def test_intervals_of_predicted_costs_hold_the_truth():
    """OneHot: losses of two values, one of them rare at the ends, where few observations often agree by chance."""
    law, held, own = laws.OneHot(N), [], []
    truth = law.profile()
    for seed in range(80):
        first, second = halves(law, seed)
        fitted = profiles.choose(first, second)
        for plan in (plans.optimal(fitted, steps=2), plans.optimal(fitted, steps=4), plans.uniform(N, 4)):
            low, high = plans.describe(plan, fitted).interval
            held.append(low <= truth.kl(plan) <= high)
        low, high = second.kl_interval((8, 8))
        own.append(high - low)
    assert 0.9 <= np.mean(held) <= 0.995
    assert np.median(own) < 3 * truth.kl((8, 8))


# --- which half judges --------------------------------------------------------------------------------


def test_plans_are_judged_by_the_half_that_they_have_not_seen(tmp_path):
    first, second = halves(laws.CurieWeiss(N, 1.5), 0)
    fitted = profiles.choose(first, second)
    plan = plans.optimal(fitted, steps=4)
    said = plans.describe(plan, fitted)
    assert (said.kl, said.kl_stderr) == (second.kl(plan), second.kl_stderr(plan))
    assert said.interval == second.kl_interval(plan)
    assert said.bounds["rho TC"] == plans.certificates(plan).tc * fitted.total_correlation
    plans.save(tmp_path / "plan.json", plan, profile=fitted)
    stored = plans.load(tmp_path / "plan.json")
    assert (stored.kl, stored.interval) == (second.kl(plan), second.kl_interval(plan))
    assert "heldout" not in stored.provenance


def test_the_held_out_half_follows_through_infilling_other_lengths_and_files(tmp_path):
    first, second = halves(laws.CurieWeiss(N, 1.5), 1)
    fitted = profiles.choose(first, second)
    rest = profiles.conditioned(fitted, 5)
    assert plans.describe((4, 7), rest).interval == profiles.conditioned(second, 5).kl_interval((4, 7))
    longer = profiles.resampled(fitted, 20)
    assert plans.describe((4, 16), longer).kl == profiles.resampled(second, 20).kl((4, 16))
    fitted.save(tmp_path / "p.json")
    again = Profile.load(tmp_path / "p.json")
    assert plans.describe((8, 8), again).interval == second.kl_interval((8, 8))


# --- what is said where none is known -----------------------------------------------------------------


def test_old_files_have_no_interval_and_say_so(tmp_path, capsys):
    old = profiles.smooth(halves(laws.OneHot(N), 3)[0])
    assert plans.describe((8, 8), old).interval is None
    report, _ = planning.compare(old, steps=4, max_kl=None)
    assert all(row["interval"] is None for row in report["families"])
    planning.render_plans(report, Console(soft_wrap=True))
    assert "interval is not known" in capsys.readouterr().out
    plans.save(tmp_path / "plan.json", (8, 8), profile=old)
    assert plans.load(tmp_path / "plan.json").interval is None
    record = json.loads((tmp_path / "plan.json").read_text())
    del record["kl_interval"], record["kl_level"]
    (tmp_path / "old.json").write_text(json.dumps(record))
    assert plans.load(tmp_path / "old.json") == plans.load(tmp_path / "plan.json")


def test_every_cost_that_is_printed_carries_its_interval(capsys):
    fitted = profiles.choose(*halves(laws.OneHot(N), 4))
    report, _ = planning.compare(fitted, steps=4, max_kl=None)
    planning.render_plans(report, Console(soft_wrap=True, width=200))
    lines = capsys.readouterr().out.splitlines()
    for row in report["families"]:
        low, high = row["interval"]
        assert low < row["kl"] < high
        line = next(line for line in lines if line.split()[:1] == [row["family"]])
        assert f"{row['kl']:.3f} [{low:.3f}, {high:.3f}]" in line
    assert "held-out half" in lines[-1]
    assert "model's own error" in planning.REALISED


def test_levels_are_shares():
    with pytest.raises(ValueError, match="expected 0 < level < 1"):
        Profile([2.0, 1.0], stderr=[0.1, 0.1]).kl_interval((2,), level=95)
