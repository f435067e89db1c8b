"""Re-masking kernels against exact transition matrices, their schedules, and the prompt that nothing may touch."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import pytest
import torch
from helpers import SMALL_LAWS, Recording, Toy, chi_square_z, every_sequence, hidden, place_of, seeded

import unmask
from unmask import denoisers, laws, scores
from unmask.kernels import commit, remask
from unmask.kernels.remask import Interval
from unmask.masking import schedules

LINEAR = schedules.linear().alpha
SIGMAS = {
    "cap": remask.cap(0.3),
    "rescale": remask.rescale(0.6),
    "largest": remask.rescale(1.0),
    "psi 0": remask.psi(0.0),
    "psi 0.4": remask.psi(0.4),
    "psi 1": remask.psi(1.0),
    "window": remask.between(remask.cap(0.5), 0.7, 0.2),
}


@cache
def small():
    """Three symbols, three positions, strongly dependent, no symmetry."""
    return laws.Markov([0.2, 0.5, 0.3], [[0.8, 0.15, 0.05], [0.05, 0.15, 0.8], [0.6, 0.1, 0.3]], 3)


class Hollow:
    """A law that answers at visible positions too, given all others: what a leak-free network would say."""

    def __init__(self, law):
        self.law, self.mask_id, self.vocab_size = law, law.mask_id, law.vocab_size

    def __call__(self, tokens, rows=None, *, time=None):
        n = tokens.shape[1]
        alone = tokens[:, None].expand(-1, n, -1).masked_fill(torch.eye(n, dtype=torch.bool), self.mask_id)
        place = torch.arange(n).repeat(len(tokens))[:, None]
        log_probs = self.law(alone.reshape(-1, n), place).view(len(tokens), n, -1)
        return (
            log_probs
            if rows is None
            else log_probs.gather(1, rows[..., None].expand(-1, -1, self.vocab_size))
        )


class Coin:
    """A fair coin at every position."""

    vocab_size = mask_id = 2

    def __call__(self, tokens, rows=None, *, time=None):
        return torch.full((*(tokens if rows is None else rows).shape, 2), -math.log(2))


def states_of(law):
    return torch.cartesian_prod(*[torch.arange(law.vocab_size + 1)] * law.length)


def transition(law, masked_to_symbol, visible_to_mask):
    """Matrix [S, S] over sequences with masks, from the chances of the two kinds of change at each position."""
    v, states = law.vocab_size, states_of(law)
    masked = (states == v)[..., None]
    fresh = torch.cat(
        [masked_to_symbol * law(states).exp(), torch.ones(*states.shape, 1) - masked_to_symbol], -1
    )
    kept = torch.nn.functional.one_hot(states, v + 1) * (1 - visible_to_mask)
    kept[..., v] += visible_to_mask
    each = torch.where(masked, fresh, kept)
    return torch.einsum("sa,sb,sc->sabc", *each.unbind(1)).flatten(1)


def final_law(law, matrices):
    """Probabilities of all sequences after the steps, from all masked."""
    row = torch.zeros(len(matrices[0]), dtype=torch.float64)
    row[-1] = 1
    for matrix in matrices:
        row = row @ matrix
    return row[(states_of(law) < law.vocab_size).all(1)]


def counts_of(tokens, law):
    return torch.bincount(place_of(tokens, law.vocab_size), minlength=law.vocab_size**law.length)


def run(kernels, denoiser, tokens, seed=1, prompt=None):
    """States after every kernel, the first one included."""
    states = [remask.start(tokens, denoiser.mask_id, prompt)]
    for kernel in kernels:
        states.append(kernel(states[-1], denoiser, seed)[0])
    return states


# Predictors: laws.


@pytest.mark.parametrize("name", SIGMAS)
def test_the_law_of_remdm_is_the_product_of_its_steps(name):
    law, grid, sigma = small(), [1.0, 0.8, 0.6, 0.3, 0.0], SIGMAS[name]
    matrices = []
    for t, s in pairwise(grid):
        a, b, limit = 1 - t, 1 - s, 1.0 if t == 1 else min(1, t and s / (1 - t))
        kappa = {"psi 0": 0.0, "psi 0.4": 0.4, "psi 1": 1.0}.get(name)
        if kappa is None:
            hide = {"cap": min(0.3, limit), "rescale": 0.6 * limit, "largest": limit}.get(name)
            hide = hide if hide is not None else min(0.5, limit) if 0.2 < t <= 0.7 else 0.0
            matrices.append(transition(law, (b - (1 - hide) * a) / (1 - a), hide))
        else:  # a mixture of the ancestral step and of noise on a full prediction
            matrices.append(
                transition(law, kappa * (b - a) / (1 - a) + (1 - kappa) * b, (1 - kappa) * (1 - b))
            )
    kernels = remask.remdm(LINEAR, torch.tensor(grid, dtype=torch.float64), sigma)
    result = remask.sample(law, hidden(8000, law), kernels, generator=seeded(1))
    assert chi_square_z(counts_of(result.tokens, law), final_law(law, matrices)) < 4
    assert result.log_prob.isnan().all()
    assert result.manifest["selector"] == f"4 x remdm({sigma.__name__})"


def test_psi_one_has_the_law_of_ancestral_sampling():
    law, grid = small(), schedules.uniform_grid(2)
    one_step = [transition(law, 0.5, 0.0), transition(law, 1.0, 0.0)]
    q = final_law(law, one_step)
    selector = unmask.selectors.ancestral(schedules.linear(), grid, 3)
    reference = unmask.sample(law, hidden(8000, law), selector, generator=seeded(2))
    ours = remask.sample(
        law, hidden(8000, law), remask.remdm(LINEAR, grid, remask.psi(1.0)), generator=seeded(2)
    )
    assert chi_square_z(counts_of(reference.tokens, law), q) < 4
    assert chi_square_z(counts_of(ours.tokens, law), q) < 4
    assert all((info.symbols != law.mask_id).all() for info in ours.trace)


def test_psi_is_remdm():
    """kappa q(x_s|x_t) + (1-kappa) noise(q(x_0|x_t)) at kappa = 1 - sigma/(1-alpha_s) is ReMDM's closed form."""
    masked = torch.tensor([[True, False]])
    for a, b in [(0.0, 0.25), (0.25, 0.3), (0.3, 0.9), (0.7, 0.70001), (0.5, 1.0)]:
        for kappa in (0.0, 0.3, 0.9, 1.0):
            step = Interval(0.9, 0.1, a, b)
            sigma = remask.psi(kappa)(step, torch.ones(1, 2))
            assert sigma <= step.limit + 1e-12
            change = remask.chance_of_change(masked, step, sigma)[0]
            mixture = [kappa * (b - a) / (1 - a) + (1 - kappa) * b, (1 - kappa) * (1 - b)]
            remdm = [(b - (1 - sigma) * a) / (1 - a), sigma]
            assert change.tolist() == pytest.approx(mixture, abs=1e-15)
            assert change.tolist() == pytest.approx(remdm, abs=1e-15)
            if b < 1:
                assert kappa == pytest.approx(1 - sigma / (1 - b), abs=1e-12)


@pytest.mark.parametrize("name", [*SIGMAS, "loop"])
def test_the_visible_fraction_stays_on_alpha(name):
    alpha = remask.looped() if name == "loop" else schedules.cosine().alpha
    sigma = remask.between(remask.cap(0.02)) if name == "loop" else SIGMAS[name]
    grid, n = schedules.uniform_grid(12), 40_000
    states = run(remask.remdm(alpha, grid, sigma), Coin(), torch.full((2, n // 2), 2))
    for level, state in zip(alpha(grid).tolist(), states):
        visible = int((~state.masked).sum())
        assert abs(visible - n * level) <= 4 * math.sqrt(n * level * (1 - level)) + 1e-6
    hidden_once = sum(int((a.masked < b.masked).sum()) for a, b in pairwise(states))
    assert (hidden_once > 0) == (name != "psi 1")


def test_schedules_have_their_published_values():
    p = torch.full((1, 1), 0.5)
    step = Interval(0.5, 0.49, 0.5, 0.51)
    assert step.limit == pytest.approx(0.98)
    assert Interval(0.9, 0.5, 0.1, 0.5).limit == 1
    assert Interval(1.0, 0.5, 0.0, 0.5).limit == 1
    assert remask.cap()(step, p) == 0.008
    assert remask.cap()(Interval(0.005, 0.001, 0.995, 0.999), p) == pytest.approx(0.001 / 0.995)
    assert remask.rescale()(step, p) == pytest.approx(0.015 * 0.98)
    loop = remask.between(remask.cap(0.02))
    assert [loop(Interval(t, t - 0.01, 0.9, 0.9), p) for t in (0.56, 0.55, 0.3, 0.06, 0.05)] == [
        0,
        0.02,
        0.02,
        0.02,
        0,
    ]
    t = torch.tensor([1.0, 0.775, 0.55, 0.3, 0.05, 0.025, 0.0], dtype=torch.float64)
    assert remask.looped()(t).tolist() == pytest.approx([0, 0.45, 0.9, 0.9, 0.9, 0.95, 1])


def test_by_confidence_shares_sigma_among_the_least_probable():
    p = torch.tensor([[0.9, math.inf, 0.1, 0.5], [math.inf] * 4], dtype=torch.float64)
    sigma = remask.by_confidence(remask.rescale(1.0))
    step = Interval(0.2, 0.1, 0.8, 0.9)
    shares = sigma(step, p)
    assert shares.sum(1).tolist() == pytest.approx([step.limit, 0])
    assert shares[0, 1] == 0
    assert (shares[0, 2] / shares[0, 0]).item() == pytest.approx(math.exp(0.8))
    assert shares[0].argsort(descending=True)[:3].tolist() == [2, 3, 0]


def test_by_confidence_hides_at_its_rate():
    """One step from a state whose symbols had known probabilities; masked positions unmask as in ancestral sampling."""
    rows, grid = 20_000, torch.tensor([1.0, 0.5, 0.4, 0.0], dtype=torch.float64)
    tokens, p = torch.tensor([0, 1, 0, 2]).repeat(rows, 1), torch.tensor([0.9, 0.1, 0.5, math.inf])
    state = remask.start(tokens, 2, torch.zeros_like(tokens, dtype=torch.bool))
    state = unmask.base.types.replace(state, certainty=p.double().repeat(rows, 1))
    kernel = remask.remdm(LINEAR, grid, remask.by_confidence(remask.rescale(0.5)))[1]
    after, _ = kernel(state, Coin(), 5)
    change = torch.cat(
        [(-p[:3]).softmax(0) * 0.4, torch.tensor([0.2])]
    ).double()  # limit 0.8; (0.6 - 0.5) / 0.5
    got = (after.masked != state.masked).double().mean(0)
    assert ((got - change).abs() < 4 * (change * (1 - change) / rows).sqrt()).all()
    assert (after.certainty[:, 3][~after.masked[:, 3]] - 0.5).abs().max() < 1e-6


# P2.


def test_p2_keeps_its_counts_and_hides_what_scores_lowest():
    tokens = torch.full((4, 7), 3)
    tokens[1, :3] = 0
    tokens[2] = 1
    for eta in (0.0, 1.0, 3.0):
        states = run(remask.p2(5, eta), Toy(), tokens, seed=8)
        free = (tokens == 3).sum(1)
        for i, (before, after) in enumerate(pairwise(states), start=1):
            assert torch.equal(after.masked.sum(1), free * (5 - i) // 5)
            view = unmask.View(before.tokens, before.free, Toy()(before.tokens), step=before.step)
            rows = torch.arange(7).expand(4, -1)
            view = unmask.base.types.replace(view, order_ids=torch.arange(4), rows=rows)
            drawn = commit.candidates(view, unmask.draw, 8)
            score = denoisers.take_symbols(view.log_probs, drawn) * torch.where(before.masked, 1.0, eta)
            for b in range(4):
                order = sorted(before.free[b].nonzero()[:, 0].tolist(), key=lambda n: float(score[b, n]))
                assert set(after.masked[b].nonzero()[:, 0].tolist()) == set(
                    order[: int(after.masked[b].sum())]
                )
            wanted = torch.where(after.masked, 3, torch.where(before.masked, drawn, before.tokens))
            assert torch.equal(after.tokens, wanted)
        hidden_again = sum(int((a.masked < b.masked).sum()) for a, b in pairwise(states))
        assert (hidden_again > 0) == (eta > 0)
        assert states[-1].nfe.tolist() == [5, 5, 0, 5]


def test_p2_on_an_exact_law_is_maskgit_without_noise():
    """A law is sure of visible symbols, so none is hidden: what is left is drawing first and keeping the luckiest."""
    law = laws.Markov([0.2, 0.5, 0.3], [[0.7, 0.2, 0.1], [0.05, 0.15, 0.8], [0.5, 0.1, 0.4]], 4)
    planned = remask.sample(law, hidden(500, law), remask.p2(4), generator=seeded(3))
    lucky = commit.sample(law, hidden(500, law), commit.maskgit(0.0, 1), generator=seeded(3))
    assert torch.equal(planned.tokens, lucky.tokens)


# Correctors.


def gibbs_matrix(law, count):
    """Hide ``count`` positions at random and draw them independently: [V^N, V^N]."""
    n, tokens = law.length, every_sequence(law, law.length)
    total = torch.zeros(len(tokens), len(tokens), dtype=torch.float64)
    sets = torch.combinations(torch.arange(n), count)
    for chosen in sets:
        total += redrawn(
            law, tokens, torch.zeros(n, dtype=torch.bool).scatter(0, chosen, True).expand(len(tokens), -1)
        )
    return total / len(sets)


def redrawn(law, tokens, where):
    """Law of the next sequence [B, V^N] when the positions ``where`` [B, N] are drawn again independently."""
    each = law(tokens.masked_fill(where, law.mask_id)).exp()
    return torch.einsum("sa,sb,sc->sabc", *each.unbind(1)).flatten(1)


def moved(law, matrix):
    """Total variation between the law and the law after one move."""
    p = law.log_prob(every_sequence(law, law.length)).exp()
    return float((p @ matrix - p).abs().sum() / 2)


def test_gibbs_one_position_at_a_time_leaves_the_law_as_it_is():
    law, rows = small(), 1200
    one, two = gibbs_matrix(law, 1), gibbs_matrix(law, 2)
    assert moved(law, one) < 1e-15
    assert moved(law, two) > 0.05
    starts = every_sequence(law, 3)
    everything = torch.zeros(len(starts) * rows, 3, dtype=torch.bool)
    for count, matrix in ((1, one), (2, two)):
        tokens = starts.repeat_interleave(rows, 0)
        result = remask.sample(law, tokens, [remask.gibbs(count)], generator=seeded(4), prompt=everything)
        pairs = place_of(tokens, 3) * len(starts) + place_of(result.tokens, 3)
        assert chi_square_z(torch.bincount(pairs, minlength=len(starts) ** 2), matrix.flatten()) < 4
        assert (result.nfe == 1).all()


def test_gibbs_from_anywhere_ends_in_the_law():
    law = small()
    tokens = torch.tensor([[0, 2, 1]]).repeat(4000, 1)
    free = torch.zeros_like(tokens, dtype=torch.bool)
    result = remask.sample(law, tokens, [remask.gibbs()] * 40, generator=seeded(5), prompt=free)
    p = law.log_prob(every_sequence(law, 3)).exp()
    assert chi_square_z(counts_of(result.tokens, law), p) < 4
    assert chi_square_z(counts_of(tokens, law), p) > 4


def test_the_informed_corrector_redraws_the_least_reliable():
    """Choosing by the symbols is not invariant, even one position at a time."""
    law, rows = small(), 1000
    tokens = every_sequence(law, 3)
    log_probs = Hollow(law)(tokens)
    own = log_probs.gather(-1, tokens[..., None])[..., 0]
    rival = log_probs.scatter(-1, tokens[..., None], -math.inf).amax(-1)
    worst = torch.nn.functional.one_hot((own - rival).argmin(1), 3).bool()
    matrix = redrawn(law, tokens, worst)
    assert moved(law, matrix) > 0.02
    starts = tokens.repeat_interleave(rows, 0)
    result = remask.sample(
        Hollow(law),
        starts,
        [remask.gibbs(1, remask.symbol_margin)],
        generator=seeded(6),
        prompt=torch.zeros_like(starts, dtype=torch.bool),
    )
    pairs = place_of(starts, 3) * len(tokens) + place_of(result.tokens, 3)
    assert chi_square_z(torch.bincount(pairs, minlength=len(tokens) ** 2), matrix.flatten()) < 4
    assert (result.nfe == 2).all()
    chosen = result.trace[0]
    assert torch.equal(chosen.rows[:, 0], worst.repeat_interleave(rows, 0).long().argmax(1))


def test_noise_breaks_the_ties_of_a_sure_denoiser():
    """On an exact law every visible symbol is certain: a noisy margin is then a random position, and invariant."""
    law = small()
    start = law.sample(4000, seeded(7))
    kernel = remask.gibbs(1, scores.with_noise(remask.symbol_margin, 1.0, 8))
    free = torch.zeros_like(start, dtype=torch.bool)
    result = remask.sample(law, start, [kernel] * 3, generator=seeded(9), prompt=free)
    p = law.log_prob(every_sequence(law, 3)).exp()
    assert chi_square_z(counts_of(result.tokens, law), p) < 4
    places = torch.bincount(result.trace[0].rows.flatten(), minlength=3)
    assert chi_square_z(places, torch.ones(3, dtype=torch.float64)) < 4
    blind = remask.sample(
        law, start, [remask.gibbs(1, scores.left_to_right)], generator=seeded(9), prompt=free
    )
    assert (blind.trace[0].rows == 2).all()
    assert (blind.nfe == 1).all()


# All of them together.


def predictors():
    grid = schedules.uniform_grid(6)
    return {
        **{name: remask.remdm(LINEAR, grid, sigma) for name, sigma in SIGMAS.items()},
        "conf": remask.remdm(LINEAR, grid, remask.by_confidence(remask.rescale(1.0))),
        "loop": remask.remdm(remask.looped(), grid, remask.between(remask.cap(0.1))),
        "p2": remask.p2(6, 1.5),
    }


@pytest.mark.parametrize("name", predictors())
def test_the_prompt_stays_and_the_trace_tells_everything(name):
    law = SMALL_LAWS["markov"]()
    tokens = law.sample(60, seeded(10)).where(torch.rand(60, 4, generator=seeded(11)) < 0.4, law.mask_id)
    prompt = tokens != law.mask_id
    kernels = [k for step in predictors()[name] for k in (step, remask.gibbs(2), remask.gibbs(9))]
    spy = Recording(law)
    result = remask.sample(spy, tokens, kernels, generator=seeded(12))
    assert torch.equal(result.tokens[prompt], tokens[prompt])
    assert (result.tokens != law.mask_id).all()
    replay = tokens.clone()
    for info in result.trace:
        valid = info.rows >= 0
        replay[info.items[:, None].expand_as(info.rows)[valid], info.rows[valid]] = info.symbols[valid]
        assert torch.equal(replay[prompt], tokens[prompt])
    assert torch.equal(replay, result.tokens)
    assert int(result.nfe.sum()) == sum(len(call[1]) for call in spy.calls)
    assert (result.nfe[prompt.all(1)] == 0).all()
    alone = remask.sample(law, tokens[:1], kernels, generator=seeded(12))
    assert torch.equal(alone.tokens, result.tokens[:1])


@pytest.mark.parametrize("name", predictors())
def test_certainty_holds_the_probability_at_unmasking(name):
    law = SMALL_LAWS["markov"]()
    for state in run([*predictors()[name], remask.gibbs(2)], law, hidden(30, law))[1:]:
        assert torch.equal(state.certainty == math.inf, state.masked)
    assert (state.certainty > 0).all()
    assert (state.certainty <= 1).all()


def test_hide_spares_the_prompt_and_the_last_step_leaves_no_mask():
    tokens = torch.tensor([[0, 1, 2], [3, 1, 3]])
    state = remask.start(tokens, 3, torch.tensor([[True, False, False], [False, True, False]]))
    after, (info,) = remask.hide(state, torch.ones(2, 3, dtype=torch.bool), 3)
    assert after.tokens.tolist() == [[0, 3, 3], [3, 1, 3]]
    assert info.items.tolist() == [0]
    assert info.rows.tolist() == [[1, 2]]
    assert info.symbols.tolist() == [[3, 3]]
    short = remask.remdm(
        schedules.linear(0.2).alpha, schedules.uniform_grid(3), remask.cap(0.1)
    )  # alpha(0) = 0.8
    assert (remask.sample(small(), hidden(50, small()), short, generator=seeded(16)).tokens < 3).all()


def test_times_reach_the_denoiser():
    spy = Recording(small())
    grid = schedules.uniform_grid(3)
    remask.sample(spy, hidden(50, small()), remask.remdm(LINEAR, grid, remask.cap(0.2)), generator=seeded(13))
    assert [float(call[3].unique()) for call in spy.calls] == pytest.approx([1, 2 / 3, 1 / 3])


# Precision at a large vocabulary.

V, T = 50_257, 1024


@pytest.mark.parametrize("name", ["cap", "rescale", "psi 0.4", "psi 1", "conf"])
def test_a_small_step_unmasks_what_it_should(name):
    """2^17 masked positions at the first of 1024 steps, 50,257 symbols that are all equally probable."""
    n = 2**17

    def even(tokens, rows=None, *, time=None):
        return torch.full((1, 1, 1), -math.log(V)).expand(*rows.shape, V)

    even.mask_id = even.vocab_size = V
    sigma = remask.by_confidence(remask.rescale(1.0)) if name == "conf" else SIGMAS[name]
    kernel = remask.remdm(LINEAR, schedules.uniform_grid(T), sigma)[0]
    state, infos = kernel(remask.start(torch.full((1, n), V), V), even, 14)
    count = int((~state.masked).sum())
    assert abs(z_of(count, n)) < 4
    assert len(infos[0].symbols.unique()) > 0.98 * count
    assert z_of(float32_gumbel_count(n), n) < -4


def z_of(count, trials):
    return (count - trials / T) / math.sqrt(trials / T)


def float32_gumbel_count(trials):
    """How often a float32 Gumbel arg-max over V symbols and the mask unmasks: the best of V equal rivals at once."""
    u = torch.rand(2, trials, dtype=torch.float64, generator=seeded(15))
    u[1] **= 1 / V
    mask, symbol = -torch.log(-torch.log(torch.floor(u * 2**24).div(2**24).float()))
    return int((math.log(1 / T / V) + symbol > math.log1p(-1 / T) + mask).sum())


# Errors.


def test_errors_say_what_was_expected():
    law, grid = small(), schedules.uniform_grid(3)
    with pytest.raises(ValueError, match="times: expected"):
        remask.remdm(LINEAR, grid.flip(0), remask.cap())
    for wrong in (lambda: remask.cap(1.5), lambda: remask.psi(-0.1), lambda: remask.rescale(math.nan)):
        with pytest.raises(ValueError, match="expected a number between 0 and 1"):
            wrong()
    with pytest.raises(ValueError, match="t_off < t_on"):
        remask.looped(0.1, 0.5)
    with pytest.raises(ValueError, match="steps 0: expected a whole number of at least 1"):
        remask.p2(0)
    with pytest.raises(ValueError, match="count 0"):
        remask.gibbs(0)
    with pytest.raises(ValueError, match="masked after the last kernel"):
        remask.sample(law, hidden(2, law), [remask.gibbs()], generator=seeded(0))
    with pytest.raises(ValueError, match="prompt"):
        remask.sample(
            law, hidden(2, law), remask.p2(2), generator=seeded(0), prompt=torch.ones(2, 3, dtype=torch.bool)
        )


@pytest.mark.parametrize("reliability", [None, remask.symbol_margin, scores.confidence, scores.margin])
def test_gibbs_leaves_alone_what_is_all_given(reliability):
    law, tokens = laws.Permutation(4), torch.arange(4)[None]
    for given in (tokens, tokens[:0]):
        found = remask.sample(law, given, [remask.gibbs(1, reliability)], generator=seeded(0))
        assert torch.equal(found.tokens, given)
        assert not found.nfe.any()


def test_a_symbol_without_a_rival_has_the_largest_margin():
    law = unmask.from_logits(lambda tokens: torch.zeros(*tokens.shape, 1), 1, 1)
    found = remask.sample(
        law,
        torch.zeros(1, 2, dtype=torch.int64),
        [remask.gibbs(1, remask.symbol_margin)],
        generator=seeded(0),
        prompt=torch.zeros(1, 2, dtype=torch.bool),
    )
    assert found.tokens.tolist() == [[0, 0]]
