"""What a sampler loses when its noise has 24 bits, at 50,257 symbols and 1024 steps, and that none of ours does."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from helpers import seeded
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import unmask
from unmask import engine, scores, selectors
from unmask.base import noise
from unmask.base.types import View
from unmask.kernels import commit, remask
from unmask.kernels.remask import pieces
from unmask.masking import schedules
from unmask.orders import presets, rules

VOCAB, STEPS, ROWS, LENGTH = 50257, 1024, 192, 1024
ZIPF = 1 / torch.arange(1, VOCAB + 1, dtype=torch.float64)
ZIPF /= ZIPF.sum()
ENTROPY = -float((ZIPF * ZIPF.log()).sum())
GRID = schedules.uniform_grid(STEPS)


@dataclass
class Zipf:
    """The same law at every position, whatever is visible."""

    mask_id: int = VOCAB
    vocab_size: int = VOCAB

    def __call__(self, tokens, rows=None, *, time=None):
        rows = tokens if rows is None else rows
        return ZIPF.log().float().expand(*rows.shape, VOCAB)


def hidden(rows, length):
    return torch.full((rows, length), VOCAB)


def rate_error(moved: int, total: int) -> float:
    """How many standard errors the unmasked share is off 1/T."""
    p = 1 / STEPS
    return abs(moved / total - p) / math.sqrt(p * (1 - p) / total)


def entropy_error(symbols: Tensor) -> float:
    """How many standard errors the mean surprise of the symbols, nats, is off the entropy."""
    surprise = -ZIPF.log()[symbols]
    return float((surprise.mean() - ENTROPY).abs() / surprise.std() * len(symbols) ** 0.5)


# The check, and a sampler that it must reject.


def single_draw(bits: int, positions: int, seed: int = 0) -> Tensor:
    """One step of the usual draw over V + 1 classes, by Gumbel-max with uniforms 1 - j 2^-bits, j = 1, 2, ..

    The mask has weight 1 - 1/T. Exact, but only the noise that can win is made: that of class v when -log u
    is below (p_v / T) times the largest possible -log u of the mask.
    """
    rng = np.random.default_rng(seed)
    weights, unit = ZIPF.numpy() / STEPS, 2.0**-bits
    mask_arrival = -np.log1p(-rng.integers(1, 2**bits, positions) * unit) / (1 - 1 / STEPS)
    reach = np.ceil(weights * mask_arrival.max() / unit).astype(np.int64)
    symbol = np.repeat(np.arange(VOCAB), rng.binomial(positions, reach * unit))
    place = rng.integers(0, positions, len(symbol))
    arrival = -np.log1p(-rng.integers(1, reach[symbol] + 1) * unit) / weights[symbol]
    order = np.argsort(arrival, kind="stable")
    _, first = np.unique(place[order], return_index=True)
    won = order[first]
    return torch.from_numpy(symbol[won[arrival[won] < mask_arrival[place[won]]]])


def test_the_check_tells_float32_gumbel_noise_from_float64():
    assert pytest.approx(7.57, abs=0.005) == ENTROPY
    for positions in (ROWS * LENGTH, 10 * ROWS * LENGTH):
        good = single_draw(52, positions)
        assert rate_error(len(good), positions) < 4
        assert entropy_error(good) < 4
        bad = single_draw(24, positions)
        assert rate_error(len(bad), positions) > 4
        assert entropy_error(bad) > 6
    assert len(bad) / positions == pytest.approx(6.23e-4, rel=0.1)  # the closed form in test_noise.py
    assert len(good) / positions == pytest.approx(9.77e-4, rel=0.1)


# One step of 1024, in full.


@pytest.mark.parametrize("left", [STEPS, STEPS // 2])
def test_ancestral_steps(left):
    """Half way through a masked position goes with probability 2/T."""
    tokens = hidden(ROWS, LENGTH)
    view = View(tokens, tokens == VOCAB, order_ids=torch.arange(ROWS))
    alive = scores.public_uniform(view, 3) < left / STEPS
    state = engine.init(tokens.masked_fill(~alive, 0), VOCAB, view.order_ids)
    state = replace(state, step=STEPS - left)
    _, info = engine.step(state, Zipf(), presets.ancestral(STEPS, seed=3), unmask.draw, seed=5)
    drawn, total = info.symbols[info.symbols >= 0], int(alive.sum())
    p = 1 / left
    assert abs(len(drawn) - p * total) < 4 * math.sqrt(p * total)
    assert entropy_error(drawn) < 4


def test_first_hitting_has_as_many_events_in_a_step_as_ancestral():
    tokens, selector, moved = hidden(ROWS, LENGTH), presets.first_hitting(seed=3), 0
    view = View(tokens, tokens == VOCAB, order_ids=torch.arange(ROWS))
    while (early := selector.time(view) > 1 - 1 / STEPS).any():
        moved += int(early.sum())
        masked = view.masked.scatter(1, selector(view).rows, False)
        view = View(tokens, masked, order_ids=view.order_ids)
    assert rate_error(moved, tokens.numel()) < 4


@pytest.mark.parametrize("sigma", [remask.psi(1.0), remask.cap(0.3), remask.rescale(0.5)])
def test_remasking_steps(sigma):
    """At the first step nothing is visible yet, so all of them are ancestral."""
    kernel = remask.remdm(schedules.linear().alpha, GRID, sigma)[0]
    state, infos = kernel(remask.start(hidden(ROWS, LENGTH), VOCAB, None), Zipf(), 7)
    drawn = state.tokens[state.tokens != VOCAB]
    assert rate_error(len(drawn), ROWS * LENGTH) < 4
    assert entropy_error(drawn) < 4
    assert sum(int((info.rows >= 0).sum()) for info in infos) == len(drawn)


# Every sampler that draws a symbol.

ALL = (24,)
"""A plan of one step: nothing is chosen, so what is drawn first keeps its law too."""


def committed(rule):
    return lambda tokens: commit.sample(Zipf(), tokens, rule, generator=seeded(1)).tokens


def remasked(*kernels):
    return lambda tokens: remask.sample(Zipf(), tokens, kernels, generator=seeded(1)).tokens


def chosen(selector):
    return lambda tokens: unmask.sample(Zipf(), tokens, selector, generator=seeded(1)).tokens


SAMPLERS = {
    "random": chosen(presets.random(8)),
    "moment": chosen(presets.moment(8)),
    "noisy margin": chosen(presets.noisy_margin(8)),
    "information gain": chosen(presets.information_gain(Zipf(), 12, candidates=2)),
    "ancestral": chosen(presets.ancestral(4)),
    "race that keeps all": chosen(presets.race(ALL, math.inf)),
    "maskgit": committed(commit.maskgit(4.5, ALL)),
    "low confidence": committed(commit.low_confidence(1.0, ALL)),
    "choose first": committed(commit.choose_first(presets.moment(8))),
    "remdm": remasked(*remask.remdm(schedules.linear().alpha, schedules.uniform_grid(4), remask.cap(0.2))),
    "psi": remasked(*remask.remdm(schedules.linear().alpha, schedules.uniform_grid(4), remask.psi(0.5))),
    "p2": remasked(*remask.p2(1)),
    "gibbs": remasked(*remask.p2(1), *[remask.gibbs(8)] * 2),
}


class NoOtherNoise(TorchDispatchMode):
    """Fails on every random operation of torch but the one whole number that a sample takes as its seed."""

    seeds = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if torch.Tag.nondeterministic_seeded in func.tags:
            assert "randint" in str(func), f"{func} draws noise"
            self.seeds += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", SAMPLERS)
def test_symbols_have_their_entropy_and_noise_has_one_source(name, monkeypatch):
    made, uniform = [], noise.uniform
    monkeypatch.setattr(noise, "uniform", lambda *a: made.append(uniform(*a)) or made[-1])
    with NoOtherNoise() as mode:
        tokens = SAMPLERS[name](hidden(12, sum(ALL)))
    assert mode.seeds == 1
    assert made
    assert all(u.dtype == torch.float64 for u in made)
    assert entropy_error(tokens.flatten()) < 4


def test_the_discarded_draws_of_the_race_have_their_entropy():
    tokens = hidden(12, sum(ALL))
    rows = torch.arange(sum(ALL)).expand(12, -1)
    view = View(tokens, tokens == VOCAB, Zipf()(tokens), order_ids=torch.arange(12), rows=rows)
    surprise = -rules.public_draw(view, 3)
    assert float((surprise.mean() - ENTROPY).abs() / surprise.std() * surprise.numel() ** 0.5) < 4


# Noise on positions: numbers that float32 would round to 1, all alike.

FINE = 1 - 2.0 ** -torch.arange(30, 46, dtype=torch.float64)
"""16 uniforms; the later the larger. In float32 each is 1, and its Gumbel number infinite."""


def flat_view():
    tokens = torch.full((1, len(FINE)), 2)
    law = torch.full((1, len(FINE), 2), -math.log(2), dtype=torch.float64)
    rows = torch.arange(len(FINE))[None]
    return View(tokens, tokens == 2, law, law, order_ids=torch.tensor([0]), rows=rows)


NOISY = {
    "moment": presets.moment(len(FINE)),
    "noisy margin": presets.noisy_margin(len(FINE), scale=1.0),
    "race": presets.race(len(FINE), 1.0),
    "maskgit": lambda view: commit.maskgit(1.0, len(FINE)).keep(
        view,
        commit.Drawn(torch.zeros(1, len(FINE), dtype=torch.int64), noise.gumbel(0, 1, view.rows, view.rows)),
    ),
}


def test_float32_would_not_tell_these_apart():
    assert (FINE.float() == 1).all()
    assert len(FINE.unique()) == len(FINE)


@pytest.mark.parametrize("name", NOISY)
def test_positions_follow_noise_that_float32_cannot_tell_apart(name, monkeypatch):
    if name == "race":  # its draws are public too: let them all fall on the same symbol
        monkeypatch.setattr(rules, "public_draw", lambda view, _: view.log_probs[..., 0])
    monkeypatch.setattr(noise, "uniform", lambda *_: FINE[None])
    order = NOISY[name](flat_view()).rows[0]
    assert order.tolist() == list(reversed(range(len(FINE))))


def test_remasking_follows_noise_that_float32_cannot_tell_apart(monkeypatch):
    state = remask.start(
        torch.zeros(1, len(FINE), dtype=torch.int64), 2, torch.zeros(1, len(FINE), dtype=torch.bool)
    )
    monkeypatch.setattr(noise, "uniform", lambda *_: FINE[None])
    interval = remask.Interval(0.5, 0.4, 0.5, 0.6)
    level = 1 - 2.0**-38.5
    assert (remask.chance_of_change(state.masked, interval, level) == level).all()
    changing = pieces.uniforms(state, 0) < remask.chance_of_change(state.masked, interval, level)
    assert changing[0].tolist() == [u < level for u in FINE.tolist()]
    assert 0 < changing.sum() < len(FINE)


def test_selectors_rank_positions_by_keys_that_float32_cannot_tell_apart():
    near = 0.5 + torch.arange(4, dtype=torch.float64) * 5e-9
    view = flat_view().within(torch.arange(len(FINE))[None] < 4)
    values = torch.cat([near, torch.zeros(len(FINE) - 4, dtype=torch.float64)])[None]
    assert (near.float() == 0.5).all()
    assert selectors.take(view, values, torch.tensor([4])).rows[0].tolist() == [3, 2, 1, 0]
