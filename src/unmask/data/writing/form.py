"""What does a token folder hold, and how do items of different lengths share a batch?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

from unmask.data.vocabularies import Vocabulary, to_record

Record: TypeAlias = dict[str, Any]


SHARD = 2**26
"""Symbols of a shard: 64 MB where a symbol takes a byte."""


GIVEN, LEARNT, NONE, WINDOWS = "given", "learnt", "none", "windows"


POLICIES = {
    GIVEN: "the length is given: the network sees where an item ends, and its cost is that of its length's frequency",
    LEARNT: "filled up with a pad symbol that is masked, predicted and counted like any other",
    NONE: "all items have the same length; another length is an error",
    WINDOWS: "a stream, cut into windows of any length",
}
"""How items of different lengths share a batch, by name; the manifest carries the name.

The tokens of `LEARNT` and `GIVEN` are the same bytes, and nothing here pads. A network with ``ends`` wants `GIVEN`.
"""


@dataclass(frozen=True)
class Form:
    """What a token folder holds and how: the settings of a preparation.

    ``shape``: of images, ``(h, w)`` or ``(h, w, 3)``. ``limit``: symbols that an item may have. ``skip``: items with
    foreign symbols, longer ones and faulty pieces are left out and counted; otherwise they are errors. ``shard``: symbols
    of a shard. ``note``, ``more``: what readers should know, in words and as fields of the manifest. ``reading``: how the
    files are read, so that a preparation goes on with the same reading only.
    """

    kind: Literal["stream", "items", "images"]
    vocabulary: Vocabulary
    policy: str = GIVEN
    shape: tuple[int, ...] = ()
    limit: int | None = None
    skip: bool = False
    shard: int = SHARD
    note: str = ""
    more: Record = field(default_factory=dict)
    reading: str = ""

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"padding policy '{self.policy}': expected one of {', '.join(POLICIES)}")
        if self.shard < 1:
            raise ValueError(f"shards of {self.shard} symbols; expected at least 1")

    @property
    def dtype(self) -> str:
        """The smallest unsigned type that holds every symbol."""
        return np.min_scalar_type(self.vocabulary.size - 1).name

    def record(self) -> Record:
        """What the manifest says about every folder of this form."""
        return {
            "kind": self.kind,
            "vocabulary": to_record(self.vocabulary),
            "dtype": self.dtype,
            "shape": list(self.shape),
            "policy": self.policy,
            **({"note": self.note} if self.note else {}),
            **self.more,
        }
