"""Consistency: a law says the same along every order; of a network, shares add up and mixing gains what Jensen says."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import seeded

import unmask
from unmask import laws
from unmask.evaluation.consistency import consistency
from unmask.networks import Transformer

F64 = torch.float64


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Transformer(3, 5, 16, 1, 2).double().eval()
        for weight in net.parameters():
            weight.data += 0.3 * torch.randn_like(weight)
    return unmask.from_logits(net, 3, 3)


def test_a_law_says_the_same_along_every_order():
    law = laws.Markov(
        torch.tensor([0.7, 0.3], dtype=F64), torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=F64), 7
    )
    tokens = law.sample(5, seeded(0))
    found = consistency(law, tokens, orders=6)
    assert found.spread.max() < 1e-12
    assert found.mixing.abs().max() < 1e-12
    assert torch.allclose(found.log_probs, law.log_prob(tokens)[:, None].expand(-1, 6))
    assert not found.by_visible.any()
    assert not found.by_position.any()


def test_several_at_once_are_a_spread_that_the_plan_makes():
    law = laws.CurieWeiss(6, 1.5)
    found = consistency(law, law.sample(4, seeded(0)), orders=4, plan=(3, 3))
    assert found.log_probs.shape == (4, 4)
    nothing = found.by_visible[[1, 2, 4, 5]]
    assert not nothing.any()


def test_values_are_likelihoods_and_shares_add_up():
    denoiser, tokens = network(), torch.randint(0, 3, (4, 5), generator=seeded(1))
    found = consistency(denoiser, tokens, orders=12)
    for k in (0, 5, 11):
        ids = torch.full((4,), k)
        wanted = unmask.log_likelihood(denoiser, tokens, unmask.orders.presets.random(), order_ids=ids)
        assert torch.allclose(found.log_probs[:, k], wanted, atol=1e-9)
    assert found.spread.min() > 1e-3
    for shares in (found.by_visible, found.by_position):
        assert shares.sum().item() == pytest.approx(1)
    assert found.by_visible[0].abs() < 1  # what is visible first is nothing, whatever the order


def test_mixing_is_the_mean_of_probabilities():
    denoiser, tokens = network(), torch.randint(0, 3, (3, 5), generator=seeded(2))
    found = consistency(denoiser, tokens, orders=7)
    mean = found.log_probs.exp().mean(1).log()
    assert torch.allclose(found.mixing, mean - found.log_probs.mean(1))
    assert (found.mixing > 0).all()
    assert (found.mixing < math.log(7)).all()


def test_a_prompt_is_not_scored_and_batches_change_nothing():
    denoiser, tokens = network(), torch.randint(0, 3, (3, 5), generator=seeded(3))
    visible = torch.tensor([[True, False, False, True, False]]).expand(3, -1)
    whole, parts = (consistency(denoiser, tokens, orders=6, visible=visible, batch_size=b) for b in (64, 4))
    assert torch.allclose(whole.log_probs, parts.log_probs)
    assert not whole.by_position[[0, 3]].any()
    with pytest.raises(ValueError, match="orders"):
        consistency(denoiser, tokens, orders=1)
