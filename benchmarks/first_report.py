"""How long does a newcomer take from a file of their own to a report, and in how many commands?

Makes five small files up (`own_files`), then runs docs/your_own_file.md as it stands: the commands of each of its
sections, in a fresh folder, by the clock and by the processor. With --chromium each page is opened, too, and screenshots
go to --pictures. Takes four minutes of a processor; needs pillow.

    python benchmarks/first_report.py [--seed 0] [--pictures FOLDER] [--kept FOLDER [--only NAME]]

With --kept what was measured is kept there, and not measured again; the record comes once all sections are there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import own_files
import record
from browser import chromium

PAGE = Path(__file__).resolve().parents[1] / "docs/your_own_file.md"
INSTALLING = 1
"""Commands before those of a section: pip install."""
VIEWS = {
    "light": {"width": 1200, "height": 900},
    "dark": {"width": 1200, "height": 900, "dark": True},
    "phone": {"width": 390, "height": 800, "phone": True},
}


def walks(page: Path = PAGE) -> dict[str, list[str]]:
    """The commands of each section of a page that has a console."""
    sections = re.split(r"^## ", page.read_text(), flags=re.MULTILINE)[1:]
    found = {}
    for section in sections:
        told = re.findall(
            r"^\$ (.*)$", "".join(re.findall(r"```console\n(.*?)```", section, re.DOTALL)), re.MULTILINE
        )
        if told:
            found[section.splitlines()[0]] = told
    return found


def clock() -> tuple[float, float]:
    """Seconds by the clock, and of processors that ended commands took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic(), used.ru_utime + used.ru_stime


def timed(command: str, folder: Path) -> dict[str, Any]:
    """Runs a command in a shell that finds this installation's `unmask`; its seconds. RuntimeError where it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    began, before = clock()
    done = subprocess.run(
        command, shell=True, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )  # fmt: skip
    ended, after = clock()
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr}")
    print(f"{ended - began:6.1f} s, {after - before:5.1f} s of a processor: {command}", flush=True)
    return {"command": f"`{command}`", "seconds": ended - began, "processor, s": after - before}


def looked_at(page: Path, name: str, program: str | None, pictures: Path | None) -> str:
    """What headless Chromium says of a page."""
    if program is None:
        return "not opened"
    with chromium(program) as browser:
        wrong = []
        for view, size in VIEWS.items():
            browser.open(page, **size)
            wrong += [*browser.complaints(), *browser.requests()]
            wrong += (
                [f"wide in {view}"]
                if browser.evaluate("document.documentElement.scrollWidth > innerWidth")
                else []
            )
            if pictures is not None:
                browser.picture(pictures / f"{name}_{view}.png")
    return "; ".join(wrong) or "nothing"


def walked(
    name: str, commands: list[str], files: Path, asked: argparse.Namespace
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A section's way in a folder that holds the made-up files only: its sum, and its commands."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "new"
        shutil.copytree(files, folder)
        rows = [timed(command, folder) for command in commands]
        page = folder / "look.html"
        seen = looked_at(page, name.split()[0].lower(), asked.chromium, asked.pictures)
        total = {key: sum(row[key] for row in rows) for key in ("seconds", "processor, s")}
        size = round(page.stat().st_size / 1000)
    return {
        "file": name,
        "commands": INSTALLING + len(rows),
        **total,
        "page, kB": size,
        "wrong in it": seen,
    }, rows


def kept(
    name: str, commands: list[str], files: Path, asked: argparse.Namespace
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`walked`, or what it found before."""
    if asked.kept is None:
        return walked(name, commands, files, asked)
    place = asked.kept / f"{name.split()[0].lower()}.json"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(walked(name, commands, files, asked)))
    total, rows = json.loads(place.read_text())
    return total, rows


NOTES = """
Each section of docs/your_own_file.md, as it stands, in a fresh folder with five made-up files (benchmarks/own_files.py,
seed {seed}): 200 lines, 50 heavy chains in FASTA, 20 Sudoku puzzles, 60 images of 28 by 28 pixels, 200 JSON lines.
"commands" counts pip install, whose time is not in the sum. "seconds" are by the clock, on a machine of two cores
(the load says whether other work used them); "processor, s" is what the commands took of a core, start of Python
included: what they take by the clock where a core is free. "wrong in it": complaints on the console, requests, and pages
wider than the window, of headless Chromium in light, dark and on a phone (390 pixels).
"""


def main() -> int:
    """Runs all sections, or one, and writes a record of all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="the beginning of a section's name; writes no record")
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    asked = parser.parse_args()
    if asked.pictures is not None:
        asked.pictures.mkdir(parents=True, exist_ok=True)
    sums, parts = [], {}
    with tempfile.TemporaryDirectory() as place:
        own_files.make(Path(place), asked.seed)
        for name, commands in walks().items():
            if name.lower().startswith((asked.only or "").lower()):
                total, rows = kept(name, commands, Path(place), asked)
                sums, parts = [*sums, total], parts | {name: rows}
    print(*record.table(sums), sep="\n")
    if asked.only is None:
        print(record.write_parts("first_report", {"all": sums} | parts, NOTES.format(seed=asked.seed)))
    return int(any(row["commands"] > 5 or row["seconds"] > 300 for row in sums))


if __name__ == "__main__":
    sys.exit(main())
