"""`search`, `backtrack`, `best_of`: modes by enumeration, log-probabilities that are the law's, calls that are counted."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from helpers import seeded

import unmask
from unmask import laws, scores, selectors
from unmask.orders import presets

MARGIN = selectors.top_k(scores.margin, 1)
LEFT = selectors.top_k(scores.left_to_right, 1)
ORDERS = {
    "margin": MARGIN,
    "random": selectors.top_k(scores.at_random(3), 1),
    "blocks": selectors.in_blocks(MARGIN, 2),
}


def table(seed, vocab=3, length=5, spread=2.0):
    entries = spread * torch.randn(vocab**length, generator=seeded(seed), dtype=torch.float64)
    return laws.Table(entries.log_softmax(0), length)


def everything(law):
    return torch.cartesian_prod(*[torch.arange(law.vocab_size)] * law.length)


@pytest.mark.parametrize("order", ORDERS)
def test_a_beam_as_wide_as_the_law_is_the_law_sorted(order):
    law, tokens = table(0), everything(table(0))
    found = unmask.search(law, torch.full((1, 5), law.mask_id), ORDERS[order], width=3**5)
    values, places = law.log_prob(tokens).sort(descending=True)
    torch.testing.assert_close(found.log_prob[0], values)
    assert torch.equal(found.tokens[0], tokens[places])


@pytest.mark.parametrize("order", ORDERS)
def test_the_mode_of_random_laws_is_found_at_width_sixteen(order):
    for seed in range(12):
        law = table(seed)
        best = law.log_prob(everything(law)).max()
        found = unmask.search(law, torch.full((1, 5), law.mask_id), ORDERS[order], width=16)
        torch.testing.assert_close(found.log_prob[0, 0], best)


def test_width_one_is_the_arg_max_and_wider_is_never_less_probable_on_a_trap():
    # the likelier first symbol leads to many equal endings: the arg-max takes it and loses
    law = laws.Table(torch.tensor([0.3, 0.3, 0.39, 0.01], dtype=torch.float64).log(), 2)
    order = selectors.top_k(scores.left_to_right, 1)
    start = torch.full((1, 2), law.mask_id)
    greedy = unmask.sample(law, start, order, generator=seeded(0), source=unmask.greedy)
    narrow, wide = (unmask.search(law, start, order, width=w) for w in (1, 2))
    assert torch.equal(narrow.tokens[:, 0], greedy.tokens)
    torch.testing.assert_close(narrow.log_prob[:, 0], greedy.log_prob)
    assert wide.tokens[0, 0].tolist() == [1, 0]
    assert narrow.tokens[0, 0].tolist() == [0, 0]
    assert wide.nfe.tolist() == [3.0]  # one call, then one for each of two


WAYS = {
    "beam": lambda width: partial(unmask.search, width=width),
    "backtrack": lambda width: partial(unmask.backtrack, count=width),
}


@pytest.mark.parametrize("way", WAYS)
def test_rows_of_a_batch_do_not_feel_each_other(way):
    law, find = table(4), WAYS[way](5)
    tokens = torch.full((4, 5), law.mask_id)
    tokens[1, 2], tokens[2] = 1, torch.tensor([0, 1, 2, 0, 1])
    tokens[3, 1:4] = 2
    ids = torch.arange(4)
    together = find(law, tokens, ORDERS["random"], order_ids=ids)
    for row in range(4):
        alone = find(law, tokens[row, None], ORDERS["random"], order_ids=ids[row, None])
        assert torch.equal(alone.tokens[0], together.tokens[row])
        torch.testing.assert_close(alone.log_prob[0], together.log_prob[row])
        assert alone.nfe[0] == together.nfe[row]
    assert together.tokens[2, 0].tolist() == [0, 1, 2, 0, 1]
    assert together.log_prob[2].tolist() == [0.0, *[-torch.inf] * 4]
    assert together.nfe[2] == 0


OTHERS = {
    "threshold": selectors.threshold(scores.confidence, 0.5),
    "fork": presets.fork(0.9),
    "two at once": selectors.top_k(scores.margin, 2),
    "noise of each step": presets.moment(2, 2.0, 3),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("order", [*ORDERS, *OTHERS])
def test_log_probabilities_are_those_of_the_order(way, order):
    for seed in range(5, 9):
        law, chosen = table(seed), (ORDERS | OTHERS)[order]
        found = WAYS[way](6)(law, torch.full((1, 5), law.mask_id), chosen)
        real = found.log_prob[0] > -torch.inf
        again = unmask.log_likelihood(law, found.tokens[0], chosen)
        torch.testing.assert_close(found.log_prob[0, real], again[real])
        assert len({tuple(row) for row in found.tokens[0, real].tolist()}) == int(real.sum())
        assert real.all() or way == "backtrack"


def test_a_beam_that_ends_what_has_lost_finds_the_same_first():
    fewer = 0
    for seed in range(12):
        law, order = (
            table(seed, length=6, spread=3.0),
            selectors.threshold(scores.confidence, 0.5 + 0.04 * seed),
        )
        start = torch.full((4, 6), law.mask_id)
        start[1, 0], start[2, 3] = 2, 1
        start[3] = torch.tensor([0, 1, 2, 0, 1, 2])  # nothing to fill
        whole, early = (unmask.search(law, start, order, width=5, finish=f) for f in (True, False))
        assert torch.equal(early.tokens[:, 0], whole.tokens[:, 0])
        assert torch.equal(early.log_prob[:, 0], whole.log_prob[:, 0])
        assert (early.nfe <= whole.nfe).all()
        assert (early.rounds <= whole.rounds).all()
        fewer += int((early.nfe < whole.nfe).sum())
        real = early.log_prob > -torch.inf
        again = unmask.log_likelihood(
            law, early.tokens[real], order, visible=(start != law.mask_id)[real.nonzero()[:, 0]]
        )
        torch.testing.assert_close(early.log_prob[real], again)
    assert fewer > 0


def test_rounds_are_calls_one_after_another():
    law = table(3)
    start = torch.full((3, 5), law.mask_id)
    start[1, :2] = 0
    start[2] = torch.tensor([0, 1, 2, 0, 1])
    for width in (1, 4):
        found = unmask.search(law, start, MARGIN, width=width)
        assert found.rounds.tolist() == [5, 3, 0]
        assert (found.nfe > found.rounds).tolist() == ([width > 1] * 2 + [False])
    back = unmask.backtrack(law, start, MARGIN, count=3)
    assert torch.equal(back.rounds, back.nfe)
    drawn = unmask.best_of(law, start, MARGIN, count=4, generator=seeded(0))
    assert (drawn.rounds.tolist(), drawn.nfe.tolist()) == ([5, 3, 0], [20, 12, 0])
    assert unmask.judged(law, start, drawn, presets.random(2, 9)).rounds.tolist() == [8, 5, 0]  # two a call


# --- going back -------------------------------------------------------------------------------------


def best_along(law, order):
    """The largest log-probability of all sequences along an order."""
    return unmask.log_likelihood(law, everything(law), order).max()


def test_a_way_that_has_become_less_probable_is_given_up():
    # after the second first symbol, .45, all is even: .225 is less than the .352 of the arg-max
    law = laws.Table(
        torch.tensor([0.352, 0.088, 0.055, 0.055, 0.1125, 0.1125, 0.1125, 0.1125], dtype=torch.float64).log(),
        3,
    )
    order = selectors.top_k(scores.left_to_right, 1)
    found = unmask.backtrack(law, torch.full((1, 3), law.mask_id), order, count=5)
    assert (found.nfe.tolist(), found.certain.tolist()) == ([3 + 1.0], [True])
    assert found.tokens[0, :2].tolist() == [[0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("order", [*ORDERS, *OTHERS])
def test_going_back_until_nothing_is_left_finds_the_mode_and_says_so(order):
    chosen, calls = (ORDERS | OTHERS)[order], []
    for seed in range(6):
        law = table(seed)
        found = unmask.backtrack(law, torch.full((1, 5), law.mask_id), chosen, count=3**5)
        torch.testing.assert_close(found.log_prob[0, 0], best_along(law, chosen))
        assert found.certain.tolist() == [True]
        calls.append(float(found.nfe))
    assert sum(calls) / 6 < 20  # of 121 partial sequences, and 28 calls of a beam of eight


def test_the_mode_of_random_laws_is_found_in_eight_ways_by_a_third_of_a_beams_calls():
    beam = back = 0.0
    for seed in range(12):
        law = table(seed)
        start = torch.full((1, 5), law.mask_id)
        found = unmask.backtrack(law, start, MARGIN, count=8)
        torch.testing.assert_close(found.log_prob[0, 0], law.log_prob(everything(law)).max())
        beam, back = beam + unmask.search(law, start, MARGIN, width=8).nfe, back + found.nfe
    assert float(back) < float(beam) / 2


def test_what_is_called_certain_is_the_mode():
    told = {True: 0, False: 0}
    for seed in range(24):
        law = table(seed, vocab=5, length=3, spread=1.0)
        start = torch.full((1, 3), law.mask_id)
        for count in (1, 2, 3, 5, 20):
            found = unmask.backtrack(law, start, MARGIN, count=count)
            right = abs(float(found.log_prob[0, 0] - law.log_prob(everything(law)).max())) < 1e-9
            told[bool(found.certain)] += 1
            assert right or not found.certain
    assert min(told.values()) > 20, told


def test_orders_that_remember_are_for_beams():
    law, order = table(0), presets.klass(0.5, 0.5, 2)
    start = torch.full((1, 5), law.mask_id)
    found = unmask.search(law, start, order, width=6)
    torch.testing.assert_close(found.log_prob[0], unmask.log_likelihood(law, found.tokens[0], order))
    with pytest.raises(ValueError, match=r"remembers its steps .*expected another, or `search`"):
        unmask.backtrack(law, start, order)


def test_one_way_is_the_arg_max_and_two_leave_a_trap():
    law = laws.Table(torch.tensor([0.3, 0.3, 0.39, 0.01], dtype=torch.float64).log(), 2)
    order, start = selectors.top_k(scores.left_to_right, 1), torch.full((1, 2), law.mask_id)
    one, two = (unmask.backtrack(law, start, order, count=n) for n in (1, 2))
    assert (one.tokens[0, 0].tolist(), one.nfe.tolist(), one.certain.tolist()) == ([0, 0], [2.0], [False])
    assert two.tokens[0].tolist() == [[1, 0], [0, 0]]
    torch.testing.assert_close(two.log_prob.exp(), torch.tensor([[0.39, 0.3]], dtype=torch.float64))
    assert (two.nfe.tolist(), two.certain.tolist()) == ([3.0], [True])


def test_a_way_ends_where_it_is_no_more_probable_than_what_is_known():
    # one symbol is nearly sure everywhere: whatever is passed by is less probable than the arg-max as a whole
    law = laws.Markov([0.98, 0.02], [[0.98, 0.02]] * 2, 6)
    found = unmask.backtrack(law, torch.full((1, 6), law.mask_id), MARGIN, count=50)
    assert (found.nfe.tolist(), found.certain.tolist()) == ([6.0], [True])


def test_impossible_sequences_are_no_hypotheses():
    law = laws.Permutation(4)
    found = unmask.search(law, torch.full((1, 4), law.mask_id), MARGIN, width=30)
    assert int((found.log_prob > -torch.inf).sum()) == 24
    assert (found.tokens[0].sort(1).values == torch.arange(4)).all()


def test_the_best_of_draws_is_judged_by_the_model_itself():
    law = table(6)
    start = torch.full((3, 5), law.mask_id)
    found = unmask.best_of(law, start, MARGIN, count=8, generator=seeded(0))
    torch.testing.assert_close(found.log_prob, law.log_prob(found.tokens.flatten(0, 1)).view(3, 8))
    assert (found.log_prob.diff(dim=1) <= 0).all()
    assert found.nfe.tolist() == [40.0] * 3
    sharp = unmask.best_of(
        law, start, MARGIN, count=8, generator=seeded(0), proposal=unmask.tempered(law, 0.3)
    )
    torch.testing.assert_close(sharp.log_prob, law.log_prob(sharp.tokens.flatten(0, 1)).view(3, 8))
    assert sharp.nfe.tolist() == [80.0] * 3


@pytest.mark.parametrize("value", [0, 1.5])
@pytest.mark.parametrize("way", WAYS)
def test_a_width_that_is_none_is_refused(way, value):
    law = table(0)
    with pytest.raises(ValueError, match=r"(width|count) .*expected"):
        WAYS[way](value)(law, torch.full((1, 5), law.mask_id), MARGIN)


def test_draws_belong_to_their_items_whatever_the_batch():
    law, start = table(6), torch.full((3, 5), table(6).mask_id)
    ids = torch.tensor([4, 0, 9])
    many = unmask.best_of(
        law, start, ORDERS["random"], count=4, generator=seeded(1), order_ids=ids, item_ids=ids
    )
    alone = unmask.best_of(
        law, start[:1], ORDERS["random"], count=4, generator=seeded(1), order_ids=ids[2:], item_ids=ids[2:]
    )
    assert torch.equal(alone.tokens[0], many.tokens[2])
    assert len({tuple(row) for row in many.tokens.flatten(0, 1).tolist()}) > 6


@pytest.mark.parametrize("order", ORDERS)
def test_a_manifest_repeats_what_was_found(order):
    law, start = table(6), torch.full((3, 5), table(6).mask_id)
    start[1, 2] = 0
    sharper = unmask.tempered(law, 0.4)
    found = [
        (unmask.search(law, start, ORDERS[order], width=4), None),
        (unmask.backtrack(law, start, ORDERS[order], count=4), None),
        (unmask.best_of(law, start, ORDERS[order], count=4, generator=seeded(2)), None),
        (
            unmask.best_of(law, start, ORDERS[order], count=4, generator=seeded(2), proposal=sharper),
            sharper,
        ),
    ]
    judge = presets.random(2, 9)
    found.append((unmask.judged(law, start, found[2][0], judge), None))
    found += [(unmask.backtrack(law, start, ORDERS[order], count=4, finish=True), None), found[3]]
    for one, proposal in found:
        for num in (1, 3):
            told = one.told(num)
            manifest = json.loads(json.dumps(told.manifest))
            again = unmask.replay(law, manifest, start, proposal=proposal)
            assert torch.equal(again.tokens, told.tokens)
            assert torch.equal(again.log_prob, told.log_prob)
            assert torch.equal(again.nfe, told.nfe)
    with pytest.raises(ValueError, match=r"symbols were drawn from tempered.*expected proposal="):
        unmask.replay(law, one.manifest, start)
    unknown = unmask.judged(law, start, found[0][0], lambda view: judge(view))
    with pytest.raises(ValueError, match="the order that judged is no data; expected"):
        unmask.replay(law, unknown.manifest, start)


# --- another order judges -----------------------------------------------------------------------------


class Sure:
    """Is sure of a first symbol that its own second one contradicts: from the right it sees that."""

    mask_id, vocab_size = 2, 2

    def __call__(self, tokens, rows=None, *, time=None):
        first = torch.tensor([[0.4, 0.6], [0.01, 0.99], [0.6, 0.4]], dtype=torch.float64)[tokens[:, 1]]
        second = torch.tensor([[0.1, 0.9], [0.1, 0.9], [0.5, 0.5]], dtype=torch.float64)[tokens[:, 0]]
        law = torch.stack([first, second], 1).log()
        return law if rows is None else law.gather(1, rows[..., None].expand(-1, -1, 2))


FORWARD = selectors.top_k(scores.left_to_right, 1)
BACKWARD = selectors.top_k(scores.Score(lambda v: torch.arange(2.0).expand(v.tokens.shape), blind=True), 1)


def test_what_looks_sure_along_one_order_is_found_out_by_another():
    model, start = Sure(), torch.full((3, 2), 2)
    found = unmask.search(model, start, FORWARD, width=4)
    assert found.tokens[0, 0].tolist() == [0, 1]
    again = unmask.judged(model, start, found, BACKWARD)
    assert again.tokens[1, 0].tolist() == [1, 1]
    want = torch.tensor([0.5 * 0.99, 0.5 * 0.6, 0.5 * 0.4, 0.5 * 0.01], dtype=torch.float64)
    torch.testing.assert_close(again.log_prob.exp(), want.expand(3, 4))
    assert again.nfe.tolist() == [3.0 + 4 * 2] * 3


def test_an_exact_law_has_nothing_to_find_out_and_judging_keeps_the_rest():
    law, start = table(6), torch.full((3, 5), table(6).mask_id)
    start[1, 2], start[2, :4] = 0, 1
    found = unmask.search(law, start, ORDERS["random"], width=5)
    again = unmask.judged(law, start, found, MARGIN)
    assert torch.equal(again.tokens, found.tokens)
    torch.testing.assert_close(again.log_prob, found.log_prob)
    assert (again.nfe - found.nfe).tolist() == [25.0, 20.0, 3.0]  # there are three fillings of one position
    pairs = unmask.judged(
        law, start, found, selectors.top_k(scores.at_random(2), 2), order_ids=torch.arange(3)
    )
    want = unmask.log_likelihood(
        law,
        pairs.tokens[0],
        selectors.top_k(scores.at_random(2), 2),
        order_ids=torch.zeros(5, dtype=torch.int64),
    )
    torch.testing.assert_close(pairs.log_prob[0], want)
    assert (pairs.nfe - found.nfe).tolist() == [15.0, 10.0, 3.0]


def test_finished_ways_are_complete_though_they_have_lost():
    law = laws.Markov([0.98, 0.02], [[0.98, 0.02]] * 2, 6)
    start = torch.full((1, 6), law.mask_id)
    found = unmask.backtrack(law, start, MARGIN, count=4, finish=True)
    assert bool((found.log_prob > -torch.inf).all())
    assert (float(found.nfe) > 6, found.certain.tolist()) == (True, [True])
    assert torch.equal(found.tokens[0, 0], torch.zeros(6, dtype=torch.int64))


def test_a_search_goes_along_the_order_of_a_sampler():
    law, start = table(3), torch.full((2, 5), 3)
    order = presets.margin(1)
    for find in (unmask.search, partial(unmask.backtrack, count=4)):
        mine, plain = find(law, start, unmask.Sampler(order, source="greedy")), find(law, start, order)
        assert torch.equal(mine.tokens, plain.tokens)
        assert torch.equal(mine.log_prob, plain.log_prob)
        with pytest.raises(ValueError, match=r"a sampler of temperature 0\.5; expected 1"):
            find(law, start, unmask.Sampler(order, temperature=0.5))
        with pytest.raises(ValueError, match="a sampler of 2 sub-steps; expected none"):
            find(law, start, unmask.Sampler(order, substeps=2))


def test_draws_of_a_sampler_come_from_its_tempered_law():
    law, start = table(3), torch.full((2, 5), 3)
    order = presets.margin(1)
    mine = unmask.best_of(law, start, unmask.Sampler(order, temperature=0.5), count=4, generator=seeded(0))
    wanted = unmask.best_of(
        law, start, order, count=4, generator=seeded(0), proposal=unmask.tempered(law, 0.5)
    )
    assert torch.equal(mine.tokens, wanted.tokens)
    with pytest.raises(ValueError, match="beside a proposal"):
        unmask.best_of(
            law, start, unmask.Sampler(order, temperature=0.5), count=2, generator=seeded(0), proposal=law
        )
    with pytest.raises(ValueError, match="such draws are all the same"):
        unmask.best_of(law, start, unmask.Sampler(order, source="greedy"), count=2, generator=seeded(0))


def tied(tokens):
    """Position 1 repeats 0, and 3 is sure where 2 is small: many fillings are as probable as each other."""
    logits, symbols = torch.zeros(len(tokens), 4, 8), torch.arange(8)
    logits[:, 1] = torch.where((tokens[:, :1] < 8) & (symbols != tokens[:, :1]), -torch.inf, 0.0)
    logits[:, 3] = torch.where((tokens[:, 2:3] < 3) & (symbols != 0), -torch.inf, 0.0)
    return logits


@pytest.mark.parametrize("way", WAYS)
def test_of_equal_ones_the_first_goes_on_whoever_else_is_in_the_batch(way):
    denoiser, tokens = unmask.from_logits(tied, 8, 8), torch.full((2, 4), 8)
    tokens[0, 0] = 1
    for width in (1, 3, 4):
        together = WAYS[way](width)(denoiser, tokens, LEFT)
        alone = WAYS[way](width)(denoiser, tokens[:1], LEFT)
        assert torch.equal(alone.tokens[0], together.tokens[0])
    assert alone.tokens[0, 0].tolist() == [1, 1, 0, 0]
    law = laws.Permutation(6)
    only = WAYS[way](1)(law, torch.full((1, 6), law.mask_id), LEFT)
    assert only.tokens[0, 0].tolist() == list(range(6))


def test_an_empty_batch_has_no_draws():
    law = table(1)
    found = unmask.best_of(
        law, torch.empty(0, 5, dtype=torch.int64), ORDERS["random"], count=2, generator=seeded(0)
    )
    assert found.tokens.shape == (0, 2, 5)


def test_more_fillings_than_were_kept_are_refused():
    law = table(1)
    found = unmask.search(law, torch.full((2, 5), law.mask_id), ORDERS["random"], width=2)
    assert len(found.told(2).tokens) == 4
    for num in (0, 3):
        with pytest.raises(ValueError, match=rf"num={num}; expected 1\.\.2"):
            found.told(num)
