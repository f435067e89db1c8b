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
from unmask.command_line import sequences
from unmask.command_line.output import percent, share
from unmask.command_line.sequences import Sequences
from unmask.data import tokens as folders
from unmask.data.sources.cache import cache as cache_folder
from unmask.evaluation import judges as quality
from unmask.orders import presets

TEMPERATURE = 0.6
"""Of the samples that validity is reported for; chosen on 256 samples each at 1, 0.9, 0.7 and 0.5."""

TRAINED_ON = 200_000
"""Training molecules that novelty is checked against; all 1.57 million take an hour to bring into canonical form."""

NOTES = """
Model weights {hash}, {steps} training steps. Test molecules of MOSES, drawn at random with seed {seed}, disjoint from
training. Bits per character: nats of the SMILES and of its length, over ln 2 and its characters; bound over random
orders with {samples} mask sets each. Samples have the lengths of training molecules. Valid: parsed by RDKit, Wilson
95 %. Unique: share of distinct canonical SMILES among the valid. Novel: share of the distinct ones that are not among
{trained} training molecules. FCD: Fréchet ChemNet distance of the valid samples to {reference} test molecules (biased
upwards for few samples; two disjoint halves of the test part give {floor}). Samplers by calls: temperature {temperature:g}.
"""


def main() -> None:
    """Prints, and with --write records, what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="molecules")
    parser.add_argument("--num", type=int, default=2000, help="samples at one position per call")
    parser.add_argument("--fewer", type=int, default=512, help="samples of each sampler in the comparison")
    parser.add_argument("--planned", type=int, default=128, help="test molecules for plans")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--calls", type=int, nargs="*", default=[6, 12, 24])
    parser.add_argument("--temperature", type=float, default=1.0, help="of the samplers by calls")
    parser.add_argument(
        "--bfloat16", action="store_true", help="sample in bfloat16; what is scored is float32"
    )
    parser.add_argument("--parts", nargs="*", default=["bits", "one", "calls", "plans"])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--record", default="molecules", help="its name, where only some parts are run")
    options = parser.parse_args()
    model = unmask.load(options.model)
    reference = posed(model, options.num, "test")
    found: dict[str, list[dict[str, Any]]] = {}
    if "bits" in options.parts:
        found["bits"] = bits(model, reference, options.samples)
    if "one" in options.parts:
        found["one position per call"] = one_by_one(model, options)
    if {"plans", "calls"} & set(options.parts):
        fitted, _ = samplers.measured(model.denoiser, posed(model, 4096, "valid").tokens, end=model.end)
    if "plans" in options.parts:
        unit = len(reference.tokens) / reference.characters / math.log(2)
        found["plans, bits per character"] = samplers.planned_against_families(
            model.denoiser, fitted, reference.tokens[: options.planned], options.calls, unit, model.end
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
        temperature=options.temperature,
        floor=f"{floor(options.num):.2f}",
    )
    for name, rows in found.items():
        print(f"\n{name}\n" + "\n".join(record.table(rows)))
    if options.write:
        write(options.record, notes, found)


def write(name: str, notes: str, found: dict[str, list[dict[str, Any]]]) -> None:
    """One record with a table for each part, and the plot."""
    path = record.write_parts(name, found, notes)
    if "samplers" in found:
        samplers.draw(found["samplers"], ("valid", "FCD"), path.with_suffix(".png"), {})
    print(path)


def posed(model: unmask.Model, count: int, part: str) -> Sequences:
    """Molecules of a part, drawn at random."""
    return sequences.read(model, Path("molecules") / part, count, samplers.SEED)


def bits(model: unmask.Model, reference: Sequences, samples: int) -> list[dict[str, Any]]:
    """Bits per character: the bound, and the exact value along one random order each."""
    measure, _ = sequences.estimator(model, samples, samplers.SEED)
    bound = sequences.nats_of(reference, measure)
    some = reference.part(np.arange(min(256, len(bound))))
    lengths, visible = model.length_cost(some.tokens), model.visible(some.tokens)
    exact = lengths + samplers.nats(model.denoiser, some.tokens, 1, end=model.end)
    reading = lengths - unmask.log_likelihood(
        model.denoiser, some.tokens, presets.left_to_right(1), visible=visible
    )
    return [
        bits_row(model, reference, bound, "bound"),
        bits_row(model, some, exact, "exact, one random order each"),
        bits_row(model, some, reading, "exact, left to right"),
    ]


def bits_row(model: unmask.Model, found: Sequences, nats: Tensor, name: str) -> dict[str, Any]:
    """Mean with its 95 % interval over molecules, nats and bits per character."""
    numbers = sequences.numbers(model, found, nats, name)
    return {
        "estimator": name,
        "molecules": len(nats),
        "nats each": numbers["nats"]["value"],
        "bits per character": numbers["bits_per_character"]["value"],
        "+- 95 %": 1.96 * numbers["bits_per_character"]["stderr"],
    }


def one_by_one(model: unmask.Model, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Quality of samples at one position per call: the model's own order, then others."""
    ways = [
        samplers.chosen(
            f"{name}, temperature {t:g}", unmask.denoisers.tempered(model.denoiser, t), order, model.length
        )
        for name, t, order in (
            ("left to right", TEMPERATURE, presets.left_to_right(1)),
            ("left to right", 1.0, presets.left_to_right(1)),
            ("left to right", 0.8, presets.left_to_right(1)),
            ("left to right", 0.5, presets.left_to_right(1)),
            ("random", 1.0, presets.random(1, samplers.SEED)),
            ("random", TEMPERATURE, presets.random(1, samplers.SEED)),
        )
    ]
    counts = [options.num] + [2 * options.fewer] * (len(ways) - 1)
    rows = []
    for way, count in zip(ways, counts):
        rows.append(judged(model, way, count, options))
        print(rows[-1], flush=True)
    return rows


def by_calls(
    model: unmask.Model, fitted: unmask.Profile, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Quality of every sampler at every number of calls."""
    rows = []
    for calls in options.calls:
        for way in samplers.ways(
            unmask.denoisers.tempered(model.denoiser, options.temperature), fitted, calls
        ):
            rows.append(judged(model, way, options.fewer, options))
            print(rows[-1], flush=True)
    return rows


def judged(model: unmask.Model, way: samplers.Way, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """One row: validity, uniqueness, novelty, distance."""
    with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
        tokens, calls, seconds = samplers.draws(way, model.all_masked(count), end=model.end)
    found = quality.molecules(model.decode(tokens), known())
    distance = (
        quality.frechet(quality.chemnet(found.canonical), features(options.num))
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


if __name__ == "__main__":
    main()
