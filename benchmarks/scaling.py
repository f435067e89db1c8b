"""How does training scale? Tokens per second of one and two processes, loader beside step, checkpoints by size, and a plan.

Run: python benchmarks/scaling.py [--steps 12] [--write]; the plan alone, for other devices:
python benchmarks/scaling.py --plan [--parameters 3.5e8] [--tokens 524288] [--flops 4e14] [--link 5e10] [--share 0.4]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import record
import torch
from training_speed import made

from unmask import recipes
from unmask.recipes import Machine, Run
from unmask.recipes.run import override
from unmask.training import saving, state, train
from unmask.training.loop import update
from unmask.training.together.world import ALONE

LENGTH, WIDTH, DEPTH, BATCH = 128, 64, 4, 16
"""The network and batch that are timed, of 27 symbols."""

NOTES = """
One and two processes: `unmask.training.train` on random tokens (27 symbols, stretches of 128, width 64, 4 blocks, {batch}
sequences a step, float32, one thread each), gloo on one machine; medians of the logged steps after the first. Processes
share {cores} cores with whatever else runs (load above): that two are not twice as fast says as much of the machine
as of the loop. Loader: `run.batch` alone beside a whole step of one process; the share is what it would cost if
nothing were made ahead. Checkpoints: weights, average and AdamW's two moments of one process, written and
synchronised (`saving.save`), and read again (`saving.resume`).

Plan, UNMEASURED: a formula. Compute: 6 x parameters x tokens / (devices x FLOP/s x share of the peak). Link: gradients
are averaged in float32 by a ring, 2 (n - 1)/n x 4 bytes x parameters over the link of a device (ddp), or weights are
gathered twice and gradients scattered, 3 (n - 1)/n x 4 bytes x parameters (fsdp). A step takes between the larger of
the two (all hidden) and their sum (nothing hidden). Memory: weights, gradients, average and two moments, 20 bytes a
parameter, whole (ddp) or shared (fsdp); activations come on top. Inputs: {inputs}.
"""


def main() -> None:
    """Prints, and with --write records, all tables."""
    options = arguments()
    if options.worker:
        train(timed(options.steps, options.strategy), Path(options.worker), quiet=True)
        return
    parts = {"Plan, unmeasured": plan(options)}
    if not options.plan:
        with tempfile.TemporaryDirectory() as folder:
            measured = {
                "Tokens per second": speeds(Path(folder), options.steps),
                "Loader beside step": [loader(name) for name in ("text", "sudoku")],
                "Checkpoints": [checkpoint(Path(folder), width) for width in (128, 256, 512)],
            }
        parts = measured | parts
    for name, rows in parts.items():
        print("\n".join([f"## {name}", *record.table(rows), ""]))
    if options.write:
        inputs = f"{options.parameters:.3g} parameters, {options.tokens} tokens a step, {options.flops:.3g} FLOP/s, "
        inputs += f"share {options.share}, {options.link:.3g} bytes/s a device"
        notes = NOTES.format(batch=BATCH, cores=os.cpu_count(), inputs=inputs)
        print(record.write_parts("scaling", parts, notes))


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--plan", action="store_true")
    parser.add_argument("--parameters", type=float, default=3.5e8)
    parser.add_argument("--tokens", type=int, default=2**19)
    parser.add_argument("--flops", type=float, default=4e14, help="FLOP/s of a device at its peak")
    parser.add_argument("--share", type=float, default=0.4, help="of the peak that is reached")
    parser.add_argument("--link", type=float, default=5e10, help="bytes/s of a device to the others")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    parser.add_argument("--strategy", default="ddp", help=argparse.SUPPRESS)
    return parser.parse_args()


# --- measured -------------------------------------------------------------------------------------


def timed(steps: int, strategy: str) -> Run:
    """The run that is timed."""
    machine = Machine(threads=1, log_every=1, save_minutes=60, strategy=strategy)
    run = replace(made(27, LENGTH, WIDTH, DEPTH, BATCH), machine=machine, prepare=lambda run: run)
    return replace(run, optimiser=replace(run.optimiser, steps=steps))


def speeds(folder: Path, steps: int) -> list[dict[str, Any]]:
    """Tokens per second of one process, and of two under either strategy."""
    found: list[dict[str, Any]] = []
    for count, strategy in ((1, "ddp"), (2, "ddp"), (2, "fsdp")):
        place = folder / f"{count}{strategy}"
        started = [sys.executable] if count == 1 else [sys.executable, "-m", "torch.distributed.run"]
        started += [] if count == 1 else ["--standalone", "--nproc-per-node", str(count)]
        words = [*started, __file__, "--worker", str(place), "--strategy", strategy, "--steps", str(steps)]
        subprocess.run(words, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        lines = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
        seconds = [b["seconds"] - a["seconds"] for a, b in itertools.pairwise(lines)]
        rate = BATCH * LENGTH / statistics.median(seconds)
        row = {"processes": count, "strategy": strategy if count > 1 else "", "tokens/s": rate}
        found.append(
            row | {"of one": rate / (found[0]["tokens/s"] if found else rate), "loss": lines[-1]["loss"]}
        )
    return found


def loader(name: str, repeats: int = 3) -> dict[str, Any]:
    """How long a batch takes to make, beside a step."""
    run = timed(10, "ddp")
    if name != "text":
        changes = {"machine.compile": "false", "machine.bfloat16": "false", "machine.threads": "1"}
        run = override(recipes.all_recipes()[name](), changes)
    torch.set_num_threads(1)
    training = state.started(ALONE, run, state.initialised(run))
    times: list[tuple[float, float]] = []
    for step in range(repeats + 1):
        began = time.perf_counter()
        batch = run.batch(run, step)
        there = time.perf_counter()
        update(training, batch, step)
        times.append((there - began, time.perf_counter() - there))
    made_in, done_in = (statistics.median(column) for column in zip(*times[1:]))
    names = {"batch of": name if name != "text" else "random tokens", "rows": run.batch_size}
    return names | {"batch, s": made_in, "step, s": done_in, "share": made_in / (made_in + done_in)}


def checkpoint(folder: Path, width: int) -> dict[str, Any]:
    """How long a checkpoint of a network takes to write and to read."""
    run = made(27, LENGTH, width, 6, 4)
    training = state.started(ALONE, run, state.initialised(run))
    update(training, run.batch(run, 0), 0)
    place = folder / f"width{width}"
    began = time.perf_counter()
    saving.save(training, place, 1)
    wrote = time.perf_counter()
    saving.resume(training, place)
    read = time.perf_counter()
    size = sum(p.stat().st_size for p in place.rglob("*") if p.is_file()) / 1e6
    count = sum(p.numel() for p in training.network.parameters())
    row = {"parameters": count, "MB": size, "write, s": wrote - began, "read, s": read - wrote}
    return row | {"MB/s written": size / (wrote - began)}


# --- not measured ---------------------------------------------------------------------------------


def plan(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What the formula says of 8 to 1,024 devices."""
    counts = [(n, strategy) for n in (8, 64, 256, 1024) for strategy in ("ddp", "fsdp")]
    return [expected(options, n, strategy) for n, strategy in counts]


def expected(options: argparse.Namespace, devices: int, strategy: str) -> dict[str, Any]:
    """Seconds of a step and tokens per second, if communication is all hidden and if it is not, and memory."""
    size, whole = 4 * options.parameters, strategy == "ddp"
    compute = 6 * options.parameters * options.tokens / (devices * options.flops * options.share)
    link = (2 if whole else 3) * (devices - 1) / devices * size / options.link
    best, worst = max(compute, link), compute + link
    return {
        "devices": devices,
        "strategy": strategy,
        "compute, s": compute,
        "link, s": link,
        "step, s": f"{best:.3g} to {worst:.3g}",
        "tokens/s": f"{options.tokens / worst:.3g} to {options.tokens / best:.3g}",
        "GB a device": 20 * options.parameters / 1e9 / (1 if whole else devices),
    }


if __name__ == "__main__":
    main()
