"""From words to a call: commands register here; a mistake becomes one line that says where help is."""

from __future__ import annotations

import difflib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial, wraps
from typing import Annotated, Any, TypeAlias

import tyro
from tyro.extras import SubcommandApp

from unmask.command_line.arguments import help as helping
from unmask.command_line.arguments.interrupts import at_once
from unmask.command_line.options import Bulk, Cores, Fleet, Machine, Options, Output, Search, option

Call: TypeAlias = Callable[[], int]
"""A command with its arguments; gives its exit code."""

REGISTERED: dict[str, Callable[..., Call]] = {}
"""Commands by name, as ``data prepare``."""

Json = Annotated[bool, option(name="json", help="Print one JSON document on standard output.")]
Seed = Annotated[int, option(metavar="N", help="Start of all random numbers.")]
How = Annotated[Options, option(name="order", help="")]
Sought = Annotated[Search, option(name="search", help="")]
On = Annotated[Machine, option(name="machine", help="")]
OnCores = Annotated[Cores, option(name="machine", help="")]
For = Annotated[Fleet, option(name="fleet", help="")]
Shared = Annotated[Bulk, option(name="bulk", help="")]
Told = Annotated[Output, option(name="output", help="")]
ModelName = Annotated[
    str,
    option(
        metavar="MODEL",
        help="A shipped or fetched model, or a folder: of `unmask train`, or a masked model of transformers.",
    ),
]


def command(name: str, light: bool = False) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Registers a function as a command: parsing its words gives a call, which is made afterwards.

    Torch is loaded before the call, unless the command is ``light`` and does without.
    """

    def register(function: Callable[..., int]) -> Callable[..., int]:
        @wraps(function)
        def later(*args: Any, **kwargs: Any) -> Call:
            call = partial(function, *args, **kwargs)
            return call if light else partial(_with_torch, call)

        REGISTERED[name] = later
        return function

    return register


def _with_torch(call: Call) -> int:
    """Makes the call once torch is there: a Ctrl-C in those seconds ends the command, where torch would lose it."""
    with at_once():
        import torch  # noqa: F401
    return call()


SUMMARY = "Masked diffusion over discrete data: train, measure, plan, sample in any order, score exactly."
DATA = "Token folders: prepare them from files, fetch data sets, check them."
PARSING = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone)


def parse(given: Sequence[str]) -> Call:
    """The call that the words ask for; help is printed and gives a call that does nothing. ValueError for a mistake."""
    words = fields_as_options(list(given))
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    call, code, said = _heard(words, _Said(sys.stdout.encoding, colour))
    if call is not None:
        return call
    if code:
        raise ValueError(mistake(given, _heard(words, _Said())[2]))
    print(said + helping.more(command_of(given)), end="")
    return lambda: 0


class _Said(io.StringIO):
    """What a parser prints, in signs that a stream of this encoding has, with colours or without."""

    def __init__(self, encoding: str = "utf-8", colour: bool = False) -> None:
        super().__init__()
        self.signs, self.colour = encoding, colour

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding, as of a file."""
        return self.signs

    def isatty(self) -> bool:
        """Whether colours are seen."""
        return self.colour


def _heard(words: list[str], said: _Said) -> tuple[Call | None, int, str]:
    """The call, or None with the parser's exit code and what it said."""
    app, data = SubcommandApp(), SubcommandApp()
    for name in helping.COMMANDS:
        if name == "data":
            app.command(data, name=name, help=DATA)
        else:
            (data if name.startswith("data ") else app).command(name=name.split()[-1])(REGISTERED[name])
    try:
        with redirect_stdout(said), redirect_stderr(said):
            return app.cli(prog="unmask", description=SUMMARY, args=words, config=PARSING), 0, ""
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        return None, code, said.getvalue()


def completion(shell: str) -> str:
    """The script that completes words in a shell: bash, zsh or fish."""
    return _heard(["--tyro-write-completion", shell, "-"], _Said())[2]


# --- mistakes ---------------------------------------------------------------------------------------


def command_of(given: Sequence[str]) -> str:
    """The command that the words start with, such as ``data prepare``; empty where they name none."""
    first = given[0] if given and given[0] in helping.COMMANDS else ""
    both = " ".join(given[:2])
    return both if both in helping.COMMANDS else first


def mistake(given: Sequence[str], complaint: str) -> str:
    """What a parser complains of in a box, in one line with the nearest word and the command's own help."""
    name = command_of(given)
    place = f"unmask {name}".strip()
    title, *lines = [line.strip("│╭╮╰╯─ ") for line in complaint.splitlines()]
    lines = lines[: lines.index("")] if "" in lines else lines  # a rule leaves nothing
    said, see = " ".join(lines).rstrip("."), f"see `{place} --help`"
    if title == "Required options":
        return f"missing {' '.join(lines[1:]).replace(' (required)', '').rstrip('.')}; {see}"
    if title != "Unrecognized options":
        return f"{said}; {see}"
    wrong = said.split(": ", 1)[-1].split(", ")[0]
    if wrong.startswith("-"):
        return f"no option {wrong}: {_near(wrong, options_of(name))}{see}"
    if name in ("", "data"):
        known = [c.removeprefix(name).strip() for c in helping.COMMANDS if c.startswith(name) and c != name]
        return f"no command '{f'{name} {wrong}'.strip()}': {_near(wrong, known)}{see}"
    return f"unexpected '{wrong}' after {place}; {see}"


def options_of(name: str) -> list[str]:
    """The options of a command, as its help lists them."""
    text = _heard([*name.split(), "--help"], _Said())[2]
    names = [line[2:].split("  ")[0] for line in text.splitlines() if line.startswith("│ -")]
    return [name for line in names for name in re.findall(r"--[\w-]+", line)]


def _near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word.split("=")[0].replace("_", "-"), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}? " if near else ""


# --- a recipe's fields ------------------------------------------------------------------------------


OWN = (
    *("out", "set", "fields", "json", "quiet", "threads", "help", "dry-run", "track"),
    *("devices", "strategy", "accumulate", "checkpointing", "flops", "utilisation", "memory"),
)
"""Options of ``train`` that are no fields."""


def fields_as_options(given: list[str]) -> list[str]:
    """``train``'s own options kept; any other ``--field value`` or ``--field=value`` becomes ``--set``."""
    if given[:1] != ["train"]:
        return given
    kept, left = given[:1], given[1:]
    while left:
        word = left.pop(0)
        name, equals, value = word[2:].partition("=")
        if not word.startswith("--") or name in OWN:
            kept.append(word)
            continue
        if not equals:
            if not left or left[0].startswith("--"):
                raise ValueError(f"field '{name}': expected a value after --{name}")
            value = left.pop(0)
        field = "machine.device" if name == "device" else name.replace("-", "_")
        kept += ["--set", f"{field}={value}"]
    return kept
