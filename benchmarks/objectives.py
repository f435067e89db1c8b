"""Which objective learns best? Bits per character of text, or per dimension of digits, at equal compute, from scratch.

Run: python benchmarks/objectives.py text --seeds 0 1 2 --all-seeds [--steps 600] [--write], or `digits`. Trains in
runs/objectives, where a stopped comparison goes on. Needs ``unmask data fetch text`` (or mnist). Networks of text
have the same number of weights within .1 %: those that are told no time have a wider inner layer instead.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import record

import unmask
from unmask import recipes
from unmask.command_line import sequences
from unmask.recipes.run import override
from unmask.training.loop import train

RUNS = Path("runs/objectives")
TEXT = {
    "network.width": "128",
    "network.depth": "4",
    "network.heads": "4",
    "network.hidden": "224",
    "network.length": "64",
    "optimiser.learning_rate": "2e-3",
}
UNTIMED = TEXT | {"network.hidden": "376"}
"""As many weights as `TEXT` has with the layers that read the time."""

IMAGES = {"network.features": "64", "network.blocks": "2"}
PIXELS = {"network.width": "64"}
MACHINE = {"machine.compile": "true", "machine.bfloat16": "true", "machine.threads": "1"}
SLOWER = {"digits_autoregressive": 0.6}
"""Share of the steps that takes about as long as those of the others: pixel by pixel, a step is dearer."""

DEARER = "Pixel by pixel a step is dearer, so there are fewer and training takes about as long (columns steps and batch)"

PAIR = ("text_md4", "text_genmd4")
"""The two that are compared closely, with all seeds."""

CASES: dict[str, tuple[dict[str, dict[str, str]], str]] = {
    "text": (
        dict.fromkeys(("text", "text_d3pm", "text_autoregressive"), UNTIMED)
        | dict.fromkeys(("text_md4", "text_genmd4"), TEXT),
        "text/test",
    ),
    "digits": (
        dict.fromkeys(("digits", "digits_md4", "digits_upscale4", "digits_upscale16"), IMAGES)
        | {"digits_autoregressive": PIXELS},
        "mnist/test",
    ),
}
"""The recipes that are compared, each with its changes (smaller, to be trained in minutes), and the data."""

NOTES = """
Trained from scratch: recipes of these names, same optimiser and data, with {changes}. {equal}.
GenMD4: each step masks half as many stretches twice, so masked samples and network
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
    parser.add_argument("--all-seeds", action="store_true", help="of every recipe, not only MD4 and GenMD4")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--num", type=int, default=512)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    cases, data = CASES[options.data]
    rows = []
    for name in options.recipes or cases:
        seeds = options.seeds if name in PAIR or options.all_seeds else options.seeds[:1]
        found = [result(name, seed, cases[name], data, options) for seed in seeds]
        rows += found
        if len(found) > 1:
            values = [row["bits"] for row in found]
            took = round(np.mean([row["s per step"] for row in found]), 2)
            mean = {"seed": "mean", "bits": np.mean(values), "+-": np.std(values, ddof=1), "s per step": took}
            rows.append(found[0] | mean)
        print("\n".join(record.table(rows)), flush=True)
    if options.write:
        unit = "dimension" if options.data == "digits" else "character"
        equal = (
            "Steps and batch are equal, numbers of weights within .1 % (columns)"
            if options.data == "text"
            else DEARER
        )
        notes = NOTES.format(unit=unit, changes=changed(cases), equal=equal, **vars(options))
        print(record.write(f"objectives_{options.data}", rows, notes))


def changed(cases: dict[str, dict[str, str]]) -> str:
    """What was changed of each recipe, those that share it together."""
    groups: dict[str, list[str]] = {}
    for name, changes in cases.items():
        groups.setdefault(", ".join(f"{k} {v}" for k, v in changes.items()), []).append(name)
    return "; ".join(f"{how} ({', '.join(names)})" for how, names in groups.items())


def result(
    name: str, seed: int, changes: dict[str, str], data: str, options: argparse.Namespace
) -> dict[str, Any]:
    """One training and its bits per symbol of the data."""
    steps = round(options.steps * SLOWER.get(name, 1))
    own = {"optimiser.steps": str(steps), "seed": str(seed)} | MACHINE
    folder = RUNS / options.data / f"{name}-{seed}-{options.steps}"
    if not (folder / "model").exists():
        train(override(recipes.all_recipes()[name](), changes | own), folder)
    model = unmask.load(folder)
    posed = sequences.read(model, Path(data), options.num, seed=0)
    measure, estimator = sequences.estimator(model, options.samples, seed=0)
    nats = sequences.nats_of(posed, measure)
    unit = len(nats) / (math.log(2) * posed.characters)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {
        "recipe": name,
        "seed": seed,
        "steps": steps,
        "batch": model.config["batch_size"],
        "parameters": sum(p.numel() for p in model.denoiser.network.parameters()),
        "bits": float(nats.mean()) * unit,
        "+-": float(nats.std()) / math.sqrt(len(nats)) * unit,
        "estimator": estimator,
        "s per step": round(1 / log[-1]["per_second"], 2),
    }


if __name__ == "__main__":
    main()
