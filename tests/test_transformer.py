"""The transformer and networks as denoisers: rows, positions, loops, caches, and laws that sum to one."""

from __future__ import annotations

import json
from itertools import product

import pytest
import torch
from helpers import every_sequence, seeded
from torch import nn

import unmask
from unmask import scores, selectors
from unmask.denoisers import log_normalise_
from unmask.networks import Transformer, TransformerConfig
from unmask.networks.positions import rotate

GRID = ((0, 0, 0, 1, 1, 1), (0, 1, 2, 0, 1, 2))
KINDS = {
    "learned": {},
    "learned axes": {"axes": GRID},
    "rotary": {"rotary": True},
    "rotary axes": {"rotary": True, "axes": GRID},
    "looped": {"loops": 3, "axes": GRID},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def network(kind: str = "learned", seed: int = 0, **changes) -> Transformer:
    """A network of random weights, head included, over 5 symbols and 6 positions."""
    settings = {"vocab_size": 5, "length": 6, "width": 16, "depth": 2, "heads": 2} | KINDS[kind] | changes
    made = Transformer(**settings)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4, generator=seeded(seed + parameter.numel()))
    return made.eval()


def boards(count: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randint(6, (count, 6), generator=seeded(seed))  # 5 is the mask


def close(ours, theirs, atol: float = 1e-5) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-5)


pytestmark = [pytest.mark.global_random, pytest.mark.usefixtures("without_gradients")]


@pytest.fixture
def without_gradients():
    with torch.no_grad():
        yield


# --- shapes, positions, loops ---------------------------------------------------------------------


def by_hand(net: Transformer, tokens: torch.Tensor) -> torch.Tensor:
    """A network with learned positions, spelt out."""

    def positions(table: nn.Module) -> torch.Tensor:
        parts = table.weight.split([int(axis.max()) + 1 for axis in net.coordinates])
        return sum(part[axis] for part, axis in zip(parts, net.coordinates))

    def normal(x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return norm.weight * centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()

    def attention(x: torch.Tensor, block: nn.Module) -> torch.Tensor:
        q, k, v = (normal(x, block.norm_attention) @ block.qkv.weight.T).split(x.shape[-1], dim=-1)
        q, k = q + positions(block.q_positions), k + positions(block.k_positions)
        heads = []
        for i, j, values in zip(*(t.chunk(block.heads, dim=-1) for t in (q, k, v))):
            heads.append((i @ j.transpose(1, 2) / i.shape[-1] ** 0.5).softmax(-1) @ values)
        return torch.cat(heads, -1) @ block.out.weight.T

    def mlp(x: torch.Tensor, block: nn.Module) -> torch.Tensor:
        gate, up = (normal(x, block.norm_mlp) @ block.up.weight.T).chunk(2, dim=-1)
        return (gate * gate.sigmoid() * up) @ block.down.weight.T

    inputs = net.embedding.weight[tokens] + positions(net.positions)
    x = torch.zeros_like(inputs)
    for _ in range(net.shape.loops):
        x = x + inputs
        for block in net.blocks:
            x = x + attention(x, block)
            x = x + mlp(x, block)
    return normal(x, net.norm) @ net.head.weight.T + net.head.bias


@pytest.mark.parametrize("kind", ["learned", "learned axes", "looped"])
def test_the_network_is_what_it_says(kind):
    net, tokens = network(kind).double(), boards()
    close(net(tokens), by_hand(net, tokens), atol=1e-9)


@every_kind
def test_rows_are_the_same_rows_of_all_logits(kind):
    net, tokens = network(kind), boards()
    rows = torch.tensor([[3, 0], [5, 5], [1, 2]])
    everywhere = net(tokens)
    assert everywhere.shape == (3, 6, 5)
    close(net(tokens, rows), everywhere.gather(1, rows[..., None].expand(-1, -1, 5)))


@every_kind
def test_moving_tokens_and_coordinates_moves_logits(kind):
    """A position is its coordinates and nothing else."""
    net, tokens, order = network(kind), boards(), torch.tensor([4, 2, 0, 5, 1, 3])
    moved = network(kind, axes=net.coordinates[:, order].tolist())
    moved.load_state_dict(net.state_dict())
    close(moved(tokens[:, order]), net(tokens)[:, order])
    assert (net(tokens[:, order]) - net(tokens)[:, order]).abs().max() > 0.01


@every_kind
def test_a_batch_row_does_not_see_its_neighbours(kind):
    net, tokens = network(kind), boards(4)
    close(net(tokens[1:2]), net(tokens)[1:2])


def test_rotary_attention_sees_differences_of_positions():
    generator = seeded(1)
    q, k = (torch.randn(1, 1, 8, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    frequency = torch.tensor([1.0, 0.3, 0.05], dtype=torch.float64)

    def attention(shift: int) -> torch.Tensor:
        angles = (torch.arange(8)[:, None] + shift) * frequency
        turned = rotate(q, angles[None, None]), rotate(k, angles[None, None])
        return turned[0] @ turned[1].transpose(-1, -2)

    close(attention(0), attention(11), atol=1e-12)
    assert (attention(0) - q @ k.transpose(-1, -2)).abs().max() > 0.1
    close(rotate(q, torch.ones(1, 1, 8, 3)).norm(dim=-1), q.norm(dim=-1))


@pytest.mark.parametrize("axes", [(tuple(range(6)),), GRID])
def test_rotary_networks_do_not_notice_a_shift(axes):
    net, tokens = network("rotary", axes=axes), boards()
    shifted = network("rotary", axes=[[i + 9 for i in axis] for axis in axes])
    close(shifted(tokens), net(tokens), atol=1e-4)
    stretched = network("rotary", axes=[[i * 2 for i in axis] for axis in axes])
    assert (stretched(tokens) - net(tokens)).abs().max() > 0.01


@every_kind
def test_every_axis_counts(kind):
    """Each coordinate of a position, when it changes alone, changes the logits."""
    net, tokens = network(kind), boards()
    for axis in range(len(net.coordinates)):
        axes = net.coordinates.clone()
        axes[axis, 0], axes[axis, -1] = axes[axis, -1].item(), axes[axis, 0].item()
        other = network(kind, axes=axes.tolist())
        assert (other(tokens) - net(tokens)).abs().max() > 0.01


@every_kind
def test_every_parameter_learns(kind):
    net, tokens = network(kind), boards(8)
    with torch.enable_grad():
        sum(z.logsumexp(-1).square().mean() for z in net.readouts(tokens)).backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_loops_share_their_weights():
    once, thrice, tokens = network(), network(loops=3), boards()
    assert {n: p.shape for n, p in once.named_parameters()} == {
        n: p.shape for n, p in thrice.named_parameters()
    }
    readouts = thrice.readouts(tokens)
    assert len(readouts) == 3
    for loops, logits in enumerate(readouts, 1):
        close(network(loops=loops)(tokens), logits)
    assert torch.equal(readouts[-1], thrice(tokens))
    assert (readouts[0] - readouts[2]).abs().max() > 0.01


@every_kind
def test_config_builds_the_same_network_again(kind):
    net, tokens = network(kind), boards()
    again = Transformer(**net.config)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(tokens), net(tokens))
    assert Transformer(**json.loads(json.dumps(net.config))).config == net.config


@pytest.mark.parametrize(
    "changes",
    [
        {"heads": 3},
        {"width": 18, "heads": 6},
        {"heads": 0},
        {"depth": 0},
        {"loops": 0},
        {"width": -16},
        {"vocab_size": 0},
        {"length": 0},
        {"hidden": 0},
        {"width": 16.0},
        {"axes": ()},
        {"axes": ((0, 1, 2),)},
        {"axes": ((0, 1, 2, 3, 4, -1),)},
        {"axes": GRID * 3, "rotary": True},
    ],
)
def test_bad_sizes_are_refused(changes):
    good = {"vocab_size": 5, "length": 6, "width": 16, "depth": 2, "heads": 2}
    with pytest.raises(ValueError, match="expected"):
        Transformer(**(good | changes))
    with pytest.raises(ValueError, match="expected"):
        TransformerConfig(**(good | changes))


@every_kind
def test_bfloat16_is_close(kind):
    net, tokens = network(kind), boards()
    exact = net(tokens).log_softmax(-1)
    with torch.autocast("cpu", torch.bfloat16):
        rough = net(tokens).float().log_softmax(-1)
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()
    assert not torch.equal(rough, exact)


# --- caches ---------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("half", [False, True], ids=["float32", "autocast"])
def test_a_causal_network_never_looks_ahead(kind, half):
    """Logits at i do not move with the tokens at i and after, in whole passes and in rows against a cache."""
    net, tokens = network(kind, causal=True), boards()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        before, cache = net.full(tokens)
        for i in range(6):
            changed = tokens.clone()
            changed[:, i:] = (changed[:, i:] + 1) % 5
            assert torch.equal(net(changed)[:, : i + 1], before[:, : i + 1])
            assert i == 5 or not torch.equal(net(changed)[:, i + 1 :], before[:, i + 1 :])
        rows = torch.tensor([[2, 4]]).expand(3, -1)
        again = net.partial(tokens, rows, cache)
    close(
        again.float(),
        before.gather(1, rows[..., None].expand(-1, -1, 5)).float(),
        atol=0.05 if half else 1e-5,
    )
    if half:
        close(before.float(), net(tokens), atol=0.3)


@every_kind
def test_full_is_a_call_and_leaves_a_cache(kind):
    net, tokens = network(kind), boards()
    rows = torch.tensor([[1, 4], [0, 3], [2, 5]])
    logits, cache = net.full(tokens, rows)
    close(logits, net(tokens, rows))
    assert len(cache) == 2 * net.shape.loops
    assert {part.shape for layer in cache for part in layer} == {(3, 2, 6, 8)}


@every_kind
def test_partial_over_all_rows_is_a_full_pass(kind):
    net, tokens, changed = network(kind), boards(seed=0), boards(seed=1)
    rows = torch.tensor([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 0, 4, 1, 5, 3]])
    _, cache = net.full(tokens)
    close(net.partial(changed, rows, cache), net(changed, rows))
    for ours, theirs in zip(cache, net.full(changed)[1]):
        close(ours[0], theirs[0])
        close(ours[1], theirs[1])


@pytest.mark.parametrize(("kind", "depth"), [*product(list(KINDS)[:4], [1]), ("learned", 2)])
def test_partial_is_exact_for_one_layer_only(kind, depth):
    """Also when partial passes follow each other."""
    net, tokens = network(kind, depth=depth), boards()
    first, second = torch.tensor([[3, 0], [5, 1], [1, 2]]), torch.tensor([[4], [0], [2]])
    _, cache = net.full(tokens)
    tokens = tokens.scatter(1, first, 4 - tokens.gather(1, first).clamp(max=4))
    net.partial(tokens, first, cache)
    tokens = tokens.scatter(1, second, 3)
    difference = (net.partial(tokens, second, cache) - net(tokens, second)).abs().max()
    assert difference < 1e-5 if depth == 1 else difference > 0.01


@every_kind
def test_partial_writes_the_cache_in_place(kind):
    net, tokens, changed = network(kind), boards(seed=0), boards(seed=1)
    _, cache = net.full(tokens)
    tensors = [part for layer in cache for part in layer]
    before = [part.clone() for part in tensors]
    net.partial(changed, torch.tensor([[0, 3]] * 3), cache)
    for part, kept, now in zip(tensors, before, (part for layer in cache for part in layer)):
        assert part is now
        assert torch.equal(part[:, :, [1, 2, 4, 5]], kept[:, :, [1, 2, 4, 5]])
        assert not torch.equal(part[:, :, [0, 3]], kept[:, :, [0, 3]])


# --- a law under every order ----------------------------------------------------------------------

ORDERS = {
    "random, two at a time": selectors.top_k(scores.at_random(7), 2),
    "random, all at once": selectors.top_k(scores.at_random(7), 4),
    "left to right": selectors.top_k(scores.left_to_right, lambda count: (count - 1, 1)),
    "margin": selectors.top_k(scores.margin, 2),
    "confidence": selectors.top_k(scores.confidence, lambda count: (1, count - 1)),
    "threshold": selectors.threshold(scores.confidence, 0.6),
}
every_order = pytest.mark.parametrize("order", ORDERS)
every_split = pytest.mark.parametrize("substeps", [1, 2, 3])


def small_denoiser(kind: str = "learned") -> unmask.Denoiser:
    """Two symbols, four positions, two layers, float64."""
    axes = {"axes": ((0, 0, 1, 1), (0, 1, 0, 1))} if "axes" in KINDS[kind] else {}
    net = network(kind, vocab_size=2, length=4, **axes)
    return unmask.from_logits(net.double(), mask_id=2, vocab_size=2)


@every_order
@every_split
def test_probabilities_sum_to_one(order, substeps):
    denoiser = small_denoiser("rotary axes" if substeps == 2 else "looped")
    tokens = every_sequence(denoiser, 4)
    values = unmask.log_likelihood(denoiser, tokens, ORDERS[order], substeps=substeps)
    assert float(values.exp().sum()) == pytest.approx(1, abs=1e-9)
    assert values.exp().std() > 0.01


@every_order
@every_split
def test_samples_know_their_likelihood(order, substeps):
    denoiser = small_denoiser()
    start = torch.full((16, 4), 2)
    start[:5, 1] = 0  # a prompt
    orders = torch.arange(16)
    result = unmask.sample(
        denoiser, start, ORDERS[order], generator=seeded(2), substeps=substeps, order_ids=orders
    )
    again = unmask.log_likelihood(
        denoiser, result.tokens, ORDERS[order], visible=start != 2, substeps=substeps, order_ids=orders
    )
    close(result.log_prob, again, atol=1e-9)


@pytest.mark.parametrize(
    ("size", "substeps", "calls"), [(2, 1, 2), (2, 2, 3), (4, 2, 2), (4, 4, 4), (1, 2, 4)]
)
def test_substeps_cost_their_share_of_a_call(size, substeps, calls):
    """Each later part runs all chosen rows again: ``size`` of 4 positions."""
    selector = selectors.top_k(scores.at_random(7), size)
    start = torch.full((2, 4), 2)
    result = unmask.sample(small_denoiser(), start, selector, generator=seeded(2), substeps=substeps)
    assert result.nfe.tolist() == [calls, calls]


# --- networks as denoisers ------------------------------------------------------------------------


class Plain(nn.Module):
    """Logits over five symbols, no rows, no cache."""

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.table = nn.Embedding(6, width)
        self.drop = nn.Dropout(0.5)

    def forward(self, tokens):
        return self.drop(self.table(tokens) + tokens.double().mean(1)[:, None, None].float())


class Timed(Plain):
    """One that knows the time."""

    def forward(self, tokens, *, time=None):
        return super().forward(tokens) * (1 if time is None else time[:, None, None])


def test_networks_with_and_without_rows_agree():
    net, tokens = network(), boards()
    rows = torch.tensor([[3, 0], [5, 5], [1, 2]])
    ours = unmask.from_logits(net, mask_id=5, vocab_size=5)
    theirs = unmask.from_logits(lambda tokens: net(tokens), mask_id=5, vocab_size=5)
    close(ours(tokens, rows), theirs(tokens, rows))
    close(ours(tokens), theirs(tokens))
    close(ours(tokens), net(tokens).log_softmax(-1))
    assert (ours.mask_id, ours.vocab_size, ours.takes_time) == (5, 5, False)


def test_full_and_partial_pass_through():
    net, tokens, changed = network(), boards(seed=0), boards(seed=1)
    denoiser = unmask.from_logits(net, mask_id=5, vocab_size=5)
    rows = torch.tensor([[0, 2]] * 3)
    log_probs, cache = denoiser.full(tokens, rows)
    close(log_probs, denoiser(tokens, rows))
    _, own = net.full(tokens)
    close(denoiser.partial(changed, rows, cache), net.partial(changed, rows, own).log_softmax(-1))


def test_networks_without_a_cache_say_so():
    denoiser = unmask.from_logits(Plain(), mask_id=5, vocab_size=5)
    selector = selectors.top_k(scores.margin, 2)
    start = torch.full((1, 6), 5)
    assert unmask.sample(denoiser, start, selector, generator=seeded(0)).tokens.max() < 5
    with pytest.raises(ValueError, match="no `full` and `partial`; use substeps=1"):
        unmask.sample(denoiser, start, selector, generator=seeded(0), substeps=2)


def test_time_reaches_the_networks_that_know_it():
    net, tokens, time = Timed().eval(), boards(), torch.tensor([0.0, 0.5, 1.0])
    denoiser = unmask.from_logits(net, mask_id=5, vocab_size=5)
    assert denoiser.takes_time
    close(denoiser(tokens, time=time), net(tokens, time=time).log_softmax(-1))
    close(denoiser(tokens)[2], denoiser(tokens, time=time)[2])
    close(denoiser(tokens, time=time)[0], torch.full((6, 5), 0.2).log())
    plain = unmask.from_logits(Plain(), mask_id=5, vocab_size=5)
    assert torch.equal(plain(tokens, time=time), plain(tokens))


def test_modules_stop_dropping_out():
    net, tokens = Plain().train(), boards()
    denoiser = unmask.from_logits(net, mask_id=5, vocab_size=5)
    assert torch.equal(denoiser(tokens), denoiser(tokens))
    assert net.training
    assert not denoiser(tokens).requires_grad


def test_the_mask_never_has_probability():
    wide, tokens = Plain(width=6).eval(), boards()
    last = unmask.from_logits(wide, mask_id=5, vocab_size=5)(tokens)
    close(last, wide(tokens)[..., :5].log_softmax(-1))
    inside = unmask.from_logits(wide, mask_id=2, vocab_size=6)(tokens)
    assert (inside[..., 2] == -torch.inf).all()
    assert not torch.isnan(inside).any()
    others = [0, 1, 3, 4, 5]
    close(inside[..., others], wide(tokens)[..., others].log_softmax(-1))
    close(inside.exp().sum(-1), torch.ones(3, 6))


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("mask_id", [1, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_stored_logits_stay_as_they_are(inference, mask_id, dtype):
    """Also when the caller runs everything, the making of the network too, in inference mode."""
    with torch.inference_mode(inference):
        stored = torch.randn(3, 6, 5, generator=seeded(0)).to(dtype)
        kept = stored.clone()
        denoiser = unmask.from_logits(lambda tokens, rows=None: stored, mask_id=mask_id, vocab_size=5)
        first, second = denoiser(boards()), denoiser(boards())
    assert torch.equal(stored, kept)
    assert torch.equal(first, second)
    assert first.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_nan_weights_are_an_error():
    net = network()
    net.blocks[0].up.weight[0, 0] = torch.nan
    denoiser = unmask.from_logits(net, mask_id=5, vocab_size=5)
    with pytest.raises(ValueError, match=r"NaN or infinite logits.*check its weights"):
        denoiser(boards())


def test_wrong_vocabularies_are_errors():
    with pytest.raises(ValueError, match="gave 5 logits; expected vocab_size 7"):
        unmask.from_logits(network(), mask_id=7, vocab_size=7)(boards())
    with pytest.raises(ValueError, match="mask_id -1: expected a whole number of at least 0"):
        unmask.from_logits(network(), mask_id=-1, vocab_size=5)
    denoiser = unmask.from_logits(network(), mask_id=5, vocab_size=5)
    for wrong in (6, -1):
        tokens = torch.full((1, 6), 5)
        tokens[0, 2] = wrong
        with pytest.raises(ValueError, match=f"token {wrong} at row 0, position 2; expected symbols 0..4"):
            unmask.sample(denoiser, tokens, selectors.top_k(scores.margin, 1), generator=seeded(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 4, 7), (400_000, 3), (2, 0, 5), (1,)])
def test_log_normalise_is_log_softmax(dtype, shape):
    logits = 30 * torch.randn(shape, generator=seeded(0), dtype=dtype)
    expected = logits.log_softmax(-1)
    result = log_normalise_(logits)
    torch.testing.assert_close(result, expected)
    assert result.data_ptr() == logits.data_ptr()  # in place


def test_log_normalise_of_strided_logits():
    logits = torch.randn(4, 5, 6, generator=seeded(0)).transpose(0, 2)[..., :3]
    torch.testing.assert_close(log_normalise_(logits), logits.log_softmax(-1))


def test_log_normalise_refuses_rows_without_a_law():
    for bad in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="NaN or infinite"):
            log_normalise_(torch.tensor([[0.0, bad]]))
    with pytest.raises(ValueError, match="NaN or infinite"):
        log_normalise_(torch.full((2, 3), -torch.inf))
    close(log_normalise_(torch.tensor([-torch.inf, 1.0])), torch.tensor([-torch.inf, 0.0]))
