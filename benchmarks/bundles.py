"""What does an item cost in an archive of many, container included, when items share streams, checksums and entries?

Run: python benchmarks/bundles.py molecules [--items 2000] [--share 0.05] [--together 1 16 64 256] [--write], or records,
text. Needs what benchmarks/compression.py needs.
"""

from __future__ import annotations

import argparse
import io
import math
import struct
import time
from dataclasses import dataclass, field, replace
from typing import Any

import compression
import numpy as np
import record
import torch
from numpy.typing import NDArray

import unmask
from unmask import codec
from unmask.codec import container
from unmask.command_line.commands.archives.compress import suited

NOTES = """
Model {model}, weights {hash}; {items} items of {test}, evenly spread, {raw:.1f} bytes each. Each archive is what
`unmask compress --calls K --together G` writes. Streams and stored items are the payloads; tables: numbers, kinds, sizes
and checksums; the rest: heads of blocks and the index. With a plan of single calls (no sub-steps) laws are remembered by
what is visible, so that archives of further G cost no more calls; each archive is decoded likewise, and the last one once
more with the model itself, in a batch of another size, which is what "decode" times. Compressors get all items as one
file, a line end between two. One thread; times of a machine that did other things as well.
"""


@dataclass
class Remembered:
    """A denoiser that answers what it was asked before from memory, row by row; rows of ends may be cut anywhere."""

    base: Any
    length: int
    known: dict[tuple[bytes, int], NDArray[np.float64]] = field(default_factory=dict)

    @property
    def mask_id(self) -> int:
        """The base's."""
        return int(self.base.mask_id)

    @property
    def vocab_size(self) -> int:
        """The base's."""
        return int(self.base.vocab_size)

    def __call__(self, tokens: torch.Tensor, rows: torch.Tensor | None = None, **_: Any) -> torch.Tensor:
        """The base's law at the rows."""
        places = torch.arange(tokens.shape[1]).expand(tokens.shape) if rows is None else rows
        filled = torch.full((len(tokens), self.length), self.vocab_size - 1)
        filled[:, : tokens.shape[1]] = tokens
        keys = [[(a.tobytes(), int(n)) for n in b] for a, b in zip(filled.numpy(), places.numpy())]
        new = [i for i, row in enumerate(keys) if not all(key in self.known for key in row)]
        if new:
            laws = self.base(tokens[new], places[new]).numpy()
            self.known.update(zip((key for i in new for key in keys[i]), laws.reshape(-1, self.vocab_size)))
        return torch.from_numpy(np.stack([[self.known[key] for key in row] for row in keys]))


def row(archive: bytes, items: int, together: int, title: str) -> dict[str, Any]:
    """Where the bytes of an archive are, for each item."""
    found = codec.inspect(archive)
    file = io.BytesIO(archive)
    places, _ = container.read_index(file, found.header.length, together)
    tables = sum(struct.unpack_from("<I", archive, place.offset + 4)[0] for place in places)
    summary = found.summary
    rest = summary.bytes - summary.payload_bytes - tables - found.header.length
    parts = {
        "archive": summary.bytes,
        "streams and stored items": summary.payload_bytes,
        "tables": tables,
        "rest": rest,
        "header": found.header.length,
    }
    coded = summary.kinds["coded"] + summary.kinds["coded with escapes"]
    return {"calls": title, "items": items, "items a bundle": together, "coded, %": 100 * coded / items} | {
        f"{name}, bytes an item": size / items for name, size in parts.items()
    }


def rows_of(
    model: unmask.Model, items: list[Any], share: float, sizes: list[int], batch: int
) -> list[dict[str, Any]]:
    """A row for each number of items a bundle."""
    subject = codec.of_model(model)
    how = suited(model, subject, math.ceil(share * model.length), None, None, 0)
    law: Any = Remembered(subject.denoiser, model.length)
    known = replace(subject, denoiser=law) if how.substeps == 1 else subject
    rows: list[dict[str, Any]] = []
    for together in sizes:
        began = time.perf_counter()
        archive = codec.compress(
            known, items, **compression.keywords(how), batch=batch, verify=False, together=together
        )
        encoded = time.perf_counter()
        rows.append(row(archive, len(items), together, compression.title(share, how)))
        rows[-1] |= {"encode, items a second": len(items) / (encoded - began), "decode, items a second": ""}
        last = together == sizes[-1]
        reader = subject if last else known
        back = list(codec.decompress(reader, archive, batch=batch + 32 * last))
        if last:
            rows[-1]["decode, items a second"] = len(items) / (time.perf_counter() - encoded)
        rows[-1]["exact"] = all(compression.same(a, b) for a, b in zip(items, back, strict=True))
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Prints, and with --write records, a row for each number of items a bundle, beside other compressors."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=["molecules", "records", "text"])
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--share", type=float, default=0.05, help="calls, as a share of N")
    parser.add_argument("--together", type=int, nargs="*", default=[1, 16, 64, 256])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--training", type=int, default=2000, help="items for the dictionary, which is left out"
    )
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    model, where = unmask.load(options.name), compression.SETS[options.name]
    raw = compression.items_of(where.test, options.items)
    packs = compression.general(compression.items_of(where.train, options.training))
    others = compression.together(raw, packs, b"\n")
    found = {
        "others": [
            {"compressor": name, "bytes an item, whole file": size / len(raw)}
            for name, size in others.items()
        ]
    }
    print(found["others"], flush=True)
    items = compression.as_items(model, raw)
    found = {"bundles": rows_of(model, items, options.share, options.together, options.batch)} | found
    facts = {"model": model.name, "hash": model.hash, "items": len(raw), "test": where.test}
    notes = NOTES.format(**facts, raw=float(np.mean([len(item) for item in raw])))
    for name, rows in found.items():
        print(f"\n{name}\n" + "\n".join(record.table(rows)))
    if options.write:
        print(record.write_parts(f"bundles_{options.name}", found, notes))


if __name__ == "__main__":
    main()
