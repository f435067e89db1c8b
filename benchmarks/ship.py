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
    made = halves(source)
    for name, write in (
        ("weights.safetensors", lambda path: checkpoints.write_tensors(path, made)),
        (
            "config.json",
            lambda path: checkpoints.write_json(path, checkpoints.read_json(source / "config.json")),
        ),
    ):
        write(PLACE / options.name / name)
    print(f"{bytes_of(made) / 1e6:.2f} MB, hash {unmask.load(options.name).hash}")


def halves(source: Path) -> dict[str, torch.Tensor]:
    """The weights of a model's folder in half precision; ValueError where they are too large to ship, or not finite."""
    made = {k: v.half() for k, v in checkpoints.read_tensors(source / "weights.safetensors").items()}
    if bytes_of(made) > LARGEST or not all(torch.isfinite(v).all() for v in made.values()):
        raise ValueError(f"{bytes_of(made)} bytes; expected at most {LARGEST}, finite in half precision")
    return made


def bytes_of(tensors: dict[str, torch.Tensor]) -> int:
    """What tensors take."""
    return sum(v.numel() * v.element_size() for v in tensors.values())


if __name__ == "__main__":
    main()
