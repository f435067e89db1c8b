"""Random numbers never collide: what is out of range is refused, and every (seed, step, stream) has its own."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from helpers import seeded
from scipy import stats
from tiny import GOLDEN, log_of, often, tiny
from torch.utils._python_dispatch import TorchDispatchMode

import unmask
from unmask import laws, scores, selectors
from unmask.base import noise
from unmask.command_line import boards as board_commands
from unmask.recipes import all_recipes, sudoku
from unmask.recipes.run import generator, override
from unmask.recipes.sudoku import board_seed
from unmask.training.loop import train

LAST = 2**32 - 1
ZERO = torch.tensor([0])
KNOWN = [0.3187976216201235, 0.46579560229896655, 0.8707984853513152]
KNOWN_PADDING = [0.4880754671648092, 0.18707495062617696]
"""Drawn by the version before."""

# --- noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": 2**64}, "seed 18446744073709551616: expected a whole number in 0..2^64 - 1"),
        ({"seed": -1}, "seed -1: expected a whole number in 0..2^64 - 1"),
        ({"seed": 0.5}, "seed 0.5: expected a whole number in 0..2^64 - 1"),
        ({"stream": 2**32}, "stream 4294967296: expected a whole number in 0..2^32 - 1"),
        ({"third": 2**32}, "third 4294967296: expected a whole number in 0..2^32 - 1"),
        ({"third": -1}, "third -1: expected a whole number in 0..2^32 - 1"),
        ({"first": 2**32}, "first 4294967296: expected a whole number in 0..2^32 - 1"),
        ({"first": -1}, "first -1: expected a whole number in 0..2^32 - 1"),
        ({"first": 0.5}, "first 0.5: expected a whole number in 0..2^32 - 1"),
        ({"second": 2**32}, "second 4294967296: expected a whole number in -1..2^32 - 2"),
        ({"second": LAST}, "second 4294967295: expected a whole number in -1..2^32 - 2"),  # padding's word
        ({"second": -2}, "second -2: expected a whole number in -1..2^32 - 2"),
    ],
)
@pytest.mark.parametrize("draw", [noise.uniform, noise.gumbel])
def test_numbers_out_of_range_are_refused_by_name(draw, arguments, words):
    given = {"seed": 0, "stream": 1, "first": 0, "second": 0, "third": 0} | arguments
    for name in ("first", "second"):
        given[name] = torch.tensor([5, given[name], 5])
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        draw(**given)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [0, 5, 2**32 - 1, 2**32, 2**63 + 12345, 2**64 - 1])
@pytest.mark.parametrize("place", [(0, 0, 0), (1, 2, 3), (LAST, LAST - 1, LAST), (2**31, 2**31, 2**31)])
def test_numbers_in_range_are_the_published_generators(seed, place):
    """The words of Philox at (first, second, third, stream), 26 bits of each of two: what archives hang on."""
    counter = (*place, noise.SYMBOL)
    words = noise.philox(tuple(np.array([c], np.uint64) for c in counter), (seed % 2**32, seed >> 32))
    high, low = (int(w[0]) >> 6 for w in words[:2])
    wanted = (high * 2**26 + low + 0.5) / 2**52
    found = noise.uniform(seed, noise.SYMBOL, torch.tensor([place[0]]), torch.tensor([place[1]]), place[2])
    assert found.tolist() == [wanted]


def test_known_values_stay():
    found = noise.uniform(2**63 - 1, noise.ORDER, torch.tensor([0, 7, LAST]), torch.tensor([3]), 9)
    assert found.tolist() == KNOWN
    padding = noise.uniform(1, noise.SYMBOL, ZERO, torch.tensor([-1, 0]))
    assert padding.tolist() == KNOWN_PADDING


# --- order ids ------------------------------------------------------------------------------------

LAW = laws.Permutation(4)
SELECTOR = selectors.top_k(scores.at_random(3), 1)
MASKED = torch.full((2, 4), LAW.mask_id)


@pytest.mark.parametrize(
    ("wrong", "row"), [(2**32, 1), (2**40 + 1, 0), (-1, 1), (-(2**63), 0), (2**63 - 1, 1)]
)
def test_order_ids_that_would_repeat_others_are_refused(wrong, row):
    ids = torch.zeros(2, dtype=torch.int64)
    ids[row] = wrong
    tokens = LAW.sample(2, seeded(0))
    for call in (
        lambda: unmask.sample(LAW, MASKED, SELECTOR, generator=seeded(0), order_ids=ids),
        lambda: unmask.log_likelihood(LAW, tokens, SELECTOR, order_ids=ids),
    ):
        with pytest.raises(
            ValueError,
            match=f"order_ids have dtype torch.int64 and {wrong} in row {row}; expected int64.* 2\\^32 - 1",
        ):
            call()


def test_the_last_order_id_has_an_order_of_its_own():
    def order(ids):
        result = unmask.sample(LAW, MASKED, SELECTOR, generator=seeded(0), order_ids=torch.tensor(ids))
        return torch.stack([info.rows for info in result.trace]).flatten(1)

    first, last = order([0, LAST]), order([LAST, 0])
    assert torch.equal(first[:, 0], last[:, 1])
    assert torch.equal(first[:, 1], last[:, 0])


def test_order_ids_cost_one_look_from_the_host():
    class Looks(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += "_local_scalar_dense" in str(func) or "is_nonzero" in str(func)
            return func(*args, **(kwargs or {}))

    ids = torch.tensor([3, LAST])
    with Looks() as looks:
        assert noise.checked_ids(ids, MASKED, ids) is ids
    assert looks.count == 1


def test_selectors_refuse_seeds_that_would_repeat_others():
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match=rf"seed {seed}: expected"):
            unmask.sample(LAW, MASKED, selectors.top_k(scores.at_random(seed), 1), generator=seeded(0))


def test_candidates_that_would_share_noise_with_the_next_step_are_refused():
    unmask.orders.presets.information_gain(LAW, 1, candidates=256)
    for wrong in (0, 257):
        with pytest.raises(ValueError, match=rf"got {wrong} candidates .* expected at least 1, at most 256"):
            unmask.orders.presets.information_gain(LAW, 1, candidates=wrong)


# --- generators of training -----------------------------------------------------------------------

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)


def undone(words: list[int], key: tuple[int, int]) -> list[int]:
    """The counter that Philox-4x32-10 turned into these words."""
    x0, x1, x2, x3 = words
    for i in reversed(range(10)):
        k0, k1 = ((k + i * w) % 2**32 for k, w in zip(key, WEYL))
        c0, c2 = x3 * pow(MULTIPLIERS[0], -1, 2**32) % 2**32, x1 * pow(MULTIPLIERS[1], -1, 2**32) % 2**32
        c1, c3 = x0 ^ (c2 * MULTIPLIERS[1] >> 32) ^ k0, x2 ^ (c0 * MULTIPLIERS[0] >> 32) ^ k1
        x0, x1, x2, x3 = c0, c1, c2, c3
    return [x0, x1, x2, x3]


TRIPLES = [
    (0, 0, 0),
    (1, 0, 0),
    (0, 1, 0),
    (0, 0, 1),
    (0, 1_000_003, 0),
    (0, 0, 64),
    (0, 2**26, 0),
    (2**31 - 1, LAST, LAST),
    *[tuple(row) for row in np.random.default_rng(0).integers(0, 2**31, (20, 3)).tolist()],
]


@pytest.mark.parametrize("triple", TRIPLES)
def test_a_state_tells_its_triple_so_no_two_share_one(triple):
    """Injective: every block of four words can be turned back into (block, seed, step, stream)."""
    seed, step, stream = triple
    run = replace(tiny(), seed=seed)
    state = generator(run, step, stream).get_state().view(torch.int64)[3:627].reshape(156, 4)
    for block in (0, 1, 155):
        assert undone(state[block].tolist(), noise._STATES) == [block, seed, step, stream]


def test_the_words_are_what_the_generator_draws_from():
    """torch's CPU generator continues from this state as any other Mersenne twister does."""
    made = generator(tiny(), 3, 4)
    twister = np.random.RandomState()
    words = made.get_state().view(torch.int64)[3:627].numpy().astype(np.uint32)
    twister.set_state(("MT19937", words, 624))
    wanted = twister.randint(0, 2**32, 8, dtype=np.uint64).astype(np.int64)
    found = torch.empty(8, dtype=torch.int32).random_(0, 2**24, generator=made)
    assert found.tolist() == (wanted % 2**24).tolist()


def draws(run, step, stream=0, count=4):
    return torch.rand(count, dtype=torch.float64, generator=generator(run, step, stream)).tolist()


def test_streams_that_met_do_so_no_more():
    run, next_seed = tiny(), replace(tiny(), seed=1)
    old, old_next = replace(run, randomness=1), replace(next_seed, randomness=1)
    assert draws(old, 1_000_003) == draws(old_next, 0)
    assert draws(old, 2**26) == draws(old, 0)  # manual_seed keeps 32 bits
    assert draws(run, 1_000_003) != draws(next_seed, 0)
    assert draws(run, 2**26) != draws(run, 0)
    assert draws(run, 0, stream=64) != draws(run, 1)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        initial = torch.rand(4, dtype=torch.float64).tolist()
    assert draws(old, 0) == initial  # batches of step 0 read what weights were drawn from
    assert draws(run, 0) != initial


def test_neighbours_are_independent():
    steps, streams, seeds = (0, 1, 2, 63, 64, 10**6, 2**31, LAST), range(200), (0, 1, 2, 3, 2**31 - 1)
    triples = list(itertools.product(seeds, steps, streams))
    runs = {seed: replace(tiny(), seed=seed) for seed in seeds}
    found = np.array([draws(runs[seed], step, stream, 2) for seed, step, stream in triples])
    assert len(np.unique(found)) == found.size == 16_000
    assert stats.kstest(found[:, 0], "uniform").pvalue > 1e-4
    assert stats.kstest(found[:, 1], "uniform").pvalue > 1e-4
    grid = found[:, 0].reshape(len(seeds), len(steps), 200)
    for a, b in ((grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1]), (grid[..., 1:], grid[..., :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4.5 / np.sqrt(a.size)


@pytest.mark.parametrize(
    ("step", "stream", "words"),
    [
        (2**32, 0, "step 4294967296"),
        (-1, 0, "step -1"),
        (0, 2**32, "stream 4294967296"),
        (0, -1, "stream -1"),
    ],
)
def test_steps_and_streams_out_of_range_are_refused(step, stream, words):
    with pytest.raises(ValueError, match=words):
        generator(tiny(), step, stream)


def test_old_runs_keep_their_numbers():
    run = replace(tiny(), randomness=1, seed=7)
    for step, stream in ((0, 0), (5, 1), (999, 63)):
        plain = torch.Generator().manual_seed((7 * 1_000_003 + step) * 64 + stream)
        assert draws(run, step, stream) == torch.rand(4, dtype=torch.float64, generator=plain).tolist()
    with pytest.raises(ValueError, match=r"stream 64: .* under randomness 1"):
        generator(run, 0, 64)


def test_old_runs_keep_their_losses(tmp_path):
    """Those that the version before recorded."""
    run = replace(tiny(often(save_minutes=60), dropout=0.0), randomness=1)
    train(run, tmp_path, quiet=True)
    golden = json.loads(GOLDEN.read_text())["losses_under_randomness_1"]
    assert [record["loss"] for record in log_of(tmp_path)] == pytest.approx(golden, abs=1e-5)


@pytest.mark.parametrize("wrong", ["0", "3"])
def test_unknown_randomness_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"randomness {wrong}: expected a number in 1\.\.2"):
        override(tiny(), {"randomness": wrong})


# --- boards ---------------------------------------------------------------------------------------


def test_every_part_of_a_step_has_a_seed_of_its_own():
    steps, seeds = (0, 1, 2, 2**16, 2**30 - 1), (0, 1, 2, 2**29, 2**30, 2**31 - 1)
    found = [
        board_seed(replace(sudoku(), seed=seed), step, part)
        for seed, step, part in itertools.product(seeds, steps, range(3))
    ]
    assert len(set(found)) == len(found)
    assert min(found) >= 2**63  # those of test boards are below
    assert board_commands.FRESH < 2**63 > max(found) - 2**63
    assert max(found) < 2**64
    for wrong in (-1, 2**30):
        with pytest.raises(ValueError, match=rf"step {wrong}: expected 0\.\.2\^30 - 1"):
            board_seed(sudoku(), wrong, 0)


def test_old_boards_stay_and_their_collisions_were_real():
    old = replace(sudoku(), randomness=1, seed=3)
    assert [board_seed(old, 5, part) for part in range(3)] == [
        3 * 2**32 + 5,
        3 * 2**32 + 5 + 2**31,
        3 * 2**32 + 5,
    ]
    assert board_seed(old, 2**31, 0) == board_seed(old, 0, 1)
    assert board_seed(replace(old, seed=2**30), 0, 0) == board_commands.FRESH


# --- batches --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stub:
    """Data of every kind: fifty items and a stream of 5000 symbols, both plain formulas."""

    symbols: int = 5000
    items: int = 50
    vocab: int = 20

    def open(self):
        return self

    @property
    def lengths(self):
        return np.arange(self.items) % 9 + 1

    def windows(self, starts, length):
        return (starts[:, None] * 31 + np.arange(length) * 7) % self.vocab

    def padded(self, indices, length, fill):
        rows = self.windows(indices, length)
        return np.where(np.arange(length) < self.lengths[indices][:, None], rows, fill)


def small(name):
    run = replace(all_recipes()[name](), batch_size=8)
    if name in ("sudoku_hard", "sudoku_equivariant"):  # their bank is a file
        return replace(run, data=replace(run.data, banked=0.0))
    boards = ("sudoku", "sudoku_solver", "sudoku_fixed", "sudoku6", "sudoku6_solver", "sudoku6_fixed")
    boards += ("sudoku4", "sudoku4_solver", "sudoku4_fixed")
    generated = (*boards, "lo_nae_sat", "zebra")
    return run if name in generated else replace(run, data=Stub())


def parts(batch):
    return {k: v for k, v in vars(batch).items() if v is not None}


def assert_same(ours, theirs):
    assert parts(ours).keys() == parts(theirs).keys()
    for name, value in parts(ours).items():
        assert torch.equal(value, getattr(theirs, name)), name


@pytest.mark.parametrize("name", all_recipes())
@pytest.mark.parametrize("randomness", [1, 2])
@pytest.mark.global_random
def test_batches_are_functions_of_run_and_step_alone(name, randomness):
    run = replace(small(name), randomness=randomness)
    if name.startswith("digits_upscale"):
        run = replace(run, data=Stub(vocab=256))
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    wanted = [run.batch(run, step) for step in (0, 1, 17)]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    again = {}
    for step in (17, 3, 0, 1, 0):
        torch.rand(7)
        np.random.rand(3)  # noqa: NPY002
        again[step] = run.batch(run, step)
    for step, batch in zip((0, 1, 17), wanted):
        assert_same(batch, again[step])
    assert differ(wanted[0], run.batch(replace(run, seed=1), 0))
    assert differ(wanted[0], wanted[1])


def differ(ours, theirs):
    pairs = [(value, parts(theirs)[name]) for name, value in parts(ours).items()]
    return any(a.shape != b.shape or not torch.equal(a, b) for a, b in pairs)
