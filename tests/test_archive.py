"""The file: it gives back what went in, or says which item is lost and why."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import zlib
from functools import partial
from itertools import pairwise

import golden_archives
import numpy as np
import pytest
import torch
from helpers import CHAIN, seeded

from unmask import codec, laws, plans
from unmask.base.progress import Partly
from unmask.codec import container, subjects
from unmask.command_line.app import main
from unmask.command_line.commands.archives import compress as compressing
from unmask.command_line.commands.archives import decompress as decompressing
from unmask.data.vocabularies import SMILES, Bytes, Characters, Levels, to_record
from unmask.denoisers import from_logits
from unmask.models import Model
from unmask.networks import Transformer
from unmask.training.together import bulk
from unmask.training.together.world import ALONE

MARKOV = laws.Markov([0.2, 0.5, 0.3], CHAIN, 12)
SUBJECT = codec.of_denoiser(MARKOV, 12, "test")
ITEMS = [row.numpy() for row in MARKOV.sample(8, seeded(0))]
ODD = [np.zeros(0, np.int64), np.array([2]), np.array([7, 250]), np.full(90, 200), *ITEMS[:2]]


def returned(items, found):
    found = list(found)
    return len(found) == len(items) and all(np.array_equal(a, b) for a, b in zip(items, found))


def model(vocabulary, length=16, extra=0, **settings):
    """An untrained model of texts, images or bytes."""
    size = vocabulary.size + extra
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = Transformer(size, length, 16, 1, 2, rotary=True, **settings)
        torch.nn.init.normal_(net.head.weight, std=0.2)
    side = int(length**0.5)
    config = {"name": "tiny", "network": net.config, "vocabulary": to_record(vocabulary)}
    return Model(
        "tiny",
        from_logits(net, size, size),
        lambda images: torch.as_tensor(np.asarray(images).reshape(len(images), -1).astype(np.int64)),
        lambda rows: rows.numpy().astype(np.uint8).reshape(-1, side, side),
        config,
        vocabulary=vocabulary,
        **({"order": "random"} if "order" in {f.name for f in dataclasses.fields(Model)} else {}),
    )


# --- what comes back ------------------------------------------------------------------------------------


def test_edge_cases_come_back():
    data = codec.compress(SUBJECT, ODD)
    assert returned(ODD, codec.decompress(SUBJECT, data))
    kinds = codec.inspect(data).summary.kinds
    assert kinds == {"coded": 4, "stored": 1, "zstd": 1}
    assert list(codec.decompress(SUBJECT, codec.compress(SUBJECT, []))) == []
    assert len(codec.Archive(SUBJECT, codec.compress(SUBJECT, []))) == 0


def test_one_item_reads_its_block_and_its_payload_only():
    items = [np.array([n % 3] * (n % 5), np.int64) for n in range(700)]
    data = codec.compress(SUBJECT, items, plan=4, verify=False)

    class Counting(io.BytesIO):
        count = 0

        def read(self, size=-1):
            found = super().read(size)
            self.count += len(found)
            return found

    file = Counting(data)
    opened = codec.Archive(SUBJECT, file)
    before = file.count
    assert [np.array_equal(opened.item(n), items[n]) for n in (699, 0, 256, 255)] == [True] * 4
    tables = sum(
        container.read_table(io.BytesIO(data), p.offset, len(data), False)[1] * 0 + 1 for p in opened.places
    )
    assert tables == 3
    assert file.count - before < 4 * 256 * 8
    assert len(opened) == 700
    assert returned(items, opened.items())
    with pytest.raises(ValueError, match=r"item 700: expected 0\.\.699"):
        opened.item(700)


def test_texts_bytes_and_images_come_back_as_what_they_were(tmp_path):
    smiles = model(Characters(SMILES), extra=1, ends=True)
    texts = ["CCO", "", "c1ccccc1", "C" * 16, "C" * 17, "N\u00e4h", "\udc80", "CC\n"]
    data = codec.compress(smiles, texts)
    assert list(codec.decompress(smiles, data)) == texts
    raw = [t.encode("utf-8", "surrogatepass") for t in texts] + [b"\xff\xfe"]
    assert list(codec.decompress(smiles, codec.compress(smiles, iter(raw)))) == raw
    stream = model(Characters("ab \n"))
    book = ["ab ba\n" * 100, "a", "A"]
    assert list(codec.decompress(stream, codec.compress(stream, book, plan=8))) == book
    octets = model(Bytes(), extra=1, ends=True)
    records = [b'{"a": 1}', "\u00e4".encode(), b"\0\xff", b"x" * 400]
    assert list(codec.decompress(octets, codec.compress(octets, records))) == records
    grey = model(Levels(256))
    images = [np.random.default_rng(n).integers(0, 256, (4, 4)).astype(np.uint8) for n in range(3)]
    images += [np.zeros((4, 5), np.uint8), np.ones((4, 4, 3), np.uint8)]
    path = tmp_path / "images.umz"
    path.write_bytes(codec.compress(grey, images, plan=4))
    found = list(codec.decompress(grey, path))
    assert returned(images, found)
    assert [i.dtype for i in found] == [np.uint8] * 5
    assert [i.shape for i in found] == [i.shape for i in images]


def test_items_of_another_kind_are_refused_by_number():
    with pytest.raises(ValueError, match=r"item 1: it is a str; expected whole numbers \[n\]"):
        codec.compress(SUBJECT, [ITEMS[0], "text"])
    with pytest.raises(ValueError, match=r"item 0: it is a ndarray of float64 \[2\]"):
        codec.compress(SUBJECT, [np.array([0.5, 1])])
    with pytest.raises(ValueError, match="item 0: symbol 256"):
        codec.compress(SUBJECT, [np.array([256])])
    assert returned(
        [ITEMS[0]], codec.decompress(SUBJECT, codec.compress(SUBJECT, [torch.as_tensor(ITEMS[0])]))
    )


def test_upscaled_images_go_stage_by_stage():
    from unmask.networks import UNet, UNetConfig
    from unmask.variants import upscale

    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = UNetConfig(vocab_size=16, height=4, width=4, features=8, blocks=1, heads=1, patch=1, stages=2)
        net = upscale.Upscaled(UNet(shape), 4, 16)
    config = {"name": "tiny", "network": {"vocab_size": 4, "levels": 16, "length": 32}, "vocabulary": None}
    tiny = dataclasses.replace(
        model(Levels(16)),
        denoiser=from_logits(net, 4, 4),
        encode=lambda images: upscale.encode_digits(
            torch.as_tensor(images.reshape(len(images), -1)).long(), 4, 16
        ),
        decode=lambda rows: upscale.situation(rows, 4, 16).levels.numpy().astype(np.uint8).reshape(-1, 4, 4),
        config=config,
    )
    images = [np.random.default_rng(n).integers(0, 16, (4, 4)).astype(np.uint8) for n in range(3)]
    assert subjects.of_model(tiny).block == 16
    data = codec.compress(tiny, images, plan=lambda n: (n // 2, n - n // 2))
    assert returned(images, codec.decompress(tiny, data, batch=1))
    assert codec.inspect(data).summary.kinds["stored"] <= 3


# --- damage ---------------------------------------------------------------------------------------------


def readable(data, items):
    """Every item comes back right or as None; how many are lost."""
    found = list(codec.decompress(SUBJECT, data, errors="skip"))
    assert len(found) <= len(items)
    assert all(f is None or np.array_equal(f, i) for f, i in zip(found, items))
    return sum(f is None for f in found) + len(items) - len(found)


def test_every_flipped_byte_is_noticed_and_the_other_items_stay():
    data = codec.compress(SUBJECT, ITEMS, plan=4, band=1e-4)
    opened = codec.Archive(SUBJECT, data)
    listed = opened._table(opened.places[0])
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 0xFF if at % 3 else 0x01
        hit = [e.number for e in listed if e.offset <= at < e.offset + e.length]
        with pytest.raises(ValueError, match=f"item {hit[0]}: " if hit else "field|archive|items") as error:
            list(codec.decompress(SUBJECT, bytes(broken)))
        assert "\n" not in str(error.value)
        if hit:
            assert readable(bytes(broken), ITEMS) == 1
        elif at >= listed[-1].offset + listed[-1].length:  # the index is only a help
            assert readable(bytes(broken), ITEMS) == 0


def test_every_truncation_is_noticed():
    data = codec.compress(SUBJECT, ITEMS, plan=4)
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"truncated|no unmask archive"):
            list(codec.decompress(SUBJECT, data[:length]))
    many = [np.array([n % 3] * 3) for n in range(600)]
    long = codec.compress(SUBJECT, many, plan=3, verify=False)
    places = codec.Archive(SUBJECT, long).places
    found = list(codec.decompress(SUBJECT, long[: places[2].offset + 9], errors="skip"))
    assert returned(many[:512], found)
    hole = bytearray(long)
    hole[places[1].offset + 20] ^= 1
    for broken in (bytes(hole), bytes(hole[:-5])):
        found = list(codec.decompress(SUBJECT, broken, errors="skip"))
        assert [n for n, item in enumerate(found) if item is None] == list(range(256, 512))
        assert returned(many[512:], found[512:])
    with pytest.raises(codec.Damaged, match="items 256 to 511: field block CRC"):
        list(codec.decompress(SUBJECT, bytes(hole)))


def test_swapped_items_are_noticed():
    data = codec.compress(SUBJECT, ITEMS, plan=4, verify=False)
    listed = codec.Archive(SUBJECT, data)._table(codec.Archive(SUBJECT, data).places[0])
    first, second = next((a, b) for a, b in pairwise(listed) if a.length == b.length)
    payloads = [data[e.offset : e.offset + e.length] for e in (first, second)]
    swapped = bytearray(data)
    swapped[first.offset : second.offset + second.length] = payloads[1] + payloads[0]
    assert readable(bytes(swapped), ITEMS) == 2
    # and in the table too, as one who repairs CRCs would: the number of an item is part of its CRC
    entries = [container.Entry(e.kind, e.size, e.crc, data[e.offset : e.offset + e.length]) for e in listed]
    entries[0], entries[1] = entries[1], entries[0]
    place = codec.Archive(SUBJECT, data).places[0]
    block = container.write_block(0, entries, named=False)
    forged = data[: place.offset] + block + data[place.offset + place.length :]
    assert readable(forged, ITEMS) == 2


def test_other_models_versions_and_methods_are_refused():
    data = codec.compress(SUBJECT, ITEMS)
    with pytest.raises(ValueError, match=r"field model: written with 'test' .*, got 'other'"):
        codec.decompress(codec.of_denoiser(MARKOV, 12, "other"), data)
    with pytest.raises(ValueError, match="field version: 6, expected 1 to 5: install a newer unmask"):
        codec.decompress(SUBJECT, data[:8] + struct.pack("<H", 6) + data[10:])
    with pytest.raises(ValueError, match=r"field magic: .*no unmask archive"):
        codec.decompress(SUBJECT, b"PK\3\4" + data)
    wrapper = codec.Wrapper("warm", lambda d: d)
    wrapped = codec.compress(SUBJECT, ITEMS, wrapper=wrapper)
    with pytest.raises(ValueError, match="field wrapper: written with 'warm', got ''"):
        codec.decompress(SUBJECT, wrapped)
    own = codec.compress(SUBJECT, ITEMS, order=codec.Order("mine", codec.RANDOM.make))
    with pytest.raises(ValueError, match="field order: 'mine' is not among"):
        codec.decompress(SUBJECT, own)
    with pytest.raises(ValueError, match="errors 'ignore'"):
        codec.decompress(SUBJECT, data, errors="ignore")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("plan", 0), ("plan", {"12": [[5, 2]]}), ("plan", None), ("band", 1), ("band", 0.5), ("grid", 2), ("seed", -1),
        ("substeps", 0), ("block", "a"), ("order", 3), ("wrapper", None),
    ],
)  # fmt: skip
def test_headers_that_make_no_sense_name_the_field(name, value):
    data = codec.compress(SUBJECT, ITEMS)
    file = io.BytesIO(data)
    record = container.read_header(file)
    record["method"][name] = value
    with pytest.raises(ValueError, match=name):
        codec.decompress(SUBJECT, container.write_header(record) + data[file.tell() :])


def test_sizes_that_a_forger_claims_are_not_believed():
    huge = container.Entry(container.CODED, 2**50, 0, b"abc")
    stored = container.Entry(container.ZSTD, 2**50, 0, b"abc")
    deflated = container.Entry(container.ZLIB, 2**50, 0, zlib.compress(b"abc"))
    escaped = container.Entry(container.ESCAPED, 12, 0, b"\xff\xff\xff\xff\x7f")
    data = codec.compress(SUBJECT, [])
    header = data[: codec.Archive(SUBJECT, data).header.length]
    block = container.write_block(0, [huge, stored, deflated, escaped], named=False)
    places = [container.Place(len(header), len(block), 0, 4)]
    forged = header + block + container.write_index(len(header) + len(block), places, {})
    assert list(codec.decompress(SUBJECT, forged, errors="skip")) == [None] * 4


NAMES = ["", "one heavy chain", "two heavy chain", "\udcff\n", "one heavy chain" * 40]


def in_table(names, named):
    """The bytes of a block of empty items of these names, and the names that are read from it."""
    block = container.write_block(
        0, [container.Entry(container.RAW, 0, 0, b"", name) for name in names], named
    )
    listed, end = container.read_table(io.BytesIO(block), 0, len(block), named)
    assert (end, len(listed)) == (len(block), len(names))
    return block, [entry.name for entry in listed]


@pytest.mark.parametrize("names", [NAMES, [], [""], ["a"], ["x" * 5000] * 256, list("abc")])
def test_names_come_back_packed_or_not_and_packed_ones_are_shorter(names):
    plain, alone = in_table(names, 1)
    packed, together = in_table(names, container.PACKED_NAMES)
    assert alone == together == names
    assert len(packed) <= len(plain) + 3
    alike = [f"chain {i} of a mouse, heavy" for i in range(100)]
    assert 2 * len(in_table(alike, container.PACKED_NAMES)[0]) < len(in_table(alike, 1)[0])


def test_packed_names_are_bounded_by_their_table_and_damage_is_noticed():
    bomb = zlib.compress(b"\0" * 2**24, 9)
    for size, count in ((2**24, 4), (2**50, 4), (3, 4), (0, 4), (0, 0)):
        with pytest.raises(codec.Damaged, match="names of the block are damaged, or more than 256 bytes"):
            container.names.unpack(container.varint(size) + bomb, 0, count)
    one = container.names.write("x" * 2**22)
    with pytest.raises(codec.Damaged, match="more than 256 bytes"):
        container.names.unpack(container.varint(len(one)) + zlib.compress(one, 9), 0, 1)
    sound = container.names.pack(["a chain"] * 50, 10**6)
    for cut in range(1, len(sound)):
        with pytest.raises(codec.Damaged):
            container.names.unpack(sound[:cut], 0, 50)
    for count in (49, 51, 0):
        with pytest.raises(codec.Damaged):
            container.names.unpack(sound, 0, count)
    with pytest.raises(codec.Damaged):
        container.names.unpack(sound + b"x", 0, 50)


def test_the_version_tells_how_names_stand():
    record = container.read_header(io.BytesIO(codec.compress(SUBJECT, [])))
    for names, version in (({}, 1), ({"names": "packed"}, 2)):
        head = container.write_header(record | names)
        assert head[8:10] == struct.pack("<H", version)
        other = head[:8] + struct.pack("<H", 3 - version) + head[10:-4]
        with pytest.raises(ValueError, match=r"field names: .* in version"):
            container.read_header(io.BytesIO(other + struct.pack("<I", zlib.crc32(other))))


# --- golden, parts, commands ------------------------------------------------------------------------------


def test_golden_archives_decode_for_ever():
    folder = golden_archives.FOLDER
    for name, who, items in (
        ("archive-v1.umz", golden_archives.law(), golden_archives.LAW_ITEMS),
        ("archive-v1-margin.umz", golden_archives.law(), golden_archives.LAW_ITEMS),
        ("archive-v1-network.umz", golden_archives.network(), golden_archives.NETWORK_ITEMS),
        ("archive-v3-threshold.umz", golden_archives.network(), golden_archives.NETWORK_ITEMS),
        ("archive-v3-table.umz", golden_archives.law(), golden_archives.LAW_ITEMS),
        ("archive-v4.umz", golden_archives.law(), golden_archives.LAW_ITEMS),
        ("archive-v5.umz", golden_archives.law(), golden_archives.LAW_ITEMS),
        ("archive-v5-network.umz", golden_archives.network(), golden_archives.NETWORK_ITEMS),
        ("archive-v4-network.umz", golden_archives.network(), golden_archives.NETWORK_ITEMS),
    ):
        data = (folder / name).read_bytes()
        assert returned(items, codec.decompress(who, data, batch=2)), name
        assert codec.inspect(data).summary.symbols > 40


def test_blocks_of_several_calls_make_the_archive_of_one(tmp_path):
    """Whole blocks are not made again; the header does not tell items apart, but blocks do."""
    items = [np.array([n % 3] * (1 + n % 4)) for n in range(900)]
    job, alone, joined = codec.prepare(SUBJECT, codec.Settings(4), verify=False), io.BytesIO(), io.BytesIO()
    wanted = codec.write(alone, job, items)

    def dealt(only=None):
        pieces = bulk.Dealt(ALONE, tmp_path / "work", only)
        pieces.of(what="blocks")
        return pieces

    for first, made in ((0, 2), (512, 4)):
        with pytest.raises(Partly):
            codec.write(io.BytesIO(), job, items, pieces=dealt(range(first, first + 512)))
        assert len(list((tmp_path / "work").glob("blocks-*"))) == made
    heard = []
    summary = codec.write(joined, job, items, pieces=dealt(), advance=lambda n, _: heard.append(n))
    assert joined.getvalue() == alone.getvalue()
    assert summary == wanted
    assert summary.source_bytes == sum(map(len, items))
    assert heard == [256, 512, 768, 900]
    other, changed = io.BytesIO(), io.BytesIO()
    codec.write(other, job, items[::-1])
    codec.write(changed, job, items[::-1], pieces=dealt())
    assert changed.getvalue() == other.getvalue() != alone.getvalue()


def test_a_failed_compression_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.umz"
    path.write_bytes(b"old")
    job = codec.prepare(SUBJECT, returns="symbols")
    with pytest.raises(ValueError, match="item 1"), codec.replacing(path) as file:
        codec.write(file, job, [ITEMS[0], "text"])
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.fixture
def tiny(monkeypatch):
    """A model of few characters that the command line finds by any name."""
    found = model(Characters('ab \n{}:"1'), length=12)
    for command in (compressing, decompressing):
        monkeypatch.setattr(command, "load", lambda _: found)
    return found


def run(capfdbinary, *words):
    code = main([str(w) for w in words])
    return code, *capfdbinary.readouterr()


def test_lines_go_through_the_command_line(tiny, tmp_path, capfdbinary):
    for text in (b"a b\n\nba\xff\nab", b"a\r\nb\n", b"", b"\n", b"a"):
        source, out, back = tmp_path / "in.txt", tmp_path / "o.umz", tmp_path / "back.txt"
        source.write_bytes(text)
        assert (
            run(capfdbinary, "compress", "tiny", source, "-o", out, "--lines", "--calls", 4, "--quiet")[0]
            == 0
        )
        assert run(capfdbinary, "decompress", out, "--quiet") == (0, text, b"")
        assert run(capfdbinary, "decompress", out, "-o", back, "--quiet")[0] == 0
        assert back.read_bytes() == text
    source.write_bytes(b"a b\n\nba\xff\nab")
    run(capfdbinary, "compress", "tiny", source, "-o", out, "--jsonl", "--quiet")
    assert run(capfdbinary, "decompress", out, "--item", 2, "--quiet")[1] == b"ba\xff"
    code, text, _ = run(capfdbinary, "inspect", out, "--json")
    report = json.loads(text)
    assert (code, report["items"], report["kinds"]) == (0, 4, {"coded": 3, "stored": 1})
    assert run(capfdbinary, "inspect", out)[0] == 0
    broken = bytearray(out.read_bytes())
    entry = codec.Archive(tiny, bytes(broken))._table(codec.Archive(tiny, bytes(broken)).places[0])[0]
    broken[entry.offset] ^= 0xFF
    out.write_bytes(broken)
    code, text, errors = run(capfdbinary, "decompress", out, "--quiet", "-o", tmp_path / "no.txt")
    assert code == 2
    assert errors.startswith(b"unmask: item 0: ")
    assert not (tmp_path / "no.txt").exists()
    code, text, _ = run(capfdbinary, "decompress", out, "--quiet", "--skip")
    assert (code, text) == (1, b"\n\nba\xff\nab")


@pytest.mark.parametrize(
    ("words", "order", "substeps"),
    [
        ((), "left-to-right", 1),
        (("--calls", 6), "left-to-right", 3),  # 4 steps of 3: 4 passes and 2 more
        (("--calls", 3), "bisection", 1),
        (("--calls", 3, "--order", "bisection"), "bisection", 1),
        (("--calls", 3, "--order", "confidence", "--substeps", 2), "confidence", 2),
    ],
)
def test_the_order_suits_model_and_calls(monkeypatch, tiny, tmp_path, capfdbinary, words, order, substeps):
    own = dataclasses.replace(tiny, config=tiny.config | {"order": "left-to-right"})
    for command in (compressing, decompressing):
        monkeypatch.setattr(command, "load", lambda _: own)
    source, out = tmp_path / "in.txt", tmp_path / "o.umz"
    source.write_bytes(b"a b\nba\n")
    assert run(capfdbinary, "compress", "tiny", source, "-o", out, "--lines", *words, "--quiet")[0] == 0
    report = json.loads(run(capfdbinary, "inspect", out, "--json")[1])
    assert (report["order"], report["substeps"]) == (order, substeps)
    assert run(capfdbinary, "decompress", out, "--quiet")[1] == b"a b\nba\n"


def test_the_header_holds_plans_for_the_lengths_that_occur(tiny):
    items = [b"a b", b"abab", b"baa", b"no \xff"]
    data = codec.compress(codec.of_model(tiny), items, plan=lambda n: plans.uniform(n, 2))
    found = codec.inspect(data).header.method.plan
    assert {n: tuple(sizes) for n, sizes in found.items()} == {3: (2, 1), 4: (2, 2)}
    assert list(codec.decompress(codec.of_model(tiny), data)) == items


def test_the_header_of_the_command_holds_one_plan_whatever_the_lengths(tiny, tmp_path, capfdbinary):
    source, out = tmp_path / "in.txt", tmp_path / "o.umz"
    for content in (b"a b\nabab\nba1\nno \xff\n", b"\n".join(b"ab"[: n % 3] * n for n in range(40)) + b"\n"):
        source.write_bytes(content)
        assert (
            run(capfdbinary, "compress", "tiny", source, "-o", out, "--lines", "--calls", 4, "--quiet")[0]
            == 0
        )
        report = json.loads(run(capfdbinary, "inspect", out, "--json")[1])
        assert (report["version"], report["plan"]) == (5, {"in_proportion": {"12": 4}})
        assert (
            b"4 calls for 12 positions, fewer for fewer in proportion" in run(capfdbinary, "inspect", out)[1]
        )
        assert run(capfdbinary, "decompress", out, "--quiet")[1] == content


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("streamed", [False, True])
def test_rows_of_every_length_take_their_share_of_one_plan(together, streamed):
    subject, shares = golden_archives.network(), partial(plans.in_proportion, (1, 2, 3, 4))
    items = golden_archives.NETWORK_ITEMS
    settings = {"together": together, "order": codec.LEFT_TO_RIGHT, "shorter": False}
    given = (lambda: iter(items)) if streamed else (lambda: items)
    data = codec.compress(subject, given(), plan=shares, **settings)
    assert returned(items, codec.decompress(subject, data, batch=2))
    each = codec.compress(subject, items, plan=lambda n: shares(n), **settings)
    sizes = [codec.inspect(a).summary.payload_bytes for a in (data, each)]
    assert sizes[0] == sizes[1]  # the same steps, said otherwise
    assert len(data) < len(each)
    scored = [codec.scored(subject, items, codec.Settings(plan=p)) for p in (shares, lambda n: shares(n))]
    assert scored[0] == scored[1]


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        (partial(plans.in_proportion, (1, 3)), "in proportion of 4 positions; expected 10 to 10"),
        (partial(plans.in_proportion, (4,) * 10), "in proportion of 40 positions; expected 10 to 10"),
        (partial(plans.in_proportion, (4, 0, 6)), "of 1 or more positions each"),
        (partial(plans.in_proportion), "expected the sizes of its steps alone"),
        (partial(plans.in_proportion, (4, 6), 3), "expected the sizes of its steps alone"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_plan_in_proportion_that_does_not_fit_is_refused(plan, problem, streamed):
    items = golden_archives.NETWORK_ITEMS
    with pytest.raises(ValueError, match=problem):
        codec.compress(golden_archives.network(), iter(items) if streamed else items, plan=plan)


def test_a_plan_in_proportion_may_be_of_any_whole_numbers():
    items = golden_archives.NETWORK_ITEMS
    plain, odd = (
        codec.compress(golden_archives.network(), items, plan=partial(plans.in_proportion, sizes))
        for sizes in ([4, 6], torch.tensor([4, 6]))
    )
    assert plain == odd


def test_files_and_folders_go_through_the_command_line(tiny, tmp_path, capfdbinary):
    folder, out, back = tmp_path / "in", tmp_path / "o.umz", tmp_path / "back"
    (folder / "sub").mkdir(parents=True)
    contents = {"a.txt": b"ab ab\n", "sub/b.txt": b"ab" * 40, "sub/c.bin": bytes(range(256)), "empty": b""}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    assert run(capfdbinary, "compress", "tiny", folder, "-o", out, "--quiet", "--json")[0] == 0
    assert run(capfdbinary, "decompress", out, "-o", back, "--quiet")[0] == 0
    assert {
        p.relative_to(back).as_posix(): p.read_bytes() for p in back.rglob("*") if p.is_file()
    } == contents
    code, _, errors = run(capfdbinary, "decompress", out, "-o", back, "--quiet")
    assert code == 2
    assert b"exists; expected an empty place" in errors
    assert run(capfdbinary, "decompress", out, "--quiet")[0] == 2
    for name in ("../x", "/x", "", "a/../../x"):
        with pytest.raises(ValueError, match="expected a name inside the folder"):
            decompressing._inside(tmp_path, name)
    for words in (
        ("--lines", "--images"),
        ("--calls", 99),
        ("--order", "halton"),
        ("--images",),
        (folder / "a.txt",),
        ("missing",),
        ("-",),
    ):
        code, _, errors = run(
            capfdbinary, "compress", "tiny", *words, folder / "a.txt", "-o", tmp_path / "no"
        )
        assert code == 2, words
        assert errors.count(b"\n") == 1
    assert not (tmp_path / "no").exists()


def test_images_go_through_the_command_line(monkeypatch, tmp_path, capfdbinary):
    image = pytest.importorskip("PIL.Image")
    grey = model(Levels(256))
    for command in (compressing, decompressing):
        monkeypatch.setattr(command, "load", lambda _: grey)
    folder, out, back = tmp_path / "in", tmp_path / "o.umz", tmp_path / "back"
    folder.mkdir()
    pixels = {n: np.random.default_rng(n).integers(0, 256, (4, 4 + n)).astype(np.uint8) for n in range(2)}
    for n, values in pixels.items():
        image.fromarray(values).save(folder / f"{n}.{'png' if n else 'pgm'}")
    several = np.stack([pixels[0], pixels[0] // 2])
    (folder / "x-images.idx").write_bytes(
        bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 4, 4) + several.tobytes()
    )
    assert run(capfdbinary, "compress", "g", folder, "-o", out, "--images", "--calls", 4, "--quiet")[0] == 0
    assert run(capfdbinary, "decompress", out, "-o", back, "--quiet")[0] == 0
    found = {p.relative_to(back).as_posix(): np.asarray(image.open(p)) for p in back.rglob("*.png")}
    assert sorted(found) == ["0.png", "1.png", "x-images.idx/000000.png", "x-images.idx/000001.png"]
    assert returned([pixels[0], pixels[1], *several], [found[name] for name in sorted(found)])
    image.fromarray(np.zeros((4, 4, 4), np.uint8)).save(folder / "clear.png")
    code, _, errors = run(capfdbinary, "compress", "g", folder, "-o", out, "--images", "--quiet")
    assert code == 2
    assert b"without transparency" in errors


def test_blocks_of_long_rows_have_fewer_items():
    for length, size in ((12, 256), (784, 83), (100_000, 16)):
        assert codec.prepare(codec.of_denoiser(MARKOV, length, "test")).block_items == size


def test_the_summary_counts_what_was_written():
    job = codec.prepare(SUBJECT, returns="symbols")
    file = io.BytesIO()
    summary = codec.write(file, job, ODD)
    assert summary.source_bytes == sum(map(len, ODD))
    assert summary.bytes == len(file.getvalue())
    seen = codec.inspect(file.getvalue()).summary
    assert (seen.items, seen.kinds, seen.symbols) == (summary.items, summary.kinds, 25)
    assert seen.bits_per_symbol == 8 * seen.coded_bytes / 25
