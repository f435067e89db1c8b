"""A log of JSON lines as an archive: each record by itself, read one at a time, damaged and read again.

    unmask data fetch fingerprints
    python examples/archive_logs.py [--num 8] [--symbols 128] [--model records] [--log FILE]

FILE holds JSON lines; without it records of browsers serve that the shipped model has not seen (`fingerprints/test`).
A model of your own log makes yours small: `unmask data prepare`, `unmask train records --data.folder`. It printed, in
6 s of processor (`--num 4`):

    4 records of 434 bytes, written and verified in 60 s      (on a very busy machine)
    archive    43.2 bytes a record, and 339 for header and index
    zlib      311.2 bytes a record, each by itself
    xz        139.0 bytes a record, all in one
    record 3 alone: {"appName":"Netscape","connection":{"downlink":9.7,"effectiv..
    one byte damaged: 3 of 4 come back, no wrong one
"""

import argparse
import lzma
import time
import zlib
from pathlib import Path

import unmask
from unmask import codec
from unmask.data import tokens as folders
from unmask.data.sources.fetch import fetch

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--num", type=int, default=8, help="records")
parser.add_argument("--symbols", type=int, default=128, help="symbols a call: more are faster, and cost bits")
parser.add_argument("--model", default="records", help="a shipped model, or a folder")
parser.add_argument("--log", type=Path, help="JSON lines of your own")
options = parser.parse_args()

if options.log:
    records = options.log.read_bytes().splitlines()[: options.num]
else:
    stored = folders.load(fetch("fingerprints") / "test")
    records = [bytes(stored.item(i).tolist()) for i in range(min(options.num, stored.items))]
count, size = len(records), sum(map(len, records))

model, began = unmask.load(options.model), time.perf_counter()
archive = unmask.compress(model, records, plan=options.symbols)
seconds, payload = time.perf_counter() - began, codec.inspect(archive).summary.payload_bytes
alone, together = sum(len(zlib.compress(r, 9)) for r in records), len(lzma.compress(b"".join(records)))
print(f"{count} records of {size / count:.0f} bytes, written and verified in {seconds:.0f} s")
print(f"archive  {payload / count:6.1f} bytes a record, and {len(archive) - payload} for header and index")
print(f"zlib     {alone / count:6.1f} bytes a record, each by itself")
print(f"xz       {together / count:6.1f} bytes a record, all in one")

last = count - 1
assert codec.Archive(model, archive).item(last) == records[last]
print(f"record {last} alone: {records[last][:60].decode()}..")

broken = bytearray(archive)
broken[len(archive) - payload // 2] ^= 0xFF
back = list(unmask.decompress(model, bytes(broken), errors="skip"))
print(f"one byte damaged: {sum(item is not None for item in back)} of {count} come back, no wrong one")
assert all(item is None or item == record for item, record in zip(back, records, strict=True))
