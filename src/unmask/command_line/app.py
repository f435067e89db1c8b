"""The command `unmask`: runs a command, and turns whatever ends it into one line and an exit code."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from unmask.command_line.arguments import archives, here, models, samples, tuning  # noqa: F401 - they register
from unmask.command_line.arguments.parsing import parse
from unmask.version import __version__


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
        return _fail(f"stopped{f': {stop}' if str(stop) else ''}", 130)
    except (ValueError, OSError, ImportError) as error:
        return _fail(one_line(error), 2)
    return code


def _run(given: list[str]) -> int:
    """Parses, then runs what was asked for."""
    if given == ["--version"]:
        print(f"unmask {__version__}")
        return 0
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        return parse(given)()


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning on one line, as errors are."""
    print(f"unmask: warning: {' '.join(str(message).split())}", file=sys.stderr)


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
