"""Scores and selectors on views made by hand: values, ties, plans, budgets and public noise."""

from __future__ import annotations

import math

import pytest
import torch
from helpers import chi_square_z, place_of

import unmask
from unmask import laws, scores, selectors
from unmask.base.types import Score, View
from unmask.masking import schedules

PROBS = torch.tensor(
    [
        [[0.5, 0.5, 0.0], [0.8, 0.1, 0.1], [1.0, 0.0, 0.0], [0.45, 0.4, 0.15], [1 / 3, 1 / 3, 1 / 3]],
        [[0.1, 0.2, 0.7], [0.6, 0.4, 0.0], [0.2, 0.2, 0.6], [0.9, 0.05, 0.05], [0.0, 0.0, 1.0]],
    ],
    dtype=torch.float64,
)
MASKED = torch.tensor([[True, True, False, True, True], [True, False, True, True, False]])


def view_of(probs=PROBS, masked=MASKED, **more):
    return View(torch.where(masked, 3, 0), masked, probs.log(), **more)


def blank(rows, length, **more):
    """A blind view of all-masked rows, each with its own order."""
    masked = torch.ones(rows, length, dtype=torch.bool)
    return View(torch.full((rows, length), 3), masked, order_ids=torch.arange(rows), **more)


def chosen(choice):
    """Chosen rows as lists, without padding."""
    return [[r for r in row if r >= 0] for row in choice.rows.tolist()]


INF = math.inf


def test_confidence_margin_and_entropy_by_hand():
    first = {
        scores.confidence: [0.5, 0.8, -INF, 0.45, 1 / 3],
        scores.margin: [0.0, 0.7, -INF, 0.05, 0.0],
        scores.negative_entropy: [
            -math.log(2),
            0.8 * math.log(0.8) + 0.2 * math.log(0.1),
            -INF,
            sum(p * math.log(p) for p in (0.45, 0.4, 0.15)),
            -math.log(3),
        ],
        scores.fork: [0.5, 0.1 - 0.3, -INF, 0.4 - 0.45, 1 / 3 - 1],
        scores.left_to_right: [0, -1, -INF, -3, -4],
    }
    for score, wanted in first.items():
        assert score(view_of())[0].tolist() == pytest.approx(wanted, abs=1e-12), score.name
        assert score(view_of()).dtype == torch.float64


@pytest.mark.parametrize("size", [1, 2, 1023, 1024, 1025, 5000])
def test_margin_finds_the_two_best_of_many_symbols_wherever_they_stand(size):
    """Next to each other, far apart, in the last incomplete part, equal, or the second impossible."""
    generator = torch.Generator().manual_seed(size)
    probs = torch.rand(6, size, dtype=torch.float64, generator=generator)
    probs[1, -1], probs[1, size // 2] = 3, 2
    probs[2, :2] = 4
    probs[3] = 0
    probs[3, -1] = 1
    probs[4] = 1
    probs[5, -2:] = 7
    probs /= probs.sum(1, keepdim=True)
    best = probs.sort(dim=1, descending=True).values
    wanted = best[:, 0] - (best[:, 1] if size > 1 else 0)
    view = View(torch.full((1, 6), size), torch.ones(1, 6, dtype=torch.bool), probs.log()[None])
    assert scores.margin(view)[0].tolist() == pytest.approx(wanted.tolist(), abs=1e-12)


@pytest.mark.parametrize("score", [scores.confidence, scores.margin, scores.negative_entropy])
def test_scores_of_chosen_rows_are_those_of_all(score):
    rows = torch.tensor([[0, 1, 3, 4], [0, 2, 3, -1]])
    part = PROBS.gather(1, rows.clamp(min=0)[..., None].expand(-1, -1, 3))
    assert torch.equal(score(view_of(part, rows=rows)), score(view_of()))


def test_margin_of_a_single_symbol_is_its_probability():
    assert scores.margin(view_of(torch.ones(2, 5, 1)))[0, 0] == 1


def test_on_base_reads_the_other_law():
    flat = torch.full_like(PROBS, 1 / 3)
    view = view_of(flat, base_log_probs=PROBS.log())
    assert torch.equal(scores.on_base(scores.confidence)(view), scores.confidence(view_of()))
    assert torch.equal(scores.on_base(scores.confidence)(view_of()), scores.confidence(view_of()))


def test_blind_scores_say_so():
    blind = [scores.left_to_right, scores.at_random(0), scores.with_noise(scores.left_to_right, 1.0, 0)]
    sighted = [
        scores.confidence,
        scores.margin,
        scores.negative_entropy,
        scores.with_noise(scores.margin, 1.0, 0),
    ]
    assert all(score.blind for score in blind)
    assert not any(score.blind for score in [*sighted, scores.on_base(scores.margin)])
    assert selectors.is_blind(selectors.in_blocks(selectors.top_k(scores.left_to_right, 1), 2))
    assert not selectors.is_blind(selectors.in_blocks(selectors.threshold(scores.margin, 0.5), 2))
    assert not selectors.is_blind(lambda view: None)


# Public noise.


def test_random_orders_depend_on_seed_order_and_position_only():
    score = scores.at_random(4)
    values = score(blank(6, 5))
    assert ((values > 0) & (values < 1)).all()
    assert torch.equal(score(blank(6, 5, step=3)), values)  # constant over the steps
    assert torch.equal(score(blank(3, 5)), values[:3])
    assert len(set(values.flatten().tolist())) == 30
    assert not (scores.at_random(5)(blank(6, 5)) == values).any()
    same = View(torch.full((2, 5), 3), torch.ones(2, 5, dtype=torch.bool))
    assert torch.equal(score(same), values[:1].expand(2, -1))  # no order_ids: order 0


def test_noise_on_a_score_changes_with_step_order_and_seed():
    score = scores.with_noise(scores.left_to_right, 1.0, 4)
    values = score(blank(6, 5))
    assert not (score(blank(6, 5, step=1)) == values).any()
    assert not (scores.with_noise(scores.left_to_right, 1.0, 5)(blank(6, 5)) == values).any()
    assert len(set((values - scores.left_to_right(blank(6, 5))).flatten().tolist())) == 30
    assert torch.equal(
        scores.with_noise(scores.left_to_right, 0.0, 4)(blank(6, 5)), scores.left_to_right(blank(6, 5))
    )


def test_gumbel_noise_draws_positions_in_proportion_to_the_exponential_of_the_score():
    rows = 6000
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    score = scores.with_noise(Score(lambda view: weights.log().expand(rows, -1), blind=True), 1.0, 7)
    rows_of = selectors.top_k(score, 2)(blank(rows, 4)).rows
    p = weights / weights.sum()
    pairs = p[:, None] * p / (1 - p[:, None])
    pairs.fill_diagonal_(0)
    assert chi_square_z(torch.bincount(place_of(rows_of, 4), minlength=16), pairs.flatten()) < 4


# Ranking.


def scored(*values):
    return Score(lambda view: torch.tensor(values, dtype=torch.float64).expand(len(view.tokens), -1))


def test_scores_within_the_grid_tie_and_the_lowest_position_wins():
    close = scored(0.5, 0.5 + 2e-10, 0.5 - 3e-10, 0.5 + 3e-9)
    assert chosen(selectors.top_k(close, 4)(blank(1, 4))) == [[3, 0, 1, 2]]
    assert chosen(selectors.top_k(close, 2)(blank(1, 4))) == [[3, 0]]
    assert chosen(selectors.threshold(close, 0.5 + 4e-10)(blank(1, 4))) == [[3, 0, 1, 2]]


def test_of_equals_the_first_comes_next():
    equal = selectors.top_k(scored(0.5, 0.5, 0.5), 1)
    law, masked = laws.Parity(3, 2), torch.full((2, 3), 2)
    found = unmask.sample(law, masked, equal, generator=torch.Generator().manual_seed(0))
    assert [info.rows.tolist() for info in found.trace] == [[[i], [i]] for i in range(3)]


@pytest.mark.parametrize("block_length", [None, 3, 5])
@pytest.mark.parametrize(
    "score",
    [
        scores.left_to_right,
        scores.bisection,
        scores.bisection_levels,
        scores.at_random(4),
        scores.halton(2, 5, 3),
    ],
    ids=lambda score: score.name,
)
def test_an_order_made_once_is_the_order_made_at_every_step(score, block_length):
    length, again = 10, Score(score.compute, blind=True)
    assert score.constant
    tokens = torch.full((3, length), 2)
    tokens[0, 3], tokens[1, 6:8] = 0, 1
    rows = []
    for each in (score, again):
        order = selectors.top_k(each, 2)
        order = order if block_length is None else selectors.in_blocks(order, block_length)
        law = laws.Polya(torch.ones(2), length)
        found = unmask.sample(law, tokens, order, generator=torch.Generator().manual_seed(0))
        rows.append([(info.items.tolist(), info.rows.tolist()) for info in found.trace])
    assert rows[0] == rows[1]


def test_many_ties_keep_their_order():
    assert chosen(selectors.top_k(scored(*[0.25] * 300), 300)(blank(1, 300))) == [list(range(300))]


def test_masked_positions_go_before_visible_ones_whatever_they_score():
    masked = torch.tensor([[False, True, False, True]])
    view = View(torch.where(masked, 3, 0), masked)
    assert chosen(selectors.top_k(scored(9.0, -INF, 8.0, -1e9), 2)(view)) == [[3, 1]]
    plain = lambda view: torch.tensor([[9.0, 1.0, torch.nan, 2.0]])  # noqa: E731 - a score without protection
    assert chosen(selectors.top_k(plain, 2)(view)) == [[3, 1]]


def test_a_score_that_is_not_a_number_is_refused():
    order = selectors.top_k(scored(0.0, math.nan), 1)
    assert order(blank(1, 2)).doubt.any()
    law = laws.Parity(2, 2)
    with pytest.raises(ValueError, match=r"a score is NaN; expected a number"):
        unmask.sample(law, torch.full((1, 2), 2), order, generator=torch.Generator().manual_seed(0))


# Plans.


def test_top_k_takes_the_best_first_and_pads():
    choice = selectors.top_k(scores.confidence, 3)(view_of())
    assert choice.rows.tolist() == [[1, 0, 3], [3, 0, 2]]
    assert selectors.top_k(scores.confidence, 4)(view_of()).rows.tolist() == [[1, 0, 3, 4], [3, 0, 2, -1]]


@pytest.mark.parametrize("plan", [(3, 1, 1), lambda count: (3, 1, 1)])
def test_plans_are_followed_by_what_is_left(plan):
    selector = selectors.top_k(scores.left_to_right, plan)
    start = torch.ones(1, 5, dtype=torch.bool)
    for left, size in ((5, 3), (2, 1), (1, 1)):
        masked = torch.arange(5)[None] >= 5 - left
        view = View(torch.where(masked, 3, 0), masked, start=start)
        assert len(chosen(selector(view))[0]) == size
    masked = torch.arange(5)[None] >= 2
    with pytest.raises(ValueError, match=r"3 of 5 positions are masked, which is no boundary"):
        selector(View(torch.where(masked, 3, 0), masked, start=start))


def test_a_function_plan_is_asked_once_per_count():
    asked = []

    def plan(count):
        asked.append(count)
        return (1,) * count

    selector = selectors.top_k(scores.confidence, plan)
    for _ in range(3):
        assert chosen(selector(view_of())) == [[1], [3]]
    assert sorted(asked) == [3, 4]


# Other rules.


def test_threshold_takes_all_that_reach_it_and_the_best_otherwise():
    assert chosen(selectors.threshold(scores.confidence, 0.5)(view_of())) == [[1, 0], [3, 0, 2]]
    assert chosen(selectors.threshold(scores.confidence, 0.9)(view_of())) == [[1], [3]]
    assert chosen(selectors.threshold(scores.confidence, 5.0)(view_of())) == [[1], [3]]
    assert chosen(selectors.threshold(scores.confidence, -INF)(view_of())) == [[1, 0, 3, 4], [3, 0, 2]]


def test_threshold_asks_another_score_only_where_nothing_reaches_it():
    assert chosen(selectors.threshold(scores.confidence, 0.9, scores.fork)(view_of())) == [[0], [3]]
    assert chosen(selectors.threshold(scores.confidence, 0.5, scores.fork)(view_of())) == [[1, 0], [3, 0, 2]]
    assert not selectors.threshold(scores.at_random(1), 2.0, scores.fork).blind


@pytest.mark.parametrize("size", [1, 2])
def test_a_fork_of_few_symbols_has_no_third(size):
    probs = torch.tensor([[[0.7, 0.3][:size]]], dtype=torch.float64)
    view = View(torch.tensor([[9]]), torch.tensor([[True]]), probs.log())
    assert scores.fork(view).item() == pytest.approx(0.3 if size == 2 else 0)


def test_entropy_budget_by_hand():
    """Beyond the largest entropy of the batch, the sum of the others stays within gamma."""
    for gamma in (0.0, 0.3, 0.65, 1.4, 1.75, 9.0):
        choice = chosen(selectors.entropy_budget(gamma)(view_of()))
        for item, rows in enumerate(choice):
            entropies = torch.special.entr(PROBS[item]).sum(-1)
            order = sorted(MASKED[item].nonzero()[:, 0].tolist(), key=lambda i: float(entropies[i]))
            fits = [
                n
                for n in range(1, len(order) + 1)
                if sum(sorted(entropies[order[:n]].tolist())[:-1]) <= gamma
            ]
            assert rows == order[: max(fits)], gamma
    assert chosen(selectors.entropy_budget(9.0)(view_of()))[0] == [1, 0, 3, 4]


def test_entropy_budget_in_another_order_stops_at_the_first_that_does_not_fit():
    choice = selectors.entropy_budget(0.7, scores.left_to_right)(view_of())
    assert chosen(choice) == [
        [0, 1],
        [0],
    ]  # ln 2 + 0.64 - max; then 0.80, which 0.95 would exceed by too much


def test_blocks_go_from_left_to_right():
    blocks = selectors.in_blocks(selectors.top_k(scores.confidence, 2), 2)
    assert chosen(blocks(view_of())) == [[1, 0], [0]]
    masked = torch.tensor([[False, False, False, True, True]])
    later = View(torch.where(masked, 3, 0), masked, PROBS[:1].log())
    assert chosen(blocks(later)) == [[3]]


def test_a_tuple_plan_in_blocks_is_the_plan_of_one_block():
    blocks = selectors.in_blocks(selectors.top_k(scores.left_to_right, (2, 1)), 3)
    start = torch.ones(1, 6, dtype=torch.bool)
    sizes = []
    masked = start
    while masked.any():
        rows = chosen(blocks(View(torch.where(masked, 3, 0), masked, start=start)))[0]
        sizes.append(len(rows))
        masked = masked & ~torch.zeros_like(masked).index_fill(1, torch.tensor(rows), True)
    assert sizes == [2, 1, 2, 1]


def test_ancestral_moves_each_position_once_its_own_uniform_is_passed():
    grid = schedules.uniform_grid(4)
    selector = selectors.ancestral(schedules.linear(), grid, 3)
    u = scores.at_random(3)(blank(50, 6))
    for step in range(4):
        masked = u < grid[step]
        view = View(torch.where(masked, 3, 0), masked, step=step, order_ids=torch.arange(50))
        moved = torch.zeros_like(masked)
        for item, rows in enumerate(chosen(selector(view))):
            moved[item, rows] = True
        assert torch.equal(moved, masked & (u >= grid[step + 1]))
        assert (selector.time(view) == grid[step]).all()


def test_first_hitting_takes_the_next_event():
    schedule = schedules.cosine()
    selector = selectors.first_hitting(schedule, 3)
    u = scores.at_random(3)(blank(50, 6))
    view = blank(50, 6)
    assert torch.equal(selector(view).rows[:, 0], u.argmax(1))
    assert 1 - schedule.alpha(selector.time(view)) == pytest.approx(u.amax(1), abs=1e-12)


def test_names_tell_what_was_chosen():
    names = [
        selectors.top_k(scores.margin, (3, 2)).name,
        selectors.top_k(scores.with_noise(scores.at_random(3), 0.5, 1), 4).name,
        selectors.in_blocks(selectors.threshold(scores.confidence, 0.9), 32).name,
        selectors.threshold(scores.confidence, 0.9, scores.fork).name,
    ]
    assert names == [
        "top_k(margin, 2 steps: 3, 2)",
        "top_k(with_noise(at_random(3), 0.5, 1), 4)",
        "in_blocks(threshold(confidence, 0.9), 32)",
        "threshold(confidence, 0.9, fork)",
    ]
