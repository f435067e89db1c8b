"""Writing token folders: from a stream of pieces to shards and a manifest, in bounded memory.

A preparation that was stopped goes on after its last finished shard when it is started again, and ends with the
same bytes as one that was not. ``progress.json`` holds what is needed for it; ``manifest.json`` comes last, so
a folder without one is unfinished.
"""

from unmask.data.writing.encoding import encode
from unmask.data.writing.folders import check_room, source, write
from unmask.data.writing.form import GIVEN, LEARNT, NONE, POLICIES, SHARD, WINDOWS, Form, Record
from unmask.data.writing.resuming import undo

__all__ = [
    "GIVEN",
    "LEARNT",
    "NONE",
    "POLICIES",
    "SHARD",
    "WINDOWS",
    "Form",
    "Record",
    "check_room",
    "encode",
    "source",
    "undo",
    "write",
]
