"""``unmask data``: prepare token folders from files, fetch data sets, check folders."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from unmask.base.progress import Progress
from unmask.command_line.options import check_seed, in_range
from unmask.command_line.output import Report
from unmask.data import files, tokens
from unmask.data.prepare import READINGS, Reading, prepare
from unmask.data.prepare import of_samples as named_samples
from unmask.data.readers import lines
from unmask.data.readers.samples import Where, pinned
from unmask.data.sources.cache import cache
from unmask.data.sources.fetch import DATASETS, fetch
from unmask.data.sources.models import MODELS, fetch_model, is_there
from unmask.data.tokens import Tokens
from unmask.data.vocabularies import Bytes, Characters, Tokenizer, Vocabulary


def reading(name: str, column: str | None, field: str | None) -> Reading:
    """The reading of a format, with the column of CSV files or the field of JSON lines."""
    if name not in READINGS:
        raise ValueError(f"format '{name}': expected one of {', '.join(READINGS)}")
    if (column is not None and name != "smiles") or (field is not None and name != "jsonl"):
        raise ValueError(
            f"format '{name}' has no columns or fields; --column goes with smiles, --field with jsonl"
        )
    if column is not None:
        return replace(
            READINGS[name], read=partial(lines.smiles, column=column), name=f"{name}, column {column}"
        )
    if field is not None:
        return replace(READINGS[name], read=partial(lines.jsonl, field=field), name=f"{name}, field {field}")
    return READINGS[name]


def of_samples(name: str, where: Where, places: Sequence[Path]) -> tuple[Reading, list[Path]]:
    """The reading of a field of samples, and their places: braces counted up, parts found, revisions pinned."""
    if name not in READINGS:
        raise ValueError(f"format '{name}': expected one of {', '.join(READINGS)}")
    found = [pinned(one) for place in places for one in _counted(place)]
    parted = [
        place / where.part if where.part and (place / where.part).is_dir() else place for place in found
    ]
    return named_samples(name, where, parted), parted


def _counted(place: Path) -> list[Path]:
    """``shard-{000..003}.tar`` as the four files that a shell would make of it."""
    before, marked, after = re.match(r"(.*?)(\{\d+\.\.\d+\})?([^{}]*)$", str(place)).groups()  # type: ignore[union-attr]
    if not marked or place.exists():
        return [place]
    first, last = marked.strip("{}").split("..")
    return [Path(f"{before}{n:0{len(first)}}{after}") for n in range(int(first), int(last) + 1)]


def vocabulary(
    tokenizer: Path | None, alphabet: str | None, like: Path | None, as_bytes: bool
) -> Vocabulary | None:
    """The vocabulary that the options name; None when none does."""
    given = [tokenizer is not None, alphabet is not None, like is not None, as_bytes]
    if sum(given) > 1:
        raise ValueError(
            "more than one of --tokenizer, --alphabet, --like, --bytes; expected at most one vocabulary"
        )
    if tokenizer is not None:
        return read_tokenizer(tokenizer)
    if alphabet is not None:
        return Characters(alphabet)
    if like is not None:
        return tokens.load(like).vocabulary
    return Bytes() if as_bytes else None


def read_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer.json; ValueError when it is not one."""
    found = Tokenizer(files.read_text(path, "a tokenizer.json"))
    try:
        found.size  # noqa: B018 - parses it
    except ImportError:
        raise
    except Exception as error:  # the package raises bare exceptions
        raise ValueError(
            f"{path} is not a tokenizer.json ({error}); expected one of Hugging Face tokenizers"
        ) from None
    return found


def shares(words: Sequence[str]) -> dict[str, float]:
    """Parts as ``train=0.9 valid=0.1``."""
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise ValueError(f"--split {word}: expected a name and a share, such as train=0.9") from None
    if found and (min(found.values()) <= 0 or not math.isclose(sum(found.values()), 1.0)):
        raise ValueError(f"--split {' '.join(words)}: expected positive shares that sum to 1")
    if bad := [name for name in found if not name.isidentifier()]:
        raise ValueError(f"--split {bad[0]}=..: expected a name of letters and digits, such as train")
    if len(found) < len(words):
        raise ValueError(f"--split {' '.join(words)}: expected different names")
    return found


def run_prepare(
    places: Sequence[Path],
    folder: Path,
    chosen: Reading,
    symbols: Vocabulary | None,
    *,
    padding: str | None,
    longest: int | None,
    skip: bool,
    split: dict[str, float],
    seed: int,
    shard: int,
    quiet: bool,
) -> Report:
    """Prepares; what was made."""
    in_range("longest", longest, 1)
    in_range("shard", shard, 1)
    check_seed(seed)
    if files.STANDARD in places and chosen.pattern == "*.png":
        raise ValueError("standard input (-) as PNG files; expected files or folders")
    files.once(*places)
    with files.rereadable(places):
        made = prepare(
            places,
            folder,
            chosen,
            vocabulary=symbols,
            policy=padding,
            limit=longest,
            skip=skip,
            split=split,
            seed=seed,
            shard=shard,
            quiet=quiet,
            clean=True,
        )
    return {"command": "data prepare", "folders": [describe(m) for m in made]}


def run_fetch(name: str, quiet: bool) -> Report:
    """Fetches a data set or a model; what its parts are, or where it is."""
    if name in MODELS:
        place, model = fetch_model(name), MODELS[name]
        about = {"folder": str(place), "files": sorted(p.name for p in place.iterdir())}
        return {"command": "data fetch", "name": name, "licence": model.licence, "model": about}
    if name not in DATASETS:
        raise ValueError(
            f"data set '{name}': expected one of {', '.join(DATASETS)}; or a model: {', '.join(MODELS)}"
        )
    folder = fetch(name, quiet=quiet)
    parts = [describe(tokens.load(folder / part)) for part in DATASETS[name].parts]
    return {"command": "data fetch", "name": name, "licence": DATASETS[name].licence, "folders": parts}


def run_check(folder: Path) -> Report:
    """Reads a token folder, or every one below a folder, and compares all checksums."""
    found = sorted(p.parent for p in folder.rglob("manifest.json")) or [folder]
    described = []
    with Progress("check", len(found)) as progress:
        for place in found:
            described.append(describe(tokens.verify(place)))
            progress.advance(len(described))
    return {"command": "data check", "folders": described}


def run_list() -> Report:
    """The data sets and models that can be fetched."""
    sets = [
        {
            "name": n,
            "summary": d.summary,
            "licence": d.licence,
            "parts": list(d.parts),
            "fetched": _there(n, d.parts),
        }
        for n, d in DATASETS.items()
    ]
    models = [
        {"name": n, "summary": m.summary, "licence": m.licence, "fetched": is_there(n)}
        for n, m in MODELS.items()
    ]
    return {"command": "data fetch", "cache": str(cache()), "datasets": sets, "models": models}


def _there(name: str, parts: Sequence[str]) -> bool:
    return all((cache() / name / part / "manifest.json").is_file() for part in parts)


def describe(data: Tokens) -> Report:
    """A token folder in numbers."""
    record = data.manifest
    counts = {
        k: record[k] for k in ("kind", "policy", "shape", "characters", "source_bytes", "longest", "dropped")
    }
    return {
        "folder": str(data.folder),
        "symbols": data.symbols,
        "items": data.items,
        "vocabulary": data.vocabulary.size,
        **counts,
        **({"first_dropped": record["first_dropped"]} if "first_dropped" in record else {}),
    }


def render(report: Report, console: Console) -> None:
    """A line for each token folder, or the place of a model."""
    if "model" in report:
        console.print(f"{report['name']} ({report['licence']}): {report['model']['folder']}", markup=False)
        console.print(f"holds {', '.join(report['model']['files'])}", markup=False)
        return
    head = ("folder", "kind", "symbols", "items", "longest", "vocabulary", "left out")
    rows = []
    for f in report["folders"]:
        dropped = ", ".join(f"{n} {why}" for why, n in f["dropped"].items()) or "-"
        numbers = (f"{f[k]:,}" for k in ("symbols", "items", "longest", "vocabulary"))
        rows.append((f["folder"], f["kind"], *numbers, dropped))
    _print([head, *rows], console)
    for f in report["folders"]:
        if "first_dropped" in f:
            console.print(f"first left out of {f['folder']}: {f['first_dropped']}", markup=False)


def render_list(report: Report, console: Console) -> None:
    """A line for each data set and each model."""
    head = ("name", "fetched", "parts", "licence", "what")
    rows = [
        (d["name"], "yes" if d["fetched"] else "no", " ".join(parts), d["licence"], d["summary"])
        for d, parts in (
            *((d, d["parts"]) for d in report["datasets"]),
            *((m, ["(model)"]) for m in report["models"]),
        )
    ]
    _print([head, *rows], console)
    console.print(f"cache: {report['cache']}", markup=False)


def _print(rows: Sequence[Sequence[str]], console: Console) -> None:
    """Rows in columns as wide as need be; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = (c.rjust(w) if c.replace(",", "").isdigit() else c.ljust(w) for c, w in zip(row, widths))
        console.print("  ".join(cells).rstrip(), markup=False)
