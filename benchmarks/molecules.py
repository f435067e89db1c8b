"""How good is a model of molecules? Bits per character, validity, and quality against network calls.

Run: python benchmarks/molecules.py [--model molecules] [--num 2000] [--parts bits one calls plans] [--write].
Needs ``unmask data fetch molecules`` and ``pip install 'unmask[chem]'``.
"""

from __future__ import annotations

import argparse
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import record
import samplers
import torch
from torch import Tensor

import unmask
from unmask import presets, quality
from unmask.commands.output import percent, share
from unmask.data import tokens as folders
from unmask.data.cache import cache as cache_folder

TRAINED_ON = 200_000
"""Training molecules that novelty is checked against; all 1.57 million take an hour to bring into canonical form."""

NOTES = """
Model weights {hash}, {steps} training steps. Test molecules of MOSES, drawn at random with seed {seed}, disjoint from
training. Bits per character: nats of the whole sequence with its padding, over ln 2 and the characters of the SMILES;
bound over random orders with {samples} mask sets each. Valid: parsed by RDKit, Wilson 95 %. Unique: share of distinct
canonical SMILES among the valid. Novel: share of the distinct ones that are not among {trained} training molecules.
FCD: Fréchet ChemNet distance of the valid samples to {reference} test molecules (biased upwards for few samples; two
disjoint halves of the test part give {floor}).
"""


def main() -> None:
    """Prints, and with --write records, what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="molecules")
    parser.add_argument("--num", type=int, default=2000, help="samples at one position per call")
    parser.add_argument("--fewer", type=int, default=512, help="samples of each sampler in the comparison")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--calls", type=int, nargs="*", default=[6, 12, 24])
    parser.add_argument("--parts", nargs="*", default=["bits", "one", "calls", "plans"])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    model = unmask.load(options.model)
    reference = test(model, options.num, "test")
    found: dict[str, list[dict[str, Any]]] = {}
    if "bits" in options.parts:
        found["bits"] = bits(model, reference, options.samples)
    if "one" in options.parts:
        found["one position per call"] = one_by_one(model, options.num)
    fitted, _ = samplers.measured(model.denoiser, test(model, 4096, "valid"), rounds=2)
    if "plans" in options.parts:
        unit = len(reference) / characters(model, reference) / math.log(2)
        found["plans, bits per character"] = samplers.planned_against_families(
            model.denoiser, fitted, reference[:512], options.calls, unit
        )
    if "calls" in options.parts:
        found["samplers"] = by_calls(model, fitted, options)
    notes = NOTES.format(
        hash=model.hash,
        steps=model.config.get("trained_steps"),
        seed=samplers.SEED,
        samples=options.samples,
        trained=TRAINED_ON,
        reference=options.num,
        floor=f"{floor(options.num):.2f}",
    )
    for name, rows in found.items():
        print(f"\n{name}\n" + "\n".join(record.table(rows)))
    if options.write:
        write(notes, found)


def write(notes: str, found: dict[str, list[dict[str, Any]]]) -> None:
    """One record with a table for each part, and the plot."""
    path = record.write_parts("molecules", found, notes)
    if "samplers" in found:
        draw(found["samplers"], path.with_suffix(".png"))
    print(path)


def test(model: unmask.Model, count: int, part: str) -> Tensor:
    """Molecules of a part, drawn at random, as tokens."""
    data = folders.load(cache_folder() / "molecules" / part)
    places = np.sort(np.random.default_rng(samplers.SEED).choice(data.items, count, replace=False))
    return torch.as_tensor(data.padded(places, model.length, model.denoiser.vocab_size - 1))


def characters(model: unmask.Model, tokens: Tensor) -> int:
    """Characters of the SMILES, without padding."""
    return int((tokens < model.denoiser.vocab_size - 1).sum())


def bits(model: unmask.Model, tokens: Tensor, samples: int) -> list[dict[str, Any]]:
    """Bits per character: the bound, and the exact value along one random order each."""
    generator = torch.Generator().manual_seed(samplers.SEED)
    bound = torch.cat(
        [
            unmask.nelbo(model.denoiser, t, generator=generator, samples=samples).value
            for t in tokens.split(64)
        ]
    )
    exact = samplers.nats(model.denoiser, tokens[:256], [1] * model.length)
    return [
        bits_row("bound", bound, tokens, model),
        bits_row("exact, one order each", exact, tokens[:256], model),
    ]


def bits_row(name: str, nats: Tensor, tokens: Tensor, model: unmask.Model) -> dict[str, Any]:
    """Mean with its standard error over molecules, nats and bits per character."""
    unit = len(tokens) / characters(model, tokens) / math.log(2)
    mean, error = float(nats.mean()), float(nats.std() / math.sqrt(len(nats)))
    return {
        "estimator": name,
        "molecules": len(tokens),
        "nats each": mean,
        "bits per character": mean * unit,
        "+- 95 %": 1.96 * error * unit,
    }


def one_by_one(model: unmask.Model, count: int) -> list[dict[str, Any]]:
    """Quality of samples at one position per call."""
    ways = [samplers.chosen("random", model.denoiser, presets.random(1, samplers.SEED), model.length)]
    return [judged(model, way, count, count) for way in ways]


def by_calls(
    model: unmask.Model, fitted: unmask.Profile, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Quality of every sampler at every number of calls."""
    rows = []
    for calls in options.calls:
        for way in samplers.ways(model.denoiser, fitted, calls):
            rows.append(judged(model, way, options.fewer, options.num))
            print(rows[-1], flush=True)
    return rows


def judged(model: unmask.Model, way: samplers.Way, count: int, reference: int) -> dict[str, Any]:
    """One row: validity, uniqueness, novelty, distance."""
    tokens, calls, seconds = samplers.draws(way, model.all_masked(count))
    found = quality.molecules(model.decode(tokens), known())
    distance = (
        quality.frechet(quality.chemnet(found.canonical), features(reference))
        if found.valid > 20
        else math.nan
    )
    return {
        "sampler": way.name,
        "calls asked": way.calls,
        "nfe": calls,
        "samples": count,
        "valid": percent(share(found.valid, count, "samples", "RDKit")),
        "unique": found.unique / max(found.valid, 1),
        "novel": found.novel / max(found.unique, 1),
        "FCD": distance,
        "seconds": seconds,
    }


@cache
def features(count: int) -> np.ndarray[Any, Any]:
    """ChemNet features of test molecules."""
    return quality.chemnet(smiles("test", count))


def floor(count: int) -> float:
    """The distance between two halves of the test molecules."""
    own = features(count)
    return quality.frechet(own[::2], own[1::2])


@cache
def smiles(part: str, count: int) -> tuple[str, ...]:
    """Canonical SMILES of the first ``count`` items of a part (they are shuffled)."""
    data = folders.load(cache_folder() / "molecules" / part)
    texts = (data.vocabulary.decode(data.item(i)) for i in range(min(count, data.items)))  # type: ignore[union-attr]
    return tuple(form for text in texts if (form := quality.canonical(text)) is not None)


@cache
def known() -> frozenset[str]:
    """Canonical SMILES of training molecules."""
    return frozenset(smiles("train", TRAINED_ON))


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Validity and distance against calls."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for name in dict.fromkeys(row["sampler"] for row in rows):
        mine = [row for row in rows if row["sampler"] == name]
        calls = [row["nfe"] for row in mine]
        axes[0].plot(calls, [float(row["valid"].split()[0]) for row in mine], "o-", ms=4, label=name)
        axes[1].plot(calls, [row["FCD"] for row in mine], "o-", ms=4)
    axes[0].set(xlabel="network calls (full-forward equivalents)", ylabel="valid, %", xscale="log")
    axes[1].set(xlabel="network calls", ylabel="Fréchet ChemNet distance", xscale="log", yscale="log")
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
