"""What does the loop cost on top of the network? Time of `sample` over K full ``network(tokens)`` calls.

Run: python benchmarks/overhead.py [--repeats 7] [--write]. Both sides of each ratio run in turn in one process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import record
import torch

import unmask

STEPS, BATCH = 16, 4


def main() -> None:
    """Prints, and with --write records, the ratios for V = 10 and V = 50,257, blind and sighted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    cases = [(10, 81, 128, 4), (10, 256, 256, 4), (50_257, 256, 256, 4)]
    rows = [measure(*case, name, options.repeats) for case in cases for name in ("blind", "sighted")]
    rows += [smallest(name, options.repeats) for name in ("blind", "sighted, greedy")]
    print("\n".join(record.table(rows)))
    if options.write:
        print(record.write("overhead", rows, NOTES))


NOTES = f"""
Time of `unmask.sample` (all masked, uniform plan of {STEPS} steps, batch {BATCH}, symbols drawn) over {STEPS} calls of
`network(tokens)` with the head at every position, same batch, in turn. Blind: `at_random`; sighted: `confidence`.
Ratio: median over repeats, with the smallest and largest. The rows at V = 28 are a network of two layers, batch 1, one
position a call: 64 calls on both sides.
"""


def measure(
    vocab_size: int, length: int, width: int, depth: int, order: str, repeats: int
) -> dict[str, object]:
    """Ratios for one network and order."""
    network = made(vocab_size, length, width, depth)
    denoiser = unmask.from_logits(network, vocab_size, vocab_size)
    score = unmask.scores.at_random(0) if order == "blind" else unmask.scores.confidence
    selector = unmask.selectors.top_k(score, unmask.plans.uniform(length, STEPS))
    masked = torch.full((BATCH, length), vocab_size)

    def ours() -> None:
        unmask.sample(denoiser, masked, selector, generator=torch.Generator().manual_seed(1))

    pairs = [(seconds(ours), seconds(lambda: bare(network, masked))) for _ in range(repeats + 1)][1:]
    ratios = [a / b for a, b in pairs]
    return {
        "V": vocab_size,
        "L": length,
        "width": width,
        "order": order,
        "sample s": statistics.median(a for a, _ in pairs),
        f"{STEPS} calls s": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
    }


def smallest(order: str, repeats: int) -> dict[str, object]:
    """Ratios for a very small network, batch 1, one position a call."""
    network = made(28, 64, 64, 2).eval()
    denoiser, masked = unmask.from_logits(network, 28, 28), torch.full((1, 64), 28)
    score = unmask.scores.at_random(0) if order == "blind" else unmask.scores.confidence
    selector, source = unmask.selectors.top_k(score, 1), unmask.draw if order == "blind" else unmask.greedy

    def ours() -> None:
        unmask.sample(denoiser, masked, selector, generator=torch.Generator().manual_seed(1), source=source)

    pairs = [(seconds(ours), seconds(lambda: bare(network, masked, 64))) for _ in range(repeats + 1)][1:]
    ratios = [a / b for a, b in pairs]
    return {
        "V": 28,
        "L": 64,
        "width": 64,
        "order": order,
        "sample s": statistics.median(a for a, _ in pairs),
        f"{STEPS} calls s": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
    }


def made(vocab_size: int, length: int, width: int, depth: int) -> unmask.networks.Transformer:
    """An untrained network whose head is not zero."""
    torch.manual_seed(0)
    network = unmask.networks.Transformer(vocab_size, length, width, depth, heads=width // 32, rotary=True)
    torch.nn.init.normal_(network.head.weight, std=0.05)
    return network


def bare(network: Callable[[torch.Tensor], torch.Tensor], masked: torch.Tensor, calls: int = STEPS) -> None:
    """So many calls with the head at every position, and nothing else."""
    with torch.inference_mode():
        for _ in range(calls):
            network(masked)


def seconds(work: Callable[[], None]) -> float:
    """Wall-clock seconds of one run."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
