"""Denoisers: the contract of `from_logits`, and wrappers that change the law and nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import SMALL_LAWS, Recording, every_sequence, hidden, place_of, seeded
from torch import nn

import unmask
from unmask import denoisers, laws, scores, selectors

LAW = laws.Markov([0.2, 0.5, 0.3], [[0.7, 0.2, 0.1], [0.0, 0.4, 0.6], [0.3, 0.3, 0.4]], 4)
STATES = torch.tensor([[3, 3, 3, 3], [0, 3, 3, 2], [1, 0, 3, 3]])  # the last one is a null history


def probabilities(denoiser):
    return denoiser(STATES).exp()


# Networks.


def logits_of(tokens, rows=None):
    """Five logits, of which the fourth belongs to the mask and the last to nothing."""
    table = torch.linspace(-2, 3, 25, dtype=torch.float32).view(5, 5).sin()
    values = table[tokens].clone()
    return values if rows is None else denoisers.take_rows(values, rows)


def test_logits_become_log_probabilities_of_the_data_symbols():
    denoiser = unmask.from_logits(logits_of, mask_id=3, vocab_size=3)
    tokens, rows = STATES, torch.tensor([[1, 0], [2, 1], [3, 3]])
    wanted = logits_of(tokens)[..., :3].log_softmax(-1)
    assert denoiser(tokens) == pytest.approx(wanted, abs=1e-6)
    assert denoiser(tokens, rows) == pytest.approx(denoisers.take_rows(wanted, rows), abs=1e-6)
    assert denoiser(tokens).exp().sum(-1) == pytest.approx(torch.ones(3, 4), abs=1e-6)


def test_a_mask_among_the_symbols_gets_no_probability():
    denoiser = unmask.from_logits(logits_of, mask_id=3, vocab_size=5)
    log_probs = denoiser(STATES)
    assert (log_probs[..., 3] == -torch.inf).all()
    assert log_probs.exp().sum(-1) == pytest.approx(torch.ones(3, 4), abs=1e-6)


def test_networks_without_rows_are_gathered():
    everywhere = unmask.from_logits(lambda tokens: logits_of(tokens), mask_id=3, vocab_size=3)
    chosen = unmask.from_logits(logits_of, mask_id=3, vocab_size=3)
    rows = torch.tensor([[1], [2], [0]])
    assert torch.equal(everywhere(STATES, rows), chosen(STATES, rows))


def test_time_reaches_only_the_networks_that_ask_for_it():
    seen = []

    def timed(tokens, rows=None, time=None):
        seen.append(time)
        return logits_of(tokens, rows)

    time = torch.tensor([0.5, 0.5, 0.5])
    unmask.from_logits(timed, 3, 3)(STATES, time=time)
    unmask.from_logits(timed, 3, 3)(STATES)
    assert seen == [time, None]
    assert unmask.from_logits(logits_of, 3, 3)(STATES, time=time).shape == (3, 4, 3)


def test_the_logits_of_the_network_are_left_alone():
    kept = torch.randn(3, 4, 5, generator=seeded(0))
    before = kept.clone()
    denoiser = unmask.from_logits(lambda tokens: kept, mask_id=3, vocab_size=5)
    first = denoiser(STATES)
    assert torch.equal(kept, before)
    assert torch.equal(first, denoiser(STATES))
    with torch.inference_mode():
        denoiser(STATES)
    assert torch.equal(kept, before)


def test_low_precision_is_normalised_in_float32():
    denoiser = unmask.from_logits(lambda tokens: logits_of(tokens).bfloat16(), mask_id=3, vocab_size=3)
    log_probs = denoiser(STATES)
    assert log_probs.dtype == torch.float32
    assert log_probs.exp().sum(-1) == pytest.approx(torch.ones(3, 4), abs=1e-6)


def test_normalisation_in_slices_is_log_softmax():
    logits = 9 * torch.randn(7, 3, 400_000, generator=seeded(0))
    assert (denoisers.log_normalise_(logits.clone()) - logits.log_softmax(-1)).abs().max() < 1e-5
    turned = logits[..., :90].transpose(0, 1)
    assert denoisers.log_normalise_(turned.clone()) == pytest.approx(turned.log_softmax(-1), abs=1e-5)


@pytest.mark.global_random
def test_modules_run_in_evaluation_mode():
    network = nn.Sequential(nn.Embedding(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    denoiser = unmask.from_logits(network, mask_id=3, vocab_size=3)
    assert torch.equal(denoiser(STATES), denoiser(STATES))
    assert network.training
    assert not denoiser(STATES).requires_grad


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: unmask.from_logits(logits_of, -1, 3), r"mask_id -1: expected a whole number of at least 0"),
        (lambda: unmask.from_logits(logits_of, 3, 9)(STATES), r"gave 5 logits; expected vocab_size 9"),
        (
            lambda: unmask.from_logits(logits_of, 3, 3).full(STATES),
            r"no `full` and `partial`; use substeps=1",
        ),
        (
            lambda: unmask.from_logits(lambda t: logits_of(t) / 0, 3, 3)(STATES),
            r"NaN or infinite logits; expected finite",
        ),
    ],
)
def test_bad_networks_are_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Wrappers.


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7, 50.0])
def test_temperature_is_an_exponent(temperature):
    powered = probabilities(LAW) ** (1 / temperature)
    wanted = powered / powered.sum(-1, keepdim=True)
    assert probabilities(unmask.tempered(LAW, temperature)) == pytest.approx(wanted, abs=1e-12)


def test_temperature_one_and_p_one_change_nothing():
    assert unmask.tempered(LAW, 1.0) is LAW
    assert unmask.nucleus(LAW, 1.0) is LAW


def fixed(*probs):
    """A denoiser that always gives these probabilities."""
    law = torch.tensor(probs, dtype=torch.float64).log()
    return unmask.from_logits(lambda tokens: law.expand(*tokens.shape, -1), len(probs), len(probs))


@pytest.mark.parametrize(
    ("p", "kept"),
    [
        (0.05, {1}),
        (0.44, {1}),
        (0.46, {1, 3}),
        (0.69, {1, 3}),
        (0.75, {1, 3, 0}),
        (0.86, {1, 3, 0, 2}),  # 0 and 2 are equally probable: the lower id first
        (0.999, {0, 1, 2, 3, 4}),
    ],
)
def test_the_nucleus_keeps_the_symbol_that_crosses_p(p, kept):
    probs = torch.tensor([0.1, 0.45, 0.1, 0.25, 0.1], dtype=torch.float64)
    got = unmask.nucleus(fixed(*probs.tolist()), p)(torch.zeros(1, 1).long()).exp()[0, 0]
    assert set(got.nonzero()[:, 0].tolist()) == kept
    members = sorted(kept)
    assert got[members] == pytest.approx(probs[members] / probs[members].sum(), abs=1e-12)


@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0, -1.0])
def test_guidance_moves_away_from_the_other(scale):
    other = unmask.tempered(LAW, 2.0)
    ours, theirs = probabilities(LAW), probabilities(other)
    weights = torch.where(ours > 0, ours ** (1 + scale) * theirs.clamp(min=1e-300) ** -scale, 0.0)
    wanted = weights / weights.sum(-1, keepdim=True)
    assert probabilities(unmask.guided(LAW, other, scale)) == pytest.approx(wanted, abs=1e-12)


def test_guidance_by_a_denoiser_that_excludes_a_symbol_leaves_it_as_it_was():
    """The base says what is possible: weights .5, .3^2/.6 and .2^2/.4."""
    ours, theirs = fixed(0.5, 0.3, 0.2, 0.0), fixed(0.0, 0.6, 0.4, 0.0)
    got = unmask.guided(ours, theirs, 1.0)(torch.zeros(1, 1).long()).exp()[0, 0]
    assert got.tolist() == pytest.approx([2 / 3, 1 / 5, 2 / 15, 0])


WRAPPERS = {
    "tempered": lambda d: unmask.tempered(d, 0.5),
    "nucleus": lambda d: unmask.nucleus(d, 0.7),
    "guided": lambda d: unmask.guided(d, unmask.tempered(LAW, 2.0), 0.5),
    "biased": lambda d: unmask.biased(d, torch.arange(12.0).view(4, 3).sin()),
    "forbidding": lambda d: unmask.forbidding(d, torch.arange(12).view(4, 3) % 4 == 1),
    "both": lambda d: unmask.nucleus(
        unmask.tempered(unmask.guided(d, unmask.tempered(LAW, 2.0), 0.5), 1.4), 0.8
    ),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_forward_rows_time_full_and_partial(name):
    base = Recording(LAW)
    wrapped, rows, time = WRAPPERS[name](base), torch.tensor([[1], [2], [3]]), torch.tensor([0.1, 0.2, 0.3])
    everywhere = wrapped(STATES)
    chosen = wrapped(STATES, rows, time=time)
    assert (wrapped.mask_id, wrapped.vocab_size) == (3, 3)
    assert torch.equal(chosen, denoisers.take_rows(everywhere, rows))
    full, cache = wrapped.full(STATES, rows, time=time)
    assert torch.equal(full, chosen)
    assert torch.equal(wrapped.partial(STATES, rows, cache, time=time), chosen)
    assert [call[0] for call in base.calls] == ["call", "call", "full", "partial"]
    assert all(torch.equal(call[3], time) for call in base.calls[1:])
    assert everywhere.exp().sum(-1) == pytest.approx(torch.ones(3, 4), abs=1e-12)


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_leave_visible_symbols_and_impossible_ones(name):
    before, after = LAW(STATES), WRAPPERS[name](LAW)(STATES)
    assert not torch.isnan(after).any()
    assert (after[before == -torch.inf] == -torch.inf).all()
    visible = STATES != 3
    assert (after[visible].amax(-1) == 0).all()
    assert torch.equal(after[visible].argmax(-1), STATES[visible])


def test_orders_may_read_the_law_before_tempering():
    seen = {}

    def watch(view):
        seen["base"], seen["law"] = view.base_log_probs, view.log_probs
        return selectors.top_k(scores.on_base(scores.confidence), 1)(view)

    start = hidden(1, LAW)
    denoiser = unmask.nucleus(unmask.tempered(LAW, 0.5), 0.9)
    first = unmask.sample(denoiser, start, watch, generator=seeded(0)).trace[0]
    assert first.rows.item() == LAW(start).exp().amax(-1).argmax()
    assert seen["base"].shape == seen["law"].shape
    flat = unmask.nucleus(LAW, 0.6)  # now several positions are certain, and only the base tells them apart
    base, law = (selectors.top_k(s, 1) for s in (scores.on_base(scores.margin), scores.margin))
    orders = [unmask.sample(flat, start, s, generator=seeded(0)).trace[0].rows.item() for s in (base, law)]
    best = LAW(start).exp()[0].topk(2).values
    assert orders[0] == (best[:, 0] - best[:, 1]).argmax()
    best = flat(start).exp()[0].topk(2).values
    assert orders[1] == (best[:, 0] - best[:, 1]).argmax()


def test_one_at_a_time_from_left_to_right_a_tempered_law_is_the_product_of_tempered_conditionals():
    law = SMALL_LAWS["table"]()
    tokens = every_sequence(law, 4)
    joint = law.log_prob(tokens).exp().view(3, 3, 3, 3)
    product = torch.ones(81, dtype=torch.float64)
    for n in range(4):
        seen = joint.sum(tuple(range(n + 1, 4))) if n < 3 else joint
        powered = (seen / seen.sum(-1, keepdim=True)).nan_to_num(1 / 3) ** 2
        conditional = powered / powered.sum(-1, keepdim=True)
        product = product * conditional.flatten()[place_of(tokens[:, : n + 1], 3)]
    values = unmask.log_likelihood(
        unmask.tempered(law, 0.5), tokens, selectors.top_k(scores.left_to_right, 1)
    )
    assert values.exp() == pytest.approx(product, abs=1e-12)
    assert math.isclose(float(product.sum()), 1)
