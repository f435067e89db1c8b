"""``unmask compress``: files, their lines or the images in them to an archive."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from unmask import codec
from unmask.base.progress import IN_TURN, Pieces, Progress
from unmask.base.types import Plan
from unmask.codec import container, subjects, writing
from unmask.codec.inspection import Summary
from unmask.codec.settings import Order, Settings, full_passes
from unmask.codec.subjects import Item, Subject
from unmask.command_line.choosing.files import read_sampler
from unmask.command_line.commands.archives.inspect import described
from unmask.command_line.commands.archives.sources import Kind, Pile, taken
from unmask.command_line.options import alone, check_seed, in_range
from unmask.command_line.output import Report, say
from unmask.data import files
from unmask.data.vocabularies import Levels
from unmask.models import Model, load, measured_profile
from unmask.planning import plans


def run_compress(
    model_name: str,
    sources: tuple[Path, ...],
    out: Path,
    *,
    kind: Kind,
    calls: int | None,
    sampler: Path | None = None,
    order: str | None,
    substeps: int | None,
    together: int = 1,
    seed: int,
    batch: int,
    verify: bool,
    quiet: bool,
    pieces: Pieces = IN_TURN,
) -> Report:
    """Compresses files, their lines or the images in them; ``pieces`` says who makes the blocks."""
    in_range("substeps", substeps, 1, 2**16)
    in_range("together", together, 1, container.BLOCK_ITEMS)
    check_seed(seed)
    alone(sampler, calls=calls, order=order, substeps=substeps, seed=seed)
    model = load(model_name)
    if order is not None and order not in (names := [known.name for known in codec.ORDERS]):
        raise ValueError(f"--order {order}: expected one of {', '.join(names)}")
    images = kind == "images"
    if images != isinstance(model.vocabulary, Levels):
        raise ValueError(
            f"model '{model.name}' is {'not ' if images else ''}one of images; expected {'no ' if images else ''}--images"
        )
    pile = taken(sources, kind, quiet)
    subject = subjects.of_model(model)
    in_range("calls", calls, 1, subject.block or subject.length, ", the positions of a row")
    filed = None if sampler is None else read_sampler(sampler, model)
    settings = (
        suited(model, subject, calls, order, substeps, seed) if filed is None else Settings(sampler=filed)
    )
    returns = subjects.ARRAYS if images else subjects.BYTES
    job = writing.prepare(
        subject,
        settings,
        returns=returns,
        named=pile.named,
        batch=batch,
        verify=verify,
        together=together,
    )
    if pieces.shared:
        said = container.read_header(io.BytesIO(job.header))
        pieces.of(**said, command="compress", verify=verify, kind=kind)
    with Progress("compress", pile.total or 0, quiet=quiet or pile.total is None) as progress:
        summary = _written(out, job, pile, lambda n, s: progress.advance(n, **_bits(s)), pieces)
    _weigh(summary, model.name, quiet)
    return (
        {"command": "compress", "model": model.name, "file": str(out)}
        | described(summary)
        | ({} if filed is None else {"sampler": filed.record()})
    )


def _weigh(summary: Summary, name: str, quiet: bool) -> None:
    """A remark where nothing was won."""
    if summary.source_bytes and summary.bytes > summary.source_bytes:
        say(
            f"the archive is larger than its source: {summary.bytes} bytes for {summary.source_bytes}; "
            f"model '{name}' may have been trained on something else, or there is too little to win",
            quiet,
        )


def _bits(summary: Summary) -> dict[str, float]:
    """Bits per symbol, where something was coded."""
    return {"bits_per_symbol": summary.bits_per_symbol} if summary.symbols else {}


def _written(
    out: Path, job: writing.Job, pile: Pile, advance: Callable[[int, Summary], object], pieces: Pieces
) -> Summary:
    """Writes the archive; `Partly` where it is not joined here."""
    names, items = _two(pile)
    more: dict[str, Any] = {"names": names, "more": pile.more, "advance": advance, "pieces": pieces}
    if out != files.STANDARD:
        with codec.replacing(out) as file:
            return writing.write(file, job, items, **more)
    with tempfile.TemporaryFile() as copy:  # nothing goes out unless all of it does
        summary = writing.write(copy, job, items, **more)
        copy.seek(0)
        shutil.copyfileobj(copy, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    return summary


def _two(pile: Pile) -> tuple[Iterator[str], Iterator[Item]]:
    """Names and items of one pass; a block's items are taken before its names."""
    waiting: list[str] = []

    def items() -> Iterator[Item]:
        for name, item in pile.pairs():
            waiting.append(name)
            yield item

    def names() -> Iterator[str]:
        while True:
            yield waiting.pop(0)

    return names(), items()


def suited(
    model: Model, subject: Subject, calls: int | None, order: str | None, substeps: int | None, seed: int
) -> Settings:
    """How items are unmasked in so many calls for a full row (or block), fewer for shorter ones; None: one a position.

    One position per call takes the model's own order. In fewer calls, a model that is best from left to right stays so
    where that fits, with as many sub-steps as a step has positions, so that each sees what stands before it; then calls
    are full passes, of which S sub-steps cost a row of any length S - 1 more. All others use bisection, whose positions
    lie far apart, and the best plan by the model's profile, or else equal steps. ``order`` and ``substeps`` are used as
    given.
    """
    reading = codec.LEFT_TO_RIGHT.name
    own = reading if subject.causal else str(model.config.get("order"))
    if calls is None:
        return Settings(1, _order(order or own), seed, 1 if substeps is None else substeps)
    length = subject.block or subject.length
    if (order or own) == reading and substeps is None and (steps := _steps(subject, calls, length)):
        even = partial(plans.in_proportion, plans.uniform(length, steps))
        return Settings(even, _order(reading), seed, -(-length // steps))
    chosen = order or (reading if subject.causal else "bisection")
    return Settings(_plan(model, length, calls), _order(chosen), seed, 1 if substeps is None else substeps)


def _steps(subject: Subject, calls: int, length: int) -> int | None:
    """The most steps of one position a sub-step that cost no more than ``calls`` full passes; None where there are none."""
    if not hasattr(getattr(subject.denoiser, "network", None), "partial"):
        return None
    costs = ((n, full_passes(plans.uniform(length, n), -(-length // n))) for n in range(calls, 0, -1))
    return next((n for n, cost in costs if cost <= calls), None)


def _order(name: str) -> Order | None:
    """An order of the codec's by name; None, which means the codec's choice, for a name that it has not."""
    return {order.name: order for order in codec.ORDERS}.get(name)


def _plan(model: Model, length: int, calls: int) -> Plan:
    """The best plan of a full row by the model's profile, or else equal steps; shorter rows take their share of it."""
    profile = measured_profile(model)
    if profile is None or profile.length != length:
        return partial(plans.in_proportion, plans.uniform(length, calls))
    return partial(plans.in_proportion, plans.optimal(profile, steps=calls))
