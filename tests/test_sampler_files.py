"""A sampler file is the selector that it was made of: the same samples, likelihood and archive, with nothing else given."""

from __future__ import annotations

import inspect
import io
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import CHAIN, every_sequence, hidden, seeded

import unmask
from unmask import Sampler, codec, laws, scores, selectors
from unmask.codec import container, tables
from unmask.command_line.app import main
from unmask.orders import described, lookahead, policy, presets, rules, samplers
from unmask.planning import plans

LAW = laws.Markov([0.2, 0.5, 0.3], CHAIN, 9)
TABLE = samplers.plans_by_count({9: (2, 3, 4), 4: (1, 3)})

RULES = {
    "random": presets.random(2, 7),
    "threshold": presets.threshold(0.6),
    "fork": presets.fork(0.7),
    "eb": presets.eb(0.7),
    "factor": presets.factor(0.9),
    "margin by a table": presets.margin(TABLE),
    "noisy margin": presets.noisy_margin(2, 0.3, 9),
    "in blocks": selectors.in_blocks(presets.threshold(0.7), 3),
    "spaced": rules.spaced(presets.confidence(3), 2),
    "moment": presets.moment(3, 2.5, 2**40),
    "race": presets.race(3, 0.7, 5),
    "klass": presets.klass(0.5, 0.2, 2),
    "ancestral": presets.ancestral(5, 3),
    "hybrid": presets.hybrid(3, 0.4),
    "rescaled": presets.entropy(samplers.plans_by_count({6: (1, 2, 3)})),
    "pc": presets.pc(torch.tensor([0.5, 0.3, 0.2]), 2),
}


def written(tmp_path, sampler):
    """The sampler after its file."""
    sampler.save(tmp_path / "s.json")
    found = Sampler.load(tmp_path / "s.json")
    assert found == sampler
    return found


# --- the same law -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_a_file_samples_and_scores_as_its_selector(name, tmp_path):
    selector = RULES[name]
    found = written(tmp_path, Sampler(selector, substeps=2, temperature=0.7, name=name, calls=3))
    law = unmask.tempered(LAW, 0.7)
    mine = unmask.sample(law, hidden(8, LAW), selector, generator=seeded(3), substeps=2)
    its = unmask.sample(LAW, hidden(8, LAW), found, generator=seeded(3))
    assert torch.equal(mine.tokens, its.tokens)
    assert torch.equal(mine.log_prob, its.log_prob)
    assert torch.equal(mine.nfe, its.nfe)
    ids = torch.arange(8)
    assert torch.equal(unmask.log_likelihood(LAW, its.tokens, found, order_ids=ids), its.log_prob)
    assert its.manifest["sampler"] == found.record()
    assert torch.equal(unmask.replay(law, its.manifest).tokens, its.tokens)


def test_probabilities_of_all_sequences_sum_to_one():
    small = laws.Markov([0.2, 0.5, 0.3], CHAIN, 5)
    for selector in (presets.threshold(0.6), presets.eb(0.4), presets.margin(TABLE)):
        told = unmask.log_likelihood(small, every_sequence(small, 5), Sampler(selector, temperature=1.5))
        assert abs(float(told.exp().sum()) - 1) < 1e-9


def test_the_most_probable_symbols_are_no_law():
    greedy = Sampler(presets.margin(2), source="greedy")
    found = unmask.sample(LAW, hidden(2, LAW), greedy, generator=seeded(0))
    mine = unmask.sample(LAW, hidden(2, LAW), presets.margin(2), generator=seeded(0), source=unmask.greedy)
    assert torch.equal(found.tokens, mine.tokens)
    assert (Sampler(presets.margin()).is_law, greedy.is_law) == (True, False)
    with pytest.raises(ValueError, match="which is no law; expected source 'draw'"):
        unmask.log_likelihood(LAW, found.tokens, greedy)
    with pytest.raises(ValueError, match="which is no law"):
        codec.compress(codec.of_denoiser(LAW, 9, "t"), [], sampler=greedy)
    for more in ({"substeps": 2}, {"source": unmask.greedy}):
        with pytest.raises(ValueError, match=r"sampler.*expected no"):
            unmask.sample(LAW, hidden(2, LAW), greedy, generator=seeded(0), **more)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_look_ahead_goes_through_the_denoiser_that_it_names(temperature, tmp_path):
    law = unmask.tempered(LAW, temperature)
    selector = presets.information_gain(law, 3, 2, 8)
    found = written(tmp_path, Sampler(selector, temperature=temperature))
    its = unmask.sample(LAW, hidden(3, LAW), found, generator=seeded(1))
    assert torch.equal(its.tokens, unmask.sample(law, hidden(3, LAW), selector, generator=seeded(1)).tokens)
    with pytest.raises(ValueError, match="looks ahead through"):
        found.selector  # noqa: B018
    with pytest.raises(ValueError, match="looks ahead through"):
        found.selector_for(laws.Permutation(3))


def test_a_model_takes_a_sampler_in_the_place_of_an_order():
    model = unmask.load("molecules")
    sampler = Sampler(presets.random(16), temperature=0.9)
    result = model.sample(3, order=sampler, seed=2)
    told = model.log_likelihood(result.tokens, sampler, order_ids=torch.arange(3))
    assert torch.allclose(told, result.log_prob, atol=1e-3)
    with pytest.raises(ValueError, match=r"sampler.*expected none"):
        model.sample(1, order=sampler, temperature=0.5)


# --- plans for rows of several lengths ----------------------------------------------------------------------


def test_a_table_knows_its_counts_and_rescales_the_nearest_plan_for_others():
    assert [TABLE(n) for n in (9, 4)] == [(2, 3, 4), (1, 3)]
    for n in range(1, 40):
        nearest = (1, 3) if abs(n - 4) < abs(n - 9) else (2, 3, 4)
        assert TABLE(n) == (nearest if sum(nearest) == n else plans.rescaled(nearest, n))
    two = samplers.plans_by_count({4: (4,), 6: (1,) * 6})
    assert two(5) == (1,) * 5  # equally near: the larger one's
    again = described.made(json.loads(json.dumps(described.made_by(TABLE))))
    assert [again(n) for n in range(1, 40)] == [TABLE(n) for n in range(1, 40)]


@pytest.mark.parametrize(
    "table",
    [
        [],
        [[4, [[1, 3]]]],
        [[4, [[2, 2]]], [4, [[4, 1]]]],
        [[4, [[0, 4], [4, 1]]]],
        [[4, [4]]],
        [[4]],
        [3],
        [["4", [[4, 1]]]],
    ],
    ids=str,
)
def test_tables_of_other_things_are_one_clear_line(table):
    rule = {
        "make": "presets.random",
        "with": {"plan": {"make": "samplers.by_count", "with": {"table": table}}},
    }
    with pytest.raises(ValueError, match="expected") as error:
        Sampler(rule)
    assert "\n" not in str(error.value)


def test_rows_of_several_lengths_follow_a_table():
    tokens = hidden(2, LAW)
    tokens[1, 4:] = 0
    result = unmask.sample(LAW, tokens, Sampler(presets.random(TABLE)), generator=seeded(0))
    sizes = [[], []]
    for info in result.trace:
        for item, rows in zip(info.items.tolist(), info.rows):
            sizes[item].append(int((rows >= 0).sum()))
    assert sizes == [[2, 3, 4], [1, 3]]


# --- files by hand, and by strangers ------------------------------------------------------------------------


def by_hand(**fields):
    return json.dumps({"format": "unmask.sampler", "version": 1} | fields)


def test_a_file_written_by_hand_may_leave_out_what_has_a_default():
    found = Sampler.from_json(by_hand(rule={"make": "presets.threshold"}, temperature=1))
    assert found == Sampler(presets.threshold(0.9))
    nested = {"make": "selectors.in_blocks", "with": {"selector": {"make": "presets.eb"}, "block_length": 3}}
    assert Sampler.from_json(by_hand(rule=nested)) == Sampler(selectors.in_blocks(presets.eb(), 3))
    scaled = {"make": "presets.random", "with": {"plan": {"rescaled": [1, 2, 3]}, "seed": 1}}
    assert Sampler.from_json(by_hand(rule=scaled)).rule == scaled


def nest(depth):
    score = {"score": "margin"}
    for _ in range(depth):
        score = {"make": "scores.on_base", "with": {"score": score}}
    return {"make": "selectors.top_k", "with": {"score": score, "plan": 1}}


def called(name, **arguments):
    return {"make": name, "with": arguments}


WRONG = {
    "no rule": ({}, "without a rule"),
    "another field": ({"rule": called("presets.eb"), "temprature": 2}, "field 'temprature'"),
    "a rule that is a text": ({"rule": "margin"}, "rule 'margin' is no data"),
    "a score": ({"rule": {"score": "margin"}}, "the order makes Score; expected a selector"),
    "a setting": ({"rule": called("rules.maskgit_alpha", tau=1, steps=3)}, "expected a selector"),
    "a command": ({"rule": called("os.system", command="true")}, "no order is made by"),
    "no maker": ({"rule": called("selectors.take")}, "no order is made by"),
    "an unknown argument": (
        {"rule": called("presets.eb", gama=1)},
        "presets.eb with 'gama', which takes gamma",
    ),
    "a text for a plan": (
        {"rule": called("presets.random", plan="3")},
        "plan '3': expected positions per call",
    ),
    "a selector for a plan": ({"rule": called("presets.random", plan=called("presets.eb"))}, "with plan"),
    "a selector for a score": (
        {"rule": called("selectors.top_k", score=called("presets.eb"), plan=1)},
        "with score .*expected a score",
    ),
    "a score for a selector": (
        {"rule": called("rules.spaced", selector={"score": "margin"}, distance=2)},
        "expected a selector",
    ),
    "NaN": ({"rule": called("presets.eb", gamma=float("nan"))}, "with gamma nan"),
    "a number below 0": ({"rule": called("presets.eb", gamma=-1)}, "gamma -1"),
    "a plan of 4000 digits": ({"rule": called("presets.random", plan=10**4000)}, "with plan"),
    "a grid without end": ({"rule": called("presets.halton", height=2**30, width=2**30)}, "cells"),
    "a clock without end": (
        {"rule": called("presets.ancestral", steps=2**30)},
        "expected at most 16384 steps",
    ),
    "a nest": ({"rule": nest(90)}, "nests more than 24 levels"),
    "a table without end": (
        {"rule": called("presets.random", plan=called("samplers.by_count", table=[[9, [[1, 2**50]]]]))},
        "whole number between 1 and 9",
    ),
    "numbers that nest": (
        {"rule": called("presets.pc", background={"numbers": [[1], [2, 3]]})},
        "no order is made",
    ),
    "sub-steps": ({"rule": called("presets.eb"), "substeps": 0}, "substeps 0"),
    "a temperature": ({"rule": called("presets.eb"), "temperature": "hot"}, "temperature 'hot'"),
    "a temperature of 4000 digits": (
        {"rule": called("presets.eb"), "temperature": 10**4000},
        "temperature 1000",
    ),
    "a source": (
        {"rule": called("presets.eb"), "source": "given"},
        "source 'given': expected one of draw, greedy",
    ),
    "a name": ({"rule": called("presets.eb"), "name": 3}, "name 3"),
    "calls": ({"rule": called("presets.eb"), "calls": True}, "calls True"),
    "provenance": ({"rule": called("presets.eb"), "provenance": [1]}, r"provenance \[1\]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_a_stranger_writes_is_refused_in_one_line_that_names_the_field(name):
    fields, words = WRONG[name]
    with pytest.raises(ValueError, match=words) as error:
        Sampler.from_json(by_hand(**fields))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_every_argument_of_every_maker_has_a_kind_that_is_checked():
    for module in (lookahead, policy, presets, rules, samplers, scores, selectors):
        for make in vars(module).values():
            if getattr(make, "described", None) is True:
                signature = inspect.signature(make)
                assert {p.annotation for p in signature.parameters.values()} <= set(described._ACCEPTS)
                assert signature.return_annotation in {"Selector", "Score", "PerStep", "Plan"}


def test_what_is_no_data_is_no_sampler():
    with pytest.raises(ValueError, match=r"^rule 'top_k\(at_random\(0\), <lambda>\)' is no data; expected"):
        Sampler(presets.random(lambda n: (n,)))
    for text in ("[1, 2]", "{", by_hand().replace("sampler", "plan")):
        with pytest.raises(ValueError, match=r"expected (a record of format )?unmask\.sampler"):
            Sampler.from_json(text)


# --- archives -----------------------------------------------------------------------------------------------


SUBJECT = codec.of_denoiser(LAW, 9, "test")
ITEMS = [row.numpy() for row in LAW.sample(40, seeded(0))]
LONG = [np.tile(ITEMS[0], 18), ITEMS[1][:4], np.array([], np.int64)]


def returned(items, found):
    found = list(found)
    return len(found) == len(items) and all(np.array_equal(a, b) for a, b in zip(items, found))


@pytest.mark.parametrize("name", RULES)
def test_an_archive_needs_nothing_but_itself(name):
    sampler = Sampler(RULES[name], substeps=2, temperature=0.8)
    items = ITEMS[:9] + LONG
    data = codec.compress(SUBJECT, items, sampler=sampler, shorter=False, verify=False)
    assert returned(items, codec.decompress(SUBJECT, data, batch=7))
    assert codec.compress(SUBJECT, items, sampler=sampler, shorter=False, verify=False, batch=5) == data
    found = codec.inspect(data)
    assert found.header.method.rule == sampler.rule
    assert found.summary.kinds["coded"] + found.summary.kinds["coded with escapes"] == len(items)
    assert data[8:10] == struct.pack("<H", 3)
    told = codec.scored(SUBJECT, ITEMS[:9], codec.Settings(sampler=sampler))
    mine = unmask.log_likelihood(LAW, torch.tensor(np.stack(ITEMS[:9])), sampler)
    assert np.allclose(told, mine, atol=1e-9)


def test_code_length_is_the_likelihood_of_the_sampler():
    item = [np.concatenate(ITEMS)] * 4
    for selector in (presets.threshold(0.6), presets.eb(0.7), presets.margin(TABLE)):
        settings = codec.Settings(sampler=Sampler(selector))
        bits = -sum(codec.scored(SUBJECT, item, settings)) / np.log(2)
        data = codec.compress(SUBJECT, item, sampler=Sampler(selector))
        assert codec.inspect(data).summary.kinds == {"coded": 4}
        assert 0 <= 8 * codec.inspect(data).summary.payload_bytes - bits < 4 * 3 * 10  # three streams an item


class Shifted:
    """The law on another machine: every log-probability is off by up to 1e-13 nats."""

    mask_id, vocab_size = LAW.mask_id, LAW.vocab_size

    def __init__(self):
        self.random = seeded(5)

    def __call__(self, tokens, rows=None, *, time=None):
        law = LAW(tokens, rows)
        return law + 2e-13 * (torch.rand(law.shape, generator=self.random, dtype=torch.float64) - 0.5)

    def full(self, tokens, rows=None, *, time=None):
        return self(tokens, rows), None

    def partial(self, tokens, rows, cache, *, time=None):
        return self(tokens, rows)


@pytest.mark.parametrize(
    "name", ["threshold", "eb", "factor", "klass", "margin by a table", "moment", "race"]
)
def test_another_machine_decodes(name):
    data = codec.compress(SUBJECT, ITEMS, sampler=Sampler(RULES[name], temperature=0.8))
    assert returned(ITEMS, codec.decompress(codec.of_denoiser(Shifted(), 9, "test"), data))


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_count_that_hangs_on_a_hair_is_not_coded(place, side):
    """A threshold within the last digits of a probability, at an even or an odd place, just reached or just missed."""
    values = tables.rounded(np.log([[0.7, 0.2, 0.1]]), 8, 0.0).values[0] / 256
    level = float(np.exp(values[0])) * (1 + side * 2.0**-51)

    def choose(view):  # a count by comparison, without a grid to stand on
        found = torch.where(torch.arange(4) == place, scores.confidence(view), 0.5)
        reached = (view.masked & (found >= level)).sum(1)
        return selectors.take(view, found, 1 + 2 * reached)

    fragile: set[int] = set()
    selector = unmask.Selector(choose)
    rounding = tables.Rounding(tables.Law(LAW, selector), np.zeros(1, np.int64))
    view = unmask.View(
        torch.full((1, 4), 3), torch.ones(1, 4, dtype=torch.bool), torch.tensor(values).expand(1, 4, 3)
    )
    tables.steady(selector, rounding, fragile)(view)
    assert fragile == {0}
    fragile.clear()
    tables.steady(presets.threshold(0.6), rounding, fragile)(view)
    assert not fragile


def test_older_readers_refuse_and_older_archives_have_their_version():
    data = codec.compress(SUBJECT, ITEMS, plan=3)
    assert data[8:10] == struct.pack("<H", 1)
    record = container.read_header(io.BytesIO(data))
    assert not {"rule", "temperature"} & set(record["method"])


def test_settings_beside_a_sampler_are_refused():
    sampler = Sampler(presets.eb(0.3))
    for more in ({"plan": 2}, {"seed": 1}, {"substeps": 2}, {"order": codec.RANDOM}):
        with pytest.raises(ValueError, match="beside a sampler, which says it itself"):
            codec.compress(SUBJECT, ITEMS, sampler=sampler, **more)
    ahead = Sampler(presets.information_gain(LAW, 2))
    with pytest.raises(ValueError, match="looks ahead with calls that are not rounded"):
        codec.compress(SUBJECT, ITEMS, sampler=ahead)
    with pytest.raises(ValueError, match="the plan sums to 5 but 9 positions are masked"):
        codec.compress(SUBJECT, ITEMS, sampler=Sampler(presets.random((2, 3))))
    causal = replace(SUBJECT, causal=True)
    for selector in (presets.left_to_right(2), selectors.top_k(scores.left_to_right, 1)):
        assert returned(
            ITEMS, codec.decompress(causal, codec.compress(causal, ITEMS, sampler=Sampler(selector)))
        )
    with pytest.raises(ValueError, match="causal model reads from left to right"):
        codec.compress(causal, ITEMS, sampler=sampler)


# --- the command line ---------------------------------------------------------------------------------------


def told(capsys, *words):
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_commands_take_a_sampler_file(capsys, tmp_path):
    path = tmp_path / "s.json"
    own = ["sample", "sudoku", "-n", "2", "--seed", "4", "--json", "--quiet"]
    words = ["--order", "noisy-margin", "--plan", "27", "--temperature", "0.9"]
    sampler = Sampler(presets.noisy_margin(27, 0.5, 4), temperature=0.9, name="mine")
    sampler.save(path)
    _, by_file, _ = told(capsys, *own, "--sampler", str(path))
    _, by_words, _ = told(capsys, *own, *words)
    by_file, by_words = json.loads(by_file), json.loads(by_words)
    assert by_file["samples"] == by_words["samples"]
    assert by_file["sampler"] == by_file["manifest"]["sampler"] == sampler.record()
    assert (by_words["sampler"], by_file["temperature"]) == (None, 0.9)
    code, found, _ = told(
        capsys,
        "eval",
        "sudoku",
        "--generate",
        "60",
        "-n",
        "1",
        "--samples",
        "1",
        "--sampler",
        str(path),
        "--json",
    )
    assert code == 0
    assert json.loads(found)["sampler"] == sampler.record()
    for more, name in (
        (["--order", "margin"], "--order"),
        (["--plan", "2"], "--plan"),
        (["--greedy"], "--greedy"),
    ):
        code, _, error = told(capsys, *own, "--sampler", str(path), *more)
        assert (code, error.count("\n")) == (2, 1)
        assert f"--sampler {path} with {name}; expected one of them" in error
    assert "no such file" in told(capsys, *own, "--sampler", str(tmp_path / "none"))[2]


def test_archives_of_a_sampler_file_come_back(capsys, tmp_path):
    path, lines, out = tmp_path / "s.json", tmp_path / "a.smi", tmp_path / "a.umz"
    lines.write_text("CCO\nc1ccccc1\nCC(=O)O\n")
    Sampler(presets.threshold(0.7)).save(path)
    words = ["compress", "molecules", str(lines), "-o", str(out), "--lines", "--quiet", "--json"]
    code, said, _ = told(capsys, *words, "--sampler", str(path))
    assert code == 0
    assert json.loads(said)["sampler"]["rule"] == {"make": "presets.threshold", "with": {"tau": 0.7}}
    assert main(["decompress", str(out), "-o", str(tmp_path / "b"), "--quiet"]) == 0
    assert (tmp_path / "b").read_text() == lines.read_text()
    code, said, _ = told(capsys, "inspect", str(out), "--json")
    assert json.loads(said)["rule"] == {"make": "presets.threshold", "with": {"tau": 0.7}}
    assert json.loads(said)["version"] == 3
    assert "presets.threshold" in told(capsys, "inspect", str(out))[1]
    code, _, error = told(capsys, *words, "--sampler", str(path), "--calls", "3")
    assert code == 2
    assert "with --calls" in error


def test_likelihood_of_eval_follows_the_file(capsys, tmp_path):
    path, lines = tmp_path / "s.json", tmp_path / "a.smi"
    lines.write_text("CCO\nc1ccccc1\n")
    Sampler(presets.threshold(0.7), temperature=0.9).save(path)
    words = ["eval", "molecules", str(lines), "--exact", "2", "--samples", "1", "--json", "--quiet"]
    _, by_file, _ = told(capsys, *words, "--sampler", str(path))
    _, by_words, _ = told(capsys, *words, "--order", "threshold", "--tau", "0.7", "--temperature", "0.9")
    found = [json.loads(text)["log_likelihood"]["nats"]["value"] for text in (by_file, by_words)]
    assert found[0] == found[1]
    Sampler(presets.threshold(0.7), source="greedy").save(path)
    assert "draws no symbols" in told(capsys, *words, "--sampler", str(path))[2]
