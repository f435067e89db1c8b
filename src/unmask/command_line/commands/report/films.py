"""What was sampled: films of unmasking, and maps of the order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unmask import pictures
from unmask.command_line.commands.report.reading import Result
from unmask.command_line.output import Report, percent
from unmask.pictures import Item, Look

MOST_LINES = 200
"""Samples that are listed where there is no trace."""


def shown(result: Result) -> tuple[Look, list[Item]]:
    """The look and the items of a traced result; none without a trace."""
    traced = [s for s in result.record["samples"] if s.get("steps")]
    look = Look.of(result.record["look"]) if "look" in result.record else older(result.record, traced)
    return look, [_item(sample, k, look) for k, sample in enumerate(traced)]


def _item(sample: Report, number: int, look: Look) -> Item:
    known = sample.get("log_prob")
    told = f"sample {number + 1}: {'' if known is None else f'{known:.2f} nats in '}{sample['nfe']:.4g} calls"
    if "start" in sample:
        return Item(sample["start"], sample["steps"], told)
    return Item.before(_tokens(sample), sample["steps"], look.mask, told)


def older(record: Report, traced: Sequence[Report]) -> Look:
    """The look of a trace from before there were looks: the texts are those of the samples, a character a symbol."""
    texts: dict[int, str] = {}
    for sample in traced:
        for step in sample["steps"]:
            texts |= {
                s: sample["text"][at]
                for at, s in zip(step["positions"], step["symbols"])
                if at < len(sample["text"])
            }
    mask = record.get("units", {}).get("mask_id", -1)
    board = all(len(sample["text"]) == 81 and sample["text"].isdigit() for sample in traced)
    given = {-2 - ord(c): c for sample in traced for c in sample["text"]}
    return Look(
        "grid" if board else "text",
        {k: v for k, v in (given | texts).items() if k != mask},
        mask,
        9 if board else 0,
    )


def _tokens(sample: Report) -> list[int]:
    """Stand-ins for the tokens of a finished sample, of which only the text is known."""
    places = [at for step in sample["steps"] for at in step["positions"]]
    text = sample["text"].ljust(max(places, default=-1) + 1)
    return [-2 - ord(c) for c in text]


def title(result: Result) -> str:
    """A result in a line."""
    record = result.record
    how = [str(record[k]) for k in ("model", "order", "symbols") if record.get(k)]
    return f"{result.name}: {', '.join(how)}" if how else result.name


def accuracy(record: Report) -> str:
    """How many are right, where that has a meaning."""
    found: Mapping[str, Any] = record.get("accuracy") or {}
    told = [
        f"{name.replace('_', ' ')} {percent(found[name])}"
        for name in ("exact_match", "solved")
        if found.get(name)
    ]
    return f"{', '.join(told)} (Wilson 95 %)." if told else ""


def sampled(results: Sequence[Result]) -> list[Result]:
    """Those results that hold samples."""
    return [r for r in results if isinstance(r.record.get("samples"), list)]


def played(results: Sequence[Result]) -> str:
    """A film of each traced result; those without a trace as lines."""
    return "".join(_film(result) for result in sampled(results))


def _film(result: Result) -> str:
    look, items = shown(result)
    if not items:
        return _lines(result)
    return pictures.film(title(result), look, items, accuracy(result.record))


def _lines(result: Result) -> str:
    """Samples as text, with a hint at what would show their steps."""
    rows = [(s["text"], s.get("log_prob"), s.get("nfe")) for s in result.record["samples"][:MOST_LINES]]
    table = pictures.table(["sample", "nats", "calls"], rows)
    hint = "Sampled without --trace: with it, the page plays the steps."
    return pictures.figure(title(result), table, f"{accuracy(result.record)} {hint}".strip())


def orders(results: Sequence[Result]) -> str:
    """A map of the order of each traced result."""
    found = ((result, *shown(result)) for result in sampled(results))
    name = "When is which position unmasked?"
    return "".join(order_of(f"{name} {title(r)}", look, items) for r, look, items in found if items)


def order_of(name: str, look: Look, items: Sequence[Item]) -> str:
    """The map of the order that suits a look."""
    ranks = [item.ranks() for item in items]
    if look.columns:
        return pictures.order_map(name, ranks, look.columns, look.channels)
    return pictures.over_positions(name, ranks)
