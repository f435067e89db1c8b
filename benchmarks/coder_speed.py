"""What does coding cost beside the network? Seconds of everything else over seconds of the codec's network calls.

Run: python benchmarks/coder_speed.py [--items 64] [--write]. Shipped models on real items, and a network of 50,257 symbols.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import compression
import numpy as np
import record
import torch
from overhead import made

import unmask
from unmask import codec, plans
from unmask.models import shipped

NOTES = """
One process, {threads} thread; float64 networks, a quarter of the positions as calls, random order, batches of {batch},
verification off. Network: seconds inside the network's calls (head at the chosen rows only). Everything else: the
loop, log-softmax, rounding with guard band, integer tables, range coder and container. GPT-2's vocabulary: an untrained
transformer (width 256, 4 blocks, length 128) on random symbols: nothing to compress, but times are those of any law.
"""


@dataclass
class Clocked:
    """A network that adds up the seconds of its calls."""

    network: Any
    spent: list[float] = field(default_factory=list)

    def __call__(self, *words: Any, **more: Any) -> torch.Tensor:
        """The network's logits."""
        began = time.perf_counter()
        logits: torch.Tensor = self.network(*words, **more)
        self.spent.append(time.perf_counter() - began)
        return logits


def main() -> None:
    """Prints, and with --write records, a row for each model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="*", default=["molecules", "text", "records", "digits"])
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = []
    for name in options.models:
        if name in shipped():
            count = options.images if name == "digits" else options.items
            model = unmask.load(name)
            items = compression.as_items(model, compression.items_of(compression.SETS[name].test, count))
            rows.append(measured(name, codec.of_model(model), items, options.batch))
            print(rows[-1], flush=True)
    rows.append(measured("GPT-2's vocabulary", *large(options.images), options.batch))
    print("\n".join(record.table(rows)))
    if options.write:
        print(
            record.write(
                "coder_speed", rows, NOTES.format(threads=torch.get_num_threads(), batch=options.batch)
            )
        )


def large(count: int) -> tuple[codec.Subject, list[Any]]:
    """A network of 50,257 symbols, and random items."""
    denoiser = unmask.from_logits(made(50_257, 128, 256, 4), 50_257, 50_257)
    random = np.random.default_rng(0)
    return codec.of_denoiser(denoiser, 128, "made"), [random.integers(0, 50_257, 128) for _ in range(count)]


def measured(name: str, subject: codec.Subject, items: list[Any], batch: int) -> dict[str, Any]:
    """One row: network and everything else, writing and reading."""
    network: Any = subject.denoiser
    clock = Clocked(network.network)
    subject = replace(subject, denoiser=replace(network, network=clock))
    archive: list[bytes] = []

    def write() -> None:
        archive[:] = [codec.compress(subject, items, plan=quarter, batch=batch, verify=False, shorter=False)]

    written = shares(write, clock)
    read = shares(lambda: list(codec.decompress(subject, archive[0], batch=batch)), clock)
    return {
        "model": name,
        "symbols": network.vocab_size,
        "items": len(items),
        **{f"write: {k}": v for k, v in written.items()},
        **{f"read: {k}": v for k, v in read.items()},
    }


def quarter(count: int) -> tuple[int, ...]:
    """Equal steps, a quarter as many as positions."""
    return plans.uniform(count, -(-count // 4))


def shares(work: Callable[[], object], clock: Clocked) -> dict[str, float]:
    """Seconds in the network, and everything else as a share of them; the second of two runs."""
    for _ in range(2):
        clock.spent.clear()
        began = time.perf_counter()
        work()
        total = time.perf_counter() - began
    network = sum(clock.spent)
    return {"network s": network, "everything else / network": (total - network) / network}


if __name__ == "__main__":
    main()
