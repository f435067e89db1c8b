"""Profiles, their files and errors, and the estimators that take the noise out of measured ones; nats."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from unmask import laws, plans, profiles
from unmask.profiles import Profile

N = 256
X = np.arange(N) / N
IMAGE_LIKE = 1.2 + 2.2 * np.exp(-25 * X) + np.exp(-3 * X)
LATE_DROP = 3 - 0.2 * X - 2.5 * X**12
ONE_STEP = np.where(np.arange(N) < 100, 2.0, 1.0) - 0.001 * X
ESTIMATORS = (profiles.smooth, profiles.isotonic, profiles.interpolated)


def noisy(truth, sd, seed, stderr=True):
    losses = np.abs(truth + sd * np.random.default_rng(seed).standard_normal(len(truth)))
    return Profile(losses, stderr=np.full(len(truth), sd) if stderr else None, exact=False)


def excess(estimate, truth, steps):
    """True cost of the plan made from an estimate, as a multiple of the true optimum."""
    true = Profile(truth)
    return true.kl(plans.optimal(estimate, steps=steps)) / true.kl(plans.optimal(true, steps=steps))


# Definitions.


def test_correlations_obey_their_identities():
    rng = np.random.default_rng(0)
    for _ in range(100):
        n = int(rng.integers(1, 50))
        profile = Profile(np.sort(rng.random(n))[::-1])
        h, i = profile.entropies, np.arange(n)
        tc, dtc = profile.total_correlation, profile.dual_total_correlation
        assert tc == pytest.approx(n * h[0] - profile.entropy)
        assert dtc == pytest.approx(profile.entropy - n * h[-1])
        assert tc == pytest.approx(profile.increments @ (n - i[1:]))
        assert profile.information == pytest.approx(np.cumsum([0, *profile.increments]))
        assert profile.mixed <= min(tc, dtc) + 1e-12


def test_code_length_is_entropy_plus_kl():
    profile = laws.Balanced(12, 5).profile()
    for plan in [(12,), (3, 4, 5), (1,) * 12]:
        assert profile.code_length(plan) == pytest.approx(profile.entropy + profile.kl(plan))
    assert profile.kl((12,)) == pytest.approx(profile.total_correlation)
    assert profile.kl((1,) * 12) == 0.0
    assert profile.kl(5) == profile.kl((5, 5, 2))


def test_splitting_a_block_never_costs_more():
    rng = np.random.default_rng(1)
    for _ in range(200):
        profile = Profile(np.sort(rng.random(20))[::-1])
        points = [0, *sorted(rng.choice(np.arange(1, 20), 4, replace=False).tolist()), 20]
        finer = sorted({*points, int(rng.integers(1, 20))})
        before, after = (profile.kl(plans.sizes_between(cut)) for cut in (points, finer))
        assert after <= before + 1e-12


def test_standard_error_is_that_of_the_cost():
    truth, plan = np.linspace(3, 1, 30), (3, 7, 1, 9, 10)
    stderr = np.linspace(0.02, 0.2, 30)
    rng = np.random.default_rng(2)
    drawn = [Profile(truth + stderr * rng.standard_normal(30), stderr=stderr).kl(plan) for _ in range(4000)]
    expected = Profile(truth, stderr=stderr).kl_stderr(plan)
    assert np.std(drawn) == pytest.approx(expected, rel=0.05)  # 4.5 of its own standard errors
    assert Profile(truth).kl_stderr(plan) == 0.0
    assert Profile(truth, exact=False).kl_stderr(plan) is None


def test_infilling_starts_where_the_visible_positions_end():
    # Given v symbols, a permutation of n is one of n - v: same profile.
    given = profiles.conditioned(laws.Permutation(20).profile(), 8)
    assert given.entropies == pytest.approx(laws.Permutation(12).profile().entropies)
    assert given.provenance == {"visible": 8}
    assert profiles.conditioned(given, 2).provenance == {"visible": 10}
    measured = Profile([3.0, 2.0, 1.0], stderr=[0.1, 0.2, 0.3], counts=[1, 2, 3])
    rest = profiles.conditioned(measured, 1)
    assert (rest.stderr.tolist(), rest.counts.tolist(), rest.exact) == ([0.2, 0.3], [2, 3], False)


# Records.


@pytest.mark.parametrize("give", [list, tuple, np.array, torch.tensor, lambda h: torch.tensor(h).float()])
def test_entropies_of_any_kind_become_fixed_float64(give):
    profile = Profile(give([2.0, 1.5, 0.5]))
    assert profile.entropies.dtype == np.float64
    assert profile.entropies.tolist() == [2.0, 1.5, 0.5]
    with pytest.raises(ValueError, match="read-only"):
        profile.entropies[0] = 9


def test_profile_does_not_share_memory_with_its_caller():
    given = np.array([2.0, 1.0])
    profile = Profile(given)
    given[0] = 7.0
    assert profile.entropies[0] == 2.0


def test_rounding_in_an_exact_profile_is_forgiven():
    profile = Profile([1.0, 0.5, 0.5 + 1e-12, -1e-15])
    assert profile.entropies.tolist() == [1.0, 0.5, 0.5, 0.0]
    assert profile.exact


def test_json_keeps_every_bit(tmp_path):
    rng = np.random.default_rng(3)
    facts = {"model": "sudoku", "hash": "12ab", "samples": 64, "of": ["a", 1, None]}
    for made in (
        Profile(np.sort(rng.random(9))[::-1]),
        Profile(rng.random(9), stderr=rng.random(9), counts=np.arange(9), provenance=facts),
        Profile(rng.random(9), exact=False),
    ):
        made.save(tmp_path / "p.json")
        back = Profile.load(tmp_path / "p.json")
        assert back.to_json() == made.to_json()
        assert back.entropies.tolist() == made.entropies.tolist()
        assert (back.exact, back.provenance) == (made.exact, made.provenance)
    assert json.loads(made.to_json())["unit"] == "nats"
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    Profile([1.0]).save(tmp_path / "p.json")
    with pytest.raises(TypeError):
        Profile([2.0], provenance={"no": object()}).save(tmp_path / "p.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        Profile([2.0]).save(tmp_path / "folder")
    assert Profile.load(tmp_path / "p.json").entropies.tolist() == [1.0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "p.json"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Profile([]), "one number per position"),
        (lambda: Profile([[1.0]]), r"shape \(1, 1\)"),
        (lambda: Profile([1.0, math.nan]), r"entropies\[1\] = nan"),
        (lambda: Profile([math.inf, 1.0]), r"entropies\[0\] = inf"),
        (lambda: Profile([1.0, -0.5]), r"entropies\[1\] = -0.5"),
        (lambda: Profile([1.0, -0.5], stderr=[1.0, 1.0]), r"entropies\[1\] = -0.5"),
        (lambda: Profile([1.0, 0.5, 0.5 + 2e-9]), "rises to 0.5 at i=2"),
        (lambda: Profile([1.0, 0.5], stderr=[0.1]), "got 1 stderr, expected 2"),
        (lambda: Profile([1.0, 0.5], stderr=[0.1, -0.1]), "got stderr of -0.1"),
        (lambda: Profile([1.0, 0.5], counts=[1, 2, 3]), "got 3 counts"),
        (lambda: Profile([1.0, 0.5], stderr=[0.1, math.nan]), r"stderr\[1\] = nan"),
        (lambda: Profile([1.0, 0.5]).kl((1, 2)), "sums to 3, expected 2"),
        (lambda: profiles.conditioned(Profile([1.0, 0.5]), 2), r"expected 0\.\.1"),
        (lambda: profiles.conditioned(Profile([1.0, 0.5]), -1), "visible=-1"),
        (lambda: Profile.from_json("{}"), "expected unmask.profile"),
        (lambda: Profile.from_json('{"format": "unmask.profile", "version": 1}'), "no field"),
        (lambda: Profile.from_json("{"), "not JSON"),
        (lambda: profiles.smooth(Profile([1.0], stderr=[0.1]), stderr=[0.1]), "expected one of them"),
        (lambda: profiles.smooth(Profile([1.0], counts=[0], exact=False)), "all 0"),
        (lambda: profiles.choose(Profile([1.0]), Profile([1.0, 0.5])), "same length"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# Estimation.


@pytest.mark.parametrize("estimate", ESTIMATORS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 9, 81, 256])
def test_estimates_never_rise_and_keep_a_falling_line(estimate, n):
    line = np.linspace(3, 1, n)
    for stderr in (None, np.full(n, 0.2)):
        assert estimate(line, stderr).entropies == pytest.approx(line, abs=1e-6)
        rough = estimate(np.abs(np.random.default_rng(n).standard_normal(n)), stderr)
        assert (np.diff(rough.entropies) <= 0).all()
        assert rough.entropies.min() >= 0
        assert not rough.exact
        assert rough.stderr is None


@pytest.mark.parametrize("estimate", ESTIMATORS)
def test_estimates_come_closer_to_the_truth(estimate):
    for seed in range(5):
        measured = noisy(IMAGE_LIKE, 0.3, seed)
        error = np.mean((estimate(measured).entropies - IMAGE_LIKE) ** 2)
        assert error < 0.2 * 0.3**2


def test_precise_entries_outweigh_vague_ones():
    truth = np.linspace(2, 1, 60)
    stderr = np.where(np.arange(60) % 2 == 0, 1.0, 0.01)
    losses = np.abs(truth + stderr * np.random.default_rng(4).standard_normal(60))
    for estimate in ESTIMATORS:
        assert np.abs(estimate(losses, stderr).entropies - truth).max() < 0.1


@pytest.mark.parametrize("estimate", ESTIMATORS)
def test_entries_that_were_not_measured_are_bridged(estimate):
    truth = np.linspace(2, 1, 64)
    counts = np.where(np.arange(64) % 7 == 3, 5, 0)
    losses = np.where(counts > 0, truth, 9.0)
    for stderr in (None, np.where(counts > 0, 0.05, 0.0)):
        found = estimate(Profile(losses, stderr=stderr, counts=counts, exact=False)).entropies
        assert np.abs(found - truth)[3:60].max() < 0.06
        assert found.max() < 2.1


def test_a_plan_from_raw_noise_can_be_worse_than_uniform():
    true = Profile(IMAGE_LIKE)
    costs = [true.kl(plans.optimal(noisy(IMAGE_LIKE, 0.3, seed), steps=32)) for seed in range(3)]
    assert np.mean(costs) > true.kl(plans.uniform(N, 32))


@pytest.mark.parametrize("known", [True, False], ids=["stderr known", "stderr unknown"])
@pytest.mark.parametrize("sd", [0.1, 0.3])
@pytest.mark.parametrize("truth", [IMAGE_LIKE, LATE_DROP], ids=["image-like", "late drop"])
def test_noise_study_default_plan_costs_at_most_1_3_times_the_optimum(truth, sd, known):
    ratios = [excess(profiles.smooth(noisy(truth, sd, seed, known)), truth, 32) for seed in range(20)]
    assert np.mean(ratios) <= 1.3


@pytest.mark.parametrize("sd", [0.1, 0.3])
def test_choice_takes_isotonic_for_a_step_and_smooth_for_smooth_profiles(sd):
    def names(truth):
        pairs = [(noisy(truth, sd, 2 * seed), noisy(truth, sd, 2 * seed + 1)) for seed in range(20)]
        chosen = [profiles.choose(train, heldout) for train, heldout in pairs]
        return chosen, [profile.provenance["estimator"] for profile in chosen]

    chosen, found = names(ONE_STEP)
    assert found.count("isotonic") >= 18
    true = Profile(ONE_STEP)
    assert np.median([true.kl(plans.optimal(profile, steps=8)) for profile in chosen]) < 0.05
    assert true.kl(plans.uniform(N, 8)) > 28
    for truth in (IMAGE_LIKE, LATE_DROP):
        chosen, found = names(truth)
        assert found.count("smooth") >= 16
        assert np.mean([excess(profile, truth, 32) for profile in chosen]) <= 1.3


def test_heldout_cost_is_unbiased_where_the_training_cost_is_not():
    true, inside, outside = Profile(IMAGE_LIKE), [], []
    for seed in range(40):
        train, heldout = noisy(IMAGE_LIKE, 0.3, 2 * seed), noisy(IMAGE_LIKE, 0.3, 2 * seed + 1)
        plan = plans.optimal(train, steps=32)
        truth = true.kl(plan)
        inside.append((train.kl(plan) - truth) / train.kl_stderr(plan))
        outside.append((heldout.kl(plan) - truth) / heldout.kl_stderr(plan))
    assert abs(np.mean(outside)) * math.sqrt(40) < 4
    assert 0.6 < np.std(outside) < 1.4
    assert np.mean(inside) < -5
