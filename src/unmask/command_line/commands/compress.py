"""``unmask compress``, ``decompress`` and ``inspect``: files, lines or images to an archive and back."""

from __future__ import annotations

import io
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from unmask import codec
from unmask.base.profile import Profile, check
from unmask.base.progress import Progress
from unmask.base.records import write_bytes
from unmask.base.types import Plan
from unmask.codec import archive, container, parts, subjects
from unmask.codec.archive import Summary
from unmask.codec.settings import Method, Order, Settings, in_calls
from unmask.codec.subjects import Item, Subject
from unmask.command_line.options import check_seed, in_range
from unmask.command_line.output import Report, say
from unmask.data import files
from unmask.data.readers.images import idx, pillow
from unmask.data.vocabularies import Levels
from unmask.models import Model, load, measured_profile, shipped
from unmask.planning import plans

IDX = (".idx", "-ubyte", ".gz")
"""How names of idx files end."""


@dataclass
class Pile:
    """What is to be compressed: names and items, how many (None: not known), and how lines end."""

    pairs: Callable[[], Iterator[tuple[str, Item]]]
    total: int | None
    named: bool
    ends: LineEnds = field(default_factory=lambda: LineEnds())

    def more(self) -> dict[str, Any]:
        """What an archive's end says of them."""
        return self.ends.record()


ENDS = (b"\n", b"\r\n")
"""How lines end; all else is part of a line."""


@dataclass
class LineEnds:
    """How lines end, in runs of lines that end alike, and whether the last one has an end."""

    runs: list[list[Any]] = field(default_factory=list)
    newline: bool = True

    def cut(self, line: bytes) -> bytes:
        """The next line without its end, which is noted; a last line without one counts like the line before."""
        self.newline = line.endswith(b"\n")
        end = ENDS[line.endswith(ENDS[1])]
        kind = end.decode() if self.newline else self.runs[-1][1] if self.runs else "\n"
        if self.runs and self.runs[-1][1] == kind:
            self.runs[-1][0] += 1
        else:
            self.runs.append([1, kind])
        return line.removesuffix(end) if self.newline else line

    def record(self) -> dict[str, Any]:
        """What an archive's end says: ``newline``, and ``line_ends`` [[lines, end], ..] where not all are ``\\n``."""
        plain = all(kind == "\n" for _, kind in self.runs)
        return {"newline": self.newline} | ({} if plain else {"line_ends": self.runs})


def line_ends(more: dict[str, Any]) -> Iterator[bytes]:
    """The ends of an archive's lines, without end; ValueError for a record of another form."""
    runs = more.get("line_ends", [])
    kinds = [end.decode() for end in ENDS]
    good = isinstance(runs, list) and all(
        isinstance(run, list) and len(run) == 2 and isinstance(run[0], int) and run[1] in kinds
        for run in runs
    )
    if not good:
        raise ValueError("field line_ends: expected runs of lines; the archive is damaged")
    for count, kind in runs:
        yield from repeat(str(kind).encode(), count)
    yield from repeat(b"\n")


# --- compress ---------------------------------------------------------------------------------------


def run_compress(
    model_name: str,
    sources: tuple[Path, ...],
    out: Path,
    *,
    lines: bool,
    images: bool,
    calls: int | None,
    order: str | None,
    substeps: int | None,
    seed: int,
    batch: int,
    verify: bool,
    quiet: bool,
) -> Report:
    """Compresses files, their lines or the images in them; under torchrun each process does its share."""
    in_range("batch", batch, 1)
    in_range("substeps", substeps, 1, 2**16)
    check_seed(seed)
    model = load(model_name)
    if order is not None and order not in (names := [known.name for known in codec.ORDERS]):
        raise ValueError(f"--order {order}: expected one of {', '.join(names)}")
    if images != isinstance(model.vocabulary, Levels):
        raise ValueError(
            f"model '{model.name}' is {'not ' if images else ''}one of images; expected {'no ' if images else ''}--images"
        )
    pile = _pile(sources, lines, images, quiet)
    subject = subjects.of_model(model)
    in_range("calls", calls, 1, subject.block or subject.length, ", the positions of a row")
    settings = suited(model, subject, calls, order, substeps, seed)
    returns = subjects.ARRAYS if images else subjects.BYTES
    items = None if calls is None or files.STANDARD in sources else (item for _, item in pile.pairs())
    job = archive.prepare(
        subject,
        settings,
        returns=returns,
        lengths=None if items is None else codec.masked_counts(subject, items, returns),
        named=pile.named,
        batch=batch,
        verify=verify,
    )
    with Progress("compress", pile.total or 0, quiet=quiet or pile.total is None) as progress:
        summary = _written(out, job, pile, lambda s: progress.advance(s.items, **_bits(s)))
    return {"command": "compress", "model": model.name, "file": str(out)} | (
        {"part": True} if summary is None else described(summary)
    )


def _bits(summary: Summary) -> dict[str, float]:
    """Bits per symbol, where something was coded."""
    return {"bits_per_symbol": summary.bits_per_symbol} if summary.symbols else {}


def _written(out: Path, job: archive.Job, pile: Pile, advance: Callable[[Summary], object]) -> Summary | None:
    """Writes the archive, or this process's part of it; None where another process joins the parts."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    names, items = _two(pile)
    if out == files.STANDARD:
        if world > 1:
            raise ValueError("--out - under torchrun; expected the name of a file")
        with tempfile.TemporaryFile() as copy:  # nothing goes out unless all of it does
            summary = archive.write(copy, job, items, names=names, more=pile.more, advance=advance)
            copy.seek(0)
            shutil.copyfileobj(copy, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        return summary
    if world > 1:
        parts.write_part(out, rank, world, job, items, names=names, more=pile.more, advance=advance)
        return parts.join(out, world, job) if rank == 0 else None
    with codec.replacing(out) as file:
        return archive.write(file, job, items, names=names, more=pile.more, advance=advance)


def _two(pile: Pile) -> tuple[Iterator[str], Iterator[Item]]:
    """Names and items of one pass; a block's items are taken before its names."""
    waiting: list[str] = []

    def items() -> Iterator[Item]:
        for name, item in pile.pairs():
            waiting.append(name)
            yield item

    def names() -> Iterator[str]:
        while True:
            yield waiting.pop(0)

    return names(), items()


def suited(
    model: Model, subject: Subject, calls: int | None, order: str | None, substeps: int | None, seed: int
) -> Settings:
    """How items are unmasked in so many calls for a full row (or block), fewer for shorter ones; None: one a position.

    One position per call takes the model's own order. In fewer calls, a model that is best from left to right stays so
    where that fits, with as many sub-steps as a step has positions, so that each sees what stands before it; then calls
    are full passes, of which S sub-steps cost a row of any length S - 1 more. All others use bisection, whose positions
    lie far apart, and the best plan by the model's profile, or else equal steps. ``order`` and ``substeps`` are used as
    given.
    """
    reading = codec.LEFT_TO_RIGHT.name
    own = reading if subject.causal else str(model.config.get("order"))
    parts = 1 if substeps is None else substeps
    if calls is None:
        return Settings(1, _order(order or own), seed, parts)
    length = subject.block or subject.length
    plan = _plan(model, length, calls)
    if (order or own) == reading and substeps is None and (steps := _steps(subject, calls, length)):
        return Settings(in_calls(steps, length), _order(reading), seed, -(-length // steps))
    return Settings(plan, _order(order or (reading if subject.causal else "bisection")), seed, parts)


def _steps(subject: Subject, calls: int, length: int) -> int | None:
    """The most steps of one position a sub-step that cost no more than ``calls`` full passes; None where there are none."""
    if not hasattr(getattr(subject.denoiser, "network", None), "partial"):
        return None
    return next((n for n in range(calls, 0, -1) if passes(n, -(-length // n)) <= calls), None)


def passes(steps: int, substeps: int) -> int:
    """What a full row costs: S sub-steps run the positions of their step S - 1 times again."""
    return steps + substeps - 1


def _order(name: str) -> Order | None:
    """An order of the codec's by name; None, which means the codec's choice, for a name that it has not."""
    return {order.name: order for order in codec.ORDERS}.get(name)


def _plan(model: Model, length: int, calls: int) -> Plan:
    """The best plans by the model's profile, or else equal steps."""
    equal, profile = in_calls(calls, length), measured_profile(model)
    if profile is None or profile.length != length:
        return equal
    return plans.for_counts(profile, share=calls / length)


def _pile(sources: tuple[Path, ...], lines: bool, images: bool, quiet: bool) -> Pile:
    """What to compress, from paths; ValueError when there is nothing, or a name twice."""
    if lines and images:
        raise ValueError("--lines with --images; expected one of them")
    if files.STANDARD in sources and (len(sources) > 1 or images):
        raise ValueError("standard input (-) with other sources or --images; expected it alone")
    if lines:
        return _lines(sources, quiet)
    if sources == (files.STANDARD,):
        return Pile(lambda: iter([("stdin", files.standard_input().read())]), 1, True)
    found = _files(sources)
    if images:
        return Pile(lambda: _images(found), _count_images(found), True)
    return Pile(lambda: ((name, path.read_bytes()) for name, path in found), len(found), True)


def _files(sources: tuple[Path, ...]) -> list[tuple[str, Path]]:
    """Names and paths of files, and of all files in folders."""
    found: list[tuple[str, Path]] = []
    for source in sources:
        if not source.exists():
            raise ValueError(f"no file '{source}': expected files, folders or - for standard input")
        if not source.is_file() and not source.is_dir():
            raise ValueError(f"{source} is read only once; expected files, folders or - for standard input")
        inside = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else []
        if source.is_dir() and not inside:
            raise ValueError(f"{source} holds no files; expected some")
        found += (
            [(p.relative_to(source).as_posix(), p) for p in inside]
            if source.is_dir()
            else [(source.name, source)]
        )
    names = [name for name, _ in found]
    if twice := [n for n in names if names.count(n) > 1] if len(set(names)) < len(names) else []:
        raise ValueError(
            f"two files are called '{twice[0]}'; expected different names: give their folder instead"
        )
    return found


def _lines(sources: tuple[Path, ...], quiet: bool) -> Pile:
    """The lines of files, one after another, or of standard input; packed files are unpacked, with a remark."""
    from_files = sources != (files.STANDARD,)
    paths = [path for _, path in _files(sources)] if from_files else [files.STANDARD]
    total = sum(_count_lines(path) for path in paths) if from_files else None
    for path in paths if from_files else ():
        if files.is_packed(path):
            say(f"{path} is packed; the archive gets its lines, unpacked", quiet)
    pile = Pile(lambda: iter(()), total, False)

    def pairs() -> Iterator[tuple[str, Item]]:
        pile.ends = LineEnds()
        for path in paths:
            with files.open_binary(path) as file:
                for line in file:
                    yield "", pile.ends.cut(line)

    pile.pairs = pairs
    return pile


def _count_lines(path: Path) -> int:
    """Lines of a file, the last one with or without its end."""
    count, last = 0, b"\n"
    with files.open_binary(path) as file:
        while piece := file.read(2**20):
            count, last = count + piece.count(b"\n"), piece[-1:]
    return count + (last != b"\n")


def _is_idx(path: Path) -> bool:
    return path.name.endswith(IDX)


def _count_images(files: list[tuple[str, Path]]) -> int | None:
    return None if any(_is_idx(path) for _, path in files) else len(files)


def _images(files: list[tuple[str, Path]]) -> Iterator[tuple[str, Item]]:
    """Pixels uint8 of image files and of the images in idx files; each is called .png."""
    for name, path in files:
        if _is_idx(path):
            yield from ((f"{name}/{n:06}.png", np.asarray(piece.data)) for n, piece in enumerate(idx(path)))
        else:
            yield f"{name.removesuffix(path.suffix)}.png", _pixels(path)


def _pixels(path: Path) -> NDArray[np.uint8]:
    """The pixels of a picture; ValueError where they are more than 8 bits of grey or red, green and blue."""
    try:
        with pillow().open(path) as image:
            if image.mode not in ("L", "RGB"):
                raise ValueError(
                    f"{path} has pixels of mode {image.mode}; expected 8 bits of grey or colours without transparency"
                )
            return np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} is not a readable image ({error})") from None


# --- decompress -------------------------------------------------------------------------------------


def run_decompress(
    path: Path,
    out: Path | None,
    *,
    model_name: str | None,
    item: int | None,
    skip: bool,
    batch: int,
    quiet: bool,
) -> Report:
    """Gives back an archive's items: files and images into a folder, lines into a file or to standard output."""
    in_range("batch", batch, 1)
    in_range("item", item, 0)
    out, streamed = (None, True) if out == files.STANDARD else (out, False)
    with _opened(path) as file:
        header = _header(file, path)
        name = model_name or str(header.record["model"].get("name"))
        opened = archive.Archive(load(name), file, errors="skip" if skip else "raise", batch=batch)
        in_range("item", item, 0, max(len(opened) - 1, 0), " of this archive")
        if header.named and out is None and item is None:
            if len(opened) != 1 or not streamed:
                raise ValueError("the archive holds files; expected -o FOLDER for them, or --item N")
            item = 0
        with Progress("decompress", len(opened), quiet=quiet) as progress:
            counts = _unpacked(opened, out, item, progress)
    return {"command": "decompress", "file": str(path), "out": None if out is None else str(out)} | counts


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """An archive that can seek; standard input and what is no regular file are read whole."""
    if path == files.STANDARD:
        yield io.BytesIO(files.standard_input().read())
        return
    if path.is_dir() or not path.exists():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"no archive '{path}': it {state}; expected a file, or - for standard input")
    with path.open("rb") as file:
        yield file if path.is_file() else io.BytesIO(file.read())


def _header(file: BinaryIO, path: Path) -> archive.Header:
    """The header of an archive; ValueError names the file."""
    try:
        return archive.read_header(file)
    except ValueError as error:
        raise ValueError(f"{files.shown(path)}: {error}") from None


def _unpacked(opened: archive.Archive, out: Path | None, item: int | None, progress: Progress) -> Report:
    """Writes one item or all; how many there were and how many are lost."""
    if item is not None:
        found = opened.item(item)
        _put(found, out)
        return {"items": 1, "lost": int(found is None)}
    if opened.header.named:
        return _to_folder(opened, out or Path(), progress)
    with ExitStack() as stack:
        target = sys.stdout.buffer if out is None else stack.enter_context(codec.replacing(out))
        return _to_lines(opened, target, progress)


def _put(item: Item | None, out: Path | None) -> None:
    """One item to a file or to standard output."""
    if item is None:
        return
    data = _file_of(item)
    if out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write_bytes(out, data)


def _file_of(item: Item) -> bytes:
    """The bytes of a file: of an image, a PNG."""
    if isinstance(item, np.ndarray):
        data = io.BytesIO()
        pillow().fromarray(item).save(data, "PNG")
        return data.getvalue()
    return item.encode() if isinstance(item, str) else item


def _to_folder(opened: archive.Archive, folder: Path, progress: Progress) -> Report:
    count = lost = 0
    for name, item in opened.named_items():
        count += 1
        if item is None:
            lost += 1
        else:
            write_bytes(_inside(folder, name), _file_of(item))
        progress.advance(count)
    return {"items": count, "lost": lost}


def _inside(folder: Path, name: str) -> Path:
    """Where a file of this name goes; ValueError where it would leave the folder, or take another file's place."""
    place = Path(name)
    if not name or place.is_absolute() or ".." in place.parts or "\0" in name:
        raise ValueError(f"the archive has a file called {name!r}; expected a name inside the folder")
    if (folder / place).exists():
        raise ValueError(f"{folder / place} exists; expected an empty place: give another --out")
    return folder / place


def _to_lines(opened: archive.Archive, target: BinaryIO, progress: Progress) -> Report:
    """Lines with their ends; an item that is lost leaves an empty one."""
    count, lost, end = 0, 0, b""
    for item, following in zip(opened.items(), line_ends(opened.more)):
        target.write(end)
        target.write(b"" if item is None else _file_of(item))
        count, lost, end = count + 1, lost + (item is None), following
        progress.advance(count)
    target.write(end if opened.more.get("newline", True) else b"")
    target.flush()
    return {"items": count, "lost": lost}


def render_decompress(report: Report, quiet: bool) -> None:
    """A remark on standard error: items go to standard output."""
    lost = f", {report['lost']} of them damaged and lost" if report["lost"] else ""
    say(f"{report['items']} items{lost}", quiet)


# --- inspect ----------------------------------------------------------------------------------------


def described(summary: Summary) -> Report:
    """A summary as numbers with their units."""
    return {
        "items": summary.items,
        "kinds": dict(summary.kinds),
        "symbols": summary.symbols,
        "bits_per_symbol": summary.bits_per_symbol if summary.symbols else None,
        "payload_bytes": summary.payload_bytes,
        "other_bytes": summary.bytes - summary.payload_bytes,
        "bytes": summary.bytes,
        "source_bytes": summary.source_bytes,
        "units": {"bits_per_symbol": "payload bits of coded items per symbol", "bytes": "of the file"},
    }


def run_inspect(path: Path) -> Report:
    """What an archive holds, and what it would take with other plans where the model's profile is shipped."""
    with _opened(path) as file:
        _header(file, path)
        found = codec.inspect(file)
    record, method = found.header.record, found.header.method
    plan = (
        method.plan if isinstance(method.plan, int) else {n: len(sizes) for n, sizes in method.plan.items()}
    )
    return {
        "command": "inspect",
        "file": str(path),
        "version": container.VERSION,
        "library": record["library"],
        "model": record["model"],
        "returns": record["returns"],
        "order": method.order,
        "seed": method.seed,
        "plan": plan,
        "substeps": method.substeps,
        "full_passes": _passes(method),
        "block": method.block,
        "grid": f"2^-{method.grid}",
        "band": method.band,
        "names": found.names[:1000],
        **described(found.summary),
        "other_plans": _other_plans(found),
    }


def _passes(method: Method) -> int | None:
    """Full passes for the longest row (or block) of an archive; None where its steps are not stored one by one."""
    if isinstance(method.plan, int):
        return None
    return passes(len(method.plan[max(method.plan)]), method.substeps) if method.plan else 0


def _other_plans(found: archive.Inspection) -> list[Report]:
    """Expected payload bits per item under the best plans of other numbers of calls, for items of full length."""
    name, method = str(found.header.record["model"].get("name")), found.header.method
    model = load(name) if name in shipped() else None
    profile = None if model is None else measured_profile(model)
    coded = sum(found.summary.kinds[container.NAMES[k]] for k in (container.CODED, container.ESCAPED))
    whole = profile is not None and found.summary.symbols == coded * profile.length and not method.block
    if profile is None or not coded or not whole or (method.order, method.substeps) != (codec.RANDOM.name, 1):
        return []  # a profile tells what random orders cost
    now = 8 * found.summary.coded_bytes / coded
    alone = now - _cost(profile, method.plan)
    calls = sorted({max(1, profile.length // part) for part in (1, 2, 4, 8, 16)}, reverse=True)
    return [
        {"calls": k, "bits_per_item": alone + _cost(profile, plans.optimal(profile, steps=k))} for k in calls
    ]


def _cost(profile: Profile, plan: int | dict[int, tuple[int, ...]] | tuple[int, ...]) -> float:
    """Bits that a plan costs beyond one position per call, by the profile."""
    sizes = plan.get(profile.length, 1) if isinstance(plan, dict) else plan
    return float(profile.kl(check(sizes, profile.length))) / math.log(2)


def render(report: Report, console: Console) -> None:
    """Prints a compression or an inspection, one fact a line."""
    table = Table("", "", box=None, show_header=False)
    for name, value in _facts(report):
        table.add_row(name, value)
    console.print(table)
    for plan in report.get("other_plans", ()):
        console.print(f"  with {plan['calls']} calls: about {plan['bits_per_item']:.1f} bits an item")


FACTS = ["file", "model", "order", "seed", "plan", "substeps", "full_passes", "grid", "band"]
NUMBERS = [
    "items",
    "kinds",
    "symbols",
    "bits_per_symbol",
    "payload_bytes",
    "other_bytes",
    "bytes",
    "source_bytes",
]


def _facts(report: Report) -> Iterable[tuple[str, str]]:
    """What is printed, in order."""
    known = {name: report[name] for name in [*FACTS, *NUMBERS] if report.get(name) is not None}
    for name, value in known.items():
        text = f"{value:.4f}" if name == "bits_per_symbol" else _short(name, value)
        yield name.replace("_", " "), text


def _short(name: str, value: Any) -> str:
    """A fact in few words: of a plan by masked count, that of the largest."""
    if name == "plan" and isinstance(value, dict):
        largest = max(value, default=0)
        return f"{value.get(largest, 0)} calls for {largest} positions"
    if name == "model" and isinstance(value, dict):
        return f"{value['name']} ({value['identity'][:12]})"
    if name == "kinds":
        return ", ".join(f"{count} {kind}" for kind, count in value.items())
    return f"{value} per call" if name == "plan" else str(value)
