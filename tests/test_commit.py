"""Draw-first kernels against their exact laws: propagation of states, with quadrature for MaskGIT's first pick."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from helpers import SMALL_LAWS, Recording, Toy, chi_square_z, every_sequence, hidden, place_of, seeded

import unmask
from unmask import laws, scores, selectors
from unmask.base import noise
from unmask.kernels import commit
from unmask.orders import sources

every_law = pytest.mark.parametrize("name", SMALL_LAWS)


# Laws and exact propagation.


@cache
def chain(length):
    """The reference chain: its stationary start makes all positions tie at the first step."""
    rows = np.random.default_rng(0).dirichlet([0.35] * 3, size=3)
    return laws.Markov(laws.stationary(rows), rows, length)


@cache
def ising():
    """3x3 spins, open edges, J = 0.4, h = 0.1."""
    spins = 2.0 * torch.cartesian_prod(*[torch.arange(2)] * 9).double() - 1
    grid = spins.view(-1, 3, 3)
    bonds = (grid[:, 1:] * grid[:, :-1]).sum((1, 2)) + (grid[:, :, 1:] * grid[:, :, :-1]).sum((1, 2))
    return laws.Table((0.4 * bonds + 0.1 * spins.sum(1)).log_softmax(0), 9)


@cache
def partly_masked(law):
    """Every sequence of symbols and masks, [(V+1)^L, L], and the law there."""
    states = torch.cartesian_prod(*[torch.arange(law.vocab_size + 1)] * law.length)
    return states, law(states)


def law_of(law, first_pick):
    """Probabilities of all sequences when one position at a time is unmasked, from P(position, symbol | state)."""
    v, length = law.vocab_size, law.length
    states, conditionals = partly_masked(law)
    counts, place = (states == v).sum(1), (v + 1) ** torch.arange(length - 1, -1, -1)
    probs = torch.zeros(len(states), dtype=torch.float64)
    probs[-1] = 1
    for left in range(length, 0, -1):
        now = (counts == left).nonzero()[:, 0]
        masked = states[now] == v
        pick = first_pick(conditionals[now], masked)
        assert (pick.sum((1, 2)) - 1).abs().max() < 1e-8
        after = now[:, None, None] + place[:, None] * (torch.arange(v) - v)
        probs.index_add_(0, after[masked].flatten(), (probs[now][:, None, None] * pick)[masked].flatten())
    return probs[counts == 0]


def maskgit_pick(alpha, step=0.4):
    """First arrival of exponential clocks with rates p(x)^(1/alpha): trapezoid in log t, error about 1e-10."""

    def pick(log_probs, masked):
        p, rates = log_probs[masked].exp(), (log_probs[masked] / alpha).exp()
        total, of = torch.zeros_like(p), masked.nonzero()[:, 0]
        for t in np.exp(np.arange(-24, math.log(40 / float(rates[rates > 0].min())) + step, step)):
            density = p * torch.exp(-t * rates)
            log_left = density.sum(1).log()
            all_left = torch.zeros(len(masked), dtype=torch.float64).index_add_(0, of, log_left)
            others = (all_left[of] - log_left).exp().nan_to_num(0.0)
            total += step * t * rates * density * others[:, None]
        return torch.zeros(log_probs.shape, dtype=torch.float64).masked_scatter_(masked[..., None], total)

    return pick


def low_confidence_pick(temperature):
    """The position whose draw from p^(1/T) has the largest p, on the grid of 1e-9, ties to the lowest position."""

    def pick(log_probs, masked):
        weight, level = (log_probs / temperature).softmax(-1), torch.round(log_probs.exp() / 1e-9)
        chance = weight.clone()
        for i in range(masked.shape[1]):
            for j in range(masked.shape[1]):
                mine, other = level[:, i, :, None], level[:, j, None]
                beaten = (other < mine) if j < i else (other <= mine)
                wins = (beaten * weight[:, j, None]).sum(-1)
                chance[:, i] *= 1 if i == j else torch.where(masked[:, j, None], wins, 1.0)
        return torch.where(masked[..., None], chance, 0.0)

    return pick


def kl_and_entropy(law, q):
    truth = law.log_prob(every_sequence(law, law.length))
    kl = torch.where(truth > -torch.inf, truth.exp() * (truth - q.log()), 0.0).sum()
    return float(kl), float(torch.special.entr(q).sum())


def counts_of(result, law):
    return torch.bincount(place_of(result.tokens, law.vocab_size), minlength=law.vocab_size**law.length)


class Independent:
    """A denoiser that ignores context: fixed log-probabilities [L, V]."""

    def __init__(self, log_probs):
        self.log_probs = log_probs
        self.vocab_size = self.mask_id = log_probs.shape[-1]

    def __call__(self, tokens, rows=None, *, time=None):
        log_probs = self.log_probs.expand(len(tokens), -1, -1)
        return (
            log_probs
            if rows is None
            else log_probs.gather(1, rows[..., None].expand(-1, -1, self.vocab_size))
        )


# Exact numbers, and the kernels against them.


@pytest.mark.parametrize(
    ("make", "alpha", "kl", "entropy"),
    [
        (lambda: chain(6), 1.0, 0.146, 4.01),
        (lambda: chain(6), 4.5, 0.0089, 4.54),
        (ising, 1.0, 0.361, 2.93),
        (ising, 4.5, 0.021, 4.36),
    ],
    ids=["chain-1", "chain-4.5", "ising-1", "ising-4.5"],
)
def test_maskgit_one_position_per_step(make, alpha, kl, entropy):
    law = make()
    q = law_of(law, maskgit_pick(alpha))
    assert kl_and_entropy(law, q) == pytest.approx((kl, entropy), rel=0.02)
    rows = 4000 if law.length < 9 else 1500
    result = commit.sample(law, hidden(rows, law), commit.maskgit(alpha, 1), generator=seeded(1))
    assert abs(chi_square_z(counts_of(result, law), q)) < 4
    assert (
        chi_square_z(counts_of(result, law), law.log_prob(every_sequence(law, law.length)).exp()) > 4
        or alpha > 1
    )


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_low_confidence_one_position_per_step(temperature):
    law = chain(6)
    q = law_of(law, low_confidence_pick(temperature))
    if temperature == 1:
        kl, entropy = kl_and_entropy(law, q)
        assert kl == pytest.approx(2.66, abs=0.1)
        assert entropy == pytest.approx(2.05, abs=0.15)
    rule = commit.low_confidence(temperature, 1)
    result = commit.sample(law, hidden(4000, law), rule, generator=seeded(2))
    assert abs(chi_square_z(counts_of(result, law), q)) < 4


def test_low_confidence_all_but_loses_support_on_ising():
    """Every sequence keeps some chance (its own symbols may be drawn everywhere), but 14 % of the mass less than 1e-12."""
    law = ising()
    q, p = law_of(law, low_confidence_pick(1.0)), law.log_prob(every_sequence(law, 9)).exp()
    assert q.min() > 0
    assert kl_and_entropy(law, q) == pytest.approx((9.44, 0.60), abs=0.02)
    assert float(p[q < 1e-12].sum()) == pytest.approx(0.136, abs=0.002)
    assert float(p[q < 1e-14].sum()) == pytest.approx(0.07, abs=0.005)


def test_several_positions_per_step_follow_the_race():
    """Two of three positions: all joint draws and noises are enumerable at alpha 0, and match."""
    law = SMALL_LAWS["table"]()
    result = commit.sample(law, hidden(6000, law), commit.maskgit(0.0, (2, 2)), generator=seeded(3))
    q = torch.zeros(law.vocab_size**law.length, dtype=torch.float64)
    empty = torch.full((1, 4), law.mask_id)
    drawn = every_sequence(law, 4)
    log_p = law(empty).expand(len(drawn), -1, -1).gather(-1, drawn[..., None])[..., 0]
    kept = torch.round(log_p / 1e-9).sort(dim=1, descending=True, stable=True).indices[:, :2]
    states = empty.expand(len(drawn), -1).scatter(1, kept, drawn.gather(1, kept))
    for first, chance in zip(states, log_p.sum(1).exp()):
        if chance > 0:
            law_now = law(first[None])[0].exp()
            q += chance * torch.einsum("a,b,c,d->abcd", *law_now).flatten()
    assert abs(chi_square_z(counts_of(result, law), q)) < 4


def test_sharpening_fades_as_more_is_kept():
    """Mean log p of kept symbols, 256 independent positions, alpha = 1: the reference table, and quadrature at k = 1."""
    rows = np.random.default_rng(1).dirichlet([0.2] * 64, size=256)
    log_probs = torch.tensor(rows).clamp(min=1e-300).log()
    assert float((log_probs.exp() * log_probs).sum(1).mean()) == pytest.approx(-2.875, abs=0.001)
    exact = maskgit_pick(1.0)(log_probs[None], torch.ones(1, 256, dtype=torch.bool))[0]
    assert float((exact * log_probs).sum()) == pytest.approx(-2.126, abs=0.03)
    table = {1: -2.126, 8: -2.123, 32: -2.158, 64: -2.210, 128: -2.333, 192: -2.510, 256: -2.874}
    denoiser = Independent(log_probs)
    for k, reference in table.items():
        rule = commit.maskgit(1.0, (k, 256 - k) if k < 256 else (k,))
        tokens = torch.full((600 if k == 1 else 40, 256), 64)
        kept = commit.sample(denoiser, tokens, rule, generator=seeded(k)).trace[0].log_probs
        error = float(kept.mean(1).std()) / math.sqrt(len(kept))
        assert float(kept.mean()) == pytest.approx(reference, abs=4 * math.hypot(error, 0.013)), k


def test_low_confidence_hides_what_is_not_on_top():
    """Five positions, top symbol c: a draw-first rule shows another symbol with (1-c)^5, choosing first with 1-c."""
    c, m, rows = 0.5, 5, 20_000
    denoiser = Independent(torch.tensor([[c, 0.3, 0.2]], dtype=torch.float64).log().expand(m, 3))
    tokens = torch.full((rows, m), 3)
    lucky = commit.sample(denoiser, tokens, commit.low_confidence(1.0, (1, m - 1)), generator=seeded(4))
    first = unmask.sample(
        denoiser, tokens, selectors.top_k(scores.confidence, (1, m - 1)), generator=seeded(4)
    )
    for result, chance in ((lucky, (1 - c) ** m), (first, 1 - c)):
        other = int((result.trace[0].symbols != 0).sum())
        assert abs(other - rows * chance) < 4 * math.sqrt(rows * chance * (1 - chance))


# Where drawing first and choosing first agree.


def every_selector(length):
    return [
        selectors.top_k(scores.confidence, 1),
        selectors.top_k(scores.margin, 2),
        selectors.top_k(scores.at_random(3), 2),
        selectors.top_k(scores.with_noise(scores.negative_entropy, 0.5, 4), (length - 1, 1)),
        selectors.threshold(scores.confidence, 0.6),
        selectors.entropy_budget(0.5),
        selectors.in_blocks(selectors.top_k(scores.left_to_right, 1), 2),
    ]


@every_law
def test_a_rule_that_does_not_look_is_choosing_first(name):
    law = SMALL_LAWS[name]()
    for turn, selector in enumerate(every_selector(law.length)):
        denoiser = unmask.nucleus(unmask.tempered(law, 0.7), 0.9) if turn % 2 else law
        expected = unmask.sample(denoiser, hidden(20, law), selector, generator=seeded(turn))
        got = commit.sample(denoiser, hidden(20, law), commit.choose_first(selector), generator=seeded(turn))
        assert torch.equal(got.tokens, expected.tokens), selector.name
        assert torch.equal(got.nfe, expected.nfe), selector.name
        assert all(torch.equal(a.rows, b.rows) for a, b in zip(got.trace, expected.trace, strict=True))
        assert got.log_prob.isnan().all()


@every_law
def test_temperature_zero_is_greedy_top_k_confidence(name):
    law = SMALL_LAWS[name]()
    tokens = law.sample(30, seeded(0))
    tokens = tokens.where(torch.rand(tokens.shape, generator=seeded(1)) > 0.7, law.mask_id)
    for block_length in (None, 2):
        for plan in (1, 2):
            first = selectors.top_k(scores.confidence, plan)
            if block_length:
                first = selectors.in_blocks(first, block_length)
            expected = unmask.sample(law, tokens, first, source=unmask.greedy, generator=seeded(2))
            rule = commit.low_confidence(0.0, plan, block_length)
            got = commit.sample(law, tokens, rule, generator=seeded(2))
            assert torch.equal(got.tokens, expected.tokens)
            assert torch.equal(got.nfe, expected.nfe)


def test_the_score_is_the_probability_before_tempering():
    law = SMALL_LAWS["markov"]()
    inside = commit.sample(law, hidden(200, law), commit.low_confidence(0.4, 1), generator=seeded(5))
    wrapped = commit.sample(
        unmask.tempered(law, 0.4), hidden(200, law), commit.low_confidence(1.0, 1), generator=seeded(5)
    )
    assert torch.equal(inside.tokens, wrapped.tokens)
    assert all(torch.equal(a.rows, b.rows) for a, b in zip(inside.trace, wrapped.trace))


# Plans, annealing, blocks, cost.


def test_cosine_counts():
    left, expected = 256, []
    for n in range(12):
        after = math.floor(256 * math.cos(math.pi / 2 * (n + 1) / 12)) if n < 11 else 0
        expected.append(left - after)
        left = after
    assert commit.cosine_counts(12)(256) == tuple(expected)
    assert expected[:3] + expected[-2:] == [3, 6, 11, 33, 33]
    for total in range(40):
        for steps in (1, 2, 5, 12):
            sizes = commit.cosine_counts(steps)(total)
            assert sum(sizes) == total
            assert len(sizes) == min(steps, total)
            assert min(sizes, default=1) >= 1
    assert commit.cosine_counts(5)(6) == (1, 1, 1, 2, 1)


def test_annealing_reaches_zero_at_the_last_step():
    alpha = commit.annealed(4.5, 12)
    assert [alpha(n) for n in range(13)] == pytest.approx([4.5 * (11 - n) / 12 for n in range(12)] + [0])
    noisy = commit.maskgit(alpha, (6, 6))  # step 0 and 1: nearly random order
    calm = commit.maskgit(commit.annealed(4.5, 1), (6, 6))
    p = torch.tensor([[0.9, 0.1]] * 6 + [[0.6, 0.4]] * 6, dtype=torch.float64).log()
    tokens = torch.full((400, 12), 2)
    low = [commit.sample(Independent(p), tokens, r, generator=seeded(6)).trace[0] for r in (noisy, calm)]
    share = [float((info.log_probs < math.log(0.5)).double().mean()) for info in low]
    assert share[0] == pytest.approx(0.21, abs=0.04)
    assert share[1] < 0.03


def test_blocks_are_finished_from_left_to_right():
    law = SMALL_LAWS["one-hot"]()
    result = commit.sample(law, hidden(50, law), commit.low_confidence(1.0, 1, 2), generator=seeded(7))
    order = torch.cat([info.rows for info in result.trace], 1) // 2
    assert torch.equal(order, torch.tensor([0, 0, 1, 1, 2]).expand(50, -1))


def test_rows_are_independent_and_finished_rows_cost_nothing():
    law = laws.Markov([0.2, 0.5, 0.3], [[0.7, 0.2, 0.1], [0.05, 0.15, 0.8], [0.5, 0.1, 0.4]], 6)
    tokens = law.sample(3, seeded(8))
    tokens[0], tokens[1, 2:4] = law.mask_id, law.mask_id
    rule, spy = commit.maskgit(commit.annealed(2.0, 4), commit.cosine_counts(4)), Recording(law)
    result = commit.sample(spy, tokens, rule, generator=seeded(9))
    assert result.nfe.tolist() == [4, 2, 0]
    assert [len(call[1]) for call in spy.calls] == [2, 2, 1, 1]
    assert torch.equal(result.tokens[2], tokens[2])
    assert torch.equal(result.tokens[tokens != law.mask_id], tokens[tokens != law.mask_id])
    alone = commit.sample(law, tokens[:1], rule, generator=seeded(9))
    assert torch.equal(alone.tokens[0], result.tokens[0])
    replay = tokens.clone()
    for info in result.trace:
        valid = info.rows >= 0
        replay[info.items[:, None].expand_as(info.rows)[valid], info.rows[valid]] = info.symbols[valid]
    assert torch.equal(replay, result.tokens)
    assert result.manifest["selector"] == "maskgit(annealed(2.0, 4), cosine_counts(4))"


def test_candidates_are_drawn_in_slices_at_open_rows_only(monkeypatch):
    monkeypatch.setattr(commit, "SLICE", 12)
    sizes = []

    def spying(request):
        sizes.append(tuple(request.log_probs.shape))
        return sources.draw(request)

    tokens = torch.tensor([[3, 3, 0, 3, 3, 3], [1, 3, 2, 0, 0, 3]])
    view = unmask.View(
        tokens,
        (tokens == 3) & torch.tensor([True] * 4 + [False] * 2),
        Toy()(tokens),
        order_ids=torch.arange(2),
        rows=torch.arange(6).expand(2, -1),
    )
    symbols = commit.candidates(view, spying, 11)
    assert sizes == [(4, 1, 3)]
    assert (symbols[~view.masked] == 0).all()
    whole = sources.draw(unmask.Request(view.log_probs, view.rows, view.masked, view.order_ids, 0, 11))
    assert torch.equal(symbols[view.masked], whole[view.masked])


# Precision at a large vocabulary.

V, T = 50_257, 1024


def rare(top=7):
    """One symbol with probability 1 - 1/T, the rest spread over all others: a step of T in the usual formulation."""
    row = torch.full((V,), math.log(1 / T / (V - 1)))
    row[top] = math.log1p(-1 / T)
    return row


def test_rare_symbols_are_drawn_as_often_as_they_should():
    """Of 2^17 positions only those are drawn whose uniform lies in the last 3/T, the top symbol being first."""
    length = 2**17
    u = noise.uniform(seed := seed_of(12), noise.SYMBOL, torch.zeros(1, 1), torch.arange(length)[None])
    late = u > 1 - 3 / T
    tokens = torch.where(late, V, 0)
    denoiser = Independent(rare(0)[None].expand(length, V))
    for rule in (commit.maskgit(1.0, lambda n: (n,)), commit.low_confidence(1.0, lambda n: (n,))):
        result = commit.sample(denoiser, tokens, rule, generator=seeded(12))
        assert result.manifest["seed"] == seed
        assert abs(z_of(int((result.tokens[late] != 0).sum()), length)) < 4
    assert z_of(float32_gumbel_count(length), length) < -4


def seed_of(number):
    return int(torch.randint(2**63 - 1, (), generator=seeded(number)))


def z_of(count, trials):
    return (count - trials / T) / math.sqrt(trials / T)


def float32_gumbel_count(trials):
    """How often arg-max of log p + Gumbel in float32 leaves the top symbol.

    The best of n equal rivals has the largest of n float32 uniforms, which is U^(1/n) cut to 24 bits.
    """
    u = torch.rand(2, trials, dtype=torch.float64, generator=seeded(13))
    u[1] **= 1 / (V - 1)
    g = -torch.log(-torch.log(torch.floor(u * 2**24).div(2**24).float()))
    row = rare()
    return int((row[0] + g[1] > row[7] + g[0]).sum())


# Errors.


def test_errors_say_what_was_expected():
    law = chain(4)
    with pytest.raises(ValueError, match="temperature -1"):
        commit.low_confidence(-1.0, 1)
    with pytest.raises(ValueError, match="steps 0"):
        commit.cosine_counts(0)
    with pytest.raises(ValueError, match="temperature nan"):
        commit.sample(law, hidden(1, law), commit.maskgit(math.nan, 1), generator=seeded(0))
    with pytest.raises(ValueError, match="plan sums to 3 but 4"):
        commit.sample(law, hidden(1, law), commit.maskgit(1.0, (1, 2)), generator=seeded(0))
    with pytest.raises(ValueError, match="expected int64"):
        commit.sample(law, hidden(1, law).float(), commit.maskgit(1.0, 1), generator=seeded(0))
