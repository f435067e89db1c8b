"""JSON records on disk: written whole or not at all, read back only in a known format."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def read_record(text: str, expected: str) -> dict[str, Any]:
    """The record in a JSON text; ValueError unless its fields say format ``expected``, version 1."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else error
        raise ValueError(
            f"got text that is not JSON ({reason}), expected a record of format {expected}"
        ) from None
    found = (record.get("format"), record.get("version")) if isinstance(record, dict) else (None, None)
    if found != (expected, 1):
        raise ValueError(
            f"got a record of format {_brief(found[0])}, version {_brief(found[1])}, expected {expected}, version 1"
        )
    return dict(record)


def _brief(value: object) -> str:
    """A value of a foreign record on one short line."""
    return " ".join(str(value)[:60].split())


TEMPORARY = ".tmp"
"""How the names of unfinished files and folders end; they begin with a dot."""


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically, as `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes) -> None:
    """Writes data atomically: a failure leaves the old file, or none, and no temporary one."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` when all went well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
