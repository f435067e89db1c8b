"""Standard errors of means divide by n - 1: of two observations, half their distance."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import seeded

import unmask
from unmask import laws
from unmask.base.types import Estimate
from unmask.command_line import sequences
from unmask.command_line.commands import evaluate as evaluation
from unmask.command_line.commands import plan as planning
from unmask.command_line.options import MACHINE
from unmask.planning import measuring

TWO = torch.tensor([3.0, 7.0], dtype=torch.float64)
HALF = 2.0
"""Half the distance of the two."""


def test_entries_of_a_measured_profile():
    """Seen twice: half the distance. Seen once: the deviation pooled over what was seen more often, here 4 / sqrt(2)."""
    tally = measuring.Tally(2, 1, seed=0)
    tally.add(torch.tensor([[0], [0], [1]]), torch.tensor([3.0, 7.0, 1.0]).double()[:, None, None])
    assert tally.result().stderrs[:, 0] == pytest.approx([HALF, 4 / math.sqrt(2)])


def test_entropies_of_a_law_that_are_drawn():
    """One symbol shown leaves 0, ln 2 or the entropy of (1/3, 2/3): two samples err by half the distance of theirs."""
    law = laws.Table(torch.tensor([0.5, 0.0, 0.25, 0.25], dtype=torch.float64).log(), 2)
    left = (0.0, math.log(2), math.log(3) - math.log(4) / 3)
    pairs = {round((a + b) / 2, 9): abs(a - b) / 2 for a in left for b in left}
    errors = []
    for seed in range(20):
        mean, error = laws.estimate_entropies(law, 2, seeded(seed))
        assert error[1] == pytest.approx(pairs[round(float(mean[1]), 9)], abs=1e-9)
        errors.append(error[1])
    assert max(errors) > 0.1


def test_realised_costs(monkeypatch):
    monkeypatch.setattr(planning, "in_random_order", lambda *_: torch.zeros(2).double())
    found = planning.realised(laws.Permutation(3), torch.zeros(2, 3).long(), (3,), TWO, seed=0)
    assert (found["value"], found["stderr"]) == pytest.approx((5, HALF))


def test_scores_of_sequences():
    posed = SimpleNamespace(characters=4, bytes=np.array([2, 2]), source="two lines")
    model = unmask.load("molecules")
    assert sequences.numbers(model, posed, TWO, "drawn")["nats"]["stderr"] == pytest.approx(HALF)


def test_bounds_of_grids(monkeypatch):
    monkeypatch.setattr(evaluation, "nelbo", lambda *_, **__: Estimate(TWO, torch.zeros(2)))
    hidden = torch.zeros(2, 81, dtype=torch.bool)
    found = evaluation._bound(
        SimpleNamespace(denoiser=None), torch.zeros(2, 81).long(), hidden, 1, 0, MACHINE
    )
    assert found["stderr"] == pytest.approx(HALF)
