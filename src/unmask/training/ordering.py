"""How is an order learnt? A policy gradient on whole sequences, for the exact log-likelihood or for solving.

The network's scores and public Gumbel noise give a random order, whose positions are drawn without replacement
(Plackett-Luce). Several orders of each item are rewarded, and each is judged by the others' mean. Without the noise the
scores are the order that was learnt, `unmask.scores.learnt`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from unmask import engine
from unmask.base.numbers import whole
from unmask.base.types import Choice, Denoiser, Plan, Selector, View
from unmask.orders.policy import OrderNetwork, features
from unmask.orders.scores import public_gumbel
from unmask.orders.selectors import step_sizes, take
from unmask.orders.sources import given, greedy

Items: TypeAlias = Callable[[int], tuple[Tensor, Tensor]]
"""The data of a step, counted from 0: complete tokens int64 [n, L], and what is visible from the start, bool [n, L]."""


MOVE = 0.2


@dataclass(frozen=True)
class Lessons:
    """How an order is learnt: ``orders`` of each item a step, Adam with a linear decay to 0, gradients cut at norm 1.

    ``solving``: the reward is 1 where arg-max symbols are the item's own everywhere, else 0; otherwise it is the item's
    exact log-likelihood along the order, nats. ``epochs`` above 1 go over the same trajectories again, where network
    calls are dear: odds that moved by more than a fifth teach nothing more (PPO, arXiv 1707.06347).
    """

    steps: int = 300
    orders: int = 8
    learning_rate: float = 0.01
    epochs: int = 1
    solving: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        whole(self.steps, "steps", 1)
        whole(self.orders, "orders", 2)
        whole(self.epochs, "epochs", 1)


@dataclass(frozen=True)
class Taken:
    """A step of several trajectories: which int64 [b], what they were told [b, L, F], and what they took int64 [b, k]."""

    items: Tensor
    told: Tensor
    tokens: Tensor
    masked: Tensor
    rows: Tensor


def learn(
    network: OrderNetwork,
    denoiser: Denoiser,
    items: Items,
    plan: Plan,
    lessons: Lessons | None = None,
    *,
    each: Callable[[int, float], object] | None = None,
) -> list[float]:
    """Trains the network in place for an order under a plan; the mean reward of each step.

    The denoiser is not trained. ``each`` hears of every step and its mean reward. All randomness is that of the
    orders, and follows from the seed of the lessons.
    """
    lessons = Lessons() if lessons is None else lessons
    optimiser = torch.optim.Adam(network.parameters(), lessons.learning_rate)
    rewards = []
    for step in range(lessons.steps):
        tokens, visible = (x.repeat_interleave(lessons.orders, 0) for x in items(step))
        taken, reward = _tried(network, denoiser, tokens, visible, plan, lessons, step)
        worth = advantages(reward.view(-1, lessons.orders)).flatten()
        for group in optimiser.param_groups:
            group["lr"] = lessons.learning_rate * (1 - step / lessons.steps)
        before: list[Tensor] = []
        for _ in range(lessons.epochs):
            odds = [log_odds(network, some) for some in taken]
            before = before or [one.detach() for one in odds]
            gains = [_gain(o, b, worth[some.items]) for o, b, some in zip(odds, before, taken)]
            optimiser.zero_grad()
            torch.autograd.backward(-torch.stack(gains).sum() / len(tokens))
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
        rewards.append(float(reward.mean()))
        if each is not None:
            each(step, rewards[-1])
    return rewards


def _tried(
    network: OrderNetwork,
    denoiser: Denoiser,
    tokens: Tensor,
    visible: Tensor,
    plan: Plan,
    lessons: Lessons,
    step: int,
) -> tuple[list[Taken], Tensor]:
    """What every trajectory took on its way, and its reward, float64 [B]; order_ids go on from step to step."""
    taken: list[Taken] = []
    ids = torch.arange(len(tokens), device=tokens.device) + step * len(tokens)
    state = engine.init(torch.where(visible, tokens, denoiser.mask_id), denoiser.mask_id, ids)
    source = greedy if lessons.solving else given(tokens)
    with torch.no_grad():
        state, _ = engine.run(state, denoiser, _watched(network, plan, lessons.seed, taken), source)
    return taken, (state.tokens == tokens).all(1).double() if lessons.solving else state.log_prob


def _watched(network: OrderNetwork, plan: Plan, seed: int, taken: list[Taken]) -> Selector:
    """The noisy order of a network, which notes what it takes."""
    sizes, kind = step_sizes(plan), next(network.parameters()).dtype

    def choose(view: View) -> Choice:
        told = features(view).to(kind)
        keys = network(told, view.tokens).double() + public_gumbel(view, seed)
        choice = take(view, keys, sizes(view))
        taken.append(Taken(view.places, told, view.tokens, view.masked, choice.rows))
        return replace(choice, doubt=None)

    return Selector(choose, name="learning")


def _gain(odds: Tensor, before: Tensor, worth: Tensor) -> Tensor:
    """How much is gained by the log-odds [b] of steps that are worth so much, where they moved little."""
    ratio = (odds - before).exp()
    return torch.minimum(ratio * worth, ratio.clamp(1 - MOVE, 1 + MOVE) * worth).sum()


def advantages(rewards: Tensor) -> Tensor:
    """Rewards [n, M] less their mean over orders of the item, in units of their root mean square; 0 where all are equal."""
    less = rewards - rewards.mean(1, keepdim=True)
    return less / less.square().mean().sqrt().clamp(min=1e-6)


def log_odds(network: OrderNetwork, taken: Taken) -> Tensor:
    """Log-probability [b] with which positions are drawn without replacement, weights exp(score), in the order taken."""
    left, rows = taken.masked, taken.rows
    scores = network(taken.told, taken.tokens)
    total = torch.zeros_like(scores[:, 0])
    for j in range(rows.shape[1]):
        row, valid = rows[:, j : j + 1].clamp(min=0), rows[:, j] >= 0
        law = scores.masked_fill(~left, -torch.inf).log_softmax(1)
        total = total + torch.where(valid, law.gather(1, row)[:, 0], 0.0)
        left = torch.where(valid[:, None], left.scatter(1, row, False), left)
    return total
