"""Does a mutated archive ever do worse than a one-line error? Random damage to archives of an exact law, decoded whole.

Run: python benchmarks/fuzz_codec.py [--count 100000] [--seed 0] [--write]. In one mutation of four the CRCs are made to
fit again, so that the parsers behind them meet nonsense too.
"""

from __future__ import annotations

import argparse
import collections
import random
import resource
import struct
import time
import zlib

import numpy as np
import record
import torch

from unmask import codec, laws
from unmask.codec import container

MARKOV = laws.Markov([0.2, 0.5, 0.3], [[0.7, 0.2, 0.1], [0.05, 0.15, 0.8], [0.5, 0.1, 0.4]], 12)
SUBJECT = codec.of_denoiser(MARKOV, 12, "fuzz")
SLOWEST = 5.0
"""Seconds after which a single archive counts as a hang."""


def main() -> None:
    """Runs the mutations; raises on anything but ValueError, on silent corruption and on a hang."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    chance, seen = random.Random(options.seed), collections.Counter[str]()
    archives, began, slowest, before = originals(), time.perf_counter(), 0.0, _peak()
    for number in range(options.count):
        items, data = chance.choice(archives)
        broken = mutated(data, chance)
        start = time.perf_counter()
        seen[outcome(items, broken, honest=chance.random() < 0.75, chance=chance)] += 1
        slowest = max(slowest, time.perf_counter() - start)
        if slowest > SLOWEST:
            raise SystemExit(f"mutation {number} took {slowest:.1f} s: {broken.hex()}")
    rows = [
        {
            "mutations": options.count,
            **seen,
            "slowest (s)": slowest,
            "peak memory grew by (MB)": _peak() - before,
            "minutes": (time.perf_counter() - began) / 60,
        }
    ]
    print("\n".join(record.table(rows)))
    if options.write:
        print(record.write("fuzz_codec", rows, NOTES))


NOTES = """
Archives of an exact Markov law, each mutated at random (bytes flipped, cut, inserted, copied, swapped, the end torn off),
then decoded item by item. refused: ValueError at opening; lost: opened, at least one item a ValueError or None, the others
right; harmless: all items right (the damage hit the index while errors are skipped, or nothing); forged: CRCs were
repaired after the damage, so wrong symbols are possible and only crashes count. Any other exception, a wrong item in an
archive that was not forged, or an archive that takes more than 5 s, ends the run with an error.
"""


def originals() -> list[tuple[list[np.ndarray], bytes]]:
    """Items and their archives: several plans and orders, with and without escapes, long items, fallback blocks."""
    drawn = [row.numpy() for row in MARKOV.sample(12, torch.Generator().manual_seed(1))]
    odd = [np.zeros(0, np.int64), np.array([9, 9]), np.full(80, 7), np.concatenate(drawn), drawn[0][:5]]
    return [
        (items, codec.compress(SUBJECT, items, plan=plan, order=order, band=band, verify=False))
        for items in (drawn[:4], odd)
        for plan, order, band in (
            (4, codec.RANDOM, 1e-9),
            (lambda n: (n,), codec.RANDOM, 1e-4),
            (6, codec.ORDERS[3], 1e-5),
        )
    ]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """One to four random changes."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at, size = chance.randrange(len(found) + 1), chance.randint(1, 8)
        kind = chance.randrange(6)
        if kind == 0 and at < len(found):
            found[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            found[at : at + size] = chance.randbytes(size)
        elif kind == 2:
            del found[at : at + size]
        elif kind == 3:
            found[at:at] = chance.choice([b"\xff", b"\0", b"\x80"]) * size
        elif kind == 4:
            start = chance.randrange(len(found) + 1)
            found[at : at + size] = found[start : start + size]
        elif chance.random() < 0.2:
            del found[at:]
    return bytes(found)


def outcome(items: list[np.ndarray], broken: bytes, *, honest: bool, chance: random.Random) -> str:
    """What became of a mutated archive."""
    data = broken if honest else forged(broken)
    errors = chance.choice(["raise", "skip"])
    try:
        opened = codec.Archive(SUBJECT, data, errors=errors)  # type: ignore[arg-type]
    except ValueError as error:
        return checked(error, "refused")
    found: list[object] = []
    for number in range(min(len(opened), 50)):
        try:
            found.append(opened.item(number))
        except ValueError as error:
            found.append(checked(error, None))
    if not honest:
        return "forged"
    wrong = [i for i, (a, b) in enumerate(zip(found, items)) if a is not None and not np.array_equal(a, b)]
    if wrong or len(found) > len(items):
        raise SystemExit(f"silent corruption of item {wrong}: {data.hex()}")
    return "lost" if any(a is None for a in found) or len(found) < len(items) else "harmless"


def checked(error: ValueError, result: str | None) -> str | None:
    """The result, if the error is one line."""
    if "\n" in str(error) or not str(error):
        raise SystemExit(f"an error of several lines, or none: {error}")
    return result


def forged(broken: bytes) -> bytes:
    """The archive with CRCs that fit, as far as its parts can be told."""
    found = bytearray(broken)
    if len(found) > 18:
        size = int.from_bytes(found[10:14], "little")
        if 14 + size + 4 <= len(found):
            found[14 + size : 18 + size] = struct.pack("<I", zlib.crc32(bytes(found[: 14 + size])))
    at = bytes(found).find(container.BLOCK)
    if 0 <= at <= len(found) - 20:
        table = int.from_bytes(found[at + 4 : at + 8], "little")
        if at + 20 + table <= len(found):
            head, body = bytes(found[at : at + 16]), bytes(found[at + 20 : at + 20 + table])
            found[at + 16 : at + 20] = struct.pack("<I", zlib.crc32(body, zlib.crc32(head)))
    end = bytes(found).rfind(container.END)
    if 0 <= end <= len(found) - 32:
        head, body = bytes(found[end : end + 12]), bytes(found[end + 16 : -16])
        found[end + 12 : end + 16] = struct.pack("<I", zlib.crc32(body, zlib.crc32(head)))
    return bytes(found)


def _peak() -> float:
    """Peak memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
