"""``unmask sample``: draw from a model, with a prompt or without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unmask.commands import boards
from unmask.commands.boards import Boards, Solved
from unmask.commands.output import Report, percent, say
from unmask.data import sudoku
from unmask.denoisers import tempered
from unmask.models import Model, load
from unmask.progress import Progress
from unmask.sources import draw, greedy
from unmask.types import Selector


def run(
    model_name: str,
    selector: Selector,
    *,
    num: int,
    prompt: Path | None,
    temperature: float,
    take_best: bool,
    substeps: int,
    seed: int,
    quiet: bool,
) -> Report:
    """``num`` samples, or ``num`` of every puzzle of a prompt file, with their log-probabilities (nats)."""
    if num < 1:
        raise ValueError(f"num {num}: expected at least 1")
    model = load(model_name)
    posed = None if prompt is None else _posed(model, prompt, num)
    tokens = model.all_masked(num) if posed is None else posed.puzzles
    with Progress("sample", len(tokens), quiet=quiet) as progress:
        solved = boards.solve(
            tempered(model.denoiser, temperature),
            tokens,
            selector,
            greedy if take_best else draw,
            seed=seed,
            substeps=substeps,
            advance=progress.advance,
        )
    return {
        "command": "sample",
        "model": model.name,
        "selector": selector.name,
        "symbols": "arg-max" if take_best else "drawn",
        "temperature": temperature,
        "seed": seed,
        "prompt": None if prompt is None else str(prompt),
        "units": {
            "log_prob": "nats per sample, given prompt and order",
            "nfe": "network calls, full forward passes",
        },
        "samples": _samples(model, tokens, solved, posed is not None),
        "accuracy": _accuracy(model, posed, solved),
        "seconds": solved.seconds,
    }


def _posed(model: Model, path: Path, num: int) -> Boards:
    """The puzzles of a file, each ``num`` times."""
    boards.check_sudoku(model)
    found = boards.read(path)
    solutions = None if found.solutions is None else found.solutions.repeat_interleave(num, 0)
    return Boards(found.source, found.puzzles.repeat_interleave(num, 0), solutions)


def _samples(model: Model, tokens: Tensor, solved: Solved, prompted: bool) -> list[Report]:
    """One record a sample."""
    decoded, asked = model.decode(solved.grids), model.decode(tokens) if prompted else None
    values = zip(decoded, solved.log_prob.tolist(), solved.nfe.tolist())
    records = [{"text": text, "log_prob": log_prob, "nfe": nfe} for text, log_prob, nfe in values]
    return records if asked is None else [{"prompt": q} | r for q, r in zip(asked, records)]


def _accuracy(model: Model, posed: Boards | None, solved: Solved) -> Report | None:
    """How many grids are right, where that has a meaning."""
    if model.name != "sudoku":
        return None
    blank = torch.full_like(solved.grids, sudoku.BLANK)
    return boards.accuracy(posed or Boards("no prompt", blank), solved)


def render(report: Report, *, pretty: bool = False, quiet: bool = False) -> None:
    """Prints one sample a line, with log-probability and calls if there is no prompt; summary to stderr."""
    if report["prompt"] is None:
        print("# sample\tlog-probability (nats)\tnetwork calls")
    for found in report["samples"]:
        line = _squared(found["text"]) if pretty and report["model"] == "sudoku" else found["text"]
        tail = "" if report["prompt"] else f"\t{found['log_prob']:.4f}\t{found['nfe']:g}"
        print(line + tail)
    say(_summary(report), quiet)


def _squared(text: str) -> str:
    """A board, valid or not, as nine lines with rules between the boxes."""
    return sudoku.pretty(np.array([sudoku.BLANK if c == "." else int(c) - 1 for c in text])) + "\n"


def _summary(report: Report) -> str:
    """Accuracy and cost in one line."""
    samples, found = report["samples"], report["accuracy"]
    calls = sum(s["nfe"] for s in samples) / len(samples)
    text = f"{len(samples)} samples, {calls:.1f} network calls each, {report['seconds']:.1f} s"
    if found is None:
        return text
    if found["exact_match"]:
        return f"{text}; equal to the known solution {percent(found['exact_match'])} (Wilson 95 %)"
    return f"{text}; {'solved' if report['prompt'] else 'valid'} {percent(found['solved'])} (Wilson 95 %)"
