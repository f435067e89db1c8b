"""One compression spread over processes: each writes every so manieth block into a part, and the parts are joined.

A block's bytes depend on its own items only, so the joined file is that of a single process. A part that was stopped
goes on after its last whole block.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from unmask.codec import container
from unmask.codec.archive import Job, Summary, blocks, replacing
from unmask.codec.coder import Damaged
from unmask.codec.container import Place
from unmask.codec.subjects import Item


def part_path(out: Path, rank: int, world: int) -> Path:
    """Where process ``rank`` of ``world`` keeps its part."""
    return out.with_name(f"{out.name}.part-{rank}-of-{world}")


def write_part(
    out: Path,
    rank: int,
    world: int,
    job: Job,
    items: Iterable[Item],
    *,
    names: Iterable[str] | None = None,
    more: Callable[[], dict[str, Any]] = dict,
    advance: Callable[[Summary], object] = lambda _: None,
) -> None:
    """Writes the blocks number ``rank``, ``rank + world``, .. of all items; what a part holds already is kept.

    ValueError when the part was begun with another model or other settings.
    """
    path = part_path(out, rank, world)
    path.touch()
    with path.open("r+b") as file:
        places = _resumed(file, job, path)
        done, summary = len(places), Summary()
        shares = blocks(items, names, job.block_items)
        own = (block for block in shares if block[0] // job.block_items % world == rank)
        for mine, (first, part, titles) in enumerate(own):
            if mine >= done:
                data, entries, _ = job.block(first, part, titles)
                places.append(Place(file.tell(), len(data), first, len(part)))
                file.write(data)
                file.flush()
                summary.add(entries)
                advance(summary)
        file.write(container.write_index(file.tell(), places, more()))
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _resumed(file: BinaryIO, job: Job, path: Path) -> list[Place]:
    """The whole blocks of a part, the file placed and cut behind them; a new part gets its header."""
    start = file.read(len(job.header))
    if len(start) < len(job.header):
        file.seek(0)
        file.write(job.header)
        file.truncate()
        return []
    if start != job.header:
        raise ValueError(
            f"{path} was begun with another model or other settings; expected the same: delete it"
        )
    places, offset, limit = list[Place](), len(start), file.seek(0, 2)
    while True:
        try:
            listed, end = container.read_table(file, offset, limit, job.named)
        except Damaged:
            file.seek(offset)
            file.truncate()
            return places
        places.append(Place(offset, end - offset, listed[0].number, len(listed)))
        offset = end


def join(out: Path, world: int, job: Job, *, wait: float = 0.2) -> Summary:
    """The archive of all parts, as one process would have written it; waits until all are whole, then deletes them."""
    found = [_whole(part_path(out, rank, world), job, wait) for rank in range(world)]
    places = sorted((p.first, rank, p) for rank, (part, _) in enumerate(found) for p in part)
    files = [part_path(out, rank, world).open("rb") for rank in range(world)]
    summary, joined, offset = Summary(source_bytes=None), list[Place](), len(job.header)
    with replacing(out) as target:
        target.write(job.header)
        for _, rank, place in places:
            summary.add(
                container.read_table(files[rank], place.offset, place.offset + place.length, job.named)[0]
            )
            files[rank].seek(place.offset)
            target.write(files[rank].read(place.length))
            joined.append(Place(offset, place.length, place.first, place.count))
            offset += place.length
        end = container.write_index(offset, joined, found[0][1])
        target.write(end)
    for rank, file in enumerate(files):
        file.close()
        part_path(out, rank, world).unlink()
    summary.bytes = offset + len(end)
    return summary


def _whole(path: Path, job: Job, wait: float) -> tuple[list[Place], dict[str, Any]]:
    """The blocks of a finished part, for which it waits, and what its end says."""
    while True:
        try:
            with path.open("rb") as file:
                if file.read(len(job.header)) == job.header:
                    places, more = container.read_index(file, len(job.header))
                    return [_numbered(file, place, job) for place in places], more
        except (FileNotFoundError, Damaged, json.JSONDecodeError):
            pass
        time.sleep(wait)


def _numbered(file: BinaryIO, place: Place, job: Job) -> Place:
    """The place with the number that its block says, for a part has gaps."""
    listed, _ = container.read_table(file, place.offset, place.offset + place.length, job.named)
    return Place(place.offset, place.length, listed[0].number, place.count)
