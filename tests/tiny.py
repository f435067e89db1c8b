"""A training of a second: the law Permutation(4), learnt by a transformer of width 16.

``python tests/tiny.py train FOLDER [FSYNCS]`` trains it, killed by SIGKILL at that call of fsync;
``python tests/tiny.py golden`` rewrites the golden trace.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from unmask import laws
from unmask.masking import corruption
from unmask.masking.objectives import masked_cross_entropy
from unmask.networks import Transformer, TransformerConfig
from unmask.recipes import Batch, Machine, Optimiser, Run
from unmask.recipes.run import generator
from unmask.training.loop import train

LAW = laws.Permutation(4)
GOLDEN = Path(__file__).parent / "golden" / "training.json"
WHY = (
    "Losses of the first steps of tests/tiny.py, nats per position. They change when initialisation, "
    "batches, the objective, the learning rate or the optimiser change: say which in the change log, "
    "then run `python tests/tiny.py golden`."
)


@dataclass(frozen=True)
class TinyData:
    """How many of the four positions may be hidden."""

    maskable: int = 4


def tiny(machine: Machine | None = None, dropout: float = 0.1, **optimiser: float) -> Run:
    """The run; keywords replace fields of the optimiser. Dropout needs the random state that is saved."""
    settings = {"steps": 12, "learning_rate": 1e-2, "warmup": 5, "ema": 0.95} | optimiser
    return Run(
        name="tiny",
        network=TransformerConfig(vocab_size=4, length=4, width=16, depth=1, heads=2, hidden=32),
        data=TinyData(),
        build=lambda config: Transformer(**vars(config)),
        batch=batch,
        objective=partial(objective, dropout=dropout),
        encode=lambda _, data: torch.as_tensor(data),
        decode=lambda _, tokens: tokens.tolist(),
        batch_size=32,
        optimiser=Optimiser(**settings),
        machine=machine or often(),
    )


def often(**changes: float) -> Machine:
    """A machine that logs every step, and saves at every step and keeps all unless told otherwise."""
    return replace(Machine(threads=1, log_every=1, save_minutes=0.0, keep=0), **changes)


def batch(run: Run, step: int) -> Batch:
    random = generator(run, step)
    tokens = LAW.sample(run.batch_size, random)
    maskable = (torch.arange(4) < run.data.maskable).expand(tokens.shape)
    drawn = corruption.exact_count(maskable, random)
    return Batch(tokens, drawn.masked, drawn.weight)


def objective(network: nn.Module, data: Batch, dropout: float) -> Tensor:
    logits = network(data.tokens.masked_fill(data.masked, LAW.mask_id))
    return masked_cross_entropy(nn.functional.dropout(logits, dropout), data.tokens, data.masked, data.weight)


def log_of(folder: Path) -> list[dict[str, float]]:
    """The log without its clock."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in ("per_second", "seconds")} for r in records]


def first_losses(folder: Path) -> list[float]:
    """What the golden trace holds: the losses of a whole training of twelve steps."""
    train(tiny(often(save_minutes=60), dropout=0.0), folder, quiet=True)
    return [record["loss"] for record in log_of(folder)]


def killed_at(calls: int) -> None:
    """Makes that call of fsync the last thing this process does."""
    count, real = 0, os.fsync

    def fsync(handle: int) -> None:
        nonlocal count
        count += 1
        if count == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        real(handle)

    os.fsync = fsync


def main(command: str, *rest: str) -> None:
    import tempfile

    if command == "golden":
        with tempfile.TemporaryDirectory() as folder:
            losses = first_losses(Path(folder))
        record = json.loads(GOLDEN.read_text()) | {"why": WHY, "losses": losses}
        GOLDEN.write_text(json.dumps(record, indent=1) + "\n")
        return
    for calls in rest[1:]:
        killed_at(int(calls))
    train(tiny(), Path(rest[0]), quiet=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
