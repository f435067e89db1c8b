"""Commands about models: train one, measure it, plan its calls, judge what it makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction

from unmask.command_line.arguments.parsing import For, How, ModelName, On, Shared, Told, command
from unmask.command_line.arguments.sharing import shared
from unmask.command_line.options import (
    BULK,
    FLEET,
    MACHINE,
    ORDER,
    OUTPUT,
    Cores,
    Fleet,
    Machine,
    Options,
    Output,
    option,
    running,
)

if TYPE_CHECKING:
    from unmask.base.progress import Pieces
    from unmask.models import Model


@command("train")
def train(
    recipe: Annotated[
        Positional[str | None],
        option(
            metavar="RECIPE",
            help="What to train: a recipe of those named below; none with --start FOLDER --data FILE.",
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None, option(metavar="FOLDER", help="Default: runs/RECIPE. A run found there goes on.")
    ] = None,
    set_: Annotated[
        UseAppendAction[tuple[str, ...]],
        option(
            name="set",
            metavar="FIELD=VALUE",
            help="Replace a field; --optimiser.steps 200 is short for it, --device cuda for --machine.device cuda.",
        ),
    ] = (),
    fields: Annotated[bool, option(help="List the recipe's fields and stop.")] = False,
    dry_run: Annotated[
        bool, option(help="Tell what training will cost and which data it expects, and stop.")
    ] = False,
    track: Annotated[
        tuple[str, ...],
        option(metavar="NAME...", help="Who else hears of the loss: csv, tensorboard, wandb, trackio."),
    ] = (),
    fleet: For = FLEET,
    threads: Annotated[int | None, option(metavar="N", help="Threads; default what torch takes.")] = None,
    output: Told = OUTPUT,
) -> int:
    """Train a recipe, or go on with a stopped training; --group.field VALUE replaces any field.

    --start FOLDER --data FILE teaches a masked model of transformers to be a diffusion model of your sequences.
    Several GPUs or machines: `torchrun --nproc-per-node 8 -m unmask train ...`; --batch_size stays that of all together.
    How they share the work: --machine.strategy ddp or fsdp, --machine.accumulate N, --machine.recompute true,
    --machine.prefetch N.
    """
    from unmask.command_line.commands import train as work
    from unmask.command_line.output import emit
    from unmask.training.together.world import speaks

    if fleet.given and not dry_run:
        raise ValueError(f"--{fleet.given[0]} is for a dry run; expected --dry-run beside it")
    if dry_run:
        return _dry_run(recipe, work.changes(set_), fleet, output)
    if fields:
        emit(work.fields(recipe, work.changes(set_)), work.render_fields, output.json)
        return 0
    with running(Cores(threads)):
        report = work.run(recipe, out, work.changes(set_), output.quiet, work.trackers(track))
    if speaks():
        emit(report, work.render, output.json)
    return 0


def _dry_run(recipe: str | None, changes: dict[str, str], fleet: Fleet, output: Output) -> int:
    """`train` without training."""
    from unmask.command_line.commands.train import dry_run as work
    from unmask.command_line.output import emit

    emit(work.run(recipe, changes, fleet), work.render, output.json)
    return 0


@command("eval")
def evaluate(
    model: Positional[ModelName],
    data: Annotated[
        Positional[Path | None],
        option(
            metavar="DATA",
            help="Puzzle file, token folder, text file, -, or a fetched set such as text/test.",
        ),
    ] = None,
    *,
    generate: Annotated[
        str | None, option(metavar="CLUES", help="Fresh puzzles instead: 34, or minimal.")
    ] = None,
    num: Annotated[
        int | None,
        option(
            aliases=("-n",), metavar="N", help="How many sequences, at random; default all, or 100 puzzles."
        ),
    ] = None,
    exact: Annotated[int, option(metavar="N", help="Also N exact log-likelihoods along the order.")] = 0,
    calls: Annotated[
        str | None,
        option(metavar="N,N,..", help="Compare orders: --exact (32) sequences along each, in so many calls."),
    ] = None,
    orders: Annotated[
        str | None, option(metavar="NAME,..", help="Those that --calls compares; default five.")
    ] = None,
    samples: Annotated[int, option(metavar="N", help="Mask sets per sequence in the NELBO.")] = 8,
    mutants: Annotated[
        str | None,
        option(
            metavar="REGION|FILE",
            help="Score variants of DATA, one sequence: all single mutants of 23-45 or all, a file of A23T:G45D, or those.",
        ),
    ] = None,
    by: Annotated[
        str | None,
        option(
            metavar="SCORE",
            help="Of mutants: exact, marginals (default), pseudo, wild-type; several with commas.",
        ),
    ] = None,
    letters: Annotated[
        str | None, option(metavar="LETTERS", help="What a region mutates to; default amino acids, or all.")
    ] = None,
    out: Annotated[
        Path | None, option(aliases=("-o",), metavar="FILE", help="Of mutants: also a CSV file.")
    ] = None,
    zero_shot: Annotated[
        str | None,
        option(
            metavar="SET",
            help="Perplexity of DATA, the file of lambada, wikitext2, ptb, wikitext103, lm1b, or plain text.",
        ),
    ] = None,
    how: How = ORDER,
    bulk: Shared = BULK,
    machine: On = MACHINE,
    output: Told = OUTPUT,
) -> int:
    """Measure a model: bits per character or dimension; for puzzles also how many are solved, in how many calls.

    Bulk work: `torchrun --nproc-per-node 8 -m unmask eval ...` shares batches out, --work FOLDER keeps them.
    """
    from unmask.command_line import catalogue, choosing
    from unmask.command_line.commands import evaluate as work
    from unmask.command_line.commands.evaluate import bounds
    from unmask.command_line.output import emit
    from unmask.data.files import once
    from unmask.models import load

    catalogue.check(how)
    once(data, choosing.plan_path(how), None if mutants is None else Path(mutants))
    if mutants is None and (by or letters or out):
        raise ValueError("--by, --letters and --out are for mutants; expected --mutants beside them")
    if mutants is not None and (generate or num or exact):
        raise ValueError("--mutants scores one sequence; expected no --generate, --num and --exact beside it")
    if zero_shot is not None and (generate or exact or mutants):
        raise ValueError(
            "--zero-shot measures a bound; expected no --generate, --exact and --mutants beside it"
        )
    if orders is not None and calls is None:
        raise ValueError("--orders without --calls; expected both, such as --calls 4,8,16")
    if calls is not None and (mutants or zero_shot):
        raise ValueError("--calls compares orders; expected no --mutants and --zero-shot beside it")
    listed = None if mutants is None else Path(mutants)
    with shared(bulk, machine, output, data, choosing.plan_path(how), listed) as pieces:
        told = replace(output, quiet=output.quiet or not pieces.speaks)
        loaded = load(model, device=machine.device)
        if zero_shot is not None:
            return _zero_shot(loaded, data, how, (zero_shot, num, samples), machine, told, pieces)
        if mutants is not None:
            asked = mutants, by or "marginals", letters
            return _mutants(loaded, data, how, asked, out, machine, told, pieces)
        if generate is None and not loaded.sudoku:
            if data is None:
                raise ValueError(
                    "no data: expected a token folder, a text file, or a fetched set such as text/test"
                )
            report = bounds.run(
                loaded,
                data,
                how,
                num=num,
                exact=exact,
                samples=samples,
                calls=calls,
                orders=orders,
                machine=machine,
                quiet=told.quiet,
                pieces=pieces,
            )
            emit(report, bounds.render, output.json)
            return 0
        if exact:
            raise ValueError("--exact is for models of sequences; expected none for puzzles")
        if calls is not None:
            raise ValueError(
                "--calls is for models of sequences; for puzzles run each --order with --plan, or `unmask tune`"
            )
        posed = work.dataset(loaded, data, generate, num, how.seed)
        report = work.run(
            loaded, posed, how, samples=samples, machine=machine, quiet=told.quiet, pieces=pieces
        )
        emit(report, work.render, output.json)
    return 0


def _zero_shot(
    model: Model,
    data: Path | None,
    how: Options,
    asked: tuple[str, int | None, int],
    machine: Machine,
    output: Output,
    pieces: Pieces,
) -> int:
    """`eval` of a set by name, of so many rows, by so many samples."""
    from unmask.command_line.commands.evaluate import zero_shot as work
    from unmask.command_line.output import emit

    name, num, samples = asked
    report = work.run(
        model,
        data,
        how,
        name=name,
        num=num,
        samples=samples,
        quiet=output.quiet,
        machine=machine,
        pieces=pieces,
    )
    emit(report, work.render, output.json)
    return 0


def _mutants(
    model: Model,
    data: Path | None,
    how: Options,
    asked: tuple[str, str, str | None],
    out: Path | None,
    machine: Machine,
    output: Output,
    pieces: Pieces,
) -> int:
    """`eval` of mutants, ``by`` scores, to ``letters``."""
    from unmask.command_line.commands.evaluate import variants as work
    from unmask.command_line.output import emit, one_document, wrote

    aside, (wanted, by, letters) = one_document(out, output.json), asked
    report = work.run(
        model,
        data,
        how,
        wanted=wanted,
        by=by,
        letters=letters,
        machine=machine,
        quiet=output.quiet,
        pieces=pieces,
    )
    if out is not None:
        work.write(report, out)
        wrote(out, quiet=output.quiet)
    emit(report, work.render, output.json, aside=aside)
    return 0


@command("judge")
def judge(
    kind: Annotated[
        Positional[str], option(metavar="KIND", help="What the samples are: smiles, text or images.")
    ],
    samples: Annotated[
        Positional[Path],
        option(metavar="FILE", help="One sample a line, - for standard input; images: .npy or a folder."),
    ],
    *,
    against: Annotated[
        Path | None, option(metavar="DATA", help="SMILES and images: real ones, for the Fréchet distance.")
    ] = None,
    training: Annotated[
        Path | None, option(metavar="DATA", help="SMILES: what the model was trained on, for novelty.")
    ] = None,
    num: Annotated[int, option(aliases=("-n",), metavar="N", help="Real ones taken from --against.")] = 2000,
    threads: Annotated[int | None, option(metavar="N", help="Threads; default what torch takes.")] = None,
    output: Told = OUTPUT,
) -> int:
    """Judge samples: validity, novelty and FCD of SMILES, a language model's view of text, Fréchet distance of images."""
    from unmask.command_line.commands.evaluate import judge as work
    from unmask.command_line.output import emit

    with running(Cores(threads)):
        report = work.run(kind, samples, against, training, num)
    emit(report, work.render, output.json)
    return 0
