"""Which objective learns best? Bits per character of text, or per dimension of digits, at equal compute, from scratch.

Run: python benchmarks/objectives.py text [--seeds 0 1 2] [--steps 600] [--write], or `digits`. Trains in
runs/objectives, where a stopped comparison goes on. Needs ``unmask data fetch text`` (or mnist).
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch

import unmask
from unmask import recipes
from unmask.commands import sequences
from unmask.recipes.run import override
from unmask.training import train

RUNS = Path("runs/objectives")
TEXT = {
    "network.width": "128",
    "network.depth": "4",
    "network.heads": "4",
    "network.hidden": "224",
    "network.length": "64",
    "optimiser.learning_rate": "2e-3",
    "machine.compile": "false",
}
CASES: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "text": (("text", "text_md4", "text_genmd4", "text_d3pm", "text_autoregressive"), TEXT, "text/test"),
    "digits": (
        ("digits", "digits_md4", "digits_upscale4", "digits_upscale16", "digits_autoregressive"),
        {},
        "mnist/test",
    ),
}

NOTES = """
Trained from scratch, {steps} steps each, seeds {seeds}, same network size, batch, optimiser and data (recipes
of these names {changes}). GenMD4: each step masks half as many stretches twice, so masked samples and network
work per step are equal. Bits per {unit} of {num} held-out sequences: bound over random orders ({samples} mask
sets each; MD4's, GenMD4's and Upscale's own bounds with their end terms), exact for the autoregressive model.
+- is the standard error over sequences; the line `mean` of several seeds has the standard deviation over seeds.
Seconds of training per step are those of a machine that did other things as well.
"""


def main() -> None:
    """Trains what is not trained yet, prints, and with --write records, the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data", choices=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--recipes", nargs="*")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--num", type=int, default=512)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    names, changes, data = CASES[options.data]
    rows = []
    for name in options.recipes or names:
        found = [result(name, seed, changes, data, options) for seed in options.seeds]
        rows += found
        if len(found) > 1:
            values = [row["bits"] for row in found]
            rows.append(found[0] | {"seed": "mean", "bits": np.mean(values), "+-": np.std(values, ddof=1)})
        print("\n".join(record.table(rows)), flush=True)
    if options.write:
        facts = {"changes": f"with {changes}" if changes else "as they are"}
        unit = "dimension" if options.data == "digits" else "character"
        notes = NOTES.format(unit=unit, **facts, **vars(options))
        print(record.write(f"objectives_{options.data}", rows, notes))


def result(
    name: str, seed: int, changes: dict[str, str], data: str, options: argparse.Namespace
) -> dict[str, Any]:
    """One training and its bits per symbol of the data."""
    own = {"optimiser.steps": str(options.steps), "seed": str(seed)}
    folder = RUNS / f"{name}-{seed}-{options.steps}"
    if not (folder / "model").exists():
        train(override(recipes.all_recipes()[name](), changes | own), folder)
    model = unmask.load(folder)
    posed = sequences.read(model, Path(data), options.num, seed=0)
    measure, estimator = sequences.estimator(model, options.samples, torch.Generator().manual_seed(0))
    nats = torch.cat([measure(rows) for rows in torch.split(posed.tokens, 32)])
    unit = len(nats) / (math.log(2) * posed.characters)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {
        "recipe": name,
        "seed": seed,
        "parameters": sum(p.numel() for p in model.denoiser.network.parameters()),
        "bits": float(nats.mean()) * unit,
        "+-": float(nats.std()) / math.sqrt(len(nats)) * unit,
        "estimator": estimator,
        "s per step": round(1 / log[-1]["per_second"], 2),
    }


if __name__ == "__main__":
    main()
