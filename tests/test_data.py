"""Token folders: writing, splitting, resuming, reading back, damage; vocabularies."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest

from unmask.base import records
from unmask.data import tokens, writing
from unmask.data.prepare import READINGS, prepare
from unmask.data.readers import text
from unmask.data.readers.pieces import Piece
from unmask.data.vocabularies import (
    TEXT8,
    Bytes,
    Characters,
    Foreign,
    Levels,
    Tokenizer,
    from_record,
    to_record,
)
from unmask.data.writing import Form, encoding, folders, resuming, shards

WORDS = Characters("abcdefghij")


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(records.os, "fsync", lambda _: None)


def items(count, longest=9, seed=0):
    random = np.random.default_rng(seed)
    lengths = random.integers(1, longest + 1, count)
    return ["".join(random.choice(list(WORDS.symbols), n)) for n in lengths]


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def text_of(data):
    return data.vocabulary.decode(data.span(0, data.symbols))


# --- vocabularies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("vocabulary", [WORDS, Characters("é ☃b"), Bytes(), Levels(16)], ids=repr)
def test_vocabularies_survive_their_record(vocabulary):
    assert from_record(json.loads(json.dumps(to_record(vocabulary)))) == vocabulary


@pytest.mark.parametrize(
    ("vocabulary", "said"), [(WORDS, "jabbed"), (Characters("é ☃b"), "☃é b"), (Bytes(), "né ☃")]
)
def test_decoding_undoes_encoding(vocabulary, said):
    ids = vocabulary.encode(said)
    assert ids.dtype == np.int64
    assert vocabulary.decode(ids) == vocabulary.decode(ids.tolist()) == said


def test_a_foreign_character_is_named_with_its_place():
    with pytest.raises(Foreign, match="at 2: character '☃' is not in the vocabulary") as caught:
        WORDS.encode("ab☃c")
    assert caught.value.at == 2


@pytest.mark.parametrize("vocabulary", [WORDS, Bytes()], ids=repr)
@pytest.mark.parametrize("bad", [-1, 256])
def test_decoding_refuses_ids_that_are_no_symbols(vocabulary, bad):
    with pytest.raises(ValueError, match=f"id {bad} among symbols"):
        vocabulary.decode([0, bad])


@pytest.mark.parametrize("symbols", ["", "aba"])
def test_a_vocabulary_has_different_characters(symbols):
    with pytest.raises(ValueError, match="expected different characters"):
        Characters(symbols)


def test_symbols_know_their_bytes():
    assert Characters("aé€").bytes_of(np.array([0, 1, 2, 2])) == 1 + 2 + 3 + 3
    assert Bytes().bytes_of(np.array([255, 0])) == 2


class Pieces:
    """What a tokenizer of the package says of three tokens: a word with the space before it, half an e acute, an end."""

    def get_vocab_size(self, with_added_tokens):
        return 3

    def id_to_token(self, i):
        return ["Ġab", "Ã", "<é>"][i]

    def decode(self, ids, skip_special_tokens):
        return "".join([" ab", "\ufffd", "<é>"][i] for i in ids)


@pytest.mark.parametrize(("decoder", "size"), [("ByteLevel", 3 + 1 + 4), ("Metaspace", 3 + 3 + 4)])
def test_tokens_know_their_bytes(decoder, size):
    """Where every character of a token is a byte, half a character is one byte and no replacement character."""
    record = {"decoder": {"type": decoder}, "added_tokens": [{"id": 2, "content": "<é>"}]}
    vocabulary = Tokenizer(json.dumps(record))
    vocabulary.__dict__["_tokenizer"] = Pieces()
    assert vocabulary.bytes_of(np.array([0, 1, 2])) == size


@pytest.mark.parametrize("record", [None, {"kind": "runes"}, {"kind": "characters"}])
def test_unknown_vocabulary_records_are_refused(record):
    with pytest.raises(ValueError, match="expected a kind among"):
        from_record(record)


def test_a_tokenizer_file_is_kept_whole(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({"[UNK]": 0, "ab": 1, "c": 2}, unk_token="[UNK]")
    plain = tokenizers.Tokenizer(model)
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    (tmp_path / "x.txt").write_text("ab c ab")
    vocabulary = Tokenizer(plain.to_str())
    (data,) = prepare(
        [tmp_path / "x.txt"], tmp_path / "o", READINGS["tokenizer"], vocabulary=vocabulary, quiet=True
    )
    assert data.span(0, 3).tolist() == [1, 2, 1]
    assert data.vocabulary.size == 3
    assert data.manifest["source_bytes"] == 7


# --- what is written is read back -----------------------------------------------------------------


@pytest.mark.parametrize("shard", [1, 7, 64, 2**26])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_items_come_back_whatever_the_shards(tmp_path, shard, as_bytes):
    given = items(40)
    pieces = [Piece(g.encode() if as_bytes else g) for g in given]
    data = writing.write(tmp_path / "o", pieces, Form("items", WORDS, shard=shard), [])
    assert [data.vocabulary.decode(data.item(i)) for i in range(data.items)] == given
    assert data.longest == max(map(len, given))
    assert (
        data.symbols == data.manifest["source_bytes"] == data.manifest["characters"] == sum(map(len, given))
    )


@pytest.mark.parametrize("shard", [1, 7, 64, 2**26])
def test_every_span_of_a_stream_comes_back_whatever_the_shards(tmp_path, shard):
    given = items(12)
    data = writing.write(tmp_path / "o", map(Piece, given), Form("stream", WORDS, "windows", shard=shard), [])
    whole = WORDS.encode("".join(given))
    for start, stop in itertools.combinations(range(len(whole) + 1), 2):
        assert np.array_equal(data.span(start, stop), whole[start:stop])
    assert data.items == 0
    assert np.array_equal(data.windows(np.array([3, 0]), 5), [whole[3:8], whole[:5]])


@pytest.mark.parametrize("length", [0, 5])
def test_no_windows_are_an_empty_array(tmp_path, length):
    data = writing.write(tmp_path / "o", [Piece("abc")], Form("stream", WORDS, "windows"), [])
    for starts in ([], np.empty(0, np.int64)):
        found = data.windows(starts, length)
        assert (found.shape, found.dtype) == ((0, length), np.int64)


def test_learnt_and_given_are_the_same_symbols(tmp_path):
    one, other = (
        writing.write(tmp_path / policy, map(Piece, items(9)), Form("items", WORDS, policy), [])
        for policy in ("learnt", "given")
    )
    assert contents(one.folder)["tokens-00000.bin"] == contents(other.folder)["tokens-00000.bin"]
    assert (one.manifest["policy"], other.manifest["policy"]) == ("learnt", "given")


def test_padding_fills_up_to_the_length(tmp_path):
    data = writing.write(tmp_path / "o", [Piece("ab"), Piece("c")], Form("items", WORDS), [])
    assert data.padded(np.array([1, 0]), 3, 10).tolist() == [[2, 10, 10], [0, 1, 10]]
    with pytest.raises(ValueError, match=r"item 0 of .* has 2 symbols; expected at most 1"):
        data.padded(np.array([0]), 1, 10)


@pytest.mark.parametrize(("start", "stop"), [(-1, 1), (2, 1), (0, 4)])
def test_places_outside_are_refused(tmp_path, start, stop):
    data = writing.write(tmp_path / "o", [Piece("abc")], Form("items", WORDS), [])
    with pytest.raises(ValueError, match=r"expected 0\.\.3"):
        data.span(start, stop)
    for bad in (-1, 1):
        with pytest.raises(ValueError, match=r"expected 0\.\.0"):
            data.item(bad)


@pytest.mark.parametrize(
    ("size", "dtype"), [(2, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")]
)
def test_symbols_take_the_smallest_type_that_holds_them(tmp_path, size, dtype):
    form = Form("images", Levels(size), "none", (1, 2))
    data = writing.write(tmp_path / "o", [Piece(np.array([[0, size - 1]]))], form, [])
    assert data.manifest["dtype"] == dtype
    assert data.item(0).tolist() == [0, size - 1]
    with pytest.raises(ValueError, match=f"image 5: values 0..{size}; expected 0..{size - 1}"):
        writing.write(tmp_path / "p", [Piece(np.array([[0, size]]), "x", 5)], form, [])


def test_bytes_and_characters_are_counted_as_text_has_them(tmp_path):
    for name, said in (("text", "é☃a"), ("bytes", "é☃a".encode())):
        vocabulary = Bytes() if name == "bytes" else Characters("aé☃")
        data = writing.write(tmp_path / name, [Piece(said)], Form("items", vocabulary), [])
        assert (data.manifest["characters"], data.manifest["source_bytes"]) == (3, 6)


# --- policies and limits --------------------------------------------------------------------------


@pytest.mark.parametrize("skip", [False, True])
def test_items_that_do_not_fit_stop_the_work_or_are_counted(tmp_path, skip):
    pieces = [
        Piece("ab", "f", 1),
        Piece("", "f", 2),
        Piece("a!", "f", 3),
        Piece("abc", "f", 4),
        Piece(b"\xff", "f", 5),
    ]
    form = Form("items", WORDS, limit=2, skip=skip)
    if not skip:
        with pytest.raises(ValueError, match="f, line 3, column 2: character '!' is not in the vocabulary"):
            writing.write(tmp_path / "o", pieces, form, [])
        with pytest.raises(ValueError, match="f, line 4: 3 symbols; expected at most 2"):
            writing.write(tmp_path / "p", pieces[3:], form, [])
        with pytest.raises(ValueError, match="f, line 5, column 1: not UTF-8"):
            writing.write(tmp_path / "q", pieces[4:], form, [])
        return
    data = writing.write(tmp_path / "o", pieces, form, [])
    assert data.manifest["dropped"] == {"blank": 1, "foreign": 2, "long": 1}
    assert data.items == 1


def test_policy_none_refuses_mixed_lengths(tmp_path):
    with pytest.raises(
        ValueError, match="f, line 2: 1 symbols after items of 2; padding policy 'none' expects equal lengths"
    ):
        writing.write(
            tmp_path / "o", [Piece("ab", "f", 1), Piece("a", "f", 2)], Form("items", WORDS, "none"), []
        )


def test_a_stream_never_skips(tmp_path):
    with pytest.raises(ValueError, match="f, line 8, column 1: character '!'"):
        writing.write(
            tmp_path / "o",
            [Piece("a\n!", "f", 7)],
            Form("stream", Characters("a\n"), "windows", skip=True),
            [],
        )


def test_unknown_policies_shards_and_parts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="padding policy 'packed': expected one of given"):
        Form("items", WORDS, "packed")
    with pytest.raises(ValueError, match="shards of 0 symbols"):
        Form("items", WORDS, shard=0)
    (tmp_path / "x").write_text("a")
    for split, problem in (
        ({"a": 0.5}, "sum to 1"),
        ({"../a": 1.0}, "expected a name"),
        ({"a": 2.0, "b": -1.0}, "positive"),
    ):
        with pytest.raises(ValueError, match=problem):
            prepare([tmp_path / "x"], tmp_path / "o", READINGS["lines"], split=split, quiet=True)


def test_nothing_to_write_is_an_error_and_leaves_no_manifest(tmp_path):
    with pytest.raises(ValueError, match=r"nothing was found in f \(left out: 1 blank\)"):
        writing.write(tmp_path / "o", [Piece("")], Form("items", WORDS), [{"file": "f"}])
    assert not (tmp_path / "o" / "manifest.json").exists()


# --- interruption ---------------------------------------------------------------------------------


class Stop(Exception):
    """A power cut."""


def until(pieces, count):
    yield from itertools.islice(pieces, count)
    raise Stop


@pytest.mark.parametrize("kind", ["items", "stream"])
@pytest.mark.parametrize("shard", [5, 32])
def test_a_stopped_preparation_ends_with_the_same_bytes(tmp_path, monkeypatch, kind, shard):
    monkeypatch.setattr(encoding, "BATCH", 1)  # pieces are taken in one by one
    pieces = [
        *(Piece(g, "f", n) for n, g in enumerate(items(30), 1)),
        Piece("", "f", 31),
        Piece("a", "f", 32),
    ]
    form = Form(kind, WORDS, "learnt" if kind == "items" else "windows", shard=shard)
    writing.write(tmp_path / "whole", pieces, form, [])
    for count in (0, 1, 2, 7, 16, 29, 31, 32):
        folder = tmp_path / f"cut{count}"
        for end in (count, min(count + 3, len(pieces))):
            with pytest.raises(Stop):
                writing.write(folder, until(pieces, end), form, [])
        name = "tokens-00000.bin" if (folder / "progress.json").exists() else "progress.json"
        (folder / f".{name}.abc.tmp").touch()  # what a killed process leaves
        if (folder / "progress.json").exists():
            with pytest.raises(ValueError, match="unfinished preparation: start it again"):
                tokens.load(folder)
        writing.write(folder, pieces, form, [])
        assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.parametrize("call", range(14))
def test_a_cut_between_any_two_writes_is_made_good(tmp_path, monkeypatch, call):
    pieces, form = [Piece("abcde", label=n) for n in range(9)], Form("items", WORDS, shard=16)
    writing.write(tmp_path / "whole", pieces, form, [])
    calls = itertools.count()

    def failing(write):
        def inner(*arguments):
            if next(calls) == call:
                raise Stop
            write(*arguments)

        return inner

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_bytes", failing(shards.write_bytes))
        for module in (shards, resuming):
            patch.setattr(module, "write_text", failing(module.write_text))
        with pytest.raises(Stop):
            writing.write(tmp_path / "cut", pieces, form, [])
    writing.write(tmp_path / "cut", pieces, form, [])
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_finished_folder_is_left_alone_and_another_one_is_refused(tmp_path):
    form = Form("items", WORDS)
    first = writing.write(tmp_path / "o", [Piece("ab")], form, [])
    assert writing.write(tmp_path / "o", until([], 0), form, []) is first
    with pytest.raises(ValueError, match="holds tokens of other sources or settings"):
        writing.write(tmp_path / "o", [Piece("ab")], Form("items", Bytes()), [])
    with pytest.raises(Stop):
        writing.write(tmp_path / "p", until([Piece("ab")] * 9, 8), Form("items", WORDS, shard=2), [])
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty; expected a new folder"):
        writing.write(tmp_path / "q", [Piece("ab")], form, [])


def test_an_unfinished_folder_of_something_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(encoding, "BATCH", 1)
    with pytest.raises(Stop):
        writing.write(tmp_path / "o", until([Piece("ab")] * 9, 8), Form("items", WORDS, shard=2), [])
    with pytest.raises(ValueError, match="unfinished preparation of other sources"):
        writing.write(tmp_path / "o", [Piece("ab")] * 9, Form("items", WORDS, shard=3), [])


@pytest.mark.parametrize("kind", ["items", "stream"])
def test_a_refused_preparation_makes_way_for_the_corrected_one(tmp_path, kind):
    policy = "learnt" if kind == "items" else "windows"
    pieces, wide = [Piece("ab"), Piece("a!")], Characters("ab!")
    with pytest.raises(ValueError, match="'!' is not in the vocabulary"):
        writing.write(tmp_path / "o", pieces, Form(kind, WORDS, policy), [])
    (tmp_path / "o" / "mine.txt").write_text("mine")
    writing.write(tmp_path / "o", pieces, Form(kind, wide, policy), [])
    writing.write(tmp_path / "new", pieces, Form(kind, wide, policy), [])
    assert contents(tmp_path / "o") == contents(tmp_path / "new") | {"mine.txt": b"mine"}


@pytest.mark.parametrize("cut", ["ends-00000.bin", "labels-00000.bin", "progress.json"])
def test_a_cut_first_shard_leaves_nothing_to_other_settings(tmp_path, monkeypatch, cut):
    labelled, plain = ([Piece("abc", label=label) for label in marks] for marks in ((0, 1), (None, None)))
    started = []

    def failing(write):
        def inner(path, data):
            if path.name == cut and (cut != "progress.json" or started):
                raise Stop
            started.append(path)
            write(path, data)

        return inner

    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_bytes", failing(shards.write_bytes))
        for module in (shards, resuming):
            patch.setattr(module, "write_text", failing(module.write_text))
        with pytest.raises(Stop):
            writing.write(tmp_path / "o", labelled, Form("items", WORDS), [])
    assert (tmp_path / "o" / "tokens-00000.bin").exists()
    writing.write(tmp_path / "o", plain, Form("items", Bytes()), [])
    writing.write(tmp_path / "new", plain, Form("items", Bytes()), [])
    assert contents(tmp_path / "o") == contents(tmp_path / "new")


def test_too_little_disk_is_said_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "x").write_text("word " * 100_000)
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    with pytest.raises(ValueError, match=r"about 0.6 MB are needed, 0.1 MB are free"):
        prepare([tmp_path / "x"], tmp_path / "new" / "o", READINGS["text8"], quiet=True)
    assert not (tmp_path / "new").exists()


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tokens-00001.bin", "ends-00001.bin", "labels-00001.bin"])
def test_damage_is_found_and_named_with_its_place(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tokens, "BLOCK", 8)
    pieces = [Piece(g, label=n) for n, g in enumerate(items(40))]
    writing.write(tmp_path / "o", pieces, Form("items", WORDS, shard=50), [])
    tokens.verify(tmp_path / "o")
    path = tmp_path / "o" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:10] + bytes([whole[10] ^ 1]) + whole[11:])
    with pytest.raises(ValueError, match=f"{name} is damaged between byte 8 and 16"):
        tokens.verify(tmp_path / "o")


def test_short_missing_and_foreign_folders_are_refused(tmp_path):
    folder = tmp_path / "o"
    writing.write(folder, [Piece("abc")], Form("items", WORDS), [])
    manifest = folder / "manifest.json"
    good = manifest.read_text()
    for changed, problem in (
        (good.replace('"unmask tokens"', '"other"'), "format other"),
        (good.replace('"dtype"', '"type"'), "lacks 'dtype'"),
        ("{", "not JSON"),
    ):
        manifest.write_text(changed)
        with pytest.raises(ValueError, match=problem):
            tokens.load(folder)
    manifest.write_text(good)
    (folder / "tokens-00000.bin").write_bytes(b"ab")
    with pytest.raises(ValueError, match="has 2 bytes; expected 3 bytes"):
        tokens.load(folder)
    (folder / "tokens-00000.bin").unlink()
    with pytest.raises(ValueError, match="is missing"):
        tokens.load(folder)
    with pytest.raises(ValueError, match=r"holds no manifest\.json"):
        tokens.load(tmp_path)


# --- parts ----------------------------------------------------------------------------------------


def test_a_stream_is_cut_in_order_every_file_for_itself(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name * 100)
    split = {"train": 0.7, "valid": 0.1, "test": 0.2}
    parts = prepare([tmp_path], tmp_path / "new", READINGS["characters"], split=split, quiet=True)
    assert [text_of(p) for p in parts] == ["a" * 70 + "b" * 70, "a" * 10 + "b" * 10, "a" * 20 + "b" * 20]
    assert [p.folder.name for p in parts] == list(split)
    assert parts[2].manifest["part"] == {"name": "test", "shares": split, "seed": 0}


@pytest.mark.parametrize("format", ["lines", "characters", "bytes"])
def test_parts_together_are_the_whole(tmp_path, monkeypatch, format):
    monkeypatch.setattr(text, "BLOCK", 64)
    (tmp_path / "x").write_text("\n".join(items(200)))
    split = {"train": 0.5, "valid": 0.25, "test": 0.25}
    parts = prepare([tmp_path / "x"], tmp_path / "p", READINGS[format], split=split, quiet=True)
    (whole,) = prepare([tmp_path / "x"], tmp_path / "w", READINGS[format], quiet=True)
    if format == "lines":
        together = [tuple(p.item(i)) for p in parts for i in range(p.items)]
        assert sorted(together) == sorted(tuple(whole.item(i)) for i in range(whole.items))
        assert all(0.7 < p.items / (200 * share) < 1.3 for p, share in zip(parts, split.values()))
    else:
        assert "".join(map(text_of, parts)) == text_of(whole)
    assert {p.vocabulary for p in parts} == {whole.vocabulary}


def test_equal_items_stay_together_and_the_seed_decides(tmp_path):
    (tmp_path / "x").write_text("\n".join(items(60) * 3))
    found = []
    for seed in (0, 0, 1):
        folder = tmp_path / f"o{len(found)}"
        one, other = prepare(
            [tmp_path / "x"], folder, READINGS["lines"], split={"a": 0.5, "b": 0.5}, seed=seed, quiet=True
        )
        sets = [{tuple(p.item(i)) for i in range(p.items)} for p in (one, other)]
        assert not sets[0] & sets[1]
        found.append(sets)
    assert found[0] == found[1] != found[2]


# --- text -----------------------------------------------------------------------------------------


def test_text8_is_what_the_perl_filter_makes():
    given = "Été 42,\n\n  the (K)-9's\tEnd. A"  # expected: the output of Mahoney's script
    assert text.text8(given) == " t four two the k nine s end a"
    assert set(text.text8("Zero0 ÄÖ x")) <= set(TEXT8)


@pytest.mark.parametrize("block", [1, 3, 16, 2**20])
def test_blocks_leave_no_trace(tmp_path, monkeypatch, block):
    monkeypatch.setattr(text, "BLOCK", block)
    said = "Ein Wört 7\r\nnoch eins\n\n☃ end\n" * 3
    (tmp_path / "x.txt").write_bytes(said.encode())
    (data,) = prepare([tmp_path / "x.txt"], tmp_path / "c", READINGS["characters"], quiet=True)
    assert text_of(data) == said
    (data,) = prepare([tmp_path / "x.txt"], tmp_path / "t", READINGS["text8"], quiet=True)
    assert text_of(data) == text.text8(said)
    lines = said.splitlines(True)
    for piece in text.characters(tmp_path / "x.txt"):
        assert piece.data.strip().split("\n")[0].strip() in "".join(lines[piece.line - 1 : piece.line + 1])


@pytest.mark.parametrize("block", [4, 2**20])
def test_what_is_not_utf8_is_found_at_its_byte(tmp_path, monkeypatch, block):
    monkeypatch.setattr(text, "BLOCK", block)
    (tmp_path / "x").write_bytes("aé bcd é".encode() + b"\xff rest")
    with pytest.raises(ValueError, match=r"not UTF-8 at byte 10 \(0xff\)"):
        list(text.characters(tmp_path / "x"))


def test_a_foreign_character_of_a_file_is_named_with_line_and_column(tmp_path):
    (tmp_path / "x").write_text("abc\nab!d\n")
    for format in ("characters", "lines"):
        with pytest.raises(ValueError, match="x, line 2, column 3: character '!'"):
            prepare(
                [tmp_path / "x"],
                tmp_path / format,
                READINGS[format],
                vocabulary=Characters("abcd\n"),
                quiet=True,
            )
