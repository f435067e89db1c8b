"""What do the checks of the contract cost? Timed by themselves, counted in operations, over a bare pass.

Run: python benchmarks/checks.py [--repeats 200] [--write]. A bare pass is ``network(tokens)`` at all positions. The checks
are what `from_logits` and a step would do without: shapes, modes of the modules, one look whether all is finite, rows and
symbols.
"""

from __future__ import annotations

import argparse
import collections
import statistics
import time
from collections.abc import Callable
from typing import Any

import record
import torch
from overhead import BATCH, STEPS, made
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import unmask
from unmask.denoisers.checks import shaped, unlawful
from unmask.denoisers.modes import evaluating
from unmask.engine.accounting import symbols
from unmask.engine.choosing import Doubts, chosen

CASES = {"V = 50,257": (50_257, 256, 256, 4), "V = 10, the smallest of overhead.py": (10, 81, 128, 4)}


class Operations(TorchDispatchMode):
    """Counts operations of torch, and those that make an accelerator wait."""

    def __init__(self) -> None:
        super().__init__()
        self.count: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[str(func)] += 1
        return func(*args, **(kwargs or {}))


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median processor seconds of a run."""
    found = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return statistics.median(found)


def checks_of(denoiser: Any, tokens: Tensor, order: str) -> Callable[[], None]:
    """All checks of one call and one step, on what a step holds."""
    size, length = denoiser.vocab_size, tokens.shape[1]
    score = unmask.scores.at_random(0) if order == "blind" else unmask.scores.confidence
    selector = unmask.selectors.top_k(score, length // STEPS)
    asked = torch.arange(length).expand(len(tokens), -1)
    asked = asked[:, : length // STEPS] if order == "blind" else asked
    logits = torch.zeros(*asked.shape, size)
    totals = torch.zeros(asked.numel(), 1)
    view = unmask.View(tokens, tokens == size, left=(length,) * len(tokens), log_probs=logits)
    choice = selector(view)

    class Look:
        pass

    look: Any = Look()
    look.denoiser = denoiser

    def work() -> None:
        doubts = Doubts()
        with evaluating(denoiser.network):
            denoiser._check(logits, tokens, asked)
        torch.isfinite(totals).all().item()
        shaped(logits, tokens, asked, denoiser)
        picked = chosen(choice, view, selector, doubts)
        symbols(torch.zeros_like(picked.rows), picked.valid, picked, look, doubts)
        doubts.settled(view.masked)

    return work


def measure(case: str, order: str, repeats: int) -> dict[str, object]:
    """Seconds and operations of the checks beside a bare pass."""
    vocab_size, length, width, depth = CASES[case]
    network = made(vocab_size, length, width, depth).eval()
    denoiser = unmask.from_logits(network, vocab_size, vocab_size)
    tokens = torch.full((BATCH, length), vocab_size)
    work = checks_of(denoiser, tokens, order)
    with torch.inference_mode():
        network(tokens)
        bare = seconds(lambda: network(tokens), max(3, repeats // 20))
        with Operations() as own:
            network(tokens)
    work()
    spent = seconds(work, repeats)
    with Operations() as checks:
        work()
    waits = sum(n for k, n in checks.count.items() if "_local_scalar_dense" in k)
    return {
        "case": case,
        "order": order,
        "checks us": 1e6 * spent,
        "bare pass us": 1e6 * bare,
        "share %": 100 * spent / bare,
        "operations": sum(checks.count.values()),
        "operations of the pass": sum(own.count.values()),
        "looks of the host": waits,
    }


def own_denoiser(case: str) -> dict[str, object]:
    """Adding up the laws of somebody's own denoiser, over one bare pass of a network of that size."""
    vocab_size, length, width, depth = CASES[case]
    network, tokens = made(vocab_size, length, width, depth).eval(), torch.full((BATCH, length), vocab_size)
    law = torch.zeros(BATCH, length, vocab_size).log_softmax(-1)
    with torch.inference_mode():
        bare = seconds(lambda: network(tokens), 5)
        spent = seconds(lambda: unlawful(law)[1].any().item(), 5)
    return {"case": case, "sums us": 1e6 * spent, "bare pass us": 1e6 * bare, "share %": 100 * spent / bare}


NOTES = f"""
Processor time on one thread, medians. Checks of one call and step together, batch {BATCH}, 1/{STEPS} of the positions
chosen: modes of all modules, shapes, whether the sums are finite (they are at hand), rows, symbols. The second table is for
denoisers that somebody wrote (networks under `from_logits` need no sums): all positions are asked for.
"""


def main() -> None:
    """Prints, and with --write records, both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(case, order, options.repeats) for case in CASES for order in ("blind", "sighted")]
    own = [own_denoiser(case) for case in CASES]
    print("\n".join([*record.table(rows), "", *record.table(own)]))
    if options.write:
        print(record.write("checks", rows, NOTES + "\n" + "\n".join(record.table(own)) + "\n"))


if __name__ == "__main__":
    main()
