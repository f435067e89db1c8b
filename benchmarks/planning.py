"""How long does the exact plan take, and how does that grow with the length? One core.

    python benchmarks/planning.py [--json planning.json] [--lengths 3072,12288] [--repeats 5]

Four tasks: 64 steps and 1 nat on a smooth falling profile, every budget up to 64, and 16 steps on a rough
profile. The baseline is the published dynamic programme over all budgets (Hoogeboom et al., 2110.02037), with
O(N^3) time. Times are the least of several rounds: run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from unmask import plans
from unmask.profiles import Profile

LENGTHS = (192, 384, 768, 1536, 3072, 6144, 12288, 24576, 49152, 65536, 131072)
TARGETS = {3072: 0.5, 12288: 2.0, 131072: 15.0}
BASELINE_LENGTHS = (96, 192, 384, 768)
ROUGH_UP_TO = 6144
BUDGETS_UP_TO = 24576
MEMORY_UP_TO = 24576  # tracing slows the search down tenfold


def smooth_profile(length: int) -> Profile:
    """A profile like that of images: a steep start and a slow tail."""
    x = np.arange(length) / length
    return Profile(1.2 + 2.2 * np.exp(-25 * x) + np.exp(-3 * x))


def rough_profile(length: int) -> Profile:
    noise = 0.1 * np.random.default_rng(0).standard_normal(length)
    return Profile(smooth_profile(length).entropies + noise, exact=False)


def published_programme(entropies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least cost for every number of steps, and the arg-mins: O(N^3) time, O(N^2) memory.

    Written from its description: L[i, j] is the cost of unmasking i..j-1 at once, and C[k, j] is the minimum
    over i of C[k-1, i] + L[i, j]. The minima run in numpy, so its constant is small.
    """
    n = len(entropies)
    ends = np.arange(n + 1)
    block = np.where(ends > ends[:-1, None], (ends - ends[:-1, None]) * entropies[:, None], np.inf)
    costs, parents = np.full((n + 1, n + 1), np.inf), np.zeros((n + 1, n + 1), dtype=np.int64)
    costs[0, 0] = 0
    for k in range(1, n + 1):
        through = costs[k - 1, :-1, None] + block
        parents[k] = through.argmin(0)
        costs[k] = through.min(0)
    return costs[:, -1] - entropies.sum(), parents


def seconds(task: Callable[[], Any]) -> float:
    """Processor time of one run."""
    start = time.process_time()
    task()
    return time.process_time() - start


def least(rounds: list[list[dict[str, float | int]]]) -> list[dict[str, float | int]]:
    """The least of every figure over rounds through all lengths: other work on the machine only ever adds."""
    return [{name: min(row[name] for row in rows) for name in rows[0]} for rows in zip(*rounds)]


def peak_bytes(task: Callable[[], Any]) -> int:
    tracemalloc.start()
    task()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def measure(length: int) -> dict[str, float | int]:
    falling, rough = smooth_profile(length), rough_profile(length)
    row: dict[str, float | int] = {"length": length}
    row["steps"] = seconds(lambda: plans.optimal(falling, steps=min(64, length)))
    row["max_kl"] = seconds(lambda: plans.optimal(falling, max_kl=1.0))
    if length <= BUDGETS_UP_TO:
        row["budgets"] = seconds(lambda: plans.all_budgets(falling, 64))
    if length <= ROUGH_UP_TO:
        row["rough"] = seconds(lambda: plans.optimal(rough, steps=16))
    return row


def with_memory(rows: list[dict[str, float | int]]) -> list[dict[str, float | int]]:
    for row in rows:
        length = int(row["length"])
        if length <= MEMORY_UP_TO:
            falling = smooth_profile(length)
            peak = peak_bytes(lambda falling=falling: plans.optimal(falling, steps=64))
            row["peak_bytes_per_position"] = peak / length
    return rows


def baseline(length: int) -> dict[str, float | int]:
    profile = smooth_profile(length)
    published = published_programme(profile.entropies)[0]
    ours = plans.all_budgets(profile, length)
    return {
        "length": length,
        "published": seconds(lambda: published_programme(profile.entropies)),
        "all_budgets": seconds(lambda: plans.all_budgets(profile, length)),
        "steps": seconds(lambda: plans.optimal(profile, steps=16)),
        "largest_difference_nats": float(np.abs(published[1:] - ours).max()),
    }


def with_ratios(rows: list[dict[str, float | int]]) -> list[dict[str, float | int]]:
    """Time per doubling of the length, from the row before: (t / t')^(1 / log2(N / N'))."""
    for before, row in pairwise(rows):
        doublings = np.log2(row["length"] / before["length"])
        for task in ("steps", "max_kl"):
            row[f"{task}_per_doubling"] = float((row[task] / before[task]) ** (1 / doublings))
    return rows


def growth(rows: list[dict[str, float | int]], task: str) -> float:
    """Time per doubling from length 3,072 on, by least squares of the logarithms."""
    long = [row for row in rows if row["length"] >= 3072]
    slope = np.polyfit([np.log2(row["length"]) for row in long], [np.log2(row[task]) for row in long], 1)[0]
    return float(2**slope)


def conditions() -> dict[str, str | int]:
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.machine(),
        "processor": next(
            (line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")),
            platform.processor(),
        ),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "time": "processor seconds",
        "peak_resident_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def show(title: str, rows: list[dict[str, float | int]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    print(f"\n{title}\n" + "".join(f"{name:>26}" for name in names))
    for row in rows:
        print("".join(f"{row[name]:>26.4g}" if name in row else f"{'-':>26}" for name in names))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the table to this file as well")
    parser.add_argument("--lengths", type=lambda text: tuple(map(int, text.split(","))), default=LENGTHS)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    rounds = [[measure(length) for length in arguments.lengths] for _ in range(arguments.repeats)]
    rows = with_memory(with_ratios(least(rounds)))
    compared = [baseline(length) for length in BASELINE_LENGTHS]
    show("exact plans, seconds on one core", rows)
    show("against the published programme (all budgets), seconds", compared)
    fits = {task: growth(rows, task) for task in ("steps", "max_kl")}
    print("\ntime per doubling from N = 3,072 on: " + ", ".join(f"{k} {v:.2f}" for k, v in fits.items()))
    missed = [
        row for row in rows if max(row["steps"], row["max_kl"]) > TARGETS.get(int(row["length"]), np.inf)
    ]
    print(
        f"\ntargets {TARGETS} s: {'missed at ' + str([row['length'] for row in missed]) if missed else 'met'}"
    )
    if arguments.json:
        record = {"conditions": conditions(), "plans": rows, "per_doubling": fits, "baseline": compared}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
