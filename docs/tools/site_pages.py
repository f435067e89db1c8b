"""Builds the site: stages the pages, and what they link to outside of docs/, then runs zensical, which checks all
links.

Run: python docs/tools/site_pages.py, or `make docs`. Pages of docs/ keep their places. Records, pictures and source
files that a page links to (``../benchmarks/records/x.md``, ``../src/unmask/engine/loop.py#step``) stand in no site by
themselves: they are copied beside the pages under their paths in the repository, source files as a page with a
heading for every function.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
STAGE, SITE = ROOT / "build/docs", ROOT / "build/site"
FROM_DISK = ROOT / "docs/tools/search_from_disk.js"
COPIED = (".png", ".svg", ".css")
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s]+)(\))")
FENCE = re.compile(r"^(```.*?^```$)", re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    """All pages of the documentation, below docs/."""
    return sorted(ROOT.glob("docs/**/*.md"))


def links(text: str) -> Iterator[str]:
    """Targets of the links and pictures of a page, those in fenced examples left out."""
    for part in FENCE.split(text):
        if not part.startswith("```"):
            yield from (found[1] for found in LINK.findall(part))


def relinked(text: str, change: Callable[[str], str]) -> str:
    """The page with every link changed, those in fenced examples left as they are."""
    parts = FENCE.split(text)
    plain = (LINK.sub(lambda m: m[1] + change(m[2]) + m[3], part) for part in parts[::2])
    return "".join(a + b for a, b in zip(plain, [*parts[1::2], ""], strict=True))


@cache
def names(code: str) -> dict[str, int]:
    """Functions, classes, methods and constants of a module, with the line where each begins, from 1."""
    found: dict[str, int] = {}
    for node in ast.parse(code).body:
        found |= _named(node)
        if isinstance(node, ast.ClassDef):
            inner = {name: line for child in node.body for name, line in _named(child).items()}
            found |= {f"{node.name}.{name}": line for name, line in inner.items()}
    return found


def _named(node: ast.stmt) -> dict[str, int]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name: min([node.lineno, *(d.lineno for d in node.decorator_list)])}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {t.id: node.lineno for t in targets if isinstance(t, ast.Name)}


def code_page(path: str, code: str) -> str:
    """A source file as a page: its code in pieces, each under the name that begins there."""
    starts = {line: name for name, line in sorted(names(code).items(), reverse=True)}
    lines, cuts = code.splitlines(), sorted({1, *starts})
    text = [f"# `{path}`", ""]
    for first, end in zip(cuts, [*cuts[1:], len(lines) + 1], strict=True):
        name, piece = starts.get(first), "\n".join(lines[first - 1 : end - 1]).strip("\n")
        text += [f"## {name} {{#{name}}}", ""] if name else []
        text += ["````python", piece, "````", ""] if piece else []
    return "\n".join(text)


def put(place: str) -> str:
    """Where a file of the repository stands in the site: pages of docs/ at the top, all others under their paths."""
    place = place.removeprefix("docs/")
    return place if place.endswith((".md", *COPIED)) else place + ".md"


def stage() -> int:
    """Copies all pages, and whatever they link to; how many files that are."""
    shutil.rmtree(STAGE, ignore_errors=True)
    own = [p for kind in ("svg", "css") for p in ROOT.glob(f"docs/**/*.{kind}")]
    waiting = [p.relative_to(ROOT).as_posix() for p in [*pages(), *own]]
    seen = set(waiting)
    while waiting:
        place = waiting.pop()
        source, target = ROOT / place, STAGE / put(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix in COPIED:
            shutil.copy(source, target)
        elif source.suffix == ".md":
            target.write_text(relinked(source.read_text(), lambda link: _moved(place, link, seen, waiting)))  # noqa: B023
        elif source.suffix == ".py":
            target.write_text(code_page(place, source.read_text()))
        else:
            target.write_text(f"# `{place}`\n\n````text\n{source.read_text()}\n````\n")
    return len(seen)


def _moved(place: str, link: str, seen: set[str], waiting: list[str]) -> str:
    """A link of a page as it must be in the site; a file that it leads to is staged as well."""
    path, _, fragment = link.partition("#")
    if not path or ":" in path:
        return link
    target = os.path.normpath(PurePosixPath(place).parent / path)
    if not (ROOT / target).is_file():
        raise ValueError(f"{place} links to {link}, which is no file of the repository: mend the link")
    if target not in seen:
        seen.add(target)
        waiting.append(target)
    moved = os.path.relpath(put(target), PurePosixPath(put(place)).parent)
    return moved + (f"#{fragment}" if fragment else "")


def foreign() -> list[str]:
    """Addresses of other hosts that the built pages would load by themselves: scripts, styles, fonts, pictures."""
    asks = re.compile(r"""(?:src=|<link[^>]+href=|url\(|@import\s+|srcset=)["']?((?:https?:)?//[^"')\s>]+)""")
    built = [p for kind in ("html", "css") for p in SITE.rglob(f"*.{kind}")]
    return sorted({f"{p.relative_to(SITE)}: {a}" for p in built for a in asks.findall(p.read_text())})


def searchable(index: str) -> str:
    """The index of the search as a script: a page that is opened from disk may read nothing else, and start no worker."""
    return f"{FROM_DISK.read_text()}\nvar __index = {index};\n"


def needs() -> list[str]:
    """The packages of the extra ``docs``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(project["optional-dependencies"]["docs"])


def main() -> int:
    """Stages and builds; says what is wrong."""
    if sys.argv[1:] == ["--needs"]:
        print(*needs())
        return 0
    print(f"{stage()} files staged in {STAGE.relative_to(ROOT)}")
    command = [Path(sys.executable).with_name("zensical"), "build", "--clean", "--strict"]
    code = subprocess.run(command, cwd=ROOT, env=os.environ | {"NO_COLOR": "1"}, check=False).returncode
    if not code:
        (SITE / "search.js").write_text(searchable((SITE / "search.json").read_text()))
    asked = [] if code else foreign()
    print(
        "\n".join(["pages ask other hosts:", *asked]) if asked else f"the site is in {SITE.relative_to(ROOT)}"
    )
    return code or len(asked) > 0


if __name__ == "__main__":
    sys.exit(main())
