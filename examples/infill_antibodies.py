"""Real antibodies with the loop CDR3 hidden: how well is it filled in, in which order, in how many calls?

    unmask data fetch sapiens_vh && unmask data fetch antibodies
    python examples/infill_antibodies.py [--num 24] [--calls 8] [--model sapiens_vh] [--chains FILE]

Needs the extra `hf`. FILE holds lines of a chain and the range that is hidden, `EVQLVE.. 96 108`; without it heavy
chains come from the fetched set, one of each clone. Each row says the mean log-probability of the true loop (exact,
nats a residue: higher is better) and how many residues a greedy filling has right. Published models saw 15 % masked
in training, and may have seen such chains. It printed, in 19 s of
processor (`--num 12 --calls 4`; no order differs beyond its error):

    12 chains, loops of 18 to 35 residues, sapiens_vh
    random, one by one            -1.73 +- 0.13 nats, 40% right, 24.3 calls
    random, 4 calls               -1.74 +- 0.12 nats, 38% right, 4.0 calls
    left to right, one by one     -1.72 +- 0.13 nats, 39% right, 24.3 calls
    left to right, 4 calls        -1.93 +- 0.09 nats, 39% right, 4.0 calls
    confidence, one by one        -1.71 +- 0.14 nats, 40% right, 24.3 calls
    confidence, 4 calls           -1.81 +- 0.13 nats, 39% right, 4.0 calls
    the first loop ARVKRRGWRRNSLWFGESTPSDAHRWFDP drawn LRDQGCRVFVVSPGCDLYGDMGGANALDP ..
"""

import argparse
from pathlib import Path

import torch

import unmask
from unmask import plans, scores, selectors
from unmask.data.sources import antibodies

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--num", type=int, default=24, help="chains")
parser.add_argument("--calls", type=int, default=8, help="network calls for a loop")
parser.add_argument("--model", default="sapiens_vh", help="a fetched model, or a folder of transformers")
parser.add_argument("--chains", type=Path, help="lines of a chain, first and end of what is hidden")
options = parser.parse_args()

if options.chains:
    words = [line.split() for line in options.chains.read_text().splitlines()]
    chains = [(chain, (int(first), int(end))) for chain, first, end in words]
else:
    of_each_clone = {c.clone: (c.sequence, c.regions["cdr3"]) for c in antibodies.chains()}
    chains = list(of_each_clone.values())[: options.num]

model = unmask.load(options.model)
tokens = model.encode([chain for chain, _ in chains])
hidden = torch.zeros_like(tokens, dtype=torch.bool)
for row, (_, (first, end)) in enumerate(chains):
    hidden[row, 1 + first : 1 + end] = True  # one special token stands before each chain
size = hidden.sum(1)


def in_calls(count: int) -> tuple[int, ...]:
    """Equal steps for so many hidden residues."""
    return plans.uniform(count, min(options.calls, count))


def tell(name: str, order: unmask.Selector) -> None:
    """One row of the table."""
    told = model.log_likelihood(tokens, order, visible=~hidden) / size
    filled = model.infill(tokens, hidden, order=order, greedy=True)
    right = ((filled.tokens == tokens) & hidden).sum() / size.sum()
    mean, error, calls = told.mean(), told.std() / len(told) ** 0.5, filled.nfe.mean()
    print(f"{name:28} {mean:6.2f} +- {error:.2f} nats, {right:.0%} right, {calls:.1f} calls")


print(f"{len(chains)} chains, loops of {size.min()} to {size.max()} residues, {options.model}")
for name, score in (
    ("random", scores.at_random(0)),
    ("left to right", scores.left_to_right),
    ("confidence", scores.confidence),
):
    tell(f"{name}, one by one", selectors.top_k(score, 1))
    tell(f"{name}, {options.calls} calls", selectors.top_k(score, in_calls))
first, end = chains[0][1]
drawn = model.infill(
    tokens[:1].repeat(3, 1),
    hidden[:1].repeat(3, 1),
    order=selectors.top_k(scores.confidence, in_calls),
    seed=1,
)
print(
    "the first loop",
    chains[0][0][first:end],
    "drawn",
    *(chain[first:end] for chain in model.decode(drawn.tokens)),
)
