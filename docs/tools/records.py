"""Writes docs/reproduce.md from the records' headers and the benchmarks' docstrings: the newest record of each name.

Run: python docs/tools/records.py. A record tells its command, commit and date; the benchmark's docstring tells its
question and, where it does, how long it takes and what it needs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/reproduce.md"
RENAMED = {"coverage.py": "interval_coverage.py"}
"""Benchmarks that had another name when a record was written."""

HEAD = """# Reproduce

Figures of the README and of [measured](measured.md) come from records below `benchmarks/records/`; a record tells its
command, commit and machine. This page lists the newest record of each name. It is made by `python
docs/tools/records.py`; do not edit it.

Run from a clone in its environment (`make check` makes it). `--write` adds a record of today beside the old ones.
Commands stand as records have them, with today's names of programs and without quotation marks: options of two words,
such as `"17 clues"`, need them. A commit with `+changes` had changes that were committed later. MODEL, FOLDER, RUN
and `runs/..` are yours to make ([training](train.md)). Data and models come by `unmask data fetch` ([data](data.md)).
How long a command takes, and what it needs, is told where its program tells it.
"""


def newest() -> dict[str, Path]:
    """The newest record of each name."""
    found = (
        re.fullmatch(r"(.+)_(\d{4}-\d\d-\d\d)\.md", p.name)
        for p in (ROOT / "benchmarks/records").glob("*.md")
    )
    return {m[1]: ROOT / "benchmarks/records" / m[0] for m in sorted(filter(None, found), key=lambda m: m[0])}


def header(record: Path) -> dict[str, str]:
    """What stands at the top of a record as ``- key: value``."""
    return dict(re.findall(r"^- (\w+): (.*)$", record.read_text().split("\n\n", 2)[1], re.MULTILINE))


def program(name: str, command: str) -> str:
    """The program that makes a record, by its path in the repository; empty if none is known."""
    named = re.search(r"([\w./]+\.py)", command)
    base = Path(named[1]).name if named else f"{name}.py"
    base = RENAMED.get(base, base)
    places = (f"{folder}/{base}" for folder in ("benchmarks", "tests"))
    return next((place for place in places if (ROOT / place).is_file()), "")


def told(place: str) -> tuple[str, str, str]:
    """Question, time and needs, as the docstring of a program tells them; empty where it does not."""
    text = " ".join((ast.get_docstring(ast.parse((ROOT / place).read_text())) or "").split())
    sentences = re.split(r"(?<=[.?])\s+(?=[A-Z])", text)
    clauses = [c.strip(" .") for s in sentences[1:] for c in re.split(r";|\. ", s)]
    time = next(
        (c for c in clauses if re.search(r"\b(minutes?|hours?|seconds? a)\b", c) and "--" not in c), ""
    )
    needs = next((c for c in clauses if re.search(r"\b[Nn]eeds?\b", c) and "--" not in c), "")
    return sentences[0], time, "" if needs == time else needs


def entries() -> Iterator[str]:
    """The page, line by line: programs, and below each its records."""
    groups: dict[str, list[tuple[str, Path, dict[str, str]]]] = {}
    for name, record in newest().items():
        about = header(record)
        groups.setdefault(program(name, about.get("command", "")), []).append((name, record, about))
    for place in sorted(groups, key=lambda place: Path(place).name):
        question, time, needs = told(place)
        yield f"## {Path(place).stem}\n"
        yield (
            " ".join([question, *(f"{said[0].upper()}{said[1:]}." for said in (time, needs) if said)]) + "\n"
        )
        yield from (_entry(place, *found) for found in groups[place])
        yield ""


def _entry(place: str, name: str, record: Path, about: dict[str, str]) -> str:
    command = about.get("command", "")
    command = re.sub(r"python \S+\.py", f"python {place}", command) or f"python {place}"
    known = "" if "command" in about else " (its settings are told in the record)"
    date = about.get("date", record.stem[-10:])[:10]
    link = f"[{name}](../benchmarks/records/{record.name})"
    return f"- {link}, {date}, commit {about.get('commit', '?')}{known}\n  `{command}`"


def page() -> str:
    """The whole page."""
    return HEAD + "\n" + "\n".join(entries())


if __name__ == "__main__":
    PAGE.write_text(page())
