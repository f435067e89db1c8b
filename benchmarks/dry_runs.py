"""Do dry runs tell the truth? Parameters beside published ones, bytes beside a process's peak, operations beside a
counter's.

Memory: steps of the real training loop in a process of its own, on a CPU in float32; the peak of the resident set since
before the network was made (VmHWM, reset through clear_refs), which the dry run has not seen. Operations: torch's
`FlopCounterMode` around a real forward and backward pass with attention as plain products. Linux only.

python benchmarks/dry_runs.py [--write]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import record
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unmask.recipes import Run, all_recipes, papers
from unmask.recipes.run import override
from unmask.training import loop, state
from unmask.training.costing import Spread, cost, on_meta
from unmask.training.together.world import ALONE

TEXT = {"network.width": "128", "network.depth": "3", "network.heads": "2", "batch_size": "8"}
SMALL = {
    "text8": {"network.width": "256", "network.depth": "4", "network.heads": "4", "batch_size": "16"},
    "owt-small": TEXT | {"network.length": "256"},
    "cifar10": {"network.features": "64", "network.blocks": "3", "batch_size": "12"},
}  # fmt: skip
"""Configurations that a CPU trains in seconds, without dropout: on a CPU it makes attention keep its weights."""

STEPS = 2


def small(name: str) -> Run:
    """A recipe at reduced size on blank data, plain float32."""
    plain = {"network.dropout": "0", "machine.bfloat16": "False", "machine.compile": "False"}
    run = override(all_recipes()[name](), SMALL[name] | plain)
    return replace(run, data=Zeros(), prepare=lambda run: run)


class Zeros:
    """A token folder of zeros."""

    symbols, items = 2**20, 2**10

    def open(self) -> Zeros:
        return self

    def windows(self, starts, length):
        return torch.zeros(len(starts), length, dtype=torch.int64).numpy()

    def padded(self, indices, length, _):
        return self.windows(indices, length)


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def steps(run: Run) -> None:
    """Some steps of the training loop, as `loop.train` makes them, nothing written."""
    training = state.started(ALONE, run, state.initialised(run))
    for step in range(STEPS):
        loop.update(training, run.batch(run, step), step)


def peak(name: str) -> int:
    """Bytes that steps of a small configuration take beyond what was there; for a process of its own."""
    run = small(name)
    steps(replace(run, batch_size=1, network=replace(run.network)))  # libraries are loaded, threads started
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    steps(run)
    return resident("VmHWM") - before


def measured(name: str) -> int:
    """`peak` in a fresh process that gives freed memory back at once."""
    env = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "OMP_NUM_THREADS": "1",
    }
    words = [sys.executable, __file__, "--peak", name]
    return int(subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout)


def counted(name: str) -> float:
    """Operations of a step by torch's counter."""
    run = small(name)
    network, batch = run.build(run.network), run.batch(run, 0)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run.objective(network, batch).backward()
    return float(counter.get_total_flops())


def parameters() -> list[dict]:
    """Every paper's recipe: our parameters, the published ones, and where these stand."""
    rows = []
    for name, facts in papers.FACTS.items():
        ours = sum(p.numel() for p in on_meta(all_recipes()[name]()).parameters())
        rows += [
            {
                "recipe": name,
                "ours": ours,
                "published": known.parameters,
                "difference, %": round(100 * (ours / known.parameters - 1), 2),
                "source": known.source,
            }
            for known in facts.published
        ]
    return rows


def compared(told: float, found: float) -> dict:
    return {"dry run": told, "measured": float(found), "difference, %": round(100 * (told / found - 1), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--peak", metavar="NAME", help="internal: print the peak of one configuration")
    told = parser.parse_args()
    if told.peak:
        print(peak(told.peak))
        return
    costs = {name: cost(small(name), Spread()) for name in SMALL}
    shapes = {name: " ".join(f"{k}={v}" for k, v in SMALL[name].items()) for name in SMALL}
    parts = {
        "parameters": parameters(),
        "memory, bytes": [
            {"configuration": f"{n}: {shapes[n]}"} | compared(costs[n].memory.total, measured(n))
            for n in SMALL
        ],
        "operations of a step": [
            {"configuration": f"{n}: {shapes[n]}"} | compared(costs[n].flops, counted(n)) for n in SMALL
        ],
    }
    print(json.dumps(parts, indent=1))
    if told.write:
        print(record.write_parts("dry_runs", parts, NOTES))


NOTES = """
Dry runs (`unmask train RECIPE --dry-run`) against what is there. Parameters: on the meta device, beside the papers' where
they print a number, and beside what the shapes of the authors' code come to. GPT-2's counts have tied embeddings and no
time; MD4 names its sizes only. Memory: the peak of the resident set of a process that makes steps of the
training loop on one thread (CPU, float32, no dropout), less what was there before; the dry run is for fused attention.
Operations: torch's FlopCounterMode around a real forward and backward pass, attention as plain products.
"""

if __name__ == "__main__":
    main()
