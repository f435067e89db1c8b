"""The U-Net: rows, what reaches which pixel, norms, labels and time, and weights that come back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from helpers import seeded
from torch import nn

import unmask
from unmask import scores, selectors
from unmask.base import checkpoints
from unmask.networks import UNet, UNetConfig
from unmask.networks.unet import Norm

GREY = UNetConfig(vocab_size=6, height=8, width=6, features=16, blocks=1, heads=2)
KINDS = {
    "grey": GREY,
    "colour": replace(GREY, channels=3),
    "patches": replace(GREY, features=32, patch=2),
    "coloured patches": replace(GREY, channels=2, features=32, patch=2),
    "local": replace(GREY, heads=0, blocks=0),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
pytestmark = [pytest.mark.global_random, pytest.mark.usefixtures("without_gradients")]


@pytest.fixture
def without_gradients():
    with torch.no_grad():
        yield


def network(config: UNetConfig, seed: int = 0) -> UNet:
    """A network of random weights, zero-initialised layers included."""
    made = UNet(config)
    for i, parameter in enumerate(made.parameters()):
        nn.init.normal_(parameter, std=0.2, generator=seeded(seed + i))
    return made.eval()


def images(config: UNetConfig, count: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randint(config.vocab_size + 1, (count, config.length), generator=seeded(seed))


@every_kind
def test_rows_are_the_same_rows_of_all_logits(kind):
    net, tokens = network(KINDS[kind]), images(KINDS[kind])
    everywhere = net(tokens)
    assert everywhere.shape == (3, KINDS[kind].length, 6)
    rows = torch.randint(KINDS[kind].length, (3, 7), generator=seeded(1))
    chosen = everywhere.gather(1, rows[..., None].expand(-1, -1, 6))
    torch.testing.assert_close(net(tokens, rows), chosen)


@pytest.mark.parametrize("kind", ["grey", "colour", "patches", "coloured patches"])
def test_every_visible_value_reaches_every_position(kind):
    """Through the attention at the latest; a position's own value, its neighbours and the far corner alike."""
    config = KINDS[kind]
    net, tokens = network(config).double(), images(config, 1).clamp(max=4)
    base = net(tokens)
    for place in (0, config.length // 2, config.length - 1):
        for value in (5, 6):  # another level, and the mask
            changed = tokens.clone()
            changed[0, place] = value
            assert ((net(changed) - base).abs().amax(-1) > 1e-9).all()


def without_norms(net: UNet) -> UNet:
    """Norms see the whole image; without them a network without attention is convolutions only."""
    for module in net.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, Norm):
                setattr(module, name, nn.SiLU())
    return net


def test_convolutions_reach_as_far_as_their_number_says():
    """The stem and three residual blocks of two 3x3 convolutions: seven pixels each way."""
    config = replace(GREY, height=20, width=19, heads=0, blocks=0)
    net, tokens = without_norms(network(config)).double(), images(config, 1).clamp(max=4)
    changed = tokens.clone()
    changed[0, 9 * 19 + 8] = 5
    moved = (net(changed) - net(tokens)).abs().amax(-1)[0].view(20, 19) > 0
    rows, columns = torch.arange(20)[:, None], torch.arange(19)
    assert torch.equal(moved, ((rows - 9).abs() <= 7) & ((columns - 8).abs() <= 7))


def test_values_and_masks_are_told_apart():
    """Level 0 is not the mask, a level is known by value and by name, and channels are not mixed up."""
    config = replace(GREY, channels=2)
    net, blank = network(config), torch.full((1, config.length), config.vocab_size)
    seen = []
    for place in (20, 21):
        for level in range(config.vocab_size + 1):
            tokens = blank.clone()
            tokens[0, place] = level
            seen.append(net(tokens)[0, place])
    distances = torch.cdist(torch.stack(seen), torch.stack(seen))
    apart = distances + torch.eye(len(seen)) * 9
    apart[6, 13] = apart[13, 6] = 9  # the two all-masked images are read at different channels
    assert apart.min() > 1e-4


def test_levels_are_known_by_name_in_each_channel():
    """With the convolution of values silenced, the embedding alone says which channel holds which level."""
    config = replace(GREY, channels=2)
    net, tokens = network(config), images(config, 1)
    nn.init.zeros_(net.stem.weight)
    swapped = tokens.view(1, -1, 2).flip(2).flatten(1)
    assert (net(swapped) - net(tokens)).abs().max() > 1e-3


@every_kind
def test_a_batch_row_does_not_see_its_neighbours(kind):
    net, tokens = network(KINDS[kind]), images(KINDS[kind], 4)
    torch.testing.assert_close(net(tokens[1:2]), net(tokens)[1:2], atol=1e-5, rtol=1e-5)


def test_pixels_are_counted_row_by_row_and_channels_side_by_side():
    """Away from the border, and when nothing says where a pixel is, moving the image moves the logits."""
    config = replace(GREY, height=19, width=18, channels=2, heads=0, blocks=0)
    net = without_norms(network(config)).double()
    net.places.zero_()
    picture = images(config, 1).view(1, 19, 18, 2)
    ours, moved = (net(p.flatten(1)).view(19, 18, 2, 6) for p in (picture, picture.roll((2, 1), dims=(1, 2))))
    torch.testing.assert_close(moved[10:12, 9:11], ours[8:10, 8:10])
    assert (moved[10:12, 9:11] - ours[10:12, 9:11]).abs().max() > 1e-3


def test_a_fresh_network_knows_nothing():
    logits = UNet(GREY)(images(GREY))
    assert (logits == 0).all()


@pytest.mark.parametrize("features", [4, 16, 256])
@torch.enable_grad()
def test_the_norm_is_group_norm_and_silu_with_their_gradients(features):
    x = torch.randn(2, features, 3, 5, generator=seeded(0), dtype=torch.float64, requires_grad=True)
    norm = Norm(features).double()
    for i, parameter in enumerate(norm.parameters()):
        nn.init.normal_(parameter, generator=seeded(i))
    theirs = nn.functional.silu(nn.functional.group_norm(x, norm.groups, norm.weight, norm.bias))
    ours = norm(x)
    torch.testing.assert_close(ours, theirs)
    slope = torch.randn(ours.shape, generator=seeded(9), dtype=torch.float64)
    wanted = torch.autograd.grad(theirs, (x, *norm.parameters()), slope)
    torch.testing.assert_close(torch.autograd.grad(ours, (x, *norm.parameters()), slope), wanted)
    assert features // norm.groups >= 4


def test_time_and_label_are_told_where_the_configuration_says_so():
    config = replace(GREY, classes=3, timed=True)
    net, tokens = network(config), images(config, 2)
    one = torch.ones(2)
    plain = net(tokens)
    share = (tokens == net.mask_id).float().mean(1)
    torch.testing.assert_close(net(tokens, time=share), plain)
    torch.testing.assert_close(net(tokens, label=torch.full((2,), 3)), plain)
    told = [net(tokens, time=one), *(net(tokens, label=torch.full((2,), c)) for c in range(3))]
    for i, logits in enumerate([plain, *told]):
        for other in told[i:]:
            assert (logits - other).abs().max() > 1e-4
    mixed = net(tokens, label=torch.tensor([2, 0]))
    torch.testing.assert_close(mixed[0], told[3][0])
    torch.testing.assert_close(mixed[1], told[1][1])
    deaf = network(GREY)
    torch.testing.assert_close(deaf(tokens, time=one, label=torch.ones(2).long()), deaf(tokens))


def test_bfloat16_stays_close():
    net, tokens = network(GREY), images(GREY)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(tokens).float()
    assert (rough - net(tokens)).abs().max() < 0.1 * net(tokens).abs().max()


@every_kind
def test_weights_and_configuration_come_back(kind, tmp_path):
    net, tokens = network(KINDS[kind]), images(KINDS[kind])
    checkpoints.write_tensors(tmp_path / "weights.safetensors", net.state_dict())
    config = UNetConfig(**json.loads(json.dumps(net.config)))
    assert config == KINDS[kind]
    again = UNet(config)
    checkpoints.fill(again.state_dict(), checkpoints.read_tensors(tmp_path / "weights.safetensors"), tmp_path)
    assert torch.equal(again(tokens), net(tokens))


def test_it_is_a_denoiser_without_partial_passes():
    denoiser = unmask.from_logits(network(GREY), GREY.vocab_size, GREY.vocab_size)
    hidden = torch.full((2, GREY.length), GREY.vocab_size)
    selector = selectors.top_k(scores.at_random(0), 12)
    result = unmask.sample(denoiser, hidden, selector, generator=seeded(0))
    scored = unmask.log_likelihood(denoiser, result.tokens, selector, order_ids=torch.arange(2))
    torch.testing.assert_close(scored, result.log_prob, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="substeps=1"):
        unmask.sample(denoiser, hidden, selector, generator=seeded(0), substeps=2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"features": 18}, "multiple of 4"),
        ({"heads": 3}, "multiple of 12"),
        ({"patch": 4}, "divisor"),
        ({"height": 0}, "at least 1"),
        ({"heads": -1}, "at least 0"),
        ({"blocks": 1.5}, "whole number"),
    ],
)
def test_sizes_that_do_not_fit_are_errors(changes, words):
    with pytest.raises(ValueError, match=words):
        replace(GREY, **changes)


def test_length_follows_from_the_sizes():
    assert replace(GREY, height=4, channels=3).length == 4 * 6 * 3
