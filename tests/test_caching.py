"""Caches keep the probabilities: sub-steps, blocks, and networks that compute roughly or compiled."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from helpers import SMALL_LAWS, Recording, chi_square_z, every_sequence, place_of, seeded
from torch import nn

import unmask
from unmask import engine, scores, selectors
from unmask.denoisers import caches as caching
from unmask.networks import Transformer
from unmask.orders.sources import given

pytestmark = pytest.mark.global_random
LENGTH, MASK = 6, 2


def network(depth: int = 3, length: int = LENGTH, seed: int = 0) -> Transformer:
    """Random weights, head included, two symbols."""
    made = Transformer(MASK, length, 16, depth, heads=2)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5, generator=seeded(seed + parameter.numel()))
    return made.eval()


def denoiser(depth: int = 3, length: int = LENGTH, seed: int = 0) -> unmask.Denoiser:
    return unmask.from_logits(network(depth, length, seed).double(), mask_id=MASK, vocab_size=MASK)


def everything(length: int = LENGTH) -> torch.Tensor:
    return every_sequence(denoiser(1, length), length)


def likelihoods(model, selector, **settings):
    """Log-probabilities of all sequences under order 3."""
    tokens = everything()
    orders = torch.full((len(tokens),), 3)
    return unmask.log_likelihood(model, tokens, selector, order_ids=orders, **settings)


def drawn(model, selector, rows=1500, **settings):
    start = torch.full((rows, LENGTH), MASK)
    orders = torch.full((rows,), 3)
    return unmask.sample(model, start, selector, generator=seeded(4), order_ids=orders, **settings)


def agree(model, selector, **settings) -> torch.Tensor:
    """Probabilities that sum to one and that draws follow, with the log-probability of what was drawn."""
    values = likelihoods(model, selector, **settings)
    assert float(values.exp().sum()) == pytest.approx(1, abs=1e-9)
    result = drawn(model, selector, **settings)
    place = place_of(result.tokens, MASK)
    assert chi_square_z(torch.bincount(place, minlength=len(values)), values.exp()) < 4
    assert (result.log_prob - values[place]).abs().max() < 1e-9
    return values


# --- sub-steps ------------------------------------------------------------------------------------

ORDERS = {
    "random": selectors.top_k(scores.at_random(1), 3),
    "bisection": selectors.top_k(scores.bisection, (1, 2, 3)),
    "confidence": selectors.top_k(scores.confidence, 3),
    "threshold": selectors.threshold(scores.margin, 0.3),
}
every_order = pytest.mark.parametrize("order", ORDERS)


@every_order
@pytest.mark.parametrize("substeps", [2, 3])
def test_draws_with_substeps_follow_their_likelihood(order, substeps):
    values = agree(denoiser(), ORDERS[order], substeps=substeps)
    assert (values - likelihoods(denoiser(), ORDERS[order])).abs().max() > 0.01


@every_order
def test_one_layer_with_as_many_substeps_as_positions_is_one_position_per_call(order):
    """Exact caching: the law of a finer plan, if it chooses the same rows."""
    if order in ("confidence", "threshold"):
        pytest.skip("its next choice would look at the symbols in between")
    fine = selectors.top_k({"random": scores.at_random(1), "bisection": scores.bisection}[order], 1)
    expected = likelihoods(denoiser(1), fine)
    assert (likelihoods(denoiser(1), ORDERS[order], substeps=3) - expected).abs().max() < 1e-9
    assert (
        likelihoods(denoiser(3), ORDERS[order], substeps=3) - likelihoods(denoiser(3), fine)
    ).abs().max() > 0.01


def test_every_step_begins_with_a_fresh_pass():
    """Two positions per step, two sub-steps: the law by hand."""
    model, selector = denoiser(), selectors.top_k(scores.left_to_right, 2)
    tokens, total = everything(), torch.zeros(2**LENGTH, dtype=torch.float64)
    state = torch.full_like(tokens, MASK)
    for first in range(0, LENGTH, 2):
        rows = torch.tensor([[first, first + 1]]).expand(len(tokens), -1)
        log_probs, cache = model.full(state, rows)
        total += log_probs[:, 0].gather(1, tokens[:, first : first + 1])[:, 0]
        state = state.scatter(1, rows[:, :1], tokens[:, first : first + 1])
        log_probs = model.partial(state, rows, cache)
        total += log_probs[:, 1].gather(1, tokens[:, first + 1 : first + 2])[:, 0]
        state = state.scatter(1, rows[:, 1:], tokens[:, first + 1 : first + 2])
    assert (likelihoods(model, selector, substeps=2) - total).abs().max() < 1e-9


# --- blocks ---------------------------------------------------------------------------------------

INSIDE = {
    "random": lambda n: selectors.in_blocks(selectors.top_k(scores.at_random(1), 2), n),
    "left to right": lambda n: selectors.in_blocks(selectors.top_k(scores.left_to_right, 1), n),
    "confidence": lambda n: selectors.in_blocks(selectors.top_k(scores.confidence, 2), n),
    "threshold": lambda n: selectors.in_blocks(selectors.threshold(scores.margin, 0.3), n),
}
inside = pytest.mark.parametrize("order", INSIDE)
either = pytest.mark.parametrize("suffix", [False, True], ids=["dual", "prefix"])


@inside
@either
@pytest.mark.parametrize(("size", "substeps"), [(3, 1), (4, 1), (3, 2)])
def test_draws_in_cached_blocks_follow_their_likelihood(order, suffix, size, substeps):
    """Block length 4 leaves a shorter last block."""
    selector = INSIDE[order](size)
    values = agree(caching.blocks(denoiser(), size, suffix=suffix), selector, substeps=substeps)
    change = (values - likelihoods(denoiser(), selector, substeps=substeps)).abs().max()
    # three layers: rows that do not run stay as they were, unless two steps run everything
    assert change > 1e-3 or (size, suffix) == (4, True)


@inside
@either
def test_cached_blocks_are_exact_for_one_layer_and_for_one_block(order, suffix):
    for depth, size in ((1, 2), (1, 4), (3, LENGTH), (3, LENGTH + 1)):
        selector, model = INSIDE[order](size), denoiser(depth)
        cached = likelihoods(caching.blocks(model, size, suffix=suffix), selector)
        assert (cached - likelihoods(model, selector)).abs().max() < 1e-9


@pytest.mark.parametrize("name", ["table", "markov"])
@either
def test_exact_laws_recompute_so_that_nothing_is_lost(name, suffix):
    law = SMALL_LAWS[name]()
    tokens = every_sequence(law, law.length)
    values = unmask.log_likelihood(caching.blocks(law, 2, suffix=suffix), tokens, INSIDE["confidence"](2))
    assert (
        values.exp() - unmask.log_likelihood(law, tokens, INSIDE["confidence"](2)).exp()
    ).abs().max() < 1e-12


def prompts(rows: int = 12) -> torch.Tensor:
    """Rows with 0 to 5 visible symbols, at any place."""
    tokens = torch.randint(MASK, (rows, LENGTH), generator=seeded(1))
    rank = torch.rand(rows, LENGTH, generator=seeded(2)).argsort(1)
    return tokens.masked_fill(rank >= torch.arange(rows)[:, None] % LENGTH, MASK)


@either
@pytest.mark.parametrize("size", [2, 4])
def test_what_a_cached_denoiser_says_is_a_partial_pass_after_a_full_one(suffix, size):
    base, tokens = denoiser(), prompts()
    model = caching.blocks(base, size, suffix=suffix)
    for row in tokens:
        first = int((row == MASK).nonzero()[0]) // size * size
        rows = torch.arange(first, LENGTH if suffix else min(first + size, LENGTH))[None]
        before = row.clone()
        before[first : first + size] = MASK
        _, cache = base.full(before[None])
        expected = base.partial(row[None], rows, cache)
        assert (model(row[None], rows) - expected).abs().max() < 1e-9
        assert (model.full(row[None], rows)[0] - expected).abs().max() < 1e-9


@inside
@either
@pytest.mark.parametrize("substeps", [1, 2])
def test_remembering_changes_nothing_but_the_cost(order, suffix, substeps):
    """Every state forgets, or is continued twice: the same log-probabilities, more calls."""
    model, selector = caching.blocks(denoiser(), 4, suffix=suffix), INSIDE[order](4)
    start, truth = prompts(), torch.randint(MASK, (12, LENGTH), generator=seeded(8))
    source = given(torch.where(start == MASK, truth, start))
    other = given(torch.where(start == MASK, 1 - truth, start))
    kept = forgetful = twice = engine.init(start, MASK)
    while kept.masked.any():
        kept = engine.step(kept, model, selector, source, substeps=substeps)[0]
        forgetful = engine.step(
            replace(forgetful, remembered=None), model, selector, source, substeps=substeps
        )[0]
        engine.run(twice, model, selector, other, substeps=substeps)
        twice = engine.step(twice, model, selector, source, substeps=substeps)[0]
    for state in (forgetful, twice):
        assert (state.log_prob - kept.log_prob).abs().max() < 1e-9
    assert (forgetful.nfe > kept.nfe).any()
    assert torch.equal(twice.nfe, kept.nfe)


@either
def test_a_state_may_be_continued_twice(suffix):
    """One row enters its second block while the other is still in the first: no cache may be overwritten for that."""
    model, selector = caching.blocks(denoiser(length=9), 3, suffix=suffix), INSIDE["left to right"](3)
    start = torch.full((2, 9), MASK)
    start[1, 0] = 1
    zeros, ones = given(torch.zeros(2, 9).long()), given(torch.ones(2, 9).long())
    state = engine.step(engine.init(start, MASK), model, selector, zeros)[0]
    expected = engine.step(replace(state, remembered=None), model, selector, zeros)[0].log_prob
    engine.run(state, model, selector, ones)
    assert (engine.step(state, model, selector, zeros)[0].log_prob - expected).abs().max() < 1e-9


@inside
@either
def test_rows_do_not_depend_on_their_neighbours(order, suffix):
    """Though they enter and leave their blocks at different steps."""
    model, selector, start = caching.blocks(denoiser(), 3, suffix=suffix), INSIDE[order](3), prompts()
    orders = torch.arange(len(start))
    whole = unmask.sample(model, start, selector, generator=seeded(1), order_ids=orders)
    again = unmask.log_likelihood(model, whole.tokens, selector, visible=start != MASK, order_ids=orders)
    assert (again - whole.log_prob).abs().max() < 1e-9
    for b in range(len(start)):
        alone = unmask.log_likelihood(
            model,
            whole.tokens[b : b + 1],
            selector,
            visible=start[b : b + 1] != MASK,
            order_ids=orders[b : b + 1],
        )
        assert float(alone) == pytest.approx(float(whole.log_prob[b]), abs=1e-9)
    part = unmask.sample(model, start[:4], selector, generator=seeded(1), order_ids=orders[:4])
    assert torch.equal(part.tokens, whole.tokens[:4])
    assert torch.equal(part.nfe, whole.nfe[:4])


@pytest.mark.parametrize("order", ["random", "confidence"])
@pytest.mark.parametrize(
    ("suffix", "substeps", "calls"),
    [
        (False, 1, 3 * (1 + 4 / 12)),
        (True, 1, 3 + 12 / 12 + 8 / 12 + 4 / 12),
        (False, 2, 3 * (1 + 2 / 12 + 4 / 12 + 2 / 12)),
    ],
)
def test_calls_are_counted_in_shares_of_a_pass(order, suffix, substeps, calls):
    """Three blocks of four, two positions per step."""
    asked = Recording(denoiser(length=12))
    model, start = caching.blocks(asked, 4, suffix=suffix), torch.full((2, 12), MASK)
    result = unmask.sample(model, start, INSIDE[order](4), generator=seeded(0), substeps=substeps)
    assert result.nfe.tolist() == pytest.approx([calls, calls])
    kinds = {1: ["full", "partial"], 2: ["full", "partial", "partial", "partial"]}[substeps]
    assert [kind for kind, *_ in asked.calls] == kinds * 3


def test_a_visible_symbol_in_the_block_costs_a_partial_pass():
    asked, start = Recording(denoiser()), torch.full((1, LENGTH), MASK)
    start[0, 1] = 1
    model = caching.blocks(asked, 3)
    result = unmask.sample(model, start, INSIDE["confidence"](3), generator=seeded(0))
    assert [kind for kind, *_ in asked.calls] == ["full", "partial", "full", "partial"]
    assert result.nfe.tolist() == [1 + 3 / 6 + 1 + 3 / 6]
    assert asked.calls[0][1][0].tolist() == [MASK] * LENGTH


def test_wrappers_go_inside_or_outside():
    base, selector = denoiser(), INSIDE["confidence"](3)
    within = likelihoods(caching.blocks(unmask.tempered(base, 0.7), 3), selector)
    assert (likelihoods(unmask.tempered(caching.blocks(base, 3), 0.7), selector) - within).abs().max() < 1e-9
    pair = unmask.guided(base, denoiser(seed=1), 0.5)
    values = likelihoods(caching.blocks(pair, 3), selector)
    assert float(values.exp().sum()) == pytest.approx(1, abs=1e-9)
    result = drawn(caching.blocks(pair, 3), selector, rows=2)
    assert result.nfe.tolist() == [2 * 2 * (1 + 3 / 6)] * 2
    with pytest.raises(ValueError, match=r"expected caching.blocks\(guided"):
        likelihoods(unmask.guided(caching.blocks(base, 3), base, 0.5), selector)


def test_blocks_refuse_what_they_cannot_answer():
    with pytest.raises(ValueError, match="block_length 0: expected a whole number of at least 1"):
        caching.blocks(denoiser(), 0)
    for selector in (selectors.top_k(scores.at_random(0), 2), selectors.top_k(scores.confidence, 4)):
        with pytest.raises(ValueError, match=r"outside the rows that caching.blocks runs again.*in_blocks"):
            drawn(caching.blocks(denoiser(), 3), selector, rows=4)
    with pytest.raises(ValueError, match="outside the rows"):
        caching.blocks(denoiser(), 3)(prompts())

    class Odd:
        mask_id = vocab_size = MASK

        def full(self, tokens, rows=None, **time):
            return torch.full((*rows.shape, 2), 0.5).log(), {"keys": tokens}

        def partial(self, tokens, rows, cache, **time):
            return torch.full((*rows.shape, 2), 0.5).log()

    with pytest.raises(ValueError, match="a cache holds dict; expected tensors"):
        unmask.sample(caching.blocks(Odd(), 3), prompts(), INSIDE["random"](3), generator=seeded(0))


# --- rough and compiled networks ------------------------------------------------------------------


class Rough:
    """A network under bfloat16 autocast."""

    def __init__(self, base):
        self.base = base

    def __call__(self, tokens, rows=None):
        with torch.autocast("cpu", torch.bfloat16):
            return self.base(tokens, rows)

    def full(self, tokens, rows=None):
        with torch.autocast("cpu", torch.bfloat16):
            return self.base.full(tokens, rows)

    def partial(self, tokens, rows, cache):
        with torch.autocast("cpu", torch.bfloat16):
            return self.base.partial(tokens, rows, cache)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("order", ["random", "left to right"])
def test_bfloat16_is_a_law_close_to_that_of_float32(order, cached):
    """Conditionals are normalised in float32, so sums keep 1e-5 whatever the network's precision.

    Draws follow the likelihood if both see equal shapes; a batch of another size may round otherwise.
    """
    exact = unmask.from_logits(network(), mask_id=MASK, vocab_size=MASK)
    rough = unmask.from_logits(Rough(network()), mask_id=MASK, vocab_size=MASK)
    if cached:
        exact, rough = caching.blocks(exact, 3), caching.blocks(rough, 3)
    selector = INSIDE[order](3)
    values = likelihoods(rough, selector, substeps=2)
    assert float(values.exp().sum()) == pytest.approx(1, abs=1e-5)
    difference = (values - likelihoods(exact, selector, substeps=2)).abs()
    assert 1e-5 < difference.max() < 0.3
    result = drawn(rough, selector, rows=2**LENGTH * 20, substeps=2)
    place = place_of(result.tokens, MASK)
    assert (result.log_prob - values[place]).abs().max() < 1e-4
    assert chi_square_z(torch.bincount(place, minlength=len(values)), values.exp()) < 4


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_network_keeps_the_law(monkeypatch, backend):
    """Every call has one shape, so that there is one compilation; generated code is compiled for a minute, if asked."""
    if backend == "inductor" and not (os.environ.get("UNMASK_SLOW_TESTS") and shutil.which("c++")):
        pytest.skip("set UNMASK_SLOW_TESTS=1 and install a C++ compiler")
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    net, selector = network(1), selectors.top_k(scores.at_random(1), 2)
    compiled = torch.compile(net, backend=backend)
    model = unmask.from_logits(
        lambda tokens, rows=None: compiled(tokens, rows), mask_id=MASK, vocab_size=MASK
    )
    values = likelihoods(model, selector)
    assert float(values.exp().sum()) == pytest.approx(1, abs=1e-5)
    plain = likelihoods(unmask.from_logits(net, mask_id=MASK, vocab_size=MASK), selector)
    assert (values - plain).abs().max() < 1e-4
    start, orders = torch.full((2**LENGTH, LENGTH), MASK), torch.full((2**LENGTH,), 3)
    sample = partial(unmask.sample, model, start, selector, order_ids=orders)
    place = torch.cat([place_of(sample(generator=seeded(s)).tokens, MASK) for s in range(20)])
    assert chi_square_z(torch.bincount(place, minlength=len(values)), values.exp()) < 4
