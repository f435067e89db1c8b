"""MaskGIT of the Halton release and the decoder of its images: the numbers of the published code, laws, files refused."""

from __future__ import annotations

import re

import golden_networks as cases
import pytest
import torch
from helpers import seeded
from safetensors.torch import save_file

import unmask
from unmask import guided, scores, selectors
from unmask.denoisers import from_logits
from unmask.models.published import maskgit, pixels
from unmask.networks import Labelled
from unmask.orders import presets

GOLDEN = cases.golden()


def tensors(name):
    values = cases.weights({k: tuple(v) for k, v in GOLDEN[name]["shapes"].items()})
    if name != "pixels":  # the published code ties them, and the last name is the one that was written
        values["tok_emb.weight"] = values["head.weight"].clone()
    return values


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    home = tmp_path_factory.mktemp("images")
    for name in ("maskgit", "maskgit_patches", "pixels"):
        save_file(tensors(name), home / f"{name}.safetensors")
    torch.save(
        {"iter": 3, "model_state_dict": tensors("maskgit"), "optimizer_state_dict": None},
        home / "maskgit.pth",
    )
    extra = {"encoder.conv_in.weight": torch.zeros(2), "quantize.codebook_used": torch.zeros(3)}
    torch.save({"model": tensors("pixels") | extra}, home / "pixels.pt")
    return home


@pytest.fixture(scope="module")
def network(files):
    return maskgit(files / "maskgit.safetensors", heads=4)


@pytest.fixture(scope="module")
def patches(files):
    return maskgit(files / "maskgit_patches.safetensors", heads=4)


def grid():
    """Tokens of two images, 4 x 4, with masks."""
    return cases.drawing(4).clamp(max=23).flatten(1)


def test_the_numbers_are_those_of_the_published_code(network, files):
    label = torch.tensor([cases.LABELS[0], network.shape.classes])  # the second class was dropped
    wanted = torch.tensor(GOLDEN["maskgit"]["logits"])
    with torch.no_grad():
        found = network(cases.image().flatten(1), label=label)
        images = pixels(files / "pixels.safetensors")(cases.codes().flatten(1))
    assert (found - wanted).abs().max() < 2e-5
    drawn = torch.tensor(GOLDEN["pixels"]["logits"])  # values up to 12 after thirty layers in float32
    assert (images - drawn).abs().max() < 1e-5 * drawn.abs().max()


def test_patches_give_the_numbers_of_the_published_code(patches):
    label = torch.tensor([cases.LABELS[0], patches.shape.classes])
    with torch.no_grad():
        found = patches(grid(), label=label)
    assert (found - torch.tensor(GOLDEN["maskgit_patches"]["logits"])).abs().max() < 2e-5


def test_the_names_of_the_weights_are_the_published_ones(network, patches, files):
    networks = ((network, "maskgit"), (patches, "maskgit_patches"))
    for made, name in (*networks, (pixels(files / "pixels.safetensors"), "pixels")):
        assert {k: list(v.shape) for k, v in made.state_dict().items()} == GOLDEN[name]["shapes"]


def test_pickles_of_the_release_are_the_same(network, files):
    for a, b in (
        (network, maskgit(files / "maskgit.pth", heads=4)),
        (pixels(files / "pixels.safetensors"), pixels(files / "pixels.pt")),
    ):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def denoisers(network):
    """One class, and its guidance."""
    one = from_logits(Labelled(network, 2), network.mask_id, network.mask_id)
    return {"class": one, "guided": guided(one, from_logits(network, network.mask_id, network.mask_id), 1.5)}


@pytest.mark.parametrize("which", ["class", "guided"])
@pytest.mark.parametrize("substeps", [1, 2])
@pytest.mark.parametrize("order", ["halton", "confidence"])
def test_the_likelihood_is_that_of_the_sampler(network, files, which, substeps, order):
    denoiser = denoisers(network)[which]
    selector = selectors.top_k(scores.halton(3, 3), 2) if order == "halton" else presets.confidence(2)
    tokens = cases.image().flatten(1)
    found = unmask.sample(denoiser, tokens, selector, generator=seeded(2), substeps=substeps)
    visible = tokens != denoiser.mask_id
    assert (found.tokens < denoiser.vocab_size).all()
    assert (found.tokens == tokens)[visible].all()
    scored = unmask.log_likelihood(
        denoiser, found.tokens, selector, visible=visible, substeps=substeps, order_ids=torch.arange(2)
    )
    assert (found.log_prob - scored).abs().max() < 1e-4


@pytest.mark.parametrize("which", ["network", "patches"])
def test_rows_alone_are_rows_of_all_and_classes_differ(which, request):
    network = request.getfixturevalue(which)
    denoiser = denoisers(network)["class"]
    tokens = cases.image().flatten(1) if which == "network" else grid()
    rows = torch.tensor([[0, 8, 4], [3, 3, 1]])
    law = denoiser(tokens)
    wanted = law.gather(1, rows[..., None].expand(-1, -1, denoiser.vocab_size))
    assert (law.exp().sum(-1) - 1).abs().max() < 1e-5
    for found in (
        denoiser(tokens, rows),
        denoiser.full(tokens, rows)[0],
        denoiser(tokens.flip(0), rows.flip(0)).flip(0),
    ):
        assert (found - wanted).abs().max() < 1e-5
    everywhere = torch.arange(tokens.shape[1]).expand(2, -1)
    assert (denoiser.partial(tokens, everywhere, denoiser.full(tokens)[1]) - law).abs().max() < 1e-5
    assert (from_logits(network, 23, 23)(tokens) - law).abs().max() > 0.01


def test_a_partial_pass_leaves_registers_and_other_rows_as_they_were(network):
    """Against a pass over everything that puts the old keys and values back by hand."""
    before, rows = cases.image().flatten(1), torch.tensor([[1, 3], [8, 0]])
    after = before.scatter(1, rows, torch.tensor([[5, 6], [7, 8]]))
    run = torch.zeros(2, 11, dtype=torch.bool).scatter(1, rows, True)  # nine places, then two registers
    with torch.no_grad():
        _, old = network.full(before)
        told = network.cls_emb(torch.full((2,), 5))
        x = network.tok_emb(after) + network.pos_emb.weight
        x = torch.cat([x, network.reg_tokens.weight.expand(2, -1, -1)], dim=1)
        for block, (k_old, v_old) in zip(network.transformer["layers"], old):
            q, k, v = block.project(x, told)
            k, v = (torch.where(run[:, None, :, None], a, b) for a, b in ((k, k_old), (v, v_old)))
            x = block.finish(x, q, k, v, told)
        wanted = network.head(network.last_norm(x, told)).gather(1, rows[..., None].expand(-1, -1, 24))
        found = network.partial(after, rows, network.full(before)[1])
    assert (found - wanted).abs().max() < 1e-5


def test_a_partial_pass_runs_the_patches_of_its_rows(patches):
    """Two rows of one patch, and rows of two; against a pass that puts the other patches' old keys back by hand."""
    before, rows = grid(), torch.tensor([[0, 5], [15, 2]])
    after = before.scatter(1, rows, torch.tensor([[5, 6], [7, 8]]))
    run = torch.zeros(2, 6, dtype=torch.bool)  # four patches, then two registers
    run[0, 0] = run[1, 3] = run[1, 1] = True
    with torch.no_grad():
        _, old = patches.full(before)
        told = patches.cls_emb(torch.full((2,), 5))
        x = (patches.tok_emb(after) + patches.pos_emb.weight).view(2, 4, 4, -1).permute(0, 3, 1, 2)
        x = torch.cat(
            [patches.in_proj(x).flatten(2).transpose(1, 2), patches.reg_tokens.weight.expand(2, -1, -1)], 1
        )
        for block, (k_old, v_old) in zip(patches.transformer["layers"], old):
            q, k, v = block.project(x, told)
            k, v = (torch.where(run[:, None, :, None], a, b) for a, b in ((k, k_old), (v, v_old)))
            x = block.finish(x, q, k, v, told)
        four = patches.out_proj(x[:, :4].transpose(1, 2).view(2, -1, 2, 2))
        spread = torch.nn.functional.pixel_shuffle(four, 2).flatten(2).transpose(1, 2)
        wanted = patches.head(patches.last_norm(spread, told)).gather(1, rows[..., None].expand(-1, -1, 24))
        found = patches.partial(after, rows, patches.full(before)[1])
    assert (found - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("substeps", [1, 2])
def test_the_likelihood_of_patches_is_that_of_the_sampler(patches, substeps):
    denoiser, tokens = denoisers(patches)["guided"], grid()
    selector = selectors.top_k(scores.halton(4, 4), 3)
    found = unmask.sample(denoiser, tokens, selector, generator=seeded(2), substeps=substeps)
    scored = unmask.log_likelihood(
        denoiser, found.tokens, selector, visible=tokens != 23, substeps=substeps, order_ids=torch.arange(2)
    )
    assert (found.log_prob - scored).abs().max() < 1e-4


class Evil:
    def __reduce__(self):
        return print, ("read",)


def test_bad_files_are_refused_in_one_line(files, tmp_path):
    bad = tmp_path / "bad.safetensors"
    values = tensors("maskgit")
    missing = {k: v for k, v in values.items() if k != "last_norm.mlp.1.bias"}
    untied = values | {"head.weight": values["head.weight"] + 1}
    for wrong, said in (
        (missing, "lacks 'last_norm.mlp.1.bias'"),
        (untied, "is not 'tok_emb.weight'"),
        (values | {"more": torch.zeros(1)}, "has no 'more'"),
        (tensors("pixels"), "no network of these sizes"),
    ):
        save_file(wrong, bad)
        refused(lambda: maskgit(bad, heads=4), said)
    refused(lambda: maskgit(files / "maskgit.safetensors"), "say how many heads")
    refused(lambda: maskgit(files / "maskgit.safetensors", heads=5), "expected a divisor")
    odd = tensors("maskgit_patches")
    save_file(odd | {"pos_emb.weight": odd["pos_emb.weight"][:9]}, bad)
    refused(lambda: maskgit(bad, heads=4), "expected an even one")
    torch.save({"model_state_dict": values, "more": Evil()}, tmp_path / "evil.pth")
    refused(lambda: maskgit(tmp_path / "evil.pth"), "not readable as weights alone")
    (tmp_path / "cut.pth").write_bytes((files / "maskgit.pth").read_bytes()[:3000])
    refused(lambda: maskgit(tmp_path / "cut.pth"), "not readable as weights alone")
    refused(lambda: maskgit(tmp_path / "none.pth"), "missing, damaged")
    made = pixels(files / "pixels.pt")
    refused(lambda: made(torch.tensor([[0, 23, 1, 2]])), "no masks")
    refused(lambda: made(torch.tensor([[0, 1, 2]])), "a square")


def refused(call, said):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        call()
    assert "\n" not in str(caught.value)
