"""The files in which the data sets of papers come: text8, OpenWebText, CIFAR-10, ImageNet64, Speech Commands.

Batches that Python wrote are read without running anything that they hold: only arrays of numbers and plain values pass.
"""

from __future__ import annotations

import pickle
import wave
import zipfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from unmask.data.files import open_binary, shown
from unmask.data.readers import lines
from unmask.data.readers.pieces import Piece, text_of
from unmask.data.readers.text import BLOCK
from unmask.data.vocabularies import TEXT8

END = "<|endoftext|>"
"""What GPT-2's tokenizer reads as the end of a document."""

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SECOND = 16_000
"""Samples of a second of Speech Commands."""

_LISTS = {"valid": "validation_list.txt", "test": "testing_list.txt"}


# --- text -------------------------------------------------------------------------------------------


def text8_file(path: Path) -> Iterator[Piece]:
    """The file text8 as it is, or text8.zip; ValueError for a symbol that is none of its 27."""
    known, at = frozenset(TEXT8.encode()), 0
    with _unzipped(path) as file:
        while data := file.read(BLOCK):
            if foreign := frozenset(data) - known:
                first = min(data.index(byte) for byte in foreign)
                raise ValueError(
                    f"{shown(path)}, byte {at + first}: {data[first : first + 1]!r} is none of text8's 27 symbols; "
                    "expected the file text8: --as text8 filters other text"
                )
            yield Piece(data.decode("ascii"), shown(path))
            at += len(data)


def _unzipped(path: Path) -> IO[bytes]:
    """A file, or the one that a ZIP archive holds."""
    if not (path.is_file() and zipfile.is_zipfile(path)):
        return open_binary(path)
    archive = zipfile.ZipFile(path)
    if len(names := archive.namelist()) != 1:
        raise ValueError(f"{path} holds {len(names)} files; expected one, such as text8")
    return archive.open(names[0])


def documents(path: Path) -> Iterator[Piece]:
    """Documents, each followed by GPT-2's end of text: the field ``text`` of every JSON line, or a text file as one."""
    if ".jsonl" in path.suffixes or ".json" in path.suffixes:
        for piece in lines.jsonl(path, "text"):
            yield Piece(f"{text_of(piece)}{END}", piece.file, piece.line)
        return
    with open_binary(path) as file:
        yield Piece(f"{_decoded(file.read(), path)}{END}", shown(path), 1)


def _decoded(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{shown(path)}: not UTF-8 at byte {error.start}; expected UTF-8 text: convert it"
        ) from None


def token_ids(path: Path) -> Iterator[Piece]:
    """Token ids as little-endian uint16, one after another, as nanoGPT's train.bin has those of GPT-2."""
    with open_binary(path) as file:
        while data := file.read(BLOCK):
            if len(data) % 2:
                raise ValueError(f"{shown(path)} has an odd number of bytes; expected two a token")
            yield Piece(np.frombuffer(data, "<u2"), shown(path))


# --- images -----------------------------------------------------------------------------------------


def cifar_python(path: Path) -> Iterator[Piece]:
    """Images [32, 32, 3] and labels of a batch of CIFAR-10's Python version, such as ``data_batch_1``."""
    yield from _images(path, 32, 0)


def imagenet64(path: Path) -> Iterator[Piece]:
    """Images [64, 64, 3] and labels, from 0, of a batch of downsampled ImageNet: .npz, or written by Python."""
    yield from _images(path, 64, 1)


def _images(path: Path, side: int, first: int) -> Iterator[Piece]:
    """The images of a batch whose rows are three planes and whose labels count from ``first``."""
    batch = _batch(path)
    data, labels = np.asarray(batch.get("data")), np.asarray(batch.get("labels", ())).reshape(-1)
    if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3 * side * side:
        raise ValueError(
            f"{path} has data of dtype {data.dtype} and shape {list(data.shape)}; expected uint8 [n, {3 * side * side}], "
            f"images of {side}x{side}"
        )
    if len(labels) not in (0, len(data)):
        raise ValueError(f"{path} has {len(labels)} labels of {len(data)} images; expected one for each")
    for number, row in enumerate(data):
        image = np.ascontiguousarray(row.reshape(3, side, side).transpose(1, 2, 0))
        yield Piece(image, str(path), number, int(labels[number]) - first if len(labels) else None)


def _batch(path: Path) -> dict[str, Any]:
    """The named arrays of a batch."""
    try:
        if zipfile.is_zipfile(path):
            with np.load(path, allow_pickle=False) as found:
                return {name: found[name] for name in ("data", "labels") if name in found}
        with open_binary(path) as file:
            batch = _Arrays(file, encoding="bytes").load()
        return {k.decode() if isinstance(k, bytes) else str(k): v for k, v in batch.items()}
    except (
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
        zipfile.BadZipFile,
        IndexError,
        KeyError,
    ) as error:
        raise ValueError(
            f"{path} is no batch of images ({error}); expected .npz, or one that Python wrote"
        ) from None


class _Arrays(pickle.Unpickler):
    """Reads arrays of numbers, and refuses all else that a pickle may ask for."""

    def find_class(self, module: str, name: str) -> Any:
        """What an array is made of."""
        known: dict[str, Callable[..., Any]] = {
            "_reconstruct": np.empty(0).__reduce__()[0],  # type: ignore[dict-item]
            "ndarray": np.ndarray,
            "dtype": np.dtype,
            "encode": _latin,
        }
        if name in known and module.split(".")[0] in ("numpy", "_codecs"):
            return known[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _latin(text: str, *_: str) -> bytes:
    """Bytes that Python 3 wrote for Python 2."""
    return text.encode("latin1")


# --- sound ------------------------------------------------------------------------------------------


def sc09(path: Path, part: str = "train") -> Iterator[Piece]:
    """A spoken digit of Speech Commands as 16,000 values 0..65535, -32768 as 0, if it is of the part; other words are none.

    Recordings that are shorter end in silence. ``validation_list.txt`` and ``testing_list.txt`` beside the words' folders
    say what is not for training. ValueError for another rate, width or number of channels.
    """
    word = path.parent.name
    if word not in DIGITS or _part_of(path) != part:
        return
    yield Piece(_sound(path), str(path), 0, DIGITS.index(word))


def _sound(path: Path) -> NDArray[np.uint16]:
    """The samples of a WAV file of one second, from -32768 as 0."""
    try:
        with path.open("rb") as file, wave.open(file) as sound:
            form = (sound.getnchannels(), sound.getsampwidth(), sound.getframerate())
            data = sound.readframes(sound.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} is no sound ({error}); expected a WAV file") from None
    if form != (1, 2, SECOND):
        raise ValueError(
            f"{path} has {form[0]} channels of {8 * form[1]} bits at {form[2]} Hz; expected one of 16 bits at 16000 Hz"
        )
    samples = np.zeros(SECOND, np.int32)
    found = np.frombuffer(data, "<i2")[:SECOND]
    samples[: len(found)] = found
    return (samples + 2**15).astype(np.uint16)


def _part_of(path: Path) -> str:
    """The part that a recording belongs to."""
    name = f"{path.parent.name}/{path.name}"
    return next((part for part in _LISTS if name in _listed(path.parent.parent, part)), "train")


@lru_cache(maxsize=8)
def _listed(root: Path, part: str) -> frozenset[str]:
    """The recordings of a part; ValueError where the list is missing."""
    place = root / _LISTS[part]
    if not place.is_file():
        raise ValueError(f"no {place}: expected the folder of Speech Commands with its two lists")
    return frozenset(place.read_text().split())
