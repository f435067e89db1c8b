"""Does a report open without complaints and requests, step by keys, and in how long with 200 items?

Run: python benchmarks/report_in_browser.py [PAGE ...] [--chromium /usr/bin/chromium] [--pictures FOLDER]

Without pages it makes one: 200 Sudoku puzzles, text, molecules, digits and residues step by step, a profile with plans, a
tuning, trainings, an archive. Every check that fails is an error; screenshots are for people to look at.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import record
from browser import Browser, chromium

import unmask
from unmask.command_line.commands import report
from unmask.command_line.commands.report import Result
from unmask.models.pretrained import pretrained_folder
from unmask.pictures import Look

VIEWS: dict[str, dict[str, Any]] = {
    "light": {"width": 1000, "height": 900},
    "dark": {"width": 1000, "height": 900, "dark": True},
    "phone": {"width": 380, "height": 800, "phone": True},
}
OPENINGS = 5
"""Times that a page is opened; the median counts."""

SOLUTION = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
SMILES = ("CC(=O)Oc1ccccc1C(=O)O", "CN1CCC[C@H]1c1cccnc1".replace("@", ""), "Clc1ccc2c(c1)NC(=O)C2")


def steps(tokens: list[int], hidden: list[int], size: int, draw: random.Random) -> list[dict[str, Any]]:
    """Hidden positions in the order given, so many a step, with made-up probabilities."""
    groups = [hidden[k : k + size] for k in range(0, len(hidden), size)]
    return [
        {
            "positions": own,
            "symbols": [tokens[at] for at in own],
            "log_probs": [math.log(draw.uniform(0.2, 1)) for _ in own],
            "entropies": [draw.uniform(0, 2) for _ in own],
        }
        for own in groups
    ]


def made(name: str, look: Look, rows: list[list[int]], shown: int, size: int) -> Result:
    """A traced result of made-up steps: ``shown`` of the positions of each row are given."""
    draw, samples = random.Random(name), []
    for row in rows:
        places = draw.sample(range(len(row)), len(row))
        hidden = set(places[shown:])
        start = [look.mask if at in hidden else t for at, t in enumerate(row)]
        told = {"text": look.written(row), "log_prob": -draw.uniform(5, 9), "nfe": len(hidden) / size}
        samples.append(told | {"start": start, "steps": steps(row, places[shown:], size, draw)})
    record = {"command": "sample", "model": name, "order": "random", "symbols": "drawn", "samples": samples}
    used = {t for row in rows for t in row}
    return Result(name, "sample", record | {"look": look.record(used), "manifest": {"seed": 0}})


def everything() -> list[Result]:
    """200 items, and one result of every other kind."""
    draw = random.Random(0)
    letters = dict(enumerate("abcdefghijklmnopqrstuvwxyz ")) | dict(
        enumerate(sorted(set("".join(SMILES))), 100)
    )
    back = {c: k for k, c in letters.items()}
    chars = {c: k for k, c in letters.items() if k >= 100}
    digits = [
        [
            min(255, int(255 * math.exp(-(((at % 28) - 14) ** 2 + (at // 28 - 14) ** 2) / 40)))
            for at in range(784)
        ]
    ] * 2
    proteins = [[draw.randrange(20) for _ in range(118)] for _ in range(8)]
    found = [
        made(
            "boards",
            Look("grid", {k: str(k + 1) for k in range(9)}, 9, 9),
            [[int(c) - 1 for c in SOLUTION]] * 200,
            30,
            1,
        ),
        made(
            "text",
            Look("text", letters, 999),
            [[back[c] for c in "the order in which a text is unmasked"]] * 4,
            0,
            2,
        ),
        made("molecules", Look("molecule", letters, 999), [[chars[c] for c in s] for s in SMILES], 0, 1),
        made("digits", Look("image", {}, 256, 28, 255), digits, 0, 16),
        made("residues", Look("residues", dict(enumerate(RESIDUES)), 20), proteins, 90, 2),
    ]
    profile = json.loads((pretrained_folder() / "text" / "profile.json").read_text())
    curve = {"step": list(range(1, 201)), "loss": [3 / k**0.5 for k in range(1, 201)]}
    train = {
        "command": "train",
        "recipe": "text",
        "curve": curve | {"low": curve["loss"], "high": curve["loss"], "averaged": 1},
    }
    sizes = {"payload_bytes": 900, "other_bytes": 100, "bytes": 1000, "source_bytes": 4000}
    archive = {"command": "compress", "items": 9, "symbols": 4000, "bits_per_symbol": 1.8} | sizes
    return [
        *found,
        Result("tuned", "tune", tuning()),
        Result("orders", "eval", compared()),
        Result("profile", "profile", profile),
        Result("run", "train", train),
        Result("archive", "compress", archive),
    ]


def compared() -> dict[str, Any]:
    """Made-up orders at equal calls."""
    found = [
        {
            "order": name,
            "budget": k,
            "calls": {"value": float(k)},
            "nats": {"value": v, "low": v - 6, "high": v + 6},
        }
        for name, far in (("random", 30.0), ("bisection", 12.0), ("confidence", 20.0), ("entropy", 25.0))
        for k, v in ((k, 200 + far / k**0.5 * 4) for k in (4, 8, 16))
    ]
    return {"command": "eval", "model": {"name": "text"}, "data": {"source": "held out"}, "along": found}


def tuning() -> dict[str, Any]:
    """A made-up tuning of three budgets."""

    def row(name: str, calls: float, loss: float) -> dict[str, Any]:
        return {"name": name, "calls": calls, "loss": loss, "interval": [loss - 5, loss + 5], "items": 64}

    budgets = [
        {"budget": k, "winner": row("bisection", k, 240 - 4 * k), "default": row("random", k, 260 - 4 * k)}
        | {"gain": {"value": 20.0, "interval": [15.0, 25.0]}, "needed": k}
        for k in (2, 4, 8)
    ]
    calls = {"race": 100.0, "measuring": 20.0, "full": 400.0, "judging": 60.0}
    record = {
        "metric": {"unit": "nats per item"},
        "budgets": budgets,
        "front": [b["winner"] for b in budgets],
    }
    return record | {"candidates": 12, "calls": calls, "seconds": 9.0}


def notebook(path: Path) -> Path:
    """Two results and a profile as the cells of a notebook show them, one after another."""
    model = unmask.load("molecules")
    law = unmask.laws.Permutation(6)
    cells = [model.sample(2, calls=8), model.sample(1, calls=4, seed=1), law.profile()]
    body = "\n".join(cell._repr_html_() for cell in cells)
    start = '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>cells</title>'
    path.write_text(start + body)
    return path


def look_at(browser: Browser, page: Path, pictures_in: Path) -> dict[str, Any]:
    """Opens a page in every view; ValueError for the first thing that is wrong."""
    wide, complaints, requests = [], list[str](), list[str]()
    for name, view in VIEWS.items():
        browser.open(page, **view)
        complaints += browser.complaints()
        requests += browser.requests()
        if browser.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(name)
        browser.picture(pictures_in / f"{page.stem}_{name}.png")
    if complaints or requests or wide:
        raise ValueError(
            f"{page}: complaints {complaints}, requests {requests}, wider than the window in {wide}"
        )
    browser.open(page, **VIEWS["light"])
    keys = played(browser)
    seconds, busy = [], []
    for _ in range(OPENINGS):
        seconds.append(browser.open(page, **VIEWS["light"]))
        busy.append(browser.computed())
    return {
        "page": page.name,
        "kB": round(page.stat().st_size / 1000),
        "opens, s": min(seconds),
        "median, s": statistics.median(seconds),
        "computes, s": statistics.median(busy),
        **keys,
    }


def played(browser: Browser) -> dict[str, Any]:
    """Steps through the first film by keys alone, reads a map, chooses light and dark; ValueError where nothing moves."""
    if not browser.evaluate("!!document.querySelector('.um-film')"):
        return {"films": 0, "keys": "no film"}
    browser.evaluate("document.querySelector('.um-film').focus()")
    step = "Number(document.querySelector('.um-film').dataset.step)"
    seen = [browser.evaluate(step)]
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowLeft", "End"):
        browser.press(key)
        seen.append(browser.evaluate(step))
    last = seen[0]
    if seen != [last, 0, 1, 2, 1, last]:
        raise ValueError(f"keys led through calls {seen}, expected {[last, 0, 1, 2, 1, last]}")
    browser.press("Home")
    browser.press(" ", "Space")
    moving = browser.evaluate(f"new Promise(done => setTimeout(() => done({step}), 1500))")
    browser.press(" ", "Space")
    stopped = browser.evaluate(step)
    still = browser.evaluate(f"new Promise(done => setTimeout(() => done({step}), 700))")
    if not moving or still != stopped:
        raise ValueError(f"played to {moving}, stopped at {stopped}, then at {still}")
    browser.evaluate("document.querySelector('.um-map')?.focus()")
    browser.press("ArrowRight")
    if browser.evaluate("document.querySelector('.um-read')?.textContent.startsWith('Point')"):
        raise ValueError("a map that arrow keys do not read out")
    unnamed = browser.evaluate(UNNAMED)
    if unnamed:
        raise ValueError(f"without a name: {unnamed}")
    ground = "getComputedStyle(document.body).backgroundColor"
    before = browser.evaluate(ground)
    button = browser.evaluate("!!document.querySelector('.um-theme')")
    for _ in range(2 * button):
        browser.evaluate("document.querySelector('.um-theme').click()")
    if button and browser.evaluate(ground) == before:
        raise ValueError("the button does not make the page dark")
    return {"films": browser.evaluate("document.querySelectorAll('.um-film').length"), "keys": "pass"}


UNNAMED = """[...document.querySelectorAll('button, select, input, [tabindex], svg[role=img]')]
  .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label')))
  .map(e => e.outerHTML.slice(0, 80))"""

NOTES = """
Pages opened by headless Chromium, one with everything and one with the cells of a notebook: no complaint on the console, no
request, nothing wider than the window, on a desk in light and dark and on a phone (380 pixels); the first film stepped,
played and stopped by keys alone; a map read out by keys; all that can be focused has a name; the button changes colours.
"opens, s": until the page was drawn, by its own clock, the least of {n} times, and their median, on a machine that other
work shares; "computes, s": what the page's main thread took of a processor for that, the median.
"""


def main() -> int:
    """Makes or takes pages, looks at them, and writes a record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    parser.add_argument("--pictures", type=Path)
    asked = parser.parse_args()
    if asked.chromium is None:
        print("no chromium here: nothing was looked at")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        place = asked.pictures or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        pages = asked.pages or [place / "everything.html"]
        if not asked.pages:
            report.write(everything(), pages[0], "Everything, 200 items")
            pages.append(notebook(place / "notebook.html"))
        with chromium(asked.chromium) as browser:
            rows = [look_at(browser, page, place) for page in pages]
    print(record.write("report_in_browser", rows, NOTES.format(n=OPENINGS)))
    slow = [row for row in rows if row["opens, s"] > 1]
    print(*record.table(rows), sep="\n")
    return int(bool(slow))


if __name__ == "__main__":
    sys.exit(main())
