"""Exact laws against enumeration, closed forms and reference values. Nats unless said otherwise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from unmask import laws
from unmask.base.types import Denoiser
from unmask.laws import Law
from unmask.laws.between import at_every


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_table() -> laws.Table:
    probs = np.random.default_rng(3).dirichlet([0.3] * 81)
    probs[[4, 5, 40, 60, 61, 62]] = 0  # (1, 1, 1, 1) and others become null histories
    return laws.Table(torch.tensor(probs / probs.sum()).log(), 4)


CHAIN = np.random.default_rng(0).dirichlet([0.35] * 3, size=3)
ARROW = [[0.5, 0.5, 0.0], [0.0, 0.2, 0.8], [0.0, 0.0, 1.0]]
EMISSION = [[0.6, 0.4, 0.0], [0.0, 0.3, 0.7]]
NOISY = [[[0.8, 0.2, 0.0], [0.1, 0.6, 0.3]], [[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]]

SMALL: dict[str, Callable[[], Law]] = {
    "table": random_table,
    "support": lambda: laws.Support(torch.tensor([[0, 1, 2, 0], [0, 1, 1, 2], [2, 2, 2, 2]]), 3),
    "support of one": lambda: laws.Support(torch.tensor([[0, 1, 1]]), 2),
    "hamming": laws.Hamming74,
    "chain": lambda: laws.Markov(laws.stationary(CHAIN), CHAIN, 5),
    "chain, any start": lambda: laws.Markov([0.1, 0.7, 0.2], CHAIN, 5),
    "chain with zeros": lambda: laws.Markov([0.7, 0.3, 0.0], ARROW, 5),
    "chain of two": lambda: laws.Markov([0.1, 0.9], [[0.3, 0.7], [0.6, 0.4]], 2),
    "chain of one": lambda: laws.Markov([0.1, 0.9], [[0.3, 0.7], [0.6, 0.4]], 1),
    "permutation": lambda: laws.Permutation(4),
    "one-hot": lambda: laws.OneHot(5),
    "balanced": lambda: laws.Balanced(6, 3),
    "all ones": lambda: laws.Balanced(3, 3),
    "polya": lambda: laws.Polya([0.4, 2.0, 0.4], 4),
    "mixture": lambda: laws.Mixture([0.2, 0.5, 0.3], [[0.5, 0.5, 0], [0, 0.3, 0.7], [0, 0, 1]], 4),
    "two coins": lambda: laws.Mixture([0.25, 0.75, 0.0], [[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], 6),
    "noisy repetition": lambda: laws.NoisyRepetition(6, 0.1),
    "exact repetition": lambda: laws.NoisyRepetition(4, 0.0),
    "curie-weiss": lambda: laws.CurieWeiss(6, 1.3),
    "antiferromagnet": lambda: laws.CurieWeiss(5, -0.8),
    "parity": lambda: laws.Parity(4, 3),
    "composite parity": lambda: laws.Parity(3, 4),
    "repetition": lambda: laws.Repetition(4, 3),
    "reed-solomon": lambda: laws.ReedSolomon(4, 2, 5),
    "full reed-solomon": lambda: laws.ReedSolomon(3, 3, 3),
    "latent parity": lambda: laws.LatentParity(3, 3),
    "lopsided parity": lambda: laws.LatentParity(1, 4),
    "one hidden bit": lambda: laws.LatentParity(4, 1),
    "not all equal": lambda: laws.NotAllEqual(4, 3, 1),
    "one latent, two readings": lambda: laws.LatentsAndObservations(
        2, [[0, 1], [1, 0], [0, 0]], NOISY, [0.7, 0.3]
    ),
    "observed products": lambda: laws.LatentsAndObservations(
        2, [[0, 1], [1, 1]], torch.eye(3)[torch.arange(3)[:, None] * torch.arange(3) % 3], [1 / 3] * 3
    ),
}
MEASURED: dict[str, Callable[[], Law]] = {
    "hmm": lambda: laws.HMM([0.9, 0.1], [[0.7, 0.3], [0.2, 0.8]], EMISSION, 4),
    "hmm with zeros": lambda: laws.HMM([1, 0], [[0.5, 0.5], [0, 1]], [[1, 0], [0.5, 0.5]], 5),
    "tree": lambda: laws.TreeIsing(
        [-1, 0, 0, 1, -1, 4], [0, 0.6, -1.1, 0.3, 0, 2], [0.2, 0, -0.4, 0.1, 0.5, 0]
    ),
    "star": lambda: laws.TreeIsing([-1, 0, 0, 0, 0], 0.7, 0.1),
}
NAMES = [*SMALL, *MEASURED]
every_law = pytest.mark.parametrize("name", NAMES)
every_exact_law = pytest.mark.parametrize("name", list(SMALL))


@cache
def build(name: str) -> Law:
    return (SMALL | MEASURED)[name]()


@cache
def truth(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """All histories [C, L], their probabilities [C] and conditional probabilities [C, L, V], listed."""
    law = build(name)
    v, length = law.vocab_size, law.length
    sequences = torch.tensor(list(itertools.product(range(v), repeat=length)))
    histories = torch.tensor(list(itertools.product(range(v + 1), repeat=length)))
    probs = law.log_prob(sequences).exp()
    agree = torch.ones(len(histories), len(sequences), dtype=torch.bool)
    for n in range(length):
        agree &= (histories[:, n, None] == sequences[:, n]) | (histories[:, n, None] == v)
    weighted = agree.double() * probs
    mass = weighted.sum(1)
    joint = torch.stack([weighted @ (sequences == s).double() for s in range(v)], -1)
    uniform = torch.full_like(joint, 1 / v)
    conditional = torch.where(mass[:, None, None] > 0, joint / mass.clamp(min=1e-300)[:, None, None], uniform)
    visible = histories < v
    pinned = torch.nn.functional.one_hot(histories.clamp(max=v - 1), v).double()
    return histories, mass, torch.where(visible[..., None], pinned, conditional)


def exact_entropies(name: str) -> np.ndarray:
    """h(i) from the enumerated conditionals of all histories."""
    histories, mass, conditional = truth(name)
    length = histories.shape[1]
    hidden = (histories == build(name).mask_id).sum(1)
    entropy = mass * torch.special.entr(conditional).sum((1, 2))
    return np.array(
        [
            float(entropy[hidden == length - i].sum()) / ((length - i) * math.comb(length, i))
            for i in range(length)
        ]
    )


def correlations(h: np.ndarray) -> tuple[float, float, float]:
    """TC, DTC and M from the increments of a profile."""
    n = len(h)
    i, d = np.arange(1, n), -np.diff(h)
    return float(d @ (n - i)), float(d @ i), float(d @ (i * (n - i))) / n


def cost(h: np.ndarray, plan: tuple[int, ...]) -> float:
    starts = np.cumsum((0, *plan[:-1]))
    return float(np.array(plan) @ h[starts] - h.sum())


# --- every law ---


@every_law
def test_probabilities_sum_to_one(name: str) -> None:
    histories, mass, _ = truth(name)
    assert (histories[-1] == build(name).mask_id).all()
    assert float(mass[-1]) == pytest.approx(1, abs=1e-12)


@every_law
def test_conditionals_equal_enumeration_for_every_history(name: str) -> None:
    histories, _, conditional = truth(name)
    log_probs = build(name)(histories)
    assert log_probs.dtype == torch.float64
    assert not log_probs.isnan().any()
    torch.testing.assert_close(log_probs.exp(), conditional, rtol=1e-12, atol=1e-13)


@every_law
def test_null_histories_are_uniform_exactly(name: str) -> None:
    law = build(name)
    histories, mass, _ = truth(name)
    null = histories[mass == 0]
    masked = null == law.mask_id
    expected = torch.tensor(-math.log(law.vocab_size), dtype=torch.float64).expand(law.vocab_size)
    answers = law(null)[masked]
    assert torch.equal(answers, expected.expand_as(answers))


def test_the_catalogue_holds_laws_with_null_histories() -> None:
    with_null = {name for name in NAMES if (truth(name)[1] == 0).any()}
    assert with_null >= {"table", "support", "chain with zeros", "mixture", "hmm with zeros", "permutation"}
    assert with_null >= {"parity", "repetition", "reed-solomon", "latent parity", "balanced", "one-hot"}


@every_law
def test_chain_rule_in_random_orders_gives_log_prob(name: str) -> None:
    law = build(name)
    check_chain_rule(law, count=6, seed=1)


LARGE: dict[str, Callable[[], Law]] = {
    "sudoku": laws.Sudoku4,
    "permutation": lambda: laws.Permutation(30),
    "balanced": lambda: laws.Balanced(64, 20),
    "polya": lambda: laws.Polya([0.2] * 9, 50),
    "mixture": lambda: laws.Mixture([0.4, 0.6], np.random.default_rng(1).dirichlet([1] * 5, size=2), 60),
    "curie-weiss": lambda: laws.CurieWeiss(64, 2.0),
    "reed-solomon": lambda: laws.ReedSolomon(23, 9, 23),
    "parity": lambda: laws.Parity(40, 6),
    "latent parity": lambda: laws.LatentParity(20, 9),
    "chain": lambda: laws.Markov([0.2, 0.3, 0.5], CHAIN, 120),
    "hmm": lambda: laws.HMM([0.9, 0.1], [[0.9, 0.1], [0.05, 0.95]], EMISSION, 60),
    "tree": lambda: laws.TreeIsing([-1, *[n // 2 for n in range(59)]], 0.8, 0.05),
}


@pytest.mark.parametrize("name", list(LARGE))
def test_chain_rule_holds_for_long_sequences(name: str) -> None:
    check_chain_rule(LARGE[name](), count=4, seed=2)


def check_chain_rule(law: Law, count: int, seed: int) -> None:
    generator = seeded(seed)
    tokens = law.sample(count, generator)
    order = torch.rand(count, law.length, generator=generator).argsort(dim=1)
    state = torch.full_like(tokens, law.mask_id)
    total = torch.zeros(count, dtype=torch.float64)
    for i in range(law.length):
        rows = order[:, i : i + 1]
        symbols = tokens.gather(1, rows)
        total += law(state, rows)[:, 0].gather(1, symbols)[:, 0]
        state = state.scatter(1, rows, symbols)
    log_prob = law.log_prob(tokens)
    assert log_prob.isfinite().all()
    torch.testing.assert_close(total, log_prob, rtol=1e-11, atol=1e-11)


@every_law
def test_samples_follow_log_prob(name: str) -> None:
    law = build(name)
    n = 4000
    tokens = law.sample(n, seeded(11))
    assert tokens.dtype == torch.int64
    assert tokens.shape == (n, law.length)
    places = law.vocab_size ** torch.arange(law.length - 1, -1, -1)
    counts = torch.bincount((tokens * places).sum(1), minlength=law.vocab_size**law.length).double()
    sequences = torch.tensor(list(itertools.product(range(law.vocab_size), repeat=law.length)))
    probs = law.log_prob(sequences).exp()
    assert counts[probs == 0].sum() == 0
    assert abs(chi_square_z(counts[probs > 0], probs[probs > 0])) < 4


def chi_square_z(counts: Tensor, probs: Tensor) -> float:
    """Pearson's statistic, standardised by its exact variance, so small expected counts are no problem."""
    n, cells = float(counts.sum()), len(probs)
    if cells == 1:
        return 0.0
    statistic = float(((counts - n * probs) ** 2 / (n * probs)).sum())
    variance = 2 * (cells - 1) + (float((1 / probs).sum()) - cells**2 - 2 * cells + 2) / n
    return (statistic - (cells - 1)) / math.sqrt(variance)


def test_sudoku_samples_are_uniform() -> None:
    law = laws.Sudoku4()
    _, counts = torch.unique(law.sample(8640, seeded(5)), dim=0, return_counts=True)
    assert len(counts) == 288
    assert abs(chi_square_z(counts.double(), torch.full((288,), 1 / 288).double())) < 4


@every_law
def test_sampling_depends_on_the_generator_only(name: str) -> None:
    law = build(name)
    before = torch.get_rng_state()
    assert torch.equal(law.sample(7, seeded(3)), law.sample(7, seeded(3)))
    assert torch.equal(torch.get_rng_state(), before)
    assert law.sample(0, seeded(3)).shape == (0, law.length)


@every_law
def test_rows_full_and_partial_agree_with_the_whole(name: str) -> None:
    law = build(name)
    histories = truth(name)[0][::7]
    whole = law(histories)
    rows = torch.rand(len(histories), law.length, generator=seeded(1)).argsort(dim=1)[:, :2]
    expected = whole.gather(1, rows.unsqueeze(-1).expand(-1, -1, law.vocab_size))
    assert torch.equal(law(histories, rows), expected)
    assert torch.equal(law(histories, rows, time=torch.rand(len(histories), generator=seeded(2))), expected)
    log_probs, cache = law.full(histories)
    assert torch.equal(log_probs, whole)
    assert torch.equal(law.partial(histories, rows, cache), expected)
    assert torch.equal(law.full(histories, rows)[0], expected)


@every_law
def test_batch_rows_do_not_influence_each_other(name: str) -> None:
    law = build(name)
    histories = truth(name)[0][::13]
    together = law(histories)
    alone = torch.cat([law(histories[i : i + 1]) for i in range(len(histories))])
    assert torch.equal(together, alone)


@every_law
def test_empty_batches_and_rows(name: str) -> None:
    law = build(name)
    none = torch.zeros(0, law.length, dtype=torch.int64)
    assert law(none).shape == (0, law.length, law.vocab_size)
    assert law.log_prob(none).shape == (0,)
    hidden = torch.full((2, law.length), law.mask_id)
    assert law(hidden, torch.zeros(2, 0, dtype=torch.int64)).shape == (2, 0, law.vocab_size)


@every_law
def test_a_law_is_a_denoiser_and_leaves_its_input_alone(name: str) -> None:
    law = build(name)
    assert isinstance(law, Denoiser)
    assert law.mask_id == law.vocab_size
    histories = truth(name)[0]
    copy = histories.clone()
    law(histories)
    assert torch.equal(histories, copy)


# --- profiles ---


@every_exact_law
def test_entropies_equal_enumeration(name: str) -> None:
    h = build(name).entropies()
    assert h.dtype == np.float64
    np.testing.assert_allclose(h, exact_entropies(name), rtol=0, atol=1e-12)


@every_exact_law
def test_profiles_never_rise_and_sum_to_the_entropy(name: str) -> None:
    law = build(name)
    profile = law.profile()
    _, mass, _ = truth(name)
    complete = (truth(name)[0] != law.mask_id).all(1)
    assert (np.diff(law.entropies()) <= 1e-14).all()
    assert profile.exact
    assert profile.entropy == pytest.approx(float(torch.special.entr(mass[complete]).sum()), abs=1e-12)


@every_law
def test_tabulated_laws_are_the_same_law(name: str) -> None:
    law, table = build(name), laws.tabulated(build(name))
    histories = truth(name)[0]
    torch.testing.assert_close(table(histories).exp(), law(histories).exp(), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(table.entropies(), exact_entropies(name), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [*MEASURED, "chain with zeros", "polya", "latent parity"])
def test_measured_entropies_agree_with_exact_ones(name: str) -> None:
    mean, stderr = laws.estimate_entropies(build(name), 2000, seeded(8))
    gap = np.abs(mean - exact_entropies(name))
    assert (gap <= 4 * stderr + 1e-12).all()
    assert (stderr < 0.02).all()


@pytest.mark.parametrize("name", list(MEASURED))
def test_measured_profiles_carry_standard_errors(name: str) -> None:
    law = build(name)
    assert isinstance(law, laws.HMM | laws.TreeIsing)
    profile = law.profile(200, seeded(4))
    assert not profile.exact
    assert profile.stderr is not None
    np.testing.assert_array_equal(profile.entropies, law.entropies(200, seeded(4)))
    np.testing.assert_array_equal(law.entropies(), law.entropies())


FLIPS = [[0.7, 0.3], [0.3, 0.7]]

# TC, DTC and M in nats, as printed to the digits given (derived; each from the exact profile).
REFERENCES: dict[str, tuple[Callable[[], Law], tuple[float, float, float], float]] = {
    "permutation": (lambda: laws.Permutation(256), (252.308, 1167.257, 125.299), 5e-4),
    "one-hot": (lambda: laws.OneHot(256), (0.99804, 5.54518, 0.49998), 5e-6),
    "balanced": (lambda: laws.Balanced(256, 128), (2.99936, 174.446, 2.50017), 5e-4),
    "chain": (
        lambda: laws.Markov([0.5, 0.5], [[0.7, 0.3], [0.3, 0.7]], 64),
        (5.18382, 4.38680, 1.61083),
        5e-6,
    ),
    "sudoku": (laws.Sudoku4, (16.51775, 5.66296, 3.74849), 5e-6),
    "hamming": (laws.Hamming74, (3 * math.log(2), 4 * math.log(2), 1.14864), 5e-6),
}


@pytest.mark.parametrize("name", list(REFERENCES))
def test_reference_correlations(name: str) -> None:
    law, expected, tolerance = REFERENCES[name]
    assert correlations(law().entropies()) == pytest.approx(expected, abs=tolerance)


def test_reference_costs_of_uniform_plans() -> None:
    def uniform(name: str, steps: int) -> float:
        h = REFERENCES[name][0]().entropies()
        return cost(h, (len(h) // steps,) * steps)

    assert uniform("permutation", 8) == pytest.approx(59.3184, abs=5e-5)
    assert uniform("permutation", 32) == pytest.approx(17.5434, abs=5e-5)
    assert uniform("one-hot", 8) == pytest.approx(0.24079, abs=5e-6)
    assert uniform("balanced", 32) == pytest.approx(1.41028, abs=5e-6)
    assert uniform("chain", 8) == pytest.approx(0.53626, abs=5e-6)
    assert uniform("sudoku", 4) == pytest.approx(2.22924, abs=5e-6)
    assert uniform("sudoku", 8) == pytest.approx(0.73870, abs=5e-6)


def test_sudoku_profile_digits() -> None:
    digits = [
        1.3863,
        1.2137,
        1.0070,
        0.7521,
        0.5117,
        0.3247,
        0.2004,
        0.1226,
        0.0731,
        0.0409,
        0.0203,
        0.0081,
        0.0020,
    ]
    h = laws.Sudoku4().entropies()
    digits = "1.3863 1.2137 1.0070 .7521 .5117 .3247 .2004 .1226 .0731 .0409 .0203 .0081 .0020 0 0 0"
    np.testing.assert_allclose(h, [float(d) for d in digits.split()], rtol=0, atol=5e-5)
    assert h.sum() == pytest.approx(math.log(288), abs=1e-12)


def test_hamming_profile_in_bits() -> None:
    np.testing.assert_allclose(
        laws.Hamming74().entropies() / math.log(2), [1, 1, 1, 0.8, 0.2, 0, 0], atol=1e-12
    )


def test_reference_costs_of_a_three_state_chain() -> None:
    def chain(length: int) -> np.ndarray:
        return laws.Markov(laws.stationary(CHAIN), CHAIN, length).entropies()

    costs = [cost(chain(5), plan) for plan in ((2, 3), (1, 2, 2), (3, 2))]
    assert costs == pytest.approx([0.465945, 0.206934, 0.588609], abs=5e-7)
    costs = [cost(chain(8), plan) for plan in ((3, 2, 3), (1, 3, 4), (2, 3, 3))]
    assert costs == pytest.approx([0.572, 0.601, 0.505], abs=5e-4)


def test_symmetric_chain_equals_its_binomial_formula() -> None:
    n, flip = 24, 0.1
    shifted = [(1 - (1 - 2 * flip) ** k) / 2 for k in range(n)]

    def hb(p: float) -> float:
        return 0.0 if p in (0, 1) else -p * math.log(p) - (1 - p) * math.log(1 - p)

    def between(left: int, right: int) -> float:
        a, b = shifted[left], shifted[right]
        z = (1 - a) * (1 - b) + a * b
        return z * hb((1 - a) * (1 - b) / z) + (1 - z) * hb((1 - a) * b / (1 - z))

    expected = [math.log(2)]
    for i in range(1, n):
        sides = sum(2 * math.comb(n - r, i) * hb(shifted[r]) for r in range(1, n))
        pairs = [(a, b) for a in range(1, n) for b in range(1, n - a)] if i >= 2 else []
        inner = sum((n - a - b) * math.comb(n - 1 - a - b, i - 2) * between(a, b) for a, b in pairs)
        expected.append((sides + inner) / (n * math.comb(n - 1, i)))
    h = laws.Markov([0.5, 0.5], [[1 - flip, flip], [flip, 1 - flip]], n).entropies()
    np.testing.assert_allclose(h, expected, rtol=0, atol=1e-13)


LONG: dict[str, tuple[Callable[[], Law], float]] = {
    "permutation": (lambda: laws.Permutation(4096), math.lgamma(4097)),
    "balanced": (lambda: laws.Balanced(1024, 300), math.log(math.comb(1024, 300))),
    "one-hot": (lambda: laws.OneHot(1024), math.log(1024)),
    "latent parity": (lambda: laws.LatentParity(2**13, 2**13), 2**13 * math.log(2)),
    "reed-solomon": (lambda: laws.ReedSolomon(251, 100, 251), 100 * math.log(251)),
}


@pytest.mark.parametrize("name", list(LONG))
def test_long_profiles_sum_to_the_entropy(name: str) -> None:
    law, entropy = LONG[name]
    profile = law().profile()
    assert profile.entropy == pytest.approx(entropy, rel=1e-11)


def test_long_chain_profile_sums_to_the_entropy() -> None:
    law = laws.Markov([0.6, 0.2, 0.2], CHAIN, 512)
    powers = [np.linalg.matrix_power(CHAIN, n) for n in range(511)]
    rows = -(CHAIN * np.log(CHAIN)).sum(1)
    start = np.array([0.6, 0.2, 0.2])
    entropy = -(start * np.log(start)).sum() + sum(start @ power @ rows for power in powers)
    assert law.profile().entropy == pytest.approx(entropy, rel=1e-11)


@pytest.mark.parametrize("coupling", [0.5, 1.0, 1.5])
def test_long_curie_weiss_profile_sums_to_the_entropy(coupling: float) -> None:
    law = laws.CurieWeiss(512, coupling)
    first = [[1] * k + [0] * (512 - k) for k in range(513)]
    log_probs = law.log_prob(torch.tensor(first))
    counts = np.array([math.exp(math.log(math.comb(512, k)) + float(log_probs[k])) for k in range(513)])
    assert counts.sum() == pytest.approx(1, rel=1e-11)
    assert law.profile().entropy == pytest.approx(-float(counts @ log_probs.numpy()), rel=1e-10)


def test_mixtures_at_length_256() -> None:
    h = laws.NoisyRepetition(256, 0.1).entropies()
    tc, dtc, _ = correlations(h)
    assert dtc <= math.log(2)  # never above the entropy of the hidden component (Chen, Cong, Li)
    assert h[0] == pytest.approx(math.log(2), abs=1e-12)
    noise = -0.1 * math.log(0.1) - 0.9 * math.log(0.9)
    assert h[255] == pytest.approx(noise, abs=1e-11)
    assert tc + dtc == pytest.approx(256 * (math.log(2) - noise), rel=1e-11)


def test_polya_of_two_colours_is_uniform_over_counts() -> None:
    n = 300
    h = laws.Polya([1, 1], n).entropies()
    expected = math.log(n + 1) + sum(math.log(math.comb(n, k)) for k in range(n + 1)) / (n + 1)
    assert h.sum() == pytest.approx(expected, rel=1e-11)


def test_sticky_chain_conditionals_at_length_4096() -> None:
    stay = torch.eye(3, dtype=torch.float64) * 0.85 + 0.05
    law = laws.Markov([1 / 3] * 3, stay, 4096)
    tokens = torch.full((2, 4096), law.mask_id)
    tokens[:, 0], tokens[0, 4095] = 0, 2
    log_probs = law(tokens)
    assert log_probs.exp().sum(-1).sub(1).abs().max() < 1e-12
    near = 1 / 3 + 2 / 3 * 0.85**4
    assert log_probs[0, 4, 0].exp() == pytest.approx(near, abs=1e-12)
    assert log_probs[0, 4091, 2].exp() == pytest.approx(near, abs=1e-12)
    assert log_probs[1, 4095, 0].exp() == pytest.approx(1 / 3, abs=1e-12)


def test_a_null_segment_makes_the_whole_chain_uniform() -> None:
    law = build("chain with zeros")
    tokens = torch.tensor([[2, 0, 3, 3, 3]])  # 2 never returns to 0; positions 2.. are far from that clash
    assert torch.equal(law(tokens)[0, 2:], torch.full((3, 3), -math.log(3), dtype=torch.float64))


def test_a_clash_of_visible_tokens_makes_a_whole_hmm_uniform() -> None:
    law = laws.HMM([1, 0], [[0, 1], [1, 0]], [[1, 0], [0, 1]], 4)
    tokens = torch.tensor([[1, 0, 2, 2], [0, 1, 2, 2]])
    log_probs = law(tokens)
    assert torch.equal(log_probs[0, 2:], torch.full((2, 2), -math.log(2), dtype=torch.float64))
    assert torch.equal(log_probs[1, 2:].exp(), torch.eye(2, dtype=torch.float64))


def test_tables_keep_tiny_probabilities() -> None:
    log_probs = torch.tensor([0.0, -2000.0, -2001.0, -torch.inf], dtype=torch.float64)
    law = laws.Table(log_probs, 2)
    given_one = law(torch.tensor([[2, 1]]))[0, 0]
    assert given_one.exp().tolist() == [1, 0]
    law = laws.Table(torch.tensor([0.0, -torch.inf, -2000.0, -2001.0], dtype=torch.float64), 2)
    given_one = law(torch.tensor([[1, 2]]))[0, 1]
    assert given_one.exp().numpy() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.e)], abs=1e-12)


def test_the_288_grids_obey_the_rules() -> None:
    grids = laws.Sudoku4().rows.view(288, 4, 4)
    boxes = grids.view(288, 2, 2, 2, 2).transpose(2, 3).reshape(288, 4, 4)
    for groups in (grids, grids.transpose(1, 2), boxes):
        assert torch.equal(groups.sort(dim=2).values, torch.arange(4).expand(288, 4, 4))


def test_reed_solomon_words_are_polynomials() -> None:
    law = laws.ReedSolomon(7, 3, 11)
    t = torch.arange(7)
    words = torch.stack([(a + b * t + c * t * t) % 11 for a, b, c in [(1, 2, 3), (10, 0, 0), (4, 7, 10)]])
    assert law.log_prob(words).tolist() == pytest.approx([-3 * math.log(11)] * 3)
    hidden = words.clone()
    hidden[:, [0, 2, 5, 6]] = law.mask_id
    assert torch.equal(law(hidden).argmax(-1), words)


def test_stationary_start_stays() -> None:
    pi = laws.stationary(CHAIN)
    torch.testing.assert_close(pi @ torch.tensor(CHAIN), pi, rtol=0, atol=1e-15)
    hidden = torch.full((1, 9), 3)
    torch.testing.assert_close(
        laws.Markov(pi, CHAIN, 9)(hidden)[0].exp(), pi.expand(9, 3), rtol=0, atol=1e-14
    )


def test_a_function_with_a_kink_is_cut_until_it_fits() -> None:
    places = np.arange(5, 40_000)
    asked: set[int] = set()

    def kinked(x: int) -> float:
        asked.add(x)
        return abs(x - 3333.3) ** 0.5

    np.testing.assert_allclose(at_every(kinked, 5, 39_999), np.abs(places - 3333.3) ** 0.5, rtol=0, atol=1e-9)
    assert len(asked) < 2000


@pytest.mark.parametrize("latents", [3, 20])
def test_an_observation_alone_is_one_with_probability_three_quarters(latents: int) -> None:
    law = laws.NotAllEqual(latents, 40, seed=3)
    assert all(len(set(row)) == 3 for row in law.sees.tolist())
    tokens = law.sample(4000, seeded(0))
    assert law.consistent(tokens).all()
    assert float(law.log_prob(tokens[:1])) == pytest.approx(-latents * math.log(2))
    seen = tokens[:, latents:].double()
    assert float(seen.mean()) == pytest.approx(0.75, abs=0.02)
    # what is drawn without regard to its latents is right as often as two independent draws agree
    other = torch.cat([tokens[:, :latents], tokens[:, latents:].roll(1, 0)], 1)
    assert float(law.consistent(other).double().mean()) == pytest.approx(0.625, abs=0.02)


# --- bad input ---


BAD_CONSTRUCTIONS: dict[str, tuple[Callable[[], object], str]] = {
    "unnormalised table": (lambda: laws.Table(torch.zeros(8), 3), "log_softmax"),
    "table with NaN": (lambda: laws.Table(torch.full((8,), torch.nan), 3), "sum is off"),
    "table of odd size": (lambda: laws.Table(torch.full((10,), 0.1).log(), 3), r"vocab\*\*3"),
    "table of one entry": (lambda: laws.Table(torch.zeros(1), 1), "vocab >= 2"),
    "empty table": (lambda: laws.Table(torch.zeros(0), 2), "vocab >= 2"),
    "table of two dimensions": (lambda: laws.Table(torch.full((2, 2), 0.25).log(), 2), "flatten"),
    "negative length": (lambda: laws.Markov([0.5, 0.5], [[0.5, 0.5]] * 2, -1), "length -1"),
    "fractional length": (lambda: laws.Polya([1, 1], 2.5), "whole number"),  # type: ignore[arg-type]
    "negative probability": (lambda: laws.Markov([1.5, -0.5], [[0.5, 0.5]] * 2, 3), "initial.*>= 0"),
    "open rows": (lambda: laws.Markov([0.5, 0.5], [[0.5, 0.5 + 1e-8]] * 2, 3), "transition.*normalise"),
    "wrong matrix": (lambda: laws.Markov([0.5, 0.5], [[0.2, 0.3, 0.5]] * 2, 3), r"expected \[2, 2\]"),
    "NaN in a matrix": (lambda: laws.Markov([0.5, 0.5], [[math.nan, 1]] * 2, 3), "NaN"),
    "two classes": (lambda: laws.stationary([[1, 0], [0, 1]]), "several"),
    "bad emission": (lambda: laws.HMM([1, 0], [[0.5, 0.5]] * 2, [[0.5, 0.4]] * 2, 3), "emission"),
    "late parent": (lambda: laws.TreeIsing([-1, 2, 0], 0.1, 0), "parent 2 of position 1"),
    "too many couplings": (lambda: laws.TreeIsing([-1, 0], [0.1] * 3, 0), "coupling of shape"),
    "one symbol": (lambda: laws.Permutation(1), "between 2 and"),
    "too many ones": (lambda: laws.Balanced(4, 5), "5 ones in 4 bits"),
    "negative ones": (lambda: laws.Balanced(4, -1), "ones -1"),
    "alpha of zero": (lambda: laws.Polya([1.0, 0.0], 3), "alpha"),
    "mixture weights": (lambda: laws.Mixture([0.5, 0.6], [[0.5, 0.5]] * 2, 3), "weights"),
    "mixture rows": (lambda: laws.Mixture([0.5, 0.5], [[0.5, 0.5]] * 3, 3), "probs of shape"),
    "flip above one": (lambda: laws.NoisyRepetition(4, 1.1), "flip 1.1.*between 0 and 1"),
    "infinite coupling": (lambda: laws.CurieWeiss(4, math.inf), "infinite"),
    "parity of one": (lambda: laws.Parity(1, 2), "n 1"),
    "parity of nothing": (lambda: laws.Parity(3, 1), "q 1.*between 2 and"),
    "composite field": (lambda: laws.ReedSolomon(4, 2, 9), "next one is 11"),
    "too many points": (lambda: laws.ReedSolomon(6, 2, 5), "k <= n <= q"),
    "too many free symbols": (lambda: laws.ReedSolomon(4, 5, 7), "k <= n <= q"),
    "no copies": (lambda: laws.LatentParity(0, 3), "n0 0"),
    "repeated rows": (lambda: laws.Support(torch.tensor([[0, 1], [0, 1]]), 2), "1 repeated"),
    "rows out of range": (lambda: laws.Support(torch.tensor([[0, 2]]), 2), "0 to 2"),
    "rows of floats": (lambda: laws.Support(torch.tensor([[0.0, 1.0]]), 2), "int64"),
    "flat rows": (lambda: laws.Support(torch.tensor([0, 1]), 2), r"\[m, length\]"),
    "long enumeration": (lambda: laws.Support(torch.eye(2000).long(), 2).entropies(), "estimate_entropies"),
    "long mixture": (lambda: laws.Mixture([1], [[0.001] * 1000], 4000).entropies(), "estimate_entropies"),
    "latents out of range": (lambda: laws.LatentsAndObservations(2, [[0, 2]], NOISY), "latents 0 to 1"),
    "predicate of odd shape": (lambda: laws.LatentsAndObservations(2, [[0]], NOISY), r"expected \[2, 'any'\]"),
    "too many latents": (lambda: laws.NotAllEqual(30, 9)(torch.full((1, 39), 2)), r"2\^30 states.*\.sample"),
    "two latents of three": (lambda: laws.NotAllEqual(2, 9), "latents 2"),
    "too large to list": (lambda: laws.tabulated(laws.Permutation(900)), "shorter"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BAD_CONSTRUCTIONS))
def test_bad_arguments_are_explained(case: str) -> None:
    attempt, message = BAD_CONSTRUCTIONS[case]
    with pytest.raises(ValueError, match=message) as caught:
        attempt()
    assert "\n" not in str(caught.value)


@every_law
def test_bad_tokens_and_rows_are_explained(name: str) -> None:
    law = build(name)
    hidden = torch.full((2, law.length), law.mask_id)
    bad_calls: list[tuple[Callable[[], object], str]] = [
        (lambda: law(hidden.int()), "int64"),
        (lambda: law(hidden.double()), "int64"),
        (lambda: law(hidden[0]), r"\[batch, "),
        (lambda: law(torch.cat([hidden, hidden], 1)), "shape"),
        (lambda: law(hidden + 1), "symbols"),
        (lambda: law(hidden - law.mask_id - 1), "symbols from -1"),
        (lambda: law(hidden, torch.tensor([[0], [-1]])), "padding"),
        (lambda: law(hidden, torch.tensor([[0], [law.length]])), "expected 0 to"),
        (lambda: law(hidden, torch.tensor([[0]])), r"\[2, k\]"),
        (lambda: law(hidden, torch.tensor([[0.0], [1.0]])), "int64"),
        (lambda: law.log_prob(hidden), "unmask every position"),
        (lambda: law.log_prob(hidden.int()), "int64"),
        (lambda: law.sample(-1, seeded(0)), "n -1"),
    ]
    for attempt, message in bad_calls:
        with pytest.raises(ValueError, match=message):
            attempt()


def test_log_prob_is_minus_infinity_outside_the_support() -> None:
    outside = {
        "permutation": [0, 0, 1, 2], "one-hot": [1, 1, 0, 0, 0], "balanced": [1, 1, 1, 1, 0, 0],
        "parity": [0, 0, 0, 1], "repetition": [0, 0, 0, 1], "latent parity": [0, 0, 0, 1, 0, 0],
        "chain with zeros": [2, 0, 0, 0, 0], "support": [0, 0, 0, 0], "reed-solomon": [0, 0, 0, 1],
        "hamming": [1, 0, 0, 0, 0, 0, 0],
    }  # fmt: skip
    for name, tokens in outside.items():
        assert build(name).log_prob(torch.tensor([tokens])).tolist() == [-math.inf]
