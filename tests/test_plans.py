"""Plans against closed forms, a plain programme and enumeration; nats, KL with the order disclosed."""

from __future__ import annotations

import itertools
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq

from unmask import laws, plans
from unmask.planning import guarantees as bounds
from unmask.profiles import Profile, resampled

FAIR = [0.5, 0.5]


def flipping(flip):
    return [[1 - flip, flip], [flip, 1 - flip]]


@pytest.fixture(scope="module")
def profiles():
    return {
        "permutation": laws.Permutation(256).profile(),
        "one-hot": laws.OneHot(256).profile(),
        "balanced": laws.Balanced(256, 128).profile(),
        "markov": laws.Markov(FAIR, flipping(0.3), 64).profile(),
        "sudoku": laws.Sudoku4().profile(),
    }


def falling(values):
    return Profile(np.sort(np.asarray(values, dtype=float))[::-1])


def random_entropies(rng, length):
    """Curves of every awkward kind: ties, plateaus, rises, and increments over many magnitudes."""
    kind = rng.integers(6)
    if kind == 0:
        return np.sort(rng.random(length))[::-1]
    if kind == 1:
        return np.sort(rng.integers(0, 4, length))[::-1].astype(float)
    if kind == 2:
        return rng.random(length)
    if kind == 3:
        return rng.integers(0, 4, length).astype(float)
    if kind == 4:
        return np.sort(rng.random(length) ** 12)[::-1]
    return np.where(np.arange(length) < rng.integers(length + 1), 1.0, 0.0)


def oracle(entropies):
    """V(1), .., V(N) by the plain O(K N^2) programme."""
    n = len(entropies)
    ends = np.arange(n + 1)
    cost = np.full((n + 1, n + 1), np.inf)
    for i in range(n):
        cost[i, i + 1 :] = (ends[i + 1 :] - i) * entropies[i] - np.cumsum(entropies[i:])
    best, found = np.where(ends == 0, 0.0, np.inf), []
    for _ in range(n):
        best = (best[:, None] + cost).min(0)
        found.append(best[n])
    return np.array(found)


# Reference values, to the digits printed.

TOTALS = {
    "permutation": "252.308 1167.257 125.299",
    "one-hot": ".99804 5.54518 .49998",
    "balanced": "2.99936 174.446 2.50017",
    "markov": "5.18382 4.38680 1.61083",
    "sudoku": "16.51775 5.66296 3.74849",
}
COSTS = [  # uniform, cosine, square root, log-odds, TC, DTC, optimal
    ("permutation", 8, "59.3184 77.0971 50.0745 89.8862 77.2680 133.0079 49.96364"),
    ("permutation", 32, "17.5434 25.1241 11.7796 17.3699 14.6145 45.4592 11.45724"),
    ("one-hot", 8, ".24079 .31099 .20360 .36106 .30464 .52850 .20259"),
    ("balanced", 32, "1.41028 1.66125 .10548 .24221 .09541 2.05663 .09325"),
    ("markov", 8, ".53626 .65010 .53621 .78331 1.35189 .95219 .53363"),
    ("sudoku", 4, "2.22924 2.32353 2.15137 2.34849 6.97716 2.74123 1.55878"),
    ("sudoku", 8, ".73870 .52649 .41996 .86455 1.82765 .52649 .34695"),
]


def assert_printed(value, text):
    digits = len(text.partition(".")[2])
    assert f"{value:.{digits}f}".lstrip("0") == text


@pytest.mark.parametrize("name", TOTALS)
def test_correlations_are_the_reference(profiles, name):
    profile = profiles[name]
    values = (profile.total_correlation, profile.dual_total_correlation, profile.mixed)
    for value, text in zip(values, TOTALS[name].split()):
        assert_printed(value, text)


@pytest.mark.parametrize(("name", "steps", "row"), COSTS)
def test_costs_are_the_reference(profiles, name, steps, row):
    profile = profiles[name]
    n = profile.length
    found = [
        plans.uniform(n, steps),
        plans.cosine(n, steps),
        plans.square_root(profile, steps),
        plans.log_odds(n, steps),
        plans.tc(n, steps),
        plans.dtc(n, steps),
        plans.optimal(profile, steps=steps),
    ]
    for plan, text in zip(found, row.split()):
        assert len(plan) == steps
        assert_printed(profile.kl(plan), text)


def test_boundaries_are_the_reference(profiles):
    assert plans.boundaries(plans.optimal(profiles["permutation"], steps=8)) == (
        *(0, 54, 102, 144, 179, 208, 231, 247, 256),
    )
    assert plans.boundaries(plans.cosine(16, 4)) == (0, 1, 5, 10, 16)
    assert plans.boundaries(plans.log_odds(16, 4)) == (0, 2, 6, 12, 16)
    assert plans.boundaries(plans.tc(16, 4)) == (0, 9, 13, 15, 16)
    assert plans.boundaries(plans.dtc(16, 4)) == (0, 2, 6, 14, 16)
    assert plans.boundaries(plans.optimal(profiles["sudoku"], steps=4)) == (0, 3, 5, 8, 16)
    assert plans.boundaries(plans.cosine(16, 8)) == (0, 1, 2, 3, 5, 7, 10, 13, 16)
    assert plans.boundaries(plans.optimal(profiles["sudoku"], steps=8)) == (0, 1, 2, 3, 4, 5, 7, 10, 16)


def test_numbers_of_steps_are_the_reference():
    assert [len(rule(1024, 0.1)) for rule in (plans.tc_at, plans.dtc_at, plans.log_odds_at)] == [50, 53, 103]
    assert len(plans.log_odds_at(1024, 0.5)) == 27
    assert len(plans.chen_cong_li_tc(1024, 10)) == 64
    assert plans.chen_cong_li_dtc(1024, 10) == plans.chen_cong_li_tc(1024, 10)[::-1]
    assert bounds.steps_for(10, 1, 1024) == 89


# The identity, by enumeration.


def partitions(sizes, left):
    if not sizes:
        yield ()
        return
    for block in itertools.combinations(left, sizes[0]):
        rest = tuple(n for n in left if n not in block)
        for others in partitions(sizes[1:], rest):
            yield (block, *others)


def both_kls(joint, sizes):
    """KL with the order disclosed, and KL of the law mixed over orders, for exact conditionals."""
    axes = tuple(range(joint.ndim))

    def marginal(seen):
        return joint.sum(tuple(axis for axis in axes if axis not in seen), keepdims=True)

    outputs = []
    for blocks in partitions(sizes, axes):
        output, seen = np.ones_like(joint), ()
        for block in blocks:
            for n in block:
                with np.errstate(invalid="ignore"):
                    output = output * np.nan_to_num(marginal((*seen, n)) / marginal(seen))
            seen += block
        outputs.append(output)
    real = joint > 0

    def kl(output):
        return float((joint[real] * np.log(joint[real] / output[real])).sum())

    return np.mean([kl(output) for output in outputs]), kl(np.mean(outputs, axis=0))


def joint_of(law, vocab, length):
    words = torch.tensor(list(itertools.product(range(vocab), repeat=length)))
    return law.log_prob(words).exp().double().numpy().reshape((vocab,) * length)


@pytest.mark.parametrize(
    ("law", "sizes", "disclosed", "mixed"),
    [
        (laws.Markov(FAIR, flipping(0.1), 6), (2, 2, 2), 0.31992, 0.14133),
        (laws.Markov(FAIR, flipping(0.1), 6), (1, 2, 3), 0.22127, 0.06291),
        (laws.Balanced(6, 3), (2, 2, 2), 0.50398, 0.35222),
    ],
)
def test_disclosed_kl_is_the_riemann_sum_and_the_mixed_law_is_closer(law, sizes, disclosed, mixed):
    found = both_kls(joint_of(law, 2, 6), sizes)
    assert found == pytest.approx((disclosed, mixed), abs=6e-6)
    assert law.profile().kl(sizes) == pytest.approx(found[0], abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_identity_on_random_joints(seed):
    rng = np.random.default_rng(seed)
    joint = rng.dirichlet(np.full(3**4, 0.3)).reshape((3,) * 4)
    profile = laws.Table(torch.from_numpy(np.log(joint).ravel()), 4).profile()
    for sizes in [(4,), (2, 2), (1, 3), (3, 1), (1, 2, 1), (1, 1, 1, 1)]:
        disclosed, mixed = both_kls(joint, sizes)
        assert profile.kl(sizes) == pytest.approx(disclosed, abs=1e-12)
        assert mixed <= disclosed + 1e-12


# Exact search.


def test_optimal_equals_the_plain_programme_on_1000_random_profiles():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        entropies = random_entropies(rng, int(rng.integers(1, 25)))
        profile = Profile(entropies, exact=False)
        n, best, slack = profile.length, oracle(entropies), 1e-11
        assert plans.all_budgets(profile, n) == pytest.approx(best, abs=slack)
        for steps in rng.integers(1, n + 1, size=4).tolist():
            plan = plans.optimal(profile, steps=steps)
            assert len(plan) == steps
            assert min(plan) >= 1
            assert profile.kl(plan) == pytest.approx(best[steps - 1], abs=slack)
        for max_kl in (1e-6 + rng.random(3) ** 2 * max(best[0], 1)).tolist():
            plan = plans.optimal(profile, max_kl=max_kl)
            assert profile.kl(plan) <= max_kl
            assert len(plan) == 1 + np.argmax(best <= max_kl)
            assert profile.kl(plan) == pytest.approx(best[len(plan) - 1], abs=slack)


def test_budgets_of_a_falling_profile_are_convex_and_unsorted_ones_need_not_be():
    rng = np.random.default_rng(1)
    for _ in range(50):
        assert (np.diff(plans.all_budgets(falling(rng.random(20)), 20), 2) >= -1e-12).all()
    rises = Profile([0.0, 1.0, 1.0, 2.0], stderr=np.ones(4))
    assert plans.all_budgets(rises, 4) == [-4, -2, -1, 0]


def test_extremes_of_the_search():
    flat = Profile(np.ones(9))
    assert plans.optimal(flat, max_kl=0.0) == (9,)
    assert sorted(plans.optimal(flat, steps=9)) == [1] * 9
    assert plans.optimal(Profile([0.7]), steps=1) == (1,)
    jump = laws.ReedSolomon(16, 5, 17).profile()
    assert plans.optimal(jump, max_kl=0.0) == (5, 11)
    assert jump.kl(plans.optimal(jump, steps=3)) == 0
    assert plans.optimal(laws.Permutation(64).profile(), max_kl=0.0) == (1,) * 64
    assert plans.optimal(Profile([2.0, 1.0, 1.0, 1.0, 0.0, 0.0]), max_kl=0.0) == (1, 3, 2)
    assert plans.optimal(Profile([1.0, 2.0, 2.0], exact=False), max_kl=0.0) == (3,)


def test_long_profiles_take_few_sweeps(monkeypatch):
    from unmask.planning import search as plan_search

    calls = []
    sweep = plan_search._sweep
    monkeypatch.setattr(plan_search, "_sweep", lambda *args: calls.append(1) or sweep(*args))
    x = np.arange(6000) / 6000
    for shape in (np.exp(-25 * x), np.exp(-300 * x), 1 - x**9, np.exp(-1 / (1.001 - x)), (x < 0.3) - 0.1 * x):
        for steps in (7, 300, 5000):
            calls.clear()
            plans.optimal(Profile(2 + shape), steps=steps)
            assert len(calls) <= 45


# Certificates and bounds.


def test_certificates_hold_on_1000_random_laws():
    # Every falling sequence is, nearly, the profile of some law, so random ones are random laws.
    rng = np.random.default_rng(2)
    for _ in range(1000):
        n = int(rng.integers(2, 60))
        profile = falling(rng.random(n) ** rng.integers(1, 20))
        steps = int(rng.integers(1, n + 1))
        cuts = rng.permutation(np.arange(1, n))[: steps - 1]
        random_plan = plans.sizes_between([0, *sorted(cuts.tolist()), n])
        for plan in (random_plan, plans.tc(n, steps), plans.dtc(n, steps), plans.log_odds(n, steps)):
            report = plans.describe(plan, profile)
            for name, bound in report.bounds.items():
                assert report.kl <= bound + 1e-9, name


@pytest.mark.parametrize("rho", [0.03, 0.1, 0.5, 1.0, 2.5])
def test_rules_keep_their_promise_and_certificates_are_tight(rho):
    for n in (1, 2, 17, 200):
        assert plans.certificates(plans.tc_at(n, rho)).tc <= rho + 1e-12
        assert plans.certificates(plans.dtc_at(n, rho)).dtc <= rho + 1e-12
        assert plans.certificates(plans.log_odds_at(n, rho)).log_odds <= rho + 1e-12
    plan = plans.dtc_at(200, rho)
    ratios = []
    for jump in range(1, 200):  # one jump at i costs (end of its block - i) times the jump; its DTC is i
        profile = Profile(np.where(np.arange(200) < jump, 1.0, 0.0))
        ratios.append(profile.kl(plan) / profile.dual_total_correlation)
    assert max(ratios) == pytest.approx(plans.certificates(plan).dtc)


def test_fewest_steps_for_a_promise_have_the_least_rho():
    for steps in (2, 5, 13, 40, 64):
        for make, name in ((plans.tc, "tc"), (plans.dtc, "dtc"), (plans.log_odds, "log_odds")):
            rho = getattr(plans.certificates(make(64, steps)), name)
            rule = getattr(plans, f"{name}_at")
            assert len(make(64, steps)) == steps
            assert rho == 0 or len(rule(64, rho * (1 - 1e-6))) > steps


def test_block_bound_is_attained_by_codes():
    for n, k, size in [(12, 4, 3), (12, 9, 2), (20, 6, 5)]:
        profile = laws.ReedSolomon(n, k, 23).profile()
        plan = (k - 1, size, n - size - k + 1)
        assert profile.kl(plan) == pytest.approx((size - 1) * math.log(23))
        assert bounds.by_blocks(plan, profile) == pytest.approx(profile.kl(plan))
    assert bounds.by_vocabulary((3, 3), 23) == pytest.approx(2 * math.log(23))


def test_random_phase_halves_the_worst_case():
    step = Profile(np.where(np.arange(24) < 1, 1.0, 0.0))
    assert step.kl((4,) * 6) == 3
    assert plans.phase_size(24, 7) == 4
    costs = [step.kl(plans.random_phase_uniform(24, 7, offset=first)) for first in (1, 2, 3, 4)]
    assert np.mean(costs) == pytest.approx(1.5)
    assert bounds.by_random_phase(4, step) == pytest.approx(1.5)


def test_random_phase_bound_holds_for_every_jump():
    for jump in range(1, 24):
        step = Profile(np.where(np.arange(24) < jump, 1.0, 0.0))
        for steps in (2, 3, 7, 24):
            size = plans.phase_size(24, steps)
            made = [plans.random_phase_uniform(24, steps, offset=first) for first in range(1, size + 1)]
            assert max(map(len, made)) <= steps
            assert np.mean([step.kl(plan) for plan in made]) <= bounds.by_random_phase(size, step) + 1e-12


def test_pair_copies_need_a_random_order():
    # Four pairs of equal bits: left to right every block of two is a pair and costs ln 2.
    half = (np.eye(2) / 2).reshape(2, 2)
    joint = np.einsum("ab,cd,ef,gh->abcdefgh", half, half, half, half)
    profile = laws.Table(torch.from_numpy(np.log(np.maximum(joint, 1e-300)).ravel()), 8).profile()
    plan = (2, 2, 2, 2)
    assert profile.kl(plan) == pytest.approx(4 / 7 * math.log(2))
    assert bounds.by_any_order(plan, 2) == pytest.approx(4 * math.log(2))


def test_geometric_grid_has_its_mean_length_and_weight():
    n, steps = 1000, 40
    made = [plans.random_phase_geometric(n, steps, offset=(j + 0.5) / 500) for j in range(500)]
    assert np.mean([len(plan) for plan in made]) == pytest.approx(36.6, abs=0.05)
    i, paid = np.arange(1, n), np.zeros(n + 1)
    for plan in made:
        for a, b in itertools.pairwise(plans.boundaries(plan)):
            paid[a + 1 : b] += np.arange(b - a - 1, 0, -1) / len(made)
    growth = math.log(n) / steps
    assert (paid[1:n] / i).max() == pytest.approx(math.expm1(growth) / growth - 1, abs=1.5e-3)
    mirrored = plans.random_phase_geometric(n, steps, offset=0.25, mirrored=True)
    assert mirrored == plans.random_phase_geometric(n, steps, offset=0.25)[::-1]
    # Mirrored: what is paid for an increment at n - i, against n - i.
    limit = 1 - -math.expm1(-growth) / growth
    back = np.zeros(n + 1)
    for plan in made:
        for a, b in itertools.pairwise(plans.boundaries(plan[::-1])):
            back[a + 1 : b] += np.arange(b - a - 1, 0, -1) / len(made)
    assert (back[1:n] / (n - i)).max() == pytest.approx(limit, abs=1.5e-3)


def test_chen_cong_li_plan_keeps_its_promise_within_its_bound():
    rng = np.random.default_rng(3)
    for _ in range(200):
        n = int(rng.integers(2, 200))
        profile = falling(rng.random(n) ** 6)
        ratio = float(rng.uniform(0.2, 30))
        for total, make in (
            (profile.total_correlation, plans.chen_cong_li_tc),
            (profile.dual_total_correlation, plans.chen_cong_li_dtc),
        ):
            plan = make(n, ratio)
            assert profile.kl(plan) <= total / ratio + 1e-9
            assert len(plan) <= bounds.steps_for(ratio, 1.0, n)


# Growth and limits.


def test_uniform_plans_converge_as_one_over_steps_with_the_predicted_constant():
    n = 4096
    profile = Profile(1 - (np.arange(n) / n) ** 4)
    steps = np.array([32, 64, 128, 256])
    costs = np.array([profile.kl(plans.uniform(n, k)) for k in steps.tolist()])
    assert np.diff(np.log(costs)) / np.diff(np.log(steps)) == pytest.approx(-1, abs=0.05)
    assert costs == pytest.approx((n / steps - 1) / 2 * profile.information[-1], rel=0.025)
    best = np.array([profile.kl(plans.optimal(profile, steps=k)) for k in steps.tolist()])
    # gain of the square-root rule: int phi' / (int sqrt phi')^2 = 1 / 0.64
    assert (costs / best)[0] == pytest.approx(1.5625, rel=0.03)


def test_continuum_numbers_are_the_reference():
    n, steps = 1000, 250
    profile = Profile(1 - (np.arange(n) / n) ** 4)
    assert_printed(profile.kl(plans.optimal(profile, steps=steps)), ".789")
    assert_printed(profile.kl(plans.uniform(n, steps)), "1.495")

    def size(t, lam):
        return max(1.0, lam / (2 * t**1.5)) if t > 0 else math.inf

    lam = brentq(lambda lam: quad(lambda t: 1 / size(t, lam), 0, 1, limit=200)[0] - steps / n, 0.1, 100)
    limit = 0.5 * quad(lambda t: (size(t, lam) - 1) * 4 * t**3, 1e-12, 1, limit=200)[0]
    assert_printed(limit, ".780")
    assert plans.predicted_kl(profile, steps) == pytest.approx(limit, rel=0.01)
    unbounded = n / (2 * steps) * quad(lambda t: 2 * t**1.5, 0, 1)[0] ** 2
    assert_printed(unbounded, "1.280")


def test_continuum_rule_approaches_the_optimum_on_smooth_profiles():
    x = np.arange(2000) / 2000
    profile = Profile(2 - x / (x + 0.05))
    excess = []
    for steps in (10, 40, 160):
        best = profile.kl(plans.optimal(profile, steps=steps))
        excess.append(profile.kl(plans.continuum(profile, steps)) / best - 1)
        assert plans.predicted_kl(profile, steps) == pytest.approx(best, rel=0.15)
    assert excess[0] < 0.1
    assert excess[-1] < 0.02


def test_continuum_rule_stops_right_before_a_single_jump():
    for jump in range(90, 110):
        x = np.arange(256)
        profile = Profile(np.where(x < jump, 2.0, 1.0) - 1e-5 * x)
        best = profile.kl(plans.optimal(profile, steps=8))
        assert profile.kl(plans.continuum(profile, 8)) < 2 * best < 0.1


def test_continuum_rule_fails_on_concentrated_profiles_where_the_optimum_does_not():
    profile = laws.NoisyRepetition(256, 0.1).profile()
    best = profile.kl(plans.optimal(profile, steps=8))
    assert best < 0.04
    assert profile.kl(plans.continuum(profile, 8)) > 10 * best
    assert profile.kl(plans.square_root(profile, 8)) > 20 * best


@pytest.mark.parametrize("family", ["repetition", "code", "parity"])
def test_cost_at_a_fixed_block_length_is_free_of_the_dimension(family):
    costs, limits = [], []
    for n in (2**4, 2**7, 2**10, 2**14):
        law = {
            "repetition": lambda n: laws.Repetition(n, 2).profile(),
            "code": lambda n: Profile(np.where(np.arange(n) < n // 2 + 3, math.log(2), 0.0)),
            "parity": lambda n: laws.LatentParity(n - 4, 4).profile(),
        }[family](n)
        plan = plans.uniform(n, n // 8)
        costs.append(law.kl(plan))
        limits.append(bounds.by_vocabulary(plan, 2))
    assert limits == pytest.approx([7 * math.log(2)] * 4)
    assert max(costs) <= limits[0] + 1e-12
    assert costs[-1] == pytest.approx(costs[1], rel=0.2)


def test_permutations_in_few_rounds_lose_the_known_share():
    n, share = 4096, 0.0  # Wen, Liang, Lu: E/N -> 1 - rho_R with rho_R = exp(rho_{R-1} - 1)
    profile = laws_permutation(n)
    for steps in (1, 2, 3, 4):
        found = profile.kl(plans.optimal(profile, steps=steps)) / n
        assert found == pytest.approx(1 - share, abs=2e-3)
        share = math.exp(share - 1)


def laws_permutation(n):
    return Profile(np.log(n - np.arange(n)))


# Families.

FAMILIES = [plans.uniform, plans.cosine, plans.arccos, plans.tc, plans.dtc, plans.log_odds]


@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize("n", [1, 2, 3, 16, 81])
def test_families_keep_their_length_and_steps(make, n):
    for steps in range(1, n + 1):
        plan = make(n, steps)
        assert plans.check(plan, n) == plan
        assert len(plan) == steps
        assert all(type(size) is int for size in plan)


def test_arccos_is_the_halton_plan():
    n, steps = 256, 32
    ends = [
        max(k, math.floor(n * (1 - math.acos(k / steps) / (math.pi / 2)) + 1e-9)) for k in range(1, steps)
    ]
    assert plans.boundaries(plans.arccos(n, steps))[1:-1] == tuple(ends)


def test_profile_rules_keep_their_length_and_steps():
    rng = np.random.default_rng(4)
    for _ in range(200):
        profile = Profile(random_entropies(rng, int(rng.integers(1, 30))), exact=False)
        steps = int(rng.integers(1, profile.length + 1))
        for make in (plans.square_root, plans.continuum):
            assert len(plans.check(make(profile, steps), profile.length)) == steps


def test_random_phases_follow_their_generator_only():
    state = torch.random.get_rng_state()
    for make in (plans.random_phase_uniform, plans.random_phase_geometric):
        drawn = [make(100, 7, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2, 3, 4, 5)]
        assert drawn[0] == drawn[1]
        assert len(set(drawn)) > 1
        assert all(sum(plan) == 100 for plan in drawn)
    assert torch.equal(state, torch.random.get_rng_state())


def compositions(n):
    """All plans of n positions."""
    return [()] if n == 0 else [(k, *rest) for k in range(1, n + 1) for rest in compositions(n - k)]


def test_shares_of_a_plan_have_their_share_of_the_steps():
    for whole in compositions(7):
        for n in range(1, 12):
            found = plans.in_proportion(whole, n)
            assert sum(found) == n
            assert min(found) >= 1
            assert len(found) == min(len(whole), -(-len(whole) * n // 7))
        assert plans.in_proportion(whole, 7) == whole
    # the boundaries are those of docs/codec.md: k K = i M + r, floor((a_i M + (a_{i+1} - a_i) r) n / (M N))
    whole, at = (3, 9, 5, 8, 15), (0, 3, 12, 17, 25, 40)
    for n, steps in ((30, 4), (24, 3), (16, 2), (8, 1)):
        marks = [divmod(5 * k, steps) for k in range(steps)]
        cut = [(at[i] * steps + (at[i + 1] - at[i]) * r) * n // (steps * 40) for i, r in marks] + [n]
        assert plans.in_proportion(whole, n) == tuple(b - a for a, b in pairwise(cut))
    for wrong in ((), (0,), (-1,), (2, 0, 3)):
        with pytest.raises(ValueError, match="expected at least one, of 1 or more positions each"):
            plans.in_proportion(wrong, 3)


def test_shares_of_an_even_plan_are_even():
    for n in range(1, 40):
        found = plans.in_proportion(plans.uniform(40, 8), n)
        assert max(found) - min(found) <= 1


def test_stages_share_the_steps_at_the_least_cost():
    rng = np.random.default_rng(5)
    for _ in range(30):
        stages = [Profile(random_entropies(rng, n), exact=False) for n in (4, 7, 5)]
        steps = int(rng.integers(3, 17))
        made = plans.staged(stages, steps)
        assert sum(map(len, made)) == steps
        cost = sum(stage.kl(plan) for stage, plan in zip(stages, made))
        curves = [oracle(stage.entropies) for stage in stages]
        best = min(
            curves[0][a - 1] + curves[1][b - 1] + curves[2][steps - a - b - 1]
            for a in range(1, 5)
            for b in range(1, 8)
            if 1 <= steps - a - b <= 5
        )
        assert cost == pytest.approx(best, abs=1e-12)
    even = plans.staged(stages, 9, equal=True)
    assert even == tuple(plans.optimal(stage, steps=3) for stage in stages)
    short = [Profile([3.0, 2.0, 1.0]), Profile([2.0, 1.0]), Profile([1.0])]
    assert [tuple(map(len, plans.staged(short, k, equal=True))) for k in range(3, 7)] == [
        (1, 1, 1),
        (1, 2, 1),
        (2, 2, 1),
        (3, 2, 1),
    ]
    for steps in (2, 17):
        with pytest.raises(ValueError, match=r"expected 3\.\.16"):
            plans.staged(stages, steps)


# Reports, files, errors.


def test_report_states_cost_error_and_calls(profiles):
    sudoku = profiles["sudoku"]
    report = plans.describe([4, 4, 4, 4], sudoku)
    assert (report.calls, report.kl_stderr) == (4, 0.0)
    assert report.kl == pytest.approx(2.22924, abs=1e-5)
    assert report.code_length == pytest.approx(report.kl + math.log(288))
    measured = Profile(sudoku.entropies, stderr=np.full(16, 0.1))
    weights = np.tile([3, -1, -1, -1], 4)
    expected = 0.1 * math.sqrt((weights**2).sum())
    assert plans.describe((4, 4, 4, 4), measured).kl_stderr == pytest.approx(expected)


def test_plan_files_come_back_as_they_were(tmp_path, profiles):
    sudoku = Profile(profiles["sudoku"].entropies, provenance={"law": "sudoku 4x4"})
    plan = plans.optimal(sudoku, steps=4)
    plans.save(tmp_path / "plan.json", plan, family="optimal", profile=sudoku)
    stored = plans.load(tmp_path / "plan.json")
    assert stored.plan == plan
    assert (stored.family, stored.kl, stored.provenance) == (
        "optimal",
        sudoku.kl(plan),
        {"law": "sudoku 4x4"},
    )
    text = (tmp_path / "plan.json").read_text()
    assert '"nats per sequence"' in text
    assert '"order disclosed"' in text
    plans.save(tmp_path / "plan.json", (2, 3))
    assert plans.load(tmp_path / "plan.json") == plans.PlanFile((2, 3))
    with pytest.raises(ValueError, match="sums to 5"):
        plans.save(tmp_path / "plan.json", (2, 3), profile=sudoku)
    assert plans.load(tmp_path / "plan.json").plan == (2, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "not JSON"),
        ("[1, 2]", "expected unmask.plan"),
        ('{"format": "unmask.plan", "version": 2}', "version 2"),
        ('{"format": "unmask.plan", "version": 1}', "missing"),
        (
            '{"format": "unmask.plan", "version": 1, "sizes": [1, 2], "length": 4, "family": "x", '
            '"kl": null, "kl_stderr": null, "provenance": {}}',
            "sums to 3, expected 4",
        ),
    ],
)
def test_foreign_plan_files_are_refused(tmp_path, text, message):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        plans.load(tmp_path / "plan.json")


def test_check_takes_every_kind_of_plan():
    assert plans.check((2, 3), 5) == (2, 3)
    assert plans.check([np.int64(5)], 5) == (5,)
    assert plans.check(2, 5) == (2, 2, 1)
    assert plans.check(8, 5) == (5,)
    assert plans.check(plans.one_by_one, 3) == (1, 1, 1)
    assert plans.check((), 0) == ()
    assert plans.check(2, 0) == ()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: plans.check((2, 3), 6), "sums to 5, expected 6"),
        (lambda p: plans.check((2, 0, 3), 5), "step 1 unmasks 0"),
        (lambda p: plans.check((2, -1, 4), 5), "step 1 unmasks -1"),
        (lambda p: plans.check((2.5, 2.5), 5), "whole number"),
        (lambda p: plans.check(0, 5), "at least 1"),
        (lambda p: p.kl((2, 3)), "sums to 5, expected 4"),
        (lambda p: plans.uniform(4, 5), "at most 4"),
        (lambda p: plans.uniform(4, 0), "steps=0"),
        (lambda p: plans.cosine(4, 2.0), "whole number"),
        (lambda p: plans.one_by_one(0), "length=0"),
        (lambda p: plans.tc_at(4, float("nan")), "rho nan"),
        (lambda p: plans.tc_at(4, -1), "rho=-1"),
        (lambda p: plans.chen_cong_li_tc(4, math.inf), "ratio=inf"),
        (lambda p: plans.optimal(p), "exactly one"),
        (lambda p: plans.optimal(p, steps=2, max_kl=1.0), "exactly one"),
        (lambda p: plans.optimal(p, steps=5), "at most 4"),
        (lambda p: plans.optimal(p, steps=0), "steps=0"),
        (lambda p: plans.optimal(p, max_kl=-0.1), "max_kl -0.1"),
        (lambda p: plans.optimal(p, max_kl=float("nan")), "max_kl nan"),
        (lambda p: plans.all_budgets(p, 5), "at most 4"),
        (lambda p: plans.random_phase_uniform(4, 2), "neither generator nor offset"),
        (lambda p: plans.random_phase_uniform(4, 1, offset=1), "at least 2"),
        (lambda p: plans.random_phase_uniform(4, 2, offset=4), r"expected 1\.\.3"),
        (lambda p: plans.random_phase_geometric(4, 2, offset=2.0), "between 0 and 1"),
        (lambda p: bounds.steps_for(-1.0, 1.0, 4), "correlation=-1"),
        (lambda p: bounds.steps_for(1.0, 0.0, 4), "max_kl=0"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(Profile([3.0, 2.0, 1.0, 0.5]))
    assert "\n" not in str(caught.value)


def test_plans_for_any_count_are_optimal_for_each():
    profile = Profile(np.linspace(3, 0.1, 58) ** 2)
    by_share, by_steps = plans.for_counts(profile, share=0.25), plans.for_counts(profile, steps=7)
    assert by_share(58) == plans.optimal(profile, steps=15)
    assert by_steps(58) == plans.optimal(profile, steps=7)
    for n in (1, 5, 33, 70):
        assert by_share(n) == plans.optimal(resampled(profile, n), steps=-(-n // 4))
        assert len(by_steps(n)) == min(n, 7)
    for calls in range(1, 59):  # shares that do not end in binary
        assert len(plans.for_counts(profile, share=calls / 58)(58)) == calls


@pytest.mark.parametrize(
    "wrong", [{}, {"steps": 2, "share": 0.5}, {"steps": 0}, {"share": 0.0}, {"share": 1.5}]
)
def test_plans_for_any_count_refuse(wrong):
    with pytest.raises(ValueError, match="expected"):
        plans.for_counts(Profile([1.0, 0.5]), **wrong)
