"""What the codec must know of a model: its law in float64, who it is, and how the bytes of an item become symbols.

Every item has bytes: those of a text or file; of an array its shape and values; of symbols themselves little-endian
integers. Checksums are over these bytes, and items that the model cannot say are stored as these bytes.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.base.numbers import whole
from unmask.base.types import Denoiser
from unmask.codec.coder import read_varint, varint
from unmask.codec.tables import Ints
from unmask.data.vocabularies import Bytes, Levels, Vocabulary
from unmask.denoisers import NetworkDenoiser, Wrapped
from unmask.denoisers.caches import Blocks
from unmask.variants import upscale

if TYPE_CHECKING:
    from unmask.models import Model

Item: TypeAlias = str | bytes | NDArray[Any]
"""A text, the bytes of one, an image uint8, or symbols of a bare denoiser int64 [n]."""

TEXT, BYTES, ARRAYS, SYMBOLS = "text", "bytes", "arrays", "symbols"
"""What the items of a file come back as: str, bytes, arrays uint8, symbols int64 [n]."""


@dataclass(frozen=True)
class Subject:
    """A model as the codec sees it; made by `of_model` and `of_denoiser`.

    ``symbols(data)`` are ids int64 [n] of an item's bytes, ValueError where it has none; ``data(ids)`` is the way back.
    Rows have ``length`` positions. With ``ends`` an item is one row, filled up by the visible symbol vocab_size - 1, and
    with ``cut`` the rest of a row may be left away; otherwise an item goes on in the next row, and the last positions of
    its last row stay masked. ``block`` > 0: rows are unmasked in blocks of that length, left to right. ``whole``: every
    item has ``length`` symbols.
    """

    denoiser: Denoiser
    length: int
    name: str
    identity: str
    returns: str
    symbols: Callable[[bytes], Ints]
    data: Callable[[Ints], bytes]
    ends: bool = False
    cut: bool = False
    block: int = 0
    causal: bool = False
    whole: bool = False
    frame: tuple[tuple[int, ...], tuple[int, ...], int] | None = None
    """Visible symbols before and after those of a row, and the one that fills it up; then a row is as long as need be."""


def subject_of(model: Model | Subject) -> Subject:
    """The subject itself, or that of a loaded model."""
    return model if isinstance(model, Subject) else of_model(model)


def of_model(model: Model) -> Subject:
    """The subject of a loaded model; ValueError for one that reads texts in an order of its own."""
    if model.places is not None:
        raise ValueError(
            f"model '{model.name}' reads in an order of its own; expected one that reads left to right, or in any order"
        )
    network, vocabulary = model.config["network"], model.vocabulary
    stages = upscale.stages_of(network)
    ends = stages == 1 and vocabulary is not None and model.denoiser.vocab_size == vocabulary.size + 1
    ends = ends and model.frame is None
    symbols, data, returns = _by_vocabulary(model)
    facts = {"network": network, "vocabulary": model.config.get("vocabulary"), "weights": model.hash}
    if model.frame is not None:
        facts["frame"] = asdict(model.frame)
    return Subject(
        doubled(model.denoiser),
        model.length,
        model.name,
        hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
        returns,
        _checked(symbols, data),
        data,
        ends=ends,
        cut=bool(network.get("ends")),
        block=model.length // stages if stages > 1 else 0,
        causal=bool(network.get("causal")),
        whole=vocabulary is None or isinstance(vocabulary, Levels),
        frame=None if model.frame is None else (model.frame.before, model.frame.after, model.frame.pad),
    )


def of_denoiser(denoiser: Denoiser, length: int, identity: str) -> Subject:
    """The subject of a bare denoiser over rows of ``length``; items are symbols int64 [n] and come back so.

    ``identity`` is any text that says which denoiser it is: a file is opened with the same one only.
    """
    kind = np.dtype(f"<u{_width(denoiser.vocab_size)}")

    def symbols(data: bytes) -> Ints:
        ids = np.frombuffer(data, kind).astype(np.int64)
        if (ids >= denoiser.vocab_size).any() or (ids == denoiser.mask_id).any():
            raise ValueError(f"symbol {ids.max()}: expected data symbols below {denoiser.vocab_size}")
        return ids

    return Subject(
        doubled(denoiser),
        whole(length, "length", 1),
        identity,
        hashlib.sha256(identity.encode()).hexdigest(),
        SYMBOLS,
        symbols,
        lambda ids: ids.astype(kind).tobytes(),
    )


def doubled(denoiser: Denoiser) -> Denoiser:
    """The denoiser with copies of its networks in float64; exact laws as they are."""
    if isinstance(denoiser, NetworkDenoiser):
        network = denoiser.network
        if not isinstance(network, torch.nn.Module):
            return denoiser
        return replace(denoiser, network=copy.deepcopy(network).to(device="cpu", dtype=torch.float64).eval())
    if isinstance(denoiser, Wrapped):
        return replace(denoiser, parts=tuple(map(doubled, denoiser.parts)))
    if isinstance(denoiser, Blocks):
        return replace(denoiser, base=doubled(denoiser.base))
    return denoiser


# --- items and their bytes --------------------------------------------------------------------------


def to_bytes(item: Item, returns: str, vocab_size: int) -> bytes:
    """The bytes of an item; ValueError for an item of another kind than the file's."""
    if isinstance(item, torch.Tensor):
        item = item.detach().cpu().numpy()
    if returns == TEXT and isinstance(item, str):
        return item.encode("utf-8", "surrogatepass")
    if returns == BYTES and isinstance(item, bytes | bytearray):
        return bytes(item)
    if isinstance(item, np.ndarray) and item.dtype.kind in "iu" and item.size * item.itemsize < 2**62:
        if returns == ARRAYS and _fits(item, 2**8):
            return _array_bytes(item.astype(np.uint8))
        if returns == SYMBOLS and item.ndim == 1:
            return _symbol_bytes(item, vocab_size)
    kinds = {TEXT: "a str", BYTES: "bytes", ARRAYS: "whole numbers 0..255", SYMBOLS: "whole numbers [n]"}
    raise ValueError(f"it is {_kind(item)}; expected {kinds[returns]}")


def from_bytes(data: bytes, returns: str, vocab_size: int) -> Item:
    """The item of its bytes."""
    if returns == TEXT:
        return data.decode("utf-8", "surrogatepass")
    if returns == ARRAYS:
        return _array(data)
    if returns == SYMBOLS:
        return np.frombuffer(data, f"<u{_width(vocab_size)}").astype(np.int64)
    return data


def kind_of(item: Item, subject: Subject) -> str:
    """What the items of a file that begins with this one come back as."""
    if isinstance(item, str):
        return TEXT
    return BYTES if isinstance(item, bytes | bytearray) else subject.returns


def _kind(item: object) -> str:
    shape = f" of {item.dtype} {list(item.shape)}" if isinstance(item, np.ndarray) else ""
    return f"a {type(item).__name__}{shape}"


def _width(vocab_size: int) -> int:
    """Bytes of a symbol of a bare denoiser."""
    return 1 if vocab_size <= 2**8 else 2 if vocab_size <= 2**16 else 4


def _fits(values: NDArray[Any], limit: int) -> bool:
    return values.size == 0 or (int(values.min()) >= 0 and int(values.max()) < limit)


def _symbol_bytes(item: NDArray[Any], vocab_size: int) -> bytes:
    width = _width(vocab_size)
    if not _fits(item, 2 ** (8 * width)):
        raise ValueError(f"symbol {int(item.max())}: expected 0..{vocab_size - 1}")
    return item.astype(f"<u{width}").tobytes()


def _array_bytes(values: NDArray[np.uint8]) -> bytes:
    """The number of dimensions, each, and the values row by row."""
    return b"".join([varint(values.ndim), *map(varint, values.shape), values.tobytes()])


LONGEST_SIDE = 2**31
"""Entries along a dimension of an array that is read."""


def _array(data: bytes) -> NDArray[np.uint8]:
    """The array of `_array_bytes`."""
    rank, start = read_varint(data, 0)
    shape = []
    for _ in range(min(rank, 8)):
        size, start = read_varint(data, start)
        shape.append(size)
    values = np.frombuffer(data, np.uint8, offset=start)
    if math.prod(shape) != len(values) or max(shape, default=0) > LONGEST_SIDE:
        raise ValueError(f"{len(values)} values for an array of shape {shape}")
    return values.reshape(shape).copy()


# --- models and their vocabularies --------------------------------------------------------------------


Maps: TypeAlias = tuple[Callable[[bytes], Ints], Callable[[Ints], bytes], str]


def _by_vocabulary(model: Model) -> Maps:
    """The two ways between bytes and ids, and what items come back as."""
    if isinstance(model.vocabulary, Levels):
        return (*_images(model), ARRAYS)
    if isinstance(model.vocabulary, Bytes):
        return Bytes().encode, lambda ids: ids.astype(np.uint8).tobytes(), BYTES
    if model.vocabulary is None:
        return (*_whole(model), TEXT)
    return (*_texts(model.vocabulary), TEXT)


def _texts(vocabulary: Vocabulary) -> tuple[Callable[[bytes], Ints], Callable[[Ints], bytes]]:
    """Texts of UTF-8 under a vocabulary of characters or a tokenizer."""
    return (
        lambda data: vocabulary.encode(data.decode()),  # type: ignore[union-attr]
        lambda ids: str(vocabulary.decode(ids.tolist())).encode(),  # type: ignore[union-attr]
    )


def _whole(model: Model) -> tuple[Callable[[bytes], Ints], Callable[[Ints], bytes]]:
    """Texts under the model's own encoding, a whole row each: puzzles."""
    return (
        lambda data: np.asarray(model.encode([data.decode()])[0], np.int64),
        lambda ids: str(model.decode(torch.from_numpy(ids)[None])[0]).encode(),
    )


def _images(model: Model) -> tuple[Callable[[bytes], Ints], Callable[[Ints], bytes]]:
    """Images: arrays of the model's shape."""
    return (
        lambda data: np.asarray(model.encode(_array(data)[None])[0], np.int64),
        lambda ids: _array_bytes(np.asarray(model.decode(torch.from_numpy(ids)[None])[0], np.uint8)),
    )


def _checked(symbols: Callable[[bytes], Ints], data: Callable[[Ints], bytes]) -> Callable[[bytes], Ints]:
    """``symbols``, ValueError where ``data`` does not lead back to the same bytes."""

    def encode(item: bytes) -> Ints:
        ids = symbols(item)
        if data(ids) != item:
            raise ValueError("the vocabulary does not give this text back")
        return ids

    return encode
