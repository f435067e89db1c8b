"""Planned sampling of text: measure a profile on real text, plan a few calls, compare what that should cost
with what it costs.

    unmask data fetch text
    python examples/plan_text.py [--calls 24] [--num 32] [--model text] [--text FILE]

FILE is any text; without it the held-out part of the fetched set (Austen and the King James Bible) serves. The plan
comes from one half of the stretches, costs from the other. Costs are nats a stretch of 128 characters above one
character per call in random order. It printed, in 80 s of
processor (`--num 8 --calls 16`; so few stretches tell the costs of plans badly, and only bisection stands out):

    16 calls for 128 characters; the best plan: (10, 8, 5, 5, 8, 8, 14, 5, 8, 10, 4, 9, 12, 4, 13, 5)
    best plan    predicted   5.2, realised  10.5 +- 1.9 nats
    equal steps  predicted   6.5, realised   8.6 +- 2.0 nats
    cosine       predicted   6.2, realised  11.7 +- 1.6 nats
    bisection    in equal steps,  realised   0.2 nats
     the ser far fir ye slike man all his ment the make now for stil theur no then cauds of sgrain hear ..
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import unmask
from unmask import plans, profiles, scores, selectors
from unmask.data import tokens as folders
from unmask.data.readers.text import text8
from unmask.data.sources.fetch import fetch

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--calls", type=int, default=24, help="network calls for a stretch")
parser.add_argument("--num", type=int, default=32, help="stretches of text in each half")
parser.add_argument("--model", default="text", help="a shipped model, or a folder")
parser.add_argument("--text", type=Path, help="a text file of your own")
options = parser.parse_args()

model = unmask.load(options.model)
if options.text:
    letters = text8(options.text.read_text())
    data = model.encode([letters[: len(letters) // model.length * model.length]])[: 2 * options.num]
else:
    stream = folders.load(fetch("text") / "valid")
    starts = np.linspace(0, stream.symbols - model.length, 2 * options.num).astype(int)
    data = torch.as_tensor(stream.windows(starts, model.length))
seen, unseen = data[::2], data[1::2]

random, rounds = torch.Generator().manual_seed(0), max(4, 1024 // options.num)
measured, judge = (
    profiles.measure(model.denoiser, half, generator=random, rounds=rounds) for half in (seen, unseen)
)
some = {"best plan": plans.optimal(profiles.smooth(measured), steps=options.calls)}
some |= {
    "equal steps": plans.uniform(model.length, options.calls),
    "cosine": plans.cosine(model.length, options.calls),
}
print(f"{options.calls} calls for {model.length} characters; the best plan: {some['best plan']}")

ids = torch.arange(len(unseen))


def along(order: unmask.Selector) -> torch.Tensor:
    """Exact log-probabilities of the unseen half, each in an order of its own, nats."""
    return unmask.log_likelihood(model.denoiser, unseen, order, order_ids=ids)


exact = along(selectors.top_k(scores.at_random(0), 1))
for name, plan in some.items():
    cost = exact - along(selectors.top_k(scores.at_random(0), plan))
    mean, error = cost.mean(), cost.std() / len(cost) ** 0.5
    print(f"{name:12} predicted {judge.kl(plan):5.1f}, realised {mean:5.1f} +- {error:.1f} nats")
near = along(selectors.top_k(scores.bisection, plans.uniform(model.length, options.calls)))
print(f"bisection    in equal steps,  realised {(exact - near).mean():5.1f} nats")

made = model.sample(3, order="bisection", calls=options.calls, seed=1)
print("", *model.decode(made.tokens), f"{made.nfe.mean():.0f} calls each", sep="\n")
