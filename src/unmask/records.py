"""JSON records on disk: written whole or not at all, read back only in a known format."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def read_record(text: str, expected: str) -> dict[str, Any]:
    """The record in a JSON text; ValueError unless its fields say format ``expected``, version 1."""
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"got text that is not JSON ({error}), expected a record of format {expected}"
        ) from None
    found = (record.get("format"), record.get("version")) if isinstance(record, dict) else (None, None)
    if found != (expected, 1):
        raise ValueError(
            f"got a record of format {found[0]}, version {found[1]}, expected {expected}, version 1"
        )
    return dict(record)


def write_text(path: Path, text: str) -> None:
    """Write a text file through a temporary name, so that a failure leaves the old file as it was."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
