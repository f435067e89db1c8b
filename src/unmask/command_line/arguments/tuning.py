"""The command that chooses how to generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from unmask.command_line.arguments.parsing import ModelName, On, Seed, Told, command
from unmask.command_line.options import MACHINE, OUTPUT, option, running


@command("tune")
def tune(
    model: Positional[ModelName],
    data: Annotated[
        Positional[Path | None],
        option(
            metavar="DATA",
            help="Unseen in training: puzzle file, token folder, text file, -, or a fetched set such as text/valid.",
        ),
    ] = None,
    *,
    calls: Annotated[str, option(metavar="N,N,...", help="Budgets of network calls, such as 4,8,16,32.")],
    task: Annotated[
        Literal["generate", "infill", "solve"] | None,
        option(
            help="Hide all, a share of each sequence, or blanks of puzzles; default what the model is for."
        ),
    ] = None,
    share: Annotated[float | None, option(metavar="P", help="Of infill: the part that is hidden.")] = None,
    metric: Annotated[
        str | None,
        option(
            metavar="NAME",
            help="nats, exact, or a function of samples and data, module:function; default exact for puzzles, else nats.",
        ),
    ] = None,
    generate: Annotated[
        str | None, option(metavar="CLUES", help="Fresh puzzles instead of DATA: 34, or minimal.")
    ] = None,
    num: Annotated[
        int | None,
        option(
            aliases=("-n",),
            metavar="N",
            help="Items at random, half to choose by, half to judge; default 512.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        option(
            aliases=("-o",),
            metavar="FOLDER",
            help="Where tune.json, a sampler file for each budget and front.png go; a tuning found there goes on.",
        ),
    ] = None,
    seed: Seed = 0,
    machine: On = MACHINE,
    output: Told = OUTPUT,
) -> int:
    """Find the best way to generate within each budget of calls; half of the data choose, the other half judges.

    Orders, plans, rules and passes in parts race each other. Its files are for sample, eval and compress --sampler.
    """
    from unmask.command_line.commands.plan import tune as work
    from unmask.command_line.output import emit, wrote

    with running(machine):
        report, _ = work.run(
            model,
            data,
            calls=calls,
            task=task,
            share=share,
            metric=metric,
            generate=generate,
            num=num,
            out=out,
            seed=seed,
            machine=machine,
            quiet=output.quiet,
        )
    wrote(*map(Path, report["files"]), quiet=output.quiet)
    emit(report, work.render, output.json)
    return 0
