"""How good is a model of hand-written digits? Bits per dimension, fewer steps, and quality against network calls.

Run: python benchmarks/digits.py [--model digits] [--parts bits steps calls plans picture] [--write]. Needs ``unmask data
fetch mnist``. The judge is a small convolutional network, trained here in a few minutes and kept in runs/judge.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import record
import samplers
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

import unmask
from unmask import scores, selectors
from unmask.base import checkpoints
from unmask.base.types import Selector
from unmask.command_line.output import percent, share
from unmask.data import tokens as folders
from unmask.data.readers.images import save_grid
from unmask.data.sources.cache import cache as cache_folder
from unmask.evaluation import judges as quality
from unmask.masking import schedules
from unmask.models import measured_profile
from unmask.orders import presets

JUDGE = Path("runs/judge/weights.safetensors")
SURE = 0.95

NOTES = """
Model weights {hash}, {steps} training steps. MNIST, 28x28 pixels of 256 levels, no augmentation. Bits per
dimension of {num} test images, bound over random orders with {samples} mask sets each, 95 % interval over
images. Fewer steps: exact -log p of {planned} test images in random orders, order-agnostic with the optimal plan of K calls
and with equal steps, against absorbing diffusion with K ancestral steps (uniform and cosine grid of the linear
schedule; steps that unmask nothing cost no call); all paired by image. Samplers: `sure` is the share of samples of which a
convolutional judge (test accuracy {accuracy}) is at least {sure} certain, with Wilson 95 % (test images:
{real}); Fréchet distances to {count} test images, of the judge's {width} features and of EfficientNet-Lite0's 1,280
(`unmask judge images`), biased upwards for few samples ({count} other test images give {floor:.2f} and {named_floor:.1f}).
"""


def main() -> None:
    """Prints, and with --write records, what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="digits")
    parser.add_argument("--num", type=int, default=256)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--fewer", type=int, default=128, help="samples of each sampler")
    parser.add_argument("--planned", type=int, default=48, help="test images for plans")
    parser.add_argument("--steps", type=int, nargs="*", default=[784, 196, 65], help="N, N/4, N/12")
    parser.add_argument("--calls", type=int, nargs="*", default=[12, 28, 56])
    parser.add_argument("--parts", nargs="*", default=["bits", "steps", "calls", "plans", "picture"])
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    model = unmask.load(options.model)
    found: dict[str, list[dict[str, Any]]] = {}
    if "bits" in options.parts:
        found["bits"] = [bits(model, images("test", options.num), options.samples)]
    if {"steps", "calls", "plans", "picture"} & set(options.parts):
        fitted = profile_of(model)
    if "steps" in options.parts:
        found["fewer steps, bits per dimension"] = fewer_steps(
            model, fitted, images("test", options.planned), options.steps
        )
    if "plans" in options.parts:
        unit = 1 / (784 * math.log(2))
        tokens = images("test", options.planned)
        found["plans, bits per dimension"] = samplers.planned_against_families(
            model.denoiser, fitted, tokens, options.calls, unit
        )
    if "calls" in options.parts:
        found["samplers"] = by_calls(model, fitted, options)
    if "picture" in options.parts:
        picture(model, fitted)
    for name, rows in found.items():
        print(f"\n{name}\n" + "\n".join(record.table(rows)))
    if options.write:
        write(model, found, options)


def write(model: unmask.Model, found: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    """One record with a table for each part."""
    own = images("test", 2 * options.fewer)
    first, second = features(own[::2]), features(own[1::2])
    notes = NOTES.format(
        hash=model.hash,
        steps=model.config.get("trained_steps"),
        num=options.num,
        planned=options.planned,
        samples=options.samples,
        accuracy=accuracy(),
        sure=SURE,
        real=sure(own),
        width=first.shape[1],
        count=options.fewer,
        floor=quality.frechet(first, second),
        named_floor=quality.frechet(outside(own[::2]), outside(own[1::2])),
    )
    path = record.write_parts("digits", found, notes)
    print(path)
    if "samplers" in found:
        samplers.draw(
            found["samplers"],
            ("sure", "Fréchet, judge", "Fréchet, EfficientNet"),
            path.with_suffix(".png"),
            {},
        )


def profile_of(model: unmask.Model) -> unmask.Profile:
    """A profile to plan with: the one that ships with the model, or measured on training images."""
    shipped = measured_profile(model)
    return (
        samplers.measured(model.denoiser, images("train", 2048), rounds=1)[0] if shipped is None else shipped
    )


@cache
def images(part: str, count: int) -> Tensor:
    """Images of a part, drawn at random, as tokens int64 [count, 784]."""
    data = folders.load(cache_folder() / "mnist" / part)
    places = np.sort(np.random.default_rng(samplers.SEED).choice(data.items, count, replace=False))
    return torch.as_tensor(data.padded(places, 784, 0))


def bits(model: unmask.Model, tokens: Tensor, samples: int) -> dict[str, Any]:
    """The bound, bits per dimension."""
    generator = torch.Generator().manual_seed(samplers.SEED)
    parts = torch.split(tokens, 32)
    bound = torch.cat(
        [unmask.nelbo(model.denoiser, t, generator=generator, samples=samples).value for t in parts]
    )
    unit = 1 / (784 * math.log(2))
    error = 1.96 * float(bound.std()) / math.sqrt(len(bound))
    return {
        "images": len(tokens),
        "bits per dimension (bound)": float(bound.mean()) * unit,
        "+- 95 %": error * unit,
    }


def fewer_steps(
    model: unmask.Model, fitted: unmask.Profile, tokens: Tensor, budgets: Sequence[int]
) -> list[dict[str, Any]]:
    """What K calls cost the same test images: planned, in equal steps, and absorbing diffusion with K times.

    Exact -log p of each image along one random order of its own, the same for all four. The last columns are paired with
    the first budget's plan.
    """
    unit, rows = 1 / (784 * math.log(2)), []
    base: Tensor | None = None
    for calls in budgets:
        for name, selector in of_steps(fitted, calls).items():
            nats = along(model, tokens, selector) * unit
            base = nats if base is None else base
            more = nats - base
            rows.append({"K": calls, "how": name, "bits per dimension": float(nats.mean())})
            rows[-1] |= {
                "more than the first": float(more.mean()),
                "+-": float(more.std()) / math.sqrt(len(more)),
            }
            print(rows[-1], flush=True)
    return rows


def of_steps(fitted: unmask.Profile, calls: int) -> dict[str, Selector]:
    """Random orders in at most so many calls."""
    linear, seed = schedules.linear(), samplers.SEED
    best, equal = unmask.plans.optimal(fitted, steps=calls), unmask.plans.uniform(784, calls)
    same = {} if best == equal else {"order-agnostic, equal steps": presets.random(equal, seed)}
    return {
        "order-agnostic, planned": presets.random(best, seed),
        **same,
        "absorbing, uniform grid": selectors.ancestral(linear, schedules.uniform_grid(calls), seed),
        "absorbing, cosine grid": selectors.ancestral(linear, schedules.cosine_grid(calls), seed),
    }


def along(model: unmask.Model, tokens: Tensor, selector: Selector) -> Tensor:
    """-log p of each image in an order of its own, float64 [n], nats."""
    return -unmask.log_likelihood(model.denoiser, tokens, selector, order_ids=torch.arange(len(tokens)))


def by_calls(
    model: unmask.Model, fitted: unmask.Profile, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Certainty of the judge and Fréchet distance for every sampler at every number of calls."""
    reference, rows = features(images("test", options.fewer)), []
    for calls in options.calls:
        for way in samplers.ways(model.denoiser, fitted, calls, scores.halton(28, 28), caching=False):
            tokens, nfe, seconds = samplers.draws(way, model.all_masked(options.fewer))
            distance = quality.frechet(features(tokens), reference)
            rows.append({"sampler": way.name, "calls asked": calls, "nfe": nfe, "sure": sure(tokens)})
            rows[-1] |= {
                "Fréchet, judge": distance,
                "Fréchet, EfficientNet": named(tokens),
                "seconds": seconds,
            }
            print(rows[-1], flush=True)
    return rows


def named(tokens: Tensor) -> float:
    """Fréchet distance to as many test images on a feature extractor from outside."""
    return quality.frechet(outside(tokens), outside(images("test", len(tokens))))


def outside(tokens: Tensor) -> NDArray[np.floating[Any]]:
    """EfficientNet-Lite0's features of images."""
    return quality.efficientnet(tokens.numpy().astype(np.uint8).reshape(-1, 28, 28))


def picture(model: unmask.Model, fitted: unmask.Profile) -> None:
    """A grid of samples, planned in 98 calls, beside the records."""
    selector = presets.random(unmask.plans.optimal(fitted, steps=98), samplers.SEED)
    generator = torch.Generator().manual_seed(samplers.SEED)
    found = unmask.sample(model.denoiser, model.all_masked(36), selector, generator=generator)
    save_grid(record.FOLDER / "digits_samples.png", model.decode(found.tokens))


# --- the judge ------------------------------------------------------------------------------------


class Judge(nn.Module):
    """A small convolutional classifier of digits; its features are the last hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
            *(nn.Linear(800, 64), nn.ReLU()),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits [B, 10] and features [B, 64] of tokens int64 [B, 784]."""
        hidden = self.body(tokens.view(-1, 1, 28, 28).float() / 127.5 - 1)
        return self.head(hidden), hidden


@cache
def judge() -> Judge:
    """The trained judge; trains it, three passes over the training part, where it is not on disk."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = Judge()
    if JUDGE.exists():
        network.load_state_dict(checkpoints.read_tensors(JUDGE))
        return network.eval()
    data = folders.load(cache_folder() / "mnist" / "train")
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    random = np.random.default_rng(0)
    for places in np.split(np.concatenate([random.permutation(60_000) for _ in range(3)]), 1500):
        tokens = torch.as_tensor(data.padded(places, 784, 0))
        F.cross_entropy(network(tokens)[0], torch.as_tensor(data.labels[places]).long()).backward()
        optimiser.step()
        optimiser.zero_grad()
    checkpoints.write_tensors(JUDGE, network.state_dict())
    return network.eval()


def judged(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Class probabilities and features."""
    network = judge()
    with torch.inference_mode():
        parts = [network(part) for part in torch.split(tokens, 256)]
    return torch.cat([p[0] for p in parts]).softmax(1), torch.cat([p[1] for p in parts])


def features(tokens: Tensor) -> NDArray[np.float32]:
    """The judge's features float [n, 64]."""
    return judged(tokens)[1].numpy()


def sure(tokens: Tensor) -> str:
    """How many images the judge is certain of."""
    certain = int((judged(tokens)[0].amax(1) >= SURE).sum())
    return percent(share(certain, len(tokens), "images", f"largest class probability at least {SURE}"))


def accuracy() -> str:
    """The judge's accuracy on the test part."""
    data = folders.load(cache_folder() / "mnist" / "test")
    guess = judged(torch.as_tensor(data.padded(np.arange(data.items), 784, 0)))[0].argmax(1).numpy()
    return f"{float((guess == np.asarray(data.labels)).mean()):.4f}"


if __name__ == "__main__":
    main()
