"""What do 16 steps of sampling cost, in time and memory, against 16 full network calls and nothing else?

Run: python benchmarks/sampling_speed.py [--repeats 5] [--write]. V = 50,257, L = 256, width 256, 4 layers, batch 4.

Time: every sampler in turn, each between two runs of the bare calls, over and over. Memory: one fresh process for
each sampler, which resets the kernel's high-water mark of resident memory before the work (Linux only).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import record
import torch
from overhead import BATCH, STEPS, bare, made, seconds
from torch import Tensor

import unmask
from unmask.orders import presets

VOCAB, LENGTH, WIDTH, DEPTH = 50_257, 256, 256, 4
PLAN = unmask.plans.uniform(LENGTH, STEPS)
SIGHTED, BLIND, MEMORY = 1.10, 0.45, 1.15
"""Targets: time of a sighted and of a blind order, memory of any, over that of the bare calls."""

ORDERS: dict[str, unmask.Selector] = {
    "confidence": presets.confidence(PLAN),
    "margin": presets.margin(PLAN),
    "entropy": presets.entropy(PLAN),
    "moment": presets.moment(PLAN),
    "random": presets.random(PLAN),
    "left to right": presets.left_to_right(PLAN),
    "bisection": presets.bisection(PLAN),
    "ancestral": presets.ancestral(STEPS),
}
NAIVE, BARE = "naive", "bare calls"


@dataclass(frozen=True)
class Case:
    """A sampler, the network that it samples with, and what its time has to stay below."""

    order: str
    work: Callable[[], None]
    network: Callable[..., Tensor]
    target: float | None = None
    network_name: str = "float32"


def main() -> None:
    """Prints, and with --write records, time and memory of each sampler."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="leave out compiled and bfloat16 networks")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.peak:
        print(peak(options.peak))
        return
    memory = {name: peak_apart(name) for name in (BARE, *ORDERS, NAIVE)}
    rows = timed(cases(options.plain), options.repeats)
    for row in rows:
        if row["network"] == "float32":
            row |= {"peak MB": memory[row["order"]], "memory ratio": memory[row["order"]] / memory[BARE]}
    print("\n".join(record.table(rows)))
    if options.write:
        print(record.write("sampling_speed", rows, NOTES.format(bare=memory[BARE]), peaks=memory))


NOTES = f"""
V = {VOCAB}, L = {LENGTH}, width {WIDTH}, {DEPTH} layers, batch {BATCH}, all masked, {STEPS} steps (uniform plan; ancestral
has counts of its own). Time ratio: a run of the sampler over the mean of the runs of {STEPS} calls of `network(tokens)`,
the head at every position, right before and right after it; median of the repeats, with the smallest and largest.
Compiled and bfloat16 networks are compared with bare calls of themselves. Sighted orders read the masked rows only,
half of all on average: that is how they can cost less than the bare calls, which look at every row.

Memory: a fresh process for each sampler builds the network, makes one call at one row, resets the high-water mark of
resident memory (/proc/self/clear_refs) and then works; peak: that mark (VmHWM) minus what was resident at the reset.
One full call takes {{bare:.0f}} MB, of which the logits are {BATCH * LENGTH * VOCAB * 4 / 1e6:.0f} MB.

Naive: float64 Gumbel noise for the whole vocabulary at every position, the arg-max, then the most probable draws by
top-k in a loop over rows, as in reference code that is widely copied. It draws first, so it follows another law too.
"""


def cases(plain: bool) -> list[Case]:
    """Every sampler with its network."""
    network = made(VOCAB, LENGTH, WIDTH, DEPTH)
    found = [Case(name, sampler(network, name), network, target(name)) for name in (*ORDERS, NAIVE)]
    if not plain:
        for kind, other in (("compiled", compiled(network)), ("bfloat16", in_bfloat16(network))):
            found += [
                Case(name, sampler(other, name), other, target(name), kind)
                for name in ("confidence", "random")
            ]
    return found


def target(order: str) -> float | None:
    """The time ratio that an order has to keep, if it is one of ours."""
    return (BLIND if ORDERS[order].blind else SIGHTED) if order in ORDERS else None


def sampler(network: Callable[..., Tensor], order: str) -> Callable[[], None]:
    """What is measured for an order: one batch from the all-masked start."""
    masked = torch.full((BATCH, LENGTH), VOCAB)
    if order == BARE:
        return lambda: bare(network, masked, 1)
    if order == NAIVE:
        return lambda: naive(network, masked, torch.Generator().manual_seed(1))
    denoiser = unmask.from_logits(network, VOCAB, VOCAB)

    def work() -> None:
        unmask.sample(denoiser, masked, ORDERS[order], generator=torch.Generator().manual_seed(1))

    return work


@torch.inference_mode()
def naive(network: Callable[..., Tensor], tokens: Tensor, generator: torch.Generator) -> Tensor:
    """A draw-first sampler written without care for cost."""
    for count in PLAN:
        logits = network(tokens).double()
        u = torch.rand(logits.shape, dtype=torch.float64, generator=generator)
        drawn = (logits - (-u.log()).log()).argmax(-1)
        kept = logits.softmax(-1).gather(-1, drawn[..., None])[..., 0]
        kept = kept.masked_fill(tokens != VOCAB, -torch.inf)
        tokens = tokens.clone()
        for row in range(len(tokens)):
            best = kept[row].topk(count).indices
            tokens[row, best] = drawn[row, best]
    return tokens


def compiled(network: torch.nn.Module) -> Callable[..., Tensor]:
    """The network through torch.compile, for any number of rows."""
    inner = torch.compile(network, dynamic=True)

    def evaluate(tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        return inner(tokens, rows)  # type: ignore[no-any-return]

    return evaluate


def in_bfloat16(network: torch.nn.Module) -> Callable[..., Tensor]:
    """The network under autocast to bfloat16."""

    def evaluate(tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return network(tokens, rows)  # type: ignore[no-any-return]

    return evaluate


def timed(found: list[Case], repeats: int) -> list[dict[str, Any]]:
    """One row per case, from ``repeats`` rounds over all of them after one that is thrown away."""
    masked = torch.full((BATCH, LENGTH), VOCAB)
    runs: list[list[tuple[float, float]]] = [[] for _ in found]
    for i in range(repeats + 1):
        before, last = 0.0, None
        for case, kept in zip(found, runs):
            if case.network is not last:
                before, last = seconds(lambda: bare(case.network, masked)), case.network  # noqa: B023
            ours, after = seconds(case.work), seconds(lambda: bare(case.network, masked))  # noqa: B023
            kept.append((ours, (before + after) / 2))
            before = after
            print(i, case.network_name, case.order, f"{ours:.2f} s, {kept[-1][1]:.2f} s", flush=True)
    return [summary(case, kept[1:]) for case, kept in zip(found, runs)]


def summary(case: Case, runs: list[tuple[float, float]]) -> dict[str, Any]:
    """Medians of seconds and ratio, and the spread of the ratio."""
    ratios = [ours / calls for ours, calls in runs]
    ratio = statistics.median(ratios)
    return {
        "order": case.order,
        "network": case.network_name,
        "sample s": statistics.median(ours for ours, _ in runs),
        f"{STEPS} calls s": statistics.median(calls for _, calls in runs),
        "ratio": ratio,
        "min": min(ratios),
        "max": max(ratios),
        "target": case.target or "",
        "kept": "" if case.target is None else ("yes" if ratio <= case.target else "NO"),
    }


def peak_apart(order: str) -> float:
    """`peak` in a fresh process."""
    command = [sys.executable, __file__, "--peak", order]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak(order: str) -> float:
    """Megabytes of resident memory that the work of an order takes beyond the network and the libraries."""
    network = made(VOCAB, LENGTH, WIDTH, DEPTH)
    with torch.inference_mode():
        network(torch.full((1, LENGTH), VOCAB), torch.zeros(1, 1, dtype=torch.int64))
    work = sampler(network, order)
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark becomes what is resident now
    before = resident("VmRSS")
    work()
    return (resident("VmHWM") - before) / 1e6


def resident(name: str) -> int:
    """Bytes of a field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
