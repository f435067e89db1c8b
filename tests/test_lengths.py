"""Sequences whose lengths are given: what the network sees, how it is trained, profiled and planned."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import unmask
from unmask import Profile, plans, profiles
from unmask.masking import corruption, objectives
from unmask.networks import Transformer
from unmask.orders import presets
from unmask.profiles import resampled


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def network(**more):
    torch.manual_seed(3)
    net = Transformer(6, 12, 16, 2, 2, ends=True, **more)
    torch.nn.init.normal_(net.head.weight)
    return net.double()


def sequences(lengths):
    """Random symbols 0..4, the end 5 from each length on."""
    tokens = torch.randint(5, (len(lengths), 12), generator=seeded(1))
    return torch.where(torch.arange(12) < torch.tensor(lengths)[:, None], tokens, 5)


@pytest.mark.global_random
@pytest.mark.parametrize("rotary", [False, True])
def test_what_follows_the_end_is_not_seen(rotary):
    net, tokens = network(rotary=rotary), sequences([7, 3, 0, 6])
    hidden = torch.where((tokens < 5) & (torch.arange(12) % 2 == 0), net.mask_id, tokens)
    for cut in (8, 10):  # the longest item and its end fit
        torch.testing.assert_close(net(hidden[:, :cut])[:, :8], net(hidden)[:, :8], rtol=0, atol=1e-12)
    changed = hidden.clone()
    changed[:, 9:] = torch.where(hidden[:, 9:] == 5, 5, hidden[:, 9:])
    rows = torch.tensor([[0, 4], [2, 0], [0, 1], [4, 2]])
    logits, cache = net.full(hidden)
    torch.testing.assert_close(net(hidden, rows), logits.gather(1, rows[..., None].expand(-1, -1, 6)))
    everything = torch.arange(12).expand(4, 12)
    torch.testing.assert_close(net.partial(hidden, everything, cache), logits, rtol=0, atol=1e-12)


@pytest.mark.global_random
def test_the_end_matters_and_is_never_drawn():
    net, tokens = network(), sequences([7, 3])
    hidden = torch.where(tokens < 5, net.mask_id, tokens)
    longer = hidden.clone()
    longer[0, 7] = net.mask_id
    assert (net(hidden)[0, :7, :5] - net(longer)[0, :7, :5]).abs().max() > 1e-6
    assert bool((net(hidden)[..., 5] == -torch.inf).all())
    denoiser = unmask.from_logits(net, mask_id=6, vocab_size=6)
    for order in (presets.random(2), presets.confidence(1), presets.entropy(1), presets.moment(2)):
        found = unmask.sample(denoiser, hidden, order, generator=seeded(0))
        assert torch.equal(found.tokens == 5, tokens == 5)
        replayed = unmask.log_likelihood(
            denoiser, found.tokens, order, visible=tokens == 5, order_ids=torch.arange(2)
        )
        torch.testing.assert_close(found.log_prob, replayed)


def test_ends_and_causal_exclude_each_other():
    with pytest.raises(ValueError, match="ends with causal"):
        Transformer(6, 12, 16, 1, 2, ends=True, causal=True)


def test_left_to_right_masks_cost_what_reading_costs():
    """Over all starts, the weighted loss of `next_few` (1) is -log p; with more it is the mean over phases of the plan."""
    table = [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]]
    law = unmask.laws.Markov([0.5, 0.3, 0.2], table, 5)
    tokens = law.sample(1, generator=seeded(4))
    for few in (1, 2, 3):
        many = tokens.expand(5 + few - 1, -1)  # stratified starts: each occurs once
        found = corruption.next_few(torch.ones_like(many, dtype=torch.bool), seeded(0), few)
        losses = objectives.cross_entropies(law, many, found.masked)
        value = float((losses * found.weight).sum(1).mean())
        phases = []
        for first in range(1, few + 1):
            sizes = [min(first, 5)]
            while sum(sizes) < 5:
                sizes.append(min(few, 5 - sum(sizes)))
            order = presets.left_to_right(tuple(sizes))
            phases.append(-float(unmask.log_likelihood(law, tokens, order)))
        assert value == pytest.approx(np.mean(phases), abs=1e-12)
        assert bool((found.masked.long().diff(dim=1) >= 0).all())  # what is visible is a beginning


def test_halves_of_a_batch_are_masked_in_their_own_ways():
    maskable = torch.ones(10, 7, dtype=torch.bool)
    found = corruption.mixed(corruption.exact_count, corruption.next_few, 0.4)(maskable, seeded(0))
    first = corruption.exact_count(maskable[:4], seeded(0))
    assert torch.equal(found.masked[:4], first.masked)
    assert torch.equal(found.weight[:4], first.weight[:, None].expand(-1, 7))
    assert bool((found.masked[4:].long().diff(dim=1) >= 0).all())


def test_weights_by_position_enter_the_loss():
    logits = torch.randn(2, 3, 4, generator=seeded(0))
    tokens, masked = (
        torch.tensor([[0, 1, 2], [3, 0, 1]]),
        torch.tensor([[True, False, True], [True, True, False]]),
    )
    weight = torch.tensor([[1.0, 9.0, 0.5], [2.0, 0.0, 9.0]])
    each = -logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    expected = (each[0, 0] + 0.5 * each[0, 2] + 2 * each[1, 0]) / 6
    torch.testing.assert_close(objectives.masked_cross_entropy(logits, tokens, masked, weight), expected)
    impossible = logits.clone()
    impossible[0, 1, 1] = -torch.inf  # of a position that is not scored
    assert torch.isfinite(objectives.masked_cross_entropy(impossible, tokens, masked, weight))


def test_a_profile_of_many_lengths_is_one_over_shares():
    """For independent symbols it is flat at their entropy, whatever the lengths, and ends do not count."""
    law = Ended()
    tokens = sequences([12, 8, 5, 3, 11] * 40)
    found = profiles.measure(law, tokens, generator=seeded(0), end=5, rounds=2)
    assert found.entropies == pytest.approx(math.log(5))
    short = resampled(found, 4)
    assert short.length == 4
    assert short.entropies == pytest.approx(math.log(5))


def test_shares_that_were_not_observed_lie_between_their_neighbours():
    found = profiles.measure(Ended(), sequences([12] * 9), generator=seeded(0), end=5)
    assert (found.counts == 0).any()
    assert found.entropies == pytest.approx(math.log(5))
    with pytest.raises(ValueError, match="none at"):
        profiles.measure(Ended(), sequences([12]), generator=seeded(0), end=5)


class Ended:
    """Uniform on symbols 0..4, also where an end is."""

    mask_id, vocab_size = 6, 6

    def __call__(self, tokens, rows=None, *, time=None):
        shape = (*(tokens if rows is None else rows).shape, 6)
        log_probs = torch.full(shape, -math.log(5), dtype=torch.float64)
        log_probs[..., 5] = -torch.inf
        return log_probs


def test_resampled_profiles_keep_shares():
    profile = Profile(np.linspace(2, 0, 11)[:-1])
    assert resampled(profile, 10).entropies == pytest.approx(profile.entropies)
    assert resampled(profile, 5).entropies == pytest.approx(profile.entropies[::2])
    with pytest.raises(ValueError, match="length 0: expected a whole number"):
        resampled(profile, 0)


@pytest.mark.parametrize("length", [1, 2, 5, 58, 100])
def test_rescaled_plans_fit(length):
    plan = plans.cosine(58, 9)
    scaled = plans.rescaled(plan, length)
    assert plans.check(scaled, length) == scaled
    assert len(scaled) == min(9, length)
    assert plans.rescaled(plan, 58) == plan
