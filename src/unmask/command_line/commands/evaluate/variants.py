"""``unmask eval --mutants``: variants of one sequence beside it, each score named as what it is."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unmask.base.progress import IN_TURN, Pieces, Progress
from unmask.command_line import boards, choosing
from unmask.command_line.choosing.files import facts
from unmask.command_line.options import Machine, Options
from unmask.command_line.output import Report, put
from unmask.data import files
from unmask.data.readers import lines
from unmask.evaluation import mutants as scoring
from unmask.evaluation.letters import Letters, is_region, letters_of
from unmask.evaluation.mutants import Mutant
from unmask.models import Model

NAMES = {
    "exact": "log-likelihood along one order, exact, less the wild type's",
    "marginals": "masked marginals: log p(mutant) - log p(wild type) where the mutated positions are masked together",
    "pseudo": "pseudo-log-likelihood, each position given all others, less the wild type's",
    "wild-type": "wild-type marginals: log p(mutant) - log p(wild type) where nothing is masked",
}
"""What each score is; all in nats, high is good."""


def run(
    model: Model,
    data: Path | None,
    options: Options,
    *,
    wanted: str,
    by: str,
    letters: str | None,
    quiet: bool,
    machine: Machine,
    pieces: Pieces = IN_TURN,
) -> Report:
    """Scores of the mutants ``wanted`` (a region, a file of them, or themselves) of the one sequence in ``data``."""
    ways = asked(by)
    options = choosing.suited(options, model)
    text = sequence(data)
    tokens = model.encode([text])[0].to(machine.device)
    known = letters_of(model, tokens)
    if known.text != text:
        raise ValueError(
            f"model '{model.name}' reads the sequence as {known.text[:40]}; expected to read it as it is"
        )
    found = named(wanted, known, tokens, letters)
    if pieces.shared:
        names = list(map(known.write, found))
        more = {"command": "eval --mutants", "mutants": names, "data": tokens, "by": by}
        pieces.of(**facts(model, machine, options, **more))

    def measured(way: str) -> Tensor:
        with Progress(f"eval {way}", len(found), quiet=quiet) as progress:
            score = scorer(model, options, tokens, way, machine.batch_size)
            return scores(score, found, progress.advance, pieces.within(way))

    values = dict(zip(ways, pieces.every(*(partial(measured, way) for way in ways))))
    rows = [
        {"mutant": known.write(mutant)} | {way: float(values[way][n]) for way in ways}
        for n, mutant in enumerate(found)
    ]
    about = {way: NAMES[way] + (f" ({choosing.told(options)})" if way == "exact" else "") for way in ways}
    return {
        "command": "eval",
        "model": {"name": model.name, "hash": model.hash},
        "sequence": known.text,
        "scores": {way: {"unit": "nats", "estimator": text} for way, text in about.items()},
        "mutants": rows,
    }


def asked(by: str) -> list[str]:
    """The scores that --by names; ValueError for one that there is not."""
    found = list(dict.fromkeys(by.split(",")))
    if foreign := [way for way in found if way not in NAMES]:
        raise ValueError(f"--by {foreign[0]}: expected {', '.join(NAMES)}, or several with commas")
    return found


def sequence(data: Path | None) -> str:
    """The one sequence of a FASTA or text file; ValueError for none or several."""
    if data is None:
        raise ValueError(
            "--mutants without data; expected a file with the wild type, FASTA or one line of text"
        )
    with files.rereadable([data]):
        first = next(iter(files.text_lines(data)), "")
        if first.startswith(">"):
            found = [piece.data.decode() for piece in lines.fasta(data) if isinstance(piece.data, bytes)]
        else:
            found = [line for line in files.text_lines(data) if line.strip()]
    if len(found) != 1:
        raise ValueError(f"{files.shown(data)} holds {len(found)} sequences; expected one, the wild type")
    return found[0]


def named(wanted: str, known: Letters, tokens: Tensor, letters: str | None) -> tuple[Mutant, ...]:
    """The mutants of a region, of a file, or those that are written out; ValueError names the line or the mutant."""
    if is_region(wanted):
        return scoring.singles(tokens, known.region(wanted), known.alphabet(letters))
    if letters is not None:
        raise ValueError("--letters is for the mutants of a region; expected none beside a list of mutants")
    path = Path(wanted)
    if wanted != "-" and not path.exists():
        try:
            return tuple(known.read(part) for part in wanted.split(","))
        except ValueError as error:
            if any(sign in wanted for sign in "./\\"):
                raise ValueError(
                    f"--mutants {wanted}: no such file; expected a region (23-45), a file, or A23T"
                ) from None
            raise ValueError(f"--mutants: {error}") from None
    found = []
    for place, text in listed(path):
        try:
            found.append(known.read(text))
        except ValueError as error:
            raise ValueError(f"{files.shown(path)}, line {place}: {error}") from None
    return tuple(found)


def listed(path: Path) -> list[tuple[int, str]]:
    """Line numbers and mutants of a file: one a line, or the column ``mutant`` of a CSV file."""
    rows = csv.reader(files.text_lines(path, "mutants, one a line"))
    found = [(rows.line_num, row) for row in rows if row and row[0].strip()]
    if not found:
        raise ValueError(
            f"{files.shown(path)} holds no mutants; expected one a line, such as A23T or A23T:G45D"
        )
    column = found[0][1].index("mutant") if "mutant" in found[0][1] else 0
    kept = found[1:] if "mutant" in found[0][1] else found
    return [(place, row[column].strip()) for place, row in kept if len(row) > column]


def scores(
    score: Callable[[Sequence[Mutant]], Tensor],
    mutants: Sequence[Mutant],
    advance: Callable[[int], object],
    pieces: Pieces = IN_TURN,
) -> Tensor:
    """One score of every mutant, float64 [n]; ``advance`` hears how many are done."""
    portions = boards.batched(
        len(mutants), PORTION, lambda ids: {"score": score([mutants[n] for n in ids.tolist()]).cpu()}
    )
    found = [found["score"] for found in pieces.each("mutants", portions, advance)]
    return torch.cat([torch.zeros(0, dtype=torch.float64), *found])


def scorer(
    model: Model, options: Options, tokens: Tensor, way: str, size: int
) -> Callable[[Sequence[Mutant]], Tensor]:
    """What gives one score, nats float64 [n], of mutants of tokens int64 [L], ``size`` rows a call."""
    denoiser, shown = choosing.changed(options, model.denoiser), model.visible(tokens[None])
    visible = None if shown is None else shown[0]
    if way == "exact":
        selector, substeps = choosing.selected(options, model)
        return lambda part: scoring.likelihood(
            denoiser, tokens, part, selector, visible=visible, substeps=substeps, batch_size=size
        )
    if way == "pseudo":
        return lambda part: scoring.pseudo_likelihood(
            denoiser, tokens, part, visible=visible, batch_size=size
        )
    if way == "marginals":
        return lambda part: scoring.masked_marginals(denoiser, tokens, part, batch_size=size)
    return lambda part: scoring.wild_type_marginals(denoiser, tokens, part)


PORTION = 1024
"""Mutants that are scored between two signs of progress."""


def write(report: Report, out: Path) -> None:
    """The table as a CSV file, or to standard output."""
    text = io.StringIO()
    ways = list(report["scores"])
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["mutant", *ways])
    table.writerows([row["mutant"], *(row[way] for way in ways)] for row in report["mutants"])
    put(out, text.getvalue().encode())


def render(report: Report, console: Console) -> None:
    """Prints a line for every mutant, and what the scores are."""
    ways = list(report["scores"])
    table = Table("mutant", *ways, box=None)
    for row in report["mutants"]:
        table.add_row(
            row["mutant"], *(f"{row[way]:.3f}" if not math.isnan(row[way]) else "nan" for way in ways)
        )
    console.print(table)
    for way, found in report["scores"].items():
        console.print(f"{way}: {found['estimator']}, {found['unit']}")
