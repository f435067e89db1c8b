"""Ctrl-C, at whatever moment it comes: Python raises it where it happens to be, and some places lose it."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

AGAIN = 0.1
"""Seconds after which a Ctrl-C that was lost comes once more."""


@contextmanager
def at_once() -> Iterator[None]:
    """Ctrl-C ends the process inside: while modules are loaded nothing is lost by that, and C code may drop an exception.

    Only in the main thread, and where Python's own handler stands: a caller's is left alone.
    """
    main = threading.current_thread() is threading.main_thread()
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
    os.write(2, b"unmask: stopped\n")
    os._exit(130)


def once_more(lost: Any) -> None:
    """For ``sys.unraisablehook``: a Ctrl-C that fell into a finaliser or a callback comes again; other errors are told."""
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    timer = threading.Timer(AGAIN, _thread.interrupt_main)
    timer.daemon = True
    timer.start()
