"""What do published antibody models know, in which order, and what does a plan cost them? AntiBERTy and Sapiens.

Run: python benchmarks/antibodies.py [--small] [--models NAME ..] [--minutes M] [--parts FOLDER] [--write]; it needs the
extra ``hf``, and fetches the models and the chains (`unmask data fetch`). Every finished part is kept in FOLDER (default:
in the cache), so an interrupted run goes on; --write records what is there. At full size some 25 minutes of a quiet core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import antibody_parts as lab
import numpy as np
import record
import torch

import unmask
from unmask import plans, profiles
from unmask.base.statistics import t_quantile
from unmask.data.sources.cache import cache

RESAMPLES = 2000

TURNS = (
    *("scores", "cdrs", "cdrs infill N/4", "whole N/4", "scores antiberty", "cdrs antiberty"),
    *("cdrs infill antiberty", "whole", "cdrs infill", "whole infill"),
)
"""Parts in the order of doing them."""

NOTES = """
Real heavy chains of human antibodies (`unmask data fetch antibodies`), one of each clone. Models: {models}, float32.
They were taught at low shares of hidden residues, not as diffusion models. Intervals are at 95 %: of means over residues by
a bootstrap of whole chains ({resamples} resamples), of costs by Student's t over chains; n counts chains. "first guess":
the share of residues that were the model's most probable one when their turn came, the true ones before them being
visible; "recovery": the same where the first guesses themselves stay, as when a chain is filled in. Orders as in
`unmask.orders.presets`; calls are ceil(share N), N the hidden residues, and the plan is uniform. Seed {seed}.

"known" figures were measured when the packages were found, on a sample that was not kept; how much they depend on it
the rows tell. "diverse": at most 70 % identical to each other, one of a clone; these lie further from germline genes.

Costs of plans: nats above one residue a call, in a random order. "predicted" is what one half of the profile's chains says
of a plan made from the other half (`plans.describe`), scaled to the mean length; "realised" is the difference of exact
log-likelihoods of further chains, each in its own order. The chains of the three sets share no clone.{left}
"""


def main() -> None:
    """Measures what is not there yet, and prints or records the tables of what is."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true", help="a few chains, to try it")
    parser.add_argument("--models", nargs="+", default=list(lab.FULL), choices=list(lab.FULL))
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no part after so many")
    parser.add_argument("--parts", type=Path, default=None, help="folder of finished parts")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    folder = options.parts or cache() / "antibody_parts"
    torch.set_num_threads(1)
    chains, sizes = lab.Chains.split(), lab.SMALL if options.small else lab.FULL
    measure(options, folder, chains, sizes)
    tables = report(options, folder, chains, sizes)
    for name, rows in tables.items():
        print("\n".join(["", name, "", *record.table(rows)]))
    if options.write:
        left = missing(options, folder, chains, sizes)
        notes = NOTES.format(models=", ".join(options.models), resamples=RESAMPLES, seed=lab.SEED, left=left)
        print(record.write_parts("antibodies", tables, notes))


def missing(options: Any, folder: Path, chains: lab.Chains, sizes: dict[str, lab.Sizes]) -> str:
    """What the parts that are done took, and which are not done, in words."""
    done, small = lab.read(folder), "small" * options.small
    names = [p.name for m in options.models for p in lab.parts_of(m, sizes[m], chains, options.small)]
    names += [title(m, small, f"realised {f}") for m in options.models for f in ("optimal", *lab.FAMILIES)]
    took = [done[name] for name in names if name in done]
    seconds, wall = (sum(part[k] for part in took) for k in ("seconds", "wall"))
    left = ", ".join(name for name in names if name not in done) or "nothing"
    return f"\n\nThe parts took {seconds:.0f} s of processor and {wall:.0f} s by the clock. Not measured: {left}."


def measure(options: Any, folder: Path, chains: lab.Chains, sizes: dict[str, lab.Sizes]) -> None:
    """Does every part that has no file, what says most for its cost first, until the time is over."""
    began, small = time.monotonic(), "small" * options.small
    parts = [p for m in options.models for p in lab.parts_of(m, sizes[m], chains, options.small)]
    first = [p for p in parts if p.name.split()[-1] in ("fit", "judge")]
    for part in first:
        lab.run(part, folder)
    costs = [p for m in options.models for p in realising(m, sizes[m], chains, folder, small)]
    for part in sorted([*costs, *parts], key=lambda p: rank(p.name)):
        if time.monotonic() - began > 60 * options.minutes:
            print("time is over; run again to go on")
            return
        lab.run(part, folder)


def rank(name: str) -> int:
    """Sorts parts: what says most for its cost first, and AntiBERTy, whose calls are thirty times dearer, later."""
    words = set(name.split())
    kind = "cdrs" if "cdrs" in words else "whole" if "whole" in words else "scores"
    plain = " ".join([kind, *(w for w in ("infill", "antiberty") if w in words)])
    early = f"{plain} N/4"
    turn = early if "N/4" in words and early in TURNS else plain
    return 0 if "share" in words else 1 + TURNS.index(turn)


def title(*words: str) -> str:
    """The name of a part."""
    return " ".join(w for w in words if w)


def realising(model: str, sizes: lab.Sizes, chains: lab.Chains, folder: Path, small: str) -> list[lab.Part]:
    """The parts that run the three plans on chains which the profile has not seen."""
    plan_of = planned(model, folder, small)[1]
    denoiser = lab.lazily(lambda: lab.denoiser_of(model))
    some = chains.third[: sizes.realised]
    return [
        lab.Part(title(model, small, f"realised {name}"), lambda p=plan: lab.along(denoiser(), some, p))
        for name, plan in plan_of.items()
    ]


def planned(
    model: str, folder: Path, small: str
) -> tuple[unmask.Profile, dict[str, Callable[[int], tuple[int, ...]]]]:
    """The fitted profile, which carries its held-out half, and three plans for any length."""
    halves = [
        unmask.Profile.from_json(lab.read(folder)[title(model, small, half)]["result"]["profile"])
        for half in ("fit", "judge")
    ]
    fitted = profiles.choose(*halves)
    others = {name: (lambda n, f=f: f(n, lab.STEPS)) for name, f in lab.FAMILIES.items()}
    return fitted, {"optimal": plans.for_counts(fitted, steps=lab.STEPS), **others}


# --- the tables -------------------------------------------------------------------------------------


def report(
    options: Any, folder: Path, chains: lab.Chains, sizes: dict[str, lab.Sizes]
) -> dict[str, list[dict[str, Any]]]:
    """All tables, from the files."""
    done, small = lab.read(folder), "small" * options.small
    models = options.models
    tables = {
        "nats per residue by share hidden": [r for m in models for r in share_rows(done, m, small)],
        "predicted and realised cost of plans, nats per chain": [
            r for m in models for r in plan_rows(done, m, small, folder, chains.third[: sizes[m].realised])
        ],
        "exact, bound and pseudo, nats per residue": [
            r for m in models for r in score_rows(done, m, small, scored(chains, sizes[m]))
        ],
        "the three CDRs hidden": [r for m in models for r in order_rows(done, m, small, "cdrs")],
        "whole chains of at most 70 % identity": [
            r for m in models for r in order_rows(done, m, small, "whole")
        ],
    }
    return {name: rows for name, rows in tables.items() if rows}


def scored(chains: lab.Chains, sizes: lab.Sizes) -> list[Any]:
    """The chains that all scores are of."""
    return chains.third[: sizes.realised][:30]


def share_rows(done: dict[str, Any], model: str, small: str) -> list[dict[str, Any]]:
    """Nats per hidden residue at each share, beside what was measured before."""
    rows = []
    for chains in ("", "diverse"):
        for share, known in zip(lab.SHARES, lab.KNOWN[model]):
            name = title(model, small, f"share {share}", chains)
            if name in done:
                found = done[name]["result"]
                row = {"model": model, "chains": chains or "of random clones", "hidden": share}
                row |= {"n": len(found["nats"]), "nats": ratio(found["nats"], found["residues"])}
                rows.append(row | {"known": known})
    return rows


def order_rows(done: dict[str, Any], model: str, small: str, region: str) -> list[dict[str, Any]]:
    """Nats per residue, first guesses and recovery by order and calls, with the difference to a random order."""
    rows = []
    for label in lab.CALLS:
        base = done.get(title(model, small, region, label, "random"))
        for order in lab.ORDERS:
            name = title(model, small, region, label, order)
            if name not in done:
                continue
            found, filled = done[name]["result"], done.get(f"{name} infill")
            row = {"model": model, "calls": label, "order": order, "n": len(found["nats"])}
            row["nats"] = ratio(found["nats"], found["residues"])
            if base is not None and order != "random":
                gained = np.subtract(found["nats"], base["result"]["nats"])
                row["less random"] = ratio(gained, found["residues"])
            row["first guess %"] = ratio(100 * np.array(found["hits"]), found["residues"], digits=1)
            if filled is not None:
                hits = 100 * np.array(filled["result"]["hits"])
                row["recovery %"] = ratio(hits, filled["result"]["residues"], digits=1)
            rows.append({"less random": "", **row} if order == "random" else row)
    names = ("model", "calls", "order", "n", "nats", "less random", "first guess %", "recovery %")
    return [{k: row.get(k, "") for k in names} for row in rows]


def plan_rows(
    done: dict[str, Any], model: str, small: str, folder: Path, some: list[Any]
) -> list[dict[str, Any]]:
    """Cost above one by one: what the half of the profile that the plan has not seen says, and what chains cost."""
    alone = done.get(title(model, small, "realised one by one"))
    if alone is None or title(model, small, "judge") not in done:
        return []
    fitted, plan_of = planned(model, folder, small)
    scale = float(np.mean([len(c.sequence) for c in some])) / fitted.length
    rows = []
    for name, plan in plan_of.items():
        found = done.get(title(model, small, f"realised {name}"))
        if found is not None:
            told = plans.describe(plan(fitted.length), fitted)
            said, interval = told.kl * scale, [scale * x for x in told.interval or (np.nan, np.nan)]
            excess = np.subtract(found["result"], alone["result"])
            mean, error = float(excess.mean()), float(excess.std(ddof=1) / len(excess) ** 0.5)
            half = error * t_quantile(0.95, len(excess) - 1)
            row = {"model": model, "plan": f"{name}, {lab.STEPS} calls", "n": len(excess)}
            row |= {"predicted": f"{said:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"}
            row |= {"realised": f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]"}
            row["z"] = (mean - said) / float(np.hypot(error, scale * (told.kl_stderr or 0.0)))
            rows.append(row)
    return rows


def score_rows(done: dict[str, Any], model: str, small: str, some: list[Any]) -> list[dict[str, Any]]:
    """Three scores of the same chains, and the exact one along two orders."""
    names = {
        "exact, random order": "realised one by one",
        "exact, left to right": "left to right",
        "bound over orders": "bound",
        "pseudo-likelihood (no law)": "pseudo",
    }
    counts, rows = [len(c.sequence) for c in some], []
    for label, part in names.items():
        found = done.get(title(model, small, part))
        if found is not None:
            result = found["result"]
            nats = (result["nats"] if isinstance(result, dict) else result)[: len(counts)]
            rows.append({"model": model, "score": label, "n": len(nats), "nats": ratio(nats, counts)})
    return rows


def ratio(values: Any, counts: Any, digits: int = 3) -> str:
    """Sum of values over sum of counts, with its interval by a bootstrap of items."""
    values, counts = np.asarray(values, float), np.asarray(counts, float)
    draws = np.random.default_rng(lab.SEED).integers(len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].sum(1) / counts[draws].sum(1), [0.025, 0.975])
    return f"{values.sum() / counts.sum():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


if __name__ == "__main__":
    main()
