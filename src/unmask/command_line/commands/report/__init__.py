"""``unmask report``: results as one page that needs nothing else, to look at and to pass on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from unmask import pictures
from unmask.command_line.commands.report import films, measured
from unmask.command_line.commands.report.reading import DAMAGES, Result, damaged, read
from unmask.command_line.output import Report, put
from unmask.data import files
from unmask.version import __version__

Part = Callable[[Sequence[Result]], str]
"""Pieces made of those results that have something to say to it; nothing where none has."""

PARTS: tuple[tuple[str, Part], ...] = (
    ("Step by step", films.played),
    ("Order", films.orders),
    ("Profiles and plans", measured.profiles_and_plans),
    ("Orders by calls", measured.by_calls),
    ("Tuning", measured.tuned),
    ("Training", measured.trainings),
    ("Archives", measured.archives),
    ("Numbers", measured.numbers),
    ("How it was made", measured.manifests),
)
"""The parts of a page, in order."""


def run(results: Sequence[Path], out: Path, title: str | None = None) -> Report:
    """Reads results and writes the page; ValueError names the file that is none, or says that there are none."""
    if not results:
        raise ValueError(
            "no results; expected files of --json, profiles, plans, archives, or folders of runs"
        )
    files.once(*results)
    found = named([read(path) for path in results], results)
    return write(found, out, title)


def write(found: Sequence[Result], out: Path, title: str | None = None) -> Report:
    """Writes the page of results, or puts it on standard output; a name that ends in .gif gets the first film alone."""
    if out.suffix == ".gif":
        return _moving(found, out)
    made = _sections(found)
    page = pictures.page(title or _title(found), made, _about(found)).encode("utf-8")
    put(out, page)
    kinds = [{"name": result.name, "kind": result.kind} for result in found]
    parts = [name for name, _ in made]
    return {"command": "report", "file": str(out), "bytes": len(page), "sections": parts, "results": kinds}


def _moving(found: Sequence[Result], out: Path) -> Report:
    """Writes the first sample of the first traced result as a GIF; ValueError where none was traced."""
    for result in films.sampled(found):
        try:
            look, items = films.shown(result)
            data = pictures.gif(look, items[0]) if items else b""
        except DAMAGES:
            raise damaged(result) from None
        if items:
            put(out, data)
            part = f"sample 1 of {len(items)} of {result.name}, {len(items[0].steps)} calls"
            kinds = [{"name": result.name, "kind": result.kind}]
            made = {"file": str(out), "bytes": len(data), "sections": [part], "results": kinds}
            return {"command": "report", **made}
    raise ValueError(f"{out}: no steps to play; expected a result of: unmask sample .. --json --trace")


def _sections(found: Sequence[Result]) -> list[tuple[str, str]]:
    """The parts of a page; where a result is not as it should be, ValueError names it."""
    try:
        return [(name, content) for name, part in PARTS if (content := part(found))]
    except DAMAGES:
        for result in found if len(found) > 1 else ():
            _sections([result])
        raise damaged(found[0]) from None


def named(found: Sequence[Result], places: Sequence[Path]) -> list[Result]:
    """The results under names that differ: with those of their folders, or numbers, where they do not."""
    folders = [place.resolve().parent.name for place in places]
    for more in (folders, [str(k + 1) for k in range(len(found))]):
        names = [result.name for result in found]
        alike = [names.count(name) > 1 for name in names]
        found = [r.called(f"{m}/{r.name}") if same else r for r, same, m in zip(found, alike, more)]
    return list(found)


def _title(found: Sequence[Result]) -> str:
    models = {str(name): None for result in found if (name := result.model)}
    return f"unmask: {', '.join(models)}" if models else "unmask report"


def _about(found: Sequence[Result]) -> str:
    names = ", ".join(f"{result.name} ({result.kind})" for result in found[:12])
    more = f" and {len(found) - 12} more" if len(found) > 12 else ""
    return pictures.note(
        f"From {names}{more}. Made by unmask {__version__}; the page loads nothing from anywhere."
    )


def render(report: Report, console: Console) -> None:
    """Says where the page is, and what is on it."""
    console.print(f"{report['file']}: {', '.join(report['sections'])}; {report['bytes'] / 1000:.0f} kB")


__all__ = ["Result", "named", "read", "render", "run", "write"]
