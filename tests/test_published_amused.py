"""aMUSEd of diffusers: the numbers of the published code, what captions change, laws, folders read or refused."""

from __future__ import annotations

import json
import re
import shutil
import sys

import golden_networks as cases
import pytest
import torch
from helpers import seeded
from safetensors.torch import save_file

import unmask
from unmask import guided, scores, selectors
from unmask.models import published as reading
from unmask.networks import published
from unmask.orders import presets

GOLDEN = cases.golden()


def tensors(name):
    return cases.weights({k: tuple(v) for k, v in GOLDEN[name]["shapes"].items()})


def part_of(home, config, values):
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.json").write_text(json.dumps(config))
    save_file(values, home / "diffusion_pytorch_model.safetensors")


def folder_of(home, name="amused"):
    part_of(home / "transformer", cases.AMUSED[name], tensors(name))
    encoder = {"encoder.conv_in.weight": torch.zeros(2), "quant_conv.bias": torch.zeros(3)}
    part_of(home / "vqvae", cases.AMUSED_PIXELS, tensors("amused_pixels") | encoder)
    (home / "scheduler").mkdir()
    (home / "scheduler" / "scheduler_config.json").write_text('{"mask_token_id": 31}')
    return home


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("amused") / "amused")


@pytest.fixture(scope="module")
def drawer(folder):
    return reading.amused(folder)


def captions(drawer):
    """The two captions of the cases, of the network's own sizes."""
    states, pooled, _ = cases.captions()
    return [drawer.caption(*both) for both in zip(states, pooled)]


@pytest.mark.parametrize("name", cases.AMUSED)
def test_the_numbers_are_those_of_diffusers(name, tmp_path):
    network = reading.amused(folder_of(tmp_path / name, name)).network
    wanted = torch.tensor(GOLDEN[name]["logits"])
    tokens = cases.drawing(network.shape.side).flatten(1)
    with torch.no_grad():
        found = network(tokens, caption=published.Caption(*cases.captions()))
        assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
        for i, own in enumerate(zip(*cases.captions())):  # one caption for all is that caption for each
            alone = published.Captioned(network, published.Caption(*own))(tokens)
            assert (alone[i] - wanted[i]).abs().max() < 1e-5 * wanted.abs().max()
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == GOLDEN[name]["shapes"]


def test_images_are_those_of_diffusers(drawer):
    found = drawer.pixels(cases.codes().flatten(1))
    assert not found.requires_grad
    wanted = torch.tensor(GOLDEN["amused_pixels"]["logits"])
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
    shapes = {k: list(v.shape) for k, v in drawer.pixels.state_dict().items()}
    assert shapes == GOLDEN["amused_pixels"]["shapes"]


def test_rows_alone_are_rows_of_all_and_captions_differ(drawer):
    one, other = (drawer.denoiser(caption) for caption in captions(drawer))
    tokens, rows = cases.drawing(4).flatten(1), torch.tensor([[0, 8, 15], [3, 3, 1]])
    law = one(tokens)
    wanted = law.gather(1, rows[..., None].expand(-1, -1, one.vocab_size))
    assert (law.exp().sum(-1) - 1).abs().max() < 1e-5
    for found in (one(tokens, rows), one(tokens.flip(0), rows.flip(0)).flip(0)):
        assert (found - wanted).abs().max() < 1e-5
    assert (law - other(tokens)).abs().max() > 0.01
    first = captions(drawer)[0]
    ugly = drawer.denoiser(drawer.caption(first.states, first.pooled, beauty=1.0))
    assert (law - ugly(tokens)).abs().max() > 1e-3
    assert first.sizes.tolist() == [8.0, 8.0, 0.0, 0.0, 6.0]  # four tokens of two pixels


def test_guidance_is_that_of_the_pipeline(drawer):
    """Logits other + s (own - other) at guidance_scale s."""
    own, other = (drawer.denoiser(caption) for caption in captions(drawer))
    tokens = drawer.masked(1)
    a, b = own(tokens), other(tokens)
    wanted = (b + 10 * (a - b)).log_softmax(-1)
    assert (guided(own, other, 9)(tokens) - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("order", ["halton", "confidence"])
def test_the_likelihood_is_that_of_the_sampler(drawer, order):
    own, other = (drawer.denoiser(caption) for caption in captions(drawer))
    denoiser = guided(own, other, 2.0)
    selector = selectors.top_k(scores.halton(4, 4), 4) if order == "halton" else presets.confidence(4)
    tokens = torch.cat([drawer.masked(1), cases.drawing(4).flatten(1)[:1]])
    found = unmask.sample(denoiser, tokens, selector, generator=seeded(2))
    visible = tokens != drawer.mask_id
    assert (found.tokens < denoiser.vocab_size).all()
    assert (found.tokens == tokens)[visible].all()
    scored = unmask.log_likelihood(
        denoiser, found.tokens, selector, visible=visible, order_ids=torch.arange(2)
    )
    assert (found.log_prob - scored).abs().max() < 1e-4
    assert drawer.pixels(found.tokens).shape == (2, 3, 8, 8)
    with pytest.raises(ValueError, match="use substeps=1"):
        unmask.sample(denoiser, tokens, selector, generator=seeded(2), substeps=2)


def test_the_dtype_is_the_one_asked_for(folder, drawer):
    half = reading.amused(folder, dtype=torch.bfloat16)
    assert {p.dtype for m in (half.network, half.pixels) for p in m.parameters()} == {torch.bfloat16}
    caption = captions(drawer)[0]
    moved = half.denoiser(caption)(half.masked(1)) - drawer.denoiser(caption)(half.masked(1))
    assert moved.abs().median() < 0.1


def change(place, **values):
    def act(home):
        file = home / place
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return act


def without(part, name):
    def act(home):
        file = home / part / "diffusion_pytorch_model.safetensors"
        known = tensors("amused" if part == "transformer" else "amused_pixels")
        save_file({k: v for k, v in known.items() if k != name}, file)

    return act


def more(home):
    values = tensors("amused") | {"more": torch.zeros(1)}
    save_file(values, home / "transformer" / "diffusion_pytorch_model.safetensors")


def cut(home):
    file = home / "transformer" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])


UNET, VQ = "transformer/config.json", "vqvae/config.json"
REFUSALS = {
    "a missing tensor": (without("transformer", "mlm_layer.conv2.weight"), "lack 'mlm_layer.conv2.weight'"),
    "no codes": (without("vqvae", "post_quant_conv.bias"), "lack 'post_quant_conv.bias'"),
    "one too many": (more, "has no 'more'"),
    "truncated": (cut, "truncated or foreign"),
    "no transformer": (lambda home: shutil.rmtree(home / "transformer"), "does not exist"),
    "another class": (change(UNET, _class_name="UNet2DModel"), "only 'UVit2DModel' is built here"),
    "biases": (change(UNET, use_bias=True), "'use_bias' is True"),
    "another depth": (change(UNET, num_hidden_layers=3), "the files lack"),
    "too deep": (change(UNET, num_hidden_layers=10**9), "far beyond those of the weights"),
    "odd heads": (change(UNET, num_attention_heads=5), "expected a divisor"),
    "an odd side": (change(UNET, sample_size=3), "of an even side"),
    "halved only": (change(UNET, upsample=False), "or neither"),
    "a size of words": (change(UNET, hidden_size="big"), "expected a whole number"),
    "waves": (change(UNET, micro_cond_encode_dim=7), "expected a multiple of 7"),
    "attention": (change(VQ, mid_block_add_attention=True), "'mid_block_add_attention' is True"),
    "another decoder": (change(VQ, up_block_types=["AttnUpDecoderBlock2D"] * 2), "'up_block_types' is"),
    "groups": (change(VQ, norm_num_groups=5), "no network of these sizes"),
    "few codes": (
        lambda home: (
            change(VQ, num_vq_embeddings=7)(home),
            save_file(
                tensors("amused_pixels") | {"quantize.embedding.weight": torch.zeros(7, 6)},
                home / "vqvae" / "diffusion_pytorch_model.safetensors",
            ),
        ),
        "expected the 23 of the transformer",
    ),
    "the mask": (change("scheduler/scheduler_config.json", mask_token_id=22), "expected a symbol in 23..31"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_bad_folder_is_refused_in_one_line(name, folder, tmp_path):
    damage, said = REFUSALS[name]
    home = shutil.copytree(folder, tmp_path / "bad")
    damage(home)
    refused(lambda: reading.amused(home), said)


def test_texts_without_transformers_say_what_to_install(drawer, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'unmask[hf]'")):
        drawer.captions("a")


def test_load_says_who_reads_pipelines(folder, tmp_path):
    home = shutil.copytree(folder, tmp_path / "whole")
    (home / "model_index.json").write_text('{"_class_name": "AmusedPipeline"}')
    refused(lambda: unmask.load(home), "published.amused(folder)")


def test_bad_captions_and_tokens_are_refused(drawer):
    good = captions(drawer)[0]
    for states, pooled in ((good.states[:, :3], good.pooled), (good.states, good.pooled[None])):
        refused(
            lambda s=states, p=pooled: drawer.denoiser(drawer.caption(s, p)), "expected finite states [n, 20]"
        )
    refused(lambda: drawer.denoiser(drawer.caption(good.states * torch.nan, good.pooled)), "expected finite")
    refused(lambda: drawer.denoiser(good)(torch.zeros(1, 9, dtype=torch.int64)), "expected [batch, 16]")
    refused(lambda: drawer.pixels(drawer.masked(1)), "no masks")


def test_texts_become_captions_by_the_clip_of_the_folder(folder, tmp_path):
    """Against transformers called as the pipeline of diffusers does."""
    transformers = pytest.importorskip("transformers")
    home = shutil.copytree(folder, tmp_path / "worded")
    words = [*(c + end for c in "abcdog" for end in ("", "</w>")), "<|startoftext|>", "<|endoftext|>"]
    (home / "tokenizer").mkdir()
    (home / "tokenizer" / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (home / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    (home / "tokenizer" / "tokenizer_config.json").write_text(
        '{"model_max_length": 8, "tokenizer_class": "CLIPTokenizer", "pad_token": "<|endoftext|>"}'
    )
    config = transformers.CLIPTextConfig(
        vocab_size=14, hidden_size=20, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
        projection_dim=12, max_position_embeddings=8, bos_token_id=12, eos_token_id=13, pad_token_id=13,
    )  # fmt: skip
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(1)
        encoder = transformers.CLIPTextModelWithProjection(config).eval()
    encoder.save_pretrained(home / "text_encoder")
    drawer = reading.amused(home)
    long, empty = drawer.captions(["a dog a cog", ""])
    ids = torch.tensor([[12, 1, 6, 8, 11, 1, 4, 13], [12] + [13] * 7])  # cut after the c, and filled up
    with torch.no_grad():
        wanted = encoder(ids, output_hidden_states=True)
    for i, caption in enumerate((long, empty)):
        assert (caption.states - wanted.hidden_states[-2][i]).abs().max() < 1e-5
        assert (caption.pooled - wanted.text_embeds[i]).abs().max() < 1e-5
    assert (wanted.hidden_states[-2] - wanted.last_hidden_state).abs().max() > 0.01
    law = guided(drawer.denoiser(long), drawer.denoiser(empty), 9)(drawer.masked(1))
    assert (law.exp().sum(-1) - 1).abs().max() < 1e-5
    change("text_encoder/config.json", architectures=["CLIPTextModel"])(home)
    refused(lambda: drawer.captions("a"), "expected ['CLIPTextModelWithProjection']")
    change("text_encoder/config.json", architectures=["CLIPTextModelWithProjection"], num_hidden_layers=4)(
        home
    )
    refused(lambda: drawer.captions("a"), "the file has no")
    shutil.rmtree(home / "text_encoder")
    refused(lambda: drawer.captions("a"), "does not exist")


def refused(call, said):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        call()
    assert "\n" not in str(caught.value)
