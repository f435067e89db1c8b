"""Samples of several fields, of which one is taken: webdataset shards, and the rows of Hugging Face datasets.

A shard is a tar file, packed or not: files in a row that share their name up to its first point are a sample, and
what comes behind the point is the field, such as ``txt``, ``json``, ``png`` or ``cls``. Rows come from files that the
package ``datasets`` reads (arrow, as ``save_to_disk`` writes it, parquet, JSON, CSV), or from its hub.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from unmask.data.files import HUB, is_of_hub, is_packed, open_binary, shown
from unmask.data.readers import images
from unmask.data.readers.papers import END
from unmask.data.readers.pieces import Data, Piece
from unmask.data.readers.text import text8

PATTERNS = ("*.tar*", "*.arrow", "*.parquet", "*.jsonl", "*.csv", "*.json")
"""What is looked for in a folder: the first of these that it holds."""

BUILDERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}
"""What ``datasets`` calls the readers of files."""

Sample: TypeAlias = tuple[str, Mapping[str, Any]]
"""How a sample is called, and its fields."""


@dataclass(frozen=True)
class Where:
    """Where in a sample the data are (``key``: a field, and behind points what its JSON or record holds), and the label.

    ``subset``, ``part`` and ``streaming`` are for data sets of the hub.
    """

    key: str
    label: str | None = None
    subset: str | None = None
    part: str | None = None
    streaming: bool = False


Value: TypeAlias = Callable[[Any], Data | None]
"""What an item or a stretch is made of; None where the field holds no such thing."""


def read(path: Path, where: Where, value: Value, *, skip: bool = False) -> Iterator[Piece]:
    """The pieces of a file's samples; ValueError at the first without such a field, or with ``skip`` a faulty piece."""
    for name, fields in _samples(path, where):
        piece = _piece(f"{shown(path)}, {name}", fields, where, value)
        if piece.fault is not None and not skip:
            raise ValueError(piece.fault[1])
        yield piece


def unnamed(path: Path) -> Iterator[Piece]:
    """ValueError: samples are read by the name of a field."""
    raise ValueError(
        f"{shown(path)}: no field named; expected --key, such as --key png of shards or --key image of rows"
    )


def _piece(place: str, fields: Mapping[str, Any], where: Where, value: Value) -> Piece:
    """The piece of a sample."""
    try:
        data = value(_field(fields, where.key))
        label = None if where.label is None else int(_field(fields, where.label))
    except (ValueError, TypeError, KeyError) as error:
        said = f"no {error.args[0]!r} among {', '.join(fields)}" if isinstance(error, KeyError) else error
        return Piece(b"", place, 1, fault=("unreadable", f"{place}: {said}; expected {where.key}"))
    if data is None or (label is not None and label < 0):
        what = where.key if data is None else where.label
        return Piece(b"", place, 1, fault=("no value", f"{place}: {what} holds none that can be used"))
    return Piece(data, place, 1, label)


def _field(fields: Mapping[str, Any], key: str) -> Any:
    """The value of a key; KeyError names what is missing. The longest field's name counts, such as ``seg.png``."""
    parts = key.split(".")
    for count in range(len(parts), 0, -1):
        if (name := ".".join(parts[:count])) in fields:
            return _inside(fields[name], parts[count:])
    raise KeyError(key)


def _inside(value: Any, names: list[str]) -> Any:
    """What a record, or JSON of one, holds below these names."""
    for name in names:
        record = json.loads(value) if isinstance(value, str | bytes) else value
        if not isinstance(record, Mapping) or name not in record:
            raise KeyError(name)
        value = record[name]
    return value


# --- what formats make of a value -------------------------------------------------------------------


def text(value: Any) -> str | None:
    """A text; ValueError where it is not UTF-8."""
    return value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else None


def _with(change: Callable[[str], Data]) -> Value:
    """What a change makes of a text."""

    def made(value: Any) -> Data | None:
        found = text(value)
        return None if found is None else change(found)

    return made


def picture(value: Any) -> Data | None:
    """The pixels of a picture file in bytes, of a record that holds such bytes, or of nested lists of values 0..255."""
    value = value.get("bytes") if isinstance(value, Mapping) else value
    if isinstance(value, bytes):
        return images.pixels(io.BytesIO(value), "it", "PNG or JPEG")
    if not isinstance(value, list | np.ndarray):
        return None
    array = np.asarray(value)
    plain = (
        array.dtype.kind in "iu" and array.ndim in (2, 3) and 0 <= int(array.min()) <= int(array.max()) < 256
    )
    return array.astype(np.uint8) if plain else None


VALUES: dict[str, Value] = {
    "text8": _with(text8),
    "characters": _with(lambda found: found if found.endswith("\n") else f"{found}\n"),
    "tokenizer": _with(lambda found: found if found.endswith("\n") else f"{found}\n"),
    "bytes": _with(lambda found: (found if found.endswith("\n") else f"{found}\n").encode()),
    "documents": _with(lambda found: f"{found}{END}"),
    "lines": text,
    "smiles": _with(lambda found: "".join(found.split(maxsplit=1)[:1])),
    "images": picture,
}
"""Formats that can read a field of samples. Texts of a stream end with a line end, or GPT-2's end of text (documents)."""


# --- samples ----------------------------------------------------------------------------------------


def _samples(path: Path, where: Where) -> Iterator[Sample]:
    """The samples of a file, or of a data set of the hub."""
    if is_of_hub(path):
        return _rows(path, lambda package: _of_hub(package, path, where), where)
    if ".tar" in path.suffixes or path.suffix == ".tgz":
        return shard(path)
    return _rows(path, lambda package: _of_file(package, path), where)


def shard(path: Path) -> Iterator[Sample]:
    """The samples of a webdataset shard, from its start to its end; ValueError where it is cut short or no tar file."""
    _check_whole(path)
    with open_binary(path) as file:
        try:
            with tarfile.open(fileobj=file, mode="r|") as archive:
                yield from _grouped(archive, path)
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(
                f"{shown(path)} is no whole tar file ({error}); expected a webdataset shard: get it again"
            ) from None


def _check_whole(path: Path) -> None:
    """ValueError unless an unpacked shard ends as tar files do: one that is cut between two files passes for whole."""
    if is_packed(path):
        return
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - tarfile.BLOCKSIZE))
        if size % tarfile.BLOCKSIZE or any(file.read()):
            raise ValueError(
                f"{path} is cut short, or no tar file; expected a webdataset shard: get it again"
            )


def _grouped(archive: tarfile.TarFile, path: Path) -> Iterator[Sample]:
    """Files that share a name, as one sample."""
    current, fields = "", dict[str, bytes]()
    for member in archive:
        folder, _, name = member.name.rpartition("/")
        stem, _, ending = name.partition(".")
        if not member.isfile() or not stem or stem.startswith("__"):
            continue
        if (place := f"{folder}/{stem}" if folder else stem) != current:
            if fields:
                yield f"sample {current}", fields
            current, fields = place, {}
        if ending.lower() in fields:
            raise ValueError(f"{shown(path)}, sample {place}: {ending} twice; expected each field once")
        content = archive.extractfile(member)
        fields[ending.lower()] = b"" if content is None else content.read()
    if fields:
        yield f"sample {current}", fields


# --- Hugging Face datasets --------------------------------------------------------------------------


def package() -> Any:
    """The module ``datasets``; ImportError says how to get it."""
    try:
        import datasets
    except ImportError:
        raise ImportError("datasets is not installed: pip install 'unmask[datasets]'") from None
    return datasets


def _rows(path: Path, opened: Callable[[Any], Any], where: Where) -> Iterator[Sample]:
    """The rows of a data set, of which only the columns in question are read."""
    module = package()
    wanted = list(dict.fromkeys(k.partition(".")[0] for k in (where.key, where.label) if k is not None))
    number = 0
    try:
        data = opened(module)
        known = list(data.column_names or wanted)
        if missing := [name for name in wanted if name not in known]:
            raise KeyError(missing[0])
        for name, kind in (data.features or {}).items():
            if isinstance(kind, module.Image):  # its file, which is read here
                data = data.cast_column(name, module.Image(decode=False))
        for row in data.select_columns(wanted):
            yield f"row {number}", row
            number += 1
    except KeyError as error:
        raise ValueError(
            f"{shown(path)} has no column {error}; expected one of {', '.join(known)[:200]}"
        ) from None
    except Exception as error:  # whatever that package raises
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"{shown(path)}, row {number}: datasets cannot read it ({said}); expected a data set: get it again"
        ) from None


def _of_file(module: Any, path: Path) -> Any:
    """A data set in one file; KeyError-free ValueError for another kind of file."""
    if path.suffix == ".arrow":
        return module.Dataset.from_file(str(path))
    if path.suffix not in BUILDERS:
        raise ValueError(f"a file of {', '.join(('.arrow', *BUILDERS))}, or a shard .tar, is expected")
    return module.load_dataset(BUILDERS[path.suffix], data_files=str(path), split="train", streaming=True)


def _of_hub(module: Any, path: Path, where: Where) -> Any:
    """A data set of the hub, at the revision that its name says, or of today."""
    name, revision = hub_name(path)
    return module.load_dataset(
        name, where.subset, split=where.part or "train", revision=revision, streaming=where.streaming
    )


def hub_name(path: Path) -> tuple[str, str | None]:
    """The name and the revision in ``hf:NAME@REVISION``."""
    name, _, revision = str(path).removeprefix(HUB).partition("@")
    return name, revision or None


def pinned(place: Path) -> Path:
    """A place of the hub with the revision that it has now, so that a preparation goes on with the same data."""
    if not is_of_hub(place) or hub_name(place)[1]:
        return place
    package()
    from huggingface_hub import HfApi

    try:
        found = HfApi().dataset_info(hub_name(place)[0]).sha
    except Exception as error:  # of the network, or an unknown name
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{place} was not found on the hub ({said}); expected hf:OWNER/NAME") from None
    return Path(f"{place}@{found}")
