"""Does a mutated file ever do worse than a one-line error? Random damage to archives, their headers and indices, and plans.

Run: python benchmarks/fuzz_codec.py [--count 100000] [--seed 0] [--write]. Archives of an exact law are decoded whole; in
one mutation of four the CRCs are made to fit again, so that the parsers behind them meet nonsense too. Of headers,
indices and plan files the text or the numbers are changed and every CRC fits.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import random
import resource
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch

import unmask
from unmask import Sampler, codec, laws, plans, scores, selectors
from unmask.codec import container
from unmask.codec.coder import varint
from unmask.orders import presets, rules
from unmask.orders.samplers import plans_by_count

MARKOV = laws.Markov([0.2, 0.5, 0.3], [[0.7, 0.2, 0.1], [0.05, 0.15, 0.8], [0.5, 0.1, 0.4]], 12)
SUBJECT = codec.of_denoiser(MARKOV, 12, "fuzz")
SLOWEST = 5.0
"""Seconds after which a single archive counts as a hang."""


def main() -> None:
    """Runs the mutations of every part; raises on anything but ValueError, on silent corruption and on a hang."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100_000, help="mutations of each part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = [run(part, options.count, options.seed) for part in PARTS]
    print("\n".join(record.table(rows)))
    if options.write:
        print(record.write("fuzz_codec", rows, NOTES))


def run(part: str, count: int, seed: int) -> dict[str, Any]:
    """What became of ``count`` mutations of a part, the slowest one and the growth of memory."""
    chance, seen = random.Random(f"{part} {seed}"), collections.Counter[str]()
    began, slowest, before = time.perf_counter(), 0.0, _peak()
    for number in range(count):
        start = time.perf_counter()
        seen[PARTS[part](chance)] += 1
        slowest = max(slowest, time.perf_counter() - start)
        if slowest > SLOWEST:
            raise SystemExit(f"mutation {number} of {part} took {slowest:.1f} s")
    kinds = {kind: seen[kind] for kind in KINDS}
    grown = {"slowest (s)": slowest, "peak memory grew by (MB)": _peak() - before}
    return {"part": part, "mutations": count, **kinds, **grown, "minutes": (time.perf_counter() - began) / 60}


NOTES = """
Archives: of an exact Markov law, each mutated at random (bytes flipped, cut, inserted, copied, swapped, the end torn off),
then decoded item by item. refused: ValueError at opening; lost: opened, at least one item a ValueError or None, the others
right; harmless: all items right (the damage hit the index while errors are skipped, or nothing); forged: CRCs were
repaired after the damage, so wrong symbols are possible and only crashes count. Any other exception, a wrong item in an
archive that was not forged, or a file that takes more than 5 s, ends the run with an error. Headers: values of the
record replaced, or its text mutated; indices: numbers and record replaced; plan and sampler files: values replaced, or
the text mutated; a sampler file that is read is sampled with. CRCs fit in all of these; harmless: read, as a value of the
same kind was hit.
"""


KINDS = ("refused", "lost", "harmless", "forged")
"""What may become of a mutated file."""


def archives(chance: random.Random) -> str:
    """What became of a mutated archive."""
    items, data = chance.choice(ORIGINALS)
    return outcome(items, mutated(data, chance), honest=chance.random() < 0.75, chance=chance)


def headers(chance: random.Random) -> str:
    """What became of an archive with another record in its header."""
    items, data = chance.choice(ORIGINALS)
    file = io.BytesIO(data)
    known = container.read_header(file)
    text = changed(known, chance)
    body = zlib.compress(text, 1)
    head = container.header.HEAD.pack(container.MAGIC, container.version_of(known), len(body)) + body
    header = head + struct.pack("<I", zlib.crc32(head))
    return outcome(items, header + data[file.tell() :], honest=False, chance=chance)


def indices(chance: random.Random) -> str:
    """What became of an archive with other numbers, or another record, in its index."""
    items, data = chance.choice(ORIGINALS)
    start = data.rfind(container.END)
    numbers = [odd_number(chance) if chance.random() < 0.3 else known for known in (1, start, len(items))]
    more = changed({"newline": True, "line_ends": [[3, "\n"]]}, chance)
    body = b"".join(map(varint, [*numbers, len(more)])) + more
    body = mutated(body, chance) if chance.random() < 0.5 else body
    head = container.END + struct.pack("<Q", len(body))
    end = head + struct.pack("<I", zlib.crc32(body, zlib.crc32(head))) + body
    close = container.blocks.CLOSING.pack(
        odd_number(chance) if chance.random() < 0.1 else start, container.CLOSE
    )
    return outcome(items, data[:start] + end + close, honest=False, chance=chance)


def plan_files(chance: random.Random) -> str:
    """What became of a mutated plan file."""
    about = {"format": "unmask.plan", "version": 1, "length": 12, "sizes": [3, 4, 5], "family": "tc"}
    text = changed(about | {"kl": 0.5, "kl_stderr": None, "provenance": {"data": "x"}}, chance)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        path.write_bytes(text)
        try:
            found = plans.load(path).plan
        except ValueError as error:
            return str(checked(error, "refused"))
    if sum(found) > sum(text) or not all(type(size) is int and size > 0 for size in found):
        raise SystemExit(f"a plan of {found}: {text!r}")
    return "harmless"


RULES = [
    Sampler(selectors.in_blocks(rules.spaced(presets.threshold(0.6), 2), 4), temperature=0.8),
    Sampler(presets.moment_sampler(plans_by_count({12: (2, 4, 6), 8: (1, 7)}), 1.5, 11), substeps=2),
    Sampler(presets.pc(torch.tensor([0.5, 0.3, 0.2]), 3)),
    Sampler(presets.hybrid(3, 0.4, scores.with_noise(scores.margin, 0.3, 5), scores.bisection)),
    Sampler(presets.ancestral(6, 3)),
]
"""Samplers of many makers."""


def sampler_files(chance: random.Random) -> str:
    """What became of a mutated sampler file, and of a sample with it."""
    text = changed(chance.choice(RULES).record(), chance)
    hidden = torch.full((2, 12), MARKOV.mask_id)
    try:
        found = Sampler.from_json(text.decode("utf-8", "replace"))
        unmask.sample(MARKOV, hidden, found, generator=torch.Generator().manual_seed(0))
    except ValueError as error:
        return str(checked(error, "refused"))
    return "harmless"


PARTS: dict[str, Callable[[random.Random], str]] = {
    "archives": archives,
    "headers": headers,
    "indices": indices,
    "plan files": plan_files,
    "sampler files": sampler_files,
}


def odd_number(chance: random.Random) -> int:
    """A number near a limit of some kind of integers."""
    return max(0, 2 ** chance.randrange(63) - chance.randrange(3))


def odd_value(chance: random.Random) -> Any:
    """A value of JSON that nobody expects."""
    number = odd_number(chance)
    nested: Any = 1
    for _ in range(chance.choice([1, 3, 500])):
        nested = [nested]
    values = [None, True, -1, 1.5, number, 10**4000, "", "x\n" * 500, "[red]", [], {}, nested, [[1, number]]]
    return chance.choice([*values, {str(number): [[1, number]]}, {"12": [[number, 1]]}, [number, number]])


def changed(known: dict[str, Any], chance: random.Random) -> bytes:
    """The text of a record in which a value is another one, or some of the text."""
    found = json.loads(json.dumps(known))
    if chance.random() < 0.7:
        inside = found
        while True:
            key = chance.choice(list(inside))
            if not isinstance(inside[key], dict) or not inside[key] or chance.random() < 0.2:
                break
            inside = inside[key]
        inside[key] = odd_value(chance)
    text = json.dumps(found).encode()
    return mutated(text, chance) if chance.random() < 0.4 else text


def originals() -> list[tuple[list[np.ndarray], bytes]]:
    """Items and their archives: plans and orders, with and without escapes, long items, fallback blocks, bundles."""
    drawn = [row.numpy() for row in MARKOV.sample(12, torch.Generator().manual_seed(1))]
    odd = [np.zeros(0, np.int64), np.array([9, 9]), np.full(80, 7), np.concatenate(drawn), drawn[0][:5]]
    return [
        (
            items,
            codec.compress(
                SUBJECT, items, plan=plan, order=order, band=band, verify=False, together=together
            ),
        )
        for items in (drawn[:4], odd)
        for together in (1, 3)
        for plan, order, band in (
            (4, codec.RANDOM, 1e-9),
            (lambda n: (n,), codec.RANDOM, 1e-4),
            (6, codec.ORDERS[3], 1e-5),
        )
    ] + [(drawn[:4], codec.compress(SUBJECT, drawn[:4], sampler=sampler, shorter=False)) for sampler in RULES]


ORIGINALS = originals()


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
    if not honest and chance.random() < 0.5:
        return whole(opened)
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


def whole(opened: codec.Archive) -> str:
    """What became of all items in order, of an archive that was changed anyhow."""
    try:
        lost = sum(item is None for item in opened.items())
    except ValueError as error:
        return str(checked(error, "refused"))
    return "lost" if lost else "harmless"


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
