"""The bound in all its forms: reference values, entropy under the exact law, training losses on average."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from helpers import SMALL_LAWS, Toy, every_sequence, seeded

import unmask
from unmask import laws
from unmask.masking import corruption, enumeration, objectives, schedules
from unmask.masking.enumeration import (
    bound_by_counts,
    bound_by_orders,
    bound_by_subsets,
    continuous_bound,
    discrete_bound,
)

TOY, DATA = Toy(), torch.tensor([[0, 2, 1, 0]])
FORMS = [bound_by_subsets, bound_by_orders, bound_by_counts]
every_form = pytest.mark.parametrize("form", FORMS)


def bayes():
    """The law P(x) ~ exp(3 sin(1 + sum_j (j+1)^2 x_j)) on 3^4."""
    places = torch.arange(1.0, 5, dtype=torch.float64) ** 2
    energy = 3 * torch.sin(1 + every_sequence(TOY, 4).double() @ places)
    return laws.Table(energy.log_softmax(0), 4)


def expected(law, bound):
    """Mean of a bound over the law's own sequences."""
    tokens = every_sequence(law, law.length)
    p = law.log_prob(tokens).exp()
    return float((p * torch.where(p > 0, bound(law, tokens), 0.0)).sum())


def entropy(law):
    p = law.log_prob(every_sequence(law, law.length)).exp()
    return float(torch.special.entr(p).sum())


# Reference values, computed elsewhere by enumeration.


@every_form
def test_three_forms_of_one_bound(form):
    assert form(TOY, DATA).item() == pytest.approx(7.4235647724, abs=1e-10)


@pytest.mark.parametrize(
    "schedule", [schedules.linear(), schedules.cosine(), schedules.polynomial(2.0), schedules.polynomial(0.4)]
)
def test_integrals_over_time_do_not_depend_on_the_schedule(schedule):
    assert continuous_bound(TOY, DATA, schedule).item() == pytest.approx(7.4235647724, abs=1e-10)


@pytest.mark.parametrize("schedule", [schedules.linear(), schedules.cosine(), schedules.polynomial(2.0)])
def test_integrals_by_midpoints_use_the_weight(schedule):
    value = continuous_bound(TOY, DATA, schedule, quadrature=enumeration.midpoints).item()
    assert value == pytest.approx(7.4235647724, abs=2e-8)


def test_geometric_ends_leave_something_out():
    for quadrature in (None, enumeration.midpoints):
        value = continuous_bound(TOY, DATA, schedules.geometric(), quadrature=quadrature).item()
        assert value == pytest.approx(7.4234810309, abs=2e-8 if quadrature else 1e-10)


def test_a_cut_off_loses_what_the_end_terms_add():
    cut = schedules.linear(eps=1e-4)
    value = continuous_bound(TOY, DATA, cut).item()
    assert value == pytest.approx(7.4223274401, abs=1e-10)
    reconstruction, prior = enumeration.end_terms(cut, 4, 3)
    assert reconstruction == pytest.approx(4.394e-4, abs=5e-8)
    assert prior == pytest.approx(4.394e-4, abs=5e-8)
    assert continuous_bound(TOY, DATA, cut, ends=True).item() == pytest.approx(value + reconstruction + prior)
    assert enumeration.end_terms(schedules.linear(), 4, 3) == (0.0, 0.0)


def test_discrete_time_of_the_toy_comes_from_below():
    wanted = {1: 3.999226, 2: 6.020714, 4: 6.799469, 16: 7.282040, 256: 7.415003}
    for steps, value in wanted.items():
        grid = schedules.uniform_grid(steps)
        assert discrete_bound(TOY, DATA, schedules.linear(), grid).item() == pytest.approx(value, abs=1e-6)
    everything = torch.ones_like(DATA, dtype=torch.bool)
    assert objectives.cross_entropies(TOY, DATA, everything).sum().item() == pytest.approx(
        wanted[1], abs=1e-6
    )


def test_discrete_time_of_the_exact_law_comes_from_above():
    law = bayes()
    assert entropy(law) == pytest.approx(3.5561859758, abs=1e-10)
    assert expected(law, bound_by_subsets) == pytest.approx(3.5561859758, abs=1e-10)
    wanted = [4.384180, 4.079965, 3.845521, 3.707715, 3.633666, 3.575878, 3.561129, 3.557423]
    for steps, value in zip((1, 2, 4, 8, 16, 64, 256, 1024), wanted):
        bound = partial(discrete_bound, schedule=schedules.linear(), grid=schedules.uniform_grid(steps))
        assert expected(law, bound) == pytest.approx(value, abs=1e-6)
    assert (value - entropy(law)) * 1024 == pytest.approx(1.267, abs=1e-3)


def test_cosine_grid_under_the_linear_schedule_is_the_cosine_schedule():
    law = bayes()
    for steps in (1, 3, 4, 50):
        linear = schedules.linear().alpha(schedules.cosine_grid(steps))
        cosine = schedules.cosine().alpha(schedules.uniform_grid(steps))
        assert (linear - cosine).abs().max() < 1e-15
    bounds = [
        partial(discrete_bound, schedule=schedules.cosine(), grid=schedules.uniform_grid(4)),
        partial(discrete_bound, schedule=schedules.linear(), grid=schedules.cosine_grid(4)),
    ]
    for bound in bounds:
        assert expected(law, bound) == pytest.approx(3.950976, abs=1e-6)


# Laws.


@pytest.mark.parametrize("name", [n for n in SMALL_LAWS if n != "hamming"])
def test_the_exact_denoiser_pays_the_entropy_and_another_pays_more(name):
    law = SMALL_LAWS[name]()
    smooth = unmask.tempered(law, 1.7)
    for form in FORMS:
        assert expected(law, form) == pytest.approx(entropy(law), abs=1e-9)
        wrong = expected(law, lambda law, tokens, form=form: form(smooth, tokens))
        assert wrong >= entropy(law) - 1e-9
    if name not in ("parity", "repetition", "reed-solomon", "permutation", "one-hot", "latent parity"):
        assert wrong > entropy(law) + 1e-3


@pytest.mark.parametrize("name", ["table", "markov", "balanced", "polya", "mixture", "parity"])
def test_nelbo_of_the_exact_denoiser_is_the_entropy(name):
    law = SMALL_LAWS[name]()
    tokens = law.sample(400, seeded(0))
    estimate = unmask.nelbo(law, tokens, generator=seeded(1), samples=16)
    error = max(float(estimate.value.std()) / 20, 1e-9)
    assert abs(float(estimate.value.mean()) - entropy(law)) < 4 * error
    wrong = unmask.nelbo(unmask.tempered(law, 2.5), tokens, generator=seeded(1), samples=16)
    assert float(wrong.value.mean()) >= float(estimate.value.mean()) - 1e-9


def test_nelbo_is_unbiased_and_knows_its_error():
    tokens = DATA.expand(300, -1)
    estimate = unmask.nelbo(TOY, tokens, generator=seeded(3), samples=8)
    spread = float(estimate.value.std())
    assert estimate.value.dtype == estimate.stderr.dtype == torch.float64
    assert abs(float(estimate.value.mean()) - 7.4235647724) < 4 * spread / math.sqrt(300)
    typical = float(estimate.stderr.square().mean().sqrt())
    assert spread < 1.1 * typical  # on the safe side: it ignores the stratification
    assert spread > 0.3 * typical
    single = unmask.nelbo(TOY, DATA, generator=seeded(3), samples=1)
    assert torch.isfinite(single.value).all()
    assert torch.isnan(single.stderr).all()


def test_the_error_of_two_samples_is_half_their_difference():
    """Two copies: of a masked pair and of one masked symbol the bound says 2 ln q and 0; the error divides by n - 1."""
    law = laws.Repetition(2, 3)
    estimate = unmask.nelbo(law, law.sample(5, seeded(0)), generator=seeded(1), samples=2)
    assert estimate.value == pytest.approx([math.log(3)] * 5, abs=1e-9)
    assert estimate.stderr == pytest.approx([math.log(3)] * 5, abs=1e-9)


def test_nelbo_does_not_score_a_prompt():
    law = bayes()
    tokens = torch.tensor([[0, 2, 1, 0], [1, 1, 2, 0]])
    visible = torch.tensor([[True, False, True, False], [True, True, True, True]])
    estimate = unmask.nelbo(law, tokens, generator=seeded(0), samples=400, visible=visible)
    given = torch.where(visible, tokens, law.mask_id)[:1]
    first, third = law(given)[0, 1, 2], law(given)[0, 3, 0]
    both = law(torch.where(torch.tensor([True, True, True, False]), tokens[:1], 3))[0, 3, 0]
    other = law(torch.where(torch.tensor([True, False, True, True]), tokens[:1], 3))[0, 1, 2]
    exact = -(first + both + third + other) / 2
    assert abs(float(estimate.value[0] - exact)) < 4 * float(estimate.stderr[0]) + 1e-9
    assert estimate.value[1] == estimate.stderr[1] == 0


def test_several_sequences_at_once_are_the_same_as_one_by_one():
    tokens = every_sequence(TOY, 4)[::7]
    for bound in (
        *FORMS,
        partial(discrete_bound, schedule=schedules.linear(), grid=schedules.uniform_grid(3)),
    ):
        apart = torch.cat([bound(TOY, row[None]) for row in tokens])
        assert bound(TOY, tokens) == pytest.approx(apart, abs=1e-12)


def test_chunks_do_not_matter(monkeypatch):
    tokens = every_sequence(TOY, 4)[:5]
    whole = enumeration.subset_losses(TOY, tokens)
    monkeypatch.setattr(enumeration, "_CHUNK", 7)
    assert torch.equal(enumeration.subset_losses(TOY, tokens), whole)


def test_concrete_scores_are_ratios_of_noisy_marginals():
    law, alpha = bayes(), 0.3
    p = law.log_prob(every_sequence(law, 4)).exp().view(3, 3, 3, 3)
    noisy = p
    for axis in range(4):  # each position is masked with probability 1 - alpha
        noisy = torch.cat([alpha * noisy, (1 - alpha) * noisy.sum(axis, keepdim=True)], axis)
    tokens = torch.tensor([[2, 3, 0, 3]])
    scores = objectives.concrete_scores(law(tokens), alpha)
    for place in (1, 3):
        ratios = [
            noisy[tuple(torch.tensor([2, 3, 0, 3]).index_fill(0, torch.tensor(place), j))] for j in range(3)
        ]
        assert scores[0, place].tolist() == pytest.approx([float(r / noisy[2, 3, 0, 3]) for r in ratios])
        assert float(scores[0, place].sum()) == pytest.approx(alpha / (1 - alpha), abs=1e-12)


# Training losses.


def _drawn(kind, rows, generator):
    maskable = torch.ones(rows, 4, dtype=torch.bool)
    grid = schedules.uniform_grid(4)
    return {
        "exact count": lambda: corruption.exact_count(maskable, generator),
        "linear": lambda: corruption.independent(maskable, schedules.linear(), generator),
        "cosine": lambda: corruption.independent(maskable, schedules.cosine(), generator),
        "cut": lambda: corruption.independent(maskable, schedules.linear(eps=1e-4), generator),
        "discrete": lambda: corruption.discrete_time(maskable, schedules.linear(), grid, generator),
        "cosine grid": lambda: corruption.discrete_time(
            maskable, schedules.linear(), schedules.cosine_grid(4), generator
        ),
    }[kind]()


def _truth(kind):
    if kind == "discrete":
        return discrete_bound(TOY, DATA, schedules.linear(), schedules.uniform_grid(4)).item()
    if kind == "cosine grid":
        return discrete_bound(TOY, DATA, schedules.linear(), schedules.cosine_grid(4)).item()
    return 7.4223274401 if kind == "cut" else 7.4235647724


@pytest.mark.parametrize("kind", ["exact count", "linear", "cosine", "cut", "discrete", "cosine grid"])
def test_the_training_loss_estimates_the_bound(kind):
    rows, batches, generator = 500, 40, seeded(1)
    tokens = DATA.expand(rows, -1)
    losses = []
    for _ in range(batches):
        drawn = _drawn(kind, rows, generator)
        logits = TOY(drawn.apply(tokens, TOY.mask_id))
        losses.append(4 * objectives.masked_cross_entropy(logits, tokens, drawn.masked, drawn.weight))
    losses = torch.stack(losses).double()
    error = float(losses.std()) / math.sqrt(batches)
    assert abs(float(losses.mean()) - _truth(kind)) < 4 * error + 1e-5


def test_visible_positions_cost_nothing():
    generator = seeded(0)
    logits = torch.randn(5, 4, 3, generator=generator)
    tokens = torch.randint(3, (5, 4), generator=generator)
    drawn = corruption.exact_count(torch.ones(5, 4, dtype=torch.bool), generator)
    loss = partial(objectives.masked_cross_entropy, tokens=tokens, masked=drawn.masked, weight=drawn.weight)
    changed = logits + 9 * torch.randn(5, 4, 3, generator=generator) * ~drawn.masked[..., None]
    assert loss(logits) == loss(changed)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits), logits)
    assert (gradient[~drawn.masked] == 0).all()
    assert (gradient[drawn.masked] != 0).all()


def test_the_loss_is_the_same_for_any_split_into_micro_batches():
    generator = seeded(0)
    logits = torch.randn(12, 4, 3, generator=generator)
    tokens = torch.randint(3, (12, 4), generator=generator)
    drawn = corruption.exact_count(torch.ones(12, 4, dtype=torch.bool), generator)
    whole = objectives.masked_cross_entropy(logits, tokens, drawn.masked, drawn.weight)
    for size in (1, 3, 4):
        parts = zip(*(x.split(size) for x in (logits, tokens, drawn.masked, drawn.weight)))
        assert sum(objectives.masked_cross_entropy(*p) for p in parts) * size / 12 == pytest.approx(whole)


def test_cross_entropies_are_those_of_the_masked_positions():
    masked = torch.tensor([[True, False, True, False], [False, False, False, True]])
    tokens = torch.tensor([[0, 2, 1, 0], [1, 1, 2, 0]])
    losses = objectives.cross_entropies(TOY, tokens, masked)
    log_probs = TOY(tokens.masked_fill(masked, 3))
    assert losses == pytest.approx(
        torch.where(masked, -log_probs.gather(-1, tokens[..., None])[..., 0], 0.0), abs=1e-12
    )


BAD = {
    "long": (
        lambda: bound_by_subsets(TOY, torch.zeros(1, 17).long()),
        r"length 17: expected 1..16.*use unmask.nelbo",
    ),
    "long orders": (lambda: bound_by_orders(TOY, torch.zeros(1, 9).long()), r"length 9: expected 1..8"),
    "masks": (
        lambda: bound_by_counts(TOY, torch.tensor([[0, 3]])),
        r"token 3 at row 0, position 1; expected symbols 0..2, no masks",
    ),
    "dtype": (lambda: bound_by_counts(TOY, torch.zeros(1, 4)), r"dtype torch.float32.*expected int64"),
    "samples": (
        lambda: unmask.nelbo(TOY, DATA, generator=seeded(0), samples=0),
        r"samples 0: expected a whole number of at least 1",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
