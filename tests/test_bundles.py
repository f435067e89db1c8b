"""Items in bundles: they share a stream, a checksum and an entry, cost less together, and are lost together."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
from helpers import CHAIN, seeded
from test_archive import model
from test_codec import Noisy

from unmask import codec, laws
from unmask.base.progress import Partly
from unmask.codec import container
from unmask.codec.container import CODED, RAW, Bundle, Member, counts
from unmask.command_line.app import main
from unmask.command_line.commands.archives import compress as compressing
from unmask.command_line.commands.archives import decompress as decompressing
from unmask.data.vocabularies import Characters
from unmask.training.together import bulk
from unmask.training.together.world import ALONE

MARKOV = laws.Markov([0.2, 0.5, 0.3], CHAIN, 12)
SUBJECT = codec.of_denoiser(MARKOV, 12, "test")
ITEMS = [row.numpy()[: 1 + n % 12] for n, row in enumerate(MARKOV.sample(40, seeded(0)))]
ODD = [ITEMS[0], np.zeros(0, np.int64), np.array([7, 250]), np.full(90, 200), *ITEMS[8:30], np.array([7])]
LONG = [MARKOV.sample(rows, seeded(rows)).numpy().ravel()[2:] for rows in (22, 1, 12)]


def returned(items, found):
    return all(np.array_equal(a, b) for a, b in zip(items, found, strict=True))


class Counting:
    """A denoiser that counts its calls."""

    def __init__(self, base):
        self.base, self.mask_id, self.vocab_size, self.calls = base, base.mask_id, base.vocab_size, 0

    def __call__(self, tokens, rows=None, *, time=None):
        self.calls += 1
        return self.base(tokens, rows, time=time)


# --- what comes back, and what it costs -------------------------------------------------------------------


@pytest.mark.parametrize("together", [2, 5, 16, 256])
def test_items_come_back_all_and_singly(together):
    data = codec.compress(SUBJECT, ODD + LONG, together=together, plan=4)
    assert data[8:10] == struct.pack("<H", 4)
    assert returned(ODD + LONG, codec.decompress(SUBJECT, data, batch=3))
    assert codec.inspect(data).summary.kinds["coded"] == len(ODD) + len(LONG) - 3
    opened = codec.Archive(SUBJECT, data, batch=1)
    assert all(np.array_equal(opened.item(n), ODD[n]) for n in (0, 1, 2, 7, len(ODD) - 1))
    empty = codec.compress(SUBJECT, [], together=together)
    assert list(codec.decompress(SUBJECT, empty)) == []


def test_bundles_take_the_bits_of_their_items_and_little_more():
    items = [row.numpy() for row in MARKOV.sample(96, seeded(4))]
    nats = -sum(codec.scored(SUBJECT, items, codec.Settings(4)))
    alone, grouped = (codec.compress(SUBJECT, items, plan=4, together=g) for g in (1, 32))
    bits = 8 * codec.inspect(grouped).summary.coded_bytes
    assert nats / math.log(2) - 8 * 3 < bits < 1.002 * nats / math.log(2) + 8 * 3
    assert codec.inspect(alone).summary.coded_bytes > codec.inspect(grouped).summary.coded_bytes
    # 6 bytes an entry become 5 bits of size, at most, and 6 bytes a bundle
    assert len(alone) - len(grouped) > 96 * 5 - 3 * 7


def test_one_by_one_nothing_changes():
    plain = codec.compress(SUBJECT, ODD, plan=4)
    assert codec.compress(SUBJECT, ODD, plan=4, together=1) == plain
    assert plain[8:10] == struct.pack("<H", 1)
    for wrong in (0, 257):
        with pytest.raises(ValueError, match=rf"together {wrong}"):
            codec.compress(SUBJECT, ODD, together=wrong)


def test_an_item_of_a_bundle_costs_as_many_calls_as_alone():
    items, calls = [row.numpy() for row in MARKOV.sample(32, seeded(5))], []
    for together in (1, 16):
        data = codec.compress(SUBJECT, items, plan=4, together=together)
        law = Counting(MARKOV)
        opened = codec.Archive(dataclasses.replace(SUBJECT, denoiser=law), data)
        assert np.array_equal(opened.item(20), items[20])
        calls.append(law.calls)
    assert calls == [3, 3]


@pytest.mark.parametrize("order", ["random", "margin"])
def test_bundles_do_not_depend_on_batches_and_bear_noise_within_the_band(order):
    chosen = next(o for o in codec.ORDERS if o.name == order)
    here, there = (dataclasses.replace(SUBJECT, denoiser=Noisy(MARKOV, 1e-4, seed)) for seed in (1, 2))
    first, again = (
        codec.compress(SUBJECT, ITEMS, plan=3, order=chosen, together=7, batch=batch, verify=batch > 1)
        for batch in (64, 1)
    )
    assert first == again
    noisy = codec.compress(
        here, ITEMS, plan=3, order=chosen, band=1e-4, together=7, verify=False, shorter=False
    )
    assert codec.inspect(noisy).summary.kinds["coded with escapes"] > 30
    assert returned(ITEMS, codec.decompress(there, noisy, batch=16))


def test_what_the_model_cannot_say_is_stored_beside_what_it_can():
    law = laws.Permutation(6)
    possible = [row.numpy() for row in law.sample(30, seeded(0))]
    items = [*possible[:10], np.array([1, 1, 2, 3, 4, 5]), *possible[10:], np.array([9])]
    who = codec.of_denoiser(law, 6, "permutations")
    data = codec.compress(who, items, together=16)
    summary = codec.inspect(data).summary
    assert summary.kinds["coded"] == 30
    assert summary.coded_bytes <= (30 * math.log2(720) + 2 * 8) / 8
    assert returned(items, codec.decompress(who, data))


def test_items_that_coding_would_make_longer_are_stored():
    rare = laws.Markov([1 - 2e-6, 1e-6, 1e-6], [[1 - 2e-6, 1e-6, 1e-6]] * 3, 12)
    who = codec.of_denoiser(rare, 12, "rare")
    usual, odd = np.zeros(12, np.int64), np.array([1, 2] * 6)
    data = codec.compress(who, [usual, odd, usual, usual], together=4)
    summary = codec.inspect(data).summary
    assert (summary.kinds["coded"], summary.coded_bytes) == (3, 0)
    assert returned([usual, odd, usual, usual], codec.decompress(who, data))


def test_a_bundle_that_does_not_come_back_is_stored():
    class Fickle(Counting):
        def __call__(self, tokens, rows=None, *, time=None):
            return super().__call__(tokens, rows, time=time).roll(self.calls % 2, -1)

    who = dataclasses.replace(SUBJECT, denoiser=Fickle(MARKOV))
    data = codec.compress(who, ITEMS, plan=lambda n: (n,), together=8)
    assert "coded" not in codec.inspect(data).summary.kinds
    assert returned(ITEMS, codec.decompress(SUBJECT, data))


# --- damage -------------------------------------------------------------------------------------------------


def test_every_flipped_byte_is_noticed_and_costs_its_bundle():
    data = codec.compress(SUBJECT, ODD[:14], plan=4, together=4)
    opened = codec.Archive(SUBJECT, data)
    whole = container.units(opened._table(opened.places[0]))
    end = whole[-1].offset + sum(whole[-1].lengths)
    for at in range(opened.places[0].offset, len(data)):
        broken = bytearray(data)
        broken[at] ^= 0xFF if at % 3 else 0x01
        hit = [u for u in whole if u.offset <= at < u.offset + sum(u.lengths)]
        first = hit[0].members[0].number if hit else None
        with pytest.raises(ValueError, match=f"item {first}: " if hit else "field|archive|items") as error:
            list(codec.decompress(SUBJECT, bytes(broken)))
        assert "\n" not in str(error.value)
        found = list(codec.decompress(SUBJECT, bytes(broken), errors="skip"))
        lost = [n for n, item in enumerate(found) if item is None]
        if hit:
            assert lost == list(range(first, min(first + 4, 14)))
            with pytest.raises(
                codec.Damaged, match=f"item {lost[-1]}: .*bundle of items {lost[0]} to {lost[-1]}"
            ):
                codec.Archive(SUBJECT, bytes(broken)).item(lost[-1])
        elif at >= end:  # the index is only a help
            assert lost == []
        assert all(f is None or np.array_equal(f, i) for f, i in zip(found, ODD))


def archive(bundles, together, named=False, **changes):
    """An archive of these bundles whose CRCs fit."""
    header = container.read_header(io.BytesIO(codec.compress(SUBJECT, [], together=together))) | changes
    head, block = container.write_header(header), container.write_bundles(0, bundles, named)
    count = sum(len(bundle.members) for bundle in bundles)
    places = [container.Place(len(head), len(block), 0, count)]
    return head + block + container.write_index(len(head) + len(block), places, {})


def stored(sizes, payload, items):
    members = tuple(Member(True, size) for size in sizes)
    return Bundle(members, container.bundle_crc(0, payload, items), stored=(RAW, payload))


def test_the_checksum_tells_where_an_item_ends():
    sound = archive([stored((1, 2), b"\1\2\3", [b"\1", b"\2\3"])], 2)
    assert returned([np.array([1]), np.array([2, 3])], codec.decompress(SUBJECT, sound))
    moved = archive([stored((2, 1), b"\1\2\3", [b"\1", b"\2\3"])], 2)
    with pytest.raises(codec.Damaged, match="item 0: field CRC does not fit"):
        list(codec.decompress(SUBJECT, moved))


def test_bundles_in_the_place_of_others_are_noticed():
    data = codec.compress(SUBJECT, ITEMS, plan=4, together=4, verify=False)
    opened = codec.Archive(SUBJECT, data)
    whole = container.units(opened._table(opened.places[0]))
    bundles = [
        Bundle(
            tuple(Member(False, member.size) for member in unit.members),
            unit.members[0].crc,
            (unit.members[0].kind, data[unit.offset : unit.offset + unit.lengths[0]]),
        )
        for unit in whole
    ]
    head = data[: opened.header.length]
    assert (
        head + container.write_bundles(0, bundles, False)
        == data[: opened.places[0].offset + opened.places[0].length]
    )
    bundles[1], bundles[4] = bundles[4], bundles[1]
    found = list(
        codec.decompress(SUBJECT, archive(bundles, 4, method=opened.header.record["method"]), errors="skip")
    )
    assert [n for n, item in enumerate(found) if item is None] == [4, 5, 6, 7, 16, 17, 18, 19]


def test_a_truncated_archive_gives_its_whole_blocks_back():
    items = [np.array([n % 3] * (n % 4), np.int64) for n in range(600)]
    data = codec.compress(SUBJECT, items, plan=3, together=256, verify=False)
    places = codec.Archive(SUBJECT, data).places
    found = list(codec.decompress(SUBJECT, data[: places[2].offset + 9], errors="skip"))
    assert returned(items[:512], found)
    with pytest.raises(codec.Damaged, match="truncated"):
        list(codec.decompress(SUBJECT, data[:-1]))


def test_versions_and_sizes_of_bundles_are_checked():
    record = container.read_header(io.BytesIO(codec.compress(SUBJECT, [], together=4)))
    head = container.write_header(record)
    other = head[:8] + struct.pack("<H", 1) + head[10:-4]
    with pytest.raises(ValueError, match=r"together or shares of a plan, in version 1"):
        container.read_header(io.BytesIO(other + struct.pack("<I", zlib.crc32(other))))
    for wrong in (1, 257, "4", True, 2**70):
        with pytest.raises(ValueError, match="field together"):
            codec.decompress(SUBJECT, container.write_header(record | {"together": wrong}))


def test_what_bundles_claim_is_compared_with_their_size_before_anything_is_computed():
    law = Counting(MARKOV)
    who = dataclasses.replace(SUBJECT, denoiser=law)
    claims = {
        "many symbols": [Bundle((Member(False, 2**40), Member(False, 1)), 0, (CODED, b"abc"))],
        "symbols of all": [Bundle((Member(False, 2**14),) * 16, 0, (CODED, b"abc"))],
        "stored bytes": [Bundle((Member(True, 2**50), Member(True, 1)), 0, stored=(container.ZSTD, b"abc"))],
        "stored bytes of all": [Bundle((Member(True, 2**22),) * 16, 0, stored=(container.ZLIB, b"abc"))],
        "escapes": [Bundle((Member(False, 12),) * 2, 0, (container.ESCAPED, b"\xff\xff\xff\xff\x7f"))],
        "streams": [Bundle((Member(False, 12 * 300),) * 2, 0, (CODED, b""))],
    }
    for name, bundles in claims.items():
        data = archive(bundles, 16)
        with pytest.raises(codec.Damaged, match=r"item 0: (field size|.*escapes)"):
            list(codec.decompress(who, data))
        assert set(codec.decompress(who, data, errors="skip")) == {None}, name
    assert law.calls == 0
    table, _ = container.bundles.write(0, claims["escapes"], False)
    for forged in (container.varint(0) + container.varint(2**40) + table[2:], table[:-1], table + b"\0"):
        with pytest.raises(codec.Damaged):
            container.bundles.read(forged, 0, 5, False, 16)
    with pytest.raises(codec.Damaged, match="in bundles of 5 bytes"):
        container.bundles.read(container.varint(0) + container.varint(256) + b"\0" * 20, 0, 0, False, 2)


# --- sizes ---------------------------------------------------------------------------------------------------


def test_sizes_are_read_back_and_take_little_more_than_their_entropy():
    sizes = np.random.default_rng(0).normal(36, 4.5, 256).round().astype(int).tolist()
    data = counts.write([(False, size) for size in sizes])
    assert counts.read(data, 256) == [(False, size) for size in sizes]
    entropy = -sum(n * math.log2(n / 256) for n in Counter(sizes).values()) / 256
    assert 8 * len(data) / 256 < entropy + 0.6
    assert len(counts.write([(False, 784)] * 256)) <= 12
    odd = [(False, 0), (True, 1), (True, 2**62 + 5), (False, 2**40), (True, 0), (False, 3)]
    assert counts.read(counts.write(odd), 6) == odd
    assert counts.write([]) == b""


# --- parts and commands -----------------------------------------------------------------------------------------


def test_blocks_of_bundles_made_apart_make_the_archive_of_one_process(tmp_path):
    items = [np.array([n % 3] * (1 + n % 4)) for n in range(500)]
    job = codec.prepare(SUBJECT, codec.Settings(4), verify=False, together=100)
    alone, joined = io.BytesIO(), io.BytesIO()
    assert job.block_items == 200
    wanted = codec.write(alone, job, items)

    def dealt(only=None):
        pieces = bulk.Dealt(ALONE, tmp_path / "work", only)
        pieces.of(what="blocks")
        return pieces

    with pytest.raises(Partly):
        codec.write(io.BytesIO(), job, items, pieces=dealt(range(200, 400)))
    assert codec.write(joined, job, items, pieces=dealt()) == wanted
    assert wanted.items == 500
    assert joined.getvalue() == alone.getvalue()
    for length, together, size in ((12, 256, 256), (784, 16, 80), (784, 256, 256), (100_000, 2, 16)):
        long = codec.of_denoiser(MARKOV, length, "test")
        assert codec.prepare(long, together=together).block_items == size


def test_bundles_go_through_the_command_line(monkeypatch, tmp_path, capfdbinary):
    tiny = model(Characters('ab \n{}:"1'), length=12)
    for command in (compressing, decompressing):
        monkeypatch.setattr(command, "load", lambda _: tiny)

    def run(*words):
        code = main([str(w) for w in words])
        return code, *capfdbinary.readouterr()

    source, out, back = tmp_path / "in.txt", tmp_path / "o.umz", tmp_path / "back"
    bundled = ("-o", out, "--together", 2, "--calls", 3, "--quiet")
    text = b"a b\n\nba\xff\nab\r\nba"
    source.write_bytes(text)
    assert run("compress", "tiny", source, "--lines", *bundled)[0] == 0
    assert run("decompress", out, "--quiet") == (0, text, b"")
    assert run("decompress", out, "--item", 2, "--quiet")[1] == b"ba\xff"
    report = json.loads(run("inspect", out, "--json")[1])
    assert (report["version"], report["together"], report["items"]) == (5, 2, 5)
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    contents = {"a.txt": b"ab ab\n", "sub/b.txt": b"ab" * 40, "sub/c.bin": bytes(range(256)), "empty": b""}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    assert run("compress", "tiny", folder, *bundled)[0] == 0
    assert run("decompress", out, "-o", back, "--quiet")[0] == 0
    files = [path for path in back.rglob("*") if path.is_file()]
    assert {path.relative_to(back).as_posix(): path.read_bytes() for path in files} == contents
    assert (
        b"--together 300: expected 1..256"
        in run("compress", "tiny", source, "-o", out, "--lines", "--together", 300)[2]
    )
