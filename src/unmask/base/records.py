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


# --- results of commands ------------------------------------------------------------------------------


SCHEMA = "unmask/1"
"""How results are written; fields are added under the same number, a changed meaning takes the next."""

FORMATS = {
    "unmask.profile": "profile",
    "unmask.plan": "plan",
    "unmask.tuned": "tune",
    "unmask.sampler": "sampler",
}
"""Kinds of results that have a format of their own."""


def stamped(kind: str) -> dict[str, Any]:
    """The fields that say what a result is: its schema and its kind, such as sample or profile."""
    return {"schema": SCHEMA, "result": kind}


def kind_of(record: object) -> str:
    """The kind of a result, older ones (from before there were schemas) included; ValueError where it is none."""
    if not isinstance(record, dict):
        raise ValueError(
            f"got {_brief(type(record).__name__)}, expected the JSON object that a command wrote"
        )
    schema, kind = record.get("schema", SCHEMA), record.get("result")
    if schema != SCHEMA:
        raise ValueError(
            f"got a result of schema {_brief(schema)}, expected {SCHEMA}; read it with a newer unmask"
        )
    named = kind if "schema" in record else record.get("command") or FORMATS.get(str(record.get("format")))
    if not isinstance(named, str) or not named:
        raise ValueError("got a JSON object that no command of unmask wrote; expected what --json prints")
    return named.split()[0]


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
