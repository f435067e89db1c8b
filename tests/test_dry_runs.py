"""Dry runs: operations as torch counts them, bytes as a real step takes them, and what devices make of both."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from unmask.command_line.app import main
from unmask.command_line.options import Fleet
from unmask.recipes import all_recipes, sequences
from unmask.recipes.run import Batch, override
from unmask.training import loop, state
from unmask.training.costing import Spread, cost, measured, on_meta
from unmask.training.costing.blank import blank_batch
from unmask.training.together.world import ALONE

pytestmark = pytest.mark.global_random

PLAIN = {"machine.bfloat16": "False", "machine.compile": "False", "network.dropout": "0"}
TEXT = {"network.depth": "2", "network.heads": "2", "network.length": "64", "batch_size": "8"}
SIDES = {"network.height": "8", "network.width": "8"}
SMALL = {
    "text8": TEXT | {"network.width": "64"},
    "owt-small": TEXT | {"network.width": "32", "network.vocab_size": "5000"},
    "cifar10": SIDES | {"network.features": "32", "network.blocks": "2", "batch_size": "8"},
}


class Zeros:
    """A token folder of zeros."""

    symbols, items = 2**12, 2**6

    def open(self):
        return self

    def windows(self, starts, length):
        return torch.zeros(len(starts), length, dtype=torch.int64).numpy()

    def padded(self, indices, length, fill):
        return self.windows(indices, length)


def small(name, **changes):
    run = override(all_recipes()[name](), SMALL[name] | PLAIN | changes)
    return replace(run, data=Zeros(), prepare=lambda run: run)


class Live(TorchDispatchMode):
    """The most bytes that tensors made inside hold at once, on top of those that were there."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.sizes = {}

    def gone(self, key):
        self.now -= self.sizes.pop(key)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, torch.Tensor):
                storage = made.untyped_storage()
                if storage._cdata not in self.sizes and storage._cdata not in self.known:
                    self.sizes[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self.gone, storage._cdata)
        return out


def peak_of_a_step(run):
    """Bytes of a training at its worst moment, in the loop's second step, when the optimiser has its moments."""
    training = state.started(ALONE, run, state.initialised(run))
    loop.update(training, run.batch(run, 0), 0)
    kept = [*training.network.parameters(), *training.network.buffers(), *training.average.values()]
    kept += [t for t in tree_leaves(training.optimiser.state_dict()["state"]) if isinstance(t, torch.Tensor)]
    live = Live()
    live.known = {t.untyped_storage()._cdata for t in kept}
    with live:
        loop.update(training, run.batch(run, 1), 1)
    return live.peak + sum(t.untyped_storage().nbytes() for t in kept)


@pytest.mark.parametrize("name", SMALL)
def test_memory_is_what_a_step_of_the_loop_takes(name):
    run = small(name)
    told, found = cost(run, Spread()).memory.total, peak_of_a_step(run)
    assert abs(told / found - 1) < 0.05  # promised: 15 %


@pytest.mark.parametrize("name", SMALL)
def test_operations_are_those_of_torchs_counter(name):
    run = small(name)
    network, batch = run.build(run.network), run.batch(run, 0)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run.objective(network, batch).backward()
    assert abs(cost(run, Spread()).flops / counter.get_total_flops() - 1) < 0.05


def test_operations_of_a_transformer_by_hand():
    """Three passes of two operations for every weight of a product, four for each pair of places and channel."""
    run = small("text8")
    width, depth, length, hidden, rows = 64, 2, 64, 192, 8
    weights = depth * (4 * width**2 + 3 * width * hidden) + width * 27
    attention = depth * 4 * length**2 * width
    told = 2 * (64 * 256 + 256 * 64 + depth * 64 * 6 * width)  # the time's, a row each
    by_hand = 3 * rows * (2 * weights * length + attention + told)
    assert cost(run, Spread()).flops == pytest.approx(by_hand, rel=1e-3)


def test_devices_and_parts_divide_what_is_alive_and_not_what_is_computed():
    run = small("text8")
    whole, four = cost(run, Spread()), cost(run, Spread(devices=2, accumulate=2))
    assert four.flops == pytest.approx(whole.flops)
    assert (whole.part, four.part) == (8, 2)
    assert four.memory.activations == pytest.approx(part_of(run, 8).peak / 4, rel=0.02)
    assert four.memory.parameters == whole.memory.parameters
    assert four.positions == whole.positions == 8 * 64
    twice = cost(run, Spread(checkpointing=True))
    assert twice.flops == whole.flops + part_of(run, 8).again
    assert 1.2 < twice.flops / whole.flops < 4 / 3 + 1e-9
    assert twice.memory.activations < whole.memory.activations


def part_of(run, size, half=False):
    return measured(run, on_meta(run), size, half)


def test_states_are_four_float32_numbers_a_parameter_and_fsdp_divides_them():
    run = small("text8")
    count = sum(p.numel() for p in run.build(run.network).parameters())
    one, eight = cost(run, Spread()), cost(run, Spread(devices=8, strategy="fsdp"))
    copies = cost(run, Spread(devices=8)).memory
    for memory, share in ((one.memory, 1), (copies, 1), (eight.memory, 8)):
        assert memory.parameters == memory.gradients == memory.average == 4 * count / share
        assert memory.moments == 8 * count / share
    block = sum(p.numel() for p in run.build(run.network).blocks[0].parameters())
    assert eight.memory.gathered == 4 * (3 * block + count - 2 * block)
    assert one.memory.gathered == copies.gathered == 0


def test_muon_keeps_one_moment_of_matrices():
    run = small("text8", **{"optimiser.muon": "True"})
    plain, muon = cost(small("text8"), Spread()).memory, cost(run, Spread()).memory
    network = run.build(run.network)
    matrices = {n: m for n, m in network.named_modules() if isinstance(m, nn.Linear) and n != "head"}
    assert plain.moments - muon.moments == 4 * sum(m.weight.numel() for m in matrices.values())
    network(torch.zeros(1, 64, dtype=torch.int64)).sum().backward()
    optimiser = state.made_optimiser(network, run.optimiser)
    optimiser.step()
    kept = [t for t in tree_leaves(optimiser.state_dict()["state"]) if isinstance(t, torch.Tensor) and t.ndim]
    assert sum(t.numel() for t in kept) * 4 == muon.moments


class Checked(nn.Module):
    """Blocks that are called as modules, checkpointed or not; what `sequences.loss` wants of a network."""

    mask_id = 5

    def __init__(self, twice):
        super().__init__()
        self.twice = twice
        self.embedding, self.head = nn.Embedding(6, 64), nn.Linear(64, 5)
        self.blocks = nn.ModuleList([self.block() for _ in range(6)])

    @staticmethod
    def block():
        layers = nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 64)
        return nn.Sequential(*layers)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = x + (checkpoint(block, x, use_reentrant=False) if self.twice else block(x))
        return self.head(x)


def test_checkpointing_is_what_torch_makes_of_it():
    plain = small("text8")
    blank = blank_batch(plain, 2)
    batch = Batch(blank.tokens, blank.masked, blank.weight)
    found = {}
    for twice in (False, True):
        network = Checked(twice)
        live = Live()
        live.known = {p.untyped_storage()._cdata for p in network.parameters()}
        real = Batch(
            torch.zeros(64, 64, dtype=torch.int64), torch.ones(64, 64, dtype=torch.bool), torch.ones(64)
        )
        with live:
            sequences.loss(network, real).backward()
        with FlopCounterMode(display=False) as counter:
            sequences.loss(network, real).backward()
        found[twice] = (live.peak, counter.get_total_flops())
    run = replace(plain, build=lambda _: Checked(False), batch=lambda run, step: batch)
    part = measured(run, on_meta(run), 64, False)
    assert part.peak_growing == pytest.approx(found[False][0], rel=0.05)
    assert part.flops == pytest.approx(found[False][1], rel=0.01)
    # torch stops once it has what the backward pass wants: a block's last product is not done again
    assert part.flops + part.again == pytest.approx(found[True][1], rel=0.05)
    assert found[True][0] < 0.6 * found[False][0]
    assert part.checkpointed == pytest.approx(found[True][0], rel=0.15)


def test_bfloat16_keeps_less_and_computes_the_same():
    run = small("text8", **{"network.width": "128"})
    wide, half = part_of(run, 8), part_of(run, 8, half=True)
    assert half.flops == wide.flops
    assert 0.4 < half.peak / wide.peak < 0.85


def test_half_of_the_positions_reach_a_sparse_head():
    run = small("owt-small")
    dense = replace(run, objective=sequences.loss)
    head = 3 * 2 * 32 * 5000 * 8 * 64
    assert cost(dense, Spread()).flops - cost(run, Spread()).flops == pytest.approx(head / 2)


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does():
    with pytest.raises(
        ValueError, match="batch_size 8 over 3 devices in 1 parts: expected a divisor of it, such as 2"
    ):
        cost(small("text8"), Spread(devices=3))
    with pytest.raises(ValueError, match="strategy 'zero': expected one of ddp, fsdp"):
        Spread(strategy="zero")


def test_seconds_are_operations_over_what_all_devices_do():
    found = cost(small("text8"), Spread(devices=4))
    assert found.seconds(1e9, 0.5, 4) == pytest.approx(found.flops / 2e9)


# --- the command ------------------------------------------------------------------------------------


def told(*words, capsys):
    code = main(["train", *words])
    out = capsys.readouterr()
    return code, out.out, out.err


FEW = ("--network.width", "64", "--network.depth", "1", "--network.heads", "2")


def test_the_command_tells_numbers_with_units(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path))
    code, out, _ = told(
        "text8", "--dry-run", "--json", *FEW, "--devices", "4", "--flops", "1e12", capsys=capsys
    )
    report = json.loads(out)
    assert code == 0
    assert report["step"]["sequences_at_a_time"] == 128
    seconds = report["step"]["flops"]["value"] / (4 * 1e12 * 0.4)
    assert report["step"]["seconds"]["value"] == pytest.approx(seconds)
    assert report["training"]["seconds"]["value"] == pytest.approx(1_000_000 * seconds)
    assert report["training"]["epochs"] == pytest.approx(1_000_000 * 512 * 256 / 90e6)
    kept = [v for k, v in report["memory"].items() if isinstance(v, float) and k != "limit"]
    assert report["memory"]["total"]["value"] == pytest.approx(sum(kept))
    assert report["memory"]["fits"] is True
    assert report["published"][0]["parameters"] == 88_734_272
    assert report["data"]["there"] is False
    assert any("unmask data prepare text8.zip --as text8_file" in line for line in report["data"]["prepare"])
    assert not list(tmp_path.iterdir())


def test_a_hint_makes_it_fit(capsys):
    words = ("text8", "--dry-run", *FEW, "--machine.bfloat16", "false", "--memory")
    code, out, _ = told(*words, "5e8", capsys=capsys)
    assert code == 0
    assert "does NOT fit into" in out
    accumulate = out.split("to make it fit: --accumulate ")[1].split(",")[0]
    assert "does NOT" not in told(*words, "5e8", "--accumulate", accumulate, capsys=capsys)[1]
    assert "does NOT" in told(*words, "5e8", "--accumulate", str(int(accumulate) // 2), capsys=capsys)[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("text8", "--devices", "2"), "--devices is for a dry run; expected --dry-run beside it"),
        (
            ("text8", "--dry-run", "--utilisation", "40"),
            "--utilisation 40: expected a number above 0, at most 1",
        ),
        (("text8", "--dry-run", "--devices", "0"), "--devices 0: expected at least 1"),
        (("text8", "--dry-run", "--strategy", "zero"), "strategy 'zero': expected one of ddp, fsdp"),
        (("textate", "--dry-run"), "no recipe 'textate'"),
        (("--dry-run",), "--dry-run without a recipe"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    code, _, err = told(*words, capsys=capsys)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_other_recipes_are_told_their_data(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("UNMASK_CACHE", str(tmp_path))
    assert "unmask data fetch text" in told("text", "--dry-run", capsys=capsys)[1]
    assert "made as training goes" in told("lo_nae_sat", "--dry-run", capsys=capsys)[1]
    assert Fleet().given == []
