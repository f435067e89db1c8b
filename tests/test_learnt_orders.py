"""Learnt orders keep their likelihood, PUNT takes what is independent, and no order beats the searched one."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from helpers import CHAIN, Recording, chi_square_z, every_sequence, hidden, place_of, seeded

import unmask
from unmask import laws, plans, scores, selectors
from unmask.base.types import View
from unmask.evaluation.searched import best_order
from unmask.orders import described, policy, presets
from unmask.training import ordering
from unmask.training.ordering import Lessons, learn

CHAIN5 = laws.Markov([0.2, 0.5, 0.3], CHAIN, 5)


def stirred(length, symbols=3, seed=0, **shape):
    """A network with weights that nobody trained, so that its order hangs on all that it sees."""
    network = policy.blank(policy.OrderConfig(length, symbols=symbols, **shape), seed)
    generator = seeded(seed)
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(0.7 * torch.randn(weights.shape, generator=generator))
    return network


def kl(law, selector, denoiser=None):
    """KL(law || sampler), nats."""
    tokens = every_sequence(law, law.length)
    truth = law.log_prob(tokens)
    tokens, truth = tokens[truth > -torch.inf], truth[truth > -torch.inf]
    told = unmask.log_likelihood(law if denoiser is None else denoiser, tokens, selector)
    return float(truth.exp() @ (truth - told))


# A learnt score.


@pytest.mark.parametrize("per_call", [1, 2, 3])
def test_probabilities_along_a_learnt_order_sum_to_one(per_call):
    selector = selectors.top_k(scores.learnt(stirred(5)), per_call)
    tokens = every_sequence(CHAIN5, 5)
    told = unmask.log_likelihood(CHAIN5, tokens, selector)
    assert float(told.exp().sum()) == pytest.approx(1, abs=1e-9)
    assert torch.allclose(told, CHAIN5.log_prob(tokens)) == (per_call == 1)


def test_draws_follow_the_likelihood_of_a_learnt_order():
    selector = selectors.top_k(scores.learnt(stirred(5)), 2)
    drawn = unmask.sample(CHAIN5, hidden(4000, CHAIN5), selector, generator=seeded(0))
    told = unmask.log_likelihood(CHAIN5, every_sequence(CHAIN5, 5), selector).exp()
    counts = torch.bincount(place_of(drawn.tokens, 3), minlength=3**5)
    assert abs(chi_square_z(counts, told)) < 4
    assert torch.allclose(drawn.log_prob, unmask.log_likelihood(CHAIN5, drawn.tokens, selector))


def test_a_learnt_order_sees_symbols_and_no_candidate():
    """Rows do not hang on neighbours; the order differs from item to item with what is visible."""
    score = scores.learnt(stirred(5))
    tokens = every_sequence(CHAIN5, 5)[::7].clone()
    tokens[:, 1:] = torch.where(torch.arange(4) < 3, CHAIN5.mask_id, tokens[:, 1:])
    law = CHAIN5(tokens)
    view = View(tokens, tokens == 3, law, law)
    together = score(view)
    alone = torch.cat([score(view.part(torch.tensor([i]))) for i in range(len(tokens))])
    assert torch.allclose(together, alone, atol=1e-12)
    assert len(together.argmax(1).unique()) > 1


def test_an_untrained_order_is_margin():
    tokens = hidden(3, CHAIN5)
    tokens[:, 2] = torch.arange(3)
    law = CHAIN5(tokens)
    view = View(tokens, tokens == 3, law, law)
    network = policy.blank(policy.OrderConfig(5, symbols=3, sharpness=4.0))
    assert torch.allclose(scores.learnt(network)(view), 4 * scores.margin(view))


def test_features_say_what_is_known_of_each_position():
    tokens = torch.tensor([[0, 3, 3, 3]])
    law = (
        torch.tensor([[0.5, 0.3, 0.2], [0.7, 0.2, 0.1], [1 / 3] * 3, [1.0, 1e-30, 1e-30]])
        .double()
        .log()[None]
    )
    told = policy.features(View(tokens, tokens == 3, law, law))[0]
    entropy = -sum(p * math.log(p) for p in (0.7, 0.2, 0.1)) / math.log(3)
    wanted = [
        [0, 0, 0, 0, 0, 0.75],
        [0.5, 0.7, -math.log10(0.3) / 6, entropy, 1, 0.75],
        [0, 1 / 3, -math.log10(2 / 3) / 6, 1, 1, 0.75],
        [1, 1, 1, 0, 1, 0.75],
    ]
    assert torch.allclose(told, torch.tensor(wanted).double(), atol=1e-12)


def test_a_manifest_holds_a_learnt_order_and_replays_it(tmp_path):
    network = stirred(5, axes=[[0, 0, 1, 1, 2], [0, 1, 0, 1, 0]])
    selector = selectors.top_k(scores.with_noise(scores.on_base(scores.learnt(network)), 0.1, 3), 2)
    result = unmask.sample(CHAIN5, hidden(9, CHAIN5), selector, generator=seeded(1))
    with torch.no_grad():  # an order is that of the network as it was
        for weights in network.parameters():
            weights.zero_()
    later = unmask.sample(CHAIN5, hidden(9, CHAIN5), selector, generator=seeded(1))
    assert torch.equal(later.tokens, result.tokens)
    assert torch.equal(later.log_prob, result.log_prob)
    told = json.loads(json.dumps(result.manifest))
    again = unmask.replay(CHAIN5, told)
    assert torch.equal(again.tokens, result.tokens)
    assert again.log_prob.tolist() == result.log_prob.tolist()
    assert again.manifest["selector"] == result.manifest["selector"]


def test_a_large_network_is_not_told_of():
    network = policy.blank(policy.OrderConfig(5, width=64))
    assert described.made_by(scores.learnt(network)) is None


def test_a_folder_holds_a_network(tmp_path):
    network = stirred(6, width=8, depth=2, axes=[[0, 1, 2, 0, 1, 2]])
    policy.write(network, tmp_path / "order")
    again = policy.read(tmp_path / "order")
    assert again.config == network.config
    assert scores.learnt(again).name == scores.learnt(network).name
    other = policy.blank(policy.OrderConfig(7, symbols=3, width=8))
    policy.write(other, tmp_path / "other")
    (tmp_path / "order" / "weights.safetensors").replace(tmp_path / "other" / "weights.safetensors")
    with pytest.raises(ValueError, match="another architecture"):
        policy.read(tmp_path / "other")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: policy.OrderConfig(5, width=10, heads=4), "even number of channels"),
        (lambda: policy.OrderConfig(5, symbols=-1), "symbols -1: expected"),
        (lambda: scores.learnt(torch.nn.Identity()), "got Identity, expected an OrderNetwork"),
        (lambda: kl(CHAIN5, selectors.top_k(scores.learnt(stirred(4)), 1)), "for 4 positions got 5"),
        (lambda: described.made({"network": {"length": 5}, "weights": "%"}), "no network is told of"),
        (lambda: described.made({"network": {"size": 5}, "weights": ""}), "no network is told of"),
        (lambda: Lessons(orders=1), "orders 1: expected"),
        (lambda: selectors.independent(CHAIN5, -0.1), "eps -0.1: expected"),
        (lambda: best_order(CHAIN5), "one of the two"),
        (lambda: best_order(laws.Balanced(12, 6), 3), "states: expected"),
        (lambda: best_order(CHAIN5, (2, 2)), "plan sums to 4"),
    ],
)
def test_bad_settings_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


# Learning.


def test_odds_are_those_of_draws_without_replacement():
    """They sum to one over all ways to take two of four, and each is a product of shares of what is left."""
    network = stirred(5).double()
    told, tokens = torch.rand(1, 5, 6, generator=seeded(0)).double(), torch.tensor([[3, 3, 0, 3, 3]])
    weights = network(told, tokens)[0].exp().detach()
    left, total = [0, 1, 3, 4], 0.0
    for a, b in itertools.permutations(left, 2):
        taken = ordering.Taken(torch.tensor([0]), told, tokens, tokens == 3, torch.tensor([[a, b]]))
        odds = float(ordering.log_odds(network, taken).exp().detach())
        rest = sum(weights[i] for i in left)
        assert odds == pytest.approx(float(weights[a] / rest * weights[b] / (rest - weights[a])))
        total += odds
    assert total == pytest.approx(1)


def test_an_advantage_compares_orders_of_one_item():
    rewards = torch.tensor([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]]).double()
    less = torch.tensor([[-2.0, -1.0, 3.0], [0, 0, 0]]).double()
    assert torch.allclose(ordering.advantages(rewards), less / (14 / 6) ** 0.5)
    assert ordering.advantages(torch.ones(2, 3)).tolist() == [[0.0] * 3] * 2


def independent_pairs():
    """Two equal pairs that stand side by side: the first two positions go badly together, the first and third well."""
    return laws.Support(torch.tensor([[a, a, b, b] for a in range(2) for b in range(2)]), 2)


@pytest.mark.parametrize("epochs", [1, 3])
def test_an_order_learns_to_part_what_depends_on_each_other(epochs):
    law, plan = independent_pairs(), (2, 2)
    assert kl(law, presets.margin(plan)) == pytest.approx(2 * math.log(2))
    network = policy.blank(policy.OrderConfig(4, symbols=2, width=8, hidden=8))

    def items(step):
        tokens = law.sample(8, seeded(step))
        return tokens, torch.zeros_like(tokens, dtype=torch.bool)

    rewards = learn(network, law, items, plan, Lessons(steps=12, learning_rate=0.05, epochs=epochs))
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5])
    assert kl(law, selectors.top_k(scores.learnt(network), plan)) == pytest.approx(0, abs=1e-9)


class Unsure:
    """A denoiser of two symbols, right where the position before is visible and wrong where it is not."""

    mask_id = vocab_size = 2

    def __call__(self, tokens, rows=None, *, time=None):
        before = torch.cat([torch.zeros_like(tokens[:, :1]), tokens[:, :-1]], 1)
        guess = torch.where(before == 2, 1, 0)
        law = torch.where(torch.arange(2) == guess[..., None], math.log(0.8), math.log(0.2)).double()
        return law if rows is None else law.gather(1, rows[..., None].expand(-1, -1, 2))


def test_an_order_learns_to_solve():
    """All margins are equal; arg-max symbols are right from left to right only."""
    network = policy.blank(policy.OrderConfig(3, width=8, hidden=8), seed=1)
    solution = torch.zeros(3, 3, dtype=torch.int64)
    visible = torch.zeros(3, 3, dtype=torch.bool)
    lessons = Lessons(steps=20, orders=8, learning_rate=0.1, solving=True)
    rewards = learn(network, Unsure(), lambda _: (solution, visible), 1, lessons)
    assert rewards[-1] > 0.9 > rewards[0]
    selector = selectors.top_k(scores.learnt(network), 1)
    made = unmask.sample(Unsure(), torch.full((1, 3), 2), selector, generator=seeded(0), source=unmask.greedy)
    assert made.tokens.tolist() == [[0, 0, 0]]


def test_learning_repeats_itself_and_leaves_the_random_state_alone():
    def run():
        network = policy.blank(policy.OrderConfig(4, width=8, hidden=8))
        tokens = independent_pairs().sample(6, seeded(0))
        items = tokens, torch.tensor([True, False, False, False]).expand_as(tokens)
        learn(network, independent_pairs(), lambda _: items, 2, Lessons(steps=2))
        return scores.learnt(network).name

    before = torch.get_rng_state()
    assert run() == run()
    assert torch.equal(before, torch.get_rng_state())


# PUNT.


def product():
    """Four bits that know nothing of each other."""
    probs = torch.ones(1).double()
    for one in (0.5, 0.1, 0.7, 0.8):
        probs = torch.outer(probs, torch.tensor([1 - one, one], dtype=torch.float64)).flatten()
    return laws.Table(probs.log(), 4)


PRODUCT = product()
PRODUCT5 = laws.Mixture([1.0], [[0.5, 0.5]], 5)


def all_masked(law):
    tokens = hidden(1, law)
    return View(tokens, tokens == law.mask_id, law(tokens), law(tokens))


def test_punt_takes_all_that_is_independent():
    choice = selectors.independent(PRODUCT, 0.0)(all_masked(PRODUCT))
    assert choice.rows.tolist() == [[1, 3, 2, 0]]  # from the most certain down
    assert choice.calls.tolist() == [2.0]


def test_punt_takes_all_within_an_infinite_threshold():
    assert selectors.independent(CHAIN5, math.inf)(all_masked(CHAIN5)).rows.shape == (1, 5)


@pytest.mark.parametrize("length", [2, 3, 5, 8])
def test_punt_takes_one_of_equal_symbols(length):
    law = laws.Repetition(length, 3)
    choice = selectors.independent(law, 0.0)(all_masked(law))
    assert choice.rows.tolist() == [[0]]
    drawn = unmask.sample(law, hidden(50, law), selectors.independent(law, 0.0), generator=seeded(0))
    assert bool((drawn.tokens == drawn.tokens[:, :1]).all())
    assert len(drawn.trace) == 2


def test_punt_keeps_the_better_of_two_that_depend_on_each_other():
    """Pairs (0, 2) and (1, 3), the second pair more certain: it goes first, and one of each pair goes."""
    rows = [[a, b, a, b] for a in range(2) for b in range(2)]
    probs = torch.zeros(2, 2, 2, 2).double()
    for a, b, c, d in rows:
        probs[a, b, c, d] = (0.6, 0.4)[a] * (0.9, 0.1)[b]
    law = laws.Table(probs.flatten().log(), 4)
    assert selectors.independent(law, 0.01)(all_masked(law)).rows.tolist() == [[1, 0]]
    late = selectors.independent(law, 0.01, scores.left_to_right)(all_masked(law))
    assert late.rows.tolist() == [[0, 1]]
    assert selectors.independent(law, 0.2)(all_masked(law)).rows.tolist() == [
        [1, 3, 0]
    ]  # KL ln(1/.9), ln(1/.6)


@pytest.mark.parametrize("eps", [0.0, 0.05, 0.5])
def test_probabilities_along_punt_sum_to_one_and_draws_follow(eps):
    selector = selectors.independent(CHAIN5, eps)
    told = unmask.log_likelihood(CHAIN5, every_sequence(CHAIN5, 5), selector)
    assert float(told.exp().sum()) == pytest.approx(1, abs=1e-9)
    drawn = unmask.sample(CHAIN5, hidden(3000, CHAIN5), selector, generator=seeded(2))
    counts = torch.bincount(place_of(drawn.tokens, 3), minlength=3**5)
    assert abs(chi_square_z(counts, told.exp())) < 4


def test_punt_counts_its_calls():
    """Rows of one batch with 5, 3 and 1 masked positions: 3, 2 and no digits at the first step."""
    law = Recording(PRODUCT5)
    tokens = hidden(3, PRODUCT5)
    tokens[1, :2], tokens[2, :4] = 0, 1
    result = unmask.sample(law, tokens, selectors.independent(law, 0.0), generator=seeded(0))
    assert result.nfe.tolist() == [1 + 3, 1 + 2, 1]
    assert [len(asked) for _, asked, _, _ in law.calls] == [3, 1, 2, 2]
    twice = unmask.guided(PRODUCT5, PRODUCT5, 0.5)
    both = unmask.sample(twice, hidden(1, PRODUCT5), selectors.independent(twice, 0.0), generator=seeded(0))
    assert both.nfe.tolist() == [2 * (1 + 3)]


def test_punt_replays_and_stays_in_its_block():
    selector = selectors.in_blocks(selectors.independent(CHAIN5, 0.1), 3)
    result = unmask.sample(CHAIN5, hidden(8, CHAIN5), selector, generator=seeded(3))
    assert all(bool((info.rows < 3).all()) for info in result.trace[:1])
    again = unmask.replay(CHAIN5, json.loads(json.dumps(result.manifest)))
    assert torch.equal(again.tokens, result.tokens)


# The best order.


def brute_force(law, sizes, fixed):
    """The least KL over all selectors (maps from visible tokens to sets), by trying every one."""
    states = [(None,) * law.length]
    cells = []
    for size in sizes[:-1]:
        after = []
        for state in states:
            masked = [i for i, s in enumerate(state) if s is None]
            cells.append((state, list(itertools.combinations(masked, size))))
            for some in cells[-1][1]:
                for symbols in itertools.product(range(law.vocab_size), repeat=size):
                    seen = list(state)
                    for i, s in zip(some, symbols):
                        seen[i] = s
                    after.append(tuple(seen))
        states = list(dict.fromkeys(after))
    if fixed:
        keys = list(dict.fromkeys(tuple(s is None for s in state) for state, _ in cells))
        by_key = {
            key: next(o for state, o in cells if tuple(s is None for s in state) == key) for key in keys
        }
        ways = [dict(zip(keys, way)) for way in itertools.product(*by_key.values())]
        return min(kl(law, lambda v, w=w: followed(v, lambda t: w.get(masked_of(t)))) for w in ways)
    ways = [dict(zip([s for s, _ in cells], way)) for way in itertools.product(*[o for _, o in cells])]
    return min(kl(law, lambda v, w=w: followed(v, w.get)) for w in ways)


def masked_of(state):
    return tuple(s is None for s in state)


def followed(view, choose):
    rows = []
    for tokens, masked in zip(view.tokens.tolist(), view.masked.tolist()):
        state = tuple(None if m else t for t, m in zip(tokens, masked))
        rest = tuple(i for i, m in enumerate(masked) if m)
        rows.append(choose(state) or rest)
    width = max(map(len, rows))
    return unmask.Choice(torch.tensor([[*r, *[-1] * (width - len(r))] for r in rows]))


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("sizes", [(1, 2), (2, 1)])
def test_the_searched_order_is_the_best_of_all(sizes, fixed):
    law = laws.Table(torch.tensor(np.random.default_rng(5).dirichlet([0.4] * 8)).log(), 3)
    best = best_order(law, sizes, fixed=fixed)
    assert best.kl == pytest.approx(brute_force(law, sizes, fixed), abs=1e-12)
    assert kl(law, best.selector) == pytest.approx(best.kl, abs=1e-12)


LAWS = {
    "chain": lambda: CHAIN5,
    "curie-weiss": lambda: laws.CurieWeiss(5, 1.3),
    "permutation": lambda: laws.Permutation(4),
    "latents": lambda: laws.NotAllEqual(3, 3),
}


@pytest.mark.parametrize("name", LAWS)
def test_no_order_beats_the_searched_one(name):
    law = LAWS[name]()
    for calls in (1, 2, 3):
        plan = plans.uniform(law.length, calls)
        best, fixed = best_order(law, plan), best_order(law, plan, fixed=True)
        free = best_order(law, calls=calls)
        assert kl(law, best.selector) == pytest.approx(best.kl, abs=1e-9)
        assert kl(law, fixed.selector) == pytest.approx(fixed.kl, abs=1e-9)
        assert kl(law, free.selector) == pytest.approx(free.kl, abs=1e-9)
        assert free.kl <= best.kl + 1e-12 <= fixed.kl + 2e-12
        others = [presets.confidence(plan), presets.margin(plan), presets.left_to_right(plan)]
        others += [presets.random(plan, seed) for seed in range(4)]
        others += [
            selectors.top_k(scores.learnt(stirred(law.length, law.vocab_size, s)), plan) for s in range(4)
        ]
        assert min(kl(law, other) for other in others) > best.kl - 1e-9
    assert best_order(law, 1).kl == pytest.approx(0, abs=1e-9)


def test_the_best_order_of_an_imperfect_denoiser_pays_its_errors_too():
    law, model = CHAIN5, unmask.tempered(CHAIN5, 0.7)
    best = best_order(law, 1, denoiser=model)
    assert kl(law, best.selector, model) == pytest.approx(best.kl, abs=1e-9)
    others = [presets.margin(), presets.left_to_right(), *(presets.random(1, seed) for seed in range(6))]
    assert 0.01 < best.kl <= min(kl(law, other, model) for other in others)


def test_punt_in_as_many_steps_is_no_better():
    law = laws.CurieWeiss(6, 0.8)
    selector = selectors.independent(law, 0.05)
    steps = len(unmask.sample(law, hidden(200, law), selector, generator=seeded(0)).trace)
    assert best_order(law, calls=min(steps, 6)).kl <= kl(law, selector) + 1e-9


def test_an_order_that_sees_symbols_beats_every_fixed_one():
    """The first symbol says which of the others are equal."""
    pairs = [((1, 2), (3, 4)), ((1, 3), (2, 4)), ((1, 4), (2, 3))]
    rows = []
    for first, ((a, b), (c, d)) in enumerate(pairs):
        for x, y in itertools.product(range(3), repeat=2):
            row = [first, 0, 0, 0, 0]
            row[a] = row[b] = x
            row[c] = row[d] = y
            rows.append(row)
    law = laws.Support(torch.tensor(rows), 3)
    assert best_order(law, (1, 2, 2)).kl == pytest.approx(0, abs=1e-9)
    assert best_order(law, (1, 2, 2), fixed=True).kl > 0.1
