"""What will a training cost? Parameters, operations, memory and time, told before it starts and without its data.

One step is run on the meta device and counted (`counting`). ``cost`` divides that among devices by formulas:

- A step has ``batch_size`` sequences: ``devices * accumulate`` equal parts, one at a time on each device.
- Operations are those of matrix products and convolutions, a product of n terms as 2 n, forward and backward; with
  checkpointing the blocks' forward pass once more.
- Bytes of a device: parameters, their gradients, the optimiser's moments and the average of the weights, in float32, and
  what one part keeps for its backward pass at the worst moment. Under ``fsdp`` the first four are divided by the devices,
  and two blocks and what is in none are there whole; under ``ddp`` nothing is divided. With checkpointing a block keeps
  its input only, and one at a time is whole.

Left out: the driver's own memory (about 1e9 bytes of a GPU), fragments, the prefetched batch, and what compiling saves.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields

import torch
from torch import nn

from unmask.base.numbers import real, whole
from unmask.recipes.run import Run
from unmask.recipes.sequences import Folder
from unmask.training.costing.blank import blank_batch
from unmask.training.costing.counting import Unwritten, counting

STRATEGIES = ("ddp", "fsdp")
WIDE, HALF = 4, 2
"""Bytes of a number in float32 and in bfloat16."""


@dataclass(frozen=True)
class Spread:
    """How a step is spread: over devices, by a strategy, in parts one after another, and what is computed twice."""

    devices: int = 1
    strategy: str = "ddp"
    accumulate: int = 1
    checkpointing: bool = False
    bfloat16: bool = False

    def __post_init__(self) -> None:
        for name in ("devices", "accumulate"):
            object.__setattr__(self, name, whole(getattr(self, name), name, 1))
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy '{self.strategy}': expected one of {', '.join(STRATEGIES)}")


@dataclass(frozen=True)
class Memory:
    """Bytes on each device at the worst moment of a step."""

    parameters: float
    gradients: float
    moments: float
    average: float
    activations: float
    gathered: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return float(sum(getattr(self, f.name) for f in fields(self)))


@dataclass(frozen=True)
class Cost:
    """``flops`` of a step on all devices, ``part`` sequences at a time on each, ``positions`` that a step trains on."""

    parameters: int
    flops: float
    part: int
    positions: int
    memory: Memory

    def seconds(self, throughput: float, utilisation: float, devices: int) -> float:
        """Seconds of a step on devices of ``throughput`` operations a second each, used to a share of it."""
        speed = real(throughput, "throughput", 1) * real(utilisation, "utilisation", 1e-6, 1)
        return self.flops / (speed * devices)


@dataclass(frozen=True)
class Part:
    """What one part of a step computes and keeps: operations, also of the blocks' forward pass; bytes as in `Memory`.

    ``peak`` is of all but parameters and gradients, ``peak_growing`` with the gradients that are whole by then;
    ``checkpointed`` is ``peak`` with blocks that keep their inputs only.
    """

    flops: float
    again: float
    peak: int
    peak_growing: int
    checkpointed: int


def cost(run: Run, spread: Spread) -> Cost:
    """What a step of the run costs; ValueError where the batch does not divide, or the objective looks at numbers."""
    parts = spread.devices * spread.accumulate
    if run.batch_size % parts:
        near = max(n for n in range(1, run.batch_size + 1) if run.batch_size % n == 0 and n <= parts)
        raise ValueError(
            f"batch_size {run.batch_size} over {spread.devices} devices in {spread.accumulate} parts: expected a "
            f"divisor of it, such as {near} in all; change --devices, --accumulate or --batch-size"
        )
    run = (
        run if isinstance(run.data, Folder) else run.prepare(run)
    )  # what data are made of may shape the network
    network, size = on_meta(run), run.batch_size // parts
    part = measured(run, network, size, spread.bfloat16)
    flops = part.flops + (part.again if spread.checkpointing else 0.0)
    count = sum(p.numel() for p in network.parameters())
    return Cost(
        count, flops * parts, size, run.batch_size * positions(run), memory(run, network, part, spread)
    )


def positions(run: Run) -> int:
    """Positions of a sequence that a step learns from: under Upscale those of one stage."""
    return int(run.network.length) // int(getattr(run.network, "stages", 0) or 1)


def on_meta(run: Run) -> nn.Module:
    """The run's network without numbers."""
    try:
        with torch.device("meta"), Unwritten():
            return run.build(run.network)
    except (RuntimeError, NotImplementedError):  # its shape follows from numbers
        return run.build(run.network).to("meta")


def measured(run: Run, network: nn.Module, size: int, half: bool) -> Part:
    """One part of a step, of ``size`` sequences, counted; ValueError for an objective that looks at numbers."""
    batch = blank_batch(run, size)
    try:
        with counting(network, half=half) as (counter, over):
            loss = run.objective(network, batch)
            kept, again = dict(counter.alive), sum(f for b, f in counter.flops.items() if b)
            inputs = sum(size for block, size in counter.last.items() if block)
            held = counter.live
            over()
            loss.backward()  # type: ignore[no-untyped-call]
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"a step of recipe '{run.name}' looks at numbers ({str(error).splitlines()[0][:80]}); "
            "expected one of a network and an objective whose course follows from shapes"
        ) from None
    finally:
        for parameter in network.parameters():
            parameter.grad = None
    blocks = [bytes_ for block, bytes_ in kept.items() if block]
    beyond = max(counter.peak - held, max(blocks, default=0))
    checkpointed = min(counter.peak, kept.get("", 0) + inputs + beyond)
    return Part(sum(counter.flops.values()), again, counter.peak, counter.peak_with_gradients, checkpointed)


def memory(run: Run, network: nn.Module, part: Part, spread: Spread) -> Memory:
    """Bytes on each device, by what they are for."""
    numbers = sum(p.numel() for p in network.parameters())
    average = sum(t.numel() for t in network.state_dict().values())
    moments = 2 * numbers - (_orthogonal(network) if run.optimiser.muon else 0)
    shards = spread.devices if spread.strategy == "fsdp" else 1
    gradients = WIDE * numbers
    peak = part.checkpointed if spread.checkpointing else part.peak
    if spread.devices == spread.accumulate == 1 and not spread.checkpointing:
        peak = max(part.peak_growing, gradients) - gradients
    return Memory(
        parameters=WIDE * numbers / shards,
        gradients=gradients / shards,
        moments=WIDE * moments / shards,
        average=WIDE * average / shards,
        activations=peak,
        gathered=_gathered(network, HALF if spread.bfloat16 else WIDE) if shards > 1 else 0.0,
    )


def _orthogonal(network: nn.Module) -> int:
    """Numbers that `Muon` keeps one moment of."""
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear) and n != "head"]
    return sum(m.weight.numel() for _, m in layers)


def _gathered(network: nn.Module, width: int) -> float:
    """Bytes of parameters that are whole under `fsdp`: two blocks, one of them with gradients, and what is in none."""
    sizes: dict[str, int] = defaultdict(int)
    blocks = {name for name, m in network.named_modules() if isinstance(m, nn.ModuleList)}
    for name, parameter in network.named_parameters():
        home = next((b for b in blocks if name.startswith(f"{b}.")), None)
        sizes["" if home is None else ".".join(name.split(".")[: home.count(".") + 2])] += parameter.numel()
    largest = max((n for block, n in sizes.items() if block), default=0)
    return float(width * (3 * largest + sizes[""]))
