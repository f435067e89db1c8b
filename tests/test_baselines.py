"""Baselines: D3PM's and MD4's corruption, the auxiliary loss, discrete time, and runs made of another run."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from helpers import Toy, every_sequence, seeded
from tiny import LAW, log_of, often, tiny
from torch import nn

import unmask
from unmask import laws, scores, selectors
from unmask.masking import corruption, enumeration, schedules
from unmask.recipes import baselines, sequences
from unmask.recipes.run import Batch
from unmask.training.loop import train

TOY, DATA = Toy(), torch.tensor([[0, 2, 1, 0]])


class ToyNetwork(nn.Module):
    mask_id = 3

    def forward(self, tokens, rows=None, *, time=None, label=None):
        return TOY(tokens, rows)


def bound(corrupt, rows: int = 400, batches: int = 30, **more) -> tuple[float, float]:
    """Mean and standard error of the training loss, nats per sequence."""
    random, values = seeded(0), []
    tokens = DATA.expand(rows, -1)
    for _ in range(batches):
        drawn = corrupt(torch.ones_like(tokens, dtype=torch.bool), random)
        data = Batch(tokens, drawn.masked, drawn.weight, drawn.time)
        values.append(4 * sequences.loss(ToyNetwork(), data, **more))
    found = torch.stack(values).double()
    return float(found.mean()), float(found.std()) / math.sqrt(batches)


@pytest.mark.parametrize("steps", [1, 4, 16])
def test_d3pm_trains_the_discrete_bound(steps):
    wanted = enumeration.discrete_bound(TOY, DATA, schedules.linear(), schedules.uniform_grid(steps))
    value, error = bound(corruption.d3pm(steps))
    assert abs(value - float(wanted)) < 4 * error + 1e-5


def test_d3pm_draws_each_time_on_its_own():
    """Counts of each time in a batch spread as a multinomial, where stratified ones hardly do."""
    maskable, random = torch.ones(64, 4, dtype=torch.bool), seeded(1)
    grids = {"d3pm": corruption.d3pm(4)}
    grids["stratified"] = lambda m, g: corruption.discrete_time(
        m, schedules.linear(), schedules.uniform_grid(4), g
    )
    spread = {}
    for name, corrupt in grids.items():
        times = torch.stack([corrupt(maskable, random).time for _ in range(200)])
        assert set(times.flatten().tolist()) == {0.25, 0.5, 0.75, 1.0}
        spread[name] = float((times == 0.25).sum(1).double().var())
    assert spread["d3pm"] == pytest.approx(64 * 0.25 * 0.75, rel=0.3)
    assert spread["stratified"] < 1
    with pytest.raises(ValueError, match="steps 0: expected a whole number of at least 1"):
        corruption.d3pm(0)


def test_md4_trains_the_continuous_bound():
    value, error = bound(corruption.md4(schedules.cosine()))
    assert abs(value - 7.4235647724) < 4 * error
    drawn = corruption.md4(schedules.linear())(torch.ones(64, 4, dtype=torch.bool), seeded(0))
    gaps = drawn.time.sort().values.diff()
    assert gaps == pytest.approx(torch.full((63,), 1 / 64), abs=1e-12)


def test_the_auxiliary_loss_is_the_cross_entropy_without_weight():
    drawn = corruption.exact_count(torch.ones(50, 4, dtype=torch.bool), seeded(0))
    data = Batch(DATA.expand(50, -1), drawn.masked, drawn.weight)
    plain = sequences.loss(ToyNetwork(), replace(data, weight=torch.ones(50)))
    values = [sequences.loss(ToyNetwork(), data, auxiliary=a) for a in (0.0, 0.001, 2.0)]
    assert float(values[1] - values[0]) == pytest.approx(0.001 * float(plain), rel=1e-2)
    assert float(values[2] - values[0]) == pytest.approx(2 * float(plain), rel=1e-5)


def test_the_discrete_bound_of_the_exact_law_nears_the_entropy_as_one_over_steps():
    """And in the limit no schedule matters."""
    law = laws.Table(torch.randn(27, dtype=torch.float64, generator=seeded(0)).mul(2).log_softmax(0), 3)
    tokens = every_sequence(law, 3)
    p = law.log_prob(tokens).exp()
    entropy = float(torch.special.entr(p).sum())
    for schedule in (schedules.linear(), schedules.cosine(), schedules.polynomial(1.5)):
        excess = [
            float(p @ enumeration.discrete_bound(law, tokens, schedule, schedules.uniform_grid(n))) - entropy
            for n in (64, 128, 256, 512)
        ]
        slopes = [math.log2(b / a) for a, b in itertools.pairwise(excess)]
        assert slopes == pytest.approx([-1] * 3, abs=0.05)
        assert excess[-1] < 0.01


# Runs.


def draw(run, random):
    return LAW.sample(run.batch_size, random)


MADE = {
    "autoregressive": lambda run: baselines.autoregressive(run, draw),
    "md4": lambda run: baselines.md4(run, draw),
    "md4, timed": lambda run: baselines.md4(run, draw, schedules.cosine(eps=1e-4), timed=True),
    "d3pm": lambda run: baselines.d3pm(run, draw, steps=10),
    "gen_md4": lambda run: baselines.gen_md4(run, draw),
}


@pytest.mark.global_random
@pytest.mark.parametrize("name", MADE)
def test_every_baseline_trains_on_pure_batches(name, tmp_path):
    run = replace(MADE[name](tiny()), machine=often(save_minutes=60))
    first, again = run.batch(run, 5), run.batch(run, 5)
    assert torch.equal(first.masked, again.masked)
    assert torch.equal(first.tokens, again.tokens)
    train(run, tmp_path, quiet=True)
    losses = [record["loss"] for record in log_of(tmp_path)]
    assert all(math.isfinite(value) and value > 0 for value in losses)
    assert (first.time is not None) == (name not in ("autoregressive",))


@pytest.mark.global_random
def test_an_autoregressive_network_learns_the_law_exactly():
    """Its loss nears the entropy ln 24 / 4 per position, and left to right it nears the law."""
    run = baselines.autoregressive(tiny(), draw)
    network = run.build(run.network)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for step in range(250):
        loss = run.objective(network, run.batch(run, step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) == pytest.approx(math.log(24) / 4, abs=0.03)
    model = unmask.from_logits(network, mask_id=4, vocab_size=4)
    tokens = LAW.sample(20, seeded(0))
    found = unmask.log_likelihood(model, tokens, selectors.top_k(scores.left_to_right, 1))
    assert float(found.mean()) == pytest.approx(-math.log(24), abs=0.2)
