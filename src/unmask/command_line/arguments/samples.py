"""Commands that show what a model makes: samples, and the tour."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from unmask.command_line.arguments.parsing import (
    How,
    ModelName,
    On,
    OnCores,
    Seed,
    Shared,
    Sought,
    Told,
    command,
)
from unmask.command_line.arguments.sharing import shared
from unmask.command_line.options import (
    BULK,
    CORES,
    MACHINE,
    ORDER,
    OUTPUT,
    SEARCH,
    option,
    running,
)


@command("demo")
def demo(
    *,
    num: Annotated[
        int, option(aliases=("-n",), metavar="N", help="Puzzles in all, half of each difficulty.")
    ] = 24,
    seed: Seed = 0,
    tau: Annotated[float, option(metavar="P", help="Probability that suffices in the threshold rule.")] = 0.9,
    model: ModelName = "sudoku",
    report: Annotated[Path, option(metavar="FILE", help="Where a page of what was found goes, HTML.")] = Path(
        "unmask-demo.html"
    ),
    no_animation: Annotated[bool, option(help="Do not show one board step by step at the end.")] = False,
    precision: Annotated[
        Literal["auto", "bfloat16", "float32"],
        option(help="auto: bfloat16 where the processor is built for it."),
    ] = "auto",
    machine: OnCores = CORES,
    output: Told = OUTPUT,
) -> int:
    """Solve fresh Sudoku puzzles in several orders, then watch one being solved."""
    from rich.console import Console

    from unmask.command_line.commands import demo as work
    from unmask.command_line.output import emit, say

    with running(machine):
        found, loaded, denoiser = work.run(
            model,
            num=num,
            seed=seed,
            tau=tau,
            precision=precision,
            batch_size=machine.batch_size,
            quiet=output.quiet,
        )
        emit(found | {"report": str(report)}, work.render, output.json)
        work.page(found, loaded, denoiser, report)
        if not no_animation and not output.json:
            work.animate(denoiser, seed, Console(highlight=False))
    say(f"wrote {report}: open it in a browser to play the puzzle and look at the plans", output.quiet)
    return 0


@command("sample")
def sample(
    model: Positional[ModelName],
    *,
    num: Annotated[
        int, option(aliases=("-n",), metavar="N", help="Samples, of each puzzle if there is a prompt.")
    ] = 1,
    prompt: Annotated[
        Path | None,
        option(
            metavar="FILE",
            help="Puzzles to solve; or lines of text, or FASTA, with _ for gaps to fill; - reads them.",
        ),
    ] = None,
    first: Annotated[int | None, option(metavar="N", help="Only the first N of the prompts.")] = None,
    hide: Annotated[
        str | None,
        option(
            metavar="RANGES", help="Symbols of each prompt to draw, from 0, the end left out: 26:33,51:57."
        ),
    ] = None,
    length: Annotated[
        int | None, option(metavar="N", help="Symbols of a sample, where the model knows no lengths.")
    ] = None,
    out: Annotated[
        Path | None,
        option(
            aliases=("-o",), metavar="FILE", help="Images: a .png sheet or a .npy array; default samples.png."
        ),
    ] = None,
    pretty: Annotated[bool, option(help="Boards as nine lines.")] = False,
    trace: Annotated[
        bool, option(help="With --json: what each step did, with entropies; for report.")
    ] = False,
    watch: Annotated[bool, option(help="Watch the first sample being unmasked.")] = False,
    how: How = ORDER,
    search: Sought = SEARCH,
    bulk: Shared = BULK,
    machine: On = MACHINE,
    output: Told = OUTPUT,
) -> int:
    """Sample from a model, or solve the puzzles of --prompt; samples go to stdout, a summary to stderr.

    Bulk work: `torchrun --nproc-per-node 8 -m unmask sample ...` shares batches out, --work FOLDER keeps them; sample 17 is
    the same sample in all of these.
    """
    from unmask.command_line import choosing
    from unmask.command_line.commands import sample as work
    from unmask.command_line.output import emit, one_document

    aside = one_document(out, output.json)
    if trace and not output.json:
        raise ValueError("--trace writes JSON; expected --json beside it")
    with shared(bulk, machine, output, prompt, choosing.plan_path(how)) as pieces:
        report = work.run(
            model,
            how,
            num=num,
            prompt=prompt,
            first=first,
            out=out,
            trace=trace,
            watch=watch,
            length=length,
            hide=hide,
            search=search,
            machine=machine,
            quiet=output.quiet or not pieces.speaks,
            pieces=pieces,
        )
        emit(
            report,
            lambda found, _: work.render(found, pretty=pretty, quiet=output.quiet),
            output.json,
            aside=aside,
        )
    return 0


@command("report")
def report(
    results: Annotated[
        Positional[tuple[Path, ...]],
        option(
            metavar="RESULT...",
            help="What --json wrote, profiles, plans, archives, folders of train and tune; - reads one.",
        ),
    ],
    *,
    out: Annotated[
        Path,
        option(
            aliases=("-o",), metavar="FILE", help="The page, HTML; NAME.gif: its first film; - prints it."
        ),
    ] = Path("report.html"),
    title: Annotated[
        str | None, option(metavar="TEXT", help="The heading; default the models' names.")
    ] = None,
    output: Told = OUTPUT,
) -> int:
    """Make one page of results to look at: unmasking step by step, orders, profiles, plans, training, archives.

    The page is one file that loads nothing. Samples play where they were made with --json --trace; a GIF holds the first.
    """
    from unmask.command_line.commands import report as work
    from unmask.command_line.output import emit, one_document

    aside = one_document(out, output.json)
    emit(work.run(results, out, title), work.render, output.json, aside=aside)
    return 0
