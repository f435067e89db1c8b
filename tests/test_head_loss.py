"""The head's loss at the rows that count equals the plain loss, in value and gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from unmask.masking import corruption, head_loss
from unmask.masking.head_loss import head_cross_entropy
from unmask.networks import Transformer
from unmask.recipes import Batch, sequences


@pytest.mark.parametrize("held", [30, 2**20])
def test_value_and_gradients_are_those_of_cross_entropy(monkeypatch, held):
    monkeypatch.setattr(head_loss, "SLICE", held)
    g = torch.Generator().manual_seed(0)
    made = [torch.randn(*s, generator=g, dtype=torch.float64) for s in ((13, 5), (7, 5), (7,))]
    parts = [p.requires_grad_() for p in made]
    symbols, weights = torch.randint(0, 7, (13,), generator=g), torch.rand(13, generator=g)
    ours = head_cross_entropy(*parts, symbols, weights)
    plain = (
        F.cross_entropy(F.linear(parts[0], parts[1], parts[2]), symbols, reduction="none") * weights
    ).sum()
    assert ours.item() == pytest.approx(plain.item(), rel=1e-6)
    for one, other in zip(torch.autograd.grad(3 * ours, parts), torch.autograd.grad(3 * plain, parts)):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.global_random
def test_the_sparse_loss_of_a_network_is_the_plain_one():
    torch.manual_seed(0)
    network = Transformer(vocab_size=11, length=6, width=8, depth=2, heads=2)
    torch.nn.init.normal_(network.head.weight)
    g = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 11, (4, 6), generator=g)
    drawn = corruption.exact_count(torch.ones_like(tokens, dtype=torch.bool), g)
    batch = Batch(tokens, drawn.masked, drawn.weight)
    values, slopes = [], []
    for loss in (sequences.loss, sequences.sparse_loss):
        network.zero_grad()
        value = loss(network, batch)
        value.backward()
        values.append(value.item())
        slopes.append([p.grad.clone() for p in network.parameters()])
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    for one, other in zip(*slopes):
        assert torch.allclose(one, other, atol=1e-5)
