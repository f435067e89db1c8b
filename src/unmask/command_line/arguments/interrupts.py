"""Ctrl-C, at whatever moment it comes: Python raises it where it happens to be, and some places lose it."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

AGAIN = 0.1
"""Seconds after which a Ctrl-C that was lost comes once more."""

_ours: list[bool] = []
"""Whether this process is the command's own, and may be ended."""


def own_process() -> None:
    """This process runs the command and nothing else: a Ctrl-C that is lost comes again, and `at_once` may end it."""
    _ours.append(True)
    sys.unraisablehook = partial(_once_more, sys.unraisablehook)


@contextmanager
def at_once() -> Iterator[None]:
    """Ctrl-C ends the process inside: while modules are loaded nothing is lost by that, and C code may drop an exception.

    Only in a process of the command's own (`own_process`), and where Python's own handler stands: a caller's is left alone.
    """
    main = bool(_ours) and threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: object) -> None:
    """One line, and the code of a command that was stopped; whatever is half loaded is not asked to end itself."""
    try:
        os.write(2, b"unmask: stopped\n")
    finally:
        os._exit(130)


def _once_more(others: Callable[[Any], object], lost: Any) -> None:
    """For ``sys.unraisablehook``: a Ctrl-C that fell into a finaliser or a callback comes again; other errors go on."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        others(lost)
        return
    timer = threading.Timer(AGAIN, _press)
    timer.daemon = True
    timer.start()


def _press() -> None:
    """SIGINT for the main thread, which wakes it wherever it waits."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()
