"""One process at a time works in a folder."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(folder: Path, doing: str = "trained") -> Iterator[None]:
    """Holds the file ``lock`` in a folder, which is made if need be; ValueError while another process or thread does.

    The system frees it when the process ends, however it ends. The file stays and says who had it last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(handle, folder, doing)
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        os.close(handle)


def _take(handle: int, folder: Path, doing: str) -> None:
    """Locks an open file; ValueError when it is locked. A warning where the file system knows no locks."""
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = " ".join(os.read(handle, 200).decode(errors="replace").split()) or "another process"
        raise ValueError(
            f"{folder} is being {doing} in by {owner}; wait for its end, or use another folder"
        ) from None
    except OSError as error:
        warnings.warn(f"{folder} cannot be locked ({error}): one process at a time may use it", stacklevel=4)
