"""The recipes for images: batches, tokens and back, and models that load after a short training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from helpers import seeded

import unmask
from unmask import recipes, scores, selectors
from unmask.data.prepare import READINGS, prepare
from unmask.recipes.run import Optimiser, Run, override
from unmask.recipes.sequences import Folder
from unmask.training.loop import train
from unmask.variants import upscale

PICTURES = np.random.default_rng(0).integers(0, 256, (40, 4, 4)).astype(np.uint8)
NAMES = ("digits", "digits_md4", "digits_upscale4", "digits_upscale16")
every_recipe = pytest.mark.parametrize("name", NAMES)


@dataclass(frozen=True)
class Pictures:
    """Forty random pictures of 4x4 pixels."""

    def open(self):
        return self

    @property
    def items(self):
        return len(PICTURES)

    def padded(self, indices, length, fill):
        return PICTURES[indices].reshape(-1, length).astype(np.int64)


def small(name: str) -> Run:
    """A recipe on small pictures with a small network."""
    run = recipes.all_recipes()[name]()
    size = {"height": 4, "width": 4, "features": 16, "blocks": 1, "heads": 2, "patch": 2}
    network = replace(run.network, **size)
    return replace(run, network=network, data=Pictures(), prepare=lambda r: r, batch_size=20)


def levels_of(run: Run, tokens: torch.Tensor) -> torch.Tensor:
    if run.network.vocab_size == 256:
        return tokens
    return upscale.decode_digits(tokens, run.network.vocab_size, 256)


def test_all_are_one_run_but_for_their_objective():
    base, *others = (recipes.all_recipes()[name]() for name in (*NAMES, "digits_autoregressive"))
    for run in others:
        assert (run.data, run.optimiser, run.machine) == (base.data, base.optimiser, base.machine)
        if "auto" not in run.name:
            assert run.batch_size == base.batch_size
            same = {"height", "width", "channels", "features", "blocks", "heads", "patch", "ordinal"}
            assert all(getattr(run.network, n) == getattr(base.network, n) for n in same)
    assert [run.network.length for run in (base, *others)] == [784, 784, 4 * 784, 2 * 784, 784]
    assert others[-1].network.causal


@every_recipe
def test_a_batch_is_a_function_of_run_and_step(name):
    run = small(name)
    ours, again, other = run.batch(run, 3), run.batch(run, 3), run.batch(run, 4)
    assert torch.equal(ours.tokens, again.tokens)
    assert torch.equal(ours.masked, again.masked)
    assert not torch.equal(ours.masked, other.masked)
    assert ours.tokens.shape == ours.masked.shape == (20, run.network.length)
    known = {p.tobytes() for p in PICTURES}
    images = levels_of(run, ours.tokens).numpy().astype(np.uint8)
    assert all(p.tobytes() in known for p in images)


@every_recipe
def test_images_become_tokens_and_come_back(name):
    run = small(name)
    tokens = run.encode(run, PICTURES)
    assert tokens.dtype == torch.int64
    assert torch.equal(levels_of(run, tokens), torch.as_tensor(PICTURES.reshape(40, 16).astype(np.int64)))
    back = run.decode(run, tokens)
    assert back.dtype == np.uint8
    assert np.array_equal(back, PICTURES)
    hidden = run.decode(run, torch.full_like(tokens, run.network.vocab_size))
    assert (hidden == (0 if "upscale" in name else 128)).all()
    for wrong in (PICTURES[:, :3], PICTURES[0], PICTURES / 255):
        with pytest.raises(ValueError, match=r"\[n, 4, 4\]"):
            run.encode(run, wrong)


def test_colours_come_last():
    run = small("digits")
    colour = replace(run, network=replace(run.network, channels=3))
    pictures = np.random.default_rng(1).integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    tokens = colour.encode(colour, pictures)
    assert tokens[0, :3].tolist() == pictures[0, 0, 0].tolist()
    assert np.array_equal(colour.decode(colour, tokens), pictures)


@every_recipe
@pytest.mark.global_random
def test_a_fresh_network_pays_for_every_level_and_training_goes_on_to_a_model(name, tmp_path):
    run = small(name)
    network = run.build(run.network)
    with torch.no_grad():
        uniform = sum(float(run.objective(network, run.batch(run, s))) for s in range(40)) / 40
    assert uniform == pytest.approx(math.log(256), rel=0.01 if "md4" not in name else 0.1)
    short = replace(run, optimiser=Optimiser(steps=3), machine=replace(run.machine, bfloat16=False))
    model = unmask.load(train(short, tmp_path, quiet=True))
    assert model.length == run.network.length
    tokens = model.encode(PICTURES[:2])
    assert np.array_equal(model.decode(tokens), PICTURES[:2])
    selector = selectors.in_blocks(selectors.top_k(scores.at_random(0), 8), 16)
    drawn = unmask.sample(model.denoiser, model.all_masked(2), selector, generator=seeded(0))
    assert model.decode(drawn.tokens).shape == (2, 4, 4)
    scored = unmask.log_likelihood(model.denoiser, drawn.tokens, selector, order_ids=torch.arange(2))
    torch.testing.assert_close(scored, drawn.log_prob, atol=1e-3, rtol=0)


@pytest.mark.global_random
@pytest.mark.parametrize("direct", [False, True])
def test_the_upscale_loss_agrees_with_the_bound_of_its_denoiser(direct):
    run = small("digits_upscale16")
    run = replace(run, network=replace(run.network, direct=direct))
    network = run.build(run.network)
    for i, parameter in enumerate(network.parameters()):
        torch.nn.init.normal_(parameter, std=0.2, generator=seeded(i))
    with torch.no_grad():
        losses = [float(run.objective(network.eval(), run.batch(run, s))) for s in range(60)]
    denoiser = unmask.from_logits(network, 16, 16)
    bound = upscale.nelbo(denoiser, run.encode(run, PICTURES), 2, generator=seeded(0), samples=8)
    assert float(bound.value.mean()) / 16 == pytest.approx(np.mean(losses), rel=0.03)


def test_the_data_are_checked_before_training(tmp_path):
    header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in PICTURES.shape)
    (tmp_path / "some-idx3-ubyte").write_bytes(header + PICTURES.tobytes())
    prepare([tmp_path / "some-idx3-ubyte"], tmp_path / "train", READINGS["idx"], quiet=True)
    for name in NAMES:
        run = replace(small(name), data=Folder(str(tmp_path)), prepare=recipes.all_recipes()[name]().prepare)
        ready = run.prepare(run)
        assert ready.network == run.network
        assert ready.data.fingerprint
        assert ready.batch(ready, 0).tokens.shape == (20, run.network.length)
    few = override(run, {"network.levels": "200"})
    with pytest.raises(ValueError, match=r"network\.levels 256"):
        few.prepare(few)
