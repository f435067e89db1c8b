"""Which objective learns best? Bits per character of text, or per dimension of digits, at equal compute, from scratch.

Run: python benchmarks/objectives.py text [--seeds 0 1 2] [--steps 600] [--write], or `digits`. Trains in
runs/objectives, where a stopped comparison goes on. Needs ``unmask data fetch text`` (or mnist).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from torch import Tensor

import unmask
from unmask import genmd4, presets, recipes, upscale
from unmask.data import tokens as folders
from unmask.data.cache import cache
from unmask.models import Model
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
    levels = held_out(model, name, data, options.num)
    nats = measured(model, name, levels, options.samples)
    unit = 1 / (math.log(2) * levels.shape[1])
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {
        "recipe": name,
        "seed": seed,
        "parameters": sum(p.numel() for p in model.denoiser.network.parameters()),
        "bits": float(nats.mean()) * unit,
        "+-": float(nats.std()) / math.sqrt(len(nats)) * unit,
        "s per step": round(1 / log[-1]["per_second"], 2),
    }


def held_out(model: Model, name: str, data: str, num: int) -> Tensor:
    """Held-out sequences of symbols or levels, before any upscaling."""
    opened = folders.load(cache() / data)
    length = model.length // (
        2 if name.endswith("16") else 4 if name.endswith("4") and "upscale" in name else 1
    )
    total = opened.items or opened.symbols // length
    places = np.sort(np.random.default_rng(0).choice(total, num, replace=False))
    rows = opened.padded(places, length, 0) if opened.items else opened.windows(places * length, length)
    return torch.as_tensor(rows)


def measured(model: Model, name: str, tokens: Tensor, samples: int) -> Tensor:
    """Nats of each sequence by the estimator that belongs to the objective, float64 [n]."""
    generator = torch.Generator().manual_seed(0)
    return torch.cat([estimator(model, name, samples, generator)(part) for part in torch.split(tokens, 32)])


def estimator(
    model: Model, name: str, samples: int, generator: torch.Generator
) -> Callable[[Tensor], Tensor]:
    """Nats [B] of tokens [B, L]."""
    denoiser, network = model.denoiser, model.denoiser.network
    if name.endswith("autoregressive"):
        return lambda rows: next_symbol(network, rows)
    if name.endswith("genmd4"):
        powers = network.powers.detach()
        return lambda rows: genmd4.nelbo(denoiser, rows, powers, generator=generator, samples=samples).value
    if "upscale" in name:
        base, levels = network.base, network.levels
        return lambda rows: (
            upscale.nelbo(
                denoiser,
                upscale.encode_digits(rows, base, levels),
                upscale.stages(base, levels),
                generator=generator,
                samples=samples,
            ).value
        )
    if network.config.get("timed"):
        ones = torch.ones(denoiser.vocab_size)
        return lambda rows: genmd4.nelbo(denoiser, rows, ones, generator=generator, samples=samples).value
    return lambda rows: unmask.nelbo(denoiser, rows, generator=generator, samples=samples).value


def next_symbol(network: Any, rows: Tensor) -> Tensor:
    """-log p of sequences under a causal network, in one pass, float64 [B]; equal to the likelihood from left to right."""
    with torch.inference_mode():
        log_probs = network(rows).double().log_softmax(-1)
    return -log_probs.gather(-1, rows[..., None])[..., 0].sum(1)


def check(model: Model, rows: Tensor) -> bool:
    """Whether `next_symbol` is the likelihood along left-to-right order."""
    exact = unmask.log_likelihood(model.denoiser, rows, presets.left_to_right(1))
    return bool(torch.allclose(-exact, next_symbol(model.denoiser.network, rows), rtol=1e-4))


if __name__ == "__main__":
    main()
