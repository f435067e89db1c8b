"""Dated records of measurements: what was run, where, on which commit, and the table that came out."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import torch

FOLDER = Path(__file__).parent / "records"


def environment() -> dict[str, Any]:
    """Commit, command, date, processor, threads and versions."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _git("rev-parse", "--short", "HEAD")
        + ("+changes" if _git("status", "--porcelain", "src") else ""),
        "command": "python " + " ".join([os.path.relpath(sys.argv[0]), *sys.argv[1:]]),
        "machine": f"{_processor()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "load": [round(x, 2) for x in os.getloadavg()],
        "versions": f"python {platform.python_version()}, torch {torch.__version__}, numpy {numpy.__version__}",
    }


def write(question: str, rows: list[dict[str, Any]], notes: str, **extra: Any) -> Path:
    """Writes ``records/<question>_<date>.md`` and the same as JSON; returns the Markdown file."""
    about = environment()
    FOLDER.mkdir(exist_ok=True)
    stem = FOLDER / f"{question}_{about['date'][:10]}"
    stem.with_suffix(".json").write_text(json.dumps({"about": about, "rows": rows, **extra}, indent=1) + "\n")
    lines = [
        f"# {question}",
        "",
        *(f"- {k}: {v}" for k, v in about.items()),
        "",
        notes.strip(),
        "",
        *table(rows),
    ]
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")
    return stem.with_suffix(".md")


def write_parts(question: str, parts: dict[str, list[dict[str, Any]]], notes: str) -> Path:
    """`write` with a table for each part, under its name."""
    (_, rows), *others = parts.items()
    path = write(question, rows, notes, parts=parts)
    extra = [line for name, rows in others for line in ("", f"## {name}", "", *table(rows))]
    path.write_text(path.read_text() + "\n".join(extra) + "\n")
    return path


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Rows as the lines of a Markdown table."""
    names = list(rows[0])
    body = ["| " + " | ".join(_cell(r.get(n, "")) for n in names) + " |" for r in rows]
    return ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names), *body]


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()


def _processor() -> str:
    """The processor's name, where the system tells."""
    info = Path("/proc/cpuinfo")
    names = (
        [
            line.split(":")[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()
