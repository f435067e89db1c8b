"""Forbidden symbols and biases change the law, for all positions or each its own; whatever asks sees the changed law."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import CHAIN, SMALL_LAWS, chi_square_z, every_sequence, hidden, place_of, seeded

import unmask
from unmask import laws, scores, selectors
from unmask.denoisers import caches
from unmask.orders import presets

TABLE = SMALL_LAWS["table"]()
CHAIN_LAW = laws.Markov([0.2, 0.5, 0.3], CHAIN, 4)
EVERYTHING = every_sequence(TABLE, 4)
WEIGHTS = torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.0, 0.0], [-3.0, 1.0, -math.inf], [1e3, 0.0, 1e3]])
MAP = torch.tensor([[0, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=torch.bool)
LEFT = presets.left_to_right()


def reweighed(law, weights, order=(0, 1, 2, 3)):
    """Probability [81] of every sequence, position by position, each conditional times exp(weights[n])."""
    joint = law.log_prob(EVERYTHING).exp()
    factors = (weights.double() - weights.amax(-1, keepdim=True)).exp().expand(4, 3)
    total = torch.ones(81, dtype=torch.float64)
    for step, n in enumerate(order):
        seen = list(order[:step])
        same = (EVERYTHING[:, None, seen] == EVERYTHING[:, seen]).all(-1).double()  # [81, 81]
        law_here = torch.stack([same @ (joint * (EVERYTHING[:, n] == v)) for v in range(3)], 1)
        changed = law_here * factors[n]
        changed = (changed / changed.sum(1, keepdim=True)).nan_to_num(0)
        total = total * changed.gather(1, EVERYTHING[:, n, None])[:, 0]
    return total


def no_dead_ends(law):
    """A law whose conditionals all stay possible."""
    return laws.Table(
        torch.logaddexp(law.log_prob(EVERYTHING) - 0.1, torch.tensor(1e-2).log().double()).log_softmax(0), 4
    )


FULL = no_dead_ends(TABLE)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 1, 3)], ids=str)
@pytest.mark.parametrize(
    "weights",
    [WEIGHTS, torch.tensor([0.3, -math.inf, -1.0]), torch.tensor([0.0, 2.0, -4.0])],
    ids=["each", "forbids", "all"],
)
def test_a_biased_law_is_the_product_of_reweighed_conditionals(weights, order):
    selector = LEFT if order[1] == 1 else presets.bisection(1)
    told = unmask.log_likelihood(unmask.biased(FULL, weights), EVERYTHING, selector)
    assert told.exp() == pytest.approx(reweighed(FULL, weights, order), abs=1e-12)
    assert told.exp().sum() == pytest.approx(1, abs=1e-12)


def as_weights(forbidden):
    return torch.zeros(forbidden.shape).masked_fill(forbidden, -math.inf)


@pytest.mark.parametrize(
    ("symbols", "forbidden"),
    [
        ([1], torch.tensor([False, True, False])),
        ({0, 1}, torch.tensor([True, True, False])),
        (np.array([2]), torch.tensor([False, False, True])),
        (torch.tensor([True, False, False]), torch.tensor([True, False, False])),
        ([False, False, True], torch.tensor([False, False, True])),
        (MAP, MAP),
        (MAP.numpy(), MAP),
        (MAP.tolist(), MAP),
    ],
    ids=["list", "set", "array of ids", "map", "list of flags", "map of positions", "array", "nested list"],
)
def test_forbidden_symbols_are_weights_of_zero(symbols, forbidden):
    told = unmask.log_likelihood(unmask.forbidding(FULL, symbols), EVERYTHING, LEFT)
    assert told.exp() == pytest.approx(reweighed(FULL, as_weights(forbidden)), abs=1e-12)
    never = forbidden.expand(4, 3)[torch.arange(4), EVERYTHING].any(1)
    assert (told[never] == -math.inf).all()
    assert (told[~never] > -math.inf).all()


def test_a_constant_among_the_weights_changes_nothing_and_is_lost_in_no_rounding():
    logits = torch.randn(1, 4, 3, generator=seeded(0))
    base = unmask.from_logits(lambda tokens: logits.expand(len(tokens), -1, -1), 3, 3)
    tokens = torch.full((2, 4), 3)
    wanted = unmask.biased(base, [0.5, 0.0, -0.25])(tokens)
    assert torch.equal(unmask.biased(base, [2**20 + 0.5, 2.0**20, 2**20 - 0.25])(tokens), wanted)


NESTED = {
    "tempered outside": lambda d: unmask.tempered(unmask.forbidding(d, MAP), 0.5),
    "tempered inside": lambda d: unmask.forbidding(unmask.tempered(d, 0.5), MAP),
    "nucleus outside": lambda d: unmask.nucleus(unmask.biased(d, WEIGHTS), 0.9),
    "guided outside": lambda d: unmask.guided(unmask.forbidding(d, MAP), unmask.biased(FULL, WEIGHTS), 0.7),
    "guided inside": lambda d: unmask.forbidding(unmask.guided(d, FULL, 0.7), [2]),
    "twice": lambda d: unmask.forbidding(
        unmask.biased(unmask.forbidding(d, MAP), [0.1, 0.2, -3]), MAP.roll(1, 0)
    ),
}
ORDERS = [LEFT, presets.margin(2), presets.random(3), presets.eb(0.5), presets.race(2)]


@pytest.mark.parametrize("selector", ORDERS, ids=lambda s: s.name)
@pytest.mark.parametrize("name", NESTED)
def test_in_any_nesting_probabilities_sum_to_one_and_follow_the_likelihood(name, selector):
    denoiser = NESTED[name](FULL)
    for substeps in (1, 2):
        told = unmask.log_likelihood(denoiser, EVERYTHING, selector, substeps=substeps)
        assert told.exp().sum() == pytest.approx(1, abs=1e-10)
    tokens = hidden(300, FULL)
    tokens[::3, 1], tokens[1::3, 0] = 1, 2  # also symbols that are forbidden there
    visible = tokens != 3
    found = unmask.sample(denoiser, tokens, selector, generator=seeded(1), substeps=2)
    again = unmask.log_likelihood(
        denoiser, found.tokens, selector, substeps=2, visible=visible, order_ids=torch.arange(300)
    )
    assert torch.equal(found.log_prob, again)
    assert (found.log_prob > -math.inf).all()


def test_tempering_outside_and_inside_differ_as_their_formulas_say():
    law = FULL(hidden(1, FULL))[0].exp()
    bias = torch.tensor([0.7, 0.0, -0.4]).double()
    inside = law**2 * bias.exp()
    outside = (law * bias.exp()) ** 2
    found = unmask.biased(unmask.tempered(FULL, 0.5), bias)(hidden(1, FULL))[0].exp()
    assert found == pytest.approx(inside / inside.sum(-1, keepdim=True), abs=1e-12)
    found = unmask.tempered(unmask.biased(FULL, bias), 0.5)(hidden(1, FULL))[0].exp()
    assert found == pytest.approx(outside / outside.sum(-1, keepdim=True), abs=1e-12)


def test_draws_follow_the_forbidden_law():
    denoiser = unmask.forbidding(FULL, MAP)
    found = unmask.sample(denoiser, hidden(4000, FULL), presets.confidence(), generator=seeded(2)).tokens
    told = unmask.log_likelihood(denoiser, EVERYTHING, presets.confidence()).exp()
    assert abs(chi_square_z(place_of(found, 3).bincount(minlength=81), told)) < 4


def test_orders_on_the_base_read_the_law_before():
    first = {}

    def watch(view):
        first.setdefault("base", view.base_log_probs)
        first.setdefault("law", view.log_probs)
        return selectors.top_k(scores.on_base(scores.confidence), 1)(view)

    start, rows = hidden(1, FULL), torch.tensor([[0, 2, 3]])
    start[0, 1] = 0
    unmask.sample(unmask.forbidding(FULL, MAP), start, watch, generator=seeded(0))
    assert torch.equal(first["base"], FULL(start, rows))
    assert torch.equal(first["law"], unmask.forbidding(FULL, MAP)(start, rows))


def test_rows_that_are_padding_or_given_do_not_matter():
    """A batch of unequal rows whose visible symbols are all forbidden: no complaint, and rows as alone."""
    denoiser = unmask.tempered(unmask.forbidding(CHAIN_LAW, [2]), 0.7)
    tokens = torch.tensor([[2, 2, 2, 3], [3, 3, 3, 3], [2, 3, 3, 2]])
    for selector in (presets.margin(2), presets.random(2)):
        found = unmask.sample(denoiser, tokens, selector, generator=seeded(3))
        assert (found.tokens[tokens == 3] != 2).all()
        assert torch.equal(found.tokens[tokens != 3], tokens[tokens != 3])
        for n in range(3):
            alone = unmask.sample(
                denoiser,
                tokens[n : n + 1],
                selector,
                generator=seeded(3),
                order_ids=torch.tensor([n]),
                item_ids=torch.tensor([n]),
            )
            assert torch.equal(alone.tokens[0], found.tokens[n])


@pytest.mark.parametrize(
    "wrap",
    [
        lambda d: d,
        lambda d: unmask.tempered(d, 0.5),
        lambda d: unmask.nucleus(d, 0.5),
        lambda d: unmask.biased(d, [0.0, 1.0, 0.0]),
        lambda d: unmask.guided(d, laws.Repetition(3, 3), 1.0),
    ],
    ids=["alone", "tempered", "nucleus", "biased", "guided"],
)
@pytest.mark.parametrize("selector", [LEFT, presets.margin()], ids=["blind", "sighted"])
def test_a_position_that_keeps_no_symbol_is_one_clear_line(wrap, selector):
    law = laws.Repetition(3, 3)
    only = torch.zeros(3, 3, dtype=torch.bool)
    only[2, 0] = only[1, 1] = only[1, 2] = (
        True  # then position 1 is a 0, and so is the last, which may not be
    )
    with pytest.raises(ValueError, match=r"^no symbol is possible at row 0, position [02]: every .*expected"):
        unmask.sample(
            wrap(unmask.forbidding(law, only)), torch.tensor([[3, 0, 3]]), selector, generator=seeded(0)
        )
    with pytest.raises(ValueError, match=r"^no symbol is possible"):
        unmask.nelbo(
            wrap(unmask.forbidding(law, only)), torch.tensor([[1, 0, 0]]), generator=seeded(0), samples=9
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: unmask.forbidding(TABLE, [0, 1, 2]), r"forbids every symbol; expected at least one"),
        (
            lambda: unmask.forbidding(TABLE, ~torch.eye(4, 3).bool() | (torch.arange(4) == 2)[:, None]),
            r"forbids every symbol at position 2; expected",
        ),
        (lambda: unmask.forbidding(TABLE, [3]), r"symbol 3: expected a whole number"),
        (lambda: unmask.forbidding(TABLE, [0.5]), r"symbol 0.5: expected a whole number"),
        (lambda: unmask.forbidding(TABLE, "A"), r"symbols 'A': expected ids, or a bool map \[3\]"),
        (
            lambda: unmask.forbidding(TABLE, torch.ones(4, dtype=torch.bool)),
            r"expected ids, or a bool map \[3\]",
        ),
        (lambda: unmask.forbidding(TABLE, torch.ones(4, 3)), r"expected ids, or a bool map \[3\]"),
        (
            lambda: unmask.biased(TABLE, [0.0, 1.0]),
            r"log_weights .*: expected numbers \[3\], or \[length, 3\]",
        ),
        (lambda: unmask.biased(TABLE, [0.0, math.nan, 0]), r"log_weights .*: expected .*finite or -inf"),
        (lambda: unmask.biased(TABLE, [0.0, math.inf, 0]), r"log_weights .*: expected .*finite or -inf"),
        (lambda: unmask.biased(TABLE, "x"), r"log_weights 'x': expected numbers"),
        (lambda: unmask.biased(TABLE, [-math.inf] * 3), r"forbids every symbol; expected"),
        (
            lambda: unmask.forbidding(TABLE, MAP[:3])(hidden(1, TABLE)),
            r"for 3 positions met tokens of length 4",
        ),
    ],
)
def test_bad_settings_are_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_symbol_of_the_mask_counts_for_nothing():
    base = unmask.from_logits(lambda tokens: torch.zeros(*tokens.shape, 4), 3, 4)
    with pytest.raises(ValueError, match="forbids every symbol"):
        unmask.forbidding(base, [0, 1, 2])
    law = unmask.forbidding(base, [0, 3])(torch.tensor([[3]])).exp()
    assert law.flatten().tolist() == pytest.approx([0, 0.5, 0.5, 0])


def test_nothing_forbidden_is_the_denoiser_itself():
    assert unmask.forbidding(TABLE, []) is TABLE
    assert unmask.forbidding(TABLE, [False] * 3) is TABLE


def test_names_say_the_settings():
    assert unmask.denoisers.denoiser_name(unmask.forbidding(TABLE, [2, 0])) == "forbidding(Table, [0, 2])"
    one, other = (unmask.denoisers.denoiser_name(unmask.biased(TABLE, w)) for w in (WEIGHTS, WEIGHTS + 1))
    assert one.startswith("biased(Table, 4x3 #")
    assert one != other


def test_block_caches_lie_inside():
    chain = laws.Markov([0.2, 0.5, 0.3], CHAIN, 4)
    plain = unmask.forbidding(chain, MAP)
    cached = unmask.forbidding(caches.blocks(chain, 2), MAP)
    order = selectors.in_blocks(presets.margin(), 2)
    assert torch.allclose(
        unmask.log_likelihood(cached, EVERYTHING, order), unmask.log_likelihood(plain, EVERYTHING, order)
    )
