"""Choose-first samplers against the truth: exact laws, published rules, and reference numbers computed independently."""

from __future__ import annotations

import itertools
import math
from functools import cache, partial

import numpy as np
import pytest
import torch
from helpers import SMALL_LAWS, Recording, chi_square_z, every_sequence, hidden, place_of, seeded

import unmask
from unmask import engine, laws, plans, scores, selectors
from unmask.base.types import Score, View
from unmask.denoisers import tempered
from unmask.orders import presets, rules

every_law = pytest.mark.parametrize("name", SMALL_LAWS)


@cache
def law_of(name):
    return {**SMALL_LAWS, **REFERENCE}[name]()


def chain(length):
    transition = np.random.default_rng(0).dirichlet([0.35] * 3, size=3)
    return laws.Markov(laws.stationary(transition), transition, length)


def ising(coupling):
    grid = every_sequence(laws.OneHot(2), 9).view(-1, 3, 3).double() * 2 - 1
    pairs = (grid[:, 1:] * grid[:, :-1]).sum((1, 2)) + (grid[:, :, 1:] * grid[:, :, :-1]).sum((1, 2))
    return laws.Table((coupling * pairs + 0.1 * grid.sum((1, 2))).log_softmax(0), 9)


REFERENCE = {
    "chain 3": lambda: chain(3),
    "chain 4": lambda: chain(4),
    "chain 5": lambda: chain(5),
    "chain 6": lambda: chain(6),
    "chain 8": lambda: chain(8),
    "sticky": lambda: laws.Markov([1 / 3] * 3, 0.85 * np.eye(3) + 0.05, 8),
    "ising": lambda: ising(0.4),
    "strong ising": lambda: ising(0.7),
}


def fixed(order):
    """A blind score for one given order."""
    place = -torch.tensor(order).argsort().double()
    return Score(lambda view: place.expand(view.tokens.shape), blind=True, name=f"fixed({order})")


CORNERS = fixed([0, 8, 2, 6, 4, 1, 3, 5, 7])


def traced(law, selector, order_id=0):
    """Sequences that have probability, their probabilities, the last state and the trace of their path."""
    tokens = every_sequence(law, law.length)
    truth = law.log_prob(tokens)
    tokens, weights = tokens[truth > -torch.inf], truth[truth > -torch.inf].exp()
    state = engine.init(
        torch.full_like(tokens, law.mask_id), law.mask_id, torch.full((len(tokens),), order_id)
    )
    return tokens, weights, *engine.run(state, law, selector, unmask.given(tokens))


def kl(law, selector, order_id=0):
    """KL(law || sampler), nats, order disclosed."""
    _, weights, state, _ = traced(law, selector, order_id)
    return float(weights @ (weights.log() - state.log_prob))


def likelihoods(denoiser, law, selector, orders):
    """Log-likelihoods [orders, V^N] of every sequence."""
    tokens = every_sequence(law, law.length)
    ids = torch.arange(orders).repeat_interleave(len(tokens))
    return unmask.log_likelihood(denoiser, tokens.repeat(orders, 1), selector, order_ids=ids).view(orders, -1)


def background(law):
    return torch.arange(1.0, law.vocab_size + 1) / sum(range(1, law.vocab_size + 1))


def one_at_a_time(law):
    """Every preset that claims to be exact with one position per call."""
    return [
        presets.first_hitting(3),
        presets.random(seed=3),
        presets.left_to_right(),
        presets.confidence(),
        presets.margin(),
        presets.noisy_margin(scale=lambda n: 0.5 / (n + 1), seed=3),
        presets.entropy(),
        presets.moment(),
        presets.moment(beta=lambda n: 1.0 + n, seed=2),
        presets.moment(beta=5000.0),
        presets.halton(1, law.length, 1, shift_seed=4),
        presets.bisection(1),
        presets.hybrid(),
        presets.eb(0.0),
        presets.threshold(2.0),
        presets.factor(1e-9),
        presets.klass(tau=2.0),
        presets.pc(background(law)),
        presets.information_gain(law, candidates=3),
        presets.race(alpha=math.inf),
        rules.spaced(presets.confidence(), 3),
        rules.spaced(presets.left_to_right(law.length), law.length),
        rules.sharpened(presets.entropy(), 1.0),
    ]


def several_at_a_time(law):
    """Presets that unmask more, or sharpen."""
    slow_start = plans.cosine(law.length, 2)
    return [
        *for_any_count(law),
        presets.moment_sampler(slow_start, rules.maskgit_alpha(4.5, 2)),
        presets.race(slow_start, rules.maskgit_alpha(4.5, 2)),
    ]


def for_any_count(law):
    """Those that take any number of masked positions."""
    return [
        presets.ancestral(3, seed=1),
        presets.moment(2, beta=3.0),
        presets.moment_sampler(2, alpha=0.7),
        presets.race(2, alpha=0.8),
        presets.race(1, alpha=0.05),
        presets.halton(1, law.length, 2, shift_seed=4),
        presets.bisection(),
        presets.hybrid(3, share=lambda n: 0.3 + 0.1 * n, exploit=scores.moment(2.0)),
        presets.hybrid(2, explore=scores.at_random(3), exploit=scores.left_to_right),
        presets.eb(0.4),
        presets.threshold(0.6),
        presets.fork(0.8),
        presets.factor(1.5),
        presets.klass(tau=0.3, eps=0.2, plan=2),
        presets.pc(background(law), 2),
        presets.information_gain(law, 2, candidates=4),
        rules.spaced(presets.margin(3), 2),
        rules.spaced(presets.ancestral(2), 2),
        rules.sharpened(presets.race(2, alpha=2.0), lambda n: 1.5 + n),
        selectors.in_blocks(presets.klass(tau=0.3, eps=0.2), 2),
        selectors.in_blocks(presets.information_gain(law, 2, candidates=3), 3),
        selectors.in_blocks(presets.bisection(), 3),
        presets.punt(law, 0.2),
    ]


# Every preset: one position per call gives the law, probabilities sum to one, draws follow them.


@every_law
def test_one_position_per_call_is_exact(name):
    law = law_of(name)
    for selector in one_at_a_time(law):
        assert abs(kl(law, selector, order_id=2)) < 1e-12, selector.name


@every_law
def test_probabilities_sum_to_one(name):
    law = law_of(name)
    for turn, selector in enumerate(several_at_a_time(law)):
        denoiser = law if turn % 2 else tempered(law, 0.7)
        total = likelihoods(denoiser, law, selector, 2).exp().sum(1)
        assert total.tolist() == pytest.approx([1, 1], abs=1e-9), selector.name


@pytest.mark.parametrize("name", ["table", "polya"])
def test_draws_follow_the_likelihood(name):
    law, rows = law_of(name), 600
    for turn, selector in enumerate(several_at_a_time(law)):
        values = likelihoods(law, law, selector, 1)[0]
        ids = torch.zeros(rows, dtype=torch.int64)
        result = unmask.sample(law, hidden(rows, law), selector, generator=seeded(turn), order_ids=ids)
        cells = place_of(result.tokens, law.vocab_size)
        assert chi_square_z(torch.bincount(cells, minlength=len(values)), values.exp()) < 4, selector.name
        assert torch.equal(result.log_prob, values[cells]), selector.name


def test_rows_do_not_depend_on_their_neighbours():
    law = law_of("chain 5")
    prompt = torch.tensor([[3, 3, 3, 3, 3], [0, 3, 3, 3, 3], [3, 2, 3, 3, 0]])
    for selector in for_any_count(law):
        whole = unmask.sample(law, prompt, selector, generator=seeded(1))
        part = unmask.sample(law, prompt[:2], selector, generator=seeded(1))
        assert torch.equal(part.tokens, whole.tokens[:2]), selector.name
        assert torch.equal(part.log_prob, whole.log_prob[:2]), selector.name
        assert torch.equal(part.nfe, whole.nfe[:2]), selector.name


def test_float32_networks_ragged_prompts_and_substeps_agree_with_the_likelihood():
    rng = np.random.default_rng(0)
    weights = torch.tensor(rng.normal(size=(9, 7, 9, 6)), dtype=torch.float32)

    def network(tokens):
        return torch.einsum("blv,lvmw->bmw", torch.nn.functional.one_hot(tokens, 7).float(), weights)

    denoiser = unmask.from_logits(network, mask_id=6, vocab_size=6)
    tokens = torch.full((4, 9), 6)
    tokens[1, :3], tokens[2, 5], tokens[3, [0, 2, 4, 6, 8]] = 2, 1, 5
    law = laws.Mixture([1.0], [[0.1, 0.1, 0.2, 0.2, 0.2, 0.2]], 9)
    for selector in for_any_count(law):
        result = unmask.sample(denoiser, tokens, selector, generator=seeded(1))
        again = unmask.log_likelihood(
            denoiser, result.tokens, selector, visible=tokens != 6, order_ids=torch.arange(4)
        )
        assert torch.equal(again, result.log_prob), selector.name
        assert (result.tokens != 6).all(), selector.name
        assert torch.equal(result.tokens[tokens != 6], tokens[tokens != 6]), selector.name


@pytest.mark.parametrize("name", ["table", "hmm"])
def test_substeps_keep_the_probabilities(name):
    law = law_of(name)
    for selector in (
        presets.race(3, alpha=0.8),
        presets.moment_sampler(3),
        presets.hybrid(3),
        presets.klass(0.3, 0.5, 3),
    ):
        tokens = every_sequence(law, law.length)
        values = unmask.log_likelihood(law, tokens, selector, substeps=2)
        assert float(values.exp().sum()) == pytest.approx(1, abs=1e-9), selector.name


# What a step costs: the sum of the total correlations of its batches (derived).


def total_correlations(law, selector):
    """Total correlation of every batch given what is visible, nats, and the weighted sum over a path."""
    tokens, weights, _, trace = traced(law, selector)
    masked = torch.ones_like(tokens, dtype=torch.bool)
    largest, total = 0.0, 0.0
    for info in trace:
        rows, valid, mine = info.rows.clamp(min=0), info.rows >= 0, info.items
        agree = ((tokens[mine, None] == tokens[None]) | masked[mine, None]).all(2) * weights
        symbols = torch.where(valid[:, None], tokens[:, rows].transpose(0, 1), 0)
        visible = torch.where(masked[mine], law.mask_id, tokens[mine])
        apart = scores.entropy(law(visible, rows)).masked_fill(~valid, 0.0).sum(1)
        together = conditional_entropies(agree, symbols, law.vocab_size)
        largest = max(largest, float((apart - together).max()))
        total += float(weights[mine] @ (apart - together))
        masked[mine] = masked[mine].scatter(1, rows, masked[mine].gather(1, rows) & ~valid)
    return largest, total


def conditional_entropies(weights, symbols, vocab):
    """Joint entropy of symbols [b, S, k] under weights [b, S], nats, [b]."""
    codes = (symbols * vocab ** torch.arange(symbols.shape[2])).sum(2)
    table = torch.zeros(len(codes), vocab ** symbols.shape[2], dtype=torch.float64).scatter_add_(
        1, codes, weights
    )
    return torch.special.entr(table / table.sum(1, keepdim=True)).sum(1)


@pytest.mark.parametrize("name", ["chain 5", "tree", "hamming"])
def test_kl_is_the_total_correlation_of_the_batches(name):
    law = law_of(name)
    for selector in (
        presets.confidence(2),
        presets.hybrid(3),
        presets.klass(0.3, 0.2, 2),
        presets.factor(1.5),
    ):
        assert total_correlations(law, selector)[1] == pytest.approx(kl(law, selector), abs=1e-10), (
            selector.name
        )


@pytest.mark.parametrize("gamma", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("name", ["chain 5", "tree", "table"])
def test_entropy_budget_bounds_every_batch(name, gamma):
    law = law_of(name)
    assert total_correlations(law, presets.eb(gamma))[0] <= gamma + 1e-9


@pytest.mark.parametrize(
    ("name", "calls", "model_calls", "cost"),
    [("chain 8", 8.0, 8.0, 0.0), ("sticky", 5.0, 5.0, 0.638), ("strong ising", 4.245, 4.445, 0.2964)],
)
def test_entropy_budget_reference_numbers(name, calls, model_calls, cost):
    law = law_of(name)
    _, weights, state, _ = traced(law, presets.eb(0.5))
    assert float(weights @ state.nfe) == pytest.approx(calls, abs=1e-3)
    assert float(state.log_prob.exp() @ state.nfe) == pytest.approx(model_calls, abs=1e-3)
    assert float(weights @ (weights.log() - state.log_prob)) == pytest.approx(cost, abs=5e-4)
    assert cost <= 0.5 * calls


# Orders and plans on the reference laws.


@pytest.mark.parametrize(
    ("name", "selector", "wanted"),
    [
        ("chain 8", presets.left_to_right((3, 2, 3)), 1.481),
        ("chain 8", presets.bisection((3, 2, 3)), 0.242),
        ("chain 8", presets.confidence((3, 2, 3)), 1.122),
        ("chain 8", presets.entropy((3, 2, 3)), 1.122),
        ("chain 8", presets.hybrid((3, 2, 3), 0.75), 0.407),
        ("chain 8", presets.bisection((1, 2, 1, 4)), 0.098),
        ("ising", presets.left_to_right((3, 3, 3)), 0.369),
        ("ising", presets.confidence((3, 3, 3)), 0.236),
        ("ising", presets.entropy((3, 3, 3)), 0.236),
        ("ising", selectors.top_k(CORNERS, (3, 3, 3)), 0.098),
        ("ising", selectors.top_k(CORNERS, (2, 3, 4)), 0.049),
        ("ising", selectors.top_k(CORNERS, (1, 1, 1, 1, 1, 4)), 0.0),
    ],
)
def test_reference_costs_in_three_calls(name, selector, wanted):
    assert kl(law_of(name), selector) == pytest.approx(wanted, abs=6e-4)


def test_reference_costs_of_random_orders():
    for name, costs in {
        "chain 8": {(3, 2, 3): 0.572, (1, 3, 4): 0.601, (2, 3, 3): 0.505},
        "ising": {(3, 3, 3): 0.216, (1, 3, 5): 0.233, (2, 3, 4): 0.194},
    }.items():
        profile = law_of(name).profile()
        assert {plan: round(profile.kl(plan), 3) for plan in costs} == costs
        assert plans.optimal(profile, steps=3) == min(costs, key=costs.get)


@pytest.mark.parametrize(
    ("plan", "disclosed", "mixed"),
    [((2, 3), 0.465945, 0.279), ((1, 2, 2), 0.206934, 0.101), ((3, 2), 0.588609, 0.441)],
)
def test_every_order_averages_to_the_profile(plan, disclosed, mixed):
    law = law_of("chain 5")
    places = torch.tensor(list(itertools.permutations(range(5)))).double()
    score = Score(lambda view: -places[view.order_ids], blind=True, name="listed")
    truth = law.log_prob(every_sequence(law, 5))
    values = likelihoods(law, law, selectors.top_k(score, plan), len(places))
    assert float((truth.exp() * (truth - values)).sum(1).mean()) == pytest.approx(disclosed, abs=1e-6)
    assert law.profile().kl(plan) == pytest.approx(disclosed, abs=1e-6)
    average = values.logsumexp(0) - math.log(len(places))
    assert float((truth.exp() * (truth - average)).sum()) == pytest.approx(mixed, abs=6e-4)


# Bisection and Halton.


@pytest.mark.parametrize("length", range(1, 14))
def test_bisection_is_exact_on_any_chain(length):
    rng = np.random.default_rng(length)
    law = laws.Markov(rng.dirichlet([0.5, 0.5]), rng.dirichlet([0.3] * 2, size=2), length)
    assert len(plans.doubling(length)) == 1 + math.ceil(math.log2(length))
    for selector in (presets.bisection(), presets.bisection(plans.doubling(length))):
        _, weights, state, _ = traced(law, selector)
        assert abs(float(weights @ (weights.log() - state.log_prob))) < 1e-12
        assert state.nfe.eq(len(plans.doubling(length))).all()


def test_bisection_is_exact_in_every_gap_of_a_prompt():
    law = law_of("chain 8")
    tokens = every_sequence(law, 8)
    truth = law.log_prob(tokens)
    for shown in ([3], [0, 7], [2, 5], [1, 2, 6], [7]):
        visible = torch.zeros(tokens.shape, dtype=torch.bool)
        visible[:, shown] = True
        marginal = torch.zeros(3 ** len(shown), dtype=torch.float64)
        cells = place_of(tokens[:, shown], 3)
        marginal = marginal.scatter_add_(0, cells, truth.exp()).log()[cells]
        values = unmask.log_likelihood(law, tokens, presets.bisection(), visible=visible)
        assert float((truth.exp() * (truth - marginal - values).abs()).sum()) < 1e-12, shown


def test_bisection_halves():
    masked = torch.tensor([[True] * 8, [False, True, True, True, False, True, False, True]])
    view = View(torch.zeros(2, 8, dtype=torch.int64), masked)
    assert scores.bisection(view)[0].argsort(descending=True).tolist() == [0, 4, 2, 6, 1, 5, 3, 7]
    assert scores.bisection_levels(view)[0].tolist() == [0, -3, -2, -3, -1, -3, -2, -3]
    assert scores.bisection_levels(view)[1][masked[1]].tolist() == [-2, -1, -2, -1, -1]
    later = View(view.tokens, masked & (torch.arange(8) > 1), start=masked)
    assert torch.equal(scores.bisection(later)[later.masked], scores.bisection(view)[later.masked])
    assert [plans.doubling(n) for n in (1, 2, 6, 8, 9)] == [
        (1,),
        (1, 1),
        (1, 1, 1, 3),
        (1, 1, 2, 4),
        (1, 1, 1, 2, 4),
    ]


def test_halton_fills_the_grid_evenly():
    view = View(
        torch.zeros(3, 64, dtype=torch.int64), torch.ones(3, 64, dtype=torch.bool), order_ids=torch.arange(3)
    )
    order = scores.halton(8, 8)(view)[0].argsort(descending=True)
    points = [(1 / 2, 1 / 3), (1 / 4, 2 / 3), (3 / 4, 1 / 9), (1 / 8, 4 / 9), (5 / 8, 7 / 9)]
    assert order[:5].tolist() == [int(8 * u) * 8 + int(8 * v) for u, v in points]
    assert sorted(order.tolist()) == list(range(64))
    rows = torch.bincount(order[:16] // 8, minlength=8)
    assert rows.tolist() == [2] * 8
    shifted = scores.halton(8, 8, shift_seed=1)(view).view(3, 8, 8)
    plain = scores.halton(8, 8)(view).view(3, 8, 8)[0]
    moves = [
        [(a, b) for a in range(8) for b in range(8) if torch.equal(plain.roll((a, b), (0, 1)), s)]
        for s in shifted
    ]
    assert all(len(found) == 1 for found in moves)
    assert len({found[0] for found in moves}) > 1
    with pytest.raises(ValueError, match="expected 12 positions, got 64"):
        scores.halton(3, 4)(view)


# MaskGIT: the moment sampler and the race, against quadrature.


def moment_pick(log_probs, alpha):
    """P(position, symbol) of the moment sampler's first pick, for log-probabilities [.., n, V]."""
    weights = np.exp((1 + 1 / alpha) * log_probs)
    return weights / weights.sum((-2, -1), keepdims=True)


def race_pick(log_probs, alpha):
    """P(position, symbol) of MaskGIT's first pick, for [.., n, V], by the trapezoid rule in log t."""
    probs, rates = np.exp(log_probs), np.exp((log_probs - log_probs.max()) / alpha)
    log_times = np.arange(-18, 4 - np.log(rates.min()), 0.25)
    times = np.exp(log_times).reshape(-1, *[1] * log_probs.ndim)
    alive = np.exp(-times * rates)
    log_survival = np.log(np.maximum((probs * alive).sum(-1), 1e-300))
    others = np.exp(log_survival.sum(-1, keepdims=True) - log_survival)[..., None]
    return np.trapezoid(times * rates * probs * alive * others, log_times, axis=0)


def one_by_one(law, pick):
    """Probabilities [V^N] of the sampler that picks (position, symbol) pairs one at a time."""
    base, places = law.vocab_size + 1, (law.vocab_size + 1) ** torch.arange(law.length - 1, -1, -1)
    states = torch.cartesian_prod(*[torch.arange(base)] * law.length)
    weights = torch.zeros(len(states), dtype=torch.float64)
    weights[-1] = 1.0  # all masked
    for visible in range(law.length):
        mine = (((states == law.mask_id).sum(1) == law.length - visible) & (weights > 0)).nonzero()[:, 0]
        for part in mine.split(300):
            masked = (states[part] == law.mask_id).nonzero()[:, 1].view(len(part), -1)
            log_probs = law(states[part], masked).numpy()
            gained = weights[part, None, None] * torch.tensor(pick(log_probs))
            moves = (torch.arange(law.vocab_size) - law.mask_id) * places[masked][..., None]
            weights.index_add_(0, (part[:, None, None] + moves).flatten(), gained.flatten())
    return weights[((states != law.mask_id).all(1)).nonzero()[:, 0]]


def divergence_and_entropy(law, probs):
    truth = law.log_prob(every_sequence(law, law.length))
    return float((truth.exp() * (truth - probs.log())).sum()), float(torch.special.entr(probs).sum())


@pytest.mark.parametrize(
    ("name", "alpha", "pick", "wanted"),
    [
        ("chain 6", 1.0, moment_pick, (0.421, 3.57)),
        ("chain 6", 4.5, moment_pick, (0.0276, 4.42)),
        ("ising", 1.0, moment_pick, (0.634, 2.41)),
        ("ising", 4.5, moment_pick, (0.043, 4.19)),
        ("chain 6", 1.0, race_pick, (0.146, 4.01)),
        ("chain 6", 4.5, race_pick, (0.0089, 4.54)),
        ("ising", 1.0, race_pick, (0.361, 2.93)),
        ("ising", 4.5, race_pick, (0.021, 4.36)),
    ],
)
def test_reference_laws_of_biased_samplers(name, alpha, pick, wanted):
    law = law_of(name)
    value, entropy = divergence_and_entropy(law, one_by_one(law, partial(pick, alpha=alpha)))
    assert value == pytest.approx(wanted[0], rel=0.015)
    assert entropy == pytest.approx(wanted[1], abs=6e-3)


def average_matches(values, probs):
    """Whether the average of exp(values) over orders is probs, within its standard errors; rare cells are left out."""
    drawn, often = values.exp()[:, probs > 3e-3], probs[probs > 3e-3]
    z = (drawn.mean(0) - often) / (drawn.std(0) / math.sqrt(len(drawn)))
    return float(z.abs().max()) < 4 and float((z**2).mean()) < 2


@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.5])
def test_presets_follow_the_laws_found_independently(alpha):
    law = law_of("chain 3")
    for preset, pick in ((presets.moment_sampler, moment_pick), (presets.race, race_pick)):
        values = likelihoods(law, law, preset(1, alpha), 1200)
        assert average_matches(values, one_by_one(law, partial(pick, alpha=alpha))), preset.__name__


def test_race_keeps_every_draw_at_the_end():
    law = law_of("chain 3")
    apart = law(hidden(1, law))[0]
    product = apart[torch.arange(3), every_sequence(law, 3)].sum(1).exp()
    assert average_matches(likelihoods(law, law, presets.race(3, alpha=0.6), 1500), product)
    annealed = presets.race(3, rules.maskgit_alpha(4.5, 1))
    assert likelihoods(law, law, annealed, 1)[0].exp().tolist() == pytest.approx(product.tolist())


def test_race_is_maskgit_for_two_at_once():
    law, alpha, rows = law_of("table"), 0.7, 200_000
    found = race_view(law(hidden(1, law)).expand(rows, -1, -1), presets.race(2, alpha))
    generator, log_probs = seeded(5), law(hidden(1, law))[0]
    drawn = torch.multinomial(log_probs.exp(), rows, True, generator=generator).T
    noise = -torch.log(torch.empty(rows, 4, dtype=torch.float64).exponential_(generator=generator))
    kept = (log_probs[torch.arange(4), drawn] + alpha * noise).topk(2).indices
    counts = torch.zeros(4, 3, dtype=torch.float64)
    counts.index_put_(
        (kept.flatten(), drawn.gather(1, kept).flatten()), torch.tensor(1.0).double(), accumulate=True
    )
    assert torch.allclose(found, counts / rows, atol=5e-3)


def race_view(log_probs, selector):
    """Mean number of times that each (position, symbol) is unmasked first, float64 [N, V], over rows as order_ids."""
    rows, length, vocab = log_probs.shape
    masked = torch.ones(rows, length, dtype=torch.bool)
    view = View(
        torch.zeros(rows, length, dtype=torch.int64),
        masked,
        log_probs,
        log_probs,
        order_ids=torch.arange(rows),
    )
    choice = selector(view)
    law = (rules.law_at(view, choice.rows) + (0 if choice.tilt is None else choice.tilt)).softmax(-1)
    total = torch.zeros(length, vocab, dtype=torch.float64)
    return total.index_add_(0, choice.rows.flatten(), law.flatten(0, 1)) / rows


def dirichlet(count, vocab, concentration, seed):
    """Log-probabilities [count, V] with Dirichlet rows."""
    return np.log(
        np.maximum(np.random.default_rng(seed).dirichlet([concentration] * vocab, size=count), 1e-300)
    )


@pytest.mark.parametrize(
    ("length", "wanted", "spread"),
    [(8, 0.0292, 0.25), (32, 0.0064, 0.1), (128, 0.00156, 0.05), (512, 0.00039, 0.05)],
)
def test_maskgit_tends_to_the_moment_sampler(length, wanted, spread):
    seeds = range(max(1, 256 // length))
    rows = [dirichlet(length, 16, 0.3, seed) for seed in seeds]
    distances = [np.abs(race_pick(r, 1.0) - moment_pick(r, 1.0)).sum() / 2 for r in rows]
    assert np.mean(distances) == pytest.approx(wanted, rel=spread)


def test_first_pick_of_the_race_is_the_quadrature():
    log_probs = dirichlet(8, 16, 0.3, 0)
    found = race_view(torch.tensor(log_probs).expand(40_000, -1, -1), presets.race(1))
    exact = race_pick(log_probs, 1.0)
    assert exact.sum() == pytest.approx(1, abs=1e-6)
    assert np.abs(found.numpy() - exact).sum() / 2 < 0.01
    assert np.abs(moment_pick(log_probs, 1.0) - exact).sum() / 2 > 0.02


@pytest.mark.parametrize("inner", [2.0, 0.5])
def test_sharpening_twice_adds_the_exponents(inner):
    """Tilts add up: p^(1 + (a - 1) + (b - 1)), whichever stands outside, and over the race's own tilt too."""
    law = law_of("chain 4")
    tokens = every_sequence(law, 4)

    def score_under(selector):
        return unmask.log_likelihood(law, tokens, selector)

    order = presets.margin(2)
    twice = score_under(rules.sharpened(rules.sharpened(order, inner), 1.75))
    assert twice == pytest.approx(score_under(rules.sharpened(order, inner + 0.75)), abs=1e-12)
    first = presets.race(2, alpha=0.7)(all_masked(law))
    both = rules.sharpened(presets.race(2, alpha=0.7), 3.0)(all_masked(law))
    law_there = all_masked(law).log_probs.gather(1, first.rows[..., None].expand(-1, -1, law.vocab_size))
    assert torch.allclose(both.tilt - first.tilt, 2 * law_there)


@pytest.mark.parametrize(
    ("share", "maskgit", "moment"),
    [(0.031, -2.123, -2.111), (0.25, -2.210, -2.132), (0.75, -2.510, -2.179), (1.0, -2.874, -2.217)],
)
def test_sharpening_fades_in_maskgit_but_not_in_the_moment_sampler(share, maskgit, moment):
    count = round(256 * share)
    log_probs = torch.stack([torch.tensor(dirichlet(256, 64, 0.2, seed)) for seed in range(40)])
    for selector, wanted in ((presets.race(count), maskgit), (presets.moment_sampler(count), moment)):
        assert mean_log_prob(log_probs, selector) == pytest.approx(wanted, abs=0.025), selector.name


def mean_log_prob(log_probs, selector):
    """Expected log p of the symbols unmasked first, per symbol."""
    masked = torch.ones(log_probs.shape[:2], dtype=torch.bool)
    view = View(
        torch.zeros_like(masked, dtype=torch.int64),
        masked,
        log_probs,
        log_probs,
        order_ids=torch.arange(len(masked)),
    )
    choice = selector(view)
    law = rules.law_at(view, choice.rows)
    tilted = (law + choice.tilt).softmax(-1)
    return float((tilted * law).sum(-1).mean())


def test_moment_weights_choose_as_stated():
    log_probs, rows = torch.tensor(dirichlet(5, 4, 0.5, 3)), 20_000
    view = View(
        torch.zeros(rows, 5, dtype=torch.int64),
        torch.ones(rows, 5, dtype=torch.bool),
        (0.3 * log_probs).log_softmax(-1).expand(rows, -1, -1),
        log_probs.expand(rows, -1, -1),
        order_ids=torch.arange(rows),
    )
    for beta in (1.0, 2.0, 40.0):
        weights = torch.logsumexp(beta * log_probs, -1).softmax(0)
        first = scores.moment(beta)(view).argmax(1)
        assert chi_square_z(torch.bincount(first, minlength=5), weights) < 4, beta
    assert torch.equal(scores.moment(5000.0)(view)[0], log_probs.amax(-1))
    assert scores.moment(1000.0)(view)[0].sub(log_probs.amax(-1)).abs().max() < 0.02
    with pytest.raises(ValueError, match="beta > 0"):
        scores.moment(0.0)(view)


def test_moment_sampler_is_a_tempered_denoiser_under_the_moment_order():
    law = law_of("chain 4")
    one = likelihoods(law, law, presets.moment_sampler(2, alpha=0.5, seed=1), 3)
    other = likelihoods(tempered(law, 1 / 3), law, presets.moment(2, beta=3.0, seed=1), 3)
    assert torch.allclose(one, other, atol=1e-12)


# Adaptive rules.


def test_factor_takes_the_joint_arg_max():
    hits = 0
    for seed in range(60):
        law = laws.Table(
            torch.tensor(np.random.default_rng(seed).dirichlet([0.02] * 81))
            .clamp(min=1e-12)
            .log()
            .log_softmax(0),
            4,
        )
        tokens = hidden(1, law)
        log_probs = law(tokens)
        choice = presets.factor(1.0)(View(tokens, tokens == law.mask_id, log_probs, log_probs))
        rows = choice.rows[0]
        joint = torch.zeros(3 ** len(rows), dtype=torch.float64)
        sequences = every_sequence(law, 4)
        joint.scatter_add_(0, place_of(sequences[:, rows], 3), law.log_prob(sequences).exp())
        best = log_probs[0, rows].argmax(-1)
        assert int(joint.argmax()) == int(place_of(best[None], 3)) or len(rows) == 1
        hits += len(rows) > 1
    assert hits > 15


def test_factor_counts_as_published():
    probs = torch.tensor([[0.95, 0.9, 0.8, 0.6]], dtype=torch.float64)
    log_probs = torch.stack([probs, 1 - probs], -1).log()
    view = View(torch.full((1, 4), 2), torch.ones(1, 4, dtype=torch.bool), log_probs, log_probs)
    counts = {limit: int((presets.factor(limit)(view).rows >= 0).sum()) for limit in (0.05, 0.31, 0.81, 2.1)}
    assert counts == {0.05: 1, 0.31: 2, 0.81: 3, 2.1: 4}


def test_klass_waits_until_the_law_is_calm():
    law = laws.Mixture([1.0], [[0.97, 0.03]], 6)  # independent positions: nothing ever moves
    _, _, state, trace = traced(law, presets.klass(tau=0.6, eps=0.01, plan=1))
    assert [info.rows.shape[1] for info in trace] == [1, 1, 4]
    assert state.nfe.eq(3).all()
    _, _, _, longer = traced(law, rules.stable(1, 0.6, 0.01, history=3))
    assert [info.rows.shape[1] for info in longer] == [1, 1, 1, 3]
    _, _, _, never = traced(law, presets.klass(tau=0.99))
    assert [info.rows.shape[1] for info in never] == [1] * 6


def test_klass_measures_the_divergence_between_steps():
    before, now = (torch.tensor(dirichlet(4, 3, 1.0, seed))[None] for seed in (0, 1))
    moved = (now.exp() * (now - before)).sum(-1)[0]
    tokens, masked = torch.full((1, 4), 3), torch.ones(1, 4, dtype=torch.bool)
    order = torch.tensor([[3, 1, 0, 2]])
    old = View(tokens, masked, before[:, order[0]], rows=order)
    for eps in (moved.sort().values + 1e-9).tolist():
        rule = rules.stable(4, tau=0.0, eps=eps, history=1)
        choice = rule(View(tokens, masked, now, memory=rule(old).memory))
        assert sorted(choice.rows[0][choice.rows[0] >= 0].tolist()) == (moved < eps).nonzero()[:, 0].tolist()


def test_klass_counts_again_after_a_move():
    one, other = (torch.tensor(dirichlet(4, 3, 1.0, seed))[None] for seed in (0, 1))
    tokens, masked = torch.full((1, 4), 3), torch.ones(1, 4, dtype=torch.bool)
    rule, memory, sizes = rules.stable(1, tau=0.0, eps=1e-6, history=2), (), []
    for law in (one, one, other, other, other):
        choice = rule(View(tokens, masked, law, memory=memory))
        memory, sizes = choice.memory, [*sizes, choice.rows.shape[1]]
    assert sizes == [1, 1, 1, 1, 4]


def test_spacing_is_kept_in_every_step():
    law = law_of("chain 5")
    for distance in (1, 2, 3, 5):
        *_, trace = traced(law, rules.spaced(presets.random(4, seed=3), distance), order_id=1)
        for info in trace:
            gaps = (info.rows[:, :, None] - info.rows[:, None]).abs() + 99 * torch.eye(
                info.rows.shape[1], dtype=torch.int64
            )
            both = (info.rows >= 0)[:, :, None] & (info.rows >= 0)[:, None]
            assert gaps[both].min() >= distance
    plain = kl(law, presets.random(4, seed=3), 1)
    assert kl(law, rules.spaced(presets.random(4, seed=3), 1), 1) == plain


def test_spacing_skips_and_goes_on():
    view = View(torch.zeros(1, 6, dtype=torch.int64), torch.ones(1, 6, dtype=torch.bool))
    rows = rules.spaced(presets.left_to_right(6), 2)(view).rows[0]
    assert rows[rows >= 0].tolist() == [0, 2, 4]


def test_hybrid_explores_first_and_skips_what_is_taken():
    tokens = torch.zeros(1, 6, dtype=torch.int64)
    view = View(tokens, torch.tensor([[True, True, True, True, True, False]]), step=1)
    ends = fixed([5, 4, 0, 3, 1, 2])
    for share, wanted in (
        (0.0, [0, 1, 2, 3]),
        (0.25, [4, 0, 1, 2]),
        (0.5, [4, 0, 1, 2]),
        (0.6, [4, 0, 1, 2]),
        (1.0, [4, 0, 3, 1]),
    ):
        choice = selectors.hybrid(ends, scores.left_to_right, share, 4)(view)
        assert choice.rows[0].tolist() == wanted, share
    annealed = selectors.hybrid(ends, scores.left_to_right, lambda step: 1.0 - step, 4)
    assert annealed.blind
    assert annealed(view).rows[0].tolist() == [0, 1, 2, 3]
    assert not selectors.hybrid(ends, scores.confidence, 0.5, 4).blind
    with pytest.raises(ValueError, match="between 0 and 1"):
        selectors.hybrid(ends, ends, 1.5, 1)(view)


def test_position_prior_as_published():
    law = laws.Mixture([1.0], [[0.5, 0.3, 0.2]], 4)
    frequencies = torch.tensor([0.9, 0.05, 0.05])
    tokens = torch.tensor([[1, 3, 3, 3]])
    log_probs = law(tokens)
    view = View(tokens, tokens == 3, log_probs, log_probs)
    content = -0.5 * math.log(0.9)
    wanted = [-math.inf, *(content * math.exp(-0.25 * place) for place in range(3))]
    assert scores.position_prior(frequencies)(view)[0].tolist() == pytest.approx(wanted)
    clipped = scores.position_prior(torch.tensor([0.0, 0.5, 0.5]), decay=0.0, clip=2.0)(view)
    assert clipped[0].tolist() == [-math.inf, 2, 2, 2]


# The look-ahead.


def test_information_gain_counts_its_calls():
    law = Recording(law_of("chain 5"))
    selector = rules.information_gain(law, 2, candidates=5, bypass=2.0)
    result = unmask.sample(law, hidden(3, law_of("chain 5")), selector, generator=seeded(0))
    assert result.nfe.tolist() == [18.0] * 3
    assert [len(tokens) for _, tokens, _, _ in law.calls] == [3, 15] * 3
    twice = rules.information_gain(unmask.guided(law, law, 0.5), 5, candidates=2, bypass=2.0)
    guided = unmask.sample(
        unmask.guided(law, law, 0.5), hidden(1, law_of("chain 5")), twice, generator=seeded(0)
    )
    assert guided.nfe.tolist() == [6.0]


def test_information_gain_passes_by_what_is_certain():
    law = law_of("hamming")
    result = unmask.sample(
        law, hidden(2, law), rules.information_gain(law, 1, candidates=4), generator=seeded(0)
    )
    assert (
        result.nfe.tolist() == [7 + 4 * 4.0] * 2
    )  # four free bits are looked at, three determined ones are not


@pytest.mark.parametrize("seed", range(4))
def test_information_gain_takes_the_first_of_equals(seed):
    """All positions of a uniform law are worth the same: the best by score, not the last of the candidates."""
    law = laws.Mixture([1.0], [[0.5, 0.5]], 6)
    choice = rules.information_gain(law, 2, candidates=6, temperature=100.0, seed=seed)(all_masked(law))
    assert choice.calls.tolist() == [6.0]
    assert choice.rows.tolist() == [[0, 1]]


def all_masked(law):
    tokens = hidden(1, law)
    return View(tokens, tokens == law.mask_id, law(tokens), law(tokens))


def test_information_gain_sees_what_a_position_tells():
    rows = torch.tensor([[a, b, c, c, c] for a, b, c in itertools.product(range(2), repeat=3)])
    law = laws.Support(rows, 2)  # all positions look alike
    assert presets.confidence()(all_masked(law)).rows.tolist() == [[0]]
    choice = rules.information_gain(law, 1)(all_masked(law))
    assert choice.rows[0, 0] >= 2
    assert choice.calls.tolist() == [8.0]


@pytest.mark.parametrize("seed", range(8))
def test_information_gain_takes_the_best_of_its_candidates(seed):
    law = laws.Table(torch.tensor(np.random.default_rng(seed).dirichlet([0.1] * 32)).log(), 5)
    now = scores.entropy(law(hidden(1, law))[0])
    values = [float(now[i]) + mean_entropy_after(law, i) for i in range(5)]
    choice = rules.information_gain(law, 1, candidates=60, temperature=100.0, bypass=2.0)(all_masked(law))
    assert int(choice.rows[0, 0]) == int(np.argmin(values))


def mean_entropy_after(law, place):
    """Mean entropy of the others once the most probable symbol stands at a place."""
    tokens = hidden(1, law)
    tokens[0, place] = law(tokens)[0, place].argmax()
    rest = [i for i in range(law.length) if i != place]
    return float(scores.entropy(law(tokens)[0, rest]).mean())


# Bad settings.


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: presets.factor(0.0), "expected a positive number"),
        (lambda: rules.spaced(presets.random(), 0), "expected at least 1"),
        (lambda: scores.halton(0, 3), "at least one row"),
        (lambda: rules.information_gain(law_of("chain 4"), 1, candidates=0), "expected at least 1"),
        (lambda: kl(law_of("chain 4"), presets.race(1, alpha=0.0)), "expected more than 0"),
        (lambda: kl(law_of("chain 4"), presets.moment_sampler(1, alpha=0.0)), "use source=greedy"),
        (
            lambda: kl(law_of("chain 4"), rules.spaced(presets.left_to_right((2, 2)), 2)),
            "no boundary of the plan",
        ),
    ],
)
def test_bad_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
