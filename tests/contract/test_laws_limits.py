"""Laws at any length: profiles and calls with the right value at 100,000 positions, or a stated limit at once. Nats."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import betaln, entr, gammaln, softmax

import unmask
from unmask import laws

N = 100_000
CHAIN = np.random.default_rng(0).dirichlet([0.35] * 3, size=3)
START = [0.1, 0.7, 0.2]
CYCLE = [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def binary_entropy(p: Any) -> Any:
    return entr(p) + entr(1 - np.asarray(p))


# --- the plain sums, slow and without tricks --------------------------------------------------------


def thinned(count_probs: np.ndarray) -> np.ndarray:
    """Entropy profile of exchangeable bits from the law of their number of ones: bits are hidden one by one."""
    law, values = count_probs, np.zeros(len(count_probs) - 1)
    for k in range(len(values), 0, -1):
        count = np.arange(k)
        ones = law[1:] * (count + 1) / k
        law = law[:-1] * (k - count) / k + ones
        values[k - 1] = law @ binary_entropy(np.divide(ones, law, out=np.zeros(k), where=law > 0))
    return values


def urn(n: int, a: float, b: float) -> np.ndarray:
    """Law of the number of balls of one of two colours among n draws of a Polya urn."""
    c = np.arange(n + 1)
    return np.asarray(softmax(-gammaln(c + 1) - gammaln(n - c + 1) + betaln(a + c, b + n - c)))


def all_pairs(initial: list[float], transition: Any, n: int) -> np.ndarray:
    """Profile of a chain: sums over all pairs of nearest visible neighbours, binomials by exact integers."""
    power = [np.linalg.matrix_power(np.array(transition, dtype=float), gap) for gap in range(n)]
    law = [np.array(initial) @ p for p in power]
    step = [entr(p).sum(1) for p in power]
    total = np.zeros(n)
    for here, a, b in itertools.product(range(n), range(-1, n), range(n + 1)):
        if not a < here < b:
            continue
        if a < 0 and b == n:
            value = entr(law[here]).sum()
        elif b == n:
            value = law[a] @ step[here - a]
        elif a < 0:
            value = entr(law[here]).sum() + law[here] @ step[b - here] - entr(law[b]).sum()
        else:
            value = law[a] @ (step[here - a] + power[here - a] @ step[b - here] - step[b - a])
        hidden, named = b - a - 2, (a >= 0) + (b < n)
        for i in range(named, n):
            total[i] += value * math.comb(n - 1 - named - hidden, i - named) / math.comb(n - 1, i) / n
    return total


@pytest.mark.parametrize("n", [1, 2, 3, 8, 61, 1023, 1025, 2500])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 1.0])
def test_balanced_equals_the_plain_sum(n: int, share: float) -> None:
    ones = round(share * n)
    np.testing.assert_allclose(
        laws.Balanced(n, ones).entropies(), thinned(np.eye(n + 1)[ones]), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("n", [1, 2, 7, 60, 1100, 2500])
@pytest.mark.parametrize("alpha", [[1.0, 1.0], [0.4, 2.0], [1e-3, 5.0], [80.0, 3.0], [1e4, 1e4]])
def test_polya_equals_the_plain_sum(n: int, alpha: list[float]) -> None:
    np.testing.assert_allclose(laws.Polya(alpha, n).entropies(), thinned(urn(n, *alpha)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 5, 64, 65, 300, 1500])
@pytest.mark.parametrize("coupling", [-2.0, 0.0, 0.6, 1.0, 1.4, 5.0])
def test_curie_weiss_equals_the_plain_sum(n: int, coupling: float) -> None:
    c = np.arange(n + 1)
    counts = softmax(-gammaln(c + 1) - gammaln(n - c + 1) + coupling * (2 * c - n) ** 2 / (2 * n))
    np.testing.assert_allclose(laws.CurieWeiss(n, coupling).entropies(), thinned(counts), rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", [1, 5, 1100, 2500])
@pytest.mark.parametrize(
    ("weights", "heads"), [([0.5, 0.5], [0.1, 0.9]), ([0.2, 0.5, 0.3], [0.0, 0.45, 0.5])]
)
def test_mixtures_of_coins_equal_the_plain_sum(n: int, weights: list[float], heads: list[float]) -> None:
    law = laws.Mixture(weights, [[1 - p, p] for p in heads], n)
    counts = sum(w * stats.binom.pmf(np.arange(n + 1), n, p) for w, p in zip(weights, heads))
    np.testing.assert_allclose(law.entropies(), thinned(counts), rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 17])
@pytest.mark.parametrize(
    ("initial", "transition"),
    [
        (START, CHAIN),
        (START, CYCLE),
        ([1.0, 0, 0], np.eye(3)),
        ([1.0, 0, 0], [[0.5, 0.5, 0], [0, 0.2, 0.8], [0, 0, 1]]),
    ],
    ids=["mixing", "periodic", "frozen", "absorbing"],
)
def test_chains_equal_the_sum_over_all_pairs(n: int, initial: list[float], transition: Any) -> None:
    np.testing.assert_allclose(
        laws.Markov(initial, transition, n).entropies(), all_pairs(initial, transition, n), rtol=0, atol=1e-10
    )


# --- the right value at 100,000 positions ------------------------------------------------------------


def close(got: Any, wanted: Any, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=1e-10)


def test_one_hot_at_every_number_of_visible_bits() -> None:
    profile = laws.OneHot(N).profile()
    hidden = N - np.arange(N)
    close(profile.entropies, hidden / N * binary_entropy(1 / hidden))
    close(profile.entropy, math.log(N))


def test_balanced() -> None:
    ones = 30_000
    profile = laws.Balanced(N, ones).profile()
    close(profile.entropy, gammaln(N + 1) - gammaln(ones + 1) - gammaln(N - ones + 1))
    for i in (0, 1, 77, 5_000, 50_001, 99_000, N - 2, N - 1):
        seen = stats.hypergeom(N, ones, i)
        c = np.arange(int(seen.ppf(1e-16)), int(seen.isf(1e-16)) + 1)
        chance = seen.pmf(c)
        close(profile.entropies[i], chance @ binary_entropy((ones - c) / (N - i)) / chance.sum())


def test_permutation() -> None:
    close(laws.Permutation(N).profile().entropy, math.lgamma(N + 1))


def test_polya() -> None:
    alpha = np.array([0.5, 3.0, 0.5, 20.0])
    profile = laws.Polya(alpha, N).profile()
    for i in (0, 1, 63, 64, 1_000, 44_444, N - 1):
        c = np.arange(i + 1)
        value = 0.0
        for a in alpha:
            chance = stats.betabinom.pmf(c, i, a, alpha.sum() - a)
            value += chance @ entr((a + c) / (alpha.sum() + i)) / chance.sum()
        close(profile.entropies[i], value)
    uniform = laws.Polya([1, 1], N).profile().entropy  # every count is equally likely
    c = np.arange(N + 1)
    close(uniform, math.log(N + 1) + (gammaln(N + 1) - gammaln(c + 1) - gammaln(N - c + 1)).mean())


def test_markov() -> None:
    profile = laws.Markov(START, CHAIN, N).profile()
    law, rows, total, marginal = np.array(START), entr(CHAIN).sum(1), entr(START).sum(), 0.0
    for place in range(N):
        marginal += entr(law).sum()
        total += law @ rows if place < N - 1 else 0.0
        law = law @ CHAIN
    close(profile.entropy, total)
    close(profile.entropies[0], marginal / N)
    two = CHAIN @ CHAIN  # with all others visible, the middle of three
    pi = laws.stationary(CHAIN).numpy()
    close(profile.entropies[N - 1], pi @ (2 * rows - entr(two).sum(1)), 1e-4)


def test_a_slow_chain_and_a_periodic_one() -> None:
    rate = 1e-5
    profile = laws.Markov([0.5, 0.5], [[1 - rate, rate], [rate, 1 - rate]], N).profile()
    close(profile.entropy, math.log(2) + (N - 1) * binary_entropy(rate))
    close(profile.entropies[0], math.log(2))
    apart = np.arange(1, N)  # one visible position
    flipped = (1 - (1 - 2 * rate) ** apart) / 2
    close(profile.entropies[1], 2 * ((N - apart) * binary_entropy(flipped)).sum() / (N * (N - 1)))
    cycle = laws.Markov([0.2, 0.3, 0.5], CYCLE, N).profile()
    close(cycle.entropy, entr([0.2, 0.3, 0.5]).sum(), 1e-7)
    close(cycle.entropies[1:], 0.0)
    flip = laws.Markov([0.25, 0.75], [[0.0, 1.0], [1.0, 0.0]], N)
    close(flip.profile().entropies[1:], 0.0)
    hidden = torch.full((1, N), flip.mask_id)
    hidden[0, 0] = 1
    assert flip(hidden).argmax(-1)[0].tolist() == [1, 0] * (N // 2)


@pytest.mark.parametrize("coupling", [-1.0, 1.5])
def test_curie_weiss(coupling: float) -> None:
    law = laws.CurieWeiss(N, coupling)
    c = np.arange(N + 1)
    energy = coupling * (2.0 * c - N) ** 2 / (2 * N)
    ways = gammaln(N + 1) - gammaln(c + 1) - gammaln(N - c + 1)
    chance = softmax(ways + energy)
    profile = law.profile()
    close(profile.entropies[0], math.log(2))
    close(profile.entropy, entr(chance).sum() + chance @ ways)


def test_noisy_repetition() -> None:
    h = laws.NoisyRepetition(N, 0.1).profile().entropies
    close(h[0], math.log(2))
    close(h[1], binary_entropy(0.18))  # 2 * 0.1 * 0.9
    close(h[1000:], binary_entropy(0.1))


def test_codes() -> None:
    close(laws.Parity(N, 3).profile().entropy, (N - 1) * math.log(3))
    close(laws.Repetition(N, 3).profile().entropy, math.log(3))
    close(laws.LatentParity(N // 2, N // 2).profile().entropy, N // 2 * math.log(2))


def test_profiles_of_long_laws_take_less_than_500_mb() -> None:
    script = f"""
import resource, torch
from unmask import laws
import scipy.signal, scipy.special, unmask.profiles
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
for law in (laws.OneHot({N}), laws.Balanced({N}, 40000), laws.Permutation({N}), laws.Polya([0.5, 2.0, 7.0], {N}),
            laws.Markov([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]], {N}), laws.CurieWeiss(20000, 1.0),
            laws.Markov([1.0, 0, 0], [[0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0]], {N}),
            laws.NoisyRepetition(20000, 0.1), laws.Parity({N}, 3), laws.LatentParity(50000, 50000)):
    law.profile()
    tokens = law.sample(2, torch.Generator().manual_seed(0))
    law.log_prob(tokens)
    if law.vocab_size < 9:
        law(tokens)
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
    )
    assert float(done.stdout) < 500


LONG: dict[str, Callable[[], laws.Law]] = {
    "one-hot": lambda: laws.OneHot(N),
    "balanced": lambda: laws.Balanced(N, 40_000),
    "polya": lambda: laws.Polya([0.5, 2.0, 7.0], N),
    "mixture": lambda: laws.Mixture([0.5, 0.5], [[0.2, 0.3, 0.5], [0.1, 0.8, 0.1]], N),
    "curie-weiss": lambda: laws.CurieWeiss(N, 1.2),
    "chain": lambda: laws.Markov(START, CHAIN, N),
    "parity": lambda: laws.Parity(N, 3),
    "repetition": lambda: laws.Repetition(N, 3),
    "latent parity": lambda: laws.LatentParity(N // 2, N // 2),
    "support": lambda: laws.Support(torch.randint(3, (9, N), generator=seeded(1)), 3),
    "hmm": lambda: laws.HMM(
        [0.9, 0.1], [[0.9, 0.1], [0.05, 0.95]], [[0.6, 0.4, 0.0], [0.0, 0.3, 0.7]], 5_000
    ),
    "tree": lambda: laws.TreeIsing([-1, *[k // 2 for k in range(4_999)]], 0.8, 0.05),
    "permutation": lambda: laws.Permutation(N),
}


@pytest.mark.parametrize("name", list(LONG))
def test_the_last_positions_of_a_long_sequence_add_up_to_its_probability(name: str) -> None:
    """The last conditional is the ratio of probabilities of complete sequences; the one before it has the right sum."""
    law = LONG[name]()
    tokens = law.sample(2, seeded(3))
    places = torch.tensor([[7, law.length - 2], [law.length // 2, 11]])
    hidden = tokens.scatter(1, places, law.mask_id)
    first = law(hidden, places[:, :1])[:, 0].gather(1, tokens.gather(1, places[:, :1]))[:, 0]
    one = tokens.scatter(1, places[:, 1:], law.mask_id)
    last = law(one, places[:, 1:])[:, 0]
    symbols = torch.arange(min(law.vocab_size, 3))
    others = torch.stack([law.log_prob(tokens.scatter(1, places[:, 1:], int(s))) for s in symbols], 1)
    if law.vocab_size <= 3:
        torch.testing.assert_close(last, others.log_softmax(1), rtol=0, atol=2e-9)
    assert first.isfinite().all()
    assert not law(hidden, places).isnan().any()
    torch.testing.assert_close(
        law(hidden, places).exp().sum(-1), torch.ones(2, 2, dtype=torch.float64), rtol=0, atol=1e-9
    )


# --- stated limits -----------------------------------------------------------------------------------


def slow_chain() -> laws.Law:
    sticky = torch.eye(400, dtype=torch.float64) * (1 - 1e-6)
    return laws.Markov([1 / 400] * 400, sticky + 1e-6 / 400, N)


TOO_MUCH: dict[str, tuple[Callable[[], object], str]] = {
    "all positions of a permutation": (lambda: call(laws.Permutation(N)), r"2\^27 log-probabilities at most"),
    "too many sequences": (lambda: laws.OneHot(N).sample(10**9, seeded()), "n 1000000000"),
    "a code of many factors": (lambda: laws.ReedSolomon(N, 1000, 100_003).sample(2, seeded()), r"n k of 2\^24"),
    "a huge field": (lambda: laws.ReedSolomon(4, 2, 2**61 - 1), "q 2305843009213693951"),
    "symbols beyond 64 bits": (lambda: laws.Parity(3, 10**19), "q 10000000000000000000"),
    "a wide positional law": (lambda: call(laws.Parity(N, 100_003), 1), r"length times vocabulary to be 2\^27"),
    "profile of an hmm": (lambda: LONG["hmm"]().profile(), "4096 at most"),
    "profile of a tree": (lambda: LONG["tree"]().profile(), "4096 at most"),
    "an estimate": (lambda: laws.estimate_entropies(laws.Parity(N, 2), 2, seeded()), "4096 at most"),
    "profile of a magnet": (lambda: laws.CurieWeiss(2**17 + 1, 0.5).profile(), "131072 at most"),
    "profile of a mixture": (lambda: LONG["mixture"]().profile(), "2000000 at most"),
    "profile of many colours": (lambda: laws.Polya(np.arange(1, 1001), N).profile(), r"2\^25 at most"),
    "profile of a list": (lambda: LONG["support"]().profile(), r"2\^28 at most"),
    "a chain that does not mix": (lambda: call(slow_chain(), 1), r"2\^24 numbers of its powers"),
    "a table of it all": (lambda: laws.tabulated(laws.OneHot(N)), r"2\^22 at most"),
}  # fmt: skip


def call(law: laws.Law, rows: int | None = None) -> torch.Tensor:
    hidden = torch.full((2, law.length), law.mask_id)
    return law(hidden, None if rows is None else torch.zeros(2, rows, dtype=torch.int64))


@pytest.mark.parametrize("case", list(TOO_MUCH))
def test_what_is_too_much_is_refused_at_once(case: str) -> None:
    attempt, message = TOO_MUCH[case]
    began = time.monotonic()
    with pytest.raises(ValueError, match=message) as caught:
        attempt()
    assert time.monotonic() - began < 10
    assert "\n" not in str(caught.value)


# --- numbers that lost their digits --------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 40.0, 1e6, 1e12, 1e15])
def test_an_urn_with_many_balls_keeps_its_digits(scale: float) -> None:
    law = laws.Polya([scale, 3 * scale], 4)
    value = float(law.log_prob(torch.tensor([[0, 0, 1, 1]])))
    factors = [scale, scale + 1, 3 * scale, 3 * scale + 1]
    wanted = sum(math.log(f / (4 * scale + k)) for k, f in enumerate(factors))
    assert value == pytest.approx(wanted, abs=1e-12)
    h = law.entropies()
    wanted = float(entr([0.25, 0.75]).sum())
    assert h[0] == pytest.approx(wanted, abs=1e-12)
    assert (np.diff(h) <= 1e-14).all()


def test_a_tiny_amount_beside_a_large_one() -> None:
    law = laws.Polya([1e10, 1e-10], 3)
    wanted = math.log(1e-10 / (1e10 + 1)) + math.log((1 + 1e-10) / (1e10 + 2))
    assert float(law.log_prob(torch.tensor([[0, 1, 1]]))) == pytest.approx(wanted, abs=1e-12)
    assert not np.isnan(law.entropies()).any()


@pytest.mark.parametrize("coupling", [1e3, 1e12, 1e300])
def test_a_strong_magnet_has_two_states(coupling: float) -> None:
    law = laws.CurieWeiss(6, coupling)
    log_probs = law.log_prob(torch.tensor([[1] * 6, [0] * 6, [1, 1, 1, 1, 1, 0]]))
    assert log_probs[:2].tolist() == pytest.approx([-math.log(2)] * 2, abs=1e-12)
    assert float(log_probs[2]) < -1000
    np.testing.assert_allclose(law.entropies(), [math.log(2), 0, 0, 0, 0, 0], atol=1e-12)


def test_energies_and_sums_beyond_floats_are_refused() -> None:
    for attempt, message in (
        (lambda: laws.CurieWeiss(6, 1e308), "coupling"),
        (lambda: laws.Polya([1e308, 1e308], 3), "alpha"),
    ):
        with pytest.raises(ValueError, match=message):
            attempt()


# --- impossible visible tokens: one rule for all laws ----------------------------------------------------


WITH_NULLS: dict[str, tuple[Callable[[], laws.Law], list[int]]] = {
    "table": (lambda: laws.Table(torch.tensor([0.5, 0, 0, 0, 0, 0, 0, 0.5]).double().log(), 3), [0, 1, 2]),
    "support": (lambda: laws.Support([[0, 1, 1], [2, 2, 2]], 3), [0, 2, 3]),
    "hamming": (laws.Hamming74, [1, 0, 0, 0, 0, 0, 2]),
    "sudoku": (laws.Sudoku4, [0, 0] + [4] * 14),
    "markov": (lambda: laws.Markov([1.0, 0.0], [[0.5, 0.5], [0.0, 1.0]], 4), [2, 1, 0, 2]),
    "markov at the start": (lambda: laws.Markov([1.0, 0.0], [[0.5, 0.5], [0.0, 1.0]], 4), [1, 2, 2, 2]),
    "long markov": (lambda: laws.Markov([1.0, 0.0], [[0.5, 0.5], [0.0, 1.0]], 3000), [1] + [2] * 2998 + [0]),
    "hmm": (lambda: laws.HMM([1.0, 0.0], [[0.0, 1.0], [1.0, 0.0]], np.eye(2), 4), [2, 1, 1, 2]),
    "permutation": (lambda: laws.Permutation(4), [3, 3, 4, 4]),
    "one-hot": (lambda: laws.OneHot(4), [1, 2, 2, 1]),
    "balanced": (lambda: laws.Balanced(4, 2), [0, 0, 0, 2]),
    "mixture": (lambda: laws.Mixture([0.5, 0.5], [[1.0, 0.0], [0.0, 1.0]], 3), [0, 1, 2]),
    "noisy repetition": (lambda: laws.NoisyRepetition(3, 0.0), [0, 1, 2]),
    "parity": (lambda: laws.Parity(3, 2), [1, 0, 0]),
    "repetition": (lambda: laws.Repetition(3, 3), [0, 1, 3]),
    "reed-solomon": (lambda: laws.ReedSolomon(4, 1, 5), [0, 1, 5, 5]),
    "latent parity": (lambda: laws.LatentParity(3, 2), [0, 1, 2, 2, 2]),
}
"""A law, and tokens whose visible ones have probability zero together."""


@pytest.mark.parametrize("name", list(WITH_NULLS))
def test_impossible_visible_tokens_leave_a_uniform_law(name: str) -> None:
    make, tokens = WITH_NULLS[name]
    law = make()
    state = torch.tensor([tokens, [law.mask_id] * law.length])
    log_probs = law(state)
    hidden = state == law.mask_id
    level = torch.full((law.vocab_size,), -math.log(law.vocab_size), dtype=torch.float64)
    assert torch.equal(log_probs[0, hidden[0]], level.expand(int(hidden[0].sum()), -1))
    for place in (~hidden[0]).nonzero()[:, 0].tolist():
        assert log_probs[0, place].exp().tolist() == [
            float(s == tokens[place]) for s in range(law.vocab_size)
        ]
    assert torch.equal(log_probs[1], law(state[1:])[0])  # its neighbour does not notice
    assert not log_probs.isnan().any()


@pytest.mark.parametrize("name", list(WITH_NULLS))
def test_complete_sequences_on_impossible_tokens_have_no_probability(name: str) -> None:
    make, tokens = WITH_NULLS[name]
    law = make()
    filled = torch.tensor([tokens])
    for symbol in range(law.vocab_size):
        complete = filled.masked_fill(filled == law.mask_id, symbol)
        assert law.log_prob(complete).tolist() == [-math.inf]


def test_the_rule_is_documented() -> None:
    assert "the answer is then uniform" in " ".join((laws.Law.__doc__ or "").split())


# --- input that is no batch of tokens ---------------------------------------------------------------------


EVERY: dict[str, Callable[[], laws.Law]] = {name: make for name, (make, _) in WITH_NULLS.items()} | {
    "polya": lambda: laws.Polya([0.5, 2.0], 4),
    "curie-weiss": lambda: laws.CurieWeiss(5, 0.7),
    "tree": lambda: laws.TreeIsing([-1, 0, 0], 0.5, 0.1),
}


@pytest.mark.parametrize("name", list(EVERY))
def test_foreign_input_is_refused_in_one_line(name: str) -> None:
    law = EVERY[name]()
    good = torch.full((2, law.length), law.mask_id)
    rows = torch.zeros(2, 1, dtype=torch.int64)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: law(good.to("meta")), "tokens.*meta"),
        (lambda: law.log_prob(good.to("meta")), "tokens.*meta"),
        (lambda: law(good, rows.to("meta")), "rows.*meta"),
        (lambda: law(good.tolist()), "tokens.*tensor"),  # type: ignore[arg-type]
        (lambda: law(good.numpy()), "tokens.*tensor"),  # type: ignore[arg-type]
        (lambda: law(good, [[0], [0]]), "rows.*tensor"),  # type: ignore[arg-type]
        (lambda: law(good.float()), "float32.*int64"),
        (lambda: law(good.bool()), "bool.*int64"),
        (lambda: law(good[:, :-1]), rf"expected \[batch, {law.length}\]"),
        (lambda: law(torch.cat([good, good], 1)), rf"expected \[batch, {law.length}\]"),
        (lambda: law.log_prob(good[0]), rf"expected \[batch, {law.length}\]"),
        (lambda: law(good[None]), rf"expected \[batch, {law.length}\]"),
        (lambda: law.log_prob(good), "unmask every position"),
        (lambda: law(good, rows.float()), "rows of dtype torch.float32"),
        (lambda: law(good, rows + law.length), "expected 0 to"),
        (lambda: law.sample(2, None), "generator"),  # type: ignore[arg-type]
        (lambda: law.sample(2.0, seeded()), "n 2.0"),  # type: ignore[arg-type]
    ]
    for attempt, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            attempt()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: laws.Table(torch.zeros(8, device="meta"), 3), "log_probs"),
        (lambda: laws.Table(["a", "b"], 1), "log_probs"),
        (lambda: laws.Markov([0.5, 0.5], [[0.5, 0.5], [1.0]], 3), "transition"),
        (lambda: laws.Markov(torch.tensor([0.5, 0.5j]), [[0.5, 0.5]] * 2, 3), "initial"),
        (lambda: laws.Polya(None, 3), "alpha"),
        (lambda: laws.Support([[0, 1], [1]], 2), "rows"),
        (lambda: laws.Support(torch.zeros(2, 2, dtype=torch.int64, device="meta"), 2), "rows"),
        (lambda: laws.TreeIsing([-1, 0.5], 0.1, 0.1), "parent"),
        (lambda: laws.TreeIsing(3, 0.1, 0.1), "parents"),
        (lambda: laws.TreeIsing([-1, 0], "strong", 0.1), "coupling"),
    ],
)
def test_tables_that_hold_no_numbers_are_refused_in_one_line(
    build: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_sampling_a_long_law_one_call_at_a_time() -> None:
    """The engine on 100,000 positions: few calls, an exact likelihood."""
    law = laws.OneHot(N)
    hidden = torch.full((2, N), law.mask_id)
    selector = unmask.orders.presets.random(unmask.plans.uniform(N, 3))
    result = unmask.sample(law, hidden, selector, generator=seeded(5))
    again = unmask.log_likelihood(law, result.tokens, selector, order_ids=torch.arange(2))
    torch.testing.assert_close(result.log_prob, again, rtol=0, atol=0)
