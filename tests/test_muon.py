"""Muon: orthogonal steps for matrices, AdamW for the rest, and training that resumes with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import log_of, tiny

from unmask.training import train
from unmask.training.muon import Muon, orthogonal


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(40, 16), (16, 40), (24, 24)])
def test_singular_values_end_near_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = numbers(*shape)
    made = orthogonal(matrix)
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.4
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    inner = left.T @ made @ right.T  # diagonal when singular vectors are the same
    assert (inner - inner.diagonal().diag()).abs().max() < 1e-3


def test_a_matrix_moves_as_far_as_adamw_would_move_it() -> None:
    weight = torch.nn.Parameter(torch.zeros(64, 16))
    optimiser = Muon([weight], [], lr=0.1, weight_decay=0.0, beta2=0.98)
    weight.grad = numbers(64, 16)
    optimiser.step()
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.1 * 0.2, rel=0.3)
    assert (weight * weight.grad).sum() < 0


def test_the_rest_is_adamw() -> None:
    ours, theirs = (torch.nn.Parameter(numbers(7)) for _ in range(2))
    mine = Muon([], [ours], lr=0.01, weight_decay=0.5, beta2=0.98)
    other = torch.optim.AdamW([theirs], lr=0.01, betas=(0.9, 0.98), weight_decay=0.0)
    for seed in range(5):
        for p, optimiser in ((ours, mine), (theirs, other)):
            p.grad = torch.randn(7, generator=torch.Generator().manual_seed(seed))
            optimiser.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_matrices_decay() -> None:
    weight = torch.nn.Parameter(torch.ones(4, 4))
    optimiser = Muon([weight], [], lr=0.1, weight_decay=0.5, beta2=0.98)
    weight.grad = torch.zeros(4, 4)
    optimiser.step()
    assert torch.allclose(weight, torch.full((4, 4), 0.95))


def test_training_with_it_learns_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    plain = train(tiny(muon=True, steps=80, decay=0.0, dropout=0.0), tmp_path / "plain", quiet=True)
    train(tiny(muon=True, steps=15, decay=0.0, dropout=0.0), tmp_path / "two", quiet=True)
    losses = [line["loss"] for line in log_of(tmp_path / "plain")]
    assert losses[-1] < 0.8 * losses[0]
    two = train(tiny(muon=True, steps=80, decay=0.0, dropout=0.0), tmp_path / "two", quiet=True)
    assert (two / "weights.safetensors").read_bytes() == (plain / "weights.safetensors").read_bytes()
