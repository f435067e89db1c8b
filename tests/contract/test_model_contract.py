"""A loaded model measures whatever its `encode` returns, and nothing that is given to `encode` vanishes."""

from __future__ import annotations

import json
import math

import pytest
import torch

import unmask
from unmask import laws, scores, selectors
from unmask.command_line.app import main
from unmask.models import Model

SMILES = ["CCO", "c1ccccc1", "CC(=O)N", ""]
CHAIN = laws.Markov([0.2, 0.5, 0.3], [[0.7, 0.2, 0.1], [0.05, 0.15, 0.8], [0.5, 0.1, 0.4]], 5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Ended:
    """Three equally likely symbols; the fourth marks the end and is never said."""

    mask_id = vocab_size = 4

    def __call__(self, tokens, rows=None, *, time=None):
        count = tokens.shape[1] if rows is None else rows.shape[1]
        law = torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0], dtype=torch.float64).log()
        return law.expand(len(tokens), count, 4)


def around(law, length, **config) -> Model:
    """A model of an exact law."""
    return Model("exact", law, torch.as_tensor, torch.Tensor.tolist, {"network": {"length": length}} | config)


# --- nothing vanishes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("text", ["a" * 128, "ab"], "item 1 has 2 symbols; model 'text' expects stretches of 128"),
        ("text", "ab", "item 0 has 2 symbols"),
        ("text", [""], "item 0 has 0 symbols"),
        ("text", ["a" * 300], "item 0 has 300 symbols; .*: 44 at the end would be lost; cut=True"),
        (
            "text",
            ["a" * 128, "b" * 9 + "_" + "B" * 118],
            "item 1, position 10: character 'B' is not in the vocabulary",
        ),
        ("molecules", ["CCO", "C" * 59], "item 1 has 59 symbols; expected at most 58"),
        ("molecules", ["CCO", "CCx"], "item 1, position 2: character 'x' is not in the vocabulary"),
        ("molecules", [None], "item 0 is a NoneType; expected a text"),
        ("records", ["{}", "x" * 641], "item 1 has 641 symbols; expected at most 640"),
        ("sudoku", ["." * 81, "." * 80], "item 1: board has 80 characters"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_number(name, given, says):
    with pytest.raises(ValueError, match=says):
        unmask.load(name).encode(given)


def test_encode_keeps_every_item_and_cuts_only_when_told():
    text, molecules = unmask.load("text"), unmask.load("molecules")
    assert text.decode(text.encode(["a" * 128, "b" * 256])) == ["a" * 128, "b" * 128, "b" * 128]
    assert text.decode(text.encode(["a" * 300, "b" * 130], cut=True)) == ["a" * 128, "a" * 128, "b" * 128]
    assert molecules.decode(molecules.encode(SMILES)) == SMILES
    assert molecules.decode(molecules.encode(["C" * 59], cut=True)) == ["C" * 58]
    for name in ("text", "molecules", "records", "sudoku"):
        assert unmask.load(name).encode([]).shape == (0, unmask.load(name).length)
    assert unmask.load("records").encode([b"\xff\x00"])[0, :2].tolist() == [255, 0]


# --- what is measured -----------------------------------------------------------------------------


def test_the_ends_are_given_and_the_length_is_said_apart():
    model = unmask.load("molecules")
    tokens = model.encode(SMILES)
    found = model.log_likelihood(tokens)
    assert bool(found.isfinite().all())
    assert found[3] == 0  # nothing but ends
    order = unmask.orders.presets.left_to_right(1)
    assert torch.equal(
        found, unmask.log_likelihood(model.denoiser, tokens, order, visible=model.visible(tokens))
    )
    whole = model.log_likelihood(tokens, with_length=True)
    assert torch.allclose(whole, found - model.length_cost(tokens), rtol=0, atol=1e-12)
    bound = model.nelbo(tokens, generator=seeded(), samples=4)
    assert bool(bound.value.isfinite().all())
    costly = model.nelbo(tokens, generator=seeded(), samples=4, with_length=True)
    assert torch.allclose(costly.value - bound.value, model.length_cost(tokens))
    assert torch.equal(costly.stderr, bound.stderr)


def test_a_law_whose_ends_are_given_costs_its_symbols_only():
    model = around(Ended(), 4, order="random", lengths=[0, 1, 2, 0, 1])
    model.config["network"]["ends"] = True
    tokens = torch.tensor([[0, 1, 3, 3], [2, 2, 2, 2], [3, 3, 3, 3]])
    symbols = torch.tensor([2, 4, 0], dtype=torch.float64)
    assert torch.allclose(model.log_likelihood(tokens), -symbols * math.log(3))
    assert torch.allclose(model.nelbo(tokens, generator=seeded(), samples=3).value, symbols * math.log(3))
    lengths = torch.tensor([3 / 9, 2 / 9, 1 / 9], dtype=torch.float64)  # counts with one more of each
    found = model.log_likelihood(tokens, with_length=True)
    assert torch.allclose(found, lengths.log() - symbols * math.log(3))


@pytest.mark.parametrize("order", ["random", "left-to-right", "bisection", "confidence", "margin", "entropy"])
def test_one_at_a_time_along_the_own_order_is_the_law(order):
    model, tokens = around(CHAIN, 5, order=order), CHAIN.sample(20, seeded())
    assert torch.allclose(model.log_likelihood(tokens), CHAIN.log_prob(tokens))
    assert torch.allclose(
        model.nelbo(tokens, generator=seeded(), samples=400).value, -CHAIN.log_prob(tokens), atol=0.5
    )


def test_selector_order_ids_and_substeps_reach_the_engine():
    model, tokens = around(CHAIN, 5, order="left-to-right"), CHAIN.sample(6, seeded())
    selector, ids = selectors.top_k(scores.at_random(3), (3, 2)), torch.arange(6)
    for substeps in (1, 2):
        told = unmask.log_likelihood(CHAIN, tokens, selector, order_ids=ids, substeps=substeps)
        assert torch.equal(model.log_likelihood(tokens, selector, order_ids=ids, substeps=substeps), told)
    assert not torch.equal(model.log_likelihood(tokens, selector), told)


def test_an_order_with_settings_and_masked_tokens_are_refused():
    with pytest.raises(ValueError, match="order 'halton' of model 'exact' has settings; expected a selector"):
        around(CHAIN, 5, order="halton").log_likelihood(CHAIN.sample(2, seeded()))
    model = unmask.load("sudoku")
    with pytest.raises(ValueError, match="no masks"):
        model.log_likelihood(model.encode("." * 81))


def test_digits_in_stages_are_measured_stage_by_stage(tmp_path):
    model = unmask.load("digits")
    shape = (1, 28, 28)
    tokens = model.encode(torch.zeros(shape, dtype=torch.uint8).numpy())
    assert bool(model.nelbo(tokens, generator=seeded(), samples=1).value.isfinite().all())


def test_eval_prints_what_the_model_says(tmp_path, capsys):
    model = unmask.load("molecules")
    (tmp_path / "m.smi").write_text("\n".join(SMILES[:3]) + "\n")
    words = ["eval", "molecules", str(tmp_path / "m.smi"), "--samples", "4", "--exact", "3", "--seed", "5"]
    assert main([*words, "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    tokens = model.encode(SMILES[:3])
    bound = model.nelbo(tokens, generator=seeded(5), samples=4, with_length=True).value.mean()
    exact = -model.log_likelihood(tokens, with_length=True).mean()
    assert report["nelbo"]["nats"]["value"] == pytest.approx(float(bound))
    assert report["log_likelihood"]["nats"]["value"] == pytest.approx(float(exact))
