"""Gradients of likelihood and bound: those of an exact law with parameters, by finite differences and in closed form."""

from __future__ import annotations

import pytest
import torch
from helpers import every_sequence, seeded
from torch import nn

import unmask
from unmask import denoisers
from unmask.denoisers import caches, gradients
from unmask.masking.enumeration import bound_by_subsets
from unmask.orders import presets, rules

EVERYTHING = every_sequence(unmask.laws.Parity(3, 3), 3)  # 27 sequences of three symbols
SOME = EVERYTHING[[0, 5, 13, 22]]
MASK = 3


class Joint(nn.Module):
    """The exact conditionals of softmax(theta), a law on 27 sequences: logits float64 [B, 3, 3]."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.randn(27, dtype=torch.float64, generator=seeded(0)))
        self.dropout = nn.Dropout(0.5)
        self.calls = 0

    def forward(self, tokens):
        self.calls += 1
        fits = ((tokens[:, None] == EVERYTHING) | (tokens[:, None] == MASK)).all(-1)  # [B, 27]
        seen = torch.nn.functional.one_hot(EVERYTHING, 3).bool()
        joint = torch.where(fits, self.dropout(self.theta), -torch.inf)[:, None, None]
        return torch.where(seen.permute(1, 2, 0), joint, -torch.inf).logsumexp(-1).clamp(min=-300)


class Small(nn.Module):
    """A network that takes rows and time of its own, of no special law."""

    timed = False

    def __init__(self, size=3):
        super().__init__()
        generator = seeded(1)
        self.inside = nn.Parameter(torch.randn(4, 3, 2, dtype=torch.float64, generator=generator))
        self.out = nn.Parameter(torch.randn(2, size, dtype=torch.float64, generator=generator))

    def forward(self, tokens, rows=None):
        hidden = torch.stack([self.inside[tokens[:, n], n] for n in range(3)], 1)
        hidden = torch.tanh(hidden + hidden.cumsum(1).flip(1).roll(1, 1))
        logits = hidden @ self.out
        return logits if rows is None else denoisers.take_rows(logits, rows)


def joint():
    network = Joint()
    return network, unmask.from_logits(network, MASK, 3)


def differences(network, value, step=1e-6):
    """The gradient of ``value()`` in all parameters, by central differences."""
    found = []
    for parameter in network.parameters():
        grad = torch.zeros_like(parameter)
        flat, out = parameter.data.view(-1), grad.view(-1)
        for n in range(len(flat)):
            kept = float(flat[n])
            ends = []
            for sign in (1, -1):
                flat[n] = kept + sign * step
                ends.append(float(value()))
            flat[n] = kept
            out[n] = (ends[0] - ends[1]) / (2 * step)
        found.append(grad)
    return torch.cat([g.flatten() for g in found])


def gradient(network, value):
    network.zero_grad()
    value.backward()
    return torch.cat([p.grad.flatten() for p in network.parameters()])


ORDERS = [presets.left_to_right(), presets.random(), presets.margin(), presets.moment()]


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("selector", ORDERS, ids=lambda s: s.name)
def test_the_likelihood_of_an_exact_law_has_the_gradient_of_the_softmax(selector, recompute):
    network, denoiser = joint()
    found = unmask.log_likelihood(denoiser, SOME, selector, differentiable=True, recompute=recompute)
    assert torch.allclose(found.detach(), network.theta.log_softmax(0)[[0, 5, 13, 22]].detach())
    weight = torch.tensor([1.0, -2.0, 0.5, 3.0]).double()
    wanted = torch.zeros(27, dtype=torch.float64)
    wanted[[0, 5, 13, 22]] = weight
    wanted -= weight.sum() * network.theta.detach().softmax(0)
    assert gradient(network, (weight * found).sum()) == pytest.approx(wanted, abs=1e-12)


WRAPPERS = {
    "none": lambda d: d,
    "tempered": lambda d: unmask.tempered(d, 0.6),
    "nucleus": lambda d: unmask.nucleus(d, 0.95),
    "biased": lambda d: unmask.biased(d, torch.arange(9.0).view(3, 3).sin()),
    "forbidding": lambda d: unmask.forbidding(d, torch.eye(3).bool().roll(1, 0)),
    "guided": lambda d: unmask.guided(d, unmask.from_logits(Small(), MASK, 3), 0.7),
    "all": lambda d: unmask.nucleus(
        unmask.tempered(
            unmask.forbidding(
                unmask.guided(d, unmask.tempered(d, 2.0), 0.5),
                [[False] * 3, [True, False, False], [False] * 3],
            ),
            0.8,
        ),
        0.97,
    ),
}
TOLD = [
    presets.left_to_right(2),
    presets.confidence(),
    rules.sharpened(presets.margin(), 1.5),
    presets.race(2),
]


CASES = (
    [("none", s) for s in TOLD] + [("all", s) for s in TOLD[::3]] + [(n, TOLD[2]) for n in list(WRAPPERS)[1:]]
)


@pytest.mark.parametrize(("name", "selector"), CASES, ids=lambda x: getattr(x, "name", x))
def test_gradients_through_wrappers_and_tilts_are_those_of_finite_differences(name, selector):
    network = Small()
    denoiser = WRAPPERS[name](unmask.from_logits(network, MASK, 3))
    weight = torch.linspace(-2, 1, 27).double()

    def value(**how):
        found = unmask.log_likelihood(denoiser, EVERYTHING, selector, **how)
        return (weight * found).where(found > -torch.inf, 0.0).sum()

    found = gradient(network, value(differentiable=True))
    assert found.abs().max() > 1e-3
    assert found == pytest.approx(differences(network, value), abs=2e-7)
    assert torch.equal(found, gradient(network, value(differentiable=True, recompute=True)))


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
def test_the_gradient_of_the_bound_is_that_of_finite_differences(recompute):
    network, denoiser = joint()
    visible = torch.tensor([[False, True, False]] * 4)

    def value(**how):
        found = unmask.nelbo(denoiser, SOME, generator=seeded(4), samples=3, visible=visible, **how)
        return found.value.sum()

    found = gradient(network, value(differentiable=True, recompute=recompute))
    assert found == pytest.approx(differences(network, value), abs=1e-8)


def test_the_mean_gradient_of_the_bound_is_the_gradient_of_the_bound():
    """One sample at a time, gradients added up: 600 draws against all masks."""
    network, denoiser = joint()
    generator, total = seeded(0), torch.zeros(27, dtype=torch.float64)
    squares = torch.zeros(27, dtype=torch.float64)
    for _ in range(30):
        tokens = SOME[:1].expand(20, -1)
        one = gradient(
            network,
            unmask.nelbo(denoiser, tokens, generator=generator, samples=1, differentiable=True).value.mean(),
        )
        total, squares = total + one, squares + one**2
    mean = total / 30
    spread = ((squares / 30 - mean**2) / 29).clamp(min=1e-12).sqrt()
    wanted = differences(network, lambda: bound_by_subsets(denoiser, SOME[:1])[0])
    assert ((mean - wanted) / spread).abs().max() < 4.5


def test_without_there_are_none():
    denoiser = joint()[1]
    assert not unmask.log_likelihood(denoiser, SOME, ORDERS[0]).requires_grad
    assert not unmask.nelbo(denoiser, SOME, generator=seeded(0)).value.requires_grad

    inside = Small()

    class Own:
        mask_id = vocab_size = 3

        def __call__(self, tokens, rows=None, *, time=None):
            law = inside(tokens).log_softmax(-1)
            return law if rows is None else denoisers.take_rows(law, rows)

    assert not unmask.log_likelihood(Own(), SOME, ORDERS[0]).requires_grad
    assert unmask.log_likelihood(Own(), SOME, ORDERS[0], differentiable=True).requires_grad


def test_values_are_the_same_with_and_without():
    denoiser = WRAPPERS["all"](unmask.from_logits(Small(), MASK, 3))
    for selector in TOLD:
        plain, recorded = (
            unmask.log_likelihood(denoiser, EVERYTHING, selector, differentiable=d) for d in (False, True)
        )
        assert torch.allclose(plain, recorded, rtol=0, atol=1e-12)


def test_networks_stay_in_evaluation_mode_and_in_their_own_afterwards():
    """Dropout of a half would change every value; the backward pass of what is recomputed has none either."""
    network, denoiser = joint()
    network.train()
    before = torch.get_rng_state()
    found = unmask.log_likelihood(denoiser, SOME, ORDERS[0], differentiable=True, recompute=True)
    assert network.training
    gradient(network, found.sum())
    assert network.training
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_recomputed_holds_no_activations():
    kept = []
    for recompute in (False, True):
        network, denoiser = joint()
        held = set()

        def noted(tensor, held=held):
            held.add(tensor.data_ptr())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(noted, lambda tensor: tensor):
            found = unmask.log_likelihood(
                denoiser, EVERYTHING, ORDERS[0], differentiable=True, recompute=recompute
            )
        before = network.calls
        found.sum().backward()
        kept.append((len(held), network.calls - before))
    assert kept[0][1] == 0
    assert kept[1][1] == 3  # one more pass for each call
    assert kept[1][0] < kept[0][0]


def test_the_mask_among_the_symbols_has_no_part_in_it():
    network = Small(size=4)
    denoiser = unmask.from_logits(network, MASK, 4)
    selector = presets.margin()
    found = gradient(network, unmask.log_likelihood(denoiser, SOME, selector, differentiable=True).sum())
    assert found.isfinite().all()
    wanted = differences(network, lambda: unmask.log_likelihood(denoiser, SOME, selector).sum())
    assert found == pytest.approx(wanted, abs=1e-7)


@pytest.mark.global_random
def test_a_transformer_learns_by_its_likelihood():
    torch.manual_seed(0)
    network = unmask.networks.Transformer(vocab_size=3, length=3, width=8, depth=1, heads=2, rotary=True)
    denoiser = unmask.from_logits(network, MASK, 3)
    optimiser = torch.optim.Adam(network.parameters(), 0.03)
    values = []
    for _ in range(60):
        loss = -unmask.log_likelihood(denoiser, SOME, presets.random(), differentiable=True).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert values[-1] < 1.8 < 2.5 < values[0]  # ln 4 = 1.386 is the least


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda d: unmask.log_likelihood(d, SOME, ORDERS[0], differentiable=True, substeps=2),
            "substeps 2: expected 1",
        ),
        (lambda d: unmask.log_likelihood(d, SOME, ORDERS[0], recompute=True), "expected both"),
        (
            lambda d: gradients.differentiable(caches.blocks(d, 1)),
            "expected a denoiser without caches.blocks",
        ),
        (lambda d: gradients.differentiable(d).full(SOME), "gradients do not pass through caches"),
    ],
)
def test_what_has_no_gradients_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message):
        call(joint()[1])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_where_torch_records_none_it_says_so(mode):
    with mode(), pytest.raises(ValueError, match="torch records no gradients here; expected a call outside"):
        unmask.log_likelihood(joint()[1], SOME, ORDERS[0], differentiable=True)


def test_logits_that_are_nan_are_named_as_ever():
    denoiser = unmask.from_logits(lambda tokens: Small()(tokens) / 0, MASK, 3)
    with pytest.raises(ValueError, match="NaN or infinite logits; expected finite"):
        unmask.log_likelihood(denoiser, SOME, ORDERS[0], differentiable=True)
