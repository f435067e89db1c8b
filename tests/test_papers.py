"""Recipes of papers: parameters by hand, twenty steps of each at reduced size, their files, and their losses."""

from __future__ import annotations

import json
import math
import pickle
import wave
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from unmask import models
from unmask.data.prepare import READINGS, prepare
from unmask.data.readers.papers import DIGITS, END
from unmask.data.vocabularies import TEXT8, Characters, Levels, Tokenizer
from unmask.recipes import all_recipes, papers, sequences
from unmask.recipes.papers.image_network import ImageConfig, ImageNetwork
from unmask.recipes.papers.wavenet import WaveNetConfig
from unmask.recipes.run import Optimiser, override
from unmask.training.costing import on_meta
from unmask.training.loop import learning_rate, train

pytestmark = pytest.mark.global_random  # training seeds torch's generator


# --- parameters -------------------------------------------------------------------------------------


def dense(inputs, outputs, bias=True):
    return inputs * outputs + bias * outputs


def conv(inputs, outputs, size=9):
    return inputs * outputs * size + outputs


def md4_text(symbols, width, depth, narrow=0):
    """Embedding, adaLN blocks of four attention and three gated matrices, last adaLN, head; a time of 64 channels."""
    hidden = 32 * math.ceil(int(8 * width / 3) / 32)
    told = dense(64, 256) + dense(256, 64)
    embedded = (symbols + 1) * narrow + dense(narrow, width) if narrow else (symbols + 1) * width
    block = 4 * width**2 + 3 * width * hidden + dense(64, 6 * width)
    return told + embedded + depth * block + dense(64, 2 * width) + width * symbols


def residual(inputs, outputs, told, bias, scaled=False):
    convolutions = (
        conv(inputs, outputs) + conv(outputs, outputs) + (inputs != outputs) * dense(inputs, outputs)
    )
    if scaled:
        return convolutions + dense(told, 2 * inputs) + dense(told, 2 * outputs)
    return convolutions + 2 * inputs + 2 * outputs + dense(told, outputs, bias)


def attention(width):
    return 2 * width + 4 * dense(width, width)


def md4_cifar(width=128, blocks=32):
    told = dense(width, 4 * width) + dense(4 * width, width)
    first, half = residual(width, width, width, False), residual(2 * width, width, width, False)
    ends = 257 * width + conv(3 * width, width) + 2 * width + conv(width, 3 * 256)
    return told + ends + (blocks + 2) * first + attention(width) + (blocks + 1) * half


def md4_imagenet(width=256, blocks=24, depth=12, inside=768):
    told = dense(width, 4 * width) + dense(4 * width, width)
    first, half = residual(width, width, width, False, True), residual(2 * width, width, width, False, True)
    ends = 257 * width + conv(3 * width, width) + dense(width, 2 * width) + conv(width, 3 * 256)
    block = dense(inside, 3 * inside) + inside**2 + dense(inside, 4 * inside) + dense(4 * inside, inside)
    block += dense(width, 6 * inside)
    edges = conv(width, inside, 4) + 32 * 32 * inside + dense(width, 2 * inside) + dense(inside, 4 * width)
    return told + ends + blocks * first + (blocks + 1) * half + depth * block + edges


def ardm_text(symbols=27, width=768, depth=12, hidden=3072):
    block = 4 * width**2 + dense(width, hidden) + dense(hidden, width) + 4 * width
    return symbols * width + depth * block + 2 * width + dense(width, symbols)


def ardm_cifar(width=256, blocks=32):
    told = dense(width, 4 * width) + dense(4 * width, 4 * width)
    stem = conv(6, width * 3 // 4) + 256 * width // 4 + dense(3 * width // 4, width // 4)
    first, half = residual(width, width, 4 * width, True), residual(2 * width, width, 4 * width, True)
    ends = stem + 2 * width + conv(width, 3 * 256)
    return told + ends + (blocks + 2) * first + (blocks + 1) * half + (2 * blocks + 2) * attention(width)


def ardm_sound(width=256, blocks=36, outputs=32):
    told = dense(width, 4 * width) + dense(4 * width, 4 * width)
    stem = conv(2, width * 3 // 4, 3) + 65_536 * width // 4 + dense(width // 4, width // 4)
    block = dense(4 * width, width) + 2 * conv(width, width, 3) + 2 * dense(width, width)
    return told + stem + blocks * block + dense(width, width) + dense(width, outputs)


BY_HAND = {
    "text8": md4_text(27, 768, 12, narrow=64),
    "owt-small": md4_text(50_257, 768, 12),
    "owt-medium": md4_text(50_257, 1024, 24),
    "cifar10": md4_cifar(),
    "imagenet64": md4_imagenet(),
    "ardm-text8": ardm_text(),
    "ardm-cifar10": ardm_cifar(),
    "ardm-cifar10-upscale4": ardm_cifar(),
    "ardm-sc09": ardm_sound(),
}
"""What the shapes of the authors' code come to."""


def test_every_recipe_has_facts_and_every_fact_a_recipe():
    assert set(papers.FACTS) == set(papers.RECIPES) == set(BY_HAND)


@pytest.mark.parametrize("name", papers.RECIPES)
def test_parameters_are_those_of_the_authors_code(name):
    ours = sum(p.numel() for p in on_meta(all_recipes()[name]()).parameters())
    known = {p.source: p.parameters for p in papers.FACTS[name].published}
    assert known["counted from the shapes of the authors' code"] == BY_HAND[name]
    assert abs(ours / BY_HAND[name] - 1) < 2e-3
    if "paper" in known:
        assert abs(ours / known["paper"] - 1) < 0.02


def test_an_image_network_tells_masked_from_visible_and_times_apart():
    torch.manual_seed(0)
    for config in (
        ImageConfig(6, 4, 4, features=8, blocks=1, dropout=0.0),
        ImageConfig(6, 4, 4, features=8, blocks=1, squares=1, width_inside=8, heads_inside=2, dropout=0.0),
        ImageConfig(6, 4, 4, features=8, blocks=1, valued=True, everywhere=True, dropout=0.0),
    ):
        net = ImageNetwork(config)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        tokens = torch.randint(6, (2, 48))
        hidden = tokens.clone()
        hidden[:, 5] = net.mask_id
        plain = net(tokens, time=torch.zeros(2))
        assert not torch.allclose(plain, net(hidden, time=torch.zeros(2)))
        assert not torch.allclose(plain, net(tokens, time=torch.ones(2)))
        rows = torch.tensor([[3, 40], [7, 0]])
        wanted = plain.gather(1, rows[..., None].expand(-1, -1, 6))
        torch.testing.assert_close(net(tokens, rows, time=torch.zeros(2)), wanted)


def test_a_channel_is_dropped_at_all_positions_and_never_after_training():
    from unmask.networks.blocks import dropped

    torch.manual_seed(0)
    out = dropped(torch.ones(50, 7, 40), 0.25)
    assert (out == out[:, :1]).all()
    kept = (out[:, 0] > 0).double().mean().item()
    assert abs(kept - 0.75) < 4 * math.sqrt(0.25 * 0.75 / 2000)
    assert out.max().item() == pytest.approx(1 / 0.75)
    run = override(papers.text8(), TINY["text8"] | {"network.dropout": "0.5"})
    net, tokens = run.build(run.network), torch.randint(27, (2, 16))
    torch.nn.init.normal_(net.head.weight)
    assert not torch.equal(net(tokens), net(tokens))
    assert torch.equal(net.eval()(tokens), net.eval()(tokens))


def test_a_cosine_is_half_way_in_the_middle_and_zero_at_the_end():
    o = Optimiser(steps=1000, learning_rate=2.0, warmup=10, decay=1.0, cosine=True)
    assert learning_rate(o, 500) == pytest.approx(1.0)
    assert learning_rate(o, 250) == pytest.approx(2.0 * (1 + math.cos(math.pi / 4)) / 2)
    assert learning_rate(o, 1000) == pytest.approx(0.0)
    assert learning_rate(o, 4) == pytest.approx(1.0)


# --- twenty steps -----------------------------------------------------------------------------------

TEXT = {"network.width": "16", "network.depth": "1", "network.heads": "2", "network.length": "16"}
IMAGE = {"network.features": "8", "network.blocks": "1", "network.height": "4", "network.width": "4"}
TINY = {
    "text8": TEXT,
    "owt-small": TEXT,
    "owt-medium": TEXT,
    "cifar10": IMAGE,
    "imagenet64": IMAGE | {"network.squares": "1", "network.width_inside": "8", "network.heads_inside": "2"},
    "ardm-text8": TEXT,
    "ardm-cifar10": IMAGE,
    "ardm-cifar10-upscale4": IMAGE,
    "ardm-sc09": {"network.features": "8", "network.blocks": "2", "network.samples": "20"},
}


class Ids:
    """A tokenizer of as many tokens as ids are drawn from, as `Tokenizer` wants it; it writes ids as numbers."""

    @staticmethod
    def vocabulary(size=40):
        tokenizers = pytest.importorskip("tokenizers")
        names = {f"w{i}": i for i in range(size - 1)} | {END: size - 1}
        found = tokenizers.Tokenizer(tokenizers.models.WordLevel(names, unk_token="w0"))
        found.add_special_tokens([END])
        found.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
        return Tokenizer(found.to_str())


def write_data(name, folder):
    """Token folders ``train`` of the recipe's kind, from small files of the standard formats."""
    draw = np.random.default_rng(0)
    raw = folder / "raw"
    raw.mkdir()
    if name in ("text8", "ardm-text8"):
        (raw / "text8").write_text("".join(draw.choice(list(TEXT8), 300)))
        return prepare([raw / "text8"], folder / "train", READINGS["text8_file"], quiet=True)
    if name.startswith("owt"):
        (raw / "train.bin").write_bytes(draw.integers(0, 40, 300).astype("<u2").tobytes())
        vocabulary = Ids.vocabulary()
        return prepare([raw], folder / "train", READINGS["token_ids"], vocabulary=vocabulary, quiet=True)
    if name == "ardm-sc09":
        form, shape = Levels(2**16), (20,)
    else:
        form, shape = Levels(256), (4, 4, 3)
    from unmask.data import writing
    from unmask.data.readers.pieces import Piece

    pieces = [Piece(draw.integers(0, form.size, shape), "drawn", n) for n in range(8)]
    kept = writing.Form("images", form, writing.NONE, shape)
    return writing.write(folder / "train", iter(pieces), kept, [])


@pytest.mark.parametrize("name", papers.RECIPES)
def test_twenty_steps_of_every_recipe_train_and_load(name, tmp_path):
    write_data(name, tmp_path)
    plain = {
        "machine.compile": "False",
        "machine.bfloat16": "False",
        "batch_size": "4",
        "optimiser.steps": "20",
    }
    fast = {"optimiser.learning_rate": "0.01", "optimiser.warmup": "2", "machine.log_every": "1"}
    run = override(all_recipes()[name](), TINY[name] | plain | fast)
    run = replace(run, data=sequences.Folder(str(tmp_path)))
    folder = train(run, tmp_path / "run", quiet=True)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(losses) == 20
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    model = models.load(folder)
    tokens = model.denoiser.mask_id * torch.ones(1, model.length, dtype=torch.int64)
    law = model.denoiser(tokens, torch.tensor([[0, 3]]))
    assert torch.allclose(law.exp().sum(-1), torch.ones(1, 2), atol=1e-5)


@pytest.mark.parametrize("name", ["cifar10", "ardm-cifar10", "ardm-cifar10-upscale4", "ardm-sc09", "text8"])
def test_before_training_every_symbol_costs_the_same(name, tmp_path):
    """Heads start at zero, so the bound is ln V a position whatever is masked: weights that average to one."""
    write_data(name, tmp_path)
    run = override(all_recipes()[name](), TINY[name] | {"batch_size": "32"})
    run = run.prepare(replace(run, data=sequences.Folder(str(tmp_path))))
    network = run.build(run.network)
    levels = {"ardm-sc09": 2**16, "text8": 27}.get(name, 256)
    with torch.no_grad():
        found = [run.objective(network, run.batch(run, step)).item() for step in range(8)]
    mean, error = np.mean(found), np.std(found) / math.sqrt(len(found))
    auxiliary = 2e-3 * math.log(levels)
    assert abs(mean - math.log(levels)) < 4 * error + auxiliary


def test_a_time_is_the_share_that_is_hidden_under_every_schedule(tmp_path):
    """So that evaluation and sampling, which know no schedule, tell a network what it was told in training."""
    write_data("owt-medium", tmp_path)
    for name in ("owt-medium", "owt-small", "text8"):
        changes = TINY["text8"] | {"batch_size": "64", "network.length": "200"}
        run = override(all_recipes()[name](), changes | {"network.vocab_size": "40"})
        run = replace(run, data=sequences.Folder(str(tmp_path)))
        batch = run.batch(run, 0)
        share = batch.masked.double().mean(1)
        assert (share - batch.time).abs().max() < 5 * math.sqrt(0.25 / 200)


def test_sounds_are_written_as_digits_and_back():
    run = papers.ardm_sc09()
    run = replace(run, network=WaveNetConfig(4, 2**16, 5))
    sounds = np.array([[-32768, -1, 0, 1, 32767]], np.int16)
    digits = run.encode(run, sounds)
    assert digits.shape == (1, 40)
    assert digits[0, :5].tolist() == [0, 1, 2, 2, 3]
    assert (run.decode(run, digits) == sounds).all()
    with pytest.raises(ValueError, match=r"int16 \[n, 5\]"):
        run.encode(run, sounds.astype(np.int32))


# --- their files ------------------------------------------------------------------------------------


def test_text8_zip_is_read_as_it_is_and_split_in_order(tmp_path):
    text = " anarchism originated as a term of abuse" * 25
    with zipfile.ZipFile(tmp_path / "text8.zip", "w") as archive:
        archive.writestr("text8", text)
    split = {"train": 0.9, "valid": 0.05, "test": 0.05}
    parts = prepare([tmp_path / "text8.zip"], tmp_path / "o", READINGS["text8_file"], split=split, quiet=True)
    assert [p.symbols for p in parts] == [900, 50, 50]
    assert "".join(p.vocabulary.decode(p.span(0, p.symbols)) for p in parts) == text
    assert parts[0].vocabulary == Characters(TEXT8)
    (tmp_path / "other").write_text("plain text, with a comma")
    with pytest.raises(ValueError, match="byte 10: b',' is none of text8's 27 symbols"):
        prepare([tmp_path / "other"], tmp_path / "p", READINGS["text8_file"], quiet=True)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a", "a")
        archive.writestr("b", "b")
    with pytest.raises(ValueError, match="holds 2 files; expected one"):
        prepare([tmp_path / "two.zip"], tmp_path / "q", READINGS["text8_file"], quiet=True)


def test_documents_end_with_the_end_of_text(tmp_path):
    lines = [json.dumps({"text": "w3 w4", "url": "x"}), json.dumps({"text": "w5"})]
    (tmp_path / "owt.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "one.txt").write_text("w7 w8")
    vocabulary = Ids.vocabulary()
    for place, wanted in (("owt.jsonl", [3, 4, 39, 5, 39]), ("one.txt", [7, 8, 39])):
        (data,) = prepare(
            [tmp_path / place],
            tmp_path / f"o{place}",
            READINGS["documents"],
            vocabulary=vocabulary,
            quiet=True,
        )
        assert data.span(0, data.symbols).tolist() == wanted
    with pytest.raises(ValueError, match=r"reading documents; expected the file: --tokenizer tokenizer.json"):
        prepare([tmp_path / "one.txt"], tmp_path / "p", READINGS["documents"], quiet=True)


def test_token_ids_keep_their_numbers_and_their_bytes(tmp_path):
    ids, file = np.array([0, 39, 7, 12], "<u2"), tmp_path / "train.bin"
    file.write_bytes(ids.tobytes())
    vocabulary = Ids.vocabulary()
    (data,) = prepare([file], tmp_path / "o", READINGS["token_ids"], vocabulary=vocabulary, quiet=True)
    assert data.span(0, 4).tolist() == [0, 39, 7, 12]
    assert data.manifest["source_bytes"] == vocabulary.bytes_of(ids.astype(np.int64))
    file.write_bytes(np.array([40], "<u2").tobytes())
    with pytest.raises(ValueError, match=r"40\.\.40; expected 0\.\.39"):
        prepare([file], tmp_path / "p", READINGS["token_ids"], vocabulary=vocabulary, quiet=True)
    file.write_bytes(b"abc")
    with pytest.raises(ValueError, match="odd number of bytes"):
        prepare([file], tmp_path / "q", READINGS["token_ids"], vocabulary=vocabulary, quiet=True)


def batch_of(side, count=3):
    draw = np.random.default_rng(side)
    return draw.integers(0, 256, (count, side, side, 3)).astype(np.uint8)


def planes(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def test_cifars_python_batches_are_images_with_colours_last(tmp_path):
    images, labels = batch_of(32), [3, 9, 0]
    batch = {b"data": planes(images), b"labels": labels, b"batch_label": b"training batch 1 of 5"}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    (data,) = prepare([tmp_path], tmp_path / "o", READINGS["cifar_python"], quiet=True)
    assert data.items == 3  # the folder's data batches, not the test set
    assert (data.item(1) == images[1].reshape(-1)).all()
    assert data.labels.tolist() == labels


def test_imagenet_batches_count_labels_from_one(tmp_path):
    images = batch_of(64, 2)
    np.savez(
        tmp_path / "train_data_batch_1.npz",
        data=planes(images),
        labels=np.array([1, 1000]),
        mean=np.zeros(12288),
    )
    (data,) = prepare(
        [tmp_path / "train_data_batch_1.npz"], tmp_path / "o", READINGS["imagenet64"], quiet=True
    )
    assert (data.item(0) == images[0].reshape(-1)).all()
    assert data.labels.tolist() == [0, 999]
    batch = {"data": planes(images), "labels": [5, 6], "mean": np.zeros(12288)}
    (tmp_path / "val_data_batch").write_bytes(pickle.dumps(batch, protocol=2))
    (data,) = prepare([tmp_path / "val_data_batch"], tmp_path / "p", READINGS["imagenet64"], quiet=True)
    assert data.labels.tolist() == [4, 5]
    with pytest.raises(ValueError, match=r"expected uint8 \[n, 3072\]"):
        prepare([tmp_path / "val_data_batch"], tmp_path / "q", READINGS["cifar_python"], quiet=True)


class Evil:
    """What a pickle must not run."""

    def __reduce__(self):
        return exec, ("raise SystemExit('ran')",)


CUT = pickle.dumps({"data": 1})[:-3]


@pytest.mark.parametrize(
    "content", [pickle.dumps({"data": Evil()}), b"nothing of the kind", CUT], ids=("evil", "other", "cut")
)
def test_a_batch_that_asks_for_more_than_arrays_is_refused(content, tmp_path):
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(ValueError, match="is no batch of images"):
        prepare([tmp_path], tmp_path / "o", READINGS["cifar_python"], quiet=True)


def write_sound(path, samples, rate=16_000):
    path.parent.mkdir(exist_ok=True, parents=True)
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(samples.astype("<i2").tobytes())


def test_spoken_digits_are_parted_by_the_lists(tmp_path):
    root = tmp_path / "speech"
    samples = np.array([-32768, 0, 32767], np.int16)
    for name in ("two/a.wav", "two/b.wav", "nine/c.wav", "bed/d.wav"):
        write_sound(root / name, samples)
    (root / "validation_list.txt").write_text("two/b.wav\nbed/d.wav\n")
    (root / "testing_list.txt").write_text("nine/c.wav\n")
    for name, label in (("sc09", 2), ("sc09_valid", 2), ("sc09_test", 9)):
        (data,) = prepare([root], tmp_path / name, READINGS[name], quiet=True)
        assert data.items == 1
        assert data.labels.tolist() == [label] == [DIGITS.index(DIGITS[label])]
        assert data.item(0)[:4].tolist() == [0, 2**15, 2**16 - 1, 2**15]  # silence after the end
        assert len(data.item(0)) == 16_000
    write_sound(root / "two/e.wav", samples, rate=8000)
    with pytest.raises(ValueError, match="at 8000 Hz; expected one of 16 bits at 16000 Hz"):
        prepare([root], tmp_path / "bad", READINGS["sc09"], quiet=True)
    write_sound(tmp_path / "alone/two/a.wav", samples)
    with pytest.raises(ValueError, match="the folder of Speech Commands with its two lists"):
        prepare([tmp_path / "alone"], tmp_path / "none", READINGS["sc09"], quiet=True)
