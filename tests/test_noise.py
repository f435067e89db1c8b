"""Counter-based random numbers against published vectors, and draws from a large vocabulary."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import chi_square_z
from scipy import stats

from unmask import selectors
from unmask.base import noise
from unmask.base.types import Request, View
from unmask.masking import schedules
from unmask.orders import sources

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "wanted"),
    [
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([ONES] * 4, [ONES] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, wanted):
    words = noise.philox(tuple(np.array([c], dtype=np.uint64) for c in counter), tuple(key))
    assert " ".join(f"{int(word[0]):08x}" for word in words) == wanted


def numbers(count, **more):
    arguments = {"seed": 5, "stream": noise.ORDER, "second": torch.tensor(3)} | more
    return noise.uniform(arguments.pop("seed"), arguments.pop("stream"), torch.arange(count), **arguments)


def test_uniforms_are_uniform_and_have_all_their_bits():
    u = numbers(20000)
    assert u.dtype == torch.float64
    assert stats.kstest(u.numpy(), "uniform").pvalue > 1e-4
    scaled = u * 2**53
    assert (scaled % 2 == 1).all()  # odd multiples of 2^-53
    assert (u.float().double() != u).double().mean() > 0.99
    low = torch.remainder(u * 2**40, 1)  # what is left after 40 bits is uniform as well
    assert stats.kstest(low.numpy(), "uniform").pvalue > 1e-4


def test_uniforms_reach_neither_zero_nor_one(monkeypatch):
    for word, wanted in ((ONES, 1 - 2.0**-53), (0, 2.0**-53)):
        monkeypatch.setattr(noise, "philox", lambda *_, word=word: (np.array([word], dtype=np.uint64),) * 4)
        monkeypatch.setattr(noise, "_FEW", 0)  # by arrays
        u = noise.uniform(0, 0, torch.tensor([0]), torch.tensor([0]))
        assert u.tolist() == [wanted]
        assert torch.isfinite(noise.gumbel(0, 0, torch.tensor([0]), torch.tensor([0]))).all()
        if word == ONES:
            assert float(noise.gumbel(0, 0, torch.tensor([0]), torch.tensor([0]))) == pytest.approx(
                36.7368, abs=1e-4
            )


def test_every_argument_gives_unrelated_numbers():
    base = numbers(3000)
    for other in (
        numbers(3000, seed=6),
        numbers(3000, seed=5 + 2**32),
        numbers(3000, stream=noise.SYMBOL),
        numbers(3000, second=torch.tensor(4)),
        numbers(3000, third=1),
        noise.uniform(5, noise.ORDER, torch.tensor(4), torch.arange(3000)),
    ):
        assert not (base == other).any()
        assert abs(np.corrcoef(base, other)[0, 1]) < 4 / math.sqrt(3000)


def test_a_number_depends_on_its_own_place_only():
    grid = noise.uniform(1, 2, torch.arange(9)[:, None], torch.arange(7), 3)
    assert grid.shape == (9, 7)
    assert torch.equal(grid[4:6, 2:], noise.uniform(1, 2, torch.arange(4, 6)[:, None], torch.arange(2, 7), 3))


def test_gumbel_noise_has_its_law():
    g = noise.gumbel(5, noise.ORDER, torch.arange(20000), torch.tensor(0))
    assert stats.kstest(g.numpy(), "gumbel_r").pvalue > 1e-4


# Fifty thousand symbols.

VOCAB = 50257
ZIPF = 1 / torch.arange(1, VOCAB + 1, dtype=torch.float64)
ZIPF /= ZIPF.sum()


def capped_gumbel_argmax(probs, cap):
    """Law of the arg-max of ln p + Gumbel noise that cannot exceed ``cap`` (arXiv 2409.02908)."""
    order = np.argsort(probs, kind="stable")
    p, left = probs[order], len(probs) - np.arange(len(probs))
    tail, rare = p[::-1].cumsum()[::-1], math.exp(-cap)
    upper = np.exp((left - tail / p) * rare)
    lower = np.exp((left[1:] - tail[1:] / p[:-1]) * rare)
    share = (upper - np.concatenate([[0.0], lower])) / tail
    law = np.empty_like(p)
    law[order] = p * share.cumsum()
    return law


def entropy_of(probs):
    return float(stats.entropy(probs))


CAP32 = -math.log(-math.log1p(-(2.0**-24)))
"""The largest Gumbel noise that a float32 uniform gives."""


def test_the_closed_form_of_truncated_noise_is_what_simulation_gives():
    rng = np.random.default_rng(0)
    probs = np.array([0.05, 0.1, 0.2, 0.25, 0.4])
    law = capped_gumbel_argmax(probs, 1.5)
    assert law.sum() == pytest.approx(1, abs=1e-12)
    u = rng.random((200_000, 5)) * math.exp(-math.exp(-1.5))
    picks = (np.log(probs) - np.log(-np.log(u))).argmax(1)
    assert chi_square_z(torch.from_numpy(np.bincount(picks, minlength=5)), torch.from_numpy(law)) < 4
    assert capped_gumbel_argmax(probs, 40.0) == pytest.approx(probs, abs=1e-12)


def test_single_draws_in_float32_would_distort_both_place_and_symbol():
    assert pytest.approx(16.6355, abs=1e-4) == CAP32
    assert entropy_of(ZIPF) == pytest.approx(7.57, abs=0.005)
    wanted = {
        64: (0.01374, 6.90),
        256: (2.97e-3, 6.13),
        1024: (6.23e-4, 5.31),
        4096: (1.26e-4, 4.46),
        16384: (2.41e-5, 3.60),
    }
    for steps, (moved, entropy) in wanted.items():
        law = capped_gumbel_argmax(np.append(ZIPF.numpy() / steps, 1 - 1 / steps), CAP32)[:-1]
        assert law.sum() == pytest.approx(moved, rel=2e-3)
        assert entropy_of(law) == pytest.approx(entropy, abs=0.005)


def test_ancestral_unmasks_one_in_a_thousand_whatever_the_vocabulary():
    steps, rows, length = 1024, 2000, 1024
    selector = selectors.ancestral(schedules.linear(), schedules.uniform_grid(steps), 1)
    tokens = torch.full((rows, length), VOCAB)
    view = View(tokens, torch.ones(rows, length, dtype=torch.bool), order_ids=torch.arange(rows))
    count, p = rows * length, 1 / steps
    moved = int((selector(view).rows >= 0).sum())
    error = math.sqrt(p * (1 - p) / count)
    assert abs(moved / count - p) < 4 * error
    assert abs(moved / count - 6.23e-4) > 4 * error  # what float32 noise would give: the test could see it


def test_draws_from_fifty_thousand_symbols_have_the_right_law():
    count, part = 4000, 250
    law = ZIPF.log().expand(1, part, VOCAB)
    drawn = torch.cat([sources.draw(_request(law, first)) for first in range(0, count, part)], 1)[0]
    surprise = -ZIPF.log()[drawn]
    error = float(surprise.std()) / math.sqrt(count)
    assert abs(float(surprise.mean()) - entropy_of(ZIPF)) < 4 * error
    edges = torch.tensor([1, 3, 10, 30, 100, 300, 1000, 3000, 10000, 30000])
    bins = torch.bucketize(torch.arange(VOCAB), edges, right=True)
    seen = torch.bincount(bins[drawn], minlength=11)
    assert chi_square_z(seen, torch.bincount(bins, weights=ZIPF)) < 4
    capped = capped_gumbel_argmax(np.append(ZIPF.numpy() / 1024, 1 - 1 / 1024), CAP32)[:-1]
    assert chi_square_z(seen, torch.bincount(bins, weights=torch.from_numpy(capped))) > 4
    assert abs(float(surprise.mean()) - entropy_of(capped)) > 4 * error


def _request(law, first):
    rows = torch.arange(first, first + law.shape[1])[None]
    return Request(law, rows, torch.ones_like(rows, dtype=torch.bool), torch.tensor([0]), 0, 7)


def test_draws_never_take_an_impossible_symbol(monkeypatch):
    law = torch.tensor(
        [[[-torch.inf, math.log(0.5), -torch.inf, math.log(0.5), -torch.inf]]], dtype=torch.float64
    )
    for u, wanted in ((2.0**-53, 1), (0.5, 3), (1 - 2.0**-53, 3)):
        monkeypatch.setattr(noise, "uniform", lambda *_, u=u: torch.tensor([[u]], dtype=torch.float64))
        assert sources.draw(_request(law, 0)).tolist() == [[wanted]]


def test_draws_keep_probabilities_that_float32_cannot_tell_from_zero(monkeypatch):
    rare = 1e-12
    law = torch.tensor([[[math.log1p(-rare), math.log(rare)]]], dtype=torch.float64)
    monkeypatch.setattr(noise, "uniform", lambda *_: torch.tensor([[1 - rare / 2]], dtype=torch.float64))
    assert sources.draw(_request(law, 0)).tolist() == [[1]]


def test_memory_layout_does_not_matter():
    law = torch.arange(15.0, dtype=torch.float64).view(1, 3, 5).sin().log_softmax(-1)
    turned = law.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(sources.draw(_request(turned, 0)), sources.draw(_request(law, 0)))


def test_drawing_needs_a_seed():
    request = Request(
        ZIPF.log().expand(1, 1, VOCAB), torch.zeros(1, 1).long(), None, torch.tensor([0]), 0, None
    )
    with pytest.raises(ValueError, match=r"drawing needs a seed; call unmask.sample"):
        sources.draw(request)


@pytest.mark.parametrize("third", [0, 7, 2**32 - 1])
@pytest.mark.parametrize("seed", [0, 5, 2**64 - 1])
def test_three_ways_to_the_same_integers(seed, third):
    """One by one, by arrays, and by a device's signed 64-bit integers, which wrap."""
    first = torch.tensor([[0], [1], [77], [2**31], [2**32 - 1]])
    second = torch.tensor([[-1, 0, 1, 5, 2**16, 2**32 - 2]])
    whole = noise.uniform(seed, noise.SYMBOL, first, second, third)
    key = (seed % 2**32, seed // 2**32)
    for i, j in itertools.product(range(5), range(6)):
        one = noise.uniform(seed, noise.SYMBOL, first[i : i + 1], second[:, j : j + 1], third)
        assert one.shape == (1, 1)
        assert one.item() == whole[i, j].item()
    assert torch.equal(noise._on_device(first, second, (third, noise.SYMBOL), key), whole)
    assert whole.numel() > noise._FEW
