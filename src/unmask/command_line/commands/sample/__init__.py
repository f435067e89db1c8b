"""``unmask sample``: draw from a model, with a prompt or without."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from unmask.base import noise
from unmask.base.progress import IN_TURN, Pieces, Progress
from unmask.command_line import boards, catalogue, choosing, sequences
from unmask.command_line.boards import Boards, Solved
from unmask.command_line.choosing.files import facts
from unmask.command_line.commands.sample.animation import Stage
from unmask.command_line.options import MACHINE, SEARCH, Machine, Options, Search, check_search, in_range
from unmask.command_line.output import Report, percent, put, say
from unmask.data import files, sudoku
from unmask.data.readers.boards import symbols_of
from unmask.data.readers.images import grid_png, pillow
from unmask.data.readers.pieces import where
from unmask.data.vocabularies import Characters, Foreign, Levels
from unmask.models import Model, load, verbs
from unmask.models.model import BOARDS
from unmask.recipes.sequences import GAP


def run(
    model_name: str,
    options: Options,
    *,
    num: int,
    prompt: Path | None,
    first: int | None = None,
    out: Path | None = None,
    trace: bool,
    quiet: bool,
    length: int | None = None,
    hide: str | None = None,
    search: Search = SEARCH,
    machine: Machine = MACHINE,
    pieces: Pieces = IN_TURN,
    watch: bool = False,
) -> Report:
    """``num`` samples, or ``num`` of every puzzle of a prompt file, with their log-probabilities (nats).

    ``length`` is that of samples of models with special tokens; ``hide`` names ranges of symbols of each prompt to draw;
    of many prompts only the ``first`` are taken, if that is said.
    With a ``search`` they are the ``num`` most probable fillings that it finds of each puzzle, or of one wholly masked
    sequence. With ``watch`` the first sample is seen on standard error while it is unmasked.
    """
    in_range("num", num, 1)
    if watch and search.given:
        raise ValueError("--watch beside a search; expected one of them: a search follows no one sequence")
    if watch and pieces.shared:
        raise ValueError(
            "--watch beside shared work; expected one of them: nobody sees another process's steps"
        )
    check_search(search, options, num, trace)
    in_range("length", length, 1)
    in_range("first", first, 1)
    if first is not None and prompt is None:
        raise ValueError("--first without --prompt; expected a file, of which so many are taken")
    hidden = _ranges(hide, prompt)
    catalogue.check(options)
    files.once(prompt, choosing.plan_path(options))
    model = load(model_name, device=machine.device)
    options = choosing.suited(options, model)
    out = _checked_out(model, out)
    count = 1 if search.given else num
    posed = None if prompt is None else _posed(model, prompt, count, hidden).first(first, count)
    tokens = _hidden(model, count, length, options.seed) if posed is None else posed.puzzles
    if posed is not None and length is not None:
        raise ValueError("--length beside --prompt; expected one of them, a prompt has a length of its own")
    if search.given:
        machine = replace(machine, batch_size=max(1, machine.batch_size // search.given[0][1]))
    if pieces.shared:
        asked = {"search": asdict(search), "trace": trace, "num": num}
        pieces.of(**facts(model, machine, options, command="sample", **asked, data=tokens))
    with (
        _seen(model, tokens[0], watch) as stage,
        Progress("sample", len(tokens), quiet=quiet or watch) as progress,
    ):
        show = None if stage is None else stage.each
        told = boards.Watch(model.denoiser.mask_id, progress.advance, show, search.passes)
        each = None if pieces.shared or (quiet and not watch) else told.each
        if search.given:
            sampler = choosing.searcher(search, options, model.denoiser, model.length, num, each)
        else:
            sampler = choosing.sampler(options, model.denoiser, model.length, entropies=trace, each=each)
        solved = boards.solve(
            tokens,
            sampler,
            seed=options.seed,
            trace=trace,
            machine=machine,
            advance=progress.advance,
            pieces=pieces,
            watch=told,
        )
    if search.given:
        tokens, posed, solved = _found(tokens, posed, solved, num)
    return {
        "command": "sample",
        "model": model.name,
        **choosing.described(options, solved, search),
        "prompt": None if prompt is None else str(prompt),
        "units": UNITS
        | (SEARCH_UNITS if search.given else {})
        | (TRACE_UNITS | {"mask_id": model.denoiser.mask_id} if trace else {}),
        **({"look": _look(model, tokens, solved)} if trace else {}),
        "samples": _samples(model, tokens, solved, posed is not None),
        "file": None if out is None else _picture(model, solved, out),
        "accuracy": _accuracy(model, posed, solved),
        "seconds": solved.seconds,
        "network_seconds": solved.manifest["network_seconds"],
        "manifest": solved.manifest,
    }


def _seen(model: Model, tokens: Tensor, watch: bool) -> AbstractContextManager[Stage | None]:
    """The stage on which the first of the sequences is watched, if it is."""
    console = Console(stderr=True, highlight=False)
    return Stage(console, tokens.tolist(), verbs.look(model)) if watch else nullcontext()


UNITS = {
    "log_prob": "nats per sample, given prompt and order; null if the order has none",
    "nfe": "network calls, full forward passes",
}
SEARCH_UNITS = {
    "log_prob": "nats per filling, given prompt and order; with --judge along the random order that judged",
    "nfe": "network calls of all fillings of a sequence that were compared, full forward passes",
}
TRACE_UNITS = {
    "start": "tokens before the first step",
    "steps": "in sequence; a symbol mask_id hides its position again",
    "log_probs": "nats, of the symbols",
    "entropies": "nats, of the laws that the symbols came from; null if not known",
}


def _found(
    tokens: Tensor, posed: Boards | None, solved: Solved, num: int
) -> tuple[Tensor, Boards | None, Solved]:
    """What was asked, once for each of up to ``num`` fillings, and those: impossible ones are left out."""
    kept = (solved.log_prob > -torch.inf).nonzero()[:, 0]
    asked, those = kept // num, solved.part(kept)
    if posed is None:
        return tokens[asked], None, those
    known = None if posed.solutions is None else posed.solutions[asked]
    return tokens[asked], Boards(posed.source, tokens[asked], known), those


def _hidden(model: Model, num: int, length: int | None, seed: int) -> Tensor:
    """Wholly masked sequences; ValueError where a length is missing, or one is told that the model knows."""
    if (model.frame is None) != (length is None):
        wanted = "--length N, or --prompt FILE" if length is None else "no --length"
        raise ValueError(f"model '{model.name}': expected {wanted}")
    if length is not None:
        in_range("length", length, 1, model.length)
    return model.all_masked(num, noise.seeded(seed), length=length)


def _ranges(text: str | None, prompt: Path | None) -> list[tuple[int, int]]:
    """Ranges of symbols from ``26:33,51:57``: the first, and the one behind the last, counted from 0."""
    if text is None:
        return []
    if prompt is None:
        raise ValueError("--hide without --prompt; expected a file with the sequences")
    parts = [part.split(":") for part in text.split(",")]
    if not all(len(part) == 2 and all(n.isdigit() for n in part) for part in parts):
        raise ValueError(
            f"--hide {text}: expected ranges FIRST:END of symbols counted from 0, such as 26:33,51:57"
        )
    return [(int(first), int(end)) for first, end in parts]


def _posed(model: Model, path: Path, num: int, hidden: list[tuple[int, int]]) -> Boards:
    """The puzzles of a file, each ``num`` times; for models of text its lines, with ``_`` for what is to be filled in."""
    if hidden and (model.frame is None and not isinstance(model.vocabulary, Characters)):
        raise ValueError(f"model '{model.name}' has no sequences of symbols; expected no --hide")
    if model.frame is not None:
        return Boards(str(path), _framed(model, path, hidden).repeat_interleave(num, 0))
    if isinstance(model.vocabulary, Levels):
        raise ValueError(f"model '{model.name}' makes images; expected no --prompt")
    if not model.sudoku:
        return Boards(str(path), _with_gaps(model, path, hidden).repeat_interleave(num, 0))
    found = boards.read(path, model.length)
    solutions = None if found.solutions is None else found.solutions.repeat_interleave(num, 0)
    return Boards(found.source, found.puzzles.repeat_interleave(num, 0), solutions)


def _framed(model: Model, path: Path, hidden: list[tuple[int, int]]) -> Tensor:
    """Lines or FASTA sequences as tokens int64 [n, L], masked at their gaps and where hidden; ValueError without any."""
    pieces = [p for p in sequences.pieces_of(path, model.vocabulary) if p.data]
    rows = []
    for piece in pieces:
        text = piece.data if isinstance(piece.data, str) else bytes(piece.data).decode("utf-8", "replace")
        try:
            row = verbs.hiding(model, model.encode(text), hidden or None)
        except ValueError as error:
            raise ValueError(
                f"{where(piece)}: {str(error).removeprefix('item 0, ').removeprefix('item 0: ')}"
            ) from None
        if not bool((row == model.denoiser.mask_id).any()):
            raise ValueError(
                f"{where(piece)}: nothing is hidden; expected {_gap(model)} for gaps, or --hide FIRST:END"
            )
        rows.append(row[0])
    if not rows:
        raise ValueError(f"{files.shown(path)} holds no sequences; expected lines of text or FASTA")
    assert model.frame is not None
    return pad_sequence(rows, batch_first=True, padding_value=model.frame.pad)


def _gap(model: Model) -> str:
    """How a hidden symbol is written."""
    assert model.frame is not None
    return str(model.decode(model.frame.rows([[model.denoiser.mask_id]]))[0])


def _with_gaps(model: Model, path: Path, hidden: list[tuple[int, int]]) -> Tensor:
    """Lines of text as tokens int64 [n, L], masked at each gap; models of a stream go on where a line ends."""
    symbols = model.vocabulary
    if not isinstance(symbols, Characters) or GAP in symbols.symbols:
        raise ValueError(f"model '{model.name}' has no sign for a gap; expected no --prompt")
    lines = [_gapped(line, hidden) for line in files.text_lines(path)]
    if model.denoiser.vocab_size == symbols.size:
        lines = [line.ljust(model.length, GAP) for line in lines]
    for number, line in enumerate(lines, 1):
        _check_prompt(line, f"{files.shown(path)}, line {number}", symbols, model.length)
    return model.encode(lines)


def _gapped(line: str, hidden: list[tuple[int, int]]) -> str:
    """A line with gaps in the ranges; ValueError where it is too short for one."""
    for first, end in hidden:
        if not first < end <= len(line):
            raise ValueError(
                f"--hide {first}:{end}: expected FIRST < END <= {len(line)}, the characters of a line"
            )
        line = line[:first] + GAP * (end - first) + line[end:]
    return line


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
    if not solved.steps:
        return records
    return [r | {"start": t, "steps": s} for r, t, s in zip(records, tokens.tolist(), solved.steps)]


def _look(model: Model, tokens: Tensor, solved: Solved) -> Report:
    """How the symbols of a trace look to people."""
    return verbs.look(model).record({*tokens.flatten().tolist(), *solved.grids.flatten().tolist()})


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
    blank = torch.full_like(solved.grids, model.denoiser.mask_id)
    return boards.accuracy(posed or Boards("no prompt", blank), solved)


def render(report: Report, *, pretty: bool = False, quiet: bool = False) -> None:
    """Prints one sample a line, with log-probability and calls if there is no prompt; summary to stderr."""
    if report["file"] == "-":
        say(_summary(report), quiet)
        return
    if report["prompt"] is None:
        print("# sample\tlog-probability (nats)\tnetwork calls")
    for found in report["samples"]:
        squared = pretty and report["model"] in BOARDS
        line = _squared(found["text"]) if squared else found["text"]
        tail = "" if report["prompt"] else f"\t{found['log_prob']:.4f}\t{found['nfe']:g}"
        print(line + tail)
    if report["file"]:
        print(f"images: {report['file']}")
    say(_summary(report), quiet)


def _squared(text: str) -> str:
    """A board, valid or not, as lines with rules between the boxes."""
    blank = symbols_of(len(text))
    return sudoku.pretty(np.array([blank if c == "." else int(c) - 1 for c in text])) + "\n"


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
