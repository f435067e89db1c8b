"""Is a tuned choice right? Exact laws by enumeration, then models that people have, against what they take untuned.

Run: python benchmarks/tuning.py laws [--repeats 200] [--state FOLDER] [--write]      about 10 minutes of a quiet core
     python benchmarks/tuning.py models NAME ... [--calls 4 8 16] [--num N] [--state FOLDER] [--write]

NAME is a shipped or fetched model; its data are the test part that `unmask data fetch` brings, or fresh puzzles. FOLDER
keeps what was measured, sampler files, and the rows of laws and models that are done, which are not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch
from torch import Tensor

import unmask
from unmask import laws, plans
from unmask.base.statistics import wilson
from unmask.data.sources.fetch import fetch
from unmask.evaluation.tuning import costs as stepping
from unmask.evaluation.tuning import tasks, tuning
from unmask.evaluation.tuning.candidates import ORDERS
from unmask.evaluation.tuning.results import Tuned, interval
from unmask.orders import presets
from unmask.planning import families

F64 = torch.float64
BUDGETS = (2, 3, 4)
MORE = (1024, 4096)
"""Draws to choose and judge by, beside 256."""

ORDER_IDS = 128
"""Random orders that items of a half go along, over which the cost of one is averaged."""

Row = dict[str, Any]


def six_laws() -> dict[str, Any]:
    """Laws small enough to enumerate, of several kinds of dependence."""
    random = torch.Generator().manual_seed(0)
    stay = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=F64)
    start = torch.tensor([0.7, 0.3], dtype=F64)
    return {
        "random table, 3 symbols": laws.Table(
            torch.log_softmax(3 * torch.randn(3**6, generator=random, dtype=F64), 0), 6
        ),
        "spiky table": laws.Table(
            torch.log_softmax(8 * torch.randn(2**8, generator=random, dtype=F64), 0), 8
        ),
        "Markov chain": laws.Markov(start, stay, 8),
        "Curie-Weiss": laws.CurieWeiss(8, 1.2),
        "Polya urn": laws.Polya(torch.tensor([0.5, 0.7], dtype=F64), 8),
        "mixture": laws.Mixture(torch.tensor([0.3, 0.7], dtype=F64), stay, 8),
    }


def everything(law: Any) -> tuple[Tensor, Tensor]:
    """All sequences of a law that have a probability, and these."""
    tokens = torch.tensor(list(itertools.product(range(law.vocab_size), repeat=law.length)))
    shares = law.log_prob(tokens).exp()
    return tokens[shares > 1e-300], shares[shares > 1e-300]


# --- exact laws ---------------------------------------------------------------------------------------

LAW_NOTES = """
Six exact laws, whose KL (order disclosed) is known by enumeration; orders that are random are averaged over {ids} of them.

"costs": steps measured on 256 draws along the path of the plan that is told of, two equal steps and the best plan of three;
predicted mean and standard error against the exact KL, nats. "choice": `tuning.choose` on 256 draws (half to choose
by, half to judge by), budgets of 2, 3 and 4 calls, {repeats} repeats, of which those count that a plan won, for rules
choose their own number of calls: how often the winner's exact nats (entropy plus KL)
are more than one standard error of the mean of 128 items above those of the best candidate within its budget, Wilson 95 %;
how often those of the best of all candidates on all items of the same half are ("full grid", which the race cannot know);
how often they are more than 2 % above; calls of the race, those for the best defaults and the last look with it, as a share
of those of the full grid, mean and the most of a repeat, and beside it those that measured what steps cost. "more draws":
the same by more of them, {fewer} repeats; errors are those of half as many items. Laws and samplers are looked up in tables
of all sequences.
"""


class Listed:
    """A law by its conditionals in every state, which are looked up."""

    def __init__(self, law: Any) -> None:
        self.law, self.mask_id, self.vocab_size = law, law.mask_id, law.vocab_size
        self.table = law(torch.tensor(list(itertools.product(range(law.vocab_size + 1), repeat=law.length))))
        self.places = (law.vocab_size + 1) ** torch.arange(law.length - 1, -1, -1)

    def __call__(self, tokens: Tensor, rows: Tensor | None = None, **_: Any) -> Tensor:
        """As the law says."""
        found = self.table[(tokens * self.places).sum(1)]
        return found if rows is None else found.gather(1, rows[..., None].expand(-1, -1, self.vocab_size))

    def full(self, tokens: Tensor, rows: Tensor | None = None, **_: Any) -> tuple[Tensor, None]:
        """A call; there is no cache."""
        return self(tokens, rows), None

    def partial(self, tokens: Tensor, rows: Tensor, _cache: None, **_: Any) -> Tensor:
        """A call."""
        return self(tokens, rows)


class Looked:
    """Nats and calls of samplers on every sequence of a law along every public order, worked out once for all repeats."""

    def __init__(self, law: Listed) -> None:
        self.law, self.known = law, dict[str, tuple[Any, Any]]()
        size, length = law.vocab_size, len(law.places)
        self.tokens = torch.tensor(list(itertools.product(range(size), repeat=length)))
        self.places = size ** torch.arange(length - 1, -1, -1)

    def table(self, sampler: unmask.Sampler) -> tuple[Any, Any]:
        """Nats and calls, [orders, sequences]; one order where none is random."""
        key = dataclasses.replace(sampler, name="").to_json()
        if key not in self.known:
            orders = ORDER_IDS if "seed" in str(sampler.rule) else 1
            ids = torch.arange(orders).repeat_interleave(len(self.tokens))
            many = self.tokens.repeat(orders, 1)
            items = tasks.Items(many, torch.zeros_like(many, dtype=torch.bool))
            found = tasks.nats().of(self.law, items, sampler, ids)
            self.known[key] = tuple(x.reshape(orders, -1) for x in found)
        return self.known[key]

    def of(self, _: Any, items: tasks.Items, sampler: unmask.Sampler, ids: Tensor) -> tuple[Any, Any]:
        """Those of some sequences along their orders: what `tasks.nats` says."""
        nats, calls = self.table(sampler)
        at = (ids.numpy() % len(nats), (items.tokens * self.places).sum(1).numpy())
        return nats[at], calls[at]

    def exact(self, sampler: unmask.Sampler) -> float:
        """Expected nats: the entropy of the law, plus the KL."""
        shares, nats = self.law.law.log_prob(self.tokens).exp().numpy(), self.table(sampler)[0].mean(0)
        return float((shares * nats)[shares > 1e-300].sum())


def on_laws(repeats: int, state: Path | None) -> tuple[dict[str, list[Row]], str]:
    """Predicted costs, and choices by draws."""
    found: dict[str, list[Row]] = {"costs": [], "choice": [], "more draws": []}
    for name, law in six_laws().items():
        path = None if state is None else state / f"{name}, {repeats} repeats.json"
        make = functools.partial(of_law, name, law, repeats)
        for part, rows in kept_rows(path, make).items():
            found[part] += rows
        print(found["choice"][-1], flush=True)
    for (name, law), num in itertools.product(six_laws().items(), MORE):
        path = None if state is None else state / f"{name}, {num} draws.json"
        make = functools.partial(with_more, name, law, repeats // 10, num)
        for part, rows in kept_rows(path, make).items():
            found[part] += rows
            print(*rows, flush=True)
    return found, LAW_NOTES.format(ids=ORDER_IDS, repeats=repeats, fewer=repeats // 10)


def of_law(name: str, law: Any, repeats: int) -> dict[str, list[Row]]:
    """The rows of one law."""
    return {"costs": cost_rows(name, law), "choice": [choice_row(name, law, repeats)]}


def with_more(name: str, law: Any, repeats: int, num: int) -> dict[str, list[Row]]:
    """The row of one law for more draws."""
    return {"more draws": [choice_row(name, law, repeats, num)]}


def kept_rows(path: Path | None, make: Callable[[], dict[str, list[Row]]]) -> dict[str, list[Row]]:
    """Rows from a file, or else made now and kept there."""
    if path is not None and path.exists():
        return dict(json.loads(path.read_text()))
    found = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    return found


def cost_rows(name: str, law: Any) -> list[Row]:
    """Predicted against exact costs for adaptive orders."""
    rows = []
    tokens = law.sample(256, torch.Generator().manual_seed(1))
    for order in ("confidence", "margin", "entropy"):
        make = getattr(presets, order)
        best = stepping.planned(law, tokens, make, 3, grid=law.length)
        equal = stepping.measure(law, tokens, make, plans.uniform(law.length, 2), grid=law.length)
        for costs in (equal, best):
            mean, error = costs.of(costs.path)
            exact = divergence(law, functools.partial(_always, make(costs.path)), 1)
            row = {
                "law": name,
                "order": order,
                "plan": str(costs.path),
                "predicted": mean,
                "+-": error,
                "exact": exact,
            }
            rows.append(row | {"z": (mean - exact) / error if error > 0 else 0.0})
    return rows


def _always(selector: unmask.Selector, _: int) -> unmask.Selector:
    """The same selector for every order."""
    return selector


def divergence(law: Any, make: Callable[[int], unmask.Selector], orders: int, substeps: int = 1) -> float:
    """KL(law, sampler) of a selector, order disclosed, by enumeration: the mean over order_ids 0..orders-1."""
    tokens, shares = everything(law)
    values = []
    for k in range(orders):
        ids = torch.full((len(tokens),), k)
        found = unmask.log_likelihood(law, tokens, make(k), substeps=substeps, order_ids=ids)
        values.append(float((shares * (law.log_prob(tokens) - found)).sum()))
    return float(np.mean(values))


def choice_row(name: str, law: Any, repeats: int, num: int = 256) -> Row:
    """How often the choice by draws is far from the best, and that of a full grid on the same items, and what it takes."""
    listed = Listed(law)
    looked = Looked(listed)
    metric = tasks.Metric("nats", "nats per item", looked.of)
    outcomes, share, more = [], [], []
    for repeat in range(repeats):
        draws = law.sample(num, torch.Generator().manual_seed(1000 + repeat))
        items = tasks.Items(draws, torch.zeros_like(draws, dtype=torch.bool))
        found = tuning.choose(listed, items, BUDGETS, most=num // 2, seed=repeat, metric=metric)
        share.append(found.race.spent / found.race.full)
        more.append(found.measuring / found.race.full)
        outcomes += list(judged(looked, found, tasks.halves(items, repeat)[0]))
    wrong, far, grid = np.array(outcomes).sum(0).tolist()
    trials = len(outcomes)
    low, high = (100 * x for x in wilson(wrong, trials))
    tokens, shares = everything(law)
    row = {
        "law": name,
        "draws": num,
        "entropy": -float((shares * law.log_prob(tokens)).sum()),
        "choices": trials,
    }
    row |= {"far %": 100 * wrong / trials, "95 %": f"{low:.1f} to {high:.1f}"}
    row |= {"full grid far %": 100 * grid / trials, "2 % above %": 100 * far / trials}
    row |= {"calls, % of the grid": 100 * float(np.mean(share)), "at most": 100 * max(share)}
    return row | {"for costs, %": 100 * float(np.mean(more))}


def judged(looked: Looked, found: Tuned, items: tasks.Items) -> Iterator[tuple[bool, bool, bool]]:
    """For each budget that a plan won: whether it is an error above the best, 2 % above, and the full grid's an error."""
    planned = [c for c in found.candidates if c.calls]
    nats = np.array([looked.exact(c.sampler) for c in planned])
    ids = torch.arange(len(items))
    losses = np.stack([looked.of(None, items, c.sampler, ids)[0] for c in planned])
    for budget, winner in zip(found.budgets, found.winners):
        if winner is None or not winner.candidate.calls:
            continue
        within = np.array([c.calls <= budget for c in planned])
        best, mine = nats[within].min(), looked.exact(winner.candidate.sampler)
        error = (winner.interval[1] - winner.interval[0]) / 4
        grid = np.where(within, losses.mean(1), np.inf).argmin()
        other = losses[grid].std(ddof=1) / math.sqrt(len(items))
        yield mine > best + error, mine > 1.02 * best, nats[grid] > best + other


# --- models -------------------------------------------------------------------------------------------

MODEL_NOTES = """
For each model and budget of calls: the winner of `unmask tune` as judged on items that the choice has not seen, mean and
95 % interval, beside the best order in equal steps ("default", of random, confidence, margin, entropy, left to right), and
what the choice gains on the same items. "needs": the calls in which tuned choices reach the loss of that default, between
budgets by their losses, linear in the logarithm of the calls; "at most" where the smallest budget reaches it. "times fewer"
is the calls of the default by those. Items are test data, all hidden, or puzzles with clues.

"plans": for the order of the best default in the middle budget, the plan of as many steps whose costs, measured on 16 items
of the choosing half along equal steps, are least: what it gains over equal steps in nats, predicted by those costs, and
realised on the unseen half, both with 95 % intervals.

"what it took": calls of the race (those for the best defaults with it) and for costs of steps, as shares of all samplers on
all items; seconds until the first leaders of all budgets were shown, and of all, one thread on a machine with other work.
Where a tuning went on from an earlier one (same items, losses kept), seconds are those of both, first s of the first.
"""


def on_models(
    names: list[str], budgets: list[int], num: int, state: Path | None
) -> tuple[dict[str, list[Row]], str]:
    """A row for each model and budget."""
    parts: dict[str, list[Row]] = {"choices": [], "plans": [], "what it took": []}
    for name in names:
        folder = None if state is None else state / name
        make = functools.partial(of_model, name, budgets, num, folder)
        for part, rows in kept_rows(None if folder is None else folder / "rows.json", make).items():
            parts[part] += rows
            print(*rows, sep="\n", flush=True)
    return parts, MODEL_NOTES


def with_earlier(path: Path, took: dict[str, float]) -> dict[str, float]:
    """Seconds with those of runs that this one went on from, kept in a file; the first answer is the first run's."""
    before = json.loads(path.read_text()) if path.exists() else {"first s": took["first s"], "s": 0.0}
    both = {"first s": before["first s"], "s": before["s"] + took["s"]}
    path.write_text(json.dumps(both))
    return both


def of_model(name: str, budgets: list[int], num: int, folder: Path | None) -> dict[str, list[Row]]:
    """The rows of one model."""
    began, first = time.perf_counter(), list[float]()

    def tell(line: str) -> None:
        if line.startswith("after") and not first:
            first.append(time.perf_counter() - began)
        print(f"{name}, {time.perf_counter() - began:.0f} s: {line}", flush=True)

    model = unmask.load(name)
    items, metric = items_of(model, name, num)
    kept = None if folder is None else folder / "parts.jsonl"
    found = tuning.tune(model, items, budgets, metric=metric, state=kept, tell=tell)
    took = {"first s": first[0], "s": time.perf_counter() - began}
    if folder is not None:
        found.save(folder)
        took = with_earlier(folder / "seconds.json", took)
    row = {"model": name, "items": len(items), "samplers": len(found.candidates), "race": found.race.spent}
    row |= {"race %": 100 * found.race.spent / found.race.full}
    row |= {"costs %": 100 * found.measuring / found.race.full} | took
    plans_ = plan_rows(model, name, items, found) if metric.law else []
    return {"choices": model_rows(name, found), "plans": plans_, "what it took": [row]}


def items_of(model: unmask.Model, name: str, num: int) -> tuple[tasks.Items, tasks.Metric]:
    """What to generate, and what counts."""
    if not model.sudoku:
        return tasks.items_of(model, tokens_of(model, name, num)), tasks.nats()
    import sudoku_hard

    puzzle, truth = (torch.as_tensor(x) for x in sudoku_hard.puzzles("minimal", "valid", num))
    return tasks.Items(truth, puzzle != model.denoiser.mask_id), tasks.exact()


def plan_rows(model: unmask.Model, name: str, items: tasks.Items, found: Tuned) -> list[Row]:
    """What a plan was said to gain over equal steps, and what it gains."""
    place = len(found.budgets) // 2
    usual, steps = found.defaults[place], found.budgets[place]
    if usual is None:
        return []
    order = usual.candidate.order
    choosing, judging = tasks.halves(items)
    some = choosing.at(slice(0, 16))
    costs = stepping.measure(
        model.denoiser,
        some.tokens,
        ORDERS[order],
        lambda n: families.uniform(n, min(steps, n)),
        masked=~some.visible,
    )
    best = costs.for_counts(steps)
    equal = lambda n: families.uniform(n, min(steps, n))  # noqa: E731
    said = costs.each(equal) - costs.each(best)
    samplers = [
        unmask.Sampler(ORDERS[order](functools.partial(plans.rescaled, plan(costs.count))))
        for plan in (equal, best)
    ]
    ids = torch.arange(len(judging))
    losses = []
    for sampler in samplers:
        parts = [
            tasks.nats().of(model.denoiser, judging.at(p.numpy()), sampler, p)[0]
            for p in torch.split(ids, 16)
        ]
        losses.append(np.concatenate(parts))
    gained = losses[0] - losses[1]
    row: Row = {"model": name, "order": order, "plan": str(best(costs.count)), "n": len(gained)}
    return [row | {"predicted": spanned(said), "realised": spanned(gained)}]


def spanned(values: Any) -> str:
    """A mean with its interval."""
    low, high = interval(values)
    return f"{values.mean():.2f} [{low:.2f}, {high:.2f}]"


def tokens_of(model: unmask.Model, name: str, num: int) -> Tensor:
    """Test sequences of a shipped model's data; heavy chains, one of a clone, or receptors for models of these."""
    from unmask.command_line import sequences
    from unmask.data import tokens as folders
    from unmask.data.sources import antibodies
    from unmask.data.sources.receptors import ALPHABET

    if name in ("antiberty", "sapiens_vh"):
        each = {c.clone: c.sequence for c in antibodies.chains()}
        return model.encode(list(each.values())[:num])
    if name.startswith("sceptr"):
        part = folders.load(fetch("receptors") / "test")
        texts = ["".join(ALPHABET[i] for i in part.item(n)) for n in range(part.items)]
        return model.encode(list(dict.fromkeys(texts))[:num])
    data = {"digits": "mnist", "records": "fingerprints"}
    return sequences.read(model, fetch(data.get(name, name)) / "test", num, 0).tokens


def model_rows(name: str, found: Tuned) -> list[Row]:
    """A row for each budget."""
    rows = []
    for budget, winner, default, gain in zip(found.budgets, found.winners, found.defaults, found.gains):
        row: Row = {"model": name, "calls": budget, "unit": found.metric.unit}
        if winner is not None and default is not None and gain is not None:
            least, at_most = needed(found, default)
            row |= {"winner": winner.candidate.name, "takes": calls_of(winner), "n": winner.items}
            row |= {"loss": shown(winner), "default": default.candidate.name, "its loss": shown(default)}
            row |= {"gain": f"{gain[0]:.2f} [{gain[1]:.2f}, {gain[2]:.2f}]"}
            row |= {
                "needs": f"{'at most ' if at_most else ''}{least:.3g}",
                "times fewer": default.calls / least,
            }
        rows.append(row)
    return rows


def needed(found: Tuned, default: Any) -> tuple[float, bool]:
    """Calls in which tuned choices reach a default's loss, and whether they may be fewer."""
    known = sorted((w.calls, w.loss) for w in found.winners if w is not None)
    before: tuple[float, float] | None = None
    for calls, loss in known:
        if loss <= default.loss:
            if before is None:
                return calls, True
            part = (before[1] - default.loss) / (before[1] - loss)
            return before[0] * (calls / before[0]) ** part, False
        before = calls, loss
    return float("inf"), False


def calls_of(row: Any) -> str:
    """Calls on unseen items, with their interval where they vary."""
    low, high = row.calls_interval
    return f"{row.calls:.3g}" if low == high else f"{row.calls:.3g} [{low:.3g}, {high:.3g}]"


def shown(row: Any) -> str:
    """A loss with its interval."""
    return f"{row.loss:.2f} [{row.interval[0]:.2f}, {row.interval[1]:.2f}]"


def main() -> None:
    """Prints, and with --write records, the tables of one part."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("laws", "models"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--calls", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--num", type=int, default=256)
    parser.add_argument("--state", type=Path, default=None)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.part == "laws":
        tables, notes = on_laws(options.repeats, options.state)
    else:
        tables, notes = on_models(options.names, options.calls, options.num, options.state)
    tables = {name: rows for name, rows in tables.items() if rows}
    print(
        "\n".join([notes, *(line for rows in tables.values() if rows for line in ("", *record.table(rows)))])
    )
    if options.write:
        print(record.write_parts(f"tuning_{options.part}", tables, notes))


if __name__ == "__main__":
    main()
