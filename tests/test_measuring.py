"""Measured profiles against laws whose profile is known."""

import numpy as np
import pytest
import torch

import unmask
from unmask import laws, plans, profiles
from unmask.planning import measuring


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def law():
    return laws.Sudoku4()


@pytest.fixture(scope="module")
def data(law):
    return law.sample(2000, seeded(0))


def within(profile, exact, z=4.0):
    known = profile.stderr > 0
    assert np.all(np.abs(profile.entropies - exact.entropies)[known] < z * profile.stderr[known] + 1e-9)


def test_cross_entropies_of_the_exact_law_estimate_its_profile(law, data):
    measured = profiles.measure(law, data, generator=seeded(1), rounds=2)
    within(measured, law.profile())
    assert measured.counts.sum() == 4000
    assert not measured.exact


def test_every_count_is_observed_equally_often(law, data):
    measured = profiles.measure(law, data[:512], generator=seeded(1), batch_size=64)
    assert np.all(measured.counts == 32)


def test_model_entropies_estimate_the_same_profile_and_calibration_is_zero(law, data):
    within(profiles.measure_entropies(law, data, generator=seeded(2)), law.profile())
    gap, error = profiles.calibration(profiles.measure(law, data, generator=seeded(2)))
    assert abs(gap) < 4 * error


def test_an_overconfident_model_has_a_positive_calibration_gap(law, data):
    sharp = unmask.tempered(law, 0.5)
    flat = laws.Mixture([0.5, 0.5], [[0.8, 0.2], [0.3, 0.7]], 6)
    tokens = flat.sample(500, seeded(3))
    gap, error = profiles.calibration(
        profiles.measure(unmask.tempered(flat, 0.3), tokens, generator=seeded(4))
    )
    assert gap > 4 * error
    assert sharp.mask_id == law.mask_id


def test_gains_between_nested_reveals_estimate_the_profile_and_never_rise(law, data):
    measured = profiles.measure_gains(law, data[:600], generator=seeded(5), edges=range(16))
    within(measured, law.profile())
    assert np.all(np.diff(measured.entropies) <= 0)


def test_a_worse_model_loses_more(law, data):
    worse = unmask.tempered(law, 4.0)
    first = profiles.measure(law, data, generator=seeded(6))
    assert profiles.measure(worse, data, generator=seeded(6)).entropy > first.entropy


def test_an_interrupted_measurement_goes_on_to_the_same_result(law, data, tmp_path):
    state, calls = tmp_path / "state.json", []
    whole = profiles.measure(law, data[:640], generator=seeded(7))

    class Failing:
        mask_id, vocab_size = law.mask_id, law.vocab_size

        def __call__(self, tokens, rows=None, *, time=None):
            calls.append(1)
            if len(calls) == 5:
                raise KeyboardInterrupt
            return law(tokens, rows)

    with pytest.raises(KeyboardInterrupt):
        profiles.measure(Failing(), data[:640], generator=seeded(7), state=state)
    assert state.exists()
    resumed = profiles.measure(law, data[:640], generator=seeded(99), state=state)
    assert np.array_equal(resumed.entropies, whole.entropies)
    assert np.array_equal(resumed.stderr, whole.stderr)
    assert not state.exists()


def test_a_state_of_other_data_is_refused(law, data, tmp_path):
    state = tmp_path / "state.json"
    tally = measuring.Tally(16, 2, seed=0)
    measuring._store(tally, state, data[:64])
    with pytest.raises(ValueError, match="another measurement"):
        profiles.measure(law, data[64:128], generator=seeded(0), state=state)


def test_bad_input(law, data):
    for tokens in (data[0], data.float(), torch.full((2, 16), law.mask_id), data[:0]):
        with pytest.raises(ValueError, match=r"expected int64 \[batch|no masks|expected at least one"):
            profiles.measure(law, tokens, generator=seeded(0))
    with pytest.raises(ValueError, match="at least 1"):
        profiles.measure(law, data, generator=seeded(0), rounds=0)
    with pytest.raises(ValueError, match="increasing numbers"):
        profiles.measure_gains(law, data, generator=seeded(0), edges=(0, 5, 5, 15))
    with pytest.raises(ValueError, match="without model entropies"):
        profiles.calibration(law.profile())


@pytest.mark.parametrize("plan", [(16,), (4, 4, 4, 4), (1, 1, 2, 4, 8), (8, 4, 2, 1, 1)])
def test_a_plan_costs_what_the_profile_says(law, data, plan):
    """Mean excess of exact log-likelihoods over one by one, in random orders, is `Profile.kl`."""
    score = unmask.scores.at_random(11)
    ids = torch.arange(len(data))
    alone = -law.log_prob(data)
    spent = -unmask.log_likelihood(law, data, unmask.selectors.top_k(score, plan), order_ids=ids)
    excess = (spent - alone).numpy()
    error = excess.std(ddof=1) / np.sqrt(len(excess))
    assert abs(excess.mean() - law.profile().kl(plan)) < 4 * error + 1e-9


def test_the_optimal_plan_of_a_measured_profile_is_nearly_the_best(law, data):
    first = profiles.measure(law, data, generator=seeded(8), rounds=2)
    second = profiles.measure(law, data, generator=seeded(9), rounds=2)
    exact = law.profile()
    plan = plans.optimal(profiles.choose(first, second), steps=6)
    assert exact.kl(plan) < 1.15 * exact.kl(plans.optimal(exact, steps=6))
    assert abs(second.kl(plan) - exact.kl(plan)) < 4 * second.kl_stderr(plan)


def test_a_round_sees_every_number_of_visible_positions():
    """As many sequences as positions suffice, in whole batches: a long profile needs no luck."""
    law = unmask.laws.Markov([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], 200)
    tokens = law.sample(256, torch.Generator().manual_seed(0))
    for batch in (64, 32):
        found = unmask.profiles.measure(
            law, tokens, generator=torch.Generator().manual_seed(1), batch_size=batch
        )
        assert found.counts.min() >= 1


def test_the_size_of_batches_changes_nothing(law, data):
    found = [
        profiles.measure(law, data[:96], generator=seeded(3), rounds=2, batch_size=b) for b in (96, 32, 7)
    ]
    for other in found[1:]:
        assert np.array_equal(other.counts, found[0].counts)
        np.testing.assert_allclose(other.entropies, found[0].entropies, rtol=1e-12)
        np.testing.assert_allclose(other.stderr, found[0].stderr, rtol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 7, 64, 100])
def test_levels_of_a_round_take_each_stratum_once(count):
    levels = measuring.spread_levels(5, 1, count)
    assert torch.equal(((levels * count).floor().long() % count).sort().values, torch.arange(count))
    assert not torch.equal(levels, measuring.spread_levels(5, 2, count))


def test_data_of_pairs_are_a_sample_like_any_other():
    law = laws.Mixture([0.5, 0.5], [[1.0, 0.0], [0.5, 0.5]], 8)
    drawn = law.sample(1024, seeded(0))
    kind = (drawn > 0).any(1)
    many = int(min(kind.sum(), (~kind).sum()))
    pairs = torch.stack([drawn[~kind][:many], drawn[kind][:many]], 1).flatten(0, 1)
    for seed in range(3):
        measured = profiles.measure(law, pairs, generator=seeded(seed), rounds=2)
        assert (measured.stderr > 0).all()
        within(measured, law.profile())


class Coins:
    """Fair bits before an end, symbol 2."""

    vocab_size, mask_id = 3, 3

    def __call__(self, tokens, rows=None, *, time=None):
        told = torch.nn.functional.one_hot(tokens.clamp(max=2), 3).double().log()
        fair = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log()
        laws_ = torch.where((tokens == 3)[..., None], fair, told)
        return laws_ if rows is None else laws_.gather(1, rows[..., None].expand(-1, -1, 3))


def test_sequences_without_a_symbol_say_nothing():
    tokens = torch.randint(0, 2, (200, 4), generator=seeded(0))
    tokens[::2] = 2
    for how in ({"end": 2}, {"visible": lambda t: t == 2}):
        measured = profiles.measure(Coins(), tokens, generator=seeded(1), **how)
        np.testing.assert_allclose(measured.entropies, np.log(2), rtol=1e-12)
        assert measured.counts.sum() == 100
        with pytest.raises(ValueError, match="every position is visible"):
            profiles.measure(Coins(), tokens[::2], generator=seeded(1), **how)
