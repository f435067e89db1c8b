"""Puts a trained model into the package: its EMA weights in half precision, and its configuration.

Run: python benchmarks/ship.py runs/molecules molecules. Measure the shipped copy afterwards: its hash is another one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import unmask
from unmask.base import checkpoints

LARGEST = 8_000_000
PLACE = Path(unmask.__file__).parent / "pretrained"


def main() -> None:
    """Writes pretrained/NAME and prints its size and hash."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    options = parser.parse_args()
    source = options.run / "model"
    halves = {k: v.half() for k, v in checkpoints.read_tensors(source / "weights.safetensors").items()}
    size = sum(v.numel() * v.element_size() for v in halves.values())
    if size > LARGEST or not all(torch.isfinite(v).all() for v in halves.values()):
        raise ValueError(f"{size} bytes; expected at most {LARGEST}, finite in half precision")
    for name, write in (
        ("weights.safetensors", lambda path: checkpoints.write_tensors(path, halves)),
        (
            "config.json",
            lambda path: checkpoints.write_json(path, checkpoints.read_json(source / "config.json")),
        ),
    ):
        write(PLACE / options.name / name)
    print(f"{size / 1e6:.2f} MB, hash {unmask.load(options.name).hash}")


if __name__ == "__main__":
    main()
