"""Causal networks that read text in one fixed order: the order, what they read, and the likelihood that they give it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch

import unmask
from unmask import recipes
from unmask.codec.subjects import subject_of
from unmask.command_line import sequences
from unmask.data.prepare import READINGS, prepare
from unmask.data.vocabularies import TEXT8
from unmask.models import verbs
from unmask.recipes import Machine
from unmask.recipes.laboratory import imbalance
from unmask.recipes.run import override
from unmask.training.loop import train

PROSE = "the cat sat on the mat and the dog lay on the log while the rain fell down " * 30
SMALL = {
    "network.rotary": "false",
    "network.width": "8",
    "network.depth": "1",
    "network.heads": "2",
    "network.hidden": "16",
    "network.length": "3",
    "batch_size": "16",
    "optimiser.steps": "30",
    "optimiser.warmup": "5",
    "optimiser.learning_rate": "3e-2",
    "optimiser.ema": "0.9",
}
TURN = 5
"""The draw of `imbalance.drawn` whose order of three places is a turn, which is not its own inverse."""

EVERY = ["".join(symbols) for symbols in product(TEXT8, repeat=3)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "some.txt").write_text(PROSE)
    for part in ("train", "test"):
        prepare([folder / "some.txt"], folder / part, READINGS["text8"])
    return folder


def small(recipe, data, **changes):
    run = override(recipe(), SMALL | {"data.folder": str(data)} | changes)
    return replace(run, machine=Machine(threads=1, log_every=10))


@pytest.fixture(scope="module")
def models(data, tmp_path_factory):
    """A network that reads three places in a turn, and a masked one."""
    turned = {"data.swaps": "None", "data.draw": str(TURN)}
    runs = small(recipes.text_pi, data, **turned), small(recipes.text, data)
    return [unmask.load(train(run, tmp_path_factory.mktemp(run.name), quiet=True)) for run in runs]


@pytest.fixture(scope="module")
def order():
    return imbalance.drawn(3, None, TURN)


# --- orders -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("swaps", [0, 1, 3, 200, None])
def test_an_order_has_every_place_once(swaps):
    for length, draw in product([1, 2, 5, 128], range(5)):
        assert imbalance.drawn(length, swaps, draw).sort().values.tolist() == list(range(length))


def test_every_swap_moves_two_places_and_the_first_ones_are_the_same():
    identity = torch.arange(20)
    orders = [imbalance.drawn(20, swaps, 7) for swaps in range(30)]
    assert torch.equal(orders[0], identity)
    assert [int((a != b).sum()) for a, b in pairwise(orders)] == [2] * 29
    assert not torch.equal(orders[9], imbalance.drawn(20, 9, 8))


@pytest.mark.parametrize(("swaps", "possible"), [(None, 6), (1, 3)])
def test_orders_of_a_family_are_equally_likely(swaps, possible):
    seen = Counter(tuple(imbalance.drawn(3, swaps, draw).tolist()) for draw in range(1200))
    assert len(seen) == possible
    assert sum((n - 1200 / possible) ** 2 / (1200 / possible) for n in seen.values()) < 20.5  # chi2(5), 0.1 %


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="swaps -1: expected a number in 0"):
        override(recipes.text_pi(), {"data.swaps": "-1"})
    with pytest.raises(ValueError, match="draw -1: expected a number in 0"):
        override(recipes.text_pi(), {"data.draw": "-1"})


# --- reading ------------------------------------------------------------------------------------------


def test_the_window_that_is_read_in_another_order_is_the_same_window(data):
    wide = {"network.length": "12"}
    plain = small(recipes.text_autoregressive, data, **wide)
    run = small(recipes.text_pi, data, **wide, **{"data.swaps": "None"})
    plain, run = plain.prepare(plain), run.prepare(run)
    tokens, moved = plain.batch(plain, 3).tokens, run.batch(run, 3).tokens
    assert torch.equal(moved, tokens[:, list(run.network.axes[0])])
    assert not torch.equal(moved, tokens)
    assert run.decode(run, moved) == plain.decode(plain, tokens)
    assert torch.equal(run.encode(run, plain.decode(plain, tokens)), moved)


def test_the_identity_is_the_plain_autoregressive_run(data, tmp_path):
    runs = [small(recipe, data) for recipe in (recipes.text_autoregressive, recipes.text_pi)]
    one, other = (unmask.load(train(run, tmp_path / run.name, quiet=True)) for run in runs)
    assert one.hash == other.hash
    assert other.places is None
    assert torch.equal(one.encode("cat"), other.encode("cat"))


# --- likelihood ---------------------------------------------------------------------------------------


def test_the_likelihood_of_all_texts_sums_to_one(models):
    reader, masked = models
    for model in (reader, masked):
        assert model.log_likelihood(model.encode(EVERY)).exp().sum().item() == pytest.approx(1, abs=1e-5)
    tokens = reader.encode(EVERY[5000:5100])
    exact = reader.nelbo(tokens, generator=torch.Generator()).value
    assert exact.tolist() == pytest.approx((-reader.log_likelihood(tokens)).tolist(), abs=1e-5)


def test_the_place_that_is_read_first_has_the_law_of_the_first_call(models, order):
    assert order.tolist() != order.argsort().tolist()
    reader, _ = models
    chances = reader.log_likelihood(reader.encode(EVERY)).exp().view(27, 27, 27)
    first = reader.denoiser(torch.full((1, 3), reader.denoiser.mask_id))[0, 0].exp().double()
    others = [axis for axis in range(3) if axis != order[0]]
    assert chances.sum(others).tolist() == pytest.approx(first.tolist(), abs=1e-5)
    assert reader.decode(reader.encode("cat")) == ["cat"]


def test_the_command_line_measures_text_in_the_order(models, data, tmp_path):
    reader, _ = models
    text = PROSE[:99]
    (tmp_path / "some.txt").write_text(text)
    wanted = reader.encode([text[i : i + 3] for i in range(0, 99, 3)])
    assert torch.equal(sequences.read(reader, tmp_path / "some.txt", None, 0).tokens, wanted)
    folder = sequences.read(reader, data / "test", None, 0).tokens
    assert torch.equal(folder, reader.encode(f" {PROSE}"[: folder.numel()], cut=True))


def test_what_is_hidden_is_told_in_places_of_the_text(models):
    reader, _ = models
    tokens = reader.encode("cat")
    hidden = reader.decode(verbs.hiding(reader, tokens, [(1, 3)]))
    assert hidden == ["c__"]
    assert torch.equal(reader.encode(hidden), verbs.hiding(reader, tokens, [(1, 3)]))


def test_archives_need_another_order(models):
    with pytest.raises(ValueError, match="reads in an order of its own; expected one that reads"):
        subject_of(models[0])
    assert models[1].places is None


def test_an_order_travels_in_the_config_and_must_be_one(models, data, tmp_path):
    reader, _ = models
    reader.save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    config["data"]["draw"] = 0
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    assert torch.equal(unmask.load(tmp_path / "saved").encode("cat"), reader.encode("cat"))
    config["network"]["axes"] = [[0, 2, 2]]
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"expected one, with each of 0\.\.2 once"):
        unmask.load(tmp_path / "saved")


# --- the part of the order laboratory -----------------------------------------------------------------


def test_the_masked_model_along_a_fixed_order_is_a_law(monkeypatch, models, order):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    import order_imbalance

    _, masked = models
    found = order_imbalance.along(masked, masked.encode(EVERY), order)
    assert found.exp().sum().item() == pytest.approx(1, abs=1e-5)
    first = masked.denoiser(torch.full((1, 3), masked.denoiser.mask_id))[0, order[0]].exp().double()
    others = [axis for axis in range(3) if axis != order[0]]
    assert found.exp().view(27, 27, 27).sum(others).tolist() == pytest.approx(first.tolist(), abs=1e-5)


def test_the_part_measures_the_first_windows_of_the_test_part(monkeypatch, models):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks"))
    import order_imbalance

    tables, _ = order_imbalance.imbalance(models, 16)
    by_order = {row["order"]: row for row in tables["families"]}
    reader, masked = models
    text = [f" {PROSE}"[i : i + 3] for i in range(0, 48, 3)]  # text8 begins with a space
    cost = -float(reader.log_likelihood(reader.encode(text)).mean()) / 3
    assert by_order["uniform"]["nats per character"] == pytest.approx(cost, abs=1e-4)
    (along,) = tables["masked along orders"]
    order = torch.tensor(reader.config["network"]["axes"][0])
    some = masked.encode(text[:: order_imbalance.ALONG])
    cost = -float(order_imbalance.along(masked, some, order).mean()) / 3
    assert along["nats per character"] == pytest.approx(cost, abs=1e-4)
