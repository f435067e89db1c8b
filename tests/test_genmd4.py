"""GenMD4: reference values, gradients of the learnt schedule, the reverse process and its law."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from helpers import Toy, chi_square_z, every_sequence, hidden, place_of, seeded
from tiny import LAW, often, tiny
from torch import Tensor, nn

import unmask
from unmask import laws, selectors
from unmask.masking import schedules
from unmask.models import loading as models
from unmask.networks import Transformer
from unmask.recipes import baselines
from unmask.training.loop import train
from unmask.training.state import adamw
from unmask.variants import genmd4
from unmask.variants.genmd4 import GenMD4Network

TOY, DATA = Toy(), torch.tensor([[0, 2, 1]])
POWERS = torch.tensor([0.6, 1.0, 1.9], dtype=torch.float64)
GRADIENT = torch.tensor([-3.525920, -0.380965, 1.313956], dtype=torch.float64)
NAIVE = torch.tensor([3.530799, 1.123695, 1.611152], dtype=torch.float64)
EVERY = every_sequence(TOY, 3)
TABLE = laws.Table(torch.randn(27, dtype=torch.float64, generator=seeded(3)).mul(1.5).log_softmax(0), 3)
WHERE = {"eps": 0.05, "first": 0.2}
"""Cut-offs large enough to be seen."""


@dataclass
class Optimal:
    """The exact law of masked symbols at each time: being masked at time t counts as t^w."""

    law: laws.Table
    powers: Tensor
    tables: dict[float, laws.Table] = field(default_factory=dict)

    @property
    def mask_id(self) -> int:
        return self.law.mask_id

    @property
    def vocab_size(self) -> int:
        return self.law.vocab_size

    def at(self, time: float) -> laws.Table:
        if time not in self.tables:
            sequences = every_sequence(self.law, self.law.length)
            weights = self.law.log_prob(sequences) + math.log(time) * self.powers[sequences].sum(1)
            self.tables[time] = laws.Table(weights.log_softmax(0), self.law.length)
        return self.tables[time]

    def __call__(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        shape = tokens.shape if rows is None else rows.shape
        found = torch.empty(*shape, self.vocab_size, dtype=torch.float64)
        for t in time.unique().tolist():
            same = time == t
            found[same] = self.at(t)(tokens[same], None if rows is None else rows[same])
        return found


def entropy(law) -> float:
    return float(torch.special.entr(law.log_prob(every_sequence(law, law.length)).exp()).sum())


# Reference values, computed elsewhere by enumeration.


def test_the_bound_and_what_it_does_not_depend_on():
    values = [
        float(genmd4.exact_bound(TOY, DATA, w))
        for w in (POWERS, 2.7 * POWERS, torch.ones(3), 3 * torch.ones(3))
    ]
    assert values[:2] == pytest.approx([6.3033628490] * 2, abs=1e-9)
    assert values[2:] == pytest.approx([5.3363286331] * 2, abs=1e-9)
    assert values[2] == pytest.approx(float(unmask.masking.enumeration.bound_by_subsets(TOY, DATA)), abs=1e-9)


def test_the_gradient_of_the_bound():
    powers = POWERS.clone().requires_grad_()
    (exact,) = torch.autograd.grad(genmd4.exact_bound(TOY, DATA, powers).sum(), powers)
    assert exact == pytest.approx(GRADIENT, abs=2e-6)
    assert abs(float(POWERS @ exact)) < 1e-7
    for v in range(3):
        step = 1e-4 * torch.eye(3, dtype=torch.float64)[v]
        up, down = (float(genmd4.exact_bound(TOY, DATA, POWERS + s)) for s in (step, -step))
        assert (up - down) / 2e-4 == pytest.approx(float(exact[v]), abs=1e-6)


def _all_pairs(powers: Tensor, nodes: int = 600) -> tuple[Tensor, Tensor, Tensor]:
    """Losses and log-probabilities of all pairs of masks at all nodes of time, and the weight of each pair."""
    points, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(nodes))
    roots = (points + 1) / 2
    masks = torch.tensor(list(itertools.product([False, True], repeat=3)))
    time = (roots**4).repeat_interleave(8)
    mask, tokens = masks.repeat(nodes, 1), DATA.expand(8 * nodes, -1)
    log_probs = TOY(tokens.masked_fill(mask, 3))
    each = genmd4.losses(log_probs, tokens, mask, powers, time).view(nodes, 8)
    log_q = genmd4.log_mask_probability(mask, genmd4.hidden_probability(tokens, powers, time, eps=0.0)).view(
        nodes, 8
    )
    first, second = (i.flatten() for i in torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij"))
    pairs = [torch.stack([x[:, first], x[:, second]], -1).view(-1, 2) for x in (each, log_q)]
    chance = (weights / 2 * 4 * roots**3)[:, None] * (log_q[:, first] + log_q[:, second]).exp()
    return pairs[0], pairs[1], chance.detach().flatten()


def test_two_masks_have_the_right_gradient_on_average_and_plain_autograd_has_not():
    powers = POWERS.clone().requires_grad_()
    losses, log_q, chance = _all_pairs(powers)
    value = chance @ genmd4.surrogate(losses, log_q)
    assert value.item() == pytest.approx(6.3033628490, abs=1e-8)
    (found,) = torch.autograd.grad(value, powers, retain_graph=True)
    assert found == pytest.approx(GRADIENT, abs=2e-6)
    (naive,) = torch.autograd.grad(chance @ losses.mean(1), powers)
    assert naive == pytest.approx(NAIVE, abs=2e-6)
    assert float(POWERS @ naive) == pytest.approx(6.3033628490, abs=1e-8)  # it pushes all powers to 0
    assert abs(float(POWERS @ found)) < 1e-7


def test_two_masks_leave_the_gradient_of_the_network_alone():
    losses = torch.randn(5, 2, generator=seeded(0), requires_grad=True)
    log_q = torch.randn(5, 2, generator=seeded(1))
    (slope,) = torch.autograd.grad(genmd4.surrogate(losses, log_q).sum(), losses)
    assert torch.equal(slope, torch.full((5, 2), 0.5))
    assert torch.equal(genmd4.surrogate(losses, log_q), losses.mean(1))


# The bound as training and evaluation estimate it.


class ToyNetwork(nn.Module):
    """The toy with learnt powers; it does read the time."""

    mask_id = 3

    def __init__(self) -> None:
        super().__init__()
        self.powers = nn.Parameter(POWERS.clone())

    def forward(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        return TOY(tokens, rows) * (0.5 + time[:, None, None])


@dataclass
class TimedToy(Toy):
    def __call__(self, tokens: Tensor, rows: Tensor | None = None, *, time: Tensor | None = None) -> Tensor:
        return (TOY(tokens, rows) * (0.5 + time[:, None, None])).log_softmax(-1)


def test_training_estimates_the_bound_and_its_gradient():
    network, rows, batches, generator = ToyNetwork(), 4000, 12, seeded(2)
    draws = []
    for _ in range(batches):
        time = genmd4.draw_times(rows, generator, WHERE["first"])
        noise = torch.rand(rows, 2, 3, dtype=torch.float64, generator=generator)
        value = genmd4.training_loss(network, DATA.expand(rows, -1), time, noise, **WHERE).mean()
        draws.append(torch.cat([value.detach()[None], torch.autograd.grad(value, network.powers)[0]]))
    powers = POWERS.clone().requires_grad_()
    exact = genmd4.exact_bound(TimedToy(), DATA, powers, **WHERE)
    wanted = torch.cat([exact.detach(), torch.autograd.grad(exact.sum(), powers)[0]])
    found, error = torch.stack(draws).mean(0), torch.stack(draws).std(0) / math.sqrt(batches)
    assert ((found - wanted).abs() < 4 * error).all(), (found, wanted, error)
    assert (error < 0.05 * (1 + wanted.abs())).all()


def test_the_estimator_is_unbiased_and_knows_its_error():
    tokens = DATA.expand(4000, -1)
    found = genmd4.nelbo(TimedToy(), tokens, POWERS, generator=seeded(0), samples=8, **WHERE)
    spread = float(found.value.std())
    exact = float(genmd4.exact_bound(TimedToy(), DATA, POWERS, **WHERE))
    assert abs(float(found.value.mean()) - exact) < 4 * spread / math.sqrt(4000)
    typical = float(found.stderr.square().mean().sqrt())
    assert 0.3 * typical < spread < 1.1 * typical
    single = genmd4.nelbo(TimedToy(), DATA, POWERS, generator=seeded(0), samples=1)
    assert single.stderr.isnan().all()
    assert single.value.isfinite().all()


def test_the_error_of_two_samples_is_half_their_difference(monkeypatch):
    """The standard error divides by n - 1: of two values, half the distance."""
    values = iter([torch.tensor([3.0, 1.0]).double(), torch.tensor([1.0, 1.0]).double()])
    monkeypatch.setattr(genmd4, "losses", lambda *_: next(values))
    found = genmd4.nelbo(
        TimedToy(), DATA.expand(2, -1), POWERS, generator=seeded(0), samples=2, eps=0.05, first=0.0
    )
    assert found.stderr == pytest.approx([1.0, 0.0], abs=1e-12)


def test_end_terms_are_what_the_ends_cost():
    """Reconstruction by Bayes' rule from equal frequencies, of the share that is still masked; a uniform prior."""
    reconstruction, prior = genmd4.end_terms(DATA, POWERS, **WHERE)
    left = 0.95 * 0.2**POWERS
    guess = 0.2**POWERS / (0.2**POWERS).sum()
    assert float(reconstruction) == pytest.approx(float(-(left * guess.log()).sum()))
    assert float(prior) == pytest.approx(3 * 0.05 * math.log(3))
    assert [float(x) for x in genmd4.end_terms(DATA, POWERS, 0.0, 0.0)] == [0.0, 0.0]
    equal = genmd4.end_terms(DATA, torch.ones(3), 0.0, 0.2)[0]
    assert float(equal) == pytest.approx(3 * 0.2 * math.log(3))


def test_the_exact_law_pays_the_entropy_and_one_that_ignores_time_pays_more():
    p = TABLE.log_prob(EVERY).exp()
    paid = [
        float(p @ genmd4.exact_bound(mu, EVERY, POWERS, nodes=nodes, **ends))
        for mu, nodes, ends in (
            (Optimal(TABLE, POWERS), 60, {}),
            (TABLE, 60, {}),
            (Optimal(TABLE, POWERS), 20, WHERE),
        )
    ]
    assert paid[0] == pytest.approx(entropy(TABLE), abs=1e-6)
    assert paid[1] > entropy(TABLE) + 0.01
    assert paid[2] > entropy(TABLE)


def test_the_exact_law_is_that_of_the_forward_process():
    """Frequencies of what is hidden, given what is seen, in simulated corruption."""
    rows, t = 200_000, 0.4
    tokens = TABLE.sample(rows, seeded(0))
    chance = genmd4.hidden_probability(tokens, POWERS, torch.full((rows,), t), eps=0.0)
    mask = torch.rand(rows, 3, dtype=torch.float64, generator=seeded(1)) < chance
    seen = tokens.masked_fill(mask, 3)
    time = torch.tensor([t], dtype=torch.float64)
    for state in ([3, 1, 3], [3, 3, 3], [0, 3, 2]):
        same = (seen == torch.tensor(state)).all(1)
        law = Optimal(TABLE, POWERS)(torch.tensor([state]), time=time)[0]
        for i in (i for i in range(3) if state[i] == 3):
            assert chi_square_z(torch.bincount(tokens[same][:, i], minlength=3), law[i].exp()) < 4


def test_equal_powers_mask_as_the_schedule_says():
    time = torch.tensor([0.01, 0.3, 1.0], dtype=torch.float64)
    found = genmd4.hidden_probability(DATA.expand(3, -1), torch.full((3,), 1.7), time, eps=0.0)
    wanted = 1 - schedules.polynomial(1.7).alpha(time)
    assert found == pytest.approx(wanted[:, None].expand(-1, 3), rel=1e-6)


# The reverse process.


def law_of_the_sampler(denoiser, powers: Tensor, times: Tensor) -> Tensor:
    """Probabilities [27] after all steps, by multiplying transition matrices over the 64 states."""
    states = torch.cartesian_prod(*[torch.arange(4)] * 3)
    now = (states == 3).all(1).double()
    for t, s in itertools.pairwise(times):
        mu = denoiser(states, time=t.expand(64)).exp()
        still = (s / t) ** powers
        become = torch.cat([(1 - still) * mu, (still * mu).sum(-1, keepdim=True)], -1)
        assert become.sum(-1) == pytest.approx(torch.ones(64, 3), abs=1e-12)
        become = torch.where((states == 3)[..., None], become, torch.eye(4, dtype=torch.float64)[states])
        now = now @ torch.stack([become[:, i, states[:, i]] for i in range(3)]).prod(0)
    assert now[(states == 3).any(1)].sum() == pytest.approx(0, abs=1e-12)
    return now[(states < 3).all(1)]


def divergence(p: Tensor, q: Tensor) -> float:
    return float((p * (p.log() - q.log())).sum())


def test_many_steps_of_the_exact_law_reproduce_it():
    p = TABLE.log_prob(EVERY).exp()
    gaps = {
        n: divergence(p, law_of_the_sampler(Optimal(TABLE, POWERS), POWERS, schedules.uniform_grid(n)))
        for n in (1, 2, 4, 16, 64)
    }
    falling = list(gaps.values())
    assert falling == sorted(falling, reverse=True)
    assert gaps[1] > 0.1
    assert gaps[64] < 3e-4
    assert gaps[64] < 0.1 * gaps[16]  # the law of the result errs by 1/T, its KL by the square
    frozen = divergence(p, law_of_the_sampler(TABLE, POWERS, schedules.uniform_grid(64)))
    assert frozen > 50 * gaps[64], frozen  # a law that ignores the time is the wrong one


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_sampling_follows_the_reverse_process_and_its_likelihood(steps):
    rows, denoiser = 8000, Optimal(TABLE, POWERS)
    times = schedules.uniform_grid(steps)
    selector = genmd4.reverse(POWERS, times, 5)
    result = unmask.sample(denoiser, hidden(rows, TABLE), selector, generator=seeded(1))
    law = law_of_the_sampler(denoiser, POWERS, times)
    assert chi_square_z(torch.bincount(place_of(result.tokens, 3), minlength=27), law) < 4
    again = unmask.log_likelihood(denoiser, result.tokens[:200], selector, order_ids=torch.arange(200))
    assert (again - result.log_prob[:200]).abs().max() < 1e-12
    orders = 150
    ids = torch.arange(orders).repeat_interleave(27)
    values = unmask.log_likelihood(denoiser, EVERY.repeat(orders, 1), selector, order_ids=ids).exp()
    assert values.view(orders, 27).sum(1) == pytest.approx(torch.ones(orders), abs=1e-9)
    mean, error = values.view(orders, 27).mean(0), values.view(orders, 27).std(0) / math.sqrt(orders)
    assert ((mean - law).abs() <= 4.5 * error + 1e-9).all()


def test_draws_along_one_order_follow_its_likelihood():
    denoiser, rows = Optimal(TABLE, POWERS), 4000
    selector = genmd4.reverse(POWERS, schedules.uniform_grid(4), 0)
    orders = torch.full((rows,), 7)
    result = unmask.sample(denoiser, hidden(rows, TABLE), selector, generator=seeded(2), order_ids=orders)
    law = unmask.log_likelihood(denoiser, EVERY, selector, order_ids=orders[:27]).exp()
    assert chi_square_z(torch.bincount(place_of(result.tokens, 3), minlength=27), law) < 4


@pytest.mark.parametrize("power", [1.0, 2.5])
def test_equal_powers_are_ancestral_sampling_position_for_position(power):
    times = schedules.cosine_grid(5)
    ours = genmd4.reverse(torch.full((3,), power), times, 4)
    theirs = selectors.ancestral(schedules.polynomial(power), times, 4)
    results = [unmask.sample(TABLE, hidden(50, TABLE), s, generator=seeded(0)) for s in (ours, theirs)]
    assert torch.equal(results[0].tokens, results[1].tokens)
    assert results[0].log_prob == pytest.approx(results[1].log_prob, abs=1e-9)


def test_a_symbol_with_a_large_power_is_unmasked_early():
    """The mean time of unmasking is w / (w + 1) where the chance of a mask is t^w."""
    selector = genmd4.reverse(POWERS, schedules.uniform_grid(20), 0)
    result = unmask.sample(Optimal(TABLE, POWERS), hidden(400, TABLE), selector, generator=seeded(0))
    when = [[], [], []]
    for step, info in enumerate(result.trace):
        for symbol in range(3):
            when[symbol] += [1 - (step + 0.5) / 20] * int((info.symbols == symbol).sum())
    wanted = (POWERS / (POWERS + 1)).tolist()
    assert [float(np.mean(times)) for times in when] == pytest.approx(wanted, abs=0.05)


def test_the_selector_keeps_time_and_prompts():
    times = schedules.uniform_grid(6)
    asked = []

    class Asked(Optimal):
        def __call__(self, tokens, rows=None, *, time=None):
            asked.append(time)
            return super().__call__(tokens, rows, time=time)

    start = torch.tensor([[3, 1, 3], [3, 3, 3]])
    result = unmask.sample(Asked(TABLE, POWERS), start, genmd4.reverse(POWERS, times, 1), generator=seeded(0))
    assert result.tokens[0, 1] == 1
    assert (result.tokens < 3).all()
    assert [float(t[0]) for t in asked] == times[: len(asked)].tolist()
    assert result.nfe.max() <= 6


# Networks and recipes.


def small(**changes) -> GenMD4Network:
    sizes = {"vocab_size": 4, "length": 4, "width": 16, "depth": 1, "heads": 2, "timed": True}
    return GenMD4Network(Transformer(**(sizes | changes)))


@pytest.mark.global_random
def test_powers_start_at_one_and_do_not_decay():
    network = small()
    assert network.powers.detach() == pytest.approx(torch.ones(4), abs=1e-6)
    groups = adamw(network, tiny().optimiser).param_groups
    inside = [any(p is network.raw for p in group["params"]) for group in groups]
    assert inside == [False, True]
    assert [group["weight_decay"] > 0 for group in groups] == [True, False]


@pytest.mark.global_random
def test_a_network_is_a_timed_denoiser_with_partial_passes():
    network = small()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.4, generator=seeded(parameter.numel()))
    denoiser = unmask.from_logits(network.double(), mask_id=network.mask_id, vocab_size=4)
    tokens = every_sequence(LAW, 4)
    selector = genmd4.reverse(network.powers, schedules.uniform_grid(3), 0)
    values = [unmask.log_likelihood(denoiser, tokens, selector, substeps=s) for s in (1, 2)]
    assert [float(v.exp().sum()) for v in values] == pytest.approx([1, 1], abs=1e-9)
    assert (values[0] - values[1]).abs().max() > 1e-3
    early, late = (denoiser(hidden(1, LAW), time=torch.tensor([t])) for t in (0.1, 0.9))
    assert (early - late).abs().max() > 1e-3


def gen_md4_run():
    return baselines.gen_md4(tiny(), lambda run, random: LAW.sample(run.batch_size, random))


@pytest.mark.global_random
def test_a_recipe_trains_powers_and_loads_again(tmp_path, monkeypatch):
    run = replace(gen_md4_run(), machine=often(save_minutes=60), optimiser=replace(tiny().optimiser, steps=6))
    folder = train(run, tmp_path / "run", quiet=True)
    monkeypatch.setattr(models.recipes, "all_recipes", lambda: {"tiny": gen_md4_run})
    model = unmask.load(folder)
    powers = model.denoiser.network.powers.detach()
    assert isinstance(model.denoiser.network, GenMD4Network)
    assert (powers - 1).abs().min() > 1e-5
    selector = genmd4.reverse(powers, schedules.uniform_grid(4), 0)
    result = unmask.sample(model.denoiser, model.all_masked(3), selector, generator=seeded(0))
    assert (result.tokens < 4).all()


@pytest.mark.global_random
def test_batches_are_half_as_many_sequences_masked_twice():
    run = gen_md4_run()
    data = run.batch(run, 3)
    assert data.tokens.shape == (16, 4)
    assert data.noise.shape == (16, 2, 4)
    assert torch.equal(run.batch(run, 3).noise, data.noise)
    network = run.build(run.network)
    value = run.objective(network, data)
    whole = genmd4.training_loss(network, data.tokens, data.time, data.noise).mean()
    assert value.item() == pytest.approx(whole.item() / 4)
    with pytest.raises(ValueError, match="batch_size 3: expected an even number"):
        run.batch(replace(run, batch_size=3), 0)
    with pytest.raises(ValueError, match="no time and noise"):
        run.objective(network, replace(data, noise=None))


BAD = {
    "powers": (
        lambda: genmd4.reverse(torch.tensor([1.0, -1.0]), schedules.uniform_grid(2), 0),
        "expected positive",
    ),
    "shape": (lambda: genmd4.reverse(torch.ones(2, 2), schedules.uniform_grid(2), 0), r"shape \[2, 2\]"),
    "times": (lambda: genmd4.reverse(POWERS, torch.linspace(0, 1, 3), 0), "strictly falling to 0"),
    "long": (lambda: genmd4.exact_bound(TOY, torch.zeros(1, 9).long(), POWERS), "length 9: expected 1..8"),
    "samples": (
        lambda: genmd4.nelbo(TOY, DATA, POWERS, generator=seeded(0), samples=0),
        "samples 0: expected a whole number of at least 1",
    ),
    "first": (
        lambda: genmd4.nelbo(TOY, DATA, POWERS, generator=seeded(0), first=1.0),
        "first 1.0: expected",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.global_random
def test_a_network_without_time_is_refused():
    with pytest.raises(ValueError, match="expected a Transformer with timed=True"):
        small(timed=False)
