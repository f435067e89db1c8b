"""Upscale ARDM: stages of one law, digits that sum to one, and draws that follow their likelihood."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers import chi_square_z, seeded
from torch import Tensor, nn

import unmask
from unmask import plans, profiles, scores, selectors
from unmask.masking import corruption, enumeration
from unmask.networks import Transformer, UNet, UNetConfig
from unmask.variants import upscale

SHAPES = [(256, 2), (256, 4), (256, 16), (27, 2), (10, 3)]
every_shape = pytest.mark.parametrize(("levels", "base"), [*SHAPES, (256, 256), (5, 3), (2, 2), (1000, 10)])
LAWS = {"levels": upscale.from_levels, "digits": upscale.from_digits}
every_law = pytest.mark.parametrize("law", LAWS)


class Waves(nn.Module):
    """A staged network of fixed numbers: every logit depends on all levels, on the mask and on the stage."""

    def __init__(self, outputs: int, scale: float = 2.0) -> None:
        super().__init__()
        self.outputs, self.scale = outputs, scale

    def staged(self, levels: Tensor, masked: Tensor, stage: Tensor, rows: Tensor | None = None) -> Tensor:
        place = torch.arange(1, levels.shape[1] + 1, dtype=torch.float64)
        seen = (place * (levels + 7 * masked + 1)).sum(1) + 3 * stage
        symbol = torch.arange(2, self.outputs + 2, dtype=torch.float64)
        logits = self.scale * torch.sin(place[:, None] * symbol + seen[:, None, None])
        return logits if rows is None else logits.gather(1, rows[..., None].expand(-1, -1, self.outputs))


def small(levels: int, base: int, law: str = "levels") -> unmask.Denoiser:
    outputs = levels if law == "levels" else upscale.stages(base, levels) * base
    return upscale.upscaled(Waves(outputs), base, levels, LAWS[law])


def every_image(levels: int, length: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(levels), repeat=length)))


def in_order(length: int, plan: int = 1) -> unmask.Selector:
    return selectors.in_blocks(selectors.top_k(scores.left_to_right, plan), length)


def by_confidence(length: int, plan: int = 1) -> unmask.Selector:
    return selectors.in_blocks(selectors.top_k(scores.confidence, plan), length)


# --- digits ---------------------------------------------------------------------------------------


@every_shape
def test_digits_are_inverted_and_come_coarsest_first(levels, base):
    values = torch.arange(levels)[None].flip(1)
    digits = upscale.encode_digits(values, base, levels)
    count = upscale.stages(base, levels)
    assert digits.shape == (1, count * levels)
    assert base ** (count - 1) < levels <= base**count
    assert digits.min() >= 0
    assert digits.max() < base
    assert torch.equal(upscale.decode_digits(digits, base, levels), values)
    by_hand = [[x // base ** (count - s) % base for x in values[0].tolist()] for s in range(1, count + 1)]
    assert digits.view(count, levels).tolist() == by_hand


def test_the_number_of_stages_is_exact_for_large_powers():
    assert upscale.stages(3, 3**25) == 25
    assert upscale.stages(3, 3**25 + 1) == 26
    assert upscale.stages(10, 1000) == 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: upscale.stages(1, 4), "at least 2"),
        (lambda: upscale.encode_digits(torch.tensor([[0, 5]]), 2, 5), "expected 0..4"),
        (lambda: upscale.decode_digits(torch.tensor([[1, 1, 1]]), 2, 5), "no level in 0..4"),
        (lambda: upscale.decode_digits(torch.tensor([[1, 2, 1]]), 2, 8), "none masked"),
        (lambda: upscale.decode_digits(torch.tensor([[1, 0]]), 2, 8), "3 stages"),
        (lambda: upscale.at_stage(small(4, 2), torch.zeros(1, 4).long(), 3, 2), "expected 1..2"),
        (
            lambda: upscale.stage_by_stage(
                [selectors.first_hitting(unmask.masking.schedules.linear(), 0)], 2
            ),
            "keeps time",
        ),
    ],
)
def test_errors_say_what_was_expected(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_situation_is_levels_mask_parent_and_stage():
    """K = 27, b = 3; 25 = 221, 13 = 111, 4 = 011, mask 3."""
    digits = torch.tensor(
        [
            [2, 1, 0, 2, 3, 3, 3, 3, 3],  # the second stage, one digit known
            [3, 3, 1, 3, 3, 3, 3, 3, 3],  # the first
            [2, 1, 0, 2, 1, 1, 1, 1, 1],  # finished
            [2, 3, 0, 2, 1, 1, 1, 1, 1],  # a prompt's finer digits are not looked at
        ]
    )
    now = upscale.situation(digits, 3, 27)
    assert now.stage.tolist() == [2, 1, 3, 1]
    assert now.levels.tolist() == [[24, 9, 0], [0, 0, 9], [25, 13, 4], [18, 0, 0]]
    assert now.parent.tolist() == [[18, 9, 0], [0, 0, 0], [24, 12, 3], [0, 0, 0]]
    assert now.masked.tolist() == [
        [False, True, True],
        [True, True, False],
        [False] * 3,
        [False, True, False],
    ]


# --- parametrisations -----------------------------------------------------------------------------


@pytest.mark.parametrize(("levels", "base"), SHAPES)
def test_the_stages_of_one_theta_telescope(levels, base):
    count, values = upscale.stages(base, levels), torch.arange(levels)
    logits = 5 * torch.randn(levels, levels, generator=seeded(levels + base), dtype=torch.float64)
    total = torch.zeros(levels, dtype=torch.float64)
    for s in range(1, count + 1):
        coarse = base ** (count - s + 1)
        digit = values // base ** (count - s) % base
        law = upscale.from_levels(logits, values // coarse * coarse, torch.full_like(values, s), base, levels)
        total -= law.gather(-1, digit[:, None])[:, 0]
    expected = -logits.log_softmax(-1).diagonal()
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-10)


@every_law
@pytest.mark.parametrize(("levels", "base"), [(27, 2), (10, 3), (16, 4)])
def test_children_beyond_the_last_level_are_impossible_and_the_others_are_not(law, levels, base):
    """However unlikely a child is: no floors, no truncation."""
    count = upscale.stages(base, levels)
    outputs = levels if law == "levels" else count * base
    logits = (1000 * torch.randn(1, outputs, generator=seeded(1), dtype=torch.float32)).requires_grad_()
    for s in range(1, count + 1):
        coarse, step = base ** (count - s + 1), base ** (count - s)
        for parent in range(0, levels, coarse):
            got = LAWS[law](logits, torch.tensor([parent]), torch.tensor([s]), base, levels)[0]
            exists = torch.arange(base) * step + parent < levels
            assert torch.equal(got.isfinite(), exists)
            assert (got[~exists] == -torch.inf).all()
            assert float(got.detach().exp().sum()) == pytest.approx(1, abs=1e-5)
            (slope,) = torch.autograd.grad(got[0], logits)
            assert slope.isfinite().all()


@every_law
def test_one_stage_is_plain_order_agnostic_diffusion(law):
    """S = 1: the digits are the levels, and so are the losses, the training weights and the law."""
    plain = unmask.from_logits(
        lambda tokens, rows=None: Waves(5).staged(
            tokens.masked_fill(tokens == 5, 0), tokens == 5, torch.ones(len(tokens), dtype=torch.int64), rows
        ),
        5,
        5,
    )
    ours, images = small(5, 5, law), every_image(5, 2)
    assert torch.equal(upscale.encode_digits(images, 5, 5), images)
    selector = in_order(2)
    torch.testing.assert_close(
        unmask.log_likelihood(ours, images, selector), unmask.log_likelihood(plain, images, selector)
    )
    both = [f(ours, images) for f in (enumeration.bound_by_counts, enumeration.bound_by_orders)]
    torch.testing.assert_close(*both)
    maskable = torch.ones(8, 6, dtype=torch.bool)
    a, b = upscale.in_one_stage(1)(maskable, seeded(0)), corruption.exact_count(maskable, seeded(0))
    assert torch.equal(a.masked, b.masked)
    torch.testing.assert_close(a.weight, b.weight)


# --- the law over digits --------------------------------------------------------------------------

CASES = [(4, 2, 2), (5, 2, 2), (4, 2, 3), (5, 3, 2)]


@every_law
@pytest.mark.parametrize(("levels", "base", "length"), CASES)
@pytest.mark.parametrize("selector", [in_order, by_confidence])
@pytest.mark.parametrize("plan", [1, 2])
def test_probabilities_of_all_images_sum_to_one(law, levels, base, length, selector, plan):
    denoiser, images = small(levels, base, law), every_image(levels, length)
    digits = upscale.encode_digits(images, base, levels)
    total = unmask.log_likelihood(denoiser, digits, selector(length, plan)).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-9)


@every_law
@pytest.mark.parametrize(("levels", "base", "length"), CASES)
def test_the_likelihood_is_the_sum_of_the_stages(law, levels, base, length):
    denoiser = small(levels, base, law)
    digits = upscale.encode_digits(every_image(levels, length), base, levels)
    count = upscale.stages(base, levels)
    parts = [
        unmask.log_likelihood(
            *upscale.at_stage(denoiser, digits, s, count), selectors.top_k(scores.left_to_right, 1)
        )
        for s in range(1, count + 1)
    ]
    whole = unmask.log_likelihood(denoiser, digits, in_order(length))
    torch.testing.assert_close(torch.stack(parts).sum(0), whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("selector", [in_order, by_confidence])
@pytest.mark.parametrize(("levels", "base"), [(5, 2), (5, 3)])
def test_draws_follow_the_likelihood_and_impossible_children_never_come(selector, levels, base):
    denoiser, images = small(levels, base), every_image(levels, 2)
    digits = upscale.encode_digits(images, base, levels)
    hidden = torch.full((8_000, digits.shape[1]), base)
    order = torch.zeros(len(hidden), dtype=torch.int64)
    drawn = unmask.sample(denoiser, hidden, selector(2), generator=seeded(3), order_ids=order).tokens
    values = upscale.decode_digits(drawn, base, levels)  # an error for a level that is none
    counts = torch.bincount(values[:, 0] * levels + values[:, 1], minlength=levels**2)
    probs = unmask.log_likelihood(denoiser, digits, selector(2)).exp()
    assert abs(chi_square_z(counts, probs)) < 4


def test_one_call_is_spent_on_every_step_of_every_stage():
    denoiser = small(27, 3)
    hidden = torch.full((2, 3 * 4), 3)
    result = unmask.sample(denoiser, hidden, in_order(4, 2), generator=seeded(0))
    assert result.nfe.tolist() == [6, 6]
    assert [sorted(i.rows[0].tolist()) for i in result.trace] == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
        [8, 9],
        [10, 11],
    ]


def test_rows_are_the_same_rows_of_all_and_others_are_uniform():
    denoiser = small(10, 3)
    digits = upscale.encode_digits(torch.tensor([[7, 2, 9, 0], [1, 1, 1, 1]]), 3, 10)
    digits[0, 5:], digits[1, [4, 6, 8, 9, 10, 11]] = 3, 3  # both in the second of three stages
    everywhere = denoiser(digits)
    torch.testing.assert_close(everywhere.exp().sum(-1), torch.ones(2, 12).double())
    rows = torch.tensor([[6, 1, 5, 11, 0], [4, 6, 8, 10, 2]])
    torch.testing.assert_close(
        denoiser(digits, rows), everywhere.gather(1, rows[..., None].expand(-1, -1, 3))
    )
    torch.testing.assert_close(denoiser(digits, rows[:, :2]), denoiser(digits, rows)[:, :2])
    outside = torch.cat([everywhere[:, :4], everywhere[:, 8:]], dim=1)
    torch.testing.assert_close(outside.exp(), torch.full_like(outside, 1 / 3))
    assert (everywhere[:, 4:8].exp() - 1 / 3).abs().max() > 0.1


def test_an_impossible_coarse_level_is_an_error():
    with pytest.raises(ValueError, match="in_blocks"):
        small(5, 2)(torch.tensor([[1, 0, 1, 0, 2, 2]]))


def test_a_plan_for_each_stage():
    denoiser = small(9, 3)
    digits = upscale.encode_digits(every_image(9, 3)[::7], 3, 9)
    left = selectors.top_k(scores.left_to_right, (1, 2)), selectors.top_k(scores.left_to_right, (2, 1))
    selector = upscale.stage_by_stage(left, 3)
    assert selector.blind
    hidden = torch.full((5, 6), 3)
    trace = unmask.sample(denoiser, hidden, selector, generator=seeded(0)).trace
    assert [i.rows[0].tolist() for i in trace] == [[0], [1, 2], [3, 4], [5]]
    same = upscale.stage_by_stage([selectors.top_k(scores.confidence, 2)] * 2, 3)
    torch.testing.assert_close(
        unmask.log_likelihood(denoiser, digits, same),
        unmask.log_likelihood(denoiser, digits, by_confidence(3, 2)),
    )
    uneven = torch.where(torch.arange(5)[:, None] < 2, 3, digits[:5])  # batch rows at different stages
    uneven[2:, 3:] = 3
    result = unmask.sample(denoiser, uneven, selector, generator=seeded(0))
    assert result.nfe.tolist() == [4, 4, 2, 2, 2]


# --- bounds and training --------------------------------------------------------------------------


def bounds_by_hand(denoiser, digits: Tensor, count: int) -> Tensor:
    """Sum over stages and non-empty sets M of the stage's digits of CE(M) / (|M| C(N, |M|)), by lists."""
    length = digits.shape[1] // count
    total = torch.zeros(len(digits), dtype=torch.float64)
    for s in range(count):
        for size in range(1, length + 1):
            sets = list(itertools.combinations(range(length), size))
            for members in sets:
                x = digits.clone()
                x[:, (s + 1) * length :] = denoiser.mask_id
                places = [s * length + i for i in members]
                x[:, places] = denoiser.mask_id
                law = denoiser(x)[:, places].gather(-1, digits[:, places, None])[..., 0]
                total -= law.double().sum(1) / (size * len(sets))
    return total


def test_nelbo_is_the_sum_of_the_stages_bounds():
    denoiser, digits = small(5, 2), upscale.encode_digits(every_image(5, 2)[::3], 2, 5)
    estimate = upscale.nelbo(denoiser, digits, 3, generator=seeded(0), samples=150)
    exact = bounds_by_hand(denoiser, digits, 3)
    assert ((estimate.value - exact).abs() < 4 * estimate.stderr + 1e-9).all()
    assert (estimate.stderr < 0.4).all()


def test_the_bound_of_an_exact_law_is_its_entropy():
    """With independent positions the order does not matter: every stage knows its conditional law."""
    theta = torch.tensor([0.4, 0.1, 0.05, 0.25, 0.2], dtype=torch.float64)

    class Same(nn.Module):
        def staged(self, levels, masked, stage, rows=None):
            return theta.log().expand(len(levels), levels.shape[1] if rows is None else rows.shape[1], 5)

    denoiser, images = upscale.upscaled(Same(), 2, 5), every_image(5, 3)
    digits = upscale.encode_digits(images, 2, 5)
    estimate = upscale.nelbo(denoiser, digits, 3, generator=seeded(0), samples=16)
    truth = -theta.log()[images].sum(1)
    # a stage's loss is a mean over sets, so it varies; its expectation is exact
    exact = bounds_by_hand(denoiser, digits, 3)
    torch.testing.assert_close(exact, truth)
    assert float((estimate.value - truth).mean().abs()) < 0.1


def test_the_training_loss_estimates_the_bound():
    images = torch.tensor([[4, 2], [0, 3]])
    digits = upscale.encode_digits(images, 2, 5).repeat(2000, 1)
    network = upscale.Upscaled(Waves(5), 2, 5)
    drawn = upscale.in_one_stage(3)(torch.ones_like(digits, dtype=torch.bool), seeded(1))
    got = upscale.loss(network, digits, drawn.masked, drawn.weight) * 2
    exact = bounds_by_hand(small(5, 2), digits[:2], 3).mean()
    assert float(got) == pytest.approx(float(exact), rel=0.05)


def test_training_masks_one_stage_and_all_finer_ones():
    maskable = torch.ones(120, 4 * 5, dtype=torch.bool)
    drawn = upscale.in_one_stage(4)(maskable, seeded(0))
    masked = drawn.masked.view(120, 4, 5)
    stage = masked.any(2).long().argmax(1)
    assert torch.bincount(stage).tolist() == [30] * 4
    for row, s in enumerate(stage.tolist()):
        assert masked[row, s + 1 :].all()
        assert float(drawn.weight[row]) == pytest.approx(4 * 5 / int(masked[row, s].sum()))
    counts = masked.gather(1, stage[:, None, None].expand(-1, 1, 5)).sum(2)[:, 0]
    assert torch.bincount(stage * 5 + counts - 1).tolist() == [6] * 20


def test_each_stage_has_a_profile():
    """Independent positions: a stage's profile is flat, at the entropy of its digit given coarser ones."""
    theta = torch.tensor([0.5, 0.1, 0.1, 0.3], dtype=torch.float64)

    class Same(nn.Module):
        def staged(self, levels, masked, stage, rows=None):
            return theta.log().expand(len(levels), levels.shape[1] if rows is None else rows.shape[1], 4)

    images = torch.multinomial(theta.float(), 3000, replacement=True, generator=seeded(0)).view(-1, 3)
    digits = upscale.encode_digits(images, 2, 4)
    first, second = upscale.measure(upscale.upscaled(Same(), 2, 4), digits, 2, generator=seeded(1), rounds=3)
    coarse = torch.tensor([0.6, 0.4], dtype=torch.float64)
    entropy = float(torch.special.entr(coarse).sum())
    rest = float(torch.special.entr(theta).sum()) - entropy
    assert abs(first.entropies - entropy).max() < 0.05
    assert abs(second.entropies - rest).max() < 0.05
    assert len(plans.optimal(profiles.smooth(first), steps=2)) == 2


# --- networks -------------------------------------------------------------------------------------


@pytest.mark.global_random
def test_a_transformer_and_a_u_net_serve_as_staged_networks():
    images = torch.randint(10, (3, 16), generator=seeded(0))
    digits = upscale.encode_digits(images, 3, 10)
    transformer = upscale.StagedTokens(Transformer(2 * 10 * 3, 16, 16, 1, 2), 10)
    unet = UNet(UNetConfig(10, 4, 4, features=16, blocks=1, heads=2, stages=3))
    for network in (transformer, unet):
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.3, generator=seeded(parameter.numel()))
        denoiser = upscale.upscaled(network, 3, 10)
        assert unmask.log_likelihood(denoiser, digits, in_order(16, 8)).isfinite().all()
        drawn = unmask.sample(
            denoiser, torch.full_like(digits, 3), in_order(16, 8), generator=seeded(1)
        ).tokens
        upscale.decode_digits(drawn, 3, 10)
        hidden = upscale.situation(digits.masked_fill(torch.arange(48) > 20, 3), 3, 10)
        told = network.staged(hidden.levels, hidden.masked, hidden.stage)
        assert (network.staged(hidden.levels, ~hidden.masked, hidden.stage) - told).abs().max() > 1e-3
        assert (network.staged(hidden.levels, hidden.masked, hidden.stage + 1) - told).abs().max() > 1e-3
        moved = network.staged((hidden.levels + 1) % 10, hidden.masked, hidden.stage)
        assert (moved - told).abs().max() > 1e-3


def test_a_stage_belongs_to_its_batch_rows():
    denoiser, digits = small(5, 2), upscale.encode_digits(every_image(5, 2)[::5], 2, 5)
    stage, own = upscale.at_stage(denoiser, digits, 2, 3)
    assert torch.equal(own, digits[:, 2:4])
    with pytest.raises(ValueError, match="same batch rows"):
        stage(own[:2])
