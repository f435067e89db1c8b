"""How fast is a training step? Tokens per second of ours against a plain step of the same network, in turn in one run.

Run: python benchmarks/training_speed.py [--repeats 7] [--write]. A few minutes.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from typing import Any

import record
import torch
import torch.nn.functional as F
from overhead import seconds
from torch import Tensor, nn

from unmask import recipes
from unmask.base.devices import has_bfloat16
from unmask.masking import corruption
from unmask.networks import TransformerConfig
from unmask.recipes import Batch, Machine, Run, sequences
from unmask.recipes.run import generator
from unmask.training import state
from unmask.training.loop import _prepare_machine, update
from unmask.training.together.world import ALONE

CASES = [(50_257, 256, 256, 4, 4), (50_257, 256, 512, 4, 8), (27, 128, 256, 6, 32), (28, 58, 128, 4, 64)]
"""Vocabulary, length, width, depth, batch."""

NOTES = """
Tokens per second of one optimiser step on random tokens. Plain: logits at every position, `F.cross_entropy`
everywhere, multiplied by the mask and weight; backward, clipping, AdamW (fused). Ours, same precision:
`training.update` (which also keeps the EMA) with `sequences.sparse_loss` where the vocabulary has 1,000 symbols or
more (head and loss at masked positions only, a slice at a time), else `sequences.loss`. Ours, as recipes run:
compiled besides, in bfloat16 where the processor has units for it (here: {half}); its compilation is
not counted. Ratios: medians over repeats run in turn, with the
smallest and largest.
"""


def main() -> None:
    """Prints, and with --write records, the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = [measure(*case, options.repeats) for case in CASES]
    print("\n".join(record.table(rows)))
    if options.write:
        print(record.write("training_speed", rows, NOTES.format(half=has_bfloat16())))


def measure(vocab_size: int, length: int, width: int, depth: int, size: int, repeats: int) -> dict[str, Any]:
    """Ratios for one network."""
    run = made(vocab_size, length, width, depth, size)
    fast = replace(run, machine=Machine(bfloat16=None, compile=True))
    _prepare_machine(run)
    steps = [plain_step(run), our_step(run), our_step(fast)]
    for step in steps:  # compiles, and fills the optimiser's state
        step()
    times = [[seconds(step) for step in steps] for _ in range(repeats)]
    tokens = size * length
    return {
        "V": vocab_size,
        "L": length,
        "width": width,
        "depth": depth,
        "batch": size,
        "plain tokens/s": tokens / statistics.median(t[0] for t in times),
        "ours tokens/s": tokens / statistics.median(t[1] for t in times),
        "ratio": ratio(times, 1),
        "as recipes run, tokens/s": tokens / statistics.median(t[2] for t in times),
        "ratio as recipes run": ratio(times, 2),
    }


def ratio(times: list[list[float]], which: int) -> str:
    """Median of the speed-ups, with their range."""
    found = [t[0] / t[which] for t in times]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def made(vocab_size: int, length: int, width: int, depth: int, size: int) -> Run:
    """A run on random tokens."""
    shape = TransformerConfig(vocab_size, length, width, depth, heads=width // 32, rotary=True)
    objective = sequences.sparse_loss if vocab_size >= 1000 else sequences.loss
    base = recipes.text()
    return replace(
        base,
        network=shape,
        batch=batch,
        objective=objective,
        batch_size=size,
        machine=Machine(),
        vocabulary=None,
    )


def batch(run: Run, step: int) -> Batch:
    """Random tokens, masked as in training."""
    random = generator(run, step)
    tokens = torch.randint(0, run.network.vocab_size, (run.batch_size, run.network.length), generator=random)
    hidden = corruption.exact_count(torch.ones_like(tokens, dtype=torch.bool), random)
    return Batch(tokens, hidden.masked, hidden.weight)


def our_step(run: Run):  # type: ignore[no-untyped-def]
    """One step of our training."""
    training = state.started(ALONE, run, state.initialised(run))
    return lambda: update(training, run.batch(run, 0), 0)


def plain_step(run: Run):  # type: ignore[no-untyped-def]
    """One step as one would write it first."""
    network = state.initialised(run)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        data = run.batch(run, 0)
        loss = plain_loss(network, data)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()

    return step


def plain_loss(network: nn.Module, data: Batch) -> Tensor:
    """Full logits and cross-entropy everywhere."""
    logits = network(data.tokens.masked_fill(data.masked, network.mask_id))  # type: ignore[arg-type]
    losses = F.cross_entropy(logits.flatten(0, 1), data.tokens.flatten(), reduction="none")
    return (losses.view(data.tokens.shape) * data.masked * data.weight[:, None]).sum() / data.tokens.numel()


if __name__ == "__main__":
    main()
