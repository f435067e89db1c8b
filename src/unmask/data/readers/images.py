"""Images as items of values 0..255: idx files (MNIST), CIFAR-10 binary batches, arrays, PNG files."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from unmask.base.records import write_bytes
from unmask.data.files import open_binary
from unmask.data.readers.pieces import Piece

CIFAR_ROW = 1 + 3 * 32 * 32
"""Bytes of a CIFAR-10 image: its label, then the red, green and blue plane."""


def idx(path: Path) -> Iterator[Piece]:
    """Images [h, w] of an idx file, with the labels of the file beside it, if there is one.

    That file has ``labels`` and ``idx1`` in its name where this one has ``images`` and ``idx3``, as in MNIST.
    """
    beside = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    with open_binary(path) as images:
        if beside == path or not beside.is_file():
            yield from idx_images(images, None, str(path))
        else:
            with open_binary(beside) as labels:
                yield from idx_images(images, labels, str(path))


def idx_images(images: BinaryIO, labels: BinaryIO | None, name: str) -> Iterator[Piece]:
    """Images uint8 [h, w] of an open idx file; ValueError for another format, a truncated file, other labels."""
    count, height, width = _idx_header(images, 3, name)
    marks = None if labels is None else _labels(labels, count, name)
    for number in range(count):
        data = images.read(height * width)
        if len(data) < height * width:
            raise ValueError(
                f"{name} ends in image {number}; expected {count} images of {height}x{width}: it is truncated"
            )
        image = np.frombuffer(data, np.uint8).reshape(height, width)
        yield Piece(image, name, number, None if marks is None else int(marks[number]))
    if images.read(1):
        raise ValueError(f"{name} goes on after its {count} images; expected its end")


def _idx_header(file: BinaryIO, rank: int, name: str) -> tuple[int, ...]:
    """The sizes that an idx file announces."""
    magic, sizes = file.read(4), file.read(4 * rank)
    if magic != bytes([0, 0, 8, rank]) or len(sizes) < 4 * rank:
        raise ValueError(
            f"{name} begins with {magic!r}; expected an idx file of bytes in {rank} dimensions ({bytes([0, 0, 8, rank])!r})"
        )
    return struct.unpack(f">{rank}I", sizes)


def _labels(file: BinaryIO, count: int, name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The labels of an idx file, one for each image."""
    (announced,) = _idx_header(file, 1, f"the label file of {name}")
    marks = np.frombuffer(file.read(), np.uint8)
    if not announced == len(marks) == count:
        raise ValueError(
            f"{len(marks)} labels ({announced} announced) beside {name} of {count} images; expected one for each"
        )
    return marks


def cifar(path: Path) -> Iterator[Piece]:
    """Images [32, 32, 3] and labels of a CIFAR-10 binary batch; ValueError for a file of another length."""
    with open_binary(path) as file:
        number = 0
        while data := file.read(CIFAR_ROW):
            if len(data) < CIFAR_ROW or data[0] > 9:
                raise ValueError(
                    f"{path}, image {number}: {len(data)} bytes, label {data[0]}; expected {CIFAR_ROW} bytes an image, "
                    "first a label 0..9: is it CIFAR-10's binary version?"
                )
            planes = np.frombuffer(data, np.uint8, offset=1).reshape(3, 32, 32)
            yield Piece(np.ascontiguousarray(planes.transpose(1, 2, 0)), str(path), number, data[0])
            number += 1


def npy(path: Path) -> Iterator[Piece]:
    """Images of an array of numpy.save, as `array`."""
    with open_binary(path) as file:
        found = array(file.read(), str(path))
    yield from (Piece(image, str(path), number) for number, image in enumerate(found))


def array(data: bytes, name: str) -> NDArray[np.uint8]:
    """Images uint8 [n, h, w] or [n, h, w, 3] that numpy.save wrote; ValueError for anything else."""
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{name} is no array ({error}); expected images uint8 [n, h, w] of numpy.save"
        ) from None
    if not isinstance(found, np.ndarray) or found.ndim not in (3, 4) or found.dtype != np.uint8:
        kind = (
            f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else "an archive of arrays"
        )
        raise ValueError(f"{name} holds {kind}; expected images uint8 [n, h, w] or [n, h, w, 3]")
    return found


def png(path: Path) -> Iterator[Piece]:
    """The image of a PNG file: [h, w] when grey, [h, w, 3] otherwise; needs pillow (extra ``images``).

    Palettes become colours, transparency is laid on white. ValueError for more than 8 bits, and for a damaged file.
    """
    yield Piece(pixels(path, str(path)), str(path))


def pixels(file: Path | BinaryIO, name: str, kind: str = "a PNG file") -> NDArray[np.uint8]:
    """The image of a file of any kind that pillow reads, as `png`."""
    Image = pillow()
    try:
        with Image.open(file) as image:
            return np.asarray(_plain(image, name))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{name} is not a readable image ({error}); expected {kind}") from None


def _plain(image: Any, path: str) -> Any:
    """The image in grey or colours."""
    if image.mode in ("L", "1"):
        return image.convert("L")
    if image.mode not in ("RGB", "RGBA", "LA", "P"):
        raise ValueError(
            f"{path} has pixels of mode {image.mode}; expected 8 bits: grey, colours or a palette"
        )
    return on_white(image)


def on_white(image: Any) -> Any:
    """The image in colours, what is transparent in white."""
    if image.mode == "RGB":
        return image
    clear = image.convert("RGBA")
    ground = pillow().new("RGBA", clear.size, "white")
    ground.alpha_composite(clear)
    return ground.convert("RGB")


def pillow() -> Any:
    """The module PIL.Image; ImportError says how to get it."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("pillow is not installed: pip install 'unmask[images]'") from None
    return Image


def save_grid(path: Path, images: NDArray[np.uint8], columns: int | None = None) -> None:
    """Writes images uint8 [n, height, width] or [n, height, width, 3] as one picture, a pixel of white between them."""
    write_bytes(path, grid_png(images, columns))


def grid_png(images: NDArray[np.uint8], columns: int | None = None) -> bytes:
    """The PNG file of `save_grid`."""
    columns = columns or math.ceil(math.sqrt(len(images)))
    height, width = (side + 1 for side in images.shape[1:3])
    lines = math.ceil(len(images) / columns)
    sheet = np.full((lines * height + 1, columns * width + 1, *images.shape[3:]), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * height + 1, i % columns * width + 1
        sheet[top : top + height - 1, left : left + width - 1] = image
    data = io.BytesIO()
    pillow().fromarray(sheet).save(data, "PNG")
    return data.getvalue()
