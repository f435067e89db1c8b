"""Commands that choose how to generate: profile, plan, tune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from unmask.command_line.arguments.parsing import ModelName, On, Seed, Shared, Told, command
from unmask.command_line.arguments.sharing import shared
from unmask.command_line.options import BULK, MACHINE, OUTPUT, option


@command("profile")
def profile(
    model: Positional[ModelName],
    data: Annotated[
        Positional[Path | None],
        option(metavar="DATA", help="A token folder, text, or grids; default fresh grids."),
    ] = None,
    *,
    out: Annotated[
        Path, option(aliases=("-o",), metavar="FILE", help="Where the profile goes, JSON.")
    ] = Path("profile.json"),
    num: Annotated[
        int, option(aliases=("-n",), metavar="N", help="Fresh grids, or sequences of DATA at random.")
    ] = 1024,
    rounds: Annotated[
        int | None,
        option(
            metavar="N", help="Passes over the data; default 4, or more of few sequences, to see all counts."
        ),
    ] = None,
    plot: Annotated[Path | None, option(metavar="FILE", help="Also draw it: .png, .svg or .pdf.")] = None,
    seed: Seed = 0,
    bulk: Shared = BULK,
    machine: On = MACHINE,
    output: Told = OUTPUT,
) -> int:
    """Measure the information profile of a model: what visible positions tell about the others, in nats.

    An interrupted measurement leaves FILE.half*.part and goes on from there; with -o - it starts afresh. Under torchrun
    processes share batches out, and leave FILE.parts; --work FOLDER keeps them elsewhere.
    """
    from unmask.command_line.commands import plan as work
    from unmask.command_line.output import emit, files, one_document, put, wrote

    aside = one_document(out, output.json)
    work.check_plot(plot)
    state = None if aside else out
    with shared(bulk, machine, output, data, beside=out.with_name(f"{out.name}.parts")) as pieces:
        report, found = work.measure(
            model,
            data,
            num=num,
            rounds=rounds,
            seed=seed,
            state=state,
            machine=machine,
            quiet=output.quiet or not pieces.speaks,
            pieces=pieces,
        )
        put(out, found.to_json().encode())
        if plot is not None:
            work.draw(found, {}, plot)
        wrote(out, plot, quiet=output.quiet)
        emit(report | files(out, plot), work.render_profile, output.json, aside=aside)
    return 0


@command("plan")
def plan(
    profile: Annotated[Positional[Path], option(metavar="PROFILE", help="Written by `unmask profile`.")],
    *,
    steps: Annotated[int | None, option(metavar="K", help="Budget of network calls.")] = None,
    max_kl: Annotated[float | None, option(metavar="NATS", help="Budget of nats, order disclosed.")] = None,
    visible: Annotated[int, option(metavar="N", help="Positions that are given (infilling).")] = 0,
    out: Annotated[
        Path, option(aliases=("-o",), metavar="FILE", help="Where the optimal plan goes, for sample --plan.")
    ] = Path("plan.json"),
    plot: Annotated[Path | None, option(metavar="FILE", help="Also draw the staircases: .png, .svg.")] = None,
    output: Told = OUTPUT,
) -> int:
    """How to spend a budget: every family of plans beside the optimal one, with the KL that each costs."""
    from unmask.command_line.commands import plan as work
    from unmask.command_line.output import emit, files, one_document, wrote
    from unmask.planning import plans

    aside = one_document(out, output.json)
    work.check_plot(plot)
    known = work.infilling(work.read_profile(profile), visible)
    report, best = work.compare(known, steps=steps, max_kl=max_kl)
    work.save_plan(out, best, known)
    if plot is not None:
        uniform = plans.uniform(known.length, len(best))
        work.draw(known, {"uniform": uniform, "optimal": best}, plot)
    wrote(out, plot, quiet=output.quiet)
    emit(report | files(out, plot), work.render_plans, output.json, aside=aside)
    return 0


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
    bulk: Shared = BULK,
    machine: On = MACHINE,
    output: Told = OUTPUT,
) -> int:
    """Find the best way to generate within each budget of calls; half of the data choose, the other half judges.

    Orders, plans, rules and passes in parts race each other. Its files are for sample, eval and compress --sampler.
    Under torchrun processes measure side by side what a round takes, and leave FOLDER.parts where they are stopped.
    """
    from unmask.command_line.commands.plan import tune as work
    from unmask.command_line.output import emit, wrote

    if bulk.items is not None:
        raise ValueError(
            "--items for tune, which decides round by round; expected none: --work and torchrun share it out"
        )
    beside = None if out is None else out.with_name(f"{out.name}.parts")
    with shared(bulk, machine, output, data, beside=beside, everywhere=True) as pieces:
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
            quiet=output.quiet or not pieces.speaks,
            pieces=pieces,
        )
        wrote(*map(Path, report["files"]), quiet=output.quiet)
        emit(report, work.render, output.json)
    return 0
