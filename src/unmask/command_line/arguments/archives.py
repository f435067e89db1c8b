"""Commands about archives: compress, decompress, inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from unmask.command_line.arguments.parsing import ModelName, OnCores, Seed, Shared, Told, command
from unmask.command_line.arguments.sharing import shared
from unmask.command_line.options import BULK, CORES, OUTPUT, option, running


@command("compress")
def compress(
    model: Positional[ModelName],
    sources: Annotated[
        Positional[tuple[Path, ...]],
        option(metavar="FILE...", help="Files, folders, or - for standard input."),
    ],
    *,
    out: Annotated[Path, option(aliases=("-o",), metavar="FILE", help="The archive, such as out.umz.")],
    lines: Annotated[bool, option(help="Each line of text is an item; default each file.")] = False,
    jsonl: Annotated[bool, option(help="Each line of JSON is an item.")] = False,
    fasta: Annotated[bool, option(help="Each FASTA record is an item; headers come back, too.")] = False,
    images: Annotated[
        bool, option(help="Pixels of PNG or PGM pictures and idx files, not the files.")
    ] = False,
    calls: Annotated[
        int | None,
        option(metavar="K", help="Network calls for a full row; default one a position."),
    ] = None,
    sampler: Annotated[
        Path | None,
        option(
            metavar="FILE|tuned:CALLS",
            help="A sampler file, or one that comes with the model: order, plan or rule, noise, sub-steps, temperature.",
        ),
    ] = None,
    order: Annotated[
        str | None,
        option(metavar="NAME", help="An order of those named below; by default what suits model and calls."),
    ] = None,
    substeps: Annotated[
        int | None,
        option(
            metavar="S",
            help="Parts of each step; S cost S - 1 more full passes. Default as suits, within --calls.",
        ),
    ] = None,
    together: Annotated[
        int,
        option(
            metavar="G", help="Items that share a stream and a checksum, up to 256: smaller, lost together."
        ),
    ] = 1,
    seed: Seed = 0,
    no_verify: Annotated[bool, option(help="Do not decode every item after encoding it.")] = False,
    bulk: Shared = BULK,
    machine: OnCores = CORES,
    output: Told = OUTPUT,
) -> int:
    """Compress texts or images losslessly with a model: single items, in few network calls.

    Under torchrun each process does its share of the blocks, and the archive is that of a single process; one that is
    stopped leaves FILE.parts, from which the same command goes on.
    """
    from unmask.command_line.commands.archives import compress as work
    from unmask.command_line.commands.archives.inspect import render
    from unmask.command_line.commands.archives.sources import kind_of
    from unmask.command_line.output import emit, one_document

    aside = one_document(out, output.json)
    with shared(bulk, machine, output, *sources, beside=out.with_name(f"{out.name}.parts")) as pieces:
        report = work.run_compress(
            model,
            sources,
            out,
            kind=kind_of(lines, jsonl, images, fasta),
            calls=calls,
            sampler=sampler,
            order=order,
            substeps=substeps,
            together=together,
            seed=seed,
            batch=machine.batch_size,
            verify=not no_verify,
            quiet=output.quiet or not pieces.speaks,
            pieces=pieces,
        )
        emit(report, render, output.json, aside=aside)
    return 0


@command("decompress")
def decompress(
    archive: Annotated[Positional[Path], option(metavar="ARCHIVE", help="Written by `unmask compress`.")],
    *,
    out: Annotated[
        Path | None,
        option(aliases=("-o",), metavar="PATH", help="A folder for files; a file for lines, or one item."),
    ] = None,
    item: Annotated[int | None, option(metavar="N", help="Only this item, counted from 0.")] = None,
    model: Annotated[
        str | None, option(metavar="MODEL", help="The model's folder, where it is not shipped.")
    ] = None,
    skip: Annotated[bool, option(help="Leave out damaged items instead of stopping; exit code 1.")] = False,
    max_symbols: Annotated[
        int,
        option(metavar="N", help="Accept N symbols, or bytes of stored items, however small the archive is."),
    ] = 0,
    machine: OnCores = CORES,
    output: Told = OUTPUT,
) -> int:
    """Give back the items of an archive; lines go to standard output unless --out says where."""
    from unmask.command_line.commands.archives import decompress as work
    from unmask.command_line.output import emit, one_document

    one_document(out, output.json)
    if output.json and out is None:
        raise ValueError(
            "--json without --out; expected it beside --out PATH, for items go to standard output"
        )
    with running(machine):
        report = work.run_decompress(
            archive,
            out,
            model_name=model,
            item=item,
            skip=skip,
            max_symbols=max_symbols,
            batch=machine.batch_size,
            quiet=output.quiet,
        )
    emit(report, lambda found, _: work.render_decompress(found, output.quiet), output.json)
    return 1 if report["lost"] else 0


@command("inspect")
def inspect(
    archive: Annotated[Positional[Path], option(metavar="ARCHIVE", help="Written by `unmask compress`.")],
    *,
    output: Told = OUTPUT,
) -> int:
    """Say what an archive holds: sizes, bits per symbol, model, order and plan."""
    from unmask.command_line.commands.archives import inspect as work
    from unmask.command_line.output import emit

    emit(work.run_inspect(archive), work.render, output.json)
    return 0
