"""Five small files as a newcomer might bring them, made up with a seed: lines, FASTA, puzzles, images, JSON lines."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unmask.data import sudoku

WHO = (
    "the printer",
    "my laptop",
    "a customer",
    "our router",
    "the scanner",
    "the new phone",
    "the night shift",
)
DID = (
    "stopped working",
    "lost its settings",
    "asked for a refund",
    "was slow again",
    "cannot log in",
    "is back",
)
WHEN = (
    "after the update",
    "this morning",
    "since monday",
    "twice today",
    "in the main office",
    "for an hour",
)
THEN = (
    "please call back",
    "we restarted it",
    "no answer yet",
    "it works now",
    "see the last ticket",
    "closed",
)
FRAME = (
    "EVQLVESGGGLVQPGGSLRLSCAASGFTFS", "SYAMS", "WVRQAPGKGLEWVS", "AISGSGGSTYYADSVKG",
    "RFTISRDNSKNTLYLQMNSLRAEDTAVYYCAK", "", "WGQGTLVTVSS",
)  # fmt: skip
"""A human heavy chain in parts: framework and loops in turn; the third loop is drawn."""
LOOP = "AAADDDDEEFGGGGGGHIKLLMNPPQRRSSSTTVWYYYYYY"
GLYPHS = (
    "111101101101111", "010110010010111", "111001111100111", "111001111001111", "101101111001001",
    "111100111001111", "111100111101111", "111001001001001", "111101111101111", "111101111001111",
)  # fmt: skip
"""Digits in three by five dots."""


def lines(path: Path, draw: random.Random, n: int = 200) -> None:
    """Tickets of a help desk, one a line."""
    told = (" ".join(draw.choice(part) for part in (WHO, DID, WHEN, THEN)) for _ in range(n))
    path.write_text("".join(f"{line}\n" for line in told))


def _mutated(part: str, draw: random.Random, share: float) -> str:
    return "".join(draw.choice(LOOP) if draw.random() < share else letter for letter in part)


def chain(draw: random.Random) -> str:
    """A heavy chain: framework that hardly varies, loops that do."""
    third = "".join(draw.choice(LOOP) for _ in range(draw.randint(7, 15))) + "FDY"
    varied = (_mutated(part, draw, 0.3 if k % 2 else 0.04) for k, part in enumerate(FRAME))
    return "".join(part if part else third for part in varied)


def fasta(path: Path, draw: random.Random, n: int = 50) -> None:
    """Heavy chains in lines of sixty residues."""
    entries = ((f">heavy_{k + 1} clone {draw.randint(1, 20)}", chain(draw)) for k in range(n))
    cut = ("\n".join([name, *(c[at : at + 60] for at in range(0, len(c), 60))]) for name, c in entries)
    path.write_text("\n".join(cut) + "\n")


def puzzles(path: Path, draw: random.Random, n: int = 20) -> None:
    """Sudoku boards of one solution, one a line, with dots for blanks."""
    boards, _ = sudoku.puzzles(n, seed=2**61 + draw.randint(0, 2**20), clues=30)
    path.write_text("".join(f"{sudoku.text(board)}\n" for board in boards))


def digit(draw: random.Random) -> NDArray[np.uint8]:
    """A digit of 28 by 28 pixels, at a place and of a strength of its own, with soft edges."""
    dots = np.array([int(c) for c in draw.choice(GLYPHS)]).reshape(5, 3)
    size = draw.choice((3, 4))
    stroke = np.kron(dots, np.ones((size, size))) * draw.randint(170, 255)
    image, (high, wide) = np.zeros((28, 28)), stroke.shape
    top, left = draw.randint(2, 26 - high), draw.randint(2, 26 - wide)
    image[top : top + high, left : left + wide] = stroke
    shifted = (np.roll(image, by, axis) for axis in (0, 1) for by in (-1, 1))
    return np.asarray((2 * image + sum(shifted)) / 6, dtype=np.uint8)


def pictures(folder: Path, draw: random.Random, n: int = 60) -> None:
    """PNG files."""
    folder.mkdir()
    for k in range(n):
        Image.fromarray(digit(draw)).save(folder / f"scan_{k:03}.png")


def log(path: Path, draw: random.Random, n: int = 200) -> None:
    """The log of a service, a JSON object a line."""
    second, told = 1_790_000_000, []
    for _ in range(n):
        second += draw.randint(1, 90)
        level, event = draw.choice(
            (("info", "login"), ("info", "upload"), ("warn", "slow"), ("error", "denied"))
        )
        record = {"time": second, "level": level, "event": event, "user": draw.randint(100, 140)}
        told.append(json.dumps(record | {"ms": draw.randint(3, 900)}))
    path.write_text("\n".join(told) + "\n")


FILES: dict[str, Callable[[Path, random.Random], None]] = {
    "notes.txt": lines, "chains.fasta": fasta, "puzzles.txt": puzzles, "scans": pictures, "log.jsonl": log,
}  # fmt: skip
"""What there is, by the name of the file."""


def make(folder: Path, seed: int = 0) -> None:
    """All of them in a folder, the same for a seed."""
    for name, write in FILES.items():
        write(folder / name, random.Random(f"{name} {seed}"))
