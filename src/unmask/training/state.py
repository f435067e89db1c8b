"""What does training change, and how is it at the start? Network, average of its weights, and the optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from unmask.base import checkpoints, devices
from unmask.recipes.run import Optimiser, Run
from unmask.training.muon import Muon
from unmask.training.together import parallel
from unmask.training.together.world import World


@dataclass(frozen=True)
class State:
    """A training in this process: ``loss(batch)`` is the objective of the bare ``network``, shared with the others."""

    world: World
    run: Run
    network: nn.Module
    loss: nn.Module
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer


def started(world: World, run: Run, network: nn.Module) -> State:
    """A training of a network from its start; whatever it has then."""
    loss = parallel.shared(world, run, network)
    average = {k: v.detach().clone() for k, v in network.state_dict().items()}
    return State(world, run, network, loss, average, made_optimiser(network, run.optimiser))


def in_bfloat16(run: Run) -> bool:
    """Whether matrix products are made in bfloat16."""
    asked = run.machine.bfloat16
    return devices.has_bfloat16(run.machine.device) if asked is None else asked


def initialised(run: Run, fresh: bool = True) -> nn.Module:
    """The network at its start. Seeds torch's random state: initialisers and dropout read no other.

    A run that is not ``fresh`` has a checkpoint with all weights, and reads nothing from where it once started.
    """
    devices.seed_random_states(run.machine.device, run.seed)
    network = run.build(run.network)
    if run.start and fresh:
        weights = Path(run.start) / "weights.safetensors"
        checkpoints.fill(network.state_dict(), checkpoints.read_tensors(weights), weights)
    return network


def made_optimiser(network: nn.Module, o: Optimiser) -> torch.optim.Optimizer:
    """AdamW, or Muon for the matrices of linear layers but the output head, and AdamW for the rest."""
    if not o.muon:
        return adamw(network, o)
    layers = {f"{name}.weight" for name, m in network.named_modules() if isinstance(m, nn.Linear)} - {
        "head.weight"
    }
    matrices = [p for name, p in network.named_parameters() if name in layers]
    others = [p for name, p in network.named_parameters() if name not in layers]
    return Muon(matrices, others, lr=o.learning_rate, weight_decay=o.weight_decay, beta2=o.beta2)


def adamw(network: nn.Module, o: Optimiser) -> torch.optim.AdamW:
    """AdamW; only matrices of linear layers decay."""
    matrices = {id(m.weight) for m in network.modules() if isinstance(m, nn.Linear)}
    decayed = [p for p in network.parameters() if id(p) in matrices]
    rest = [p for p in network.parameters() if id(p) not in matrices]
    groups = [{"params": decayed, "weight_decay": o.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=o.learning_rate, betas=(0.9, o.beta2), fused=True)
