"""A page of pieces that needs nothing else, and the same pieces in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from unmask.pictures.svg import NONE, said, tag, text

HERE = Path(__file__).parent


@cache
def _file(name: str) -> str:
    return (HERE / name).read_text("utf-8")


HATCH = (
    '<svg class="um-hidden" aria-hidden="true" focusable="false"><defs><pattern id="um-hatch" width="5" height="5" '
    'patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect class="um-hatched" width="1.6" height="5"/>'
    "</pattern></defs></svg>"
)
"""What areas are filled with, so that they are seen without colours."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""The page may load nothing."""


def page(title: str, sections: Sequence[tuple[str, str]], about: str = "") -> str:
    """A whole HTML file of (heading, content) sections, with a list of them, and the button for light and dark."""
    links = [tag("a", text(name), href=f"#{slug(name)}") for name, _ in sections]
    head = tag("header", tag("div", tag("h1", text(title)), _button(), class_="um-top"), about)
    menu = tag("nav", *links, aria_label="Sections") if len(links) > 1 else ""
    body = "".join(section(name, content) for name, content in sections)
    return _document(title, head + menu + tag("main", body))


def _button() -> str:
    """Light, dark, or as the system has it; shown where scripts run."""
    return tag("button", "Theme: system", type="button", class_="um-theme", aria_live="polite", hidden=True)


def _document(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n<meta name="generator" content="unmask">\n'
        f"<title>{text(title)}</title>\n<style>\n{_file('report.css')}</style>\n</head>\n"
        f'<body class="unmask um-page">\n{HATCH}\n{body}\n<script>\n{_file("report.js")}</script>\n</body>\n</html>\n'
    )


def fragment(content: str, title: str = "") -> str:
    """Pieces as a notebook shows them: with their style and script, both of which do nothing a second time."""
    head = tag("h3", text(title)) if title else ""
    style, script = tag("style", _file("report.css")), tag("script", _file("report.js"))
    return tag("div", style, HATCH, head, content, class_="unmask um-cell") + script


@dataclass(frozen=True)
class Picture:
    """Pieces under a title: a notebook shows them, `html` is the same as a whole page."""

    title: str
    content: str

    def _repr_html_(self) -> str:
        return fragment(self.content, self.title)

    def html(self) -> str:
        """A file that needs nothing else."""
        return page(self.title, [(self.title, self.content)])


def section(name: str, content: str) -> str:
    """A part of a page under its heading."""
    return tag("section", tag("h2", text(name)), content, id=slug(name))


def slug(name: str) -> str:
    """A heading as the place that links lead to."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows under names; a first column of names."""
    head = tag("tr", *(tag("th", text(name), scope="col") for name in names))
    body = [tag("tr", *(tag("td", text(said(cell))) for cell in row)) for row in rows]
    inside = tag("table", tag("thead", head), tag("tbody", *body))
    return tag(
        "div",
        inside,
        class_="um-scroll",
        tabindex="0",
        role="region",
        aria_label=f"Table of {names[-1] or names[0]}",
    )


def note(said: str) -> str:
    """A remark."""
    return tag("p", text(said), class_="um-note")


def listed(title: str, facts: Mapping[str, object]) -> str:
    """Facts to open, one a line; those inside facts below them."""
    return tag("details", tag("summary", text(title)), _facts(facts), class_="um-facts")


def _facts(facts: Mapping[str, object]) -> str:
    return tag("dl", *(tag("dt", text(name)) + tag("dd", _fact(value)) for name, value in facts.items()))


def _fact(value: object) -> str:
    if isinstance(value, Mapping):
        return _facts(value) if value else NONE
    if isinstance(value, list | tuple):
        inside = ", ".join(said(v) for v in value[:40])
        return text(f"{inside}{f', .. ({len(value)} in all)' if len(value) > 40 else ''}") or NONE
    return text(said(value, 6))
