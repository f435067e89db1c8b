"""Recipes over token folders, from data to a loaded model, on a tiny folder; `unmask eval` of such models."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import unmask
from unmask import recipes
from unmask.command_line.app import main
from unmask.data.prepare import READINGS, prepare
from unmask.data.readers.images import save_grid
from unmask.recipes import Machine, sequences
from unmask.recipes.run import override
from unmask.training.loop import train

LINES = ["CCO", "c1ccccc1", "CC(=O)N", "CCN", "C#N", "OCC"] * 4
PROSE = "the cat sat on the mat and the dog lay on the log while the rain fell down " * 30
SMALL = {
    "network.width": "16",
    "network.depth": "1",
    "network.heads": "2",
    "network.hidden": "32",
    "network.length": "12",
    "batch_size": "8",
    "optimiser.steps": "30",
    "optimiser.warmup": "5",
    "optimiser.learning_rate": "1e-2",
    "optimiser.ema": "0.9",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders of molecules and of text, each with a part `train`."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "some.smi").write_text("\n".join(LINES) + "\n")
    (folder / "some.txt").write_text(PROSE)
    vocabulary = recipes.molecules().vocabulary
    prepare([folder / "some.smi"], folder / "molecules" / "train", READINGS["smiles"], vocabulary=vocabulary)
    prepare([folder / "some.txt"], folder / "text" / "train", READINGS["text8"])
    return folder


def small(recipe, data, **changes):
    run = override(recipe(), SMALL | {"data.folder": str(data / recipe.__name__)} | changes)
    return replace(run, machine=Machine(threads=1, log_every=10))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Model folders by recipe name."""
    made = {r.__name__: tmp_path_factory.mktemp(r.__name__) for r in (recipes.molecules, recipes.text)}
    for name, folder in made.items():
        train(small(recipes.all_recipes()[name], data), folder, quiet=True)
    return made


def test_items_are_padded_and_windows_are_stretches_of_the_text(data):
    run = sequences.prepared(small(recipes.molecules, data), kind="items")
    batch = run.batch(run, 3)
    assert len(batch.tokens) == 8
    assert batch.tokens.shape[1] <= 12
    assert set(run.decode(run, batch.tokens)) <= set(LINES)
    assert not bool((batch.masked & (batch.tokens == 26)).any())  # the ends are given
    assert sum(run.lengths) == len(LINES)
    assert run.lengths[3] == 16
    assert torch.equal(batch.tokens, run.batch(run, 3).tokens)
    assert not torch.equal(batch.tokens, run.batch(run, 4).tokens)
    run = sequences.prepared(small(recipes.text, data), kind="stream")
    assert all(text in PROSE for text in run.decode(run, run.batch(run, 0).tokens))


def test_masks_show_when_decoded_and_padding_ends_an_item(data):
    run = small(recipes.molecules, data)
    tokens = run.encode(run, ["CCO", "CC(=O)N"])
    assert run.decode(run, tokens) == ["CCO", "CC(=O)N"]
    tokens[1, 1:3] = run.network.vocab_size
    assert run.decode(run, tokens)[1] == "C__=O)N"
    with pytest.raises(ValueError, match="item 1 has 13 symbols; expected at most 12"):
        run.encode(run, ["C", "C" * 13])


def test_a_trained_folder_loads_with_its_vocabulary(trained, data):
    model = unmask.load(trained["molecules"])
    tokens = model.encode(LINES[:3])
    assert model.decode(tokens) == LINES[:3]
    selector = unmask.selectors.top_k(unmask.scores.at_random(0), 1)
    found = unmask.log_likelihood(model.denoiser, tokens, selector, visible=model.visible(tokens))
    assert found.sum() > -math.log(26) * (tokens != model.end).sum()


def test_given_lengths_are_drawn_and_paid_for(trained):
    model = unmask.load(trained["molecules"])
    masked = model.all_masked(4000, torch.Generator().manual_seed(0))
    assert bool(((masked == model.end) | (masked == model.denoiser.mask_id)).all())
    lengths = (masked != model.end).sum(1)
    every = torch.arange(model.length + 1)
    cost = model.length_cost(torch.where(torch.arange(model.length) < every[:, None], 0, model.end))
    assert cost.neg().exp().sum().item() == pytest.approx(1)
    seen = torch.bincount(lengths, minlength=model.length + 1) / 4000
    assert (seen - cost.neg().exp()).abs().max() < 4 * math.sqrt(0.25 / 4000)
    even = (model.all_masked(4000) != model.end).sum(1)
    assert (torch.bincount(even, minlength=13) / 4000 - cost.neg().exp()).abs().max() < 1 / 2000
    result = unmask.sample(
        model.denoiser,
        masked[:64],
        unmask.orders.presets.random(2),
        generator=torch.Generator().manual_seed(1),
    )
    assert torch.equal((result.tokens != model.end).sum(1), lengths[:64])  # an end is never drawn


def test_vocabulary_and_fingerprint_come_from_the_data(trained, data):
    config = json.loads((trained["text"] / "model" / "config.json").read_text())
    assert config["vocabulary"] == {"kind": "characters", "symbols": " abcdefghijklmnopqrstuvwxyz"}
    assert len(config["data"]["fingerprint"]) == 16
    other = small(recipes.text, data, **{"network.length": "9"})
    assert other.prepare(other).network.vocab_size == 27
    with pytest.raises(ValueError, match="holds a run with"):
        train(other, trained["text"], quiet=True)


def test_data_that_do_not_fit_are_refused_before_training(data, tmp_path):
    with pytest.raises(ValueError, match=r"longest item has 8 symbols; expected at most network.length 4"):
        train(small(recipes.molecules, data, **{"network.length": "4"}), tmp_path, quiet=True)
    with pytest.raises(ValueError, match=r"holds stream .* recipe 'molecules' expects items"):
        train(small(recipes.molecules, data, **{"data.folder": str(data / "text")}), tmp_path, quiet=True)
    with pytest.raises(ValueError, match=r"expected at least network.length 99999"):
        train(small(recipes.text, data, **{"network.length": "99999"}), tmp_path, quiet=True)
    with pytest.raises(ValueError, match="unmask data"):
        train(small(recipes.text, data, **{"data.folder": str(tmp_path)}), tmp_path, quiet=True)
    assert not list(tmp_path.iterdir())


def evaluated(capsys, *words):
    assert main(["eval", *map(str, words), "--json", "--quiet"]) == 0
    return json.loads(capsys.readouterr().out)


def test_eval_gives_bits_with_unit_and_definition(capsys, trained, data):
    found = evaluated(capsys, trained["text"], data / "text" / "train", "--num", "6", "--exact", "4")
    for part in (found["nelbo"], found["log_likelihood"]):
        per_character = part["bits_per_character"]
        nats = part["nats"]["value"]
        assert per_character["value"] == pytest.approx(nats / 12 / math.log(2))
        assert part["perplexity"]["value"] == pytest.approx(2 ** per_character["value"])
        assert all(set(n) >= {"value", "unit", "estimator", "stderr"} for n in part.values())
    assert found["data"]["characters"] == 72


def test_eval_of_items_divides_by_their_characters(capsys, trained, data):
    found = evaluated(capsys, trained["molecules"], data / "molecules" / "train")
    characters = sum(map(len, LINES))
    assert found["data"] | {"source": ""} == {"source": "", "sequences": 24, "characters": characters}
    nats = found["nelbo"]["nats"]["value"]
    bits = found["nelbo"]["bits_per_character"]["value"]
    assert bits == pytest.approx(nats * 24 / characters / math.log(2))
    again = evaluated(capsys, trained["molecules"], data / "some.smi")
    assert again["data"]["characters"] == characters
    assert again["nelbo"]["nats"]["value"] == pytest.approx(nats, rel=0.2)


@pytest.mark.parametrize(
    ("words", "says"),
    [(["nowhere"], "no data 'nowhere'"), (["molecules/train"], "has another vocabulary than model 'text'")],
)
def test_eval_refuses(capsys, trained, data, monkeypatch, words, says):
    monkeypatch.setenv("UNMASK_CACHE", str(data))
    assert main(["eval", str(trained["text"]), *words]) == 2
    assert says in capsys.readouterr().err


def test_sample_and_orders_without_likelihood(capsys, trained, data):
    words = ["sample", str(trained["molecules"]), "--num", "3", "--order", "random", "--json", "--quiet"]
    assert main(words) == 0
    assert len(json.loads(capsys.readouterr().out)["samples"]) == 3
    folder = str(data / "text" / "train")
    words = ["eval", str(trained["text"]), folder, "--order", "maskgit", "--exact", "2", "--quiet"]
    assert main(words) == 2
    assert "has no likelihood" in capsys.readouterr().err


def test_gaps_in_a_prompt_are_filled_and_the_rest_is_kept(capsys, trained, tmp_path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("C_O\nc1_ccc_1\n")
    words = ["sample", str(trained["molecules"]), "--prompt", str(prompt), "--num", "2", "--json", "--quiet"]
    assert main([*words, "--order", "random"]) == 0
    samples = json.loads(capsys.readouterr().out)["samples"]
    assert [s["prompt"] for s in samples] == ["C_O", "C_O", "c1_ccc_1", "c1_ccc_1"]
    assert all(s["nfe"] == s["prompt"].count("_") for s in samples)
    for found in samples:
        if len(found["text"]) == len(found["prompt"]):  # no padding was drawn
            assert all(a in ("_", b) for a, b in zip(found["prompt"], found["text"]))


def test_profiles_of_text_are_measured_on_a_token_folder(capsys, trained, data, tmp_path):
    out = tmp_path / "p.json"
    words = [
        "profile",
        str(trained["text"]),
        str(data / "text" / "train"),
        "-o",
        str(out),
        "--json",
        "--quiet",
    ]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["length"] == 12
    assert unmask.Profile.load(out).length == 12
    assert main(["profile", str(trained["text"]), "-o", str(out), "--quiet"]) == 2
    assert "expected a token folder" in capsys.readouterr().err


def test_images_are_laid_out_in_a_picture(tmp_path):
    image = pytest.importorskip("PIL.Image")
    grey = torch.arange(3 * 2 * 4, dtype=torch.uint8).view(3, 2, 4).numpy()
    save_grid(tmp_path / "grid.png", grey)
    pixels = torch.as_tensor(np.array(image.open(tmp_path / "grid.png")))
    assert pixels.shape == (2 * 3 + 1, 2 * 5 + 1)
    assert torch.equal(pixels[1:3, 6:10], torch.as_tensor(grey[1]))
    assert torch.equal(pixels[4:6, 1:5], torch.as_tensor(grey[2]))
    assert (pixels[0] == 255).all()


def test_a_line_of_text_is_continued(capsys, trained, tmp_path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("the cat\nthe_dog\n")
    words = [
        "sample",
        str(trained["text"]),
        "--prompt",
        str(prompt),
        "--json",
        "--quiet",
        "--order",
        "random",
    ]
    assert main(words) == 0
    first, second = json.loads(capsys.readouterr().out)["samples"]
    assert first["text"].startswith("the cat")
    assert (first["nfe"], second["nfe"]) == (5, 6)
    prompt.write_text("the cat sat on")
    assert main(words) == 2
    assert "expected lines of at most 12 characters" in capsys.readouterr().err


@pytest.fixture(scope="module")
def causal(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("causal")
    run = small(recipes.text_autoregressive, data, **{"data.folder": str(data / "text")})
    train(run, folder, quiet=True)
    return folder


def test_causal_models_read_from_left_to_right(capsys, causal, data):
    found = evaluated(capsys, causal, data / "text" / "train", "--num", "4", "--exact", "4")
    assert "exact from left to right" in found["nelbo"]["nats"]["estimator"]
    assert found["nelbo"]["nats"]["value"] == pytest.approx(found["log_likelihood"]["nats"]["value"])
    assert main(["sample", str(causal), "--num", "1", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["order"] == "left-to-right"
    assert main(["sample", str(causal), "--num", "1", "--order", "random"]) == 2
    assert "reads from left to right" in capsys.readouterr().err


def test_a_model_names_its_order_and_plans_fit_every_length(trained, capsys):
    folder = str(trained["molecules"])
    assert main(["sample", folder, "--num", "5", "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["order"] == "left-to-right"
    assert [s["nfe"] for s in report["samples"]] == [len(s["text"]) for s in report["samples"]]
    assert (
        main(["sample", folder, "--num", "5", "--plan", "4,4,4", "--order", "random", "--json", "--quiet"])
        == 0
    )
    for found in json.loads(capsys.readouterr().out)["samples"]:
        assert found["nfe"] == min(3, len(found["text"]))
