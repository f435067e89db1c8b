"""Does a search find more probable fillings, and more solutions, than the arg-max? Searches against network calls.

Run: python benchmarks/searching.py [--part sudoku | zebra | molecules] [--models ..] [--num 100] [--write]

    sudoku     --sets minimal "very hard" [--every | --fork] [--compile]
               --every: one cell a call instead of all that are sure; --fork: guesses where two symbols are as probable
    zebra      --models FOLDER .. [--fork]    fresh puzzles of the size that a model was trained on
    molecules  half of the symbols hidden, from left to right and by margin; drawn from the model where no data are there

No rule of a task is used: what counts is the model's own exact log-probability along the order. "found": mean of the most
probable filling's. "most probable solved": the first of the fillings found is the solution; "any": one of them is.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import record
import samplers
import sudoku_hard
import torch
from torch import Tensor

import unmask
from unmask import plans
from unmask.base.devices import has_bfloat16
from unmask.base.statistics import wilson
from unmask.command_line import sequences
from unmask.data import zebra
from unmask.engine.searching import Found
from unmask.orders import presets
from unmask.recipes.laboratory.zebra import ZebraData, to_tokens

MARGIN = presets.margin(1)
SURE = 0.999
BATCH = 16
JUDGE = 8
SEED = 20_261_128


@dataclass(frozen=True)
class Task:
    """What is to be filled: tokens int64 [n, L] along an order; ``right``: which fillings [b, W, L] of a part are it."""

    name: str
    denoiser: unmask.Denoiser
    tokens: Tensor
    selector: Any
    right: Callable[[Tensor, slice], Tensor]


def main() -> None:
    """Prints, and with --write records, one row for each task and way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", choices=tuple(PARTS), default="sudoku")
    parser.add_argument("--models", nargs="+", default=["sudoku_hard"])
    parser.add_argument("--num", type=int, default=100)
    parser.add_argument("--sets", nargs="+", default=["minimal", "very hard"])
    parser.add_argument("--every", action="store_true")
    parser.add_argument("--fork", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--ways", nargs="+", default=[name for name in WAYS if "judged" not in name and "first" not in name]
    )
    parser.add_argument("--split", default="valid")
    parser.add_argument("--write", metavar="NAME")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in options.models:
        for task in PARTS[options.part](name, options):
            plain: Tensor | None = None
            for way in options.ways:
                made, values = row(task, way, plain)
                plain = values if plain is None else plain
                rows.append(made)
                print(made, flush=True)
    print("\n".join(record.table(rows)))
    if options.write:
        notes = NOTES[options.part].format(half="bfloat16" if has_bfloat16() else "float32", **vars(options))
        print(record.write(f"searching_{options.write}", rows, notes + NOTE))


NOTE = """
"found": log-probability of the most probable filling, nats, mean over items; "over the first row": paired difference to the
first row's (the arg-max) with its standard error. Calls are full passes an item, of all hypotheses together. Draws are at
temperature 1, the same for 4, 8 and 16. "One after another": those of a call's batch count once. A beam "for the first"
ends what is no more probable than its best whole filling (``finish=False``). "certain": no filling along the order is more
probable, as `backtrack` knows.
"judged": the same fillings by their log-probability along a random order in 8 calls each, which are counted; "found" is
that one then, and the seconds are those of judging. "finished": no way is given up. Wilson 95 % intervals.
"""
NOTES = {
    "sudoku": """
Models {models}, {half}, part {split} of each set. Margin order; where the order is not told, all cells whose best symbol
has probability .999 or more go together, otherwise the one of largest margin (fork: `presets.fork`, one where two symbols
are about as probable).
""",
    "zebra": """
Models {models}, float32; fresh zebra puzzles of one solution, minimal in their clues. Margin order, one cell a call, or
`presets.fork(.999)`: all that are sure go together, guesses are made where two symbols are about as probable.
""",
    "molecules": """
Models {models}, float32. Half of each molecule's symbols hidden at random, one a call. "Solved": the hidden symbols are
found again, which nothing asks for: there are many good fillings.
""",
}


def cast(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The network in bfloat16, its logits in float32."""

    def run(tokens: Tensor, rows: Tensor | None = None) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            found: Tensor = network(tokens, rows=rows)
        return found.float()

    return run


# --- tasks ------------------------------------------------------------------------------------------


def sudokus(name: str, options: argparse.Namespace) -> Iterator[Task]:
    """Puzzles of each set."""
    network = unmask.load(name).denoiser.network
    network = sudoku_hard.compiled(network) if options.compile else network
    denoiser = unmask.from_logits(cast(network) if has_bfloat16() else network, 9, 9, with_rows=True)
    order, said = forked(options, (MARGIN, "a cell a call") if options.every else (sure, ""))
    for group in options.sets:
        puzzle, truth = (torch.as_tensor(x) for x in sudoku_hard.puzzles(group, options.split, options.num))
        yield Task(
            ", ".join(part for part in (name, group, said) if part),
            denoiser,
            puzzle,
            order,
            lambda found, part, truth=truth: (found == truth[part, None]).all(2),
        )


def forked(options: argparse.Namespace, other: tuple[Any, str]) -> tuple[Any, str]:
    """The order that --fork asks for, or another, and what it is called."""
    return (presets.fork(SURE), "fork") if options.fork else other


def sure(view: unmask.View) -> unmask.Choice:
    """All cells beyond the threshold, at least the one of largest margin."""
    found: unmask.Choice = unmask.selectors.threshold(unmask.scores.confidence, SURE)(view)
    best = MARGIN(view)
    many = (found.rows >= 0).sum(1, keepdim=True) > 1
    rest = torch.nn.functional.pad(best.rows, (0, found.rows.shape[1] - 1), value=-1)
    return unmask.Choice(torch.where(many, found.rows, rest))


def zebras(name: str, options: argparse.Namespace) -> Iterator[Task]:
    """Fresh puzzles of a model's size."""
    model = unmask.load(name)
    data = ZebraData(**model.config["data"])
    size = data.size()
    clues, grids = zebra.puzzles(options.num, SEED, size, weights=data.weights)
    tokens = to_tokens(clues, np.full_like(grids, -1), size)

    def right(found: Tensor, part: slice) -> Tensor:
        filled = found[..., size.most :]
        each = [zebra.is_solved(clues[part], filled[:, w].numpy(), size) for w in range(filled.shape[1])]
        return torch.as_tensor(np.stack(each, 1))

    order, said = forked(options, (MARGIN, "margin"))
    title = f"{size.houses} houses, {size.attributes} attributes ({Path(name).parent.name or name}), {said}"
    yield Task(title, model.denoiser, tokens, order, right)


def molecules(name: str, options: argparse.Namespace) -> Iterator[Task]:
    """Molecules half hidden, in two orders."""
    model = unmask.load(name)
    whole, source = held_out(model, options.num)
    symbols = whole != model.end
    noise = torch.rand(whole.shape, generator=torch.Generator().manual_seed(SEED)).masked_fill(~symbols, 2)
    hidden = noise.argsort(1).argsort(1) < symbols.sum(1, keepdim=True) // 2
    tokens = whole.masked_fill(hidden, model.denoiser.mask_id)
    for order, selector in (("left to right", presets.left_to_right(1)), ("margin", MARGIN)):
        yield Task(
            f"{name} {source}, {order}",
            model.denoiser,
            tokens,
            selector,
            lambda found, part: (found == whole[part, None]).all(2),
        )


def held_out(model: unmask.Model, count: int) -> tuple[Tensor, str]:
    """Test molecules; where they are not on this machine, as many that the model draws itself."""
    try:
        return sequences.read(model, Path("molecules/test"), count, samplers.SEED).tokens, "held out"
    except ValueError:
        start = model.all_masked(count, torch.Generator().manual_seed(SEED))
        random = torch.Generator().manual_seed(SEED)
        drawn = unmask.sample(model.denoiser, start, presets.left_to_right(1), generator=random)
        return drawn.tokens, "its own draws"


PARTS: dict[str, Callable[[str, argparse.Namespace], Iterator[Task]]] = {
    "sudoku": sudokus,
    "zebra": zebras,
    "molecules": molecules,
}

# --- ways -------------------------------------------------------------------------------------------

Way = Callable[[Task, slice], Found]


def beam(width: int, finish: bool = True) -> Way:
    """A beam."""
    return lambda task, part: unmask.search(
        task.denoiser, task.tokens[part], task.selector, width=width, finish=finish
    )


def back(count: int, finish: bool = False) -> Way:
    """Ways that go back."""
    return lambda task, part: unmask.backtrack(
        task.denoiser, task.tokens[part], task.selector, count=count, finish=finish
    )


def draws(count: int) -> Way:
    """The best of some draws, made four at a time and kept, so that eight begin with those four."""

    def found(task: Task, part: slice) -> Found:
        several = [four(task, part, n) for n in range(count // 4)]
        score, order = torch.cat([f.log_prob for f in several], 1).sort(dim=1, descending=True)
        tokens = torch.cat([f.tokens for f in several], 1)
        tokens = tokens.gather(1, order[..., None].expand_as(tokens))
        return Found(tokens, score, sum((f.nfe for f in several), torch.zeros(())))

    return found


def judged(name: str, way: Way) -> Way:
    """A way whose fillings are judged along a random order in `JUDGE` calls; what it finds is kept for the row before."""

    def found(task: Task, part: slice) -> Found:
        several = once(name, way)(task, part)
        judge = presets.random(partial(plans.rescaled, (1,) * JUDGE), SEED)
        return unmask.judged(task.denoiser, task.tokens[part], several, judge)

    return found


def once(name: str, way: Way) -> Way:
    """The same, worked out once for each part of a task."""

    def found(task: Task, part: slice) -> Found:
        key = (task.name, part.start, name)
        if key not in KEPT:
            KEPT[key] = way(task, part)
        return KEPT[key]

    return found


KEPT: dict[tuple[str, int, str], Found] = {}
DRAWN: dict[tuple[str, int, int], Found] = {}


def four(task: Task, part: slice, round_: int) -> Found:
    """Four draws of each item."""
    key = (task.name, part.start, round_)
    if key not in DRAWN:
        random = torch.Generator().manual_seed(1000 * part.start + round_)
        DRAWN[key] = unmask.best_of(
            task.denoiser, task.tokens[part], task.selector, count=4, generator=random
        )
    return DRAWN[key]


WAYS: dict[str, Way] = {
    "arg-max": beam(1),
    **{f"beam {n}": beam(n) for n in (2, 4, 8)},
    **{f"beam {n} for the first": beam(n, finish=False) for n in (4, 8, 16, 32, 64)},
    **{f"best of {n} draws": draws(n) for n in (4, 8, 16)},
    **{f"backtrack {n}": back(n) for n in (4, 8, 16, 64)},
    **{f"backtrack {n}, finished": back(n, finish=True) for n in (4, 8, 16)},
}
WAYS = {name: once(name, way) for name, way in WAYS.items()}
WAYS |= {f"{name}, judged": judged(name, way) for name, way in WAYS.items()}


def row(task: Task, way: str, plain: Tensor | None) -> tuple[dict[str, Any], Tensor]:
    """One way on one task, and the log-probability of each item's most probable filling, float64 [n]."""
    began, n = time.process_time(), len(task.tokens)
    parts = [slice(place, min(place + BATCH, n)) for place in range(0, n, BATCH)]
    found = [WAYS[way](task, part) for part in parts]
    right = [task.right(f.tokens, part) & (f.log_prob > -torch.inf) for f, part in zip(found, parts)]
    first, any_ = (
        int(sum(r.sum() for r in each)) for each in ([r[:, 0] for r in right], [r.any(1) for r in right])
    )
    values, calls = (
        torch.cat(x).double() for x in ([f.log_prob[:, 0] for f in found], [f.nfe for f in found])
    )
    gap = values - (values if plain is None else plain)
    over = f"{float(gap.mean()):.3f} +- {float(gap.std()) / math.sqrt(n):.3f}"
    low, high = (100 * x for x in wilson(first, n))
    certain = [f.certain for f in found if f.certain is not None]
    rounds = [f.rounds for f in found if f.rounds is not None]
    return {
        "task": task.name,
        "way": way,
        "n": n,
        "calls": round(float(calls.mean()), 1),
        "one after another": round(float(torch.cat(rounds).mean()), 1) if rounds else "",
        "found, nats": round(float(values.mean()), 3),
        "over the first row": "" if "judged" in way else over,
        "most probable solved %": f"{100 * first / n:.1f} [{low:.1f}, {high:.1f}]",
        "any %": round(100 * any_ / n, 1),
        "certain %": round(100 * float(torch.cat(certain).double().mean()), 1) if certain else "",
        "processor seconds": round(time.process_time() - began, 1),
    }, values


if __name__ == "__main__":
    main()
