"""What does fine-tuning by the diffusion objective do for a model that was taught at 15 % masked? Sapiens on heavy chains.

Run: python benchmarks/finetune.py [--small] [--steps N] [--folder RUN] [--write]; it needs the extra ``hf``, and fetches
model and chains (`unmask data fetch`). An interrupted training goes on in RUN (default: in the cache). At full size some
10 minutes of training on one thread, and 5 of measuring.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch

import unmask
from unmask.data.sources import antibodies
from unmask.data.sources.cache import cache
from unmask.data.sources.models import fetch_model
from unmask.evaluation import shares
from unmask.models.transformers.tuning import fine_tuning
from unmask.orders import presets
from unmask.training import train

SEED = 20_261_129
RESAMPLES = 2000
FAR = 0.85
"""Most identity to any training chain of those that are called far."""

NOTES = """
Sapiens VH (0.57 million parameters), taught at low shares of hidden residues, before and after {steps} steps of 16 real
heavy chains of human antibodies (`unmask data fetch antibodies`) as `unmask train --start FOLDER --data FILE` does them:
the number of hidden residues uniform from one to all, weights of the order-agnostic bound, AdamW at {rate:g}, dropout as
published, EMA {ema}. Chains are split by clone before anything else: {train} chains of {clones} clones are trained on, one
chain of each of {held} other clones is held out, **and no clone has chains in both**. {overlap} held-out chain is equal to
one of those. The clones come from one data set, which shares donors and germline genes, so this tells about chains
of such donors, not of all antibodies; "far" are held-out chains at most {far:.0f} % identical to every training chain (by
IMGT's columns). What Sapiens itself was taught on may hold any of them, before and after alike.

Nats per residue of held-out chains, given the lengths. Intervals are at 95 %, by a bootstrap of whole chains ({resamples}
resamples), of the difference on the same chains; the same residues are hidden before and after. "exact" is the
log-likelihood one residue a call, each chain in a random order of its own (the same before and after); "bound" is `nelbo`
with 16 mask sets a chain, the mean over such orders. Seed {seed}. float32, one thread, niced, on a machine that others used
too: training took {seconds:.0f} s of processor and {wall:.0f} s by the clock. The training loss, with dropout, fell from
{first:.2f} (first 100 steps) to {last:.2f} (last 100) nats per residue.
"""


@dataclass(frozen=True)
class Split:
    """Chains that are trained on, one of each held-out clone, and how many clones the first have."""

    train: list[antibodies.Chain]
    held: list[antibodies.Chain]
    far: list[antibodies.Chain]

    @classmethod
    def by_clone(cls, held: int) -> Split:
        """``held`` clones at random are held out; their first chain in the order of the file stands for them."""
        found = antibodies.chains()
        clones = list(dict.fromkeys(c.clone for c in found))
        out = {clones[i] for i in np.random.default_rng(SEED).permutation(len(clones))[:held]}
        known = [c for c in found if c.clone not in out]
        first = list({c.clone: c for c in reversed(found) if c.clone in out}.values())[::-1]
        far = [c for c in first if max(antibodies.identity(c, k) for k in known) <= FAR]
        return cls(known, first, far)


def main() -> None:
    """Trains, measures before and after, and prints or records the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="a few steps and chains, to try it")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=None, help="where it is trained")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    steps, exact = (20, 4) if options.small else (options.steps, 40)
    folder = options.folder or cache() / "finetune" / f"sapiens_vh_{steps}"
    torch.set_num_threads(1)
    split = Split.by_clone(40 if options.small else 300)
    before = unmask.load(fetch_model("sapiens_vh"))
    run = fine_tuning(before, before.encode([c.sequence for c in split.train]))
    run = replace(run, seed=SEED, optimiser=replace(run.optimiser, steps=steps))
    spent = trained(run, folder)
    after = unmask.load(folder / "model")
    tables = {
        "nats per residue by share hidden": by_share(before, after, split),
        "exact likelihood and bound, nats per residue": by_score(before, after, split.held[:exact]),
    }
    for name, rows in tables.items():
        print("\n".join(["", name, "", *record.table(rows)]))
    if options.write:
        print(record.write_parts("finetune", tables, notes(run, folder, split, spent)))


def trained(run: Any, folder: Path) -> dict[str, float]:
    """Trains, or goes on; seconds of processor and by the clock of all parts of the training."""
    place, began, wall = folder / "spent.json", time.process_time(), time.time()
    spent = json.loads(place.read_text()) if place.exists() else {"seconds": 0.0, "wall": 0.0}
    try:
        train(run, folder)
    finally:
        spent["seconds"] += time.process_time() - began
        spent["wall"] += time.time() - wall
        place.write_text(json.dumps(spent))
    return dict(spent)


def notes(run: Any, folder: Path, split: Split, spent: dict[str, float]) -> str:
    """The notes of the record."""
    losses = [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]
    few = max(100 // run.machine.log_every, 1)
    known = {c.sequence for c in split.train}
    overlap = sum(c.sequence in known for c in split.held)
    return NOTES.format(
        steps=run.optimiser.steps,
        rate=run.optimiser.learning_rate,
        ema=run.optimiser.ema,
        train=len(split.train),
        clones=len({c.clone for c in split.train}),
        held=len(split.held),
        overlap=overlap or "No",
        far=100 * FAR,
        resamples=RESAMPLES,
        seed=SEED,
        first=np.mean(losses[:few]),
        last=np.mean(losses[-few:]),
        **spent,
    )


def by_share(before: unmask.Model, after: unmask.Model, split: Split) -> list[dict[str, Any]]:
    """Nats per hidden residue at each share of held-out chains."""
    rows = []
    for name, some in (("held out", split.held), ("far", split.far)):
        if len(some) < 5:
            continue
        tokens = before.encode([c.sequence for c in some])
        for share in shares.SHARES:
            old, counts = shares.by_share(before, tokens, share, seed=SEED)
            new, _ = shares.by_share(after, tokens, share, seed=SEED)
            row = {"chains": name, "hidden": share, "n": len(some)}
            rows.append(row | compared(old.numpy(), new.numpy(), counts.numpy()))
    return rows


def by_score(before: unmask.Model, after: unmask.Model, some: list[antibodies.Chain]) -> list[dict[str, Any]]:
    """The exact likelihood in random and in left-to-right order, and the bound, of the same chains."""
    tokens = before.encode([c.sequence for c in some])
    counts, ids = np.array([len(c.sequence) for c in some]), torch.arange(len(some))

    def bound(model: unmask.Model) -> Any:
        return model.nelbo(tokens, generator=torch.Generator().manual_seed(SEED), item_ids=ids).value.numpy()

    def exact(model: unmask.Model, selector: Any) -> Any:
        parts = torch.split(ids, 20)
        return np.concatenate(
            [-model.log_likelihood(tokens[p], selector, order_ids=p).numpy() for p in parts]
        )

    measures = {
        "exact, random order": lambda m: exact(m, presets.random(1, SEED)),
        "exact, left to right": lambda m: exact(m, presets.left_to_right(1)),
        "bound over orders": bound,
    }
    return [
        {"score": name, "n": len(some)} | compared(measure(before), measure(after), counts)
        for name, measure in measures.items()
    ]


def compared(old: Any, new: Any, counts: Any) -> dict[str, str]:
    """Nats per residue before, after and their difference, with intervals."""
    return {"before": ratio(old, counts), "after": ratio(new, counts), "change": ratio(new - old, counts)}


def ratio(values: Any, counts: Any) -> str:
    """Sum of values over sum of counts, with its interval by a bootstrap of items."""
    draws = np.random.default_rng(SEED).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].sum(1) / counts[draws].sum(1), [0.025, 0.975])
    return f"{values.sum() / counts.sum():.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
