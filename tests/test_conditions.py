"""Transformers that are told the time or a label, and causal ones: the chain rule in one call."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import every_sequence, seeded
from torch import nn

import unmask
from unmask import scores, selectors
from unmask.denoisers import caches as caching
from unmask.masking import corruption
from unmask.networks import Labelled, Transformer
from unmask.recipes import sequences
from unmask.recipes.run import Batch

pytestmark = [pytest.mark.global_random, pytest.mark.usefixtures("without_gradients")]
GRID = ((0, 0, 1, 1), (0, 1, 0, 1))
KINDS = {"learned": {}, "axes": {"axes": GRID}, "rotary": {"rotary": True}, "looped": {"loops": 2}}
every_kind = pytest.mark.parametrize("kind", KINDS)
ONE_BY_ONE = selectors.top_k(scores.left_to_right, 1)


@pytest.fixture
def without_gradients():
    with torch.no_grad():
        yield


def network(kind: str = "learned", **changes) -> Transformer:
    """Random weights, head included, over 3 symbols and 4 positions, float64."""
    sizes = {"vocab_size": 3, "length": 4, "width": 16, "depth": 2, "heads": 2} | KINDS[kind] | changes
    made = Transformer(**sizes).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4, generator=seeded(parameter.numel()))
    return made.eval()


def denoiser(kind: str = "learned", **changes) -> unmask.Denoiser:
    return unmask.from_logits(network(kind, **changes), mask_id=3, vocab_size=3)


def boards(count: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randint(4, (count, 4), generator=seeded(seed))


def close(ours, theirs, atol: float = 1e-9) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-7)


EVERY = every_sequence(denoiser(), 4)
TIME = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0])


# --- time and labels ------------------------------------------------------------------------------


@every_kind
def test_conditions_start_without_effect(kind):
    """At its start the network is the plain one of the same seed, head included."""
    told = {"timed": True, "classes": 7}
    nets = []
    for changes in ({}, told):
        torch.manual_seed(0)
        nets.append(Transformer(3, 4, 16, 2, 2, **KINDS[kind], **changes))
    plain, conditioned = nets
    missing = conditioned.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing
    assert all("change" in name or "condition" in name for name in missing)
    for net in nets:
        nn.init.normal_(net.head.weight, generator=seeded(1))
    label = torch.tensor([0, 3, 7, 1, 2])
    assert torch.equal(conditioned(boards(), time=TIME, label=label), plain(boards()))
    assert torch.equal(plain(boards(), time=TIME), plain(boards()))  # ignored where it is not read


@every_kind
def test_time_and_label_count_in_each_row_of_the_batch(kind):
    net, tokens = network(kind, timed=True, classes=3), boards()
    label = torch.tensor([0, 1, 2, 3, 0])
    everything = net(tokens, time=TIME, label=label)
    for i in range(5):
        close(net(tokens[i : i + 1], time=TIME[i : i + 1], label=label[i : i + 1]), everything[i : i + 1])
    assert (net(tokens, time=TIME.flip(0), label=label) - everything).abs().amax((1, 2))[
        [0, 1, 3, 4]
    ].min() > 1e-3
    assert (net(tokens, time=TIME, label=(label + 1) % 4) - everything).abs().amax((1, 2)).min() > 1e-3


def test_without_a_time_it_is_the_masked_share_and_without_a_label_none():
    net, tokens = network(timed=True, classes=3), boards()
    share = (tokens == 3).double().mean(1)
    close(net(tokens), net(tokens, time=share, label=torch.full((5,), 3)))
    values = unmask.log_likelihood(denoiser(timed=True), EVERY, selectors.top_k(scores.confidence, 2))
    assert float(values.exp().sum()) == pytest.approx(1, abs=1e-9)


@every_kind
def test_partial_passes_know_the_condition(kind):
    net, told = network(kind, timed=True, classes=3), {"time": TIME, "label": torch.tensor([0, 1, 2, 3, 0])}
    rows = torch.tensor([[3, 1, 0, 2]] * 5)
    logits, cache = net.full(boards(), **told)
    close(logits, net(boards(), **told))
    changed = boards(seed=1)
    close(net.partial(changed, rows, cache, **told), net(changed, rows, **told))
    close(net.readouts(changed, **told)[-1], net(changed, **told))
    close(net.head(net.states(changed, **told)), net(changed, **told))


def test_every_parameter_of_a_conditioned_network_learns():
    net = network(timed=True, classes=3)
    with torch.enable_grad():
        logits = net(boards(), time=TIME, label=torch.tensor([0, 1, 2, 3, 0]))
        logits.logsumexp(-1).square().mean().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_config_builds_conditioned_networks_again():
    for changes in ({"timed": True}, {"classes": 2}, {"causal": True}):
        net = network(**changes)
        again = Transformer(**json.loads(json.dumps(net.config))).double()
        again.load_state_dict(net.state_dict())
        assert torch.equal(again(boards()), net(boards()))
    with pytest.raises(ValueError, match="classes -1: expected"):
        network(classes=-1)


def test_one_label_for_all_makes_a_denoiser_that_can_guide():
    net = network(classes=2, timed=True)
    labelled = Labelled(net, 1)
    ours = unmask.from_logits(labelled, mask_id=3, vocab_size=3)
    label, none = torch.ones(5).long(), torch.full((5,), 2)
    close(ours(boards(), time=TIME), net(boards(), time=TIME, label=label).log_softmax(-1))
    model = unmask.guided(ours, unmask.from_logits(net, mask_id=3, vocab_size=3), 1.5)
    free = net(boards(), time=TIME, label=none).log_softmax(-1)
    wanted = (2.5 * ours(boards(), time=TIME) - 1.5 * free).log_softmax(-1)
    close(model(boards(), time=TIME), wanted)
    for substeps in (1, 2):
        values = unmask.log_likelihood(model, EVERY, selectors.top_k(scores.margin, 2), substeps=substeps)
        assert float(values.exp().sum()) == pytest.approx(1, abs=1e-9)
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match=f"label {wrong}: expected"):
            Labelled(net, wrong)
    with pytest.raises(ValueError, match="label 0: expected"):
        Labelled(network(), 0)


# --- causal ---------------------------------------------------------------------------------------


@every_kind
def test_logits_depend_on_earlier_tokens_only(kind):
    net, tokens = network(kind, causal=True), boards()
    logits = net(tokens)
    for j in range(4):
        changed = tokens.clone()
        changed[:, j] = (tokens[:, j] + 1) % 4
        moved = (net(changed) - logits).abs().amax((0, 2))
        assert (moved[: j + 1] == 0).all(), j
        assert (moved[j + 1 :] > 1e-4).all(), j


@every_kind
def test_one_call_is_the_chain_rule(kind):
    """Left to right, one at a time or with sub-steps from a cache, the law is the product of all factors."""
    model = denoiser(kind, causal=True)
    net = network(kind, causal=True)
    factors = net(EVERY).log_softmax(-1).gather(-1, EVERY[..., None])[..., 0]
    values = unmask.log_likelihood(model, EVERY, ONE_BY_ONE)
    close(values, factors.sum(1))
    assert float(values.exp().sum()) == pytest.approx(1, abs=1e-12)
    assert values.exp().std() > 1e-3
    at_once = selectors.top_k(scores.left_to_right, lambda count: (count,))
    close(unmask.log_likelihood(model, EVERY, at_once, substeps=4), values)
    blocks = selectors.in_blocks(ONE_BY_ONE, 2)
    close(unmask.log_likelihood(caching.blocks(model, 2), EVERY, blocks), values)
    first = net(torch.full((1, 4), 3))[0, 0].log_softmax(-1)  # nothing before it
    close(values.exp().view(3, 27).sum(1), first.exp())


def test_the_loss_of_a_causal_network_is_its_exact_code_length():
    model, tokens = denoiser(causal=True), boards().clamp(max=2)
    drawn = corruption.everything(torch.ones_like(tokens, dtype=torch.bool), seeded(0))
    loss = sequences.causal_loss(model.network, Batch(tokens, drawn.masked, drawn.weight))
    exact = -unmask.log_likelihood(model, tokens, ONE_BY_ONE).mean() / 4
    assert float(loss) == pytest.approx(float(exact), abs=1e-6)


@every_kind
def test_causal_partial_passes_over_all_later_rows_are_exact(kind):
    net, tokens = network(kind, causal=True), boards()
    _, cache = net.full(tokens)
    changed = tokens.clone()
    changed[:, 1] = (tokens[:, 1] + 1) % 4
    rows = torch.tensor([[3, 2]] * 5)
    close(net.partial(changed, rows, cache), net(changed, rows))


def test_other_orders_of_a_causal_network_are_laws_too():
    values = unmask.log_likelihood(denoiser(causal=True), EVERY, selectors.top_k(scores.confidence, 2))
    assert float(values.exp().sum()) == pytest.approx(1, abs=1e-9)


def test_a_causal_network_in_bfloat16_is_close():
    net, tokens = network(causal=True, timed=True).float(), boards()
    exact = net(tokens).log_softmax(-1)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(tokens).float().log_softmax(-1)
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()
