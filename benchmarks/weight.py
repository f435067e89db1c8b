"""What does the core weigh on disk, and how long does `import unmask` take beside torch alone?

Run in an environment with the built wheel and nothing but its core dependencies:
python benchmarks/weight.py [--repeats 9] [--write]. Bytes are those of the files that each package lists, with what pip
compiles to bytecode beside them; torch, numpy and scipy with what they need are left out, and the shipped models.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import record

APART = ("torch", "numpy", "scipy")
NOTES = """
Core: what `pip install unmask` brings beyond torch, numpy and scipy and what these need; at most 40 MB are wanted, the
shipped models not counted. Import: median seconds of processes of their own, in turn; at most 1.3 times torch is wanted.
`import unmask` alone does not import torch; with `unmask.sample` and `unmask.load` looked up, it has to.
"""


def needed(name: str, found: dict[str, metadata.Distribution]) -> None:
    """Adds a package and all that it needs, extras left out."""
    key = name.lower().replace("_", "-")
    if key in found:
        return
    try:
        found[key] = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return
    for line in found[key].requires or ():
        if "extra ==" not in line:
            needed("".join(c if c.isalnum() or c in "-_." else " " for c in line).split()[0], found)


def megabytes(package: metadata.Distribution) -> dict[str, float]:
    """Files as they are packed, bytecode that pip compiles, and shipped models, MB."""
    sums = {"files": 0.0, "bytecode": 0.0, "models": 0.0}
    for file in package.files or ():
        place = Path(str(file.locate()))
        if place.is_file():
            kind = (
                "models" if "pretrained" in file.parts else "bytecode" if file.suffix == ".pyc" else "files"
            )
            sums[kind] += place.stat().st_size / 1e6
    return sums


def weights() -> list[dict[str, Any]]:
    """A row for each package of the core, and their sum."""
    core: dict[str, metadata.Distribution] = {}
    other: dict[str, metadata.Distribution] = {}
    needed("unmask", core)
    for name in APART:
        needed(name, other)
    rows: list[dict[str, Any]] = [
        {"package": name, "version": core[name].version, **megabytes(core[name])}
        for name in sorted(set(core) - set(other))
    ]
    total = {k: sum(row[k] for row in rows) for k in ("files", "bytecode", "models")}
    return [*rows, {"package": "all", "version": "", **total}]


def seconds(repeats: int) -> list[dict[str, Any]]:
    """Median seconds of each import, and what it is of that of torch."""
    taken: dict[str, list[float]] = {"torch": [], "unmask": [], "unmask; unmask.sample, unmask.load": []}
    for _ in range(repeats + 1):
        for name, times in taken.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            times.append(time.perf_counter() - start)
    found = {name: statistics.median(times[1:]) for name, times in taken.items()}  # the first fills caches
    return [{"import": name, "s": value, "of torch": value / found["torch"]} for name, value in found.items()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    parts = {"MB": weights(), "seconds": seconds(options.repeats)}
    for rows in parts.values():
        print("\n".join(record.table(rows)), end="\n\n")
    if options.write:
        print(record.write_parts("weight", parts, NOTES))
