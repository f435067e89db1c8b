"""``unmask sample``: draw from a model, with a prompt or without."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unmask.base import noise
from unmask.base.progress import Progress
from unmask.command_line import boards, catalogue, choosing
from unmask.command_line.boards import Boards, Solved
from unmask.command_line.options import MACHINE, Machine, Options, in_range
from unmask.command_line.output import Report, percent, put, say
from unmask.data import files, sudoku
from unmask.data.readers.images import grid_png, pillow
from unmask.data.vocabularies import Characters, Foreign, Levels
from unmask.models import Model, load
from unmask.recipes.sequences import GAP


def run(
    model_name: str,
    options: Options,
    *,
    num: int,
    prompt: Path | None,
    out: Path | None = None,
    trace: bool,
    quiet: bool,
    machine: Machine = MACHINE,
) -> Report:
    """``num`` samples, or ``num`` of every puzzle of a prompt file, with their log-probabilities (nats)."""
    in_range("num", num, 1)
    catalogue.check(options)
    files.once(prompt, choosing.plan_path(options))
    model = load(model_name, device=machine.device)
    options = choosing.suited(options, model)
    out = _checked_out(model, out)
    posed = None if prompt is None else _posed(model, prompt, num)
    lengths = noise.seeded(options.seed)
    tokens = model.all_masked(num, lengths) if posed is None else posed.puzzles
    with Progress("sample", len(tokens), quiet=quiet) as progress:
        sampler = choosing.sampler(options, model.denoiser, model.length, entropies=trace)
        solved = boards.solve(
            tokens, sampler, seed=options.seed, trace=trace, machine=machine, advance=progress.advance
        )
    return {
        "command": "sample",
        "model": model.name,
        **choosing.described(options, solved),
        "prompt": None if prompt is None else str(prompt),
        "units": UNITS | (TRACE_UNITS | {"mask_id": model.denoiser.mask_id} if trace else {}),
        "samples": _samples(model, tokens, solved, posed is not None),
        "file": None if out is None else _picture(model, solved, out),
        "accuracy": _accuracy(model, posed, solved),
        "seconds": solved.seconds,
        "network_seconds": solved.manifest["network_seconds"],
        "manifest": solved.manifest,
    }


UNITS = {
    "log_prob": "nats per sample, given prompt and order; null if the order has none",
    "nfe": "network calls, full forward passes",
}
TRACE_UNITS = {
    "steps": "in sequence; a symbol mask_id hides its position again",
    "log_probs": "nats, of the symbols",
    "entropies": "nats, of the laws that the symbols came from; null if not known",
}


def _posed(model: Model, path: Path, num: int) -> Boards:
    """The puzzles of a file, each ``num`` times; for models of text its lines, with ``_`` for what is to be filled in."""
    if isinstance(model.vocabulary, Levels):
        raise ValueError(f"model '{model.name}' makes images; expected no --prompt")
    if not model.sudoku:
        return Boards(str(path), _with_gaps(model, path).repeat_interleave(num, 0))
    found = boards.read(path)
    solutions = None if found.solutions is None else found.solutions.repeat_interleave(num, 0)
    return Boards(found.source, found.puzzles.repeat_interleave(num, 0), solutions)


def _with_gaps(model: Model, path: Path) -> Tensor:
    """Lines of text as tokens int64 [n, L], masked at each gap; models of a stream go on where a line ends."""
    symbols = model.vocabulary
    if not isinstance(symbols, Characters) or GAP in symbols.symbols:
        raise ValueError(f"model '{model.name}' has no sign for a gap; expected no --prompt")
    lines = files.text_lines(path)
    if model.denoiser.vocab_size == symbols.size:
        lines = [line.ljust(model.length, GAP) for line in lines]
    for number, line in enumerate(lines, 1):
        _check_prompt(line, f"{files.shown(path)}, line {number}", symbols, model.length)
    return model.encode(lines)


def _check_prompt(line: str, place: str, symbols: Characters, length: int) -> None:
    """ValueError that names the place of a line that cannot be filled in."""
    if GAP not in line or len(line) > length:
        state = f"{len(line)} characters" if GAP in line else f"no {GAP}"
        raise ValueError(
            f"{place}: {state}; expected lines of at most {length} characters with {GAP} for what is to be filled in"
        )
    try:
        symbols.encode(line.replace(GAP, symbols.symbols[0]))
    except Foreign as error:
        raise ValueError(f"{place}, column {error.at + 1}: {error.message}") from None


def _samples(model: Model, tokens: Tensor, solved: Solved, prompted: bool) -> list[Report]:
    """One record a sample."""
    images = isinstance(model.vocabulary, Levels)
    decoded = ["image"] * len(tokens) if images else model.decode(solved.grids)
    asked = model.decode(tokens) if prompted else None
    values = zip(decoded, solved.log_prob.tolist(), solved.nfe.tolist())
    records: list[Report] = [{"text": text, "log_prob": value, "nfe": nfe} for text, value, nfe in values]
    if asked is not None:
        records = [{"prompt": question} | r for question, r in zip(asked, records)]
    return [r | {"steps": s} for r, s in zip(records, solved.steps)] if solved.steps else records


def _checked_out(model: Model, out: Path | None) -> Path | None:
    """Where images go, by default a new file samples.png; None for other models. ValueError before anything is sampled."""
    if not isinstance(model.vocabulary, Levels):
        if out is not None:
            raise ValueError(f"model '{model.name}' makes no images; expected no --out: redirect the output")
        return None
    if out is None or out.suffix != ".npy":
        pillow()
    if out == files.STANDARD:
        return out
    if out is None and Path("samples.png").exists():
        raise ValueError("samples.png exists; expected --out FILE to say where the images go")
    return Path("samples.png") if out is None else out


def _picture(model: Model, solved: Solved, out: Path) -> str:
    """Writes images as one sheet, or as an array uint8 where the name ends in .npy; returns the name."""
    images = model.decode(solved.grids)
    if out.suffix == ".npy":
        data = io.BytesIO()
        np.save(data, images)
        put(out, data.getvalue())
    else:
        put(out, grid_png(images))
    return str(out)


def _accuracy(model: Model, posed: Boards | None, solved: Solved) -> Report | None:
    """How many grids are right, where that has a meaning."""
    if not model.sudoku:
        return None
    blank = torch.full_like(solved.grids, sudoku.BLANK)
    return boards.accuracy(posed or Boards("no prompt", blank), solved)


def render(report: Report, *, pretty: bool = False, quiet: bool = False) -> None:
    """Prints one sample a line, with log-probability and calls if there is no prompt; summary to stderr."""
    if report["file"] == "-":
        say(_summary(report), quiet)
        return
    if report["prompt"] is None:
        print("# sample\tlog-probability (nats)\tnetwork calls")
    for found in report["samples"]:
        line = (
            _squared(found["text"])
            if pretty and report["model"] in ("sudoku", "sudoku_hard")
            else found["text"]
        )
        tail = "" if report["prompt"] else f"\t{found['log_prob']:.4f}\t{found['nfe']:g}"
        print(line + tail)
    if report["file"]:
        print(f"images: {report['file']}")
    say(_summary(report), quiet)


def _squared(text: str) -> str:
    """A board, valid or not, as nine lines with rules between the boxes."""
    return sudoku.pretty(np.array([sudoku.BLANK if c == "." else int(c) - 1 for c in text])) + "\n"


def _summary(report: Report) -> str:
    """Accuracy and cost in one line."""
    samples, found = report["samples"], report["accuracy"]
    calls = sum(s["nfe"] for s in samples) / len(samples)
    spent = f"{report['seconds']:.1f} s, {report['network_seconds']:.1f} s of them in the network"
    text = f"{len(samples)} samples, {calls:.1f} network calls each, {spent}"
    if found is None:
        return text
    if found["exact_match"]:
        return f"{text}; equal to the known solution {percent(found['exact_match'])} (Wilson 95 %)"
    return f"{text}; {'solved' if report['prompt'] else 'valid'} {percent(found['solved'])} (Wilson 95 %)"
