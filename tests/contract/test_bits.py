"""Bits per byte of ``unmask eval FILE`` by hand: nats over the bytes of what was scored, in the source's own bytes."""

from __future__ import annotations

import json
import math
import re

import pytest

from unmask.command_line.app import main

pytestmark = pytest.mark.global_random  # training seeds torch's generator

NAMES = dict(
    zip("0123456789", ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
)
LETTER = "abcdefgh ijklmnop qrstuv wxyz the cat sat on a mat and so on "


@pytest.fixture
def evaluated(capsys):
    def call(*words):
        capsys.readouterr()
        code = main(["eval", *map(str, words), "--samples", "1", "--json", "--quiet"])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    return call


def bits(report, part="nelbo"):
    """Total nats of a report, bits per byte, bits per character."""
    found = report[part]
    return (
        found["nats"]["value"] * report["data"]["sequences"],
        found["bits_per_byte"]["value"],
        found["bits_per_character"]["value"],
    )


@pytest.fixture(scope="module")
def accents(tmp_path_factory):
    """A model of a stream whose symbols take one to three bytes, and its token folder."""
    folder = tmp_path_factory.mktemp("accents")
    (folder / "a.txt").write_text("né à la €uro\n" * 200, encoding="utf-8")
    words = [
        "data",
        "prepare",
        str(folder / "a.txt"),
        "-o",
        str(folder / "mine"),
        "--as",
        "characters",
        "--quiet",
    ]
    assert main([*words, "--split", "train=0.5", "test=0.5"]) == 0
    small = ["width=16", "depth=1", "heads=2", "hidden=32", "length=12"]
    fields = [f"--network.{field}" for field in small] + ["--optimiser.steps=2", "--batch-size=4"]
    words = ["train", "text", "--out", str(folder / "run"), f"--data.folder={folder / 'mine'}", "--quiet"]
    assert main([*words, *fields, "--machine.compile=false", "--machine.bfloat16=False"]) == 0
    return folder


def test_the_cut_end_and_the_final_newline_are_not_counted(evaluated, tmp_path):
    """245 letters make one stretch of 128: the other 117 are no part of the bytes."""
    (tmp_path / "t.txt").write_bytes((LETTER * 5)[:245].encode() + b"\r\n")
    report = evaluated("text", tmp_path / "t.txt")
    nats, per_byte, per_character = bits(report)
    assert per_byte == pytest.approx(nats / 128 / math.log(2))
    assert per_byte == per_character
    assert report["data"]["left_out"] == {"symbols at the end": 117}


def test_plain_text_is_filtered_and_its_bytes_are_those_of_the_filtered_text(evaluated, tmp_path):
    line = "The Café's 3 cats, “sat” on   THE mat!\r\n"
    (tmp_path / "t.txt").write_bytes((line * 20).encode())
    report = evaluated("text", tmp_path / "t.txt")
    spelt = re.sub("[0-9]", lambda d: f" {NAMES[d[0]]} ", line * 20)
    filtered = "".join(
        f" {word}"
        for word in re.findall("[a-z]+", spelt.replace("T", "t").replace("HE", "he").replace("C", "c"))
    )
    stretches = len(filtered) // 128
    nats, per_byte, _ = bits(report)
    assert report["data"]["characters"] == 128 * stretches
    assert per_byte == pytest.approx(nats / (128 * stretches) / math.log(2))
    changed = sum(c not in " abcdefghijklmnopqrstuvwxyz" for c in (line * 20).rstrip("\r\n"))
    assert report["data"]["left_out"]["characters changed"] == changed
    folder = tmp_path / "folder"
    assert (
        main(["data", "prepare", str(tmp_path / "t.txt"), "-o", str(folder), "--as", "text8", "--quiet"]) == 0
    )
    again = bits(evaluated("text", folder))
    assert again == pytest.approx(bits(report))


def test_lines_of_molecules_without_their_ends(evaluated, tmp_path):
    given = ["CCO", "c1ccccc1", "CC(=O)N"]
    for name, text in (
        ("lf", "CCO\nc1ccccc1\n\nCC(=O)N"),
        ("crlf", "\ufeffCCO\r\nc1ccccc1\r\n\r\nCC(=O)N\r\n"),
    ):
        (tmp_path / name).write_bytes(text.encode())
        report = evaluated("molecules", tmp_path / name, "--exact", "2")
        for part, items in (("nelbo", given), ("log_likelihood", None)):
            values = report[part]
            if items is not None:
                nats, per_byte, _ = bits(report)
                assert per_byte == pytest.approx(nats / sum(map(len, items)) / math.log(2))
            assert values["bits_per_byte"]["value"] == pytest.approx(values["bits_per_character"]["value"])
        assert report["data"]["left_out"] == {"blank lines": 1}


def test_records_count_bytes_and_a_draw_counts_its_own(evaluated, tmp_path):
    lines = [json.dumps({"n": "é" * n}, ensure_ascii=False).encode() for n in (1, 20, 90)]
    (tmp_path / "r.jsonl").write_bytes(b"\r\n".join(lines) + b"\r\n")
    nats, per_byte, _ = bits(evaluated("records", tmp_path / "r.jsonl"))
    assert per_byte == pytest.approx(nats / sum(map(len, lines)) / math.log(2))
    for seed in range(3):
        report = evaluated("records", tmp_path / "r.jsonl", "--num", "1", "--seed", seed)
        drawn = [line for line in lines if len(line) == report["data"]["characters"]]
        assert len(drawn) == 1
        nats, per_byte, _ = bits(report)
        assert per_byte == pytest.approx(nats / len(drawn[0]) / math.log(2))


def test_symbols_of_several_bytes_in_a_token_folder_of_a_part(evaluated, accents):
    """Bytes of the stored stretches of that part: 12 of 13 characters a line, at every offset."""
    whole = ("né à la €uro\n" * 100)[: 1300 // 12 * 12]
    report = evaluated(accents / "run", accents / "mine" / "test")
    nats, per_byte, per_character = bits(report)
    assert report["data"]["characters"] == len(whole)
    assert per_byte == pytest.approx(nats / len(whole.encode()) / math.log(2))
    assert per_character == pytest.approx(nats / len(whole) / math.log(2))
    sizes = {len(whole[i : i + 12].encode()) for i in range(0, len(whole), 12)}
    report = evaluated(accents / "run", accents / "mine" / "test", "--num", "1")
    nats, per_byte, _ = bits(report)
    assert any(per_byte == pytest.approx(nats / size / math.log(2)) for size in sizes)


def test_a_line_end_of_two_bytes_is_two_bytes_where_it_is_one_symbol(evaluated, accents, tmp_path):
    text = "né à la €uro\n" * 12
    for name, data in (("lf", text.encode()), ("crlf", text.replace("\n", "\r\n").encode())):
        (tmp_path / name).write_bytes(data)
        nats, per_byte, _ = bits(evaluated(accents / "run", tmp_path / name))
        assert per_byte == pytest.approx(nats / len(data) / math.log(2))  # 13 stretches of 12, nothing left
