"""How good is a model of text? Bits per character, held out and zero-shot, and quality against network calls.

Run: python benchmarks/text.py [--model text] [--parts bits calls plans] [--write].
Needs ``unmask data fetch`` of text and of the zero-shot sets, and ``pip install 'unmask[judge]'``.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import record
import samplers
from torch import Tensor

import unmask
from unmask.command_line import sequences
from unmask.evaluation import judges as quality

NOTES = """
Model weights {hash}, {steps} training steps, stretches of {length} characters, 27 symbols (text8's). Each set:
{sequences} disjoint stretches drawn at random; held out are the last parts of the training sources, zero-shot sets
come from other sources. Bound over random orders, {samples} mask sets per stretch; 95 % intervals over stretches. No
stretch sees the one before it, so its first characters are dear: longer stretches cost less. Judge: trigram model of
CMU pocketsphinx, nats per word, unknown words 13.8 nats; beside it the entropy of the samples' words (unigrams),
since repetition pleases judges. Real text: the row "held out".
"""


def main() -> None:
    """Prints, and with --write records, what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="text")
    parser.add_argument("--num", type=int, default=512)
    parser.add_argument("--fewer", type=int, default=256, help="samples of each sampler")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--calls", type=int, nargs="*", default=[8, 16, 32, 64])
    parser.add_argument("--sets", nargs="*", default=["text/test", "wikipedia/test"])
    parser.add_argument("--parts", nargs="*", default=["bits", "calls", "plans"])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    model = unmask.load(options.model)
    found: dict[str, list[dict[str, Any]]] = {}
    if "bits" in options.parts:
        found["bits"] = [bits(model, name, options) for name in options.sets]
    if {"plans", "calls"} & set(options.parts):
        fitted, _ = samplers.measured(model.denoiser, stretches(model, "text/valid", 2048), rounds=2)
    if "plans" in options.parts:
        unit = 1 / model.length / math.log(2)
        tokens = stretches(model, "text/test", 256)
        found["plans, bits per character"] = samplers.planned_against_families(
            model.denoiser, fitted, tokens, options.calls, unit
        )
    if "calls" in options.parts:
        found["samplers"] = by_calls(model, fitted, options)
    facts = {"hash": model.hash, "steps": model.config.get("trained_steps"), "length": model.length}
    notes = NOTES.format(**facts, sequences=options.num, samples=options.samples)
    for name, rows in found.items():
        print(f"\n{name}\n" + "\n".join(record.table(rows)))
    if options.write:
        write(notes, found)


def write(notes: str, found: dict[str, list[dict[str, Any]]]) -> None:
    """One record with a table for each part, and the plot."""
    path = record.write_parts("text", found, notes)
    if "samplers" in found:
        real, *drawn = found["samplers"]
        samplers.draw(drawn, ("judge, nats per word", "word entropy, nats"), path.with_suffix(".png"), real)
    print(path)


def stretches(model: unmask.Model, name: str, count: int) -> Tensor:
    """Disjoint stretches of a set, at random."""
    return sequences.read(model, Path(name), count, samplers.SEED).tokens


def bits(model: unmask.Model, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The bound of one set."""
    posed = sequences.read(model, Path(name), options.num, samplers.SEED)
    measure, about = sequences.estimator(model, options.samples, samplers.SEED)
    nats = sequences.nats_of(posed, measure)
    found = sequences.numbers(model, posed, nats, about)
    return {
        "set": name,
        "stretches": len(posed.tokens),
        "bits per character (bound)": found["bits_per_character"]["value"],
        "+- 95 %": 1.96 * found["bits_per_character"]["stderr"],
        "perplexity per character": found["perplexity"]["value"],
    }


def by_calls(
    model: unmask.Model, fitted: unmask.Profile, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Judge and entropy for every sampler at every number of calls, and for held-out text."""
    own = model.decode(stretches(model, "text/test", options.fewer))
    rows = [
        {
            "sampler": "held out",
            "calls asked": "",
            "nfe": "",
            **judged(own),
            "seconds": "",
            "example": own[0][:60],
        }
    ]
    for calls in options.calls:
        for way in samplers.ways(model.denoiser, fitted, calls):
            tokens, nfe, seconds = samplers.draws(way, model.all_masked(options.fewer))
            texts = model.decode(tokens)
            rows.append(
                {"sampler": way.name, "calls asked": calls, "nfe": nfe, **judged(texts), "seconds": seconds}
            )
            rows[-1]["example"] = texts[0][:60]
            print(rows[-1], flush=True)
    return rows


def judged(texts: list[str]) -> dict[str, Any]:
    """Judge, and entropies of words and characters, nats."""
    words = [word for text in texts for word in text.split()[1:-1]]  # the first and last may be cut
    return {
        "judge, nats per word": quality.judged([" ".join(t.split()[1:-1]) for t in texts]),
        "word entropy, nats": quality.entropy([words]),
        "character entropy, nats": quality.entropy(texts),
    }


if __name__ == "__main__":
    main()
