"""Do all pages of the site open from disk without complaints and foreign requests, and does its search find there?

Run: python benchmarks/site_in_browser.py [--chromium /usr/bin/chromium] [--pictures FOLDER]

Needs build/site of `make docs`. Every check that fails is an error; screenshots are for people to look at. 404.html is left
out: a server gives it for addresses of any depth, so its links are those of a server.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import record
from browser import Browser, chromium
from report_in_browser import VIEWS

SITE = Path(__file__).parents[1] / "build/site"
WORD = "entropy"
FOUND = """[...document.querySelectorAll("*")].map(e => e.shadowRoot?.textContent ?? "").join(" ")"""
"""What stands in the parts of the page that keep their content to themselves, the search among them."""

NOTES = """
Every page of the built site opened from disk by headless Chromium: no complaint on the console, no address asked that is no
file, on a desk and on a phone (380 pixels); nothing there is wider than the window, but tables, code and pictures scroll in
boxes of their own. "search": typing "{word}" on the first page lists results, from disk as well.
"""


def look_at(browser: Browser, page: Path, pictures_in: Path | None) -> list[str]:
    """What is wrong with a page, on a desk and on a phone; with pictures also in the dark."""
    wrong = []
    for name, view in VIEWS.items():
        if name == "dark" and not pictures_in:
            continue
        browser.open(page, **view)
        wrong += browser.complaints()
        wrong += [url for url in browser.requests() if not url.startswith(("file:", "data:"))]
        if browser.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wrong.append(f"wider than the window: {name}")
        if pictures_in:
            place = "_".join(page.relative_to(SITE).with_suffix("").parts)
            browser.picture(pictures_in / f"{place}_{name}.png")
    return wrong


def searched(browser: Browser) -> str:
    """How many results the search says that it has."""
    browser.open(SITE / "index.html", **VIEWS["light"])
    time.sleep(1)
    browser.press("/")
    time.sleep(1)
    for letter in WORD:
        browser.press(letter)
    time.sleep(2)
    said = browser.evaluate(FOUND).split()
    return next((n for n, word in pairwise(said) if word.startswith("result") and n.isdigit()), "0")


def main() -> int:
    """Looks at all pages, searches, and writes a record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--only", default="", help="pages whose path has this")
    asked = parser.parse_args()
    pages = [p for p in sorted(SITE.rglob("*.html")) if p.name != "404.html" and asked.only in str(p)]
    if asked.chromium is None or not pages:
        print("no chromium here, or no build/site: run make docs")
        return 1
    if asked.pictures:
        asked.pictures.mkdir(parents=True, exist_ok=True)
    with chromium(asked.chromium) as browser:
        wrong = {page: said for page in pages if (said := look_at(browser, page, asked.pictures))}
        found = searched(browser)
    for page, said in wrong.items():
        print(page.relative_to(SITE), *said)
    row: dict[str, Any] = {"pages": len(pages), "with something wrong": len(wrong), "search": found}
    if not asked.only:
        print(record.write("site_in_browser", [row], NOTES.format(word=WORD)))
    print(row)
    return int(bool(wrong) or found == "0")


if __name__ == "__main__":
    sys.exit(main())
