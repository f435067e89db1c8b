"""What is told of each step changes nothing, and a manifest is enough to sample again, bit for bit."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from helpers import CHAIN, Toy, hidden, seeded

import unmask
from unmask import laws, scores, selectors
from unmask.command_line.app import main
from unmask.kernels import commit
from unmask.masking import schedules
from unmask.orders import described, presets, rules
from unmask.planning import plans

LAW = laws.Markov([0.2, 0.5, 0.3], CHAIN, 9)

NAMED = {
    "ancestral": presets.ancestral(5, 3),
    "first hitting": presets.first_hitting(2),
    "random": presets.random(2, 7),
    "left to right": presets.left_to_right((4, 5)),
    "confidence": presets.confidence(plan=3),
    "noisy margin": presets.noisy_margin(2, scale=0.25, seed=9),
    "entropy": presets.entropy(),
    "moment": presets.moment(3, 2.5, 2**40),
    "moment sampler": presets.moment_sampler(3, rules.maskgit_alpha(4.5, 3), 1),
    "moment sampler of one heat": presets.moment_sampler(3, 0.8, 1),
    "sharpened by exponent": rules.sharpened(presets.margin(2), rules.exponent(0.5)),
    "race": presets.race(3, 0.7, 5),
    "halton": presets.halton(3, 3, shift_seed=4),
    "bisection": presets.bisection(),
    "hybrid": presets.hybrid(3, 0.4, exploit=scores.negative_entropy),
    "eb": presets.eb(0.6),
    "threshold": presets.threshold(0.5),
    "factor": presets.factor(0.8),
    "klass": presets.klass(0.5, 0.2, 2),
    "pc": presets.pc(torch.tensor([0.5, 0.3, 0.2]).double(), 2),
    "information gain": presets.information_gain(LAW, 3, 2, 8),
    "punt": presets.punt(LAW, 0.1),
    "in blocks": selectors.in_blocks(rules.spaced(presets.margin(2), 2), 3),
    "own pieces": selectors.top_k(scores.with_noise(scores.on_base(scores.margin), 0.3, 5), 2),
    "scaled plan": presets.random(partial(plans.rescaled, (1, 2, 3)), 1),
}


@pytest.mark.parametrize("name", NAMED)
def test_a_manifest_that_went_through_json_replays_its_sample(name):
    selector = NAMED[name]
    tokens = hidden(12, LAW)
    result = unmask.sample(LAW, tokens, selector, generator=seeded(3))
    told = json.loads(json.dumps(result.manifest))
    again = unmask.replay(LAW, told)
    assert torch.equal(again.tokens, result.tokens)
    assert torch.equal(again.log_prob, result.log_prob)
    assert [i.rows.tolist() for i in again.trace] == [i.rows.tolist() for i in result.trace]
    assert described.made(told["selector_made_by"], LAW).name == selector.name
    times = {"seconds", "network_seconds"}
    assert {k: v for k, v in again.manifest.items() if k not in times} == {
        k: v for k, v in result.manifest.items() if k not in times
    }


def test_prompts_ids_sources_substeps_and_wrappers_are_told():
    denoiser = unmask.forbidding(unmask.tempered(LAW, 0.6), [2])
    tokens = hidden(5, LAW)
    tokens[:, 4] = 1
    for source in (unmask.draw, unmask.greedy):
        result = unmask.sample(
            denoiser,
            tokens,
            presets.random(3),
            generator=seeded(0),
            source=source,
            substeps=2,
            order_ids=torch.tensor([4, 0, 2, 2, 9]),
            item_ids=torch.tensor([7, 1, 2, 3, 2**32 - 1]),
        )
        assert torch.equal(unmask.replay(denoiser, result.manifest, tokens).tokens, result.tokens)
    with pytest.raises(ValueError, match=r"had a prompt, .*expected tokens="):
        unmask.replay(denoiser, result.manifest)
    with pytest.raises(ValueError, match="not where the sample started"):
        unmask.replay(denoiser, result.manifest, hidden(5, LAW))
    with pytest.raises(ValueError, match=r"got the denoiser Markov; expected forbidding\(tempered"):
        unmask.replay(LAW, result.manifest, tokens)


def test_what_is_no_data_is_asked_for():
    def mine(view):
        return selectors.top_k(scores.margin, 2)(view)

    def last(request):
        return torch.full_like(request.rows, 2)

    tokens = hidden(3, LAW)
    result = unmask.sample(LAW, tokens, mine, generator=seeded(0), source=last)
    assert result.manifest["selector_made_by"] is None
    with pytest.raises(ValueError, match=r"^the order 'mine' is no data; expected selector="):
        unmask.replay(LAW, result.manifest)
    with pytest.raises(
        ValueError, match=r"^the symbols came from 'last', which is no data; expected source="
    ):
        unmask.replay(LAW, result.manifest, selector=mine)
    assert torch.equal(unmask.replay(LAW, result.manifest, selector=mine, source=last).tokens, result.tokens)
    for selector in (
        presets.random(lambda n: (n,)),
        presets.noisy_margin(1, lambda step: 0.5),
        selectors.ancestral(schedules.cosine(), schedules.uniform_grid(4), 0),
        presets.pc(torch.ones(5000)),
        presets.race(2, float("inf")),  # which JSON has no number for
    ):
        assert described.made_by(selector) is None


def test_an_order_that_was_changed_is_no_longer_told():
    from dataclasses import replace

    changed = replace(presets.margin(2), choose=presets.random(2).choose)
    assert described.made_by(changed) is None


def test_other_tokens_than_the_manifests_are_an_error():
    result = unmask.sample(LAW, hidden(4, LAW), presets.random(2), generator=seeded(1))
    for change in ({"seed": result.manifest["seed"] + 1}, {"tokens": "0" * 64}):
        with pytest.raises(
            ValueError, match=r"^the tokens are others than the manifest's: unmask .*; expected"
        ):
            unmask.replay(LAW, result.manifest | change)


@pytest.mark.parametrize(
    "description",
    [
        {"make": "os.system", "with": {"command": "true"}},
        {"make": "scores.replace", "with": {}},
        {"make": "presets.__loader__", "with": {}},
        {"make": "presets.random", "with": {"unknown": 1}},
        {"score": "torch"},
        {"score": 3},
        {"other": 1},
        {},
    ],
    ids=str,
)
def test_descriptions_that_are_none_are_one_clear_line(description):
    with pytest.raises(ValueError, match=r"^no order is made by .*expected what a manifest says$"):
        described.made(description)


def test_manifests_of_other_versions_and_samplers_say_what_is_missing():
    result = unmask.sample(LAW, hidden(2, LAW), presets.random(2), generator=seeded(1))
    old = {k: v for k, v in result.manifest.items() if k != "selector_made_by"}
    with pytest.raises(ValueError, match=r"the manifest has no 'selector_made_by'; expected"):
        unmask.replay(LAW, old)
    first = commit.sample(LAW, hidden(2, LAW), commit.maskgit(1.0, 3), generator=seeded(0))
    with pytest.raises(ValueError, match="is no data; expected selector="):
        unmask.replay(LAW, first.manifest)


def test_a_run_of_the_command_line_is_replayed_in_one_batch(capsys):
    words = ["sample", "molecules", "-n", "3", "--batch-size", "2", "--order", "random", "--plan", "3,5,20"]
    assert main([*words, "--temperature", "0.9", "--seed", "4", "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    model = unmask.load("molecules")
    start = model.all_masked(3, seeded(4))
    again = unmask.replay(unmask.tempered(model.denoiser, 0.9), report["manifest"], start)
    assert model.decode(again.tokens) == [s["text"] for s in report["samples"]]


# --- each step --------------------------------------------------------------------------------------------


def test_each_hears_of_every_step_and_changes_nothing():
    heard = []

    def each(info, tokens):
        heard.append((info, tokens.clone()))
        tokens.zero_()  # its own
        torch.rand(3, generator=seeded(0))

    tokens = hidden(6, LAW)
    tokens[0, :7], tokens[1] = 1, 2
    how = {"order_ids": torch.arange(6) + 3, "entropies": True, "substeps": 2}
    plain = unmask.sample(LAW, tokens, presets.margin(2), generator=seeded(5), **how)
    told = unmask.sample(LAW, tokens, presets.margin(2), generator=seeded(5), each=each, **how)
    assert torch.equal(plain.tokens, told.tokens)
    assert torch.equal(plain.log_prob, told.log_prob)
    assert torch.equal(plain.nfe, told.nfe)
    assert [id(info) for info, _ in heard] == [id(info) for info in told.trace]
    now = tokens
    for info, after in heard:
        now = now.clone()
        for item, rows, symbols in zip(info.items.tolist(), info.rows, info.symbols):
            now[item, rows[rows >= 0]] = symbols[rows >= 0]
        assert torch.equal(after, now)
    assert torch.equal(now, told.tokens)


def test_an_exception_of_each_stops_the_sample():
    class Enough(Exception):
        pass

    seen = []

    def each(info, tokens):
        seen.append(info)
        if len(seen) == 2:
            raise Enough

    with pytest.raises(Enough):
        unmask.sample(Toy(), torch.full((1, 4), 3), presets.left_to_right(), generator=seeded(0), each=each)
    assert len(seen) == 2


def test_each_hears_nothing_where_nothing_is_masked():
    heard = []
    unmask.sample(
        Toy(),
        torch.zeros(1, 4).long(),
        presets.left_to_right(),
        generator=seeded(0),
        each=lambda *_: heard.append(1),
    )
    assert heard == []
