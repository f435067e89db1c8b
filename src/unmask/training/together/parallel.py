"""How is one step shared between processes? Each takes a part of the batch, and all or a share of the weights.

The objective is wrapped together with its network, so that whatever it calls there (readouts, states, the head's own
matrix) happens inside one forward pass, which is all that DDP and FSDP2 see; the bare network keeps its names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from unmask.base import devices
from unmask.base.devices import kind_of
from unmask.recipes.run import Batch, Run
from unmask.training.together.world import World, agreed


class Loss(nn.Module):
    """The objective of a network as a module: ``loss(batch)``."""

    def __init__(self, network: nn.Module, objective: Callable[[nn.Module, Batch], Tensor]) -> None:
        super().__init__()
        self.network, self.objective = network, objective

    def forward(self, batch: Batch) -> Tensor:
        """Nats per position."""
        return self.objective(self.network, batch)


def shared(world: World, run: Run, network: nn.Module) -> nn.Module:
    """The loss of a network, for this process of the world; under fsdp the network's weights become shares in place."""
    machine = run.machine
    if machine.recompute:
        for block in blocks(network):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    if world.size > 1 and machine.strategy == "fsdp":
        return _sharded(world, run, network)
    network.to(machine.device)
    loss = Loss(network, torch.compile(run.objective) if machine.compile else run.objective)
    if world.size == 1:
        return loss
    unread = agreed(world, lambda: has_unread(run, network))
    options: dict[str, Any] = {
        "gradient_as_bucket_view": True,
        "find_unused_parameters": unread,
        _BUFFERS: False,
    }
    return DistributedDataParallel(loss, **options)


_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")  # by version of torch
    if name in inspect.signature(DistributedDataParallel).parameters
)
"""What DDP calls sending buffers about at every step; ours never change."""


def has_unread(run: Run, network: nn.Module) -> bool:
    """Whether the loss of a row leaves some parameters without a gradient; nothing changes."""
    with devices.random_states_kept(run.machine.device):
        row = run.batch(run, 0).every(run.batch_size, 0)
        run.objective(network, row.to(run.machine.device)).backward()  # type: ignore[no-untyped-call]
    found = any(p.grad is None for p in network.parameters() if p.requires_grad)
    network.zero_grad()
    return found


def _sharded(world: World, run: Run, network: nn.Module) -> nn.Module:
    """FSDP2: every block is gathered when it runs, and what is outside of blocks for the whole step.

    The network moves to the device block by block, so that no device ever holds all of it. Weights are gathered and
    gradients added up in float32 whatever products are made in, so that the numbers are those of one process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(kind_of(run.machine.device), (world.size,))
    for block in blocks(network):
        if run.machine.compile:
            block.compile()
        fully_shard(block, mesh=mesh)
    return fully_shard(Loss(network, run.objective), mesh=mesh)  # type: ignore[return-value]


def blocks(network: nn.Module) -> list[nn.Module]:
    """The modules of which the network has lists, outermost first: those that weights are gathered for, one at a time."""
    found: list[nn.Module] = []
    for module in _children(network):
        called = type(module).forward is not nn.Module.forward
        found += [module] if called and any(True for _ in module.parameters()) else []
    return found


def _children(module: nn.Module) -> Iterator[nn.Module]:
    """The elements of the outermost lists of modules."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _children(child)


def apart(loss: nn.Module, last: bool) -> AbstractContextManager[Any]:
    """For one part of a step: gradients stay in this process until the ``last`` one."""
    if isinstance(loss, DistributedDataParallel):
        return nullcontext() if last else loss.no_sync()
    if hasattr(loss, "set_requires_gradient_sync"):
        loss.set_requires_gradient_sync(last)  # type: ignore[operator]
    return nullcontext()


def own(value: Tensor) -> Tensor:
    """The share of a tensor that this process holds, the same memory; all of it where it is not shared."""
    return value.to_local() if is_shared(value) else value  # type: ignore


def whole(value: Tensor) -> Tensor:
    """All of a tensor; every process must ask."""
    return value.full_tensor() if is_shared(value) else value  # type: ignore


def like(value: Tensor, full: Tensor) -> Tensor:
    """``full`` shared as ``value`` is; without a word to the others."""
    if not is_shared(value):
        return full
    from torch.distributed.tensor import DTensor, Replicate

    mesh = value.device_mesh  # type: ignore[attr-defined]
    everywhere = DTensor.from_local(full, mesh, [Replicate()], run_check=False)
    return everywhere.redistribute(placements=value.placements)  # type: ignore[attr-defined]


def is_shared(value: Tensor) -> bool:
    """Whether processes hold a share each (a DTensor, whose import takes long)."""
    return hasattr(value, "to_local")
