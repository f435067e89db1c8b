"""The loop on exact laws: probabilities sum to one, draws follow them, rows are independent, calls are counted."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache, partial

import pytest
import torch
from helpers import SMALL_LAWS, Recording, chi_square_z, every_sequence, hidden, place_of, seeded

import unmask
from unmask import denoisers, engine, laws, scores, selectors
from unmask.base.types import Choice, Selector
from unmask.masking import schedules

every_law = pytest.mark.parametrize("name", SMALL_LAWS)


@cache
def law_of(name):
    return SMALL_LAWS[name]()


def plain(law):
    return law


def tempered(law):
    return unmask.tempered(law, 0.6)


def nucleus(law):
    return unmask.nucleus(law, 0.8)


def guided(law):
    return unmask.guided(law, unmask.tempered(law, 2.0), 0.7)


def stacked(law):
    return unmask.nucleus(unmask.tempered(unmask.guided(law, unmask.tempered(law, 3.0), 0.5), 1.5), 0.9)


WRAPPERS = [plain, tempered, nucleus, guided, stacked]
every_wrapper = pytest.mark.parametrize("wrapper", WRAPPERS)

SCORES = [
    scores.confidence,
    scores.margin,
    scores.negative_entropy,
    scores.left_to_right,
    scores.at_random(3),
    scores.with_noise(scores.margin, 0.3, 5),
    scores.with_noise(scores.left_to_right, 2.0, 5),
    scores.on_base(scores.confidence),
]


def halves(count):
    """A function plan: half of what is left, rounded up, until nothing is."""
    sizes = []
    while count:
        sizes.append(-(-count // 2))
        count -= sizes[-1]
    return tuple(sizes)


def one_at_a_time(length):
    """Selectors that unmask a single position per step."""
    return [
        *[selectors.top_k(score, 1) for score in SCORES],
        selectors.top_k(scores.margin, (1,) * length),
        selectors.threshold(scores.confidence, 2.0),
        selectors.in_blocks(selectors.top_k(scores.at_random(1), 1), 2),
        selectors.first_hitting(schedules.cosine(), 4),
    ]


def several_at_a_time(length):
    """Selectors that unmask more."""
    return [
        *[selectors.top_k(s, plan) for s in SCORES for plan in (2, (length - 1, 1), halves)],
        selectors.threshold(scores.confidence, 0.7),
        selectors.threshold(scores.on_base(scores.margin), 0.4),
        selectors.threshold(scores.at_random(2), 0.5),
        selectors.entropy_budget(0.5),
        selectors.entropy_budget(0.3, scores.at_random(8)),
        selectors.in_blocks(selectors.top_k(scores.confidence, 2), 3),
        selectors.in_blocks(selectors.top_k(scores.at_random(1), halves), 2),
        selectors.in_blocks(selectors.entropy_budget(1.0), 3),
        selectors.ancestral(schedules.linear(), schedules.uniform_grid(3), 6),
        selectors.ancestral(schedules.geometric(eps=1e-3), schedules.cosine_grid(5), 6),
        selectors.threshold(scores.confidence, 0.8, scores.fork),
    ]


def some_selectors(length, shift):
    """Every score under one kind of plan, which changes with ``shift``, and every other rule."""
    several, plans = several_at_a_time(length), 3 * len(SCORES)
    scored = [several[3 * i + (i + shift) % 3] for i in range(len(SCORES))]
    return scored + several[plans:] + one_at_a_time(length)[shift % 3 :: 3]


def likelihoods(denoiser, law, selector, order_id=0, **more):
    """Log-likelihood of every sequence under one order, [V^N]."""
    tokens = every_sequence(law, law.length)
    return unmask.log_likelihood(
        denoiser, tokens, selector, order_ids=torch.full((len(tokens),), order_id), **more
    )


def in_two_orders(denoiser, law, selector):
    """Log-likelihood of every sequence under orders 0 and 7, [2, V^N]."""
    tokens = every_sequence(law, law.length)
    orders = torch.tensor([0, 7]).repeat_interleave(len(tokens))
    return unmask.log_likelihood(denoiser, tokens.repeat(2, 1), selector, order_ids=orders).view(2, -1)


def cells(tokens, law):
    return torch.bincount(place_of(tokens, law.vocab_size), minlength=law.vocab_size**law.length)


# Every law, wrapper and selector.


@every_law
def test_probabilities_of_all_sequences_sum_to_one(name):
    law = law_of(name)
    _check_sums(law, law, several_at_a_time(law.length))


@pytest.mark.parametrize("wrapper", WRAPPERS[1:])
@pytest.mark.parametrize("name", ["table", "permutation", "noisy repetition"])
def test_probabilities_sum_to_one_whatever_changes_the_law(name, wrapper):
    law = law_of(name)
    _check_sums(wrapper(law), law, one_at_a_time(law.length)[::3] + several_at_a_time(law.length))


def _check_sums(denoiser, law, chosen):
    """Under order 0 and under another."""
    for selector in chosen:
        total = in_two_orders(denoiser, law, selector).exp().sum(1)
        assert total.tolist() == pytest.approx([1, 1], abs=1e-9), selector.name


@every_law
def test_draws_follow_the_likelihood(name):
    law, rows = law_of(name), 800
    shift = list(SMALL_LAWS).index(name)
    for turn, selector in enumerate(some_selectors(law.length, shift), shift):
        wrapper = WRAPPERS[turn % len(WRAPPERS)]
        denoiser = wrapper(law)
        values = likelihoods(denoiser, law, selector, order_id=5)
        result = unmask.sample(
            denoiser, hidden(rows, law), selector, generator=seeded(turn), order_ids=torch.full((rows,), 5)
        )
        label = f"{selector.name}, {wrapper.__name__}"
        assert float(values.exp().sum()) == pytest.approx(1, abs=1e-9), label
        assert chi_square_z(cells(result.tokens, law), values.exp()) < 4, label
        assert torch.equal(result.log_prob, values[place_of(result.tokens, law.vocab_size)]), label


@every_law
def test_one_token_per_step_in_any_order_is_the_joint_law(name):
    law = law_of(name)
    truth = law.log_prob(every_sequence(law, law.length))
    possible = truth > -torch.inf
    for selector in one_at_a_time(law.length):
        for values in in_two_orders(law, law, selector):
            kl = (truth.exp() * (truth - values))[possible].sum()
            assert abs(float(kl)) < 1e-10, selector.name
            assert (values[~possible] == -torch.inf).all(), selector.name
            assert float(values.exp().sum()) == pytest.approx(1, abs=1e-9), selector.name


@every_law
def test_a_prompt_leaves_a_law_of_the_rest(name):
    law = law_of(name)
    prompt = law.sample(1, seeded(1))[0]
    visible = torch.arange(law.length) % 3 == 1
    tokens = every_sequence(law, law.length)
    tokens = tokens[(tokens == prompt)[:, visible].all(1)]
    given = {"visible": visible.expand(tokens.shape), "order_ids": torch.full((len(tokens),), 3)}
    start = torch.where(visible, prompt, law.mask_id).expand(600, -1)
    posterior = law.log_prob(tokens).log_softmax(0)
    for turn, selector in enumerate(_for_prompts(int((~visible).sum()))):
        values = unmask.log_likelihood(law, tokens, selector, **given)
        assert float(values.exp().sum()) == pytest.approx(1, abs=1e-9), selector.name
        if turn < 3:  # one at a time
            assert values.exp() == pytest.approx(posterior.exp(), abs=1e-12), selector.name
        result = unmask.sample(law, start, selector, generator=seeded(turn), order_ids=torch.full((600,), 3))
        assert torch.equal(result.tokens[:, visible], start[:, visible])
        agree = (result.tokens[:, None] == tokens).all(2)
        assert agree.any(1).all()
        assert chi_square_z(agree.sum(0), values.exp()) < 4, selector.name
        assert torch.equal(result.log_prob, values[agree.int().argmax(1)]), selector.name


def _for_prompts(masked):
    return [
        selectors.top_k(scores.margin, 1),
        selectors.top_k(scores.at_random(3), (1,) * masked),
        selectors.first_hitting(schedules.linear(), 3),
        selectors.top_k(scores.confidence, halves),
        selectors.in_blocks(selectors.top_k(scores.confidence, halves), 3),
        selectors.threshold(scores.confidence, 0.6),
        selectors.ancestral(schedules.linear(), schedules.uniform_grid(2), 3),
    ]


def test_an_impossible_prompt_is_filled_all_the_same():
    law = law_of("permutation")
    start = torch.tensor([[1, 1, law.mask_id]])
    result = unmask.sample(law, start, selectors.top_k(scores.margin, 1), generator=seeded(0))
    assert result.tokens[0, :2].tolist() == [1, 1]
    assert float(result.log_prob) == pytest.approx(-math.log(3))


# Sub-steps.


@pytest.mark.parametrize("substeps", [2, 3, 8])
@pytest.mark.parametrize("name", ["table", "markov", "balanced", "parity"])
def test_substeps_are_a_law_of_their_own(name, substeps):
    law, rows = law_of(name), 800
    for turn, (selector, wrapper) in enumerate(
        [
            (selectors.top_k(scores.confidence, 3), plain),
            (selectors.top_k(scores.at_random(3), halves), tempered),
            (selectors.threshold(scores.margin, 0.2), nucleus),
            (selectors.in_blocks(selectors.top_k(scores.left_to_right, 3), 3), stacked),
            (selectors.ancestral(schedules.linear(), schedules.uniform_grid(2), 6), guided),
        ]
    ):
        values = likelihoods(wrapper(law), law, selector, order_id=5, substeps=substeps)
        assert float(values.exp().sum()) == pytest.approx(1, abs=1e-9), selector.name
        result = unmask.sample(
            wrapper(law),
            hidden(rows, law),
            selector,
            generator=seeded(turn),
            order_ids=torch.full((rows,), 5),
            substeps=substeps,
        )
        assert chi_square_z(cells(result.tokens, law), values.exp()) < 4, selector.name
        assert torch.equal(result.log_prob, values[place_of(result.tokens, law.vocab_size)])
        if substeps == 8 and wrapper is plain:  # every token saw all the earlier ones: exact laws recompute
            truth = law.log_prob(every_sequence(law, law.length)).exp()
            assert values.exp() == pytest.approx(truth, abs=1e-12)


def test_substeps_split_a_choice_into_parts_that_cost_their_share():
    law = laws.Markov([0.2, 0.5, 0.3], [[0.7, 0.2, 0.1]] * 3, 8)
    asked = Recording(law)
    result = unmask.sample(
        asked,
        hidden(2, law),
        selectors.top_k(scores.confidence, (5, 3)),
        generator=seeded(0),
        substeps=2,
    )
    assert [kind for kind, *_ in asked.calls] == ["full", "partial"] * 2
    assert result.nfe.tolist() == [1 + 5 / 8 + 1 + 3 / 8] * 2
    (_, before, _, _), (_, between, rows, _) = asked.calls[:2]
    assert ((before == law.mask_id).sum(1) == 8).all()
    assert ((between == law.mask_id).sum(1) == 5).all()  # three of five written, then two more
    first = result.trace[0].rows
    assert torch.equal(rows, first)
    assert torch.equal(between.gather(1, first[:, :3]), result.tokens.gather(1, first[:, :3]))


# Rows of a batch.


def _mixed_batch(law, rows):
    """Sequences with 0 to L masked positions each."""
    tokens = law.sample(rows, seeded(2))
    count = torch.arange(rows) % (law.length + 1)
    rank = torch.rand(tokens.shape, generator=seeded(3)).argsort(1)
    return tokens.masked_fill(rank < count[:, None], law.mask_id)


@pytest.mark.parametrize(("name", "substeps"), list(zip(SMALL_LAWS, [1, 2] * 9)))
def test_a_row_depends_on_neither_its_neighbours_nor_the_batch_size(name, substeps):
    law = law_of(name)
    tokens = _mixed_batch(law, 23)
    for selector in [
        selectors.top_k(scores.with_noise(scores.margin, 0.3, 1), 2),
        selectors.top_k(scores.at_random(1), halves),
        selectors.threshold(scores.confidence, 0.7),
        selectors.entropy_budget(0.4),
        selectors.ancestral(schedules.linear(), schedules.uniform_grid(3), 1),
        selectors.first_hitting(schedules.linear(), 1),
    ]:
        draw = partial(unmask.sample, unmask.tempered(law, 0.8), selector=selector, substeps=substeps)
        whole = draw(tokens, generator=seeded(9))
        for size in (1, 6):
            part = draw(tokens[:size], generator=seeded(9))
            assert torch.equal(part.tokens, whole.tokens[:size]), selector.name
            assert torch.equal(part.log_prob, whole.log_prob[:size]), selector.name
            assert torch.equal(part.nfe, whole.nfe[:size]), selector.name
        other = tokens.clone()
        other[::2] = other[::2].flip(0)
        changed = draw(other, generator=seeded(9))
        assert torch.equal(changed.tokens[1::2], whole.tokens[1::2]), selector.name
        assert torch.equal(changed.log_prob[1::2], whole.log_prob[1::2]), selector.name


def test_rows_draw_with_noise_of_their_own():
    law = laws.Support(torch.cartesian_prod(*[torch.arange(4)] * 3), 4)  # 64 sequences, all alike
    result = unmask.sample(
        law, hidden(640, law), selectors.top_k(scores.left_to_right, 3), generator=seeded(0)
    )
    assert chi_square_z(cells(result.tokens, law), torch.ones(64)) < 4
    pairs = result.tokens[::2] * 4 + result.tokens[1::2]  # neighbours are independent
    assert chi_square_z(torch.bincount(pairs.flatten(), minlength=16), torch.ones(16)) < 4


def test_likelihood_of_a_row_does_not_depend_on_the_batch():
    law = law_of("table")
    tokens = every_sequence(law, 4)
    selector = selectors.top_k(scores.margin, 2)
    together = unmask.log_likelihood(law, tokens, selector)
    apart = torch.cat([unmask.log_likelihood(law, row[None], selector) for row in tokens[::9]])
    assert torch.equal(together[::9], apart)


@pytest.mark.global_random
def test_rows_of_a_network_are_independent_at_a_fixed_shape():
    torch.manual_seed(0)
    network = unmask.networks.Transformer(vocab_size=3, length=6, width=16, depth=2, heads=2)
    denoiser = unmask.from_logits(network, mask_id=3, vocab_size=3)
    tokens = torch.full((4, 6), 3)
    tokens[:, 0] = torch.tensor([0, 1, 2, 0])
    selector = selectors.top_k(scores.confidence, 2)
    first = unmask.sample(denoiser, tokens, selector, generator=seeded(0))
    tokens[1:, 0] = 2
    second = unmask.sample(denoiser, tokens, selector, generator=seeded(0))
    assert torch.equal(first.tokens[0], second.tokens[0])
    assert torch.equal(first.log_prob[0], second.log_prob[0])


def test_mixed_masked_counts_keep_their_own_plans():
    law = laws.Markov([0.2, 0.5, 0.3], [[0.7, 0.2, 0.1]] * 3, 9)
    tokens = law.sample(4, seeded(0))
    for row, count in enumerate([9, 5, 1, 0]):
        tokens[row, :count] = law.mask_id
    wanted = {2: [[2, 2, 2, 2, 1], [2, 2, 1], [1], []], halves: [[5, 2, 1, 1], [3, 1, 1], [1], []]}
    for plan, sizes in wanted.items():
        result = unmask.sample(law, tokens, selectors.top_k(scores.margin, plan), generator=seeded(0))
        assert _sizes(result, 4) == sizes
        assert result.nfe.tolist() == [len(s) for s in sizes]
        assert not (result.tokens == law.mask_id).any()


def _sizes(result, batch):
    """How many positions each row unmasked at each of its steps."""
    sizes = [[] for _ in range(batch)]
    for info in result.trace:
        for item, row in zip(info.items.tolist(), info.rows):
            sizes[item].append(int((row >= 0).sum()))
    return sizes


# What the denoiser is asked.


def test_finished_rows_are_not_asked_for():
    law = law_of("markov")
    tokens = hidden(3, law)
    tokens[1], tokens[2, :2] = 0, 1
    asked = Recording(law)
    result = unmask.sample(asked, tokens, selectors.top_k(scores.margin, 1), generator=seeded(0))
    assert [len(call[1]) for call in asked.calls] == [2, 2, 1, 1]
    assert result.nfe.tolist() == [4, 0, 2]
    assert torch.equal(result.tokens[1], tokens[1])
    assert result.log_prob[1] == 0


def test_blind_selectors_ask_for_the_chosen_rows_only():
    law = law_of("markov")
    for selector in [
        selectors.top_k(scores.at_random(0), (3, 1)),
        selectors.in_blocks(selectors.top_k(scores.left_to_right, 2), 2),
        selectors.ancestral(schedules.linear(), schedules.uniform_grid(4), 0),
        selectors.first_hitting(schedules.linear(), 0),
    ]:
        asked = Recording(law)
        result = unmask.sample(asked, hidden(3, law), selector, generator=seeded(0))
        moves = [info for info in result.trace if info.rows.numel()]
        assert len(asked.calls) == len(moves)
        for (_, _, rows, _), info in zip(asked.calls, moves):
            assert torch.equal(rows, torch.where(info.rows < 0, info.rows[:, :1], info.rows))


def test_sighted_selectors_ask_for_masked_rows_and_draw_at_the_chosen_ones():
    law = law_of("markov")
    asked, drawn = Recording(law), []

    def source(request):
        drawn.append(request)
        return unmask.draw(request)

    tokens = hidden(2, law)
    tokens[1, 2] = 1
    result = unmask.sample(
        asked, tokens, selectors.threshold(scores.margin, 0.3), generator=seeded(0), source=source
    )
    for _, seen, rows, _ in asked.calls:
        masked = seen == law.mask_id
        assert rows.shape[1] == int(masked.sum(1).max())
        assert all(set(m.nonzero()[:, 0].tolist()) <= set(r.tolist()) for m, r in zip(masked, rows))
    for request, info in zip(drawn, result.trace):
        assert request.rows.shape == info.rows.shape == request.log_probs.shape[:2]
        assert torch.equal(request.valid, info.rows >= 0)
        assert torch.equal(request.rows[request.valid], info.rows[info.rows >= 0])


def test_guidance_costs_two_networks():
    law = law_of("markov")
    denoiser = unmask.tempered(unmask.guided(law, unmask.tempered(law, 2.0), 0.5), 0.9)
    result = unmask.sample(
        denoiser, hidden(1, law), selectors.top_k(scores.margin, 4), generator=seeded(0), substeps=2
    )
    assert result.nfe.tolist() == [2 * (1 + 1)]


def test_the_trace_tells_what_happened():
    law = law_of("markov")
    result = unmask.sample(law, hidden(5, law), selectors.threshold(scores.margin, 0.3), generator=seeded(0))
    tokens, total = hidden(5, law), torch.zeros(5, dtype=torch.float64)
    for info in result.trace:
        for item, rows, symbols, values in zip(info.items, info.rows, info.symbols, info.log_probs):
            kept = rows >= 0
            assert (symbols[~kept] == -1).all()
            tokens[item, rows[kept]] = symbols[kept]
            total[item] += values.sum()
    assert torch.equal(tokens, result.tokens)
    assert total == pytest.approx(result.log_prob, abs=1e-12)
    assert result.manifest["seed"] >= 0
    assert "threshold(margin, 0.3)" in result.manifest["selector"]


# Sources, orders and what a selector may do.


def test_greedy_takes_the_most_probable_symbol_and_reports_its_probability():
    law, selector = law_of("table"), selectors.top_k(scores.margin, 1)
    result = unmask.sample(law, hidden(2, law), selector, generator=seeded(0), source=unmask.greedy)
    tokens = hidden(1, law)
    for info in result.trace:
        place = info.rows[0, 0]
        tokens[0, place] = law(tokens)[0, place].argmax()
    assert torch.equal(result.tokens, tokens.expand(2, -1))
    assert torch.equal(result.log_prob, unmask.log_likelihood(law, result.tokens, selector))


def test_greedy_takes_the_lowest_of_equals():
    law = laws.Parity(4, 3)
    result = unmask.sample(
        law,
        hidden(1, law),
        selectors.top_k(scores.left_to_right, 1),
        generator=seeded(0),
        source=unmask.greedy,
    )
    assert result.tokens.tolist() == [[0, 0, 0, 0]]


def test_given_symbols_are_written_as_they_are():
    law = law_of("permutation")
    wanted = torch.tensor([[2, 0, 1], [1, 1, 1]])
    result = unmask.sample(
        law,
        hidden(2, law),
        selectors.top_k(scores.margin, 1),
        generator=seeded(0),
        source=unmask.given(wanted),
    )
    assert torch.equal(result.tokens, wanted)
    assert result.log_prob.tolist() == pytest.approx([-math.log(6), -math.inf])


def test_the_generator_decides_and_is_used_once():
    law, selector = law_of("markov"), selectors.top_k(scores.margin, 2)
    generator = seeded(4)
    first, second = (unmask.sample(law, hidden(9, law), selector, generator=generator) for _ in range(2))
    again = unmask.sample(law, hidden(9, law), selector, generator=seeded(4))
    assert torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.tokens, second.tokens)


def test_random_orders_are_public_and_uniform():
    law = law_of("balanced")
    selector = selectors.top_k(scores.at_random(11), 1)
    rows = 2400
    first, second = (
        unmask.sample(law, hidden(rows, law), selector, generator=seeded(s)).trace for s in (0, 1)
    )
    orders = torch.cat([info.rows for info in first], 1)
    assert torch.equal(orders, torch.cat([info.rows for info in second], 1))  # symbols differ, orders do not
    numbers = place_of(orders, law.length)
    seen = torch.bincount(torch.unique(numbers, return_inverse=True)[1], minlength=120)
    assert chi_square_z(seen, torch.ones(120)) < 4


def test_default_orders_count_up_in_samples_and_are_zero_in_likelihoods():
    law = law_of("table")
    selector = selectors.top_k(scores.at_random(3), 2)
    result = unmask.sample(law, hidden(30, law), selector, generator=seeded(0))
    replayed = unmask.log_likelihood(law, result.tokens, selector, order_ids=torch.arange(30))
    assert torch.equal(result.log_prob, replayed)
    default = unmask.log_likelihood(law, result.tokens, selector)
    assert torch.equal(
        default,
        unmask.log_likelihood(law, result.tokens, selector, order_ids=torch.zeros(30, dtype=torch.long)),
    )
    assert not torch.equal(default, replayed)


def test_a_tilt_changes_the_law_and_its_likelihood():
    law = law_of("markov")
    weights = torch.tensor([0.0, 1.5, -0.5], dtype=torch.float64)

    def choose(view):
        choice = selectors.take(view, scores.margin(view), torch.full((len(view.tokens),), 2))
        return Choice(choice.rows, weights.expand(*choice.rows.shape, 3))

    values = likelihoods(law, law, choose)
    assert float(values.exp().sum()) == pytest.approx(1, abs=1e-9)
    one = selectors.top_k(scores.margin, 4)
    untilted = likelihoods(law, law, one).view(*[3] * 4).exp()
    tilted = likelihoods(
        law, law, lambda view: Choice(one(view).rows, weights.expand(*one(view).rows.shape, 3))
    )
    by_hand = untilted
    for axis in range(4):
        by_hand = by_hand * weights.exp().view([-1 if a == axis else 1 for a in range(4)])
    assert tilted.exp() == pytest.approx((by_hand / by_hand.sum()).flatten(), abs=1e-12)
    result = unmask.sample(
        law, hidden(900, law), choose, generator=seeded(0), order_ids=torch.zeros(900).long()
    )
    assert chi_square_z(cells(result.tokens, law), values.exp()) < 4


def test_plain_functions_are_selectors_and_padding_may_stand_anywhere():
    law = law_of("markov")

    def last_two(view):
        last = view.masked.long().cumsum(1).argmax(1)
        return Choice(torch.stack([torch.full_like(last, -1), last], 1))

    values = likelihoods(law, law, last_two)
    truth = law.log_prob(every_sequence(law, 4))
    assert values.exp() == pytest.approx(truth.exp(), abs=1e-12)


def test_a_tilt_stays_with_its_row_wherever_padding_stands():
    """Rows (-1, 2, 0) with a tilt each: symbol x at row r has probability p(x) exp(tilt of r at x), renormalised."""
    law = law_of("markov")
    tilt = torch.tensor([[9.0, 0.0, -9.0], [0.0, 1.5, -0.5], [0.7, 0.0, -1.0]], dtype=torch.float64)
    tokens = torch.tensor([[1, 0, 2, 0]])
    visible = torch.tensor([[False, True, False, True]])
    found = unmask.log_likelihood(
        law, tokens, lambda _: Choice(torch.tensor([[-1, 2, 0]]), tilt[None]), visible=visible
    )
    base = law(tokens.masked_fill(~visible, law.mask_id))[0]
    wanted = (base[2] + tilt[1]).log_softmax(-1)[2] + (base[0] + tilt[2]).log_softmax(-1)[1]
    assert float(found) == pytest.approx(float(wanted), abs=1e-12)


@pytest.mark.parametrize("score", [scores.left_to_right, scores.margin], ids=["blind", "sighted"])
@pytest.mark.parametrize("wrapper", [plain, tempered, stacked])
def test_what_settles_laws_settles_those_of_wrappers_too(wrapper, score):
    """The symbols' laws are whole multiples of a grid, at the root and again after each wrapper."""
    inner = law_of("markov")
    law, grid, laws_met = wrapper(inner), 2.0**-4, []

    def rounded(request):
        return (request.log_probs / grid).round() * grid

    def source(request):
        laws_met.append(request.log_probs[request.valid])
        return request.log_probs.argmax(-1)

    state = engine.init(hidden(2, inner), law.mask_id)
    engine.run(state, law, selectors.top_k(score, 2), source, settle=rounded)
    met = torch.cat(laws_met)
    assert len(met) == 8
    assert torch.equal(met, (met / grid).round() * grid)


def test_an_empty_batch_stays_empty():
    law = law_of("markov")
    result = unmask.sample(law, hidden(0, law), selectors.top_k(scores.margin, 1), generator=seeded(0))
    assert result.tokens.shape == (0, 4)
    assert unmask.log_likelihood(law, hidden(0, law), selectors.top_k(scores.margin, 1)).shape == (0,)


# Time.


def test_ancestral_gives_the_time_of_its_grid_and_skips_empty_steps():
    law = law_of("markov")
    asked = Recording(law)
    grid = schedules.uniform_grid(64)
    selector = selectors.ancestral(schedules.linear(), grid, 0)
    result = unmask.sample(asked, hidden(1, law), selector, generator=seeded(0))
    moved = [step for step, info in enumerate(result.trace) if info.rows.numel()]
    assert len(asked.calls) == len(moved) <= 4
    assert [float(time) for *_, time in asked.calls] == [float(grid[step]) for step in moved]
    assert result.nfe.tolist() == [len(moved)]


def test_ancestral_asks_for_the_rows_that_move_at_their_time():
    law, rows = law_of("markov"), 6
    asked = Recording(law)
    selector = selectors.ancestral(schedules.linear(), schedules.uniform_grid(9), 0)
    result = unmask.sample(asked, hidden(rows, law), selector, generator=seeded(0))
    moves = torch.zeros(rows, dtype=torch.float64)
    for info in result.trace:
        moves.index_add_(0, info.items, (info.rows >= 0).any(1).double())
    assert torch.equal(result.nfe, moves)  # a row that stays still is not asked for
    assert min(len(tokens) for _, tokens, _, _ in asked.calls) < rows
    assert all(time.shape == tokens.shape[:1] for _, tokens, _, time in asked.calls)


@pytest.mark.parametrize("schedule", [schedules.linear(), schedules.cosine(eps=1e-3), schedules.geometric()])
def test_ancestral_leaves_no_mask(schedule):
    law = laws.Balanced(40, 20)
    selector = selectors.ancestral(schedule, schedules.uniform_grid(3), 1)
    state = engine.init(hidden(50, law), law.mask_id, torch.arange(50))
    for _ in range(3):
        assert state.masked.any()
        state, _ = engine.step(state, law, selector, unmask.draw, seed=0)
    assert not state.masked.any()


@pytest.mark.parametrize(
    "schedule", [schedules.linear(), schedules.cosine(), schedules.polynomial(2.0, eps=0.05)]
)
def test_ancestral_unmasks_with_the_probability_of_the_reverse_process(schedule):
    times = schedules.uniform_grid(5)
    alpha = schedule.alpha(times)
    law = laws.Balanced(50, 25)
    selector = selectors.ancestral(schedule, times, 3)
    state = engine.init(hidden(100, law), law.mask_id, torch.arange(100))
    for i in range(5):
        before = int(state.masked.sum())
        state, info = engine.step(state, law, selector, unmask.draw, seed=0)
        rate = 1.0 if i == 4 else float((alpha[i + 1] - alpha[i]) / (1 - alpha[i]))
        moved = int((info.rows >= 0).sum())
        assert abs(moved - rate * before) <= 4 * math.sqrt(before * rate * (1 - rate)), i


def test_first_hitting_follows_the_forward_process_backwards():
    rows, length, schedule = 3000, 4, schedules.cosine()
    law = laws.Balanced(length, 2)
    asked = Recording(law)
    result = unmask.sample(
        asked, hidden(rows, law), selectors.first_hitting(schedule, 2), generator=seeded(0)
    )
    times = torch.stack([time for *_, time in asked.calls], 1)
    assert (times.diff(dim=1) < 0).all()
    for t in (0.2, 0.5, 0.8):
        masked = (times < t).sum(1)  # those that have not been hit on the way from 1 down to t
        p = 1 - float(schedule.alpha(torch.tensor(t, dtype=torch.float64)))
        binomial = torch.tensor(
            [math.comb(length, n) * p**n * (1 - p) ** (length - n) for n in range(length + 1)]
        )
        assert chi_square_z(torch.bincount(masked, minlength=length + 1), binomial) < 4
    orders = torch.cat([info.rows for info in result.trace], 1)
    numbers = torch.unique(place_of(orders, length), return_inverse=True)[1]
    assert chi_square_z(torch.bincount(numbers, minlength=24), torch.ones(24)) < 4


def test_blocks_take_the_clock_of_their_own_positions():
    law = law_of("balanced")
    asked = Recording(law)
    inner = selectors.first_hitting(schedules.linear(), 2)
    result = unmask.sample(asked, hidden(9, law), selectors.in_blocks(inner, 2), generator=seeded(0))
    orders = torch.cat([info.rows for info in result.trace], 1)
    assert (orders // 2).tolist() == [[0, 0, 1, 1, 2]] * 9
    view = unmask.View(hidden(9, law), torch.ones(9, 5, dtype=torch.bool), order_ids=torch.arange(9))
    clock = 1 - scores.public_uniform(view, 2).gather(1, orders)
    assert torch.stack([time for *_, time in asked.calls], 1) == pytest.approx(1 - clock, abs=1e-12)


# Parallel sampling: known truths.


@pytest.mark.parametrize(
    ("score", "percent"),
    [
        (scores.at_random(1), (100, 59.4, 20.0)),
        (scores.with_noise(scores.confidence, 1e-6, 1), (100, 43.9, 14.4)),
        (scores.with_noise(scores.margin, 1e-6, 1), (100, 43.2, 14.1)),
    ],
    ids=["random", "confidence", "margin"],
)
def test_sudoku_with_a_perfect_denoiser(score, percent):
    """Valid grids, per cent, with 1, 2 and 4 cells per step and ties broken at random; figures from 20,000 samples."""
    law = laws.Sudoku4()
    for k, wanted in zip((1, 2, 4), percent):
        rows = 500 if k == 1 else 4000
        result = unmask.sample(law, hidden(rows, law), selectors.top_k(score, k), generator=seeded(k))
        valid = float((law.log_prob(result.tokens) > -torch.inf).double().mean())
        p = wanted / 100
        assert abs(valid - p) <= 4 * math.sqrt(p * (1 - p) * (1 / rows + 1 / 20000)), (k, valid)


def test_two_sudoku_cells_at_a_time_are_worse_in_adaptive_order():
    law, rows = laws.Sudoku4(), 2000
    valid = []
    for score in (scores.at_random(1), scores.confidence, scores.margin):
        result = unmask.sample(law, hidden(rows, law), selectors.top_k(score, 2), generator=seeded(5))
        valid.append(float((law.log_prob(result.tokens) > -torch.inf).double().mean()))
    assert max(valid[1:]) < valid[0] - 4 * math.sqrt(0.5 / rows)


def test_excess_code_length_of_ancestral_sampling_falls_as_one_over_steps():
    law = laws.Table(torch.randn(243, dtype=torch.float64, generator=seeded(0)).mul(2).log_softmax(0), 5)
    tokens = every_sequence(law, 5)
    p = law.log_prob(tokens).exp()
    entropy = float(-(p * p.log()).sum())
    excess = {}
    for steps in (1, 4, 8, 16, 32, 64):
        grid = schedules.uniform_grid(steps)
        excess[steps] = (
            float(p @ unmask.masking.enumeration.discrete_bound(law, tokens, schedules.linear(), grid))
            - entropy
        )
    slopes = [math.log2(excess[2 * k] / excess[k]) for k in (4, 8, 16, 32)]
    assert all(abs(slope + 1) < 0.1 for slope in slopes), slopes
    orders = 24
    for steps in (1, 4, 16):  # the sampler's own code length, over many orders, is that bound
        selector = selectors.ancestral(schedules.linear(), schedules.uniform_grid(steps), 9)
        ids = torch.arange(orders).repeat_interleave(len(tokens))
        values = unmask.log_likelihood(law, tokens.repeat(orders, 1), selector, order_ids=ids)
        per_order = -(values.view(orders, -1) * p).sum(1) - entropy
        error = float(per_order.std()) / math.sqrt(orders)
        assert abs(float(per_order.mean()) - excess[steps]) <= 4 * error + 1e-9, steps


# Bad input.


def _sample(tokens=None, selector=None, denoiser=None, **more):
    law = law_of("markov")
    return unmask.sample(
        denoiser or law,
        hidden(2, law) if tokens is None else tokens,
        selector or selectors.top_k(scores.margin, 1),
        generator=seeded(0),
        **more,
    )


def _nan(tokens, rows=None, *, time=None):
    return torch.full((*tokens.shape, 3), torch.nan)


class _Narrow(Recording):
    def __call__(self, tokens, rows=None, *, time=None):
        return self.base(tokens, rows)[..., :2]


class _Broken(Recording):
    def __call__(self, tokens, rows=None, *, time=None):
        return self.base(tokens, rows) * torch.nan


def _choosing(*rows):
    return lambda view: Choice(torch.tensor(rows).expand(len(view.tokens), -1))


BAD = {
    "dtype": (
        lambda: _sample(torch.full((2, 4), 3.0)),
        r"dtype torch.float32.*expected int64 \[batch, length\]",
    ),
    "shape": (lambda: _sample(torch.full((4,), 3)), r"shape \[4\].*expected int64"),
    "symbol": (
        lambda: _sample(torch.tensor([[0, 1, 2, 9]])),
        r"token 9 at row 0, position 3; expected symbols 0..2",
    ),
    "negative symbol": (lambda: _sample(torch.tensor([[0, -1, 2, 3]])), r"token -1 at row 0, position 1"),
    "mask in data": (
        lambda: unmask.log_likelihood(
            law_of("markov"), hidden(1, law_of("markov")), selectors.top_k(scores.margin, 1)
        ),
        r"token 3 .*expected symbols 0..2, no masks",
    ),
    "plan too short": (
        lambda: _sample(selector=selectors.top_k(scores.margin, (2, 1))),
        r"plan sums to 3 but 4 positions are masked",
    ),
    "plan too long": (
        lambda: _sample(selector=selectors.top_k(scores.margin, lambda n: (n, 1))),
        r"plan sums to 5 but 4 positions",
    ),
    "plan with a zero": (
        lambda: _sample(selector=selectors.top_k(scores.margin, (4, 0))),
        r"plan 2 steps: 4, 0: expected whole step sizes of at least 1",
    ),
    "plan of fractions": (
        lambda: _sample(selector=selectors.top_k(scores.margin, (2.0, 2.0))),
        r"a step size 2.0: expected a whole number",
    ),
    "zero per step": (
        lambda: selectors.top_k(scores.margin, 0),
        r"plan 0: expected a whole number of at least 1",
    ),
    "broken denoiser, sighted": (lambda: _sample(denoiser=_Broken(law_of("markov"))), r"NaN; expected"),
    "broken denoiser, blind": (
        lambda: _sample(
            denoiser=_Broken(law_of("markov")), selector=selectors.top_k(scores.left_to_right, 1)
        ),
        r"denoiser returned NaN; expected",
    ),
    "broken denoiser, bound": (
        lambda: unmask.nelbo(_Broken(law_of("markov")), torch.tensor([[0, 1, 2, 0]]), generator=seeded(0)),
        r"denoiser returned NaN; expected",
    ),
    "wrong width": (
        lambda: _sample(denoiser=_Narrow(law_of("markov"))),
        r"returned shape \[2, 4, 2\]; expected \[2, 4, 3\]",
    ),
    "network of NaN": (
        lambda: _sample(denoiser=denoisers.from_logits(_nan, 3, 3)),
        r"network returned NaN or infinite logits; expected finite",
    ),
    "visible row": (
        lambda: _sample(torch.tensor([[3, 1, 3, 3]]), selector=_choosing(1)),
        r"chose position 1, which is visible.*expected distinct masked positions",
    ),
    "duplicate row": (
        lambda: _sample(selector=_choosing(2, 2)),
        r"chose position 2.*chosen twice.*expected distinct",
    ),
    "row beyond the end": (
        lambda: _sample(selector=_choosing(0, 4)),
        r"chose position 4.*beyond the end.*expected",
    ),
    "no row": (lambda: _sample(selector=_choosing(-1)), r"chose no position.*expected at least one"),
    "rows of floats": (
        lambda: _sample(selector=_choosing(1.0)),
        r"rows of dtype torch.float32.*expected int64 \[2, k\]",
    ),
    "order_ids shape": (
        lambda: _sample(order_ids=torch.zeros(3).long()),
        r"shape \[3\]; expected int64 \[2\]",
    ),
    "order_ids dtype": (
        lambda: _sample(order_ids=torch.zeros(2)),
        r"dtype torch.float32.*expected int64 \[2\]",
    ),
    "order_ids negative": (
        lambda: _sample(order_ids=torch.tensor([0, -1])),
        r"expected int64 \[2\], each at least 0",
    ),
    "substeps": (lambda: _sample(substeps=0), r"substeps 0: expected a whole number of at least 1"),
    "visible": (
        lambda: unmask.log_likelihood(
            law_of("markov"),
            torch.zeros(1, 4).long(),
            selectors.top_k(scores.margin, 1),
            visible=torch.zeros(1, 4),
        ),
        r"visible has dtype torch.float32.*expected bool \[1, 4\]",
    ),
    "threshold": (lambda: selectors.threshold(scores.margin, math.nan), r"tau nan: expected a number"),
    "budget": (lambda: selectors.entropy_budget(-1.0), r"gamma -1.0: expected a number of at least 0"),
    "block": (
        lambda: selectors.in_blocks(selectors.top_k(scores.margin, 1), 0),
        r"block_length 0: expected a whole number of at least 1",
    ),
    "grid": (
        lambda: selectors.ancestral(schedules.linear(), torch.linspace(0, 1, 3), 0),
        r"times: expected .*strictly falling",
    ),
    "blind selector of a sighted score": (
        lambda: _sample(selector=Selector(selectors.top_k(scores.margin, 1).choose, blind=True)),
        r"margin reads log-probabilities and there are none",
    ),
    "temperature": (
        lambda: unmask.tempered(law_of("markov"), 0.0),
        r"temperature 0.0: expected a positive number",
    ),
    "nucleus": (lambda: unmask.nucleus(law_of("markov"), 1.5), r"p 1.5: expected 0 < p <= 1"),
    "guidance": (
        lambda: unmask.guided(law_of("markov"), law_of("balanced"), 1.0),
        r"expected the same vocabulary",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_says_what_came_and_what_was_expected(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_rows_taken_from_another_view_are_seen():
    """What `take` gives is believed, but as many positions must be unmasked as it took."""
    law = laws.Parity(4, 2)

    def everywhere(view):
        return selectors.top_k(scores.left_to_right, 1)(
            replace(view, masked=torch.ones_like(view.masked), left=None)
        )

    with pytest.raises(ValueError, match=r"chose position 0, which is visible"):
        unmask.sample(law, hidden(2, law), Selector(everywhere, blind=True), generator=seeded(0))
