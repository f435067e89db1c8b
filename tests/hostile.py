"""Small files that a stranger might send, with sound checksums, claiming to be huge; `python tests/hostile.py` measures.

For each kind it prints a line of JSON: name, exit code, what was printed, the peak of Python's memory and of the process
beyond what there was before, in bytes, and how often the model was called.
"""

from __future__ import annotations

import io
import json
import resource
import sys
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch

import unmask
from unmask import codec
from unmask.codec import container
from unmask.codec.container import CODED, ESCAPED, RAW, ZLIB, ZSTD, Bundle, Entry, Member, Place
from unmask.command_line.app import main
from unmask.data.vocabularies import Characters, to_record
from unmask.denoisers import from_logits
from unmask.models.loading import Model
from unmask.networks import Transformer

LENGTH = 512


def model() -> Model:
    """An untrained model of streams of few characters, in rows of 512."""
    vocabulary = Characters('ab \n{}:"1')
    torch.manual_seed(1)
    net = Transformer(vocabulary.size, LENGTH, 16, 1, 2, rotary=True)
    config = {"name": "tiny", "network": net.config, "vocabulary": to_record(vocabulary), "order": "random"}
    denoiser = from_logits(net, vocabulary.size, vocabulary.size)
    return Model("tiny", denoiser, lambda _: None, lambda _: [], config, vocabulary=vocabulary)


MODEL = model()
HEADER = container.read_header(io.BytesIO(codec.compress(MODEL, [], plan=64)))
SOUND = codec.compress(MODEL, ["ab ba", "a"], plan=64)


def archive(*entries: Entry, first: int = 0, more: bytes = b"{}", **changes: object) -> bytes:
    """An archive of these entries whose header has these fields changed; all CRCs fit."""
    return assembled(container.write_header(HEADER | changes), [block(entries, first)], more)


def bundled(*members: tuple[bool, int], coded: bytes = b"", stored: bytes = b"", kind: int = ZSTD) -> bytes:
    """An archive of one bundle of items (stored, size); all CRCs fit."""
    header = container.write_header(HEADER | {"together": 256})
    bundle = Bundle(tuple(Member(*member) for member in members), 0, (CODED, coded), (kind, stored))
    data = container.write_bundles(0, [bundle], named=False)
    end = index(len(header) + len(data), [Place(len(header), len(data), 0, len(members))], b"{}")
    return header + data + end


def block(entries: tuple[Entry, ...], first: int = 0) -> bytes:
    return container.write_block(first, entries, named=False)


def assembled(
    header: bytes, blocks: list[bytes], more: bytes = b"{}", counts: list[int] | None = None
) -> bytes:
    """Header, blocks and an index that announces ``counts`` items in them."""
    data = header + b"".join(blocks)
    found = [counts[n] if counts else int(block[21]) for n, block in enumerate(blocks)]
    places = [Place(0, len(block), 0, count) for block, count in zip(blocks, found)]
    return data + index(len(data), places, more)


def index(start: int, places: list[Place], more: bytes) -> bytes:
    """`container.write_index` with any bytes for the record."""
    empty = container.write_index(start, places, {})
    body = empty[16:-19] + container.varint(len(more)) + more
    head = container.END + len(body).to_bytes(8, "little")
    crc = zlib.crc32(body, zlib.crc32(head)).to_bytes(4, "little")
    return head + crc + body + empty[-16:]


def header_of(text: bytes) -> bytes:
    """A header with this text for its record."""
    body = zlib.compress(text, 9)
    head = container.header.HEAD.pack(container.MAGIC, container.VERSION, len(body)) + body
    return head + zlib.crc32(head).to_bytes(4, "little")


def method(**changes: object) -> dict[str, object]:
    return {"method": HEADER["method"] | changes}


def rule(**of: object) -> bytes:
    """An archive of one item whose method is a rule."""
    known = {k: v for k, v in HEADER["method"].items() if k not in ("plan", "order", "seed")}
    return archive(Entry(CODED, 8, 0, b"abc"), method=known | {"temperature": 1.0, "rule": of})


def called(name: str, **arguments: object) -> dict[str, object]:
    """The description of an order."""
    return {"make": name, "with": arguments}


def nested(depth: int) -> dict[str, object]:
    """An order inside blocks inside blocks, and so on."""
    found = called("presets.random")
    for _ in range(depth):
        found = called("selectors.in_blocks", selector=found, block_length=2)
    return found


def named(name: str) -> dict[str, object]:
    return {"model": HEADER["model"] | {"name": name}}


SIZE = 2**50
LINE = Entry(RAW, 2, container.item_crc(0, b"ab", b"ab"), b"ab")
COUNTS = {str(2**20 - n): [[1, 2**20 - n]] for n in range(2000)}
TABLED = called("presets.random", plan=called("samplers.by_count", table=[[8, [[1, SIZE]]]]))
CROWD = b"UMZB" + (2**16).to_bytes(4, "little") + bytes(12)
"""What looks like the head of a block with a large table."""

ARCHIVES: dict[str, Callable[[], bytes]] = {
    "plans of 2 thousand million steps": lambda: archive(**method(plan=COUNTS)),
    "a run of many steps": lambda: archive(**method(plan={"12": [[1, SIZE]]})),
    "a run with 40 thousand factors": lambda: archive(**method(plan={"12": [[10**40] * 40_000]})),
    "a plan beyond the model": lambda: archive(**method(plan={"4096": [[1, 4096]]})),
    "positions per call of 4 thousand digits": lambda: archive(**method(plan=10**4000)),
    "a record that swells": lambda: header_of(b"[" + b"[]," * (16 * 2**20 // 3) + b"[]]"),
    "a record that nests": lambda: header_of(b"[" * 10**6),
    "a model with a name of a megabyte": lambda: archive(**named("x\n" * 2**19)),
    "a model of another name": lambda: archive(model={"name": "[bold]", "identity": "", "length": LENGTH}),
    "an index of many items": lambda: assembled(
        container.write_header(HEADER), [block((Entry(CODED, 1, 0, b""),))], counts=[2**40]
    ),
    "a block of many items": lambda: assembled(
        container.write_header(HEADER), [forged_count(block((Entry(CODED, 1, 0, b""),)))], counts=[1]
    ),
    "an index of many blocks": lambda: archive()[:-36] + many_blocks(len(archive()) - 36),
    "symbols without end": lambda: archive(Entry(CODED, SIZE, 0, b"abc")),
    "groups that cost nothing": lambda: archive(Entry(CODED, 16 * LENGTH * 90, 0, bytes(89))),
    "many items that cost nothing": lambda: archive(*[Entry(CODED, 16 * LENGTH, 0, b"")] * 100),
    "a bundle of symbols without end": lambda: bundled((False, SIZE), (False, 1), coded=b"abc"),
    "a bundle of items that cost nothing": lambda: bundled(*[(False, LENGTH)] * 256),
    "a bundle of 2 GB": lambda: bundled(*[(True, 2**23)] * 256, stored=zstd_bomb(2**31)),
    "a bundle of more zlib than it has": lambda: bundled(
        *[(True, 2**17)] * 256, stored=zlib.compress(bytes(2**24), 9), kind=ZLIB
    ),
    "bundles of a number of 4 thousand digits": lambda: archive(together=10**4000),
    "escapes without end": lambda: archive(Entry(ESCAPED, 12, 0, b"\xff\xff\xff\xff\x7f")),
    "zlib of 2 GB": lambda: archive(Entry(ZLIB, 2**31, 0, zlib.compress(bytes(2**24), 9))),
    "zstd of 2 GB": lambda: archive(Entry(ZSTD, 2**31, 0, zstd_bomb(2**31))),
    "many stored items of 32 MB": lambda: archive(*[Entry(ZSTD, 2**25, 0, zstd_bomb(2**25))] * 100),
    "zstd with a window of 128 MB": lambda: archive(Entry(ZSTD, 2**20, 0, wide_window())),
    "lines without end": lambda: archive(LINE, more=b'{"line_ends": [[%d, "\\n"]]}' % 10**40),
    "an end that nests": lambda: archive(more=b'{"a":' + b"[" * 10**6),
    "a rule that is a score": lambda: rule(score="margin"),
    "a rule that is a command": lambda: rule(**called("os.system", command="true")),
    "a rule that nests": lambda: rule(**nested(300)),
    "a rule that looks ahead": lambda: rule(**called("presets.information_gain", denoiser={"denoiser": "x"})),
    "a rule of 2^30 cells": lambda: rule(**called("presets.halton", height=2**15, width=2**15)),
    "a rule of 2^40 steps": lambda: rule(**called("presets.ancestral", steps=2**40)),
    "a rule with a plan of 2^50 steps": lambda: rule(**TABLED),
    "a rule with a plan for others": lambda: rule(**called("presets.random", plan=[3, 2])),
    "a rule for other symbols": lambda: rule(**called("presets.pc", background={"numbers": [0.5, 0.5]})),
    "a rule with a number of 4 thousand digits": lambda: rule(**called("presets.random", plan=10**4000)),
    "a rule of no temperature": lambda: archive(
        method={
            **container.read_header(io.BytesIO(rule(**called("presets.eb"))))["method"],
            "temperature": 0.0,
        }
    ),
    "a rule in version 1": lambda: header_of(json.dumps(HEADER | method(rule=called("presets.eb"))).encode()),
    "shares of two plans": lambda: archive(**method(plan={"in_proportion": {"8": [[8, 1]], "4": [[4, 1]]}})),
    "shares of no plan": lambda: archive(**method(plan={"in_proportion": {}})),
    "shares of positions per call": lambda: archive(**method(plan={"in_proportion": 3})),
    "shares of shares": lambda: archive(**method(plan={"in_proportion": {"in_proportion": {"8": [[8, 1]]}}})),
    "shares beside a plan": lambda: archive(**method(plan={"in_proportion": {"8": [[8, 1]]}, "4": [[4, 1]]})),
    "shares of a plan beyond the row": lambda: archive(
        **method(plan={"in_proportion": {"1048576": [[1, 1048576]]}})
    ),
    "substeps without rows": lambda: archive(Entry(CODED, 8, 0, b""), **method(substeps=2**16 - 1)),
}
"""Kinds that decompress refuses."""

LEFT: dict[str, Callable[[], bytes]] = {
    "a block with a number beyond all": lambda: (
        container.write_header(HEADER) + block((Entry(CODED, 1, 0, b""),), first=2**60)
    ),
    "an index of many items": ARCHIVES["an index of many items"],
    "many items that cost nothing": lambda: archive(*[Entry(CODED, 32 * LENGTH, 0, b"")] * 250),
    "a crowd of false blocks": lambda: container.write_header(HEADER) + CROWD * 30_000,
    "an archive cut short": lambda: SOUND[:-1],
}
"""Kinds of which --skip gives what is left."""


def forged_count(data: bytes) -> bytes:
    """The block of one item with 2^40 announced in its table."""
    table = container.varint(0) + container.varint(2**40) + data[22:]
    head = container.BLOCK + len(table).to_bytes(4, "little") + bytes(8)
    return head + zlib.crc32(table, zlib.crc32(head)).to_bytes(4, "little") + table


def many_blocks(start: int) -> bytes:
    """An index that announces 2^50 blocks."""
    body = container.varint(SIZE) + bytes([22, 0]) * 1000
    head = container.END + len(body).to_bytes(8, "little")
    crc = zlib.crc32(body, zlib.crc32(head)).to_bytes(4, "little")
    return head + crc + body + container.blocks.CLOSING.pack(start, container.CLOSE)


def zstd_bomb(size: int) -> bytes:
    """A zstd frame of ``size`` zeros: 4 bytes for every 128 KB."""
    run = (2**17 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (1).to_bytes(3, "little")
    return b"\x28\xb5\x2f\xfd" + bytes([0, (17 - 10) << 3]) + run * (size // 2**17) + last


def wide_window() -> bytes:
    """A zstd frame that asks for a window of 128 MB."""
    return b"\x28\xb5\x2f\xfd" + bytes([0, (27 - 10) << 3]) + zstd_bomb(2**20)[6:]


# --- other readers --------------------------------------------------------------------------------


def plan_file(**changes: object) -> bytes:
    record = {"format": "unmask.plan", "version": 1, "length": 512, "sizes": [256, 256], "family": "a"}
    return json.dumps(record | {"kl": None, "kl_stderr": None, "provenance": {}} | changes).encode()


def profile_file(**changes: object) -> bytes:
    record = {
        "format": "unmask.profile",
        "version": 1,
        "unit": "nats",
        "exact": True,
        "entropies": [2.0, 1.0],
    }
    return json.dumps(record | {"stderr": None, "counts": None, "provenance": {}} | changes).encode()


NEST = b'{"format": ' + b"[" * 10**6
PLANS: dict[str, bytes] = {
    "steps of one": plan_file(sizes=1, length=10**12),
    "sizes that are a text": plan_file(sizes="1" * 512),
    "sizes that are parts": plan_file(sizes=[256.0, 256]),
    "sizes that nest": plan_file(sizes=[[256], [256]]),
    "truth for a number": plan_file(sizes=[True, 511]),
    "a length of 4 thousand digits": plan_file(length=10**4000),
    "a number of a million digits": plan_file().replace(b"512", b"9" * 10**6),
    "no record": b"[1, 2]",
    "a nest": NEST,
    "a format of a megabyte": plan_file(format="x\n" * 2**19),
}
PROFILES: dict[str, bytes] = {
    "entropies that nest": profile_file(entropies=[[1.0], [2.0, 3.0]]),
    "entropies that are texts": profile_file(entropies=["x" * 10**6]),
    "entropies that are records": profile_file(entropies=[{"a": 1}]),
    "entropies of 400 digits": profile_file(entropies=[10**400]),
    "no entropies": profile_file(entropies=None),
    "a provenance that is a list": profile_file(provenance=[["a", 1]]),
    "errors that are a text": profile_file(stderr="11"),
    "a nest": NEST,
}


def sampler_file(**changes: object) -> bytes:
    record = {"format": "unmask.sampler", "version": 1, "rule": called("presets.margin", plan=27)}
    return json.dumps(record | changes).encode()


SAMPLERS: dict[str, bytes] = {
    "a rule that nests": sampler_file(rule=nested(300)),
    "a rule of 2^30 cells": sampler_file(rule=called("presets.halton", height=2**15, width=2**15)),
    "a plan of 2^50 steps": sampler_file(rule=TABLED),
    "a rule that is a text": sampler_file(rule="x\n" * 2**19),
    "a name of a megabyte": sampler_file(name="x\n" * 2**19),
    "a field of a megabyte": sampler_file(**{"x\n" * 2**19: 1}),
    "an argument of a megabyte": sampler_file(rule=called("presets.margin", **{"x\n" * 2**19: 1})),
    "sub-steps of 4 thousand digits": sampler_file(substeps=10**4000),
    "no record": b"[1, 2]",
    "no text": b"\xff\xfe",
    "a nest": NEST,
}


def commands(folder: Path) -> dict[str, list[str]]:
    """A command for every kind of file, which it writes into the folder."""
    found = {}
    for kind, files, words in (
        (
            "archive",
            {k: make() for k, make in ARCHIVES.items()},
            ["decompress", "FILE", "--quiet", "-o", "OUT"],
        ),
        (
            "skip",
            {k: make() for k, make in LEFT.items()},
            ["decompress", "FILE", "--quiet", "--skip", "-o", "OUT"],
        ),
        ("inspect", {k: make() for k, make in ARCHIVES.items()}, ["inspect", "FILE"]),
        ("plan", PLANS, ["sample", "tiny", "--num", "1", "--plan", "FILE"]),
        ("sampler", SAMPLERS, ["sample", "tiny", "--num", "1", "--sampler", "FILE"]),
        ("profile", PROFILES, ["plan", "FILE", "--steps", "2"]),
    ):
        for number, (name, data) in enumerate(files.items()):
            path = folder / f"{kind}-{number}"
            path.write_bytes(data)
            found[f"{kind}: {name}"] = [
                str(path) if w == "FILE" else f"{path}.out" if w == "OUT" else w for w in words
            ]
    return found


def peak() -> int:
    """The largest memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def stand_in() -> None:
    """Makes commands, which import it late, load the tiny model by its name."""
    original = unmask.load

    def load(name: str, **more: object) -> Model:
        return MODEL if name == "tiny" else original(name, **more)

    for module in {original.__module__, "unmask.models"}:
        sys.modules[module].load = load


def measured(words: list[str]) -> dict[str, object]:
    """What a command did and took."""
    calls = [0]
    original = Transformer.forward

    def counted(network: Transformer, *args: object, **more: object) -> object:
        calls[0] += 1
        return original(network, *args, **more)

    Transformer.forward = counted
    out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
    tracemalloc.reset_peak()
    before, process = tracemalloc.get_traced_memory()[0], peak()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    Transformer.forward = original
    return {
        "code": code,
        "errors": err.getvalue(),
        "said": out.buffer.getvalue().decode(errors="replace")[:2000],
        "python": tracemalloc.get_traced_memory()[1] - before,
        "process": peak() - process,
        "calls": calls[0],
        "left": [p.read_bytes().decode() for p in Path(words[1]).parent.glob(f"{Path(words[1]).name}.out*")],
    }


if __name__ == "__main__":
    stand_in()
    with tempfile.TemporaryDirectory() as place:
        sound = Path(place) / "sound"
        sound.write_bytes(SOUND)
        made = commands(Path(place))
        tracemalloc.start()
        measured(["decompress", str(sound), "--quiet", "-o", str(sound.with_suffix(".txt"))])
        measured(["inspect", str(sound)])
        for each, line in made.items():
            print(json.dumps({"name": each, **measured(line)}), flush=True)
