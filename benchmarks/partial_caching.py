"""What does partial caching buy? Distance of a trained model's samples from the truth over calls and sub-steps.

Run: python benchmarks/partial_caching.py [--write], with --clock for seconds per partial pass. The first run trains a small
transformer of a Markov chain (under four minutes on one core; kept in runs/partial_caching/), the rest takes five minutes.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy
import record
import torch
from torch import Tensor, nn

import unmask
from unmask import laws, plans, scores, selectors
from unmask.base.checkpoints import read_tensors
from unmask.denoisers import caches as caching
from unmask.laws.markov import stationary
from unmask.masking import corruption
from unmask.masking.objectives import masked_cross_entropy
from unmask.networks import Transformer, TransformerConfig
from unmask.recipes import Batch, Machine, Optimiser, Run
from unmask.recipes.run import generator
from unmask.training.loop import train

LENGTH, SYMBOLS = 24, 8
ORDERS = {"random": scores.at_random(1), "bisection": scores.bisection}
CALLS, SUBSTEPS = (2, 3, 4, 6, 8, 12, 24), (1, 2, 3)
SIZES = [(128, 81), (128, 256), (256, 81), (256, 256)]
SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
FOLDER = Path(__file__).parent.parent / "runs" / "partial_caching"


@dataclass(frozen=True)
class ChainData:
    """Rows of the transition matrix: Dirichlet(``concentration``) under a numpy seed."""

    concentration: float = 0.3
    seed: int = 0


def law(data: ChainData) -> laws.Markov:
    """The stationary chain."""
    rows = numpy.random.default_rng(data.seed).dirichlet([data.concentration] * SYMBOLS, size=SYMBOLS)
    transition = torch.as_tensor(rows)
    return laws.Markov(stationary(transition), transition, LENGTH)


def recipe() -> Run:
    """Three layers of width 48, order-agnostic objective."""
    return Run(
        name="partial_caching",
        network=TransformerConfig(SYMBOLS, LENGTH, width=48, depth=3, heads=4, hidden=128, rotary=True),
        data=ChainData(),
        build=lambda config: Transformer(**vars(config)),
        batch=batch,
        objective=objective,
        encode=lambda _, data: torch.as_tensor(data),
        decode=lambda _, tokens: tokens.tolist(),
        batch_size=96,
        optimiser=Optimiser(steps=1500, learning_rate=3e-3, warmup=100, decay=0.6, ema=0.99),
        machine=Machine(threads=1),
    )


def batch(run: Run, step: int) -> Batch:
    random = generator(run, step)
    tokens = law(run.data).sample(run.batch_size, random)
    drawn = corruption.exact_count(torch.ones_like(tokens, dtype=torch.bool), random)
    return Batch(tokens, drawn.masked, drawn.weight)


def objective(network: nn.Module, data: Batch) -> Tensor:
    logits = network(data.tokens.masked_fill(data.masked, SYMBOLS))
    return masked_cross_entropy(logits, data.tokens, data.masked, data.weight)


def main() -> None:
    """Prints, and with --write records, distances to the truth, or with --clock seconds of partial passes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clock", action="store_true")
    parser.add_argument("--blocks", action="store_true")
    parser.add_argument("--sequences", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.clock:
        name, notes, plot = "partial_clock", CLOCK_NOTES, draw_clock
        rows = [clock(*size, batch, options.repeats) for size in SIZES for batch in (4, 32)]
    elif options.blocks:
        name, notes, plot = "block_caching", BLOCK_NOTES, draw_blocks
        rows = in_blocks(options.sequences)
    else:
        name, notes, plot = "partial_caching", NOTES, draw
        rows = distances(options.sequences)
    print("\n".join(record.table(rows)))
    if options.write:
        path = record.write(name, rows, notes)
        plot(rows, path.with_suffix(".png"))
        path.write_text(path.read_text() + f"\n![{name}]({path.stem}.png)\n")
        print(path)


NOTES = f"""
A transformer (3 layers, width 48, {LENGTH} positions, {SYMBOLS} symbols) trained on a stationary Markov chain of known law;
uniform plans of K calls, S sub-steps. nfe: as the engine counts it. KL: mean of log p(x) - log q(x | order) over sequences
of the law, nats per sequence with standard error, order disclosed, so that the error of the network (K = {LENGTH}) is part
of it; the same sequences and orders in every row. Regained: the fall of KL from S = 1 over its fall from K to 2 K calls,
which cost K more forwards where S sub-steps cost S - 1 (standard error from paired differences; empty where doubling gains
less than five standard errors). TV: total variation between the bigrams of as many samples and of the law; the line `data`
is the law's own samples.
"""


def trained() -> tuple[unmask.Denoiser, laws.Markov]:
    """The trained network as a denoiser, and the law that it was trained on."""
    run = recipe()
    if not (FOLDER / "model").exists():
        train(run, FOLDER)
    network = run.build(run.network)
    network.load_state_dict(read_tensors(FOLDER / "model" / "weights.safetensors"))
    return unmask.from_logits(network, SYMBOLS, SYMBOLS), law(run.data)


def distances(count: int) -> list[dict[str, object]]:
    """One row for each order, K and S."""
    denoiser, truth = trained()
    data = truth.sample(count, torch.Generator().manual_seed(1))
    rows: list[dict[str, object]] = [{"order": "data", "K": "", "S": "", "nfe": "", "KL": 0.0}]
    rows[0] |= {"se": "", "regained": "", "se of that": "", "TV": bigram_distance(data, truth)}
    for order in ORDERS:
        excess: dict[tuple[int, int], Tensor] = {}
        for calls in reversed(CALLS):
            for substeps in SUBSTEPS[: LENGTH // calls]:
                row, excess[calls, substeps] = measure(denoiser, truth, data, order, calls, substeps)
                rows.append(row | regained(excess, calls, substeps))
                rows[-1]["TV"] = rows[-1].pop("TV")  # the last column
                print(rows[-1], flush=True)
    return rows


def measure(
    denoiser: unmask.Denoiser, truth: laws.Markov, data: Tensor, order: str, calls: int, substeps: int
) -> tuple[dict[str, object], Tensor]:
    """Cost, KL and TV of one sampler, and log p - log q float64 [n] of each sequence."""
    selector = selectors.top_k(ORDERS[order], plans.uniform(LENGTH, calls))
    ids, start = torch.arange(len(data)), torch.full_like(data, SYMBOLS)
    excess = truth.log_prob(data) - unmask.log_likelihood(
        denoiser, data, selector, substeps=substeps, order_ids=ids
    )
    made = unmask.sample(
        denoiser,
        start,
        selector,
        generator=torch.Generator().manual_seed(2),
        substeps=substeps,
        order_ids=ids,
    )
    row = {"order": order, "K": calls, "S": substeps, "nfe": made.nfe.mean().item()}
    row |= {"KL": excess.mean().item(), "se": error(excess), "TV": bigram_distance(made.tokens, truth)}
    return row, excess


def regained(excess: dict[tuple[int, int], Tensor], calls: int, substeps: int) -> dict[str, object]:
    """Which share of the gain of doubling the calls the sub-steps give, and its standard error (delta method)."""
    if substeps == 1 or (2 * calls, 1) not in excess:
        return {"regained": "", "se of that": ""}
    gain = excess[calls, 1] - excess[calls, substeps]
    whole = excess[calls, 1] - excess[2 * calls, 1]
    if whole.mean().item() < 5 * error(whole):
        return {"regained": "", "se of that": ""}
    share = gain.mean() / whole.mean()
    return {"regained": share.item(), "se of that": error(gain - share * whole) / abs(whole.mean().item())}


def error(values: Tensor) -> float:
    """Standard error of a mean."""
    return values.std().item() / math.sqrt(len(values))


def bigram_distance(tokens: Tensor, truth: laws.Markov) -> float:
    """Total variation between the pooled bigrams of tokens [n, N] and those of the stationary law."""
    pairs = torch.bincount((tokens[:, :-1] * SYMBOLS + tokens[:, 1:]).flatten(), minlength=SYMBOLS**2)
    exact = (truth.initial[:, None] * truth.transition).flatten()
    return 0.5 * (pairs / pairs.sum() - exact).abs().sum().item()


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """KL over the cost in calls."""
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
    for axes, order in zip(panels, ORDERS):
        for substeps, mark in zip(SUBSTEPS, "os^"):
            kept = [r for r in rows if r["order"] == order and r["S"] == substeps]
            label = "full passes" if substeps == 1 else f"{substeps} sub-steps"
            axes.errorbar(
                [r["nfe"] for r in kept],
                [r["KL"] for r in kept],
                [r["se"] for r in kept],
                marker=mark,
                label=label,
                lw=1,
            )
        axes.set(xscale="log", yscale="log", xlabel="cost, full forwards", title=f"{order} order")
        axes.set_xticks(CALLS, [str(k) for k in CALLS], minor=False)
        axes.minorticks_off()
        axes.legend()
    panels[0].set(ylabel="KL to the truth, nats per sequence")
    figure.savefig(path, dpi=110)


BLOCK_NOTES = """
The network, law and measure of `partial_caching`, generated in blocks from left to right, a number of positions per step at
random inside the block. Cache: none, prefix (the block and all after it run again), dual (only the block). Excess: KL with
the cache minus KL without, paired, nats per sequence.
"""


def in_blocks(count: int) -> list[dict[str, object]]:
    """One row for each block length, positions per step and cache."""
    denoiser, truth = trained()
    data = truth.sample(count, torch.Generator().manual_seed(1))
    ids, exact, rows = torch.arange(count), truth.log_prob(data), []
    for length, per_step in ((4, 1), (8, 1), (8, 2), (12, 2), (12, 4)):
        selector = selectors.in_blocks(selectors.top_k(scores.at_random(1), per_step), length)
        models = {"none": denoiser}
        models |= {n: caching.blocks(denoiser, length, suffix=n == "prefix") for n in ("prefix", "dual")}
        told = {n: unmask.log_likelihood(m, data, selector, order_ids=ids) for n, m in models.items()}
        for name, model in models.items():
            start = torch.full((2, LENGTH), SYMBOLS)
            made = unmask.sample(model, start, selector, generator=torch.Generator().manual_seed(0))
            row = {"block": length, "per step": per_step, "cache": name, "nfe": made.nfe[0].item()}
            row |= {"KL": (exact - told[name]).mean().item(), "se": error(exact - told[name])}
            paired = told["none"] - told[name]
            rows.append(row | {"excess": paired.mean().item(), "se of that": error(paired)})
            print(rows[-1], flush=True)
    return rows


def draw_blocks(rows: list[dict[str, object]], path: Path) -> None:
    """KL over the cost in calls, a line for each generation."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for case in sorted({(r["block"], r["per step"]) for r in rows}):
        kept = [r for r in rows if (r["block"], r["per step"]) == case]
        label = f"blocks of {case[0]}, {case[1]} per step"
        axes.plot([r["nfe"] for r in kept], [r["KL"] for r in kept], lw=1, label=label)
    for name, mark in (("none", "o"), ("prefix", "s"), ("dual", "^")):
        kept = [r for r in rows if r["cache"] == name]
        axes.plot([r["nfe"] for r in kept], [r["KL"] for r in kept], "k" + mark, ms=5, label=f"cache: {name}")
    axes.set(xscale="log", xlabel="cost, full forwards", ylabel="KL to the truth, nats per sequence")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)


CLOCK_NOTES = """
Processor seconds of `Transformer.partial` over m of N rows relative to `Transformer.full` (4 layers, 32 channels per head,
rotary, 32 symbols), one thread: both run in turn, median over the repeats of the ratio, and the median milliseconds of the
full pass. The column heads are m/N, what the pass costs in floating-point operations.
"""


def clock(width: int, length: int, batch: int, repeats: int) -> dict[str, object]:
    """Relative seconds of partial passes of several sizes."""
    torch.manual_seed(0)
    network = Transformer(32, length, width, 4, heads=width // 32, rotary=True).eval()
    tokens = torch.randint(33, (batch, length))
    row: dict[str, object] = {"width": width, "N": length, "batch": batch}
    with torch.inference_mode():
        _, cache = network.full(tokens)
        fulls: list[float] = []
        for share in SHARES:
            rows = torch.rand(batch, length).argsort(1)[:, : max(1, round(share * length))]
            pairs = [
                (
                    seconds(lambda: network.full(tokens)),
                    seconds(lambda r=rows: network.partial(tokens, r, cache)),
                )
                for _ in range(repeats + 1)
            ][1:]
            fulls += [a for a, _ in pairs]
            row[f"{share:.3g}"] = statistics.median(b / a for a, b in pairs)
    return row | {"full ms": 1e3 * statistics.median(fulls)}


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds of one run: with one thread those of the clock on an idle machine, and steady on a busy one."""
    began = time.process_time()
    work()
    return time.process_time() - began


def draw_clock(rows: list[dict[str, object]], path: Path) -> None:
    """Relative seconds over m/N."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for row in rows:
        label = f"width {row['width']}, N {row['N']}, batch {row['batch']}"
        axes.plot(SHARES, [row[f"{s:.3g}"] for s in SHARES], marker=".", label=label)
    axes.plot(SHARES, SHARES, "k--", label="m/N")
    axes.set(xscale="log", yscale="log", xlabel="m/N", ylabel="seconds, relative to a full pass")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
