"""The site: its navigation names every page, links lead to files, headings and functions; what is generated is up to
date."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

import unmask

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs/tools"))
import pictures  # noqa: E402
import records  # noqa: E402
import site_pages  # noqa: E402

API = (ROOT / "docs/api.md").read_text()


def anchors(page: Path) -> set[str]:
    """What a link into a page may name."""
    text = site_pages.FENCE.sub("", page.read_text())
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)} | set(
        re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    )


def slug(heading: str) -> str:
    """The anchor of a heading, as Python-Markdown makes it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", plain.encode("ascii", "ignore").decode()).strip())


def test_the_navigation_names_every_page():
    named = re.findall(r"([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text().split("nav:")[1], re.MULTILINE)
    assert sorted(named) == [p.relative_to(ROOT / "docs").as_posix() for p in site_pages.pages()]


@pytest.mark.parametrize("page", [ROOT / "README.md", *site_pages.pages()], ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for link in site_pages.links(page.read_text()):
        path, _, fragment = link.partition("#")
        if ":" in path:
            continue
        target = page if not path else (page.parent / path).resolve()
        assert target.is_file(), f"{page.name} links to {link}, which does not exist"
        if fragment and target.suffix == ".md":
            assert fragment in anchors(target), f"{page.name} links to {link}: no such heading"
        if fragment and target.suffix == ".py":
            assert fragment in site_pages.names(target.read_text()), (
                f"{page.name} links to {link}: no such function"
            )


def test_formulas_link_every_function_that_they_name():
    links = re.findall(
        r"\[`([\w.()]+)`\]\(\.\./src/(unmask/\S+)\.py#([\w.]+)\)", (ROOT / "docs/formulas.md").read_text()
    )
    assert len(links) > 40
    for _, path, name in links:
        found = importlib.import_module(path.replace("/", "."))
        for part in name.split("."):
            found = getattr(found, part)


def test_a_broken_link_is_seen():
    text = "[a](b.md#c)\n```python\n[x](y)\n```\n![p](q.svg)"
    assert [*site_pages.links(text)] == ["b.md#c", "q.svg"]
    assert site_pages.relinked(text, lambda link: link + "!") == text.replace("#c", "#c!").replace(
        "svg", "svg!"
    )


def test_a_source_file_becomes_a_page_with_every_name():
    code = '"""Doc."""\nX = 1\n\n\n@cache\ndef f():\n    return 1\n\n\nclass A:\n    def g(self): ...\n'
    page = site_pages.code_page("a.py", code)
    assert site_pages.names(code).keys() == {"X", "f", "A", "A.g"}
    assert all(f"{{#{name}}}" in page for name in ("X", "f", "A", "A.g"))
    assert "````python\n@cache\ndef f():\n    return 1\n````" in page
    blocks = re.findall(r"````python\n(.*?)\n````", page, re.DOTALL)
    assert "".join("".join(blocks).split()) == "".join(code.split())


def test_search_reads_a_script_where_a_page_is_opened_from_disk():
    script = site_pages.searchable('{"items": [{"text": "entropy"}]}')
    shim, _, index = script.partition("var __index = ")
    assert json.loads(index.strip().removesuffix(";")) == {"items": [{"text": "entropy"}]}
    assert "globalThis.Worker" in shim, (
        "a page from disk may start no worker: the index must come with another"
    )
    assert "://" not in shim


def test_the_api_shows_all_public_names():
    shown = set(re.findall(r"^::: unmask\.(\S+)$", API, re.MULTILINE))
    modules = {
        name
        for name in unmask.__all__
        if (ROOT / f"src/unmask/{name}").exists() or (ROOT / f"src/unmask/{name}.py").exists()
    }
    wrappers = {f"denoisers.{name}" for name in ("tempered", "nucleus", "guided", "forbidding", "biased")}
    missing = {
        n
        for n in set(unmask.__all__) - modules - {"__version__"}
        if n not in shown and f"denoisers.{n}" not in shown
    }
    assert not missing
    assert wrappers <= shown
    rooms = {"laws": unmask.laws, "plans": unmask.planning.plans, "profiles": unmask.profiles}
    listed = {f"{room}.{name}" for room, module in rooms.items() for name in module.__all__}
    assert listed - shown == {"plans.continuum", "profiles.Profile"}
    for name in shown:
        found = unmask
        for part in name.split("."):
            found = getattr(found, part)


def test_pictures_are_up_to_date():
    for name, svg in pictures.drawn().items():
        assert (pictures.FOLDER / name).read_text() == svg, f"{name}: run python docs/tools/pictures.py"


def test_pictures_ask_nobody_and_speak():
    for path in pictures.FOLDER.glob("*.svg"):
        svg = path.read_text()
        assert "<title>" in svg
        assert "prefers-color-scheme:dark" in svg
        assert len(svg) < 20_000
        assert re.findall(r"https?://[^\"']+", svg) == ["http://www.w3.org/2000/svg"]


def test_the_list_of_records_is_up_to_date():
    assert records.PAGE.read_text() == records.page(), "run python docs/tools/records.py"


def test_a_record_is_found_under_its_program():
    assert (
        records.program("coverage", "python benchmarks/coverage.py --write")
        == "benchmarks/interval_coverage.py"
    )
    assert records.program("mutants", "python tests/mutants.py") == "tests/mutants.py"
    assert all(f"[{name}](" in records.PAGE.read_text() for name in records.newest())
