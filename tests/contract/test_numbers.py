"""Numbers of Python, numpy and torch mean the same everywhere, and what is no such number is refused in one line."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import unmask
from unmask import Profile, codec, laws, networks, plans, profiles, scores, selectors
from unmask.denoisers import caches as caching
from unmask.kernels import commit, remask
from unmask.masking import corruption, schedules
from unmask.orders import presets, rules
from unmask.variants import genmd4, upscale

PROFILE = Profile([3.0, 2.0, 1.0, 0.5, 0.5, 0.5])
TIMES = schedules.uniform_grid(4)
LINEAR = schedules.linear()
T = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
LAW = laws.Permutation(4)
HIDDEN = torch.full((2, 4), LAW.mask_id)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(selector: unmask.Selector) -> list[Any]:
    """What a selector is called, and what is sampled with it."""
    return [selector.name, unmask.sample(LAW, HIDDEN, selector, generator=seeded()).tokens.tolist()]


def scored(score: unmask.Score) -> list[Any]:
    return drawn(selectors.top_k(score, 1))


def named(rule: Any) -> str:
    return str(getattr(rule, "name", getattr(rule, "__name__", None)))


def shape(schedule: schedules.Schedule) -> list[float]:
    return [*schedule.alpha(T).tolist(), *schedule.weight(T).tolist()]


def profile(law: laws.Law) -> list[Any]:
    return [repr(law), *law.entropies().tolist()]


WHOLE: dict[str, tuple[str, Callable[[Any], Any], int]] = {
    "top_k": ("plan", lambda k: drawn(selectors.top_k(scores.confidence, k)), 2),
    "hybrid": ("plan", lambda k: drawn(selectors.hybrid(scores.bisection, scores.confidence, 0.5, k)), 2),
    "in_blocks": ("block_length", lambda n: drawn(selectors.in_blocks(presets.confidence(), n)), 2),
    "preset": ("plan", lambda k: drawn(presets.random(k)), 3),
    "preset ancestral": ("steps", lambda n: drawn(presets.ancestral(n)), 5),
    "halton rows": ("height", lambda n: scored(scores.halton(n, 2)), 2),
    "halton columns": ("width", lambda n: scored(scores.halton(2, n)), 2),
    "spaced": ("distance", lambda n: drawn(rules.spaced(presets.confidence(2), n)), 2),
    "stable": ("history", lambda n: drawn(rules.stable(1, 0.6, 0.015, n)), 1),
    "information gain": ("candidates", lambda n: drawn(rules.information_gain(LAW, candidates=n)), 2),
    "maskgit_alpha": ("steps", lambda n: [rules.maskgit_alpha(4.5, n)(1), named(rules.maskgit_alpha(4.5, n))], 5),
    "race": ("plan", lambda k: drawn(rules.race(k)), 2),
    "one_by_one": ("length", plans.one_by_one, 5),
    "uniform length": ("length", lambda n: plans.uniform(n, 2), 5),
    "uniform steps": ("steps", lambda n: plans.uniform(7, n), 3),
    "cosine": ("steps", lambda n: plans.cosine(9, n), 3),
    "doubling": ("length", plans.doubling, 9),
    "tc": ("steps", lambda n: plans.tc(9, n), 3),
    "log_odds_at": ("length", lambda n: plans.log_odds_at(n, 0.5), 9),
    "phase": ("offset", lambda n: plans.random_phase_uniform(9, 4, offset=n), 2),
    "phase_size": ("length", lambda n: plans.phase_size(n, 3), 9),
    "chen": ("length", lambda n: plans.chen_cong_li_tc(n, 2.0), 9),
    "check": ("masked_count", lambda n: plans.check((2, 1), n), 3),
    "check of k": ("plan", lambda k: plans.check(k, 5), 2),
    "rescaled": ("length", lambda n: plans.rescaled((1, 2, 3), n), 12),
    "in_proportion": ("length", lambda n: plans.in_proportion((1, 2, 3), n), 6),
    "optimal": ("steps", lambda n: plans.optimal(PROFILE, steps=n), 3),
    "for_counts": ("steps", lambda n: plans.for_counts(PROFILE, steps=n)(4), 2),
    "all_budgets": ("steps", lambda n: plans.all_budgets(PROFILE, n), 3),
    "staged": ("steps", lambda n: plans.staged([PROFILE, PROFILE], n), 5),
    "continuum": ("steps", lambda n: plans.continuum(PROFILE, n), 3),
    "kl": ("plan", PROFILE.kl, 2),
    "conditioned": ("visible", lambda n: profiles.conditioned(PROFILE, n).entropies.tolist(), 2),
    "resampled": ("length", lambda n: profiles.resampled(PROFILE, n).entropies.tolist(), 3),
    "uniform_grid": ("steps", lambda n: schedules.uniform_grid(n).tolist(), 3),
    "cosine_grid": ("steps", lambda n: schedules.cosine_grid(n).tolist(), 3),
    "p2": ("steps", lambda n: [named(kernel) for kernel in remask.p2(n)], 3),
    "gibbs": ("count", lambda n: named(remask.gibbs(n)), 2),
    "cosine_counts": ("steps", lambda n: [commit.cosine_counts(n)(9), named(commit.cosine_counts(n))], 3),
    "annealed": ("steps", lambda n: [commit.annealed(4.5, n)(1), named(commit.annealed(4.5, n))], 3),
    "low_confidence": ("block_length", lambda n: [r := commit.low_confidence(0, 1, n), r.name][1], 2),
    "maskgit": ("plan", lambda k: commit.maskgit(1, k).name, 2),
    "blocks": ("block_length", lambda n: caching.blocks(LAW, n).block_length, 2),
    "d3pm": ("steps", lambda n: corruption.d3pm(n)(HIDDEN > 0, seeded()).weight.tolist(), 4),
    "next_few": ("few", lambda n: corruption.next_few(HIDDEN > 0, seeded(), n).weight.tolist(), 2),
    "stages": ("levels", lambda n: upscale.stages(2, n), 9),
    "base": ("base", lambda n: upscale.stages(n, 81), 3),
    "Permutation": ("length", lambda n: profile(laws.Permutation(n)), 4),
    "OneHot": ("length", lambda n: profile(laws.OneHot(n)), 4),
    "Balanced": ("ones", lambda n: profile(laws.Balanced(5, n)), 2),
    "Polya": ("length", lambda n: profile(laws.Polya([1, 2], n)), 4),
    "Mixture": ("length", lambda n: profile(laws.Mixture([1.0], [[0.5, 0.5]], n)), 4),
    "CurieWeiss": ("length", lambda n: profile(laws.CurieWeiss(n, 0.5)), 4),
    "Markov": ("length", lambda n: profile(laws.Markov([0.2, 0.8], [[0.5, 0.5], [0.1, 0.9]], n)), 4),
    "HMM": ("length", lambda n: repr(laws.HMM([1.0], [[1.0]], [[0.5, 0.5]], n)), 4),
    "Parity": ("n", lambda n: profile(laws.Parity(n, 3)), 4),
    "Repetition": ("q", lambda n: profile(laws.Repetition(4, n)), 4),
    "ReedSolomon": ("k", lambda n: profile(laws.ReedSolomon(4, n, 5)), 2),
    "LatentParity": ("n0", lambda n: profile(laws.LatentParity(n, 3)), 2),
    "Table": ("length", lambda n: profile(laws.Table([-math.log(16)] * 16, n)), 4),
    "Support": ("vocab", lambda n: profile(laws.Support([[0, 1], [1, 0]], n)), 3),
    "draws": ("n", lambda n: LAW.sample(n, seeded()).tolist(), 3),
    "transformer": ("depth", lambda n: networks.TransformerConfig(3, 4, 8, n, 2).depth, 2),
    "transformer classes": ("classes", lambda n: networks.TransformerConfig(3, 4, 8, 1, 2, classes=n).classes, 2),
    "unet": ("blocks", lambda n: networks.UNetConfig(3, 4, 4, blocks=n).blocks, 2),
    "compress": ("substeps", lambda n: coded(substeps=n), 2),
    "compress plan": ("plan", lambda n: coded(plan=n), 2),
    "compress batch": ("batch", lambda n: coded(batch=n), 2),
}  # fmt: skip

REAL: dict[str, tuple[str, Callable[[Any], Any], float]] = {
    "threshold": ("tau", lambda x: drawn(selectors.threshold(scores.confidence, x)), 0.5),
    "factor": ("limit", lambda x: drawn(selectors.factor(x)), 0.75),
    "entropy_budget": ("gamma", lambda x: drawn(selectors.entropy_budget(x)), 0.5),
    "share": ("share", lambda x: drawn(presets.hybrid(2, x)), 0.5),
    "moment": ("beta", lambda x: scored(scores.moment(x)), 2.5),
    "noise": ("scale", lambda x: scored(scores.with_noise(scores.margin, x, 3)), 0.5),
    "decay": ("decay", lambda x: scored(scores.position_prior(torch.ones(4), x)), 0.5),
    "clip": ("clip", lambda x: scored(scores.position_prior(torch.ones(4), 0.5, x)), 8.5),
    "sharpened": ("beta", lambda x: drawn(rules.sharpened(presets.random(), x)), 1.5),
    "race": ("alpha", lambda x: drawn(rules.race(1, x)), 1.5),
    "moment_sampler": ("alpha", lambda x: drawn(presets.moment_sampler(1, x)), 1.5),
    "tau": ("tau", lambda x: drawn(rules.stable(1, x)), 0.5),
    "eps": ("eps", lambda x: drawn(rules.stable(1, 0.5, x)), 0.5),
    "temperature": ("temperature", lambda x: drawn(rules.information_gain(LAW, temperature=x)), 0.5),
    "bypass": ("bypass", lambda x: drawn(rules.information_gain(LAW, bypass=x)), 0.5),
    "polynomial": ("power", lambda x: shape(schedules.polynomial(x)), 1.5),
    "linear": ("eps", lambda x: shape(schedules.linear(x)), 0.25),
    "low": ("low", lambda x: shape(schedules.geometric(x)), 0.125),
    "high": ("high", lambda x: shape(schedules.geometric(1e-3, x)), 8.5),
    "cap": ("eta", lambda x: named(remask.cap(x)), 0.5),
    "rescale": ("eta", lambda x: named(remask.rescale(x)), 0.5),
    "psi": ("kappa", lambda x: named(remask.psi(x)), 0.5),
    "between": ("t_on", lambda x: named(remask.between(remask.cap(0.5), x)), 0.5),
    "looped": ("t_on", lambda x: remask.looped(x)(T).tolist(), 0.5),
    "p2": ("eta", lambda x: [named(kernel) for kernel in remask.p2(2, x)], 0.5),
    "maskgit": ("temperature", lambda x: commit.maskgit(x, 1).name, 0.5),
    "low_confidence": ("temperature", lambda x: commit.low_confidence(x, 1).name, 0.5),
    "annealed": ("start", lambda x: named(commit.annealed(x, 3)), 4.5),
    "mixed": ("share", lambda x: parts_of(corruption.mixed(corruption.everything, corruption.next_few, x)), 0.5),
    "rho": ("rho", lambda x: plans.tc_at(9, x), 0.5),
    "ratio": ("ratio", lambda x: plans.chen_cong_li_tc(9, x), 1.5),
    "offset": ("offset", lambda x: plans.random_phase_geometric(9, 4, offset=x), 0.5),
    "max_kl": ("max_kl", lambda x: plans.optimal(PROFILE, max_kl=x), 0.5),
    "plan share": ("share", lambda x: plans.for_counts(PROFILE, share=x)(4), 0.5),
    "flip": ("flip", lambda x: profile(laws.NoisyRepetition(4, x)), 0.25),
    "coupling": ("coupling", lambda x: profile(laws.CurieWeiss(4, x)), 0.5),
    "band": ("band", lambda x: coded(band=x), 2.0**-30),
    "genmd4": ("eps", lambda x: bound(eps=x), 0.25),
}  # fmt: skip

SEEDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "at_random": ("seed", lambda s: scored(scores.at_random(s))),
    "with_noise": ("seed", lambda s: scored(scores.with_noise(scores.confidence, 1.0, s))),
    "moment": ("seed", lambda s: scored(scores.moment(2.0, s))),
    "halton": ("shift_seed", lambda s: scored(scores.halton(2, 2, s))),
    "ancestral": ("seed", lambda s: drawn(selectors.ancestral(LINEAR, TIMES, s))),
    "first_hitting": ("seed", lambda s: drawn(selectors.first_hitting(LINEAR, s))),
    "race": ("seed", lambda s: drawn(rules.race(1, 1.0, s))),
    "information gain": ("seed", lambda s: drawn(rules.information_gain(LAW, seed=s))),
    "genmd4": ("seed", lambda s: drawn(genmd4.reverse(torch.ones(4), TIMES, s))),
    "preset ancestral": ("seed", lambda s: drawn(presets.ancestral(4, s))),
    "preset first_hitting": ("seed", lambda s: drawn(presets.first_hitting(s))),
    "preset random": ("seed", lambda s: drawn(presets.random(1, s))),
    "preset noisy_margin": ("seed", lambda s: drawn(presets.noisy_margin(1, 0.5, s))),
    "preset moment": ("seed", lambda s: drawn(presets.moment(1, 2.0, s))),
    "preset moment_sampler": ("seed", lambda s: drawn(presets.moment_sampler(1, 1.0, s))),
    "preset race": ("seed", lambda s: drawn(presets.race(1, 1.0, s))),
    "preset halton": ("shift_seed", lambda s: drawn(presets.halton(2, 2, 1, s))),
    "preset information gain": ("seed", lambda s: drawn(presets.information_gain(LAW, seed=s))),
}  # fmt: skip


def coded(**settings: Any) -> bytes:
    """An archive of a permutation."""
    subject = codec.subjects.of_denoiser(LAW, 4, "a law")
    return codec.compress(subject, [np.array([2, 0, 3, 1])], **settings)


def parts_of(corrupt: corruption.Corrupt) -> list[Any]:
    found = corrupt(HIDDEN > 0, seeded())
    return [found.masked.tolist(), found.weight.tolist()]


def bound(**settings: Any) -> list[float]:
    tokens = torch.tensor([[0, 1, 2, 3]])
    return genmd4.nelbo(LAW, tokens, torch.ones(4), generator=seeded(), samples=2, **settings).value.tolist()


WHOLE_KINDS: dict[str, Callable[[int], Any]] = {
    "np.int64": np.int64,
    "np.int32": np.int32,
    "np.uint8": np.uint8,
    "0-d array": np.array,
    "0-d tensor": torch.tensor,
    "0-d tensor of 32 bits": lambda v: torch.tensor(v, dtype=torch.int32),
}
REAL_KINDS: dict[str, Callable[[float], Any]] = {
    "np.float64": np.float64,
    "np.float32": np.float32,
    "0-d array": np.array,
    "0-d tensor": torch.tensor,
    "0-d tensor of 64 bits": lambda v: torch.tensor(v, dtype=torch.float64),
}
NOTHING = torch.zeros((), dtype=torch.int64, device="meta")
NO_WHOLE = [
    1.5,
    True,
    np.True_,
    torch.tensor(True),
    torch.tensor(2.0),
    np.float64(2),
    "2",
    math.nan,
    math.inf,
    2j,
    NOTHING,
]
NO_REAL = [
    math.nan,
    np.float32("nan"),
    torch.tensor(math.nan),
    "0.5",
    True,
    torch.tensor(True),
    [0.5],
    np.ones(2),
    0.5j,
    NOTHING,
]
NO_SEED = [-1, 2**64, 1e23, 1.5, math.nan, True, "7", np.float64(3), torch.tensor(-1), [1, 2], NOTHING]


@pytest.mark.parametrize("kind", list(WHOLE_KINDS))
@pytest.mark.parametrize("case", list(WHOLE))
def test_whole_numbers_of_numpy_and_torch_mean_the_same(case: str, kind: str) -> None:
    _, call, value = WHOLE[case]
    assert call(WHOLE_KINDS[kind](value)) == call(value)


@pytest.mark.parametrize("kind", list(REAL_KINDS))
@pytest.mark.parametrize("case", list(REAL))
def test_real_numbers_of_numpy_and_torch_mean_the_same(case: str, kind: str) -> None:
    _, call, value = REAL[case]
    assert call(REAL_KINDS[kind](value)) == call(value)


@pytest.mark.parametrize("case", list(WHOLE))
def test_what_is_no_whole_number_is_refused_by_name(case: str) -> None:
    name, call, _ = WHOLE[case]
    for value in NO_WHOLE:
        refused(lambda value=value: call(value), name)


@pytest.mark.parametrize("case", list(REAL))
def test_what_is_no_real_number_is_refused_by_name(case: str) -> None:
    name, call, _ = REAL[case]
    for value in NO_REAL:
        refused(lambda value=value: call(value), name)


@pytest.mark.parametrize("case", list(SEEDS))
def test_seeds_are_whole_numbers_of_64_bits(case: str) -> None:
    name, call = SEEDS[case]
    for value in NO_SEED:
        refused(lambda value=value: call(value), name)
    assert call(np.int64(7)) == call(torch.tensor(7)) == call(7)
    call(0), call(2**64 - 1)


def test_an_order_with_a_seed_that_is_none_is_not_made() -> None:
    for make in (unmask.scores.at_random, lambda seed: unmask.scores.moment(2.0, seed)):
        with pytest.raises(ValueError, match="choose another seed"):
            make(2**64)


def refused(call: Callable[[], object], name: str) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 250


# --- seeds, settings and plans with the right values ----------------------------------------------


def test_seeds_that_differ_in_any_bit_give_other_orders() -> None:
    law = laws.Permutation(20)
    hidden = torch.full((1, 20), law.mask_id)
    orders = {
        tuple(int(info.rows[0, 0]) for info in trace(law, hidden, seed))
        for seed in (0, 1, 2**32, 2**63, 2**64 - 1)
    }
    assert len(orders) == 5


def trace(law: laws.Law, hidden: torch.Tensor, seed: int) -> tuple[unmask.Info, ...]:
    return unmask.sample(law, hidden, presets.random(1, seed), generator=seeded()).trace


PLANS: dict[str, Any] = {
    "list": [2, 1, 1],
    "of np.int64": (np.int64(2), np.int32(1), 1),
    "of 0-d tensors": tuple(torch.tensor([2, 1, 1])),
    "array": np.array([2, 1, 1]),
    "tensor": torch.tensor([2, 1, 1]),
}


@pytest.mark.parametrize("kind", list(PLANS))
def test_plans_of_numpy_and_torch_mean_the_same(kind: str) -> None:
    given, plain, four = PLANS[kind], (2, 1, 1), Profile([3.0, 2.0, 1.0, 0.5])
    assert drawn(presets.confidence(given)) == drawn(presets.confidence(plain))
    assert drawn(presets.confidence(lambda n: given)) != []
    assert drawn(presets.race(given)) == drawn(presets.race(plain))
    assert four.kl(given) == four.kl(plain) == 0.5 * 0 + (2 * 3.0 + 1.0 + 0.5) - 6.5
    assert plans.check(given, 4) == plain
    assert all(type(size) is int for size in plans.check(given, 4))
    assert plans.boundaries(given) == (0, 2, 3, 4)
    assert plans.sizes_between([np.int64(0), torch.tensor(2), 3, 4]) == plain
    assert plans.rescaled(given, 8) == plans.rescaled(plain, 8) == (4, 2, 2)
    assert plans.describe(given, four) == plans.describe(plain, four)
    assert plans.certificates(given) == plans.certificates(plain)
    assert coded(plan=given) == coded(plan=plain)


@pytest.mark.parametrize(
    "plan",
    [
        (2, 1.5, 0.5),
        (2, True, 1),
        (2, "2"),
        torch.tensor([2.0, 2.0]),
        np.ones((2, 2), int),
        {2, 1},
        None,
        "22",
    ],
)
def test_what_is_no_plan_is_refused(plan: Any) -> None:
    for call in (
        lambda: presets.confidence(plan),
        lambda: PROFILE.kl(plan),
        lambda: drawn(presets.confidence(lambda n: plan)),
        lambda: plans.check(plan, 4),
        lambda: plans.boundaries(plan),
        lambda: coded(plan=plan),
        lambda: commit.maskgit(1.0, plan),
    ):
        refused(call, "step size|plan")


def test_settings_of_a_step_are_checked_at_every_step() -> None:
    for make, name in (
        (lambda f: rules.sharpened(presets.random(), f), "beta at step 1"),
        (lambda f: rules.race(1, f), "alpha at step 1"),
        (lambda f: presets.moment(1, f), "beta at step 1"),
        (lambda f: presets.noisy_margin(1, f), "scale at step 1"),
        (lambda f: presets.hybrid(1, f), "share at step 1"),
    ):
        refused(lambda make=make: drawn(make(lambda n: 1.0 if n == 0 else math.nan)), name)
        assert drawn(make(lambda n: np.float64(0.5)))[1] == drawn(make(lambda n: 0.5))[1]


@pytest.mark.parametrize("low", [0.0, -1.0, math.nan])
def test_exponents_that_mean_nothing_are_refused_before_a_call(low: float) -> None:
    refused(lambda: rules.sharpened(presets.random(), low), "beta")
    refused(lambda: rules.race(1, low), "alpha")
    refused(lambda: scores.moment(low), "beta")


def test_times_fall_from_one_to_zero() -> None:
    for times in ([5.0, 0.0], [1.0, -1.0], [1.0, math.nan, 0.0], [math.inf, 0.0], [0.5, 0.5], [1.0]):
        for call in (
            lambda t: selectors.ancestral(LINEAR, t, 0),
            lambda t: remask.remdm(LINEAR.alpha, t, remask.cap(0.1)),
            lambda t: genmd4.reverse(torch.ones(3), t, 0),
        ):
            refused(lambda call=call, times=times: call(torch.tensor(times)), "times")
    assert drawn(selectors.ancestral(LINEAR, TIMES.numpy(), 3)) == drawn(
        selectors.ancestral(LINEAR, TIMES, 3)
    )


def test_a_huge_rho_unmasks_all_at_once() -> None:
    assert plans.tc_at(10, 1e308) == plans.dtc_at(10, 1e308) == (10,)
    assert plans.log_odds_at(10, 1e308) == (10,)
    assert plans.chen_cong_li_tc(10, 1e300) == (1,) * 10


def test_settings_that_no_header_holds_are_refused_before_an_archive_is_written() -> None:
    for name, value in (("substeps", 0), ("substeps", 2**16), ("seed", 2**63), ("band", -1.0)):
        refused(lambda name=name, value=value: coded(**{name: value}), name)


@pytest.mark.parametrize("values", [[1.0, -1.0], [math.nan, 1.0], [0.0, 0.0], [[1.0]], "ab", [1.0, math.inf]])
def test_background_frequencies_are_checked(values: Any) -> None:
    if isinstance(values, list):
        values = torch.tensor(values)
    refused(lambda: scores.position_prior(values), "background")


@pytest.mark.parametrize("kind", [np.asarray, torch.Tensor.tolist], ids=["array", "list"])
def test_arrays_and_lists_are_no_tensors_and_say_so(kind):
    law, order = unmask.laws.Permutation(3), unmask.selectors.top_k(unmask.scores.at_random(0), 1)
    masked, full = torch.full((2, 3), law.mask_id), torch.tensor([[0, 1, 2], [2, 1, 0]])
    ids, seen = torch.arange(2), torch.zeros(2, 3, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    calls = {
        "tokens": lambda: unmask.sample(law, kind(masked), order, generator=generator),
        "item_ids": lambda: unmask.sample(law, masked, order, generator=generator, item_ids=kind(ids)),
        "order_ids": lambda: unmask.log_likelihood(law, full, order, order_ids=kind(ids)),
        "visible": lambda: unmask.nelbo(law, full, generator=generator, visible=kind(seen)),
        "prompt": lambda: remask.sample(law, full, [remask.gibbs()], generator=generator, prompt=kind(seen)),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=f"^{name} of type .*; expected a tensor"):
            call()


def test_what_bounds_and_profiles_are_given_is_checked():
    law, generator = unmask.laws.Permutation(3), torch.Generator().manual_seed(0)
    wild, full, powers = torch.tensor([[0, 1, 7]]), torch.tensor([[0, 1, 2]]), torch.ones(3)
    genmd4, consistency = unmask.variants.genmd4, unmask.evaluation.consistency.consistency
    bad = {
        "token 7": [
            lambda: unmask.profiles.measure(law, wild, generator=generator, rounds=9),
            lambda: unmask.profiles.measure_gains(law, wild, edges=(0, 2), generator=generator),
            lambda: genmd4.nelbo(law, wild, powers, generator=generator),
            lambda: genmd4.exact_bound(law, wild, powers),
        ],
        "powers of shape": [
            lambda: genmd4.nelbo(law, full, powers[:2], generator=generator),
            lambda: genmd4.nelbo(law, full, -powers, generator=generator),
            lambda: genmd4.exact_bound(law, full, powers[:2]),
        ],
        "visible has dtype": [
            lambda: consistency(law, full, visible=torch.zeros(7, 3, dtype=torch.bool)),
            lambda: consistency(law, full, visible=torch.zeros(1, 3)),
        ],
        "batch_size": [lambda: consistency(law, full, batch_size=0)],
        "levels have dtype": [lambda: unmask.variants.upscale.encode_digits(torch.ones(1, 3), 2, 4)],
    }
    for message, calls in bad.items():
        for call in calls:
            with pytest.raises(ValueError, match=message):
                call()
