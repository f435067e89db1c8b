"""The command line: one typed function a command; the work is done in `unmask.commands`.

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

app = SubcommandApp()

Json = Annotated[bool, arg(name="json", help="Print one JSON document on standard output.")]
Quiet = Annotated[bool, arg(help="No progress and remarks on standard error.")]
Seed = Annotated[int, arg(help="Start of all random numbers.")]
OrderName = Annotated[str, arg(help="Which positions come next; `unmask orders` lists them.")]
PlanText = Annotated[
    str | None,
    arg(
        metavar="K|SIZES|FILE", help="Positions per call (3), step sizes (3,3,2), or a plan file; default 1."
    ),
]
Tau = Annotated[
    float | None, arg(metavar="P", help="Probability or margin that suffices, for threshold orders.")
]
Gamma = Annotated[
    float | None, arg(metavar="NATS", help="Entropy that a call may spend, for entropy-budget.")
]
Steps = Annotated[int | None, arg(metavar="N", help="Grid of times, for ancestral.")]
Substeps = Annotated[int, arg(help="Partial passes per call (partial caching).")]
Greedy = Annotated[bool, arg(help="Take the most probable symbol instead of drawing.")]
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

    from unmask import demo as work
    from unmask.commands.output import emit

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
    from unmask.commands import training as work
    from unmask.commands.output import emit

    if fields:
        emit(work.fields(recipe), work.render_fields, as_json)
    else:
        emit(work.run(recipe, out, work.changes(set_), quiet), work.render, as_json)
    return 0


@app.command(name="eval")
def evaluate(
    model: Positional[ModelName],
    data: Annotated[
        Positional[Path | None], arg(metavar="DATA", help="Puzzle file: 81 characters a line, or CSV.")
    ] = None,
    *,
    generate: Annotated[
        str | None, arg(metavar="CLUES", help="Fresh puzzles instead: 34, or minimal.")
    ] = None,
    num: Annotated[int, arg(help="How many fresh puzzles.")] = 100,
    order: OrderName = "margin",
    plan: PlanText = None,
    tau: Tau = None,
    gamma: Gamma = None,
    steps: Steps = None,
    substeps: Substeps = 1,
    greedy: Greedy = False,
    samples: Annotated[int, arg(help="Mask sets per grid in the NELBO.")] = 8,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Measure a model: puzzles solved, network calls, and the NELBO of full grids."""
    from unmask.commands import evaluation as work
    from unmask.commands import orders
    from unmask.commands.output import emit

    selector = orders.selector(order, orders.Options(plan, tau, gamma, steps, seed))
    posed = work.dataset(data, generate, num, seed)
    report = work.run(
        model, posed, selector, take_best=greedy, substeps=substeps, samples=samples, seed=seed, quiet=quiet
    )
    emit(report, work.render, as_json)
    return 0


@app.command
def sample(
    model: Positional[ModelName],
    *,
    num: Annotated[int, arg(help="Samples, of each puzzle if there is a prompt.")] = 1,
    prompt: Annotated[Path | None, arg(metavar="FILE", help="Puzzles to solve, solutions optional.")] = None,
    order: OrderName = "margin",
    plan: PlanText = None,
    tau: Tau = None,
    gamma: Gamma = None,
    steps: Steps = None,
    substeps: Substeps = 1,
    greedy: Greedy = False,
    temperature: Annotated[float, arg(help="Below 1 sharpens the law, above 1 flattens it.")] = 1.0,
    seed: Seed = 0,
    pretty: Annotated[bool, arg(help="Boards as nine lines.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Sample from a model, or solve the puzzles of --prompt; samples go to stdout, a summary to stderr."""
    from unmask.commands import orders
    from unmask.commands import sampling as work
    from unmask.commands.output import emit

    report = work.run(
        model,
        orders.selector(order, orders.Options(plan, tau, gamma, steps, seed)),
        num=num,
        prompt=prompt,
        temperature=temperature,
        take_best=greedy,
        substeps=substeps,
        seed=seed,
        quiet=quiet,
    )
    emit(report, lambda found, _: work.render(found, pretty=pretty, quiet=quiet), as_json)
    return 0


@app.command
def profile(
    model: Positional[ModelName],
    data: Annotated[
        Positional[Path | None], arg(metavar="DATA", help="Grids, or puzzles with solutions; default fresh.")
    ] = None,
    *,
    out: Annotated[Path, arg(aliases=("-o",), metavar="FILE", help="Where the profile goes, JSON.")] = Path(
        "profile.json"
    ),
    num: Annotated[int, arg(help="Fresh sequences, when no file is given.")] = 1024,
    rounds: Annotated[int, arg(help="Passes over the data.")] = 4,
    plot: Annotated[Path | None, arg(metavar="FILE", help="Also draw it: .png, .svg or .pdf.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Measure the information profile of a model: what visible positions tell about the others, in nats.

    An interrupted measurement leaves FILE.half*.part and goes on from there.
    """
    from unmask.commands import planning as work
    from unmask.commands.output import emit

    report, found = work.measure(
        model, data, num=num, rounds=rounds, seed=seed, state=out.with_suffix(""), quiet=quiet
    )
    found.save(out)
    if plot is not None:
        work.draw(found, {}, plot)
    emit(report | {"file": str(out)}, work.render_profile, as_json)
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
    from unmask import plans
    from unmask.commands import planning as work
    from unmask.commands.output import emit
    from unmask.profiles import Profile

    known = work.infilling(Profile.load(profile), visible)
    report, best = work.compare(known, steps=steps, max_kl=max_kl)
    plans.save(out, best, family="optimal", profile=work.heldout_of(known))
    if plot is not None:
        uniform = plans.uniform(known.length, len(best))
        work.draw(known, {"uniform": uniform, "optimal": best}, plot)
    emit(report | {"file": str(out)}, work.render_plans, as_json)
    return 0


@app.command
def orders(*, as_json: Json = False) -> int:
    """List the orders that eval and sample know by name."""
    from unmask.commands import orders as work
    from unmask.commands.output import emit

    emit(work.run(), work.render, as_json)
    return 0


@app.command
def doctor(*, as_json: Json = False) -> int:
    """Check this installation: versions, devices, shipped models, and the engine on an exact law."""
    from unmask.commands import doctor as work
    from unmask.commands.output import emit

    report = work.run()
    emit(report, work.render, as_json)
    return 0 if report["ok"] else 1


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
