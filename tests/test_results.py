"""What a result tells beyond tokens: the entropies of the trace, wall time, and the manifest."""

import json
import time

import pytest
import torch
from helpers import CHAIN, SMALL_LAWS, Recording, every_sequence, hidden, seeded

import unmask
from unmask import engine, laws, scores, selectors
from unmask.kernels import commit, remask
from unmask.masking import schedules
from unmask.orders import presets, rules, sources
from unmask.scores import entropy

LAW = SMALL_LAWS["table"]()


def spent(law, selector, given):
    """Sum of the entropies met on the way to each sequence given, nats."""
    start = engine.init(torch.full_like(given, law.mask_id), law.mask_id)
    _, trace = engine.run(start, law, selector, sources.given(given), entropies=True)
    total = torch.zeros(len(given), dtype=torch.float64)
    for info in trace:
        total.index_add_(0, info.items, info.entropies.nansum(1))
    return total


@pytest.mark.parametrize(
    "selector",
    [
        presets.left_to_right(2),
        presets.confidence(2),
        presets.bisection(),
        presets.eb(0.9),
        presets.entropy(),
    ],
    ids=lambda s: s.name,
)
def test_mean_entropies_less_the_entropy_of_the_law_are_the_kl_of_the_order(selector):
    everything = every_sequence(LAW, 4)
    log_p = LAW.log_prob(everything)
    p = log_p.exp()
    log_q = unmask.log_likelihood(LAW, everything, selector)
    kl = torch.where(p > 0, p * (log_p - log_q), 0.0).sum()
    own = -torch.where(p > 0, p * log_p, 0.0).sum()
    possible = p > 0
    mean = (p[possible] * spent(LAW, selector, everything[possible])).sum()
    assert mean - own == pytest.approx(float(kl), abs=1e-12)


@pytest.mark.parametrize("substeps", [1, 2])
@pytest.mark.parametrize(
    "selector",
    [
        presets.random(3),
        presets.threshold(0.4),
        presets.race(3, 0.7),
        rules.sharpened(presets.margin(2), 3.0),
    ],
    ids=lambda s: s.name,
)
def test_entropies_are_those_of_the_laws_that_symbols_came_from(selector, substeps):
    law, asked = laws.Markov([0.2, 0.5, 0.3], CHAIN, 7), []

    def source(request):
        asked.append((request.step, request.items, request.valid, entropy(request.log_probs)))
        return unmask.draw(request)

    tokens = hidden(6, law)
    tokens[::2, 1:4] = 2
    result = unmask.sample(
        law, tokens, selector, generator=seeded(1), source=source, substeps=substeps, entropies=True
    )
    for step, items, valid, wanted in asked:
        info = result.trace[step]
        assert torch.equal(info.items, items)
        assert torch.equal(info.entropies[valid], wanted[valid])
    for info in result.trace:
        assert torch.equal(info.entropies.isnan(), info.rows < 0)


def test_entropies_change_nothing_and_are_left_out_unless_asked_for():
    law = laws.Permutation(5)
    plain, noted = (
        unmask.sample(law, hidden(4, law), presets.margin(2), generator=seeded(0), entropies=e)
        for e in (False, True)
    )
    assert torch.equal(plain.tokens, noted.tokens)
    assert torch.equal(plain.log_prob, noted.log_prob)
    assert all(info.entropies is None for info in plain.trace)
    assert noted.trace[0].entropies == pytest.approx(torch.full((4, 2), 5.0).double().log(), abs=1e-12)


def test_rules_that_draw_first_note_entropies_too():
    law = laws.Permutation(5)
    result = commit.sample(law, hidden(3, law), commit.maskgit(1.0, 1), generator=seeded(0), entropies=True)
    found = torch.cat([info.entropies for info in result.trace], 1)
    assert found == pytest.approx(torch.arange(5, 0, -1).double().log().expand(3, -1), abs=1e-12)


class Clock:
    """Stands in for the wall clock: each act takes the seconds that it says."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def taking(self, seconds, act):
        def slow(*args, **kwargs):
            self.now += seconds
            return act(*args, **kwargs)

        return slow


@pytest.mark.parametrize("substeps", [1, 2])
def test_wall_time_is_split_into_network_and_the_rest(monkeypatch, substeps):
    clock, law = Clock(monkeypatch), Recording(laws.Permutation(6))
    monkeypatch.setattr(laws.Permutation, "__call__", clock.taking(8.0, laws.Permutation.__call__))
    chosen = selectors.top_k(scores.margin, 2)
    selector = unmask.Selector(clock.taking(1.0, chosen.choose))
    result = unmask.sample(
        law, torch.full((2, 6), 6), selector, generator=seeded(0), substeps=substeps
    ).manifest
    assert result["network_seconds"] == 8 * len(law.calls) == 8 * 3 * substeps
    assert result["seconds"] == result["network_seconds"] + 3


def test_wall_time_of_correctors_counts_every_call(monkeypatch):
    clock, law = Clock(monkeypatch), Recording(laws.Permutation(4))
    monkeypatch.setattr(laws.Permutation, "__call__", clock.taking(8.0, laws.Permutation.__call__))
    steps = remask.remdm(schedules.linear().alpha, schedules.uniform_grid(3), remask.cap(0.2))
    kernels = [*steps, remask.gibbs(1, remask.symbol_margin), remask.gibbs(1)]
    result = remask.sample(law, torch.full((2, 4), 4), kernels, generator=seeded(0)).manifest
    assert result["seconds"] == result["network_seconds"] == 8 * len(law.calls) > 0


@pytest.mark.global_random
def test_the_manifest_says_how_to_repeat_a_sample():
    network = unmask.networks.Transformer(vocab_size=3, length=4, width=8, depth=1, heads=2, rotary=True)
    double = unmask.networks.Transformer(vocab_size=3, length=4, width=8, depth=1, heads=2, rotary=True)
    mixed = unmask.guided(unmask.from_logits(network, 3, 3), unmask.from_logits(double.double(), 3, 3), 0.5)
    denoiser = unmask.tempered(mixed, 0.5)
    tokens = torch.full((2, 4), 3)
    selector = unmask.selectors.top_k(unmask.scores.margin, (1, 3))
    result = unmask.sample(denoiser, tokens, selector, generator=seeded(5), source=unmask.greedy, substeps=2)
    found = json.loads(json.dumps(result.manifest))
    assert found["unmask"] == unmask.__version__
    assert found["torch"] == torch.__version__
    assert (found["device"], found["shape"], found["substeps"]) == ("cpu", [2, 4], 2)
    assert found["dtype"] == ["torch.float32", "torch.float64"]
    assert found["log_probs_dtype"] == ["torch.float64"]
    assert (found["selector"], found["source"]) == ("top_k(margin, 2 steps: 1, 3)", "greedy")
    state, _ = engine.run(
        engine.init(tokens, 3), denoiser, selector, unmask.greedy, substeps=2, seed=found["seed"]
    )
    assert torch.equal(state.tokens, result.tokens)


def test_every_way_to_sample_leaves_the_same_entries_in_the_manifest():
    law = laws.Permutation(4)
    kernels = remask.remdm(schedules.linear().alpha, schedules.uniform_grid(3), remask.cap())
    records = [
        unmask.sample(law, hidden(2, law), presets.random(), generator=seeded(0)).manifest,
        commit.sample(law, hidden(2, law), commit.maskgit(1.0, 1), generator=seeded(0)).manifest,
        remask.sample(law, hidden(2, law), kernels, generator=seeded(0)).manifest,
    ]
    assert records[0].keys() == records[1].keys() == records[2].keys()
    assert {r["seed"] for r in records} == {records[0]["seed"]}
    assert all(r["log_probs_dtype"] == ["torch.float64"] and r["dtype"] == [] for r in records)
