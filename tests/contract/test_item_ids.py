"""Noise belongs to items, not to places in a batch: how a set is cut into batches changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import unmask
from unmask import laws, scores, selectors
from unmask.kernels import commit, remask
from unmask.masking import schedules
from unmask.variants import genmd4, upscale

CHAIN = laws.Markov([0.2, 0.5, 0.3], [[0.7, 0.2, 0.1], [0.05, 0.15, 0.8], [0.5, 0.1, 0.4]], 6)
COUNT = 7


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def in_batches(work: Callable[[Tensor], Tensor], size: int) -> Tensor:
    """What ``work`` gives for items 0..6, in batches of ``size``."""
    return torch.cat([work(ids) for ids in torch.split(torch.arange(COUNT), size)])


def masked(ids: Tensor) -> Tensor:
    return torch.full((len(ids), 6), CHAIN.mask_id)


def drawn(ids: Tensor) -> Tensor:
    order = selectors.top_k(scores.at_random(3), 2)
    return unmask.sample(CHAIN, masked(ids), order, generator=generator(), order_ids=ids, item_ids=ids).tokens


def committed(ids: Tensor) -> Tensor:
    rule = commit.maskgit(2.0, 2)
    return commit.sample(CHAIN, masked(ids), rule, generator=generator(), item_ids=ids).tokens


def remasked(ids: Tensor) -> Tensor:
    kernels = [
        *remask.remdm(schedules.linear().alpha, schedules.uniform_grid(4), remask.cap(0.2)),
        remask.gibbs(),
    ]
    return remask.sample(CHAIN, masked(ids), kernels, generator=generator(), item_ids=ids).tokens


TRUTH = CHAIN.sample(COUNT, torch.Generator().manual_seed(0))


def bound(ids: Tensor) -> Tensor:
    found = unmask.nelbo(CHAIN, TRUTH[ids], generator=generator(), samples=3, item_ids=ids)
    return torch.stack([found.value, found.stderr], 1)


def timed_bound(ids: Tensor) -> Tensor:
    powers = torch.tensor([0.5, 1.0, 2.0])
    return genmd4.nelbo(CHAIN, TRUTH[ids], powers, generator=generator(), samples=3, item_ids=ids).value


def staged_bound(ids: Tensor) -> Tensor:
    return upscale.nelbo(CHAIN, TRUTH[ids], 2, generator=generator(), samples=3, item_ids=ids).value


WORKS = [drawn, committed, remasked, bound, timed_bound, staged_bound]


@pytest.mark.parametrize("work", WORKS, ids=lambda w: w.__name__)
@pytest.mark.parametrize("size", [1, 3])
def test_batches_change_nothing(work: Callable[[Tensor], Tensor], size: int) -> None:
    torch.testing.assert_close(in_batches(work, size), in_batches(work, COUNT), rtol=1e-13, atol=0)


@pytest.mark.parametrize("work", WORKS, ids=lambda w: w.__name__)
def test_a_row_follows_its_id_and_not_its_place(work: Callable[[Tensor], Tensor]) -> None:
    turned = torch.tensor([5, 0, 6, 2, 1, 3, 4])
    torch.testing.assert_close(work(turned), work(torch.arange(COUNT))[turned], rtol=1e-13, atol=0)


@pytest.mark.parametrize("work", WORKS, ids=lambda w: w.__name__)
def test_items_have_noise_of_their_own(work: Callable[[Tensor], Tensor]) -> None:
    """The same item id twice gives the same, other ids give others: a mere constant would pass the tests above."""
    truth = TRUTH.clone()
    TRUTH[:] = TRUTH[0]
    try:
        same, other = work(torch.zeros(COUNT, dtype=torch.int64)), work(torch.arange(COUNT))
    finally:
        TRUTH.copy_(truth)
    assert (same == same[0]).all()
    assert not (other == other[0]).all()


def test_ids_default_to_places() -> None:
    order = selectors.top_k(scores.at_random(3), 2)
    plain = unmask.sample(CHAIN, masked(torch.arange(COUNT)), order, generator=generator())
    assert torch.equal(plain.tokens, drawn(torch.arange(COUNT)))


@pytest.mark.parametrize("ids", [torch.tensor([0, 1]), torch.arange(COUNT).float(), -torch.arange(COUNT)])
def test_other_ids_are_refused(ids: Tensor) -> None:
    order = selectors.top_k(scores.margin, 1)
    with pytest.raises(ValueError, match=r"^item_ids have dtype .* expected int64 \[7\]"):
        unmask.sample(CHAIN, masked(torch.arange(COUNT)), order, generator=generator(), item_ids=ids)
